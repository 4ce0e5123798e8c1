"""The norm of many step Jacobians diag(f'(a_t)) W_hh at once."""

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.recurrence.scaling import power_of_two, times_power_of_two

# Dimension of the Krylov space: exact up to so many units. Above, the norm comes out low by 1e-8 for
# a random W_hh and by up to 5e-5 where singular values crowd at the top (orthogonal, slopes near 1).
KRYLOV = 32
BASIS_BYTES = 1 << 25
ROUNDING = 1e-14


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
    norms = [_largest(chunk.square(), scaled) for chunk in chunks]
    return times_power_of_two(torch.cat(norms), exponent)


def _largest(slope_squared: Tensor, W_hh: Tensor) -> Tensor:
    """sqrt of the largest eigenvalue of W_hh^T diag(slope_squared) W_hh, per row."""
    count, hidden = slope_squared.shape
    size = min(hidden, KRYLOV)
    basis = W_hh.new_zeros(count, size, hidden)
    alpha, beta = W_hh.new_zeros(2, count, size)
    v = torch.randn(hidden, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = (v / v.norm()).expand(count, hidden)
    for j in range(size):
        basis[:, j] = v
        w = ((v @ W_hh.t()) * slope_squared) @ W_hh
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
    return largest.clamp_min(0).sqrt()


def _orthogonal_to(basis: Tensor, w: Tensor) -> Tensor:
    """w less its part in the span of the basis, shape (count, hidden); twice is enough."""
    for _ in range(2):
        w = w - torch.einsum("njh,nj->nh", basis, torch.einsum("njh,nh->nj", basis, w))
    return w
