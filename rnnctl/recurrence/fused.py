"""One layer over time by torch's own fused functions, forward, without autograd's tape."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.recurrence.weights import LayerWeights

_VF: Any = torch._VF
_FUNCTIONS = {"LSTM": _VF.lstm, "GRU": _VF.gru, "RNN_TANH": _VF.rnn_tanh, "RNN_RELU": _VF.rnn_relu}


def layer_outputs(
    mode: str, x: Float[Tensor, "time batch input"], initial: Sequence[Tensor], weights: Sequence[LayerWeights]
) -> Float[Tensor, "time batch units"]:
    """h_t of every step as ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM`` computes it.

    Args:
        mode: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU".
        x: inputs, shape (time, batch, input).
        initial: h_0 and, of an LSTM, c_0, each (directions, batch, units).
        weights: of the forward direction and, if there is one, of the reverse.
    Returns:
        Shape (time, batch, directions * units), every direction in the order of time.
    """
    return layer_run(mode, x, None, initial, weights)[0]


def layer_run(
    mode: str, x: Tensor, batch_sizes: Tensor | None, initial: Sequence[Tensor], weights: Sequence[LayerWeights]
) -> tuple[Tensor, Tensor]:
    """The outputs of one layer in all its directions, and its last h_n, (directions, batch, units).

    Args:
        mode, initial, weights: as of ``layer_outputs``.
        x: (time, batch, input), or packed (steps, input) with how many sequences have a step t.
    """
    state = tuple(initial) if mode == "LSTM" else initial[0]
    has_biases = any(b is not None for each in weights for b in (each.b_ih, each.b_hh))
    flat = [part for each in weights for part in _flat(each, has_biases)]
    with torch.no_grad(), warnings.catch_warnings():
        # Copies of single layers do not lie in one piece of memory, which costs time on an accelerator.
        warnings.simplefilter("ignore")
        both = len(weights) == 2
        if batch_sizes is None:
            found = _FUNCTIONS[mode](x, state, flat, has_biases, 1, 0.0, False, both, False)
        else:
            found = _FUNCTIONS[mode](x, batch_sizes, state, flat, has_biases, 1, 0.0, False, both)
    return found[0], found[1]


def _flat(weights: LayerWeights, has_biases: bool) -> list[Tensor]:
    rows = weights.W_hh.shape[0]
    biases = [weights.W_hh.new_zeros(rows) if b is None else b for b in (weights.b_ih, weights.b_hh)]
    projection = [] if weights.W_hr is None else [weights.W_hr]
    return [weights.W_ih, weights.W_hh, *(biases if has_biases else ()), *projection]
