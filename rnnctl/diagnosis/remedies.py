"""What may help: every remedy that fits what was found, tried on copies over several seeds, ranked by its measure."""

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from rnnctl.diagnosis import setup_remedies, weight_remedies
from rnnctl.diagnosis.case import Case, Examined, random_state, varied
from rnnctl.diagnosis.reach import reach
from rnnctl.diagnosis.training import Training, has_own_loss, loss_of, trained
from rnnctl.errors import InputError, shortened

HELD_OUT, TRAINED_ON = "sequences not trained on", "the trained sequences"
YES, NO = "yes", "no measurable help"
ONE_SEED = "not known: one seed has no interval"
NO_TARGET = "not tried: there is no target to train towards"
# Less than this share of the loss is no help, however sure it is.
SMALLEST_GAIN = 0.01
# How sure an interval is that holds the median: what the range of five seeds is.
LEVEL = 15 / 16


@dataclass(frozen=True)
class Remedy:
    """Something to change.

    Attributes:
        id: a word for it.
        words: what it is, for whoever reads the findings.
        fits: the ids of the findings that it may mend.
        apply: makes another case of one that it may change; InputError with the reason where it does not fit.
        before: what the model is compared with, where that is not the case as it is examined.
    """

    id: str
    words: str
    fits: tuple[str, ...]
    apply: Callable[[Case], Case]
    before: Callable[[Case], Case] | None = None


REMEDIES: tuple[Remedy, ...] = (
    Remedy("batch-first", "layers that take the axes as they come", ("time-axis",), setup_remedies.batch_first),
    Remedy(
        "standardize",
        "input features with mean 0 and standard deviation 1",
        ("input-scale", "dead-units", "stuck-gate", "nonfinite", "step-size"),
        setup_remedies.standardize,
    ),
    Remedy(
        "critical",
        "an orthogonal W_hh, of an Elman network at the critical gain",
        ("vanishing", "exploding", "chaotic", "nonfinite", "dead-units", "echo"),
        weight_remedies.critical,
    ),
    Remedy("identity", "the identity as W_hh, with relu", ("vanishing",), weight_remedies.identity_and_relu),
    Remedy("forget-bias", "gates that start open", ("vanishing", "stuck-gate"), weight_remedies.forget_bias),
    Remedy("chrono", "chrono initialisation for the lag", ("vanishing", "stuck-gate", "echo"), weight_remedies.chrono),
    Remedy(
        "lstm",
        "an LSTM in place of the Elman layer",
        ("vanishing", "exploding", "chaotic", "echo"),
        weight_remedies.lstm,
    ),
    Remedy(
        "gru", "a GRU in place of the Elman layer", ("vanishing", "exploding", "chaotic", "echo"), weight_remedies.gru
    ),
    Remedy("clip", "gradient clipping", ("exploding", "nonfinite", "chaotic", "step-size"), setup_remedies.clipped),
    Remedy("window", "a longer window", ("window", "state-cut"), setup_remedies.wider_window),
    Remedy("both-ends", "a readout of both ends", ("reverse-last",), setup_remedies.read_both_ends),
    Remedy("no-activation", "no activation before the loss", ("loss-output",), setup_remedies.no_end_activation),
    Remedy("mask", "a loss of real steps alone", ("padding",), setup_remedies.masked, setup_remedies.careless),
)


def tried(
    examined: Examined,
    findings: Sequence[str],
    *,
    steps: int = 200,
    seeds: int = 5,
    holds_out: bool = False,
    progress: Callable[[float], None] | None = None,
) -> list[Mapping[str, Any]]:
    """Try every remedy that fits, and measure it.

    Each is applied to a copy of the model, which is trained for a few steps beside one without it; what is examined,
    and torch's random state, are afterwards as before. Every seed but the first begins from other values of the
    weights that do not recur, the same with and without the remedy.

    Args:
        examined: what was looked at.
        findings: ids, those first that weigh most.
        steps, seeds: of the trainings.
        holds_out: keep every fourth sequence from the trainings, where there are enough, and judge by these.
        progress: called with the fraction of the trainings that is done.
    Returns:
        One record each, the best first: remedy, finding (the first that it fits), reach_before, reach_after (how much
        of the state's gradient is left over the lag), loss_before, loss_after (after the training), unseen_before,
        unseen_after (the same of sequences that were held out of it; None where none were), all medians over the seeds;
        loss_low, loss_high: an interval of the median difference of the losses that are judged, from 5 seeds on at
        15/16; measured_on: whether those are of "sequences not trained on" or of "the trained sequences"; helps: "yes",
        "no measurable help" or "not tried: " and why; lines: of Python, for ``model``, ``x``, ``target`` and, where
        they were given, ``lengths``.
    """
    pairs = [(each, _first(each, findings)) for each in REMEDIES]
    fitting = [(remedy, finding) for remedy, finding in pairs if finding is not None]
    trials, rows = _Trials(examined, steps, seeds, holds_out=holds_out), []
    for count, (remedy, finding) in enumerate(fitting):

        def told(seed: int, done: int = count) -> None:
            if progress is not None:
                progress((done + (seed + 1) / seeds) / len(fitting))

        rows.append(_row(trials, remedy, finding, told))
    return sorted(rows, key=_rank)


def _first(remedy: Remedy, findings: Collection[str]) -> str | None:
    return next((finding for finding in findings if finding in remedy.fits), None)


@dataclass(frozen=True)
class _Measured:
    """What came of one trial; a loss that is not finite is infinite, and ``held_out`` is as of ``Case``."""

    case: Case
    reach: float | None
    training: Training | None
    held_out: Tensor | None = None

    def loss_by(self, other: Case) -> float | None:
        """The loss after the training, counted on the steps that another case counts."""
        if self.training is None:
            return None
        if other.settings.lengths is self.case.settings.lengths:
            found = self.training.loss_after
            return found if math.isfinite(found) else math.inf
        return self._loss(other, None if self.held_out is None else ~self.held_out)

    def unseen_by(self, other: Case) -> float | None:
        """The same of the sequences that were held out of the training; None where none were."""
        return None if self.training is None or self.held_out is None else self._loss(other, self.held_out)

    def _loss(self, other: Case, chosen: Tensor | None) -> float:
        assert self.training is not None
        if not math.isfinite(self.training.loss_after):
            return math.inf
        settings = replace(self.case.settings, lengths=other.settings.lengths)
        counted = replace(self.case, target=other.target, settings=settings)
        counted = counted if chosen is None else counted.part(chosen)
        found = loss_of(self.training.model, counted.x, counted.target, counted.settings)
        return found if math.isfinite(found) else math.inf


class _Trials:
    """Trainings of one case, with remedies and without, each made once."""

    def __init__(self, examined: Examined, steps: int, seeds: int, *, holds_out: bool) -> None:
        self.seeds = seeds
        self._examined, self._steps = examined, steps
        self.held_out = _held_out(Case.copied(examined)) if holds_out else None
        self._before: dict[tuple[Callable[[Case], Case] | None, int], _Measured] = {}

    def before(self, remedy: Remedy, seed: int) -> _Measured:
        """Without the remedy."""
        key = (remedy.before, seed)
        if key not in self._before:
            self._before[key] = self._measured(remedy, remedy.before or (lambda case: case), seed)
        return self._before[key]

    def after(self, remedy: Remedy, seed: int) -> _Measured:
        """With it; InputError where it does not fit, or the model does not run with it."""
        return self._measured(remedy, lambda case: _running(remedy.apply(case)), seed)

    def _measured(self, remedy: Remedy, change: Callable[[Case], Case], seed: int) -> _Measured:
        case = Case.copied(self._examined)
        if remedy.apply is not setup_remedies.wider_window:
            case = setup_remedies.cut_where_known(case)
        varied(case.model, seed)
        with random_state(seed, case.model):
            case = change(case)
        training = None
        if case.target is not None or case.settings.loss_fn is not None or has_own_loss(case):
            seen = case if self.held_out is None else case.part(~self.held_out)
            training = trained(seen.model, seen.x, seen.target, seen.settings, self._steps, seed)
        return _Measured(case, reach(case), training, self.held_out)


def _held_out(case: Case) -> Tensor | None:
    """Which sequences the trainings do not see, as of ``Case``; None where the model does not run on a part of them."""
    held = case.held_out
    if held is None:
        return None
    try:
        for chosen in (held, ~held):
            part = case.part(chosen)
            loss_of(part.model, part.x, part.target, part.settings)
    except Exception:
        # Such as of a model that was written for so many sequences: what is wrong with it otherwise is told elsewhere.
        return None
    return held


def _running(case: Case) -> Case:
    """The case; InputError where the model's own code fails with what was changed in it."""
    try:
        Case.copied(case).returned()
    except InputError:
        raise
    except Exception as error:
        said = shortened(f"{type(error).__name__}: {error}".splitlines()[0])
        raise InputError(f"the model's own code does not take it: {said}") from error
    return case


def _row(trials: _Trials, remedy: Remedy, finding: str, told: Callable[[int], None]) -> Mapping[str, Any]:
    try:
        before, after = [], []
        for seed in range(trials.seeds):
            after.append(trials.after(remedy, seed))
            before.append(trials.before(remedy, seed))
            told(seed)
    except InputError as error:
        told(trials.seeds - 1)
        return _record(remedy, finding, f"not tried: {error}")
    row = _record(remedy, finding, NO_TARGET, "\n".join(after[0].case.lines))
    row["reach_before"] = _median([each.reach for each in before])
    row["reach_after"] = _median([each.reach for each in after])
    both = list(zip(before, after, strict=True))
    losses = _known((one.loss_by(other.case), other.loss_by(other.case)) for one, other in both)
    unseen = _known((one.unseen_by(other.case), other.unseen_by(other.case)) for one, other in both)
    if losses:
        row |= _compared(losses) | {"measured_on": TRAINED_ON}
    if unseen:
        judged = _compared(unseen)
        row |= {"unseen_before": judged.pop("loss_before"), "unseen_after": judged.pop("loss_after")}
        row |= judged | {"measured_on": HELD_OUT}
    return row


def _known(pairs: Iterable[tuple[float | None, float | None]]) -> list[tuple[float, float]]:
    return [(one, other) for one, other in pairs if one is not None and other is not None]


def _compared(losses: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """What a row says of the losses without the remedy and with it, seed by seed."""
    before, after = (statistics.median(each) for each in zip(*losses, strict=True))
    # Neither is better where both are infinite.
    low, high = interval([0.0 if one == other else other - one for one, other in losses])
    # Of a loss that was infinite anything is a gain that is not.
    least = SMALLEST_GAIN * abs(before) if math.isfinite(before) else 0.0
    helps = YES if high < -least else NO
    helps = helps if len(losses) > 1 else ONE_SEED
    return {"loss_before": before, "loss_after": after, "loss_low": low, "loss_high": high, "helps": helps}


def _record(remedy: Remedy, finding: str, helps: str, lines: str = "") -> dict[str, Any]:
    numbers = ("reach_before", "reach_after", "loss_before", "loss_after")
    judged = ("unseen_before", "unseen_after", "loss_low", "loss_high")
    measured = {**dict.fromkeys((*numbers, *judged)), "measured_on": None, "helps": helps}
    return {"remedy": remedy.id, "finding": finding, **measured, "lines": lines}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """An interval that holds the median of what the values are drawn from, whatever their distribution.

    From the k-th smallest to the k-th largest, k as large as ``LEVEL`` allows: of up to 8 values their range, which of
    fewer than 5 is less sure than that.

    Source: the binomial interval of a quantile; Conover 1999, "Practical nonparametric statistics", section 3.2.
    """
    ordered, count = sorted(values), len(values)
    k, outside = 0, 0.5**count
    while k + 1 < (count + 1) // 2 and 2 * (outside + math.comb(count, k + 1) * 0.5**count) <= 1 - LEVEL:
        k += 1
        outside += math.comb(count, k) * 0.5**count
    return ordered[k], ordered[-1 - k]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _rank(row: Mapping[str, Any]) -> tuple[int, float]:
    """Those first that help, the lower the loss the earlier; those last that were not tried."""
    order = 0 if row["helps"] == YES else 1 if row["helps"] == NO else 2
    loss = row["loss_after"] if row["unseen_after"] is None else row["unseen_after"]
    return order, math.inf if loss is None else loss
