"""``rnnctl unroll``."""

from dataclasses import dataclass
from typing import ClassVar

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import BatchOptions, DataOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.question import GraphOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.emit import chosen_format, deliver, emit, judge, tell_notes, terminal
from rnnctl.cli.pages import Page
from rnnctl.cli.setup.prepared import prepared
from rnnctl.cli.setup.request import request_of
from rnnctl.errors import InputError
from rnnctl.results import Answers


@dataclass(frozen=True)
class UnrollOptions(CommandOptions):
    """What ``rnnctl unroll`` takes."""

    page: ClassVar[Page] = Page(
        "shapes",
        ("rnnctl unroll --seq-len 4", "rnnctl unroll --seq-len 4 --as mermaid"),
        ("--seq-len", "--input-size", "--hidden-size", "--as", "--cell", "--model", "--all", "--json"),
    )

    model: ModelOptions
    data: DataOptions
    own: YourModelOptions
    inputs: BatchOptions
    graph: GraphOptions
    run: RunOptions
    out: OutputOptions

    def values_in_rows(self, seq_len: int) -> int:
        """Of every step its equations."""
        return 3 * seq_len


def answers(given: UnrollOptions) -> tuple[Answers, ...]:
    """What can be asked of the result."""
    from rnnctl.graph import UnrolledGraph
    from rnnctl.shapes.model_graph import UnrolledModel

    return ((UnrolledGraph if request_of(given).hand_written else UnrolledModel).answers(),)


def unroll(given: UnrollOptions) -> None:
    """The network unrolled through time as a graph, with its one shared W_hh.

    Of --cell or --model: the steps of every recurrent weight, and how often each parameter is used, as counted in
    autograd's graph.
    """
    _require_drawable(given.graph, given.out)
    made = prepared(given, lambda: answers(given))
    from rnnctl.shapes.unroll import drawn, unroll

    with made.running():
        result = unroll(made.model, made.x, **made.of_model)
    if chosen_format(given.out) != "table":
        return emit(result, made.config, given.out)
    tell_notes(result.notes, given.out)
    screen, how = terminal(given.out), given.graph.drawn_as
    text = drawn(result, how, every=given.out.all, ascii_only=screen.ascii_only, width=screen.width)
    deliver(text + "\n", given.out)
    judge(result, given.out)


def _require_drawable(graph: GraphOptions, out: OutputOptions) -> None:
    form = chosen_format(out)
    if form == "table" and out.only is not None:
        raise InputError(f"--only {out.only} is about --format json, jsonl and csv; a drawing is one piece")
    if form != "table" and graph.drawn_as != "text":
        raise InputError(f"--as {graph.drawn_as} draws the graph, format {form} lists its steps; leave one of them out")
