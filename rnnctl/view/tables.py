"""Results as rich tables."""

import io
from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from rnnctl.results import Result
from rnnctl.view.blocks import Block, lines, sections
from rnnctl.view.fitting import Fitted, parts
from rnnctl.view.layouts.layout import Layout
from rnnctl.view.layouts.table import LAYOUTS
from rnnctl.view.scalars import scalars_text
from rnnctl.view.terminal import Terminal, View

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
    for section in sections(layout, result, view):
        if section.heading:
            console.print(Text(section.heading, style="bold"))
        for block in section.blocks:
            _print_block(console, block, view.terminal)
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


def _print_block(console: Console, block: Block, terminal: Terminal) -> None:
    if block.title:
        console.print(Text(block.title, style="bold"))
    for part in parts(block.columns, block.keys, terminal.width):
        console.print(_rich_table(part, block.left_out, terminal))
    if block.left_out:
        console.print(block.said_of_rest)


def _rich_table(columns: Sequence[Fitted], left_out: int, terminal: Terminal) -> RichTable:
    """The columns beside one another; a line of dots where so many rows in the middle are left out."""
    table = RichTable(box=box.ASCII2 if terminal.ascii_only else box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for each in columns:
        justify: Literal["right", "left"] = "right" if each.filled.column.right else "left"
        table.add_column(each.title, justify=justify, overflow="fold", width=each.width)
    for line in lines([each.texts for each in columns], left_out):
        table.add_row(*(("." * min(3, each.width) for each in columns) if line is None else line))
    return table
