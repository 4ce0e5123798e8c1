"""The recurrent modules that can be described: their gates, weights and states, by name and axis."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple, TypeAlias

from torch import nn

from rnnctl.cells import ManualRNNCell
from rnnctl.models.modules import directions, known_kind
from rnnctl.recurrence.cell_kind import Gate

Recurrent: TypeAlias = nn.RNNBase | nn.RNNCellBase | ManualRNNCell
OWN_SYMBOLS = {
    "weight_ih": "input_to_hidden.weight",
    "weight_hh": "hidden_to_hidden.weight",
    "bias_ih": "input_to_hidden.bias",
    "bias_hh": "hidden_to_hidden.bias",
}


class Axis(NamedTuple):
    """What an axis counts, and how long it is."""

    words: str
    size: int


@dataclass(frozen=True)
class Weight:
    """A weight or bias of a recurrent module, or the part of one that belongs to a gate.

    Attributes:
        symbol: its name in the module ("weight_hh_l0", "weight_hh_l0[0:20]").
        name: in plain words.
        letter: what its gates' parts are called, without the gate ("W_h").
        axes: two of a matrix, one of a bias.
        gates: stacked along the first axis; none where there is only one part.
    """

    symbol: str
    name: str
    letter: str
    axes: tuple[Axis, ...]
    gates: tuple[Gate, ...] = ()

    @property
    def symbolic_shape(self) -> str:
        """Such as "(4 gates x hidden, input)"."""
        return symbolic(self.axes)

    @property
    def shape(self) -> list[int]:
        """The lengths of the axes."""
        return [axis.size for axis in self.axes]

    @property
    def products(self) -> int:
        """Multiply-adds for one step of one sequence; adding a bias multiplies nothing."""
        return prod(self.shape) if len(self.axes) == 2 else 0

    def slices(self) -> Iterator[tuple[slice, "Weight"]]:
        """The rows of each gate, and what they are."""
        for i, gate in enumerate(self.gates):
            length = self.axes[0].size // len(self.gates)
            start, stop = i * length, (i + 1) * length
            part = (Axis("hidden", length), *self.axes[1:])
            name = f"{self.letter}{gate.letter}, {gate.words}"
            yield slice(start, stop), Weight(f"{self.symbol}[{start}:{stop}]", name, self.letter, part)


def symbolic(axes: Iterable[Axis]) -> str:
    """Axes as one writes a shape."""
    return "(" + ", ".join(axis.words for axis in axes) + ")"


def state_axis(module: Recurrent) -> Axis:
    """The features of h_t: fewer than the hidden units where they are projected."""
    if isinstance(module, nn.RNNBase) and module.proj_size > 0:
        return Axis("proj", module.proj_size)
    return Axis("hidden", module.hidden_size)


def output_axis(module: nn.RNNBase) -> Axis:
    """The features of ``output``, which are those that the next layer reads."""
    state = state_axis(module)
    return Axis(f"2 directions x {state.words}", 2 * state.size) if module.bidirectional else state


def place(module: nn.RNNBase, row: int) -> str:
    """The layer and direction to which a row of h_n belongs."""
    layer, direction = divmod(row, directions(module))
    if not module.bidirectional:
        return f"layer {layer}"
    return f"layer {layer}, {'reverse' if direction else 'forward'}"


def title(module: Recurrent) -> str:
    """Such as "LSTM(10, 20)"."""
    return f"{type(module).__name__}({module.input_size}, {module.hidden_size})"


def settings(module: Recurrent) -> str:
    """What else it was built with, in words."""
    words = []
    if isinstance(module, nn.RNNBase):
        words += [_counted(module.num_layers, "layer"), _counted(directions(module), "direction")]
        words += [f"proj {module.proj_size}"] * (module.proj_size > 0)
        words += ["batch_first"] * module.batch_first
    else:
        words += ["one step a call"]
    nonlinearity = known_kind(module).nonlinearity
    words += [] if nonlinearity is None else [nonlinearity.name]
    return ", ".join(words if has_bias(module) else [*words, "no bias"])


def has_bias(module: Recurrent) -> bool:
    """Whether its linear maps have biases."""
    return module.input_to_hidden.bias is not None if isinstance(module, ManualRNNCell) else module.bias


def weights(module: Recurrent) -> tuple[Weight, ...]:
    """Every weight and bias, layer by layer, in torch's order."""
    inputs = Axis("input", module.input_size)
    if isinstance(module, nn.RNNBase):
        return tuple(
            replace(
                weight, symbol=f"{weight.symbol}_l{_suffix(module, row)}", name=f"{weight.name}, {place(module, row)}"
            )
            for row in range(module.num_layers * directions(module))
            for weight in _one_layer(module, inputs if row < directions(module) else output_axis(module))
        )
    found = tuple(_one_layer(module, inputs))
    if isinstance(module, ManualRNNCell):
        return tuple(replace(weight, symbol=OWN_SYMBOLS[weight.symbol]) for weight in found)
    return found


def _one_layer(module: Recurrent, inputs: Axis) -> Iterator[Weight]:
    gates, hidden, state = known_kind(module).gates, Axis("hidden", module.hidden_size), state_axis(module)
    stacked = Axis(f"{len(gates)} gates x hidden", len(gates) * hidden.size) if gates else hidden
    yield Weight("weight_ih", "input to hidden", "W_i", (stacked, inputs), gates)
    yield Weight("weight_hh", "hidden to hidden", "W_h", (stacked, state), gates)
    if has_bias(module):
        yield Weight("bias_ih", "input to hidden, bias", "b_i", (stacked,), gates)
        yield Weight("bias_hh", "hidden to hidden, bias", "b_h", (stacked,), gates)
    if state != hidden:
        yield Weight("weight_hr", "hidden to projection", "W_hr", (state, hidden))


def _suffix(module: nn.RNNBase, row: int) -> str:
    layer, direction = divmod(row, directions(module))
    return f"{layer}_reverse" if direction else str(layer)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
