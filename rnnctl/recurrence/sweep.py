"""The reverse sweep of any cell: chunks of steps, every chunk scaled by a power of two.

Time-major throughout: (time, batch, hidden). The hidden states come as h of shape
(time + 1, batch, hidden), h[0] = h_init and h[t + 1] = h_t.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.recurrence.scaling import power_of_two, row_norms, scale_into, times_power_of_two
from rnnctl.recurrence.slopes import State

# Bytes of one chunk of hidden states: it should stay in the cache of one core.
CHUNK_BYTES = 1 << 20
# Small steps are taken so many at a time where the magnitude stays: each chunk costs as much as dozens of them.
LONGEST_CHUNK = 320
# By how many powers of two a chunk is meant to drift, and at most may, by the bytes of a number. Norms are roots of
# sums of squares: those of 2**60 keep well within float32's 2**127.
DRIFTS = {4: (40, 60), 8: (200, 300)}
# What torch's own weights drift by in a step: all that is known of the first chunk.
DRIFT = 5 / 6

# From a chunk's start and stop to what enters at those of its steps that anything enters, (steps, batch, units). Chunks
# come from the last one to the first; one that drifted too far is asked for again in part.
Rows = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class ReverseChunk:
    """Consecutive steps of the reverse sweep, all scaled by the same power of two.

    ``grad_h`` and ``delta`` are 2**exponent times dL/dh_t, shape (steps, batch, hidden), and the
    gradient of what W_hh h_{t-1} is added to, shape (steps, batch, gates * hidden), gate by gate;
    of a cell with c also ``grad_c``, dL/dc_t. All are views into buffers that the next chunk overwrites.
    ``norm`` is the norm of the scaled ``grad_h`` at each step, shape (steps,), float64, ``norm_c`` that
    of ``grad_c``.
    """

    start: int
    stop: int
    exponent: int
    grad_h: Tensor
    delta: Tensor
    norm: Tensor
    grad_c: Tensor | None = None
    norm_c: Tensor | None = None

    @property
    def log_norm(self) -> Tensor:
        """ln ||dL/dh_t|| itself, shape (steps,), float64; -inf where it is 0."""
        return self.norm.log() - self.exponent * math.log(2)

    @property
    def log_norm_state(self) -> Tensor:
        """ln of the norm of the whole state's gradient, dL/dc_t beside dL/dh_t, shape (steps,), float64."""
        if self.norm_c is None:
            return self.log_norm
        log_norm_c = self.norm_c.log() - self.exponent * math.log(2)
        # Of squares in logarithms, which neither vanish nor overflow.
        found: Tensor = torch.logaddexp(2 * self.log_norm, 2 * log_norm_c) / 2
        return found


@runtime_checkable
class Reversible(Protocol):
    """The steps of one layer in one direction, ready to be walked back.

    Attributes:
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden), in the sweep's dtype.
        longest: the most steps of one chunk.
        grads: buffers for what travels back, each (longest, batch, units): dL/dh, of a cell with c also dL/dc.
        delta: buffer, shape (longest, batch, gates * hidden).
        c: c_init, c_0 .. c_{T-1}, shape (time + 1, batch, hidden), of a cell that has them, else None.
    """

    h: Tensor
    longest: int
    grads: State
    delta: Tensor

    @property
    def c(self) -> Tensor | None: ...

    def run(self, start: int, stop: int) -> None:
        """Fill the first ``stop - start`` rows of the buffers, whose ``grads`` hold what enters at each
        step from outside, the last one already with what comes from later steps."""

    def carried(self, row: int) -> State:
        """What the step of this row sends to the step before it."""

    def input_delta(self, chunk: ReverseChunk) -> Tensor:
        """The gradient of W_ih x_t at the steps of a chunk just swept, (steps, batch, gates * hidden)."""


def chunk_steps(steps: int, batch: int, hidden: int, itemsize: int) -> int:
    """How many time steps make a chunk that stays in cache."""
    return max(1, min(steps, LONGEST_CHUNK, CHUNK_BYTES // (batch * hidden * itemsize)))


def sweep_back(
    steps: Reversible, direct: Float[Tensor, "last_steps batch hidden"] | Rows, *more_direct: Tensor
) -> Iterator[ReverseChunk]:
    """dL/dh_t and the deltas from the last step to the first, a chunk of steps at a time.

    Every chunk starts at magnitude 1 by a power of two, so that a gradient that vanishes or
    explodes over many steps neither underflows nor overflows, nor crawls through subnormals.

    Args:
        steps: the layer.
        direct: dL/dh_t from outside the recurrence at the last n steps, shape (n, batch, hidden); no
            earlier step has any; or what makes these rows of it.
        more_direct: the same for the other parts of the state, dL/dc_t of a cell that has it.
    Yields:
        Chunks that tile 0 .. T-1 from the end.
    Source: Rumelhart, Hinton & Williams 1986; Werbos 1990, "Backpropagation through time".
    """
    seq_len, size = steps.h.shape[0] - 1, min(steps.longest, round(DRIFTS[steps.h.element_size()][0] / DRIFT))
    entering = [_rows_of(part, seq_len) for part in (direct, *more_direct)]
    stop, exponent = seq_len, 0
    carried: Sequence[Tensor | None] = [None] * len(steps.grads)
    while stop > 0:
        start = max(0, stop - size)
        own = [part(start, stop) for part in entering]
        exponent = _enter(steps.grads, stop - start, carried, exponent, own)
        steps.run(start, stop)
        chunk = _trustworthy(steps, start, stop, exponent)
        yield chunk
        size = _next_size(chunk, steps.longest, steps.h.element_size())
        # Tensors of their own: the buffers are filled anew before these go in.
        carried = steps.carried(chunk.start - start) if chunk.start > 0 else carried
        stop = chunk.start


def _next_size(chunk: ReverseChunk, longest: int, itemsize: int) -> int:
    """How many steps to take next: where the magnitude drifts fast, shorter chunks throw less away."""
    size, first = chunk.stop - chunk.start, float(chunk.norm[0])
    drifted = abs(math.frexp(first)[1]) if 0 < first < math.inf else 0
    return max(1, min(longest, 4 * size, size * DRIFTS[itemsize][0] // max(1, drifted)))


def _rows_of(direct: Tensor | Rows, seq_len: int) -> Rows:
    """The rows of ``direct``, which belongs to the last steps, that fall on steps start .. stop-1."""
    if not isinstance(direct, Tensor):
        return direct
    given, first = direct, seq_len - direct.shape[0]
    return lambda start, stop: given[max(start - first, 0) : max(stop - first, 0)]


def _enter(grads: State, n: int, carried: Sequence[Tensor | None], exponent: int, own: Sequence[Tensor]) -> int:
    """Put into the first n rows of the buffers what enters the chunk, scaled to magnitude 1; its exponent.

    ``own`` is unscaled, ``carried`` (into the last row, from later steps) scaled by 2**exponent.
    """
    # The scale is that of the last row. Where much more enters at earlier steps, the chunk will be cut there.
    rest = [None] * (len(grads) - len(own))
    tops = [(part[-1] if part is not None and len(part) else None) for part in (*own, *rest)]
    parts = [(part, 0) for part in tops] + [(part, exponent) for part in carried]
    powers = [power - by for part, by in parts if part is not None and (power := power_of_two(part)) is not None]
    # Zeros and what is not finite have no magnitude: the scale stays.
    new = -max(powers) if powers else exponent
    for grad, direct, later in zip(grads, (*own, *rest), carried, strict=True):
        entered = 0 if direct is None else direct.shape[0]
        # The buffers still hold the chunk before.
        grad[: n - entered] = 0
        if direct is not None and entered:
            scale_into(grad[n - entered : n], direct, new)
        if later is not None:
            grad[n - 1] += times_power_of_two(later, new - exponent)
    return new


def _trustworthy(steps: Reversible, start: int, stop: int, exponent: int) -> ReverseChunk:
    """The chunk, cut where the magnitude has drifted too far from 1; never empty."""
    n = stop - start
    norms = [row_norms(grad[:n].flatten(1)).double().cpu() for grad in steps.grads]
    drifting = norms[0] if len(norms) == 1 else torch.maximum(*norms)
    first = _first_trustworthy(drifting, 2.0 ** DRIFTS[steps.h.element_size()][1])
    found = [(grad[first:n], norm[first:]) for grad, norm in zip(steps.grads, norms, strict=True)]
    grad_c, norm_c = found[1] if len(found) > 1 else (None, None)
    return ReverseChunk(start + first, stop, exponent, found[0][0], steps.delta[first:n], found[0][1], grad_c, norm_c)


def _first_trustworthy(norms: Tensor, drift: float) -> int:
    """The earliest row from which on all norms, shape (rows,), are 0 or within the drift of 1."""
    # The last row stays whatever its norm: the scale was chosen for it. Not <= and >=, or NaN would pass.
    bad = ~((norms == 0) | ((norms > 1 / drift) & (norms < drift)))[:-1]
    return int(bad.nonzero()[-1]) + 1 if bool(bad.any()) else 0
