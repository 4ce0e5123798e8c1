"""The GRU: its gates from the states that it left behind, its slopes, and what flows back through them.

r = sigmoid(W_ir x + b_ir + W_hr h + b_hr);  z likewise;  n = tanh(W_in x + b_in + r (W_hn h + b_hn));
h' = (1 - z) n + z h, with h the state before the step.

Source: Cho et al. 2014, arXiv:1406.1078, in the form of ``torch.nn.GRU``.
"""

from dataclasses import replace

import torch
from torch import Tensor

from rnnctl.recurrence.cell_kind import CellKind, Gate
from rnnctl.recurrence.fused import fused
from rnnctl.recurrence.run import LayerRun
from rnnctl.recurrence.slopes import HiddenSlopes, Linearized, State
from rnnctl.recurrence.sweep import ReverseChunk, chunk_steps
from rnnctl.recurrence.weights import LayerWeights, affine


def gru_states(x: Tensor, before: State, weights: LayerWeights) -> State:
    """(h',) of every step from its input and the state before it, shape (steps, batch, hidden).

    Args:
        x: shape (steps, batch, input).
        before: h before the steps, shape (steps, batch, hidden).
    """
    _, z, n, _ = _gates(x, before[0], weights)
    return (torch.lerp(n, before[0], z),)


def gru_slopes(x: Tensor, h: Tensor, weights: LayerWeights) -> tuple[Tensor, Tensor, Tensor]:
    """The slopes of every step from its input and the state before it, by one product each, as autograd rounds them.

    Args:
        x: shape (steps, batch, input).
        h: the states before the steps, shape (steps, batch, hidden).
    Returns:
        Of r, z, n on the way to W_hh h + b_hh, (steps, batch, 3, hidden); z, the way to h past W_hh; and of n on the
        way to W_in x + b_in, which x reaches past the reset gate, both (steps, batch, hidden).
    """
    r, z, n, from_h = _gates(x, h, weights)
    slope_r, slope_z, slope_n = from_h.unbind(-2)
    candidate = torch.addcmul(h.new_ones(()), n, n, value=-1)
    candidate.addcmul_(candidate, z, value=-1)
    # The products of W_hh are needed once more, then their memory holds the slopes.
    slope_r.copy_(torch.addcmul(r, r, r, value=-1).mul_(slope_n).mul_(candidate))
    torch.addcmul(z, z, z, value=-1, out=slope_z).mul_(h - n)
    torch.mul(candidate, r, out=slope_n)
    return from_h, z, candidate


def _slopes_of(x: Tensor, before: State, after: State, weights: LayerWeights) -> HiddenSlopes:
    return HiddenSlopes(weights.W_hh, *gru_slopes(x, before[0], weights))


def _gates(x: Tensor, h: Tensor, weights: LayerWeights) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """r, z, n, each (steps, batch, hidden), and W_hh h + b_hh, (steps, batch, 3, hidden)."""
    shape = (*h.shape[:2], 3, h.shape[2])
    from_x = affine(x, weights.W_ih, weights.b_ih).view(shape)
    from_h = affine(h, weights.W_hh, weights.b_hh).view(shape)
    r, z = from_x[..., :2, :].add_(from_h[..., :2, :]).sigmoid_().unbind(-2)
    n = from_x[..., 2, :].addcmul_(r, from_h[..., 2, :]).tanh_()
    return r, z, n, from_h


class GRUSteps:
    """delta[t] = slopes[t] * grad_h[t];  grad_h[t-1] = direct[t-1] + z[t] * grad_h[t] + delta[t] W_hh.

    Args:
        run: h and x of every step; where there is a mask, a sequence without a step sends nothing back.
    """

    # There is no c beside h.
    c = None

    def __init__(self, run: LayerRun) -> None:
        h, (batch, hidden) = run.h, run.h.shape[1:]
        self.x, self.h, self.weights, self.mask = run.x, h, run.weights, run.mask
        self.longest = chunk_steps(run.seq_len, batch, hidden, h.element_size())
        self.grads: State = (h.new_empty(self.longest, batch, hidden),)
        self.delta = h.new_empty(self.longest, batch, 3 * hidden)
        # The slopes stand where delta will.
        self._slopes, self._keep = self.delta.view(self.longest, batch, 3, hidden), torch.empty_like(self.grads[0])
        self._steps = self._views()

    def _views(self) -> list[tuple[Tensor, ...]]:
        """Of every row of the buffers, taken once: indexing in the loop would cost as much as the arithmetic."""
        grad = self.grads[0]
        columns = (grad, grad.unsqueeze(2), self.delta, self._slopes, self._keep)
        return list(zip(*(column.unbind(0) for column in columns), strict=True))

    def run(self, start: int, stop: int) -> None:
        """Fill the first ``stop - start`` rows of the buffers."""
        n, W_hh = stop - start, self.weights.W_hh
        self._slopes[:n], self._keep[:n], _ = gru_slopes(self.x[start:stop], self.h[start:stop], self.weights)
        if self.mask is not None:
            self._slopes[:n] *= self.mask[start:stop].unsqueeze(-1)
            self._keep[:n] *= self.mask[start:stop]
        # The row of the step before holds what enters there from outside, and takes in what comes back.
        for t in range(n - 1, -1, -1):
            grad, wide, delta, by_gate, keep = self._steps[t]
            by_gate.mul_(wide)
            if t > 0:
                self._steps[t - 1][0].addcmul_(grad, keep).addmm_(delta, W_hh)
        if self.mask is not None:
            self.grads[0][:n] *= self.mask[start:stop]

    def carried(self, row: int) -> State:
        """(z * grad_h + delta W_hh,)."""
        grad_h = self.grads[0][row] * self._keep[row]
        return (grad_h.addmm_(self.delta[row], self.weights.W_hh),)

    def input_delta(self, chunk: ReverseChunk) -> Tensor:
        """x reaches the candidate past the reset gate."""
        # Made once more: the sweep keeps no slope of the candidate, since only a layer above another needs it.
        steps = slice(chunk.start, chunk.stop)
        slopes, keep, candidate = gru_slopes(self.x[steps], self.h[steps], self.weights)
        candidate = candidate if self.mask is None else candidate * self.mask[steps]
        found = HiddenSlopes(self.weights.W_hh, slopes, keep, candidate)
        return found.input_delta((chunk.grad_h,), chunk.delta)


def exact_gru(x: Tensor, before: State, weights: LayerWeights) -> Linearized:
    """Consecutive steps in float64, with slopes that saturation does not round to 0.

    Sigmoids of the opposite in place of 1 - z, and cosh^-2 in place of 1 - n^2: those are 0 where
    the gates are saturated, while the slopes are not and their logarithms count.

    Args:
        x: shape (steps, batch, input).
        before: h before the first step, shape (batch, hidden).
    """
    h, _ = fused("GRU")(x, None, [before[0].unsqueeze(0)], [weights])
    earlier = torch.cat([before[0].unsqueeze(0), h[:-1]])
    shape = (*h.shape[:2], 3, h.shape[2])
    from_x = affine(x, weights.W_ih, weights.b_ih).view(shape)
    from_h = affine(earlier, weights.W_hh, weights.b_hh).view(shape)
    return replace(gru_units(from_x, from_h, (earlier,), weights), states=(h,))


def gru_units(from_x: Tensor, from_h: Tensor, before: State, weights: LayerWeights) -> Linearized:
    """What the units make of what reaches their gates, with slopes to all their digits.

    Args:
        from_x, from_h: W_ih x + b_ih and W_hh h + b_hh, gate by gate, shape (steps, batch, 3, hidden).
        before: h before every step, shape (steps, batch, hidden).
        weights: those that the slopes stand around.
    """
    earlier, rz = before[0], from_x[..., :2, :] + from_h[..., :2, :]
    (r, z), (not_r, not_z) = rz.sigmoid().unbind(2), (-rz).sigmoid().unbind(2)
    a_n = from_x[..., 2, :] + r * from_h[..., 2, :]
    n, to_n = a_n.tanh(), not_z * a_n.cosh().pow(-2)
    slopes = [r * not_r * from_h[..., 2, :] * to_n, z * not_z * (earlier - n), r * to_n]
    gates = torch.stack([r, z, n], dim=2)
    return Linearized((torch.lerp(n, earlier, z),), gates, HiddenSlopes(weights.W_hh, torch.stack(slopes, dim=2), z))


GRU = CellKind(
    name="GRU",
    gates=(Gate("r", "reset gate r"), Gate("z", "update gate z"), Gate("n", "candidate n", is_candidate=True)),
    states=("h",),
    keep="z",
    outputs=fused("GRU"),
    next_states=gru_states,
    slopes=_slopes_of,
    exact=exact_gru,
    units=gru_units,
    reversible=GRUSteps,
)
