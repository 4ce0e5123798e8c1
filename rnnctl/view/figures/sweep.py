"""A scalar over a grid of settings: lines with their bands over one of them, or a map over two."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import QuadMesh
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import CARETDOWNBASE, CARETUPBASE
from matplotlib.patches import Patch
from numpy.typing import NDArray

from rnnctl.view.curves import LEAST_DRAWN, MOST_DRAWN
from rnnctl.view.figures.drawing import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    LEAST_SPAN,
    LETTERS,
    MOST_MARKS,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    SMALLER,
    WIDE,
    Curve,
    finite,
    legend_below,
    linear,
    nothing_of,
    positive,
    say,
    single,
)
from rnnctl.view.grid_axes import (
    FAILED,
    UNDEFINED,
    Gridded,
    Record,
    axes_of,
    gridded,
    is_even,
    is_logarithmic,
    labels_of,
    median_or_sign,
    require_drawable,
    words_of,
)
from rnnctl.view.numbers import number
from rnnctl.view.scale import DECADE, Scale, asks_for_log, scale_of

LOOKS: Sequence[Mapping[str, Any]] = (
    {"color": BLUE, "marker": "o"},
    {"color": ORANGE, "marker": "s"},
    {"color": GREEN, "marker": "^"},
    {"color": PURPLE, "marker": "D"},
    {"color": SKY, "marker": "v"},
    {"color": AMBER, "marker": "P"},
    {"color": GREY, "marker": "x"},
    {"color": "black", "marker": "*"},
)
UNITS = {"largest": "largest Lyapunov exponent (nats per step)"}
# Points without a number: what the legend says, and how they are drawn in lines and in maps.
WITHOUT: Mapping[str, tuple[str, str, str]] = {FAILED: ("failed", "X", "xxxx"), UNDEFINED: ("undefined", "d", "....")}
EMPTY = "0.85"
OF_THEORY: Mapping[str, Any] = {"ls": (0, (4, 2)), "lw": 1.2}
TITLES = {"median": "measured", "theory": "mean-field theory"}
# Of a colour bar that has an end for -inf and for inf.
EXTENDED = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
Places = Mapping[tuple[int, int], Record]
# Violet below the critical value, white at it, orange above it: told apart by the colour-blind, too.
BESIDE_CRITICAL, PLAIN = "PuOr_r", "cividis"
MOST_TICKS = 8
SQUARE = (WIDE[0], 7.4)


def sweep(result: Any) -> Figure:
    """Lines over one axis of numbers, or maps over two.

    Raises:
        InputError: no figure shows such a grid.
    """
    grid = _grid(result)
    if grid.plan.up is not None:
        return _maps(result, grid)
    figure, panel = single()
    _lines(panel, result, grid)
    return figure


def sweep_panel(axes: Axes, result: Any) -> None:
    """The lines, or the first of the maps, into axes that are there."""
    grid = _grid(result)
    if grid.plan.up is None:
        return _lines(axes, result, grid)
    said: dict[str, Artist] = {}
    mesh = _named_map(axes, grid, _colors(result), (next(iter(grid.cells)), "median"), said)
    _colour_bar(axes.figure, mesh, [axes], result)


def _grid(result: Any) -> Gridded:
    axes = axes_of(result.rows)
    return gridded(result.rows, require_drawable(axes), axes)


def _value_words(result: Any) -> str:
    return UNITS.get(result.value, words_of(result.value))


# ---- lines --------------------------------------------------------------------------------------


def _lines(panel: Axes, result: Any, grid: Gridded) -> None:
    across = grid.plan.across
    drawn = [row[field] for row in result.rows for field in ("median", "p10", "p90", "theory")]
    is_log = asks_for_log([value for value in (*drawn, result.critical) if value is not None])
    shown = positive if is_log else _finite
    curves: list[Curve] = []
    for (words, rows), look in zip(grid.cells.items(), LOOKS, strict=False):
        ordered = sorted(rows, key=lambda row: row[across])
        values = {field: shown([row[field] for row in ordered]) for field in ("median", "p10", "p90", "theory")}
        curves += _line(panel, [row[across] for row in ordered], values, words, look)
    curves += _theory_of_several(grid.cells)
    if not curves:
        panel.set_yticks([])
        say(panel, nothing_of([row["median"] for row in result.rows]))
    elif result.critical is not None:
        line = panel.axhline(result.critical, color="0.5", ls="--", lw=1)
        curves.append(Curve(line, f"critical value {number(float(result.critical))}"))
    panel.set(xlabel=words_of(across), ylabel=_value_words(result))
    panel.grid(alpha=0.3)
    if curves and is_log:
        panel.set_yscale("log")
    elif curves:
        linear(panel)
    _ticks(panel, "x", grid.across)
    legend_below(panel, [*curves, *_beyond(panel, result.rows, across, is_log)], 2)
    _without_mathematics(panel)


def _finite(values: Sequence[float | None]) -> list[float]:
    return [finite(value) for value in values]


def _has_numbers(rows: Sequence[Record]) -> bool:
    return any(isinstance(median_or_sign(row), float) for row in rows)


def _line(
    panel: Axes, x: Sequence[float], values: Mapping[str, Sequence[float]], words: str, look: Mapping[str, Any]
) -> list[Curve]:
    """Median, band and theory of one line: where there are several all in one colour, and one name for all."""
    median, low, high, theory = values.values()
    marks = {**look, "marker": ""} if len(x) > MOST_MARKS else look
    curves = []
    if any(map(math.isfinite, median)):
        (line,) = panel.plot(x, median, ms=4, label=words or "median", **marks)
        curves.append(Curve(line, words or "median"))
    if any(a < b for a, b in zip(low, high, strict=True)):
        band = panel.fill_between(x, low, high, color=look["color"], alpha=0.2, lw=0)
        curves += [] if words else [Curve(band, "10 to 90 % over the seeds")]
    if any(map(math.isfinite, theory)):
        (dashes,) = panel.plot(x, theory, color=look["color"] if words else ORANGE, label="theory", **OF_THEORY)
        curves += [] if words else [Curve(dashes, "mean-field theory")]
    return curves


def _theory_of_several(cells: Mapping[str, Sequence[Record]]) -> list[Curve]:
    """What dashes are, where each line has its own."""
    known = any(math.isfinite(finite(row["theory"])) for rows in cells.values() for row in rows)
    dashes = Line2D([], [], color=GREY, **OF_THEORY)
    return [Curve(dashes, "dashed: mean-field theory")] if known and "" not in cells else []


def _beyond(panel: Axes, rows: Sequence[Record], across: str, is_log: bool) -> list[Curve]:
    """Marks at the lower or upper edge, for points that no scale shows."""
    down, up, found = (CARETDOWNBASE, 0.0), (CARETUPBASE, 1.0), []
    marks: dict[float | str, tuple[str, tuple[Any, float]]] = {-math.inf: ("-inf", down), math.inf: ("inf", up)}
    marks |= {sign: (words, (mark, 0.025)) for sign, (words, mark, _) in WITHOUT.items()}
    if is_log:
        marks[0.0] = ("0", down)
    for value, (says, (mark, edge)) in marks.items():
        if places := [row[across] for row in rows if median_or_sign(row) == value]:
            look: dict[str, Any] = {"color": GREY, "transform": panel.get_xaxis_transform(), "clip_on": False}
            (line,) = panel.plot(places, [edge] * len(places), ls="", marker=mark, label=says, **look)
            found.append(Curve(line, says))
    return found


def _ticks(panel: Axes, which: str, values: Sequence[float]) -> None:
    """Ticks at values of the grid where these are evenly spaced, on a logarithmic axis if that makes them so."""
    is_log = is_logarithmic(values)
    if is_log or is_even(values):
        ticks = values[:: math.ceil(len(values) / MOST_TICKS)]
        axis: Axis = getattr(panel, f"{which}axis")
        panel.set(**{f"{which}scale": "log" if is_log else "linear"})
        axis.set_ticks(ticks, labels_of(ticks))
        axis.set_ticks([], minor=True)


def _without_mathematics(panel: Axes) -> None:
    """What looks like mathematics in a name of the user's stays as it is."""
    legend = panel.get_legend()
    for text in legend.get_texts() if legend is not None else ():
        text.set_parse_math(False)


# ---- maps ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Colors:
    """What all maps of a figure share."""

    norm: Normalize
    name: str
    critical: float | None


def _maps(result: Any, grid: Gridded) -> Figure:
    fields = [(words, "median") for words in grid.cells]
    if len(fields) == 1 and any(math.isfinite(finite(row["theory"])) for row in result.rows):
        fields.append((fields[0][0], "theory"))
    colors = _colors(result)
    figure, panels = _panels(len(fields))
    said: dict[str, Artist] = {}
    for panel, (words, field) in zip(panels, fields, strict=True):
        mesh = _named_map(panel, grid, colors, (words, field), said)
        title = words or (TITLES[field] if len(fields) > 1 else "")
        panel.set_title(fill(title, LETTERS), fontsize=SMALL, parse_math=False)
    _colour_bar(figure, mesh, panels, result)
    if said:
        figure.legend(said.values(), said.keys(), loc="outside lower center", ncols=3, fontsize=SMALLER, frameon=False)
    return figure


def _colour_bar(figure: Any, mesh: QuadMesh, panels: Sequence[Axes], result: Any) -> None:
    if _has_numbers(result.rows):
        below, above = (any(row["median"] == end for row in result.rows) for end in (-math.inf, math.inf))
        label = fill(_value_words(result), LETTERS)
        figure.colorbar(mesh, ax=panels, label=label, extend=EXTENDED[below, above])


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    if count == 1:
        figure, panel = single()
        return figure, [panel]
    figure = Figure(figsize=WIDE if count == 2 else SQUARE, layout="constrained")
    panels = figure.subplots(math.ceil(count / 2), 2, squeeze=False).flatten()
    for left_over in panels[count:]:
        left_over.remove()
    return figure, list(panels[:count])


def _colors(result: Any) -> _Colors:
    """One scale; beside a critical value it reaches as far on either side, so that its colour is in the middle."""
    known = [row[field] for row in result.rows for field in ("median", "theory") if row[field] is not None]
    scale, critical = scale_of(known, result.critical), result.critical
    if scale is None:
        # Infinities lie on either side of what is critical.
        scale = Scale(critical or 0.0, critical or 0.0, is_log=False)
    low, high = scale.low, scale.high
    if scale.is_log:
        low = max(low, LEAST_DRAWN)
        high = max(min(high, MOST_DRAWN), DECADE * low)
        if critical is not None:
            reach = min(max(critical / low, high / critical), MOST_DRAWN)
            low, high = critical / reach, critical * reach
    elif critical is not None:
        reach = max(abs(low - critical), abs(high - critical), LEAST_SPAN)
        low, high = critical - reach, critical + reach
    norm = (LogNorm if scale.is_log else Normalize)(low, high)
    return _Colors(norm, PLAIN if critical is None else BESIDE_CRITICAL, critical)


def _named_map(
    panel: Axes, grid: Gridded, colors: _Colors, which: tuple[str, str], said: dict[str, Artist]
) -> QuadMesh:
    """One map with the names of its axes."""
    panel.set(xlabel=words_of(grid.plan.across), ylabel=words_of(str(grid.plan.up)))
    return _map(panel, grid, colors, which, said)


def _map(panel: Axes, grid: Gridded, colors: _Colors, which: tuple[str, str], said: dict[str, Artist]) -> QuadMesh:
    """One map with its contours; what else it shows is added to what the legend says."""
    words, field = which
    rows = grid.by_place(grid.cells[words])
    _ticks(panel, "x", grid.across)
    _ticks(panel, "y", grid.up)
    edges = _edges(grid.across), _edges(grid.up)
    panel.set_facecolor(EMPTY)
    # Infinities have the colours of the ends.
    values = np.clip(_values(grid, rows, field), colors.norm.vmin, colors.norm.vmax)
    mesh = panel.pcolormesh(*edges, np.ma.masked_invalid(values), norm=colors.norm, cmap=colors.name)
    if field == "median":
        _mark_without(panel, grid, rows, edges, said)
        _contour(panel, grid, values, colors.critical, ("measured", "solid"), said)
    _contour(panel, grid, _values(grid, rows, "theory"), colors.critical, ("by theory", "dashed"), said)
    return mesh


def _values(grid: Gridded, rows: Places, field: str) -> NDArray[Any]:
    """By (up, across); nan where there is no number."""
    found = np.full((len(grid.up), len(grid.across)), math.nan)
    for place, row in rows.items():
        found[place] = math.nan if row[field] is None else row[field]
    return found


def _edges(values: Sequence[float]) -> NDArray[Any]:
    """Between neighbours half way, as the axis has it; of the outermost as far on the other side."""
    is_log = is_logarithmic(values)
    even = np.log(values) if is_log else np.asarray(values, float)
    middle = (even[1:] + even[:-1]) / 2
    edges = np.concatenate(([2 * even[0] - middle[0]], middle, [2 * even[-1] - middle[-1]]))
    return np.exp(edges) if is_log else edges


def _contour(
    panel: Axes,
    grid: Gridded,
    values: NDArray[Any],
    critical: float | None,
    look: tuple[str, str],
    said: dict[str, Artist],
) -> None:
    """Where the values pass the critical one, if they do."""
    known = values[np.isfinite(values)]
    if critical is None or not known.size or not known.min() < critical < known.max():
        return
    whose, style = look
    black: dict[str, Any] = {"colors": "black", "linestyles": style, "linewidths": 1.3}
    panel.contour(grid.across, grid.up, np.ma.masked_invalid(values), levels=[critical], **black)
    said[f"critical value {number(float(critical))}, {whose}"] = Line2D([], [], color="black", ls=style, lw=1.3)


def _mark_without(
    panel: Axes, grid: Gridded, rows: Places, edges: tuple[NDArray[Any], NDArray[Any]], said: dict[str, Artist]
) -> None:
    """Hatches over the points without a number; those of which there is no run stay grey."""
    shape = len(grid.up), len(grid.across)
    for sign, (words, _, hatch) in WITHOUT.items():
        where = np.full(shape, math.nan)
        for place, row in rows.items():
            where[place] = 0 if median_or_sign(row) == sign else math.nan
        if np.isfinite(where).any():
            cells = np.ma.masked_invalid(where)
            panel.pcolor(*edges, cells, hatch=hatch, cmap=ListedColormap([EMPTY]), edgecolor=GREY, lw=0)
            said[words] = Patch(facecolor=EMPTY, edgecolor=GREY, hatch=hatch, lw=0)
    if len(rows) < math.prod(shape):
        said["no run"] = Patch(facecolor=EMPTY)
