"""``rnnctl spectrum``."""

from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.plotting import require_places, show
from rnnctl.view.progress import progress_bar


def spectrum(
    own: YourModelOptions,
    model: ModelOptions,
    data: DataOptions,
    run: RunOptions,
    plot: PlotOptions,
    out: OutputOptions,
) -> None:
    """Eigenvalues and singular values of W_hh, and the step Jacobians along the sequence.

    Of --cell or --model: of one layer in one direction; a gated one has a matrix for every gate.
    """
    require_places(plot, out)
    from rnnctl.cli.setup.either import along_a_trajectory
    from rnnctl.dynamics import spectrum as dynamics

    made = along_a_trajectory(own, model, data, run, out)
    with progress_bar("spectrum", quiet=out.quiet) as progress:
        result = dynamics.spectrum(made.model, made.x, progress=progress, **made.how)
    show(result, made.config, plot, out)
