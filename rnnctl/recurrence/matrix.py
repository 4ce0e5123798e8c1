"""Numbers of W_hh that need no trajectory."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.recurrence.radius_error import eigen
from rnnctl.recurrence.threads import one_thread


def spectral_radius(W_hh: Float[Tensor, "hidden hidden"]) -> float:
    """max |eigenvalue| of W_hh, in float64; NaN where W_hh is not finite.

    Args:
        W_hh: shape (hidden, hidden).
    """
    return spectral_radius_and_error(W_hh)[0]


def spectral_radius_and_error(W_hh: Float[Tensor, "hidden hidden"]) -> tuple[float, float]:
    """The same, and how far it may be from that of what was rounded to the dtype of W_hh; NaN both.

    Args:
        W_hh: shape (hidden, hidden), of any dtype.
    """
    wide = W_hh.detach().cpu().double()
    # On a NaN, LAPACK's eigenvalues crash or lie.
    if not torch.isfinite(wide).all():
        return math.nan, math.nan
    found = eigen(wide, W_hh.dtype)
    return float(found.values[0].abs()), found.radius_error


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
