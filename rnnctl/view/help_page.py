"""The help of a command as text: its usage, its options in panels, examples, and where to read on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import TYPE_CHECKING

from rnnctl.view.terminal import Terminal

if TYPE_CHECKING:
    from rich.text import Text

# What a pipe gets, and where a line of help is still easy to read.
USUAL, WIDEST = 80, 110
# A longer label stands on a line of its own.
LONGEST_LABEL = 27


@dataclass(frozen=True)
class Entry:
    """An option or command as one types it, and what it does."""

    label: str
    text: str


@dataclass(frozen=True)
class HelpPage:
    """What a help says.

    Attributes:
        usage: "rnnctl gradnorm [OPTIONS]".
        about: paragraphs; the first is one sentence.
        panels: title -> entries, in the order of use.
        examples: command lines.
        more: where to read on.
    """

    usage: str
    about: tuple[str, ...]
    panels: tuple[tuple[str, tuple[Entry, ...]], ...]
    examples: tuple[str, ...]
    more: str


def help_text(page: HelpPage, terminal: Terminal) -> str:
    """The page in the terminal's width, at most ``WIDEST`` columns."""
    # Every start loads this file, and few of them draw.
    from rich import box
    from rich.panel import Panel
    from rich.text import Text

    from rnnctl.view.tables import console_of

    width = max(40, min(terminal.width or USUAL, WIDEST))
    console = console_of(replace(terminal, width=width))
    console.print(Text(f"Usage: {page.usage}", style="bold"))
    for paragraph in page.about:
        console.print()
        console.print(Text(paragraph))
    console.print()
    lines_of = box.ASCII if terminal.ascii_only else box.ROUNDED
    for title, entries in page.panels:
        lines = _entries(entries, width - 4)
        console.print(Panel(lines, title=title, title_align="left", border_style="dim", box=lines_of))
    if page.examples:
        console.print(Text("Examples", style="bold"))
        for example in page.examples:
            console.print(Text(_example(example, width)))
    console.print(Text(page.more))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def _example(line: str, width: int) -> str:
    """A command line, in lines that a shell takes for one."""
    # Where it is broken there are two characters more.
    parts = wrap(line, width - 4, break_long_words=False, break_on_hyphens=False, subsequent_indent="  ")
    return " \\\n".join(f"  {part}" for part in parts)


def _entries(entries: Sequence[Entry], width: int) -> "Text":
    """Labels in one column, what they do in the next; a long label above it."""
    from rich.text import Text

    labels = [len(entry.label) for entry in entries if len(entry.label) <= LONGEST_LABEL]
    indent = min(max(labels, default=0) + 2, width // 2)
    lines = list[Text]()
    for entry in entries:
        told = wrap(entry.text, width - indent, break_long_words=False, break_on_hyphens=False) or [""]
        if len(entry.label) + 2 <= indent:
            first = Text.assemble((entry.label.ljust(indent), "bold cyan"), told.pop(0))
        else:
            first = Text(entry.label, style="bold cyan", overflow="fold")
        lines += [first, *(Text(" " * indent + line) for line in told)]
    return Text("\n").join(lines)
