"""Numbers as the options take them: from the command line, the environment or a file."""

import math
from collections.abc import Callable
from typing import Any

import typer


def whole_number(least: int, most: int | None = None) -> Callable[[Any], int]:
    """What reads a whole number of at least ``least`` (and at most ``most``)."""
    limits = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"

    def read(value: Any) -> int:
        try:
            # By its text, because int(2.5) would be 2.
            number = int(str(value))
        except ValueError:
            number = None
        if number is None or number < least or (most is not None and number > most):
            raise typer.BadParameter(f"expected a whole number {limits}; got {value!r}")
        return number

    return read


def real_number_from(least: float) -> Callable[[Any], float]:
    """What reads a finite number of at least ``least``."""

    def read(value: Any) -> float:
        number = real_number(value)
        if number < least:
            raise typer.BadParameter(f"expected a number of at least {least:g}; got {value!r}")
        return number

    return read


def real_number(value: Any) -> float:
    """Any finite number."""
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise typer.BadParameter(f"expected a finite number; got {value!r}")
    return number
