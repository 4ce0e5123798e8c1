"""What the number of units does to a growth rate that mean-field theory gives for infinitely many."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Of complex matrices all moduli are independent, of real ones conjugates share one, and real eigenvalues are alone:
# products of 1 to 4 gaussian matrices of 32 to 256 units have the largest modulus of so large a share.
INDEPENDENT = 0.7
# A vector grows like the largest eigenvalue after so many times sqrt(units) periods: measured, 2 to 3.
ONSET = 2.5
# Periods of a sequence, at the least, for the repetition to tell.
FEWEST_PERIODS = 8
# Points at which a distribution of logarithms is looked at, and how far it reaches, in standard deviations.
POINTS, REACH = 4001, 8.0


@dataclass(frozen=True)
class Cycle:
    """Steps ``start`` to ``stop`` - 1, over which inputs come again every ``period`` steps."""

    start: int
    stop: int
    period: int


def cycles(x: Float[Tensor, "time input"]) -> Iterator[Cycle]:
    """The parts of a sequence that repeat themselves often enough, in their order.

    Args:
        x: inputs, shape (time, input).
    """
    start, steps = 0, x.shape[0]
    while start < steps:
        found = _cycle_from(x, start)
        if found is not None:
            yield found
        start = start + 1 if found is None else found.stop


def _cycle_from(x: Tensor, start: int) -> Cycle | None:
    most = (x.shape[0] - start) // FEWEST_PERIODS
    # One step first, which rules out most periods.
    same = (x[start + 1 : start + most + 1] == x[start]).all(dim=1)
    for period in (same.nonzero().squeeze(1) + 1).tolist():
        repeats = (x[start + period :] == x[start:-period]).all(dim=1)
        stop = start + period + int(repeats.long().cumprod(0).sum())
        if stop - start >= FEWEST_PERIODS * period:
            return Cycle(start, stop, period)
    return None


@dataclass(frozen=True)
class Course:
    """What mean-field theory says of every step of a sequence, each of shape (time,).

    Attributes:
        exponents: 0.5 ln chi_t, nats.
        units: over how many units the squared slopes are spread, (sum f'^2)^2 / sum f'^4.
        at_rest: whether h_{t-1} is 0, of all units.
    """

    exponents: Tensor
    units: Tensor
    at_rest: Tensor


def share_of_width(course: Course, repeated: Iterable[Cycle], warmup: int) -> float:
    """What so many units add to the mean-field exponent of infinitely many, nats per step, after the warm-up.

    One step stretches by a random factor, whose mean logarithm lies below the logarithm of its mean square by
    1 / (2 units). Where a drive repeats itself and the states settle on a cycle, one and the same product of step
    Jacobians acts over and over, and its largest eigenvalue lies beyond the circle of the others.

    Args:
        course: of one sequence.
        repeated: its cycles.
        warmup: steps that are not counted.
    Source: Kostlan 1992, "On the spectra of Gaussian matrices"; Akemann & Burda 2012, arXiv:1208.0187 (products);
        Rider & Sinclair 2014, arXiv:1209.6085 (real matrices).
    """
    chance = float((-0.5 / course.units[warmup:]).sum())
    return (chance + sum(_on_cycle(course, each, warmup) for each in repeated)) / (len(course.units) - warmup)


def _on_cycle(course: Course, cycle: Cycle, warmup: int) -> float:
    """ln of what a vector grows by on a cycle after the warm-up, beyond what chance leaves it."""
    last = slice(cycle.stop - cycle.period, cycle.stop)
    units, exponent = course.units[last], float(course.exponents[last].mean())
    at_rest = bool(course.at_rest[last].all())
    # Chaotic states never come to a cycle.
    if cycle.stop <= warmup or (exponent >= 0 and not at_rest):
        return 0.0
    # Within 1 / sqrt(units) of it: the eigenvalue cannot tell that from the cycle itself.
    start = cycle.start + (0.0 if at_rest else 0.5 * math.log(_harmonic_mean(units)) / -exponent)
    before, after = (max(0.0, step - start) / cycle.period for step in (warmup, cycle.stop))
    return _growth(after, units) - _growth(before, units)


def _growth(periods: float, units: Tensor) -> float:
    """ln of what a vector has grown by over so many periods of phases of so many units, beyond chance."""
    width = _harmonic_mean(units)
    beyond = largest_modulus(units) * (periods - ONSET * math.sqrt(width))
    return max(0.0, (beyond + 0.5 / width * periods) * units.numel())


def _harmonic_mean(units: Tensor) -> float:
    return 1 / float((1 / units).mean())


def largest_modulus(units: Float[Tensor, " phases"]) -> float:
    """E[ln of the largest |eigenvalue|], per factor, of a product of real gaussian matrices of mean square 1.

    Args:
        units: of each factor, shape (phases,).
    """
    # Kostlan: the squared moduli are independent products of Gamma(j) variables, j = 1 .. units, whose logarithms
    # are nearly normal where j is not small.
    units = units.double()
    j = torch.arange(1, int(units.min()) + 1, dtype=torch.float64)
    shapes = j.unsqueeze(1) + (units - units.min())
    mean = (torch.digamma(shapes) - units.log()).mean(dim=1) / 2
    deviation = torch.polygamma(1, shapes).sum(dim=1).sqrt() / (2 * units.numel())
    points = torch.linspace(
        float((mean - REACH * deviation)[-1]), float((mean + REACH * deviation).max()), POINTS, dtype=torch.float64
    )
    below = torch.special.log_ndtr((points.unsqueeze(1) - mean) / deviation).sum(dim=1)
    return float(points[-1] - torch.trapezoid((INDEPENDENT * below).exp(), points))
