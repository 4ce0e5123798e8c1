"""Norms of many gradients as they pass by: of small ones many at a time, of large ones at once."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rnnctl.recurrence.scaling import FEW_NUMBERS as FEW_SQUARES
from rnnctl.recurrence.scaling import SAFE, is_safe, piece_norms, row_norms

# By these powers of two numbers are brought to where their squares neither underflow nor overflow: it changes no digit.
_SHIFTS = {4: (0, 64, 126, -96), 8: (0, 512, 1022, -768)}
# Up to so many numbers a norm costs more in calls than in arithmetic, so that many are taken together.
FEW_NUMBERS = 4096
# Of what came to a state, to which nothing more is added while it waits: larger ones are taken together, too.
FEW_HELD = 4 * FEW_NUMBERS
# So many numbers wait at most: they stay in the cache.
MOST_WAITING = 1 << 18


class _Norms:
    """Norms by way of squares, of tensors of any magnitude."""

    def __init__(self) -> None:
        # Gradients of steps beside one another are much alike: what served the last one is tried first.
        self._shift = 0
        self._buffers: dict[Any, Tensor] = {}

    def of(self, wide: Tensor, norms: Callable[[Tensor], list[float]]) -> list[float]:
        """The norms of a tensor of any shape, or of parts of it; those that are too small or too large are taken again.

        Args:
            wide: real, at least float32.
            norms: of a tensor of this shape.
        """
        size = wide.dtype.itemsize
        small, large = SAFE[size]
        found = self._shifted(wide, norms)
        safe = [small < norm < large for norm in found]
        if all(safe):
            return self._back(found)
        if not wide.numel() or not float(wide.abs().amax()):
            return [0.0] * len(found)
        kept = self._back(found)
        for self._shift in _SHIFTS[size]:
            found = self._shifted(wide, norms)
            again = [small < norm < large for norm in found]
            kept = [
                other if better else norm for norm, other, better in zip(kept, self._back(found), again, strict=True)
            ]
            safe = [one or other for one, other in zip(safe, again, strict=True)]
            if all(safe):
                return kept
        self._shift = 0
        return kept

    def whole(self, wide: Tensor) -> float:
        """The norm of all of a tensor of any shape, real and at least float32."""
        # As it lies in memory: what comes to a weight that was transposed is transposed itself.
        dense = wide.mT if wide.dim() == 2 and not wide.is_contiguous() else wide
        return self.of(dense.reshape(1, -1), _row_norms)[0]

    def buffer(self, like: Tensor) -> Tensor:
        """One place for all of a shape: fresh memory of that size costs more than the arithmetic."""
        key = like.shape, like.stride(), like.dtype
        if key not in self._buffers:
            self._buffers[key] = torch.empty_like(like)
        return self._buffers[key]

    def _shifted(self, wide: Tensor, norms: Callable[[Tensor], list[float]]) -> list[float]:
        return norms(torch.mul(wide, 2.0**self._shift, out=self.buffer(wide)) if self._shift else wide)

    def _back(self, norms: list[float]) -> list[float]:
        return [norm / 2.0**self._shift for norm in norms] if self._shift else norms


def norm_of(grad: Tensor) -> float:
    """The Frobenius norm of a gradient of any shape and dtype, to all digits of the dtype at any magnitude."""
    return _Norms().whole(_at_least_float32(grad))


def _at_least_float32(grad: Tensor) -> Tensor:
    """Real numbers with the same norm."""
    real = torch.view_as_real(grad.resolve_conj()) if grad.is_complex() else grad
    return real if real.dtype.itemsize >= 4 else real.float()


def widest(like: Tensor) -> torch.dtype:
    """The dtype in which gradients of any shape are added up: float64 where the device has it, or its complex twin."""
    if like.is_complex():
        return torch.complex128
    return torch.float32 if like.device.type == "mps" else torch.float64


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
    return _Norms().of(_at_least_float32(stacked).reshape(len(stacked), -1), _row_norms)


def _row_norms(wide: Tensor) -> list[float]:
    found: list[float] = row_norms(wide).tolist()
    return found


class NormBook:
    """Gradients that wait for their norm; what waits is not changed by autograd, which sees that it is held."""

    def __init__(self) -> None:
        self.norms: dict[Hashable, float] = {}
        self._measure = _Norms()
        self._waiting: dict[Any, list[tuple[Hashable, Tensor]]] = {}
        self._numbers = 0

    def add(self, key: Hashable, grad: Tensor) -> None:
        """Note the norm of a gradient of any shape under a key, in place of one that was there."""
        count = grad.numel()
        if count > FEW_HELD:
            self.norms[key] = self._measure.whole(_at_least_float32(grad))
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
        self._measure = _Norms()
        self._waiting: list[tuple[Hashable, Tensor]] = []
        self._numbers = 0

    def add(self, use: Hashable, grad: Tensor) -> None:
        """Take in what came to a use, of the shape that the part has there."""
        count = grad.numel()
        if count > FEW_NUMBERS:
            if self._runs is None:
                self.norms[WHOLE][use] = self._measure.whole(_at_least_float32(grad))
            else:
                for name, (norm,) in self._runs.norms(self._measure, grad.unsqueeze(0)).items():
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
        found = {WHOLE: norms_along(stacked)} if self._runs is None else self._runs.norms(self._measure, stacked)
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


class RowsBook:
    """Gradients of a whole matrix, step by step: the norm of each of its equal blocks of rows, and their sum.

    Args:
        blocks: how many.
    Attributes:
        steps: of which something came.
        norms: by step, one of each block, once ``settle`` was called.
        total: the sum, shape of the gradients, at least float32; None before there is any.
        is_lost: whether squares left the range of the dtype, so that a norm is not known.
    """

    def __init__(self, blocks: int) -> None:
        self.steps: set[Hashable] = set()
        self.norms: dict[Hashable, list[float]] = {}
        self.total: Tensor | None = None
        self.is_lost = False
        self._blocks = blocks
        self._measure = _Norms()
        # By step, the norms of pieces, of which those of the blocks are made for all steps together.
        self._pieces: dict[Hashable, Tensor] = {}

    def add(self, step: Hashable, grad: Tensor, *, at_once: bool = False) -> None:
        """Take in what came to a step, shape (rows, columns).

        Args:
            at_once: whether its norms are to be right at any magnitude, such as 0.
        """
        wide = _at_least_float32(grad).contiguous()
        by_block = wide.view(self._blocks, -1)
        self.steps.add(step)
        if at_once or by_block.shape[1] < FEW_SQUARES:
            self.norms[step] = self._measure.of(by_block, _row_norms)
        else:
            self._pieces[step] = piece_norms(by_block)
        if self.total is None:
            self.total = wide.clone()
        else:
            self.total.add_(wide)

    def settle(self) -> None:
        """Make the norms of what waits."""
        if not self._pieces:
            return
        stacked = torch.stack(list(self._pieces.values()))
        norms = torch.linalg.vector_norm(stacked, dim=-1)
        self.is_lost = self.is_lost or not bool(is_safe(norms, stacked.dtype).all())
        self.norms.update(zip(self._pieces, norms.tolist(), strict=True))
        self._pieces.clear()


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
    _numbers: dict[torch.device, Tensor] = field(default_factory=dict)

    def norms(self, measure: _Norms, stacked: Tensor) -> dict[str, list[float]]:
        """By name, of each gradient along the first axis, shape (gradients, ...)."""
        wide = _at_least_float32(stacked.abs() if stacked.is_complex() else stacked)
        names, count = list(self.columns), len(stacked)
        found = measure.of(wide, lambda like: self._norms(measure, like))
        return {name: found[place * count : (place + 1) * count] for place, name in enumerate(names)}

    def _norms(self, measure: _Norms, wide: Tensor) -> list[float]:
        """Of gradients, shape (gradients, ...), those of the first name, then those of the next."""
        # Squares of all at once, then column by column: narrow slices lie apart in memory, and take five times as long.
        squares = torch.mul(wide, wide, out=measure.buffer(wide))
        axis = squares.dim() + self.axis
        others = [each for each in range(1, squares.dim()) if each != axis]
        by_column = squares.sum(others) if others else squares
        # Added up, not multiplied by a matrix of 0 and 1: what overflows in one run is no number in another one there.
        sums = by_column.new_zeros(len(by_column), len(self.columns)).index_add_(1, self._run_of(by_column), by_column)
        found: list[float] = sums.sqrt().t().flatten().tolist()
        return found

    def _run_of(self, like: Tensor) -> Tensor:
        """By column, the number of the run that it is in, shape (columns,)."""
        if like.device not in self._numbers:
            numbers = torch.empty(like.shape[1], dtype=torch.long)
            for number, runs in enumerate(self.columns.values()):
                for start, length in runs:
                    numbers[start : start + length] = number
            self._numbers[like.device] = numbers.to(like.device)
        return self._numbers[like.device]
