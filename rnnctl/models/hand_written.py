"""The hand-written network with a batch and a loss, checked once; and the run that they lead to."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from rnnctl.cells import FullRNN, require_full_rnn
from rnnctl.errors import InputError
from rnnctl.losses import attached_target, loss_share, loss_steps, require_logits, require_loss, sequence_loss
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

# The states of a piece of the readout, which goes through autograd with a copy and a gradient of that size.
PIECE_BYTES = 1 << 22


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
        pieces = list(self.direct_pieces(h))
        return sum(loss for loss, _ in pieces), torch.cat([piece for _, piece in reversed(pieces)])

    def direct_pieces(self, h: Tensor) -> Iterator[tuple[float, Tensor]]:
        """The same a piece of time at a time, from the last one back: each a part of the loss, and its gradients.

        Autograd over the readout, for any readout and any loss.

        Args:
            h: as of ``direct``.
        Yields:
            The part of the loss, and its gradients, shape (steps, batch, hidden).
        """
        states = h[-loss_steps(self.seq_len, self.loss_at) :]
        linear, target = reads_out_linearly(self.model), None
        # A readout of somebody's own may look at all steps at once; a share of a mean is no number of half precision.
        in_pieces = linear and states.element_size() >= 4
        size = max(1, PIECE_BYTES // (states[0].numel() * states.element_size())) if in_pieces else len(states)
        for stop in range(len(states), 0, -size):
            part = slice(max(0, stop - size), stop)
            # The sweep that asks may be in inference mode, whose tensors refuse autograd.
            with torch.inference_mode(False), torch.enable_grad():
                leaf, y = self._read_out(states[part], linear)
                y = y.transpose(0, 1)
                target = self._attached_target(y, len(states)) if target is None else target
                loss = sequence_loss(y, target[:, part], self.loss)
                share = loss_share(self.loss, len(leaf) / len(states))
                (grad,) = torch.autograd.grad(loss, leaf, torch.full_like(loss, share))
            if linear:
                # What is behind a linear map is one product more, for which no states go through autograd.
                weight = self.model.hidden_to_output.weight.detach()
                grad = (grad.reshape(-1, len(weight)) @ weight).view_as(states[part])
            yield share * float(loss.detach()), grad

    def _read_out(self, states: Tensor, linear: bool) -> tuple[Tensor, Tensor]:
        """What the loss is differentiated by, W_hy h_t + b_y or a copy of h_t, and y_t, both (steps, batch, ...)."""
        if not linear:
            leaf = states.clone().requires_grad_()
            return leaf, self.model.readout(leaf)
        with torch.no_grad():
            leaf = self.model.hidden_to_output(states)
        return leaf.requires_grad_(), self.model.output_activation(leaf)

    def _attached_target(self, y: Tensor, steps: int) -> Tensor:
        """The target at all steps that carry a loss, y being the outputs at some of them, (batch, n, output)."""
        whole = y.new_empty(()).expand(y.shape[0], steps, y.shape[2])
        return attached_target(self.target, whole, self.loss, self.seq_len)

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
