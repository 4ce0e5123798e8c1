"""``rnnctl truncation``."""

from rnnctl.cli.options import (
    DataOptions,
    LossOptions,
    ModelOptions,
    OutputOptions,
    PlotOptions,
    RunOptions,
    VerifyOptions,
    WindowOptions,
)
from rnnctl.cli.output import emit, require_output
from rnnctl.cli.plotting import draw, require_plot
from rnnctl.view.progress import progress_bar


def truncation(
    model: ModelOptions,
    data: DataOptions,
    loss: LossOptions,
    window: WindowOptions,
    verify: VerifyOptions,
    run: RunOptions,
    plot: PlotOptions,
    out: OutputOptions,
) -> None:
    """What truncated BPTT with K steps back would lose, for several windows K: a loss at every step."""
    require_output(out)
    require_plot(plot, out)
    chosen = window.chosen
    from rnnctl.cli.setup import build
    from rnnctl.gradients import truncation as gradients

    made = build(model, data, run, out, loss=loss.loss, loss_at="all")
    with progress_bar("truncation", quiet=out.quiet) as progress:
        result = gradients.truncation(
            made.model,
            made.x,
            windows=chosen,
            target=made.target,
            loss=loss.loss,
            h_init=made.h_init,
            verify=verify.verify,
            progress=progress,
        )
    draw(result, made.config, plot, out)
    emit(result, made.config, out)
    result.require_agreement()
