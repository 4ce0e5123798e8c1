"""``rnnctl truncation``."""

import re
from collections.abc import Sequence
from typing import Any

from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.loss import LossOptions, VerifyOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions
from rnnctl.cli.options.question import WindowOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.plotting import require_places, show
from rnnctl.view.progress import progress_bar


def with_named_windows(chosen: list[int] | None, conditions: Sequence[str], seq_len: int) -> list[int]:
    """The windows, and those that a condition such as 'cosine_at_20<0.9' speaks of."""
    from rnnctl.gradients.truncation import default_windows

    named = [int(digits) for condition in conditions for digits in re.findall(r"_at_(\d+)\b", condition)]
    return [*(default_windows(seq_len) if chosen is None else chosen), *named]


def truncation(
    own: YourModelOptions,
    model: ModelOptions,
    data: DataOptions,
    loss: LossOptions,
    window: WindowOptions,
    verify: VerifyOptions,
    run: RunOptions,
    plot: PlotOptions,
    out: OutputOptions,
) -> None:
    """What truncated BPTT with K steps back would lose, for several windows K: a loss at every step.

    Of --cell or --model: for one recurrent weight of nn.RNN, nn.GRU or nn.LSTM.
    """
    require_places(plot, out)
    chosen = window.chosen
    from rnnctl.cli.setup.either import with_loss_at_every_step
    from rnnctl.gradients.truncation import model_truncation
    from rnnctl.gradients.truncation import truncation as hand_written

    made = with_loss_at_every_step(own, model, data, run, out, loss.loss)
    windows = with_named_windows(chosen, out.fail_on or (), made.x.shape[1])
    with progress_bar("truncation", quiet=out.quiet) as progress, made.running():
        compute: Any = model_truncation if own.given else hand_written
        result = compute(made.model, made.x, windows=windows, verify=verify.verify, progress=progress, **made.how)
    show(result, made.config, plot, out)
    result.require_agreement()
