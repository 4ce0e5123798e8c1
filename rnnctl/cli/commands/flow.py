"""``rnnctl flow``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import BatchOptions, DataOptions
from rnnctl.cli.options.loss import LossOptions, OutputKeyOptions, VerifyOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions, ReportOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.plotting import show
from rnnctl.cli.pages import Page
from rnnctl.cli.setup.prepared import prepared
from rnnctl.results import Answers, Result
from rnnctl.view.progress import Progress, progress_bar

if TYPE_CHECKING:
    from rnnctl.cli.setup.experiment import Experiment


@dataclass(frozen=True)
class FlowOptions(CommandOptions):
    """What ``rnnctl flow`` takes."""

    loss_at: ClassVar[str | None] = "all"
    page: ClassVar[Page] = Page(
        "how far back",
        ("rnnctl flow --seq-len 30", "rnnctl flow --cell lstm --seq-len 30 --only scalars"),
        ("--hidden-size", "--seq-len", "--input", "--target", "--model", "--module", "--loss", "--plot"),
    )

    model: ModelOptions
    data: DataOptions
    own: YourModelOptions
    inputs: BatchOptions
    loss: LossOptions
    key: OutputKeyOptions
    verify: VerifyOptions
    run: RunOptions
    plot: PlotOptions
    report: ReportOptions
    out: OutputOptions

    def values_in_rows(self, seq_len: int) -> int:
        """Of every pair of a loss step and a source step before it."""
        return seq_len * (seq_len + 1) // 2 * 4


def answers(_: FlowOptions) -> tuple[Answers, ...]:
    """What can be asked of the result."""
    from rnnctl.gradients.flow import Flow

    return (Flow.answers(),)


def flow(given: FlowOptions) -> None:
    """Which loss step reaches which source step, and how far back: a loss at every step.

    Of --cell or --model: for one recurrent weight, by one backward pass for each step.
    """
    made = prepared(given, lambda: answers(given))
    with progress_bar("flow", quiet=given.out.quiet) as progress:
        result = asked(given, made, progress)
    show(result, made.config, given)
    result.require_agreement()


def asked(given: FlowOptions, made: "Experiment", progress: Progress = None) -> Result:
    """The answer of the experiment; nothing is printed or written."""
    from rnnctl.gradients.flow import flow

    options = {**vars(given.loss), **vars(given.verify)}
    with made.running():
        return flow(made.model, made.x, **options, **made.of_gradient, progress=progress)
