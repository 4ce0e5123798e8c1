"""Where a value stands along an axis, and which numbers stand there: linear or in powers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rnnctl.view.curves import LEAST_DRAWN, MOST_DRAWN
from rnnctl.view.numbers import log_scale

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Of an axis, as a share of its values or of 1: rounding is not to fill a picture.
LEAST_SPAN = 1e-3


@dataclass(frozen=True)
class Scale:
    """An axis from ``low`` to ``high``, on a logarithm of ``base`` or, where that is 0, as it is."""

    low: float
    high: float
    base: int = 0

    def share(self, value: float | None) -> float | None:
        """How far along the axis a value stands, 0 to 1 within it; None of what has no place there."""
        if value is None or not math.isfinite(value) or (self.base and not 0 < value <= MOST_DRAWN):
            return None
        if not self.base:
            return (value - self.low) / (self.high - self.low)
        share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        # At the foot it would read as if the values fell no further: a line ends where its axis ends.
        return None if share < -1e-9 else max(0.0, share)

    def ticks(self, most: int) -> Sequence[tuple[float, str]]:
        """At most about so many values, and how each is written."""
        return _powers(self, most) if self.base else _round(self, most)


def linear(values: Iterable[float | None], *also: float, whole: bool = False) -> Scale:
    """An axis that has room for all values and for ``also``; ``whole`` of numbers that count something."""
    known = [value for value in (*values, *also) if value is not None and math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    least = 1.0 if whole else LEAST_SPAN * max(1.0, abs(low), abs(high))
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    edge = max(0.5 if whole else 0.0, 0.03 * (high - low))
    return Scale(low - edge, high + edge)


def logarithmic(values: Iterable[float | None], base: int = 10) -> Scale | None:
    """An axis of a decade or more for the values above 0; None where there is none that can be drawn."""
    ends = log_scale([value for value in values if value is not None and LEAST_DRAWN <= value <= MOST_DRAWN])
    if ends is None:
        return None
    low, high = ends
    # Not of their quotient, which may leave the range of float64.
    edge = math.exp(0.04 * (math.log(high) - math.log(low)))
    # No margin where there may be numbers that are not drawn.
    return Scale(max(low / edge, min(low, LEAST_DRAWN)), min(high * edge, MOST_DRAWN), base)


def _powers(scale: Scale, most: int) -> list[tuple[float, str]]:
    base = scale.base
    first, last = math.ceil(_log(scale.low, base) - 1e-9), math.floor(_log(scale.high, base) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / most))
    # Multiples of the step, so that 1 is among them.
    exponents = range(math.ceil(first / step) * step, last + 1, step)
    return [(float(base) ** e, _power(base, e)) for e in exponents]


def _log(value: float, base: int) -> float:
    return math.log2(value) if base == 2 else math.log10(value)


def _power(base: int, exponent: int) -> str:
    # Of windows, which are numbers of steps, the number itself.
    return str(2**exponent) if base == 2 else f"10{str(exponent).translate(SUPERSCRIPTS)}"


def _round(scale: Scale, most: int) -> list[tuple[float, str]]:
    rough = (scale.high - scale.low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * (1 - 1e-9))
    first, last = math.ceil(scale.low / step), math.floor(scale.high / step)
    # Not -0.
    return [(i * step, f"{i * step + 0.0:.6g}") for i in range(first, last + 1)]
