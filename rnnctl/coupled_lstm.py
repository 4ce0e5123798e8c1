"""The LSTM with coupled input and forget gates as a module, built and called as ``nn.LSTM`` is."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from rnnctl.cells import require_like_weights, require_shape
from rnnctl.errors import InputError, ShapeError
from rnnctl.recurrence.coupled_lstm import COUPLED_LSTM, coupled_layer
from rnnctl.recurrence.weights import LayerWeights

Hidden = tuple[Tensor, Tensor]


class CoupledLSTM(nn.RNNBase):
    """c_t = f_t c_{t-1} + (1 - f_t) g_t;  h_t = o_t tanh(c_t): three gates a unit, rows f, g, o of every weight.

    Args:
        input_size, hidden_size: features of x_t and h_t in one direction.
        num_layers, bias, batch_first, dropout, bidirectional, device, dtype: as of ``nn.LSTM``.
    Raises:
        ValueError, TypeError: as ``nn.LSTM``.
    Source: Greff et al. 2017, arXiv:1503.04069 (CIFG); weights named and drawn as those of ``nn.LSTM``.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, **settings: Any) -> None:
        if "proj_size" in settings:
            raise InputError("a CoupledLSTM has no projection; leave out proj_size")
        # The GRU is the layer of torch's that has three blocks of rows as well.
        super().__init__("GRU", input_size, hidden_size, num_layers, **settings)
        self.mode = "COUPLED_LSTM"
        # By this a checkpoint is told from a GRU's, whose weights have the same names and shapes.
        self.register_buffer(str(COUPLED_LSTM.marker), torch.tensor(True))

    def flatten_parameters(self) -> None:
        """Nothing: no fused kernel wants the weights in one piece of memory."""

    def forward(
        self, input: Tensor | PackedSequence, hx: Hidden | None = None
    ) -> tuple[Tensor | PackedSequence, Hidden]:
        """Outputs of all steps, and h_n and c_n.

        Args:
            input: (batch, time, input) with ``batch_first``, else (time, batch, input); (time, input) for one
                sequence; or packed.
            hx: h_0 and c_0, each (layers * directions, batch, hidden), without the batch axis for one sequence;
                zeros if left out.
        Returns:
            The output, as the input but (..., directions * hidden), and (h_n, c_n), each as h_0.
        Raises:
            ShapeError, DtypeError, DeviceError: before any arithmetic.
        """
        # As torch's own layers do: a weight may be another tensor at every call, as by a parametrization.
        self._update_flat_weights()
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        if input.dim() not in (2, 3):
            raise ShapeError(f"input must have shape (time, input) or 3 axes; got {tuple(input.shape)}")
        single = input.dim() == 2
        x = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
        require_shape("input", x, ("time", "batch", self.input_size))
        if hx is not None and single:
            hx = hx[0].unsqueeze(1), hx[1].unsqueeze(1)
        output, hidden = self._run(x, None, self._initial(x, x.shape[1], hx))
        if single:
            return output.squeeze(1), (hidden[0].squeeze(1), hidden[1].squeeze(1))
        return (output.transpose(0, 1) if self.batch_first else output), hidden

    def _packed(self, packed: PackedSequence, hx: Hidden | None) -> tuple[PackedSequence, Hidden]:
        data, sizes, order, back = packed
        require_shape("input", data, ("steps", self.input_size))
        if hx is not None and order is not None:
            hx = hx[0].index_select(1, order), hx[1].index_select(1, order)
        output, hidden = self._run(data, sizes, self._initial(data, int(sizes[0]), hx))
        if back is not None:
            hidden = hidden[0].index_select(1, back), hidden[1].index_select(1, back)
        return PackedSequence(output, sizes, order, back), hidden

    def _initial(self, x: Tensor, batch: int, hx: Hidden | None) -> Hidden:
        """h_0 and c_0, checked, or zeros."""
        like = self._weights(0)[0].W_hh
        require_like_weights("input", x, like)
        shape = (self.num_layers * (2 if self.bidirectional else 1), batch, self.hidden_size)
        if hx is None:
            zeros = like.new_zeros(shape)
            return zeros, zeros
        for name, part in zip(("h_0", "c_0"), hx, strict=True):
            require_shape(name, part, shape)
            require_like_weights(name, part, like)
        return hx

    def _run(self, x: Tensor, batch_sizes: Tensor | None, initial: Hidden) -> tuple[Tensor, Hidden]:
        """All layers, from the first up, with dropout between them."""
        ends: list[Hidden] = []
        for layer in range(self.num_layers):
            if layer > 0 and self.dropout > 0:
                x = F.dropout(x, self.dropout, self.training)
            weights = self._weights(layer)
            rows = slice(layer * len(weights), (layer + 1) * len(weights))
            x, h_n, c_n = coupled_layer(x, batch_sizes, (initial[0][rows], initial[1][rows]), weights)
            ends.append((h_n, c_n))
        return x, (torch.cat([h for h, _ in ends]), torch.cat([c for _, c in ends]))

    def _weights(self, layer: int) -> list[LayerWeights]:
        """Of one layer, for every direction, as ``nn.LSTM`` keeps its own."""
        each = 4 if self.bias else 2
        flat: Any = self._flat_weights
        first, count = layer * (2 if self.bidirectional else 1), 2 if self.bidirectional else 1
        return [LayerWeights(*flat[each * row : each * (row + 1)]) for row in range(first, first + count)]
