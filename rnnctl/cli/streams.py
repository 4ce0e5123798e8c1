"""Standard output and standard error, closed, full or narrow as they may be."""

import os
import shutil
import sys
from contextlib import suppress

from rnnctl.errors import RnnctlError
from rnnctl.view.numbers import printable_lines
from rnnctl.view.terminal import Terminal


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
    """One message on stderr: what it repeats of a file or of a model writes no control character there."""
    # Where that is closed, print would take stdout for it.
    if sys.stderr is not None:
        with suppress(OSError):
            print(printable_lines(message), file=sys.stderr)


def tell_error(message: str) -> None:
    """One error on stderr. Like a title it has no full stop at its end."""
    whole = message.endswith(".") and not message.endswith("...")
    tell(f"Error: {message[:-1] if whole else message}")


def screen(color: str = "auto") -> Terminal:
    """Width, colour and character set of standard output; no width where nobody watches.

    Args:
        color: auto, always or never; auto heeds NO_COLOR and FORCE_COLOR.
    """
    watched = sys.stdout is not None and sys.stdout.isatty()
    encoding = (sys.stdout and sys.stdout.encoding) or "ascii"
    return Terminal(
        width=shutil.get_terminal_size().columns if watched else None,
        color=_wants_color(color, watched),
        ascii_only=not encoding.lower().replace("-", "").startswith("utf"),
    )


def _wants_color(choice: str, watched: bool) -> bool:
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return watched and os.environ.get("TERM") != "dumb"
