"""The Elman recurrence over time, forward and in reverse, without autograd's tape.

Time-major throughout: (time, batch, hidden). The hidden states come as h of shape
(time + 1, batch, hidden), h[0] = h_init and h[t + 1] = h_t.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.recurrence.scaling import power_of_two, times_power_of_two

# Bytes of one chunk of hidden states: it should stay in the cache of one core.
CHUNK_BYTES = 1 << 20
LONGEST_CHUNK = 48
# Below this many multiply-adds a step, waking a second thread costs more than it does.
ONE_THREAD_BELOW = 100_000


@dataclass(frozen=True)
class ReverseChunk:
    """Consecutive steps of the reverse sweep, all scaled by the same power of two.

    ``grad_h`` and ``delta`` are 2**exponent times dL/dh_t and dL/da_t, shape (steps, batch, hidden),
    views into buffers that the next chunk overwrites. ``norm`` is the norm of the scaled ``grad_h``
    at each step, shape (steps,), float64.
    """

    start: int
    stop: int
    exponent: int
    grad_h: Tensor
    delta: Tensor
    norm: Tensor

    @property
    def log_norm(self) -> Tensor:
        """ln ||dL/dh_t|| itself, shape (steps,), float64; -inf where it is 0."""
        return self.norm.log() - self.exponent * math.log(2)


def chunk_steps(steps: int, batch: int, hidden: int, itemsize: int) -> int:
    """How many time steps make a chunk that stays in cache."""
    return max(1, min(steps, LONGEST_CHUNK, CHUNK_BYTES // (batch * hidden * itemsize)))


@contextmanager
def threads_for(batch: int, hidden: int) -> Iterator[None]:
    """One thread while the steps are small, as many as before afterwards."""
    threads = torch.get_num_threads()
    if threads == 1 or batch * hidden * hidden >= ONE_THREAD_BELOW:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def hidden_states(
    x: Float[Tensor, "batch time input"],
    h_init: Float[Tensor, "batch hidden"],
    W_xh: Float[Tensor, "hidden input"],
    W_hh: Float[Tensor, "hidden hidden"],
    b_h: Float[Tensor, " hidden"] | None,
    nonlinearity: str,
) -> Float[Tensor, "time_plus_1 batch hidden"]:
    """h_init, h_0 .. h_{T-1}; the inputs of all steps go through one product, W_hh through T.

    Args:
        x: inputs, shape (batch, time, input).
        h_init: hidden state before step 0, shape (batch, hidden).
        W_xh, W_hh: shapes (hidden, input), (hidden, hidden).
        b_h: b_xh + b_hh, shape (hidden,), or None.
        nonlinearity: "tanh" or "relu".
    Returns:
        Shape (time + 1, batch, hidden).
    """
    batch, seq_len, _ = x.shape
    h = x.new_empty(seq_len + 1, batch, W_hh.shape[0])
    h[0] = h_init
    _project_inputs(x, W_xh, b_h, h[1:])
    # A contiguous transpose makes every one of the T products about a tenth faster.
    W_hh_t = W_hh.t().contiguous()
    activate = torch.Tensor.tanh_ if nonlinearity == "tanh" else torch.Tensor.relu_
    states = h.unbind(0)
    for previous, current in zip(states[:-1], states[1:], strict=True):
        activate(current.addmm_(previous, W_hh_t))
    return h


def _project_inputs(x: Tensor, W_xh: Tensor, b_h: Tensor | None, out: Tensor) -> None:
    """out[t] = x_t W_xh^T + b_h, a chunk of time at a time so that no whole copy of x is made."""
    batch, seq_len, inputs = x.shape
    steps = max(1, CHUNK_BYTES // (batch * max(inputs, out.shape[2]) * x.element_size()))
    W_xh_t = W_xh.t()
    for start in range(0, seq_len, steps):
        rows = x[:, start : start + steps].transpose(0, 1).reshape(-1, inputs)
        target = out[start : start + steps].view(rows.shape[0], -1)
        if b_h is None:
            torch.mm(rows, W_xh_t, out=target)
        else:
            torch.addmm(b_h, rows, W_xh_t, out=target)


def reverse_chunks(
    h: Float[Tensor, "time_plus_1 batch hidden"],
    grad_h_direct: Float[Tensor, "last_steps batch hidden"],
    W_hh: Float[Tensor, "hidden hidden"],
    nonlinearity: str,
) -> Iterator[ReverseChunk]:
    """dL/dh_t and dL/da_t from the last step to the first, a chunk of steps at a time.

    delta[t] = f'(a_t) * grad_h[t];  grad_h[t-1] = grad_h_direct[t-1] + delta[t] W_hh.
    Every chunk starts at magnitude 1 by a power of two, so that a gradient that vanishes or
    explodes over many steps neither underflows nor overflows, nor crawls through subnormals.

    Args:
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).
        grad_h_direct: dL/dh_t through y_t alone at the last n steps, shape (n, batch, hidden);
            no earlier step carries a loss.
        W_hh: shape (hidden, hidden).
        nonlinearity: "tanh" or "relu".
    Yields:
        Chunks that tile 0 .. T-1 from the end.
    Source: Rumelhart, Hinton & Williams 1986; Werbos 1990, "Backpropagation through time".
    """
    seq_len, (batch, hidden) = h.shape[0] - 1, h.shape[1:]
    first_direct = seq_len - grad_h_direct.shape[0]
    longest = steps = chunk_steps(seq_len, batch, hidden, h.element_size())
    sweep = _Sweep(W_hh, *h.new_empty(3, longest, batch, hidden).unbind(0))
    stop, exponent, carried = seq_len, 0, None
    while stop > 0:
        start = max(0, stop - steps)
        direct = grad_h_direct[max(start - first_direct, 0) : max(stop - first_direct, 0)]
        top, exponent = _rescaled_top(carried, exponent, direct[-1] if stop > first_direct else None)
        sweep.run(h[start + 1 : stop + 1], top, times_power_of_two(direct, exponent), nonlinearity)
        chunk = sweep.trustworthy(start, stop, exponent)
        yield chunk
        # Where the magnitude drifts fast, shorter chunks throw less away.
        steps = min(longest, 2 * (stop - chunk.start))
        stop = chunk.start
        carried = chunk.delta[0] @ W_hh if stop > 0 else None


class _Sweep:
    """The buffers of the reverse loop and views into them, taken once."""

    def __init__(self, W_hh: Tensor, grad_h: Tensor, delta: Tensor, slope: Tensor) -> None:
        self.W_hh = W_hh
        self.grad_h, self.delta, self.slope = grad_h, delta, slope
        views = grad_h.unbind(0), delta.unbind(0), slope.unbind(0)
        self.steps = list(zip(views[0][1:], views[1][1:], views[2][1:], views[0][:-1], strict=True))

    def run(self, h: Tensor, top: Tensor, direct: Tensor, nonlinearity: str) -> None:
        """Fill the first len(h) rows of the buffers; ``direct`` belongs to the last len(direct)."""
        n = h.shape[0]
        slope_from_state(h, nonlinearity, out=self.slope[:n])
        self.grad_h[: n - direct.shape[0]] = 0
        self.grad_h[n - direct.shape[0] : n] = direct
        self.grad_h[n - 1] = top
        W_hh = self.W_hh
        for grad_h, delta, slope, grad_h_before in reversed(self.steps[: n - 1]):
            torch.mul(slope, grad_h, out=delta)
            grad_h_before.addmm_(delta, W_hh)
        torch.mul(self.slope[0], self.grad_h[0], out=self.delta[0])

    def trustworthy(self, start: int, stop: int, exponent: int) -> ReverseChunk:
        """The chunk, cut where the magnitude has drifted too far from 1; never empty."""
        n = stop - start
        norm = torch.linalg.vector_norm(self.grad_h[:n].flatten(1), dim=1).double()
        first = _first_trustworthy(norm.tolist(), _drift(self.grad_h.dtype))
        return ReverseChunk(
            start + first, stop, exponent, self.grad_h[first:n], self.delta[first:n], norm[first:].cpu()
        )


def slope_from_state(h: Tensor, nonlinearity: str, out: Tensor) -> None:
    """f'(a_t), which tanh and relu give as a function of h_t alone."""
    if nonlinearity == "tanh":
        # As autograd forms it: where |h| is near 1, the rounding of h itself weighs as much.
        torch.addcmul(h.new_ones(()), h, h, value=-1, out=out)
    else:
        torch.gt(h, 0, out=out)


def _rescaled_top(carried: Tensor | None, exponent: int, own: Tensor | None) -> tuple[Tensor, int]:
    """grad_h at the last step of a chunk, scaled to magnitude 1, and its exponent.

    ``own`` is unscaled (through y_t), ``carried`` is scaled by 2**exponent (through h_{t+1}).
    """
    parts = [(part, by) for part, by in ((own, 0), (carried, exponent)) if part is not None]
    powers = [power - by for part, by in parts if (power := power_of_two(part)) is not None]
    new = -max(powers) if powers else exponent
    scaled = [times_power_of_two(part, new - by) for part, by in parts]
    return sum(scaled[1:], scaled[0]), new


def _drift(dtype: torch.dtype) -> float:
    return 2.0**60 if dtype == torch.float32 else 2.0**300


def _first_trustworthy(norms: list[float], drift: float) -> int:
    """The earliest row from which on all norms are 0 or within the drift of 1."""
    first = len(norms) - 1
    while first > 0 and (norms[first - 1] == 0 or 1 / drift < norms[first - 1] < drift):
        first -= 1
    return first
