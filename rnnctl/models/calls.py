"""What the hooks keep of one call of a recurrent module."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnctl.cells import ManualRNNCell
from rnnctl.models.arriving_gradients import Received
from rnnctl.models.modules import directions
from rnnctl.recurrence.cell_kind import CellKind
from rnnctl.recurrence.weights import LayerWeights


class RefusedCallError(Exception):
    """This call cannot be seen into; the text says why and what to do."""


@dataclass(frozen=True, eq=False)
class LayeredCall:
    """One call of nn.RNN, nn.GRU or nn.LSTM; the batch in the order of the packed data where it is packed.

    Attributes:
        module: what was called; only its settings are read later.
        kind: what one step of it is.
        weights: of every layer and direction, forward before reverse, as they were.
        parameters: the recurrent weights themselves, in the same order, to know them again.
        x: inputs, (time, batch, input), or packed (steps, input).
        batch_sizes: how many sequences have a step t, (time,), or None.
        order: of the batch in the packed data, or None.
        initial: h_0 and, of a cell with c, c_0, each (layers * directions, batch, ...), or None for zeros.
        output: as x; copied, since others may change it in place.
        room: the output with one step before it, (time + 1, batch, ...), for the state that it began
            with; None for packed sequences.
        h_n: (layers * directions, batch, hidden), copied.
        below: the outputs of the layers below the last, and what their dropout multiplied them with.
        source: the call whose h_n was handed to this one, or None.
        derived: the call from whose h_n or outputs something else made the state that this one was given, or None.
        narrowest: the dtype of the least precise product in it, under autocast not that of the weights.
        received: gradients of "output", "h_n" and "c_n".
    """

    module: nn.RNNBase
    kind: CellKind
    weights: tuple[LayerWeights, ...]
    parameters: tuple[Tensor, ...]
    x: Tensor
    batch_sizes: Tensor | None
    order: Tensor | None
    initial: tuple[Tensor, ...] | None
    output: Tensor
    room: Tensor | None
    h_n: Tensor
    below: tuple["Below", ...]
    source: int | None
    derived: int | None
    narrowest: torch.dtype
    received: Received


@dataclass(frozen=True, eq=False)
class Below:
    """A layer that is not the last: its output as the next one took it, and the dropout in between.

    ``output`` as the call's own, before dropout; ``noise`` (0 or 1 / (1 - p)) of the same shape, or
    None; ``error`` is the largest difference of its last states from those that the module returned.
    """

    output: Tensor
    noise: Tensor | None
    error: float


@dataclass(frozen=True, eq=False)
class CellCall:
    """One call of a cell.

    Attributes:
        module: what was called.
        kind: what one step of it is.
        weights: as they were.
        parameters: the recurrent weight itself, to know it again.
        x: (batch, input).
        before: h_{t-1} and, where the cell has one, c_{t-1}, each (batch, units).
        after: h_t and, where the cell has one, c_t, each (batch, units). Copied.
        source: the call that made h_{t-1}, or None.
        derived: the call from whose h_t something else than a plain copy made h_{t-1}, or None.
        fused: whether dL/dc_t arrives without the part that comes through h_t.
        narrowest: as of ``LayeredCall``.
        received: gradients of "h" and "c".
    """

    module: nn.Module
    kind: CellKind
    weights: LayerWeights
    parameters: tuple[Tensor]
    x: Tensor
    before: tuple[Tensor, ...]
    after: tuple[Tensor, ...]
    source: int | None
    derived: int | None
    fused: bool
    narrowest: torch.dtype
    received: Received


Call = LayeredCall | CellCall
OneCall = TypeVar("OneCall", LayeredCall, CellCall, Call)


def layer_weights(module: nn.RNNBase) -> list[tuple[LayerWeights, Tensor]]:
    """The weights that ``forward`` uses, layer by layer, and each W_hh itself; nothing is copied."""
    # The list that forward handed to the kernel: a parametrized weight is another tensor at every further look.
    flat = iter(module._flat_weights)
    found = []
    for names in module._all_weights:
        named: dict[str, Any] = {name.rsplit("_l", 1)[0]: next(flat) for name in names}
        weights = LayerWeights(
            named["weight_ih"], named["weight_hh"], named.get("bias_ih"), named.get("bias_hh"), named.get("weight_hr")
        )
        found.append((weights, named["weight_hh"]))
    return found


def cell_weights(module: nn.Module) -> LayerWeights:
    """The weights of a cell; nothing is copied."""
    if isinstance(module, ManualRNNCell):
        x, h = module.input_to_hidden, module.hidden_to_hidden
        return LayerWeights(x.weight, h.weight, x.bias, h.bias)
    assert isinstance(module, nn.RNNCellBase)
    return LayerWeights(module.weight_ih, module.weight_hh, module.bias_ih, module.bias_hh)


def argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, *names: str) -> Any:
    """The argument at this place or under one of these names, or None."""
    if len(args) > place:
        return args[place]
    return next((kwargs[name] for name in names if name in kwargs), None)


def narrowest_dtype(weight: Tensor) -> torch.dtype:
    """That of autocast where it narrows the products, else of the weight, which has any shape."""
    kind = weight.device.type
    if torch.is_autocast_enabled(kind):
        narrow = torch.get_autocast_dtype(kind)
        return narrow if narrow.itemsize < weight.dtype.itemsize else weight.dtype
    return weight.dtype


def time_major(module: nn.RNNBase, x: Tensor) -> Tensor:
    """x with shape (time, batch, features), whatever the module's layout; no copy.

    Args:
        x: shape (batch, time, features), (time, batch, features), or (time, features) without a batch.
    """
    # Without a batch axis there is nothing that batch_first could put first.
    if x.dim() == 2:
        return x.unsqueeze(1)
    return x.transpose(0, 1) if module.batch_first else x


def packed_or_time_major(module: nn.RNNBase, x: Tensor | PackedSequence) -> Tensor:
    """The data of a packed sequence, shape (steps, features), or x as (time, batch, features); no copy."""
    return x.data if isinstance(x, PackedSequence) else time_major(module, x)


def hidden_tuple(hidden: Any, order: Tensor | None) -> tuple[Tensor, ...]:
    """Copies of h, or of h and c, each of shape (layers * directions, batch, ...), in the order of packed data.

    Args:
        hidden: h or (h, c), as a module takes and returns them.
        order: of the batch in the packed data, shape (batch,), or None.
    """
    # Copies, because others may change theirs in place before backward is through.
    parts = hidden if isinstance(hidden, (tuple, list)) else (hidden,)
    return tuple(in_packed_order(part, order).detach().clone() for part in parts)


def in_packed_order(hidden: Tensor, order: Tensor | None) -> Tensor:
    """h_0, h_n, c_0 or c_n, or its gradient, with a batch axis and the batch in the order of packed data.

    Args:
        hidden: shape (layers * directions, batch, ...), or without the batch.
        order: of the batch in the packed data, shape (batch,), or None.
    """
    # Packed data begins with the longest sequence, while states come and go in the batch's own order.
    batched = hidden.unsqueeze(1) if hidden.dim() == 2 else hidden
    return batched if order is None else batched.index_select(1, order)


def state_of(given: Any) -> Tensor | None:
    """The h of h alone or (h, c)."""
    state: Tensor | None = given[0] if isinstance(given, (tuple, list)) else given
    return state


def rows_of(module: nn.RNNBase, layer: int) -> slice:
    """Which rows of h_0, h_n, c_0 and c_n are this layer's."""
    count = directions(module)
    return slice(layer * count, (layer + 1) * count)


def chains_of(kept: Sequence[Call]) -> list[list[int]]:
    """The numbers of the calls, by sequences each call of which took the state of the one before, or one made of it."""
    chains: dict[int, list[int]] = {}
    start_of: list[int] = []
    for number, call in enumerate(kept):
        before = _before(call)
        start_of.append(number if before is None else start_of[before])
        chains.setdefault(start_of[-1], []).append(number)
    return list(chains.values())


def chains_reached(kept: Sequence[Call]) -> list[list[int]]:
    """Those that a gradient came to."""
    return [chain for chain in chains_of(kept) if any(kept[number].received for number in chain)]


def reached(kept: Sequence[Call], wanted: Callable[[Call], bool]) -> list[Call]:
    """Of the calls of a module, the forward passes of which a call is wanted, numbered anew."""
    chains = (chain for chain in chains_of(kept) if any(wanted(kept[number]) for number in chain))
    return taken(kept, sorted(number for chain in chains for number in chain))


def taken(kept: Sequence[OneCall], numbers: Sequence[int]) -> list[OneCall]:
    """Calls by their numbers, whole chains of them in order, numbered anew."""
    places = {number: place for place, number in enumerate(numbers)}
    return [_renumbered(kept[number], places) for number in numbers]


def _before(call: Call) -> int | None:
    """The call from which this one goes on."""
    return call.source if call.source is not None else call.derived


def _renumbered(call: OneCall, places: Mapping[int, int]) -> OneCall:
    source, derived = (None if each is None else places[each] for each in (call.source, call.derived))
    return replace(call, source=source, derived=derived)
