"""What a picture of curves and points has to say, before it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

Values = Sequence[float | None]


@dataclass(frozen=True)
class Curve:
    """Values over x, with what the legend says of them.

    Attributes:
        words: for the legend.
        x, y: as many of each; what is None or not finite leaves a gap.
        look: which of the looks (colour, dashes, mark) it has.
        joined: whether a line joins the points; if not, each of them has a mark.
        error: half the length of a bar through each point.
        low: of a band from here up to y, which has no line.
        span: from where to where a bar goes along x through each point.
    """

    words: str
    x: Sequence[float]
    y: Values
    look: int = 0
    joined: bool = True
    error: Values | None = None
    low: Values | None = None
    span: Sequence[tuple[float, float] | None] | None = None


@dataclass(frozen=True)
class Chart:
    """Curves in one frame.

    Attributes:
        title: above it, and what a screen reader says of it.
        x_label, y_label: the names of the axes.
        curves: in the order of the legend.
        x_base, y_base: of a logarithmic axis 10 or 2; 0 of a plain one.
        whole: whether x counts something.
        level: a dashed line across at this value, and its words; of a chart with names one that goes down.
        names: of rows, from top to bottom: y is the number of one of them.
        circle: whether it is the complex plane, with the unit circle.
        nothing: what is said where there is nothing to draw.
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    x_base: int = 0
    y_base: int = 0
    whole: bool = True
    level: tuple[float, str] | None = None
    names: tuple[str, ...] = ()
    circle: bool = False
    nothing: str = "nothing here is a number above 0"
