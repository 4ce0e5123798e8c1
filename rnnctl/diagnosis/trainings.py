"""What the short trainings of copies tell: steps of a wrong size, and predictions that nothing was learned for."""

import math
from collections.abc import Collection
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from rnnctl.diagnosis.look import Look, beyond, unknown
from rnnctl.diagnosis.patient import Known, Patient
from rnnctl.diagnosis.training import Training
from rnnctl.diagnosis.watched_pass import WatchedPass
from rnnctl.errors import InputError
from rnnctl.losses import attached_target, sequence_loss
from rnnctl.models.objective import Objective
from rnnctl.recurrence.states_seen import short

NO_TRAINING = "no short training is asked for (--train-steps)"
# Of an update over its weight, the norms of both.
SMALLEST, LARGEST = 1e-5, 1e-1
# A loss that is above its first one by as much, in between or at the end; of what a prediction loses that needs no
# network less than that is learned, and may rise: Adam begins anew, and leaves a minimum that was found.
LEAPS, RISES, LEARNED = 3.0, 1.0, 0.1
# Of the loss of a prediction that needs no network.
NO_BETTER = 0.95


def step_size(patient: Patient) -> Look:
    """Of the updates over their weights the one furthest off, and whether the loss rises."""
    if not patient.train_steps:
        return unknown(NO_TRAINING)
    looks = [_of_training(patient, each) for each in patient.trainings]
    # Most of the seeds: one that is unlucky is none of the network's.
    holds = 2 * sum(look.found is True for look in looks) > len(looks)
    return max((look for look in looks if (look.found is True) == holds), key=lambda look: look.excess)


def _of_training(patient: Patient, training: Training) -> Look:
    first, learned = training.loss_before or math.inf, LEARNED * _of_no_network(patient)
    for loss, most in ((training.loss_after, RISES), (max(training.losses), LEAPS)):
        grown = loss / first
        if not (grown <= most or loss <= learned):
            sentence = f"the loss rises in the short training, to {short(grown)} times what it was"
            return Look(True, grown, most, 0.5 + beyond(grown, most) / 2, sentence=sentence)
    # What begins as zeros, as many a readout does, moves by all that it is.
    matrices = {name for name, each in patient.original.named_parameters() if each.dim() > 1 and bool(each.any())}
    moved = {name: high for name, (_, high) in training.update_over_weight.items() if name in matrices}
    if not moved:
        return unknown("no weight was trained")
    return _of_updates(moved, [name for name in moved if name in patient.recurrent] or list(moved))


def _of_no_network(patient: Patient) -> float:
    """The loss of a prediction that needs none; 0 where that is not known."""
    known = Known.by(lambda: _plain(patient))
    return 0.0 if known.value is None else known.value[0]


def _plain(patient: Patient) -> tuple[float, str]:
    """The smaller loss of the predictions that need no network, and which it is; InputError where none is known."""
    objective, output = patient.passed.objective, patient.passed.prediction
    if objective.loss_fn is not None or objective.ours == "sum" or output is None:
        raise InputError("what a prediction without a network loses is known of mse and cross-entropy alone")
    if objective.target is None or patient.passed.part.is_own_loss:
        raise InputError("no target: zeros are no task")
    return _without_network(objective, output)


def _of_updates(moved: dict[str, float], recurrent: Collection[str]) -> Look:
    """Of the largest update of each weight over it: any that leaps, or a recurrent one that never moves."""
    leaping, still = max(moved, key=moved.__getitem__), min(recurrent, key=moved.__getitem__)
    if moved[leaping] > LARGEST:
        sentence = f"a step changes {leaping} by {short(moved[leaping])} of its size: training leaps"
        return Look(True, moved[leaping], LARGEST, beyond(moved[leaping], LARGEST), sentence=sentence)
    if moved[still] < SMALLEST:
        sentence = f"no step changes {still} by more than {short(moved[still])} of its size: it stands still"
        return Look(True, moved[still], SMALLEST, beyond(moved[still], SMALLEST), sentence=sentence)
    return Look(False, moved[leaping], LARGEST)


def echo(patient: Patient) -> Look:
    """The loss after the short training, of sequences that it was not trained on where there are enough, over that of
    the last value, of the mean, or of the shares of the classes."""
    try:
        plain, what = _plain(patient)
    except InputError as error:
        return unknown(str(error))
    if plain == 0:
        sentence = f"{what} is the target itself: there is nothing to predict (is the target to be shifted?)"
        return Look(True, 0.0, 0.0, 1.0, "warning", sentence)
    if not patient.train_steps:
        return unknown(NO_TRAINING)
    try:
        return _held_against(patient, plain, what)
    except InputError as error:
        # A model that takes steps for sequences does not fit a part of them.
        return unknown(str(error))


def _held_against(patient: Patient, plain: float, what: str) -> Look:
    after = [_loss(patient, training) for training in patient.trainings]
    if patient.held_out is not None:
        plain, what = _without_network(patient.held_out, _prediction(patient.trainings[0], patient.held_out))
    middle = median(after)
    if not math.isfinite(middle) or plain == 0:
        return unknown("the loss after the short training is not finite" if plain else "the target is one number")
    ratio, unseen = middle / plain, "" if patient.held_out is None else " of sequences that it has not seen"
    sentence = f"after {patient.train_steps} steps of training the loss{unseen} is {short(ratio)} times that of {what}"
    holds = ratio > NO_BETTER
    weight = min(1.0, 0.5 + beyond(ratio, NO_BETTER)) if holds else 0.0
    return Look(holds, ratio, NO_BETTER, weight, "warning", sentence)


def _loss(patient: Patient, training: Training) -> float:
    """After a training, of what was held out of it, or of all."""
    if patient.held_out is None:
        return training.loss_after
    return float(WatchedPass(training.model, patient.held_out).loss.detach())


def _prediction(training: Training, objective: Objective) -> Tensor:
    found = WatchedPass(training.model, objective).prediction
    assert found is not None
    return found


def _without_network(objective: Objective, output: Tensor) -> tuple[float, str]:
    """The smaller loss of the predictions that need none, and which it is.

    Args:
        output: of the network, shape (batch, time, output) or (batch, output); its shape alone counts.
    """
    at = replace(objective, loss_at="all" if objective.loss_at == "all" else "last")
    if at.ours == "cross-entropy":
        y = output.detach() if output.dim() > 2 else output.detach().unsqueeze(1)
        target = attached_target(at.target, y if at.loss_at == "all" else y[:, -1:], at.ours, at.x.shape[1])
        shares = torch.bincount(target.flatten(), minlength=y.shape[-1]).to(y) / target.numel()
        # Of a class that never comes the logarithm is of nothing, and is not asked for.
        logits = shares.clamp_min(1e-12).log().expand(*target.shape, -1)
        return float(sequence_loss(logits, target, "cross-entropy")), "the shares of the classes"
    y = output.detach()
    mean = _loss_of(at, _mean(at, y).expand_as(y))
    last = at.x if isinstance(at.x, Tensor) and at.x.shape == y.shape else None
    if last is None:
        return mean, "the mean of the target"
    return min((mean, "the mean of the target"), (_loss_of(at, last.to(y)), "the last value, repeated"))


def _mean(objective: Objective, y: Tensor) -> Tensor:
    """Of the target, by output."""
    target = objective.target
    assert target is not None
    return target.to(y).flatten(0, -2).mean(0)


def _loss_of(objective: Objective, y: Tensor) -> float:
    """Of an output that no network made."""
    with torch.enable_grad():
        return float(objective.value(y.clone().requires_grad_()).detach())
