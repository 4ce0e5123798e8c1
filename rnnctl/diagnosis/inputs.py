"""What the network is given: over which axis it runs, how large its numbers are, and whether they are numbers."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from rnnctl.diagnosis.look import Evidence, Look, held, held_share, unknown
from rnnctl.diagnosis.patient import Patient
from rnnctl.diagnosis.watched_pass import SeenLayer
from rnnctl.errors import InputError
from rnnctl.models.inputs import inputs_of
from rnnctl.recurrence.states_seen import FAR, percent, short

# What reaches a tanh from the input beyond this leaves a slope of 0.01; so large in most places it is all that counts.
DRIVEN, MOSTLY = 3.0, 0.5
# As a part of its mean: an input that varies by less carries nothing that rounding leaves; and how small is silent.
VARIES, SILENT = 1e-3, 1e-2
# What is no scale for a network without an end: its states are of that size as well.
HUGE = 50.0


def time_axis(patient: Patient) -> Look:
    """Whether the steps of its recurrence are those of the input."""
    seen = patient.passed.run.steps_seen
    exchanged = next((each for each, over in seen if over == "sequences"), None)
    given = f"the input has {patient.batch} sequences of {patient.steps} steps"
    if exchanged is not None:
        axes = [(patient.batch, patient.steps)]
        sentence = f"{exchanged.said(axes)}, and {given}: it takes the sequences for steps, and never sees the past"
        # Asked to compare the axes the question refuses, in the shell; told that they are meant so it shows them.
        told = patient.settings.time_first in (None, "checked")
        shows = Evidence("forward", "--batch-first", "time_first=False") if told else None
        return Look(True, float(exchanged.steps), float(patient.steps), 1.0, sentence=sentence, evidence=shows)
    odd = next((each for each, over in seen if over == "else" and each.is_odd(patient.batch, patient.steps)), None)
    if odd is not None and patient.over == "else":
        sentence = f"{odd.said([(patient.batch, patient.steps)])}, and {given}: it takes steps for sequences"
        return Look(True, float(odd.steps), float(patient.steps), 1.0, sentence=sentence)
    if patient.mixes.value:
        sentence = (
            f"what one sequence is given changes the outputs of others, and {given}: sequences and steps are mixed up "
            "(a view or reshape where a transpose is meant, or batch_first?)"
        )
        return Look(True, 1.0, 0.0, 1.0, sentence=sentence)
    if patient.over in ("time", "else") or patient.mixes.value is False:
        return Look(False, 0.0, 0.0)
    return unknown(patient.mixes.why or "as many steps as sequences, and no recurrent weight was seen")


def input_scale(patient: Patient) -> Look:
    """Whether the input is of a size and a variety that the first layer can use."""
    x = patient.sequences
    if x is None:
        return unknown("the input is packed, or none of numbers")
    if not bool(torch.isfinite(x).all()):
        return unknown("the input is not finite")
    if x.is_floating_point():
        look = _without_content(x.detach().double(), patient.settings.lengths)
        if look is not None:
            return look
    first = [layer for layer in patient.passed.layers if layer.is_first]
    looks = [_driven(layer) for layer in first] or [_of_states(patient, x)]
    return max(looks, key=lambda look: (look.found is True, look.excess))


def _without_content(x: Tensor, lengths: Tensor | None) -> Look | None:
    """Of an input that is constant or all but zero; None of any other."""
    if lengths is not None and tuple(x.shape[:1]) == tuple(lengths.shape):
        x = x[torch.arange(x.shape[1]) < lengths.cpu()[:, None]]
    flat = x.flatten(0, -2) if x.dim() > 1 else x.unsqueeze(-1)
    largest, varies = float(flat.abs().max()), float(flat.std(0, correction=0).max())
    if largest < SILENT:
        return held(largest, SILENT, True, f"the input is all but zero: its largest number is {short(largest)}")
    share = varies / largest
    if share < VARIES:
        what = "is constant" if varies == 0 else f"varies by {percent(share)} of its size alone"
        return held(share, VARIES, True, f"the input {what}: there is nothing in it to learn from")
    return None


def _driven(layer: SeenLayer) -> Look:
    """How much of what the input sends to the first layer lies where its nonlinearities are flat."""
    x = layer.real(layer.x)
    if not layer.has_ends:
        return _of_size(float(x.double().square().mean().sqrt()))
    sent = (x @ layer.weights.W_ih.t()).abs()
    share = float((sent > DRIVEN).double().mean())
    sentence = (
        f"{percent(share)} of what the input sends to the first layer is beyond {DRIVEN:g}, where its units are at "
        f"their ends and pass no gradient on: x reaches {short(float(x.abs().max()))}"
    )
    return held_share(share, MOSTLY, sentence)


def _of_size(rms: float) -> Look:
    sentence = f"the input has a root mean square of {short(rms)}, and so have the states that it makes"
    return held(rms, HUGE, rms > HUGE, sentence).as_warning(True)


def _of_states(patient: Patient, x: Tensor) -> Look:
    """Of a loop written by hand: how many of its tanh are at their ends, where the input is far from 1."""
    tanh = [each.values for each in patient.written_by_hand if each.function == "Tanh"]
    if not tanh or not x.is_floating_point():
        if x.is_floating_point():
            return _of_size(float(x.double().square().mean().sqrt()))
        return unknown("no layer of a known kind takes it, and no tanh of every step is to be found")
    share = max(float((each.abs() > 0.99).double().mean()) for each in tanh)
    largest = float(x.abs().max())
    if largest <= FAR:
        return Look(False, share, MOSTLY)
    sentence = f"{percent(share)} of the tanh of its steps are at their ends, as x reaches {short(largest)}"
    return held_share(share, MOSTLY, sentence)


def nonfinite(patient: Patient) -> Look:
    """What is not finite first: what is given, a weight, a state, the loss or a gradient."""
    place = next(_not_finite(patient), None)
    if place is not None:
        step, sentence = place
        return Look(True, step, 0.0, 1.0, sentence=sentence)
    result = patient.gradnorm
    if result.value is None:
        norms = patient.gradients
        bad = [name for name, norm in (norms.value or {}).items() if not math.isfinite(norm)]
        if bad:
            return Look(True, None, 0.0, 1.0, sentence=f"the gradient of {bad[0]} is not finite")
        return unknown(norms.why) if norms.value is None else _of_training(patient)
    if result.value.conditions["nonfinite"]:
        first = result.value.nonfinite.step
        reason = next(s["reason"] for s in result.value.more["weights"] if s["verdict"] == "nonfinite")
        return Look(True, None if first is None else float(first), 0.0, 1.0, sentence=reason)
    return _of_training(patient)


def _of_training(patient: Patient) -> Look:
    """The losses of the short trainings, where there are any."""
    for training in patient.trainings if patient.train_steps else ():
        bad = next((step for step, loss in enumerate(training.losses) if not math.isfinite(loss)), None)
        if bad is not None:
            sentence = f"the loss is {training.losses[bad]} after {bad} steps of training"
            return Look(True, float(bad), 0.0, 1.0, sentence=sentence)
    return Look(False, 0.0, 0.0)


def _not_finite(patient: Patient) -> Iterator[tuple[float | None, str]]:
    """Of what is given and of what the pass made, where something is not finite, in the order of cause."""
    given = inputs_of(patient.x)
    for name, each in (("input", given), ("target", patient.target)):
        tensors = [each] if isinstance(each, Tensor) else getattr(each, "tensors", [])
        for tensor in tensors:
            if isinstance(tensor, Tensor) and not bool(torch.isfinite(tensor).all()):
                where = tuple(int(i) for i in (~torch.isfinite(tensor)).nonzero()[0])
                step = float(where[1]) if len(where) > 1 else None
                yield step, f"the {name} holds {float(tensor[where])} at {where}"
    for name, parameter in patient.model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            where = tuple(int(i) for i in (~torch.isfinite(parameter)).nonzero()[0])
            yield None, f"the weight {name} holds {float(parameter.detach()[where])} at {where}"
    for layer in patient.passed.layers:
        bad = ~torch.isfinite(layer.after).flatten(1).all(1)
        if bool(bad.any()):
            step = int(bad.nonzero()[0])
            yield float(step), f"h_t of {layer.name} is not finite first at step {step}"
    try:
        loss = float(patient.passed.loss.detach())
    except InputError:
        return
    if not math.isfinite(loss):
        yield None, f"the loss is {loss}, though no weight and no input is"
