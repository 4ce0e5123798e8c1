"""Where text goes, and how much of a result."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Terminal:
    """Its width in columns (None: no limit), colour, and whether only ASCII."""

    width: int | None = None
    color: bool = False
    ascii_only: bool = False


@dataclass(frozen=True)
class View:
    """What of a result is shown, and where.

    Attributes:
        form: "table", "json", "jsonl" or "csv"; the last two hold the rows.
        only: "rows" or "scalars"; None for both, where the format has room for both.
        every: show all rows of a long table.
        terminal: for the table.
    """

    form: str = "table"
    only: str | None = None
    every: bool = False
    terminal: Terminal = Terminal()
