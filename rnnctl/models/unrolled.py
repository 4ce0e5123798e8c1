"""Where the steps of a layer are in autograd's graph, for a call that torch ran step by step and not in one kernel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rnnctl.models.calls import LayeredCall
from rnnctl.models.modules import directions


@dataclass(frozen=True, eq=False)
class Unrolled:
    """The nodes of one layer in one direction, steps in the order of its recurrence.

    Attributes:
        weights: those that transposed W_hh, once for every step: what comes to one of them is G_t, transposed.
        states: those that made h_t.
        stack: the one that lays all h_t beside one another, in the order of the sequence.
    """

    weights: tuple[Any, ...]
    states: tuple[Any, ...]
    stack: Any


class _OtherGraphError(Exception):
    """It is not the graph that torch's own unrolling makes."""


# A way down the graph: the names of the nodes that may stand there, and which operand leads on.
_Way = tuple[tuple[str, int], ...]
# By kind of cell, the nodes that may have made h_t; from there to the product with W_hh, and to what came of the input.
_MADE_BY: Mapping[str, tuple[str, ...]] = {"RNN": ("TanhBackward0", "ReluBackward0"), "GRU": ("AddBackward0",)}
_TO_USE: Mapping[str, _Way] = {
    "RNN": (("AddBackward0", 0),),
    # h_t = (h_{t-1} - n) z + n; n is tanh of a sum with r times what the rows of n make of h_{t-1}.
    "GRU": (("TanhBackward0", 0), ("AddBackward0", 1), ("MulBackward0", 0), ("UnsafeSplitBackward0", 0)),
}
_TO_INPUT: Mapping[str, _Way] = {
    "RNN": (("AddBackward0", 1),),
    "GRU": (("TanhBackward0", 0), ("AddBackward0", 0), ("UnsafeSplitBackward0", 0)),
}
# The operand of the node that made h_t at which these ways begin.
_FIRST: Mapping[str, int] = {"RNN": 0, "GRU": 1}
# Products of states and a transposed weight: where h_{t-1} and where the weight is, with a bias and without.
_PRODUCTS: Mapping[str, tuple[int, int]] = {"AddmmBackward0": (1, 2), "MmBackward0": (0, 1)}
# From what a layer makes of all its inputs down to the states of the layer below, dropout on the way: by node, the
# operand that leads there.
_DOWN: Mapping[str, int] = {
    **dict.fromkeys(("UnbindBackward0", "ViewBackward0", "UnsafeViewBackward0", "AddBackward0", "MulBackward0"), 0),
    **{name: state for name, (state, _) in _PRODUCTS.items()},
}
# From the output, with the batch first or after the steps.
_RETURNED: Mapping[str, int] = {"TransposeBackward1": 0}
# More nodes than there are between two layers.
_DEEPEST = 10


def unrolled(call: LayeredCall) -> tuple[Unrolled, ...] | None:
    """Every layer and direction, forward before reverse; None where torch did not unroll it, or in another way.

    Args:
        call: whose graph is there, and no backward pass has let go of it.
    """
    if call.kind.name not in _MADE_BY or not {"output", "h_n"} <= call.received.sites.keys():
        return None
    try:
        return _found(call)
    except _OtherGraphError:
        return None


def _found(call: LayeredCall) -> tuple[Unrolled, ...]:
    kind, count = call.kind.name, directions(call.module)
    ends = _inputs(call.received.sites["h_n"][0], "StackBackward0")
    if len(ends) != len(call.parameters):
        raise _OtherGraphError
    chains = [_chain(kind, end, len(call.output), W_hh) for (end, _), W_hh in zip(ends, call.parameters, strict=True)]
    # Of a layer below the last, whose output is not returned, what the one above makes of its input leads there.
    firsts = [states[0] for states, _ in chains[count::count]]
    below = [_down(_DOWN, _along(_TO_INPUT[kind], first.next_functions[_FIRST[kind]][0])) for first in firsts]
    top = _down(_RETURNED, call.received.sites["output"][0])
    stacks = [stack for node in (*below, top) for stack in _stacks(node, count)]
    return tuple(
        _checked(chain, stack, reverse=bool(number % count))
        for number, (chain, stack) in enumerate(zip(chains, stacks, strict=True))
    )


def _chain(kind: str, last: Any, steps: int, W_hh: Tensor) -> tuple[list[Any], list[Any]]:
    """The nodes that made the states and those that transposed W_hh for them."""
    states, weights, node = [], [], last
    for _ in range(steps):
        if node is None or node.name() not in _MADE_BY[kind]:
            raise _OtherGraphError
        use = _along(_TO_USE[kind], node.next_functions[_FIRST[kind]][0])
        if use.name() not in _PRODUCTS:
            raise _OtherGraphError
        state, weight = _PRODUCTS[use.name()]
        operands = use.next_functions
        _require_weight(operands[weight][0], W_hh)
        states.append(node)
        weights.append(operands[weight][0])
        node = operands[state][0]
    # Found from the last step back.
    return states[::-1], weights[::-1]


def _require_weight(node: Any, W_hh: Tensor) -> None:
    """Raise unless the node transposes this very leaf."""
    ((leaf, _),) = _inputs(node, "TBackward0")
    if getattr(leaf, "variable", None) is not W_hh:
        raise _OtherGraphError


def _down(ways: Mapping[str, int], node: Any) -> Any:
    """Along these operands to a node that is none of these."""
    for _ in range(_DEEPEST):
        if node is None or node.name() not in ways:
            return node
        node = node.next_functions[ways[node.name()]][0]
    raise _OtherGraphError


def _stacks(node: Any, count: int) -> list[Any]:
    """The nodes that lay each direction's states beside one another, from the one that made a layer's output."""
    found = [node] if count == 1 else [stack for stack, _ in _inputs(node, "CatBackward0")]
    if len(found) != count:
        raise _OtherGraphError
    return found


def _checked(chain: tuple[list[Any], list[Any]], stack: Any, *, reverse: bool) -> Unrolled:
    """The chain, held against what is laid side by side."""
    states, weights = chain
    laid = [node for node, _ in _inputs(stack, "StackBackward0")]
    if (laid[::-1] if reverse else laid) != states:
        raise _OtherGraphError
    return Unrolled(tuple(weights), tuple(states), stack)


def _along(way: _Way, node: Any) -> Any:
    for name, operand in way:
        node = _inputs(node, name)[operand][0]
    if node is None:
        raise _OtherGraphError
    return node


def _inputs(node: Any, name: str) -> Any:
    """The nodes that a node takes, with which of their results; it must be one of this name."""
    if node is None or node.name() != name:
        raise _OtherGraphError
    return node.next_functions
