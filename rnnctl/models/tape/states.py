"""What a step hands to the next: the smallest set of tensors through which all passes from its uses to later ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from rnnctl.models.tape.beside import Edge
from rnnctl.models.tape.graph import CONSTANT, Graph
from rnnctl.models.tape.min_cut import smallest_cut
from rnnctl.models.tape.steps import Chain, Chains

# A state of more tensors than this is none that a step hands on: every step looks at many earlier ones.
MOST_TENSORS = 24
GROWS = (
    "steps look at earlier steps than the one before (attention?), or at other ones from step to step: no state of a "
    "fixed size is handed on"
)
NO_PATTERN = "the last steps are unlike the others: which tensors are their state is not known. Try state='module'"
UNLIKE = "some steps are unlike the others: which tensors are their state is not known. Try state='module'"
ALONE = "a step alone hands nothing on: which tensor is its state is not known"


class State(NamedTuple):
    """What a step hands on.

    ``hidden``: the tensors that the weight multiplies at a later step; ``others``: the rest, c of an LSTM.
    """

    hidden: tuple[Edge, ...]
    others: tuple[Edge, ...] = ()

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All of them."""
        return self.hidden + self.others


@dataclass
class States:
    """The states of all steps of a weight.

    Attributes:
        of: by step; a step that is missing has an unknown one.
        why: of steps whose state is unknown.
        leads: places of nodes that lead from a state on to a later use.
        latest, uses: of the steps that the states are between: the last step behind every node, and the nodes of
            their uses; of several weights where those share their states.
    """

    of: dict[int, State] = field(default_factory=dict)
    why: dict[int, str] = field(default_factory=dict)
    leads: set[int] = field(default_factory=set)
    latest: Sequence[int] = ()
    uses: frozenset[int] = frozenset()


def states_of(graph: Graph, chains: Chains) -> States:
    """The state after every step of every chain."""
    uses = frozenset(use.node for step in chains.steps for use in step.uses)
    found = States(leads=_leading_to_uses(graph, chains), latest=chains.latest, uses=uses)
    crossing = _Crossing(graph, chains, found.leads)
    for chain in chains.chains:
        _Finder(graph, chains, chain, crossing, found).run()
    return found


def _leading_to_uses(graph: Graph, chains: Chains) -> set[int]:
    """Places of the nodes behind later uses that have an earlier one behind them."""
    uses = sorted((use.node for step in chains.steps for use in step.uses), reverse=True)
    latest, found = chains.latest, set(uses)
    waiting = list(uses)
    while waiting:
        for before, _ in graph.flows[waiting.pop()]:
            if before >= 0 and latest[before] >= 0 and before not in found:
                found.add(before)
                waiting.append(before)
    return found


class _Crossing:
    """The edges that lead past the end of every step, from what has it behind to what has a later one behind."""

    def __init__(self, graph: Graph, chains: Chains, leads: set[int]) -> None:
        self.after: dict[int, dict[Edge, None]] = {}
        self.too_many: set[int] = set()
        self._positions: dict[int, int] = {}
        for chain in chains.chains:
            self._positions.update({step: position for position, step in enumerate(chain.steps)})
        latest = chains.latest
        self.graph, self.chains, self.latest = graph, chains, latest
        self.add_all(leads)

    def add_all(self, places: Iterable[int]) -> None:
        """The edges that these nodes take."""
        chain_of, chains, latest, flows = self.chains.chain_of, self.chains.chains, self.latest, self.graph.flows
        after = self.after
        for place in places:
            here = latest[place]
            for edge in flows[place]:
                before = -1 if edge[0] == CONSTANT else latest[edge[0]]
                if 0 <= before < here and chain_of[before] == chain_of[here]:
                    if here - before > 1:
                        self._add(edge, chains[chain_of[here]], before, here)
                    elif before in after:
                        after[before][edge] = None
                    else:
                        after[before] = {edge: None}

    def _add(self, edge: Edge, chain: Chain, before: int, here: int) -> None:
        first, last = self._positions[before], self._positions[here]
        number = chain.steps[0]
        if number in self.too_many:
            return
        if last - first > MOST_TENSORS:
            self.too_many.add(number)
            return
        for step in chain.steps[first:last]:
            edges = self.after.setdefault(step, {})
            edges[edge] = None
            if len(edges) > 4 * MOST_TENSORS:
                self.too_many.add(number)


class _Finder:
    """The states of one chain."""

    def __init__(self, graph: Graph, chains: Chains, chain: Chain, crossing: _Crossing, found: States) -> None:
        self.graph, self.chains, self.chain, self.crossing, self.found = graph, chains, chain, crossing, found
        self.latest = chains.latest
        self.uses = {use.node for step in chain.steps for use in chains.steps[step].uses}
        # What was found for a boundary of the same operations: how to come from there to the state.
        # States of steps by what crosses their end, in places counted from the next use.
        self.alike: dict[Any, Any] = {}
        self.patterns: dict[tuple[str, ...], list[tuple[int, tuple[int, ...]]]] = {}

    def run(self) -> None:
        """Every step's, the last one's after the pattern of those before."""
        steps = self.chain.steps
        if len(steps) == 1:
            self.found.why[steps[0]] = ALONE
        elif steps[0] in self.crossing.too_many:
            self._unknown(GROWS)
        else:
            # The first step is like no other where it begins with constants: what another one shows serves it, too.
            for place in sorted(range(len(steps) - 1), key=lambda place: (place == 0, -place)):
                if place < len(steps) - 2 or len(steps) == 2:
                    self._of_step(steps[place], steps[place + 1])
            self._close(steps)
            if self._grows([step for step in steps if step in self.found.of]):
                self._unknown(GROWS)
            self._doubt(steps)

    def _close(self, steps: Sequence[int]) -> None:
        """The last two steps: what the last one leaves behind is as good as a later use to the one before it."""
        before, last = steps[-2], steps[-1]
        self._of_last(steps[-3] if len(steps) > 2 else before, last)
        if last not in self.found.of:
            self._of_step(before, last)
            return
        self.crossing.add_all(self._mark_leads(last))
        self._of_step(before, last)
        if before in self.found.of and len(self.found.of[before].edges) > len(self.found.of[last].edges):
            self._of_last(before, last)
            self.crossing.add_all(self._mark_leads(last))
            self._of_step(before, last)

    def _unknown(self, why: str) -> None:
        for step in self.chain.steps:
            self.found.of.pop(step, None)
            self.found.why[step] = why

    def _doubt(self, steps: Sequence[int]) -> None:
        """Steps whose state is made by other operations than that of one in the middle are not known."""
        middle = self.found.of.get(steps[(len(steps) - 1) // 2])
        if len(steps) > 3 and middle is not None:
            names = self._made_by(middle)
            # The first step may begin in a way of its own.
            for step in steps[1:]:
                if step in self.found.of and self._made_by(self.found.of[step]) != names:
                    del self.found.of[step]
                    self.found.why[step] = UNLIKE
        if steps[-1] not in self.found.of:
            # Nor is what leads to the last state alone: the steps before it hand on more than can be seen.
            for step in steps[-3:-1]:
                self.found.of.pop(step, None)
                self.found.why[step] = NO_PATTERN

    def _made_by(self, state: State) -> list[str]:
        return sorted(self.graph.ops[place].name for place, _ in state.edges)

    def _grows(self, steps: Sequence[int]) -> bool:
        """Whether states have more and more in them, which is none even if it is small at first."""
        states = [self.found.of[step].edges for step in steps]
        shapes = [[self.graph.shape(edge) for edge in edges] for edges in states]
        # A memory that every step lengthens is one tensor, and no state of a fixed size either.
        if len(shapes) > 2 and len(shapes[-1]) == len(shapes[-2]) and shapes[-1] != shapes[-2]:
            return True
        # What the last two hand on nobody looks at so much later.
        inner = [len(edges) for edges in states[:-2]]
        if len(inner) < 2 or any(after <= before for before, after in pairwise(inner)):
            return False
        return any(self.latest[place] == steps[0] for place, _ in states[-3])

    def _of_step(self, number: int, following: int) -> None:
        crossing = self.crossing.after.get(number, ())
        if len(crossing) == 1:
            self.found.of[number] = State((self._unwrapped(next(iter(crossing))),))
            return
        if self._by_likeness(number, following, crossing):
            return
        boundary = self._reduced(list(crossing))
        cut = boundary if len(boundary) <= 1 else self._cut(boundary, number)
        if not cut or len(cut) > MOST_TENSORS:
            self.found.why[number] = GROWS
            return
        edges = list(dict.fromkeys(self._unwrapped(edge) for edge in cut))
        self.found.of[number] = self._named(edges, following)
        self._remember(number, following, crossing)

    def _by_likeness(self, number: int, following: int, crossing: Iterable[Edge]) -> bool:
        """Take the state from a step that is alike: the same operations in the same places, counted from its use."""
        first = self.chains.steps[following].uses[0].node
        like = self.alike.get(self._likeness(first, crossing))
        if like is None or number == self.chain.steps[0]:
            return False
        hidden, others = (tuple((first + place, result) for place, result in edges) for edges in like)
        self.found.of[number] = State(hidden, others)
        return True

    def _remember(self, number: int, following: int, crossing: Iterable[Edge]) -> None:
        state, first = self.found.of[number], self.chains.steps[following].uses[0].node
        parts = (state.hidden, state.others)
        like = tuple(tuple((place - first, result) for place, result in edges) for edges in parts)
        self.alike[self._likeness(first, crossing)] = like

    def _likeness(self, first: int, crossing: Iterable[Edge]) -> Any:
        names = self.graph.ops
        return tuple((place - first, result, names[place].name) for place, result in sorted(crossing))

    def _reduced(self, boundary: list[Edge]) -> list[Edge]:
        """Without what is made of others of the boundary alone."""
        if len(boundary) <= 1:
            return boundary
        kept = sorted(boundary)
        for edge in sorted(boundary, reverse=True):
            rest = set(kept) - {edge}
            if rest and self._is_made_of(edge, rest):
                kept.remove(edge)
        return kept

    def _is_made_of(self, edge: Edge, rest: set[Edge]) -> bool:
        """Whether every way from an edge back to a use passes one of the others."""
        waiting, seen = [edge[0]], {edge[0]}
        while waiting:
            place = waiting.pop()
            if place in self.uses or len(seen) > 64:
                return False
            for before in self.graph.flows[place]:
                behind = before[0]
                if behind >= 0 and self.latest[behind] >= 0 and before not in rest and behind not in seen:
                    seen.add(behind)
                    waiting.append(behind)
        return True

    def _cut(self, boundary: list[Edge], number: int) -> list[Edge]:
        """The smallest cut, by the pattern of a step before where it serves here."""
        names = tuple(type(self.graph.nodes[place]).__name__ for place, _ in boundary)
        pattern = self.patterns.get(names)
        if pattern is not None:
            followed = [self._follow(boundary[start], path) for start, path in pattern]
            known = [edge for edge in followed if edge is not None]
            if len(known) == len(pattern) and self._separates(set(known), boundary):
                return known
        if number == self.chain.steps[0]:
            return boundary
        cut, paths = smallest_cut(self.graph, boundary, self.uses, self.latest)
        self.patterns[names] = paths
        return cut

    def _follow(self, edge: Edge, path: Sequence[int]) -> Edge | None:
        for operand in path:
            edges = self.graph.flows[edge[0]]
            if operand >= len(edges) or edges[operand][0] == CONSTANT or self.latest[edges[operand][0]] < 0:
                return None
            edge = edges[operand]
        return edge

    def _separates(self, cut: set[Edge], boundary: Sequence[Edge]) -> bool:
        return all(edge in cut or self._is_made_of(edge, cut) for edge in boundary)

    def _unwrapped(self, edge: Edge) -> Edge:
        """What a mere rearrangement has as its one input that depends on the past."""
        ops, flows, latest = self.graph.ops, self.graph.flows, self.latest
        while (ops[edge[0]].rearranges or ops[edge[0]].joins) and edge[0] not in self.uses:
            past = {before for before in flows[edge[0]] if before[0] >= 0 and latest[before[0]] >= 0}
            if len(past) != 1:
                break
            edge = past.pop()
        return edge

    def _named(self, edges: Sequence[Edge], following: int) -> State:
        """Which of them the weight multiplies at the following step."""
        if len(edges) == 1:
            return State(tuple(edges))
        newest = max(self.latest[place] for place, _ in edges)
        if any(self.latest[place] != newest for place, _ in edges):
            # Of several steps the state of the last one is h.
            young = tuple(edge for edge in edges if self.latest[edge[0]] == newest)
            return State(young, tuple(edge for edge in edges if edge not in young))
        reached = self._reached(following, set(edges))
        hidden = tuple(edge for edge in edges if edge in reached)
        if not hidden:
            return State(tuple(edges))
        return State(hidden, tuple(edge for edge in edges if edge not in reached))

    def _reached(self, following: int, edges: set[Edge]) -> set[Edge]:
        """Those behind the first use of a step without another step between."""
        step = self.chains.steps[following]
        waiting = [step.uses[0].node]
        seen, reached = set(waiting), set[Edge]()
        while waiting:
            for edge in self.graph.flows[waiting.pop()]:
                if edge in edges:
                    reached.add(edge)
                elif edge[0] >= 0 and self.latest[edge[0]] >= 0 and edge[0] not in seen:
                    seen.add(edge[0])
                    if edge[0] not in self.uses:
                        waiting.append(edge[0])
        return reached

    def _of_last(self, before: int, last: int) -> None:
        """Of the last step, after which no use shows it: the tensors that lie where those of the step before lie."""
        state = self.found.of.get(before)
        if state is None:
            self.found.why[last] = self.found.why[before]
            return
        lags = {edge: before - self.latest[edge[0]] for edge in state.edges}
        older = self._older(before)
        found: dict[Edge, Edge] = {}
        for edge in state.edges:
            # One of an earlier step is at the last step what the next younger one is now.
            there = self._counterpart(edge, before, last) if lags[edge] <= 0 else self._younger(edge, older, state)
            if there is None:
                self.found.why[last] = NO_PATTERN
                return
            found[edge] = there
        self.found.of[last] = State(
            tuple(found[edge] for edge in state.hidden), tuple(found[edge] for edge in state.others)
        )

    def _older(self, number: int) -> State | None:
        """The state of the step before one, in the chain."""
        place = self.chain.steps.index(number)
        return self.found.of.get(self.chain.steps[place - 1]) if place else None

    def _younger(self, edge: Edge, older: State | None, state: State) -> Edge | None:
        """What stands where this one stood a step before: it will be this one a step later."""
        if older is None or edge not in older.edges or len(older.edges) != len(state.edges):
            return None
        return state.edges[older.edges.index(edge)]

    def _counterpart(self, edge: Edge, before: int, last: int) -> Edge | None:
        """The node that comes from the last step's use by the operations by which this one came from its own."""
        way = self._way_up(edge, before)
        if way is None:
            return None
        start, hops = way
        here = {self.chains.steps[last].uses[start].node} if start < len(self.chains.steps[last].uses) else set()
        for name, operand, result in hops:
            here = {
                consumer
                for place in here
                for consumer, number in self._consumers(place, result, last)
                if number == operand and type(self.graph.nodes[consumer]).__name__ == name
            }
        same = [place for place in here if self.latest[place] == last and self._alike((place, edge[1]), edge)]
        return (min(same), edge[1]) if same else None

    def _alike(self, one: Edge, other: Edge) -> bool:
        return self.graph.shape(one) == self.graph.shape(other)

    def _way_up(self, edge: Edge, number: int) -> tuple[int, list[tuple[str, int, int]]] | None:
        """From which use of its step a state comes, and by which operations: their names, inputs and results."""
        places = {use.node: index for index, use in enumerate(self.chains.steps[number].uses)}
        waiting: list[tuple[int, list[tuple[str, int, int]]]] = [(edge[0], [])]
        seen = {edge[0]}
        while waiting:
            place, hops = waiting.pop(0)
            if place in places:
                return places[place], hops
            name = type(self.graph.nodes[place]).__name__
            for operand, (before, result) in enumerate(self.graph.flows[place]):
                if before >= 0 and self.latest[before] == number and before not in seen:
                    seen.add(before)
                    waiting.append((before, [(name, operand, result), *hops]))
        return None

    def _consumers(self, place: int, result: int, last: int) -> list[tuple[int, int]]:
        """Those of a node of the last step."""
        if not hasattr(self, "_taken"):
            self._taken: dict[Edge, list[tuple[int, int]]] = {}
            for consumer in range(self.chains.steps[last].uses[0].node, len(self.latest)):
                for operand, edge in enumerate(self.graph.flows[consumer]):
                    self._taken.setdefault(edge, []).append((consumer, operand))
        return self._taken.get((place, result), [])

    def _mark_leads(self, last: int) -> list[int]:
        """What makes the last state leads on to it, and is no way out: the places that now do."""
        new: list[int] = []
        waiting = [edge[0] for edge in self.found.of[last].edges]
        while waiting:
            place = waiting.pop()
            if place not in self.found.leads:
                self.found.leads.add(place)
                new.append(place)
                waiting += [before for before, _ in self.graph.flows[place] if before >= 0 and self.latest[before] >= 0]
        return new
