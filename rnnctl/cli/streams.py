"""Standard output and standard error, closed, full or narrow as they may be."""

import os
import sys
from contextlib import suppress

from rnnctl.errors import RnnctlError


def require_stdout() -> None:
    """Raise RnnctlError where standard output is closed, before anything is computed for it."""
    if sys.stdout is None:
        raise RnnctlError("standard output is closed, so the result has nowhere to go. Try -o FILE")


def write_stdout(text: str) -> None:
    """Write and flush; a pipe that was closed at the other end is nobody's error.

    Raises:
        RnnctlError: standard output is closed, or the disk behind it is full.
    """
    require_stdout()
    encoding = sys.stdout.encoding or "utf-8"
    try:
        # One letter that the encoding lacks must not lose the rest.
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_stdout()
    except OSError as error:
        abandon_stdout()
        raise RnnctlError(f"cannot write to standard output: {error.strerror or error}") from None


def abandon_stdout() -> None:
    """Send to nowhere what is still buffered, or the exit of Python would fail on it again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(message: str) -> None:
    """One message on stderr. Where that is closed, print would take stdout for it."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(message, file=sys.stderr)
