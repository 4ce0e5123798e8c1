"""``rnnctl gradnorm --from``: what a training run left in its file."""

from dataclasses import fields
from pathlib import Path

from rnnctl.cli.loading import loading
from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import HistoryOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions, ReportOptions
from rnnctl.cli.output.emit import require_not_read, require_output
from rnnctl.cli.output.plotting import places, require_places, show
from rnnctl.cli.setup.request import request_of
from rnnctl.errors import InputError
from rnnctl.files.sources import require_file
from rnnctl.results import Answers

# Of the options that shape a run: which weight is shown, and what says nothing of any number.
STILL_HEARD = ("module", "device", "threads")


def answers() -> tuple[Answers, ...]:
    """What can be asked of the result."""
    from rnnctl.gradients.history import GradNormHistory

    return (GradNormHistory.answers(),)


def show_history(path: Path, given: CommandOptions) -> None:
    """Show the last run of a file that ``rnnctl.watch`` wrote: the weight that --module names, or the first."""
    out = given.group(OutputOptions) or OutputOptions()
    require_places(given)
    _require_nothing_to_run(given)
    require_file(path, "--from")
    for written in places(given).values():
        require_not_read(written, path, out.config)
    with loading(quiet=out.quiet):
        require_output(out, answers)
        from rnnctl.gradients.history import gradnorm_history

    module = request_of(given).own.module
    result = gradnorm_history(path, module)
    show(result, {"file": str(path), "module": module}, given)


def _require_nothing_to_run(given: CommandOptions) -> None:
    request = request_of(given)
    if not request.hand_written or request.data.input is not None or request.batch is not None:
        raise InputError("--from shows a run that is over; it takes no --model, --cell, --input or --batch")
    heard = (HistoryOptions, PlotOptions, ReportOptions, OutputOptions)
    unheard = [group for group in vars(given).values() if not isinstance(group, heard)]
    asked = [field for group in unheard for field in fields(group) if getattr(group, field.name) != field.default]
    # What is on by itself was switched off.
    flags = {each.name: f"--{'no-' if each.default is True else ''}{each.name.replace('_', '-')}" for each in asked}
    if names := [flag for name, flag in flags.items() if name not in STILL_HEARD]:
        raise InputError(f"--from shows a run that is over; {' and '.join(names)} would be ignored. Leave it out")
