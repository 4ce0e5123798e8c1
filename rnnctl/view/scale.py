"""Where a number lies between the ends of a picture made of characters: on a line, or on a ramp of nine signs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rnnctl.view.numbers import number

RAMP = ".:-=+*#%@"
# The same ramp from dark violet to yellow, distinguishable to the colour-blind.
COLORS = (54, 60, 61, 67, 73, 72, 78, 149, 226)
# Beside a critical value: violet below it, orange above it, both stronger with the distance.
SIDES = (56, 98, 140, 182, 255, 223, 215, 208, 166)
# From here on a ratio of the ends is easier to read on a log scale.
DECADE = 10
MIDDLE = len(RAMP) // 2


@dataclass(frozen=True)
class Scale:
    """From the lower to the higher end.

    Attributes:
        low, high: finite; of a log scale above 0.
        critical: the sign in the middle of the ramp stands for it alone, those before and after it for either side.
    """

    low: float
    high: float
    is_log: bool
    critical: float | None = None

    def share(self, value: float) -> float:
        """0 at the lower end and beyond it, 1 at the higher one; 0.5 where both are one."""
        low, high = self._even(self.low), self._even(self.high)
        return 0.5 if low == high else min(1.0, max(0.0, (self._even(value) - low) / (high - low)))

    def level(self, value: float) -> int:
        """Its place on the ramp, from 0 to 8."""
        if self.critical is not None:
            return self._level_beside(self.critical, value)
        if self.low == self.high:
            return len(RAMP) - 1 if value >= self.low else 0
        return min(len(RAMP) - 1, int(len(RAMP) * self.share(value)))

    def _level_beside(self, critical: float, value: float) -> int:
        if value == critical:
            return MIDDLE
        away = self._even(value) - self._even(critical)
        # Of a value that differs by less than the logarithm shows, the side is known nevertheless.
        steps = min(MIDDLE, 1 + abs(away) / self._step) if away else 1
        return MIDDLE + int(math.copysign(int(steps), value - critical))

    @property
    def _step(self) -> float:
        """What one sign beside the critical value stands for; alike on both sides, so that distances compare."""
        if self.critical is None:
            return (self._even(self.high) - self._even(self.low)) / len(RAMP)
        middle = self._even(self.critical)
        return max(abs(self._even(end) - middle) for end in (self.low, self.high)) / MIDDLE or 1.0

    def sign(self, value: float, color: bool) -> str:
        """Its sign on the ramp."""
        return self._painted(self.level(value), color)

    def _painted(self, level: int, color: bool) -> str:
        colors = COLORS if self.critical is None else SIDES
        return f"\x1b[38;5;{colors[level]}m{RAMP[level]}\x1b[0m" if color else RAMP[level]

    def _ramp(self, color: bool, start: int = 0, stop: int = len(RAMP)) -> str:
        return "".join(self._painted(level, color) for level in range(start, stop))

    def legend(self, color: bool) -> str:
        """The ramp, its ends, and how much a sign is."""
        step = f"a factor of {number(math.exp(self._step))} each" if self.is_log else f"{number(self._step)} each"
        if self.critical is None:
            kind, less = ("log", " or less") if self.is_log else ("linear", "")
            return f"scale: {self._ramp(color)} {kind}, from {number(self.low)}{less} to {number(self.high)}, {step}"
        at = number(float(self.critical))
        below, middle, above = (
            self._ramp(color, *ends) for ends in ((0, MIDDLE), (MIDDLE, MIDDLE + 1), (MIDDLE + 1, len(RAMP)))
        )
        ends = f"from {number(self.low)} to {number(self.high)}"
        return f"scale: {below} below {at}, {middle} at {at}, {above} above, {step}; {ends}"

    def _even(self, value: float) -> float:
        """The value where equal steps are equally far."""
        if not self.is_log or value == math.inf:
            return value
        return math.log(value) if value > 0 else -math.inf


def asks_for_log(values: Sequence[float]) -> bool:
    """Whether none is below 0 and those above it reach over a decade."""
    finite = [value for value in values if math.isfinite(value)]
    above = [value for value in finite if value > 0]
    return bool(above) and min(finite) >= 0 and max(above) / DECADE >= min(above)


def scale_of(values: Sequence[float], critical: float | None) -> Scale | None:
    """The scale that these numbers ask for; None where none is finite.

    Args:
        values: infinities and nan among them do not count.
        critical: what it is to have in its middle, if anything.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    is_log = asks_for_log(finite) and (critical is None or critical > 0)
    drawn = [value for value in finite if value > 0 or not is_log]
    return Scale(min(drawn), max(drawn), is_log, critical)
