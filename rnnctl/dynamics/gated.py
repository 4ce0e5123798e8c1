"""The states, gates and step Jacobians that a GRU or LSTM runs through, in float64, a stretch of time at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rnnctl.dynamics.tangent import GRUMap, LSTMMap, TangentMap
from rnnctl.dynamics.trajectory import STRETCH_BYTES, tiles
from rnnctl.models.driven import DrivenLayer, wide_weights
from rnnctl.recurrence.fused import layer_outputs
from rnnctl.recurrence.lstm import cell_states
from rnnctl.recurrence.threads import threads_for
from rnnctl.recurrence.weights import LayerWeights, affine

# Tensors of a stretch's size: pre-activations, their opposites, gates, slopes and what they are made of.
BUFFERS = 6


@dataclass(frozen=True)
class GatedStretch:
    """Consecutive steps from ``start`` on.

    Attributes:
        state: h_t, of an LSTM with c_t after it, shape (steps, batch, state).
        gates: r, z, n or i, f, g, o, shape (steps, batch, gates, hidden).
        tangent: J_t of every step and sequence.
    """

    start: int
    state: Tensor
    gates: Tensor
    tangent: TangentMap

    def finite(self) -> Tensor:
        """Whether the state and J_t are, in all sequences."""
        return torch.isfinite(self.state).flatten(1).all(dim=1) & self.tangent.finite()

    def first(self, steps: int) -> "GatedStretch":
        """The first so many steps."""
        kept = slice(0, steps)
        return replace(self, state=self.state[kept], gates=self.gates[kept], tangent=self.tangent[kept])


def gated_stretches(layer: DrivenLayer, weights: LayerWeights, x: Tensor, start: Tensor) -> Iterator[GatedStretch]:
    """The trajectory from step 0 on; it ends before the first step whose state or J_t is not finite.

    Args:
        layer: a GRU or an LSTM.
        weights: its own, from ``wide_weights``.
        x: inputs, shape (batch, time, input).
        start: the state before step 0, shape (batch, state), float64.
    Yields:
        Stretches that tile 0 .. T-1, of a size that does not grow with T.
    """
    made = _gru_stretch if layer.cell == "GRU" else _lstm_stretch
    length = max(1, STRETCH_BYTES // (8 * BUFFERS * start.shape[0] * weights.W_hh.shape[0]))

    def stretch(x: Tensor, last: Tensor, first_step: int) -> GatedStretch:
        with threads_for(start.shape[0], weights.W_hh.shape[0]):
            return made(weights, x.transpose(0, 1), last, first_step)

    return tiles(x, length, start, stretch)


def wide_stretches(layer: DrivenLayer) -> Iterator[GatedStretch]:
    """The trajectory of the layer along its own inputs; InputError where a weight is not finite."""
    return gated_stretches(layer, wide_weights(layer), layer.x, layer.state_init)


def _gru_stretch(weights: LayerWeights, x: Tensor, h_init: Tensor, start: int) -> GatedStretch:
    """z, r, n and the slopes of h' = (1 - z) n + z h.

    Sigmoids of the opposite in place of 1 - z, and cosh^-2 in place of 1 - n^2: those are 0 where
    the gates are saturated, while the slopes are not and their logarithms count.
    """
    h = layer_outputs("GRU", x, [h_init.unsqueeze(0)], [weights])
    before = torch.cat([h_init.unsqueeze(0), h[:-1]])
    shape = (*h.shape[:2], 3, h.shape[2])
    from_x = affine(x, weights.W_ih, weights.b_ih).view(shape)
    from_h = affine(before, weights.W_hh, weights.b_hh).view(shape)
    rz = from_x[..., :2, :] + from_h[..., :2, :]
    (r, z), (not_r, not_z) = rz.sigmoid().unbind(2), (-rz).sigmoid().unbind(2)
    a_n = from_x[..., 2, :] + r * from_h[..., 2, :]
    n, to_n = a_n.tanh(), not_z * a_n.cosh().pow(-2)
    slopes = [r * not_r * from_h[..., 2, :] * to_n, z * not_z * (before - n), r * to_n]
    tangent = GRUMap(weights.W_hh, torch.stack(slopes, dim=2), z)
    return GatedStretch(start, h, torch.stack([r, z, n], dim=2), tangent)


def _lstm_stretch(weights: LayerWeights, x: Tensor, state: Tensor, start: int) -> GatedStretch:
    """i, f, g, o and the slopes of c' = f c + i g and h' = o tanh(c'); saturation as for the GRU."""
    h_init, c_init = torch.split(state, [weights.W_hh.shape[1], weights.W_hh.shape[0] // 4], dim=1)
    h = layer_outputs("LSTM", x, [h_init.unsqueeze(0).contiguous(), c_init.unsqueeze(0).contiguous()], [weights])
    before = torch.cat([h_init.unsqueeze(0), h[:-1]])
    a = affine(x, weights.W_ih, weights.b_ih) + affine(before, weights.W_hh, weights.b_hh)
    a = a.view(*h.shape[:2], 4, -1)
    gates, opposite = a.sigmoid(), (-a).sigmoid()
    gates[..., 2, :] = a[..., 2, :].tanh()
    c = cell_states(gates, c_init)
    i, f, g, o = gates.unbind(2)
    tanh_c, slope_c = c[1:].tanh(), c[1:].cosh().pow(-2)
    slopes = gates * opposite
    slopes[..., 2, :] = a[..., 2, :].cosh().pow(-2)
    slopes *= torch.stack([g, c[:-1], i, tanh_c], dim=2)
    tangent = LSTMMap(weights.W_hh, slopes, f, o * slope_c, weights.W_hr)
    return GatedStretch(start, torch.cat([h, c[1:]], dim=2), gates, tangent)
