"""What gradient crosses from step to step at all: cut states, weights without one, a readout at the wrong end."""

from dataclasses import replace

import torch
from torch import Tensor

from rnnctl.diagnosis.look import Evidence, Look, unknown
from rnnctl.diagnosis.patient import Patient, outputs_of
from rnnctl.diagnosis.watched_pass import WatchedPass
from rnnctl.errors import InputError
from rnnctl.gradients.trace import ProbedWeight
from rnnctl.gradients.truncation import truncation
from rnnctl.recurrence.states_seen import percent

OVER_SEQUENCES = "it ran over the sequences in place of their steps"
# Nothing but an exact 0 behind what is larger than this is a cut: a gradient that vanishes gets small before.
ABRUPT = 1e-20
# Of the gradient that a window leaves out, where it is not known which lag is needed.
LOST = 0.1
# What a window loses takes a backward pass a step, where no layer of a known kind is swept.
MOST_PASSES = 64


def state_cut(patient: Patient) -> Look:
    """Over how many steps a gradient can cross; the fewest of all recurrences that run over the whole sequence."""
    if patient.exchanged:
        return unknown(OVER_SEQUENCES)
    if patient.steps < 2:
        return unknown("one step alone has no other to cross to")
    crossed = _crossed(patient)
    if isinstance(crossed, str):
        return unknown(crossed)
    steps = patient.steps
    if crossed >= steps:
        return Look(False, float(crossed), float(steps))
    needed = patient.lag.steps
    if crossed > 1 and needed is not None and needed < crossed:
        return Look(False, float(crossed), float(needed + 1))
    threshold = float(steps if needed is None else min(needed + 1, steps))
    way = _way(patient, crossed)
    where = "step to step" if crossed == 1 else f"one window of {crossed} steps to the next"
    sentence = f"no gradient crosses from {where}: {way}. What lies further back cannot be learned"
    look = Look(True, float(crossed), threshold, 1.0 - crossed / (steps + 1), sentence=sentence)
    # Windows that are cut on purpose are truncated backpropagation; whether they are too short is not known.
    return look.as_warning(crossed > 1 and needed is None)


def _crossed(patient: Patient) -> int | str:
    """Steps that a gradient crosses, or why that is not known."""
    chains = [(longest, steps) for _, steps, longest in patient.passed.chains if steps >= patient.steps]
    if chains:
        return min(longest if longest < patient.steps else patient.steps for longest, _ in chains)
    found = patient.reach.value
    if found is not None and found.steps >= patient.steps:
        return patient.steps
    reached = _input_reach(patient)
    if reached is None:
        return patient.reach.why or "how far back the input is reached is not known"
    # Without a state to cut nothing is used again, and nothing of the past is seen either.
    if not _hangs(patient, reached) and patient.passed.most_uses < patient.steps:
        return "no weight recurs, and none is used at every step"
    return reached


def _input_reach(patient: Patient) -> int | None:
    """How many of the last inputs the last output's gradient comes to, where it ends abruptly; None if not known."""
    norms = _norms_of_inputs(patient)
    if norms is None or not bool((norms > 0).any()):
        return None
    first = int((norms > 0).nonzero()[0])
    if first > 0 and float(norms[first] / norms.max()) < ABRUPT:
        return None
    return patient.steps - first


def _norms_of_inputs(patient: Patient) -> Tensor | None:
    """||d(output at the last step)/dx_t||, shape (time,); of embedded tokens of what is looked up for them."""
    x, output = patient.sequences, patient.passed.prediction
    if x is None or output is None or not isinstance(patient.x, Tensor) or not x.is_floating_point():
        return None
    given = x.detach().clone().requires_grad_()
    objective = patient.settings.objective(patient.model, given, patient.target)
    again = WatchedPass(patient.model, objective).prediction
    if again is None or not again.requires_grad:
        return None
    last = again[:, -1] if again.dim() > 2 else again
    (grad,) = torch.autograd.grad(last.sum(), given, allow_unused=True)
    return None if grad is None else grad.double().abs().amax(dim=tuple(i for i in range(grad.dim()) if i != 1))


def _way(patient: Patient, crossed: int) -> str:
    """Whether the state is detached or begins anew."""
    hangs = _hangs(patient, crossed)
    if hangs is None:
        return "the state is detached, or begins anew"
    return "the state is handed on and detached" if hangs else "the state begins anew"


def _hangs(patient: Patient, crossed: int) -> bool | None:
    """Whether the last output hangs on the step before the cut, gradient or not; None where that is not to be told."""
    x, step = patient.sequences, patient.steps - 1 - crossed
    if x is None or not isinstance(patient.x, Tensor) or patient.batch < 2 or step < 0:
        return None
    other = x.clone()
    other[:, step] = x[:, step].roll(1, 0)
    before, after = (outputs_of(patient, each) for each in (x, other))
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a.shape == b.shape]
    ends = [(a[:, -1], b[:, -1]) if a.dim() > 2 else (a, b) for a, b in pairs if a.shape[:1] == (patient.batch,)]
    return any(not torch.equal(a, b) for a, b in ends)


def reverse_last(patient: Patient) -> Look:
    """Whether a recurrence is read at its own first step alone, which has seen one step."""
    result = patient.gradnorm
    if patient.exchanged:
        return unknown(OVER_SEQUENCES)
    if result.value is None:
        return unknown(result.why)
    read_first = [name for name, weight in result.value.weights.items() if _is_read_first(weight)]
    if not read_first:
        return Look(False, 0.0, 1.0)
    output, target = patient.passed.prediction, patient.target
    over_time = output is not None and output.dim() > 2 and isinstance(target, Tensor) and target.dim() > 1
    every_step = over_time and isinstance(target, Tensor) and target.shape[1] == patient.steps
    sentence = (
        f"{read_first[0]} is read at the first step that it makes, which has seen one step of {patient.steps}: the "
        "last step of a reverse direction is its beginning"
    )
    # An output at every step, of which the loss takes the last, may be meant for all of them.
    return Look(True, 1.0, float(patient.steps), 1.0, sentence=sentence).as_warning(every_step)


def _is_read_first(weight: ProbedWeight) -> bool:
    entering, steps = (weight.grad_norm_state > 0).nonzero().flatten().tolist(), len(weight.grad_norm_state)
    if steps < 2 or len(entering) != 1 or max(weight.steps_per_chain, default=0) < steps:
        return False
    return bool(entering[0] == (steps - 1 if weight.name.endswith("_reverse") else 0))


def no_gradient(patient: Patient) -> Look:
    """Which recurrent weights get no gradient; where none is known to recur, which weights at all."""
    found = patient.gradients
    names = patient.recurrent
    if found.value is None:
        if "does not depend on anything that takes a gradient" not in found.why:
            return unknown(found.why)
        return Look(True, 0.0, 0.0, 1.0, sentence=found.why)
    norms = patient.gradients_later
    known = [name for name in names if name in norms]
    asked = known or list(norms)
    frozen = [name for name in asked if name in patient.frozen]
    # Of one step alone, and from zeros, nothing comes to what multiplies the state.
    empty = [name for name in asked if norms[name] == 0 and name not in frozen] if patient.steps > 1 else []
    if not known and not names and not (frozen or empty):
        return unknown("no recurrent weight is to be found")
    if not frozen and not empty:
        return Look(False, min(norms[name] for name in asked), 0.0)
    said = [f"{frozen[0]} takes no gradient (requires_grad is False)"] if frozen else []
    said += [f"nothing of the loss comes to {empty[0]}"] if empty else []
    more = len(frozen) + len(empty) - len(said)
    sentence = f"{' and '.join(said)}{f', and so for {more} more' if more else ''}: it stays as it was drawn"
    lost = (len(frozen) + len(empty)) / len(asked)
    return Look(True, 0.0, 0.0, 0.5 + lost / 2, sentence=sentence).as_warning(lost < 0.5 and not frozen)


def window(patient: Patient) -> Look:
    """What the window of truncated backpropagation leaves out of the gradient at the lag that is needed."""
    size, needed = patient.settings.window, patient.lag.steps
    if size is None:
        return unknown("no window is given (--window)")
    if patient.exchanged:
        return unknown(OVER_SEQUENCES)
    size = min(size, patient.steps)
    lost, why = _lost(patient, size)
    if needed is None and lost is None:
        return unknown(why)
    evidence = Evidence("truncation", f"--windows {size}", f"windows=[{size}]")
    look = _over_lag(size, needed, lost, patient.steps) if needed is not None else _of_whole(size, lost or 0.0)
    return replace(look, evidence=evidence, weight_name=patient.one_of_several())


def _over_lag(size: int, needed: int, lost: float | None, steps: int) -> Look:
    """A window against a lag that is known: of one within it nothing is lost, whatever becomes of others."""
    part = "" if lost is None else f"; {percent(lost)} of the whole gradient is lost"
    sentence = f"a window of {size} steps reaches {size - 1} back, and the task {needed}{part}"
    short = size <= min(needed, steps - 1)
    weight = min(1.0, (needed + 1 - size) / (needed + 1) + 0.25) if short else 0.0
    return Look(short, float(size), float(needed + 1), weight, sentence=sentence)


def _of_whole(size: int, lost: float) -> Look:
    """A window against a lag that is not known, by what it loses of the whole gradient."""
    what = f"a window of {size} steps loses {percent(lost)} of the gradient"
    sentence = f"{what}; how far back the task reaches is not known"
    holds = lost > LOST
    return Look(holds, lost, LOST, min(1.0, lost) if holds else 0.0, "warning", sentence)


def _lost(patient: Patient, size: int) -> tuple[float | None, str]:
    """The part of the gradient of losses at all steps that a window leaves out, or why that is not known."""
    objective = patient.of_one_length
    try:
        if objective.loss_fn is not None:
            raise InputError("the loss is a function of your own, which is not one of each step")
        if not patient.passed.layers and patient.steps > MOST_PASSES:
            raise InputError(f"it takes a backward pass for each of {patient.steps} steps. Try fewer of them")
        found = truncation(
            patient.model,
            **patient.of_question,
            windows=[size],
            target=objective.target,
            loss=objective.loss,
            output_key=objective.output_key,
            only=patient.settings.only or patient.one_of_several() or None,
        )
    except InputError as error:
        return None, str(error)
    return found.scalars[f"relative_error_at_{size}"], "the whole gradient is 0"
