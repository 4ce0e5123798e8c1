"""The smallest set of tensors between two sides of a graph: a minimum vertex cut, by augmenting paths."""

from collections import deque
from collections.abc import Collection, Iterator, Sequence

from rnnctl.models.tape.beside import Edge
from rnnctl.models.tape.graph import Graph

# Everything here is a node of the flow network: the two ends of a tensor, later side first.
Half = tuple[Edge, bool]
# Of a tensor on no path.
_FREE: Edge = (-1, -1)


def smallest_cut(
    graph: Graph, boundary: Sequence[Edge], uses: Collection[int], latest: Sequence[int]
) -> tuple[list[Edge], list[tuple[int, tuple[int, ...]]]]:
    """The fewest tensors through which all passes from the uses to the boundary, those nearest to the boundary.

    Args:
        boundary: what later uses take directly.
        uses: places of the nodes that use the weight: where the way back ends.
        latest: of every node the last step behind it, -1 for none.
    Returns:
        The cut, and for each tensor of it which of the boundary it lies behind, and by which inputs.
    Source: Ford & Fulkerson 1956; of all minimum cuts the one that the search reaches first.
    """
    flow = _Flow(graph, boundary, uses, latest)
    while flow.augment():
        pass
    cut = flow.cut()
    return cut, [_path(graph, boundary, edge, latest) for edge in cut]


class _Flow:
    """Unit flows from the boundary back to the uses; a tensor carries one."""

    def __init__(self, graph: Graph, boundary: Sequence[Edge], uses: Collection[int], latest: Sequence[int]) -> None:
        self.graph, self.boundary, self.uses, self.latest = graph, boundary, uses, latest
        # Of a tensor on a path: where the path came from, and where it goes on; None is either end.
        self.came: dict[Edge, Edge | None] = {}
        self.goes: dict[Edge, Edge | None] = {}

    def augment(self) -> bool:
        """Find one more path, if there is one."""
        parents, end = self._search()
        if end is None:
            return False
        self._apply(parents, end)
        return True

    def cut(self) -> list[Edge]:
        """After the last path: what is reached at its later end only."""
        parents, _ = self._search()
        return [edge for edge, later in parents if later and (edge, False) not in parents]

    def _behind(self, edge: Edge) -> list[Edge]:
        return [e for e in self.graph.flows[edge[0]] if e[0] >= 0 and self.latest[e[0]] >= 0]

    def _ends(self, edge: Edge) -> bool:
        """Whether a use made it, or what it is made of."""
        return edge[0] in self.uses or any(behind[0] in self.uses for behind in self._behind(edge))

    def _search(self) -> tuple[dict[Half, Half | None], Half | None]:
        """What can be reached in the residual network, breadth first; the half from which a use is reached, or None."""
        parents: dict[Half, Half | None] = {(edge, True): None for edge in self.boundary}
        waiting = deque(parents)
        while waiting:
            half = waiting.popleft()
            if not half[1] and self._ends(half[0]) and self.goes.get(half[0], _FREE) is not None:
                return parents, half
            for following in self._following(*half):
                if following not in parents:
                    parents[following] = half
                    waiting.append(following)
        return parents, None

    def _following(self, edge: Edge, later: bool) -> Iterator[Half]:
        """Where a unit may go on from one end of a tensor."""
        if later:
            if edge not in self.came:
                yield edge, False
            elif (before := self.came[edge]) is not None:
                # The path through here can be led back to where it came from.
                yield before, False
            return
        if edge in self.came:
            yield edge, True
        for behind in self._behind(edge) if edge[0] not in self.uses else ():
            # A use is no state, but where later uses take its result as it is.
            if behind[0] not in self.uses and not (edge in self.goes and self.goes[edge] == behind):
                yield behind, True

    def _apply(self, parents: dict[Half, Half | None], end: Half) -> None:
        """Lead a unit along the way that was found, taking back what it goes against."""
        halves = [end]
        while (parent := parents[halves[-1]]) is not None:
            halves.append(parent)
        halves.reverse()
        added: list[tuple[Edge | None, Edge | None]] = [(None, halves[0][0])]
        removed: list[tuple[Edge, Edge]] = []
        for (one, one_later), (other, other_later) in zip(halves, halves[1:], strict=False):
            if one == other:
                continue
            if not one_later and other_later:
                added.append((one, other))
            elif one_later and not other_later:
                removed.append((other, one))
        added.append((end[0], None))
        for one, other in removed:
            self.goes.pop(one, None)
            self.came.pop(other, None)
        for start, stop in added:
            if stop is not None:
                self.came[stop] = start
            if start is not None:
                self.goes[start] = stop


def _path(graph: Graph, boundary: Sequence[Edge], wanted: Edge, latest: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """From which of the boundary, by which inputs, one comes to a tensor."""
    waiting: deque[tuple[Edge, int, tuple[int, ...]]] = deque((edge, i, ()) for i, edge in enumerate(boundary))
    seen = set(boundary)
    while waiting:
        edge, start, path = waiting.popleft()
        if edge == wanted:
            return start, path
        for operand, behind in enumerate(graph.flows[edge[0]]):
            if behind[0] >= 0 and latest[behind[0]] >= 0 and behind not in seen:
                seen.add(behind)
                waiting.append((behind, start, (*path, operand)))
    raise AssertionError("a cut lies behind the boundary")
