"""Where a use of some weight stands in the loop of another: on the way in, within a step, or behind it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Literal

from rnnctl.models.tape.graph import CONSTANT, Graph
from rnnctl.models.tape.uses import Bits, Use, Uses

# What the state goes through, what is given from outside on its way in, what reads the state.
Where = Literal["state", "given", "read"]
# In place of a step: before the first one.
START = -1


def takers_of(graph: Graph) -> list[list[int]]:
    """Of every node those that take one of its results."""
    found: list[list[int]] = [[] for _ in graph.nodes]
    for place, edges in enumerate(graph.flows):
        for before, _ in edges:
            if before != CONSTANT:
                found[before].append(place)
    return found


class Around:
    """One chain of steps of the recurrent weights of a loop, and the nodes about it.

    Args:
        uses: all uses of the graph.
        takers: as of ``takers_of``.
        steps: the uses of the weights, step by step.
        handed: of every step the places of the tensors that it hands on, none where they are not known.
        behind: recurrent weights: what leads to a node that depends on them, and not on this chain, is theirs.
        after: recurrent weights of further loops: what follows from them is theirs.
        layers: places of nodes within layers of known classes.
        theirs: places of nodes that the states of other loops and chains go through; what leads to them is theirs.
    """

    def __init__(
        self,
        uses: Uses,
        takers: Sequence[Sequence[int]],
        steps: Sequence[Sequence[Use]],
        *,
        handed: Sequence[Sequence[int]],
        behind: Bits,
        after: Bits,
        layers: Collection[int],
        theirs: Collection[int],
    ) -> None:
        self._uses, self._flows, self._steps = uses, uses.graph.flows, steps
        self._behind_bits, self._layers, self._theirs = behind, layers, theirs
        self._step_at = {use.node: number for number, step in enumerate(steps) for use in step}
        self._handed = handed
        # Of the nodes that depend on a step the last one, of those that lead to one the first.
        self._latest = self._forward(takers, after)
        self._earliest = self._backward(self._ends())
        # Of the others that meet the chain behind a step: that step.
        self._meets = self._backward(self._latest)
        self.follows = self._follows()

    @property
    def last(self) -> int:
        """The number of the last step."""
        return len(self._steps) - 1

    @property
    def places(self) -> Iterator[int]:
        """Nodes that have to do with the chain."""
        yield from {**self._latest, **self._earliest, **self._meets}

    def depends(self, place: int) -> bool:
        """Whether a node depends on a step."""
        return place in self._latest

    def where(self, place: int) -> tuple[Where | None, int]:
        """Of a node among ``places`` where it stands and by which step; None where only other steps can tell.

        START stands for what leads to the first step as it begins.
        """
        if place in self._step_at:
            return "state", self._step_at[place]
        step, leads_to = self._latest.get(place), self._earliest.get(place)
        if leads_to is not None:
            return "given" if step is None else "state", self._step_before(
                leads_to, step, self._meets.get(place, START)
            )
        step = self._meets[place] if step is None else step
        # Where the last state is not known, nothing tells what leads to it from what reads the one before.
        return ("read" if self._handed[-1] or step < self.last - 1 else None), step

    def _step_before(self, leads_to: int, depends_on: int | None, meets: int) -> int:
        """The step that makes the state: what leads to the use at step t + 1, and to none before, is within step t."""
        before = self.follows[leads_to] if leads_to <= self.last else (self.last,)
        if depends_on is None and meets in before:
            return meets
        return next((step for step in before if step >= (depends_on or 0)), START)

    def _follows(self) -> list[tuple[int, ...]]:
        """Of every step those whose state it takes, without those that one of them follows."""
        before = [max(self._behind(step, number), default=-1) for number, step in enumerate(self._steps)]
        if before == list(range(-1, len(before) - 1)):
            return [(number - 1,) if number else () for number in range(len(before))]
        return self._without_detours()

    def _behind(self, step: Sequence[Use], number: int) -> Iterator[int]:
        """The last steps behind each input of a step's uses, but for the step itself."""
        for use in step:
            for before, _ in self._flows[use.node]:
                latest = self._latest.get(before, number)
                if latest < number:
                    yield latest

    def _without_detours(self) -> list[tuple[int, ...]]:
        """As ``follows``, where steps do not simply follow one another: a tree, branches that join."""
        behind: dict[int, int] = {}
        of_step = [0] * len(self._steps)
        for place in sorted(self._latest):
            found = 0
            for before, _ in self._flows[place]:
                found |= behind.get(before, 0)
            number = self._step_at.get(place)
            if number is not None:
                of_step[number] |= found & ~(1 << number)
                found |= 1 << number
            behind[place] = found
        return [tuple(_nearest(each, of_step)) for each in of_step]

    def _ends(self) -> dict[int, int]:
        """Of what ends a step, its state or else what the next uses multiply: the number of the step after it."""
        found = {place: number + 1 for number, places in enumerate(self._handed) for place in places}
        for number, step in enumerate(self._steps):
            for use in step:
                edges = self._flows[use.node]
                # Within the step are its later uses, what is only added, and what lies between the state and a use.
                within = any(self._latest.get(before) == number for before, _ in edges)
                within = within or (number > 0 and bool(self._handed[number - 1]))
                multiplied = () if within else self._uses.multiplied_with(use)
                for edge in edges:
                    if edge[0] != CONSTANT:
                        after = number if edge in multiplied else number + 1
                        found[edge[0]] = min(after, found.get(edge[0], after))
        return found

    def _forward(self, takers: Sequence[Sequence[int]], after: Bits) -> dict[int, int]:
        reached, waiting = set(self._step_at), list(self._step_at)
        while waiting:
            for taker in takers[waiting.pop()]:
                if taker not in reached and taker not in self._layers and not self._uses.behind[taker] & after:
                    reached.add(taker)
                    waiting.append(taker)
        latest: dict[int, int] = {}
        for place in sorted(reached):
            steps = [latest[before] for before, _ in self._flows[place] if before in latest]
            latest[place] = max([*steps, self._step_at.get(place, -1)])
        return latest

    def _backward(self, seeds: Mapping[int, int]) -> dict[int, int]:
        """Of the seeds and every node that leads to one, the smallest of their numbers."""
        found = dict(seeds)
        waiting, queued = [-place for place in seeds], set(seeds)
        heapify(waiting)
        while waiting:
            place = -heappop(waiting)
            number = found[place]
            if self._is_of_others(place):
                continue
            for before, _ in self._flows[place]:
                if before == CONSTANT:
                    continue
                found[before] = min(number, found.get(before, number))
                if before not in queued:
                    queued.add(before)
                    heappush(waiting, -before)
        return found

    def _is_of_others(self, place: int) -> bool:
        if place in self._latest:
            return False
        theirs = place in self._layers or place in self._theirs
        return theirs or bool(self._uses.behind[place] & self._behind_bits)


def _nearest(behind: int, of_step: Sequence[int]) -> Iterator[int]:
    """The steps among some, as bits, that none of the others has behind it; rising."""
    found = []
    while behind:
        last = behind.bit_length() - 1
        found.append(last)
        behind &= ~(of_step[last] | 1 << last)
    yield from reversed(found)
