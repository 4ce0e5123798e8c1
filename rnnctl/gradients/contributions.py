"""Norms and sum of the contributions G_t = delta[t]^T h_{t-1}, from chunks of the sweep."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.recurrence.scaling import is_safe, power_of_two, row_norms, times_power_of_two
from rnnctl.recurrence.sweep import CHUNK_BYTES, ReverseChunk

# Within 2**20 of 1, squares of float32 values keep clear of underflow and overflow.
NEAR_ONE = 20
# Samples that cancel to less than this share of their sizes leave too few digits of a norm from Gram matrices.
CANCELLING = 0.02
# What a product of its own costs a step beside its multiply-adds, in multiply-adds: calls, and passes over its numbers.
CALLS, PASSES = 300_000, 20


class Contributions:
    """Accumulates what one reverse sweep says, chunk by chunk.

    Args:
        rows: of W_hh, (gates * hidden); hidden if left out.
        gates: into how many blocks of rows W_hh falls.

    Attributes:
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).
        grad_W_hh: sum of G_t over all steps, shape (rows, hidden), float64 on the device.
    """

    def __init__(
        self,
        h: Float[Tensor, "time_plus_1 batch hidden"],
        *,
        rows: int | None = None,
        gates: int = 1,
    ) -> None:
        self.h, self._gates = h, gates
        hidden = h.shape[2]
        self.grad_W_hh = h.new_zeros(hidden if rows is None else rows, hidden, dtype=wide_dtype(h))
        self._products = takes_products(h, gates)
        self._parts: list[_Part] = []

    def add(self, chunk: ReverseChunk) -> None:
        """Take in one chunk of the sweep."""
        h, own = near_one(self.h[chunk.start : chunk.stop])
        exponent = chunk.exponent + own
        total, norms = gate_contributions(chunk.delta, h, self._products, self._gates)
        self._parts.append(_Part(chunk.norm, _delta_norm(chunk), chunk.exponent, norms.cpu().double(), exponent))
        # Beyond float64's range ldexp would raise, where autograd's own sum would be infinite.
        self.grad_W_hh.add_(total, alpha=math.ldexp(1.0, -exponent) if exponent > -1024 else math.inf)

    @cached_property
    def log_grad_norm_h(self) -> Float[Tensor, " time"]:
        """ln ||dL/dh_t||, shape (time,), float64 on the CPU; -inf where it is 0."""
        return torch.cat([part.norm_h.log() - math.log(2) * part.exponent_h for part in reversed(self._parts)])

    @cached_property
    def grad_norm_h(self) -> Float[Tensor, " time"]:
        """||dL/dh_t||, shape (time,), float64 on the CPU."""
        return _unscaled([(part.norm_h, part.exponent_h) for part in reversed(self._parts)])

    @cached_property
    def grad_norm_gates(self) -> Float[Tensor, "time gates"]:
        """The norm of every gate's rows of G_t, shape (time, gates), float64 on the CPU."""
        return _unscaled([(part.norms, part.exponent) for part in reversed(self._parts)])

    @cached_property
    def grad_norm_W_hh(self) -> Float[Tensor, " time"]:
        """||G_t||, shape (time,), float64 on the CPU."""
        parts = reversed(self._parts)
        return _unscaled([(torch.linalg.vector_norm(part.norms, dim=1), part.exponent) for part in parts])

    @cached_property
    def magnitude(self) -> float:
        """Sum over t of ||delta_t|| ||h_{t-1}||, an upper bound of sum ||G_t||."""
        norm = _unscaled([(part.norm_delta, part.exponent_h) for part in reversed(self._parts)])
        return float((norm * step_norms(self.h[:-1])).sum())


@dataclass(frozen=True)
class _Part:
    """Norms of one chunk, dL/dh and delta scaled by 2**exponent_h, those of G_t by 2**exponent."""

    norm_h: Tensor
    norm_delta: Tensor
    exponent_h: int
    norms: Tensor
    exponent: int


def _delta_norm(chunk: ReverseChunk) -> Tensor:
    """A bound of ||delta_t||: of an Elman cell dL/dh_t is one, whose norm is known already."""
    if chunk.delta.shape == chunk.grad_h.shape:
        return chunk.norm
    return row_norms(chunk.delta.flatten(1)).double().cpu()


def _unscaled(parts: list[tuple[Tensor, int]]) -> Tensor:
    """All norms, each part having been scaled by 2**exponent. No logarithm: those wake threads for little."""
    return torch.cat([times_power_of_two(norm, -exponent) for norm, exponent in parts])


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """float64, or float32 where the device of a tensor of any shape has nothing wider."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def near_one(tensor: Tensor) -> tuple[Tensor, int]:
    """The tensor, of any shape, scaled to magnitude 1 if it is far from it, and the exponent of the scale."""
    power = power_of_two(tensor)
    if power is None or abs(power) <= NEAR_ONE:
        return tensor, 0
    return times_power_of_two(tensor, -power), -power


def sweep_dtype(tensor: Tensor) -> Tensor:
    """The tensor, of any shape, in the dtype of the sweep: float32 for float16 and bfloat16, else its own."""
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def step_norms(block: Float[Tensor, "time batch hidden"]) -> Float[Tensor, " time"]:
    """Norm of each step of a (time, batch, hidden) block, float64 on the CPU, a chunk at a time."""
    seq_len, batch, hidden = block.shape
    steps = max(1, 2 * CHUNK_BYTES // (block.element_size() * batch * hidden))
    if seq_len <= steps:
        return _safe_norms(block.flatten(1)).cpu().double()
    starts = range(0, seq_len, steps)
    parts = [_safe_norms(block[start : start + steps].flatten(1)).cpu() for start in starts]
    return torch.cat(parts).double()


def _safe_norms(rows: Tensor) -> Tensor:
    """Norms of rows in their own dtype where no square leaves its range, else in float64."""
    norms = row_norms(rows)
    if rows.dtype == torch.float32:
        norms = norms.to(wide_dtype(rows))
        unsafe = ~is_safe(norms, rows.dtype)
        if bool(unsafe.any()):
            norms[unsafe] = _row_norms(rows[unsafe])
    return norms


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
    total, norms = gate_contributions(delta, h, products, 1)
    return total, norms.squeeze(1)


def gate_contributions(
    delta: Float[Tensor, "time batch rows"], h: Float[Tensor, "time batch hidden"], products: bool, gates: int
) -> tuple[Float[Tensor, "rows hidden"], Float[Tensor, "time gates"]]:
    """As ``contribution_norms``, with a norm for each of ``gates`` equal blocks of rows."""
    # Of one sequence G_t is a column times a row, whose norm is the product of theirs.
    if delta.shape[1] == 1:
        by_gate = delta.view(delta.shape[0], gates, -1)
        return _total(delta, h), _row_norms(by_gate) * _row_norms(h)
    if products:
        total, norms = _direct(delta, h, gates)
        careful = ~is_safe(norms, delta.dtype)
    else:
        norms, bounds, safe = _gram(delta, h, gates)
        total, careful = _total(delta, h), ~(safe & (norms > CANCELLING * bounds))
    return total, _taken_again(norms, careful.any(dim=1), delta, h)


def takes_products(block: Tensor, gates: int = 1) -> bool:
    """Whether to form every G_t: where the batch is large, Gram matrices over it cost more.

    Args:
        block: the states or the like, shape (time, batch, hidden).
        gates: as of ``gate_contributions``.
    """
    batch, hidden = block.shape[1:]
    # Their sum is one more product for Gram matrices, and comes of itself where every G_t is formed.
    return (gates + 1) * batch**2 * hidden > CALLS + PASSES * gates * hidden**2


def _total(delta: Tensor, h: Tensor) -> Tensor:
    return delta.flatten(0, 1).t() @ h.flatten(0, 1)


def _taken_again(norms: Tensor, careful: Tensor, delta: Tensor, h: Tensor) -> Tensor:
    """The norms, (time, gates), those of some steps from something with more digits or a wider range."""
    if bool(careful.any()):
        delta, h = delta[careful], h[careful]
        wide, gates = wide_dtype(delta), norms.shape[1]
        if delta.dtype == wide:
            norms[careful] = _direct(delta, h, gates)[1]
        else:
            # Float64 has twice the digits of float32, and may lose half of them.
            norms[careful] = _gram(delta.to(wide), h.to(wide), gates)[0]
    return norms


def _gram(delta: Tensor, h: Tensor, gates: int) -> tuple[Tensor, Tensor, Tensor]:
    """Norms from (batch, batch) Gram matrices, their bounds and whether they are safe, each (time, gates).

    The bound is the sum over the batch of ||delta|| ||h||; not safe is what squares underflow or overflow in.
    """
    wide, found = wide_dtype(delta), []
    grams_h = torch.bmm(h, h.mT)
    squares_h = grams_h.diagonal(dim1=1, dim2=2)
    size_h = squares_h.sum(1).sqrt_()
    for rows in delta.chunk(gates, dim=2):
        grams = torch.bmm(rows, rows.mT)
        squares = grams.diagonal(dim1=1, dim2=2)
        size, bound = squares.sum(1).sqrt_(), (squares * squares_h).sqrt_().sum(1)
        safe = is_safe(torch.stack([size, size_h, bound]), delta.dtype).all(dim=0)
        # The terms have both signs: where they cancel, rounding may leave less than 0.
        norm = grams.mul_(grams_h).sum((1, 2)).to(wide).clamp_min_(0).sqrt_()
        found.append((norm, bound.to(wide), safe))
    norms, bounds, are_safe = (torch.stack(parts, dim=1) for parts in zip(*found, strict=True))
    return norms, bounds, are_safe


def _direct(delta: Tensor, h: Tensor, gates: int) -> tuple[Tensor, Tensor]:
    """Norms from the (rows, hidden) products themselves; one at a time stays in cache."""
    shape = delta.shape[2], h.shape[2]
    total, product = delta.new_zeros(shape), delta.new_empty(shape)
    by_gate, norms = product.view(gates, -1), []
    for delta_t, h_t in zip(delta.unbind(0), h.unbind(0), strict=True):
        torch.mm(delta_t.t(), h_t, out=product)
        total.add_(product)
        norms.append(row_norms(by_gate))
    return total, torch.stack(norms).to(wide_dtype(delta))


def _row_norms(rows: Tensor) -> Tensor:
    """Norms over the last axis, in float64: squares of small float32 values would vanish."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=wide_dtype(rows))
    return norms
