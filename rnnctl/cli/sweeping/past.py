"""What the file of a sweep says, without making a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rnnctl.cli.questions import QUESTIONS
from rnnctl.errors import InputError
from rnnctl.sweeps.outcomes import SEED, Outcomes
from rnnctl.sweeps.result import Sweep
from rnnctl.sweeps.run_file import done_runs

# What differs from run to run and shapes no answer, or is told by the seed.
NO_AXIS = (SEED, "threads")


def past_sweep(
    path: Path, value: str | None, others: Sequence[str], notes: list[str], question: str | None = None
) -> Sweep:
    """The result of all runs in a file, which one or several sweeps of a question wrote.

    Args:
        value: the scalar to be shown; the question's main one if None.
        others: further scalars whose aggregates are asked for.
        notes: what was left out is added to it.
        question: that they must answer, or None.
    Raises:
        InputError: no such file, no run in it, or none that has the scalar.
    """
    axes = _axes(path, notes)
    outcomes: Outcomes | None = None
    kept: dict[str, Any] = {}
    for run in done_runs(path, question, notes):
        if outcomes is None:
            main = QUESTIONS[run.question].value if run.question in QUESTIONS else None
            outcomes = _outcomes(run.question, value or main, others)
        # A failure does not undo a success.
        if run.error is None or run.key not in kept:
            varied = {name: run.varied.get(name, run.config.get(name)) for name in axes}
            seed = {SEED: run.varied[SEED]} if SEED in run.varied else {}
            kept[run.key] = {**varied, **seed}, outcomes.outcome(run.scalars, run.error)
    if outcomes is None:
        raise InputError(f"there is no run in {str(path)!r}")
    for key, (varied, outcome) in kept.items():
        outcomes.add((*(_sorting(varied[name]) for name in axes), _sorting(varied.get(SEED)), key), varied, outcome)
    return outcomes.result(axes)


def _outcomes(question: str, value: str | None, others: Sequence[str]) -> Outcomes:
    if value is None:
        raise InputError(f"{question} has no main scalar here. Name one with --value")
    return Outcomes(question, value, others)


def _axes(path: Path, notes: list[str]) -> tuple[str, ...]:
    """What was varied, and what else differs among runs that are said to be alike: of several sweeps in one file."""
    varied: dict[str, None] = {}
    first: dict[str, Mapping[str, Any]] = {}
    differing, sweeps = set[str](), set[frozenset[str]]()
    for run in done_runs(path):
        sweeps.add(frozenset(run.varied))
        names = [name for name in run.varied if name != SEED]
        varied.update(dict.fromkeys(names))
        if run.error is None:
            point = repr(sorted((name, run.varied[name]) for name in names))
            config = first.setdefault(point, run.config)
            if config is not run.config and config != run.config:
                differing.update(name for name in run.config if run.config[name] != config.get(name))
    if len(sweeps) > 1:
        notes.append(f"there are runs of {len(sweeps)} sweeps in {path}, which varied different settings")
    return (*varied, *sorted(differing - {*varied, *NO_AXIS}))


def _sorting(value: Any) -> tuple[int, Any]:
    """Nothing before truth, truth before numbers, these before text."""
    if value is None:
        return 0, 0
    if isinstance(value, (bool, int, float)):
        return 1, value
    return 2, str(value)
