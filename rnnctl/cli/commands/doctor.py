"""``rnnctl doctor``."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from rnnctl.cli.commands.forward import ForwardOptions
from rnnctl.cli.commands.gradnorm import GradnormOptions
from rnnctl.cli.commands.lyapunov import LyapunovOptions
from rnnctl.cli.commands.spectrum import SpectrumOptions
from rnnctl.cli.commands.truncation import TruncationOptions
from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.command_line import command_line
from rnnctl.cli.options.data import BatchOptions, DataOptions, LengthOptions
from rnnctl.cli.options.loss import LossFunctionOptions, LossOptions, LossStepOptions, OutputKeyOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions, ReportOptions
from rnnctl.cli.options.question import DoctorOptions
from rnnctl.cli.options.run import RunOptions, SeedsOptions
from rnnctl.cli.output.plotting import show
from rnnctl.cli.pages import Page
from rnnctl.cli.setup.foreseen import as_typed
from rnnctl.cli.setup.prepared import prepared
from rnnctl.diagnosis.rule_ids import chosen_ids
from rnnctl.results import Answers
from rnnctl.view.progress import progress_bar


@dataclass(frozen=True)
class DoctorCommandOptions(CommandOptions):
    """What ``rnnctl doctor`` takes."""

    page: ClassVar[Page] = Page(
        "repair",
        ("rnnctl doctor --seq-len 50", "rnnctl doctor --cell lstm --seq-len 60 --lag 40 --try"),
        ("--model", "--input", "--target", "--loss", "--lag", "--try", "--fail-on", "--json"),
    )

    model: ModelOptions
    data: DataOptions
    own: YourModelOptions
    inputs: BatchOptions
    ragged: LengthOptions
    loss: LossOptions
    function: LossFunctionOptions
    key: OutputKeyOptions
    at: LossStepOptions
    asked: DoctorOptions
    run: RunOptions
    many: SeedsOptions
    report: ReportOptions
    out: OutputOptions


# Of the short trainings, where nobody says how many.
SEEDS = 5
# The questions that show what is found, by the names that the rules have for them.
QUESTIONS: Mapping[str, type[CommandOptions]] = {
    "forward": ForwardOptions,
    "gradnorm": GradnormOptions,
    "lyapunov": LyapunovOptions,
    "spectrum": SpectrumOptions,
    "truncation": TruncationOptions,
    "doctor": DoctorCommandOptions,
}


def answers() -> tuple[Answers, ...]:
    """What can be asked of the result."""
    from rnnctl.diagnosis.result import Diagnosis

    return (Diagnosis.answers(),)


def doctor(given: DoctorCommandOptions) -> None:
    """Why a recurrent network does not learn: what is found, with the evidence, and what would help.

    Of the hand-written network, of torch's layers (--cell), or of your own model (--model) with your data.
    """
    asked = {**vars(given.asked), "seeds": given.many.seeds or SEEDS}
    with as_typed("only_finding", "skip_finding"):
        chosen_ids(given.asked.only_finding or (), given.asked.skip_finding or ())
    made = prepared(given, answers)
    from rnnctl.diagnosis.doctor import doctor

    names = {name: asked[name] or () for name in ("only_finding", "skip_finding")}
    options = {**asked, **names, **vars(given.loss), **vars(given.at), **made.of_gradient}
    with progress_bar("doctor", quiet=given.out.quiet) as progress, made.running():
        result = doctor(made.model, made.x, loss_fn=made.loss_fn, lengths=made.lengths, **options, progress=progress)
    # Asked for one finding it looks for that alone, and need not try anything.
    plain = replace(given.asked, only_finding=None, skip_finding=None, try_remedies=False, timings=False)
    again = replace(given, asked=replace(plain, train_steps=result.train_steps or None))
    commands = {name: command_line(name, again, kind) for name, kind in QUESTIONS.items()}
    show(replace(result, commands=commands), {**made.config, **asked}, given)
