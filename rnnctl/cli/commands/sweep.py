"""``rnnctl sweep``."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from rnnctl.cli.exits import ExitCode
from rnnctl.cli.options.output import PlotOptions, ReportOptions
from rnnctl.cli.output.conditions import aggregated_names
from rnnctl.cli.output.emit import require_not_read, tell_notes
from rnnctl.cli.output.plotting import places, show
from rnnctl.cli.streams import tell, tell_error
from rnnctl.cli.sweeping.carried_out import Carrying, Progressing
from rnnctl.cli.sweeping.making import cores, made_on
from rnnctl.cli.sweeping.options import SweepOptions
from rnnctl.cli.sweeping.past import past_sweep
from rnnctl.cli.sweeping.plan import Plan
from rnnctl.cli.sweeping.requested import (
    config_of,
    kept_by,
    plan_for,
    require_answerable_by,
    require_drawn,
    require_shown,
    require_sweep_places,
)
from rnnctl.cli.sweeping.stopping import stopping
from rnnctl.errors import InputError, RnnctlError
from rnnctl.files.sources import require_file
from rnnctl.results import Record
from rnnctl.sweeps.result import Sweep, SweepPlan
from rnnctl.view.numbers import counted_words, duration
from rnnctl.view.progress import announced, counted

STOPPING = "Stopping: what runs is waited for and kept; again ends it at once"


def sweep(given: SweepOptions) -> None:
    """One question over a grid of settings, on all cores or on a cluster: resumable, drawn as a line or a map.

    The exit code is 4 where runs failed.
    """
    if given.kept.from_sweep is not None:
        return show_past(given.kept.from_sweep, given)
    require_sweep_places(given)
    plan = plan_for(given)
    require_drawn(given, plan)
    require_answerable_by(given, plan)
    carrying = Carrying(plan, kept_by(given, plan))
    tell_notes(carrying.state.notes, given.out)
    if given.grid.dry_run:
        return show_plan(carrying, plan, given)
    is_stopped = carried_out(carrying, plan, given)
    end(carrying.result(), config_of(plan, given), given, is_stopped=is_stopped)


def show_past(path: Path, given: SweepOptions) -> None:
    """Show the runs in a file."""

    require_file(path, "--from")
    require_shown(given)
    for written in places(given).values():
        require_not_read(written, path, given.out.config)
    notes: list[str] = []
    result = past_sweep(path, given.kept.value, aggregated_names(given.out.fail_on or ()), notes)
    tell_notes(notes, given.out)
    end(result, {"file": str(path)}, given)


def show_plan(carrying: Carrying, plan: Plan, given: SweepOptions) -> None:
    """Say how many runs there are, and about how long they take, by those that are tried in a worker."""
    state, jobs, trials = carrying.state, jobs_for(carrying, given), carrying.trials()
    seconds = []
    if trials:
        with announced("trying two runs", quiet=given.out.quiet), made_on(None, 1, plan) as runner:
            said = [ended.answer for ended in runner.ended(trials) if ended.error is None]
            seconds = [each["seconds"] for each in said if "error" not in each]
    result = SweepPlan(
        question=plan.question,
        axes=tuple((name, tuple(values)) for name, values in plan.varied().items()),
        runs=len(plan),
        done=state.skipped,
        refused=state.refused,
        workers=jobs,
        seconds_per_run=sum(seconds) / len(seconds) if seconds else None,
    )
    show(result, config_of(plan, given), given.having(PlotOptions(), ReportOptions()))


def jobs_for(carrying: Carrying, given: SweepOptions) -> int:
    """How many runs are made at a time."""
    return min(given.workers.jobs or cores(), max(1, carrying.state.to_do))


def carried_out(carrying: Carrying, plan: Plan, given: SweepOptions) -> bool:
    """Make the runs that are to be made; whether somebody stopped it."""
    state, quiet = carrying.state, given.out.quiet
    jobs, scheduler = jobs_for(carrying, given), given.workers.scheduler
    tell_notes((_announced(plan, state, None if scheduler else jobs),), given.out)
    if not state.to_do and not state.refused:
        return False
    with (
        stopping(lambda: tell(STOPPING)) as stopped,
        made_on(None, jobs, plan, scheduler) as runner,
        counted("sweep", state.to_do + state.refused, quiet=quiet) as shown,
    ):
        if scheduler:
            tell_notes((f"{counted_words(runner.workers, 'thread')} of workers at {scheduler}",), given.out)
        estimate = _Estimate(carrying, runner.workers, lambda text: tell_notes((text,), given.out))

        def heard(record: Record) -> None:
            estimate.hear(record)
            shown(state.done, f"{state.failed} failed, {state.skipped} skipped")

        carrying.carry_out(lambda runs: runner.ended(runs, stopped), heard)
        return stopped()


def _announced(plan: Plan, state: Progressing, jobs: int | None) -> str:
    parts = [f"{counted_words(len(plan), 'run')} of {plan.question}"]
    parts += [f"{state.skipped:,} of them done already"] if state.skipped else []
    parts += [f"{state.refused:,} cannot be made, as flags alone tell"] if state.refused else []
    parts += [counted_words(jobs, "worker process", "worker processes")] if state.to_do and jobs else []
    return "; ".join(parts)


class _Estimate:
    """Says once how long it takes, as soon as the runs that are tried first have ended."""

    def __init__(self, carrying: Carrying, jobs: int, tell: Callable[[str], None]) -> None:
        self._waiting = {run.key for run in carrying.trials()}
        self._left, self._jobs, self._tell = carrying.state.to_do, jobs, tell
        self._seconds: list[float] = []

    def hear(self, record: Record) -> None:
        """A run has ended."""
        if record["key"] not in self._waiting:
            return
        self._waiting.discard(record["key"])
        if "error" not in record:
            self._seconds.append(record["seconds"])
        if not self._waiting and self._seconds:
            each = sum(self._seconds) / len(self._seconds)
            self._tell(f"about {duration(each * self._left / self._jobs)} ({duration(each)} a run)")


def end(result: Sweep, config: Mapping[str, Any], given: SweepOptions, *, is_stopped: bool = False) -> None:
    """Show the result; exit with the first code that fits of 130, 4, 1 and 3."""
    code = _shown(result, config, given) if result.points or not is_stopped else ExitCode.DONE
    if is_stopped:
        tell_notes((f"stopped; what has ended is in {given.kept.to}, and the same command goes on",), given.out)
        raise typer.Exit(ExitCode.INTERRUPTED)
    if failed := result.scalars["failed"]:
        again = "" if given.kept.to is None else "; --retry-failed makes them again"
        tell(f"{counted_words(failed, 'run')} failed{again}")
        raise typer.Exit(ExitCode.RUNS_FAILED)
    if code != ExitCode.DONE:
        raise typer.Exit(code)


def _shown(result: Sweep, config: Mapping[str, Any], given: SweepOptions) -> int:
    """Show it; the exit code that this alone would have."""
    try:
        show(result, config, given)
    except typer.Exit as ended:
        return ended.exit_code
    except InputError:
        raise
    except RnnctlError as error:
        tell_error(str(error))
        return ExitCode.FAILED
    return ExitCode.DONE
