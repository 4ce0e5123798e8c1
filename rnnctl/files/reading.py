"""Bytes from a path or standard input, and what to say where a parser cannot make sense of them."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rnnctl.errors import InputError, TooLargeError
from rnnctl.files.sources import require_file
from rnnctl.memory import available_bytes, in_words, require_memory

# What is read at a time of what has no size.
CHUNK = 2**20
# Rows of the longest sequences are a fraction of it.
LONGEST_LINE = 2**30
# What has no size is put together, becomes an array, and a tensor and its like in the network: of the memory that is
# available it may be so small a part.
PARTS_OF_MEMORY = 8


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
            # 0 of a pipe, and of what a system makes while it is read.
            size = os.fstat(file.fileno()).st_size
            if not size:
                return _to_the_end(file, name, most)
            if most is not None and size > most:
                raise TooLargeError(f"{name} holds {size:,} bytes; at most {most:,} are read of it")
            require_memory(size, name)
            return file.readall()
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror or error}") from None


def read_lines(path: Path) -> Iterator[bytes]:
    """Every line without its end, one after the other: no more of a file is in memory than one of them.

    What has no size, such as a pipe, is read to its end first.

    Raises:
        InputError: as ``read_bytes``.
    """
    require_file(path)
    if not os.stat(path).st_size:
        yield from read_bytes(path).split(b"\n")
        return
    try:
        with open(path, "rb") as file:
            while line := file.readline(LONGEST_LINE):
                if len(line) == LONGEST_LINE:
                    raise TooLargeError(f"the file {str(path)!r} has a line of more than {in_words(LONGEST_LINE)}")
                yield line.removesuffix(b"\n")
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror or error}") from None


def read_stdin() -> bytes:
    """All of standard input, as far as memory allows."""
    if sys.stdin is None:
        raise InputError("standard input is closed; there is nothing to read from -")
    try:
        return _to_the_end(sys.stdin.buffer, "standard input")
    except OSError as error:
        raise InputError(f"cannot read standard input: {error.strerror or error}") from None


def _to_the_end(file: IO[bytes], name: str, most: int | None = None) -> bytes:
    """What is left of a file that may have no end; TooLargeError, with both numbers, where that is too much."""
    free = available_bytes()
    allowed = None if free is None else free // PARTS_OF_MEMORY
    parts, size = [], 0
    while part := file.read(CHUNK):
        parts.append(part)
        size += len(part)
        if most is not None and size > most:
            raise TooLargeError(f"{name} goes on after {size:,} bytes; at most {most:,} are read of it")
        if allowed is not None and size > allowed:
            raise TooLargeError(
                f"{name} goes on after {in_words(size)}; at most {in_words(allowed)} are read of what tells no size, "
                f"where {in_words(free or 0)} of memory is available"
            )
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
