"""``rnnctl truncation``."""

import re
from collections.abc import Sequence

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
from rnnctl.cli.plotting import require_places, show
from rnnctl.view.progress import progress_bar


def with_named_windows(chosen: list[int] | None, conditions: Sequence[str], seq_len: int) -> list[int]:
    """The windows, and those that a condition such as 'cosine_at_20<0.9' speaks of."""
    from rnnctl.gradients.truncation import default_windows

    named = [int(digits) for condition in conditions for digits in re.findall(r"_at_(\d+)\b", condition)]
    return [*(default_windows(seq_len) if chosen is None else chosen), *named]


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
    require_places(plot, out)
    chosen = window.chosen
    from rnnctl.cli.setup import build
    from rnnctl.gradients import truncation as gradients

    made = build(model, data, run, out, loss=loss.loss, loss_at="all")
    with progress_bar("truncation", quiet=out.quiet) as progress:
        result = gradients.truncation(
            made.model,
            made.x,
            windows=with_named_windows(chosen, out.fail_on or (), made.x.shape[1]),
            target=made.target,
            loss=loss.loss,
            h_init=made.h_init,
            verify=verify.verify,
            progress=progress,
        )
    show(result, made.config, plot, out)
    result.require_agreement()
