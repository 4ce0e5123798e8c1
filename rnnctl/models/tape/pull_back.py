"""A gradient on its way from a use back to the weight, through what was made of the weight."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rnnctl.errors import hands_over
from rnnctl.models.tape.beside import Edge
from rnnctl.models.tape.graph import CONSTANT, Graph


def keeps_norm(graph: Graph, edge: Edge, weight: int) -> bool:
    """Whether nothing but rearrangements lies between an edge and the weight.

    Args:
        weight: the place of its node.
    """
    place = edge[0]
    while place != weight:
        edges = [each for each in graph.inputs[place] if each[0] != CONSTANT]
        if len(edges) != 1 or not graph.ops[place].rearranges:
            return False
        place = edges[0][0]
    return True


def pulled_back(graph: Graph, grad: Tensor, edge: Edge, weight: int, made_of: Sequence[int]) -> Tensor:
    """The gradient of the weight from that of what lies at an edge.

    Args:
        grad: of the shape at the edge.
        weight: the place of the weight's node.
        made_of: of every node the weights that it is made of, by their bits.
    Returns:
        Shape of the weight.
    """
    bit = made_of[weight]
    arrived = swept(graph, {edge: grad}, lambda place: place == weight, lambda place: bool(made_of[place] & bit))
    return arrived[weight, 0]


def swept(
    graph: Graph, grads: Mapping[Edge, Tensor], ends: Callable[[int], bool], leads: Callable[[int], bool]
) -> dict[Edge, Tensor]:
    """What arrives where, if gradients enter at these edges alone.

    The nodes are asked one by one, past autograd's engine: no hook of anybody's runs, and nothing is freed.

    Args:
        grads: by edge, of the shape there.
        ends: at which places it goes no further.
        leads: through which places it goes.
    Returns:
        By edge, all that arrived, of every place on the way.
    """
    arrived = dict(grads)
    waiting = {place: None for place, _ in grads}
    with torch.no_grad():
        while waiting:
            place = max(waiting)
            del waiting[place]
            if ends(place):
                continue
            for before, part in _sent(graph, place, arrived):
                if before[0] != CONSTANT and leads(before[0]):
                    arrived[before] = arrived[before] + part if before in arrived else part
                    waiting[before[0]] = None
    return arrived


def _sent(graph: Graph, place: int, arrived: Mapping[Edge, Tensor]) -> list[tuple[Edge, Tensor]]:
    """What a node sends to each of its inputs."""
    given = {number: arrived[place, number] for number in graph.results(place) if (place, number) in arrived}
    parts = _asked(graph, place, given)
    return [
        (edge, _fitted(part, graph.shape(edge)))
        for edge, part in zip(graph.inputs[place], parts, strict=False)
        if part is not None and edge[0] != CONSTANT
    ]


@hands_over
def _asked(graph: Graph, place: int, grads: Mapping[int, Tensor]) -> tuple[Tensor | None, ...]:
    node: Any = graph.nodes[place]
    given = [grads.get(number) for number in graph.results(place)]
    # A Function of Python's is asked by its own method.
    answer = node.apply(*given) if graph.ops[place].is_own else node(*given)
    return answer if isinstance(answer, tuple) else (answer,)


def _fitted(part: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Summed over what was broadcast, as autograd's engine does it."""
    return part if tuple(part.shape) == shape else part.sum_to_size(shape)


def through(graph: Graph, grad: Tensor, way: Sequence[tuple[int, int, int]]) -> Tensor | None:
    """A gradient on its way through a line of nodes; None where it ends on the way.

    Args:
        grad: of the result of the first of them, of its shape.
        way: place, result and operand of each, in the order in which the gradient passes them.
    """
    with torch.no_grad():
        for place, result, operand in way:
            part = _asked(graph, place, {result: grad})[operand]
            if part is None:
                return None
            grad = _fitted(part, graph.shape(graph.inputs[place][operand]))
    return grad
