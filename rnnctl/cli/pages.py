"""Help pages: ``--help`` whole, ``-h`` in short, made of what typer knows of a command and of its ``Page``."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from inspect import cleandoc
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from rnnctl.cli.streams import screen
from rnnctl.errors import InputError, did_you_mean
from rnnctl.view.help_page import Entry, HelpPage, help_text

Function = TypeVar("Function", bound=Callable[..., Any])
# Where options stand that belong to no panel.
OTHER = "Options"
SHORT, WHOLE = "-h", "--help"


@dataclass(frozen=True)
class Page:
    """What the help of a command says beside its options.

    Attributes:
        chapter: of the guide, "how far back".
        examples: command lines.
        often: the options most used, at most eight, as typed; the short help shows them.
    """

    chapter: str
    examples: tuple[str, ...]
    often: tuple[str, ...] = ()


def with_page(page: Page) -> Callable[[Function], Function]:
    """Give a command its page."""

    def marked(function: Function) -> Function:
        function.page = page  # type: ignore[attr-defined]
        return function

    return marked


class _Paged:
    """What a command and the group of all have in common: the help is ours, long or short as it was asked for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[f"arguments of {ctx.command_path}"] = tuple(args)
        # By name of the command: of its group's arguments the command's are a part.
        if SHORT in args and WHOLE not in args:
            ctx.meta[f"short help of {ctx.command_path}"] = True
        parsed: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        return parsed

    def format_help(self, ctx: Any, formatter: Any) -> None:
        short = ctx.meta.get(f"short help of {ctx.command_path}", False)
        # A pipe has a width, too: lines of help are for reading.
        where = replace(screen(), width=shutil.get_terminal_size().columns)
        formatter.write(help_text(_page_of(ctx, short=short), where))


class Command(_Paged, TyperCommand):
    """A command with a page."""


class Group(_Paged, TyperGroup):
    """All commands."""


def page_text(context: typer.Context, name: str | None) -> str:
    """The whole help of the command of that name, seen from another command; of all where none is given.

    Raises:
        InputError: no such command, with the nearest.
    """
    root = context.find_root()
    commands: Any = root.command
    if name is None:
        return str(commands.get_help(root))
    if name not in commands.commands:
        known = commands.commands
        near = did_you_mean(name, known)
        raise InputError(f"there is no command {name!r}; there are {', '.join(known)}.{near}")
    command = commands.commands[name]
    return str(command.get_help(type(root)(command, info_name=name, parent=root)))


def _page_of(context: Any, *, short: bool) -> HelpPage:
    command = context.command
    page: Page = command.callback.page
    about = [" ".join(part.split()) for part in cleandoc(command.help or "").split("\n\n")]
    usage = f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}"
    panels = list(_panels(command.get_params(context), context.info_name))
    if hasattr(command, "commands"):
        entries = tuple(Entry(name, _first_sentence(each)) for name, each in command.commands.items())
        panels.append(("Commands", entries))
    more = f"More: rnnctl guide {page.chapter}" if page.chapter else "More: rnnctl guide lists its chapters"
    if short:
        about, panels = about[:1], list(_often(page, panels, has_commands=hasattr(command, "commands")))
        more += f"; all options: {context.command_path} {WHOLE}"
    return HelpPage(usage, tuple(about), tuple(panels), page.examples, more)


def _first_sentence(command: Any) -> str:
    return " ".join(cleandoc(command.help or "").split("\n\n")[0].split())


def _often(
    page: Page, panels: Sequence[tuple[str, tuple[Entry, ...]]], *, has_commands: bool
) -> Iterator[tuple[str, tuple[Entry, ...]]]:
    """The entries most used, in the page's order; of the group all commands."""
    if has_commands:
        yield panels[-1]
        return
    by_flag = {flag: entry for _, entries in panels for entry in entries for flag in _flags_in(entry.label)}
    if page.often:
        yield "Options most used", tuple(by_flag[flag] for flag in page.often)


def _flags_in(label: str) -> list[str]:
    return label.replace(",", " ").replace("/", " ").split()


def _panels(parameters: Sequence[Any], command: str) -> Iterator[tuple[str, tuple[Entry, ...]]]:
    """The parameters as entries, panel by panel in the order of the first of each; help itself is the last."""
    panels: dict[str, list[Entry]] = {}
    for parameter in parameters:
        if not getattr(parameter, "hidden", False):
            panel = getattr(parameter, "rich_help_panel", None) or OTHER
            panels.setdefault(panel, []).append(Entry(_label(parameter), _told(parameter, command)))
    others = panels.pop(OTHER, [])
    yield from ((name, tuple(entries)) for name, entries in panels.items())
    yield OTHER, tuple(others)


def _label(parameter: Any) -> str:
    """As one types it: "-o, --output FILE", "--bias/--no-bias"."""
    metavar = parameter.metavar or ""
    if parameter.param_type_name == "argument":
        return metavar if parameter.required else f"[{metavar}]"
    flags = sorted(parameter.opts, key=len)
    names = ", ".join(flags) + "".join(f"/{name}" for name in parameter.secondary_opts)
    return f"{names} {metavar}" if metavar and not parameter.is_flag else names


def settled_for(command: str, words: str) -> str:
    """What is said of a default, for one command: "last; bench: all" is "all" for bench and "last" for others."""
    usual, *others = words.split("; ")
    for other in others:
        name, _, more = other.partition(" " if other.startswith(f"{command} ") else ": ")
        if name == command:
            return f"{usual}; {more}" if other.startswith(f"{command} ") else more
    return usual


def _told(parameter: Any, command: str) -> str:
    if parameter.name == "help":
        return "This page; -h is a short one."
    default = _default(parameter, command)
    told = parameter.help or ""
    return f"{told} [default: {default}]" if default else told


def _default(parameter: Any, command: str) -> str:
    """What stands where nothing is given, as one would type it; "" where nothing does."""
    shown, value = getattr(parameter, "show_default", None), parameter.default
    if isinstance(shown, str):
        return settled_for(command, shown)
    if parameter.param_type_name == "argument" or value is None or callable(value):
        return ""
    if parameter.is_flag:
        names = parameter.opts if value else parameter.secondary_opts
        return str(names[0]).removeprefix("--") if parameter.secondary_opts else ""
    return f"{value:g}" if isinstance(value, float) else str(value)
