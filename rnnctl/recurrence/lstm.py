"""The LSTM: gates and cell states from the states that it left behind, its slopes, and what flows back.

i, f, o = sigmoid(W x + b + W_h h + b_h) each with its own W;  g = tanh(likewise);  c' = f c + i g;
h' = o tanh(c'), of a projected LSTM W_hr (o tanh(c')).

Source: Hochreiter & Schmidhuber 1997, Gers et al. 2000, in the form of ``torch.nn.LSTM``;
projections: Sak et al. 2014, arXiv:1402.1128.
"""

import torch
from torch import Tensor

from rnnctl.recurrence.cell_kind import Gate
from rnnctl.recurrence.cell_steps import CellArithmetic, SlopeBuffers, scan
from rnnctl.recurrence.fused import fused
from rnnctl.recurrence.slopes import CellSlopes, Linearized
from rnnctl.recurrence.weights import LayerWeights, pre_activations


def lstm_gates(x: Tensor, h: Tensor, weights: LayerWeights, out: Tensor | None = None) -> Tensor:
    """i, f, g, o of every step, by one product each for x and h, shape (steps, batch, 4, hidden).

    Args:
        x: shape (steps, batch, input).
        h: the states before the steps, shape (steps, batch, hidden or proj).
        out: where they are written to.
    """
    gates = pre_activations(x, h, weights, 4, out)
    gates[..., :2, :].sigmoid_()
    gates[..., 2, :].tanh_()
    gates[..., 3, :].sigmoid_()
    return gates


def cell_states(gates: Tensor, c_init: Tensor) -> Tensor:
    """c_init, c_0 .. c_{T-1} of c_t = f c_{t-1} + i g, shape (time + 1, batch, hidden).

    Args:
        gates: i, f, g, o, shape (time, batch, 4, hidden).
        c_init: shape (batch, hidden).
    """
    c = gates.new_empty(gates.shape[0] + 1, *c_init.shape)
    c[0] = c_init
    i, f, g, _ = gates.unbind(2)
    torch.mul(i, g, out=c[1:])
    scan(f, c)
    return c


def lstm_slopes(gates: Tensor, c_before: Tensor, c: Tensor, out: SlopeBuffers) -> None:
    """The slopes of every step from its gates and the cell states around it, as autograd rounds them.

    Args:
        gates: i, f, g, o, shape (steps, batch, 4, hidden).
        c_before, c: shape (steps, batch, hidden).
        out: where they are written to.
    """
    i, _, g, o = gates.unbind(2)
    # s (1 - s) for the sigmoids; g is put right below.
    torch.addcmul(gates, gates, gates, value=-1, out=out.slopes)
    slope_i, slope_f, slope_g, slope_o = out.slopes.unbind(2)
    tanh_c, scratch = torch.tanh(c, out=out.to_cell), out.scratch
    torch.addcmul(i, torch.mul(i, g, out=scratch), g, value=-1, out=slope_g)
    slope_i.mul_(g)
    slope_f.mul_(c_before)
    slope_o.mul_(tanh_c)
    torch.mul(o, tanh_c, out=scratch)
    torch.addcmul(o, scratch, tanh_c, value=-1, out=out.to_cell)


def linearized_lstm(a: Tensor, c_init: Tensor, weights: LayerWeights) -> Linearized:
    """Consecutive steps from the pre-activations of i, f, g, o, shape (steps, batch, 4, hidden), and the first c.

    Sigmoids of the opposite in place of 1 - f, and cosh^-2 in place of 1 - g^2: those are 0 where the gates are
    saturated, while the slopes are not and their logarithms count.
    """
    gates, opposite = a.sigmoid(), (-a).sigmoid()
    gates[..., 2, :] = a[..., 2, :].tanh()
    c = cell_states(gates, c_init)
    i, f, g, o = gates.unbind(2)
    tanh_c, slope_c = c[1:].tanh(), c[1:].cosh().pow(-2)
    slopes = gates * opposite
    slopes[..., 2, :] = a[..., 2, :].cosh().pow(-2)
    slopes *= torch.stack([g, c[:-1], i, tanh_c], dim=2)
    return Linearized((o * tanh_c, c[1:]), gates, CellSlopes(weights.W_hh, slopes, f, o * slope_c, weights.W_hr))


ARITHMETIC = CellArithmetic(
    gates=lstm_gates,
    keep=1,
    cell_states=cell_states,
    slopes=lstm_slopes,
    linearized=linearized_lstm,
    outputs=fused("LSTM"),
    blocks=4,
)
LSTM = ARITHMETIC.kind(
    "LSTM",
    Gate("i", "input gate i"),
    Gate("f", "forget gate f"),
    Gate("g", "cell candidate g", is_candidate=True),
    Gate("o", "output gate o"),
    projects=True,
)
