"""The states and slopes that a network runs through, in float64, a stretch of time at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.cells import FullRNN
from rnnctl.errors import InputError
from rnnctl.recurrence.elman import hidden_states
from rnnctl.recurrence.reverse import threads_for

# Bytes of one stretch of hidden states.
STRETCH_BYTES = 1 << 22
COMPUTED_IN = "float64 on cpu"


@dataclass(frozen=True)
class Weights:
    """The recurrence in float64 on the CPU: W_xh (hidden, input), W_hh (hidden, hidden), b_h (hidden,) or None."""

    W_xh: Tensor
    W_hh: Tensor
    b_h: Tensor | None
    nonlinearity: str


@dataclass(frozen=True)
class Stretch:
    """Consecutive steps from ``start`` on: h_t and f'(a_t), both (steps, batch, hidden)."""

    start: int
    h: Tensor
    slope: Tensor


def recurrent_weights(model: FullRNN) -> Weights:
    """The weights of the recurrence, widened; InputError where one is not finite.

    Args:
        model: of any dtype on any device; nothing of it is changed.
    """
    cell = model.rnn_cell
    W_xh, W_hh = widened(cell.input_to_hidden.weight), widened(cell.hidden_to_hidden.weight)
    biases = cell.input_to_hidden.bias, cell.hidden_to_hidden.bias
    b_h = None if biases[0] is None else widened(biases[0]) + widened(biases[1])
    for name, tensor in (("W_xh", W_xh), ("W_hh", W_hh), ("b_xh + b_hh", b_h)):
        _require_finite(name, tensor)
    return Weights(W_xh, W_hh, b_h, cell.nonlinearity)


def widened(tensor: Tensor) -> Tensor:
    """The values in float64 on the CPU, apart from autograd."""
    return tensor.detach().cpu().double()


def stretches(
    weights: Weights, x: Float[Tensor, "batch time input"], h_init: Float[Tensor, "batch hidden"]
) -> Iterator[Stretch]:
    """The trajectory from step 0 on; it ends before the first step whose h_t is not finite.

    Args:
        weights: of the recurrence.
        x: inputs, shape (batch, time, input).
        h_init: hidden state before step 0, shape (batch, hidden).
    Yields:
        Stretches that tile 0 .. T-1, of a size that does not grow with T.
    """
    last = widened(h_init)
    length = max(1, STRETCH_BYTES // (8 * last.numel()))
    for start in range(0, x.shape[1], length):
        found = _stretch(weights, widened(x[:, start : start + length]), last, start)
        finite = torch.isfinite(found.h).flatten(1).all(dim=1)
        steps = int(finite.long().cumprod(0).sum())
        if steps:
            yield Stretch(start, found.h[:steps], found.slope[:steps])
        if steps < finite.shape[0]:
            return
        last = found.h[-1]


def _stretch(weights: Weights, x: Tensor, h_init: Tensor, start: int) -> Stretch:
    with threads_for(*h_init.shape):
        h = hidden_states(x, h_init, weights.W_xh, weights.W_hh, weights.b_h, weights.nonlinearity)
    if weights.nonlinearity == "relu":
        return Stretch(start, h[1:], (h[1:] > 0).double())
    # Not 1 - h^2, which is 0 from |a| = 19 on, where the slope is 1e-16 and its logarithm counts.
    a = torch.matmul(x, weights.W_xh.t()).transpose(0, 1) + torch.matmul(h[:-1], weights.W_hh.t())
    return Stretch(start, h[1:], a.add_(0 if weights.b_h is None else weights.b_h).cosh_().pow_(-2))


def _require_finite(name: str, tensor: Tensor | None) -> None:
    if tensor is None or torch.isfinite(tensor).all():
        return
    place = tuple(int(i) for i in (~torch.isfinite(tensor)).nonzero()[0])
    raise InputError(
        f"{name} must be finite; it holds {float(tensor[place])} at {place}. A nonfinite weight has no spectrum"
    )
