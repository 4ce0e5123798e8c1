"""What one step does to a small change of the state, and to a gradient on its way back: slopes around W_hh.

Every question about a step needs one of three things of it: what reaches W_hh (``delta``: gradnorm, flow,
truncation), what goes on to the step before (``back``: flow, the Jacobian's transpose), and where a small change
of the state goes (calling it: the Jacobian, for exponents and spectra). No matrix is formed for any of them.

The state is h_t, or h_t and c_t. The coefficients have leading axes (steps, batch); one axis, (batch), is left of
a single step, which broadcasts over further axes of a gradient in front, such as one of losses.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

EPS = torch.finfo(torch.float64).eps
Maps = TypeVar("Maps", bound="StepMaps")
# (dL/dh,) or (dL/dh, dL/dc); likewise the states themselves.
State = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class StepMaps(ABC):
    """J_t = d state_t / d state_{t-1} of many steps and sequences, as a linear map."""

    @property
    @abstractmethod
    def state_size(self) -> int:
        """How many numbers the state of one sequence has."""

    @property
    def rounding(self) -> float:
        """What rounding leaves of nothing in a sum over the state, relative to its largest term."""
        return self.state_size * EPS

    @abstractmethod
    def __call__(self, V: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        """J V, of maps with one leading axis."""

    @abstractmethod
    def transposed(self, U: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        """J^T U, of maps with one leading axis: the way back, as a gradient goes."""

    def __len__(self) -> int:
        return len(next(iter(self._parts().values())))

    def __getitem__(self: Maps, index: int | slice) -> Maps:
        """Of one or several places along the first axis."""
        return self._with({name: part[index] for name, part in self._parts().items()})

    def __iter__(self: Maps) -> Iterator[Maps]:
        """One step after the other."""
        parts = self._parts()
        # Views of all steps at once: taken one by one they would cost as much as the arithmetic.
        for values in zip(*(part.unbind(0) for part in parts.values()), strict=True):
            yield self._with(dict(zip(parts, values, strict=True)))

    def flattened(self: Maps) -> Maps:
        """Steps and sequences in one axis."""
        return self._with({name: part.flatten(0, 1) for name, part in self._parts().items()})

    def finite(self) -> Tensor:
        """Whether all coefficients of a place along the first axis are, shape (places,)."""
        places = [torch.isfinite(part).flatten(1).all(dim=1) for part in self._parts().values()]
        return torch.stack(places).all(dim=0)

    @abstractmethod
    def matrices(self) -> Float[Tensor, "batch state state"]:
        """J itself, of maps with one leading axis; for small states alone."""

    def _parts(self) -> dict[str, Tensor]:
        """The coefficients: what differs from step to step and from sequence to sequence."""
        return {
            name: part for name, part in vars(self).items() if isinstance(part, Tensor) and not name.startswith("W_")
        }

    def _with(self: Maps, parts: dict[str, Tensor]) -> Maps:
        """The same with other coefficients; past ``__init__``, which would cost as much as the arithmetic of a step."""
        found = object.__new__(type(self))
        found.__dict__.update(vars(self), **parts)
        return found


@dataclass(frozen=True, eq=False)
class DenseMaps(StepMaps):
    """J of steps whose slopes are not known one by one, such as code of somebody's own.

    Attributes:
        J: shape (..., state, state), float64.
        dtype: in which its entries were computed.
    """

    J: Tensor
    dtype: torch.dtype

    @property
    def state_size(self) -> int:
        return self.J.shape[-1]

    @property
    def rounding(self) -> float:
        # Errors of a narrower dtype are in the entries themselves, and add up as random numbers do.
        return max(super().rounding, 2 * math.sqrt(self.state_size) * torch.finfo(self.dtype).eps)

    def __call__(self, V: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        return self.J @ V

    def transposed(self, U: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        return self.J.mT @ U

    def matrices(self) -> Float[Tensor, "batch state state"]:
        return self.J


@dataclass(frozen=True, eq=False)
class Slopes(StepMaps):
    """J_t by its slopes around W_hh.

    Attributes:
        W_hh: shape (gates * hidden, hidden), of a projected cell (gates * hidden, proj).
        slopes: on the way between the pre-activations of the gates and the state, shape (..., gates, hidden).
    """

    W_hh: Tensor
    slopes: Tensor

    @property
    def is_plain(self) -> bool:
        """Whether a step is one slope and W_hh, past which nothing goes: ``delta`` may take the place of ``grads``."""
        return False

    @abstractmethod
    def arrived(self, grads: State, out: State | None = None) -> State:
        """The gradients of the states after a step in all, from those that do not hold yet what c has through h.

        Args:
            grads: dL/dh_t and, of a cell with c, dL/dc_t past h_t, each (..., batch, units).
            out: where they are written to; it may be the place of ``grads``.
        """

    @abstractmethod
    def delta(self, grads: State, out: Tensor | None = None) -> Tensor:
        """The gradient of W_hh h_{t-1}, gate by gate, shape (..., batch, gates * hidden).

        Args:
            grads: as ``arrived`` returns them.
            out: where it is written to.
        """

    @abstractmethod
    def back(self, grads: State, delta: Tensor, out: State | None = None) -> State:
        """What the step sends to the state before it, past c's way through h_{t-1}.

        Args:
            grads, delta: of the step, as from ``arrived`` and ``delta``: each of shape (..., batch, units), and
                (..., batch, gates * hidden).
            out: where it is written to; the place of c may be that of ``grads``.
        """

    @abstractmethod
    def moved(self, received: Tensor, V: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        """J V from V and what the gates receive of it, W_hh V, shape (batch, gates * hidden, k)."""

    def input_delta(self, grads: State, delta: Tensor) -> Tensor:
        """The gradient of W_ih x_t, shape (..., batch, gates * hidden), from what ``delta`` takes and returns."""
        # In most cells x reaches the gates as h does.
        return delta

    def matrices(self) -> Float[Tensor, "batch state state"]:
        """J itself, of slopes with one leading axis; for small states alone."""
        return self(torch.eye(self.state_size, dtype=self.W_hh.dtype).expand(len(self), -1, -1))


@dataclass(frozen=True, eq=False)
class HiddenSlopes(Slopes):
    """J = diag(keep) + the sum over the gates of diag(slope) W_h(gate), of a cell whose state is h_t.

    Attributes:
        keep: what of h_{t-1} passes W_hh by, shape (..., hidden), or None.
        to_input: of the last gate, on the way to W_ih x_t, where x reaches it by another way than h, (..., hidden).
    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063; for gates Can, Krishnamurthy & Schwab 2020,
        arXiv:2002.00025.
    """

    keep: Tensor | None = None
    to_input: Tensor | None = None

    @property
    def state_size(self) -> int:
        return self.W_hh.shape[1]

    @property
    def is_plain(self) -> bool:
        return self.keep is None and self.slopes.shape[-2] == 1

    def arrived(self, grads: State, out: State | None = None) -> State:
        return grads

    def delta(self, grads: State, out: Tensor | None = None) -> Tensor:
        """slope * dL/dh_t for every gate, shape (..., batch, gates * hidden)."""
        return _by_gate(grads[0], self.slopes, out)

    def input_delta(self, grads: State, delta: Tensor) -> Tensor:
        """delta, with the last gate's own way to x in its place, shape (..., batch, gates * hidden)."""
        if self.to_input is None:
            return delta
        found = delta.clone()
        torch.mul(grads[0], self.to_input, out=found[..., -self.to_input.shape[-1] :])
        return found

    def back(self, grads: State, delta: Tensor, out: State | None = None) -> State:
        """(delta W_hh + keep * dL/dh_t,), shape (..., batch, hidden)."""
        before = None if out is None else out[0]
        if self.keep is None:
            return (_rows_product(delta, self.W_hh, before),)
        kept = torch.mul(grads[0], self.keep, out=before)
        # A view and not a reshape, which might be a copy that is then added to in vain.
        kept.view(-1, kept.shape[-1]).addmm_(delta.view(-1, delta.shape[-1]), self.W_hh)
        return (kept,)

    def __call__(self, V: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        return self.moved(self.W_hh @ V if self.is_plain else _product(self.W_hh, V), V)

    def moved(self, received: Tensor, V: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        if self.is_plain:
            return self.slopes.mT * received
        gates = self.slopes.shape[-2]
        through = torch.unflatten(received, 1, (gates, -1)) * self.slopes.unsqueeze(3)
        moved = through.sum(dim=1)
        return moved if self.keep is None else torch.addcmul(moved, self.keep.unsqueeze(2), V)

    def transposed(self, U: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        through = (self.slopes.unsqueeze(3) * U.unsqueeze(1)).flatten(1, 2)
        moved = _product(self.W_hh.t(), through)
        return moved if self.keep is None else torch.addcmul(moved, self.keep.unsqueeze(2), U)


@dataclass(frozen=True, eq=False)
class CellSlopes(Slopes):
    """J of (h, c): dc' = keep dc + the slopes of the gates of c with W_hh dh; dh' = the output gate's + to_cell dc'.

    The output gate is the last one; ``slopes`` are of c' against the pre-activations of the others, and of
    o tanh(c') against that of o.

    Attributes:
        keep: f_t, what of c_{t-1} stays, shape (..., hidden).
        to_cell: of o tanh(c') against c', shape (..., hidden).
        W_hr: the projection, shape (proj, hidden), or None.
    Source: Can, Krishnamurthy & Schwab 2020, arXiv:2002.00025, in the form of ``torch.nn.LSTM``.
    """

    keep: Tensor
    to_cell: Tensor
    W_hr: Tensor | None = None

    @property
    def state_size(self) -> int:
        return self.W_hh.shape[1] + self.slopes.shape[-1]

    def arrived(self, grads: State, out: State | None = None) -> State:
        h, c = grads
        return h, torch.addcmul(c, self._of_output(h), self.to_cell, out=None if out is None else out[1])

    def delta(self, grads: State, out: Tensor | None = None) -> Tensor:
        """slope * dL/dc_t for the gates of c, for o slope * the gradient of o tanh(c'), shape as of the base."""
        h, c = grads
        gates, hidden = self.slopes.shape[-2:]
        out = c.new_empty(*c.shape[:-1], gates * hidden) if out is None else out
        by_gate = out.view(*c.shape[:-1], gates, hidden)
        torch.mul(c.unsqueeze(-2), self.slopes[..., :-1, :], out=by_gate[..., :-1, :])
        torch.mul(self._of_output(h), self.slopes[..., -1, :], out=by_gate[..., -1, :])
        return out

    def back(self, grads: State, delta: Tensor, out: State | None = None) -> State:
        """(delta W_hh, keep * dL/dc_t), each of shape (..., batch, units)."""
        h_before, c_before = (None, None) if out is None else out
        return _rows_product(delta, self.W_hh, h_before), torch.mul(grads[1], self.keep, out=c_before)

    def _of_output(self, grad_h: Tensor) -> Tensor:
        """The gradient of o tanh(c'), from that of h'."""
        return grad_h if self.W_hr is None else grad_h @ self.W_hr

    def __call__(self, V: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        return self.moved(_product(self.W_hh, V[:, : self.W_hh.shape[1]]), V)

    def moved(self, received: Tensor, V: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        gates, hidden = self.slopes.shape[-2:]
        c = V[:, -hidden:]
        through = torch.unflatten(received, 1, (gates, -1)) * self.slopes.unsqueeze(3)
        cell = torch.addcmul(through[:, :-1].sum(dim=1), self.keep.unsqueeze(2), c)
        output = torch.addcmul(through[:, -1], self.to_cell.unsqueeze(2), cell)
        return torch.cat([output if self.W_hr is None else _product(self.W_hr, output), cell], dim=1)

    def transposed(self, U: Float[Tensor, "batch state k"]) -> Float[Tensor, "batch state k"]:
        h, c = torch.split(U, [self.W_hh.shape[1], self.keep.shape[1]], dim=1)
        output = h if self.W_hr is None else _product(self.W_hr.t(), h)
        cell = torch.addcmul(c, self.to_cell.unsqueeze(2), output)
        parts = torch.stack([*[cell] * (self.slopes.shape[-2] - 1), output], dim=1) * self.slopes.unsqueeze(3)
        return torch.cat([_product(self.W_hh.t(), parts.flatten(1, 2)), self.keep.unsqueeze(2) * cell], dim=1)


@dataclass(frozen=True, eq=False)
class Linearized:
    """Consecutive steps of a trajectory and their slopes.

    Attributes:
        states: after every step, h_t and, where the cell has one, c_t, each (steps, batch, units).
        gates: their activations, shape (steps, batch, gates, hidden); None for a cell without gates.
        slopes: of every step and sequence.
    """

    states: State
    gates: Tensor | None
    slopes: Slopes


def stacked(states: Sequence[Tensor]) -> Tensor:
    """h, or h and c side by side, shape (..., state)."""
    return states[0] if len(states) == 1 else torch.cat(list(states), dim=-1)


def _by_gate(grad: Tensor, slopes: Tensor, out: Tensor | None) -> Tensor:
    """slopes * grad for every gate, shape (..., gates * hidden)."""
    if out is None:
        return (grad.unsqueeze(-2) * slopes).flatten(-2)
    torch.mul(grad.unsqueeze(-2), slopes, out=out.view(*grad.shape[:-1], *slopes.shape[-2:]))
    return out


def _rows_product(rows: Tensor, W: Tensor, out: Tensor | None) -> Tensor:
    """rows W over the last axis, (..., columns of W), as one product."""
    out = rows.new_empty(*rows.shape[:-1], W.shape[1]) if out is None else out
    torch.mm(rows.view(-1, W.shape[0]), W, out=out.view(-1, W.shape[1]))
    return out


def _product(W: Tensor, V: Tensor) -> Tensor:
    """W V for every sequence as one product, shape (batch, rows of W, k)."""
    # Left to itself, matmul takes one product a sequence.
    rows = V.mT.reshape(-1, W.shape[1]) @ W.t()
    return rows.view(V.shape[0], V.shape[2], W.shape[0]).mT
