"""The blocks of the README and of the guide: what they are, and whether what a run prints is what they show."""

import contextlib
import io
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shell import Run

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?(?![\w.]*\w)")
# Below this, a relative error is rounding and may be any number.
ROUNDING = 1e-5
# A block that begins so is a file of this name.
FILE_NAME = re.compile(r"# ([\w.]+\.(?:py|toml|csv))\n")


class Block(NamedTuple):
    """A block of a document, with the output that stands behind one of Python."""

    language: str
    text: str
    shown: str | None


def blocks_of(document: str) -> list[Block]:
    """The blocks in their order; outputs of Python are with what prints them, formulas are none."""
    found = [(language, text) for language, text in BLOCK.findall(document) if language]
    following = [*found[1:], ("", "")]
    return [
        Block(language, text, after[1] if language == "python" and after[0] == "text" else None)
        for (language, text), after in zip(found, following, strict=True)
        if language != "text"
    ]


def commands(block: str) -> list[tuple[str, str]]:
    """(command, expected output) of a console block."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in found]


def words_and_numbers(text: str) -> tuple[str, list[float]]:
    """Text without its numbers, bars and spacing; and the numbers."""
    numbers = [float(n.replace(",", "")) for n in NUMBER.findall(text)]
    return re.sub(r"[\s▏▎▍▌▋▊▉█─]+", " ", NUMBER.sub("#", text)).strip(), numbers


def assert_alike(found: str, expected: str) -> None:
    """The same words; numbers within 2 % where they are no rounding."""
    (words, numbers), (expected_words, expected_numbers) = words_and_numbers(found), words_and_numbers(expected)
    assert words == expected_words, f"{words}\nis not\n{expected_words}"
    for number, wanted in zip(numbers, expected_numbers, strict=True):
        assert math.isclose(number, wanted, rel_tol=0.02, abs_tol=ROUNDING), (number, wanted)


def assert_same_run(found: str, shown: str) -> None:
    """Of a training run, which may carry rounding from one shade of the picture into the next, the outline alone."""
    lines, expected = ([line for line in text.splitlines() if line.strip()] for text in (found, shown))
    assert len(lines) == len(expected), found
    assert words_and_numbers(found)[0].split()[:4] == words_and_numbers(shown)[0].split()[:4]


def outputs(block: Block, run: Run, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Run a block in a folder: (what ran, what it printed, what the document shows) of each part that shows something.

    Plain lines of rnnctl run in this process, a shell only where a pipe, a loop or another program is shown.
    """
    if named := FILE_NAME.match(block.text):
        (folder / named[1]).write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        assert block.shown is not None, "a block of Python is a file or prints something"
        yield block.text.splitlines()[-1], _printed(block.text), block.shown
    elif block.language == "console":
        for command, shown in commands(block.text):
            yield command, _ran(command, run), shown
    elif block.language == "sh" and all(map(_is_plain, block.text.splitlines())):
        for line in block.text.splitlines():
            _ran(line, run)
    else:
        assert block.language == "sh", block.language
        run_in_a_shell(block.text, folder)


def _ran(command: str, run: Run) -> str:
    program, *arguments = shlex.split(command)
    assert program == "rnnctl"
    ran = run("", *arguments)
    assert ran.code == 0, ran.err
    return ran.out


def _printed(code: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "block", "exec"), {})
    return printed.getvalue()


def _is_plain(line: str) -> bool:
    words = list(shlex.shlex(line, posix=True, punctuation_chars=True))
    return words[0] == "rnnctl" and not {"|", ">", "<", ";", "&&", "$"} & set(words)


def run_in_a_shell(text: str, folder: Path) -> None:
    """Run lines of bash there, with the rnnctl of this environment; a line that fails fails the test."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
