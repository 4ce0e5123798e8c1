"""A command that takes groups of options, as typer can read it."""

import functools
import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, fields
from typing import Annotated, Any, get_args, get_type_hints

import typer

from rnnctl.cli.exits import ExitCode
from rnnctl.cli.streams import tell
from rnnctl.errors import InputError, RnnctlError


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a function of option groups into one that typer can read, and errors into exit codes."""
    groups = {name: group for name, group in get_type_hints(command).items() if name != "return"}
    parameters = [parameter for group in groups.values() for parameter in _parameters(group)]

    @functools.wraps(command)
    def flat(**values: Any) -> None:
        taken = {name: _gathered(group, values) for name, group in groups.items()}
        try:
            command(**taken)
        except RnnctlError as error:
            tell(f"Error: {error}")
            code = ExitCode.BAD_INPUT if isinstance(error, InputError) else ExitCode.FAILED
            raise typer.Exit(code) from None

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def _parameters(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    found = []
    for field in fields(group):
        kind, info = get_args(hints[field.name])
        info = copy(info)
        info.rich_help_panel = group.panel  # type: ignore[attr-defined]
        found.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                # An argument that must be given has no default.
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=Annotated[kind, info],
            )
        )
    return found


def _gathered(group: Any, values: dict[str, Any]) -> Any:
    return group(**{field.name: values.pop(field.name) for field in fields(group)})
