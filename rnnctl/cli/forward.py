"""``rnnctl forward``."""

from rnnctl.cli.options import DataOptions, ModelOptions, OutputOptions, RunOptions
from rnnctl.cli.output import emit, require_output


def forward(model: ModelOptions, data: DataOptions, run: RunOptions, out: OutputOptions) -> None:
    """A whole sequence: the shape of every tensor, the parameters, how often each is used."""
    require_output(out)
    from rnnctl.cli.setup import build
    from rnnctl.shapes import sequence_shapes

    made = build(model, data, run, out)
    emit(sequence_shapes(made.model, made.x, made.h_init), made.config, out)
