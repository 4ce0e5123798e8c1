"""How far from the truth a mean over local exponents may be: by an autoregressive fit, drift, and unlike sequences."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

# Fewer steps tell nothing of how alike neighbours are.
FEWEST_STEPS = 10
# Lags of the autoregressive fit: at most so many, and one for so many steps.
MOST_LAGS, STEPS_PER_LAG = 8, 10
# What earlier lags leave of a cycle is how far the mean over its last round is off: no matter for further lags.
LEAST_LEFT = 1e-3
# As many steps as tell the mean as well as those that there are, were they independent. With fewer, the fit cannot tell
# a wandering series from one without any mean.
FEWEST_INDEPENDENT = 1.5
# What may be drift: the first eighth, quarter and half, as in the convergence of the largest exponent.
FIRST_PARTS = (8, 4, 2)
# What has drifted drifts on: by as much of it again.
DRIFTS_ON = 0.25
# What is more than chance, in standard errors.
BEYOND_CHANCE = 2
# Nats: what rounding leaves between steps that grow alike, for a growth near 1.
ROUNDING = 32 * torch.finfo(torch.float64).eps
# Sequences whose means spread so many times as widely as they do over time have exponents of their own.
UNLIKE = 3
# Student's t, two-sided 95 %, for 1, 2, ... degrees of freedom; 2 beyond.
STUDENT = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def standard_errors(
    logs: Float[Tensor, "steps batch count"], shares: Float[Tensor, " batch"]
) -> Float[Tensor, " count"]:
    """Standard errors of the means over steps and sequences: two of them cover the truth in about 95 of 100 cases.

    Args:
        logs: ln of the growth of every perturbation at every step, float64.
        shares: the part of the batch that each sequence stands for, 0 for a copy of another one.
    Returns:
        Shape (count,), float64; NaN where the steps are too few to tell, and for directions that are lost.
    """
    logs, shares = logs[:, shares > 0], shares[shares > 0]
    means = torch.einsum("tbk,b->tk", logs, shares)
    lost = means.isneginf().any(dim=0)
    if means.shape[0] < FEWEST_STEPS:
        return torch.full_like(means[0], math.nan)
    over_time = _with_drift(means.masked_fill(lost, 0))
    apart = _between_sequences(logs.mean(dim=0).masked_fill(lost, 0), shares, over_time)
    return torch.hypot(over_time, apart).masked_fill(lost, math.nan)


def why_no_error(exponent: float, steps: int) -> str:
    """Why there is no standard error of an exponent."""
    if exponent == -math.inf:
        return "a direction that is lost has none"
    if steps < FEWEST_STEPS:
        return f"too short to tell: it takes {FEWEST_STEPS} steps"
    return "too short to tell: neighbouring steps grow too much alike"


def _with_drift(series: Float[Tensor, "steps count"]) -> Float[Tensor, " count"]:
    """Standard errors of the means over time; where the first steps drift, what they do to the mean is part of it."""
    drifting = torch.full_like(series[0], math.nan)
    for part in FIRST_PARTS:
        first = len(series) // part
        rest = series[first:]
        moved = (series.mean(dim=0) - rest.mean(dim=0)).abs()
        error, spread = _over_time(rest), rest.std(dim=0, correction=0)
        # What is left of a drift has no mean that could be told, nor does it matter beside the drift itself.
        error = torch.where(error.isnan() & (spread < moved / BEYOND_CHANCE), spread, error)
        chance = error * math.sqrt(first / len(series))
        drifting = torch.fmax(
            drifting, torch.hypot((1 + DRIFTS_ON) * moved, error).where(moved > BEYOND_CHANCE * chance, math.nan)
        )
    # Not beside the fit to all steps, which takes the drift for noise.
    return torch.where(drifting.isnan(), _over_time(series), drifting)


def _over_time(series: Float[Tensor, "steps count"]) -> Float[Tensor, " count"]:
    """Standard errors of the means over time of series without drift, NaN where there are too few steps to tell.

    The spread over the root of n - 1, where n is how many independent steps would tell as much. Of an autoregressive
    series with partial autocorrelations k_1, k_2, ... it is the steps times the product of (1 - k_i) / (1 + k_i).
    """
    steps = len(series)
    deviations = series - series.mean(dim=0)
    variance = deviations.square().mean(dim=0)
    k = _fitted_correlations(deviations)
    independent = steps * ((1 - k) / (1 + k)).prod(dim=0)
    error = (variance / (independent - 1)).sqrt().where(independent >= FEWEST_INDEPENDENT, math.nan)
    alike = variance.sqrt() <= ROUNDING * (1 + series.mean(dim=0).abs())
    return torch.where(alike, variance.sqrt(), error)


def _fitted_correlations(deviations: Float[Tensor, "steps count"]) -> Float[Tensor, "lags count"]:
    """Partial autocorrelations without their bias, 0 beyond the order that Akaike's criterion chooses; at most 1.

    Source: Hurvich & Tsai 1989 (the criterion for short series); Shaman & Stine 1988 (the bias of the last coefficient
        of an autoregression, of which Kendall 1954 is the first order).
    """
    steps = len(deviations)
    found = _partial_correlations(deviations, max(1, min(MOST_LAGS, steps // STEPS_PER_LAG)))
    order = torch.arange(len(found) + 1, dtype=torch.float64).unsqueeze(1)
    lag = order[1:]
    left = torch.cat([torch.zeros_like(found[:1]), torch.log1p(-found.square()).cumsum(dim=0)])
    criterion = steps * left + 2 * (order + 1) * steps / (steps - order - 2)
    # On average k is found as k - (c + (lag + 2) k) / steps, c being 1 for odd lags and 2 for even ones.
    unbiased = (steps * found + 2 - lag % 2) / (steps - lag - 2)
    # Of a series that alternates without end, or grows, nothing is known beyond the steps that there are.
    return unbiased.clamp(1 / steps - 1, 1).where(lag <= criterion.argmin(dim=0), 0.0)


def _partial_correlations(deviations: Float[Tensor, "steps count"], lags: int) -> Float[Tensor, "lags count"]:
    """Partial autocorrelations at lags 1, 2, ...

    Source: Burg 1975, "Maximum entropy spectral analysis".
    """
    forward, backward = deviations[1:], deviations[:-1]
    found, left = [], torch.ones_like(deviations[0])
    for _ in range(lags):
        power = forward.square().sum(dim=0) + backward.square().sum(dim=0)
        k = (2 * (forward * backward).sum(dim=0) / power).where((power > 0) & (left > LEAST_LEFT), 0.0)
        found.append(k)
        left = left * (1 - k.square())
        forward, backward = (forward - k * backward)[1:], (backward - k * forward)[:-1]
    return torch.stack(found)


def _between_sequences(
    means: Float[Tensor, "batch count"], shares: Float[Tensor, " batch"], over_time: Float[Tensor, " count"]
) -> Float[Tensor, " count"]:
    """What sequences of unlike exponents add to the error of their mean, beyond what each has of its own over time."""
    freedom = len(shares) - 1
    if not freedom:
        return torch.zeros_like(over_time)
    weight = shares.unsqueeze(1)
    squares = (weight * (means - (weight * means).sum(dim=0)).square()).sum(dim=0)
    of_mean = squares * shares.square().sum() / (1 - shares.square().sum())
    beyond = (of_mean - over_time.square()).clamp(min=0).sqrt()
    # Few sequences show too small a spread too often. Not of all, or every second pair would seem six times as unlike
    # as it is by chance.
    wider = STUDENT[freedom - 1] / 2 if freedom <= len(STUDENT) else 1.0
    return torch.where(of_mean.sqrt() > UNLIKE * over_time, wider * beyond, beyond)
