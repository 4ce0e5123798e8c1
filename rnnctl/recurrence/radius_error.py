"""How far the spectral radius of a matrix may be from the one shown, its entries being known to their rounding alone.

What can be meant is any W + E with ||E||_2 <= ``rounding``. Its eigenvalues lie where ||(zI - W)^-1|| >= 1 / rounding,
in the pseudospectrum, and every separate part of that holds as many of them for each such E. With the condition
numbers k_i of the eigenvalues, sum_i k_i / |z - eigenvalue_i| bounds that norm: where the eigenvectors are far from
parallel, well. Where they are not (Jordan blocks, long feed-forward chains), ``resolvent`` looks at the norm itself.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from rnnctl.recurrence.resolvent import LARGEST, UNSURE, Outermost, outermost_by_circles
from rnnctl.recurrence.scaling import frobenius_norm, power_of_two, times_power_of_two
from rnnctl.recurrence.threads import one_thread

# The backward error of LAPACK's eigenvalues over eps ||W||_F: at most 1.9 was measured for Jordan blocks, 7.4 for
# symmetric matrices of 256 units. Above 64 units the root of their number is taken, which leaves as much to spare.
LAPACK = 8.0
# Entries of which more than this share, or more than so many, are different numbers are rounded each by itself.
DIFFERENT, MANY = 0.9, 64
# Spacings relative to 1 above this (float16, bfloat16) are so wide that the worst E moves the eigenvalues of any
# large matrix by as much as they are; then that of a usual E counts, whose entries are rounded each by itself.
WIDE = 1e-6
# A share of the norm: what is further than this from c times an orthogonal matrix is none that was rounded.
NORMAL = 1e-5
# How many times a usual change of the outermost eigenvalue fits between it and the next: of eigenvalues that rounding
# alone has parted, which lie on a ring of radius r at 2 pi r / n and have moved by r / n, it does so 6 times.
APART = 16.0
# How many times the usual change is allowed for: that of a normal variable is beyond once in 16,000.
UNUSUAL = 4.0


@dataclass(frozen=True)
class Eigen:
    """Eigenvalues of one matrix.

    Attributes:
        values: by falling modulus, then real part, then imaginary part, shape (hidden,), complex128.
        radius_error: the true radius is within this of the largest modulus.
    """

    values: Complex[Tensor, " hidden"]
    radius_error: float


def eigen(W: Float[Tensor, "hidden hidden"], dtype: torch.dtype) -> Eigen:
    """The eigenvalues, conjugates side by side, and how well their radius is known.

    Args:
        W: finite, shape (hidden, hidden), float64.
        dtype: what its entries were rounded to.
    Source: Trefethen & Embree 2005, "Spectra and Pseudospectra", sections 2 and 52 (condition numbers).
    """
    # Near 1, so that no norm leaves float64.
    exponent = power_of_two(W) or 0
    near_one = times_power_of_two(W, -exponent)
    with one_thread():
        values, conditions = _values_and_conditions(near_one)
        given = values.tolist()
        order = sorted(range(len(given)), key=lambda i: (-abs(given[i]), -given[i].real, -given[i].imag))
        values, conditions = values[order], conditions[order]
        error = _radius_error(near_one, values, conditions, dtype)
    values = torch.view_as_complex(times_power_of_two(torch.view_as_real(values), exponent))
    return Eigen(values, float(times_power_of_two(torch.tensor(error, dtype=torch.float64), exponent)))


def half_spacing(dtype: torch.dtype) -> float:
    """By what share of itself a number may have changed when it was rounded to a dtype."""
    return torch.finfo(dtype).eps / 2


def rounding(W: Float[Tensor, "hidden hidden"], dtype: torch.dtype) -> float:
    """||E||_2 at most, of what storing the entries and LAPACK together do to W, in W's own units.

    Args:
        W: finite, shape (hidden, hidden), float64.
        dtype: what its entries were rounded to.
    """
    # Each entry by half_spacing of itself at most, so that of ||W||_F is a bound, too.
    return half_spacing(dtype) * frobenius_norm(W) + _lapack(W)


def usual_rounding(W: Float[Tensor, "hidden hidden"], dtype: torch.dtype) -> float:
    """The same of entries that are rounded each by itself: hardly ever more than the longest row and column together.

    Args:
        W, dtype: as of ``rounding``, W of shape (hidden, hidden).
    Source: Latala 2005, "Some estimates of norms of random matrices"; Bandeira & van Handel 2016, arXiv:1408.6185.
    """
    entries = W[W != 0].abs()
    different = torch.unique(entries).numel()
    if different <= min(MANY, DIFFERENT * entries.numel()):
        # Equal entries are rounded by the same amount.
        return rounding(W, dtype)
    # A half spacing is sqrt(3) times the standard deviation of what rounding does.
    longest = sum(frobenius_norm(M[int(torch.linalg.vector_norm(M, dim=1).argmax())]) for M in (W, W.T))
    return half_spacing(dtype) * min(frobenius_norm(W), longest) + _lapack(W)


def _lapack(W: Tensor) -> float:
    factor = max(LAPACK, math.sqrt(W.shape[0])) * torch.finfo(torch.float64).eps
    return factor * frobenius_norm(W)


def _values_and_conditions(W: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and their condition numbers 1 / |left . right|, inf where the eigenvectors do not span the space."""
    values, vectors = _decomposed(W)
    # Its rows are left eigenvectors.
    inverse, failed = torch.linalg.inv_ex(vectors)
    conditions = torch.linalg.vector_norm(inverse, dim=1)
    known = not failed and bool(torch.isfinite(conditions).all())
    return values, conditions if known else torch.full_like(conditions, math.inf)


def _decomposed(W: Tensor) -> tuple[Tensor, Tensor]:
    try:
        found: tuple[Tensor, Tensor] = torch.linalg.eig(W)
        return found
    except RuntimeError:
        # A LinAlgError: torch's LAPACK gives up on 20 x 20 ones; NumPy's is another one.
        values, vectors = np.linalg.eig(W.numpy())
        return torch.from_numpy(values).to(torch.complex128), torch.from_numpy(vectors).to(torch.complex128)


def _radius_error(W: Tensor, values: Tensor, conditions: Tensor, dtype: torch.dtype) -> float:
    radius = float(values[0].abs())
    if _is_triangular(W):
        # No zero is rounded: the eigenvalues are the diagonal, each known as well as its entry.
        true = float(W.diagonal().abs().max())
        return abs(true - radius) + half_spacing(dtype) * true
    # A large matrix is not looked at on circles, and disks of the worst E hold one another.
    known_to = rounding(W, dtype) if len(values) <= LARGEST else usual_rounding(W, dtype)
    found = Outermost.of(values, conditions, known_to).within(*_of_any_matrix(W, known_to))
    if (away := _away_from_normal(W)) is not None:
        # Of a normal matrix no eigenvalue moves by more than E is long (Bauer and Fike): neither the true ones nor
        # LAPACK's. Of equal ones any vectors of their space are eigenvectors, of no telling condition.
        radii = torch.full_like(conditions, 2 * (known_to + away))
        normal = Outermost.in_disks(values, radii, torch.zeros_like(radii, dtype=torch.bool))
        found = found.within(normal.inner, normal.outer)
    if found.error(radius) <= UNSURE * radius:
        return found.error(radius)
    if half_spacing(dtype) > WIDE and (usual := _usual_error(W, values, conditions, dtype)) is not None:
        return usual
    if len(values) <= LARGEST:
        found = outermost_by_circles(W, values, conditions, known_to, found)
    return found.error(radius)


def _of_any_matrix(W: Tensor, known_to: float) -> tuple[float, float]:
    """Between which the radius lies whatever the eigenvectors are: the modulus of the mean, and the norm."""
    mean = abs(float(W.trace())) / W.shape[0]
    return mean - known_to, float(torch.linalg.matrix_norm(W, ord=2)) + known_to


def _away_from_normal(W: Tensor) -> float | None:
    """The 2-norm at most of what parts W from a normal matrix, where that is a symmetric or an orthogonal one."""
    if torch.equal(W, W.T):
        return 0.0
    gram = W.T @ W
    scale = float(gram.diagonal().mean())
    # Singular values of scale**0.5 (1 + t) are of scale (1 + 2 t + t**2).
    away = frobenius_norm(gram - scale * torch.eye(len(W), dtype=W.dtype)) / math.sqrt(scale)
    return away if away <= NORMAL * math.sqrt(scale) else None


def _usual_error(W: Tensor, values: Tensor, conditions: Tensor, dtype: torch.dtype) -> float | None:
    """What entries that are rounded each by itself do to the radius; None where they may have parted eigenvalues."""
    entry = half_spacing(dtype) * frobenius_norm(W) / len(W)
    changes = conditions * (entry + _lapack(W))
    gap = float((values[1:] - values[0]).abs().min())
    if not APART * float(changes[0]) <= gap:
        return None
    # Another one may have been the outermost.
    return float((values.abs() + UNUSUAL * changes).max()) - float(values[0].abs())


def _is_triangular(W: Tensor) -> bool:
    """Whether W is so under some order of the units: none of them leads back to itself past another."""
    leads = (W != 0).fill_diagonal_(False)
    left = torch.ones(len(W), dtype=torch.bool)
    while left.any():
        ends = left & ~leads[:, left].any(dim=1)
        if not ends.any():
            return False
        left &= ~ends
    return True
