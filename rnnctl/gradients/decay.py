"""How fast a gradient changes on its way back through time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

ONE_PERCENT = 0.01
# 0.1**2 is not 0.01 to the last digit; in float32, which has no 0.1, it is 3e-10 above.
ROUNDING = 1e-9
# What results call its fields, and what they are.
DECAY_KINDS = {"factor_per_step": float, "fitted_steps": float, "steps_to_one_percent": float, "first_over_last": float}
TOO_FEW_STEPS = "it takes two steps whose gradient is neither 0 nor infinite"
NOT_REACHED = "it does not fall to 1 % within this sequence"


@dataclass(frozen=True)
class Decay:
    """The course of a gradient norm over time, in four numbers.

    Attributes:
        factor_per_step: exp of minus the slope of ln norm over t (least squares over all steps
            where the norm is neither 0 nor nonfinite): below 1 the gradient shrinks with every
            step back. None for fewer than two such steps.
        fitted_steps: how many steps the fit rests on.
        steps_to_one_percent: the fewest steps back from the last after which the norm is at most
            1 % of that at the last step, within 1e-9; None if that does not happen within the sequence.
        first_over_last: norm at step 0 over norm at the last step; None if the latter is 0.
        factor_of_older_half: ``factor_per_step`` of steps 0 to T // 2 alone.
        steps: T, up to the step at which the gradient enters.
        chains: how many sequences there are that no gradient links.
        followed: of how many of them this is the one that changes most.
    """

    factor_per_step: float | None
    fitted_steps: int
    steps_to_one_percent: int | None
    first_over_last: float | None
    factor_of_older_half: float | None = None
    steps: int | None = None
    chains: int = 1
    followed: int = 1


def first_at_one_percent(ratios: Float[Tensor, " lags"]) -> int | None:
    """The first lag at which something has fallen to 1 % of what it was at lag 0; None where it does not.

    Args:
        ratios: what is left at each lag, of 1, shape (lags,); NaN is nothing that has fallen.
    """
    reached = (ratios <= ONE_PERCENT + ROUNDING).nonzero()
    return int(reached[0]) if reached.numel() else None


def share_of(part: float, whole: float) -> float | None:
    """A part of a sum of sizes, from 0 to 1; None of nothing, and where one of the two is not finite."""
    # Any part of what is infinite would be 0, which is not known.
    return part / whole if whole > 0 and math.isfinite(part) and math.isfinite(whole) else None


def why_no_share(whole: float, nonfinite: str | None) -> str:
    """Why a sum has no part that is known.

    Args:
        nonfinite: what is not finite, in words; None where everything is.
    """
    return "no step contributes anything" if whole == 0 or nonfinite is None else nonfinite


def decay_scalars(decay: Decay | None) -> dict[str, float | int | None]:
    """What a result says of it, by name; None where it is not known."""
    found = {name: None if decay is None else getattr(decay, name) for name in DECAY_KINDS}
    return {name: None if value is not None and math.isnan(value) else value for name, value in found.items()}


def why_no_decay(decay: Decay | None, reason: str, *, nonfinite: bool = False) -> Mapping[str, str]:
    """Of each of these that is None, why.

    Args:
        reason: why nothing is known of it, why the gradient ends, or what is not finite.
        nonfinite: whether it is the last of them.
    """
    if decay is None or decay.first_over_last is None or (nonfinite and decay.fitted_steps != decay.steps):
        return dict.fromkeys(DECAY_KINDS, reason)
    return {"factor_per_step": TOO_FEW_STEPS, "steps_to_one_percent": NOT_REACHED}


def decay_over_time(log_norm: Float[Tensor, " time"]) -> Decay:
    """The decay of a gradient from the last step back to step 0.

    Args:
        log_norm: ln of the norm at steps 0 .. T-1, shape (time,), float64; logarithms, because
            over a long sequence the norms themselves leave the range of float64.
    """
    usable = torch.isfinite(log_norm)
    # Against what is infinite everything would be 0, which is not known.
    relative = log_norm - torch.where(torch.isposinf(log_norm[-1]), math.nan, log_norm[-1])
    # A norm of 0 at the last step leaves no ratio; at an earlier one it is -inf here, and a ratio of 0.
    known = not bool(torch.isneginf(log_norm[-1]))
    return Decay(
        factor_per_step=_factor_per_step(log_norm, usable),
        fitted_steps=int(usable.sum()),
        steps_to_one_percent=first_at_one_percent(relative.flip(0).exp()) if known else None,
        first_over_last=float(relative[0].exp()) if known else None,
        factor_of_older_half=_factor_per_step(*(each[: len(each) // 2 + 1] for each in (log_norm, usable))),
        steps=len(log_norm),
    )


def decay_from(log_norm: Tensor, last: int) -> Decay:
    """The decay from a step on at which the gradient enters.

    Args:
        log_norm: as of ``decay_over_time``, of all steps, shape (time,).
        last: that step; the first of several is the end of the way as well.
    """
    if last == 0 and len(log_norm) > 1:
        return Decay(None, 1, None, None, steps=1)
    return decay_over_time(log_norm[: last + 1])


def worst(decays: Sequence[Decay | None]) -> Decay | None:
    """Of several sequences the one whose gradient changes most; None where one of them is not known."""
    several = [each for each in decays if each is None or each.steps != 1] or list(decays)
    known = [each for each in several if each is not None]
    if not known or len(known) < len(several):
        return None
    return replace(max(known, key=_change), chains=len(known), followed=len(known))


def _change(decay: Decay) -> float:
    ratio = decay.first_over_last
    if ratio is None:
        return -1.0
    return math.inf if math.isnan(ratio) or ratio == 0 or math.isinf(ratio) else abs(math.log(ratio))


def entry(entering: Tensor) -> int:
    """The last step at which something enters: after it there is padding, or steps that no loss reads.

    Args:
        entering: the norms of it, shape (time,); where all are 0 that is the last step of all.
    """
    steps = (entering != 0).nonzero()
    return int(steps[-1]) if steps.numel() else len(entering) - 1


def _factor_per_step(log_norm: Tensor, usable: Tensor) -> float | None:
    t = usable.nonzero().squeeze(1).double()
    if t.numel() < 2:
        return None
    # Around the mean of t the slope does not depend on the intercept, which need not be found.
    t_centred = t - t.mean()
    slope = t_centred @ log_norm[usable] / (t_centred @ t_centred)
    return float((-slope).exp())
