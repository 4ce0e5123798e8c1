"""Two numbers of W_hh that need no trajectory."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.recurrence.threads import one_thread


def spectral_radius(W_hh: Float[Tensor, "hidden hidden"]) -> float:
    """max |eigenvalue| of W_hh, in float64; NaN where W_hh is not finite.

    Args:
        W_hh: shape (hidden, hidden).
    """
    wide = W_hh.detach().cpu().double()
    # On a NaN, LAPACK's eigenvalues crash or lie.
    if not torch.isfinite(wide).all():
        return math.nan
    with one_thread():
        return float(torch.linalg.eigvals(wide).abs().max())


def spectral_norm(W_hh: Float[Tensor, "hidden fed_back"]) -> float:
    """The largest singular value of W_hh, in float64; NaN where W_hh is not finite.

    Args:
        W_hh: shape (hidden, hidden), of a projected cell (hidden, proj).
    """
    wide = W_hh.detach().cpu().double()
    # Singular values of a NaN raise instead of being NaN.
    if not torch.isfinite(wide).all():
        return math.nan
    with one_thread():
        return float(torch.linalg.svdvals(wide).max())
