"""``rnnctl cell``."""

from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.model import ModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.emit import emit, require_output


def cell(model: ModelOptions, data: DataOptions, run: RunOptions, out: OutputOptions) -> None:
    """One time step: the shape of every tensor of the equation of h_t, and the parameters."""
    require_output(out)
    from rnnctl.cli.setup.experiment import build
    from rnnctl.shapes.hand_written import step_shapes

    made = build(model, data, run, out)
    emit(step_shapes(made.model.rnn_cell, made.x[:, 0], made.h_init), made.config, out)
