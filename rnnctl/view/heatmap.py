"""A matrix of norms as characters on a log scale, readable without colour."""

import math
from collections.abc import Sequence

from rnnctl.view.numbers import log_scale, number
from rnnctl.view.terminal import Terminal

RAMP = ".:-=+*#%@"
# The same ramp from dark violet to yellow, distinguishable to the colour-blind.
COLORS = (54, 60, 61, 67, 73, 72, 78, 149, 226)
# Smaller than the largest by more than this is drawn as the smallest.
RANGE = 1e12
TALLEST, WIDEST = 32, 96
MARGIN = 8


def heatmap(
    matrix: Sequence[Sequence[float]],
    rows: str,
    columns: str,
    terminal: Terminal,
    labels: Sequence[int] | None = None,
) -> str:
    """The matrix scaled down to the window by the largest value of every block.

    Args:
        matrix: values from 0 up; 0 is drawn as a blank, what is not finite as "!".
        rows, columns: what the axes are.
        labels: the number of every row; 0, 1, 2, ... if left out.
    Returns:
        Lines with both axes labelled, and the legend of the scale.
    """
    width = max(10, min(WIDEST, (terminal.width or WIDEST + MARGIN) - MARGIN))
    down, across = _blocks(len(matrix), TALLEST), _blocks(len(matrix[0]), width)
    cells = [[_largest(matrix, r, c) for c in across] for r in down]
    scale = log_scale([value for line in cells for value in line])
    low, high = scale or (1.0, 1.0)
    low = max(low, high / RANGE)
    lines = [f"{rows} down, {columns} across", *_scaling(len(matrix), len(matrix[0]), down, across)]
    lines.append(" " * MARGIN + _axis(across, width))
    for steps, line in zip(down, cells, strict=True):
        drawn = "".join(_cell(value, low, high, terminal.color) for value in line)
        label = steps.start if labels is None else labels[steps.start]
        lines.append(f"{label:>{MARGIN - 1}} {drawn}".rstrip())
    return "\n".join([*lines, _legend(low, high, terminal.color, scale is not None)])


def _blocks(length: int, most: int) -> list[range]:
    """At most ``most`` consecutive ranges of (nearly) the same size."""
    size = math.ceil(length / most)
    return [range(start, min(start + size, length)) for start in range(0, length, size)]


def _largest(matrix: Sequence[Sequence[float]], rows: range, columns: range) -> float:
    values = [value for r in rows for value in matrix[r][columns.start : columns.stop]]
    return math.nan if any(math.isnan(value) for value in values) else max(values)


def _level(value: float, low: float, high: float) -> int:
    if value <= low or low == high:
        return len(RAMP) - 1 if low == high else 0
    return min(len(RAMP) - 1, int(len(RAMP) * math.log(value / low) / math.log(high / low)))


def _cell(value: float, low: float, high: float, color: bool) -> str:
    if not math.isfinite(value):
        return "!"
    return " " if value == 0 else _painted(_level(value, low, high), color)


def _painted(level: int, color: bool) -> str:
    return f"\x1b[38;5;{COLORS[level]}m{RAMP[level]}\x1b[0m" if color else RAMP[level]


def _axis(blocks: Sequence[range], width: int) -> str:
    """Step numbers above every tenth column; none that the window would cut off."""
    labels = ""
    for i in range(0, len(blocks), 10):
        labelled = labels.ljust(i) + str(blocks[i].start)
        labels = labelled if len(labelled) <= width else labels
    return labels


def _scaling(height: int, width: int, down: Sequence[range], across: Sequence[range]) -> list[str]:
    sizes = len(down[0]), len(across[0])
    return [] if sizes == (1, 1) else [f"(the largest of every {sizes[0]} x {sizes[1]} steps of {height} x {width})"]


def _legend(low: float, high: float, color: bool, known: bool) -> str:
    if not known:
        return "nothing above 0 to draw"
    ramp = "".join(_painted(level, color) for level in range(len(RAMP)))
    factor = (high / low) ** (1 / len(RAMP))
    return f"scale: {ramp} log, from {number(low)} or less to {number(high)}, a factor of {number(factor)} each"
