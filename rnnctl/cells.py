"""The equations of the simple (Elman) RNN as modules.

h_t = f_h(W_hh h_{t-1} + W_xh x_t + b_h)
y_t = f_y(W_hy h_t + b_y)

Source: Elman 1990, "Finding structure in time"; torch's layout of weights throughout.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rnnctl.errors import DeviceError, DtypeError, InputError, ShapeError
from rnnctl.recurrence.nonlinearities import NONLINEARITIES as KNOWN

NONLINEARITIES: Mapping[str, Callable[[], nn.Module]] = {name: f.module for name, f in KNOWN.items()}
OUTPUT_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "softmax": lambda: nn.Softmax(dim=-1),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


class ManualRNNCell(nn.Module):
    """One time step: h_t = f(W_xh x_t + b_xh + W_hh h_{t-1} + b_hh).

    Args:
        input_size: number of features of x_t (I).
        hidden_size: number of hidden units (H).
        nonlinearity: f_h, "tanh", "relu", ...: a name of ``NONLINEARITIES``.
        bias: whether both linear maps have a bias of their own.
        device, dtype: of the parameters, as in ``nn.Linear``.
    Raises:
        InputError: a size below 1, or an unknown nonlinearity.
    Source: Elman 1990; parameters as in ``torch.nn.RNNCell``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _require_positive(input_size=input_size, hidden_size=hidden_size)
        _require_known("nonlinearity", nonlinearity, NONLINEARITIES)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.nonlinearity = nonlinearity
        self.input_to_hidden = nn.Linear(input_size, hidden_size, bias, device, dtype)
        self.hidden_to_hidden = nn.Linear(hidden_size, hidden_size, bias, device, dtype)
        self.activation = NONLINEARITIES[nonlinearity]()

    def forward(
        self, x_t: Float[Tensor, "batch input"], h_t_minus_1: Float[Tensor, "batch hidden"]
    ) -> Float[Tensor, "batch hidden"]:
        """h_t from x_t and h_{t-1}.

        Args:
            x_t: input at step t, shape (batch, input).
            h_t_minus_1: hidden state before the step, shape (batch, hidden).
        Returns:
            h_t, shape (batch, hidden).
        Raises:
            ShapeError, DtypeError, DeviceError: before any arithmetic.
        """
        self._check(x_t, h_t_minus_1)
        transformed_input = self.input_to_hidden(x_t)
        transformed_hidden = self.hidden_to_hidden(h_t_minus_1)
        h_t: Tensor = self.activation(transformed_input + transformed_hidden)
        return h_t

    def _check(self, x_t: Tensor, h_t_minus_1: Tensor) -> None:
        require_shape("x_t", x_t, ("batch", self.input_size))
        require_shape("h_t_minus_1", h_t_minus_1, (x_t.shape[0], self.hidden_size))
        require_like_weights("x_t", x_t, self.hidden_to_hidden.weight)
        require_like_weights("h_t_minus_1", h_t_minus_1, self.hidden_to_hidden.weight)


class FullRNN(nn.Module):
    """The cell unrolled over a sequence, with a linear readout at every step.

    Args:
        input_size, hidden_size, output_size: features of x_t, h_t and y_t (I, H, O).
        nonlinearity: f_h, as of ``ManualRNNCell``.
        output_activation: f_y, "identity", "softmax", "sigmoid" or "tanh".
        bias: whether the three linear maps have biases.
        device, dtype: of the parameters, as in ``nn.Linear``.
    Raises:
        InputError: a size below 1, or an unknown name.
    Source: Elman 1990.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        *,
        nonlinearity: str = "tanh",
        output_activation: str = "identity",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _require_positive(output_size=output_size)
        _require_known("output_activation", output_activation, OUTPUT_ACTIVATIONS)
        self.output_size = output_size
        self.rnn_cell = ManualRNNCell(
            input_size, hidden_size, nonlinearity=nonlinearity, bias=bias, device=device, dtype=dtype
        )
        self.hidden_to_output = nn.Linear(hidden_size, output_size, bias, device, dtype)
        self.output_activation = OUTPUT_ACTIVATIONS[output_activation]()

    def forward(
        self,
        input_sequence: Float[Tensor, "batch time input"],
        h_init: Float[Tensor, "batch hidden"] | None = None,
    ) -> Float[Tensor, "batch time output"]:
        """y_0 .. y_{T-1} for a batch of sequences, one plain step after the other.

        Args:
            input_sequence: x, shape (batch, time, input).
            h_init: hidden state before step 0, shape (batch, hidden); zeros if left out.
        Returns:
            y, shape (batch, time, output).
        Raises:
            ShapeError, DtypeError, DeviceError: before any arithmetic.
        """
        self.check_sequence(input_sequence, h_init)
        h_t = self.initial_state(input_sequence) if h_init is None else h_init
        outputs = []
        for x_t in input_sequence.unbind(dim=1):
            h_t = self.rnn_cell(x_t, h_t)
            outputs.append(self.readout(h_t))
        return torch.stack(outputs, dim=1)

    def readout(self, h_t: Float[Tensor, "*steps hidden"]) -> Float[Tensor, "*steps output"]:
        """y_t = f_y(W_hy h_t + b_y); any leading axes, shape (..., hidden) -> (..., output)."""
        y_t: Tensor = self.output_activation(self.hidden_to_output(h_t))
        return y_t

    def initial_state(self, input_sequence: Float[Tensor, "batch time input"]) -> Float[Tensor, "batch hidden"]:
        """h_init = 0 on the input's device and dtype, shape (batch, hidden)."""
        return input_sequence.new_zeros(input_sequence.shape[0], self.rnn_cell.hidden_size)

    def check_sequence(self, input_sequence: Tensor, h_init: Tensor | None) -> None:
        """Raise ShapeError, DtypeError or DeviceError unless ``forward`` can take these.

        Args:
            input_sequence: x, expected of shape (batch, time, input).
            h_init: expected of shape (batch, hidden), or None.
        """
        cell, weight = self.rnn_cell, self.hidden_to_output.weight
        require_shape("input_sequence", input_sequence, ("batch", "time", cell.input_size))
        require_like_weights("input_sequence", input_sequence, weight)
        if h_init is not None:
            require_shape("h_init", h_init, (input_sequence.shape[0], cell.hidden_size))
            require_like_weights("h_init", h_init, weight)


def require_full_rnn(model: object) -> None:
    """Raise InputError for any other module."""
    if not isinstance(model, FullRNN):
        raise InputError(f"model must be a rnnctl.FullRNN; got {type(model).__name__}")


def require_shape(name: str, tensor: Tensor, expected: tuple[str | int, ...]) -> None:
    """Raise ShapeError unless the shape fits; a named axis takes any length from 1 up."""
    if not isinstance(tensor, Tensor):
        raise ShapeError(f"{name} must be a tensor of shape {_words(expected)}; got {type(tensor).__name__}")
    got = tuple(tensor.shape)
    fits = len(got) == len(expected) and all(
        n >= 1 if isinstance(want, str) else n == want for n, want in zip(got, expected, strict=True)
    )
    if fits:
        return
    hint = ""
    if len(got) == len(expected) - 1:
        hint = f". For a single one, add the missing axis: {name}.unsqueeze(0)"
    elif 0 in got:
        hint = ". An empty batch or sequence has no gradient to report"
    raise ShapeError(f"{name} must have shape {_words(expected)}; got {got}{hint}")


def require_like_weights(name: str, tensor: Tensor, weight: Tensor) -> None:
    """Raise DtypeError or DeviceError unless the tensor can meet the weights; both of any shape."""
    # Autocast brings the dtypes together itself.
    if tensor.dtype != weight.dtype and not torch.is_autocast_enabled(weight.device.type):
        raise DtypeError(
            f"{name} must have the weights' dtype {weight.dtype}; got {tensor.dtype}. "
            f"Try {name}.to({weight.dtype}) or model.to({tensor.dtype})"
            if tensor.is_floating_point()
            else f"{name} must have the weights' dtype {weight.dtype}; got {tensor.dtype}. "
            f"Try {name}.to({weight.dtype})"
        )
    if tensor.device != weight.device:
        raise DeviceError(
            f"{name} must be on the weights' device {weight.device}; got {tensor.device}. "
            f"Try {name}.to('{weight.device}')"
        )


def _words(expected: tuple[str | int, ...]) -> str:
    return "(" + ", ".join(str(axis) for axis in expected) + ")"


def _require_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise InputError(f"{name} must be a whole number from 1 up; got {size!r}")


def _require_known(kind: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise InputError(f"{kind} must be one of {', '.join(known)}; got {name!r}")
