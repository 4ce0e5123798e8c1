"""``rnnctl unroll``."""

from rnnctl.cli.options import DataOptions, GraphOptions, ModelOptions, OutputOptions, RunOptions
from rnnctl.cli.output import chosen_format, deliver, emit, judge, require_output, terminal


def unroll(model: ModelOptions, data: DataOptions, graph: GraphOptions, run: RunOptions, out: OutputOptions) -> None:
    """The network unrolled through time as a graph, with its one shared W_hh."""
    require_output(out)
    from rnnctl.cli.setup import build
    from rnnctl.graph import drawn, unroll

    made = build(model, data, run, out)
    result = unroll(made.model, made.x, made.h_init)
    if chosen_format(out) != "table":
        return emit(result, made.config, out)
    text = drawn(result, graph.drawn_as, every=out.all, ascii_only=terminal(out).ascii_only)
    deliver(text + "\n", out)
    judge(result, out)
