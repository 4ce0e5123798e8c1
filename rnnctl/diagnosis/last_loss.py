"""How the gradient of the state changes on its way back from the loss of the last step, lag by lag."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rnnctl.errors import InputError
from rnnctl.gradients.trace import ProbedWeight
from rnnctl.gradients.training_step import training_step
from rnnctl.models.module_calls import tensors_in
from rnnctl.models.objective import Objective
from rnnctl.models.returned import picked


@dataclass(frozen=True, eq=False)
class Reach:
    """The norm of d(loss at the last step)/dstate at each lag over that with which it enters, by weight.

    Attributes:
        curves: weight -> shape (lags,), float64, from lag 0 on; of 1 for the most that enters at any one step.
        growth: weight -> the same over all that has entered up to there: what comes in at many steps, as from a later
            layer or a mean over time, adds up and is no growth.
        of_output: whether it is of the output at the last step, in place of a loss there.
    """

    curves: Mapping[str, Tensor]
    growth: Mapping[str, Tensor]
    of_output: bool

    def over(self, lag: int) -> tuple[str, float]:
        """The weight through which most comes back over so many steps, and how much of 1; 0 behind its first step."""
        left = {name: float(curve[lag]) if lag < len(curve) else 0.0 for name, curve in self.curves.items()}
        return max(left.items(), key=lambda item: item[1])

    def largest(self) -> tuple[str, float, int]:
        """The weight whose gradient grows most on its way back, to how much of 1, and at which lag."""
        peaks = ((name, float(curve.max()), int(curve.argmax())) for name, curve in self.growth.items())
        return max(peaks, key=lambda peak: peak[1])

    @property
    def steps(self) -> int:
        """Of the longest curve."""
        return max(len(curve) for curve in self.curves.values())


def longest_alone(objective: Objective) -> Objective:
    """Of sequences of different lengths the longest, without what pads the others; as it is where no lengths are."""
    lengths, x, target = objective.lengths, objective.x, objective.target
    if lengths is None or not isinstance(x, Tensor):
        return objective
    longest, steps, whole = lengths == lengths.max(), int(lengths.max()), tuple(x.shape[:2])
    if isinstance(target, Tensor) and target.shape[:1] == whole[:1]:
        target = target[longest, :steps] if tuple(target.shape[:2]) == whole else target[longest]
    return replace(objective, x=x[longest, :steps], target=target, lengths=None)


def reach_back(model: nn.Module, objective: Objective, only: str | None) -> Reach:
    """How far back the last step reaches.

    Args:
        model: any module.
        objective: of sequences of one length; where its loss is one of ours, that at the last step is taken.
        only: as of ``probe``.
    Raises:
        InputError: nothing recurs, nothing of its state is known, or no output is to be found.
    """
    last, of_output = _at_last_step(objective)
    try:
        step = training_step(model, last, None, only)
        if step.part.is_own_loss:
            raise InputError("the model's own loss may be of all steps")
    except InputError:
        if of_output:
            raise
        last, of_output = _of_last_output(objective), True
        step = training_step(model, last, None, only)
    found = {name: pair for name, weight in step.weights.items() if (pair := _curves(weight)) is not None}
    if not found:
        whys = [why for weight in step.weights.values() for why in weight.why.values()]
        raise InputError(whys[0] if whys else "the loss of the last step brings nothing to the state")
    curves, growth = ({name: pair[which] for name, pair in found.items()} for which in (0, 1))
    return Reach(curves, growth, of_output)


def _at_last_step(objective: Objective) -> tuple[Objective, bool]:
    """The same with the loss at the last step alone, or of the output there where the loss is none of ours."""
    if objective.loss_fn is not None:
        return _of_last_output(objective), True
    # A loss that nobody named may be the model's own, which is no sum of one loss a step.
    asked = objective.loss is not None or objective.target is not None or objective.loss_at is not None
    return replace(objective, loss_at="last" if asked else None), False


def _of_last_output(objective: Objective) -> Objective:
    """With the output of the last step itself in place of a loss of it, each number by a sign of its own."""

    def signed(returned: Any, _: Any) -> Tensor:
        output = _output(returned, objective)
        last = output[:, -1] if output.dim() > 2 else output
        signs = torch.randint(2, last.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        return (last * signs.to(last)).sum()

    return replace(objective, loss=None, loss_at=None, target=None, loss_fn=signed, output_key=None)


def _output(returned: Any, objective: Objective) -> Tensor:
    """(batch, time, output) or (batch, output) among what a model returned, beside a loss of its own."""
    batch = objective.x.shape[0]
    found = picked(returned, objective.output_key)
    parts = list(tensors_in(returned if isinstance(returned, (tuple, list, dict)) else [found.part]))
    whole = [found.part, *parts] if not found.is_own_loss else parts
    for part in whole:
        if isinstance(part, Tensor) and part.is_floating_point() and part.dim() > 1 and part.shape[0] == batch:
            return part
    raise InputError("the model returns no output beside its loss: how far back one step reaches is not to be told")


def _curves(weight: ProbedWeight) -> tuple[Tensor, Tensor] | None:
    """By lag from the last step, what is left and how far it has grown; None where the state is not known.

    A reverse direction ends at step 0: what came long ago it has just seen, and a gradient travels up from there.
    """
    if not weight.recurrent or bool(weight.grad_norm_state.isnan().all()):
        return None
    steps = max(weight.steps_per_chain, default=len(weight.grad_norm_state))
    # In the order in which a gradient travels; what enters is not known of every weight.
    norms, direct = weight.grad_norm_state, weight.grad_norm_h_direct.nan_to_num()
    if not weight.name.endswith("_reverse"):
        norms, direct = norms.flip(0), direct.flip(0)
    entering = (norms != 0).nonzero()
    if not entering.numel() or steps < 2:
        return None
    first = int(entering[0])
    if weight.name.endswith("_reverse"):
        left, grown = against_entering(norms, direct, norms[first])
        return left.flip(0), grown.flip(0)
    return against_entering(norms[first:][:steps], direct[first:][:steps], norms[first])


def against_entering(norms: Tensor, direct: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Norms over the most that enters at one step, and over all that has entered until then, shape (steps,) each.

    Args:
        norms, direct: of the gradient and of what enters of it, in the order in which it travels, shape (steps,).
        first: the norm where it enters first, of the whole state.
    """
    return norms / direct.max().maximum(first), norms / direct.cumsum(0).maximum(first)
