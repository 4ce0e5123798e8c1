"""One training step of any model, probed: what ``gradnorm`` itemises."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rnnctl.errors import InputError
from rnnctl.gradients.probe import probe
from rnnctl.gradients.trace import ProbedWeight
from rnnctl.models.inputs import Inputs
from rnnctl.models.model_run import ModelRun
from rnnctl.models.objective import Objective, backward, require_takes_lengths
from rnnctl.models.returned import Picked


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """What a step forward and back did.

    Attributes:
        weights: name -> what was probed.
        loss: its value.
        part: of what the model returned, what was differentiated.
        notes: what is to be told of it, a sentence each.
    """

    weights: Mapping[str, ProbedWeight]
    loss: float
    part: Picked
    notes: tuple[str, ...]


def training_step(model: nn.Module, objective: Objective, lengths: Tensor | None, only: str | None) -> TrainingStep:
    """Forward and backward once, the model's ``.grad`` left alone.

    Args:
        lengths: what tells padding, shape (batch,), also where the objective packs nothing.
        only: as of ``probe``.
    """
    run = ModelRun(model, objective.x, objective.lengths, objective.checked_axes)
    try:
        with torch.enable_grad(), probe(model, only=only, decay=True, lengths=lengths) as trace:
            posed, returned = run.posed(objective, run())
            part = posed.picked(returned)
            if objective.loss_fn is None:
                run.require_no_state(part, returned)
            if part.is_own_loss and lengths is not None:
                require_takes_lengths(model)
            value = posed.value(returned)
            backward(value, model)
    except InputError as error:
        # Kept from the pass, which was ours: as what it is.
        raise error.__cause__ or run.explained(error) from None
    weights = {name: _with_input(weight, objective.x) for name, weight in trace.items()}
    return TrainingStep(weights, float(value.detach()), part, run.notes)


def tensors_of(weight: ProbedWeight) -> tuple[Tensor, ...]:
    """What is to be finite of a weight: its norms and gradient, of any shapes."""
    # NaN of a state that is not known is none of the gradient's.
    states = (weight.grad_norm_h,) if "grad_norm_state" not in weight.why else ()
    return weight.grad_norm_W_hh, weight.grad_W_hh, *states


def _with_input(weight: ProbedWeight, x: Tensor | Inputs) -> ProbedWeight:
    """With how far the model's input reaches, where that of the recurrence is not known."""
    if weight.seen is None or weight.seen.largest_input is not None:
        return weight
    tensors = [x] if isinstance(x, Tensor) else [each for each in x.tensors if isinstance(each, Tensor)]
    sizes = [float(each.detach().abs().max()) for each in tensors if each.is_floating_point() and each.numel()]
    return replace(weight, seen=replace(weight.seen, largest_input=max(sizes, default=None)))
