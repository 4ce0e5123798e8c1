"""What all pictures share: colours, sizes, ticks, curves with their words, and what is said of an empty panel."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from rnnctl.view.curves import LEAST_DRAWN, MOST_DRAWN

# Okabe & Ito's.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, GREY = "#56B4E9", "#E69F00", "0.35"
# Inches: legible at 600 pixels.
SIZE, WIDE = (6.4, 4.6), (8.6, 4.4)
SMALL, SMALLER = 9, 8
# Inches of a line of either.
LINE = 0.16
# Letters of a line within a panel.
LETTERS = 46
# Of a heat map, beside its largest.
SMALLEST_SHOWN = 1e-12
# Rows or columns of a heat map: of more, some would fall between the pixels.
MOST_CELLS = 200
# More points than these are a line without marks.
MOST_MARKS = 60
# Lines that are nowhere further apart, as a share of the panel's height, cannot be told apart by eye.
ALIKE = 0.012
# Of an axis, as a share of its values or of 1: rounding is not to fill a panel.
LEAST_SPAN = 1e-3
# Inches from the panel to its legend: down past ticks and the name of the axis, left to the middle of what it takes.
BELOW, LEFT = 0.47, 0.3


def single() -> tuple[Figure, Axes]:
    """A figure of one panel."""
    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.subplots()


def pair() -> tuple[Figure, Axes, Axes]:
    """A figure of two panels beside one another, far enough apart for what stands between them."""
    figure = Figure(figsize=WIDE, layout=ConstrainedLayoutEngine(wspace=0.06))
    left, right = figure.subplots(1, 2)
    return figure, left, right


def finite(value: float | None) -> float:
    """The value, or nan."""
    return value if value is not None and math.isfinite(value) else math.nan


def positive(values: Sequence[float | None]) -> list[float]:
    """The values that a log scale can show; the others leave a gap."""
    return [math.nan if v is None or not LEAST_DRAWN <= v <= MOST_DRAWN else v for v in values]


def whole_ticks(axis: Axis, most: int = 10) -> None:
    """Ticks at whole numbers alone, even where there is but one."""
    axis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def counted(axes: Axes, count: int, label: str) -> None:
    """An x axis of the numbers 0 to ``count`` - 1, none of which sits on the frame."""
    whole_ticks(axes.xaxis)
    edge = max(0.5, 0.02 * count)
    axes.set_xlim(-edge, count - 1 + edge)
    axes.set_xlabel(label)


@dataclass(frozen=True)
class Curve:
    """A line or band of a picture and what the legend says of it."""

    line: Artist
    words: str


def curve(
    axes: Axes, values: Sequence[float | None], words: str, look: Mapping[str, Any], x: Sequence[float] | None = None
) -> Curve:
    """Values over their numbers (or ``x``) for a log scale, with a mark for every point that no line would show.

    Args:
        words: for the legend; what is nowhere above 0 is said there.
        look: colour, style, mark and the label, the name of the values, of the line.
    """
    shown = positive(values)
    marks = _marks(shown)
    more = {"ms": 4, **look} if marks is None or marks else {**look, "marker": ""}
    (line,) = axes.plot(range(len(shown)) if x is None else x, shown, markevery=marks or None, **more)
    return Curve(line, words if np.isfinite(shown).any() else f"{words} ({nothing_of(values)})")


def _marks(values: Sequence[float]) -> list[int] | None:
    """The points that have a mark: None for all where they are few, else those that stand alone."""
    known = np.isfinite(values)
    if known.sum() <= MOST_MARKS:
        return None
    beside = np.pad(known, 1)
    return np.flatnonzero(known & ~beside[:-2] & ~beside[2:]).tolist()


def nothing_of(values: Sequence[float | None]) -> str:
    """Why a log scale shows none of these values."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return "unknown"
    if any(map(math.isinf, known)):
        return "not finite"
    return "too small or too large to draw" if any(known) else "all 0"


def say(axes: Axes, text: str) -> None:
    """Words in the middle of a panel that has nothing else."""
    said = fill(text, LETTERS)
    axes.text(0.5, 0.5, said, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=SMALL)


def logarithmic(axes: Axes, otherwise: str = "nothing that can be drawn") -> None:
    """A log scale over a decade or more, where there is anything to show on one; ``otherwise`` is said elsewhere."""
    axes.grid(alpha=0.3)
    if not any(np.isfinite(np.asarray(line.get_ydata(), float)).any() for line in axes.lines):
        axes.set_yticks([])
        return say(axes, otherwise)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 20 * low:
        # Within less than a decade there are no powers of ten to go by, and rounding would fill the panel.
        middle = math.sqrt(low) * math.sqrt(high)
        axes.set_ylim(middle / 10, middle * 10)


def linear(axes: Axes) -> None:
    """Limits that do not magnify rounding."""
    axes.grid(alpha=0.3)
    low, high = axes.get_ylim()
    least = LEAST_SPAN * max(1.0, abs(low), abs(high))
    if high - low < least:
        axes.set_ylim((low + high - least) / 2, (low + high + least) / 2)
    # Numbers as they are, not as differences from one that stands in a corner.
    axes.ticklabel_format(axis="y", useOffset=False, scilimits=(-4, 5))


def legend_below(axes: Axes, curves: Sequence[Curve], columns: int) -> None:
    """Under the panel, where it hides no point; a line that another covers is named beside it."""
    if not curves:
        return
    words = [each.words + _covered(axes, each, curves[:i]) for i, each in enumerate(curves)]
    down = ScaledTranslation(-LEFT, -BELOW, axes.figure.dpi_scale_trans)
    axes.legend(
        [each.line for each in curves],
        words,
        fontsize=SMALLER,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=axes.transAxes + down,
        borderaxespad=0,
        ncols=columns,
        columnspacing=1.2,
        handlelength=1.8,
        frameon=False,
    )


def _covered(axes: Axes, one: Curve, before: Sequence[Curve]) -> str:
    """With which of the lines before it one coincides to the eye, if any."""
    same = (f" ≈ {other.words.partition(',')[0]}" for other in before if _coincide(axes, one.line, other.line))
    return next(same, "")


def _coincide(axes: Axes, one: Artist, other: Artist) -> bool:
    if not isinstance(one, Line2D) or not isinstance(other, Line2D):
        return False
    # As shares of the panel's width and height, on whatever scale.
    in_panel = axes.transScale + axes.transLimits
    mine, theirs = (in_panel.transform(np.asarray(line.get_xydata(), float)) for line in (one, other))
    if mine.shape != theirs.shape or not np.isfinite(mine).all(1).any():
        return False
    return np.allclose(mine, theirs, rtol=0, atol=ALIKE, equal_nan=True)


def heat(
    figure: Figure | SubFigure, axes: Axes, norms: NDArray[Any], label: str, *, aspect: Literal["auto", "equal"]
) -> None:
    """A matrix of norms on a log scale, with its colour bar; what is 0 or not finite is left blank.

    Of a large one every cell shows the largest of a block, and the colour bar says so.
    """
    shown = np.where((norms >= LEAST_DRAWN) & (norms <= MOST_DRAWN), norms, np.nan)
    known = np.isfinite(shown).any()
    high = np.nanmax(shown) if known else 1.0
    low = np.nanmin(shown) if known else 0.1
    least = high * SMALLEST_SHOWN
    scale = LogNorm(min(max(low, least), high / 10), high)
    down, across = (math.ceil(size / MOST_CELLS) for size in shown.shape)
    cells = _largest_of_blocks(shown, down, across)
    edges = (-0.5, across * cells.shape[1] - 0.5, down * cells.shape[0] - 0.5, -0.5)
    image = axes.imshow(cells, norm=scale, cmap="cividis", interpolation="nearest", aspect=aspect, extent=edges)
    axes.set(xlim=(-0.5, shown.shape[1] - 0.5), ylim=(shown.shape[0] - 0.5, -0.5))
    words = fill(label, LETTERS) + (f"\n(largest of {down} x {across})" if max(down, across) > 1 else "")
    if not known:
        return say(axes, nothing_of(norms.flatten().tolist()))
    # A pointed end where smaller ones are drawn as the smallest.
    figure.colorbar(image, ax=axes, label=words, extend="min" if low < least else "neither")


def _largest_of_blocks(values: NDArray[Any], down: int, across: int) -> NDArray[Any]:
    """The largest of every block of so many rows and columns; nan where it has none."""
    over = [(0, -size % step) for size, step in zip(values.shape, (down, across), strict=True)]
    filled = np.pad(np.nan_to_num(values, nan=0.0), over)
    blocks = filled.reshape(filled.shape[0] // down, down, -1, across).max((1, 3))
    return np.where(blocks > 0, blocks, np.nan)
