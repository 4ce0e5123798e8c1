"""``rnnctl lyapunov``."""

from dataclasses import dataclass
from typing import ClassVar

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import BatchOptions, DataOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions
from rnnctl.cli.options.question import MeasureOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.plotting import show
from rnnctl.cli.pages import Page
from rnnctl.cli.setup.prepared import prepared
from rnnctl.results import Answers
from rnnctl.view.progress import progress_bar


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
    out: OutputOptions


def answers() -> tuple[Answers, ...]:
    """What can be asked of the result."""
    from rnnctl.dynamics.lyapunov import Lyapunov

    return (Lyapunov.answers(),)


def lyapunov(given: LyapunovOptions) -> None:
    """How fast nearby trajectories part or meet, beside what theory predicts of W_hh's variance.

    Of --cell or --model: of one layer in one direction, driven by what it receives there.
    """
    made = prepared(given, answers)
    from rnnctl.dynamics.lyapunov import lyapunov

    options = {**vars(given.measure), **vars(made.drawn)}
    with progress_bar("lyapunov", quiet=given.out.quiet) as progress, made.running():
        result = lyapunov(made.model, made.x, target=made.target, **options, **made.of_model, progress=progress)
    show(result, made.config, given.plot, given.out)
