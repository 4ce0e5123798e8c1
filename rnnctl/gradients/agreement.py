"""How well a sum of contributions agrees with autograd: the one formula for it, and how much rounding it allows."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnctl.errors import VerificationError

# Of the gradient's uncancelled magnitude: rounding of T accumulated steps, with room.
TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 1e-5,
    torch.bfloat16: 5e-2,
    torch.float16: 1e-2,
}


@dataclass(frozen=True)
class Agreement:
    """How well sum G_t agrees with ``W_hh.grad``.

    Attributes:
        relative_error: ||sum G_t - W_hh.grad|| / ||W_hh.grad||; NaN where autograd overflowed.
        tolerance: what ``holds`` allows, relative to sum over t of ||dL/dh_t|| ||h_{t-1}||, an
            upper bound of ||W_hh.grad|| that cancelling terms do not shrink.
        holds: within the tolerance.
        states: "sweep" if the sweep ran along its own hidden states, "model" if along those
            of the model's own forward pass.
    """

    relative_error: float
    tolerance: float
    holds: bool
    states: str

    def require(self, what: str) -> None:
        """Raise VerificationError, saying of what, unless it holds."""
        if not self.holds:
            raise VerificationError(
                f"{what} disagrees with autograd's W_hh.grad: expected a relative error of at most "
                f"{self.tolerance:g} of the gradient's magnitude; got {self.relative_error:.3g} of its norm. "
                "Please report this with the command that shows it"
            )


def scalars_of(agreement: Agreement | None) -> dict[str, float | str | None]:
    """What a result says of it, by name; None where autograd was not asked."""
    return {
        "autograd_relative_error": agreement.relative_error if agreement else None,
        "autograd_tolerance": agreement.tolerance if agreement else None,
        "states": agreement.states if agreement else "sweep",
    }


def compared(found: Tensor, expected: Tensor, magnitude: float, tolerance: float, states: str) -> Agreement:
    """How well a sum of contributions agrees with what autograd says.

    Args:
        found, expected: shape of the weight.
        magnitude: an upper bound of their norm that cancelling terms do not shrink.
        tolerance: rounding that is allowed, as a share of the magnitude.
        states: as of ``Agreement``.
    """
    expected = expected.to(found.dtype)
    if not torch.isfinite(expected).all():
        # Nothing to compare with: autograd itself left the range of the dtype.
        return Agreement(math.nan, tolerance, True, states)
    error = float(torch.linalg.vector_norm(found - expected))
    norm = float(torch.linalg.vector_norm(expected))
    relative = error / norm if norm > 0 else (0.0 if error == 0 else math.inf)
    return Agreement(relative, tolerance, error <= tolerance * magnitude, states)
