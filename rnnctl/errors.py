"""What can go wrong, by whose hand: the message says what was expected, what came, what to try."""

from collections.abc import Callable, Iterable, Iterator
from types import CodeType
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

# In letters, of what quotes somebody: a few lines of a screen.
LONGEST_MESSAGE = 1000

# The code that hands over to the user's. What comes out of any other of ours is a bug of ours.
HANDING_OVER: set[CodeType] = set()


def hands_over(function: Function) -> Function:
    """Mark a function that hands over to the user's code, so that what is raised there keeps the user's traceback.

    It is returned as it is; what stands within it, such as a comprehension, is marked with it.
    """
    # By hand, because inspect takes its time to load, and every start loads this file.
    inner: Any = function
    while hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__
    HANDING_OVER.update(_with_inner(inner.__code__))
    return function


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    yield code
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _with_inner(part)


class RnnctlError(Exception):
    """Something that rnnctl foresaw; the command line prints it without a traceback."""


class InputError(RnnctlError, ValueError):
    """The user's input cannot be used: a flag, a file, a tensor, a configuration."""


class ShapeError(InputError):
    """A tensor has the wrong shape, or two tensors disagree on one."""


class DtypeError(InputError, TypeError):
    """A tensor has the wrong dtype, or two tensors disagree on one."""


class DeviceError(InputError):
    """A tensor is on the wrong device, or the device is not there."""


class TooLargeError(InputError):
    """The work does not fit into memory; found out before anything was allocated."""


class VerificationError(RnnctlError):
    """Two computations of one quantity disagree beyond their tolerance."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " Did you mean X?" with a leading space, or "" where nothing is near."""
    found = nearest(name, known)
    return f" Did you mean {found}?" if found is not None else ""


def nearest(name: str, known: Iterable[str], least: float = 0.6) -> str | None:
    """The known name that is nearest to a name; None where none has at least this share in common."""
    # Only where something went wrong: difflib takes its time to load.
    from difflib import get_close_matches

    by_lower = {candidate.lower(): candidate for candidate in known}
    found = get_close_matches(name.lower(), list(by_lower), n=1, cutoff=least)
    return by_lower[found[0]] if found else None


def shortened(message: str) -> str:
    """A message that quotes what somebody wrote, without its middle where that is very long."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    half = LONGEST_MESSAGE // 2
    return f"{message[:half]} ... {message[-half:]}"


def plain(name: object) -> str:
    """A dtype or layout of torch's as one says it: "float32"."""
    return str(name).removeprefix("torch.")


def with_article(name: str) -> str:
    """Such as "an LSTM": letters by themselves are spoken by their names, but for a GRU."""
    spoken = name[0] in ("AEFHILMNORSX" if name.isupper() else "AEIO")
    return f"{'an' if spoken else 'a'} {name}"
