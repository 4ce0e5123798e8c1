"""How far the powers of W_hh grow before they fall: what its eigenvalues alone do not show."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.dynamics.jacobian import jacobian_norms
from rnnctl.recurrence.matrix import spectral_norm
from rnnctl.recurrence.radius_error import Eigen, half_spacing, usual_rounding
from rnnctl.recurrence.scaling import frobenius_norm
from rnnctl.recurrence.threads import one_thread

# So many multiply-adds are spent, a second or two of them, and so many powers are formed at most.
WORK, POWERS = 3e10, 1 << 17
# Powers that are formed in one product, and the numbers in them.
AT_ONCE, NUMBERS_AT_ONCE = 64, 1 << 20
# Above this size a few Lanczos steps find a norm sooner than all singular values do.
LANCZOS_ABOVE = 256
# As a share of a norm: what rounding may do to it before it is unknown; and what counts as the same norm.
KNOWN_WITHIN, SAME = 0.01, 1e-12

AT_ONE = "the spectral radius is 1 within its error: nothing tells whether the powers of W_hh grow without end"
ROUNDED = "rounding dominates the powers of W_hh"


@dataclass(frozen=True)
class TransientGrowth:
    """The largest ||W_hh^n||_2 over n >= 1.

    Attributes:
        norm: inf where they grow without end; None where nothing tells.
        step: the first n that has it; inf and None likewise.
        why: the reason where nothing tells.
    """

    norm: float | None
    step: int | float | None
    why: str = ""


def transient_growth(W: Float[Tensor, "hidden hidden"], eigen: Eigen, dtype: torch.dtype) -> TransientGrowth:
    """How many times longer a vector may become by powers of W before it vanishes.

    As soon as ||W^n|| <= 1 for some n, no later power exceeds the largest norm so far, since ||W^(n + m)|| <= ||W^m||.

    Args:
        W: finite, shape (hidden, hidden), float64.
        eigen: of W.
        dtype: what its entries were rounded to.
    Source: Trefethen & Embree 2005, "Spectra and Pseudospectra", section 16 (powers of matrices).
    """
    radius = float(eigen.values[0].abs())
    if radius - eigen.radius_error > 1:
        return TransientGrowth(math.inf, math.inf)
    with one_thread():
        return _largest(W, dtype, may_grow=radius + eigen.radius_error >= 1)


def _largest(W: Tensor, dtype: torch.dtype, may_grow: bool) -> TransientGrowth:
    longest, best, step, done, known_to = W, _norm(W), 1, 0, usual_rounding(W, dtype)
    # Of W^0, W^1, ..., at most.
    sizes, checked = [1.0], 0
    for powers in _powers(W):
        if not bool(torch.isfinite(powers).all()):
            break
        bounds = torch.linalg.matrix_norm(powers).tolist()
        norms = _norms_above(best, powers, bounds)
        if norms and max(norms.values()) > best * (1 + SAME):
            best = max(norms.values())
            first = min(i for i, norm in norms.items() if norm >= best * (1 - SAME))
            longest, step = powers[first], done + 1 + first
        sizes += [min(bound, best) for bound in bounds]
        done += len(powers)
        if step != checked and not _is_known(W, dtype, sizes[:step], best, known_to):
            return TransientGrowth(None, None, ROUNDED)
        checked = step
        last = _last_norm(powers[-1], bounds[-1], norms.get(len(powers) - 1))
        if last <= 1 + KNOWN_WITHIN:
            slack = known_to * _changes(sizes[:done])
            if may_grow and slack > KNOWN_WITHIN:
                return TransientGrowth(None, None, ROUNDED)
            if last <= 1 + min(slack, KNOWN_WITHIN):
                return TransientGrowth(spectral_norm(longest), step)
    unsettled = f"not settled in the {done} powers that were formed: ||W_hh^{step}|| = {best:.4g} is their largest"
    return TransientGrowth(None, None, AT_ONE if may_grow else unsettled)


def _changes(sizes: list[float]) -> float:
    """By how many ||E|| a power changes with W at first order: the norm of sum_i W^i E W^(n - 1 - i), at most.

    Args:
        sizes: of W^0 .. W^(n - 1).
    """
    return sum(one * other for one, other in zip(sizes, reversed(sizes), strict=True))


def _is_known(W: Tensor, dtype: torch.dtype, sizes: list[float], norm: float, known_to: float) -> bool:
    """Whether rounding leaves the norm of a power as it is, of W^0 .. W^(n - 1) the sizes being known."""
    if known_to * _changes(sizes) <= KNOWN_WITHIN * norm:
        return True
    # Where terms do not cancel, as in a chain, no entry loses more than those of |W|^n.
    step = len(sizes)
    share = step * (half_spacing(dtype) + len(W) * torch.finfo(torch.float64).eps)
    return share * frobenius_norm(torch.linalg.matrix_power(W.abs(), step)) <= KNOWN_WITHIN * norm


def _powers(W: Tensor) -> Iterator[Tensor]:
    """W, W^2, W^3 .. W^4, W^5 .. W^8 and so on, then as many each time, shape (count, hidden, hidden) each."""
    hidden = len(W)
    count = max(1, min(AT_ONCE, NUMBERS_AT_ONCE // hidden**2))
    left = min(POWERS, int(WORK // hidden**3))
    powers = W.unsqueeze(0)
    yield powers
    first = powers
    while len(first) < count:
        powers = (first @ first[-1])[: count - len(first)]
        first = torch.cat([first, powers])
        yield powers
    powers = first
    for _ in range(left // count - 1):
        powers = powers @ first[-1]
        yield powers


def _norms_above(best: float, powers: Tensor, bounds: list[float]) -> dict[int, float]:
    """The norms of those powers whose norm may be the largest so far, by index; at most ``bounds``."""
    found: dict[int, float] = {}
    for i in sorted(range(len(powers)), key=lambda i: -bounds[i]):
        if bounds[i] <= best:
            break
        found[i] = _norm(powers[i])
        best = max(best, found[i])
    return found


def _norm(power: Tensor) -> float:
    if len(power) <= LANCZOS_ABOVE:
        return spectral_norm(power)
    return float(jacobian_norms(power.new_ones(1, len(power)), power))


def _last_norm(power: Tensor, bound: float, norm: float | None) -> float:
    """The norm of a power, where it is not known yet; inf where its Frobenius norm shows that it is above 1."""
    if bound > (1 + KNOWN_WITHIN) * math.sqrt(len(power)):
        return math.inf
    return _norm(power) if norm is None else norm
