"""``rnnctl.doctor``: every rule asked of one network, and a diagnosis made of the answers."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rnnctl.diagnosis.case import Case, Settings
from rnnctl.diagnosis.look import Look
from rnnctl.diagnosis.patient import Patient
from rnnctl.diagnosis.remedies import tried
from rnnctl.diagnosis.result import Diagnosis
from rnnctl.diagnosis.rule_ids import chosen_ids
from rnnctl.diagnosis.rules import RULES
from rnnctl.errors import InputError
from rnnctl.models.inputs import Given, TimeFirst

# Of a short training where remedies are tried and nobody says how long.
TRAIN_STEPS_TO_TRY = 200
# The share of the work that the looks are, where remedies are tried.
LOOKING = 0.2
NOTHING_RECURS = "no weight of the model is used from step to step: whether it is healthy is not known"
IN_PYTHON: dict[str, str] = {
    "forward": "rnnctl.sequence_shapes(model, x)",
    "gradnorm": "rnnctl.gradnorm(model, x, target=target)",
    "lyapunov": "rnnctl.lyapunov(model, x)",
    "spectrum": "rnnctl.spectrum(model, x)",
    "truncation": "rnnctl.truncation(model, x, target=target)",
    "doctor": "rnnctl.doctor(model, x, target)",
}


def doctor(
    model: nn.Module,
    x: Given,
    target: Any = None,
    *,
    loss: str | None = None,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    loss_at: str | None = None,
    lag: int | None = None,
    window: int | None = None,
    lengths: Tensor | None = None,
    h_init: Tensor | None = None,
    time_first: TimeFirst = None,
    only: str | None = None,
    output_key: str | int | None = None,
    train_steps: int | None = None,
    seeds: int = 5,
    try_remedies: bool = False,
    only_finding: str | Sequence[str] = (),
    skip_finding: str | Sequence[str] = (),
    timings: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Diagnosis:
    """Why a recurrent network does not learn: findings ranked by evidence, each with its number and its threshold.

    Args:
        model: any module with recurrent parts; nothing of it is changed: what is tried is tried on copies.
        x: inputs, shape (batch, time, input), whole numbers (batch, time), or several, as for ``gradnorm``.
        target: as for ``gradnorm``; of a loss function of your own anything.
        loss, loss_fn, loss_at, lengths, h_init, time_first, only, output_key: as for ``gradnorm``.
        lag: how many steps back the task reaches; if left out it is estimated from input and target.
        window: that of truncated backpropagation, if the network is trained with one.
        train_steps: of a short training of copies by Adam; 0 if left out, 200 with ``try_remedies``.
        seeds: how many short trainings.
        try_remedies: apply every remedy that fits a finding to copies, and measure what it gains.
        only_finding, skip_finding: the id of a finding, or several, that alone, or not, are looked for.
        timings: keep what each rule and the short training cost, in ``more["timings"]``.
        progress: called with the fraction of the work that is done.
    Returns:
        A frozen ``Diagnosis``.
    Raises:
        InputError: as ``gradnorm``; a negative lag, a window, a number of seeds or of steps below 1; an unknown id.
    """
    chosen = chosen_ids(only_finding, skip_finding)
    steps = TRAIN_STEPS_TO_TRY if train_steps is None and try_remedies else train_steps or 0
    _require_from(lag=(lag, 0), window=(window, 1), train_steps=(steps, 0), seeds=(seeds, 1))
    settings = Settings(loss, loss_at, loss_fn, output_key, lengths, h_init, time_first, only, window)
    # What is drawn here is nobody else's: torch goes on afterwards as if nothing had been.
    with torch.random.fork_rng(devices=_devices()):
        patient = Patient(Case(model, x, target, settings, lag), steps, seeds)
        # First of all: a model that does not take its input, or its target, is told to whoever gave it.
        patient.passed.require_fitting_target()
        looks, seconds = _looked(patient, chosen, progress, LOOKING if try_remedies else 1.0)
    reach, why = _reach(patient)
    found = Diagnosis(
        looks=looks,
        rules=RULES,
        commands=IN_PYTHON | ({"doctor": f"rnnctl.doctor(model, x, target, train_steps={steps})"} if steps else {}),
        lag=patient.lag.steps,
        lag_from=patient.lag.source,
        lag_words=patient.lag.words,
        reach=reach,
        why_no_reach=why,
        train_steps=steps,
        seeds=seeds,
        recurs=bool(patient.recurrent),
        recurrent=patient.recurrent[0] if len(patient.recurrent) == 1 else None,
        seconds=seconds if timings else None,
        notes=patient.passed.run.notes + (() if patient.recurrent else (NOTHING_RECURS,)),
    )
    return found if not try_remedies else replace(found, remedies=_tried(found, patient, progress))


def _tried(found: Diagnosis, patient: Patient, progress: Callable[[float], None] | None) -> list[Mapping[str, Any]]:
    """Every remedy that fits, tried on copies of the network as it was given."""

    def further(fraction: float) -> None:
        assert progress is not None
        progress(LOOKING + (1 - LOOKING) * fraction)

    case = Case(patient.original, patient.x, patient.target, patient.settings, patient.lag.steps)
    told = None if progress is None else further
    return tried(case, found.found, steps=found.train_steps, seeds=found.seeds, holds_out=True, progress=told)


def _require_from(**given: tuple[int | None, int]) -> None:
    """Raise InputError for what is below its least."""
    for name, (value, least) in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise InputError(f"{name} must be a whole number of at least {least}; got {value!r}")


def _devices() -> list[int]:
    return list(range(torch.cuda.device_count()))


def _looked(
    patient: Patient, chosen: Sequence[str], progress: Callable[[float], None] | None, share: float
) -> tuple[dict[str, Look], dict[str, float]]:
    """What each rule finds, and what it cost in seconds."""
    looks, seconds = dict[str, Look](), dict[str, float]()
    rules = [rule for rule in RULES if rule.id in chosen]
    for number, rule in enumerate(rules):
        began, trained_for = time.perf_counter(), patient.training_seconds
        looks[rule.id] = rule.look(patient)
        # Whichever rule is the first to ask for it, a short training is none of the rule's own cost.
        seconds[rule.id] = time.perf_counter() - began - (patient.training_seconds - trained_for)
        if progress is not None:
            progress(share * (number + 1) / len(rules))
    if patient.training_seconds:
        seconds["short training"] = patient.training_seconds
    return looks, seconds


def _reach(patient: Patient) -> tuple[float | None, str]:
    """How much of the state's gradient is left over the lag, or over the whole sequence; or why that is not known."""
    if patient.exchanged:
        return None, "it ran over the sequences in place of their steps"
    if patient.reach.value is None:
        return None, patient.reach.why
    whole = patient.of_one_length.x.shape[1] - 1
    lag = whole if patient.lag.steps is None else min(patient.lag.steps, whole)
    return patient.reach.value.over(lag)[1], ""
