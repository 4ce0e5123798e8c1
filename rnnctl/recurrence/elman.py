"""The Elman recurrence over time, forward and in reverse, without autograd's tape.

Time-major throughout: (time, batch, hidden). The hidden states come as h of shape
(time + 1, batch, hidden), h[0] = h_init and h[t + 1] = h_t.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.recurrence.sweep import CHUNK_BYTES, ReverseChunk, State, chunk_steps, sweep_back
from rnnctl.recurrence.weights import LayerWeights, affine


def hidden_states(
    x: Float[Tensor, "batch time input"],
    h_init: Float[Tensor, "batch hidden"],
    W_xh: Float[Tensor, "hidden input"],
    W_hh: Float[Tensor, "hidden hidden"],
    b_h: Float[Tensor, " hidden"] | None,
    nonlinearity: str,
) -> Float[Tensor, "time_plus_1 batch hidden"]:
    """h_init, h_0 .. h_{T-1}; the inputs of all steps go through one product, W_hh through T.

    Args:
        x: inputs, shape (batch, time, input).
        h_init: hidden state before step 0, shape (batch, hidden).
        W_xh, W_hh: shapes (hidden, input), (hidden, hidden).
        b_h: b_xh + b_hh, shape (hidden,), or None.
        nonlinearity: "tanh" or "relu".
    Returns:
        Shape (time + 1, batch, hidden).
    """
    batch, seq_len, _ = x.shape
    h = x.new_empty(seq_len + 1, batch, W_hh.shape[0])
    h[0] = h_init
    _project_inputs(x, W_xh, b_h, h[1:])
    # A contiguous transpose makes every one of the T products about a tenth faster.
    W_hh_t = W_hh.t().contiguous()
    activate = torch.Tensor.tanh_ if nonlinearity == "tanh" else torch.Tensor.relu_
    states = h.unbind(0)
    for previous, current in zip(states[:-1], states[1:], strict=True):
        activate(current.addmm_(previous, W_hh_t))
    return h


def _project_inputs(x: Tensor, W_xh: Tensor, b_h: Tensor | None, out: Tensor) -> None:
    """out[t] = x_t W_xh^T + b_h, a chunk of time at a time so that no whole copy of x is made."""
    batch, seq_len, inputs = x.shape
    steps = max(1, CHUNK_BYTES // (batch * max(inputs, out.shape[2]) * x.element_size()))
    W_xh_t = W_xh.t()
    for start in range(0, seq_len, steps):
        rows = x[:, start : start + steps].transpose(0, 1).reshape(-1, inputs)
        target = out[start : start + steps].view(rows.shape[0], -1)
        if b_h is None:
            torch.mm(rows, W_xh_t, out=target)
        else:
            torch.addmm(b_h, rows, W_xh_t, out=target)


def reverse_chunks(
    h: Float[Tensor, "time_plus_1 batch hidden"],
    grad_h_direct: Float[Tensor, "last_steps batch hidden"],
    W_hh: Float[Tensor, "hidden hidden"],
    nonlinearity: str,
) -> Iterator[ReverseChunk]:
    """dL/dh_t and dL/da_t from the last step to the first, a chunk of steps at a time.

    Args:
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).
        grad_h_direct: dL/dh_t through y_t alone at the last n steps, shape (n, batch, hidden);
            no earlier step carries a loss.
        W_hh: shape (hidden, hidden).
        nonlinearity: "tanh" or "relu".
    Yields:
        Chunks as of ``sweep_back``.
    """
    return sweep_back(ElmanSteps(h, W_hh, nonlinearity), grad_h_direct)


class ElmanSteps:
    """delta[t] = f'(a_t) * grad_h[t];  grad_h[t-1] = grad_h_direct[t-1] + delta[t] W_hh.

    Args:
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).
        W_hh: shape (hidden, hidden).
        nonlinearity: "tanh" or "relu".
        mask: 1 where a sequence has a step, shape (time, batch, 1); None where all have all.
    """

    def __init__(self, h: Tensor, W_hh: Tensor, nonlinearity: str, mask: Tensor | None = None) -> None:
        seq_len, (batch, hidden) = h.shape[0] - 1, h.shape[1:]
        self.h, self.W_hh, self.nonlinearity, self.mask = h, W_hh, nonlinearity, mask
        self.longest = chunk_steps(seq_len, batch, hidden, h.element_size())
        grad_h, self.delta, self.slope = h.new_empty(3, self.longest, batch, hidden).unbind(0)
        self.grads: State = (grad_h,)
        # Views taken once: indexing within the loop would cost as much as the arithmetic.
        views = grad_h.unbind(0), self.delta.unbind(0), self.slope.unbind(0)
        self._steps = list(zip(views[0][1:], views[1][1:], views[2][1:], views[0][:-1], strict=True))

    def run(self, start: int, stop: int) -> None:
        """Fill the first ``stop - start`` rows of the buffers."""
        n, W_hh = stop - start, self.W_hh
        slope_from_state(self.h[start + 1 : stop + 1], self.nonlinearity, out=self.slope[:n])
        if self.mask is not None:
            self.slope[:n] *= self.mask[start:stop]
        for grad_h, delta, slope, grad_h_before in reversed(self._steps[: n - 1]):
            torch.mul(slope, grad_h, out=delta)
            grad_h_before.addmm_(delta, W_hh)
        torch.mul(self.slope[0], self.grads[0][0], out=self.delta[0])
        if self.mask is not None:
            self.grads[0][:n] *= self.mask[start:stop]

    def carried(self, row: int) -> State:
        """(delta[t] W_hh,)."""
        return (self.delta[row] @ self.W_hh,)


def elman_states(x: Tensor, h: Tensor, weights: LayerWeights, nonlinearity: str) -> Tensor:
    """h_t of every step from its input and the state before it, shape (steps, batch, hidden).

    Args:
        x: shape (steps, batch, input).
        h: the states before the steps, shape (steps, batch, hidden).
        nonlinearity: "tanh" or "relu".
    """
    a = affine(x, weights.W_ih, weights.b_ih).add_(affine(h, weights.W_hh, weights.b_hh)).view(h.shape)
    return a.tanh_() if nonlinearity == "tanh" else a.relu_()


def slope_from_state(h: Tensor, nonlinearity: str, out: Tensor) -> None:
    """f'(a_t), which tanh and relu give as a function of h_t alone."""
    if nonlinearity == "tanh":
        # As autograd forms it: where |h| is near 1, the rounding of h itself weighs as much.
        torch.addcmul(h.new_ones(()), h, h, value=-1, out=out)
    else:
        torch.gt(h, 0, out=out)
