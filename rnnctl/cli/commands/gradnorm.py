"""``rnnctl gradnorm``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnctl.cli.commands.history import show_history
from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import BatchOptions, DataOptions, HistoryOptions, LengthOptions
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
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.plotting import show
from rnnctl.cli.pages import Page
from rnnctl.cli.setup.prepared import prepared
from rnnctl.cli.setup.request import request_of
from rnnctl.errors import InputError
from rnnctl.results import Answers, Result
from rnnctl.view.progress import Progress, progress_bar

if TYPE_CHECKING:
    from rnnctl.cli.setup.experiment import Experiment


@dataclass(frozen=True)
class GradnormOptions(CommandOptions):
    """What ``rnnctl gradnorm`` takes."""

    page: ClassVar[Page] = Page(
        "gradients",
        ("rnnctl gradnorm --seq-len 50", "rnnctl gradnorm --input sunspots --standardize --target next"),
        ("--hidden-size", "--seq-len", "--input", "--target", "--model", "--loss-at", "--fail-on", "--json"),
    )

    model: ModelOptions
    data: DataOptions
    own: YourModelOptions
    inputs: BatchOptions
    ragged: LengthOptions
    past: HistoryOptions
    loss: LossOptions
    function: LossFunctionOptions
    key: OutputKeyOptions
    at: LossStepOptions
    verdict: VerdictOptions
    verify: VerifyOptions
    run: RunOptions
    plot: PlotOptions
    report: ReportOptions
    out: OutputOptions

    def values_in_rows(self, seq_len: int) -> int:
        """Of every step its norms; of another network those of one recurrent weight."""
        return seq_len * (6 if self.own.model is None and self.own.cell == "manual" else 11)


def answers(given: GradnormOptions) -> tuple[Answers, ...]:
    """What can be asked of the result."""
    from rnnctl.gradients.gradnorm import GradNorms
    from rnnctl.gradients.model_gradnorm import ModelGradNorms

    request = request_of(given)
    if request.hand_written and request.data.input is None:
        return (GradNorms.answers(),)
    # Of sequences of different lengths, which nan in a file may tell, every network is answered module by module.
    kinds = (GradNorms, ModelGradNorms) if request.hand_written else (ModelGradNorms,)
    return tuple(kind.answers() for kind in kinds)


def gradnorm(given: GradnormOptions) -> None:
    """How much every time step of backpropagation through time contributes to dL/dW_hh.

    Of the hand-written network, of torch's layers (--cell), of your own model (--model), or over a training
    run that rnnctl.watch wrote (--from).
    """
    if given.past.from_run is not None:
        return show_history(given.past.from_run, given)
    made = prepared(given, lambda: answers(given))
    with progress_bar("gradnorm", quiet=given.out.quiet) as progress:
        result = asked(given, made, progress)
    show(result, made.config, given)
    result.require_agreement()


def asked(given: GradnormOptions, made: "Experiment", progress: Progress = None) -> Result:
    """The answer of the experiment; nothing is printed or written."""
    from rnnctl.gradients.gradnorm import gradnorm

    options = {**vars(given.loss), **vars(given.at), **vars(given.verdict), **vars(given.verify)}
    more = {"loss_fn": made.loss_fn, "lengths": made.lengths, **made.of_gradient}
    with made.running():
        result = gradnorm(made.model, made.x, **options, **more, progress=progress)
    _require_zeros_heard(given, result)
    return result


def _require_zeros_heard(given: GradnormOptions, result: Result) -> None:
    """Raise InputError where zeros were asked for as a target, which the library knows as none, beside an own loss."""
    target = given.data.target
    if target is not None and result.settled.get("target", target) is None:
        raise InputError(
            f"the model's own loss is differentiated, and --target {target} would be ignored. Leave it out, or name "
            "the output that it is for with --output-key"
        )
