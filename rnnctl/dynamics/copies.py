"""Which sequences of a batch are copies of one another, and tell no more than one of them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from rnnctl.models.driven import widened


def shares(parts: Sequence[Tensor], rounding: float = 0.0) -> Float[Tensor, " batch"]:
    """The part of the batch that each sequence stands for: one of several copies for all of them, the others for none.

    Args:
        parts: what makes a sequence, each of shape (batch, ...); two that are alike in all of it are copies.
        rounding: how far copies may differ, relative to their largest number.
    Returns:
        Shape (batch,), float64, of sum 1.
    """
    batch = parts[0].shape[0]
    numbers = len(_sequence(parts, 0))
    direction = torch.randn(numbers, generator=Generator().manual_seed(0), dtype=torch.float64)
    # Copies stand next to one another in the order of their projections, and hardly anything else does.
    marks = [float(_sequence(parts, b) @ direction) for b in range(batch)]
    order = sorted(range(batch), key=marks.__getitem__)
    found, kept = torch.zeros(batch, dtype=torch.float64), order[0]
    for b in order:
        if not _alike(_sequence(parts, kept), _sequence(parts, b), rounding):
            kept = b
        found[kept] += 1
    return found / batch


def _sequence(parts: Sequence[Tensor], b: int) -> Float[Tensor, " numbers"]:
    return torch.cat([widened(part[b]).flatten() for part in parts])


def _alike(one: Tensor, other: Tensor, rounding: float) -> bool:
    return bool(((one - other).abs() <= rounding * one.abs().max()).all())
