"""Lines with their bands over one axis of numbers, as characters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rnnctl.view.grid_axes import FAILED, UNDEFINED
from rnnctl.view.numbers import number
from rnnctl.view.scale import Scale
from rnnctl.view.terminal import Terminal

ROWS, WIDEST, NARROWEST = 17, 72, 10
SIGNS = {"band": "░", "line": "·", "critical": "─", "median": "●", "theory": "○", "several": "◉"}
ASCII_SIGNS = {"band": ":", "line": ".", "critical": "-", "median": "o", "theory": "x", "several": "@"}
# What is beyond every number.
ABOVE, BELOW = "^", "v"
# Where there are several lines: a letter each, and the capital for what theory says of it.
LETTERS = "abcdefgh"
COLORS = {"band": 60, "line": 67, "critical": 245, "median": 75, "theory": 214, "several": 255}


@dataclass(frozen=True)
class Point:
    """What stands over one place of the axis: numbers, or a sign in place of the median."""

    x: float
    median: float | str
    low: float | None = None
    high: float | None = None
    theory: float | None = None


@dataclass(frozen=True)
class Line:
    """Points in order, and what tells them from those of the other lines; "" where there are no others."""

    words: str
    points: Sequence[Point]


class _Canvas:
    """Rows of signs, from the top; below them one for the points without a number."""

    def __init__(self, width: int, x: Scale, y: Scale, signs: dict[str, str]) -> None:
        self.width, self.x, self.y, self.signs = width, x, y, signs
        self.kinds: list[list[str]] = [[""] * width for _ in range(ROWS + 1)]
        self.letters: dict[tuple[int, int], str] = {}

    def column(self, x: float) -> int:
        """Of a place on the axis."""
        return round(self.x.share(x) * (self.width - 1))

    def row(self, y: float) -> int:
        """Of a value; what lies beyond the ends is drawn at them."""
        return ROWS - 1 - round(self.y.share(y) * (ROWS - 1))

    def put(self, row: int, column: int, kind: str) -> None:
        """Cover what is there."""
        self.kinds[row][column] = kind

    def mark(self, row: int, column: int, kind: str, sign: str) -> None:
        """A mark of a point; different ones at one place have a sign of their own, but for a letter and its capital."""
        taken = self.letters.get((row, column))
        if taken is not None and taken == sign.lower():
            return
        several = taken is not None and taken != sign
        self.letters[row, column] = self.signs["several"] if several else sign
        self.put(row, column, "several" if several else kind)

    def lines(self, color: bool) -> list[str]:
        """What has been drawn."""
        rows = ROWS + any(self.kinds[ROWS])
        return ["".join(self._cell(row, column, color) for column in range(self.width)) for row in range(rows)]

    def _cell(self, row: int, column: int, color: bool) -> str:
        kind = self.kinds[row][column]
        sign = self.letters.get((row, column)) or self.signs.get(kind, " ")
        return f"\x1b[38;5;{COLORS[kind]}m{sign}\x1b[0m" if color and kind else sign


def line_chart(lines: Sequence[Line], x: Scale, y: Scale, along: tuple[str, str, str], terminal: Terminal) -> list[str]:
    """A line for each, with its band where there is but one, and what theory says.

    Args:
        lines: at most as many as LETTERS.
        x, y: the scales of the axes; the critical value of y is a line across.
        along: of the axis from left to right both ends, and its name.
    Returns:
        The chart, its axes, and a legend of the signs that it has.
    """
    signs = ASCII_SIGNS if terminal.ascii_only else SIGNS
    labels = _row_labels(y)
    margin = max(map(len, labels.values())) + 2
    width = max(NARROWEST, min(WIDEST, (terminal.width or WIDEST + margin) - margin - 1))
    canvas = _Canvas(width, x, y, signs)
    if len(lines) == 1:
        _draw_band(canvas, lines[0])
    if y.critical is not None:
        for column in range(width):
            canvas.put(canvas.row(y.critical), column, "critical")
    for i, line in enumerate(lines):
        _draw_line(canvas, line, LETTERS[i] if len(lines) > 1 else None)
    drawn = [
        f"{labels.get(row, ''):>{margin - 1}} {text}".rstrip() for row, text in enumerate(canvas.lines(terminal.color))
    ]
    return [*drawn, " " * margin + _axis(*along, width), *_legend(lines, canvas, y)]


def _row_labels(y: Scale) -> dict[int, str]:
    """Row -> the number there: both ends and the critical value, which goes before an end on the same row."""
    canvas = _Canvas(1, y, y, {})
    values = [y.low, y.high] if y.critical is None else [y.low, y.high, float(y.critical)]
    return {canvas.row(value): number(value) for value in values}


def _axis(left: str, right: str, name: str, width: int) -> str:
    """Both ends with the name between them, where there is room."""
    between = name.center(max(len(name) + 2, width - len(left) - len(right)))
    line = f"{left}{between}{right}"
    return line if len(line) <= width else f"{left} .. {right} {name}"


def _draw_band(canvas: _Canvas, line: Line) -> None:
    """From the low to the high end of every column, along straight lines between the points."""
    highs = _between(canvas, line, "high")
    for column, low in _between(canvas, line, "low").items():
        for row in range(highs.get(column, low), low + 1):
            canvas.put(row, column, "band")


def _draw_line(canvas: _Canvas, line: Line, letter: str | None) -> None:
    for column, row in _between(canvas, line, "median").items():
        canvas.put(row, column, "line")
    for point in line.points:
        column, sign = canvas.column(point.x), letter or canvas.signs["median"]
        if isinstance(point.median, str):
            canvas.mark(ROWS, column, "median", point.median)
        else:
            beyond = "" if math.isfinite(point.median) else ABOVE if point.median > 0 else BELOW
            canvas.mark(canvas.row(point.median), column, "median", beyond or sign)
        if point.theory is not None and math.isfinite(point.theory):
            theory = letter.upper() if letter else canvas.signs["theory"]
            canvas.mark(canvas.row(point.theory), column, "theory", theory)


def _between(canvas: _Canvas, line: Line, field: str) -> dict[int, int]:
    """Column -> row along straight lines between neighbours that both have a number."""
    found: dict[int, int] = {}
    for before, after in pairwise(line.points):
        one, other = (getattr(point, field) for point in (before, after))
        if _is_number(one) and _is_number(other):
            start, stop = canvas.column(before.x), canvas.column(after.x)
            low, high = canvas.y.share(one), canvas.y.share(other)
            for column in range(start, stop + 1):
                share = (column - start) / max(1, stop - start)
                found[column] = ROWS - 1 - round((low + (high - low) * share) * (ROWS - 1))
    return found


def _is_number(value: float | str | None) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _legend(lines: Sequence[Line], canvas: _Canvas, y: Scale) -> list[str]:
    """Of the signs that are drawn, in one line, and a line for each letter."""
    drawn, kinds = set(canvas.letters.values()), {kind for row in canvas.kinds for kind in row}
    several = len(lines) > 1
    said = [
        (f"{canvas.signs['median']} median", not several),
        (f"{canvas.signs['band']} 10 to 90 %", "band" in kinds),
        ("capitals: theory, where it differs" if several else f"{canvas.signs['theory']} theory", _has_theory(lines)),
        (f"{canvas.signs['several']} {'several' if several else 'both'}", "several" in kinds),
        (f"{canvas.signs['critical']} critical value {number(y.critical)}", y.critical is not None),
        (f"{FAILED} failed", FAILED in drawn),
        (f"{UNDEFINED} undefined", UNDEFINED in drawn),
        (f"{BELOW} -inf", BELOW in drawn),
        (f"{ABOVE} inf", ABOVE in drawn),
    ]
    legend = ", ".join(words for words, is_drawn in said if is_drawn)
    named = [f"{letter} {line.words}" for letter, line in zip(LETTERS, lines, strict=False)] if several else []
    return [*named, f"log scale; {legend}" if y.is_log else legend]


def _has_theory(lines: Sequence[Line]) -> bool:
    """Whether any point has what theory says; it may stand where a median does."""
    return any(_is_number(point.theory) for line in lines for point in line.points)
