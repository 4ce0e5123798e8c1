"""A matrix of norms as a picture of 8 bits a cell, on a log scale, that a page shows with and without a script."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnctl.results import Result
from rnnctl.view.heatmap import RANGE
from rnnctl.view.html.png import palette_png
from rnnctl.view.numbers import log_scale

# What a byte says: no cell, 0, not a number, infinite; between ZERO and NOT_A_NUMBER the levels of the scale.
NO_CELL, ZERO, FIRST, NOT_A_NUMBER, INFINITE = 0, 1, 2, 254, 255
# Those of a picture that compresses well enough, and of one that does not.
LEVELS = (NOT_A_NUMBER - FIRST, 64)
# Cells along either side: of more, each is the largest of a block.
MOST_CELLS = 2048
# Of the file, so that with its letters of base64 the page stays under 2 MB.
MOST_BYTES = 1_000_000
# Of the figures of matplotlib, too: "cividis", which the colour-blind can read.
CIVIDIS = ("00224e", "123570", "3b496c", "575d6d", "707173", "8a8678", "a59c74", "c3b369", "e1cc55", "fee838")
BAD = "cc79a7"


@dataclass(frozen=True)
class Matrix:
    """Norms by row and column.

    Attributes:
        title: above it.
        rows, columns: what the axes are, ("k", "loss step k").
        labels: the number of every row; of columns 0, 1, 2, ...
        values: shape (rows, columns), float64.
        there: which cells are there at all, shape (rows, columns).
        of: what a value is.
        beyond: what is said of a cell that is not there.
    """

    title: str
    rows: tuple[str, str]
    columns: tuple[str, str]
    labels: Sequence[int]
    values: NDArray[Any]
    there: NDArray[Any]
    of: str
    beyond: str


@dataclass(frozen=True)
class Picture:
    """A matrix as it is drawn.

    Attributes:
        png: the file.
        low, high: the ends of the scale.
        levels: of it.
        block: rows and columns of the matrix that a cell is the largest of.
        clipped: whether smaller values are drawn as the smallest.
        blank: whether there are cells of 0, and places without a cell, which have no colour.
        bad: whether there are cells that are not finite.
    """

    png: bytes
    low: float
    high: float
    levels: int
    block: int
    clipped: bool
    blank: tuple[bool, bool] = (False, False)
    bad: bool = False

    @property
    def precision(self) -> float:
        """By which share a value that is read off may be wrong: half a level, and the rounding to its digits."""
        return 1.025 * math.exp(math.log(self.high / self.low) / (self.levels - 1) / 2) - 1

    @property
    def address(self) -> str:
        """The picture as an address, for the page itself."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


def matrix(result: Result) -> Matrix | None:
    """That of a result; None of a kind that has none."""
    made = MATRICES.get(result.schema)
    return None if made is None else made(result)


def _flow(result: Any) -> Matrix:
    # By way of lists, as any tensor library has them.
    values = np.array(result.norms.tolist(), float)
    return Matrix(
        "Which loss step reaches which source step",
        ("k", "loss step k"),
        ("t", "source step t"),
        range(len(values)),
        values,
        np.tri(len(values), dtype=bool),
        "norm of step t's contribution to dL_k/dW_hh",
        "no loss reaches a later step",
    )


def _history(result: Any) -> Matrix:
    width = max(result.lengths)
    there = np.arange(width) < np.array(result.lengths)[:, None]
    return Matrix(
        f"The contributions in the course of training: {result.weight}",
        ("step", "training step"),
        ("t", "time step t"),
        result.steps,
        np.array(result.grad_norm_W_hh.tolist(), float),
        there,
        "norm of step t's contribution to dL/dW_hh",
        "beyond the end of the sequence",
    )


MATRICES: Mapping[str, Callable[[Any], Matrix]] = {"flow": _flow, "gradnorm-history": _history}


def picture(matrix: Matrix, most_cells: int = MOST_CELLS, most_bytes: int = MOST_BYTES) -> Picture:
    """The finest picture of a matrix that is not larger than so many bytes; the same bytes for the same matrix.

    Args:
        most_cells: along either side.
    """
    block = max(1, math.ceil(max(matrix.values.shape) / most_cells))
    while True:
        for levels in LEVELS:
            found = _drawn(matrix, block, levels)
            # One cell is as small as it gets.
            if len(found.png) <= most_bytes or block >= max(matrix.values.shape):
                return found
        block *= 2


def _drawn(matrix: Matrix, block: int, levels: int) -> Picture:
    values, there = _blocks(matrix, block)
    low, high = log_scale(values[there].tolist()) or (0.1, 1.0)
    least = max(low, high / RANGE)
    codes = _codes(values, there, least, high, levels)
    blank, bad = (bool((codes == ZERO).any()), bool((codes == NO_CELL).any())), bool((codes >= NOT_A_NUMBER).any())
    return Picture(palette_png(codes, palette(levels)), least, high, levels, block, low < least, blank, bad)


def _blocks(matrix: Matrix, block: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The largest of every block, NaN where one of them is; and where there is a cell at all."""
    values = np.where(matrix.there, matrix.values, -1.0)
    if block == 1:
        return values, matrix.there
    over = [(0, -size % block) for size in values.shape]
    shape = (-(-values.shape[0] // block), block, -(-values.shape[1] // block), block)
    # NaN is the largest of all to max.
    largest = np.pad(values, over, constant_values=-1.0).reshape(shape).max((1, 3))
    return largest, ~(largest == -1.0)


def _codes(values: NDArray[Any], there: NDArray[Any], low: float, high: float, levels: int) -> NDArray[np.uint8]:
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (np.log(values) - math.log(low)) / (math.log(high) - math.log(low))
    level = np.clip(np.rint(np.nan_to_num(share * (levels - 1), nan=0, posinf=0, neginf=0)), 0, levels - 1)
    codes: NDArray[np.uint8] = (FIRST + level).astype(np.uint8)
    codes[values == 0] = ZERO
    codes[np.isnan(values)] = NOT_A_NUMBER
    codes[np.isinf(values)] = INFINITE
    codes[~there] = NO_CELL
    return codes


def palette(levels: int) -> list[tuple[int, int, int, int]]:
    """Red, green, blue and opacity of every code: blank where nothing is and of 0, as on a terminal."""
    blank, bad = (0, 0, 0, 0), (*_rgb(BAD), 255)
    shown = [(*_between(i / (levels - 1)), 255) for i in range(levels)]
    unused = [blank] * (NOT_A_NUMBER - FIRST - levels)
    return [blank, blank, *shown, *unused, bad, bad]


def _between(share: float) -> tuple[int, int, int]:
    """The colour of the map at this share of its length."""
    place = share * (len(CIVIDIS) - 1)
    i = min(int(place), len(CIVIDIS) - 2)
    ends = zip(_rgb(CIVIDIS[i]), _rgb(CIVIDIS[i + 1]), strict=True)
    red, green, blue = (round(a + (b - a) * (place - i)) for a, b in ends)
    return red, green, blue


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color)
    return red, green, blue
