"""``rnnctl gradnorm``."""

from typing import Any

from rnnctl.cli.options.data import DataOptions, HistoryOptions, LengthOptions
from rnnctl.cli.options.loss import LossFunctionOptions, LossOptions, LossStepOptions, VerdictOptions, VerifyOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.plotting import require_places, show
from rnnctl.errors import InputError
from rnnctl.view.progress import progress_bar


def gradnorm(
    own: YourModelOptions,
    model: ModelOptions,
    data: DataOptions,
    ragged: LengthOptions,
    past: HistoryOptions,
    loss: LossOptions,
    function: LossFunctionOptions,
    at: LossStepOptions,
    verdict: VerdictOptions,
    verify: VerifyOptions,
    run: RunOptions,
    plot: PlotOptions,
    out: OutputOptions,
) -> None:
    """How much every time step of backpropagation through time contributes to dL/dW_hh.

    Of the hand-written network, of torch's layers (--cell), of your own model (--model), or over a training
    run that rnnctl.watch wrote (--from).
    """
    require_places(plot, out)
    if past.from_run is not None:
        from rnnctl.cli.commands.history import show_history

        if own.given or data.input is not None:
            raise InputError("--from shows a run that is over; it takes no --model, --cell or --input")
        return show_history(past.from_run, own.module, plot, out)
    common = {"loss": loss.loss, "loss_at": at.loss_at}
    judged = {**common, **vars(verdict), "verify": verify.verify}
    result, config = (
        _of_yours(own, model, data, ragged, function, run, out, common, judged)
        if own.given
        else _of_ours(own, model, data, ragged, function, run, out, common, judged)
    )
    show(result, config, plot, out)
    result.require_agreement()


def _of_yours(
    own: YourModelOptions,
    model: ModelOptions,
    data: DataOptions,
    ragged: LengthOptions,
    function: LossFunctionOptions,
    run: RunOptions,
    out: OutputOptions,
    common: dict[str, Any],
    judged: dict[str, Any],
) -> tuple[Any, Any]:
    from rnnctl.cli.setup.yours import build_yours
    from rnnctl.gradients.model_gradnorm import model_gradnorm

    made = build_yours(own, model, data, run, out, ragged=ragged, loss_fn=function.loss_fn, **common)
    which: dict[str, Any] = {"lengths": made.lengths, "only": made.only, "linear": made.linear, "loss_fn": made.loss_fn}
    with made.running():
        result = model_gradnorm(made.model, made.x, target=made.target, **which, **judged)
    return result, made.config


def _of_ours(
    own: YourModelOptions,
    model: ModelOptions,
    data: DataOptions,
    ragged: LengthOptions,
    function: LossFunctionOptions,
    run: RunOptions,
    out: OutputOptions,
    common: dict[str, Any],
    judged: dict[str, Any],
) -> tuple[Any, Any]:
    from rnnctl.cli.setup.experiment import build, require_hand_written
    from rnnctl.gradients.gradnorm import gradnorm
    from rnnctl.gradients.model_gradnorm import model_gradnorm

    require_hand_written(own, function)
    made = build(model, data, run, out, ragged=ragged, **common)
    if made.lengths is not None:
        return model_gradnorm(made.model, made.x, target=made.target, lengths=made.lengths, **judged), made.config
    with progress_bar("gradnorm", quiet=out.quiet) as progress:
        h_init = made.h_init
        return gradnorm(made.model, made.x, target=made.target, h_init=h_init, progress=progress, **judged), made.config
