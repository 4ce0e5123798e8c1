"""Per-timestep gradients of W_hh by one reverse sweep (BPTT, itemised)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rnnctl.cells import FullRNN
from rnnctl.gradients.agreement import AGREEMENT_KINDS, Agreement, scalars_of, why_not_compared
from rnnctl.gradients.autograd import along_states
from rnnctl.gradients.decay import Decay, decay_scalars, share_of, why_no_decay, why_no_share
from rnnctl.gradients.entering import FromReadout
from rnnctl.gradients.in_float64 import problem_in_float64
from rnnctl.gradients.layer_sweep import LayerNorms, copy_bytes, layer_norms, swept_in
from rnnctl.gradients.limits import require_thresholds
from rnnctl.gradients.model_gradnorm import ModelGradNorms, itemised
from rnnctl.gradients.verdict import (
    JUDGED_KINDS,
    NO_GRADIENT,
    WORDS,
    Thresholds,
    Verdict,
    no_gradient,
    verdict_on,
)
from rnnctl.losses import loss_steps
from rnnctl.memory import require_memory
from rnnctl.models.hand_written import Problem, posed, require_batch_first, require_own_start
from rnnctl.models.inputs import Given, TimeFirst
from rnnctl.models.modules import require_no_linear
from rnnctl.models.objective import Objective, lengths_apart
from rnnctl.recurrence.matrix import spectral_norm, spectral_radius_and_error
from rnnctl.recurrence.states_seen import (
    FINITE,
    SEEN_KINDS,
    UNREPEATED,
    InFloat64,
    Sizes,
    StatesSeen,
    has_ends,
    seen_in,
    seen_scalars,
    why_not_seen,
)
from rnnctl.recurrence.threads import threads_for
from rnnctl.results import Kind, Later, Result
from rnnctl.view.shown import Shown

# Of one step: its norms in float64, pieces of them and what is made of them on the way; measured, it was 105 to 135.
NORM_BYTES = 128


@dataclass(frozen=True, eq=False)
class GradNorms(Shown, Result):
    """What every time step of BPTT contributes to dL/dW_hh.

    Attributes:
        grad_norm_W_hh: Frobenius norm of step t's contribution G_t, shape (time,), float64.
        grad_norm_h: norm of the total dL/dh_t, shape (time,), float64.
        grad_norm_h_direct: norm of dL/dh_t through y_t alone, shape (time,), float64.
        grad_W_hh: sum of G_t over t, which is ``W_hh.grad``; shape (hidden, hidden).
        loss: the loss.
        W_hh: the recurrent matrix at that time, shape (hidden, hidden).
        agreement: the comparison with autograd, or None where it was not asked for.
        h_init_is_zero: G_0 is exactly 0 because h_init is.
        seen: what the states and inputs are like.
        vanish_below, explode_above: thresholds of the verdict on ``first_over_last``.
        decay_later: makes ``decay``; with losses at earlier steps that takes a reverse sweep of its own, for which it
            holds h_t of all steps until somebody asks (reads ``decay``, ``verdict`` or ``scalars``).
        in_float64: of a run that is not finite, what it would be in float64.
    Units: loss per unit of weight or of hidden state.
    """

    schema: ClassVar[str] = "gradnorm"
    kinds: ClassVar[Mapping[str, Kind]] = {
        "loss": float,
        "grad_W_hh_norm": float,
        **AGREEMENT_KINDS,
        **JUDGED_KINDS,
        "vanish_below": float,
        "explode_above": float,
        "first_nonfinite_step": float,
        **SEEN_KINDS,
        "h_init_is_zero": bool,
    }
    words: ClassVar[tuple[str, ...]] = WORDS

    grad_norm_W_hh: Tensor
    grad_norm_h: Tensor
    grad_norm_h_direct: Tensor
    grad_W_hh: Tensor
    loss: float
    W_hh: Tensor
    decay_later: Later[Decay] = field(repr=False)
    agreement: Agreement | None
    h_init_is_zero: bool
    seen: StatesSeen
    vanish_below: float
    explode_above: float
    in_float64: InFloat64 = UNREPEATED

    @property
    def decay(self) -> Decay:
        """How d(loss at the last step)/dh_t changes from step to step."""
        return self.decay_later()

    @property
    def first_nonfinite_step(self) -> int | None:
        """The first step whose h_t is not finite, or None."""
        return self.seen.first_nonfinite

    @cached_property
    def scalars(self) -> Mapping[str, Any]:
        """Name -> number or text; None where a quantity has no value here."""
        total = float(self.grad_norm_W_hh.sum())
        norm = float(torch.linalg.vector_norm(self.grad_W_hh.double()))
        radius, radius_error = spectral_radius_and_error(self.W_hh)
        return MappingProxyType(
            {
                "loss": self.loss,
                "grad_W_hh_norm": norm,
                **scalars_of(self.agreement),
                "cancellation": share_of(norm, total),
                **decay_scalars(self.decay),
                "spectral_radius": radius,
                "spectral_radius_error": radius_error,
                "spectral_norm": spectral_norm(self.W_hh),
                "verdict": self.verdict,
                "reason": self.judged.reason,
                "vanish_below": self.vanish_below,
                "explode_above": self.explode_above,
                "first_nonfinite_step": self.first_nonfinite_step,
                "h_init_is_zero": self.h_init_is_zero,
                **seen_scalars(self.seen),
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
                "share": share_of(norm, total),
                "grad_norm_h": norm_h,
                "grad_norm_h_direct": norm_direct,
            }
            for t, (norm, norm_h, norm_direct) in enumerate(zip(*(column.tolist() for column in columns), strict=True))
        )

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None."""
        is_nonfinite = self.verdict == "nonfinite"
        ends = self.judged.reason if is_nonfinite or self.verdict == "no gradient" else NO_GRADIENT
        nonfinite = self.judged.reason if is_nonfinite else None
        matrix = "W_hh is not finite"
        return {
            **why_not_compared(self.agreement),
            **dict.fromkeys(("loss", "grad_W_hh_norm"), ends),
            "cancellation": why_no_share(float(self.grad_norm_W_hh.sum()), nonfinite),
            **why_no_decay(self.decay, ends, nonfinite=is_nonfinite),
            **dict.fromkeys(("spectral_radius", "spectral_radius_error", "spectral_norm"), matrix),
            "first_nonfinite_step": FINITE,
            **why_not_seen(self.seen),
            **dict.fromkeys(WORDS, self.judged.reason),
        }

    @cached_property
    def judged(self) -> Verdict:
        """The verdict with its reason."""
        seq_len, step = self.grad_norm_W_hh.shape[0], self.first_nonfinite_step
        does = "is not finite" if self.in_float64.was_given else "overflows"
        what = "the loss or a gradient is not finite" if step is None else f"h_t {does} first at step {step}"
        nonfinite = None if self.is_finite else f"{what}: {self.in_float64.words(self.W_hh.dtype)}"
        limits = Thresholds(self.vanish_below, self.explode_above)
        none = no_gradient(self.W_hh.dtype)
        found = verdict_on(self.decay, seq_len, limits, nonfinite=nonfinite, unknown=None, none=none)
        return found.because(self.seen.remark)

    @property
    def verdict(self) -> str:
        """One of ``VERDICTS``: "vanishing", "stable" or "exploding" over this length, or why it is none of them."""
        return self.judged.word

    @property
    def conditions(self) -> Mapping[str, bool | None]:
        """Which of "nonfinite", "vanishing" and "exploding" hold; None where nothing tells."""
        return self.judged.conditions

    @property
    def remarks(self) -> tuple[str, ...]:
        """That the comparison with autograd took long, where it did."""
        return () if self.agreement is None else self.agreement.remarks

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
    x: Given,
    *,
    target: Tensor | None = None,
    loss: str | None = None,
    loss_at: str | None = None,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    output_key: str | int | None = None,
    h_init: Tensor | None = None,
    lengths: Tensor | None = None,
    time_first: TimeFirst = None,
    only: str | None = None,
    linear: object = None,
    verify: bool | None = None,
    vanish_below: float = 1e-3,
    explode_above: float = 1e3,
    progress: Callable[[float], None] | None = None,
) -> GradNorms | ModelGradNorms:
    """How much every time step contributes to dL/dW_hh, from one forward and one reverse sweep.

    Args:
        model: a ``FullRNN``, or any module with recurrent parts; nothing of it is changed.
        x: inputs, shape (batch, time, input); with ``lengths`` padded by anything finite. Where a model takes more,
            a tuple of its positional arguments or a mapping of its keyword arguments; the first tensor of shape
            (batch, time, ...) in it is then what is meant by the sequences.
        target: shape (batch, time, output), integers (batch, time) for cross-entropy; with the
            loss at the last step also without the time axis. None means zeros (class 0).
        loss: "mse" (mean over batch and outputs), "cross-entropy" (mean over batch) or "sum"
            (of all outputs, no target); the means also run over the steps that carry a loss. If neither it nor
            ``loss_at`` nor ``target`` is given: the loss that the model itself returns, where it does; else "mse".
        loss_at: "last" (if left out) or "all" steps.
        loss_fn: takes (output, target) in place of these, output being what the model returned.
        output_key: which part of what the model returns is the output: a name, an index, or several with dots
            between ("1.logits"). If left out: the tensor itself, that with a known name, or the first of a tuple.
        h_init: hidden state of a ``FullRNN`` before step 0, shape (batch, hidden); zeros if left out.
        lengths: real steps of every sequence, (batch,). A model whose ``forward`` takes ``lengths`` is
            given them; the loss counts real steps only, and ``padded_shares`` tells what would fall on
            padding without either.
        time_first: whether the model takes (time, batch, ...): it is given x so, and its output is turned back. None:
            no, but for a bare torch layer that is not batch_first; a recurrent weight that then runs over the
            sequences in place of their steps is an error (of ``forward``, ``unroll``, ``spectrum`` and ``lyapunov`` a
            note, and an error for "checked"). False: it runs over whatever it runs, and the loss is at the steps of
            that.
        only: which recurrent weights, as in ``probe``; all if left out.
        linear: gone; an InputError says what to write instead.
        verify: record how well the sum of the contributions agrees with autograd; if left out, where autograd
            runs anyway: for any model but a ``FullRNN``.
        vanish_below, explode_above: thresholds on the norm of d(loss at the last step)/dh_t at
            step 0 over that at the last step.
        progress: called with the fraction of the reverse sweep that is done.
    Returns:
        A frozen ``GradNorms`` of a ``FullRNN``; of any other model, and where ``lengths``, ``loss_fn``, ``output_key``
        or ``only`` are given, a frozen ``ModelGradNorms``, which has every recurrent weight by its name.
    Raises:
        InputError: as ``probe``; an output or a target that does not fit; no output at ``output_key``; a loss, a
            target or lengths that are not heard beside a loss of the model's own; ShapeError, DtypeError, DeviceError,
            or TooLargeError where it does not fit into memory.
    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, section 2.
    """
    require_no_linear(linear)
    require_thresholds(vanish_below, explode_above)
    judged = {"vanish_below": vanish_below, "explode_above": explode_above}
    # What is asked of any model; a network of ours is then one of them.
    plain = lengths is None and loss_fn is None and output_key is None and only is None
    if isinstance(model, FullRNN) and plain:
        require_batch_first(time_first)
        problem = posed(model, x, target, loss, loss_at, h_init)
        return own_gradnorm(problem, verify=bool(verify), progress=progress, **judged)
    require_own_start(h_init)
    x, lengths = lengths_apart(model, x, lengths)
    objective = Objective(x, target, loss, loss_at, loss_fn, lengths, output_key, time_first)
    # Of another model autograd runs anyway: the comparison costs nothing.
    return itemised(model, objective, only, verify=verify is not False, **judged)


def own_gradnorm(
    problem: Problem,
    *,
    verify: bool = False,
    vanish_below: float = 1e-3,
    explode_above: float = 1e3,
    progress: Callable[[float], None] | None = None,
) -> GradNorms:
    """``gradnorm`` of the hand-written network.

    Args:
        verify, vanish_below, explode_above, progress: as of ``gradnorm``.
    """
    _require_room(problem)
    swept, compared = along_states(problem, lambda h: _Swept.along(problem, h, progress), verify)
    found = swept.result(problem, compared, vanish_below, explode_above)
    if found.is_finite:
        return found
    return replace(found, in_float64=problem_in_float64(problem, before=found.first_nonfinite_step))


@dataclass(frozen=True)
class _Swept:
    """The hand-written network swept back along its states."""

    loss: float
    norms: LayerNorms
    seen: StatesSeen

    @classmethod
    def along(cls, problem: Problem, h: Tensor, progress: Callable[[float], None] | None) -> "_Swept":
        """Along h, shape (time + 1, batch, hidden)."""
        run, readout = problem.run(h), FromReadout(problem, h)
        sizes = Sizes(has_ends(run))
        with threads_for(*problem.h_init.shape):
            # The states are our own: nothing is learned from making them once more.
            norms = layer_norms(run, want_decay=True, recorded=False, readout=readout, sizes=sizes, progress=progress)
            return cls(readout.loss, norms, seen_in(run, sizes=sizes))

    @property
    def grad_W_hh(self) -> Tensor:
        return self.norms.contributions.grad_W_hh

    @property
    def magnitude(self) -> float:
        return self.norms.contributions.magnitude

    @property
    def h(self) -> Tensor:
        return self.norms.contributions.h

    def result(
        self, problem: Problem, compared: Agreement | None, vanish_below: float, explode_above: float
    ) -> GradNorms:
        """The ``GradNorms``."""
        W_hh, found = problem.model.rnn_cell.hidden_to_hidden.weight.detach(), self.norms.contributions
        assert self.norms.decay is not None
        return GradNorms(
            # Copies, because tensors made in inference mode refuse autograd.
            grad_norm_W_hh=found.grad_norm_W_hh.clone(),
            grad_norm_h=found.grad_norm_h.clone(),
            grad_norm_h_direct=self.norms.grad_norm_h_direct.clone(),
            grad_W_hh=found.grad_W_hh.to(W_hh.dtype, copy=True),
            loss=self.loss,
            W_hh=W_hh.clone(),
            decay_later=self.norms.decay,
            agreement=compared,
            h_init_is_zero=not bool(problem.h_init.any()),
            seen=self.seen,
            vanish_below=vanish_below,
            explode_above=explode_above,
        )


def _require_room(problem: Problem) -> None:
    """Refuse before allocating: h, where it is small the copy that is swept, outputs with a loss, and the norms."""
    x, (batch, hidden) = problem.x, problem.h_init.shape
    copied = copy_bytes(x.dtype, swept_in(x, batch * hidden**2))
    step = batch * (hidden * (x.element_size() + copied) + x.shape[2] * copied) + NORM_BYTES
    # The outputs, what f_y makes of them, and what the loss sends back.
    read = loss_steps(problem.seq_len, problem.loss_at) * batch * problem.model.output_size * 3 * x.element_size()
    needed = (problem.seq_len + 1) * step + read + 4 * 8 * hidden**2
    require_memory(needed, f"1 x ({problem.seq_len + 1}, {batch}, {hidden}) for the sweep")
