"""The LSTM in reverse: gates and cell states from the states that it left behind, and what flows back.

i, f, o = sigmoid(W x + b + W_h h + b_h) each with its own W;  g = tanh(likewise);  c' = f c + i g;
h' = o tanh(c'), of a projected LSTM W_hr (o tanh(c')).

Source: Hochreiter & Schmidhuber 1997, Gers et al. 2000, in the form of ``torch.nn.LSTM``;
projections: Sak et al. 2014, arXiv:1402.1128.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rnnctl.recurrence.gates import LayerWeights, affine
from rnnctl.recurrence.reverse import State, chunk_steps


def lstm_gates(x: Tensor, h: Tensor, weights: LayerWeights, out: Tensor | None = None) -> Tensor:
    """i, f, g, o of every step, by one product each for x and h, shape (steps, batch, 4, hidden).

    Args:
        x: shape (steps, batch, input).
        h: the states before the steps, shape (steps, batch, hidden or proj).
        out: where they are written to.
    """
    bias = weights.b_ih if weights.b_hh is None or weights.b_ih is None else weights.b_ih + weights.b_hh
    from_x = affine(x, weights.W_ih, bias)
    flat = h.reshape(-1, h.shape[2])
    product = torch.addmm(from_x, flat, weights.W_hh.t(), out=None if out is None else out.view(from_x.shape))
    gates = product.view(*h.shape[:2], 4, -1)
    gates[..., :2, :].sigmoid_()
    gates[..., 2, :].tanh_()
    gates[..., 3, :].sigmoid_()
    return gates


def cell_states(gates: Tensor, c_init: Tensor) -> Tensor:
    """c_init, c_0 .. c_{T-1} by an elementwise scan, shape (time + 1, batch, hidden)."""
    c = gates.new_empty(gates.shape[0] + 1, *c_init.shape)
    c[0] = c_init
    i, f, g, _ = gates.unbind(2)
    torch.mul(i, g, out=c[1:])
    states = c.unbind(0)
    for f_t, before, after in zip(f.unbind(0), states[:-1], states[1:], strict=True):
        after.addcmul_(f_t, before)
    return c


@dataclass(frozen=True)
class LSTMSlopes:
    """What flows back is multiplied with these, elementwise, each with leading axes (steps, batch).

    ``output`` is o tanh(c'), which is h' unless it is projected.

    Attributes:
        gates: on the way to the pre-activations, (..., 4, hidden): of i, f, g for dL/dc', of o for
            the gradient of ``output``.
        to_cell: the gradient of ``output`` on its way to c', (..., hidden).
        output: (..., hidden).
    """

    gates: Tensor
    to_cell: Tensor
    output: Tensor


def lstm_slopes(gates: Tensor, c_before: Tensor, c: Tensor, out: Tensor | None = None) -> LSTMSlopes:
    """The slopes of every step from its gates and the cell states around it.

    Args:
        gates: i, f, g, o, shape (steps, batch, 4, hidden).
        c_before, c: shape (steps, batch, hidden).
        out: where the slopes of the gates are written to.
    """
    i, _, g, o = gates.unbind(2)
    slopes = torch.empty_like(gates) if out is None else out
    # s (1 - s) for the sigmoids; g is put right below.
    torch.addcmul(gates, gates, gates, value=-1, out=slopes)
    slope_i, slope_f, slope_g, slope_o = slopes.unbind(2)
    slope_i.mul_(g)
    slope_f.mul_(c_before)
    torch.addcmul(i, i * g, g, value=-1, out=slope_g)
    tanh_c = torch.tanh(c)
    slope_o.mul_(tanh_c)
    output = o * tanh_c
    return LSTMSlopes(slopes, torch.addcmul(o, output, tanh_c, value=-1), output)


def lstm_states(gates: Tensor, c: Tensor, W_hr: Tensor | None) -> Tensor:
    """h' of every step from its gates and cell state, shape (steps, batch, hidden or proj)."""
    output = gates[..., 3, :] * torch.tanh(c)
    return output if W_hr is None else output @ W_hr.t()


class LSTMSteps:
    """dL/dc[t] gains to_cell[t] * grad[t], grad[t] being dL/dh[t] (through W_hr where there is one);
    delta[t] = slopes[t] * dL/dc[t], for gate o slopes[t] * grad[t];
    dL/dh[t-1] = direct[t-1] + delta[t] W_hh;  dL/dc[t-1] gains f[t] * dL/dc[t].

    Args:
        x: shape (time, batch, input).
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden or proj).
        c_init: cell state before step 0, shape (batch, hidden).
        mask: 1 where a sequence has a step, shape (time, batch, 1); None where all have all.

    Attributes:
        gates: i, f, g, o, shape (time, batch, 4, hidden).
        c: c_init, c_0 .. c_{T-1}, shape (time + 1, batch, hidden).
    """

    def __init__(self, x: Tensor, h: Tensor, c_init: Tensor, weights: LayerWeights, mask: Tensor | None = None) -> None:
        seq_len, (batch, units) = h.shape[0] - 1, h.shape[1:]
        hidden = c_init.shape[1]
        self.h, self.weights, self.mask = h, weights, mask
        self.longest = chunk_steps(seq_len, batch, 4 * hidden, h.element_size())
        self.gates = h.new_empty(seq_len, batch, 4, hidden)
        for start in range(0, seq_len, self.longest):
            chunk = slice(start, start + self.longest)
            lstm_gates(x[chunk], h[:-1][chunk], weights, out=self.gates[chunk])
        if mask is not None:
            # Where a sequence has no step its cell state stays what it is.
            self.gates[:, :, 0] *= mask
            self.gates[:, :, 1].mul_(mask).add_(1 - mask)
        self.c = cell_states(self.gates, c_init)
        self.grads: State = (h.new_empty(self.longest, batch, units), h.new_empty(self.longest, batch, hidden))
        self.delta = h.new_empty(self.longest, batch, 4 * hidden)
        self._slopes = self.gates.new_empty(self.longest, batch, 4, hidden)
        self._keep = self.gates[:, :, 1]

    def run(self, start: int, stop: int) -> None:
        """Fill the first ``stop - start`` rows of the buffers."""
        n = stop - start
        slopes = lstm_slopes(
            self.gates[start:stop], self.c[start:stop], self.c[start + 1 : stop + 1], out=self._slopes[:n]
        )
        self._keep = self.gates[start:stop, :, 1]
        if self.mask is not None:
            mask = self.mask[start:stop]
            slopes.gates.mul_(mask.unsqueeze(-1))
            slopes.to_cell.mul_(mask)
            self._keep = self._keep * mask
        self._walk(n, slopes)
        if self.mask is not None:
            for grad in self.grads:
                grad[:n] *= self.mask[start:stop]

    def _walk(self, n: int, slopes: LSTMSlopes) -> None:
        grad_h, grad_c = (grad[:n].unbind(0) for grad in self.grads)
        wide_c = self.grads[1][:n].unsqueeze(2).unbind(0)
        by_gate = self.delta[:n].view(n, -1, 4, self.c.shape[2])
        cell, output = by_gate[:, :, :3].unbind(0), by_gate[:, :, 3].unbind(0)
        slope_cell, slope_output = slopes.gates[:, :, :3].unbind(0), slopes.gates[:, :, 3].unbind(0)
        to_cell, keep, delta = slopes.to_cell.unbind(0), self._keep.unbind(0), self.delta[:n].unbind(0)
        W_hh, W_hr = self.weights.W_hh, self.weights.W_hr
        for t in range(n - 1, -1, -1):
            grad = grad_h[t] if W_hr is None else grad_h[t] @ W_hr
            grad_c[t].addcmul_(grad, to_cell[t])
            torch.mul(wide_c[t], slope_cell[t], out=cell[t])
            torch.mul(grad, slope_output[t], out=output[t])
            if t > 0:
                grad_h[t - 1].addmm_(delta[t], W_hh)
                grad_c[t - 1].addcmul_(grad_c[t], keep[t])

    def carried(self, row: int) -> State:
        """(delta W_hh, f * dL/dc)."""
        return self.delta[row] @ self.weights.W_hh, self.grads[1][row] * self._keep[row]
