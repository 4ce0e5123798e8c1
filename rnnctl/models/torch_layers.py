"""torch's own recurrent layers with a readout at every step: the model that size flags build."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnnctl.cells import OUTPUT_ACTIVATIONS
from rnnctl.coupled_lstm import CoupledLSTM
from rnnctl.errors import InputError
from rnnctl.initializers import initialize_W_hh
from rnnctl.recurrence.nonlinearities import IN_TORCH

LAYERS: Mapping[str, Callable[..., nn.RNNBase]] = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "lstm": nn.LSTM,
    "coupled-lstm": CoupledLSTM,
}


class LayeredRNN(nn.Module):
    """nn.RNN, nn.GRU or nn.LSTM, with a linear readout of the last layer at every step.

    Args:
        cell: a name of ``LAYERS``: "rnn", "gru", "lstm", "coupled-lstm".
        input_size, hidden_size, output_size: features of x_t, of h_t in one direction, and of y_t.
        num_layers, bidirectional, bias: as in torch.
        nonlinearity: of an rnn, "tanh" or "relu".
        output_activation: "identity", "softmax", "sigmoid" or "tanh".
    Raises:
        InputError: an unknown cell, or relu for a gated one.
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        output_size: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        nonlinearity: str = "tanh",
        output_activation: str = "identity",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if cell not in LAYERS:
            raise InputError(f"cell must be one of {', '.join(LAYERS)}; got {cell!r}")
        has_choice = LAYERS[cell] is nn.RNN
        if not has_choice and nonlinearity != "tanh":
            takes = "cell rnn" if nonlinearity in IN_TORCH else "the hand-written network"
            raise InputError(f"nonlinearity {nonlinearity} is for {takes}; {cell} has tanh and its gates")
        if has_choice and nonlinearity not in IN_TORCH:
            raise InputError(
                f"nonlinearity of cell rnn must be {' or '.join(IN_TORCH)}; got {nonlinearity!r}. "
                "The hand-written network, which is built without a cell, has others"
            )
        more = {"nonlinearity": nonlinearity} if has_choice else {}
        settings = {"num_layers": num_layers, "bidirectional": bidirectional, "bias": bias, "batch_first": True}
        self.rnn = LAYERS[cell](input_size, hidden_size, **settings, **more)
        self.hidden_to_output = nn.Linear(hidden_size * (2 if bidirectional else 1), output_size, bias)
        self.output_activation = OUTPUT_ACTIVATIONS[output_activation]()

    def forward(
        self, x: Float[Tensor, "batch time input"], lengths: Tensor | None = None
    ) -> Float[Tensor, "batch time output"]:
        """y_0 .. y_{T-1}; packed where ``lengths`` (batch,) are given, and zeros in place of h after them."""
        if lengths is None:
            h, _ = self.rnn(x)
        else:
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            h, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])
        y: Tensor = self.output_activation(self.hidden_to_output(h))
        return y

    def initialize(self, init: str, gain: float, generator: Generator) -> None:
        """Fill every gate's block of every W_hh as ``initialize_W_hh`` does."""
        hidden = self.rnn.hidden_size
        for name, weight in self.rnn.named_parameters():
            if name.startswith("weight_hh"):
                with torch.no_grad():
                    for block in torch.split(weight, hidden):
                        initialize_W_hh(block, init, gain, generator)
