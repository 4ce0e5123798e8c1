"""Bytes from a path or standard input, and what to say where a parser cannot make sense of them."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rnnctl.errors import InputError
from rnnctl.files.sources import require_file
from rnnctl.memory import require_memory


def read_bytes(path: Path) -> bytes:
    """The whole file; InputError, naming it, where it cannot be read or does not fit into memory."""
    require_file(path)
    try:
        require_memory(os.stat(path).st_size, f"the file {str(path)!r}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror or error}") from None


def read_stdin() -> bytes:
    """All of standard input."""
    if sys.stdin is None:
        raise InputError("standard input is closed; there is nothing to read from -")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise InputError(f"cannot read standard input: {error.strerror or error}") from None


@contextmanager
def parsing(source: str, kind: str) -> Iterator[None]:
    """Within, whatever a foreign parser raises becomes an InputError: the bytes are not what they should be."""
    try:
        with warnings.catch_warnings():
            # They advise programmers on their arguments.
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    # numpy, zipfile, tokenize, zlib, torch: each has exceptions of its own for broken bytes.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{source} is not a readable .{kind} file: {reason}") from None
