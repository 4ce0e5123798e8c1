"""The command line that asks a question again, whichever way its options came: flags, environment or a file."""

import shlex
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any, get_args, get_type_hints

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.loss import LossOptions
from rnnctl.cli.options.model import YourModelOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions, ReportOptions

# Where the answer goes, and how it looks there, does not change it.
OF_OUTPUT = (OutputOptions, PlotOptions, ReportOptions)
WRITES = "save_weights"


def command_line(command: str, given: CommandOptions, kind: type[CommandOptions] | None = None) -> str:
    """As one types it in a shell: every option that is not as it is by itself.

    Args:
        command: its name, "gradnorm".
        given: the options of the command that was run.
        kind: of another command, which asks of the same network and data what it takes of these options.
    """
    taken = set(get_type_hints(type(given) if kind is None else kind).values())
    groups = [group for group in vars(given).values() if type(group) in taken and not isinstance(group, OF_OUTPUT)]
    words = (word for group in groups for word in _words(group, _left_out(group, given, has_loss=LossOptions in taken)))
    return shlex.join(["rnnctl", command, *words])


def _left_out(group: Any, given: CommandOptions, *, has_loss: bool) -> tuple[str, ...]:
    """What another question would refuse."""
    own = given.group(YourModelOptions)
    is_file = isinstance(group, DataOptions) and group.target != "next"
    # A target is for a loss, which it does not have.
    return ("target",) if is_file and not has_loss and own is not None and own.model is not None else ()


def _words(group: Any, left_out: tuple[str, ...]) -> Iterator[str]:
    hints = get_type_hints(type(group), include_extras=True)
    for field in fields(group):
        value = getattr(group, field.name)
        is_said = field.name != WRITES and field.name not in left_out
        if is_said and (field.default is MISSING or value != field.default):
            yield from _typed(get_args(hints[field.name])[1], value)


def _typed(info: Any, value: Any) -> Iterator[str]:
    """The flag of an option and its value; of an argument, which has no flag, the value alone."""
    # Of an annotated option typer keeps the first name in place of a default.
    declared = [each for each in (info.default, *(info.param_decls or ())) if isinstance(each, str)]
    names = [name for each in declared for name in each.split("/") if name.startswith("--")]
    if isinstance(value, bool):
        yield names[0] if value else names[-1]
        return
    for each in value if isinstance(value, list) else [value]:
        yield from (*names[:1], str(each))
