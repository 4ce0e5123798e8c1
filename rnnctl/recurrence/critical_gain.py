"""Means over a normal pre-activation, and the gain of W_hh at which a wide Elman network is critical."""

import math
from collections.abc import Callable

from rnnctl.errors import InputError
from rnnctl.recurrence.nonlinearities import NONLINEARITIES

# Where 1 - tanh^2 has fallen below 1e-16, and where the normal density has.
TANH_REACH, NORMAL_REACH = 20.0, 9.0
# Halving ends by itself at neighbouring doubles: after 53 steps, and one more for every time that the bounds are twice
# as far apart as q is large.
BISECTIONS = 200


def critical_gain(source_variance: float = 0.0, nonlinearity: str = "tanh") -> float:
    """The sigma_w at which a perturbation neither grows nor shrinks, chi = 1, in the steady state.

    With chi = 1, sigma_w^2 is 1 / E[f'(sqrt(q) z)^2], and q what solves q = E[f^2] / E[f'^2] + source_variance. A W_hh
    that is sigma_w times an orthogonal matrix keeps lengths as independent entries do on average: it is the same gain.

    Args:
        source_variance: mean square of W_xh x_t + b_xh + b_hh, what does not come from h_{t-1}.
        nonlinearity: name of f_h.
    Returns:
        sigma_w, at least 1: strong inputs push tanh to where its slope is small, and the gain makes up for that.
    Raises:
        InputError: a variance that is negative or not finite.
    Source: Schoenholz et al. 2017, arXiv:1611.01232; Chen, Pennington & Schoenholz 2018, arXiv:1806.05394.
    """
    if not (math.isfinite(source_variance) and source_variance >= 0):
        raise InputError(f"source_variance must be a finite number from 0 up; got {source_variance}")
    f = NONLINEARITIES[nonlinearity]
    if f.homogeneous_share is not None:
        return 1 / math.sqrt(f.homogeneous_share)
    if source_variance == 0:
        return 1.0
    low, high = source_variance, 2 * source_variance + 1
    while _too_small(high, source_variance):
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _too_small(middle, source_variance) else (low, middle)
    return 1 / math.sqrt(mean_slope((low + high) / 2))


def _too_small(q: float, source: float) -> bool:
    """Whether q is below what solves q = E[tanh^2] / E[sech^4] + source, which is one q alone."""
    kept = 1 - normal_mean(lambda u: math.cosh(u) ** -2, q)
    return kept / mean_slope(q) + source > q


def mean_slope(q: float) -> float:
    """E[f'(sqrt(q) z)^2] of tanh."""
    return normal_mean(lambda u: math.cosh(u) ** -4, q)


def normal_mean(f: Callable[[float], float], q: float) -> float:
    """E[f(sqrt(q) z)], z normal, for f that has fallen to nothing at TANH_REACH.

    The trapezoidal rule in u = sqrt(q) z, whose error for such f is below 1e-15 at any q;
    Gauss-Hermite loses its digits where q is large, since tanh has poles at distance pi/2.
    """
    if q == 0:
        return f(0.0)
    root = math.sqrt(q)
    step = min(0.2, root / 2)
    half = math.ceil(min(TANH_REACH, NORMAL_REACH * root) / step)
    nodes = (step * i for i in range(-half, half + 1))
    return step * sum(f(u) * math.exp(-u * u / (2 * q)) for u in nodes) / (root * math.sqrt(2 * math.pi))
