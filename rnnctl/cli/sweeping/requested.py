"""From the options of ``rnnctl sweep`` to a plan; what cannot be is refused before anything is computed."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from rnnctl.cli.loading import loading
from rnnctl.cli.options.command import gathered
from rnnctl.cli.output.conditions import aggregated_names, parsed, require_aggregates
from rnnctl.cli.output.emit import require_not_read, require_output
from rnnctl.cli.output.plotting import places, require_places
from rnnctl.cli.questions import QUESTIONS, question_named
from rnnctl.cli.setup.request import request_of
from rnnctl.cli.sweeping.carried_out import Kept
from rnnctl.cli.sweeping.options import SweepOptions
from rnnctl.cli.sweeping.plan import Plan
from rnnctl.cli.sweeping.sweep import plan_of
from rnnctl.cli.sweeping.varied import NOT_VARIED, varied_texts
from rnnctl.errors import InputError, did_you_mean
from rnnctl.results import Answers, numbers
from rnnctl.sweeps.result import AGGREGATES, COUNTS
from rnnctl.view.grid_axes import require_drawable


def require_sweep_places(given: SweepOptions) -> None:
    """Refuse files that cannot be written or would be read, before anything is computed."""
    to, out = given.kept.to, given.out
    if to is None and not given.grid.dry_run:
        raise InputError("--to FILE.jsonl must be given: every finished run becomes a line of it")
    if given.workers.jobs is not None and given.workers.scheduler is not None:
        raise InputError("--jobs counts worker processes here, and --scheduler has workers of its own. Leave one out")
    if given.model.save_weights is not None:
        raise InputError("--save-weights writes the weights of one run; a sweep makes many. Leave it out")
    if given.data.input == "-":
        raise InputError("--input - is read once, and a sweep makes many runs. Name a file")
    if to is None:
        return
    if str(to) == "-":
        raise InputError("--to - is no file that can be read again, to go on from. Name a file")
    if to.exists() and not to.is_file():
        raise InputError(f"--to: {str(to)!r} is no file that can be read again, to go on from")
    require_not_read(to, *request_of(given).sources, out.config, *places(given).values())


def require_answerable_by(given: SweepOptions, plan: Plan) -> None:
    """Refuse outputs, and names that no answer to the question has; these alone need torch."""
    question, value = QUESTIONS[plan.question], given.kept.value
    require_shown(given)
    if value in (None, question.value) and not given.out.fail_on:
        return
    with loading(quiet=given.out.quiet):
        kinds = question.answers(plan.run_at(0).asked.given)
    if value is not None:
        _require_number(value, kinds, plan.question)
    require_output(given.out, lambda: tuple(map(_of_aggregates, kinds)))


def require_shown(given: SweepOptions) -> None:
    """Refuse places of results, and conditions that speak of one run."""
    require_places(given)
    require_aggregates(parsed(given.out.fail_on or ()), COUNTS)


def _require_number(value: str, kinds: Sequence[Answers], question: str) -> None:
    """Refuse a scalar that no answer has, or that is text."""
    known = {name: kind for each in kinds for name, kind in each.kinds.items()}
    kind = next((kind for pattern, kind in known.items() if fnmatchcase(value, pattern)), None)
    if kind is None:
        raise InputError(f"--value {value}: no answer to {question} has it.{did_you_mean(value, known)}")
    if kind not in (float, bool):
        raise InputError(f"--value {value} is text; a sweep shows medians of a number")


def _of_aggregates(answers: Answers) -> Answers:
    """What a sweep can be asked, whose runs answer so."""
    named = (name for name, kind in answers.kinds.items() if kind in (float, bool))
    return Answers(numbers(*COUNTS, *(f"{kind}({name})" for name in named for kind in AGGREGATES)))


def require_drawn(given: SweepOptions, plan: Plan) -> None:
    """Refuse a grid that no picture shows, where one is asked for."""
    if given.plot.plot is not None:
        # What changes in step is one axis.
        firsts = {axis.names[0] for axis in plan.grid.axes} - {"seed"}
        require_drawable({name: values for name, values in plan.varied().items() if name in firsts})


def plan_for(given: SweepOptions) -> Plan:
    """The runs that the options ask for."""
    assert given.asked.question is not None
    kind, grid = question_named(given.asked.question).options, given.grid
    vary: dict[str, Any] = dict(varied_texts(grid.vary or ()))
    if given.many.seeds is not None:
        if "seed" in vary:
            raise InputError("--seeds and --vary seed both give seeds; leave one of them out")
        vary["seed"] = range(given.many.seeds)
    # What else says a value of what is varied gives way to the grid.
    heard = {name: value for name, value in given.by_name.items() if name not in {*NOT_VARIED, *vary} - {"threads"}}
    return plan_of(
        given.asked.question,
        gathered(kind, heard),
        vary,
        together=grid.vary_together,
        shard=grid.part,
        keep_rows=given.kept.keep is not None,
        named=(given.kept.value or "", *(given.out.fail_on or ())),
    )


def kept_by(given: SweepOptions, plan: Plan) -> Kept:
    kept = given.kept
    return Kept(
        kept.to,
        kept.value or QUESTIONS[plan.question].value,
        aggregated_names(given.out.fail_on or ()),
        retry_failed=kept.retry_failed,
        same_versions=kept.same_versions,
    )


def config_of(plan: Plan, given: SweepOptions) -> Mapping[str, Any]:
    """What was run, as JSON can hold it."""
    to = None if given.kept.to is None else str(given.kept.to)
    return {"command": f"sweep {plan.question}", "vary": plan.varied(), "settings": plan.settings(), "to": to}
