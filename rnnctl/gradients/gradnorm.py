"""Per-timestep gradients of W_hh by one reverse sweep (BPTT, itemised)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rnnctl.cells import FullRNN
from rnnctl.errors import InputError
from rnnctl.gradients.agreement import Agreement, along_states
from rnnctl.gradients.contributions import Contributions, step_norms, sweep_dtype, takes_products
from rnnctl.gradients.decay import Decay, decay_over_time
from rnnctl.gradients.problem import Problem, first_nonfinite_step, posed
from rnnctl.memory import require_memory
from rnnctl.recurrence.elman import reverse_chunks
from rnnctl.recurrence.matrix import spectral_norm, spectral_radius
from rnnctl.recurrence.threads import threads_for

# Below so many multiply-adds a step the sweep runs in float64: small networks lose most digits to
# rounding, and their time goes into calls, not arithmetic.
FLOAT64_BELOW = 10_000


@dataclass(frozen=True, eq=False)
class GradNorms:
    """What every time step of BPTT contributes to dL/dW_hh.

    Attributes:
        grad_norm_W_hh: Frobenius norm of step t's contribution G_t, shape (time,), float64.
        grad_norm_h: norm of the total dL/dh_t, shape (time,), float64.
        grad_norm_h_direct: norm of dL/dh_t through y_t alone, shape (time,), float64.
        grad_W_hh: sum of G_t over t, which is ``W_hh.grad``; shape (hidden, hidden).
        loss: the loss.
        W_hh: the recurrent matrix at that time, shape (hidden, hidden).
        decay: how d(loss at the last step)/dh_t changes from step to step.
        agreement: the comparison with autograd, or None where it was not asked for.
        h_init_is_zero: G_0 is exactly 0 because h_init is.
        first_nonfinite_step: the first step whose h_t is not finite, or None.
        vanish_below, explode_above: thresholds of the verdict on ``first_over_last``.
    Units: loss per unit of weight or of hidden state.
    """

    schema: ClassVar[str] = "gradnorm"

    grad_norm_W_hh: Tensor
    grad_norm_h: Tensor
    grad_norm_h_direct: Tensor
    grad_W_hh: Tensor
    loss: float
    W_hh: Tensor
    decay: Decay
    agreement: Agreement | None
    h_init_is_zero: bool
    first_nonfinite_step: int | None
    vanish_below: float
    explode_above: float

    @cached_property
    def scalars(self) -> Mapping[str, Any]:
        """Name -> number or text; None where a quantity has no value here."""
        agreement, decay = self.agreement, self.decay
        total = float(self.grad_norm_W_hh.sum())
        norm = float(torch.linalg.vector_norm(self.grad_W_hh.double()))
        return MappingProxyType(
            {
                "loss": self.loss,
                "grad_W_hh_norm": norm,
                "autograd_relative_error": agreement.relative_error if agreement else None,
                "autograd_tolerance": agreement.tolerance if agreement else None,
                "states": agreement.states if agreement else "sweep",
                "cancellation": norm / total if total > 0 else None,
                "factor_per_step": decay.factor_per_step,
                "fitted_steps": decay.fitted_steps,
                "steps_to_one_percent": decay.steps_to_one_percent,
                "first_over_last": decay.first_over_last,
                "spectral_radius": spectral_radius(self.W_hh),
                "spectral_norm": spectral_norm(self.W_hh),
                "verdict": self.verdict,
                "vanish_below": self.vanish_below,
                "explode_above": self.explode_above,
                "first_nonfinite_step": self.first_nonfinite_step,
                "h_init_is_zero": self.h_init_is_zero,
            }
        )

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One record per time step: t, grad_norm_W_hh, share, grad_norm_h, grad_norm_h_direct."""
        total = float(self.grad_norm_W_hh.sum())
        columns = (self.grad_norm_W_hh, self.grad_norm_h, self.grad_norm_h_direct)
        return tuple(
            {
                "t": t,
                "grad_norm_W_hh": norm,
                "share": norm / total if total != 0 else None,
                "grad_norm_h": norm_h,
                "grad_norm_h_direct": norm_direct,
            }
            for t, (norm, norm_h, norm_direct) in enumerate(zip(*(column.tolist() for column in columns), strict=True))
        )

    @property
    def verdict(self) -> str:
        """ "vanishing", "stable" or "exploding" over this length; "nonfinite"; "no gradient"."""
        for name, holds in self.conditions.items():
            if holds:
                return name
        return "stable" if self.decay.first_over_last is not None else "no gradient"

    @property
    def conditions(self) -> Mapping[str, bool]:
        """Which of "nonfinite", "vanishing" and "exploding" hold; the verdict is the first."""
        ratio = self.decay.first_over_last
        # NaN compares as neither.
        ratio = math.nan if ratio is None else ratio
        return {
            "nonfinite": not self.is_finite,
            "vanishing": ratio < self.vanish_below,
            "exploding": ratio > self.explode_above,
        }

    def require_agreement(self) -> None:
        """Raise VerificationError if autograd was asked and disagrees."""
        if self.agreement is not None:
            self.agreement.require("sum of all G_t")

    @property
    def is_finite(self) -> bool:
        """Whether the loss, every norm and the gradient in the model's own dtype are finite."""
        tensors = (self.grad_norm_W_hh, self.grad_norm_h, self.grad_norm_h_direct, self.grad_W_hh)
        return math.isfinite(self.loss) and all(bool(torch.isfinite(t).all()) for t in tensors)


def gradnorm(
    model: nn.Module,
    x: Tensor,
    *,
    target: Tensor | None = None,
    loss: str = "mse",
    loss_at: str = "last",
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    h_init: Tensor | None = None,
    lengths: Tensor | None = None,
    only: str | None = None,
    linear: str | Sequence[str] = (),
    verify: bool | None = None,
    vanish_below: float = 1e-3,
    explode_above: float = 1e3,
    progress: Callable[[float], None] | None = None,
) -> Any:
    """How much every time step contributes to dL/dW_hh, from one forward and one reverse sweep.

    Args:
        model: a ``FullRNN``; nothing of it is changed.
        x: inputs, shape (batch, time, input).
        target: shape (batch, time, output), integers (batch, time) for cross-entropy; with the
            loss at the last step also without the time axis. None means zeros (class 0).
        loss: "mse" (mean over batch and outputs), "cross-entropy" (mean over batch) or "sum"
            (of all outputs, no target); the means also run over the steps that carry a loss.
        loss_at: "last" or "all" steps.
        h_init: hidden state before step 0, shape (batch, hidden); zeros if left out.
        verify: also differentiate the model by autograd and record how well the two agree.
        vanish_below, explode_above: thresholds on the norm of d(loss at the last step)/dh_t at
            step 0 over that at the last step.
        progress: called with the fraction of the reverse sweep that is done.
    Returns:
        A frozen ``GradNorms``.
    Raises:
        InputError: ShapeError, DtypeError, DeviceError, or TooLargeError where it does not fit.
    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, section 2.
    """
    require_thresholds(vanish_below, explode_above)
    if not isinstance(model, FullRNN) or lengths is not None or loss_fn is not None or only is not None:
        from rnnctl.gradients.model_gradnorm import model_gradnorm

        more: dict[str, Any] = {"loss_fn": loss_fn, "lengths": lengths, "only": only, "linear": linear}
        more |= {"verify": verify is not False, "vanish_below": vanish_below, "explode_above": explode_above}
        return model_gradnorm(model, x, target=target, loss=loss, loss_at=loss_at, **more)
    problem = posed(model, x, target, loss, loss_at, h_init)
    _require_room(model, x, loss_at)
    result, compared = along_states(problem, lambda h: _swept(problem, h, progress), bool(verify))
    return _grad_norms(problem, result, compared, vanish_below, explode_above)


@dataclass(frozen=True)
class _Swept:
    loss: float
    contributions: Contributions
    grad_norm_W_hh: Tensor
    grad_norm_h: Tensor
    grad_norm_h_direct: Tensor
    decay: Decay

    @property
    def grad_W_hh(self) -> Tensor:
        return self.contributions.grad_W_hh

    @property
    def magnitude(self) -> float:
        return self.contributions.magnitude

    @property
    def h(self) -> Tensor:
        return self.contributions.h


def _swept(problem: Problem, h: Tensor, progress: Callable[[float], None] | None) -> _Swept:
    """Sweep back along h, shape (time + 1, batch, hidden)."""
    loss, direct = problem.direct(h)
    cell = problem.model.rnn_cell
    W_hh, nonlinearity = sweep_dtype(cell.hidden_to_hidden.weight), cell.nonlinearity
    h, direct = sweep_dtype(h), sweep_dtype(direct)
    products = takes_products(h)
    if h.dtype == torch.float32 and h.shape[1] * h.shape[2] ** 2 < FLOAT64_BELOW and h.device.type != "mps":
        h, direct, W_hh = h.double(), direct.double(), W_hh.double()
    contributions = Contributions(h, products)
    with torch.inference_mode(), threads_for(*h.shape[1:]):
        for chunk in reverse_chunks(h, direct, W_hh, nonlinearity):
            contributions.add(chunk)
            if progress is not None:
                progress(1 - chunk.start / problem.seq_len)
        last = contributions.log_norm_h
        if direct.shape[0] > 1:
            last = torch.empty_like(last)
            for chunk in reverse_chunks(h, direct[-1:], W_hh, nonlinearity):
                last[chunk.start : chunk.stop] = chunk.log_norm
        norms = torch.zeros(h.shape[0] - 1, dtype=torch.float64)
        norms[norms.shape[0] - direct.shape[0] :] = step_norms(direct)
        norm_W_hh, norm_h = contributions.norm_W_hh, contributions.norm_h
        return _Swept(loss, contributions, norm_W_hh, norm_h, norms, decay_over_time(last))


def _grad_norms(
    problem: Problem,
    swept: _Swept,
    compared: Agreement | None,
    vanish_below: float,
    explode_above: float,
) -> GradNorms:
    W_hh = problem.model.rnn_cell.hidden_to_hidden.weight.detach()
    found = swept.contributions
    return GradNorms(
        # Copies, because tensors made in inference mode refuse autograd.
        grad_norm_W_hh=swept.grad_norm_W_hh.clone(),
        grad_norm_h=swept.grad_norm_h.clone(),
        grad_norm_h_direct=swept.grad_norm_h_direct.clone(),
        grad_W_hh=found.grad_W_hh.to(W_hh.dtype, copy=True),
        loss=swept.loss,
        W_hh=W_hh.clone(),
        decay=swept.decay,
        agreement=compared,
        h_init_is_zero=not bool(problem.h_init.any()),
        first_nonfinite_step=first_nonfinite_step(found.h, found.grad_W_hh),
        vanish_below=vanish_below,
        explode_above=explode_above,
    )


def require_thresholds(vanish_below: float, explode_above: float) -> None:
    if not 0 <= vanish_below < explode_above:
        raise InputError(
            "the verdict needs 0 <= vanish_below < explode_above; "
            f"got vanish_below {vanish_below} and explode_above {explode_above}"
        )


def _require_room(model: FullRNN, x: Tensor, loss_at: str) -> None:
    """Refuse before allocating: h always; its copy, outputs and gradient with a loss at all steps."""
    batch, seq_len, _ = x.shape
    hidden = model.rnn_cell.hidden_size
    tensors = 1 if loss_at == "last" else 4
    needed = tensors * (seq_len + 1) * batch * hidden * x.element_size() + 4 * 8 * hidden**2
    require_memory(needed, f"{tensors} x ({seq_len + 1}, {batch}, {hidden}) for the sweep")
