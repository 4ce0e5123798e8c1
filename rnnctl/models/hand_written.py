"""The hand-written network with a batch and a loss, checked once; and the run that they lead to."""

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from rnnctl.cells import FullRNN, require_full_rnn
from rnnctl.errors import InputError
from rnnctl.losses import attached_target, loss_steps, require_logits, require_loss, sequence_loss
from rnnctl.models.calls import cell_weights
from rnnctl.models.in_torch import reads_out_linearly
from rnnctl.models.inputs import Given, TimeFirst, one_tensor
from rnnctl.recurrence.elman import hidden_states
from rnnctl.recurrence.kinds import kind_named
from rnnctl.recurrence.nonlinearities import NONLINEARITIES
from rnnctl.recurrence.run import LayerRun
from rnnctl.recurrence.states_seen import FirstNonfinite, first_bad_step
from rnnctl.recurrence.threads import threads_for
from rnnctl.recurrence.weights import LayerWeights


@dataclass(frozen=True)
class Problem:
    """What is differentiated.

    Attributes:
        model: the network.
        x: inputs, shape (batch, time, input), detached.
        h_init: shape (batch, hidden), detached.
        target, loss, loss_at: as for ``gradnorm``.
    """

    model: FullRNN
    x: Tensor
    h_init: Tensor
    target: Tensor | None
    loss: str
    loss_at: str

    @property
    def seq_len(self) -> int:
        """T."""
        return self.x.shape[1]

    @cached_property
    def weights(self) -> LayerWeights:
        """Of the recurrence, apart from autograd."""
        return cell_weights(self.model.rnn_cell).detached()

    def states(self) -> Tensor:
        """h_init, h_0 .. h_{T-1} by the fast forward pass, shape (time + 1, batch, hidden)."""
        weights, f = self.weights, NONLINEARITIES[self.model.rnn_cell.nonlinearity]
        with torch.inference_mode(), threads_for(*self.h_init.shape):
            return hidden_states(self.x, self.h_init, weights.W_ih, weights.W_hh, weights.b_h, f)

    def direct(self, h: Tensor) -> tuple[float, Tensor]:
        """The loss, and dL/dh_t through y_t alone at the steps that carry one.

        Args:
            h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).
        Returns:
            The loss, and the gradients at the last n steps, shape (n, batch, hidden).
        """
        loss, grad, weight = self.sent_back(h)
        return loss, grad if weight is None else through_readout(grad, weight)

    def sent_back(self, h: Tensor) -> tuple[float, Tensor, Tensor | None]:
        """The loss, and what it sends back to the steps that carry one, by autograd, for any readout and any loss.

        Args:
            h: as of ``direct``.
        Returns:
            The loss; its gradient by W_hy h_t + b_y at the last n steps, shape (n, batch, output), and W_hy, (output,
            hidden), through which ``through_readout`` takes it to h_t; or where the model reads out in a way of its
            own, by h_t itself, shape (n, batch, hidden), and None.
        """
        states = h[-loss_steps(self.seq_len, self.loss_at) :]
        linear = self.model.hidden_to_output if reads_out_linearly(self.model) else None
        # Who asks may be in inference mode, whose tensors refuse autograd: a copy does not, nor what is made of them.
        with torch.inference_mode(False):
            with torch.no_grad():
                leaf = (states.clone() if linear is None else linear(states)).requires_grad_()
            with torch.enable_grad():
                y = (self.model.readout if linear is None else self.model.output_activation)(leaf).transpose(0, 1)
                target = attached_target(self.target, y, self.loss, self.seq_len)
                loss = sequence_loss(y, target, self.loss)
                (grad,) = torch.autograd.grad(loss, leaf)
        return float(loss.detach()), grad, None if linear is None else linear.weight.detach()

    def in_float64(self) -> "Problem":
        """The same in float64, on the CPU, which has it; the model is a copy."""
        target = self.target
        if target is not None:
            target = target.to("cpu", torch.float64 if target.is_floating_point() else target.dtype)
        return replace(
            self,
            model=deepcopy(self.model).to("cpu", torch.float64),
            x=self.x.to("cpu", torch.float64),
            h_init=self.h_init.to("cpu", torch.float64),
            target=target,
        )

    @property
    def given(self) -> list[Tensor | None]:
        """Weights, inputs and targets, of any shapes."""
        return [*self.model.parameters(), self.x, self.h_init, self.target]

    def run(self, h: Tensor, direct: Tensor | None = None) -> LayerRun:
        """The network's one layer along these states.

        Args:
            h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).
            direct: dL/dh_t through y_t alone at the last n steps, shape (n, batch, hidden); None where it is told in
                another way.
        """
        kind = kind_named("RNN", self.model.rnn_cell.nonlinearity)
        return LayerRun(kind, self.weights, self.x.transpose(0, 1), h, None, h[:0] if direct is None else direct)


def through_readout(grad: Tensor, weight: Tensor) -> Tensor:
    """dL/dh_t from dL/d(W_hy h_t + b_y), shape (steps, batch, output), and W_hy, as autograd forms it."""
    return (grad.reshape(-1, len(weight)) @ weight).view(*grad.shape[:2], -1)


def posed(
    model: FullRNN, x: Given, target: Tensor | None, loss: str | None, loss_at: str | None, h_init: Tensor | None
) -> Problem:
    """The problem, or InputError, ShapeError, DtypeError, DeviceError before any arithmetic.

    Args:
        x: shape (batch, time, input).
        target, loss, loss_at: as for ``gradnorm``; None: mse, at the last step.
        h_init: shape (batch, hidden); zeros if left out.
    """
    loss, loss_at = "mse" if loss is None else loss, "last" if loss_at is None else loss_at
    require_full_rnn(model)
    require_loss(loss, loss_at)
    require_logits(loss, model.output_activation)
    x = one_tensor(x)
    model.check_sequence(x, h_init)
    start = model.initial_state(x) if h_init is None else h_init
    return Problem(model, x.detach(), start.detach(), target, loss, loss_at)


def require_own_start(h_init: Tensor | None) -> None:
    """Raise InputError where another model than ours is given an initial state, shape (batch, hidden)."""
    if h_init is not None:
        raise InputError("h_init is for a rnnctl.FullRNN; another model starts as it does by itself. Leave it out")


def require_batch_first(time_first: TimeFirst) -> None:
    """Raise InputError where what takes (batch, time, input) for sure is said to take something else."""
    if time_first is True:
        raise InputError(
            "time_first is for other models; a rnnctl.FullRNN or DrivenLayer takes (batch, time, input). Leave it out"
        )


def nonfinite_step(h: Tensor, grad_W_hh: Tensor) -> FirstNonfinite:
    """Where h_t is not finite first, looked for where the gradient is not.

    Args:
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).
        grad_W_hh: what came of it, of any shape.
    """
    # Of a sound run the states are not looked at: that would be one more pass over all of h.
    step = None if bool(torch.isfinite(grad_W_hh).all()) else first_bad_step(h[1:])
    return FirstNonfinite(step, None if step is None else "rnn_cell.hidden_to_hidden.weight")
