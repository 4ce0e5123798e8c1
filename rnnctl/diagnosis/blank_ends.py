"""Padding that nobody spoke of: sequences that end in blank steps as they are blank nowhere within."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

# Of all sequences so many end blank, where they are padded; and of the steps within them less than that are blank.
PADDED_SEQUENCES, MOSTLY = 0.25, 0.5
# A blank end is none of the pauses within if it is longer than the longest of them by that factor.
LONGER = 3


@dataclass(frozen=True, eq=False)
class BlankEnds:
    """What the ends of some sequences look like.

    Attributes:
        lengths: real steps of every sequence, (batch,), where they look padded; None where they do not.
        fills: whether the longest sequence has no padding, as those that are padded to the longest of a batch.
        why: why it is not to be told, where that is so.
    """

    lengths: Tensor | None
    fills: bool = False
    why: str = ""


def blank_ends(x: Tensor, target: object) -> BlankEnds:
    """Whether many sequences end in steps that are all 0, each at a place of its own, and others do not.

    Args:
        x: shape (batch, time, ...), or whole numbers (batch, time).
        target: of every step, (batch, time, ...), it speaks against padding where it changes there.
    """
    steps = x.shape[1]
    blank = ((x.flatten(2) == 0).all(2) if x.dim() > 2 else x == 0).cpu()
    trailing = _runs(blank)[:, -1]
    lengths = (steps - trailing).clamp_min(1)
    several = len(torch.unique(lengths)) > 1 and _share(trailing > 0) >= PADDED_SEQUENCES
    # A last step that happens to be 0 here and there is no padding.
    if steps < 3 or not several or int(trailing.max()) < 2 or _changes(target, lengths, steps):
        return BlankEnds(None)
    within = torch.arange(steps) < lengths[:, None]
    pause = int(_runs(blank & within).max())
    if _share(trailing > pause) < PADDED_SEQUENCES:
        return BlankEnds(None)
    # Of few steps none may be blank by chance.
    share = (int((blank & within).sum()) + 1) / (int(within.sum()) + 2)
    if share >= MOSTLY or _share(trailing > LONGER * pause) < PADDED_SEQUENCES:
        return BlankEnds(None, why="the sequences end in blank steps, and are blank within as well: give lengths")
    return BlankEnds(lengths, fills=int(lengths.max()) == steps)


def _runs(blank: Bool[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """How many blank steps in a row end at every step."""
    step = torch.arange(1, blank.shape[1] + 1).expand(blank.shape)
    return step - step.masked_fill(blank, 0).cummax(1).values


def _share(holds: Bool[Tensor, " batch"]) -> float:
    return float(holds.double().mean())


def _changes(target: object, lengths: Tensor, steps: int) -> bool:
    """Whether a target of every step has several values behind the end of one sequence."""
    if not isinstance(target, Tensor) or tuple(target.shape[:2]) != (len(lengths), steps):
        return False
    wide, last = target.detach().cpu().reshape(len(lengths), steps, -1), steps - 1
    behind = torch.arange(steps) >= lengths[:, None]
    return bool(((wide != wide[:, last:]).any(2) & behind).any())
