"""What autograd says of the hand-written network: references that share no code with the sweep."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.func import functional_call

from rnnctl.gradients.agreement import TOLERANCES, Agreement, compared
from rnnctl.losses import attached_target, loss_steps, sequence_loss
from rnnctl.memory import require_tape
from rnnctl.models.hand_written import Problem
from rnnctl.models.hooks import results_of

W_HH = "rnn_cell.hidden_to_hidden.weight"


class Swept(Protocol):
    """What any sweep has.

    ``grad_W_hh``: the sum of all contributions, (hidden, hidden), float64. ``magnitude``: an upper
    bound of its norm that cancelling terms do not shrink. ``h``: the states it went along.
    """

    @property
    def grad_W_hh(self) -> Tensor: ...

    @property
    def magnitude(self) -> float: ...

    @property
    def h(self) -> Tensor: ...


S = TypeVar("S", bound=Swept)


@dataclass(frozen=True, eq=False)
class Reference:
    """Autograd's gradient and the hidden states it differentiated.

    ``grad_W_hh`` (hidden, hidden); ``h`` h_init, h_0 .. h_{T-1}, (time + 1, batch, hidden).
    """

    grad_W_hh: Tensor
    h: Tensor


def autograd_reference(problem: Problem) -> Reference:
    """``W_hh.grad`` from autograd through the model's own loop; the model is left as it was."""
    model, x = problem.model, problem.x
    require_tape(problem.seq_len, x.shape[0] * model.rnn_cell.hidden_size * x.element_size())
    W_hh = model.get_parameter(W_HH).detach().clone().requires_grad_()
    with torch.enable_grad(), results_of(model.rnn_cell) as states:
        y = functional_call(model, {W_HH: W_hh}, (x, problem.h_init))
        (grad,) = torch.autograd.grad(_loss_at_steps(y, problem), W_hh)
    return Reference(grad, torch.stack([problem.h_init, *(h_t.detach() for h_t in states)]))


def agreement(found: Swept, reference: Reference, states: str) -> Agreement:
    """Compare the sum of the contributions with autograd's gradient."""
    tolerance = TOLERANCES[reference.grad_W_hh.dtype]
    return compared(found.grad_W_hh, reference.grad_W_hh, found.magnitude, tolerance, states)


def along_states(problem: Problem, sweep: Callable[[Tensor], S], verify: bool) -> tuple[S, Agreement | None]:
    """Sweep along the fast forward pass, and compare with autograd where asked.

    A chaotic network amplifies rounding until two correct forward passes part ways: then the
    states are those of the very pass that autograd differentiated.

    Args:
        sweep: from h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden), to a result.
    """
    result = sweep(problem.states())
    if not verify:
        return result, None
    reference = autograd_reference(problem)
    compared = agreement(result, reference, states="sweep")
    if compared.holds is False and same_trajectory(problem, result.h):
        result = sweep(reference.h)
        compared = agreement(result, reference, states="model")
    return result, compared


def same_trajectory(problem: Problem, h: Tensor) -> bool:
    """Whether every h_t follows from x_t and h_{t-1} by the model's own cell, up to rounding.

    Args:
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).
    """
    cell = problem.model.rnn_cell
    with torch.no_grad():
        x_t, before, after = problem.x.transpose(0, 1).flatten(0, 1), h[:-1].flatten(0, 1), h[1:].flatten(0, 1)
        weight = cell.hidden_to_hidden.weight
        expected = cell(x_t.to(weight.dtype), before.to(weight.dtype)).to(h.dtype)
        room = 64 * torch.finfo(weight.dtype).eps * (1 + torch.linalg.matrix_norm(weight.float(), math.inf))
        return bool(((expected - after).abs() <= room * (1 + after.abs())).all())


def clone_contributions(problem: Problem) -> Tensor:
    """Every G_t from autograd over T separate clones of W_hh, shape (time, hidden, hidden)."""
    model = problem.model
    clones = [model.get_parameter(W_HH).detach().clone().requires_grad_() for _ in range(problem.seq_len)]
    h_t, outputs = problem.h_init, []
    with torch.enable_grad():
        for x_t, clone in zip(problem.x.unbind(1), clones, strict=True):
            h_t = functional_call(model.rnn_cell, {"hidden_to_hidden.weight": clone}, (x_t, h_t))
            outputs.append(model.readout(h_t))
        grads = torch.autograd.grad(_loss_at_steps(torch.stack(outputs, dim=1), problem), clones)
    return torch.stack(grads)


def _loss_at_steps(y: Tensor, problem: Problem) -> Tensor:
    seq_len = y.shape[1]
    y = y[:, seq_len - loss_steps(seq_len, problem.loss_at) :]
    return sequence_loss(y, attached_target(problem.target, y, problem.loss, seq_len), problem.loss)
