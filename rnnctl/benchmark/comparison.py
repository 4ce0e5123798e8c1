"""One run beside another: how many times worse its figures are, which are ratios within each run."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rnnctl.benchmark.report import BenchReport, Cases, Comparison, Figure
from rnnctl.errors import InputError
from rnnctl.files.reports import SavedReport
from rnnctl.results import Record
from rnnctl.view.numbers import number

TOLERANCE = 0.1
# What tells a row from all others of a report, as far as it has it.
LABELS = ("case", "cell", "method")
Label = tuple[str, ...]
# A load that differs by less is the drift of the average of a machine that does nothing else.
LOAD_DRIFT = 0.5
# Settings that the rows tell of by themselves, or on which no time depends.
APART = {"input_size", "hidden_size", "seq_len", "batch_size", "seed", "save_weights", "processor", "threads", "load"}


@dataclass(frozen=True)
class RunBefore:
    """A saved report that fits what is measured now.

    Attributes:
        saved: the report.
        figures: label of a row -> name of a figure -> its value, positive; those without a value are left out.
    """

    saved: SavedReport
    figures: Mapping[Label, Mapping[str, float]]


def run_before(saved: SavedReport, cases: Cases, titles: Sequence[str], config: Mapping[str, Any]) -> RunBefore:
    """The saved report, once it is known to be one of these cases.

    Args:
        titles: of the workloads that are measured now.
        config: the configuration of the run.
    Raises:
        InputError: another set of cases, other settings, none of these sizes, a row without its labels or twice, or a
            figure that is no positive number.
    """
    if saved.schema != cases.schema:
        raise InputError(
            f"{saved.source} does not compare with this run: expected a report of {cases.schema}, got one of "
            f"{saved.schema}. Try a file that the same command saved: bench, bench --flow and bench --probe measure "
            "different things"
        )
    _require_same_settings(config, saved)
    figures: dict[Label, Mapping[str, float]] = {}
    for row in saved.rows:
        label = _label(row, saved.source)
        if label in figures:
            raise InputError(f"{saved.source} has two rows of {', '.join(label)}; expected one. Save the run again")
        figures[label] = dict(_figures(row, cases, f"{saved.source}, {', '.join(label)}"))
    found = {label[0] for label, known in figures.items() if label[-1] == cases.method and known}
    if found.isdisjoint(titles):
        raise InputError(
            f"{saved.source} has no figure of {cases.method} at the sizes of this run: expected {_either(titles)}; got "
            f"{_either(sorted(found))}. Give the sizes of that run, or save one of these with --save"
        )
    return RunBefore(saved, figures)


def compared(report: BenchReport, before: RunBefore, tolerance: float = TOLERANCE) -> BenchReport:
    """The report with what every figure was before, and how many times worse it is now.

    Args:
        tolerance: the share by which a figure of rnnctl's own method may be worse; of the others, which are what it
            is measured against, the changes are told and not judged.
    """
    cases, rows, slower, worst = report.cases, list[Record](), list[str](), list[float]()
    for row in report.rows:
        label = _label(row, "this run")
        beside = {figure: before.figures.get(label, {}).get(figure.name) for figure in cases.figures}
        changes = {figure: _change(figure, row[figure.name], was) for figure, was in beside.items()}
        added = {figure.before: was for figure, was in beside.items()}
        rows.append({**row, **added, **{figure.change: change for figure, change in changes.items()}})
        for figure, change in changes.items():
            if change is None or row["method"] != cases.method:
                continue
            worst.append(change)
            if change > 1 + tolerance:
                slower.append(_slower(label, figure, row[figure.name], beside[figure], change, tolerance))
    notes = (*report.notes, *_machines_apart(report, before.saved))
    return replace(
        report,
        rows=tuple(rows),
        comparison=Comparison(tolerance, max(worst, default=None), tuple(slower)),
        notes=(*notes, *_only_in_one(report, before)),
    )


def _label(row: Record, source: str) -> Label:
    label = tuple(row[name] for name in LABELS if name in row)
    if not {"case", "method"} <= row.keys() or not all(isinstance(part, str) for part in label):
        raise InputError(f"{source} has a row without its case or method, as text; got {dict(row)}. Save the run again")
    return label


def _figures(row: Record, cases: Cases, place: str) -> Iterator[tuple[str, float]]:
    """Name and value of the figures that the row has."""
    for figure in cases.figures:
        value = row.get(figure.name)
        if value is None:
            continue
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 < value < math.inf:
            raise InputError(f"{place}: expected a positive number as {figure.name}; got {value!r}. Save the run again")
        yield figure.name, value


def _change(figure: Figure, now: float | None, was: float | None) -> float | None:
    return None if now is None or was is None else figure.times_worse(now, was)


def _slower(label: Label, figure: Figure, now: float, was: float | None, change: float, tolerance: float) -> str:
    return (
        f"--against: {', '.join(label)}: {figure.name.replace('_', ' ')} is {number(now)}, and was {number(was)}: "
        f"{number(change)} times worse, more than 1 + --tolerance {tolerance:g}"
    )


def _machines_apart(report: BenchReport, saved: SavedReport) -> Iterator[str]:
    """What differs between the machines of both runs."""
    for name, what in (("processor", "processor"), ("threads", "number of threads"), ("load", "load at the start")):
        now, was = report.settled[name], saved.config.get(name)
        if not _is_alike(now, was, LOAD_DRIFT if name == "load" else 0):
            yield f"the {what} was {_told(was)} in {saved.source} and is {_told(now)} now; ratios depend on it"


def _is_alike(now: Any, was: Any, drift: float) -> bool:
    both = isinstance(now, float) and isinstance(was, (int, float))
    return abs(now - was) < drift if both and drift else bool(now == was)


def _require_same_settings(config: Mapping[str, Any], saved: SavedReport) -> None:
    """Raise InputError where something else was measured."""
    shared = [name for name in config if name in saved.config and name not in APART]
    apart = [name for name in shared if config[name] != saved.config[name]]
    if apart:
        was, now = (", ".join(f"{name} {_told(of[name])}" for name in apart) for of in (saved.config, config))
        raise InputError(
            f"{saved.source} did not measure the same: expected {now}, as in this run; got {was}. Give this run the "
            "settings of that one, or save one with these"
        )


def _only_in_one(report: BenchReport, before: RunBefore) -> Iterator[str]:
    """What could not be compared, whole cases by their sizes alone."""
    now = {
        _label(row, "this run"): {figure.name for figure in report.cases.figures if row[figure.name] is not None}
        for row in report.rows
    }
    was = {label: set(known) for label, known in before.figures.items()}
    source = before.saved.source
    for one, other, where in ((was, now, f"only in {source}"), (now, was, f"only in this run and not in {source}")):
        lacking = dict.fromkeys(_lacking(one, other))
        if lacking:
            yield f"{where}, so not compared: {'; '.join(lacking)}"


def _lacking(one: Mapping[Label, set[str]], other: Mapping[Label, set[str]]) -> Iterator[str]:
    cases = {label[0] for label in other}
    for label, known in one.items():
        if label[0] not in cases:
            yield label[0]
        elif label not in other:
            yield ", ".join(label)
        else:
            yield from (f"{name.replace('_', ' ')} of {', '.join(label)}" for name in sorted(known - other[label]))


def _told(value: Any) -> str:
    return "not known" if value is None else number(value)


def _either(names: Collection[str]) -> str:
    return " or ".join(names) if names else "none"
