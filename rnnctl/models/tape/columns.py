"""Which columns of a weight multiply a state, where it is applied to x and h beside one another."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from rnnctl.models.tape.beside import Edge
from rnnctl.models.tape.graph import CONSTANT
from rnnctl.models.tape.uses import Bits, Use, Uses


@dataclass(frozen=True, eq=False)
class Columns:
    """Of a use, the columns that multiply the state.

    Attributes:
        axis: along which axis of the gradient there, counted from the last.
        index: which, whole numbers, shape (columns,).
        state, others: the same and all others as runs, where each starts and how many there are.
    """

    axis: int
    index: Tensor
    state: tuple[tuple[int, int], ...]
    others: tuple[tuple[int, int], ...]

    @classmethod
    def marked(cls, axis: int, marks: Tensor) -> "Columns":
        """Those that are marked, boolean, shape (all columns,)."""
        return cls(axis, marks.nonzero().squeeze(1), _runs(marks, True), _runs(marks, False))


def joined(found: Sequence[Columns | None]) -> Columns | None:
    """The columns that are among any of these, all of one axis; None where all are."""
    first = found[0]
    if first is None or all(each is first for each in found):
        return first
    marks = torch.zeros(sum(length for _, length in (*first.state, *first.others)), dtype=torch.bool)
    for each in dict.fromkeys(found):
        if each is None:
            return None
        marks[each.index] = True
    return None if bool(marks.all()) else Columns.marked(first.axis, marks)


def _runs(marks: Tensor, value: bool) -> tuple[tuple[int, int], ...]:
    found, start = [], 0
    for same, group in groupby(marks.tolist()):
        length = len(list(group))
        if same == value:
            found.append((start, length))
        start += length
    return tuple(found)


def columns_of(uses: Uses, use: Use, weight: Bits) -> Columns | None:
    """The columns whose operand leads back to an earlier use; None where all do, or none.

    Args:
        weight: the bit of the weight.
    """
    graph, op = uses.graph, uses.graph.ops[use.node]
    edges = graph.inputs[use.node]
    flows = graph.flows[use.node]
    for other in op.multiplied_with(use.operand, len(edges)):
        if other >= len(edges) or edges[other][0] == CONSTANT or not uses.behind[flows[other][0]] & weight:
            continue
        shape, own = graph.shape(edges[other]), graph.shape(edges[use.operand])
        axis, own_axis = op.summed_axis(other, len(shape)), op.summed_axis(use.operand, len(own))
        if axis is None or own_axis is None or shape[axis] != own[own_axis]:
            return None
        along = [1] * len(shape)
        along[axis] = shape[axis]
        index = torch.arange(shape[axis], dtype=torch.float64).view(along).expand(shape)
        found = torch.zeros(shape[axis], dtype=torch.bool)
        _mark(uses, flows[other], index, weight, found)
        return Columns.marked(own_axis, found) if bool(found.any()) and not bool(found.all()) else None
    return None


def _mark(uses: Uses, edge: Edge, index: Tensor, weight: Bits, found: Tensor) -> None:
    """Mark the columns that lead back to a use, each element of what lies at an edge being named by its column."""
    graph = uses.graph
    place, result = edge
    node: Any = graph.nodes[place]
    op = graph.ops[place]
    past = [e for e in graph.flows[place] if e[0] != CONSTANT and uses.behind[e[0]] & weight]
    entering = any(Use(place, operand) in _uses_at(uses, place) for operand in range(len(graph.inputs[place])))
    if not past or entering:
        _all_of(index, found)
    elif op.joins or op.rearranges:
        count = len(node._input_metadata)
        with torch.no_grad():
            answer = node(*[index if number == result else None for number in range(count)])
        parts = answer if isinstance(answer, tuple) else (answer,)
        for before, part in zip(graph.flows[place], parts, strict=False):
            if before[0] != CONSTANT and part is not None and uses.behind[before[0]] & weight:
                _mark(uses, before, part, weight, found)
    elif len(past) == 1 and graph.shape(past[0]) == tuple(index.shape) and _is_mask(uses, place):
        _mark(uses, past[0], index, weight, found)
    else:
        _all_of(index, found)


def _is_mask(uses: Uses, place: int) -> bool:
    """Whether a node has one input and constants: dropout, a mask, a change of dtype."""
    others = [edge for edge in uses.graph.inputs[place] if edge[0] != CONSTANT]
    return len(others) == 1 and uses.graph.ops[place].may_mask


def _all_of(index: Tensor, found: Tensor) -> None:
    found[torch.unique(index).long()] = True


def _uses_at(uses: Uses, place: int) -> set[Use]:
    return {
        Use(place, operand)
        for operand, (before, _) in enumerate(uses.graph.inputs[place])
        if before != CONSTANT and uses.made_of[before]
    }
