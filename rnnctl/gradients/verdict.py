"""What a change of the gradient over a whole sequence is called, and on what grounds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from rnnctl.errors import plain
from rnnctl.gradients.decay import DECAY_KINDS, Decay
from rnnctl.gradients.limits import require_thresholds
from rnnctl.results import Kind

VERDICTS = ("vanishing", "exploding", "stable", "nonfinite", "no gradient", "undecided")
WORDS = ("nonfinite", "vanishing", "exploding")
# What is said of the weight that a verdict is about, by name, and what it is.
JUDGED_KINDS: Mapping[str, Kind] = {
    "cancellation": float,
    **DECAY_KINDS,
    "spectral_radius": float,
    "spectral_radius_error": float,
    "spectral_norm": float,
    "verdict": VERDICTS,
    "reason": str,
}
ONE_STEP = "one step alone has no change from step to step. Try a longer sequence"
# How ln of the factor over the older half may differ from that over all steps for one factor to go on with.
EVEN = (0.5, 2.0)
# Dtypes with larger numbers than this as their smallest lose gradients that others keep.
SMALL = 1e-10
NO_GRADIENT = "d(loss at the last step)/dh is 0"


@dataclass(frozen=True)
class Thresholds:
    """Of the norm at the first step over that at the last: ``vanish_below``, ``explode_above``."""

    vanish_below: float
    explode_above: float

    def __post_init__(self) -> None:
        require_thresholds(self.vanish_below, self.explode_above)


@dataclass(frozen=True)
class Verdict:
    """One of ``VERDICTS``.

    Attributes:
        word: the verdict.
        reason: the number and the threshold that it rests on, or why there is none.
        conditions: which of ``WORDS`` hold; None where nothing tells.
    """

    word: str
    reason: str
    conditions: Mapping[str, bool | None]

    def because(self, remark: str | None) -> "Verdict":
        """The same with what else stands to reason."""
        return self if remark is None else replace(self, reason=f"{self.reason}; {remark}")


def no_gradient(dtype: torch.dtype) -> str:
    """Why there may be none, of a network in a dtype."""
    smallest = torch.finfo(dtype).smallest_normal
    if smallest < SMALL:
        return NO_GRADIENT
    return f"{NO_GRADIENT} in {plain(dtype)}, where it may be lost to underflow. Try --dtype float32 or a larger loss"


def verdict_on(
    decay: Decay | None,
    steps: int,
    thresholds: Thresholds,
    *,
    nonfinite: str | None,
    unknown: str | None,
    none: str = NO_GRADIENT,
) -> Verdict:
    """The verdict on how a gradient changes over a sequence.

    Args:
        decay: of the gradient of the whole state; None where it is not known.
        steps: of the longest sequence that it was followed over.
        nonfinite: what is not finite, in words; None where everything is.
        unknown: why there is no decay, where there is none.
        none: what to say where no gradient enters.
    """
    ratio = None if decay is None else decay.first_over_last
    # Behind the step at which the gradient enters there is nothing to go by.
    steps = steps if decay is None or decay.steps is None else decay.steps
    known = ratio is not None and not math.isnan(ratio) and steps > 1
    conditions: dict[str, bool | None] = {
        "nonfinite": nonfinite is not None,
        "vanishing": ratio < thresholds.vanish_below if known and ratio is not None else None,
        "exploding": ratio > thresholds.explode_above if known and ratio is not None else None,
    }
    word, reason = _judged(decay, steps, thresholds, conditions, nonfinite, unknown)
    if decay is not None and decay.chains > 1 and word in ("vanishing", "exploding", "stable"):
        which = "that which changes most" if decay.followed == decay.chains else "one of the longest"
        reason += f"; of {decay.chains} sequences that no gradient links, {which}"
    reason = none if word == "no gradient" else reason
    return Verdict(word, reason, conditions)


def _judged(
    decay: Decay | None,
    steps: int,
    thresholds: Thresholds,
    conditions: Mapping[str, bool | None],
    nonfinite: str | None,
    unknown: str | None,
) -> tuple[str, str]:
    if nonfinite is not None:
        return "nonfinite", nonfinite
    if decay is None:
        return "undecided", unknown or "it is not known how the gradient changes on its way back"
    ratio, low, high = decay.first_over_last, thresholds.vanish_below, thresholds.explode_above
    if steps < 2:
        return "undecided", ONE_STEP
    if ratio is None:
        return "no gradient", NO_GRADIENT
    if conditions["vanishing"] is None:
        return "undecided", "the gradient on its way back is not a number"
    if conditions["vanishing"]:
        return "vanishing", f"first_over_last {ratio:.4g} < {low:.4g} (--vanish-below){_unevenly(decay)}"
    if conditions["exploding"]:
        return "exploding", f"first_over_last {ratio:.4g} > {high:.4g} (--explode-above)"
    between = f"first_over_last {ratio:.4g} between {low:.4g} (--vanish-below) and {high:.4g} (--explode-above)"
    return "stable", f"over {steps} steps: {between}{_for_longer(decay, steps, thresholds)}"


def _unevenly(decay: Decay) -> str:
    """That no one factor goes through the whole sequence, such as of an LSTM whose h is lost at once and c is kept."""
    factor, older = decay.factor_per_step, decay.factor_of_older_half
    known = all(each is not None and 0 < each < math.inf for each in (factor, older)) and factor != 1
    if not known or factor is None or older is None or EVEN[0] <= math.log(older) / math.log(factor) <= EVEN[1]:
        return ""
    return f"; {factor:.6g} a step, but {older:.6g} over the older half"


def _for_longer(decay: Decay, steps: int, thresholds: Thresholds) -> str:
    """What the factor per step means for a longer sequence; nothing where it leads nowhere."""
    factor = decay.factor_per_step
    if factor is None or not 0 < factor < math.inf or factor == 1:
        return ""
    if uneven := _unevenly(decay):
        return f"{uneven}: what a longer one does is unknown"
    limit = thresholds.vanish_below if factor < 1 else thresholds.explode_above
    if not 0 < limit < math.inf or (limit < 1) != (factor < 1):
        return ""
    reached = math.floor(math.log(limit) / math.log(factor)) + 1
    if reached < steps:
        # The fit and the ends disagree: no line to draw on.
        return ""
    return f"; at {factor:.2g} a step {'below' if factor < 1 else 'above'} {limit:.4g} after {reached:,} steps"
