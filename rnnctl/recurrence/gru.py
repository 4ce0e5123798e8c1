"""The GRU in reverse: its gates from the states that it left behind, and what flows back through them.

r = sigmoid(W_ir x + b_ir + W_hr h + b_hr);  z likewise;  n = tanh(W_in x + b_in + r (W_hn h + b_hn));
h' = (1 - z) n + z h, with h the state before the step.

Source: Cho et al. 2014, arXiv:1406.1078, in the form of ``torch.nn.GRU``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rnnctl.recurrence.sweep import State, chunk_steps
from rnnctl.recurrence.weights import LayerWeights, affine


@dataclass(frozen=True)
class GRUSlopes:
    """What dL/dh' is multiplied with, elementwise, each with leading axes (steps, batch).

    Attributes:
        hidden: on its way to W_hh h + b_hh, (..., 3, hidden), in the order r, z, n.
        candidate: on its way to W_in x + b_in, (..., hidden); r and z take the same as ``hidden``.
        keep: z itself, the way to h past W_hh, (..., hidden).
    """

    hidden: Tensor
    candidate: Tensor
    keep: Tensor


def gru_states(x: Tensor, h: Tensor, weights: LayerWeights) -> Tensor:
    """h' of every step from its input and the state before it, shape (steps, batch, hidden).

    Args:
        x: shape (steps, batch, input).
        h: the states before the steps, shape (steps, batch, hidden).
    """
    _, z, n, _ = _gates(x, h, weights)
    return torch.lerp(n, h, z)


def gru_slopes(x: Tensor, h: Tensor, weights: LayerWeights) -> GRUSlopes:
    """The slopes of every step from its input and the state before it, by one product each.

    Args:
        x: shape (steps, batch, input).
        h: the states before the steps, shape (steps, batch, hidden).
    """
    r, z, n, from_h = _gates(x, h, weights)
    slope_r, slope_z, slope_n = from_h.unbind(-2)
    candidate = torch.addcmul(h.new_ones(()), n, n, value=-1)
    candidate.addcmul_(candidate, z, value=-1)
    # The products of W_hh are needed once more, then their memory holds the slopes.
    slope_r.copy_(torch.addcmul(r, r, r, value=-1).mul_(slope_n).mul_(candidate))
    torch.addcmul(z, z, z, value=-1, out=slope_z).mul_(h - n)
    torch.mul(candidate, r, out=slope_n)
    return GRUSlopes(from_h, candidate, z)


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
        x: shape (time, batch, input).
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).
        mask: 1 where a sequence has a step, shape (time, batch, 1); None where all have all.
    """

    def __init__(self, x: Tensor, h: Tensor, weights: LayerWeights, mask: Tensor | None = None) -> None:
        seq_len, (batch, hidden) = h.shape[0] - 1, h.shape[1:]
        self.x, self.h, self.weights, self.mask = x, h, weights, mask
        self.longest = chunk_steps(seq_len, batch, hidden, h.element_size())
        self.grads: State = (h.new_empty(self.longest, batch, hidden),)
        self.delta = h.new_empty(self.longest, batch, 3 * hidden)
        self._slopes, self._keep = h.new_empty(self.longest, batch, 3, hidden), torch.empty_like(self.grads[0])
        self._steps = self._views()

    def _views(self) -> list[tuple[Tensor, ...]]:
        """Of every row of the buffers, taken once: indexing in the loop would cost as much as the arithmetic."""
        grad, by_gate = self.grads[0], self.delta.view(self._slopes.shape)
        columns = (grad, grad.unsqueeze(2), self.delta, by_gate, self._slopes, self._keep)
        return list(zip(*(column.unbind(0) for column in columns), strict=True))

    def run(self, start: int, stop: int) -> None:
        """Fill the first ``stop - start`` rows of the buffers."""
        n, W_hh = stop - start, self.weights.W_hh
        slopes = gru_slopes(self.x[start:stop], self.h[start:stop], self.weights)
        self._slopes[:n], self._keep[:n] = slopes.hidden, slopes.keep
        if self.mask is not None:
            self._slopes[:n] *= self.mask[start:stop].unsqueeze(-1)
            self._keep[:n] *= self.mask[start:stop]
        for t in range(n - 1, -1, -1):
            grad, wide, delta, by_gate, slope, keep = self._steps[t]
            torch.mul(wide, slope, out=by_gate)
            if t > 0:
                self._steps[t - 1][0].addcmul_(grad, keep).addmm_(delta, W_hh)
        if self.mask is not None:
            self.grads[0][:n] *= self.mask[start:stop]

    def carried(self, row: int) -> State:
        """(z * grad_h + delta W_hh,)."""
        grad_h = self.grads[0][row] * self._keep[row]
        return (grad_h.addmm_(self.delta[row], self.weights.W_hh),)
