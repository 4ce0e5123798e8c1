"""Mean-field theory under a drive whose strength changes in time: q_t of a wide Elman network, step by step."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.dynamics.finite_width import Course, cycles, share_of_width
from rnnctl.dynamics.meanfield import MeanField
from rnnctl.dynamics.trajectory import STRETCH_BYTES
from rnnctl.models.driven import widened
from rnnctl.recurrence.critical_gain import TANH_REACH
from rnnctl.recurrence.nonlinearities import Nonlinearity
from rnnctl.recurrence.weights import LayerWeights

# The normal's quadrature: its reach, and nodes on each side that leave an error below 1e-6, at the least, and in
# proportion to the standard deviation of what tanh is taken of, whose poles are pi/2 away.
REACH, FEWEST_NODES, NODES = 6.5, 10, 15.0
# Up to this standard deviation; of a larger one the density is smooth where tanh is steep, and so many nodes to 1 are
# enough there, however large it is.
NARROW, NODES_OF_INPUT = 2.0, 4
# A drive is constant whose size varies by less than this of it.
CONSTANT = 1e-9
# Lags whose correlations are looked at, at most; standard deviations that chance is given, here and where the size is
# of two kinds: that of normal inputs has a kurtosis of 3 or more, one that is switched on and off has 1.
MOST_LAGS, CHANCE = 100, 5.0
# Variance of the strength over its squared mean, beyond which a drive comes in bursts: that of one normal input, and
# that of its estimate from one step.
ONE_NORMAL, OF_ESTIMATE = 2.0, 56.0


def drive(weights: LayerWeights, x: Float[Tensor, "batch time input"]) -> Iterator[Float[Tensor, "batch steps hidden"]]:
    """W_xh x_t + b_xh + b_hh of consecutive steps, float64, in pieces that do not grow with T.

    Args:
        weights: in float64.
        x: inputs, shape (batch, time, input).
    """
    b_h = weights.b_h
    steps = max(1, STRETCH_BYTES // (8 * x.shape[0] * weights.W_ih.shape[0]))
    for start in range(0, x.shape[1], steps):
        source = torch.matmul(widened(x[:, start : start + steps]), weights.W_ih.t())
        yield source if b_h is None else source.add_(b_h)


def strengths(weights: LayerWeights, x: Float[Tensor, "batch time input"]) -> Float[Tensor, "batch time"]:
    """Mean square of the drive over the units, of every sequence and step.

    Args:
        weights, x: as of ``drive``; x of shape (batch, time, input).
    """
    return torch.cat([part.square().mean(dim=2) for part in drive(weights, x)], dim=1)


def is_stationary(strength: Float[Tensor, "batch time"]) -> bool:
    """Whether a drive is constant, or its steps may be independent draws of one distribution without bursts.

    Args:
        strength: as ``strengths`` returns it, shape (batch, time).
    Source: Ljung & Box 1978, "On a measure of lack of fit in time series models" (the correlations).
    """
    size = strength.sqrt()
    deviation = size - size.mean(dim=1, keepdim=True)
    if float(deviation.abs().max()) <= CONSTANT * float(size.max()):
        return True
    # Draws of a continuous distribution never repeat.
    if any(row.unique().numel() < row.numel() for row in strength):
        return False
    most = ONE_NORMAL + CHANCE * math.sqrt(OF_ESTIMATE / strength.numel())
    bursts = float(strength.var(correction=0)) > most * float(strength.mean()) ** 2
    kurtosis = float(deviation.pow(4).mean() / deviation.square().mean().square())
    two_kinds = kurtosis < 3 - CHANCE * math.sqrt(24 / deviation.numel())
    return not bursts and not two_kinds and not _is_correlated(deviation)


def _is_correlated(deviation: Float[Tensor, "batch time"]) -> bool:
    batch, steps = deviation.shape
    lags = max(1, min(MOST_LAGS, steps // 4))
    total = deviation.square().sum(dim=1)
    found = 0.0
    for lag in range(1, lags + 1):
        correlation = (deviation[:, lag:] * deviation[:, :-lag]).sum(dim=1) / total
        found += float(correlation.square().sum()) * steps * (steps + 2) / (steps - lag)
    expected = batch * lags
    return found > expected + CHANCE * math.sqrt(2 * expected)


@dataclass(frozen=True)
class _Step:
    """Of one step of every sequence, each of shape (batch,).

    Attributes:
        q: mean square of a_t.
        before, h: mean square of h_{t-1} and of h_t.
        slope: of f'(a_t).
        fourth: mean fourth power of f'(a_t).
    """

    q: Tensor
    before: Tensor
    h: Tensor
    slope: Tensor
    fourth: Tensor


def followed(
    weights: LayerWeights,
    x: Float[Tensor, "batch time input"],
    h_init: Float[Tensor, "batch hidden"],
    f: Nonlinearity,
    sigma_w: float,
    warmup: int,
) -> MeanField:
    """q_t and chi_t along a sequence, and the mean of 0.5 ln chi_t after the warm-up.

    q_t = sigma_w^2 E[h_{t-1}^2] + mean s_t^2;  chi_t = sigma_w^2 E[f'(s_t + sqrt(sigma_w^2 E[h_{t-1}^2]) z)^2],
    over normal z and over the units, whose drive s_t = W_xh x_t + b_xh + b_hh is taken as it is. What the number of
    units adds to the exponent is in it, as of ``share_of_width``.

    Args:
        weights: of the layer, in float64.
        x: inputs, shape (batch, time, input).
        h_init: state before step 0, shape (batch, hidden).
        f: f_h, a bounded one.
        sigma_w: sqrt(hidden) times the standard deviation of W_hh's entries.
        warmup: steps that do not count.
    Returns:
        A frozen ``MeanField``: q the mean over the steps, chi so that the exponent is 0.5 ln chi.
    Source: Poole et al. 2016, arXiv:1606.05340 (q from layer to layer); Schuecker, Goedeke & Helias 2018,
        arXiv:1603.01880 (networks driven in time).
    """
    variance = sigma_w * sigma_w
    if not math.isfinite(variance):
        return MeanField(None, None, "the variances leave float64")
    q, courses = _along(weights, x, widened(h_init), f, variance)
    found = [float(course.exponents[warmup:].mean()) for course in courses]
    width = [share_of_width(course, cycles(row), warmup) for course, row in zip(courses, x, strict=True)]
    exponent, added = (sum(each) / len(each) for each in (found, width))
    note = (
        f"q_t followed along the sequence, {weights.W_hh.shape[0]} units change the exponent by {added:+.2g}; "
        f"independent entries of standard deviation {sigma_w:.4g} / sqrt(hidden)"
    )
    return MeanField(float(q[warmup:].mean()), math.exp(2 * (exponent + added)), note)


def _along(
    weights: LayerWeights, x: Tensor, h_init: Tensor, f: Nonlinearity, variance: float
) -> tuple[Tensor, list[Course]]:
    """q_t, shape (time, batch), and the course of every sequence."""
    steps = list(_steps(drive(weights, x), h_init, f, variance))
    q, before, slope, fourth = (
        torch.stack([getattr(step, name) for step in steps]) for name in ("q", "before", "slope", "fourth")
    )
    # Of steps that pass nothing on, or next to nothing, the whole growth is one unit's.
    units = (weights.W_hh.shape[0] * slope.square() / fourth).nan_to_num(1.0).clamp_min(1.0)
    by_sequence = zip(*(each.unbind(1) for each in ((variance * slope).log() / 2, units, before == 0)), strict=True)
    return q, [Course(*of_one) for of_one in by_sequence]


def _steps(
    sources: Iterable[Float[Tensor, "batch steps hidden"]], h_init: Tensor, f: Nonlinearity, variance: float
) -> Iterator[_Step]:
    h = h_init.square().mean(dim=1)
    for part in sources:
        for source in part.unbind(1):
            step = _step(source, h, f, variance)
            h = step.h
            yield step


def _step(source: Float[Tensor, "batch hidden"], before: Tensor, f: Nonlinearity, variance: float) -> _Step:
    """Of a drive, and the mean square of h_{t-1}, shape (batch,)."""
    recurrent = variance * before
    root = recurrent.sqrt()
    means, is_wide = _over_z(source, root.clamp(max=NARROW), f), root > NARROW
    if bool(is_wide.any()):
        means[:, is_wide] = _over_input(source[is_wide], root[is_wide], f)
    return _Step(recurrent + source.square().mean(dim=1), before, *means)


def _over_z(source: Tensor, root: Tensor, f: Nonlinearity) -> Float[Tensor, "means batch"]:
    """E[h^2], E[f'^2] and E[f'^4] over normal z and the units, at nodes in z."""
    z, weight = _normal_nodes(max(FEWEST_NODES, math.ceil(NODES * float(root.max()))))
    values = _of_input(source.unsqueeze(2) + root[:, None, None] * z, f)
    return (values @ weight).mean(dim=2)


def _over_input(source: Tensor, root: Tensor, f: Nonlinearity) -> Float[Tensor, "means batch"]:
    """The same at nodes in a_t, which end where f does."""
    a = torch.linspace(-TANH_REACH, TANH_REACH, round(2 * TANH_REACH * NODES_OF_INPUT) + 1, dtype=torch.float64)
    wide = root[:, None, None]
    density = torch.exp(-((a - source.unsqueeze(2)) / wide).square() / 2) / (wide * math.sqrt(2 * math.pi))
    values = _of_input(a, f)
    ends = values[:, -1:]
    return ends + (values - ends) @ density.mean(dim=1).t() / NODES_OF_INPUT


def _of_input(a: Tensor, f: Nonlinearity) -> Float[Tensor, "values ..."]:
    """h^2, f'^2 and f'^4, one after the other, for a_t of any shape."""
    h = f.activate(a.clone())
    slope = f.exact_slope(h, a.clone).square()
    return torch.stack([h.square(), slope, slope.square()])


@lru_cache(maxsize=32)
def _normal_nodes(half: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the trapezoidal rule for E[g(z)], z normal, so many on each side, shape (nodes,) each."""
    z = torch.linspace(-REACH, REACH, 2 * half + 1, dtype=torch.float64)
    weight = torch.exp(-z.square() / 2)
    return z, weight / weight.sum()
