"""The LSTM whose input gate is what its forget gate leaves: i = 1 - f.

f, o = sigmoid(W x + b + W_h h + b_h) each with its own W;  g = tanh(likewise);  c' = f c + (1 - f) g;
h' = o tanh(c').

Source: Greff et al. 2017, "LSTM: a search space odyssey", arXiv:1503.04069, where it is CIFG; Gers et al. 2000.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rnnctl.recurrence.cell_kind import Gate
from rnnctl.recurrence.cell_steps import CellArithmetic, SlopeBuffers, scan
from rnnctl.recurrence.slopes import CellSlopes, Linearized, State
from rnnctl.recurrence.weights import LayerWeights, affine, pre_activations


def coupled_layer(
    x: Tensor, batch_sizes: Tensor | None, initial: Sequence[Tensor], weights: Sequence[LayerWeights]
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer in all its directions, forward; autograd may look on.

    Args:
        x: shape (time, batch, input), or packed (steps, input) with how many sequences have a step t.
        initial: h_0 and c_0, shape (directions, batch, hidden) each.
        weights: of the forward direction and, if there is one, of the reverse.
    Returns:
        The outputs, as x but (..., directions * hidden), and h_n and c_n, each (directions, batch, hidden).
    """
    sizes = [x.shape[1]] * x.shape[0] if batch_sizes is None else batch_sizes.tolist()
    rows = x.reshape(-1, x.shape[-1])
    found = [
        _direction(torch.split(affine(rows, each.W_ih, each.b_h), sizes), (h, c), each.W_hh, reverse=bool(place))
        for place, (each, h, c) in enumerate(zip(weights, *initial, strict=True))
    ]
    output = torch.cat([outputs for outputs, _ in found], dim=-1).view(*x.shape[:-1], -1)
    h_n, c_n = (torch.stack([last[part] for _, last in found]) for part in range(2))
    return output, h_n, c_n


def _direction(from_x: Sequence[Tensor], initial: State, W_hh: Tensor, *, reverse: bool) -> tuple[Tensor, State]:
    """The outputs of all steps, (steps, hidden) as packed data lies, and the last states of every sequence."""
    first = len(from_x[-1]) if reverse else len(from_x[0])
    states, ended = tuple(part[:first] for part in initial), list[State]()
    outputs = []
    for a in reversed(from_x) if reverse else from_x:
        running = len(states[0])
        if len(a) > running:
            # Read from its end, a short sequence sets in late.
            states = tuple(torch.cat([s, s_0[running : len(a)]]) for s, s_0 in zip(states, initial, strict=True))
        elif len(a) < running:
            ended.insert(0, tuple(part[len(a) :] for part in states))
            states = tuple(part[: len(a)] for part in states)
        states = _step(a, states, W_hh)
        outputs.append(states[0])
    last = tuple(torch.cat(parts) for parts in zip(states, *ended, strict=True))
    return torch.cat(outputs[::-1] if reverse else outputs), last


def _step(from_x: Tensor, states: State, W_hh: Tensor) -> State:
    """h' and c' from W x + b, (batch, 3 * hidden), and the states before."""
    h, c = states
    f, g, o = (from_x + h @ W_hh.t()).chunk(3, dim=-1)
    f = torch.sigmoid(f)
    c = f * c + (1 - f) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _outputs(
    x: Tensor, batch_sizes: Tensor | None, initial: Sequence[Tensor], weights: Sequence[LayerWeights]
) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return coupled_layer(x, batch_sizes, initial, weights)[:2]


def coupled_gates(x: Tensor, h: Tensor, weights: LayerWeights, out: Tensor | None = None) -> Tensor:
    """f, g, o of every step, by one product each for x and h, shape (steps, batch, 3, hidden).

    Args:
        x: shape (steps, batch, input).
        h: the states before the steps, shape (steps, batch, hidden).
        out: where they are written to.
    """
    gates = pre_activations(x, h, weights, 3, out)
    gates[..., 0, :].sigmoid_()
    gates[..., 1, :].tanh_()
    gates[..., 2, :].sigmoid_()
    return gates


def coupled_cell_states(gates: Tensor, c_init: Tensor) -> Tensor:
    """c_init, c_0 .. c_{T-1} of c_t = f c_{t-1} + (1 - f) g, shape (time + 1, batch, hidden).

    Args:
        gates: f, g, o, shape (time, batch, 3, hidden).
        c_init: shape (batch, hidden).
    """
    c = gates.new_empty(gates.shape[0] + 1, *c_init.shape)
    c[0] = c_init
    f, g, _ = gates.unbind(2)
    torch.mul(1 - f, g, out=c[1:])
    scan(f, c)
    return c


def coupled_slopes(gates: Tensor, c_before: Tensor, c: Tensor, out: SlopeBuffers) -> None:
    """The slopes of every step from its gates and the cell states around it, as autograd rounds them.

    Args:
        gates: f, g, o, shape (steps, batch, 3, hidden).
        c_before, c: shape (steps, batch, hidden).
        out: where they are written to.
    """
    f, g, o = gates.unbind(2)
    # s (1 - s) for the sigmoids; g is put right below.
    torch.addcmul(gates, gates, gates, value=-1, out=out.slopes)
    slope_f, slope_g, slope_o = out.slopes.unbind(2)
    tanh_c, scratch = torch.tanh(c, out=out.to_cell), out.scratch
    slope_f.mul_(torch.sub(c_before, g, out=scratch))
    torch.mul(g, g, out=scratch).neg_().add_(1)
    torch.mul(1 - f, scratch, out=slope_g)
    slope_o.mul_(tanh_c)
    torch.mul(o, tanh_c, out=scratch)
    torch.addcmul(o, scratch, tanh_c, value=-1, out=out.to_cell)


def linearized_coupled(a: Tensor, c_init: Tensor, weights: LayerWeights) -> Linearized:
    """Consecutive steps from the pre-activations of f, g, o, shape (steps, batch, 3, hidden), and the first c.

    Saturation does not round the slopes to 0, as for the LSTM.
    """
    gates, opposite = a.sigmoid(), (-a).sigmoid()
    gates[..., 1, :] = a[..., 1, :].tanh()
    c = coupled_cell_states(gates, c_init)
    f, g, o = gates.unbind(2)
    not_f, _, not_o = opposite.unbind(2)
    tanh_c = c[1:].tanh()
    slopes = [f * not_f * (c[:-1] - g), not_f * a[..., 1, :].cosh().pow(-2), o * not_o * tanh_c]
    to_cell = o * c[1:].cosh().pow(-2)
    around = CellSlopes(weights.W_hh, torch.stack(slopes, dim=2), f, to_cell)
    return Linearized((o * tanh_c, c[1:]), gates, around)


ARITHMETIC = CellArithmetic(
    gates=coupled_gates,
    keep=0,
    cell_states=coupled_cell_states,
    slopes=coupled_slopes,
    linearized=linearized_coupled,
    outputs=_outputs,
    blocks=3,
)
COUPLED_LSTM = ARITHMETIC.kind(
    "CoupledLSTM",
    Gate("f", "forget gate f, 1 - f being the input gate"),
    Gate("g", "cell candidate g", is_candidate=True),
    Gate("o", "output gate o"),
    marker="coupled_gates",
)
