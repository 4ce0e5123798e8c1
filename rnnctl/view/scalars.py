"""The scalars of a result, one below the other, with what each of them means."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import chain
from textwrap import wrap
from typing import NamedTuple

from rich.text import Text

from rnnctl.results import Result
from rnnctl.view.layouts.layout import Layout
from rnnctl.view.numbers import number

VERDICT_STYLES = {"vanishing": "bold red", "exploding": "bold red", "nonfinite": "bold red", "stable": "bold green"}
# A note beside its number needs so much, or it goes below.
NARROWEST_NOTE = 24
GAP, INDENT = "  ", "    "


class Line(NamedTuple):
    """A scalar as text, and what is said of it."""

    name: str
    shown: str
    style: str
    note: str


def scalars_text(result: Result, layout: Layout, width: int | None) -> Text:
    """Every scalar that is for people: its note beside it, or where the window is too narrow for that below it.

    Args:
        width: of the window, in columns; None for no limit.
    """
    lines = list(lines_of(result, layout))
    names = max((len(line.name) for line in lines), default=0)
    values = max((len(line.shown) for line in lines), default=0)
    beside = None if width is None else width - names - values - 2 * len(GAP)
    words = chain.from_iterable(line.note.split() for line in lines)
    # A flag in a note is one to be copied: it is never broken.
    if beside is None or beside >= max(NARROWEST_NOTE, max(map(len, words), default=0)):
        shown = [_beside(line, names, values, beside) for line in lines]
    else:
        shown = [_above(line, names, width or 0) for line in lines]
    return Text("\n").join(shown)


def lines_of(result: Result, layout: Layout) -> Iterator[Line]:
    """Every scalar that is for people."""
    scalars, why, told = result.scalars, result.why, dict[str, str]()
    notes, hidden = layout.notes(scalars), (*layout.hidden_scalars, *layout.hidden_when(scalars))
    for name, value in scalars.items():
        if not any(fnmatch(name, pattern) for pattern in hidden):
            style = VERDICT_STYLES.get(value, "") if isinstance(value, str) else ""
            shown = "undefined" if value is None else number(value)
            note = _once(name, why[name], told) if value is None and name in why else notes.get(name, "")
            yield Line(name, shown, style, note)


def _once(name: str, reason: str, told: dict[str, str]) -> str:
    """The reason, or the name of the scalar that has told it already."""
    if reason in told:
        return f"as {told[reason]}"
    told[reason] = name
    return reason


def _beside(line: Line, names: int, values: int, width: int | None) -> Text:
    """Name, number and note side by side; the note in lines of this width."""
    notes = line.note.splitlines() if width is None else _folded(line.note, width)
    before = " " * (names + len(GAP) + values + len(GAP))
    value = (" " * (values - len(line.shown)), (line.shown, line.style))
    note = f"\n{before}".join(notes)
    return Text.assemble(line.name.ljust(names), GAP, *value, GAP if note else "", note)


def _above(line: Line, names: int, width: int) -> Text:
    """Name and number, and the note in lines below them; a text of many words is folded as its note is."""
    room = width - names - len(GAP)
    value = [line.shown] if len(line.shown) <= room else ["", *_indented(line.shown, width)]
    note = "".join(f"\n{each}" for each in _indented(line.note, width))
    return Text.assemble(line.name.ljust(names), GAP, ("\n".join(value), line.style), note)


def _indented(text: str, width: int) -> Sequence[str]:
    return [INDENT + each for each in _folded(text, width - len(INDENT))]


def _folded(text: str, width: int) -> list[str]:
    """Between words alone, but for one that is longer than the line."""
    return [part for line in text.splitlines() for part in wrap(line, width, break_on_hyphens=False)]
