"""``rnnctl forward``."""

from dataclasses import dataclass
from typing import ClassVar

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import BatchOptions, DataOptions, LengthOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.emit import emit
from rnnctl.cli.pages import Page
from rnnctl.cli.setup.prepared import prepared
from rnnctl.cli.setup.request import request_of
from rnnctl.results import Answers


@dataclass(frozen=True)
class ForwardOptions(CommandOptions):
    """What ``rnnctl forward`` takes."""

    page: ClassVar[Page] = Page(
        "shapes",
        ("rnnctl forward --seq-len 12 --hidden-size 8", "rnnctl forward --cell lstm --num-layers 2 --bidirectional"),
        ("--input-size", "--hidden-size", "--seq-len", "--batch-size", "--input", "--cell", "--model", "--json"),
    )

    model: ModelOptions
    data: DataOptions
    own: YourModelOptions
    inputs: BatchOptions
    ragged: LengthOptions
    run: RunOptions
    out: OutputOptions


def answers(given: ForwardOptions) -> tuple[Answers, ...]:
    """What can be asked of the result."""
    from rnnctl.shapes.any_model import RecurrentShapes
    from rnnctl.shapes.hand_written import SequenceShapes

    return ((SequenceShapes if request_of(given).hand_written else RecurrentShapes).answers(),)


def forward(given: ForwardOptions) -> None:
    """A whole sequence: the shape of every tensor, the parameters, how often each is used.

    Of the hand-written network, or of every recurrent module of --cell or --model; there every parameter is counted
    in autograd's graph, and recurrent, shared or used once.
    """
    made = prepared(given, lambda: answers(given))
    from rnnctl.shapes.forward import sequence_shapes

    with made.running():
        result = sequence_shapes(made.model, made.x, lengths=made.lengths, **made.of_model)
    emit(result, made.config, given.out)
