"""Which columns of a table a window has room for, and how wide each of them is.

Bars go first, then spare columns; then the table is split, its first columns repeated in every part. Text is folded
between words. Numbers, names and shapes stay whole: a digit on the next line is another number.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import fill

from rnnctl.view.layouts.layout import Column

# What a text can do with, and the longest of its words that is then still whole: longer ones are paths of names.
NARROWEST, LONGEST_WORD = 10, 16
# Between two columns, less what the outer edges save.
GAP, EDGE = 3, 1


@dataclass(frozen=True)
class Filled:
    """A column with its title and its cells as text; a cell may have several lines."""

    column: Column
    title: str
    texts: Sequence[str]

    @property
    def is_whole(self) -> bool:
        """Whether its cells are not to be broken."""
        return self.column.right or self.column.bar or self.column.whole

    @cached_property
    def natural(self) -> int:
        """The width at which nothing is broken."""
        return max(_longest([self.title]), _longest(self.texts))

    @property
    def wanted(self) -> int:
        """The width for which others give way: of what is whole its title, too, but for the many words of a bar's."""
        return self.natural if self.is_whole and not self.column.bar else self.least

    @cached_property
    def least(self) -> int:
        """The width that it can do with: no cell that is whole is broken, and a title between its words alone."""
        if self.is_whole:
            return max(_longest(re.split(r"\s+|(?<=-)", self.title)), _longest(self.texts))
        words = [len(word) for text in (self.title, *self.texts) for word in text.split()]
        return min(self.natural, max(NARROWEST, *(length for length in words if length <= LONGEST_WORD)))


@dataclass(frozen=True)
class Fitted:
    """A column as it is drawn: its title and its cells folded to its width."""

    filled: Filled
    width: int

    @property
    def title(self) -> str:
        """In as many lines as it takes."""
        return fill(self.filled.title, self.width, break_long_words=False) if self.width else self.filled.title

    @property
    def texts(self) -> Sequence[str]:
        """The cells; what is too long even so is broken where it stands."""
        return ["\n".join(_folded(line, self.width) for line in text.splitlines()) for text in self.filled.texts]


def parts(columns: Sequence[Filled], keys: int, width: int | None) -> list[list[Fitted]]:
    """The tables that are drawn below one another in place of one that is too wide; mostly it is one.

    Args:
        columns: all that the rows have.
        keys: how many of the first ones name a row; every part begins with them.
        width: of the window, in columns; None for no limit.
    """
    if width is None:
        return [[Fitted(each, each.natural) for each in columns]]
    kept = _kept(columns, width)
    named, others = kept[:keys], kept[keys:]
    split = [named]
    for each in others:
        longer = [*split[-1], each]
        if len(longer) > keys + 1 and sum(one.least for one in longer) > _room(len(longer), width):
            split.append([*named, each])
        else:
            split[-1] = longer
    return [_fitted(part, keys, width) for part in split]


def _kept(columns: Sequence[Filled], width: int) -> list[Filled]:
    """Those that stay where not all of them fit: without the bars, then without one spare column after the other."""
    kept = list(columns)
    bars, spare = [each for each in kept if each.column.bar], [each for each in kept if each.column.spare]
    for gives_way in (bars, *([each] for each in reversed(spare))):
        if sum(each.wanted for each in kept) > _room(len(kept), width):
            kept = [each for each in kept if not any(each is one for one in gives_way)]
    return kept


def _room(columns: int, width: int) -> int:
    """What so many columns may fill."""
    return width - GAP * columns + EDGE


def _fitted(columns: Sequence[Filled], keys: int, width: int) -> list[Fitted]:
    """What is left over goes to titles of numbers, then to what names a row, then to the narrowest text."""
    widths, room = [each.least for each in columns], _room(len(columns), width)
    whole = [i for i, each in enumerate(columns) if each.is_whole]
    for i in (*whole, *range(keys)):
        widths[i] += max(0, min(columns[i].natural - widths[i], room - sum(widths)))
    while sum(widths) < room and (growing := [i for i, each in enumerate(columns) if widths[i] < each.natural]):
        widths[min(growing, key=widths.__getitem__)] += 1
    _shrink(widths, columns, room)
    return [Fitted(each, width) for each, width in zip(columns, widths, strict=True)]


def _shrink(widths: list[int], columns: Sequence[Filled], room: int) -> None:
    """Of a window that has no room for one column beside the names: text gives way, names after it, numbers last."""
    text = [i for i, each in enumerate(columns) if not each.is_whole]
    names = [i for i, each in enumerate(columns) if not each.column.right]
    for giving in (text, names, range(len(columns))):
        while sum(widths) > room and (wide := [i for i in giving if widths[i] > 1]):
            widths[max(wide, key=widths.__getitem__)] -= 1


def _folded(line: str, width: int) -> str:
    """In lines of this width, broken between words; a word that is longer is broken between names of its path."""
    if len(line) <= width:
        return line
    folded = [""]
    for word in re.split(r"(?<=\s)(?=\S)", line):
        for piece in re.split(r"(?<=[._/-])(?=[^\W\d])", word) if len(word.rstrip()) > width else [word]:
            if len((folded[-1] + piece).rstrip()) <= width:
                folded[-1] += piece
            else:
                folded.append(piece)
    return "\n".join(part.rstrip() for part in folded if part)


def _longest(texts: Sequence[str]) -> int:
    return max((len(line) for text in texts for line in text.splitlines()), default=0)
