"""``rnnctl lyapunov``."""

from dataclasses import replace

from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions
from rnnctl.cli.options.question import LyapunovOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.plotting import require_places, show
from rnnctl.view.progress import progress_bar


def lyapunov(
    own: YourModelOptions,
    model: ModelOptions,
    data: DataOptions,
    measure: LyapunovOptions,
    run: RunOptions,
    plot: PlotOptions,
    out: OutputOptions,
) -> None:
    """How fast nearby trajectories part or meet, beside what theory predicts of W_hh's variance.

    Of --cell or --model: of one layer in one direction, driven by what it receives there.
    """
    require_places(plot, out)
    from rnnctl.cli.setup.either import along_a_trajectory
    from rnnctl.dynamics import lyapunov as dynamics

    if not own.given:
        # From zeros a free-running network without biases would never start.
        data = replace(data, h_init=data.h_init or ("normal" if measure.autonomous else "zeros"))
    made = along_a_trajectory(own, model, data, run, out, **vars(measure))
    how = dict(made.how)
    if not own.given:
        drawn = None if model.weights else model.init
        how |= {"target": made.target, "init": drawn, "gain": model.gain, "seed": run.seed}
    with progress_bar("lyapunov", quiet=out.quiet) as progress:
        result = dynamics.lyapunov(made.model, made.x, progress=progress, **how, **vars(measure))
    show(result, made.config, plot, out)
