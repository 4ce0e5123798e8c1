"""Where text goes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Terminal:
    """Its width in columns (None: no limit), colour, and whether only ASCII."""

    width: int | None = None
    color: bool = False
    ascii_only: bool = False
