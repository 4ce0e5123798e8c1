"""``rnnctl lyapunov``."""

from dataclasses import replace

from rnnctl.cli.options import DataOptions, LyapunovOptions, ModelOptions, OutputOptions, PlotOptions, RunOptions
from rnnctl.cli.plotting import require_places, show
from rnnctl.view.progress import progress_bar


def lyapunov(
    model: ModelOptions,
    data: DataOptions,
    measure: LyapunovOptions,
    run: RunOptions,
    plot: PlotOptions,
    out: OutputOptions,
) -> None:
    """How fast nearby trajectories part or meet, beside what theory predicts of W_hh's variance."""
    require_places(plot, out)
    from rnnctl.cli.setup import build
    from rnnctl.dynamics import lyapunov as dynamics

    # From zeros a free-running network without biases would never start.
    data = replace(data, h_init=data.h_init or ("normal" if measure.autonomous else "zeros"))
    made = build(model, data, run, out, **vars(measure))
    with progress_bar("lyapunov", quiet=out.quiet) as progress:
        result = dynamics.lyapunov(
            made.model,
            made.x,
            h_init=made.h_init,
            target=made.target,
            init=None if model.weights else model.init,
            gain=model.gain,
            seed=run.seed,
            progress=progress,
            **vars(measure),
        )
    show(result, made.config, plot, out)
