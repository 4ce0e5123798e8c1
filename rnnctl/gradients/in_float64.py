"""A run that is not finite once more in float64: whether another dtype helps is known, or said not to be."""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from rnnctl.errors import RnnctlError
from rnnctl.gradients.layer_sweep import layer_norms
from rnnctl.gradients.loss_steps import require_room_for_blocks
from rnnctl.gradients.training_step import tensors_of, training_step
from rnnctl.models.hand_written import Problem
from rnnctl.models.objective import Objective
from rnnctl.recurrence.states_seen import (
    UNREPEATED,
    FirstNonfinite,
    InFloat64,
    are_finite,
    first_bad_step,
    first_nonfinite,
)

# Whose modules do the same whenever they run; those of the user may do anything.
KNOWN = ("torch", "rnnctl")
# A model that cannot be copied, widened or held: nothing is known of it then.
FAILURES = (RnnctlError, RuntimeError, TypeError)


def problem_in_float64(problem: Problem, *, before: int | None) -> InFloat64:
    """Of the hand-written network.

    Args:
        before: the first step whose h_t is not finite in its own dtype, or None.
    """
    try:
        require_room_for_blocks(problem)
        wide = problem.in_float64()
        h = wide.states()
        loss, direct = wide.direct(h)
        gradient = layer_norms(wide.run(h, direct), recorded=False).contributions.grad_W_hh
    except FAILURES:
        return UNREPEATED
    step = first_bad_step(h[1:])
    is_finite = FirstNonfinite(step).of_run(loss, h, gradient) is None
    return InFloat64.repeated(is_finite, step, before=before, given=problem.given)


def step_in_float64(model: nn.Module, objective: Objective, only: str | None, *, before: int | None) -> InFloat64:
    """Of a training step of a model all of whose modules are torch's or ours; a copy of it runs.

    Args:
        only: as of ``probe``.
        before: as above.
    """
    x, target = objective.x, objective.target
    given = [*model.parameters(), x, target]
    if not isinstance(x, Tensor) or objective.loss_fn is not None or not all(map(_is_repeatable, model.modules())):
        # What is not finite before anything has run needs no other run to tell.
        return InFloat64(was_given=not are_finite(given))
    try:
        twin = deepcopy(model).to("cpu", torch.float64)
        posed = replace(objective, x=_wide(x), target=_wide(target) if isinstance(target, Tensor) else target)
        with torch.autocast("cpu", enabled=False):
            step = training_step(twin, posed, objective.lengths, only)
    except FAILURES:
        return UNREPEATED
    found = first_nonfinite({name: weight.seen for name, weight in step.weights.items()})
    parts = [part for weight in step.weights.values() for part in tensors_of(weight)]
    is_finite = found.of_run(step.loss, *parts) is None
    return InFloat64.repeated(is_finite, found.step, before=before, given=given)


def told_of_problem(problem: Problem, found: FirstNonfinite, loss: float, gradient: Tensor) -> FirstNonfinite:
    """Of the hand-written network, with what it would be in float64 where something is not finite.

    Args:
        found: where a state is not finite first.
        gradient: of any shape.
    """
    known = found.within(problem.model.rnn_cell.hidden_to_hidden.weight.dtype)
    if known.of_run(loss, gradient) is None:
        return known
    return replace(known, in_float64=problem_in_float64(problem, before=found.step))


def told_of_model(
    model: nn.Module, objective: Objective, only: str | None, found: FirstNonfinite, loss: float, gradient: Tensor
) -> FirstNonfinite:
    """The same of any model.

    Args:
        only: as of ``probe``.
        found, gradient: as above.
    """
    known = found.within(next((each.dtype for each in model.parameters() if each.is_floating_point()), None))
    if known.of_run(loss, gradient) is None and known.words is None:
        return known
    return known.within(known.dtype, step_in_float64(model, objective, only, before=found.step))


def _is_repeatable(module: nn.Module) -> bool:
    """Whether a copy of a module does the same: it is known, nobody hooked it, and it draws no random numbers."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    dropped = [getattr(module, name, 0.0) for name in ("dropout", "p")] if module.training else []
    return type(module).__module__.partition(".")[0] in KNOWN and not any(hooks) and not any(dropped)


def _wide(tensor: Tensor) -> Tensor:
    """On the CPU, which has float64, and in it unless it holds whole numbers."""
    return tensor.detach().to("cpu", torch.float64 if tensor.is_floating_point() else tensor.dtype)
