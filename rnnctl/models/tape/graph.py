"""The nodes of autograd's graph behind some roots, in the order in which they were made."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rnnctl.models.tape.beside import Edge, taken_out
from rnnctl.models.tape.operations import operation

# In place of the place of a node: an input that is no tensor with a gradient.
CONSTANT = -1


@dataclass(frozen=True)
class Whole:
    """A part of the forward pass that is taken as one operation.

    ``start`` and ``end``: the numbers of its nodes, the end excluded; ``given``: the nodes, and which of their results,
    that made its inputs.
    """

    start: int
    end: int
    given: tuple[tuple[Any, int], ...]


class Graph:
    """All nodes behind the roots.

    Args:
        roots: nodes, as ``grad_fn``.
        whole: parts within which nothing is looked at, in order.
    Attributes:
        nodes: each after those that made its inputs. Held, because autograd makes a new wrapper for a node otherwise.
        inputs: of every node, its edges.
        ops: of every node, what it does.
        flows: the same as inputs, but what is taken out of several tensors that were put beside one another, as it was
            put in, is that one tensor alone; of what depends on what, this says more.
        made_at: of every node, the number that autograd gave it when it was made, CONSTANT for leaves.
        wholes: the places of nodes that stand for a whole part: their inputs are that part's.
    """

    def __init__(self, roots: Iterable[Any], whole: Sequence[Whole] = ()) -> None:
        found: dict[Any, Any] = dict.fromkeys(root for root in roots if root is not None)
        waiting, starts = list(found), [part.start for part in whole]
        leaves, stand_for = set(), set()
        while waiting:
            node = waiting.pop()
            edges = node.next_functions
            if not edges:
                leaves.add(node)
            if whole and edges:
                number = node._sequence_nr()
                part = bisect_right(starts, number) - 1
                if part >= 0 and number < whole[part].end:
                    edges = whole[part].given
                    stand_for.add(node)
            found[node] = edges
            for after, _ in edges:
                if after is not None and after not in found:
                    found[after] = None
                    waiting.append(after)
        # A leaf's node has no inputs, and a number beyond all others.
        numbers = {node: CONSTANT if node in leaves else node._sequence_nr() for node in found}
        self.nodes = sorted(found, key=numbers.__getitem__)
        self.places = {node: place for place, node in enumerate(self.nodes)}
        self.inputs = self._edges(found)
        self.ops = [operation(node.__class__) for node in self.nodes]
        if not all(edge[0] < place for place, edges in enumerate(self.inputs) for edge in edges):
            # Of several threads, or views whose node was made anew: the numbers say too little.
            self.nodes = _inputs_first(found)
            self.places = {node: place for place, node in enumerate(self.nodes)}
            self.inputs = self._edges(found)
            self.ops = [operation(node.__class__) for node in self.nodes]
        self.made_at = [numbers[node] for node in self.nodes]
        self.wholes = {self.places[node] for node in stand_for}
        self.taken_out = taken_out(self)
        # What others were put into, to be taken out again: gradients are to be followed through it, not taken from it.
        self.joins = {self.inputs[place][0][0] for place, _ in self.taken_out}
        self.flows = (
            self.inputs
            if not self.taken_out
            else [[self.taken_out.get(edge, edge) for edge in edges] for edges in self.inputs]
        )

    def _edges(self, found: dict[Any, Any]) -> list[list[Edge]]:
        places = self.places
        return [
            [(CONSTANT, number) if node is None else (places[node], number) for node, number in found[each]]
            for each in self.nodes
        ]

    @cached_property
    def consumers(self) -> dict[Edge, list[tuple[int, int]]]:
        """Of every edge: the nodes that take it, and as which of their inputs."""
        found: dict[Edge, list[tuple[int, int]]] = defaultdict(list)
        for place, edges in enumerate(self.flows):
            for number, edge in enumerate(edges):
                found[edge].append((place, number))
        gone = {place for place, _ in self.taken_out}
        for place in gone:
            if all((place, result) in self.taken_out for result in self.results(place)):
                # Who takes what it gives takes it where it came from.
                for number, edge in enumerate(self.flows[place]):
                    found[edge].remove((place, number))
        return dict(found)

    def results(self, place: int) -> range:
        """The numbers of a node's results."""
        return range(len(self.nodes[place]._input_metadata))

    def shape(self, edge: Edge) -> tuple[int, ...]:
        """Of what lies at an edge that is no constant."""
        node = self.nodes[edge[0]]
        variable = getattr(node, "variable", None)
        return tuple(node._input_metadata[edge[1]].shape) if variable is None else tuple(variable.shape)


def _inputs_first(found: dict[Any, Any]) -> list[Any]:
    """The nodes, each after its inputs, by depth."""
    done: dict[Any, None] = {}
    for root in found:
        waiting = [root]
        while waiting:
            node = waiting[-1]
            missing = [] if node in done else [n for n, _ in found[node] if n is not None and n not in done]
            if missing:
                waiting += missing
            else:
                done[waiting.pop()] = None
    return list(done)


def within(moment: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether it lies in one of the spans."""
    return any(start <= moment < end for start, end in spans)
