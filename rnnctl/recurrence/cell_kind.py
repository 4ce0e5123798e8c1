"""What one step of a cell is: the record that every kind of cell fills in, once.

Nothing above ``recurrence`` and ``models`` asks which kind it has; it asks the kind.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from rnnctl.errors import with_article
from rnnctl.recurrence.nonlinearities import Nonlinearity
from rnnctl.recurrence.slopes import Linearized, Slopes, State
from rnnctl.recurrence.sweep import Reversible
from rnnctl.recurrence.weights import LayerWeights


@dataclass(frozen=True)
class Gate:
    """One block of rows of W_hh.

    Attributes:
        letter: "f".
        words: "forget gate f".
        is_candidate: a tanh, whose ends are -1 and 1, and no sigmoid.
    """

    letter: str
    words: str
    is_candidate: bool = False


# One layer in all its directions forward, without autograd's tape: from x (time, batch, input), or packed
# (steps, input) with how many sequences have a step t; h_0 and, where the state has it, c_0, each
# (directions, batch, units); and the weights of every direction; to the outputs, and the last h of every
# direction, (directions, batch, units).
LayerOutputs: TypeAlias = Callable[
    [Tensor, Tensor | None, Sequence[Tensor], Sequence[LayerWeights]], tuple[Tensor, Tensor]
]


@runtime_checkable
class StepKind(Protocol):
    """What results say of a kind of step, be its arithmetic known or not.

    ``name``: of the cell; ``state``: what a step hands to the next, in words; ``nonlinearity``: as of ``CellKind``.
    """

    @property
    def name(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def nonlinearity(self) -> Nonlinearity | None: ...


@dataclass(frozen=True)
class CellKind:
    """One kind of cell.

    Attributes:
        name: as results, run files and messages call it: "GRU".
        gates: in the order of the rows of W_hh; none where W_hh is one square matrix.
        states: what a step hands to the next: ("h",) or ("h", "c").
        keep: the letter of the gate that passes the state on past W_hh, or None.
        outputs: a layer forward.
        next_states: from x_t, (h_{t-1}, c_{t-1}) and the weights, the states after the step, for any leading
            axes (steps, batch): what the states of a run are held against.
        slopes: from the same and the states after, what a gradient is multiplied with, as autograd rounds it.
        exact: consecutive steps from x (time, batch, input) and the states before them, (batch, units) each, in
            float64, the slopes to all their digits: saturated units have small ones, whose logarithms count.
        units: one step as ``exact`` has it, of units that know what reaches their gates, whatever sends it: from
            W_ih x + b_ih and W_hh h + b_hh, (1, batch, gates, units) each, the states before it, (1, batch, units),
            and the weights that the slopes stand around.
        reversible: of a ``LayerRun``, which knows its kind, what a sweep walks back for one loss.
        nonlinearity: f_h, of the Elman cell, whose step is f_h of one sum and nothing more.
        projects: whether h may be a projection of the units.
        marker: what its modules keep beside their weights, by which a checkpoint tells it from a kind whose W_hh has
            the same shape; None where the shape tells.
    """

    name: str
    gates: tuple[Gate, ...]
    states: tuple[str, ...]
    keep: str | None
    outputs: LayerOutputs
    next_states: Callable[[Tensor, State, LayerWeights], State]
    slopes: Callable[[Tensor, State, State, LayerWeights], Slopes]
    exact: Callable[[Tensor, State, LayerWeights], Linearized]
    units: Callable[[Tensor, Tensor, State, LayerWeights], Linearized]
    reversible: Callable[..., Reversible]
    nonlinearity: Nonlinearity | None = None
    projects: bool = False
    marker: str | None = None

    @property
    def word(self) -> str:
        """The name as the shell and checkpoints have it: "gru"."""
        return re.sub("(?<=[a-z])(?=[A-Z])", "-", self.name).lower()

    @property
    def blocks(self) -> int:
        """Into how many blocks of rows W_hh falls."""
        return max(1, len(self.gates))

    @property
    def letters(self) -> tuple[str, ...]:
        """The gates' letters in the order of the rows of W_hh."""
        return tuple(gate.letter for gate in self.gates)

    @property
    def has_cell_state(self) -> bool:
        """Whether there is a c beside h."""
        return "c" in self.states

    @property
    def state(self) -> str:
        """What a step hands to the next, in words: "h_t and c_t"."""
        return " and ".join(f"{name}_t" for name in self.states)

    @property
    def with_article(self) -> str:
        """Such as "an LSTM"."""
        return with_article(self.name)
