"""The options of one command, made of groups; and a command that takes them, as typer can read it."""

import functools
import inspect
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

import typer

from rnnctl.cli.exits import ExitCode
from rnnctl.cli.pages import Page, with_page
from rnnctl.cli.streams import tell_error
from rnnctl.errors import InputError, RnnctlError

Group = TypeVar("Group")
Options = TypeVar("Options", bound="CommandOptions")


@dataclass(frozen=True)
class CommandOptions:
    """Base of what a command takes: a frozen dataclass whose fields are groups, in the order of the help's panels.

    Attributes:
        dtype: of weights and data where --dtype does not say.
        loss_at: the steps that carry a loss where no option says; None where the command asks for no loss, or for that
            of the last step where it has an option for them.
        page: what its help says beside the options.
    """

    dtype: ClassVar[str] = "float32"
    loss_at: ClassVar[str | None] = None
    page: ClassVar[Page] = Page("", ())

    @classmethod
    def require_heard(cls, context: Any) -> None:
        """Raise InputError for what was typed and says nothing here; most commands hear all their options.

        Args:
            context: typer's, with the values and where they come from.
        """

    def group(self, kind: type[Group]) -> Group | None:
        """The group of this kind, or None where the command does not take it."""
        return next((value for value in vars(self).values() if isinstance(value, kind)), None)

    @property
    def by_name(self) -> dict[str, Any]:
        """Name -> value of every option, whichever group it stands in."""
        return {name: value for group in vars(self).values() for name, value in vars(group).items()}

    def values_in_rows(self, seq_len: int) -> int:
        """How many values the result's rows have of so many steps, at least; 0 where they do not grow with them."""
        return 0

    def having(self, *groups: Any) -> Self:
        """The same options with these groups in place of those of their kind."""
        kinds = {type(group): group for group in groups}
        changed = {name: kinds[type(value)] for name, value in vars(self).items() if type(value) in kinds}
        return replace(self, **changed)


def with_options(command: Callable[[Any], None]) -> Callable[..., None]:
    """Turn a function of one ``CommandOptions`` into one that typer can read, and errors into exit codes."""
    (kind,) = (hint for name, hint in get_type_hints(command).items() if name != "return")

    @with_page(kind.page)
    @with_exit_codes
    @functools.wraps(command)
    def flat(**values: Any) -> None:
        command(gathered(kind, values))

    flat.options = kind  # type: ignore[attr-defined]
    return declared(flat, kind)


def with_exit_codes(function: Callable[..., None]) -> Callable[..., None]:
    """Errors that we foresaw become one message and an exit code."""

    @functools.wraps(function)
    def told(*arguments: Any, **values: Any) -> None:
        try:
            function(*arguments, **values)
        except RnnctlError as error:
            tell_error(str(error))
            code = ExitCode.BAD_INPUT if isinstance(error, InputError) else ExitCode.FAILED
            raise typer.Exit(code) from None
        except (MemoryError, RuntimeError) as error:
            if not _is_of_memory(error):
                raise
            tell_error("there was not enough memory. Try a shorter sequence, a smaller batch or fewer hidden units")
            raise typer.Exit(ExitCode.FAILED) from None

    return told


def _is_of_memory(error: Exception) -> bool:
    """Whether it says that memory ran out, which torch says by a RuntimeError; of a GPU it is a kind of its own."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error)


def declared(function: Callable[..., None], kind: type[CommandOptions]) -> Callable[..., None]:
    """The function with the options of all groups as its parameters, for typer to find."""
    parameters = [parameter for group in _groups(kind).values() for parameter in _parameters(group)]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function


def gathered(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """The options of a command from the values of single ones, by name; those left out have their defaults."""
    groups: dict[str, Any] = _groups(kind)
    return kind(**{name: _filled(group, values) for name, group in groups.items()})


def _groups(kind: type[CommandOptions]) -> dict[str, type]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _metavar(kind: Any) -> str | None:
    """What stands for a value in the help: the choices, or what kind of thing it is; None for a switch."""
    is_optional = type(None) in get_args(kind)
    plain = get_args(kind)[0] if is_optional else kind
    if get_origin(plain) is Literal:
        return "|".join(get_args(plain))
    return {Path: "FILE", str: "TEXT"}.get(plain)


def _filled(group: Any, values: Mapping[str, Any]) -> Any:
    return group(**{field.name: values[field.name] for field in fields(group) if field.name in values})


def _parameters(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    found = []
    for field in fields(group):
        kind, info = get_args(hints[field.name])
        info = copy(info)
        info.rich_help_panel = group.panel
        info.metavar = info.metavar or _metavar(kind)
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
