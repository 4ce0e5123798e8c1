"""``rnnctl flow``."""

from rnnctl.cli.options import (
    DataOptions,
    LossOptions,
    ModelOptions,
    OutputOptions,
    PlotOptions,
    RunOptions,
    VerifyOptions,
)
from rnnctl.cli.plotting import require_places, show
from rnnctl.view.progress import progress_bar


def flow(
    model: ModelOptions,
    data: DataOptions,
    loss: LossOptions,
    verify: VerifyOptions,
    run: RunOptions,
    plot: PlotOptions,
    out: OutputOptions,
) -> None:
    """Which loss step reaches which source step, and how far back: a loss at every step."""
    require_places(plot, out)
    from rnnctl.cli.setup import build
    from rnnctl.gradients import flow as gradients

    made = build(model, data, run, out, loss=loss.loss, loss_at="all")
    with progress_bar("flow", quiet=out.quiet) as progress:
        result = gradients.flow(
            made.model,
            made.x,
            target=made.target,
            loss=loss.loss,
            h_init=made.h_init,
            verify=verify.verify,
            progress=progress,
        )
    show(result, made.config, plot, out)
    result.require_agreement()
