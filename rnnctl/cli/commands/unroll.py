"""``rnnctl unroll``."""

from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.model import ModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.question import GraphOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.emit import chosen_format, deliver, emit, judge, require_output, terminal
from rnnctl.errors import InputError


def unroll(model: ModelOptions, data: DataOptions, graph: GraphOptions, run: RunOptions, out: OutputOptions) -> None:
    """The network unrolled through time as a graph, with its one shared W_hh."""
    require_output(out)
    _require_drawable(graph, out)
    from rnnctl.cli.setup.experiment import build
    from rnnctl.graph import drawn, unroll

    made = build(model, data, run, out)
    result = unroll(made.model, made.x, made.h_init)
    if chosen_format(out) != "table":
        return emit(result, made.config, out)
    text = drawn(result, graph.drawn_as, every=out.all, ascii_only=terminal(out).ascii_only)
    deliver(text + "\n", out)
    judge(result, out)


def _require_drawable(graph: GraphOptions, out: OutputOptions) -> None:
    form = chosen_format(out)
    if form == "table" and out.only is not None:
        raise InputError(f"--only {out.only} is about --format json, jsonl and csv; a drawing is one piece")
    if form != "table" and graph.drawn_as != "text":
        raise InputError(f"--as {graph.drawn_as} draws the graph, format {form} lists its steps; leave one of them out")
