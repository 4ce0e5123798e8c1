"""One layer over time by torch's own fused functions, forward, without autograd's tape."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rnnctl.recurrence.weights import LayerWeights

if TYPE_CHECKING:
    from rnnctl.recurrence.cell_kind import LayerOutputs

# What nn.RNN, nn.GRU and nn.LSTM call themselves: a layer that is run once more goes through the same kernels.
_VF: Any = torch._VF
_FUNCTIONS = {"LSTM": _VF.lstm, "GRU": _VF.gru, "RNN_TANH": _VF.rnn_tanh, "RNN_RELU": _VF.rnn_relu}


def fused(mode: str) -> "LayerOutputs":
    """A layer forward as ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM`` computes it.

    Args:
        mode: as torch calls it: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU".
    """
    function = _FUNCTIONS[mode]

    def outputs(
        x: Tensor, batch_sizes: Tensor | None, initial: Sequence[Tensor], weights: Sequence[LayerWeights]
    ) -> tuple[Tensor, Tensor]:
        """The outputs, as x with (directions * hidden) features, and the last h, shape (directions, batch, hidden)."""
        state = initial[0] if len(initial) == 1 else tuple(initial)
        has_biases = any(b is not None for each in weights for b in (each.b_ih, each.b_hh))
        flat = [part for each in weights for part in _flat(each, has_biases)]
        with torch.no_grad(), warnings.catch_warnings():
            # Copies of single layers do not lie in one piece of memory, which costs time on an accelerator.
            warnings.simplefilter("ignore")
            both = len(weights) == 2
            if batch_sizes is None:
                found = function(x, state, flat, has_biases, 1, 0.0, False, both, False)
            else:
                found = function(x, batch_sizes, state, flat, has_biases, 1, 0.0, False, both)
        return found[0], found[1]

    return outputs


def _flat(weights: LayerWeights, has_biases: bool) -> list[Tensor]:
    rows = weights.W_hh.shape[0]
    # Both biases or none are taken, while a layer as the user describes it may have a single one.
    biases = [weights.W_hh.new_zeros(rows) if b is None else b for b in (weights.b_ih, weights.b_hh)]
    projection = [] if weights.W_hr is None else [weights.W_hr]
    return [weights.W_ih, weights.W_hh, *(biases if has_biases else ()), *projection]
