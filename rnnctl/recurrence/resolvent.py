"""Where the outermost eigenvalue of a matrix may lie, told by the norm of its resolvent (zI - W)^-1.

For all perturbations E of at most ``known_to`` (in the 2-norm) no eigenvalue of W + E lies where that norm is below
1 / known_to. A circle on which it is below that keeps what is within from what is without, for every E.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# A share of the radius: what is known less well is worth this look.
UNSURE = 1e-3
# Matrices up to this size are looked at on circles: some 200 decompositions.
LARGEST = 512
# Of 1 / known_to, what the norm may be on a circle between whose points nobody has looked.
CLEAR = 0.25
# Points on half a circle, spread evenly, and at the angles of so many of the eigenvalues that matter most there.
POINTS, AT_EIGENVALUES = 9, 8
# Halvings of a range of magnitudes, of which some tens come down to a hundredth.
BISECTIONS = 14
# Circles at 2**-1 .. 2**-HALVINGS of the way.
HALVINGS = 15


@dataclass(frozen=True)
class Outermost:
    """Between which moduli the outermost eigenvalue of every W + E lies."""

    inner: float
    outer: float

    @classmethod
    def of(cls, values: Tensor, conditions: Tensor, known_to: float) -> "Outermost":
        """By the condition numbers, since ||(zI - W)^-1|| <= sum_i conditions_i / |z - values_i|.

        Args:
            values: by falling modulus, shape (count,), complex128.
            conditions: of each, shape (count,), float64.
            known_to: ||E||_2 at most.
        """
        return cls.in_disks(values, *_disks(values, conditions, known_to))

    @classmethod
    def in_disks(cls, values: Tensor, radii: Tensor, is_alone: Tensor) -> "Outermost":
        """By disks around the eigenvalues of W which together hold those of every W + E.

        Args:
            values: by falling modulus, shape (count,), complex128.
            radii: of the disks, shape (count,), float64.
            is_alone: which disks hold one eigenvalue each, shape (count,), bool.
        """
        moduli = values.abs()
        # Several disks that touch hold as many eigenvalues as they are, somewhere.
        inner = [float((moduli - radii)[_touching(values, radii)].min()), *(moduli - radii)[is_alone].tolist()]
        return cls(max(0.0, *inner), float((moduli + radii).max()))

    def within(self, inner: float, outer: float) -> "Outermost":
        """The same, with what else is known."""
        return Outermost(max(self.inner, inner), min(self.outer, outer))

    def error(self, radius: float) -> float:
        """How far from this radius the outermost one may be."""
        return max(self.outer - radius, radius - self.inner, 0.0)


def _disks(values: Tensor, conditions: Tensor, known_to: float) -> tuple[Tensor, Tensor]:
    """Radii of disks around the eigenvalues which together hold those of every W + E; and which hold one each."""
    gaps = (values.unsqueeze(1) - values).abs()
    if not bool(torch.isfinite(conditions).all()):
        return torch.full_like(conditions, math.inf), torch.zeros_like(conditions, dtype=torch.bool)
    radii = _reaches(gaps / 2, conditions, known_to)
    return radii, (gaps.fill_diagonal_(math.inf) > radii.unsqueeze(1) + radii).all(dim=1)


def _reaches(halves: Tensor, conditions: Tensor, known_to: float) -> Tensor:
    """How far from the nearest eigenvalue the sum may still be 1 / known_to, for each of them, shape (count,).

    Args:
        halves: half the distance of every two eigenvalues, (count, count).
    """
    # Where the sum is 1 / known_to, one of its terms is that over their number.
    low, high = known_to * conditions, (len(conditions) * known_to * conditions.max()).expand_as(conditions)
    for _ in range(BISECTIONS):
        # Of magnitudes: the two may be many apart.
        middle = (low * high).sqrt()
        # From any point, each is at least as far away as the nearest, and as half of the way from that to it.
        reached = (conditions / torch.maximum(middle.unsqueeze(1), halves)).sum(dim=1) * known_to >= 1
        low, high = torch.where(reached, middle, low), torch.where(reached, high, middle)
    return high


def _touching(values: Tensor, radii: Tensor) -> Tensor:
    """Which disks hang together with the first one."""
    found = torch.zeros(len(values), dtype=torch.bool)
    new = found.clone()
    new[0] = True
    while new.any():
        found |= new
        distances = (values.unsqueeze(1) - values[new]).abs()
        new = (distances <= radii.unsqueeze(1) + radii[new]).any(dim=1) & ~found
    return found


def outermost_by_circles(W: Tensor, values: Tensor, conditions: Tensor, known_to: float, found: Outermost) -> Outermost:
    """The same of eigenvectors that are nearly parallel, by circles around 0.

    Args:
        W: near 1, shape (hidden, hidden), float64.
        values, conditions: of its eigenvalues by falling modulus, shape (hidden,) each.
        known_to: ||E||_2 at most.
        found: what is known without.
    """
    radius, circles = float(values[0].abs()), _Circles(W, values, conditions, known_to)
    if (outer := circles.outer_part()) is not None:
        found = found.within(outer.inner, outer.outer)
        if found.error(radius) <= UNSURE * radius:
            return found
    outward, inward = found.outer - radius, radius - found.inner
    return found.within(
        radius - inward * circles.nearest(lambda share: radius - inward * share),
        radius + outward * circles.nearest(lambda share: radius + outward * share),
    )


class _Circles:
    """The norm of the resolvent on circles around 0."""

    def __init__(self, W: Tensor, values: Tensor, conditions: Tensor, known_to: float) -> None:
        self.W, self.values, self.conditions, self.known_to = W, values, conditions, known_to

    def points(self, radius: float) -> Tensor:
        """Where a circle is looked at; on one half, since W is real."""
        terms = self.conditions / (self.values.abs() - radius).abs()
        terms = torch.where(self.values.imag >= 0, terms, 0.0)
        nearest = self.values[terms.topk(min(AT_EIGENVALUES, len(terms))).indices]
        even = torch.linspace(0, math.pi, POINTS, dtype=torch.float64)
        angles = torch.cat([even, nearest.angle()])
        return torch.polar(torch.full_like(angles, radius), angles)

    def norms(self, radius: float) -> Tensor:
        """||(zI - W)^-1|| at every point of a circle; inf where there is no inverse."""
        return torch.stack([_resolvent_norm(self.W, z) for z in self.points(radius)])

    def is_clear(self, radius: float) -> bool:
        """Whether no eigenvalue of any W + E crosses a circle."""
        return float(self.norms(radius).max()) * self.known_to <= CLEAR

    def nearest(self, radius_at: Callable[[float], float]) -> float:
        """The least of the shares 1, 1/2, 1/4, ... of the way at which the circle is clear, as it is known to be at 1.

        Args:
            radius_at: share of the way -> radius.
        """
        clear, crossed = 0, HALVINGS + 1
        while crossed - clear > 1:
            middle = (clear + crossed) // 2
            if self.is_clear(radius_at(2.0**-middle)):
                clear = middle
            else:
                crossed = middle
        return 2.0**-clear

    def outer_part(self) -> Outermost | None:
        """The outermost eigenvalue where those like it are well-conditioned and a circle parts them from the rest."""
        radius, count = self._inside()
        if radius <= 0:
            return None
        norms = self.norms(radius)
        outer, their_conditions = self.values[:count], self.conditions[:count]
        terms = (their_conditions / (self.points(radius).unsqueeze(1) - outer).abs()).sum(dim=1)
        # Without the outer eigenvalues' own terms the resolvent has no pole outside the circle and is largest on it.
        rest = float((norms + terms).max())
        if not rest * self.known_to <= 2 * CLEAR:
            return None
        # The outer terms must then reach 1 / known_to - rest, at least half of it, by themselves.
        return Outermost.of(outer, their_conditions, 2 * self.known_to).within(radius, math.inf)

    def _inside(self) -> tuple[float, int]:
        """A radius just below that of the outermost eigenvalues, and how many lie outside it."""
        # There a term of theirs is a sixteenth of 1 / known_to.
        below = self.values.abs() - 16 * self.known_to * self.conditions
        count, radius = 1, float(below[0])
        while (reached := int((self.values.abs() > radius).sum())) > count and radius > 0:
            count, radius = reached, float(below[:reached].min())
        return radius, count


def _resolvent_norm(W: Tensor, z: Tensor) -> Tensor:
    """By power iteration on R^H R, whose largest eigenvalue stands out where it matters."""
    # The form that raises nothing: a pivot of 0 makes infinities.
    factors, pivots, _ = torch.linalg.lu_factor_ex(z * torch.eye(len(W), dtype=z.dtype) - W)
    x = torch.randn(len(W), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(z.dtype)
    for _ in range(4):
        x = x / torch.linalg.vector_norm(x, dim=0)
        x = torch.linalg.lu_solve(factors, pivots, torch.linalg.lu_solve(factors, pivots, x), adjoint=True)
    found = torch.linalg.vector_norm(x, dim=0).max().sqrt()
    return torch.nan_to_num(found, nan=math.inf, posinf=math.inf)
