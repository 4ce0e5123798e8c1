"""What autograd says of the same model: references that share no code with the sweep."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.func import functional_call

from rnnctl.cells import FullRNN
from rnnctl.errors import VerificationError
from rnnctl.losses import attached_target, loss_steps, sequence_loss
from rnnctl.memory import require_tape
from rnnctl.models.hand_written import Problem, model_states
from rnnctl.models.hooks import results_of

W_HH = "rnn_cell.hidden_to_hidden.weight"
# Of the gradient's uncancelled magnitude: rounding of T accumulated steps, with room.
TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 1e-5,
    torch.bfloat16: 5e-2,
    torch.float16: 1e-2,
}


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


@dataclass(frozen=True)
class Agreement:
    """How well sum G_t agrees with ``W_hh.grad``.

    Attributes:
        relative_error: ||sum G_t - W_hh.grad|| / ||W_hh.grad||; NaN where autograd overflowed.
        tolerance: what ``holds`` allows, relative to sum over t of ||dL/dh_t|| ||h_{t-1}||, an
            upper bound of ||W_hh.grad|| that cancelling terms do not shrink.
        holds: within the tolerance.
        states: "sweep" if the sweep ran along its own hidden states, "model" if along those
            of the model's own forward pass.
    """

    relative_error: float
    tolerance: float
    holds: bool
    states: str

    def require(self, what: str) -> None:
        """Raise VerificationError, saying of what, unless it holds."""
        if not self.holds:
            raise VerificationError(
                f"{what} disagrees with autograd's W_hh.grad: expected a relative error of at most "
                f"{self.tolerance:g} of the gradient's magnitude; got {self.relative_error:.3g} of its norm. "
                "Please report this with the command that shows it"
            )


def autograd_reference(
    model: FullRNN, x: Tensor, target: Tensor | None, loss: str, loss_at: str, h_init: Tensor
) -> Reference:
    """``W_hh.grad`` from autograd through the model's own loop; the model is left as it was."""
    require_tape(x.shape[1], x.shape[0] * model.rnn_cell.hidden_size * x.element_size())
    W_hh = model.get_parameter(W_HH).detach().clone().requires_grad_()
    with results_of(model.rnn_cell) as states, torch.enable_grad():
        y = functional_call(model, {W_HH: W_hh}, (x.detach(), h_init.detach()))
        value = _loss_at_steps(y, target, loss, loss_at)
        (grad,) = torch.autograd.grad(value, W_hh)
    return Reference(grad, torch.stack([h_t.detach() for h_t in (h_init, *states)]))


def agreement(found: Swept, reference: Reference, states: str) -> Agreement:
    """Compare the sum of the contributions with autograd's gradient."""
    tolerance = TOLERANCES[reference.grad_W_hh.dtype]
    return compared(found.grad_W_hh, reference.grad_W_hh, found.magnitude, tolerance, states)


def compared(found: Tensor, expected: Tensor, magnitude: float, tolerance: float, states: str) -> Agreement:
    """How well a sum of contributions agrees with what autograd says.

    Args:
        found, expected: shape of the weight.
        magnitude: an upper bound of their norm that cancelling terms do not shrink.
        tolerance: rounding that is allowed, as a share of the magnitude.
        states: as of ``Agreement``.
    """
    expected = expected.to(found.dtype)
    if not torch.isfinite(expected).all():
        # Nothing to compare with: autograd itself left the range of the dtype.
        return Agreement(math.nan, tolerance, True, states)
    error = float(torch.linalg.vector_norm(found - expected))
    norm = float(torch.linalg.vector_norm(expected))
    relative = error / norm if norm > 0 else (0.0 if error == 0 else math.inf)
    return Agreement(relative, tolerance, error <= tolerance * magnitude, states)


def along_states(problem: Problem, sweep: Callable[[Tensor], S], verify: bool) -> tuple[S, Agreement | None]:
    """Sweep along the fast forward pass, and compare with autograd where asked.

    A chaotic network amplifies rounding until two correct forward passes part ways: then the
    states are those of the very pass that autograd differentiated.

    Args:
        sweep: from h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden), to a result.
    """
    result = sweep(model_states(problem.model, problem.x, problem.h_init))
    if not verify:
        return result, None
    model, x = problem.model, problem.x
    reference = autograd_reference(model, x, problem.target, problem.loss, problem.loss_at, problem.h_init)
    compared = agreement(result, reference, states="sweep")
    if not compared.holds and same_trajectory(model, x, result.h):
        result = sweep(reference.h)
        compared = agreement(result, reference, states="model")
    return result, compared


def same_trajectory(model: FullRNN, x: Tensor, h: Tensor) -> bool:
    """Whether every h_t follows from x_t and h_{t-1} by the model's own cell, up to rounding."""
    with torch.no_grad():
        x_t, before, after = x.transpose(0, 1).flatten(0, 1), h[:-1].flatten(0, 1), h[1:].flatten(0, 1)
        weight = model.rnn_cell.hidden_to_hidden.weight
        expected = model.rnn_cell(x_t.to(weight.dtype), before.to(weight.dtype)).to(h.dtype)
        room = 64 * torch.finfo(weight.dtype).eps * (1 + torch.linalg.matrix_norm(weight.float(), math.inf))
        return bool(((expected - after).abs() <= room * (1 + after.abs())).all())


def clone_contributions(
    model: FullRNN, x: Tensor, target: Tensor | None, loss: str, loss_at: str, h_init: Tensor
) -> Tensor:
    """Every G_t from autograd over T separate clones of W_hh, shape (time, hidden, hidden)."""
    clones = [model.get_parameter(W_HH).detach().clone().requires_grad_() for _ in range(x.shape[1])]
    cell, h_t, outputs = model.rnn_cell, h_init.detach(), []
    with torch.enable_grad():
        for x_t, clone in zip(x.detach().unbind(1), clones, strict=True):
            h_t = functional_call(cell, {"hidden_to_hidden.weight": clone}, (x_t, h_t))
            outputs.append(model.readout(h_t))
        value = _loss_at_steps(torch.stack(outputs, dim=1), target, loss, loss_at)
        grads = torch.autograd.grad(value, clones)
    return torch.stack(grads)


def _loss_at_steps(y: Tensor, target: Tensor | None, loss: str, loss_at: str) -> Tensor:
    seq_len = y.shape[1]
    y = y[:, seq_len - loss_steps(seq_len, loss_at) :]
    return sequence_loss(y, attached_target(target, y, loss, seq_len), loss)
