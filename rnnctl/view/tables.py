"""Results as rich tables."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from rnnctl.results import Result
from rnnctl.view.fitting import Filled, Fitted, parts
from rnnctl.view.layouts.layout import Column, Layout, Table
from rnnctl.view.layouts.table import LAYOUTS
from rnnctl.view.numbers import log_bars, log_scale, number
from rnnctl.view.scalars import scalars_text
from rnnctl.view.terminal import Terminal, View

# Longer tables are cut in the middle: so many rows stay at either end.
SHOWN_AT_ENDS = 20
BAR_WIDTH = 16
# In a window of 80 columns the five columns of gradnorm leave so much.
NARROW, NARROW_BAR = 90, 10
UNBOUNDED = 100_000


def table_text(result: Result, headline: str, view: View) -> str:
    """A headline, the tables of the rows, and the scalars with what they mean."""
    console = console_of(view.terminal)
    layout = LAYOUTS[result.schema]
    console.print(Text(headline, style="bold"))
    if view.only != "scalars":
        _print_records(console, layout, result, view)
    if view.only != "rows":
        console.print(scalars_text(result, layout, view.terminal.width))
    return _without_trailing_spaces(console.file.getvalue())  # type: ignore[attr-defined]


def _without_trailing_spaces(text: str) -> str:
    """What Rich pads is nothing that a pipe or a copied line should carry."""
    return "\n".join(line.rstrip(" ") for line in text.split("\n"))


def _print_records(console: Console, layout: Layout, result: Result, view: View) -> None:
    """The picture, the rows, the further records, the caption."""
    if layout.picture is not None and (picture := layout.picture(result, view.terminal)):
        console.print(Text.from_ansi(picture))
    apart, others = list[Mapping[str, Any]](), list[Mapping[str, Any]]()
    for row in result.rows:
        (apart if any(table.shows(row) for table in layout.closing) else others).append(row)
    for heading, rows in _sections(layout, others).items():
        if layout.section is not None:
            console.print(Text(heading, style="bold"))
        for table in layout.tables:
            _print_rows(console, table, rows, view)
    for table in layout.closing:
        _print_rows(console, table, apart, view)
    for name, tables in layout.more.items():
        for table in tables:
            _print_rows(console, table, result.more[name], view)
    if caption := layout.caption(result.scalars):
        console.print(caption)


def console_of(terminal: Terminal) -> Console:
    """A console that keeps what it prints, as wide and as colourful as a terminal is."""
    return Console(
        file=io.StringIO(),
        width=terminal.width or UNBOUNDED,
        force_terminal=terminal.color,
        no_color=not terminal.color,
        color_system="256" if terminal.color else None,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )


def _sections(layout: Layout, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    if layout.section is None:
        return {"": rows}
    sections: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        sections.setdefault(row[layout.section], []).append(row)
    return sections


def _print_rows(console: Console, table: Table, rows: Sequence[Mapping[str, Any]], view: View) -> None:
    shown = [row for row in rows if table.shows(row)]
    # A table of one kind says nothing where there is none; a table of all rows says that there are none.
    if not shown and (table.kind is not None or table.optional):
        return
    if table.title:
        console.print(Text(table.title, style="bold"))
    table = table.adapted(table, shown)
    left_out = 0 if view.every else max(0, len(shown) - 2 * SHOWN_AT_ENDS)
    columns = [_filled(column, shown, view.terminal) for column in table.columns if _has_values(column, shown)]
    for part in parts(columns, table.keys, view.terminal.width):
        console.print(_rich_table(part, left_out, view.terminal))
    if left_out:
        console.print(f"... {left_out} rows in the middle are left out; --all shows them")


def _has_values(column: Column, rows: Sequence[Mapping[str, Any]]) -> bool:
    if column.bar and log_scale([row[column.field] for row in rows]) is None:
        return False
    return not column.optional or any(row.get(column.field) is not None for row in rows)


def _filled(column: Column, rows: Sequence[Mapping[str, Any]], terminal: Terminal) -> Filled:
    """The column with its title and texts; a bar's title says from where to where it goes."""
    if column.bar:
        values = [row[column.field] for row in rows]
        width = NARROW_BAR if terminal.width is not None and terminal.width < NARROW else BAR_WIDTH
        ends = log_scale(values)
        title = column.title if ends is None else f"{column.title} {ends[0]:.3g} .. {ends[1]:.3g}"
        return Filled(column, title, log_bars(values, width, ascii_only=terminal.ascii_only))
    if column.text is not None:
        return Filled(column, column.title, [column.text(row) for row in rows])
    return Filled(column, column.title, [number(row[column.field]) for row in rows])


def _rich_table(columns: Sequence[Fitted], left_out: int, terminal: Terminal) -> RichTable:
    """The columns beside one another; a line of dots where so many rows in the middle are left out."""
    table = RichTable(box=box.ASCII2 if terminal.ascii_only else box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for each in columns:
        justify: Literal["right", "left"] = "right" if each.filled.column.right else "left"
        table.add_column(each.title, justify=justify, overflow="fold", width=each.width)
    for i, line in enumerate(zip(*(each.texts for each in columns), strict=True)):
        if left_out and i == SHOWN_AT_ENDS:
            table.add_row(*("." * min(3, each.width) for each in columns))
        if not left_out or not SHOWN_AT_ENDS <= i < SHOWN_AT_ENDS + left_out:
            table.add_row(*line)
    return table
