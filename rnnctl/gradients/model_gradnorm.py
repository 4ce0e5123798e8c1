"""``gradnorm`` of any model: one training step of it, itemised for every recurrent weight."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rnnctl.errors import VerificationError
from rnnctl.gradients.agreement import NOT_ASKED
from rnnctl.gradients.decay import decay_scalars, share_of, why_no_decay, why_no_share
from rnnctl.gradients.in_float64 import step_in_float64
from rnnctl.gradients.limits import require_thresholds
from rnnctl.gradients.probed import ENTERS_OFTEN
from rnnctl.gradients.trace import ProbedWeight, rows_of
from rnnctl.gradients.training_step import tensors_of, training_step
from rnnctl.gradients.verdict import (
    JUDGED_KINDS,
    WORDS,
    Thresholds,
    Verdict,
    no_gradient,
    verdict_on,
)
from rnnctl.models.modules import require_no_linear
from rnnctl.models.objective import (
    Objective,
    lengths_apart,
    must_have_lengths,
    without_padding,
)
from rnnctl.recurrence.matrix import spectral_norm, spectral_radius_and_error
from rnnctl.recurrence.states_seen import (
    NONFINITE_KINDS,
    SEEN_KINDS,
    UNREPEATED,
    FirstNonfinite,
    InFloat64,
    first_nonfinite,
    seen_scalars,
    why_not_seen,
)
from rnnctl.results import Kind, Result
from rnnctl.view.shown import Shown

# What the configuration calls it.
OWN_LOSS = "the model's own"
# Of the scalars, those that are of one weight: the one that the verdict is about.
OF_ONE_WEIGHT = (
    "grad_W_hh_norm",
    "cancellation",
    "factor_per_step",
    "fitted_steps",
    "steps_to_one_percent",
    "first_over_last",
    "spectral_radius",
    "spectral_radius_error",
    "spectral_norm",
    "verdict",
    "reason",
    *SEEN_KINDS,
)

ERROR = "autograd_relative_error"
NO_MATRIX = "what multiplies the state is not one square matrix"
NO_STATES = "its states are not made once more: nothing to compare"


@dataclass(frozen=True, eq=False)
class ModelGradNorms(Shown, Result):
    """What every time step contributes to the gradient of every recurrent weight of a model.

    Attributes:
        weights: name -> what was probed.
        loss: the loss.
        verify: whether the comparison with autograd was asked for.
        padded_shares: weight -> the part of its gradient that falls on padding if nothing is packed or
            masked; empty where all sequences are as long.
        vanish_below, explode_above: thresholds of the verdict on ``first_over_last``.
        lengths_differ: whether the sequences are of different lengths.
        own_loss: whether the loss is one that the model itself returned.
        output_key: where what is differentiated stands in what the model returned; None where it is all of it.
        in_float64: of a step that is not finite, what it would be in float64.
    """

    schema: ClassVar[str] = "gradnorm-modules"
    kinds: ClassVar[Mapping[str, Kind]] = {
        "loss": float,
        "weights": float,
        "autograd_relative_error": float,
        "autograd_tolerance": float,
        "recovered_error": float,
        "states_agree": bool,
        "padded_share": float,
        "weight": str,
        "grad_W_hh_norm": float,
        **JUDGED_KINDS,
        **SEEN_KINDS,
        "vanish_below": float,
        "explode_above": float,
        **NONFINITE_KINDS,
    }
    words: ClassVar[tuple[str, ...]] = WORDS

    weights: Mapping[str, ProbedWeight]
    loss: float
    verify: bool
    padded_shares: Mapping[str, float | None]
    vanish_below: float
    explode_above: float
    lengths_differ: bool = False
    own_loss: bool = False
    output_key: str | None = None
    in_float64: InFloat64 = UNREPEATED

    @property
    def settled(self) -> Mapping[str, Any]:
        """Which output, and whose loss."""
        own = {"loss": OWN_LOSS, "loss_at": None, "target": None} if self.own_loss else {}
        return {"output_key": self.output_key, **own}

    @cached_property
    def scalars(self) -> Mapping[str, Any]:
        """Of the whole model, and of the weight whose gradient changes most on its way back."""
        weights = self.weights.values()
        errors = [w.autograd_relative_error for w in weights if w.autograd_relative_error is not None]
        recovered = [w.recovered_error for w in weights if w.recovered_error is not None]
        shares = [share for share in self.padded_shares.values() if share is not None]
        judged = self._judged_summary
        return MappingProxyType(
            {
                "loss": self.loss,
                "weights": len(self.weights),
                "autograd_relative_error": _largest(errors) if self.verify else None,
                "autograd_tolerance": max(w.autograd_tolerance for w in weights),
                "recovered_error": _largest(recovered),
                "states_agree": all(w.states_agree for w in weights) if recovered else None,
                "padded_share": max(shares) if shares else None,
                "weight": judged["weight"],
                **{name: judged[name] for name in OF_ONE_WEIGHT},
                "vanish_below": self.vanish_below,
                "explode_above": self.explode_above,
                **self.nonfinite.scalars(),
            }
        )

    @cached_property
    def nonfinite(self) -> FirstNonfinite:
        """Where a state is not finite first."""
        found = first_nonfinite({name: weight.seen for name, weight in self.weights.items()})
        dtypes = [weight.W_hh.dtype.to_real() for weight in self.weights.values()]
        return found.within(min(dtypes, key=lambda dtype: torch.finfo(dtype).max), self.in_float64)

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One record per weight and time step; ``call`` is which call of the module it belongs to."""
        return rows_of(self.weights)

    @cached_property
    def more(self) -> Mapping[str, Any]:
        """weights: one record each; gates: what each gate's rows of W_hh have of the gradient."""
        return {"weights": self._summaries, "gates": [row for w in self.weights.values() for row in _gate_rows(w)]}

    @cached_property
    def _summaries(self) -> list[Mapping[str, Any]]:
        return [self._summary(weight) for weight in self.weights.values()]

    def _summary(self, weight: ProbedWeight) -> Mapping[str, Any]:
        total = float(weight.grad_norm_W_hh.sum())
        norm = float(torch.linalg.vector_norm(weight.grad_of_state_columns))
        # Of the gates' matrices one below the other a radius or a norm says nothing about a step.
        matrix, verdict = weight.matrix, self._verdict(weight)
        radius, radius_error = (None, None) if matrix is None else spectral_radius_and_error(matrix)
        return {
            "weight": weight.name,
            "cell": weight.cell,
            "calls": len(weight.steps_per_call),
            "steps": sum(weight.steps_per_call),
            "shape": list(weight.W_hh.shape),
            "grad_W_hh_norm": norm,
            "autograd_relative_error": weight.autograd_relative_error if self.verify else None,
            "recovered_error": weight.recovered_error,
            "cancellation": share_of(norm, total),
            **decay_scalars(weight.decay),
            "spectral_radius": radius,
            "spectral_radius_error": radius_error,
            "spectral_norm": None if matrix is None else spectral_norm(matrix),
            "padded_share": self.padded_shares.get(weight.name),
            "h_init_is_zero": weight.h_init_is_zero,
            "verdict": verdict.word,
            "reason": verdict.reason,
            **seen_scalars(weight.seen),
        }

    @cached_property
    def _judged_summary(self) -> Mapping[str, Any]:
        return max(self._summaries, key=_extremity)

    def _verdict(self, weight: ProbedWeight) -> Verdict:
        decay = weight.decay
        at_first_alone = decay is None or decay.first_over_last is None or decay.steps == 1
        steps = max(weight.steps_per_chain, default=0)
        nonfinite = self._nonfinite(weight)
        # None arrives; or all at first steps, before which there is no state to go back to.
        nothing = at_first_alone and not bool(weight.grad_norm_W_hh.any())
        remark = None if weight.seen is None else weight.seen.remark
        if nonfinite is None and nothing and (steps > 1 or not bool(weight.grad_norm_state.any())):
            conditions = {"nonfinite": False, "vanishing": None, "exploding": None}
            return Verdict("no gradient", no_gradient(weight.W_hh.dtype), conditions).because(remark)
        limits = Thresholds(self.vanish_below, self.explode_above)
        unknown = _why_unknown(weight)
        found = verdict_on(weight.decay, steps, limits, nonfinite=nonfinite, unknown=unknown).because(remark)
        return found.because("it is of the longest sequences alone") if self.lengths_differ else found

    def _nonfinite(self, weight: ProbedWeight) -> str | None:
        """What is not finite, in words."""
        return self.nonfinite.of_run(self.loss, *tensors_of(weight))

    @property
    def conditions(self) -> Mapping[str, bool | None]:
        """Which of "nonfinite", "vanishing" and "exploding" hold for any weight; None where nothing tells."""
        of_weights = [self._verdict(weight).conditions for weight in self.weights.values()]
        return {name: _any_of(held[name] for held in of_weights) for name in WORDS}

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None."""
        judged, weights = self._judged_summary, self.weights.values()
        weight = self.weights[judged["weight"]]
        ends, is_nonfinite = judged["reason"], judged["verdict"] == "nonfinite"
        nonfinite = ends if is_nonfinite else None
        matrix = NO_MATRIX if weight.matrix is None else "W_hh is not finite"
        undecided = [f"{name}: {self._verdict(each).reason}" for name, each in self.weights.items()]
        uncompared = next((each.why[ERROR] for each in weights if ERROR in each.why), NOT_ASKED)
        return {
            ERROR: uncompared if self.verify else NOT_ASKED,
            "recovered_error": NO_STATES,
            "states_agree": NO_STATES,
            **dict.fromkeys(("loss", "grad_W_hh_norm"), ends),
            "padded_share": self._why_no_padded_share(nonfinite),
            "cancellation": why_no_share(float(weight.grad_norm_W_hh.sum()), nonfinite),
            **why_no_decay(weight.decay, ends, nonfinite=is_nonfinite),
            **dict.fromkeys(("spectral_radius", "spectral_radius_error", "spectral_norm"), matrix),
            **why_not_seen(weight.seen),
            **self.nonfinite.why(),
            **{
                word: "; ".join(said for said, each in zip(undecided, weights, strict=True) if self._lacks(each, word))
                for word in WORDS
            },
        }

    def _why_no_padded_share(self, nonfinite: str | None) -> str:
        """Nobody asked for it, or nothing is known of what comes to the weights."""
        return nonfinite or "no weight gets a gradient" if self.padded_shares else "all sequences are as long"

    def _lacks(self, weight: ProbedWeight, word: str) -> bool:
        return self._verdict(weight).conditions[word] is None

    def require_agreement(self) -> None:
        """Raise VerificationError if autograd was asked and disagrees, or the module did something else."""
        for weight in self.weights.values():
            if not weight.states_agree:
                raise VerificationError(
                    f"{weight.name}: the module's states differ by {weight.recovered_error:.3g} from what its weights "
                    "make of its inputs (a hook, noise, another thread?): its norms are not to be trusted"
                )
            if self.verify and weight.agrees is False:
                raise VerificationError(
                    f"{weight.name}: sum of all G_t disagrees with autograd: relative error "
                    f"{weight.autograd_relative_error:.3g}. Does the weight also enter the loss by another way, "
                    "such as a penalty?"
                )


def itemised(
    model: nn.Module, objective: Objective, only: str | None, *, verify: bool, vanish_below: float, explode_above: float
) -> ModelGradNorms:
    """``gradnorm`` of any model, from one training step that is probed.

    Args:
        objective: its ``lengths`` may come with a target that has anything in its padding.
        verify, vanish_below, explode_above: as in ``gradnorm``.
    """
    lengths = objective.lengths
    if objective.loss_fn is None:
        real = without_padding(objective.target, lengths, objective.x.shape[1])
        objective = replace(objective, target=real)
    step = training_step(model, objective, lengths, only)
    shares: dict[str, float | None] = {}
    if lengths is not None:
        # The audit: the loss as it would be without packing, padding included.
        careless = objective if must_have_lengths(model) else replace(objective, lengths=None)
        audited = training_step(model, careless, lengths, only)
        shares = {name: weight.padded_share for name, weight in audited.weights.items()}
    found = ModelGradNorms(
        weights=MappingProxyType(dict(step.weights)),
        loss=step.loss,
        verify=verify,
        padded_shares=MappingProxyType(shares),
        vanish_below=vanish_below,
        explode_above=explode_above,
        lengths_differ=lengths is not None and bool((lengths != lengths[0]).any()),
        own_loss=step.part.is_own_loss,
        output_key=step.part.key,
        notes=step.notes,
    )
    if not found.conditions["nonfinite"]:
        return found
    return replace(found, in_float64=step_in_float64(model, objective, only, before=found.nonfinite.step))


def model_gradnorm(model: nn.Module, x: Tensor, *, target: Any = None, **settings: Any) -> ModelGradNorms:
    """``gradnorm`` with every recurrent weight by its name, of a ``FullRNN`` as well.

    Args:
        model, x, target: as in ``gradnorm``, x of shape (batch, time, input).
        settings: of ``gradnorm``: loss, loss_at, loss_fn, output_key, lengths, time_first, only, verify, vanish_below,
            explode_above.
    """
    judged = {"verify": True, "vanish_below": 1e-3, "explode_above": 1e3}
    judged |= {name: settings.pop(name) for name in judged if name in settings}
    require_thresholds(judged["vanish_below"], judged["explode_above"])
    require_no_linear(settings.pop("linear", None))
    only = settings.pop("only", None)
    inputs, lengths = lengths_apart(model, x, settings.pop("lengths", None))
    settings["lengths"] = lengths
    return itemised(model, Objective(inputs, target, **settings), only, **judged)  # type: ignore[arg-type]


def _why_unknown(weight: ProbedWeight) -> str:
    """Why it is not known how the gradient changes on its way back, where it is not."""
    return weight.why.get("decay") or weight.why.get("grad_norm_state") or ENTERS_OFTEN


def _gate_rows(weight: ProbedWeight) -> list[Mapping[str, Any]]:
    sums = {gate: float(norms.sum()) for gate, norms in weight.grad_norm_gates.items()}
    total = sum(sums.values())
    return [
        {
            "weight": weight.name,
            "gate": gate,
            "share": share_of(sums[gate], total),
            "first": float(norms[0]),
            "last": float(norms[-1]),
            "largest": float(norms.max()),
        }
        for gate, norms in weight.grad_norm_gates.items()
    ]


def _extremity(summary: Mapping[str, Any]) -> float:
    """How much stands against a weight: not finite, then the largest change, up or down."""
    ratio = summary["first_over_last"]
    if summary["verdict"] == "nonfinite":
        return math.inf
    if ratio is None:
        # Any change that is known, even none, comes before one that is not.
        return -1.0
    return math.inf if ratio <= 0 or math.isinf(ratio) else abs(math.log(ratio))


def _largest(values: Sequence[float]) -> float | None:
    """NaN where one of them is, as it is not known to be smaller."""
    return max(values, key=lambda value: (math.isnan(value), value)) if values else None


def _any_of(holds: Iterable[bool | None]) -> bool | None:
    """Whether one of them holds; None where none is known to, and one is not known."""
    found = set(holds)
    return True if True in found else None if None in found else False
