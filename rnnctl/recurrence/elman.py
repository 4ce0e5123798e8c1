"""The Elman recurrence over time, forward and in reverse, without autograd's tape.

Time-major throughout: (time, batch, hidden). The hidden states come as h of shape
(time + 1, batch, hidden), h[0] = h_init and h[t + 1] = h_t.
"""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.recurrence.cell_kind import CellKind
from rnnctl.recurrence.fused import fused
from rnnctl.recurrence.nonlinearities import NONLINEARITIES, Nonlinearity
from rnnctl.recurrence.run import LayerRun
from rnnctl.recurrence.slopes import HiddenSlopes, Linearized, State
from rnnctl.recurrence.sweep import CHUNK_BYTES, ReverseChunk, chunk_steps
from rnnctl.recurrence.weights import LayerWeights, affine_into, pre_activations

# Steps of a stretch at most.
VIEWS = 1024


def hidden_states(
    x: Float[Tensor, "batch time input"],
    h_init: Float[Tensor, "batch hidden"],
    W_xh: Float[Tensor, "hidden input"],
    W_hh: Float[Tensor, "hidden hidden"],
    b_h: Float[Tensor, " hidden"] | None,
    nonlinearity: Nonlinearity,
) -> Float[Tensor, "time_plus_1 batch hidden"]:
    """h_init, h_0 .. h_{T-1}; the inputs of a stretch of steps go through one product, W_hh through one a step.

    Args:
        x: inputs, shape (batch, time, input).
        h_init: hidden state before step 0, shape (batch, hidden).
        W_xh, W_hh: shapes (hidden, input), (hidden, hidden).
        b_h: b_xh + b_hh, shape (hidden,), or None.
        nonlinearity: f_h.
    Returns:
        Shape (time + 1, batch, hidden).
    """
    seq_len, (batch, hidden) = x.shape[1], h_init.shape
    h = x.new_empty(seq_len + 1, batch, hidden)
    h[0] = h_init
    # A contiguous transpose makes every one of the T products about a tenth faster.
    W_hh_t = W_hh.t().contiguous()
    activate, previous = nonlinearity.activate, h[0]
    # A stretch of steps, and what enters them, stays in cache between one product and the other. Views of all steps of
    # a long sequence of small states would take as much memory as the states.
    steps = max(1, min(VIEWS, CHUNK_BYTES // (batch * max(x.shape[2], hidden) * x.element_size())))
    for start in range(0, seq_len, steps):
        stretch = h[start + 1 : start + 1 + steps]
        # The inputs' part of a_t is written where h_t will stand: no second tensor of the size of h.
        affine_into(stretch.view(-1, hidden), x[:, start : start + steps].transpose(0, 1), W_xh, b_h)
        for current in stretch.unbind(0):
            activate(current.addmm_(previous, W_hh_t))
            previous = current
    return h


class ElmanSteps:
    """delta[t] = f'(a_t) * grad_h[t];  grad_h[t-1] = grad_h_direct[t-1] + delta[t] W_hh.

    Args:
        nonlinearity: f_h.
        run: h of every step; where there is a mask, a sequence without a step sends nothing back.
    """

    # There is no c beside h.
    c = None

    def __init__(self, nonlinearity: Nonlinearity, run: LayerRun) -> None:
        h, (batch, hidden) = run.h, run.h.shape[1:]
        self.h, self.W_hh, self.mask, self._slope_from_state = (
            h,
            run.weights.W_hh,
            run.mask,
            nonlinearity.slope_from_state,
        )
        self.longest = chunk_steps(run.seq_len, batch, hidden, h.element_size())
        grad_h, self.delta = h.new_empty(2, self.longest, batch, hidden).unbind(0)
        self.grads: State = (grad_h,)
        # Views taken once: indexing within the loop would cost as much as the arithmetic.
        views = grad_h.unbind(0)
        self._steps = list(zip(views[1:], self.delta.unbind(0)[1:], views[:-1], strict=True))

    def run(self, start: int, stop: int) -> None:
        """Fill the first ``stop - start`` rows of the buffers."""
        n, W_hh = stop - start, self.W_hh
        # The slopes stand where delta will.
        self._slope_from_state(self.h[start + 1 : stop + 1], self.delta[:n])
        if self.mask is not None:
            # With a slope of 0 nothing reaches W_hh, and nothing goes on to earlier steps.
            self.delta[:n] *= self.mask[start:stop]
        for grad_h, delta, grad_h_before in reversed(self._steps[: n - 1]):
            grad_h_before.addmm_(delta.mul_(grad_h), W_hh)
        # What the first row hands on crosses into the next chunk, which has another scale: see ``carried``.
        self.delta[0].mul_(self.grads[0][0])
        if self.mask is not None:
            # Before the first step of a sequence that starts late stands its h_init, whose gradient is no step's.
            self.grads[0][:n] *= self.mask[start:stop]

    def carried(self, row: int) -> State:
        """(delta[t] W_hh,)."""
        return (self.delta[row] @ self.W_hh,)

    def input_delta(self, chunk: ReverseChunk) -> Tensor:
        """x reaches a_t as h does."""
        return chunk.delta


def elman_kind(nonlinearity: Nonlinearity) -> CellKind:
    """The Elman cell with this f_h."""
    return CellKind(
        name="RNN",
        gates=(),
        states=("h",),
        keep=None,
        outputs=partial(_outputs, nonlinearity),
        next_states=partial(_next_states, nonlinearity),
        slopes=partial(_slopes, nonlinearity),
        exact=partial(exact_elman, nonlinearity),
        units=partial(elman_units, nonlinearity),
        reversible=partial(ElmanSteps, nonlinearity),
        nonlinearity=nonlinearity,
    )


def exact_elman(f: Nonlinearity, x: Tensor, before: State, weights: LayerWeights) -> Linearized:
    """Consecutive steps in float64, with slopes that saturation does not round to 0.

    Args:
        f: f_h.
        x: shape (steps, batch, input).
        before: h before the first step, shape (batch, hidden).
    """
    h = hidden_states(x.transpose(0, 1), before[0], weights.W_ih, weights.W_hh, weights.b_h, f)

    # Made only where it is asked for: relu knows its slope from h alone.
    def a() -> Tensor:
        return pre_activations(x, h[:-1], weights, 1, None).squeeze(2)

    slope = f.exact_slope(h[1:], a)
    return Linearized((h[1:],), None, HiddenSlopes(weights.W_hh, slope.unsqueeze(2)))


def elman_units(f: Nonlinearity, from_x: Tensor, from_h: Tensor, before: State, weights: LayerWeights) -> Linearized:
    """What the units make of what reaches them, with slopes to all their digits.

    Args:
        f: f_h.
        from_x, from_h: W_xh x + b_xh and W_hh h + b_hh, shape (steps, batch, 1, hidden).
        before: h before every step, of which a step takes no more than W_hh h.
        weights: those that the slopes stand around.
    """
    a = (from_x + from_h).squeeze(2)
    h = f.activate(a.clone())
    return Linearized((h,), None, HiddenSlopes(weights.W_hh, f.exact_slope(h, a.clone).unsqueeze(2)))


def _outputs(
    f: Nonlinearity,
    x: Tensor,
    batch_sizes: Tensor | None,
    initial: Sequence[Tensor],
    weights: Sequence[LayerWeights],
) -> tuple[Tensor, Tensor]:
    return fused(f"RNN_{f.name.upper()}")(x, batch_sizes, initial, weights)


def _next_states(f: Nonlinearity, x: Tensor, before: State, weights: LayerWeights) -> State:
    """(h_t,) of every step from its input and the state before it, shape (steps, batch, hidden)."""
    return (f.activate(pre_activations(x, before[0], weights, 1, None).squeeze(2)),)


def _slopes(f: Nonlinearity, x: Tensor, before: State, after: State, weights: LayerWeights) -> HiddenSlopes:
    slope = torch.empty_like(after[0])
    f.slope_from_state(after[0], slope)
    return HiddenSlopes(weights.W_hh, slope.unsqueeze(-2))


ELMAN = {name: elman_kind(f) for name, f in NONLINEARITIES.items()}
