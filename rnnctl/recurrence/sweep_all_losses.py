"""The reverse recurrence of many losses at once: one block of gradients, one product per step.

Time-major as in ``rnnctl.recurrence.elman``; row j of a block belongs to the loss at step
``last - 1 - j``, so that a loss that sets in at an earlier step is appended at the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.recurrence.elman import slope_from_state

# Steps between two looks at the magnitudes: at a factor of 2**6 per step float32 still holds.
RESCALE_EVERY = 16
# Rows within 2**16 of 1 are left alone.
NEAR_ONE = 16


@dataclass(frozen=True)
class LossBlock:
    """What all losses from step t on send to step t.

    Attributes:
        t: the step.
        norm: of ``2**exponents`` times dL_k/dh_t, shape (losses,).
        delta: ``2**exponents`` times dL_k/da_t, shape (losses, batch, hidden); a view into a
            buffer that the next block overwrites.
        exponents: of the rows' scales, shape (losses,), float64; the next block may change them.
        weights: ``2**-exponents``, shape (losses,), in the dtype of ``delta``.
    """

    t: int
    norm: Tensor
    delta: Tensor
    exponents: Tensor
    weights: Tensor


def reverse_by_loss_step(
    h: Float[Tensor, "time_plus_1 batch hidden"],
    grad_h_direct: Float[Tensor, "time batch hidden"],
    W_hh: Float[Tensor, "hidden hidden"],
    nonlinearity: str,
    first: int,
    last: int,
) -> Iterator[LossBlock]:
    """dL_k/da_t of the losses at steps first .. last - 1, for t = last - 1 down to 0.

    Args:
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).
        grad_h_direct: dL_k/dh_k through y_k, shape (time, batch, hidden).
        W_hh: shape (hidden, hidden).
        nonlinearity: "tanh" or "relu".
        first, last: which losses.
    Yields:
        One block per step.
    Source: as ``reverse_chunks``, for every loss by itself.
    """
    batch, hidden = h.shape[1:]
    block, spare = h.new_empty(2, last - first, batch, hidden).unbind(0)
    # Row j sets in at step last - 1 - j.
    own = grad_h_direct[first:last].flip(0)
    exponents = torch.zeros(last - first, dtype=torch.float64, device=h.device)
    weights = h.new_ones(last - first)
    _rescale(own, exponents, weights)
    slope = torch.empty_like(h[0])
    for t in range(last - 1, -1, -1):
        active = min(last - t, last - first)
        if t >= first:
            block[active - 1] = own[active - 1]
        now = block[:active]
        if t % RESCALE_EVERY == 0:
            _rescale(now, exponents[:active], weights[:active])
        norm = torch.linalg.vector_norm(now.view(active, -1), dim=1)
        slope_from_state(h[t + 1], nonlinearity, out=slope)
        yield LossBlock(t, norm, now.mul_(slope), exponents[:active], weights[:active])
        torch.mm(now.view(-1, hidden), W_hh, out=spare[:active].view(-1, hidden))
        block, spare = spare, block


def _rescale(rows: Tensor, exponents: Tensor, weights: Tensor) -> None:
    """Bring rows that are far from magnitude 1 back to it, by powers of two, and note it."""
    largest = torch.linalg.vector_norm(rows.flatten(1), float("inf"), dim=1)
    powers = torch.frexp(largest).exponent
    far = (powers.abs() > NEAR_ONE) & (largest > 0) & torch.isfinite(largest)
    found = far.nonzero().squeeze(1)
    if found.numel() == 0:
        return
    by = -powers[found]
    # In two factors: 2**149 itself is beyond float32.
    half = by // 2
    ones = torch.ones_like(largest[found])
    scales = [torch.ldexp(ones, part).view(-1, 1, 1) for part in (half, by - half)]
    rows[found] = rows[found] * scales[0] * scales[1]
    exponents[found] += by.double()
    weights[found] = torch.exp2(-exponents[found]).to(weights.dtype)
