"""Options from a plain mapping, for a process that has no command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from rnnctl.cli.options.command import CommandOptions, Options, declared, gathered
from rnnctl.cli.options.config import UsageProblem, checked_value, keys_of
from rnnctl.errors import InputError, did_you_mean
from rnnctl.files.toml import require_short_integers

_COMMANDS: dict[type[CommandOptions], Any] = {}
VALUES = (bool, int, float, str, Path)


def options_from(kind: type[Options], mapping: Mapping[str, Any]) -> Options:
    """The options of a command, checked as its flags are; the environment and files have no say.

    Args:
        kind: of the command, such as ``GradnormOptions``.
        mapping: name -> value, "hidden-size" or "hidden_size"; values as in TOML: numbers, texts, booleans, lists.
    Returns:
        The options; what the mapping leaves out has its default.
    Raises:
        InputError: an unknown name, with the nearest; a value that the flag would refuse.
    """
    command, values = _command(kind), dict[str, Any]()
    for key, value in mapping.items():
        if not isinstance(key, str):
            raise InputError(f"names of options are texts; got {key!r}")
        name, checked = _option(command, key, value)
        if name in values:
            raise InputError(f"{key!r} gives {name.replace('_', '-')} a second time. Leave one of them out")
        values[name] = checked
    missing = [each.name for each in command.params if each.required and each.name not in values]
    if missing:
        raise InputError(f"{', '.join(missing)} must be given")
    return gathered(kind, values)


def option_named(kind: type[CommandOptions], key: str) -> Any:
    """Typer's parameter that a key sets; InputError where there is none, with the nearest."""
    return _known(_command(kind), key)


def checked_option(kind: type[CommandOptions], key: str, value: Any) -> tuple[str, Any]:
    """The name of one option, and its value as ``options_from`` checks and converts it."""
    return _option(_command(kind), key, value)


def _known(command: Any, key: str) -> Any:
    arguments = {each.name: each for each in command.params if each.param_type_name == "argument"}
    known, flag = {**keys_of(command), **arguments}, key.replace("_", "-")
    if flag not in known:
        raise InputError(f"unknown option {key!r}.{did_you_mean(flag, known)}")
    return known[flag]


def _option(command: Any, key: str, value: Any) -> tuple[str, Any]:
    """The option that a key sets, and what it sets it to."""
    parameter, flag = _known(command, key), key.replace("_", "-")
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, VALUES) for item in items):
        raise InputError(f"{key} = {value!r}: expected a number, a text, a boolean or a list of them")
    require_short_integers(items)
    try:
        return checked_value(typer.Context(command), parameter, flag, value)
    except UsageProblem as error:
        raise InputError(error.format_message().replace("Value error, ", "")) from None


def _command(kind: type[CommandOptions]) -> Any:
    """A command that does nothing: typer's own parameters of these options, made once for every kind."""
    if kind not in _COMMANDS:
        _COMMANDS[kind] = _made_command(kind)
    return _COMMANDS[kind]


def _made_command(kind: type[CommandOptions]) -> Any:

    def nothing(**_: Any) -> None:
        """Never called."""

    app = typer.Typer(add_completion=False)
    app.command()(declared(nothing, kind))
    return typer.main.get_command(app)
