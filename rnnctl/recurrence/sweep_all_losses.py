"""The reverse recurrence of many losses at once: one block of gradients, one product per step and layer.

Time-major as in ``rnnctl.recurrence.elman``; row j of a block belongs to the loss at step
``last - 1 - j``, so that a loss that sets in at an earlier step is appended at the end.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnctl.recurrence.scaling import largest_magnitudes
from rnnctl.recurrence.slopes import Slopes, State

# The most steps between two looks at the magnitudes, and how many powers of two they may drift by on the way: the
# squares of 2**60 are float32's, of which a row that is left alone has used some.
RESCALE_EVERY, MOST_DRIFT = 16, 32
# Where that cannot be expected: the steps before the first look.
FIRST_LOOK = 4
# Rows within 2**16 of 1 are left alone.
NEAR_ONE = 16


@dataclass(frozen=True, eq=False)
class SlopedLayer:
    """One layer on the way from the losses down to the weight that is asked about.

    Attributes:
        slopes: of all steps and sequences.
        W_ih: on the way to the layer below, shape (gates * hidden, input); None for the last one down.
        noise: what dropout multiplied its input with, shape (time, batch, input), or None.
    """

    slopes: Slopes
    W_ih: Tensor | None = None
    noise: Tensor | None = None

    def numbers(self) -> int:
        """How many numbers one loss step works on in this layer, for each sequence, temporaries included."""
        gates, hidden = self.slopes.slopes.shape[-2:]
        # The states' gradients and their next ones, twice the gates' and what reaches the layer below.
        return 2 * self.slopes.state_size + 2 * gates * hidden + (0 if self.W_ih is None else 2 * self.W_ih.shape[1])


@dataclass(frozen=True)
class LossBlock:
    """What all losses from step t on send to step t of the last layer down.

    Attributes:
        t: the step.
        norms: of ``2**exponents`` times dL_k/dh_t and, of a cell with c, dL_k/dc_t, the way through h_t included,
            each of shape (losses,).
        delta: ``2**exponents`` times the gradient of W_hh h_{t-1}, shape (losses, batch, gates * hidden); a
            view into a buffer that the next block overwrites.
        exponents: of the rows' scales, shape (losses,), float64; the next block may change them.
        weights: ``2**-exponents``, shape (losses,), in the dtype of ``delta``.
    """

    t: int
    norms: State
    delta: Tensor
    exponents: Tensor
    weights: Tensor


def sweep_all_losses(layers: Sequence[SlopedLayer], direct: Tensor, first: int, last: int) -> Iterator[LossBlock]:
    """What the losses at steps first .. last - 1 send back, for t = last - 1 down to 0.

    Args:
        layers: from the one that the losses are read out of down to the one that is asked about.
        direct: dL_k/dh_k from outside the recurrence, shape (time, batch, hidden); or where a loss step reads
            earlier states as well, dL_k/dh_t, shape (losses, time, batch, hidden), of losses first .. last - 1.
        first, last: which losses.
    Yields:
        One block per step.
    Source: as ``sweep_back``, for every loss by itself.
    """
    rows = [_Rows(layer, last - first, direct) for layer in layers]
    scales = _Scales(last - first, direct)
    # Row j sets in at step last - 1 - j. ``flip`` copies, so that rescaling leaves the caller's gradients alone.
    own = direct[first:last].flip(0) if direct.dim() == 3 else direct.flip(0)
    if direct.dim() == 3:
        scales.rescale([own], last - first)
    looks = _Looks(layers, last)
    for t in range(last - 1, -1, -1):
        active = min(last - t, last - first)
        if own.dim() == 4:
            rows[0].grads[0][:active] += scales.admitted(
                own[:active, t], [part for each in rows for part in each.grads]
            )
        elif t >= first:
            rows[0].grads[0][active - 1] += own[active - 1]
        if looks.are_due(t):
            looks.seen(scales.rescale([part for each in rows for part in each.grads], active))
        for place, each in enumerate(rows):
            below = each.step(t, active)
            if below is not None:
                rows[place + 1].grads[0][:active] += below
        yield LossBlock(t, rows[-1].norms, rows[-1].delta, scales.exponents[:active], scales.weights[:active])


class _Looks:
    """When the magnitudes are looked at: as often as they drift away, by what is expected and by what is seen.

    Args:
        layers: as of ``sweep_all_losses``.
        last: the step behind the first one.
    """

    def __init__(self, layers: Sequence[SlopedLayer], last: int) -> None:
        # Of several ways back through a step nothing is expected, so that the first look is an early one.
        plain = [layer.slopes for layer in layers if layer.slopes.is_plain]
        self._every = RESCALE_EVERY if len(plain) == len(layers) else FIRST_LOOK
        self._drifts = [max(of_step) for of_step in zip(*(_drifts(each) for each in plain), strict=True)] or [
            0.0
        ] * last
        self._steps, self._drifted, self._took = 0, 0.0, 0

    def are_due(self, t: int) -> bool:
        """Whether before step t; to be asked of every step, from the last one down."""
        due = self._steps >= self._every or self._drifted + self._drifts[t] > MOST_DRIFT
        if due:
            self._took, self._steps, self._drifted = self._steps, 0, 0.0
        self._steps += 1
        self._drifted += self._drifts[t]
        return due

    def seen(self, drift: float) -> None:
        """That rows had drifted away from 1 by so many powers of two, most of it since the look before."""
        # At most twice as many steps as before, so that what drifts from now on is seen early.
        within = MOST_DRIFT * max(1, self._took) / drift if drift > 0 else RESCALE_EVERY
        self._every = int(max(1, min(RESCALE_EVERY, 2 * self._took, within)))


def _drifts(slopes: Slopes) -> list[float]:
    """By how many powers of two a gradient of no special direction drifts at each step, up or down."""
    of_steps, hidden = slopes.slopes.flatten(1), slopes.W_hh.shape[1]
    factor = float(torch.linalg.vector_norm(slopes.W_hh)) / math.sqrt(hidden * of_steps.shape[1])
    sizes = torch.linalg.vector_norm(of_steps, dim=1).double() * factor
    found: list[float] = sizes.log2_().abs_().nan_to_num_(0.0, 0.0).tolist()
    return found


class _Rows:
    """The gradients of one layer's states for every loss, and their deltas.

    Attributes:
        delta: of the step that was taken last, shape (losses, batch, gates * hidden).
        norms: of its states' gradients, each of shape (losses,); of the last layer down alone.
    """

    def __init__(self, layer: SlopedLayer, losses: int, like: Tensor) -> None:
        slopes, batch, (gates, hidden) = layer.slopes, like.shape[-2], layer.slopes.slopes.shape[-2:]
        self._layer, self._steps = layer, list(slopes)
        # Zeros, because a row whose loss has not set in yet has none.
        h, self._spare = like.new_zeros(2, losses, batch, slopes.W_hh.shape[1]).unbind(0)
        has_c = slopes.state_size > slopes.W_hh.shape[1]
        self.grads: State = (h, like.new_zeros(losses, batch, hidden)) if has_c else (h,)
        # Where nothing passes W_hh by, the gradients themselves can give way to their deltas.
        self._buffer = None if slopes.is_plain else like.new_empty(losses, batch, gates * hidden)
        self.delta = h
        self.norms: State = ()

    def step(self, t: int, active: int) -> Tensor | None:
        """Find delta of step t, go one step back, and say what reaches the layer below, (losses, batch, input)."""
        slopes, now = self._steps[t], tuple(part[:active] for part in self.grads)
        now = slopes.arrived(now, out=now)
        if self._layer.W_ih is None:
            # Before the deltas take their place.
            self.norms = tuple(torch.linalg.vector_norm(part.flatten(1), dim=1) for part in now)
        self.delta = slopes.delta(now, out=now[0] if self._buffer is None else self._buffer[:active])
        below = self._below(slopes, now, t)
        # A product cannot be written over the rows that it reads, so that dL/dh has a spare place; dL/dc needs none.
        slopes.back(now, self.delta, out=(self._spare[:active], *now[1:]))
        self._spare, self.grads = self.grads[0], (self._spare, *self.grads[1:])
        return below

    def _below(self, slopes: Slopes, now: State, t: int) -> Tensor | None:
        W_ih, noise = self._layer.W_ih, self._layer.noise
        if W_ih is None:
            return None
        below = slopes.input_delta(now, self.delta) @ W_ih
        return below if noise is None else below * noise[t]


class _Scales:
    """Powers of two that hold the rows near magnitude 1, all layers of a loss alike."""

    def __init__(self, losses: int, like: Tensor) -> None:
        self.exponents = torch.zeros(losses, dtype=torch.float64, device=like.device)
        self.weights = like.new_ones(losses)

    def rescale(self, parts: Sequence[Tensor], active: int) -> float:
        """Bring rows that are far from magnitude 1 back to it, and note by how much.

        Args:
            parts: of the same losses, each (losses, ...).
            active: how many of the rows have begun.
        Returns:
            By how many powers of two one of them is away from 1, before that; of those left alone some always is.
        """
        # The largest magnitudes, whose squares nobody forms: far rows are the ones whose norms cannot be trusted.
        norms = [largest_magnitudes(part[:active].flatten(1)) for part in parts]
        largest = norms[0] if len(norms) == 1 else torch.stack(norms).amax(dim=0)
        powers = torch.frexp(largest).exponent
        sizes = torch.where((largest > 0) & torch.isfinite(largest), powers.abs(), 0)
        most = float(sizes.max())
        if most > NEAR_ONE:
            self._shift(parts, torch.where(sizes > NEAR_ONE, -powers, 0))
        return most

    def admitted(self, entering: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """What enters rows that have begun already, in their scale, (losses, batch, hidden).

        Args:
            entering: unscaled, of the first so many losses, (losses, batch, hidden); scaled in place.
            parts: their rows; where they are too small for what enters to fit beside them, they give way.
        """
        losses = entering.shape[0]
        largest = largest_magnitudes(entering.flatten(1))
        powers = torch.frexp(largest).exponent.double()
        over = (powers + self.exponents[:losses] > NEAR_ONE) & (largest > 0) & torch.isfinite(largest)
        by = -powers - self.exponents[:losses]
        if bool(over.any()):
            self._shift(parts, torch.where(over, by, 0.0))
        return _times_powers(entering, self.exponents[:losses])

    def _shift(self, parts: Sequence[Tensor], by: Tensor) -> None:
        """Multiply the first rows in place by powers of two, 0 of those that are left alone."""
        count = len(by)
        for part in parts:
            # All of them: to take some out and put them back costs ten times as much.
            _times_powers(part[:count], by)
        self.exponents[:count] += by.double()
        self.weights[:count] = torch.exp2(-self.exponents[:count]).to(self.weights.dtype)


def _times_powers(rows: Tensor, powers: Tensor) -> Tensor:
    """2**powers times the rows, shape (rows, ...), in place, powers of any size."""
    # Beyond these a float64 is 0 or infinite anyway; in two factors, since 2**149 itself is beyond float32.
    whole = powers.clamp(-2000, 2000).to(torch.int32)
    half = whole.div(2, rounding_mode="floor")
    ones, ends = rows.new_ones(len(rows)), [1] * (rows.dim() - 1)
    for part in (half, whole - half):
        rows.mul_(torch.ldexp(ones, part).view(-1, *ends))
    return rows
