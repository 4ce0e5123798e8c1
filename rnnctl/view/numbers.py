"""Numbers as text for people."""

import math
from collections.abc import Sequence
from typing import Any

EIGHTHS = " ▏▎▍▌▋▊▉█"


def number(value: Any) -> str:
    """Four digits of a float; a shape as (4, 10); "-" where there is no value."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(str(item) for item in value) + ")"
    return printable(str(value))


def printable(text: str) -> str:
    """A text that somebody else's file may have written: no control character reaches a terminal."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def printable_lines(text: str) -> str:
    """As ``printable``, of a text whose lines stay lines and whose tabs stay tabs."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def times(count: int) -> str:
    """A number of uses in words."""
    return "once" if count == 1 else f"{count} times" if count else "nowhere"


def counted_words(count: int, one: str, many: str = "") -> str:
    """Such as "1 run" and "1,000 runs"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """A time as one says it: "40 ms", "3 s", "2 min", "5 h"."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def log_scale(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Where a log scale of these values begins and ends: a decade or more, or what hardly changes seems to vanish.

    Args:
        values: of them those count that are positive and finite.
    Returns:
        The smallest, or a tenth of the largest where that is less, and the largest; None where none counts.
    """
    positive = [v for v in values if v is not None and 0 < v < math.inf]
    if not positive:
        return None
    # A tenth of the smallest number that there is would be 0, of which there is no logarithm.
    return min(*positive, max(max(positive) / 10, math.ulp(0.0))), max(positive)


def log_bars(values: Sequence[float | None], width: int, *, ascii_only: bool) -> list[str]:
    """One bar a value on the logarithm of ``log_scale``, from one cell at its lower end to all of them."""
    ends = log_scale(values)
    if ends is None:
        return ["" for _ in values]
    low, high = map(math.log, ends)
    return [_bar(value, low, high, width, ascii_only) for value in values]


def _bar(value: float | None, low: float, high: float, width: int, ascii_only: bool) -> str:
    if value is None or not value > 0:
        return ""
    if value == math.inf:
        return ">" * width
    share = 1.0 if high == low else (math.log(value) - low) / (high - low)
    cells = 1 + share * (width - 1)
    if ascii_only:
        return "#" * round(cells)
    whole, eighths = divmod(round(cells * 8), 8)
    return EIGHTHS[8] * whole + EIGHTHS[eighths].strip()
