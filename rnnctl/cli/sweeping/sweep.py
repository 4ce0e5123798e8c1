"""``rnnctl.sweep``: one question over a grid of settings."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.mapping import options_from
from rnnctl.cli.questions import QUESTIONS, question_named
from rnnctl.cli.sweeping.carried_out import Carrying, Kept
from rnnctl.cli.sweeping.making import cores, made_on
from rnnctl.cli.sweeping.plan import Plan
from rnnctl.cli.sweeping.varied import NOT_VARIED, varied_values
from rnnctl.errors import InputError
from rnnctl.results import Record
from rnnctl.sweeps.grid import grid_of
from rnnctl.sweeps.result import Sweep


def sweep(
    question: str,
    settings: Mapping[str, Any],
    vary: Mapping[str, str | Sequence[Any]],
    *,
    executor: Executor | None = None,
    to: str | Path | None = None,
    on_result: Callable[[Record], None] | None = None,
    value: str | None = None,
    together: bool = False,
    jobs: int | None = None,
    keep_rows: bool = False,
    retry_failed: bool = False,
    same_versions: bool = False,
    shard: tuple[int, int] = (1, 1),
) -> Sweep:
    """Ask one question at every point of a grid, on all cores or on an executor.

    Args:
        question: "gradnorm", "flow", "truncation", "spectrum" or "lyapunov".
        settings: name of an option -> value, as on the command line: ``{"hidden-size": 64, "bias": False}``. What is
            varied comes before it.
        vary: name of an option -> its values, or a text such as "0.6:2.4:10" or "1:1000:4:log"; "model-arg.hidden" is
            one argument of a model. Runs are the product of all; ``{"seed": range(5)}`` gives every point five runs.
        executor: any of ``concurrent.futures``, or Dask's ``client.get_executor()``; it is not shut down. Processes
            of our own if left out, which are fresh interpreters with one torch thread each.
        to: a file of JSON lines that gets one for every finished run; what it holds already is not made again.
        on_result: called here with the line of every run that ends.
        value: the scalar that the result shows; the question's main one if left out.
        together: the first value of every name goes with the first of all others, and so on, but for the seed.
        jobs: how many processes of our own; as many as cores if left out.
        keep_rows: lines hold the rows of each result, too.
        retry_failed: failed runs of the file are made again.
        same_versions: so are those of other versions of rnnctl or torch.
        shard: (I, N), I from 1: of all runs only every N-th, from the I-th on.
    Returns:
        The median of the value and its 10 and 90 % quantiles at every grid point. A run that failed is counted there,
        and is no error.
    Raises:
        InputError: an unknown question, option or scalar, a value that is refused, or a file that cannot be used.
        RnnctlError: no run can be made, or kept, any more; what was kept stays.
    """
    plan = plan_of(question, settings, vary, together=together, shard=shard, keep_rows=keep_rows, named=(value or "",))
    kept = Kept(
        None if to is None else Path(to),
        value or QUESTIONS[question].value,
        retry_failed=retry_failed,
        same_versions=same_versions,
    )
    carrying = Carrying(plan, kept)
    if carrying.state.to_do or carrying.state.refused:
        with made_on(executor, min(jobs or cores(), max(1, carrying.state.to_do)), plan) as runner:
            carrying.carry_out(runner.ended, on_result)
    return carrying.result()


def plan_of(
    question: str,
    settings: Mapping[str, Any] | CommandOptions,
    vary: Mapping[str, str | Sequence[Any]],
    *,
    together: bool = False,
    shard: tuple[int, int] = (1, 1),
    keep_rows: bool = False,
    named: Sequence[str] = (),
) -> Plan:
    """The runs of a sweep; arguments as of ``sweep``, settings perhaps as the question's own options."""
    kind = question_named(question).options
    base = settings if isinstance(settings, CommandOptions) else options_from(kind, _of_answer(settings))
    varied = dict(varied_values(kind, name, values) for name, values in vary.items())
    _require_once(varied, vary)
    _require_shard(shard)
    if not varied:
        raise InputError("a sweep varies something; got nothing to vary")
    return Plan(question, base, grid_of(varied, together=together, shard=shard), keep_rows=keep_rows, named=named)


def _of_answer(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in settings:
        if isinstance(name, str) and (plain := name.replace("-", "_")) in NOT_VARIED and plain != "threads":
            raise InputError(f"{name!r} says nothing of the answers of a sweep. Leave it out")
    return settings


def _require_once(varied: Mapping[str, Any], vary: Mapping[str, Any]) -> None:
    if len(varied) < len(vary):
        raise InputError(f"one option is varied twice under different names; got {', '.join(vary)}")


def _require_shard(shard: tuple[int, int]) -> None:
    number, of = shard
    if not 1 <= number <= of:
        raise InputError(f"a shard is I/N with I from 1 to N, as in 2/8; got {number}/{of}")
