"""The lines of a table: their cells and numbers by column, and what messages call these."""

import csv
import io
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from rnnctl.files.dialect import Grid, Row

# What a name says of its unit: time (s).
UNIT = re.compile(r"\s*[\[(].*[\])]$")
SHOWN = 6


@dataclass(frozen=True)
class Lines:
    """The lines of a table, all as long.

    Attributes:
        name: of the file, for messages.
        header: the cells that name the columns; () without.
        selectable: whether --columns can choose among them.
    """

    name: str
    grid: Grid
    rows: Sequence[Row]
    header: tuple[str, ...]
    selectable: bool

    @cached_property
    def columns(self) -> list[tuple[str, ...]]:
        """The cells of every column."""
        return list(zip(*(row.cells for row in self.rows), strict=True))

    @cached_property
    def numbers(self) -> list[list[float] | None]:
        """The numbers of every column; None where a cell is none."""
        found = [[self.grid.number(cell) for cell in cells] for cells in self.columns]
        return [None if None in column else [value for value in column if value is not None] for column in found]

    @cached_property
    def titles(self) -> list[str]:
        """The names of all columns; "column 1" and so on where they have none."""
        return [title or f"column {i}" for i, title in enumerate(self.header or [""] * len(self.columns), start=1)]

    @cached_property
    def called(self) -> list[str]:
        """The names of a header in small letters, without units; "" without a header."""
        return [UNIT.sub("", title).lower() for title in self.header] or [""] * len(self.columns)

    def choice(self, wanted: Iterable[int]) -> str:
        """The option that takes these columns."""
        names = [self.titles[i] if self.header else str(i + 1) for i in wanted]
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(names)
        return f"--columns {shlex.quote(line.getvalue())}" if len(names) <= SHOWN else "--columns"


def shown(cells: Sequence[str], most: int = SHOWN) -> str:
    """The first cells, with commas between."""
    return ", ".join(cells[:most]) + (", ..." if len(cells) > most else "")
