"""``rnnctl flow``."""

from typing import Any

from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.loss import LossOptions, VerifyOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.plotting import require_places, show
from rnnctl.view.progress import progress_bar


def flow(
    own: YourModelOptions,
    model: ModelOptions,
    data: DataOptions,
    loss: LossOptions,
    verify: VerifyOptions,
    run: RunOptions,
    plot: PlotOptions,
    out: OutputOptions,
) -> None:
    """Which loss step reaches which source step, and how far back: a loss at every step.

    Of --cell or --model: for one recurrent weight, by one backward pass for each step.
    """
    require_places(plot, out)
    from rnnctl.cli.setup.either import with_loss_at_every_step
    from rnnctl.gradients.flow import flow as hand_written
    from rnnctl.gradients.flow import model_flow

    made = with_loss_at_every_step(own, model, data, run, out, loss.loss)
    with progress_bar("flow", quiet=out.quiet) as progress, made.running():
        compute: Any = model_flow if own.given else hand_written
        result = compute(made.model, made.x, verify=verify.verify, progress=progress, **made.how)
    show(result, made.config, plot, out)
    result.require_agreement()
