"""``rnnctl gradnorm --from``: what a training run left in its file."""

from pathlib import Path

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions
from rnnctl.cli.output.emit import require_not_read, tell_notes
from rnnctl.cli.output.plotting import require_places, show
from rnnctl.cli.setup.request import request_of
from rnnctl.errors import InputError
from rnnctl.results import Answers


def answers() -> tuple[Answers, ...]:
    """What can be asked of the result."""
    from rnnctl.gradients.history import GradNormHistory

    return (GradNormHistory.answers(),)


def show_history(path: Path, given: CommandOptions) -> None:
    """Show the last run of a file that ``rnnctl.watch`` wrote: the weight that --module names, or the first."""
    plot, out = given.group(PlotOptions) or PlotOptions(), given.group(OutputOptions) or OutputOptions()
    require_places(plot, out, answers)
    _require_nothing_to_run(given)
    for written in (out.output, plot.plot):
        require_not_read(written, path, out.config)
    from rnnctl.gradients.history import gradnorm_history

    module = request_of(given).own.module
    result = gradnorm_history(path, module)
    tell_notes(result.notes, out)
    show(result, {"file": str(path), "module": module}, plot, out)


def _require_nothing_to_run(given: CommandOptions) -> None:
    request = request_of(given)
    if not request.hand_written or request.data.input is not None or request.batch is not None:
        raise InputError("--from shows a run that is over; it takes no --model, --cell, --input or --batch")
