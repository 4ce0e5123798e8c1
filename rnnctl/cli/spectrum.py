"""``rnnctl spectrum``."""

from rnnctl.cli.options import DataOptions, ModelOptions, OutputOptions, PlotOptions, RunOptions
from rnnctl.cli.plotting import require_places, show
from rnnctl.view.progress import progress_bar


def spectrum(model: ModelOptions, data: DataOptions, run: RunOptions, plot: PlotOptions, out: OutputOptions) -> None:
    """Eigenvalues and singular values of W_hh, and the step Jacobians along the sequence."""
    require_places(plot, out)
    from rnnctl.cli.setup import build
    from rnnctl.dynamics import spectrum as dynamics

    made = build(model, data, run, out)
    with progress_bar("spectrum", quiet=out.quiet) as progress:
        result = dynamics.spectrum(made.model, made.x, h_init=made.h_init, progress=progress)
    show(result, made.config, plot, out)
