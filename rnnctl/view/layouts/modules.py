"""How the recurrent modules of a model are shown."""

from collections.abc import Callable

from rnnctl.view.layouts.layout import Column, Layout, Record, Table
from rnnctl.view.numbers import number
from rnnctl.view.words import notes_beside


def _calls(count: int) -> str:
    return "not called" if count == 0 else "once" if count == 1 else f"{number(count)} times"


def _steps(row: Record) -> str:
    """Of all sequences together."""
    packed = row["steps"] != row["padded_steps"]
    return number(row["steps"]) + (f" (padded {number(row['padded_steps'])})" if packed else "")


def _axes_and_note(row: Record) -> str:
    """The note says with which parameter this one is shared."""
    return "\n".join(filter(None, (row["symbolic_shape"], row["name"].partition("; ")[2])))


def _is_first_weight_hh(row: Record) -> bool:
    """Of layer 0 forward: other layers, weight_ih and the biases have the same slices."""
    return str(row["symbol"]).split("[")[0] in ("weight_hh", "weight_hh_l0")


def _empty_counts(scalars: Record) -> tuple[str, ...]:
    """Where no module is of a known class, or all parameters are counted, there is nothing to say of such."""
    of_modules = ("modules", "modules_not_called", "calls", "parameter_elements", "multiply_adds")
    uncounted = () if scalars.get("uncounted_parameters") else ("uncounted_parameters",)
    return uncounted if scalars["modules"] else (*of_modules, *uncounted)


def _uses(row: Record) -> str:
    """How often a parameter is used; why it was not counted, and with which one it is the same tensor."""
    how, _, shared = row["name"].partition("; the same tensor as ")
    if row["uses"] is None:
        said = f"not counted: {how}"
    else:
        said = {"unused": "unused", "once": "once"}.get(row["role"], f"{_calls(row['uses'])}, {row['role']}")
    return f"{said}\nthe same tensor as {shared}" if shared else said


def _lines(*fields: str) -> Callable[[Record], str]:
    return lambda row: "\n".join(number(row[name]) for name in fields)


_MODULE = Table(
    (
        Column("symbol", "type", right=False, text=_lines("symbol", "name")),
        Column("used", "called", right=False, text=lambda row: _calls(row["used"])),
        Column("steps", "steps x batch", right=False, text=_steps),
        Column("elements", "parameters"),
        Column("multiply_adds", "multiply-adds"),
    ),
    kind="module",
)
_TENSORS = Table(
    (
        Column("symbol", "tensor", right=False, whole=True),
        Column("symbolic_shape", "axes", right=False, text=_lines("symbolic_shape", "name")),
        Column("shape", "shape", right=False, whole=True),
        # Below one another: beside one another they leave no room for h_n's axes in 80 columns.
        Column("min", "min, max", text=_lines("min", "max")),
    ),
    kind="tensor",
)
_STATES = Table(
    (
        Column("symbol", "row", right=False, whole=True),
        Column("name", "layer, direction", right=False),
        Column("shape", "shape", right=False, whole=True),
        Column("min", "min"),
        Column("max", "max"),
    ),
    kind="state",
)
_PARAMETERS = Table(
    (
        Column("symbol", "parameter", right=False, whole=True),
        Column("symbolic_shape", "axes", right=False, text=_axes_and_note),
        Column("shape", "shape", right=False, whole=True),
        Column("multiply_adds", "multiply-adds"),
    ),
    kind="parameter",
)
_GATES = Table(
    (
        Column("symbol", "rows of weight_hh", right=False, whole=True),
        Column("name", "gate; weight_ih alike", right=False),
        Column("symbolic_shape", "axes", right=False),
        Column("shape", "shape", right=False, whole=True),
    ),
    kind="gate",
    where=_is_first_weight_hh,
)

_USES = Table(
    (
        Column("symbol", "every parameter", right=False, whole=True),
        Column("shape", "shape", right=False, whole=True, spare=True),
        Column("uses", "used", right=False, text=_uses),
    ),
    kind="use",
)

FORWARD_MODULES = Layout(
    (_MODULE, _TENSORS, _STATES, _PARAMETERS, _GATES),
    lambda scalars: notes_beside("forward-modules"),
    hidden_when=_empty_counts,
    section="module",
    closing=(_USES,),
)
