"""The kinds of cells there are. A new one is a file of its own, and a line here."""

from collections.abc import Mapping

from rnnctl.errors import InputError
from rnnctl.recurrence.cell_kind import CellKind
from rnnctl.recurrence.coupled_lstm import COUPLED_LSTM
from rnnctl.recurrence.elman import ELMAN
from rnnctl.recurrence.gru import GRU
from rnnctl.recurrence.lstm import LSTM

# By name; the Elman cell, which comes with one of several nonlinearities, stands for all of them.
KINDS: Mapping[str, CellKind] = {kind.name: kind for kind in (ELMAN["tanh"], GRU, LSTM, COUPLED_LSTM)}


def kind_named(name: str, nonlinearity: str = "tanh") -> CellKind:
    """The kind of this name, and of these names its f_h where it has one to choose.

    Raises:
        InputError: there is none, with those that there are.
    """
    if name not in KINDS:
        raise InputError(f"cell must be one of {', '.join(KINDS)}; got {name!r}")
    kind = KINDS[name]
    if kind is not ELMAN["tanh"]:
        return kind
    if nonlinearity not in ELMAN:
        raise InputError(f"nonlinearity must be {' or '.join(ELMAN)}; got {nonlinearity!r}")
    return ELMAN[nonlinearity]
