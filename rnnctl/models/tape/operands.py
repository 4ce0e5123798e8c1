"""What the uses of a weight multiply, as far as autograd keeps it: the states, without running anything again."""

from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from rnnctl.models.tape.columns import Columns
from rnnctl.models.tape.graph import Graph
from rnnctl.models.tape.steps import Step

_RAW = "_raw_saved_"


def kept_operands(graph: Graph, weight: Tensor, steps: Sequence[Step]) -> list[list[Tensor]]:
    """By step, all that its uses keep beside the weight, before the backward pass lets go of it; detached.

    Nothing is unpacked: what is made once more when it is asked for (a checkpoint) is not asked for.

    Args:
        weight: of any shape.
    """
    own = _memory(weight)
    return [[each for use in step.uses for each in _kept(graph.nodes[use.node], own)] for step in steps]


def states_among(operands: Sequence[Sequence[Tensor]], columns: Columns | None) -> Tensor | None:
    """The states before the steps, (steps, batch, hidden); None where they are not the one thing that was kept.

    Args:
        operands: as of ``kept_operands``, alike in every step but for the first, which may be a constant's.
        columns: which columns of the weight multiply the state; None for all.
    """
    whole = [step[0] for step in operands if len(step) == 1 and step[0].dim() == 2]
    if len(whole) < len(operands) - 1 or not whole or len({(each.shape, each.dtype) for each in whole}) > 1:
        return None
    states = torch.stack(whole)
    if columns is None:
        return states
    wide = states.shape[-1] > int(columns.index.max())
    return states.index_select(2, columns.index.to(states.device)) if wide else None


def first_without_number(operands: Sequence[Sequence[Tensor]]) -> int | None:
    """The first step whose operands are not all finite, or None."""
    bad = (t for t, step in enumerate(operands) if not all(bool(torch.isfinite(each).all()) for each in step))
    return next(bad, None)


def _kept(node: Any, own: int | None) -> Iterator[Tensor]:
    for name in _names(node.__class__):
        try:
            found = getattr(getattr(node, name), "data", None)
        except RuntimeError:
            # Let go of by a pass before this one.
            continue
        if isinstance(found, Tensor) and found.is_floating_point() and _memory(found) != own:
            yield found.detach()


@cache
def _names(kind: Hashable) -> tuple[str, ...]:
    """Of what nodes of a kind save, each as it is and not unpacked."""
    return tuple(name for name in dir(kind) if name.startswith(_RAW))


def _memory(tensor: Tensor) -> int | None:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return None
