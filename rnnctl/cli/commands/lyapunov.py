"""``rnnctl lyapunov``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import BatchOptions, DataOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions, ReportOptions
from rnnctl.cli.options.question import MeasureOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.plotting import show
from rnnctl.cli.pages import Page
from rnnctl.cli.setup.prepared import prepared
from rnnctl.results import Answers, Result
from rnnctl.view.progress import Progress, progress_bar

if TYPE_CHECKING:
    from rnnctl.cli.setup.experiment import Experiment


@dataclass(frozen=True)
class LyapunovOptions(CommandOptions):
    """What ``rnnctl lyapunov`` takes."""

    page: ClassVar[Page] = Page(
        "why",
        (
            "rnnctl lyapunov --seq-len 200 --count 3",
            "rnnctl lyapunov --autonomous --init gaussian --gain 1.5",
        ),
        ("--hidden-size", "--init", "--gain", "--autonomous", "--steps", "--count", "--input", "--plot"),
    )

    model: ModelOptions
    data: DataOptions
    own: YourModelOptions
    inputs: BatchOptions
    measure: MeasureOptions
    run: RunOptions
    plot: PlotOptions
    report: ReportOptions
    out: OutputOptions


def answers(_: LyapunovOptions) -> tuple[Answers, ...]:
    """What can be asked of the result."""
    from rnnctl.dynamics.lyapunov import Lyapunov

    return (Lyapunov.answers(),)


def lyapunov(given: LyapunovOptions) -> None:
    """How fast nearby trajectories part or meet, beside what theory predicts of W_hh's variance.

    Of --cell or --model: of one layer in one direction, driven by what it receives there.
    """
    made = prepared(given, lambda: answers(given))
    with progress_bar("lyapunov", quiet=given.out.quiet) as progress:
        result = asked(given, made, progress)
    show(result, made.config, given)


def asked(given: LyapunovOptions, made: "Experiment", progress: Progress = None) -> Result:
    """The answer of the experiment; nothing is printed or written."""
    from rnnctl.dynamics.lyapunov import lyapunov

    options = {**vars(given.measure), **vars(made.drawn)}
    with made.running():
        return lyapunov(made.model, made.x, target=made.target, **options, **made.of_model, progress=progress)
