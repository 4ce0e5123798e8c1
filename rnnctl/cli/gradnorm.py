"""``rnnctl gradnorm``."""

from rnnctl.cli.options import (
    DataOptions,
    LossOptions,
    LossStepOptions,
    ModelOptions,
    OutputOptions,
    PlotOptions,
    RunOptions,
    VerdictOptions,
    VerifyOptions,
)
from rnnctl.cli.plotting import require_places, show
from rnnctl.view.progress import progress_bar


def gradnorm(
    model: ModelOptions,
    data: DataOptions,
    loss: LossOptions,
    at: LossStepOptions,
    verdict: VerdictOptions,
    verify: VerifyOptions,
    run: RunOptions,
    plot: PlotOptions,
    out: OutputOptions,
) -> None:
    """How much every time step of backpropagation through time contributes to dL/dW_hh."""
    require_places(plot, out)
    from rnnctl.cli.setup import build
    from rnnctl.gradients import bptt

    made = build(model, data, run, out, loss=loss.loss, loss_at=at.loss_at)
    with progress_bar("gradnorm", quiet=out.quiet) as progress:
        result = bptt.gradnorm(
            made.model,
            made.x,
            target=made.target,
            loss=loss.loss,
            loss_at=at.loss_at,
            h_init=made.h_init,
            verify=verify.verify,
            vanish_below=verdict.vanish_below,
            explode_above=verdict.explode_above,
            progress=progress,
        )
    show(result, made.config, plot, out)
    result.require_agreement()
