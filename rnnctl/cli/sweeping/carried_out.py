"""A plan, the lines that are there already, and workers for the rest: the result of a sweep."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from rnnctl.cli.asking import failed
from rnnctl.cli.sweeping.plan import Plan, PlannedRun
from rnnctl.cli.versions import named
from rnnctl.errors import InputError
from rnnctl.results import Record
from rnnctl.sweeps.outcomes import Outcome, Outcomes
from rnnctl.sweeps.result import Sweep
from rnnctl.sweeps.run_file import DoneRun, RunFile, done_runs
from rnnctl.sweeps.runner import Ended

# Makes the runs that it is given, wherever: what a Runner's ``ended`` is.
Making = Callable[[Iterable[PlannedRun]], Iterator[Ended]]


@dataclass(frozen=True)
class Kept:
    """What is done with the lines that are there already, and with new ones.

    Attributes:
        to: the file, or None where nothing is kept.
        retry_failed: failed runs are made again.
        same_versions: runs of other versions of rnnctl or torch are made again.
        value: the scalar to be shown.
        others: further scalars whose aggregates are asked for.
    """

    to: Path | None
    value: str
    others: Sequence[str] = ()
    retry_failed: bool = False
    same_versions: bool = False


@dataclass
class Progressing:
    """How far a sweep is.

    Attributes:
        to_do: runs that are to be made.
        skipped: that were there already.
        refused: that flags alone tell cannot be made; they are failed runs.
        done: that ended, failed ones among them.
        failed: of those that ended.
        notes: what is to be told of the file.
    """

    to_do: int = 0
    skipped: int = 0
    refused: int = 0
    done: int = 0
    failed: int = 0
    notes: list[str] = field(default_factory=list)


class Carrying:
    """Carries a plan out: first what is done already, then the rest.

    Args:
        plan: the runs.
        kept: where lines go.
    Raises:
        InputError: the file cannot be used, or every run is refused, in the words of the first.
    """

    def __init__(self, plan: Plan, kept: Kept) -> None:
        self._plan, self._kept = plan, kept
        self._versions = named()
        self._outcomes = Outcomes(plan.question, kept.value, kept.others)
        self._refused: dict[int, str] = {}
        self._done: dict[str, Outcome] = {}
        self._ends: tuple[int, int] | None = None
        self.state = Progressing()
        self._size = _size(kept.to)
        if kept.to is not None and self._size:
            self._read(kept.to)
        self._look_through()

    def pending(self) -> Iterator[PlannedRun]:
        """The runs that are to be made, in the order of the grid."""
        for run in self._plan.runs():
            if run.key not in self._done and run.place not in self._refused:
                yield run

    def trials(self) -> list[PlannedRun]:
        """The first and the last of them, which tell how long a run takes: grids go from small to large."""
        return [self._plan.run_at(place) for place in dict.fromkeys(self._ends or ())]

    def carry_out(self, make: Making, heard: Callable[[Record], None] | None = None) -> None:
        """Make what is to be made, the trials before the others, and keep a line of each.

        Args:
            heard: called with the line of every run that has ended.
        Raises:
            InputError: another sweep writes the file.
            RnnctlError: it cannot be written; what is in it stays.
        """
        file = None if self._kept.to is None else RunFile(self._kept.to)
        try:
            self._require_unchanged()
            refused = (Ended(self._plan.run_at(place), None, error) for place, error in self._refused.items())
            for run, answer, error in chain(refused, make(self._ordered())):
                self._keep(file, heard, run, answer if error is None else self._failed(run, error))
        finally:
            if file is not None:
                file.close()

    def result(self) -> Sweep:
        """What all finished runs say."""
        return self._outcomes.result([name for name in self._plan.grid.names if name != "seed"])

    def _require_unchanged(self) -> None:
        """Another sweep may have been at it, and over, since the file was read here."""
        if _size(self._kept.to) != self._size:
            raise InputError(f"{str(self._kept.to)!r} was written meanwhile by another sweep. Start this one again")

    def _ordered(self) -> Iterator[PlannedRun]:
        trials = self.trials()
        yield from trials
        places = {run.place for run in trials}
        yield from (run for run in self.pending() if run.place not in places)

    def _read(self, path: Path) -> None:
        """Which runs are done, by their keys."""
        others = 0
        for run in done_runs(path, self._plan.question, self.state.notes):
            is_other = dict(run.versions) != self._versions
            # The last word stands, but a failure does not undo a success.
            is_news = run.error is None or run.key not in self._done
            if is_news and self._is_taken(run, is_other=is_other):
                self._done[run.key] = self._outcomes.outcome(run.scalars, run.error)
                others += is_other
        if others:
            self.state.notes.append(
                f"{others} of the runs in {path} were made by other versions of rnnctl or torch, and are taken; "
                "--same-versions makes them again"
            )

    def _is_taken(self, run: DoneRun, *, is_other: bool) -> bool:
        if run.error is not None and self._kept.retry_failed:
            return False
        if self._plan.keep_rows and run.error is None and run.rows is None:
            return False
        return not (is_other and self._kept.same_versions)

    def _look_through(self) -> None:
        """Count what is done, what is refused and what is left."""
        state, first = self.state, None
        for run in self._plan.runs():
            if (outcome := self._done.get(run.key)) is not None:
                state.skipped += 1
                self._outcomes.add(run.place, run.varied, outcome)
            elif (refusal := self._plan.refusal(run)) is not None:
                self._refused[run.place] = refusal
                first = first or refusal
            else:
                state.to_do += 1
                self._ends = (self._ends[0] if self._ends else run.place, run.place)
        state.refused = len(self._refused)
        if first is not None and not state.to_do and not state.skipped:
            raise InputError(first)

    def _failed(self, run: PlannedRun, error: str) -> dict[str, Any]:
        """What is kept of a run that no worker has told of."""
        return {**failed(run.asked, error), "seconds": 0.0, "versions": self._versions}

    def _keep(
        self,
        file: RunFile | None,
        heard: Callable[[Record], None] | None,
        run: PlannedRun,
        said: Mapping[str, Any],
    ) -> None:
        record = {"key": run.key, "varied": run.varied, **said}
        if file is not None:
            file.append(self._plan.question, record)
        error = said.get("error")
        self.state.done += 1
        self.state.failed += error is not None
        self._outcomes.add(run.place, run.varied, self._outcomes.outcome(said.get("scalars", {}), error))
        if heard is not None:
            heard(record)


def _size(path: Path | None) -> int:
    """Of what is there to be read; 0 of pipes and devices, too."""
    return path.stat().st_size if path is not None and path.is_file() else 0
