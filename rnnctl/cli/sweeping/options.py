"""What ``rnnctl sweep`` takes, and what of it says nothing to the question."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from rnnctl.cli.options.command import CommandOptions, gathered
from rnnctl.cli.options.data import BatchOptions, DataOptions, LengthOptions
from rnnctl.cli.options.loss import (
    LossFunctionOptions,
    LossOptions,
    LossStepOptions,
    OutputKeyOptions,
    VerdictOptions,
    VerifyOptions,
)
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions, ReportOptions
from rnnctl.cli.options.question import MeasureOptions, WindowOptions
from rnnctl.cli.options.run import RunOptions, SeedsOptions
from rnnctl.cli.options.sweep import GridOptions, KeepOptions, QuestionArgument, WorkerOptions
from rnnctl.cli.pages import Page
from rnnctl.cli.questions import QUESTIONS, question_named
from rnnctl.errors import InputError

STILL_HEARD = ("from_sweep", "value")


@dataclass(frozen=True)
class SweepOptions(CommandOptions):
    """What ``rnnctl sweep`` takes: what is its own, and every option of the questions."""

    page: ClassVar[Page] = Page(
        "scripts",
        (
            "rnnctl sweep gradnorm --vary gain=0.8:1.6:5 --seeds 3 --to runs.jsonl",
            "rnnctl sweep --from runs.jsonl --plot map.png",
        ),
        ("--vary", "--seeds", "--to", "--from", "--value", "--jobs", "--dry-run", "--plot"),
    )

    asked: QuestionArgument
    grid: GridOptions
    kept: KeepOptions
    workers: WorkerOptions
    model: ModelOptions
    data: DataOptions
    own: YourModelOptions
    inputs: BatchOptions
    ragged: LengthOptions
    loss: LossOptions
    function: LossFunctionOptions
    key: OutputKeyOptions
    at: LossStepOptions
    verdict: VerdictOptions
    verify: VerifyOptions
    window: WindowOptions
    measure: MeasureOptions
    run: RunOptions
    many: SeedsOptions
    plot: PlotOptions
    report: ReportOptions
    out: OutputOptions

    @classmethod
    def require_heard(cls, context: Any) -> None:
        """Raise InputError for a flag that the question does not take, or that the grid would replace."""
        typed = [name for name in context.params if _is_typed(context, name)]
        if context.params["from_sweep"] is not None:
            return _require_nothing_to_run(typed)
        if context.params["question"] is None:
            known = ", ".join(QUESTIONS)
            raise InputError(
                f"a question must be given: {known}. Or give --from FILE.jsonl, to show runs that are over"
            )
        question = question_named(context.params["question"])
        own = {field.name for kind in OWN for field in fields(kind)}
        taken = gathered(question.options, {}).by_name.keys()
        for name in typed:
            flag = name.replace("_", "-")
            if name not in own | taken:
                raise InputError(f"--{flag} says nothing to {context.params['question']}, which has no such option")


OWN = (
    QuestionArgument,
    GridOptions,
    SeedsOptions,
    KeepOptions,
    WorkerOptions,
    PlotOptions,
    ReportOptions,
    OutputOptions,
)


def _is_typed(context: Any, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _require_nothing_to_run(typed: list[str]) -> None:
    heard = {
        *STILL_HEARD,
        *(field.name for kind in (PlotOptions, ReportOptions, OutputOptions) for field in fields(kind)),
    }
    if unheard := [name for name in typed if name not in heard]:
        names = " and ".join("QUESTION" if name == "question" else f"--{name.replace('_', '-')}" for name in unheard)
        raise InputError(f"--from shows runs that are over; {names} would be ignored. Leave it out")
