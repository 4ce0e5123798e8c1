"""What a shell may complete: files, bundled names, words that are no file, commands, and columns of the given file."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from rnnctl.data import TIME_COLUMNS, bundled_csv
from rnnctl.errors import InputError

# So much of a file tells its columns.
HEAD = 65536


def input_names(incomplete: str) -> list[str]:
    """Bundled sequences, files, and standard input."""
    return [*_beginning(incomplete, (*TIME_COLUMNS, "-")), *_files(incomplete)]


def target_names(incomplete: str) -> list[str]:
    """Targets that are no file, and files."""
    return [*_beginning(incomplete, ("dummy", "next")), *_files(incomplete)]


def command_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """All commands."""
    commands: Any = ctx.find_root().command
    return _beginning(incomplete, commands.commands)


def chapter_names(incomplete: str) -> list[str]:
    """Chapters of the guide."""
    from rnnctl.view.guide import CHAPTERS

    return _beginning(incomplete, CHAPTERS)


def finding_names(incomplete: str) -> list[str]:
    """The ids of the doctor's findings."""
    from rnnctl.diagnosis.rule_ids import IDS

    return _beginning(incomplete, IDS)


def term_names(incomplete: str) -> list[str]:
    """Words that are explained; those of several words need quotes."""
    from rnnctl.view.words import words

    return _beginning(incomplete, (word.term for word in words()))


def column_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Columns of the file that --input gives; of several with commas between the last."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    names = [name for name in _columns(str(ctx.params.get("input") or "")) if name not in taken]
    return [f"{before}{comma}{name}" for name in _beginning(last, names)]


def _columns(source: str) -> tuple[str, ...]:
    # Not at the top: of all that is completed these alone read a file.
    from rnnctl.files.dialect import FROM_THE_FILE, grid
    from rnnctl.files.header import has_header

    try:
        cells = grid(_head(source), source, FROM_THE_FILE)
        rows = [row.cells for row in cells.rows]
        # A shell is told nothing of what is wrong with a file.
        named = bool(rows) and has_header(rows, cells.number)
    except (InputError, OSError, ValueError):
        return ()
    return tuple(name for name in rows[0] if name not in TIME_COLUMNS.get(source, ())) if named else ()


def _head(source: str) -> bytes:
    """The first lines of a file, whole ones, or a bundled sequence."""
    if source in TIME_COLUMNS:
        return bundled_csv(source)
    # Of a pipe a key of the shell would wait for.
    if not os.path.isfile(source):
        return b""
    with open(source, "rb") as file:
        head = file.read(HEAD)
    return head if len(head) < HEAD else head[: head.rfind(b"\n") + 1]


def _files(incomplete: str) -> list[str]:
    """Files and folders whose path begins so, folders with a slash."""
    folder, start = Path(incomplete).parent, incomplete.rpartition("/")[2]
    begun = incomplete[: len(incomplete) - len(start)]
    try:
        there = sorted((folder if not incomplete.endswith("/") else Path(incomplete)).iterdir())
    except OSError:
        return []
    hidden = start.startswith(".")
    names = [f"{path.name}{'/' if path.is_dir() else ''}" for path in there if hidden or not path.name.startswith(".")]
    return [begun + name for name in _beginning(start, names)]


def _beginning(start: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(start)]
