"""What is said of a command line that cannot be understood, and of settings in the environment that nobody hears."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rnnctl.cli.options.config import asks_others
from rnnctl.errors import InputError, nearest

PREFIX = "RNNCTL_"


def usage_message(error: Any, arguments: Sequence[str]) -> str:
    """What is wrong, in which environment variable if it stands in one, and where to read on; without a full stop."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    message = _message(error, context)
    if context is not None and parameter is not None:
        source = context.get_parameter_source(parameter.name)
        if source is not None and source.name == "ENVIRONMENT":
            message = f"{_of_variable(message, parameter)} (from {parameter.envvar})"
    return f"{message.removesuffix('.')}\nTry '{_path(context, arguments)} --help' for help"


def _message(error: Any, context: Any) -> str:
    """As typer words it; of an unknown option which command has it, or else the nearest."""
    flag = getattr(error, "option_name", None)
    if context is None or flag is None or not hasattr(error, "possibilities"):
        # What it lists on further lines the help has, too.
        message: str = error.format_message().replace("Value error, ", "").splitlines()[0]
        message = re.sub(r"\. Choose from:$", "", message)
        return re.sub(r"^Got unexpected extra arguments?(?:\(s\))? \((.+)\)", r"Unexpected argument: \1", message)
    commands = getattr(context.find_root().command, "commands", {})
    if takers := [name for name, command in commands.items() if flag in _flags(command) and not asks_others(command)]:
        names = " and ".join(filter(None, (", ".join(takers[:-1]), takers[-1])))
        here, has = context.info_name, "has" if len(takers) == 1 else "have"
        return f"No such option: {flag}. {here} does not have it; {names} {has}"
    near = _nearest(flag, _flags(context.command), "--")
    return f"No such option: {flag}." + (f" Did you mean {near}?" if near else "")


def _flags(command: Any) -> list[str]:
    return [name for each in command.params for name in (*each.opts, *each.secondary_opts) if name.startswith("--")]


def _of_variable(message: str, parameter: Any) -> str:
    """A switch has no value on the command line; what its variable may hold, typer's reader does not say."""
    if not getattr(parameter, "is_flag", False):
        return message
    return f"Invalid value for '{parameter.opts[0]}': expected true or false; got {os.environ[parameter.envvar]!r}"


def _path(context: Any, arguments: Sequence[str]) -> str:
    """The command that the mistake was made in; what typer's parser refuses does not say."""
    if context is not None:
        return str(context.command_path)
    # All of the program's own options are understood: the parser was at the command's.
    return " ".join(["rnnctl", *(each for each in arguments[:1] if not each.startswith("-"))])


def unheard_variables(commands: Iterable[Any], environment: Mapping[str, str]) -> tuple[str, ...]:
    """What to tell of RNNCTL_* variables that are no setting.

    Raises:
        InputError: one is a setting misspelt; with the nearest.
    """
    known = {each.envvar for command in commands for each in command.params if getattr(each, "envvar", None)}
    unheard = [name for name in environment if name.startswith(PREFIX) and name not in known]
    for name in unheard:
        if (near := _nearest(name, known, PREFIX)) is not None:
            raise InputError(f"{name} in the environment is no setting of rnnctl. Did you mean {near}?")
    return tuple(f"{name} in the environment is no setting of rnnctl; nothing hears it" for name in unheard)


def _nearest(name: str, known: Iterable[str], prefix: str) -> str | None:
    """The known name that resembles it beyond what all of them begin with; None where none does."""
    near = nearest(name.removeprefix(prefix), (each.removeprefix(prefix) for each in known))
    return None if near is None else prefix + near
