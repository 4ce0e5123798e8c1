"""One layer of anybody's recurrent model with the input that drives it."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnctl.cells import require_like_weights, require_shape
from rnnctl.dynamics.trajectory import Weights, require_finite, widened
from rnnctl.errors import InputError, ShapeError
from rnnctl.models.calls import cell_weights, layer_weights
from rnnctl.recurrence.fused import layer_outputs
from rnnctl.recurrence.weights import GATES, LayerWeights

LAYERED = (nn.RNN, nn.GRU, nn.LSTM)
CELLS = (nn.RNNCell, nn.GRUCell, nn.LSTMCell)


@dataclass(frozen=True, eq=False)
class DrivenLayer:
    """One layer in one direction, and the inputs and the start of its trajectory; of any dtype and device.

    Attributes:
        cell: "RNN", "GRU" or "LSTM".
        weights: of the layer, in torch's layout.
        x: what the layer receives, in the order of its recurrence, shape (batch, time, input).
        h_init: hidden state before its first step, shape (batch, hidden), of a projected LSTM (batch, proj).
        c_init: the LSTM's cell state before it, shape (batch, hidden); None for the other cells.
        nonlinearity: of an RNN, "tanh" or "relu".
        name: for messages and notes.
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

    def __post_init__(self) -> None:
        if self.cell not in GATES:
            raise InputError(f"{self.name}: cell must be one of {', '.join(GATES)}; got {self.cell!r}")
        if self.cell == "RNN" and self.nonlinearity not in ("tanh", "relu"):
            raise InputError(f"{self.name}: nonlinearity must be tanh or relu; got {self.nonlinearity!r}")
        if (self.c_init is None) == (self.cell == "LSTM"):
            needs = "an LSTM needs c_init" if self.cell == "LSTM" else f"c_init is an LSTM's; {self.cell} has no c"
            raise InputError(f"{self.name}: {needs}")
        self._check_weights()
        require_shape(f"x of {self.name}", self.x, ("batch", "time", self.weights.W_ih.shape[1]))
        require_shape(f"h_init of {self.name}", self.h_init, (self.x.shape[0], self.weights.W_hh.shape[1]))
        if self.c_init is not None:
            require_shape(f"c_init of {self.name}", self.c_init, (self.x.shape[0], self.hidden_size))

    @property
    def hidden_size(self) -> int:
        """Units of every gate."""
        return self.weights.W_hh.shape[0] // max(1, len(GATES[self.cell]))

    @property
    def state_size(self) -> int:
        """Numbers that the next step takes: those of h, of an LSTM those of h and c."""
        return self.weights.W_hh.shape[1] + (self.hidden_size if self.cell == "LSTM" else 0)

    @property
    def state_init(self) -> Tensor:
        """h_init, of an LSTM with c_init after it, shape (batch, state), float64."""
        parts = [self.h_init] if self.c_init is None else [self.h_init, self.c_init]
        return torch.cat([widened(part) for part in parts], dim=1)

    def _check_weights(self) -> None:
        weights, gates = self.weights, max(1, len(GATES[self.cell]))
        rows, fed_back = weights.W_hh.shape
        units = rows // gates
        if rows % gates or (weights.W_hr is None and fed_back != units):
            hint = "" if rows % max(1, fed_back) else f" {rows // fed_back} x {fed_back} rows are another cell's."
            raise ShapeError(
                f"{self.name}: W_hh of {'an' if self.cell != 'GRU' else 'a'} {self.cell} must have shape "
                f"({gates} x hidden, hidden); got ({rows}, {fed_back}).{hint}"
            )
        if weights.W_hr is not None:
            if self.cell != "LSTM":
                raise ShapeError(f"{self.name}: W_hr, a projection, is an LSTM's; got {self.cell}")
            require_shape(f"W_hr of {self.name}", weights.W_hr, (fed_back, units))
        require_shape(f"W_ih of {self.name}", weights.W_ih, (rows, "input"))
        for name, bias in (("b_ih", weights.b_ih), ("b_hh", weights.b_hh)):
            if bias is not None:
                require_shape(f"{name} of {self.name}", bias, (rows,))


def wide_weights(layer: DrivenLayer) -> LayerWeights:
    """The weights in float64 on the CPU, apart from autograd; InputError where one is not finite."""
    given = {field.name: getattr(layer.weights, field.name) for field in fields(layer.weights)}
    wide: dict[str, Any] = {name: None if value is None else widened(value) for name, value in given.items()}
    for name, value in wide.items():
        require_finite(f"{name} of {layer.name}", value)
    return LayerWeights(**wide)


def elman_weights(layer: DrivenLayer) -> Weights:
    """Those of an RNN as the Elman recurrence takes them; InputError where one is not finite."""
    wide = wide_weights(layer)
    biases = [b for b in (wide.b_ih, wide.b_hh) if b is not None]
    return Weights(wide.W_ih, wide.W_hh, sum(biases[1:], biases[0]) if biases else None, layer.nonlinearity)


def require_alone(*given: Tensor | None) -> None:
    """Raise InputError where a ``DrivenLayer`` comes with an input or a state beside its own."""
    if any(each is not None for each in given):
        raise InputError("a DrivenLayer has its own x and initial state; leave out x, h_init and target")


def driven_layer(
    module: nn.RNNBase | nn.RNNCellBase, x: Tensor, hx: Any = None, *, layer: int = 0, direction: int = 0
) -> DrivenLayer:
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
    if isinstance(module, nn.RNNCellBase):
        _require_below(layer, 1, "layer", module)
        _require_below(direction, 1, "direction", module)
        return _driven_cell(module, x, hx)
    directions = 2 if module.bidirectional else 1
    _require_below(layer, module.num_layers, "layer", module)
    _require_below(direction, directions, "direction", module)
    if layer > 0 and module.training and module.dropout > 0:
        raise InputError(
            f"the dropout of {module.dropout:g} between the layers is active, so that what layer {layer} receives "
            "differs from call to call. Try module.eval()"
        )
    x, initial = _batched_input(module, x, hx, directions)
    received = _received(module, x, initial, layer, directions)
    index = layer * directions + direction
    state = [part[index].detach() for part in initial]
    return DrivenLayer(
        cell=module.mode.partition("_")[0],
        weights=layer_weights(module)[index][0],
        x=received.flip(0).transpose(0, 1) if direction else received.transpose(0, 1),
        h_init=state[0],
        c_init=state[1] if len(state) > 1 else None,
        nonlinearity=module.mode.partition("_")[2].lower() or "tanh",
        name=_name(module, layer, direction, directions),
    )


def _driven_cell(cell: nn.RNNCellBase, x: Tensor, hx: Any) -> DrivenLayer:
    unbatched = isinstance(x, Tensor) and x.dim() == 2
    x = x.unsqueeze(0) if unbatched else x
    require_shape("x", x, ("batch", "time", cell.input_size))
    require_like_weights("x", x, cell.weight_hh)
    sizes = [cell.hidden_size] * (2 if isinstance(cell, nn.LSTMCell) else 1)
    state = _initial(hx, x, [(size,) if unbatched else (x.shape[0], size) for size in sizes])
    state = [part.unsqueeze(0) if unbatched else part for part in state]
    return DrivenLayer(
        cell=_kind(cell, CELLS).removesuffix("Cell"),
        weights=cell_weights(cell),
        x=x.detach(),
        h_init=state[0],
        c_init=state[1] if len(state) > 1 else None,
        nonlinearity=str(getattr(cell, "nonlinearity", "tanh")),
        name=type(cell).__name__,
    )


def _batched_input(module: nn.RNNBase, x: Tensor, hx: Any, directions: int) -> tuple[Tensor, list[Tensor]]:
    """x as (time, batch, input), and the initial states as (layers * directions, batch, units)."""
    unbatched = isinstance(x, Tensor) and x.dim() == 2
    first, second = ("batch", "time") if module.batch_first and not unbatched else ("time", "batch")
    require_shape("x", x, (first, module.input_size) if unbatched else (first, second, module.input_size))
    require_like_weights("x", x, layer_weights(module)[0][1])
    batched = x.unsqueeze(1) if unbatched else x.transpose(0, 1) if module.batch_first else x
    rows, fed_back = module.num_layers * directions, module.proj_size or module.hidden_size
    sizes = [fed_back, module.hidden_size] if module.mode == "LSTM" else [fed_back]
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


def _received(module: nn.RNNBase, x: Tensor, initial: list[Tensor], layer: int, directions: int) -> Tensor:
    """What a layer receives: the output of those below it, shape (time, batch, features)."""
    weights = [each for each, _ in layer_weights(module)]
    for below in range(layer):
        rows = slice(below * directions, (below + 1) * directions)
        x = layer_outputs(module.mode, x, [part[rows].contiguous() for part in initial], weights[rows])
    return x


def _require_plain(module: object, x: object) -> None:
    if not isinstance(module, (*LAYERED, *CELLS)):
        raise InputError(
            "module must be an nn.RNN, nn.GRU or nn.LSTM, or a cell of one of them; "
            f"got {type(module).__name__}. A rnnctl.FullRNN needs no driven_layer"
        )
    kind = next(each for each in (*LAYERED, *CELLS) if isinstance(module, each))
    if type(module).forward is not kind.forward:
        raise InputError(
            f"{type(module).__name__} has a forward of its own, which may be another recurrence than that of "
            f"nn.{kind.__name__}. Try a module that holds an nn.{kind.__name__} instead of being one"
        )
    if isinstance(x, PackedSequence):
        raise InputError("x must be a tensor: a trajectory has one length. Try the sequences of one length at a time")


def _require_below(index: int, count: int, what: str, module: nn.Module) -> None:
    if not 0 <= index < count:
        raise InputError(f"{what} must be from 0 to {count - 1} of this {type(module).__name__}; got {index}")


def _kind(module: nn.Module, kinds: Iterable[type]) -> str:
    return next(each.__name__ for each in kinds if isinstance(module, each))


def _name(module: nn.RNNBase, layer: int, direction: int, directions: int) -> str:
    way = "" if directions == 1 else " reverse" if direction else " forward"
    return f"{type(module).__name__} layer {layer}{way}"
