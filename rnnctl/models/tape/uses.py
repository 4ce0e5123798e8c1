"""Where weights enter a graph, and which of them recur.

A use of a weight is an edge at which the weight, or a tensor made of weights alone, enters something that is not. It
recurs where what it is multiplied with leads back to an earlier use of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rnnctl.models.tape.graph import CONSTANT, Graph, within
from rnnctl.models.tape.operations import Operation

# A weight among others, by its bit: so that sets of weights are whole numbers.
Bits = int
Key = tuple[Bits, str]


class Use(NamedTuple):
    """An edge at which a weight enters.

    ``node`` is the place of the node that takes it, ``operand`` which of its inputs it is.
    """

    node: int
    operand: int


@dataclass(frozen=True, eq=False)
class Uses:
    """All uses of all weights of a graph.

    Attributes:
        graph: whose places the uses speak of.
        made_of: of every node the weights that it is made of alone, 0 for one that depends on anything else.
        behind: of every node the weights of which a use leads to it.
        edges: every use, in the order in which they were made.
        recurrent: the weights that recur.
    """

    graph: Graph
    made_of: Sequence[Bits]
    behind: Sequence[Bits]
    edges: Sequence[Use]
    recurrent: Bits

    def of(self, weight: Bits) -> list[Use]:
        """Those of one weight."""
        made_of, inputs = self.made_of, self.graph.inputs
        return [use for use in self.edges if made_of[inputs[use[0]][use[1]][0]] & weight]

    def source(self, use: Use) -> int:
        """The place of what enters there."""
        return self.graph.inputs[use.node][use.operand][0]

    def multiplied_with(self, use: Use) -> list[tuple[int, int]]:
        """The edges of what a use is multiplied with, constants left out."""
        edges = self.graph.flows[use.node]
        others = self.graph.ops[use.node].multiplied_with(use.operand, len(edges))
        return [edges[other] for other in others if other < len(edges) and edges[other][0] != CONSTANT]


def uses_in(graph: Graph, weights: Mapping[int, Bits], making: Sequence[tuple[int, int]] = ()) -> Uses:
    """The uses of weights in a graph.

    Args:
        weights: places of nodes that stand for weights, and their bits.
        making: spans of the forward pass in which weights are made, whatever constants take part.
    """
    forced: set[Key] = set()
    while True:
        found = _Found(graph, weights, making, forced)
        # Where h_0 is a weight or a constant, the first product of a loop looks as if it made a weight: it is what
        # the others of its kind are.
        mistaken = found.sure & found.doubtful
        if not mistaken - forced:
            return found.uses()
        forced |= mistaken


class _Found:
    """One look at all nodes in their order."""

    def __init__(
        self, graph: Graph, weights: Mapping[int, Bits], making: Sequence[tuple[int, int]], forced: set[Key]
    ) -> None:
        self.graph, self.weights, self.making, self.forced = graph, weights, making, forced
        # What enters what by a use for sure, and what might have been a use.
        self.sure: set[Key] = set()
        self.doubtful: set[Key] = set()
        self.made_of: list[Bits] = []
        self.behind: list[Bits] = []
        self.edges: list[Use] = []
        self.recurrent: Bits = 0
        for place, edges in enumerate(graph.inputs):
            self._look(place, edges)

    def uses(self) -> Uses:
        return Uses(self.graph, self.made_of, self.behind, self.edges, self.recurrent)

    def _look(self, place: int, edges: Sequence[tuple[int, int]]) -> None:
        made_of, own = self.made_of, self.weights.get(place)
        if own is not None:
            made_of.append(own)
            self.behind.append(0)
            return
        made, of_data, constant = 0, not edges, False
        for before, _ in edges:
            if before == CONSTANT:
                constant = True
            elif part := made_of[before]:
                made |= part
            else:
                of_data = True
        if made and not of_data and self._makes(place, edges, constant):
            made_of.append(made)
            self.behind.append(0)
            return
        behind = made
        for before, _ in self.graph.flows[place]:
            if before != CONSTANT:
                behind |= self.behind[before]
        made_of.append(0)
        self.behind.append(behind)
        if made:
            self._enter(place, edges, of_data)

    def _enter(self, place: int, edges: Sequence[tuple[int, int]], of_data: bool) -> None:
        """Note the uses of weights by a node."""
        op, flows = self.graph.ops[place], self.graph.flows[place]
        for operand, (before, _) in enumerate(edges):
            part = 0 if before == CONSTANT else self.made_of[before]
            if not part:
                continue
            self.edges.append(Use(place, operand))
            others = op.multiplied_with(operand, len(edges))
            if of_data and others:
                self.sure.add((part, op.name))
            for other in others:
                if other < len(edges) and edges[other][0] != CONSTANT:
                    self.recurrent |= self.behind[flows[other][0]] & part

    def _makes(self, place: int, edges: Sequence[tuple[int, int]], constant: bool) -> bool:
        """Whether what a node makes of weights and constants alone is still a weight."""
        if self.making and within(self.graph.made_at[place], self.making):
            return True
        op = self.graph.ops[place]
        if len(edges) == 1 and not op.is_own and not op.looks_up and op.name != "Index":
            return True
        if op.looks_up or (constant and op.of_data):
            return False
        if constant and self._is_scaled(place):
            return True
        keys = {(self.made_of[before], op.name) for before, _ in edges if before != CONSTANT}
        if keys & self.forced:
            return False
        if not constant and op.of_data and self._is_of_itself(edges):
            return False
        if (constant or op.is_own or op.name == "Index") and not op.joins and not self._keeps_shape(place, edges):
            return False
        self.doubtful |= keys
        return True

    def _is_scaled(self, place: int) -> bool:
        """Whether the constant is one number, which is no state."""
        node: Any = self.graph.nodes[place]
        if self.graph.ops[place].name not in ("Mul", "Div"):
            return False
        saved = getattr(node, "_saved_other", None)
        constant = getattr(node, "_saved_self", None) if saved is None else saved
        return constant is not None and constant.dim() == 0

    def _keeps_shape(self, place: int, edges: Sequence[tuple[int, int]]) -> bool:
        """Whether the result has the shape of a weight that it is made of: a mask has it, a batch has not."""
        shape = self.graph.shape((place, 0))
        return any(self.graph.shape(edge) == shape for edge in edges if edge[0] != CONSTANT)

    def _is_of_itself(self, edges: Sequence[tuple[int, int]]) -> bool:
        """Whether a weight multiplies what was made of it before: a network that runs on h_0 alone, itself a weight."""
        plain = [self._is_plain(before) for before, _ in edges if before != CONSTANT]
        made = [self.made_of[before] for before, _ in edges if before != CONSTANT]
        pairs = [(one, other) for one in range(len(made)) for other in range(len(made)) if one != other]
        return any(plain[one] and not plain[other] and made[one] & made[other] for one, other in pairs)

    def _is_plain(self, place: int) -> bool:
        """Whether it is a weight, or one rearranged."""
        while place not in self.weights:
            edges = self.graph.inputs[place]
            if not _kind(self.graph, place).rearranges or len(edges) != 1:
                return False
            place = edges[0][0]
        return True


def _kind(graph: Graph, place: int) -> Operation:
    return graph.ops[place]
