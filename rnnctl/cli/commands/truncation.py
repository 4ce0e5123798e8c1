"""``rnnctl truncation``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import BatchOptions, DataOptions
from rnnctl.cli.options.loss import LossOptions, OutputKeyOptions, VerifyOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions, ReportOptions
from rnnctl.cli.options.question import WindowOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.plotting import show
from rnnctl.cli.pages import Page
from rnnctl.cli.setup.prepared import prepared
from rnnctl.results import Answers, Result
from rnnctl.view.progress import Progress, progress_bar

if TYPE_CHECKING:
    from rnnctl.cli.setup.experiment import Experiment


@dataclass(frozen=True)
class TruncationOptions(CommandOptions):
    """What ``rnnctl truncation`` takes."""

    loss_at: ClassVar[str | None] = "all"
    page: ClassVar[Page] = Page(
        "how far back",
        ("rnnctl truncation --seq-len 50", "rnnctl truncation --seq-len 50 --windows 5,10,20"),
        ("--windows", "--hidden-size", "--seq-len", "--input", "--target", "--model", "--loss", "--plot"),
    )

    model: ModelOptions
    data: DataOptions
    own: YourModelOptions
    inputs: BatchOptions
    loss: LossOptions
    key: OutputKeyOptions
    window: WindowOptions
    verify: VerifyOptions
    run: RunOptions
    plot: PlotOptions
    report: ReportOptions
    out: OutputOptions


def answers(_: TruncationOptions) -> tuple[Answers, ...]:
    """What can be asked of the result."""
    from rnnctl.gradients.truncation import Truncation

    return (Truncation.answers(),)


def truncation(given: TruncationOptions) -> None:
    """What truncated BPTT with K steps back would lose, for several windows K: a loss at every step.

    Of --cell or --model: for one recurrent weight, of a layer or of a cell in a loop.
    """
    made = prepared(given, lambda: answers(given))
    with progress_bar("truncation", quiet=given.out.quiet) as progress:
        result = asked(given, made, progress)
    show(result, made.config, given)
    result.require_agreement()


def asked(given: TruncationOptions, made: "Experiment", progress: Progress = None) -> Result:
    """The answer of the experiment, for the windows that a condition names, too; nothing is printed or written."""
    from rnnctl.gradients.truncation import truncation

    windows = with_named_windows(given.window.chosen, given.out.fail_on or (), made.x.shape[1])
    options = {"windows": windows, **vars(given.loss), **vars(given.verify)}
    with made.running():
        return truncation(made.model, made.x, **options, **made.of_gradient, progress=progress)


def with_named_windows(chosen: list[int] | None, conditions: Sequence[str], seq_len: int) -> list[int] | None:
    """The windows, and those that a condition such as 'cosine_at_20<0.9' speaks of; None for those by themselves."""
    from rnnctl.gradients.limits import default_windows

    named = [int(digits) for condition in conditions for digits in re.findall(r"_at_(\d+)\b", condition)]
    if not named:
        return chosen
    return [*(default_windows(seq_len) if chosen is None else chosen), *named]
