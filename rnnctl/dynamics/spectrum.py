"""Eigenvalues and singular values of W_hh."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def spectral_radius(W_hh: Float[Tensor, "hidden hidden"]) -> float:
    """max |eigenvalue| of W_hh, in float64; NaN where W_hh is not finite.

    Args:
        W_hh: shape (hidden, hidden).
    """
    wide = _wide(W_hh)
    # On a NaN, LAPACK's eigenvalues crash or lie.
    if not torch.isfinite(wide).all():
        return math.nan
    return float(torch.linalg.eigvals(wide).abs().max())


def spectral_norm(W_hh: Float[Tensor, "hidden hidden"]) -> float:
    """The largest singular value of W_hh, in float64; NaN where W_hh is not finite.

    Args:
        W_hh: shape (hidden, hidden).
    """
    wide = _wide(W_hh)
    if not torch.isfinite(wide).all():
        return math.nan
    return float(torch.linalg.svdvals(wide).max())


def _wide(W_hh: Tensor) -> Tensor:
    return W_hh.detach().cpu().double()
