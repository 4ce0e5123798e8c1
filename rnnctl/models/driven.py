"""One layer of anybody's recurrent model with the input that drives it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnctl.cells import FullRNN, require_like_weights, require_shape
from rnnctl.errors import InputError, ShapeError
from rnnctl.models.calls import argument, cell_weights, layer_weights, rows_of
from rnnctl.models.graph_steps import GraphSteps, graph_steps, several, why_none
from rnnctl.models.hand_written import require_own_start
from rnnctl.models.hooks import hooked
from rnnctl.models.inputs import Given, TimeFirst, inputs_of
from rnnctl.models.model_run import ModelRun
from rnnctl.models.modules import (
    Found,
    class_of,
    directions,
    has_own_forward,
    is_layer,
    known_kind,
    recurrent_modules,
    spoken,
    weight_names,
)
from rnnctl.recurrence.cell_kind import CellKind
from rnnctl.recurrence.kinds import kind_named
from rnnctl.recurrence.slopes import State, stacked
from rnnctl.recurrence.weights import LayerWeights


@dataclass(frozen=True, eq=False)
class DrivenLayer:
    """One layer in one direction, and the inputs and the start of its trajectory; of any dtype and device.

    Attributes:
        cell: name of its kind, "RNN", "GRU", "LSTM", ...
        weights: of the layer, in torch's layout.
        x: what the layer receives, in the order of its recurrence, shape (batch, time, input).
        h_init: hidden state before its first step, shape (batch, hidden), of a projected LSTM (batch, proj).
        c_init: cell state before it, shape (batch, hidden); None for a cell that has none.
        nonlinearity: of an RNN, "tanh" or "relu".
        name: for messages and notes.
        notes: what is to be told of the steps that the model ran.
    Raises:
        InputError: an unknown cell or nonlinearity; ShapeError: shapes that do not belong together.
    """

    cell: str
    weights: LayerWeights
    x: Tensor
    h_init: Tensor
    c_init: Tensor | None = None
    nonlinearity: str = "tanh"
    name: str = "the layer"
    notes: tuple[str, ...] = ()
    # That is measured: the state before all steps is known.
    first_step: ClassVar[int] = 0

    def __post_init__(self) -> None:
        # First of all the kind: how the rows of W_hh are to be read depends on it.
        try:
            kind = self.kind
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None
        if (self.c_init is None) == kind.has_cell_state:
            none = f"c_init is an LSTM's; {self.cell} has no c"
            raise InputError(f"{self.name}: {f'{kind.with_article} needs c_init' if kind.has_cell_state else none}")
        self._check_weights()
        require_shape(f"x of {self.name}", self.x, ("batch", "time", self.weights.W_ih.shape[1]))
        require_shape(f"h_init of {self.name}", self.h_init, (self.x.shape[0], self.weights.W_hh.shape[1]))
        if self.c_init is not None:
            require_shape(f"c_init of {self.name}", self.c_init, (self.x.shape[0], self.hidden_size))

    @property
    def kind(self) -> CellKind:
        """What one step of it is."""
        return kind_named(self.cell, self.nonlinearity)

    @property
    def seq_len(self) -> int:
        """T."""
        return self.x.shape[1]

    @property
    def hidden_size(self) -> int:
        """Units of every gate."""
        return self.weights.W_hh.shape[0] // self.kind.blocks

    @property
    def state_size(self) -> int:
        """Numbers that the next step takes: those of h, and those of c where there is one."""
        return self.weights.W_hh.shape[1] + (self.hidden_size if self.kind.has_cell_state else 0)

    @property
    def dtype(self) -> torch.dtype:
        """Of W_hh, as it was given."""
        return self.weights.W_hh.dtype

    @property
    def state_init(self) -> Tensor:
        """h_init, with c_init after it where there is one, shape (batch, state), float64."""
        return stacked([widened(part) for part in (self.h_init, self.c_init) if part is not None])

    def states_of(self, state: Tensor) -> State:
        """h, or h and c, of the two side by side, shape (batch, state)."""
        sizes = [self.weights.W_hh.shape[1], *([self.hidden_size] if self.kind.has_cell_state else ())]
        return torch.split(state, sizes, dim=1)

    @property
    def wide_weights(self) -> LayerWeights:
        """The weights in float64 on the CPU, apart from autograd; InputError where one is not finite."""
        given = {field.name: getattr(self.weights, field.name) for field in fields(self.weights)}
        wide: dict[str, Any] = {name: None if value is None else widened(value) for name, value in given.items()}
        for name, value in wide.items():
            require_finite(f"{name} of {self.name}" if self.name else name, value)
        return LayerWeights(**wide)

    def _check_weights(self) -> None:
        weights, kind = self.weights, self.kind
        rows, fed_back = weights.W_hh.shape
        units = rows // kind.blocks
        if rows % kind.blocks or (weights.W_hr is None and fed_back != units):
            hint = "" if rows % max(1, fed_back) else f" {rows // fed_back} x {fed_back} rows are another cell's."
            raise ShapeError(
                f"{self.name}: W_hh of {kind.with_article} must have shape ({kind.blocks} x hidden, hidden); "
                f"got ({rows}, {fed_back}).{hint}"
            )
        if weights.W_hr is not None:
            if not kind.projects:
                raise ShapeError(f"{self.name}: W_hr, a projection, is an LSTM's; got {self.cell}")
            require_shape(f"W_hr of {self.name}", weights.W_hr, (fed_back, units))
        require_shape(f"W_ih of {self.name}", weights.W_ih, (rows, "input"))
        for name, bias in (("b_ih", weights.b_ih), ("b_hh", weights.b_hh)):
            if bias is not None:
                require_shape(f"{name} of {self.name}", bias, (rows,))


def widened(tensor: Tensor) -> Tensor:
    """The values in float64 on the CPU, apart from autograd, of any shape."""
    return tensor.detach().cpu().double()


def require_finite(name: str, tensor: Tensor | None) -> None:
    """Raise InputError for a weight of any shape that is not."""
    if tensor is None or torch.isfinite(tensor).all():
        return
    place = tuple(int(i) for i in (~torch.isfinite(tensor)).nonzero()[0])
    raise InputError(
        f"{name} must be finite; it holds {float(tensor[place])} at {place}. A nonfinite weight has no spectrum"
    )


def own_layer(model: FullRNN, x: Tensor, h_init: Tensor) -> DrivenLayer:
    """The hand-written network's layer.

    Args:
        x: inputs, shape (batch, time, input).
        h_init: hidden state before step 0, shape (batch, hidden).
    """
    cell = model.rnn_cell
    weights = cell_weights(cell)
    return DrivenLayer("RNN", weights, x, h_init, nonlinearity=cell.nonlinearity, name="")


def require_alone(*given: Given | None) -> None:
    """Raise InputError where a ``DrivenLayer`` comes with an input or a state, of any shape, beside its own."""
    if any(each is not None for each in given):
        raise InputError("a DrivenLayer has its own x and initial state; leave out x, h_init and target")


def driven_layer(module: nn.Module, x: Tensor, hx: Any = None, *, layer: int = 0, direction: int = 0) -> DrivenLayer:
    """One layer and direction of a module of torch's, as this input drives it.

    Args:
        module: an ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM``, or a cell of one of them; nothing of it is changed.
        x: the module's input in its own layout (``batch_first`` or not, batched or not); of a cell the
            inputs of all steps, shape (batch, time, input) or (time, input).
        hx: initial state as the module takes it, h_0 or (h_0, c_0); zeros if left out.
        layer: which one; those below it are run, without autograd.
        direction: 0 forward, 1 reverse, which takes x from its end.
    Returns:
        A frozen ``DrivenLayer``.
    Raises:
        InputError: another module, a layer or direction that it has not, active dropout below the layer,
            a packed sequence; ShapeError, DtypeError, DeviceError.
    """
    _require_plain(module, x)
    if not isinstance(module, nn.RNNBase):
        _require_below(layer, 1, "layer", module)
        _require_below(direction, 1, "direction", module)
        return _driven_cell(module, x, hx)
    count = directions(module)
    _require_below(layer, module.num_layers, "layer", module)
    _require_below(direction, count, "direction", module)
    # The first layer receives x itself, before any dropout.
    if layer > 0 and module.training and module.dropout > 0:
        raise InputError(
            f"the dropout of {module.dropout:g} between the layers is active, so that what layer {layer} receives "
            "differs from call to call. Try module.eval()"
        )
    x, initial = _batched_input(module, x, hx)
    received = _received(module, x, initial, layer)
    index = layer * count + direction
    state = [part[index].detach() for part in initial]
    return DrivenLayer(
        **_kind_names(module),
        weights=layer_weights(module)[index][0],
        x=received.flip(0).transpose(0, 1) if direction else received.transpose(0, 1),
        h_init=state[0],
        c_init=state[1] if len(state) > 1 else None,
        name=_name(module, layer, direction),
    )


def _kind_names(module: nn.Module) -> dict[str, Any]:
    """cell and nonlinearity of a ``DrivenLayer``."""
    kind = known_kind(module)
    return {"cell": kind.name, "nonlinearity": "tanh" if kind.nonlinearity is None else kind.nonlinearity.name}


def _driven_cell(cell: Any, x: Tensor, hx: Any) -> DrivenLayer:
    unbatched = isinstance(x, Tensor) and x.dim() == 2
    x = x.unsqueeze(0) if unbatched else x
    require_shape("x", x, ("batch", "time", cell.input_size))
    require_like_weights("x", x, cell_weights(cell).W_hh)
    sizes = [cell.hidden_size] * len(known_kind(cell).states)
    state = _initial(hx, x, [(size,) if unbatched else (x.shape[0], size) for size in sizes])
    state = [part.unsqueeze(0) if unbatched else part for part in state]
    return DrivenLayer(
        **_kind_names(cell),
        weights=cell_weights(cell),
        x=x.detach(),
        h_init=state[0],
        c_init=state[1] if len(state) > 1 else None,
        name=type(cell).__name__,
    )


def _batched_input(module: nn.RNNBase, x: Tensor, hx: Any) -> tuple[Tensor, list[Tensor]]:
    """x as (time, batch, input), and the initial states as (layers * directions, batch, units)."""
    unbatched = isinstance(x, Tensor) and x.dim() == 2
    first, second = ("batch", "time") if module.batch_first and not unbatched else ("time", "batch")
    # Unbatched, batch_first says nothing.
    require_shape("x", x, (first, module.input_size) if unbatched else (first, second, module.input_size))
    require_like_weights("x", x, layer_weights(module)[0][1])
    batched = x.unsqueeze(1) if unbatched else x.transpose(0, 1) if module.batch_first else x
    rows, fed_back = module.num_layers * directions(module), module.proj_size or module.hidden_size
    sizes = [fed_back, module.hidden_size][: len(known_kind(module).states)]
    shapes = [(rows, size) if unbatched else (rows, batched.shape[1], size) for size in sizes]
    initial = _initial(hx, x, shapes)
    return batched.detach(), [part.unsqueeze(1) if unbatched else part for part in initial]


def _initial(hx: Any, x: Tensor, shapes: Iterable[tuple[int, ...]]) -> list[Tensor]:
    """h_0 and, of an LSTM, c_0 as given, or zeros."""
    shapes = list(shapes)
    if hx is None:
        return [x.new_zeros(shape) for shape in shapes]
    parts = list(hx) if isinstance(hx, (tuple, list)) else [hx]
    if len(parts) != len(shapes):
        raise InputError(f"hx must be {'(h_0, c_0)' if len(shapes) == 2 else 'h_0'}; got {len(parts)} tensor(s)")
    for name, part, shape in zip(("h_0", "c_0"), parts, shapes, strict=False):
        require_shape(name, part, shape)
        require_like_weights(name, part, x)
    return [part.detach() for part in parts]


def _received(module: nn.RNNBase, x: Tensor, initial: list[Tensor], layer: int) -> Tensor:
    """What a layer receives: the output of those below it, shape (time, batch, features)."""
    weights, outputs = [each for each, _ in layer_weights(module)], known_kind(module).outputs
    for below in range(layer):
        rows = rows_of(module, below)
        x, _ = outputs(x, None, [part[rows].contiguous() for part in initial], weights[rows])
    return x


def _require_plain(module: nn.Module, x: object) -> None:
    known = class_of(module) if isinstance(module, nn.Module) else None
    if known is None:
        raise InputError(
            "module must be an nn.RNN, nn.GRU or nn.LSTM, or a cell of one of them; "
            f"got {type(module).__name__}. A rnnctl.FullRNN needs no driven_layer"
        )
    if type(module).forward is not known.forward:
        raise InputError(
            f"{type(module).__name__} has a forward of its own, which may be another recurrence than that of "
            f"{spoken(known)}. Try a module that holds an {spoken(known)} instead of being one"
        )
    if isinstance(x, PackedSequence):
        raise InputError("x must be a tensor: a trajectory has one length. Try the sequences of one length at a time")


def _require_below(index: int, count: int, what: str, module: nn.Module) -> None:
    if not 0 <= index < count:
        raise InputError(f"{what} must be from 0 to {count - 1} of this {type(module).__name__}; got {index}")


def _name(module: nn.RNNBase, layer: int, direction: int) -> str:
    way = "" if directions(module) == 1 else " reverse" if direction else " forward"
    return f"{type(module).__name__} layer {layer}{way}"


def driven_along(
    model: nn.Module, x: Given | None, h_init: Tensor | None, only: str | None, time_first: TimeFirst = None
) -> DrivenLayer | GraphSteps:
    """The layer, or the steps of somebody's own code, of one recurrent weight of any model, as x drives it.

    Where layers and cells of known classes are there, a weight that only the graph shows has to be named.

    Args:
        model: any module; hooks are set while it runs once.
        x: the model's input, shape (batch, time, input), or a tuple or mapping of all its inputs.
        h_init: None: only a ``FullRNN`` takes one beside its input.
        only: a pattern of module or weight names that leaves one weight, as in ``probe``.
        time_first: whether the model takes (time, batch, ...), as of ``gradnorm``.
    Returns:
        What ``lyapunov`` and ``spectrum`` look at.
    Raises:
        InputError: x left out, h_init given; several weights or none; a module that was not called, or not in a way
            that has a single trajectory; as ``driven_layer`` and ``graph_steps``.
    """
    require_own_start(h_init)
    if x is None:
        raise InputError("a model needs x, its input of shape (batch, time, input)")
    run = ModelRun(model, x, None, time_first)
    modules = recurrent_modules(model, only)
    by_name = {each.full(weight): (each, weight) for each in modules for weight in each.weights}
    names = [name for each in modules for name in weight_names(each, only)]
    if len(names) > 1:
        raise InputError(several(names))
    # One with a forward of the user's own may do its steps by hand; where it does not it is a layer like others.
    by_hand = {name for name, (found, _) in by_name.items() if has_own_forward(found.module)}
    if not by_hand.issuperset(names):
        return _driven_by(*by_name[names[0]], run)
    steps = graph_steps(model, x, run, only)
    if steps is not None:
        require_finite(steps.name, steps.W_hh)
        steps.notes = run.notes
        given = inputs_of(x)
        tensors = [given] if isinstance(given, Tensor) else given.tensors
        steps.given = tuple(each for each in tensors if isinstance(each, Tensor))
        return steps
    if not names:
        raise run.explained(InputError(why_none(model)))
    return _driven_by(*by_name[names[0]], run)


def _driven_by(found: Found, weight: str, run: ModelRun) -> DrivenLayer:
    """The layer that a weight belongs to, with what it receives while ``run`` calls the model, without gradients."""
    return replace(_received_in(found, weight, run), notes=run.notes)


def _received_in(found: Found, weight: str, run: Callable[[], Any]) -> DrivenLayer:
    module = found.module
    calls = _calls_of(module, run)
    if not calls:
        raise InputError(f"{found.name or 'the model'} was not called")
    if not is_layer(module):
        # One before the last is where time goes, with a batch or without. Of the states that it was given the first
        # will do: later ones are taken to be its own.
        return driven_layer(module, torch.stack([x for x, _ in calls], dim=-2), calls[0][1])
    if len(calls) > 1:
        raise InputError(f"{found.name} was called {len(calls)} times; one trajectory needs one call over all steps")
    x, hx = calls[0]
    if isinstance(x, PackedSequence):
        raise InputError(f"{found.name} received packed sequences; give it sequences of one length")
    index = found.weights.index(weight)
    return driven_layer(module, x, hx, layer=index // directions(module), direction=index % directions(module))


def _calls_of(module: nn.Module, run: Callable[[], Any]) -> list[tuple[Tensor, Any]]:
    """Input and given state of every call."""
    calls: list[tuple[Tensor, Any]] = []

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        calls.append((argument(args, kwargs, 0, "input", "x_t"), argument(args, kwargs, 1, "hx", "h_t_minus_1")))

    with hooked(module, after), torch.no_grad():
        run()
    return calls
