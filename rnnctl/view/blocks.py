"""The tables of a result with their cells as text, before anybody draws them: on a terminal or on a page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rnnctl.results import Result
from rnnctl.view.fitting import Filled
from rnnctl.view.layouts.layout import Column, Layout, Table
from rnnctl.view.numbers import log_bars, log_scale, number
from rnnctl.view.terminal import View

# Longer tables are cut in the middle: so many rows stay at either end.
SHOWN_AT_ENDS = 20
BAR_WIDTH = 16
# In a window of 80 columns the five columns of gradnorm leave so much.
NARROW, NARROW_BAR = 90, 10


@dataclass(frozen=True)
class Block:
    """One table.

    Attributes:
        title: above it; "" for none.
        columns: those that it has, with the cells of all rows.
        keys: how many of the first ones name a row.
        left_out: rows in the middle that are not shown.
    """

    title: str
    columns: tuple[Filled, ...]
    keys: int
    left_out: int

    @property
    def said_of_rest(self) -> str:
        """What is said below it of the rows that are not shown; "" where all are."""
        return f"... {self.left_out} rows in the middle are left out; --all shows them" if self.left_out else ""


@dataclass(frozen=True)
class Section:
    """Tables under a heading; "" where they need none."""

    heading: str
    blocks: tuple[Block, ...]


def sections(layout: Layout, result: Result, view: View) -> Iterator[Section]:
    """All tables of a result in their order: of the rows, those that close them, of the further records."""
    apart, others = list[Mapping[str, Any]](), list[Mapping[str, Any]]()
    # Rows that no table shows are not even made: of all pairs of steps there are millions.
    for row in result.rows if layout.tables or layout.closing else ():
        (apart if any(table.shows(row) for table in layout.closing) else others).append(row)
    for heading, rows in _by_section(layout, others).items():
        yield Section(heading, _blocks(layout.tables, rows, view))
    more = (each for name, tables in layout.more.items() for each in _blocks(tables, result.more[name], view))
    yield Section("", (*_blocks(layout.closing, apart, view), *more))


def lines(texts: Sequence[Sequence[str]], left_out: int) -> Iterator[tuple[str, ...] | None]:
    """The rows that are shown of so many columns; None where those in the middle are left out."""
    for i, line in enumerate(zip(*texts, strict=True)):
        if left_out and i == SHOWN_AT_ENDS:
            yield None
        if not left_out or not SHOWN_AT_ENDS <= i < SHOWN_AT_ENDS + left_out:
            yield line


def _by_section(layout: Layout, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    if layout.section is None:
        return {"": rows}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row[layout.section], []).append(row)
    return found


def _blocks(tables: Sequence[Table], rows: Sequence[Mapping[str, Any]], view: View) -> tuple[Block, ...]:
    found = (_block(table, [row for row in rows if table.shows(row)], view) for table in tables)
    return tuple(block for block in found if block is not None)


def _block(table: Table, shown: Sequence[Mapping[str, Any]], view: View) -> Block | None:
    # A table of one kind says nothing where there is none; a table of all rows says that there are none.
    if not shown and (table.kind is not None or table.optional):
        return None
    table = table.adapted(table, shown)
    left_out = 0 if view.every else max(0, len(shown) - 2 * SHOWN_AT_ENDS)
    columns = tuple(_filled(column, shown, view) for column in table.columns if _has_values(column, shown))
    return Block(table.title, columns, table.keys, left_out)


def _has_values(column: Column, rows: Sequence[Mapping[str, Any]]) -> bool:
    if column.bar and log_scale([row[column.field] for row in rows]) is None:
        return False
    return not column.optional or any(row.get(column.field) is not None for row in rows)


def _filled(column: Column, rows: Sequence[Mapping[str, Any]], view: View) -> Filled:
    """The column with its title and texts; a bar's title says from where to where it goes."""
    if column.bar:
        values, terminal = [row[column.field] for row in rows], view.terminal
        width = NARROW_BAR if terminal.width is not None and terminal.width < NARROW else BAR_WIDTH
        ends = log_scale(values)
        title = column.title if ends is None else f"{column.title} {ends[0]:.3g} .. {ends[1]:.3g}"
        return Filled(column, title, log_bars(values, width, ascii_only=terminal.ascii_only))
    if column.text is not None:
        return Filled(column, column.title, [column.text(row) for row in rows])
    return Filled(column, column.title, [number(row[column.field]) for row in rows])
