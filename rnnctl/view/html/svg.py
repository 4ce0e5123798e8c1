"""A chart as SVG, without any script: lines, points, bars and bands, by the colours of Okabe & Ito."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from rnnctl.view.curves import LEAST_DRAWN, MOST_DRAWN
from rnnctl.view.html.chart import Chart, Curve, Values
from rnnctl.view.html.markup import Markup, joined, tag
from rnnctl.view.html.scale import Scale, linear, logarithmic
from rnnctl.view.numbers import number

WIDTH, HEIGHT = 560, 330
# What axes and their numbers take.
LEFT, RIGHT, TOP, BOTTOM = 72, 14, 14, 50
FONT = 13
# More points than these are a line without marks.
MOST_MARKS = 60
# Of a longer line the highest and lowest point of each so many: no screen shows more.
MOST_POINTS = 900
TICKS_ACROSS, TICKS_DOWN = 8, 7


class Look(NamedTuple):
    """Colour as a page may set it, with that of Okabe & Ito for where none does; dashes; mark."""

    color: str
    dashes: str
    mark: str


LOOKS = (
    Look("var(--c0,#0072B2)", "", "disc"),
    Look("var(--c1,#D55E00)", "7 4", "square"),
    Look("var(--c2,#009E73)", "2 3", "ring"),
    Look("var(--c3,#CC79A7)", "9 3 2 3", "diamond"),
    Look("var(--c4,#56B4E9)", "4 2", "disc"),
    Look("var(--c5,#E69F00)", "12 4", "square"),
)


class Frame(NamedTuple):
    """Both axes of a chart."""

    x: Scale
    y: Scale

    def at(self, x: float, y: float | None) -> tuple[float, float] | None:
        """Where a point stands in the picture; None of what has no place."""
        across, up = self.x.share(x), self.y.share(y)
        if across is None or up is None:
            return None
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def chart_svg(chart: Chart) -> Markup:
    """The picture alone; ``legend`` says what its lines are."""
    frame = _frame(chart)
    if frame is None:
        return _svg(chart.title, _words(WIDTH / 2, HEIGHT / 2, chart.nothing, "middle"))
    parts = [*_axes(chart, frame), *_level(chart, frame)]
    parts += [_circle(frame)] if chart.circle else []
    for curve in chart.curves:
        parts += _drawn(curve, frame)
    return _svg(chart.title, *parts)


def legend(chart: Chart) -> Markup:
    """What each line is, with a piece of it."""
    drawn = [(_told(each, chart), _sample(LOOKS[each.look % len(LOOKS)], each)) for each in chart.curves]
    if chart.circle:
        drawn.append(("unit circle", _sample_line("currentColor", "5 4", 0.6)))
    if chart.level is not None:
        drawn.append((chart.level[1], _sample_line("currentColor", "5 4", 0.6)))
    return tag(
        "ul",
        *(tag("li", sample, " ", words) for words, sample in drawn),
        class_="legend",
        style="list-style:none;padding:0",
    )


def _told(curve: Curve, chart: Chart) -> str:
    """The words of a curve, with what of it a logarithmic axis has no place for."""
    if not (chart.x_base if chart.names else chart.y_base):
        return curve.words
    # Of a band that ends the lower edge tells why.
    values = [value for value in (curve.x if chart.names else curve.low or curve.y) if value is not None]
    counts = {
        "0": values.count(0.0),
        f"below {LEAST_DRAWN:g}": sum(0 < value < LEAST_DRAWN for value in values),
        f"above {MOST_DRAWN:g}": sum(MOST_DRAWN < value < math.inf for value in values),
        "not finite": sum(not math.isfinite(value) for value in values),
    }
    said = ", ".join(f"{what} at {count:,}" for what, count in counts.items() if count)
    return f"{curve.words} (not drawn: {said} of {len(curve.y):,})" if said else curve.words


def _svg(alt: str, *parts: str) -> Markup:
    return tag(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=alt,
        font_size=FONT,
        style="width:100%;height:auto;max-width:640px",
    )


def _frame(chart: Chart) -> Frame | None:
    xs, ys = [x for each in chart.curves for x in each.x], list(_all_y(chart))
    if chart.circle:
        return _plane(xs, ys)
    if chart.names:
        return _rows_frame(chart, xs)
    level = () if chart.level is None else (chart.level[0],)
    x = logarithmic(xs, chart.x_base) if chart.x_base else linear(xs, whole=chart.whole)
    if chart.y_base:
        # A level alone is nothing to draw.
        y = None if logarithmic(ys) is None else logarithmic([*ys, *level], chart.y_base)
    else:
        y = linear(ys, *level) if any(value is not None and math.isfinite(value) for value in ys) else None
    return None if x is None or y is None else Frame(x, y)


def _rows_frame(chart: Chart, xs: Sequence[float]) -> Frame | None:
    """Rows from top to bottom, with room above each of them for its name."""
    ends = [end for each in chart.curves for span in each.span or () if span is not None for end in span]
    level = () if chart.level is None else (chart.level[0],)
    x = logarithmic([*xs, *ends, *level], chart.x_base) if chart.x_base else linear([*xs, *ends], *level)
    # A level alone is nothing to draw.
    return (
        None
        if x is None or not any(x.share(each) is not None for each in xs)
        else Frame(x, Scale(len(chart.names) - 0.6, -0.8))
    )


def _all_y(chart: Chart) -> Iterator[float | None]:
    for curve in chart.curves:
        yield from curve.y
        yield from curve.low or ()
        for value, error in zip(curve.y, curve.error or (), strict=False):
            if value is not None and error is not None:
                yield from (value - error, value + error)


def _plane(xs: Sequence[float], ys: Values) -> Frame:
    """Both axes of one length an inch, around 0."""
    known = (abs(value) for value in (*xs, *ys) if value is not None and math.isfinite(value))
    reach = 1.08 * max(1.0, *known, 0.0)
    across = reach * (WIDTH - LEFT - RIGHT) / (HEIGHT - TOP - BOTTOM)
    return Frame(Scale(-across, across), Scale(-reach, reach))


def _axes(chart: Chart, frame: Frame) -> Iterator[Markup]:
    right, foot = WIDTH - RIGHT, HEIGHT - BOTTOM
    yield from _names(chart, frame)
    for value, text in () if chart.names else frame.y.ticks(TICKS_DOWN):
        share = frame.y.share(value)
        if share is not None and share <= 1:
            y = foot - share * (foot - TOP)
            yield tag("path", d=f"M{LEFT} {y:.1f}H{right}", class_="grid", style=_stroke("currentColor", "", 1, 0.15))
            yield _words(LEFT - 7, y + 4, text, "end")
    for value, text in frame.x.ticks(TICKS_ACROSS):
        share = frame.x.share(value)
        # Between two steps there is none.
        if share is not None and share <= 1 and not (chart.whole and not chart.circle and value != int(value)):
            x = LEFT + share * (right - LEFT)
            yield tag("path", d=f"M{x:.1f} {TOP}V{foot}", class_="grid", style=_stroke("currentColor", "", 1, 0.15))
            yield _words(x, foot + 18, text, "middle")
    yield tag("path", d=f"M{LEFT} {TOP}V{foot}H{right}", style=_stroke("currentColor", "", 1, 0.6))
    yield _words((LEFT + right) / 2, HEIGHT - 6, chart.x_label, "middle")
    middle = (TOP + foot) / 2
    yield _words(15, middle, chart.y_label, "middle", transform=f"rotate(-90 15 {middle:.0f})")


def _names(chart: Chart, frame: Frame) -> Iterator[Markup]:
    """Above the row of each, within the picture: beside it long ones would have no room."""
    for row, name in enumerate(chart.names):
        y = HEIGHT - BOTTOM - (frame.y.share(row) or 0.0) * (HEIGHT - TOP - BOTTOM)
        yield tag(
            "path", d=f"M{LEFT} {y:.1f}H{WIDTH - RIGHT}", class_="grid", style=_stroke("currentColor", "", 1, 0.15)
        )
        yield _words(LEFT + 6, y - 9, name, "start")


def _words(x: float, y: float, text: str, anchor: str, **more: str) -> Markup:
    return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, fill="currentColor", **more)


def _stroke(color: str, dashes: str, width: float, opacity: float = 1.0) -> str:
    """As a style, which can have a colour that the page sets."""
    dashed = f";stroke-dasharray:{dashes}" if dashes else ""
    faint = f";stroke-opacity:{opacity:g}" if opacity != 1 else ""
    return f"fill:none;stroke:{color};stroke-width:{width:g}{dashed}{faint}"


def _level(chart: Chart, frame: Frame) -> Iterator[Markup]:
    axis = frame.x if chart.names else frame.y
    share = None if chart.level is None else axis.share(chart.level[0])
    if share is not None and chart.names:
        x = LEFT + share * (WIDTH - LEFT - RIGHT)
        yield tag("path", d=f"M{x:.1f} {TOP}V{HEIGHT - BOTTOM}", style=_stroke("currentColor", "5 4", 1.2, 0.6))
    elif share is not None:
        y = HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
        yield tag("path", d=f"M{LEFT} {y:.1f}H{WIDTH - RIGHT}", style=_stroke("currentColor", "5 4", 1.2, 0.6))


def _circle(frame: Frame) -> Markup:
    (x, y), (edge, _) = frame.at(0, 0) or (0.0, 0.0), frame.at(1, 0) or (0.0, 0.0)
    style = _stroke("currentColor", "5 4", 1.2, 0.6)
    return tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{edge - x:.1f}", style=style)


def _drawn(curve: Curve, frame: Frame) -> Iterator[Markup]:
    look = LOOKS[curve.look % len(LOOKS)]
    if curve.low is not None:
        yield _band(curve, frame, look)
        return
    points = [frame.at(x, y) for x, y in zip(curve.x, curve.y, strict=True)]
    if curve.joined and (path := _path(points)):
        yield tag("path", d=path, style=_stroke(look.color, look.dashes, 2))
    if curve.error is not None:
        yield from _errors(curve, frame, look)
    if curve.span is not None:
        yield from _spans(curve, frame, look)
    yield from _marks(curve, points, look)


def _runs(points: Sequence[tuple[float, float] | None]) -> Iterator[list[tuple[float, float]]]:
    """Points that stand beside one another without a gap."""
    for known, run in groupby(points, key=lambda point: point is not None):
        if known:
            yield [point for point in run if point is not None]


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    long = len(points) > 2 * MOST_POINTS
    return "".join(_line(_thinned(run) if long else run) for run in _runs(points) if len(run) > 1)


def _line(run: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in run)


def _thinned(run: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = max(1, math.ceil(2 * len(run) / MOST_POINTS))
    kept = list[tuple[float, float]]()
    for start in range(0, len(run), size):
        part = run[start : start + size]
        kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return kept


def _band(curve: Curve, frame: Frame, look: Look) -> Markup:
    pairs = [
        (frame.at(x, high), frame.at(x, low)) for x, high, low in zip(curve.x, curve.y, curve.low or (), strict=True)
    ]
    size = max(1, math.ceil(len(pairs) / MOST_POINTS))
    known = [(high, low) for high, low in pairs[::size] if high is not None and low is not None]
    edge = [high for high, _ in known] + [low for _, low in reversed(known)]
    return tag("path", d=f"{_line(edge)}Z" if edge else "", style=f"fill:{look.color};fill-opacity:.22;stroke:none")


def _errors(curve: Curve, frame: Frame, look: Look) -> Iterator[Markup]:
    for x, y, error in zip(curve.x, curve.y, curve.error or (), strict=True):
        if y is not None and error is not None:
            low, high = frame.at(x, y - error), frame.at(x, y + error)
            if low is not None and high is not None:
                d = f"M{low[0]:.1f} {low[1]:.1f}V{high[1]:.1f}"
                yield tag("path", d=d, style=_stroke(look.color, "", 1.5))


def _spans(curve: Curve, frame: Frame, look: Look) -> Iterator[Markup]:
    for y, span in zip(curve.y, curve.span or (), strict=True):
        if span is not None:
            low, high = frame.at(span[0], y), frame.at(span[1], y)
            if low is not None and high is not None:
                yield tag("path", d=f"M{low[0]:.1f} {low[1]:.1f}H{high[0]:.1f}", style=_stroke(look.color, "", 3, 0.5))


def _marks(curve: Curve, points: Sequence[tuple[float, float] | None], look: Look) -> Iterator[Markup]:
    """A mark for each point where they are few, else for those that no line shows."""
    few = not curve.joined or sum(point is not None for point in points) <= MOST_MARKS
    for i, point in enumerate(points):
        alone = points[max(0, i - 1) : i + 2].count(None) + (i in (0, len(points) - 1)) == 2
        if point is not None and (few or alone):
            yield _mark(look, *point, f"{curve.words}: {number(curve.x[i])}, {number(curve.y[i])}")


def _mark(look: Look, x: float, y: float, told: str = "") -> Markup:
    style = f"fill:none;stroke:{look.color};stroke-width:1.6" if look.mark == "ring" else f"fill:{look.color}"
    said = (tag("title", told),) if told else ()
    if look.mark in ("disc", "ring"):
        return tag("circle", *said, cx=f"{x:.1f}", cy=f"{y:.1f}", r=5 if look.mark == "ring" else 3.2, style=style)
    turned = f"rotate(45 {x:.1f} {y:.1f})" if look.mark == "diamond" else None
    return tag("rect", *said, x=f"{x - 3:.1f}", y=f"{y - 3:.1f}", width=6, height=6, transform=turned, style=style)


def _sample(look: Look, curve: Curve) -> Markup:
    if curve.low is not None:
        band = tag("rect", width=30, height=12, style=f"fill:{look.color};fill-opacity:.3")
        return _small(band)
    line = (tag("path", d="M0 6H30", style=_stroke(look.color, look.dashes, 2)),) if curve.joined else ()
    return _small(joined((*line, _mark(look, 15, 6))))


def _sample_line(color: str, dashes: str, opacity: float) -> Markup:
    return _small(tag("path", d="M0 6H30", style=_stroke(color, dashes, 1.2, opacity)))


def _small(inside: str) -> Markup:
    return tag("svg", inside, width=30, height=12, viewBox="0 0 30 12", aria_hidden="true")
