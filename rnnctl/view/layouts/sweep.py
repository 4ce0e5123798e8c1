"""How a sweep is shown: a map or lines of its medians, a row for every grid point, and what failed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rnnctl.view.grid_axes import (
    FAILED,
    FIRST_COUNT,
    MOST_LINES,
    MOST_MAPS,
    UNDEFINED,
    Gridded,
    axes_of,
    gridded,
    is_logarithmic,
    is_of_numbers,
    labels_of,
    median_or_sign,
    names_of,
    planned,
)
from rnnctl.view.heatmap import grid_map
from rnnctl.view.layouts.layout import Column, Layout, Record, Table
from rnnctl.view.line_chart import Line, Point, line_chart
from rnnctl.view.scale import RAMP, Scale, scale_of
from rnnctl.view.terminal import Terminal
from rnnctl.view.words import notes_beside

# Counts that a table has where any of them is above 0.
COUNTS_OF_TROUBLE = ("failed", "undefined")
LEAST_OF_A_MAP = 2
NO_RUN = " "
MARKS = {FAILED: f"{FAILED} failed", UNDEFINED: f"{UNDEFINED} undefined", NO_RUN: "blank: no run"}
NOTHING_FINITE = f"nothing finite: {RAMP[0]} -inf, {RAMP[-1]} inf"


def _axis_columns(rows: Sequence[Record], names: Sequence[str]) -> tuple[Column, ...]:
    return tuple(_axis_column(name, [row[name] for row in rows]) for name in names)


def _axis_column(name: str, values: Sequence[Any]) -> Column:
    """Numbers with as many digits as tell them apart."""
    texts = dict(zip(map(repr, values), labels_of(values), strict=True))
    return Column(name, name, right=is_of_numbers(values), text=lambda row: texts[repr(row[name])])


def _points_table(table: Table, rows: Sequence[Record]) -> Table:
    names = names_of(rows, FIRST_COUNT)
    shown = (each for each in table.columns if each.field not in COUNTS_OF_TROUBLE or any(r[each.field] for r in rows))
    return replace(table, columns=(*_axis_columns(rows, names), *shown), keys=len(names))


def _failures_table(table: Table, rows: Sequence[Record]) -> Table:
    names = names_of(rows, "error")
    return replace(table, columns=(*_axis_columns(rows, names), *table.columns), keys=len(names))


def _picture(result: Any, terminal: Terminal) -> str:
    axes = axes_of(result.rows)
    plan = planned(axes, LEAST_OF_A_MAP)
    if plan is None:
        return ""
    grid, what, most = gridded(result.rows, plan, axes), "maps", MOST_MAPS
    if plan.up is None:
        what, most = "lines", MOST_LINES
    count = len(grid.cells)
    if count > most:
        return f"no picture: {' and '.join(plan.apart)} would make {count:,} {what}, of which {most} can be drawn"
    return "\n".join((_chart if plan.up is None else _maps)(result, grid, terminal))


def _maps(result: Any, grid: Gridded, terminal: Terminal) -> list[str]:
    """One below the other, all on one scale."""
    medians = [cell for cell in map(median_or_sign, result.rows) if isinstance(cell, float)]
    scale = scale_of(medians, result.critical)
    # Where nothing is finite the side of an infinity is all that there is to see.
    middle = float(result.critical or 0)
    signed = scale or Scale(middle, middle, is_log=False, critical=middle)
    lines, signs = [f"median of {result.value}: {grid.plan.up} up, {grid.plan.across} across"], set[str]()
    up, across = labels_of(grid.up)[::-1], labels_of(grid.across)
    for words, rows in grid.cells.items():
        cells: list[list[float | str]] = [[NO_RUN] * len(across) for _ in up]
        for (i, j), row in grid.by_place(rows).items():
            cells[len(up) - 1 - i][j] = median_or_sign(row)
        signs |= {cell for line in cells for cell in line if isinstance(cell, str)}
        lines += [words] if words else []
        lines += grid_map(cells, up, across, signed, terminal)
    lines.append(scale.legend(terminal.color) if scale else NOTHING_FINITE if medians else "no number to draw")
    said = ", ".join(words for sign, words in MARKS.items() if sign in signs)
    return [*lines, said] if said else lines


def _chart(result: Any, grid: Gridded, terminal: Terminal) -> list[str]:
    values, name, critical = grid.across, grid.plan.across, result.critical
    drawn = [row[field] for row in result.rows for field in ("median", "p10", "p90", "theory")]
    y = scale_of([value for value in (*drawn, critical) if value is not None], critical)
    if y is None or not any(isinstance(median_or_sign(row), float) for row in result.rows):
        return []
    labels = labels_of(values)
    x = Scale(values[0], values[-1], is_log=is_logarithmic(values))
    lines = [Line(words, _points(rows, name)) for words, rows in grid.cells.items()]
    along = f"{name}, log" if x.is_log else name
    return [f"median of {result.value} over {name}", *line_chart(lines, x, y, (labels[0], labels[-1], along), terminal)]


def _points(rows: Sequence[Record], name: str) -> list[Point]:
    ordered = sorted(rows, key=lambda row: row[name])
    return [Point(row[name], median_or_sign(row), row["p10"], row["p90"], row["theory"]) for row in ordered]


SWEEP = Layout(
    (
        Table(
            (
                Column("runs", "runs", spare=True),
                Column("failed", "failed"),
                Column("undefined", "undefined"),
                Column("median", "median"),
                Column("p10", "10 %", spare=True),
                Column("p90", "90 %", spare=True),
                Column("theory", "theory", optional=True),
            ),
            adapted=_points_table,
        ),
    ),
    lambda scalars: notes_beside("sweep"),
    more={
        "failures": (
            Table(
                (Column("error", "why it failed", right=False, text=lambda row: " ".join(row["error"].split())),),
                title="failed runs",
                optional=True,
                adapted=_failures_table,
            ),
        )
    },
    picture=_picture,
)

PLAN = Layout(
    (
        Table(
            (
                Column("name", "varied", right=False, whole=True),
                Column("values", "values"),
                Column("start", "start"),
                Column("stop", "stop"),
            )
        ),
    ),
    lambda scalars: notes_beside("sweep-plan"),
)
