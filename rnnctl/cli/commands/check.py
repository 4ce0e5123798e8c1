"""``rnnctl check``."""

from dataclasses import dataclass
from typing import Any, ClassVar

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.loss import LossOptions
from rnnctl.cli.options.model import ModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.emit import emit
from rnnctl.cli.pages import Page
from rnnctl.cli.setup.prepared import prepared
from rnnctl.errors import InputError
from rnnctl.results import Answers
from rnnctl.view.progress import progress_bar


@dataclass(frozen=True)
class CheckOptions(CommandOptions):
    """What ``rnnctl check`` takes."""

    dtype: ClassVar[str] = "float64"
    page: ClassVar[Page] = Page(
        "gradients",
        ("rnnctl check", "rnnctl check --hidden-size 64 --seq-len 100"),
        ("--input-size", "--hidden-size", "--seq-len", "--batch-size", "--nonlinearity", "--loss", "--seed", "--json"),
    )

    model: ModelOptions
    data: DataOptions
    loss: LossOptions
    run: RunOptions
    out: OutputOptions


def answers() -> tuple[Answers, ...]:
    """What can be asked of the result."""
    from rnnctl.checks import CheckReport

    return (CheckReport.answers(),)


def check(given: CheckOptions) -> None:
    """Prove this installation on your sizes: FullRNN against nn.RNN, the sweep against autograd."""
    if given.run.dtype not in (None, "float64", "float32"):
        raise InputError(f"check needs --dtype float64 or float32; got torch.{given.run.dtype}")
    made = prepared(given, answers)
    from rnnctl import checks
    from rnnctl.recurrence.nonlinearities import IN_TORCH

    network, h_init = made.hand_written
    chosen = (given.model.nonlinearity,) if given.model.nonlinearity else IN_TORCH
    how: dict[str, Any] = {
        "target": made.target,
        "h_init": h_init,
        "nonlinearities": chosen,
        "loss": made.config["loss"],
    }
    with progress_bar("check", quiet=given.out.quiet) as progress, made.running():
        report = checks.check(network, made.x, **how, progress=progress)
    emit(report, {**made.config, "nonlinearity": " and ".join(chosen)}, given.out)
    report.require_all()
