"""How well a sum of contributions agrees with autograd: the one formula for it, and how much rounding it allows."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from rnnctl.errors import VerificationError, plain
from rnnctl.results import Kind

# Of the gradient's uncancelled magnitude: rounding of T accumulated steps, with room.
TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 1e-5,
    torch.bfloat16: 5e-2,
    torch.float16: 1e-2,
}


# Numbers below so many times the smallest normal one of a dtype were summed of parts that are not normal any more.
UNDERFLOW_MARGIN = 16
NOT_ASKED = "not compared with autograd"
# Longer than this, it is worth a word that it can be left out.
LONG_SECONDS = 1.0
T = TypeVar("T")
_clock = time.perf_counter


@dataclass(frozen=True)
class Agreement:
    """How well sum G_t agrees with ``W_hh.grad``.

    Attributes:
        relative_error: ||sum G_t - W_hh.grad|| / ||W_hh.grad||; None where there is nothing to compare.
        tolerance: what ``holds`` allows, relative to sum over t of ||dL/dh_t|| ||h_{t-1}||, an
            upper bound of ||W_hh.grad|| that cancelling terms do not shrink.
        holds: within the tolerance; None where there is nothing to compare.
        states: "sweep" if the sweep ran along its own hidden states, "model" if along those
            of the model's own forward pass.
        why: why there is nothing to compare; None where there is something.
        seconds: what it took, autograd's pass included; None where that was not measured.
    """

    relative_error: float | None
    tolerance: float
    holds: bool | None
    states: str
    why: str | None = None
    # No two runs have it alike.
    seconds: float | None = field(default=None, compare=False)

    @property
    def remarks(self) -> tuple[str, ...]:
        """That it took long, where it did, and how it is left out."""
        if self.seconds is None or self.seconds <= LONG_SECONDS:
            return ()
        return (f"the comparison with autograd took {self.seconds:.1f} s; --no-verify leaves it out",)

    def require(self, what: str) -> None:
        """Raise VerificationError, saying of what, if it does not hold."""
        if self.holds is False:
            raise VerificationError(
                f"{what} disagrees with autograd's W_hh.grad: expected a relative error of at most "
                f"{self.tolerance:g} of the gradient's magnitude; got {self.relative_error:.3g} of its norm. "
                "Please report this with the command that shows it"
            )


def timed(compare: Callable[[], T]) -> tuple[T, float]:
    """What a comparison gives, and the seconds that it took."""
    began = _clock()
    return compare(), _clock() - began


# What results say of it, by name.
AGREEMENT_KINDS: Mapping[str, Kind] = {
    "autograd_relative_error": float,
    "autograd_tolerance": float,
    "states": ("sweep", "model"),
}


def scalars_of(agreement: Agreement | None) -> dict[str, float | str | None]:
    """What a result says of it, by name; None where autograd was not asked."""
    return {
        "autograd_relative_error": agreement.relative_error if agreement else None,
        "autograd_tolerance": agreement.tolerance if agreement else None,
        "states": agreement.states if agreement else "sweep",
    }


def why_not_compared(agreement: Agreement | None) -> Mapping[str, str]:
    """Of each of these that is None, why."""
    why = NOT_ASKED if agreement is None else agreement.why
    return {} if why is None else {"autograd_relative_error": why, "autograd_tolerance": why}


def compared(
    found: Tensor, expected: Tensor, magnitude: float, tolerance: float, states: str, dtype: torch.dtype | None = None
) -> Agreement:
    """How well a sum of contributions agrees with what autograd says.

    Args:
        found, expected: shape of the weight.
        magnitude: an upper bound of their norm that cancelling terms do not shrink.
        tolerance: rounding that is allowed, as a share of the magnitude.
        states: as of ``Agreement``.
        dtype: the narrowest in which autograd's gradient was computed; that of ``expected`` if left out.
    """
    computed_in = dtype or expected.dtype
    expected = expected.to(found.dtype)
    if not torch.isfinite(expected).all():
        why = f"autograd's own gradient is not finite in {plain(computed_in)}"
        return Agreement(None, tolerance, None, states, why)
    error, norm = (float(torch.linalg.vector_norm(part)) for part in (found - expected, expected))
    if error == 0 and norm == 0:
        return Agreement(None, tolerance, None, states, "nothing to compare: both are 0")
    holds = error <= tolerance * magnitude
    if not holds and _is_lost(found, expected, computed_in):
        why = f"in {plain(computed_in)} W_hh.grad has lost its digits to underflow"
        return Agreement(None, tolerance, None, states, why)
    return Agreement(error / norm if norm > 0 else math.inf, tolerance, holds, states)


def _is_lost(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether gradients of any shape are so small that a dtype has not all its digits for them."""
    largest = max(float(part.abs().max()) for part in (found, expected))
    return largest < UNDERFLOW_MARGIN * torch.finfo(dtype).smallest_normal
