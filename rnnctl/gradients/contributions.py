"""Norms and sum of the contributions G_t = delta[t]^T h_{t-1}, from chunks of the sweep."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.recurrence.elman import ReverseChunk, chunk_steps
from rnnctl.recurrence.scaling import power_of_two, times_power_of_two

# Within 2**20 of 1, squares of float32 values keep clear of underflow and overflow.
NEAR_ONE = 20


class Contributions:
    """Accumulates what one reverse sweep says, chunk by chunk.

    Attributes, all float64 on the CPU except ``grad_W_hh``:
        log_norm_h: ln ||dL/dh_t||, shape (time,); -inf where it is 0.
        log_norm_W_hh: ln ||G_t||, shape (time,).
        grad_W_hh: sum of G_t over all steps, shape (hidden, hidden), float64 on the device.
    """

    def __init__(self, h: Float[Tensor, "time_plus_1 batch hidden"]) -> None:
        self.h = h
        seq_len, hidden = h.shape[0] - 1, h.shape[2]
        self.log_norm_h = torch.empty(seq_len, dtype=torch.float64)
        self.log_norm_W_hh = torch.empty(seq_len, dtype=torch.float64)
        self.grad_W_hh = h.new_zeros(hidden, hidden, dtype=wide_dtype(h))

    def add(self, chunk: ReverseChunk) -> None:
        """Take in one chunk of the sweep."""
        steps = slice(chunk.start, chunk.stop)
        h, exponent = near_one(self.h[steps])
        exponent += chunk.exponent
        total, norm = contribution_norms(chunk.delta, h)
        self.log_norm_h[steps] = chunk.log_norm
        self.log_norm_W_hh[steps] = norm.cpu().log() - exponent * math.log(2)
        self.grad_W_hh.add_(total, alpha=math.ldexp(1.0, -exponent) if exponent > -1024 else math.inf)


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """float64, or float32 where the device has nothing wider."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def near_one(tensor: Tensor) -> tuple[Tensor, int]:
    """The tensor scaled to magnitude 1 if it is far from it, and the exponent of the scale."""
    power = power_of_two(tensor)
    if power is None or abs(power) <= NEAR_ONE:
        return tensor, 0
    return times_power_of_two(tensor, -power), -power


def sweep_dtype(tensor: Tensor) -> Tensor:
    """The tensor in the dtype of the sweep: float32 for float16 and bfloat16, else its own."""
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def step_norms(block: Float[Tensor, "time batch hidden"]) -> Float[Tensor, " time"]:
    """Norm of each step of a (time, batch, hidden) block, float64 on the CPU, a chunk at a time."""
    seq_len, batch, hidden = block.shape
    steps = chunk_steps(seq_len, batch, hidden, itemsize=8)
    starts = range(0, seq_len, steps)
    parts = [_row_norms(block[start : start + steps].flatten(1)).cpu() for start in starts]
    return torch.cat(parts).double()


def contribution_norms(
    delta: Float[Tensor, "time batch hidden"], h: Float[Tensor, "time batch hidden"]
) -> tuple[Float[Tensor, "hidden hidden"], Float[Tensor, " time"]]:
    """Sum over time of G_t, and the Frobenius norm of each, without the digits lost to cancelling.

    Args:
        delta: dL/da_t, any scale near 1, shape (time, batch, hidden).
        h: h_{t-1}, shape (time, batch, hidden).
    Returns:
        Sum of G_t, shape (hidden, hidden), and norms, shape (time,), float64.
    Source: ||G||^2 = sum over b, b' of (delta_b . delta_b')(h_b . h_b'), as in the ghost norm of
        Goodfellow 2015, arXiv:1510.01799.
    """
    batch, hidden = delta.shape[1:]
    if batch == 1:
        return _total(delta, h), (_row_norms(delta) * _row_norms(h)).squeeze(1)
    # In float64 the Gram form would lose half of the digits; for large batches it costs more.
    if delta.dtype == torch.float64 or hidden <= 4 * batch:
        return _direct(delta, h)
    return _total(delta, h), _gram(delta, h)


def _total(delta: Tensor, h: Tensor) -> Tensor:
    return delta.flatten(0, 1).t() @ h.flatten(0, 1)


def _gram(delta: Tensor, h: Tensor) -> Tensor:
    """Norms from (batch, batch) Gram matrices in float64, whose rounding float32 cannot see."""
    delta, h = delta.to(wide_dtype(delta)), h.to(wide_dtype(h))
    squares = ((delta @ delta.mT) * (h @ h.mT)).sum((1, 2))
    return squares.clamp_min_(0).sqrt_()


def _direct(delta: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Norms from the (hidden, hidden) products themselves; one at a time stays in cache."""
    hidden = delta.shape[2]
    total, product = delta.new_zeros(hidden, hidden), delta.new_empty(hidden, hidden)
    norms = delta.new_empty(delta.shape[0])
    for delta_t, h_t, norm in zip(delta.unbind(0), h.unbind(0), norms.unbind(0), strict=True):
        torch.mm(delta_t.t(), h_t, out=product)
        torch.linalg.vector_norm(product, out=norm)
        total.add_(product)
    return total, norms.to(wide_dtype(delta))


def _row_norms(rows: Tensor) -> Tensor:
    """Norms over the last axis, in float64: squares of small float32 values would vanish."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=wide_dtype(rows))
    return norms
