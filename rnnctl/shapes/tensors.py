"""The tensors of one call of a recurrent module: axes, shape and range; none of them is kept."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnctl.cells import ManualRNNCell
from rnnctl.errors import InputError
from rnnctl.models.modules import directions, known_kind
from rnnctl.shapes.axes import (
    Axis,
    Recurrent,
    output_axis,
    place,
    state_axis,
    symbolic,
    title,
)

Row: TypeAlias = Mapping[str, Any]
Cell: TypeAlias = nn.RNNCellBase | ManualRNNCell


@dataclass(frozen=True)
class Extent:
    """How much one call reads.

    Attributes:
        batch: sequences.
        longest, shortest: of their lengths, in time steps.
        steps: time steps of all sequences together.
        leading: the axes before the features, by name.
        packed: whether it is a PackedSequence.
    """

    batch: int
    longest: int
    shortest: int
    steps: int
    leading: tuple[str, ...]
    packed: bool = False

    @property
    def padded_steps(self) -> int:
        """What ``steps`` is where every sequence is padded to the longest."""
        return self.batch * self.longest

    @property
    def is_batched(self) -> bool:
        """Whether the states have an axis for the batch."""
        return self.packed or "batch" in self.leading


@dataclass(frozen=True)
class Call:
    """What a module was given, and what it returned.

    Attributes:
        given: the input.
        states: h and, where there is one, c before the call; empty where the module takes zeros.
        output: what the module returned.
    """

    given: Any
    states: Sequence[Tensor]
    output: Any


def call_of(module: Recurrent, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Call:
    """Sort what a forward hook sees."""
    first, second = ("x_t", "h_t_minus_1") if isinstance(module, ManualRNNCell) else ("input", "hx")
    given = args[0] if args else kwargs.get(first)
    states = args[1] if len(args) > 1 else kwargs.get(second)
    return Call(given, _tensors(states), output)


def extent(module: Recurrent, given: Any) -> Extent:
    """Batch and lengths of the input.

    Raises:
        InputError: not what this kind of module takes: a subclass with a forward of its own.
    """
    data = given.data if isinstance(given, PackedSequence) else given
    most = 3 if isinstance(module, nn.RNNBase) else 2
    if not isinstance(data, Tensor) or data.dim() not in (most - 1, most) or data.shape[-1] != module.input_size:
        got = f"shape {tuple(data.shape)}" if isinstance(data, Tensor) else type(data).__name__
        raise InputError(
            f"the input of {title(module)} must have {most - 1} or {most} axes, the last of length "
            f"{module.input_size}; got {got}. Has the class a forward of its own?"
        )
    if isinstance(given, PackedSequence):
        return _packed_extent(given.batch_sizes)
    return _sequence_extent(module, data) if isinstance(module, nn.RNNBase) else _cell_extent(data)


def _packed_extent(batch_sizes: Tensor) -> Extent:
    batch = int(batch_sizes[0])
    shortest = int((batch_sizes == batch).sum())
    return Extent(batch, len(batch_sizes), shortest, int(batch_sizes.sum()), ("steps",), packed=True)


def _sequence_extent(module: nn.RNNBase, given: Tensor) -> Extent:
    if given.dim() == 2:
        return Extent(1, len(given), len(given), len(given), ("time",))
    leading = ("batch", "time") if module.batch_first else ("time", "batch")
    sizes = dict(zip(leading, given.shape, strict=False))
    return Extent(sizes["batch"], sizes["time"], sizes["time"], sizes["batch"] * sizes["time"], leading)


def _cell_extent(given: Tensor) -> Extent:
    batch = len(given) if given.dim() == 2 else 1
    return Extent(batch, 1, 1, batch, ("batch",) * (given.dim() == 2))


def tensor_rows(module: Recurrent, call: Call, read: Extent) -> Iterator[Row]:
    """One record per tensor of the call, and one per row of h_n and c_n."""
    if isinstance(module, nn.RNNBase):
        return _sequence_rows(module, call, read)
    return _cell_rows(module, call, read)


@dataclass(frozen=True)
class Label:
    """What a record is of: its kind ("tensor", "parameter", ...), its symbol, name in words, and axes as written."""

    kind: str
    symbol: str
    name: str
    axes: str


def row(label: Label, tensor: Tensor | None, shape: Sequence[int] | None = None) -> Row:
    """A record of one tensor.

    Args:
        label: what it is.
        tensor: of any shape; where there is none, or nothing in it, min and max are None.
        shape: where there is no tensor to tell it.
    """
    low, high = _range(tensor)
    lengths = list(tensor.shape if shape is None and tensor is not None else shape or ())
    base = {"kind": label.kind, "symbol": label.symbol, "name": label.name, "symbolic_shape": label.axes}
    counts = {"elements": prod(lengths), "used": 1, "multiply_adds": 0}
    return {**base, "shape": lengths, **counts, "min": low, "max": high}


def module_row(label: Label, tensor: Tensor | None, shape: Sequence[int] | None = None, **more: Any) -> Row:
    """``row`` of a tensor of any shape, as it stands among those of a model's modules: they count steps and uses."""
    sizes = dict.fromkeys(("batch", "longest", "shortest", "steps", "padded_steps", "uses", "role"))
    return {**row(label, tensor, shape), **sizes, **more}


def _range(tensor: Tensor | None) -> tuple[float | None, float | None]:
    if tensor is None or tensor.numel() == 0 or tensor.is_meta:
        return None, None
    low, high = tensor.detach().aminmax()
    return float(low), float(high)


def _sequence_rows(module: nn.RNNBase, call: Call, read: Extent) -> Iterator[Row]:
    yield _input_row("input", f"input{_packing(read)}", module, call, read)
    yield from _initial_rows(module, call, read, ("h_0", "c_0"))
    output, after = call.output if isinstance(call.output, tuple) and len(call.output) == 2 else (call.output, None)
    values = output.data if isinstance(output, PackedSequence) else output
    if isinstance(values, Tensor):
        output_axes = _features_axes(read, output_axis(module).words)
        yield module_row(Label("tensor", "output", "h_t of the last layer at every step", output_axes), values)
    yield from _final_rows(module, read, _tensors(after))


def _final_rows(module: nn.RNNBase, read: Extent, states: Sequence[Tensor]) -> Iterator[Row]:
    """h_n and c_n whole, then row by row."""
    finals = list(zip(("h_n", "c_n"), states, _state_axes(module, read), strict=False))
    for symbol, state, axes in finals:
        name = f"last {'hidden' if symbol == 'h_n' else 'cell'} states{_batch_remark(module, read)}"
        yield module_row(Label("tensor", symbol, name, symbolic(axes)), state)
    for symbol, state, axes in finals:
        yield from _layer_rows(module, read, symbol, state, axes)


def _layer_rows(module: nn.RNNBase, read: Extent, symbol: str, state: Tensor, axes: tuple[Axis, ...]) -> Iterator[Row]:
    for i, part in enumerate(state):
        same = _same_in_output(module, read, i) if symbol == "h_n" else ""
        yield module_row(Label("state", f"{symbol}[{i}]", place(module, i) + same, symbolic(axes[1:])), part)


def _same_in_output(module: nn.RNNBase, read: Extent, row_of_h_n: int) -> str:
    """Where the last layer's h_n is found in the output; sequences of several lengths have no one place."""
    direction = row_of_h_n - (module.num_layers - 1) * directions(module)
    if direction < 0 or read.packed:
        return ""
    # The reverse direction ends at the first step.
    indices = {"batch": ":", "time": "0" if direction else "-1"}
    size = state_axis(module).size
    features = [f"{size}:" if direction else f":{size}"] if module.bidirectional else []
    return f" = output[{', '.join([*(indices[axis] for axis in read.leading), *features])}]"


def _cell_rows(module: Cell, call: Call, read: Extent) -> Iterator[Row]:
    yield _input_row("x_t", "input at step t", module, call, read)
    yield from _initial_rows(module, call, read, ("h_{t-1}", "c_{t-1}"))
    names = (("h_t", "hidden state"), ("c_t", "cell state"))
    for (symbol, name), state, axes in zip(names, _tensors(call.output), _state_axes(module, read), strict=False):
        yield module_row(Label("tensor", symbol, name, symbolic(axes)), state)


def _input_row(symbol: str, name: str, module: Recurrent, call: Call, read: Extent) -> Row:
    values = call.given.data if read.packed else call.given
    sizes: Row = {"batch": read.batch, "longest": read.longest, "shortest": read.shortest}
    steps: Row = {"steps": read.steps, "padded_steps": read.padded_steps}
    axes = _features_axes(read, "input")
    return module_row(Label("tensor", symbol, name, axes), values, **sizes, **steps)


def _initial_rows(module: Recurrent, call: Call, read: Extent, symbols: tuple[str, str]) -> Iterator[Row]:
    """h and c before the call; the zeros that the module takes where none were given."""
    names = ("hidden state before step 0", "cell state before step 0")
    if not isinstance(module, nn.RNNBase):
        names = ("hidden state before the step", "cell state before the step")
    for i, (symbol, name, axes) in enumerate(zip(symbols, names, _state_axes(module, read), strict=False)):
        if i < len(call.states):
            yield module_row(Label("tensor", symbol, name, symbolic(axes)), call.states[i])
        else:
            zeros = Label("tensor", symbol, f"{name}: zeros, not given", symbolic(axes))
            yield module_row(zeros, None, [axis.size for axis in axes], min=0.0, max=0.0)


def _state_axes(module: Recurrent, read: Extent) -> tuple[tuple[Axis, ...], ...]:
    """Of h and, where there is one, c."""
    stacked: tuple[Axis, ...] = ()
    if isinstance(module, nn.RNNBase):
        stacked = (Axis("num_layers x directions", module.num_layers * directions(module)),)
    batch = (Axis("batch", read.batch),) if read.is_batched else ()
    features = (state_axis(module), Axis("hidden", module.hidden_size))[: 1 + known_kind(module).has_cell_state]
    return tuple((*stacked, *batch, axis) for axis in features)


def _batch_remark(module: nn.RNNBase, read: Extent) -> str:
    if not read.is_batched:
        return ""
    return "; batch is never first" + (", even with batch_first" if module.batch_first else "")


def _features_axes(read: Extent, features: str) -> str:
    return f"({', '.join([*read.leading, features])})" + (" packed" if read.packed else "")


def _packing(read: Extent) -> str:
    if not read.packed:
        return ""
    return (
        f": {read.steps} steps of {read.batch} sequences of length {read.shortest} to {read.longest}; "
        f"padded: {read.padded_steps} steps, {read.padded_steps / read.steps:.3g} times the work"
    )


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [item for item in value if isinstance(item, Tensor)] if isinstance(value, (tuple, list)) else []
