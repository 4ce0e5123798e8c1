"""The user's code runs: what it prints goes to stderr, what it raises keeps its traceback, without ours."""

import contextlib
import ctypes
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

from rnnctl.errors import HANDING_OVER, RnnctlError

PACKAGE = Path(__file__).parents[1]


class UserCodeError(RnnctlError):
    """The user's code raised; the text is its own traceback."""


@contextlib.contextmanager
def users_code(what: str) -> Iterator[None]:
    """Within, what is printed goes to stderr, and an error keeps the user's traceback, without our frames.

    Args:
        what: the user's name for it.
    Raises:
        UserCodeError: with that traceback as its text. An error of our own making passes as it is.
    """
    try:
        with _printing_on_stderr():
            yield
    except (RnnctlError, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise UserCodeError(f"{what} ended the program with exit({error.code!r})") from None
    except Exception as error:
        if not _is_users(error):
            raise
        raise UserCodeError(f"{what} raised:\n{_own_traceback(error)}") from None


@contextlib.contextmanager
def _printing_on_stderr() -> Iterator[None]:
    """What Python prints goes to stderr; to nowhere where that is closed."""
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr or nowhere))
        stack.enter_context(_writing_to(nowhere.fileno() if sys.__stderr__ is None else 2))
        yield


@contextlib.contextmanager
def _writing_to(descriptor: int) -> Iterator[None]:
    """What C code and child processes write to stdout goes to another descriptor."""
    if sys.__stdout__ is None:
        # Closed from the start: 1 may be any file by now.
        yield
        return
    _flush()
    kept = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        yield
    finally:
        _flush()
        os.dup2(kept, 1)
        os.close(kept)


def _flush() -> None:
    """Empty Python's and C's buffers of stdout, or they would follow to where it leads next."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.__stdout__.flush()  # type: ignore[union-attr]
    # Where there is no C library of that name (Windows), Python's buffer is all that can be emptied.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).fflush(None)


def _is_users(error: BaseException) -> bool:
    """Whether the last function of ours on the way to it was one that hands over to the user's code."""
    ours = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if _is_ours(frame)]
    return not ours or ours[-1].f_code in HANDING_OVER


def _is_ours(frame: FrameType) -> bool:
    return Path(frame.f_code.co_filename).is_relative_to(PACKAGE)


def _own_traceback(error: BaseException) -> str:
    """The traceback from where it was handed over, without the machinery of imports and without frames of ours."""
    start: TracebackType | None = error.__traceback__
    # From outside we are on the way down to the user's code; further in, hooks of ours may stand between.
    while start is not None and start.tb_next is not None and (_is_ours(start.tb_frame) or _imports(start.tb_frame)):
        start = start.tb_next
    told = traceback.TracebackException(type(error), error, start)
    ours = {(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(start) if _is_ours(frame)}
    kept = [frame for frame in told.stack if (frame.filename, frame.lineno) not in ours]
    told.stack = traceback.StackSummary.from_list(kept)
    return "".join(told.format()).rstrip()


def _imports(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name.startswith("<frozen importlib") or name == importlib.__file__
