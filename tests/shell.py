"""Running command lines in this process."""

import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from rnnctl.__main__ import main
from rnnctl.cli.app import app


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def runner(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Run:
    """Runs one command line in this folder and an environment without settings."""
    monkeypatch.chdir(folder)
    for name in list(os.environ):
        if name.startswith("RNNCTL_") or name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    # The folder is put there by --model.
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def ran(line: str, *more: str) -> Ran:
        capsys.readouterr()
        code = main([*line.split(), *more])
        return Ran(code, *capsys.readouterr())

    return ran


class InThisProcess(ThreadPoolExecutor):
    """In place of the worker processes of a sweep, which take seconds to start."""

    def __init__(self, count: int, load: Callable[[], None]) -> None:
        super().__init__(count)


@cache
def commands() -> Any:
    """The app's commands, built once: that takes longer than most of them run."""
    return typer.main.get_command(app)


def forget_modules_of(folder: Path) -> None:
    """Let no other test meet what was imported from a folder: called after the last run there."""
    tops = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
        del sys.modules[name]


def document(ran: Ran) -> Any:
    """The JSON on stdout, as strictly as the standard has it."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(ran.out, parse_constant=refuse)
