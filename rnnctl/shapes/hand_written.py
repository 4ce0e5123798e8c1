"""The shape of every tensor in one step and in one sequence."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rnnctl.cells import FullRNN, ManualRNNCell
from rnnctl.memory import require_memory
from rnnctl.models.hooks import results_of
from rnnctl.results import Kind, Result, numbers
from rnnctl.shapes.axes import Axis, Weight
from rnnctl.shapes.tensors import Label, Row, row
from rnnctl.view.shown import Shown


@dataclass(frozen=True)
class StepShapes(Shown, Result):
    """Every tensor of h_t = f(W_xh x_t + b_xh + W_hh h_{t-1} + b_hh), for one step.

    ``rows`` have kind (tensor or parameter), symbol, name, symbolic_shape, shape, elements,
    used (how often the step uses it), multiply_adds, min and max. Of ``scalars`` state_is_zero says whether h_{t-1}
    is 0 throughout, as before step 0.
    """

    schema: ClassVar[str] = "cell"
    kinds: ClassVar[Mapping[str, Kind]] = {**numbers("parameter_elements", "multiply_adds"), "state_is_zero": bool}
    scalars: Row
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class SequenceShapes(Shown, Result):
    """Every tensor of a whole sequence; rows as in ``StepShapes``."""

    schema: ClassVar[str] = "forward"
    kinds: ClassVar[Mapping[str, Kind]] = numbers("seq_len", "batch_size", "parameter_elements", "multiply_adds")
    scalars: Row
    rows: tuple[Row, ...]


def step_shapes(cell: ManualRNNCell, x_t: Tensor, h_t_minus_1: Tensor) -> StepShapes:
    """Run one step and describe every tensor in it.

    Args:
        cell: the cell.
        x_t: shape (batch, input).
        h_t_minus_1: shape (batch, hidden).
    Raises:
        ShapeError, DtypeError, DeviceError: as the cell's own ``forward``.
    """
    with torch.no_grad():
        h_t = cell(x_t, h_t_minus_1)
        transformed_input = cell.input_to_hidden(x_t)
        transformed_hidden = cell.hidden_to_hidden(h_t_minus_1)
    hidden = "(batch, hidden)"
    b_xh, b_hh = ("", "") if cell.input_to_hidden.bias is None else (" + b_xh", " + b_hh")
    tensors = (
        _tensor("x_t", "input at step t", "(batch, input)", x_t),
        _tensor("h_{t-1}", "hidden state before the step", hidden, h_t_minus_1),
        _tensor(f"W_xh x_t{b_xh}", "transformed input", hidden, transformed_input),
        _tensor(f"W_hh h_{{t-1}}{b_hh}", "transformed hidden", hidden, transformed_hidden),
        _tensor("a_t", "pre-activation, their sum", hidden, transformed_input + transformed_hidden),
        _tensor("h_t", f"hidden state, {cell.nonlinearity}(a_t)", hidden, h_t),
    )
    parameters = _parameters(_cell_weights(cell), steps=1, batch=x_t.shape[0])
    state_is_zero = not bool(h_t_minus_1.any())
    return StepShapes({**_totals(parameters), "state_is_zero": state_is_zero}, (*tensors, *parameters))


def sequence_shapes(model: FullRNN, x: Tensor, h_init: Tensor | None = None) -> SequenceShapes:
    """Run a whole sequence and describe every tensor in it.

    Args:
        model: the network.
        x: shape (batch, time, input).
        h_init: shape (batch, hidden); zeros if left out.
    Raises:
        ShapeError, DtypeError, DeviceError: as the model's own ``forward``.
    """
    model.check_sequence(x, h_init)
    start = model.initial_state(x) if h_init is None else h_init
    batch, seq_len = x.shape[:2]
    # Every h_t, all of them stacked, and the outputs.
    kept = 2 * model.rnn_cell.hidden_size + 2 * model.output_size
    # Beside its numbers a step has tensors of its own; measured, they take 1.9 KB.
    require_memory(seq_len * (batch * kept * x.element_size() + 2048), f"states and outputs of {seq_len} steps")
    with results_of(model.rnn_cell) as states, torch.no_grad():
        y = model(x, start)
    h = torch.stack(states, dim=1)
    tensors = (
        _tensor("x", "input sequence", "(batch, time, input)", x),
        _tensor("h_init", "hidden state before step 0", "(batch, hidden)", start),
        _every_state(h, model.rnn_cell.nonlinearity),
        _tensor("h", "all hidden states", "(batch, time, hidden)", h),
        _tensor("y", _outputs(model), "(batch, time, output)", y),
    )
    readout = _linear(model.hidden_to_output, "W_hy", "b_y", ("output", "hidden"))
    parameters = _parameters((*_cell_weights(model.rnn_cell), *readout), seq_len, batch)
    sizes = {"seq_len": seq_len, "batch_size": batch}
    return SequenceShapes({**sizes, **_totals(parameters)}, (*tensors, *parameters))


def _tensor(symbol: str, name: str, axes: str, tensor: Tensor) -> Row:
    return row(Label("tensor", symbol, name, axes), tensor)


def _outputs(model: FullRNN) -> str:
    """What y is, f_y by its name."""
    f_y = type(model.output_activation).__name__.lower()
    return f"output sequence, f_y = {f_y}" + (": every row sums to 1" if f_y == "softmax" else "")


def _every_state(h: Tensor, f_h: str) -> Row:
    """One h_t, as often as there are steps; least and largest of all of them. ``h``: (batch, time, hidden)."""
    seq_len = h.shape[1]
    symbol, when = ("h_0", "the only step") if seq_len == 1 else (f"h_0 .. h_{seq_len - 1}", "every step")
    every = _tensor(symbol, f"hidden state at {when}, f_h = {f_h}", "(batch, hidden)", h)
    return {**every, "shape": list(h[:, 0].shape), "elements": h[:, 0].numel(), "used": seq_len}


def _cell_weights(cell: ManualRNNCell) -> tuple[tuple[Weight, Tensor], ...]:
    into, across = cell.input_to_hidden, cell.hidden_to_hidden
    return (
        *_linear(into, "W_xh", "b_xh", ("hidden", "input")),
        *_linear(across, "W_hh", "b_hh", ("hidden", "hidden")),
    )


def _linear(linear: nn.Linear, W: str, b: str, axes: tuple[str, str]) -> tuple[tuple[Weight, Tensor], ...]:
    """The weight and the bias of a linear map, with what they are; ``axes``: of the weight, in words."""
    rows, columns = (Axis(words, size) for words, size in zip(axes, linear.weight.shape, strict=True))
    name = f"{columns.words} to {rows.words}"
    weight = (Weight(W, name, "", (rows, columns)), linear.weight.detach())
    if linear.bias is None:
        return (weight,)
    return weight, (Weight(b, f"{name}, bias", "", (rows,)), linear.bias.detach())


def _parameters(known: Iterable[tuple[Weight, Tensor]], steps: int, batch: int) -> tuple[Row, ...]:
    return tuple(
        {
            **row(Label("parameter", weight.symbol, weight.name, weight.symbolic_shape), value),
            "used": steps,
            "multiply_adds": steps * batch * weight.products,
        }
        for weight, value in known
    )


def _totals(parameters: tuple[Row, ...]) -> Row:
    return {
        "parameter_elements": sum(row["elements"] for row in parameters),
        "multiply_adds": sum(row["multiply_adds"] for row in parameters),
    }
