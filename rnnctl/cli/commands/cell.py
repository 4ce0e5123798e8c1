"""``rnnctl cell``."""

from dataclasses import dataclass
from typing import ClassVar

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.model import ModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.emit import emit
from rnnctl.cli.pages import Page
from rnnctl.cli.setup.prepared import prepared
from rnnctl.results import Answers


@dataclass(frozen=True)
class CellOptions(CommandOptions):
    """What ``rnnctl cell`` takes."""

    page: ClassVar[Page] = Page(
        "shapes",
        ("rnnctl cell --input-size 3 --hidden-size 8", "rnnctl cell --h-init normal --json"),
        (
            "--input-size",
            "--hidden-size",
            "--nonlinearity",
            "--batch-size",
            "--input",
            "--h-init",
            "--seed",
        ),
    )

    model: ModelOptions
    data: DataOptions
    run: RunOptions
    out: OutputOptions


def answers() -> tuple[Answers, ...]:
    """What can be asked of the result."""
    from rnnctl.shapes.hand_written import StepShapes

    return (StepShapes.answers(),)


def cell(given: CellOptions) -> None:
    """One time step: the shape of every tensor of the equation of h_t, and the parameters."""
    made = prepared(given, answers)
    from rnnctl.shapes.hand_written import step_shapes

    network, h_init = made.hand_written
    emit(step_shapes(network.rnn_cell, made.x[:, 0], h_init), made.config, given.out)
