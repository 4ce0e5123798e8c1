"""Matrices as characters, readable without colour: many norms in blocks, or the few numbers of a grid of settings."""

import math
from collections.abc import Sequence

from rnnctl.view.numbers import log_scale
from rnnctl.view.scale import RAMP, Scale
from rnnctl.view.terminal import Terminal

__all__ = ["RAMP", "grid_map", "heatmap"]

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
    known = log_scale([value for line in cells for value in line])
    low, high = known or (1.0, 1.0)
    scale = Scale(max(low, high / RANGE), high, is_log=True)
    lines = [f"{rows} down, {columns} across", *_scaling(len(matrix), len(matrix[0]), down, across)]
    lines.append(" " * MARGIN + _axis(across, width))
    for steps, line in zip(down, cells, strict=True):
        drawn = "".join(_cell(value, scale, terminal.color) for value in line)
        label = steps.start if labels is None else labels[steps.start]
        lines.append(f"{label:>{MARGIN - 1}} {drawn}".rstrip())
    return "\n".join([*lines, scale.legend(terminal.color) if known else "nothing above 0 to draw"])


def _blocks(length: int, most: int) -> list[range]:
    """At most ``most`` consecutive ranges of (nearly) the same size."""
    size = math.ceil(length / most)
    return [range(start, min(start + size, length)) for start in range(0, length, size)]


def _largest(matrix: Sequence[Sequence[float]], rows: range, columns: range) -> float:
    values = [value for r in rows for value in matrix[r][columns.start : columns.stop]]
    return math.nan if any(math.isnan(value) for value in values) else max(values)


def _cell(value: float, scale: Scale, color: bool) -> str:
    if not math.isfinite(value):
        return "!"
    return " " if value == 0 else scale.sign(value, color)


def _axis(blocks: Sequence[range], width: int) -> str:
    """Step numbers above every tenth column."""
    return _labels([(i, str(blocks[i].start)) for i in range(0, len(blocks), 10)], width)


def _labels(places: Sequence[tuple[int, str]], width: int) -> str:
    """Each at its column, but for those that the one before has no room for, or that the window would cut off."""
    line = ""
    for at, text in places:
        if at + len(text) <= width and (not line or len(line) < at):
            line = line.ljust(at) + text
    return line


def _scaling(height: int, width: int, down: Sequence[range], across: Sequence[range]) -> list[str]:
    sizes = len(down[0]), len(across[0])
    return [] if sizes == (1, 1) else [f"(the largest of every {sizes[0]} x {sizes[1]} steps of {height} x {width})"]


def grid_map(
    cells: Sequence[Sequence[float | str]],
    up: Sequence[str],
    across: Sequence[str],
    scale: Scale,
    terminal: Terminal,
) -> list[str]:
    """The numbers of a grid, each a block of its sign, as lines with the labels of both axes.

    Args:
        cells: from top to bottom; a text is a sign of its own, such as that of a point without a number.
        up, across: the labels of the rows, and those of the columns.
        scale: of all numbers.
    Returns:
        Of a grid that is larger than the window every second, third, ... row or column, and a line that says so.
    """
    margin = max(map(len, up)) + 2
    width = max(1, min(WIDEST, (terminal.width or WIDEST + margin) - margin))
    by_row, by_column = math.ceil(len(up) / TALLEST), math.ceil(len(across) / width)
    columns = across[::by_column]
    block = max(1, min(max(map(len, columns)) + 1, width // len(columns)))
    lines = [" " * margin + _labels([(i * block, label) for i, label in enumerate(columns)], width)]
    for label, row in list(zip(up, cells, strict=True))[::by_row]:
        signs = (cell if isinstance(cell, str) else scale.sign(cell, terminal.color) for cell in row[::by_column])
        lines.append(f" {label:>{margin - 2}} {''.join(sign * block for sign in signs)}".rstrip())
    if max(by_row, by_column) > 1:
        lines.append(f"(of {len(up)} x {len(across)} points every {by_row} x {by_column})")
    return lines
