"""``rnnctl forward``."""

from rnnctl.cli.options.data import DataOptions, LengthOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.emit import emit, require_output


def forward(
    own: YourModelOptions,
    model: ModelOptions,
    data: DataOptions,
    ragged: LengthOptions,
    run: RunOptions,
    out: OutputOptions,
) -> None:
    """A whole sequence: the shape of every tensor, the parameters, how often each is used.

    Of the hand-written network, or of every recurrent module of --cell or --model.
    """
    require_output(out)
    if own.given:
        return _of_yours(own, model, data, ragged, run, out)
    from rnnctl.cli.setup.experiment import build, require_hand_written
    from rnnctl.shapes.hand_written import sequence_shapes

    require_hand_written(own)
    made = build(model, data, run, out, ragged=ragged)
    emit(sequence_shapes(made.model, made.x, made.h_init), made.config, out)


def _of_yours(
    own: YourModelOptions,
    model: ModelOptions,
    data: DataOptions,
    ragged: LengthOptions,
    run: RunOptions,
    out: OutputOptions,
) -> None:
    from rnnctl.cli.setup.yours import build_yours
    from rnnctl.models.objective import called
    from rnnctl.shapes.any_model import recurrent_shapes

    made = build_yours(own, model, data, run, out, ragged=ragged)
    with made.running():
        found = recurrent_shapes(made.model, lambda: called(made.model, made.x, made.lengths), only=made.modules)
    emit(found, made.config, out)
