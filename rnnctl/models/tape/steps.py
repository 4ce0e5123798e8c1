"""Which uses of a weight make up one step, and which steps follow one another."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rnnctl.models.tape.graph import CONSTANT, Graph
from rnnctl.models.tape.uses import Use, Uses

# What tells one part of a weight from another, of the operations that take parts.
_PARTS: Mapping[str, tuple[str, ...]] = {
    "Slice": ("_saved_dim", "_saved_start", "_saved_end", "_saved_step"),
    "Select": ("_saved_dim", "_saved_index"),
}
Piece = tuple[Any, ...]


@dataclass(frozen=True)
class Span:
    """One call of a module, from ``start`` to before ``end``; ``axes``: the most of any input, None for no input."""

    start: int
    end: int
    axes: int | None


class Step(NamedTuple):
    """Uses of a weight that belong together.

    Attributes:
        uses: in the order in which they were made.
        pieces: which part of the weight each of them takes.
        call: the number of the call of the module that owns the weight, None outside of any.
    """

    uses: tuple[Use, ...]
    pieces: tuple[Piece, ...]
    call: int | None = None


def steps_of(uses: Uses, chosen: Sequence[Use], calls: Sequence[Span], whole_calls: bool = False) -> list[Step]:
    """The steps of one weight.

    A step is one call of the module that owns the weight, where it is called once a step. Within a call over a whole
    sequence, or without any, a step begins where a piece of the weight is used again.

    Args:
        chosen: the uses of the weight.
        calls: of the module that owns it, in order.
        whole_calls: whether every call is a step, by the user's word.
    """
    graph, starts = uses.graph, [call.start for call in calls]
    # Where a weight that multiplies is only added it begins no step of its own.
    some = any(multiplies(uses, use) for use in chosen)
    found: list[list[tuple[Use, Piece]]] = []
    within: list[int | None] = []
    last: int | None = None
    many = len(calls) > 1 or whole_calls
    for use in chosen:
        call = _call_of(graph.made_at[use.node], starts, calls) if calls else None
        piece = piece_of(graph, uses.source(use), graph.inputs[use.node][use.operand][1], uses.made_of)
        together = many and call is not None and call == last and (whole_calls or _is_step(uses, use, calls[call]))
        if not found or (not together and (call != last or _again(uses, use, piece, found[-1], some))):
            found.append([])
            within.append(call)
        found[-1].append((use, piece))
        last = call
    return [
        Step(tuple(use for use, _ in step), tuple(piece for _, piece in step), call)
        for step, call in zip(found, within, strict=True)
    ]


def _again(uses: Uses, use: Use, piece: Piece, step: Sequence[tuple[Use, Piece]], some: bool) -> bool:
    """Whether a step has a use of this piece already, and the new one begins another."""
    return any(piece == other for _, other in step) and (not some or multiplies(uses, use))


def _call_of(moment: int, starts: Sequence[int], calls: Sequence[Span]) -> int | None:
    number = bisect_right(starts, moment) - 1
    return number if number >= 0 and moment < calls[number].end else None


def multiplies(uses: Uses, use: Use) -> bool:
    """Whether a use multiplies anything, be it a constant; else the weight is added there."""
    edges = uses.graph.inputs[use.node]
    return bool(uses.graph.ops[use.node].multiplied_with(use.operand, len(edges)))


def _is_step(uses: Uses, use: Use, call: Span) -> bool:
    """Whether a call is one step: it is given no axis more than what multiplies the weight has."""
    graph = uses.graph
    axes = [len(graph.shape((use.node, 0)))]
    for edge in uses.multiplied_with(use):
        while graph.ops[edge[0]].rearranges and len(graph.inputs[edge[0]]) == 1:
            edge = graph.flows[edge[0]][0]
        axes.append(len(graph.shape(edge)))
    return call.axes is not None and call.axes <= min(axes)


def piece_of(graph: Graph, place: int, result: int, made_of: Sequence[int]) -> Piece:
    """Which part of a weight lies at an edge, whenever it was taken."""
    if not graph.inputs[place]:
        return (place,)
    found: list[Any] = []
    while graph.inputs[place]:
        op = graph.ops[place]
        found.append((op.name, result, *(getattr(graph.nodes[place], name) for name in _PARTS.get(op.name, ()))))
        before = [edge for edge in graph.inputs[place] if edge[0] != CONSTANT]
        if len(before) != 1:
            break
        place, result = before[0]
    return (*found, place)


@dataclass(frozen=True)
class Chain:
    """Steps that follow one another: each takes what the one before it made.

    ``steps`` are their numbers among all steps of the weight, rising.
    """

    steps: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Chains:
    """The chains of one weight.

    Attributes:
        steps: all steps, in the order in which they were made.
        chains: in the order of their first steps.
        chain_of: of every step the number of its chain.
        latest: of every node the last step of which a use leads to it or is it, -1 for none.
        first: the place of the first use; before it nothing has a step behind it.
    """

    steps: Sequence[Step]
    chains: Sequence[Chain]
    chain_of: Sequence[int]
    latest: Sequence[int]
    first: int


def chained(graph: Graph, steps: Sequence[Step]) -> Chains:
    """Which steps follow one another: a step belongs to the chain from which what it is multiplied with comes."""
    step_at = {use.node: number for number, step in enumerate(steps) for use in step.uses}
    latest, flows = [-1] * len(graph.nodes), graph.flows
    # Of every node the first steps of the chains behind it, by bits; chains that a later use joins are one.
    behind = [0] * len(graph.nodes)
    joined = _Joined(len(steps))
    first = min(step_at)
    for place in range(first, len(latest)):
        last, chains = -1, 0
        for before, _ in flows[place]:
            if before >= first and (seen := latest[before]) >= 0:
                if seen > last:
                    last = seen
                chains |= behind[before]
        if (number := step_at.get(place)) is not None:
            last = max(last, number)
            chains = joined.join(number, chains)
        latest[place], behind[place] = last, chains
    chain_of, members = joined.numbered()
    return Chains(steps, [Chain(tuple(each)) for each in members], chain_of, latest, first)


class _Joined:
    """Steps that belong to one chain, by the first of them."""

    def __init__(self, count: int) -> None:
        self._first = list(range(count))

    def join(self, number: int, chains: int) -> int:
        """Join a step with the chains that lead to it; the bits of its chain."""
        if chains and not chains & (chains - 1):
            # Of one chain: by far the most.
            self._first[number] = found = self._root(chains.bit_length() - 1)
            return 1 << found
        found = self._root(number)
        for other in _bits(chains):
            one, two = sorted((self._root(other), self._root(found)))
            self._first[two] = one
            found = one
        return 1 << self._root(found)

    def numbered(self) -> tuple[list[int], list[list[int]]]:
        """Of every step the number of its chain, and the steps of every chain, in the order of their first steps."""
        numbers: dict[int, int] = {}
        chain_of = [numbers.setdefault(self._root(step), len(numbers)) for step in range(len(self._first))]
        members: list[list[int]] = [[] for _ in numbers]
        for step, chain in enumerate(chain_of):
            members[chain].append(step)
        return chain_of, members

    def _root(self, step: int) -> int:
        while self._first[step] != step:
            self._first[step] = self._first[self._first[step]]
            step = self._first[step]
        return step


def _bits(number: int) -> list[int]:
    """The places of the bits that are set."""
    found = []
    while number:
        lowest = number & -number
        found.append(lowest.bit_length() - 1)
        number ^= lowest
    return found
