"""Norms and sum of the contributions G_t = delta[t]^T h_{t-1}, from chunks of the sweep."""

import math
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.recurrence.elman import ReverseChunk, chunk_steps
from rnnctl.recurrence.scaling import power_of_two, times_power_of_two

# Within 2**20 of 1, squares of float32 values keep clear of underflow and overflow.
NEAR_ONE = 20


class Contributions:
    """Accumulates what one reverse sweep says, chunk by chunk.

    Args:
        products: whether every G_t is formed; by ``takes_products`` if left out.

    Attributes:
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).
        grad_W_hh: sum of G_t over all steps, shape (hidden, hidden), float64 on the device.
    """

    def __init__(self, h: Float[Tensor, "time_plus_1 batch hidden"], products: bool | None = None) -> None:
        self.h = h
        self._products = takes_products(h) if products is None else products
        batch, hidden = h.shape[1:]
        self.grad_W_hh = h.new_zeros(hidden, hidden, dtype=wide_dtype(h))
        # The Gram form works in float64 and minds tiny states as little as the product of two norms.
        power = power_of_two(h)
        self._rescale = self._products or power is None or abs(power) > NEAR_ONE
        self._parts: list[tuple[Tensor, int, Tensor, int]] = []

    def add(self, chunk: ReverseChunk) -> None:
        """Take in one chunk of the sweep."""
        h = self.h[chunk.start : chunk.stop]
        h, own = near_one(h) if self._rescale else (h, 0)
        exponent = chunk.exponent + own
        total, norm = contribution_norms(chunk.delta, h, self._products)
        self._parts.append((chunk.norm, chunk.exponent, norm, exponent))
        self.grad_W_hh.add_(total, alpha=math.ldexp(1.0, -exponent) if exponent > -1024 else math.inf)

    @cached_property
    def log_norm_h(self) -> Float[Tensor, " time"]:
        """ln ||dL/dh_t||, shape (time,), float64 on the CPU; -inf where it is 0."""
        return _logarithms([(norm, exponent) for norm, exponent, _, _ in reversed(self._parts)])

    @cached_property
    def log_norm_W_hh(self) -> Float[Tensor, " time"]:
        """ln ||G_t||, shape (time,), float64 on the CPU; -inf where it is 0."""
        return _logarithms([(norm, exponent) for _, _, norm, exponent in reversed(self._parts)])

    @cached_property
    def magnitude(self) -> float:
        """Sum over t of ||dL/dh_t|| ||h_{t-1}||, an upper bound of sum ||G_t||."""
        return float((self.log_norm_h.exp() * step_norms(self.h[:-1])).sum())


def _logarithms(parts: list[tuple[Tensor, int]]) -> Tensor:
    """ln of all norms, each part having been scaled by 2**exponent."""
    norms = torch.cat([norm for norm, _ in parts]).cpu().double()
    lengths = torch.tensor([norm.shape[0] for norm, _ in parts])
    exponents = torch.tensor([exponent for _, exponent in parts], dtype=torch.float64)
    return norms.log() - math.log(2) * exponents.repeat_interleave(lengths)


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
    delta: Float[Tensor, "time batch hidden"], h: Float[Tensor, "time batch hidden"], products: bool
) -> tuple[Float[Tensor, "hidden hidden"], Float[Tensor, " time"]]:
    """Sum over time of G_t, and the Frobenius norm of each, without the digits lost to cancelling.

    Args:
        delta: dL/da_t, any scale near 1, shape (time, batch, hidden).
        h: h_{t-1}, shape (time, batch, hidden).
        products: whether every G_t is formed, or Gram matrices over the batch.
    Returns:
        Sum of G_t, shape (hidden, hidden), and norms, shape (time,), float64.
    Source: ||G||^2 = sum over b, b' of (delta_b . delta_b')(h_b . h_b'), as in the ghost norm of
        Goodfellow 2015, arXiv:1510.01799.
    """
    if delta.shape[1] == 1:
        return _total(delta, h), (_row_norms(delta) * _row_norms(h)).squeeze(1)
    if products:
        return _direct(delta, h)
    return _total(delta, h), _gram(delta, h)


def takes_products(block: Tensor) -> bool:
    """Whether to form every G_t: Gram matrices of float64 lose half its digits, large ones cost more."""
    batch, hidden = block.shape[1:]
    return batch > 1 and (block.dtype == torch.float64 or hidden <= 4 * batch)


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
