"""Bytes from a path or standard input, and what to say where a parser cannot make sense of them."""

import os
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rnnctl.errors import InputError, TooLargeError
from rnnctl.files.sources import require_file
from rnnctl.memory import available_bytes, in_words, require_memory

# What is read at a time where no size is known; a pipe holds 64 KiB.
CHUNK = 2**20


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The whole file, a pipe to its end.

    Args:
        most: bytes; None is what memory allows.
    Raises:
        InputError: naming it, where it cannot be read, or is larger than it may be (with both numbers).
    """
    require_file(path)
    name = f"the file {str(path)!r}"
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else 0
            if most is not None and size > most:
                raise TooLargeError(f"{name} holds {size:,} bytes; at most {most:,} are read of it")
            require_memory(size, name)
            # One more tells the end; a file that grows meanwhile is read on like a pipe.
            return _to_the_end(file, name, size + 1 if size else CHUNK, most)
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror or error}") from None


def read_stdin() -> bytes:
    """All of standard input, as far as memory allows."""
    if sys.stdin is None:
        raise InputError("standard input is closed; there is nothing to read from -")
    try:
        return _to_the_end(sys.stdin.buffer, "standard input", CHUNK, None)
    except OSError as error:
        raise InputError(f"cannot read standard input: {error.strerror or error}") from None


def _to_the_end(file: BinaryIO, name: str, first: int, most: int | None) -> bytes:
    """What is left of a file that may have no end: TooLargeError, with both numbers, where there is more than ``most``.

    Args:
        first: bytes of the first part; all others are of one size.
        most: None is as much as can be put together in memory.
    """
    parts, size, wanted = [], 0, first
    while part := file.read(wanted):
        parts.append(part)
        size, wanted = size + len(part), CHUNK
        if most is not None and size > most:
            raise TooLargeError(f"{name} goes on after {size:,} bytes; at most {most:,} are read of it")
        # Putting the parts together takes as much again.
        free = available_bytes() if len(parts) > 1 else None
        if free is not None and size > free:
            raise TooLargeError(f"{name} goes on after {in_words(size)}; {in_words(free)} of memory is available")
    return b"".join(parts)


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
