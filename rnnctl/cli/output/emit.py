"""From a result to stdout or a file, and to the exit code."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from rnnctl.cli.exits import ExitCode
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.output.conditions import (
    Condition,
    held,
    parsed,
    require_answerable,
    require_heard_of,
    require_known,
)
from rnnctl.cli.streams import require_stdout, screen, tell, write_stdout
from rnnctl.cli.versions import named
from rnnctl.errors import InputError, RnnctlError
from rnnctl.results import Answers, Result

# Made only where somebody asks: the kinds of results are declared beside them, where torch is loaded.
Asked = Callable[[], Sequence[Answers]] | None
MOST_MESSAGES = 20
SUFFIXES = {".json": "json", ".jsonl": "jsonl", ".csv": "csv"}


def require_output(out: OutputOptions, answers: Asked = None) -> None:
    """Refuse what can be refused before anything is computed: formats, conditions, a closed stdout.

    Args:
        answers: makes what each kind of result that may come out can be asked.
    """
    chosen_format(out)
    conditions = parsed(out.fail_on or ())
    require_heard_of(conditions)
    if conditions and answers is not None:
        require_answerable(conditions, answers())
    if out.output is None:
        return require_stdout()
    require_named("-o", out.output, "result.json")
    from rnnctl.files.writing import require_writable

    require_writable(out.output, force=out.force)


def require_not_read(written: Path | None, *sources: str | Path | None) -> None:
    """Raise InputError where a file that is to be written is among those that are read."""
    read = {_place(source) for source in sources if source is not None and source != "-"}
    if written is not None and _place(written) in read:
        raise InputError(f"{str(written)!r} is read by this very command; write to another file")


def require_named(flag: str, path: Path, example: str) -> None:
    """Raise InputError for a name without letters, as a variable that is not set makes it."""
    # Of "" a path is ".", too.
    if path == Path():
        raise InputError(f"{flag} is empty, or '.', which is a folder; name a file, such as {flag} {example}")


def require_apart(written: Mapping[str, Path | None]) -> None:
    """Raise InputError where two files that are to be written, by their flags, are one."""
    flags = dict[str, str]()
    for flag, path in written.items():
        if path is not None and (other := flags.setdefault(_place(path), flag)) != flag:
            raise InputError(f"{other} and {flag} both name {str(path)!r}; give each a file of its own")


def _place(path: str | Path) -> str:
    """Where links lead to; of what is no path, which whoever opens it says, itself."""
    try:
        # Not Path.resolve: it fails where a link leads to itself.
        return os.path.realpath(path)
    except ValueError:
        return str(path)


def chosen_format(out: OutputOptions) -> str:
    """table, json, jsonl or csv."""
    if out.json and out.format not in (None, "json"):
        raise InputError(f"--json and --format {out.format} contradict each other; give one of them")
    if out.json:
        return "json"
    by_suffix = SUFFIXES.get(out.output.suffix.lower(), "table") if out.output else "table"
    return out.format or by_suffix


def emit(result: Result, config: Mapping[str, Any], out: OutputOptions, failures: Sequence[str] = ()) -> None:
    """Show or write the result, its notes told before, its remarks after; exit 3 where a --fail-on condition holds.

    Args:
        failures: what else makes the exit code 3, to be said.
    Raises:
        typer.Exit: a condition held, or there are failures.
        InputError: a condition names what the result does not have.
    """
    tell_notes(result.notes, out)
    deliver(text_of(result, config, out, chosen_format(out), out.only), out)
    tell_notes(result.remarks, out)
    judge(result, out, failures)


def text_of(result: Result, config: Mapping[str, Any], out: OutputOptions, form: str, only: str | None = None) -> str:
    """The result in a format, all of it or one part."""
    from rnnctl.view.render import rendered
    from rnnctl.view.terminal import View

    view = View(form, only, out.all, terminal(out))
    return rendered(result, view, config, named())


def deliver(text: str, out: OutputOptions) -> None:
    """Write to --output, whole or not at all, or to stdout."""
    if out.output is None:
        write_stdout(text)
        return
    from rnnctl.files.writing import write_whole

    tell_notes((write_whole(out.output, text.encode("utf-8", "backslashreplace")),), out)


def tell_notes(notes: Iterable[str], out: OutputOptions) -> None:
    """One line on stderr for each of them, unless --quiet."""
    if not out.quiet:
        for note in notes:
            tell(f"Note: {note}")


def judge(result: Result, out: OutputOptions, failures: Sequence[str] = ()) -> None:
    """Exit 3 where a --fail-on condition holds or there are failures, saying which."""
    # First, so that a condition on something unknown does not hide them.
    for failure in failures:
        tell(failure)
    messages = _messages(result, parsed(out.fail_on or ()))
    for message in messages:
        tell(message)
    if failures or messages:
        raise typer.Exit(ExitCode.CONDITION_HELD)


def _messages(result: Result, conditions: Sequence[Condition]) -> list[str]:
    """What to say of every condition that holds, wherever; RnnctlError where none does, and it is not known of one."""
    messages, unknown = list[str](), list[str]()
    for where, scalars in result.judged_cases:
        require_known(conditions, scalars, result.conditions)
        at = f" at {where}" if where else ""
        try:
            messages += [message + at for message in held(conditions, scalars, result.conditions, result.why)]
        except RnnctlError as error:
            unknown += [str(error) + at]
    if unknown and not messages:
        raise RnnctlError("\n".join(_first(unknown)))
    return _first([*messages, *unknown])


def _first(messages: list[str]) -> list[str]:
    """No more of them than a screen has room for."""
    left_out = len(messages) - MOST_MESSAGES
    return messages if left_out <= 0 else [*messages[:MOST_MESSAGES], f"... and {left_out} more"]


def terminal(out: OutputOptions) -> Any:
    """Width, colour and character set of where the text goes."""
    from rnnctl.view.terminal import Terminal

    return Terminal() if out.output is not None else screen(out.color)
