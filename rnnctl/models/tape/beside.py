"""Tensors that were put beside one another and taken out again: which of them one gets back."""

from collections.abc import Sequence
from typing import Any, Protocol

from rnnctl.models.tape.operations import Operation

# An input of a node: the place of the node that made it, and which of its results it is.
Edge = tuple[int, int]


class Nodes(Protocol):
    """What is asked of a graph: as of ``rnnctl.models.tape.graph.Graph``."""

    nodes: list[Any]
    ops: list[Operation]
    wholes: set[int]

    @property
    def inputs(self) -> Sequence[Sequence[Edge]]: ...

    def shape(self, edge: Edge) -> tuple[int, ...]: ...


_SPLITS = ("Split", "SplitWithSizes", "UnsafeSplit", "UnsafeSplitWithSizes")


def taken_out(graph: Nodes) -> dict[Edge, Edge]:
    """What is taken out of a stack or a cat in just the way in which it was put in: edge -> the edge that went in."""
    found: dict[Edge, Edge] = {}
    for place, op in enumerate(graph.ops):
        if not op.takes_part or not graph.inputs[place]:
            continue
        name, before = op.name, graph.inputs[place][0][0]
        if before < 0 or before in graph.wholes:
            # Of a whole part it is not known what its last node put beside one another.
            continue
        joined = graph.ops[before].name
        if name in ("Select", "Unbind") and joined == "Stack":
            _of_stack(graph, place, before, found)
        elif joined == "Cat" and name in ("Slice", *_SPLITS):
            _of_cat(graph, place, before, found)
    return found


def _of_stack(graph: Nodes, place: int, before: int, found: dict[Edge, Edge]) -> None:
    node: Any = graph.nodes[place]
    axes = len(graph.shape((before, 0)))
    parts = graph.inputs[before]
    if _axis(node._saved_dim, axes) != _axis(graph.nodes[before]._saved_dim, axes):
        return
    is_select = graph.ops[place].name == "Select"
    chosen = {0: _signed(node._saved_index)} if is_select else {number: number for number in range(len(parts))}
    for result, number in chosen.items():
        if -len(parts) <= number < len(parts) and parts[number][0] >= 0:
            found[place, result] = found.get(parts[number], parts[number])


def _of_cat(graph: Nodes, place: int, before: int, found: dict[Edge, Edge]) -> None:
    node: Any = graph.nodes[place]
    shape = graph.shape((before, 0))
    axis = _axis(graph.nodes[before]._saved_dim, len(shape))
    if _axis(node._saved_dim, len(shape)) != axis:
        return
    parts = graph.inputs[before]
    sizes = [graph.shape(edge)[axis] if edge[0] >= 0 else None for edge in parts]
    if sizes.count(None) > 1:
        return
    rest = shape[axis] - sum(size for size in sizes if size is not None)
    spans, start = {}, 0
    for edge, size in zip(parts, sizes, strict=True):
        stop = start + (rest if size is None else size)
        spans[start, stop] = edge
        start = stop
    for result, span in _spans(graph, place, axis, shape[axis]).items():
        whole = spans.get(span)
        if whole is not None and whole[0] >= 0:
            found[place, result] = found.get(whole, whole)


def _spans(graph: Nodes, place: int, axis: int, size: int) -> dict[int, tuple[int, int]]:
    """From where to where each result of a node that takes parts along an axis reaches."""
    node: Any = graph.nodes[place]
    if graph.ops[place].name == "Slice":
        if node._saved_step != 1:
            return {}
        start, stop = (_signed(value) for value in (node._saved_start, node._saved_end))
        return {0: (start + size if start < 0 else start, min(size, stop + size if stop < 0 else stop))}
    found, start = {}, 0
    for result, meta in enumerate(node._input_metadata):
        found[result] = (start, start + meta.shape[axis])
        start += meta.shape[axis]
    return found


def _axis(axis: int, axes: int) -> int:
    return _signed(axis) % axes


def _signed(value: int) -> int:
    """Autograd shows negative numbers as those that are as far below 2**64."""
    return value - 2**64 if value >= 2**63 + 2**62 else value
