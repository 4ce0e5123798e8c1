"""Eigenvalues of a matrix beside its singular values and its powers, and what they together say."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from rnnctl.dynamics.transient import TransientGrowth, transient_growth
from rnnctl.recurrence.radius_error import eigen
from rnnctl.recurrence.scaling import power_of_two, times_power_of_two

# What results say of one matrix, by name; and why one of these may have no value.
OF_MATRIX = ("spectral_radius", "spectral_norm", "condition_number", "departure_from_normality", "relative_departure")
WHY_OF_MATRIX = {"condition_number": "a matrix of zeros has none"}
OF_GROWTH = ("transient_growth", "transient_growth_step")


@dataclass(frozen=True, eq=False)
class SquareMatrix:
    """What one square W_hh says by itself.

    Attributes:
        eigenvalues: by falling modulus, shape (hidden,), complex128.
        singular_values: falling, shape (hidden,), float64.
        radius_error: the true spectral radius is within this of the largest modulus.
        growth: how far its powers grow.
    """

    eigenvalues: Complex[Tensor, " hidden"]
    singular_values: Float[Tensor, " hidden"]
    radius_error: float
    growth: TransientGrowth

    @classmethod
    def of(cls, W: Float[Tensor, "hidden hidden"], dtype: torch.dtype) -> "SquareMatrix":
        """Of a finite float64 matrix, shape (hidden, hidden), whose entries were rounded to a dtype."""
        found = eigen(W, dtype)
        growth = transient_growth(W, found, dtype)
        return cls(found.values, torch.linalg.svdvals(W), found.radius_error, growth)

    @property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One record per eigenvalue: i, real, imag, modulus, and the i-th singular_value."""
        values = zip(self.eigenvalues.tolist(), self.singular_values.tolist(), strict=True)
        return tuple(
            {"i": i, "real": value.real, "imag": value.imag, "modulus": abs(value), "singular_value": singular}
            for i, (value, singular) in enumerate(values)
        )

    @property
    def scalars(self) -> Mapping[str, float | None]:
        """Name -> number; None where a quantity has no value here."""
        departure, relative = departure_from_normality(self.eigenvalues, self.singular_values)
        return {
            "spectral_radius": float(self.eigenvalues[0].abs()),
            "spectral_radius_error": self.radius_error,
            "spectral_norm": float(self.singular_values[0]),
            "condition_number": condition_number(self.singular_values),
            "departure_from_normality": departure,
            "relative_departure": relative,
            "transient_growth": self.growth.norm,
            "transient_growth_step": self.growth.step,
        }

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every one of these that is None."""
        return {**WHY_OF_MATRIX, **dict.fromkeys(OF_GROWTH, self.growth.why)}


def condition_number(singular_values: Float[Tensor, " hidden"]) -> float | None:
    """The largest over the smallest of them, which come falling; None of a matrix of zeros."""
    largest, smallest = float(singular_values[0]), float(singular_values[-1])
    return largest / smallest if smallest > 0 else math.inf if largest > 0 else None


def departure_from_normality(
    eigenvalues: Complex[Tensor, " hidden"], singular_values: Float[Tensor, " hidden"]
) -> tuple[float, float]:
    """sqrt(||W||_F^2 - sum |eigenvalue|^2), and the same over ||W||_F; 0 for a normal matrix.

    Args:
        eigenvalues, singular_values: of one matrix, shape (hidden,) each.
    Source: Henrici 1962, "Bounds for iterates, inverses, spectral variation and fields of values".
    """
    # Near 1, so that the squares stay within float64; the departure itself is scaled back at the end.
    exponent = power_of_two(singular_values) or 0
    total = float(times_power_of_two(singular_values, -exponent).square().sum())
    moduli = times_power_of_two(eigenvalues.abs(), -exponent)
    rest = total - float(moduli.square().sum())
    # A difference of rounding alone would show as 1e-8 after the root.
    known = total > 0 and rest > 4 * eigenvalues.shape[0] * torch.finfo(torch.float64).eps * total
    relative = math.sqrt(rest / total) if known else 0.0
    return math.ldexp(relative * math.sqrt(total), exponent), relative
