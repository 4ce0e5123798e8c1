"""The complex plane as characters: eigenvalues and the unit circle."""

import math
from collections.abc import Sequence

from rnnctl.view.numbers import number
from rnnctl.view.terminal import Terminal

# A character is twice as high as wide: the circle looks round at this ratio.
COLUMNS, ROWS = 47, 23
MARGIN = 1.05
SIGNS = {"circle": "·", "horizontal": "─", "vertical": "│", "one": "●", "several": "◉"}
ASCII_SIGNS = {"circle": ".", "horizontal": "-", "vertical": "|", "one": "*", "several": "@"}


def eigenvalue_plane(eigenvalues: Sequence[complex], terminal: Terminal) -> str:
    """Eigenvalues in the complex plane with both axes and the unit circle.

    Args:
        eigenvalues: any order.
        terminal: its width bounds the picture; ASCII alone where it knows no more.
    Returns:
        Lines of text, the last of which is the legend.
    """
    signs = ASCII_SIGNS if terminal.ascii_only else SIGNS
    columns = max(11, min(COLUMNS, (terminal.width or COLUMNS) - 1)) // 2 * 2 - 1
    rows = columns // 4 * 2 + 1
    reach = MARGIN * max(1.0, *(abs(value) for value in eigenvalues))
    grid = [[" "] * columns for _ in range(rows)]
    for column in range(columns):
        grid[rows // 2][column] = signs["horizontal"]
    for row in range(rows):
        grid[row][columns // 2] = signs["vertical"]
    for place in _places(_circle(4 * columns), reach, columns, rows):
        grid[place[0]][place[1]] = signs["circle"]
    taken: set[tuple[int, int]] = set()
    for row, column in _places(eigenvalues, reach, columns, rows):
        grid[row][column] = signs["several" if (row, column) in taken else "one"]
        taken.add((row, column))
    lines = ["".join(line).rstrip() for line in grid]
    one, several = signs["one"], signs["several"]
    legend = f"{one} eigenvalue of W_hh, {several} several, {signs['circle']} unit circle; both axes to {number(reach)}"
    return "\n".join([*lines, legend])


def _circle(points: int) -> list[complex]:
    angles = (2 * math.pi * i / points for i in range(points))
    return [complex(math.cos(angle), math.sin(angle)) for angle in angles]


def _places(values: Sequence[complex], reach: float, columns: int, rows: int) -> list[tuple[int, int]]:
    """(row, column) of every value; upwards is positive imaginary."""
    return [
        (
            rows // 2 - round(value.imag / reach * (rows // 2)),
            columns // 2 + round(value.real / reach * (columns // 2)),
        )
        for value in values
    ]
