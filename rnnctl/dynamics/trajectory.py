"""The states and slopes that a network runs through, in float64, a stretch of time at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.cells import FullRNN
from rnnctl.dynamics.tangent import ElmanMap, TangentMap
from rnnctl.errors import InputError
from rnnctl.recurrence.elman import hidden_states
from rnnctl.recurrence.threads import threads_for

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


S = TypeVar("S", bound="Stretch")


@runtime_checkable
class Stretch(Protocol):
    """Consecutive steps of any cell.

    Attributes:
        start: the first of them.
        state: what the next step takes, shape (steps, batch, state).
        tangent: J_t of every step and sequence.
    """

    @property
    def start(self) -> int: ...

    @property
    def state(self) -> Tensor: ...

    @property
    def tangent(self) -> TangentMap: ...

    def finite(self) -> Tensor:
        """Whether a step can be measured, shape (steps,)."""

    def first(self: S, steps: int) -> S:
        """The first so many of them."""


@dataclass(frozen=True)
class ElmanStretch:
    """Consecutive steps from ``start`` on: h_t and f'(a_t), both (steps, batch, hidden)."""

    start: int
    h: Tensor
    slope: Tensor
    W_hh: Tensor

    @property
    def state(self) -> Tensor:
        """h_t."""
        return self.h

    @property
    def tangent(self) -> ElmanMap:
        """diag(f'(a_t)) W_hh."""
        return ElmanMap(self.W_hh, self.slope)

    def finite(self) -> Tensor:
        """Whether h_t is, in all sequences."""
        return torch.isfinite(self.h).flatten(1).all(dim=1)

    def first(self, steps: int) -> "ElmanStretch":
        """The first so many steps."""
        return replace(self, h=self.h[:steps], slope=self.slope[:steps])


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
        require_finite(name, tensor)
    return Weights(W_xh, W_hh, b_h, cell.nonlinearity)


def widened(tensor: Tensor) -> Tensor:
    """The values in float64 on the CPU, apart from autograd."""
    return tensor.detach().cpu().double()


def stretches(
    weights: Weights, x: Float[Tensor, "batch time input"], h_init: Float[Tensor, "batch hidden"]
) -> Iterator[ElmanStretch]:
    """The trajectory from step 0 on; it ends before the first step whose h_t is not finite.

    Args:
        weights: of the recurrence.
        x: inputs, shape (batch, time, input).
        h_init: hidden state before step 0, shape (batch, hidden).
    Yields:
        Stretches that tile 0 .. T-1, of a size that does not grow with T.
    """
    first = widened(h_init)
    length = max(1, STRETCH_BYTES // (8 * first.numel()))
    return tiles(x, length, first, lambda x, last, start: _stretch(weights, x, last, start))


def tiles(x: Tensor, length: int, first: Tensor, stretch: Callable[[Tensor, Tensor, int], S]) -> Iterator[S]:
    """Stretches of so many steps, one after the other, up to the first step that is not finite.

    Args:
        x: inputs, shape (batch, time, input).
        first: the state before step 0, shape (batch, state), float64.
        stretch: from inputs in float64, the state before them, and the number of their first step.
    """
    last = first
    for start in range(0, x.shape[1], length):
        found = stretch(widened(x[:, start : start + length]), last, start)
        finite = found.finite()
        steps = int(finite.long().cumprod(0).sum())
        if steps:
            yield found.first(steps)
        if steps < finite.shape[0]:
            return
        last = found.state[-1]


def _stretch(weights: Weights, x: Tensor, h_init: Tensor, start: int) -> ElmanStretch:
    with threads_for(*h_init.shape):
        h = hidden_states(x, h_init, weights.W_xh, weights.W_hh, weights.b_h, weights.nonlinearity)
    if weights.nonlinearity == "relu":
        return ElmanStretch(start, h[1:], (h[1:] > 0).double(), weights.W_hh)
    # Not 1 - h^2, which is 0 from |a| = 19 on, where the slope is 1e-16 and its logarithm counts.
    a = torch.matmul(x, weights.W_xh.t()).transpose(0, 1) + torch.matmul(h[:-1], weights.W_hh.t())
    slope = a.add_(0 if weights.b_h is None else weights.b_h).cosh_().pow_(-2)
    return ElmanStretch(start, h[1:], slope, weights.W_hh)


def require_finite(name: str, tensor: Tensor | None) -> None:
    """Raise InputError for a weight that is not."""
    if tensor is None or torch.isfinite(tensor).all():
        return
    place = tuple(int(i) for i in (~torch.isfinite(tensor)).nonzero()[0])
    raise InputError(
        f"{name} must be finite; it holds {float(tensor[place])} at {place}. A nonfinite weight has no spectrum"
    )
