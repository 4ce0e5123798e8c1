"""The LSTM in reverse: gates and cell states from the states that it left behind, and what flows back.

i, f, o = sigmoid(W x + b + W_h h + b_h) each with its own W;  g = tanh(likewise);  c' = f c + i g;
h' = o tanh(c'), of a projected LSTM W_hr (o tanh(c')).

Source: Hochreiter & Schmidhuber 1997, Gers et al. 2000, in the form of ``torch.nn.LSTM``;
projections: Sak et al. 2014, arXiv:1402.1128.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rnnctl.recurrence.sweep import CHUNK_BYTES, State, chunk_steps
from rnnctl.recurrence.weights import LayerWeights, affine_into

# With more units a step, T small operations cost less than log2 T passes over memory.
STEP_BY_STEP = 1024


def lstm_gates(x: Tensor, h: Tensor, weights: LayerWeights, out: Tensor | None = None) -> Tensor:
    """i, f, g, o of every step, by one product each for x and h, shape (steps, batch, 4, hidden).

    Args:
        x: shape (steps, batch, input).
        h: the states before the steps, shape (steps, batch, hidden or proj).
        out: where they are written to.
    """
    rows = weights.W_hh.shape[0]
    gates = x.new_empty(*h.shape[:2], 4, rows // 4) if out is None else out
    flat = gates.view(-1, rows)
    both = weights.b_ih is not None and weights.b_hh is not None
    affine_into(flat, x, weights.W_ih, weights.b_ih + weights.b_hh if both else None)  # type: ignore[operator]
    flat.addmm_(h.reshape(-1, h.shape[2]), weights.W_hh.t())
    gates[..., :2, :].sigmoid_()
    gates[..., 2, :].tanh_()
    gates[..., 3, :].sigmoid_()
    return gates


def cell_states(gates: Tensor, c_init: Tensor) -> Tensor:
    """c_init, c_0 .. c_{T-1} by an elementwise scan of c_t = f c_{t-1} + i g, shape (time + 1, batch, hidden)."""
    c = gates.new_empty(gates.shape[0] + 1, *c_init.shape)
    c[0] = c_init
    i, f, g, _ = gates.unbind(2)
    torch.mul(i, g, out=c[1:])
    if c_init.numel() < STEP_BY_STEP:
        _scan_by_doubling(f, c)
        return c
    states = c.unbind(0)
    for f_t, before, after in zip(f.unbind(0), states[:-1], states[1:], strict=True):
        after.addcmul_(f_t, before)
    return c


def _scan_by_doubling(f: Tensor, c: Tensor) -> None:
    """The scan in log2 T passes over all steps, each of which lets every c_t see twice as far back.

    Source: Hillis & Steele 1986, "Data parallel algorithms".
    """
    c[1] += f[0] * c[0]
    kept, far = f.clone(), 1
    while far < len(kept):
        c[1 + far :] += kept[far:] * c[1:-far]
        kept[far:] = kept[far:] * kept[:-far]
        far *= 2


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


def lstm_slopes(gates: Tensor, c_before: Tensor, c: Tensor, out: LSTMSlopes | None = None) -> LSTMSlopes:
    """The slopes of every step from its gates and the cell states around it.

    Args:
        gates: i, f, g, o, shape (steps, batch, 4, hidden).
        c_before, c: shape (steps, batch, hidden).
        out: where they are written to.
    """
    slopes = LSTMSlopes(torch.empty_like(gates), torch.empty_like(c), torch.empty_like(c)) if out is None else out
    i, _, g, o = gates.unbind(2)
    # s (1 - s) for the sigmoids; g is put right below.
    torch.addcmul(gates, gates, gates, value=-1, out=slopes.gates)
    slope_i, slope_f, slope_g, slope_o = slopes.gates.unbind(2)
    tanh_c, scratch = torch.tanh(c, out=slopes.to_cell), slopes.output
    torch.addcmul(i, torch.mul(i, g, out=scratch), g, value=-1, out=slope_g)
    slope_i.mul_(g)
    slope_f.mul_(c_before)
    slope_o.mul_(tanh_c)
    torch.mul(o, tanh_c, out=slopes.output)
    torch.addcmul(o, slopes.output, tanh_c, value=-1, out=slopes.to_cell)
    return slopes


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
        self.longest = chunk_steps(seq_len, batch, hidden, h.element_size())
        self.gates = h.new_empty(seq_len, batch, 4, hidden)
        together = max(1, CHUNK_BYTES // (batch * hidden * h.element_size()))
        for start in range(0, seq_len, together):
            chunk = slice(start, start + together)
            lstm_gates(x[chunk], h[:-1][chunk], weights, out=self.gates[chunk])
        if mask is not None:
            # Where a sequence has no step its cell state stays what it is.
            self.gates[:, :, 0] *= mask
            self.gates[:, :, 1].mul_(mask).add_(1 - mask)
        self.c = cell_states(self.gates, c_init)
        self.grads: State = (h.new_empty(self.longest, batch, units), h.new_empty(self.longest, batch, hidden))
        self.delta = h.new_empty(self.longest, batch, 4 * hidden)
        # f, from c' to c.
        self._keep, to_cell, output = h.new_empty(3, self.longest, batch, hidden).unbind(0)
        self._slopes = LSTMSlopes(h.new_empty(self.longest, batch, 4, hidden), to_cell, output)
        self._steps = self._views()

    def _views(self) -> list[tuple[Tensor, ...]]:
        """Of every row of the buffers, taken once: indexing in the loop would cost as much as the arithmetic."""
        grad_h, grad_c = self.grads
        by_gate = self.delta.view(self.longest, -1, 4, grad_c.shape[2])
        slopes = self._slopes
        columns = (
            *(grad_h, grad_c, grad_c.unsqueeze(2), self.delta, by_gate[:, :, :3], by_gate[:, :, 3]),
            *(slopes.gates[:, :, :3], slopes.gates[:, :, 3], slopes.to_cell, self._keep),
        )
        return list(zip(*(column.unbind(0) for column in columns), strict=True))

    def run(self, start: int, stop: int) -> None:
        """Fill the first ``stop - start`` rows of the buffers."""
        n, gates = stop - start, self.gates[start:stop]
        slopes = LSTMSlopes(self._slopes.gates[:n], self._slopes.to_cell[:n], self._slopes.output[:n])
        lstm_slopes(gates, self.c[start:stop], self.c[start + 1 : stop + 1], out=slopes)
        self._keep[:n] = gates[:, :, 1]
        if self.mask is not None:
            mask = self.mask[start:stop]
            slopes.gates.mul_(mask.unsqueeze(-1))
            slopes.to_cell.mul_(mask)
            self._keep[:n] *= mask
        self._walk(n)
        if self.mask is not None:
            for grad in self.grads:
                grad[:n] *= self.mask[start:stop]

    def _walk(self, n: int) -> None:
        W_hh, W_hr, multiply = self.weights.W_hh, self.weights.W_hr, torch.mul
        later = None
        for step in reversed(self._steps[:n]):
            grad_h, grad_c, wide_c, delta, cell, output, slope_cell, slope_output, to_cell, keep = step
            if later is not None:
                grad_h.addmm_(later[0], W_hh)
                grad_c.addcmul_(later[1], later[2])
            grad = grad_h if W_hr is None else grad_h @ W_hr
            grad_c.addcmul_(grad, to_cell)
            multiply(wide_c, slope_cell, out=cell)
            multiply(grad, slope_output, out=output)
            later = delta, grad_c, keep

    def carried(self, row: int) -> State:
        """(delta W_hh, f * dL/dc)."""
        return self.delta[row] @ self.weights.W_hh, self.grads[1][row] * self._keep[row]
