"""``--config FILE.toml``: keys are the flags' names, a command's own in a table of its name."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

from rnnctl.nearest import did_you_mean

# These say what to do with one run and do not belong into a file that describes many.
NOT_IN_A_FILE = ("config", "help")


def load_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of the command that is being parsed.

    Raises:
        typer.BadParameter: names the file, the key, and the nearest right key.
    """
    if path is None or context.resilient_parsing:
        return path
    tables = _read(path)
    commands: Mapping[str, Any] = context.parent.command.commands  # type: ignore[union-attr]
    shared = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    own = {key: value for key, value in tables.items() if isinstance(value, dict)}
    known = {name: _keys(command) for name, command in commands.items()}
    everywhere = {key for keys in known.values() for key in keys}
    for key in shared:
        _require_key(key, (*everywhere, *commands), str(path))
    for name, table in own.items():
        _require_table(name, commands, path)
        for key in table:
            _require_key(key, known[name], f"{path}, [{name}]")
    here = known[context.info_name or ""]
    applied = {key: value for key, value in shared.items() if key in here}
    applied |= own.get(context.info_name or "", {})
    context.default_map = dict(_value(context, here, key, value, path) for key, value in applied.items())
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise typer.BadParameter(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise typer.BadParameter(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} is not valid TOML: {error}") from None


def _keys(command: Any) -> dict[str, Any]:
    """Key -> the parameter it sets; a flag's negative name ("no-bias") is a key, too."""
    keys = {}
    for parameter in command.params:
        if parameter.name not in NOT_IN_A_FILE:
            for name in (*parameter.opts, *parameter.secondary_opts):
                if name.startswith("--"):
                    keys[name.removeprefix("--")] = parameter
    return keys


def _require_key(key: str, known: Iterable[str], where: str) -> None:
    if key not in known:
        hint = did_you_mean(key.replace("_", "-"), known)
        raise typer.BadParameter(f"{where}: unknown key {key!r}.{hint}")


def _require_table(name: str, commands: Mapping[str, Any], path: Path) -> None:
    if name not in commands:
        hint = did_you_mean(name, commands)
        raise typer.BadParameter(f"{path}: unknown table [{name}]; tables are named after commands.{hint}")


def _value(context: typer.Context, here: Mapping[str, Any], key: str, value: Any, path: Path) -> tuple[str, Any]:
    """The parameter's name and the value, checked as the flag's would be."""
    parameter = here[key]
    if f"--{key}" in parameter.secondary_opts:
        value = not value if isinstance(value, bool) else value
    expects_flag = bool(getattr(parameter, "is_flag", False))
    if isinstance(value, list) and not getattr(parameter, "multiple", False):
        value = ",".join(map(str, value))
    try:
        if isinstance(value, bool) != expects_flag:
            raise typer.BadParameter("expected true or false" if expects_flag else "expected no boolean")
        return parameter.name, parameter.process_value(context, value)
    except typer.TyperException as error:
        raise typer.BadParameter(f"{path}: {key} = {value!r}: {error.message}") from None
