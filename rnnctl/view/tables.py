"""Results as rich tables."""

import io
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from rnnctl.results import Result
from rnnctl.view.layouts.layout import Column, Layout, Table
from rnnctl.view.layouts.table import LAYOUTS
from rnnctl.view.numbers import log_bars, number
from rnnctl.view.terminal import Terminal, View

# Longer tables are cut in the middle: so many rows stay at either end.
SHOWN_AT_ENDS = 20
BAR_WIDTH = 16
# In a window of 80 columns the five columns of gradnorm leave so much.
NARROW, NARROW_BAR = 90, 10
# What a text can do with.
NARROWEST = 8
VERDICT_STYLES = {"vanishing": "bold red", "exploding": "bold red", "nonfinite": "bold red", "stable": "bold green"}
UNBOUNDED = 100_000


def table_text(result: Result, headline: str, view: View) -> str:
    """A headline, the tables of the rows, and the scalars with what they mean."""
    console = console_of(view.terminal)
    layout = LAYOUTS[result.schema]
    console.print(Text(headline, style="bold"))
    if view.only != "scalars":
        _print_records(console, layout, result, view)
    if view.only != "rows":
        console.print(_scalars(result, layout, view.terminal))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def _print_records(console: Console, layout: Layout, result: Result, view: View) -> None:
    """The picture, the rows, the further records, the caption."""
    if layout.picture is not None and (picture := layout.picture(result, view.terminal)):
        console.print(Text.from_ansi(picture), soft_wrap=True)
    apart, others = list[Mapping[str, Any]](), list[Mapping[str, Any]]()
    for row in result.rows:
        (apart if any(table.shows(row) for table in layout.closing) else others).append(row)
    for heading, rows in _sections(layout, others).items():
        if layout.section is not None:
            console.print(Text(heading, style="bold"), soft_wrap=True)
        for table in layout.tables:
            _print_rows(console, table, rows, view)
    for table in layout.closing:
        _print_rows(console, table, apart, view)
    for name, table in layout.more.items():
        _print_rows(console, table, result.more[name], view)
    if caption := layout.caption(result.scalars):
        console.print(caption, soft_wrap=True)


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
        console.print(Text(table.title, style="bold"), soft_wrap=True)
    columns, cells, fits = _fitting(table, shown, view.terminal)
    rich_table = _rich_table(view.terminal)
    for column in columns:
        justify: Literal["right", "left"] = "right" if column.right else "left"
        rich_table.add_column(column.title, justify=justify, overflow="fold", no_wrap=fits and _is_whole(column))
    left_out = 0 if view.every else max(0, len(shown) - 2 * SHOWN_AT_ENDS)
    for i, line in enumerate(zip(*cells, strict=True)):
        if left_out and i == SHOWN_AT_ENDS:
            rich_table.add_row(*("..." for _ in line))
        if not left_out or not SHOWN_AT_ENDS <= i < SHOWN_AT_ENDS + left_out:
            rich_table.add_row(*line)
    console.print(rich_table)
    if left_out:
        console.print(f"... {left_out} rows in the middle are left out; --all shows them", soft_wrap=True)


def _fitting(
    table: Table, rows: Sequence[Mapping[str, Any]], terminal: Terminal
) -> tuple[list[Column], list[list[str]], bool]:
    """The columns that are shown, their texts, and whether those that are not to be broken fit."""
    columns = [c for c in table.columns if not c.optional or any(row.get(c.field) is not None for row in rows)]
    cells = [_cells(column, rows, terminal) for column in columns]
    if _whole_columns_fit(columns, cells, terminal):
        return columns, cells, True
    kept = [i for i, column in enumerate(columns) if not column.spare]
    columns, cells = [columns[i] for i in kept], [cells[i] for i in kept]
    return columns, cells, _whole_columns_fit(columns, cells, terminal)


def _is_whole(column: Column) -> bool:
    return column.right or column.bar or column.whole


def _whole_columns_fit(columns: Sequence[Column], cells: Sequence[Sequence[str]], terminal: Terminal) -> bool:
    """Whether they leave room for the others; if not, all are broken, for a digit cut off is worse."""
    if terminal.width is None:
        return True
    whole = [
        max(len(line) for text in (column.title, *texts) for line in text.splitlines() or [""])
        for column, texts in zip(columns, cells, strict=True)
        if _is_whole(column)
    ]
    return sum(whole) + 3 * len(columns) + NARROWEST * (len(columns) - len(whole)) <= terminal.width


def _cells(column: Column, rows: Sequence[Mapping[str, Any]], terminal: Terminal) -> list[str]:
    if column.bar:
        narrow = terminal.width is not None and terminal.width < NARROW
        width = NARROW_BAR if narrow else BAR_WIDTH
        return log_bars([row[column.field] for row in rows], width, ascii_only=terminal.ascii_only)
    if column.text is not None:
        return [column.text(row) for row in rows]
    return [number(row[column.field]) for row in rows]


def _scalars(result: Result, layout: Layout, terminal: Terminal) -> RichTable:
    scalars, why, told = result.scalars, result.why, dict[str, str]()
    notes, patterns = dict(layout.notes(scalars)), (*layout.hidden_scalars, *layout.hidden_when(scalars))
    table = _rich_table(terminal, header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in scalars.items():
        if not any(fnmatch(name, hidden) for hidden in patterns):
            style = VERDICT_STYLES.get(value, "") if isinstance(value, str) else ""
            shown = "undefined" if value is None else number(value)
            note = _once(name, why[name], told) if value is None and name in why else notes.get(name, "")
            table.add_row(name, Text(shown, style=style), note)
    return table


def _once(name: str, reason: str, told: dict[str, str]) -> str:
    """The reason, or the name of the scalar that has told it already."""
    if reason in told:
        return f"as {told[reason]}"
    told[reason] = name
    return reason


def _rich_table(terminal: Terminal, *, header: bool = True) -> RichTable:
    shape = box.ASCII2 if terminal.ascii_only else box.SIMPLE_HEAD
    return RichTable(
        box=(box.SIMPLE_HEAD if header and not terminal.ascii_only else shape if header else None),
        show_header=header,
        header_style="bold",
        pad_edge=False,
    )
