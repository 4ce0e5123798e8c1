"""J_t = d state_t / d state_{t-1} of many steps and sequences as maps of vectors; no matrix is formed.

The state is h_t, of an LSTM h_t and c_t one after the other. The coefficients of a map have leading axes
(steps, batch); one axis, (batch), is left of a single step.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TangentMap(ABC):
    """J_t, and its transpose, applied to vectors of tangent space.

    Attributes:
        W_hh: shape (gates * hidden, hidden), of a projected LSTM (gates * hidden, proj).
    """

    # The fields that differ from step to step and from sequence to sequence.
    coefficients: ClassVar[tuple[str, ...]]

    W_hh: Tensor

    @property
    @abstractmethod
    def state_size(self) -> int:
        """How many numbers the state of one sequence has."""

    @abstractmethod
    def __call__(self, V: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        """J V, of a map with one leading axis."""

    @abstractmethod
    def transposed(self, U: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        """J^T U, of a map with one leading axis."""

    def __len__(self) -> int:
        return len(self._parts()[0])

    def __getitem__(self, index: int | slice) -> "TangentMap":
        """Of one or several places along the first axis."""
        return self._with(part[index] for part in self._parts())

    def __iter__(self) -> Iterator["TangentMap"]:
        """One map a step."""
        return (self._with(parts) for parts in zip(*self._parts(), strict=True))

    def flattened(self) -> "TangentMap":
        """Steps and sequences in one axis."""
        return self._with(part.flatten(0, 1) for part in self._parts())

    def finite(self) -> Tensor:
        """Whether all coefficients of a place along the first axis are, shape (places,)."""
        places = [torch.isfinite(part).flatten(1).all(dim=1) for part in self._parts()]
        return torch.stack(places).all(dim=0)

    def matrices(self) -> Float[Tensor, "batch state state"]:
        """J itself, of a map with one leading axis; for small states alone."""
        return self(torch.eye(self.state_size, dtype=self.W_hh.dtype).expand(len(self), -1, -1))

    def _parts(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, name) for name in self.coefficients)

    def _with(self, parts: Iterable[Tensor]) -> "TangentMap":
        return replace(self, **dict(zip(self.coefficients, parts, strict=True)))


@dataclass(frozen=True, eq=False)
class ElmanMap(TangentMap):
    """J = diag(f'(a)) W_hh.

    Attributes:
        W_hh: shape (hidden, hidden).
        slope: f'(a_t), shape (..., hidden).
    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063.
    """

    coefficients: ClassVar[tuple[str, ...]] = ("slope",)

    slope: Tensor

    @property
    def state_size(self) -> int:
        return self.W_hh.shape[0]

    def __iter__(self) -> Iterator["ElmanMap"]:
        """As of any cell, without its detours: once a step of every measurement."""
        return (ElmanMap(self.W_hh, slope) for slope in self.slope)

    def __call__(self, V: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        """slope * (W_hh V)."""
        return self.slope.unsqueeze(2) * (self.W_hh @ V)

    def transposed(self, U: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        """W_hh^T (slope * U)."""
        return _product(self.W_hh.t(), self.slope.unsqueeze(2) * U)


@dataclass(frozen=True, eq=False)
class GRUMap(TangentMap):
    """J = diag(z) + sum over the gates of diag(slope) W_h(gate).

    Attributes:
        W_hh: gates r, z, n, shape (3 * hidden, hidden).
        slopes: of h_t against W_hr h, W_hz h and W_hn h, shape (..., 3, hidden).
        keep: z_t, shape (..., hidden).
    Source: Can, Krishnamurthy & Schwab 2020, arXiv:2002.00025, in the form of ``torch.nn.GRU``.
    """

    coefficients: ClassVar[tuple[str, ...]] = ("slopes", "keep")

    slopes: Tensor
    keep: Tensor

    @property
    def state_size(self) -> int:
        return self.W_hh.shape[1]

    def __call__(self, V: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        """z * V + the sum of slopes * (W_hh V) over the gates."""
        through = torch.unflatten(_product(self.W_hh, V), 1, (3, -1)) * self.slopes.unsqueeze(3)
        return torch.addcmul(through.sum(dim=1), self.keep.unsqueeze(2), V)

    def transposed(self, U: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        """z * U + W_hh^T (slopes * U)."""
        through = (self.slopes.unsqueeze(3) * U.unsqueeze(1)).flatten(1, 2)
        return torch.addcmul(_product(self.W_hh.t(), through), self.keep.unsqueeze(2), U)


@dataclass(frozen=True, eq=False)
class LSTMMap(TangentMap):
    """J of (h, c): dc' = f dc + slopes of i, f, g with W_hh dh; dh' = slope of o with W_hh dh + to_output dc'.

    Attributes:
        W_hh: gates i, f, g, o, shape (4 * hidden, hidden or proj).
        slopes: of c' against the pre-activations of i, f, g, of o tanh(c') against that of o, (..., 4, hidden).
        forget: f_t, shape (..., hidden).
        to_output: of o tanh(c') against c', shape (..., hidden).
        W_hr: the projection, shape (proj, hidden), or None.
    Source: Can, Krishnamurthy & Schwab 2020, arXiv:2002.00025, in the form of ``torch.nn.LSTM``.
    """

    coefficients: ClassVar[tuple[str, ...]] = ("slopes", "forget", "to_output")

    slopes: Tensor
    forget: Tensor
    to_output: Tensor
    W_hr: Tensor | None = None

    @property
    def state_size(self) -> int:
        return self.W_hh.shape[1] + self.W_hh.shape[0] // 4

    def __call__(self, V: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        """(dh', dc') of (dh, dc)."""
        h, c = torch.split(V, [self.W_hh.shape[1], self.forget.shape[1]], dim=1)
        through = torch.unflatten(_product(self.W_hh, h), 1, (4, -1)) * self.slopes.unsqueeze(3)
        cell = torch.addcmul(through[:, :3].sum(dim=1), self.forget.unsqueeze(2), c)
        output = torch.addcmul(through[:, 3], self.to_output.unsqueeze(2), cell)
        return torch.cat([output if self.W_hr is None else _product(self.W_hr, output), cell], dim=1)

    def transposed(self, U: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        """The way back, as a gradient goes."""
        h, c = torch.split(U, [self.W_hh.shape[1], self.forget.shape[1]], dim=1)
        output = h if self.W_hr is None else _product(self.W_hr.t(), h)
        cell = torch.addcmul(c, self.to_output.unsqueeze(2), output)
        parts = torch.stack([cell, cell, cell, output], dim=1) * self.slopes.unsqueeze(3)
        return torch.cat([_product(self.W_hh.t(), parts.flatten(1, 2)), self.forget.unsqueeze(2) * cell], dim=1)


def _product(W: Tensor, V: Tensor) -> Tensor:
    """W V for every sequence as one product, shape (batch, rows of W, k)."""
    # Left to itself, matmul takes one product a sequence.
    rows = V.mT.reshape(-1, W.shape[1]) @ W.t()
    return rows.view(V.shape[0], V.shape[2], W.shape[0]).mT
