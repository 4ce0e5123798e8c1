"""Ways to one gradient of W_hh: an ordinary training step, and four ways to see inside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnctl.cells import FullRNN
from rnnctl.errors import InputError
from rnnctl.files.weights import TORCH_NAMES
from rnnctl.gradients.autograd import clone_contributions
from rnnctl.gradients.gradnorm import gradnorm
from rnnctl.models.hand_written import Problem
from rnnctl.models.hooks import results_of
from rnnctl.recurrence.nonlinearities import IN_TORCH

# The one that all others are compared with, and ours.
REFERENCE, SWEEP = "nn.RNN", "rnnctl sweep"


@dataclass(frozen=True)
class Workload:
    """One model and batch; the loss is mse against zeros, at the last step or at all."""

    model: FullRNN
    x: Tensor
    h_init: Tensor
    loss_at: str = "last"

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """T, B, H, I, O."""
        batch, seq_len, inputs = self.x.shape
        return seq_len, batch, self.model.rnn_cell.hidden_size, inputs, self.model.output_size

    @property
    def title(self) -> str:
        """The sizes in one line."""
        seq_len, batch, hidden, inputs, _ = self.sizes
        return f"T {seq_len}, B {batch}, H {hidden}, I {inputs}"

    def loss(self, y: Tensor) -> Tensor:
        """mse against zeros of the outputs (batch, time, output) that carry a loss."""
        y = y[:, -1:] if self.loss_at == "last" else y
        return F.mse_loss(y, torch.zeros_like(y))


def torch_twin(work: Workload) -> nn.RNN:
    """``nn.RNN`` with the weights of the workload's network.

    Raises:
        InputError: a nonlinearity that it does not have.
    """
    cell, readout = work.model.rnn_cell, work.model.hidden_to_output
    if cell.nonlinearity not in IN_TORCH:
        known = " and ".join(IN_TORCH)
        raise InputError(f"bench measures against nn.RNN, which has {known}; got nonlinearity {cell.nonlinearity}")
    rnn = nn.RNN(
        cell.input_size,
        cell.hidden_size,
        nonlinearity=cell.nonlinearity,
        bias=readout.bias is not None,
        batch_first=True,
        device=work.x.device,
        dtype=work.x.dtype,
    )
    ours = work.model.state_dict()
    rnn.load_state_dict({name: ours[own] for name, own in TORCH_NAMES.items() if own in ours})
    return rnn


def torch_step(work: Workload) -> Callable[[], None]:
    """One forward and backward of ``nn.RNN`` with a linear readout."""
    rnn = torch_twin(work)

    def run() -> None:
        rnn.zero_grad()
        h, _ = rnn(work.x, work.h_init.unsqueeze(0))
        needed = h[:, -1:] if work.loss_at == "last" else h
        work.loss(work.model.readout(needed)).backward()  # type: ignore[no-untyped-call]

    return run


def guide_loop(work: Workload) -> Callable[[], None]:
    """One forward and backward of ``FullRNN``, the loop in Python."""

    def run() -> None:
        work.model.zero_grad()
        work.loss(work.model(work.x, work.h_init)).backward()  # type: ignore[no-untyped-call]

    return run


def retained_gradients(work: Workload) -> Callable[[], None]:
    """The guide's loop with ``retain_grad`` on every h_t, and their norms."""

    def run() -> None:
        work.model.zero_grad()
        with results_of(work.model.rnn_cell) as states:
            y = work.model(work.x, work.h_init)
        for h_t in states:
            h_t.retain_grad()
        work.loss(y).backward()  # type: ignore[no-untyped-call]
        torch.stack([h_t.grad.norm() for h_t in states if h_t.grad is not None])

    return run


def cloned_weights(work: Workload) -> Callable[[], None]:
    """Every G_t from T separate clones of W_hh, and their norms."""

    def run() -> None:
        found = clone_contributions(Problem(work.model, work.x, work.h_init, None, "mse", work.loss_at))
        torch.linalg.matrix_norm(found)

    return run


def reverse_sweep(work: Workload) -> Callable[[], None]:
    """``rnnctl.gradnorm``: every step's norm and the total."""

    def run() -> None:
        gradnorm(work.model, work.x, h_init=work.h_init, loss_at=work.loss_at)

    return run


METHODS: Mapping[str, Callable[[Workload], Callable[[], None]]] = {
    REFERENCE: torch_step,
    "guide's loop": guide_loop,
    "retain_grad": retained_gradients,
    "T clones": cloned_weights,
    SWEEP: reverse_sweep,
}


def sweep_multiply_adds(work: Workload) -> int:
    """Multiply-adds that no sweep can avoid: forward, reverse, and the sum of all G_t."""
    seq_len, batch, hidden, inputs, _ = work.sizes
    return seq_len * batch * hidden * (inputs + 3 * hidden)
