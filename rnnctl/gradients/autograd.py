"""What autograd says of the hand-written network: references that share no code with the sweep."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from rnnctl.errors import TooLargeError
from rnnctl.gradients.agreement import TOLERANCES, Agreement, compared, timed
from rnnctl.losses import attached_target, loss_steps, sequence_loss
from rnnctl.memory import require_tape, require_torchs_tape
from rnnctl.models.hand_written import Problem
from rnnctl.models.hooks import results_of
from rnnctl.models.in_torch import Recurrence, torchs_recurrence

W_HH = "rnn_cell.hidden_to_hidden.weight"
# Of the states that one call of torch's makes: beside its tape it holds what enters them, and a copy of them.
CALL_BYTES = 2**20


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
    """``W_hh.grad`` from autograd through torch's own recurrence where that is the model's, else through its loop."""
    run = torchs_recurrence(problem.model)
    return loop_reference(problem) if run is None else _by_torch(problem, run)


def loop_reference(problem: Problem) -> Reference:
    """``W_hh.grad`` from autograd through the model's own loop; the model is left as it was."""
    model, x = problem.model, problem.x
    require_tape(problem.seq_len, x.shape[0] * model.rnn_cell.hidden_size * x.element_size())
    W_hh = model.get_parameter(W_HH).detach().clone().requires_grad_()
    with torch.enable_grad(), results_of(model.rnn_cell) as states:
        y = functional_call(model, {W_HH: W_hh}, (x, problem.h_init))
        (grad,) = torch.autograd.grad(_loss_at_steps(y, problem), W_hh)
    return Reference(grad, torch.stack([problem.h_init, *(h_t.detach() for h_t in states)]))


def _by_torch(problem: Problem, run: Recurrence) -> Reference:
    """Through torch's recurrence with the values of the model's weights, a stretch of time at a time."""
    cell, read_out = problem.model.rnn_cell, problem.model.hidden_to_output
    x, seq_len, (batch, hidden) = problem.x, problem.seq_len, problem.h_init.shape
    state = batch * hidden * x.element_size()
    require_torchs_tape(seq_len, state)
    (W_xh, b_xh), (W_hh, b_hh), (W_hy, b_y) = map(_values, (cell.input_to_hidden, cell.hidden_to_hidden, read_out))
    W_hh = W_hh.clone().requires_grad_()
    weights = [W_xh, W_hh] if b_xh is None or b_hh is None else [W_xh, W_hh, b_xh, b_hh]
    h, start, h_t, outputs = x.new_empty(seq_len + 1, batch, hidden), 0, problem.h_init.unsqueeze(0), []
    h[0], first_loss = problem.h_init, seq_len - loss_steps(seq_len, problem.loss_at)
    with torch.enable_grad():
        for x_part in torch.split(x.transpose(0, 1), max(1, CALL_BYTES // state)):
            made, h_t = run(x_part, h_t, weights, len(weights) == 4, 1, 0.0, False, False, False)
            h[start + 1 : start + 1 + len(made)] = made.detach()
            outputs.append(F.linear(made[max(0, first_loss - start) :], W_hy, b_y))
            start += len(made)
        y = problem.model.output_activation(torch.cat(outputs)).transpose(0, 1)
        (grad,) = torch.autograd.grad(_loss_at_steps(y, problem), W_hh)
    return Reference(grad, h)


def _values(linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Its weight and bias, apart from autograd, which then keeps nothing for their gradients."""
    return linear.weight.detach(), None if linear.bias is None else linear.bias.detach()


def agreement(found: Swept, reference: Reference, states: str) -> Agreement:
    """Compare the sum of the contributions with autograd's gradient."""
    tolerance = TOLERANCES[reference.grad_W_hh.dtype]
    return compared(found.grad_W_hh, reference.grad_W_hh, found.magnitude, tolerance, states)


def along_states(problem: Problem, sweep: Callable[[Tensor], S], verify: bool) -> tuple[S, Agreement | None]:
    """Sweep along the fast forward pass, and compare with autograd where asked and where its tape fits.

    Args:
        sweep: from h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden), to a result.
    """
    result = sweep(problem.states())
    if not verify:
        return result, None
    try:
        (result, compared), seconds = timed(lambda: _held_against_autograd(problem, sweep, result))
    except TooLargeError as error:
        # The sweep needs no tape: what it found is all there, and what is not known is said.
        tolerance = TOLERANCES[problem.model.get_parameter(W_HH).dtype]
        return result, Agreement(None, tolerance, None, "sweep", f"not compared with autograd: {error}")
    return result, replace(compared, seconds=seconds)


def _held_against_autograd(problem: Problem, sweep: Callable[[Tensor], S], result: S) -> tuple[S, Agreement]:
    """The comparison with autograd, and what it is of.

    A chaotic network amplifies rounding until two correct forward passes part ways: then the
    states are those of the model's own pass, which autograd differentiated.

    Args:
        sweep: as of ``along_states``.
        result: what it made of the states of the fast forward pass.
    """
    compared = agreement(result, autograd_reference(problem), states="sweep")
    if compared.holds is False and same_trajectory(problem, result.h):
        # torch's recurrence parts from the model's own as well.
        reference = loop_reference(problem)
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
    """The loss, of outputs at all steps or at those that carry one, shape (batch, steps, output)."""
    y = y[:, -loss_steps(problem.seq_len, problem.loss_at) :]
    return sequence_loss(y, attached_target(problem.target, y, problem.loss, problem.seq_len), problem.loss)
