"""Norms of many gradients as they pass by: of small ones many at a time, of large ones at once."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# Between these the squares of float32 neither underflow nor overflow where it matters.
SMALL, LARGE = 1e-15, 1e15
# Up to so many numbers a norm costs more in calls than in arithmetic, so that many are taken together.
FEW_NUMBERS = 4096
# So many numbers wait at most: they stay in the cache.
MOST_WAITING = 1 << 18


def norm_of(grad: Tensor) -> float:
    """The Frobenius norm of a gradient of any shape and dtype, to all digits of the dtype at any magnitude."""
    wide = grad if grad.dtype.itemsize >= 4 else grad.float()
    norm = float(torch.linalg.vector_norm(wide))
    if _is_safe(norm, wide):
        return norm
    if _fits_float64(wide):
        return float(torch.linalg.vector_norm(wide, dtype=torch.float64))
    scaled, largest = _near_one(wide)
    return norm if scaled is None else float(torch.linalg.vector_norm(scaled)) * largest


def _is_safe(norm: float, of: Tensor) -> bool:
    """Whether the squares behind a norm of a tensor of any shape stayed within the range of its dtype."""
    small, large = (SMALL, LARGE) if of.dtype.itemsize < 8 or of.dtype == torch.complex64 else (SMALL**10, LARGE**10)
    return small < norm < large


def widest(like: Tensor) -> torch.dtype:
    """The dtype in which gradients of any shape are added up: float64 where the device has it, or its complex twin."""
    if like.is_complex():
        return torch.complex128
    return torch.float32 if like.device.type == "mps" else torch.float64


def _near_one(wide: Tensor) -> tuple[Tensor | None, float]:
    """A gradient over its largest number, and that; None where there is nothing to scale."""
    largest = float(torch.linalg.vector_norm(wide, math.inf)) if wide.numel() else 0.0
    if largest == 0 or not math.isfinite(largest):
        return None, largest
    # Its inverse may be beyond the dtype where the number is not.
    return wide / largest, largest


def norms_of(grads: Sequence[Tensor]) -> list[float]:
    """The norm of each of several gradients, all of one shape and dtype."""
    if len(grads) == 1:
        return [norm_of(grads[0])]
    return norms_along(torch.stack(list(grads)))


def norms_along(stacked: Tensor) -> list[float]:
    """The norm of each part along the first axis of a tensor, shape (parts, ...)."""
    if len(stacked) == 1:
        # A norm over everything is several times faster than one along an axis.
        return [norm_of(stacked[0])]
    wide = stacked if stacked.dtype.itemsize >= 4 else stacked.float()
    flat = wide.reshape(len(wide), -1)
    norms: list[float] = torch.linalg.vector_norm(flat, dim=1).tolist()
    if all(_is_safe(norm, wide) for norm in norms):
        return norms
    if _fits_float64(wide):
        wider: list[float] = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64).tolist()
        return wider
    return [norm if _is_safe(norm, wide) else norm_of(part) for norm, part in zip(norms, stacked, strict=True)]


def _fits_float64(wide: Tensor) -> bool:
    """Whether no square of its numbers is too small or too large for float64."""
    return wide.dtype == torch.float32 and wide.device.type != "mps"


class NormBook:
    """Gradients that wait for their norm; what waits is not changed by autograd, which sees that it is held."""

    def __init__(self) -> None:
        self.norms: dict[Hashable, float] = {}
        self._waiting: dict[Any, list[tuple[Hashable, Tensor]]] = {}
        self._numbers = 0

    def add(self, key: Hashable, grad: Tensor) -> None:
        """Note the norm of a gradient of any shape under a key, in place of one that was there."""
        count = grad.numel()
        if count > FEW_NUMBERS:
            self.norms[key] = norm_of(grad)
            return
        self._waiting.setdefault((grad.shape, grad.dtype), []).append((key, grad))
        self._numbers += count
        if self._numbers > MOST_WAITING:
            self.settle()

    def settle(self) -> None:
        """Take the norms of all that waits."""
        for waiting in self._waiting.values():
            found = norms_of([grad for _, grad in waiting])
            self.norms.update(zip((key for key, _ in waiting), found, strict=True))
        self._waiting.clear()
        self._numbers = 0

    def clear(self) -> None:
        """Forget everything."""
        self.norms.clear()
        self._waiting.clear()
        self._numbers = 0


class SummedBook:
    """Gradients of one part of a weight, use by use: the norms of their columns, and their sum.

    Args:
        runs: None for one norm of all; else along which axis, counted from the last, and by name which columns.
    Attributes:
        norms: by name and use.
        total: the sum, in the shape that the part has there, at least float32; None before there is any.
        narrowest: the least precise dtype that came.
    """

    def __init__(self, runs: "Runs | None") -> None:
        names = (WHOLE,) if runs is None else tuple(runs.columns)
        self.norms: dict[str, dict[Hashable, float]] = {name: {} for name in names}
        self.total: Tensor | None = None
        self.narrowest: torch.dtype | None = None
        self._runs = runs
        self._waiting: list[tuple[Hashable, Tensor]] = []
        self._numbers = 0

    def add(self, use: Hashable, grad: Tensor) -> None:
        """Take in what came to a use, of the shape that the part has there."""
        count = grad.numel()
        if count > FEW_NUMBERS:
            if self._runs is None:
                self.norms[WHOLE][use] = norm_of(grad)
            else:
                for name, (norm,) in self._runs.norms(grad.unsqueeze(0)).items():
                    self.norms[name][use] = norm
            self.add_up(grad)
            return
        self._waiting.append((use, grad))
        self._numbers += count
        if self._numbers > MOST_WAITING:
            self.settle()

    def settle(self) -> None:
        """Take the norms of all that waits, and add it up."""
        if not self._waiting:
            return
        uses = [use for use, _ in self._waiting]
        stacked = torch.stack([grad for _, grad in self._waiting])
        found = {WHOLE: norms_along(stacked)} if self._runs is None else self._runs.norms(stacked)
        for name, values in found.items():
            self.norms[name].update(zip(uses, values, strict=True))
        self.add_up(stacked.sum(0, dtype=_summed_in(stacked.dtype)), stacked.dtype)
        self._waiting.clear()
        self._numbers = 0

    def clear(self) -> None:
        """Forget everything."""
        for norms in self.norms.values():
            norms.clear()
        self._waiting.clear()
        self._numbers, self.total = 0, None

    def add_up(self, grad: Tensor, dtype: torch.dtype | None = None) -> None:
        """Add to the sum, of the shape that the part has there, what came in this dtype."""
        if self.total is not None:
            self.total.add_(grad)
            return
        self.total = grad.to(_summed_in(grad.dtype), copy=True)
        self.narrowest = dtype or grad.dtype


def _summed_in(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.itemsize >= 4 else torch.float32


# The name of the one norm of a weight that multiplies the state as a whole.
WHOLE = "state"


@dataclass(frozen=True, eq=False)
class Runs:
    """Columns of a gradient that are measured apart.

    Attributes:
        axis: along which they lie, counted from the last.
        columns: by name, as runs, where each starts and how many there are; each column in one of them.
    """

    axis: int
    columns: Mapping[str, Sequence[tuple[int, int]]]
    _buffers: dict[Any, Tensor] = field(default_factory=dict)

    def norms(self, stacked: Tensor) -> dict[str, list[float]]:
        """By name, of each gradient along the first axis, shape (gradients, ...)."""
        wide = stacked.abs() if stacked.is_complex() else stacked if stacked.dtype.itemsize >= 4 else stacked.float()
        # Squares of all at once, then column by column: narrow slices lie apart in memory, and take five times as long.
        sums = self._sums(self._squares(wide))
        if _fits_float64(wide) and not all(
            _is_safe(math.sqrt(each), wide) for row in sums for each in row if each >= 0
        ):
            # Nothing at all, as where a gradient has vanished, is soon seen to be nothing.
            if not float(torch.linalg.vector_norm(wide, math.inf)):
                return {name: [0.0] * len(wide) for name in self.columns}
            wide = self._buffer(wide, torch.float64).copy_(wide)
            sums = self._sums(wide.square())
        rows = [self._roots(part, row) for part, row in zip(wide, sums, strict=True)]
        return {name: [row[place] for row in rows] for place, name in enumerate(self.columns)}

    def _sums(self, squares: Tensor) -> list[list[float]]:
        """Of squares, shape (gradients, ...), the sums over the columns of each name, by gradient."""
        axis = squares.dim() + self.axis
        others = [each for each in range(1, squares.dim()) if each != axis]
        by_column = squares.sum(others) if others else squares
        found: list[list[float]] = (by_column @ self._members(by_column)).tolist()
        return found

    def _roots(self, grad: Tensor, sums: Sequence[float]) -> list[float]:
        """Of the sums of squares of one gradient, or of it brought near 1 where they are too small or too large."""
        norms = [math.sqrt(each) if each >= 0 else math.nan for each in sums]
        if all(_is_safe(norm, grad) for norm in norms):
            return norms
        scaled, largest = _near_one(grad)
        if scaled is None:
            return norms
        return [math.sqrt(each) * largest for each in self._sums(scaled.square().unsqueeze(0))[0]]

    def _members(self, squares: Tensor) -> Tensor:
        """1 where a column is in a run, shape (columns, runs)."""
        if ("members", squares.dtype) not in self._buffers:
            members = squares.new_zeros(squares.shape[1], len(self.columns))
            for number, runs in enumerate(self.columns.values()):
                for start, length in runs:
                    members[start : start + length, number] = 1
            self._buffers["members", squares.dtype] = members
        return self._buffers["members", squares.dtype]

    def _squares(self, wide: Tensor) -> Tensor:
        found: Tensor = torch.mul(wide, wide, out=self._buffer(wide, wide.dtype))
        return found

    def _buffer(self, like: Tensor, dtype: torch.dtype) -> Tensor:
        """One place for all of a shape: fresh memory of that size costs more than the arithmetic."""
        key = like.shape, like.stride(), dtype
        if key not in self._buffers:
            self._buffers[key] = torch.empty_like(like, dtype=dtype)
        return self._buffers[key]
