"""What is said of a matrix: how well its spectral radius is known, how far its powers grow."""

import math
from collections.abc import Mapping
from decimal import ROUND_UP, Context
from typing import Any

from rnnctl.view.numbers import number
from rnnctl.view.words import note_of

Record = Mapping[str, Any]

# As a share of the radius: beyond it a reader must know.
DOMINATES = 0.01
ONE_DIGIT_UP = Context(prec=1, rounding=ROUND_UP)


def rounding_dominates(radius: float | None, error: float | None) -> bool:
    """Whether a spectral radius is known to less than two digits."""
    return radius is not None and error is not None and error > DOMINATES * radius


def radius_notes(scalars: Record, radius: str = "spectral_radius", said: str | None = None) -> Mapping[str, str]:
    """What a spectral radius is, with a remark where rounding dominates it, and what its error is."""
    error, said = f"{radius}_error", note_of("spectral_radius") if said is None else said
    if not rounding_dominates(scalars[radius], scalars.get(error)):
        return {radius: said, error: note_of("spectral_radius_error")}
    low, high = max(0.0, scalars[radius] - scalars[error]), scalars[radius] + scalars[error]
    return {
        radius: f"{said}. ROUNDING DOMINATES: the true one lies between {number(low)} and {number(high)}",
        error: "eigenvectors are nearly parallel: within the digits of its entries W_hh is defective",
    }


def without_plain_error(scalars: Record) -> tuple[str, ...]:
    """The error of a radius where there is nothing to remark, for tables that ask another question."""
    dominates = rounding_dominates(scalars["spectral_radius"], scalars.get("spectral_radius_error"))
    return () if dominates else ("spectral_radius_error",)


def error_text(row: Record) -> str:
    """The error of a row's radius in one digit, rounded up; or all of it, with a remark, where rounding dominates."""
    error = row["spectral_radius_error"]
    if rounding_dominates(row["spectral_radius"], error):
        return f"{number(error)}\nrounding\ndominates"
    return f"{float(ONE_DIGIT_UP.create_decimal(error)):.0e}" if error else number(error)


def growth_notes(scalars: Record) -> Mapping[str, str]:
    """What the largest norm of a power of W_hh is."""
    growth = note_of("transient_growth")
    if scalars.get("transient_growth") == math.inf:
        return {"transient_growth": f"{growth}: with a radius above 1 the powers grow without end"}
    if scalars.get("transient_growth_step") == 1:
        return {"transient_growth": f"{growth}: that of W_hh itself", "transient_growth_step": "n"}
    return {
        "transient_growth": f"{growth}: a gradient may grow by this before it vanishes, which no radius shows",
        "transient_growth_step": note_of("transient_growth_step"),
    }
