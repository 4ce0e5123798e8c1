"""Norms and spectral radii of many step Jacobians at once."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.recurrence.scaling import power_of_two, times_power_of_two
from rnnctl.recurrence.slopes import StepMaps

# Dimension of the Krylov space: exact up to so many units. Above, the norm comes out low by 1e-8 for
# a random W_hh and by up to 5e-5 where singular values crowd at the top (orthogonal, slopes near 1).
KRYLOV = 32
# Bytes of the Krylov bases that are held at a time: so many Jacobians are taken together.
BASIS_BYTES = 1 << 25
# A vector shorter than this, relative to the first ones, is what reorthogonalisation leaves of nothing.
ROUNDING = 1e-14
# A record of one step, with its numbers; measured, it was 450 to 560.
RECORD_BYTES = 512


def measuring_bytes(steps: int, batch: int, state: int) -> int:
    """What the Krylov bases of a trajectory take at a time, and the records of all its steps."""
    bases = min(BASIS_BYTES, 8 * steps * batch * state * min(state, KRYLOV))
    return 4 * bases + RECORD_BYTES * steps


def jacobian_norms(
    slope: Float[Tensor, "count hidden"], W_hh: Float[Tensor, "hidden hidden"]
) -> Float[Tensor, " count"]:
    """||diag(slope) W_hh||_2 for every row of slopes, without forming a matrix for each.

    Args:
        slope: f'(a), shape (count, hidden), finite.
        W_hh: shape (hidden, hidden), finite.
    Returns:
        Largest singular values, shape (count,), float64; above KRYLOV units low by 5e-5 of them at most.
    Source: Lanczos 1950, on J^T J with full reorthogonalisation.
    """
    # J^T J squares every magnitude: W_hh is brought near 1 first.
    exponent = power_of_two(W_hh) or 0
    scaled = times_power_of_two(W_hh, -exponent)
    hidden = W_hh.shape[0]
    rows = max(1, BASIS_BYTES // (8 * hidden * min(hidden, KRYLOV)))
    chunks = (slope[start : start + rows] for start in range(0, slope.shape[0], rows))
    norms = [_largest(_elman_square(chunk.square(), scaled), *chunk.shape) for chunk in chunks]
    return times_power_of_two(torch.cat(norms), exponent)


def tangent_norms(J: StepMaps) -> Float[Tensor, " count"]:
    """||J||_2 of any cell's maps, without forming a matrix for each.

    Args:
        J: with one leading axis, (count), finite.
    Returns:
        As of ``jacobian_norms``; inf where J leaves float64.
    """
    state = J.state_size
    rows = max(1, BASIS_BYTES // (8 * state * min(state, KRYLOV)))
    return torch.cat([_scaled_norms(J[start : start + rows]) for start in range(0, len(J), rows)])


def spectral_radii(J: StepMaps) -> Float[Tensor, " count"]:
    """max |eigenvalue| of every J, which is formed: for small states.

    Args:
        J: with one leading axis, (count).
    Returns:
        Shape (count,), float64; inf where J leaves float64.
    """
    rows = max(1, BASIS_BYTES // (8 * J.state_size**2))
    return torch.cat([_radii(J[start : start + rows].matrices()) for start in range(0, len(J), rows)])


def _radii(J: Tensor) -> Tensor:
    finite = torch.isfinite(J).flatten(1).all(dim=1)
    # LAPACK is not asked about what is not finite.
    moduli = torch.linalg.eigvals(torch.where(finite[:, None, None], J, 0.0)).abs()
    return torch.where(finite, moduli.amax(dim=1), torch.inf)


def _scaled_norms(J: StepMaps) -> Tensor:
    """The norms, every J brought near 1 first, since J^T J squares its magnitude."""
    v = _first_vector(J.state_size).expand(len(J), -1).unsqueeze(2)
    size = J(v).abs().amax(dim=(1, 2))
    finite = torch.isfinite(size)
    # Clamped, so that neither the scale nor its inverse leaves float64.
    exponent = torch.where(finite & (size > 0), size, 1.0).log2().ceil().clamp(-1000, 1000)
    scale = torch.exp2(-exponent)[:, None, None]

    def square(v: Tensor) -> Tensor:
        product = J.transposed(scale * J(v.unsqueeze(2))) * scale
        return torch.where(finite.unsqueeze(1), product.squeeze(2), 0.0)

    norms = torch.ldexp(_largest(square, len(J), J.state_size), exponent)
    return torch.where(finite, norms, torch.inf)


def _elman_square(slope_squared: Tensor, W_hh: Tensor) -> Callable[[Tensor], Tensor]:
    """W_hh^T diag(slope_squared) W_hh, per row."""
    return lambda v: ((v @ W_hh.t()) * slope_squared) @ W_hh


def _first_vector(size: int) -> Tensor:
    # Random, to have a part along every singular vector; of a fixed seed, to give the same norm at every call.
    v = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.div(v, v.norm())


def _largest(square: Callable[[Tensor], Tensor], count: int, state: int) -> Tensor:
    """sqrt of the largest eigenvalue of J^T J, which ``square`` applies to one vector a row."""
    size = min(state, KRYLOV)
    v = _first_vector(state).expand(count, state)
    basis = v.new_zeros(count, size, state)
    alpha, beta = v.new_zeros(2, count, size)
    for j in range(size):
        basis[:, j] = v
        w = square(v)
        alpha[:, j] = (w * v).sum(dim=1)
        w = _orthogonal_to(basis[:, : j + 1], w)
        beta[:, j] = w.norm(dim=1)
        # What is left may be rounding alone: the space is exhausted then, and zeros add nothing.
        real = beta[:, j] > ROUNDING * (alpha[:, 0] + beta[:, 0])
        beta[:, j] *= real
        v = torch.where(real, 1 / beta[:, j], 0.0).unsqueeze(1) * w
    off = beta[:, :-1]
    tridiagonal = alpha.diag_embed() + off.diag_embed(1) + off.diag_embed(-1)
    largest: Tensor = torch.linalg.eigvalsh(tridiagonal)[:, -1]
    # Of a map to 0 rounding may leave the largest eigenvalue just below it.
    return largest.clamp_min(0).sqrt()


def _orthogonal_to(basis: Tensor, w: Tensor) -> Tensor:
    """w less its part in the span of the basis, shape (count, hidden); twice is enough."""
    for _ in range(2):
        w = w - torch.einsum("njh,nj->nh", basis, torch.einsum("njh,nh->nj", basis, w))
    return w
