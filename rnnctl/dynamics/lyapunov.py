"""Lyapunov exponents along a sequence or of the free-running network, by QR at every step."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from rnnctl.cells import FullRNN
from rnnctl.dynamics.copies import shares
from rnnctl.dynamics.followed_drive import followed, is_stationary, strengths
from rnnctl.dynamics.gated_mean_field import gated_mean_field
from rnnctl.dynamics.growth import Growth
from rnnctl.dynamics.meanfield import MeanField, iid_sigma_w, not_independent, prediction
from rnnctl.dynamics.span import exponent_count, free_steps, measured_span
from rnnctl.dynamics.spectrum import layer_to_measure
from rnnctl.dynamics.standard_error import standard_errors, why_no_error
from rnnctl.dynamics.trajectory import REASON_KINDS, Measured, computed_in, reason_scalars, trajectory
from rnnctl.errors import InputError, TooLargeError
from rnnctl.gradients.decay import ONE_PERCENT, ROUNDING
from rnnctl.gradients.gradnorm import own_gradnorm
from rnnctl.gradients.verdict import NO_GRADIENT
from rnnctl.models.driven import DrivenLayer, own_layer
from rnnctl.models.graph_steps import GraphSteps
from rnnctl.models.hand_written import posed, require_batch_first
from rnnctl.models.inputs import Given, TimeFirst
from rnnctl.recurrence.cell_kind import StepKind
from rnnctl.recurrence.states_seen import FINITE
from rnnctl.recurrence.threads import threads_for
from rnnctl.results import Kind, Result, numbers
from rnnctl.view.shown import Shown

# An exponent within so many eps of the weights' dtype, or of float64's own, or so many of its standard errors, is not
# told from 0.
WEIGHTS_EPS, FEW_EPS, FEW_ERRORS = 2, 8, 2
# Where another model's trajectory ends before anything could be measured.
OTHERS_REMEDY = "warmup, and look whether x and the initial state are finite"
NO_FACTOR = "of gradnorm: needs a FullRNN with a sequence of several steps, and a gradient that does not end there"


@dataclass(frozen=True, eq=False)
class Lyapunov(Shown, Result):
    """Lyapunov exponents, nats per step.

    Attributes:
        exponents: of a perturbation, of one orthogonal to it, and so on, shape (count,), float64. They fall but for
            what is left of the start in a finite sequence: sorted, the first would depend on how many there are.
            -inf for a direction that is lost in one step (a dead unit, a W_hh without full rank, in an LSTM a gate
            that is closed beyond float64's digits).
        stderr: standard errors, as of ``standard_errors``, shape (count,), NaN where there is none.
        rounding: an exponent as near to 0 as this is not told from it.
        spread: standard deviation of the largest exponent's local values over the steps, which takes the place of two
            standard errors where there is none.
        convergence: records steps, largest: the estimate of the largest from the first steps alone.
        state_size: how many exponents there are in all, which the sum needs: H; where the state is h_t
            and c_t, H + H, with a projection proj + H.
        steps, warmup: measured steps, and steps before them that were not counted.
        autonomous: without input, the biases alone.
        factor_per_step: that of ``gradnorm`` along the same sequence, or None.
        theory: the mean-field prediction, or why there is none.
        first_nonfinite_step: the first step whose h_t is not finite, where the measurement ends.
        nonfinite_reason: what is not finite there and why; None likewise.
        why_no_factor: why there is no ``factor_per_step``, where there is none.
        lost_sequences: sequences of the batch in which even the largest exponent is -inf.
        stands_still: h_t never left h_init, so that the exponents are those of a fixed point.
        kind: of the cell.
        first_step: the first step that was measured or counted as warm-up: 1 where code of the user's own starts
            from a state that takes no part in the graph, else 0.
        computed_in: dtype and device.
    """

    schema: ClassVar[str] = "lyapunov"
    kinds: ClassVar[Mapping[str, Kind]] = {
        **numbers("largest", "largest_stderr", "exp_largest", "factor_per_step", "sum", "kaplan_yorke_dimension"),
        **numbers("entropy_rate", "log_condition"),
        **numbers("efolding_steps", "steps_to_one_percent", "theory_largest", "theory_factor", "theory_q"),
        **numbers("theory_chi", "steps", "warmup", "lost_sequences", "state_size", "first_step"),
        **numbers("first_nonfinite_step"),
        "theory": ("none", "mean field"),
        **dict.fromkeys(("theory_note", "cell", "state", "nonlinearity", "computed_in"), str),
        **REASON_KINDS,
        **dict.fromkeys(("autonomous", "stands_still", "marginal"), bool),
    }
    words: ClassVar[tuple[str, ...]] = ("nonfinite",)

    exponents: Float[Tensor, " count"]
    stderr: Float[Tensor, " count"]
    rounding: float
    spread: float
    convergence: tuple[Mapping[str, Any], ...]
    state_size: int
    steps: int
    warmup: int
    autonomous: bool
    factor_per_step: float | None
    theory: MeanField
    first_nonfinite_step: int | None
    nonfinite_reason: str | None
    why_no_factor: str
    lost_sequences: int
    stands_still: bool
    kind: StepKind
    first_step: int
    computed_in: str

    @property
    def cell(self) -> str:
        """The kind's name: "RNN", "GRU", "LSTM", ..."""
        return self.kind.name

    @property
    def marginal(self) -> bool:
        """Whether the largest exponent is within its error of 0, and perturbations neither grow nor shrink for sure."""
        error = _or_none(float(self.stderr[0]))
        known_to = self.spread if error is None else FEW_ERRORS * error
        return abs(float(self.exponents[0])) <= max(self.rounding, known_to)

    @cached_property
    def scalars(self) -> Mapping[str, Any]:
        """Name -> number or text; None where a quantity has no value here."""
        exponents = self.exponents.tolist()
        largest = exponents[0]
        told = not self.marginal
        return MappingProxyType(
            {
                "largest": largest,
                "largest_stderr": _or_none(float(self.stderr[0])),
                "exp_largest": math.exp(largest),
                "factor_per_step": self.factor_per_step,
                "sum": sum(exponents) if len(exponents) == self.state_size else None,
                "kaplan_yorke_dimension": kaplan_yorke_dimension(exponents, self.state_size) if told else None,
                "entropy_rate": self._entropy_rate,
                "log_condition": self._log_condition,
                "efolding_steps": 1 / abs(largest) if told else None,
                "steps_to_one_percent": _steps_to_one_percent(largest) if told and largest < 0 else None,
                "marginal": self.marginal,
                "theory_largest": self.theory.exponent,
                "theory_factor": self.theory.factor_per_step,
                "theory_q": self.theory.q,
                "theory_chi": self.theory.chi,
                "theory": "none" if self.theory.chi is None else "mean field",
                "theory_note": self.theory.note,
                "steps": self.steps,
                "warmup": self.warmup,
                "autonomous": self.autonomous,
                "lost_sequences": self.lost_sequences,
                "stands_still": self.stands_still,
                "cell": self.cell,
                "state": self.kind.state,
                "nonlinearity": None if self.kind.nonlinearity is None else self.kind.nonlinearity.name,
                "state_size": self.state_size,
                "first_step": self.first_step,
                "first_nonfinite_step": self.first_nonfinite_step,
                **reason_scalars(self.nonfinite_reason),
                "computed_in": self.computed_in,
            }
        )

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One record per exponent: i, exponent, stderr."""
        pairs = zip(self.exponents.tolist(), self.stderr.tolist(), strict=True)
        return tuple({"i": i, "exponent": value, "stderr": _or_none(error)} for i, (value, error) in enumerate(pairs))

    @property
    def more(self) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
        """Further records by name: ``convergence``."""
        return {"convergence": self.convergence}

    @property
    def _entropy_rate(self) -> float | None:
        """The sum of the exponents that are positive by more than rounding; None where one left out may be so."""
        last, error = float(self.exponents[-1]), _or_none(float(self.stderr[-1])) or 0.0
        if len(self.exponents) < self.state_size and last + FEW_ERRORS * error > 0:
            return None
        return float(self.exponents[self.exponents > self.rounding].sum())

    @property
    def _log_condition(self) -> float | None:
        """ln of how many times more the product of all step Jacobians stretches one direction than another."""
        if len(self.exponents) < self.state_size:
            return None
        least, most = (float(value) for value in self.exponents.aminmax())
        return math.inf if least == -math.inf else (most - least) * self.steps

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None."""
        left_out = "--count leaves exponents out that it takes"
        marginal = "the largest exponent is within its error of 0" if self.marginal else ""
        return {
            "largest_stderr": why_no_error(float(self.exponents[0]), self.steps),
            "factor_per_step": self.why_no_factor,
            "sum": left_out,
            "kaplan_yorke_dimension": marginal or left_out,
            "entropy_rate": "--count leaves exponents out that may be positive",
            "log_condition": left_out,
            "efolding_steps": marginal,
            "steps_to_one_percent": marginal or "a perturbation does not shrink",
            **dict.fromkeys(("theory_largest", "theory_factor", "theory_q", "theory_chi"), self.theory.note),
            **({} if self.theory.chi is None else {"theory_q": "the variance of a_t grows without end"}),
            "nonlinearity": "this cell has several",
            "first_nonfinite_step": FINITE,
        }

    @property
    def conditions(self) -> Mapping[str, bool | None]:
        """Whether "nonfinite" holds: h_t leaves float64 before the last step asked for."""
        return {"nonfinite": self.first_nonfinite_step is not None}


def lyapunov(
    model: nn.Module | DrivenLayer,
    x: Given | None = None,
    *,
    h_init: Tensor | None = None,
    time_first: TimeFirst = None,
    only: str | None = None,
    target: Tensor | None = None,
    count: int | None = None,
    steps: int | None = None,
    warmup: int | None = None,
    autonomous: bool = False,
    init: str | None = None,
    gain: float = 1.0,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Lyapunov:
    """How fast nearby trajectories part or meet: the growth rates of perturbations of the state.

    Args:
        model: a ``FullRNN``, any module with recurrent parts, or a layer of one from ``driven_layer``, which
            comes with its input and initial state; of any dtype; all is computed in float64. Cells of the user's
            own writing are differentiated as they run, in their own dtype, and are not autonomous.
        x: inputs, shape (batch, time, input), or a tuple or mapping of all that the model takes; the exponents are
            means over the batch. Left out of an autonomous measurement of a ``FullRNN``, and for a ``DrivenLayer``.
        h_init: hidden state before step 0, shape (batch, hidden). If left out: zeros along a
            sequence, one normal state drawn from the seed without one. Other models have their own.
        time_first: whether the model takes (time, batch, ...), as of ``gradnorm``.
        only: of a module with several recurrent weights a name or pattern that leaves one, as in ``probe``.
        target: as for ``gradnorm``, whose factor per step is measured beside the exponents.
        count: how many of the largest exponents; all if left out (H; where the state is h and
            c, H + H).
        steps: steps to measure; to the end of the sequence if left out, 1000 without one.
        warmup: steps before them; if left out a tenth of the sequence, or of ``steps``.
        autonomous: run freely, on the biases alone.
        init, gain: how W_hh was drawn, as for ``initialize_W_hh``, for the mean-field prediction;
            None for loaded or trained weights, of which it says nothing.
        seed: of the perturbations, and of a drawn h_init.
        progress: called with the fraction of the steps that are done.
    Returns:
        A frozen ``Lyapunov``.
    Raises:
        InputError: ShapeError, DtypeError, DeviceError, TooLargeError; weights that are not finite.
        RnnctlError: h_t is not finite before anything could be measured.
    Source: Benettin et al. 1980; Engelken, Wolf & Abbott 2023, arXiv:2006.02427 (RNNs); Vogt et al.
        2020, arXiv:2006.14123 (LSTMs and GRUs); Kaplan & Yorke 1979 (dimension).
    """
    generator = Generator().manual_seed(seed)
    layer: Measured
    if autonomous:
        layer = _running_freely(model, x, h_init, only, time_first, free_steps(steps, warmup), generator)
    elif x is None and not isinstance(model, DrivenLayer):
        raise InputError("lyapunov needs x, shape (batch, time, input), unless autonomous=True")
    else:
        layer = layer_to_measure(model, x, h_init, only, time_first)
    warmup, steps = measured_span(
        layer.seq_len,
        steps,
        warmup,
        autonomous=autonomous,
        first_step=layer.first_step,
        can_run_freely=not isinstance(layer, GraphSteps),
    )
    start = layer.state_init
    count = exponent_count(count, start.shape[1], layer.kind.state)
    run = Growth(layer, start, count, warmup, steps, generator)
    with threads_for(start.shape[0] * count, start.shape[1]):
        run.along(trajectory(layer, warmup + steps), progress)
    run.require_measured("--warmup or --gain" if isinstance(model, FullRNN) else OTHERS_REMEDY)
    factor, why_no_factor = (None, NO_FACTOR) if autonomous else _factor_per_step(model, layer, target)
    return Lyapunov(
        exponents=run.logs.mean(dim=(0, 1)),
        stderr=standard_errors(run.logs, _shares(layer, warmup + run.logs.shape[0], autonomous)),
        rounding=_rounding(layer),
        spread=float(run.logs[:, :, 0].mean(dim=1).std(correction=0)),
        convergence=_convergence(run.logs),
        state_size=start.shape[1],
        steps=run.logs.shape[0],
        warmup=warmup,
        autonomous=autonomous,
        factor_per_step=factor,
        theory=_theory(layer, warmup, run.logs.shape[0], autonomous, init, gain),
        first_nonfinite_step=run.first_nonfinite_step,
        nonfinite_reason=run.nonfinite_reason,
        why_no_factor=why_no_factor,
        lost_sequences=int(run.logs[:, :, 0].mean(dim=0).isneginf().sum()),
        stands_still=run.stands_still,
        kind=layer.kind,
        first_step=layer.first_step,
        computed_in=computed_in(layer),
        notes=layer.notes,
    )


def _factor_per_step(
    model: nn.Module | DrivenLayer, layer: Measured, target: Tensor | None
) -> tuple[float | None, str]:
    """That of ``gradnorm`` along the same sequence, where the loss is known; or None and why."""
    if not isinstance(model, FullRNN) or isinstance(layer, GraphSteps):
        return None, NO_FACTOR
    try:
        found = own_gradnorm(posed(model, layer.x, target, "mse", "last", layer.h_init))
    except TooLargeError as error:
        # The exponents need no states of all steps: they are there all the same.
        return None, f"of gradnorm: {error}"
    return found.decay.factor_per_step, f"of gradnorm: {found.why.get('factor_per_step', NO_GRADIENT)}"


def _theory(layer: Measured, warmup: int, steps: int, autonomous: bool, init: str | None, gain: float) -> MeanField:
    """The mean-field prediction along the inputs of these steps, on which autonomous says nothing; or why not."""
    f = layer.kind.nonlinearity
    if isinstance(layer, DrivenLayer) and f is None:
        return gated_mean_field(layer, warmup, steps, init, gain)
    if f is None or isinstance(layer, GraphSteps):
        return MeanField(None, None, f"the mean-field theory is the Elman cell's; none here for the {layer.kind.name}")
    x = layer.x[:1, :1] if autonomous else layer.x[:, : warmup + steps]
    sigma_w = iid_sigma_w(init, gain)
    if sigma_w is None:
        return not_independent(init)
    strength = strengths(layer.wide_weights, x)
    if f.homogeneous_share is not None or is_stationary(strength):
        return prediction(init, gain, float(strength.mean()), f.name)
    return followed(layer.wide_weights, x, layer.h_init, f, sigma_w, warmup)


def kaplan_yorke_dimension(exponents: list[float], state_size: int) -> float | None:
    """How many exponents sum to 0, interpolated; None where more of them would be needed to tell.

    Args:
        exponents: the largest ones, falling.
        state_size: how many there are in all.
    Source: Kaplan & Yorke 1979, "Chaotic behavior of multidimensional difference equations".
    """
    total = 0.0
    for i, exponent in enumerate(exponents):
        if total + exponent < 0:
            return i + total / -exponent
        total += exponent
    return float(state_size) if len(exponents) == state_size else None


def _running_freely(
    model: nn.Module | DrivenLayer,
    x: Given | None,
    h_init: Tensor | None,
    only: str | None,
    time_first: TimeFirst,
    steps: int,
    generator: Generator,
) -> DrivenLayer:
    """A layer on its biases alone: zeros for inputs, of so many steps."""
    if not isinstance(model, FullRNN):
        layer = layer_to_measure(model, x, h_init, only, time_first)
        if isinstance(layer, GraphSteps):
            raise InputError(
                f"autonomous: the steps of {layer.name} are code of {layer.kind.name}, which reads its input itself, "
                "so that none can be left out. Give it zeros as x (--input), without autonomous"
            )
        start = layer.state_init
        # Sequences that start alike run alike.
        kept = slice(0, 1) if (start == start[:1]).all() else slice(None)
        zeros = layer.x.new_zeros(1, 1, 1).expand(len(start[kept]), steps, layer.x.shape[2])
        c_init = None if layer.c_init is None else layer.c_init[kept]
        return replace(layer, x=zeros, h_init=layer.h_init[kept], c_init=c_init)
    require_batch_first(time_first)
    weight = model.rnn_cell.hidden_to_hidden.weight
    if h_init is None:
        h_init = torch.randn(1, weight.shape[0], generator=generator).to(weight)
    zeros = weight.new_zeros(1, 1, 1).expand(h_init.shape[0], steps, model.rnn_cell.input_size)
    model.check_sequence(zeros, h_init)
    layer = own_layer(model, zeros, h_init)
    _ = layer.wide_weights
    return layer


def _steps_to_one_percent(exponent: float) -> int:
    """The first step after which a perturbation of this exponent, below 0, is at most 1 % of what it was."""
    return max(1, math.ceil(math.log(ONE_PERCENT + ROUNDING) / exponent))


def _rounding(layer: Measured) -> float:
    """How far from 0 the rounding of the weights may take an exponent, nats per step."""
    eps = torch.finfo(layer.dtype).eps
    W_hh = layer.W_hh if isinstance(layer, GraphSteps) else layer.weights.W_hh
    # Drawn or kept in float32 they are no better for having been widened since.
    narrow = W_hh is not None and torch.equal(W_hh.float().to(W_hh), W_hh)
    of_weights = max(eps, torch.finfo(torch.float32).eps) if narrow else eps
    return max(WEIGHTS_EPS * of_weights, FEW_EPS * torch.finfo(torch.float64).eps)


def _shares(layer: Measured, steps: int, autonomous: bool) -> Float[Tensor, " batch"]:
    """The part of the batch that each sequence stands for; copies of one are one, and their error no smaller."""
    if isinstance(layer, GraphSteps):
        states = torch.stack([layer.state(step) for step in range(-1, steps)], dim=1)
        # Rows of a batch are not always rounded alike.
        return shares([states], math.sqrt(torch.finfo(layer.dtype).eps))
    starts = [layer.state_init]
    return shares(starts if autonomous else [*starts, layer.x[:, :steps]])


def _convergence(logs: Float[Tensor, "steps batch count"]) -> tuple[Mapping[str, Any], ...]:
    """The largest exponent as the first eighth, quarter, half and all of the steps give it."""
    steps = logs.shape[0]
    lengths = sorted({max(1, steps // part) for part in (8, 4, 2, 1)})
    return tuple({"steps": n, "largest": float(logs[:n].mean(dim=(0, 1))[0])} for n in lengths)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
