"""``--config FILE.toml``: keys are the flags' names, a command's own in a table of its name."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

from rnnctl.errors import InputError, did_you_mean, shortened
from rnnctl.files.toml import read_toml

# These say what to do with one run and do not belong into a file that describes many.
NOT_IN_A_FILE = ("config", "help")
# What typer raises for a usage error, right under Exception; only newer versions name it (TyperException).
UsageProblem: type[Any] = typer.BadParameter.__mro__[-4]
# Where a value comes from, the stronger the later.
STRENGTHS = ("DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")


def load_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of the command that is being parsed.

    Raises:
        typer.BadParameter: names the file, the key, and the nearest right key.
    """
    if path is None or context.resilient_parsing:
        return path
    try:
        _apply(context, path)
    except UsageProblem as error:
        error.ctx = context
        # What it quotes may be as long as the file.
        error.message = shortened(error.message)
        raise
    return path


def _apply(context: typer.Context, path: Path) -> None:
    tables = _read(path)
    every: Mapping[str, Any] = context.parent.command.commands  # type: ignore[union-attr]
    commands = {name: command for name, command in every.items() if keys_of(command)}
    shared = _by_flag({key: value for key, value in tables.items() if not isinstance(value, dict)}, str(path))
    own = {name: _by_flag(table, f"{path}, [{name}]") for name, table in tables.items() if isinstance(table, dict)}
    known = {name: keys_of(command) for name, command in commands.items()}
    everywhere = {key for keys in known.values() for key in keys}
    for key in shared:
        _require_no_command(key, commands, path)
        _require_key(key, everywhere, str(path))
    for name, table in own.items():
        _require_table(name, commands, path)
        for key in table:
            _require_key(key, known[name], f"{path}, [{name}]")
    here = known[context.info_name or ""]
    applied = {key: value for key, value in shared.items() if key in here}
    for heard in (_asked(context, commands), context.info_name):
        applied |= {key: value for key, value in own.get(heard or "", {}).items() if key in here}
    context.default_map = dict(_value(context, here, key, value, path) for key, value in applied.items())


def _asked(context: typer.Context, commands: Iterable[str]) -> str | None:
    """The command that a sweep makes runs of, whose table is heard before the sweep's own; None of any other."""
    arguments = context.meta.get(f"arguments of {context.command_path}", ())
    return next((each for each in arguments if each in commands), None) if asks_others(context.command) else None


def asks_others(command: Any) -> bool:
    """Whether a command takes the options of other ones, which it makes runs of."""
    return any(each.name == "question" for each in command.params)


def keys_of(command: Any) -> dict[str, Any]:
    """Key -> the parameter it sets; a flag's negative name ("no-bias") is a key, too."""
    keys = {}
    for parameter in command.params:
        if parameter.name not in NOT_IN_A_FILE:
            for name in (*parameter.opts, *parameter.secondary_opts):
                if name.startswith("--"):
                    keys[name.removeprefix("--")] = parameter
    return keys


def checked_value(context: typer.Context, parameter: Any, key: str, value: Any) -> tuple[str, Any]:
    """The parameter's name and the value, checked as the flag's would be.

    Args:
        parameter: typer's, which the key sets.
        value: as TOML has it.
    Raises:
        typer.BadParameter: "key = value: " and what was expected.
    """
    expects_flag = bool(getattr(parameter, "is_flag", False))
    try:
        if isinstance(value, bool) != expects_flag:
            raise typer.BadParameter("expected true or false" if expects_flag else "expected a value, not a boolean")
        if isinstance(value, str) and parameter.type_descriptor.annotation in (int, float):
            raise typer.BadParameter("expected a number, not a text in quotes")
        if any("\0" in str(each) for each in (value if isinstance(value, list) else [value])):
            # Where the system would take a path to end.
            raise typer.BadParameter("expected a text without a null byte")
        if expects_flag:
            given = value != (f"--{key}" in parameter.secondary_opts)
        else:
            given = _as_on_the_command_line(value, multiple=getattr(parameter, "multiple", False))
        return parameter.name, parameter.process_value(context, given)
    except UsageProblem as error:
        raise typer.BadParameter(f"{key} = {value!r}: {error.message}") from None


def json_or_format(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """Where --json and --format are both set, the one from the weaker source gives way."""
    unset = {"json": False, "format": None}
    other = "format" if parameter.name == "json" else "json"
    if not value or not context.params.get(other):
        return value
    mine, theirs = _strength(context, str(parameter.name)), _strength(context, other)
    if mine > theirs:
        context.params[other] = unset[other]
    return unset[str(parameter.name)] if mine < theirs else value


def _strength(context: typer.Context, name: str) -> int:
    source = context.get_parameter_source(name)
    return STRENGTHS.index(source.name) if source is not None and source.name in STRENGTHS else -1


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


def _by_flag(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The table with the flags' names as keys, however they were written: hidden-size or hidden_size."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        flag = key.replace("_", "-")
        if flag in found:
            raise typer.BadParameter(f"{where}: {flag} and {flag.replace('-', '_')} are one key. Leave one of them out")
        found[flag] = value
    return found


def _require_key(key: str, known: Iterable[str], where: str) -> None:
    if key not in known:
        hint = did_you_mean(key, known)
        raise typer.BadParameter(f"{where}: unknown key {key!r}.{hint}")


def _require_no_command(key: str, commands: Mapping[str, Any], path: Path) -> None:
    if key in commands:
        raise typer.BadParameter(f"{path}: {key} is a command; its keys belong into one table [{key}]")


def _require_table(name: str, commands: Mapping[str, Any], path: Path) -> None:
    if name not in commands:
        hint = did_you_mean(name, commands)
        raise typer.BadParameter(f"{path}: unknown table [{name}]; tables are named after commands.{hint}")


def _value(context: typer.Context, here: Mapping[str, Any], key: str, value: Any, path: Path) -> tuple[str, Any]:
    """As ``checked_value``; an error names the file, too."""
    try:
        return checked_value(context, here[key], key, value)
    except UsageProblem as error:
        raise typer.BadParameter(f"{path}: {error.message}") from None


def _as_on_the_command_line(value: Any, *, multiple: bool) -> str | list[str]:
    texts = [str(item) for item in value] if isinstance(value, list) else [str(value)]
    return texts if multiple else ",".join(texts)
