"""Eigenvalues of a matrix beside its singular values, and what the two together say."""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from rnnctl.recurrence.scaling import power_of_two, times_power_of_two
from rnnctl.recurrence.threads import one_thread

# What results say of one matrix, by name; and why one of these may have no value.
OF_MATRIX = ("spectral_radius", "spectral_norm", "condition_number", "departure_from_normality", "relative_departure")
WHY_OF_MATRIX = {"condition_number": "a matrix of zeros has none"}


def eigenvalues_by_modulus(W: Float[Tensor, "hidden hidden"]) -> Complex[Tensor, " hidden"]:
    """By falling modulus, then real part, then imaginary part: conjugates side by side.

    Args:
        W: finite, shape (hidden, hidden), float64.
    """
    with one_thread():
        found = torch.linalg.eigvals(W).tolist()
    found.sort(key=lambda value: (-abs(value), -value.real, -value.imag))
    return torch.tensor(found, dtype=torch.complex128)


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
