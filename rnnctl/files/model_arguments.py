"""What a factory of the user's is called with, held against what it takes: --model-arg, one keyword each."""

import dis
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, get_overloads

from rnnctl.errors import InputError, did_you_mean

MISSING = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.+)")
UNEXPECTED = re.compile(r"got an unexpected keyword argument '(\w+)'")
BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
# Words in the name of a size -> an example of it; the first that fits. The input's is that of the data where known.
EXAMPLES = (({"out", "output", "outputs", "classes"}, "5"), ({"hidden", "hid", "units"}, "20"))
OF_INPUT = {"in", "input", "inputs", "features", "feature"}
BY_TYPE = {"int": "2", "float": "0.1", "bool": "true", "str": "text"}
# What --model-arg can give; a list does for a tuple.
GIVEN_TYPES = (int, float, bool, str, list, tuple, dict)


def require_takes(factory: Callable[..., Any], given: Mapping[str, Any], place: str, features: int | None) -> None:
    """Raise InputError where a factory's signature has other parameters than the keywords given.

    Args:
        place: the user's name for it.
        features: of the data, where they are known, for an example.
    """
    signature = _signature(factory)
    if signature is None:
        return
    parameters = signature.parameters.values()
    takes = {each.name: each for each in parameters if each.kind in BY_KEYWORD}
    if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        unknown = [name for name in given if name not in takes]
        if unknown:
            raise _unexpected(unknown, f"{place}{signature}", takes)
    needed = [each for each in parameters if each.default is inspect.Parameter.empty and each.name not in given]
    alone = [each.name for each in needed if each.kind is inspect.Parameter.POSITIONAL_ONLY]
    if alone:
        raise InputError(
            f"--model {place}{signature} takes {', '.join(alone)} by position alone, and --model-arg gives keywords. "
            "Name a function that calls it"
        )
    missing = {each.name: each.annotation for each in needed if each.kind in BY_KEYWORD}
    if missing:
        raise _missing(missing, place, features)


def not_taken_within(
    error: Exception, factory: Callable[..., Any], given: Mapping[str, Any], place: str, features: int | None
) -> InputError | None:
    """What to say where a factory hands its keywords on, and what it hands them to has other parameters; else None.

    Args:
        error: that it raised, caught where it was called.
        given, place, features: as of ``require_takes``.
    """
    # The first entry is the caller's, who has called the factory.
    if not isinstance(error, TypeError) or error.__traceback__ is None or not _handed_on(error.__traceback__.tb_next):
        return None
    missing, unexpected = MISSING.search(str(error)), UNEXPECTED.search(str(error))
    names = [] if missing is None else re.findall(r"'(\w+)'", missing[1])
    # What was given and is missing, or was not and is too much, has its reason in the user's code.
    if names and not any(name in given for name in names):
        return _missing(dict.fromkeys(names), place, features)
    if unexpected is not None and unexpected[1] in given:
        return _unexpected([unexpected[1]], f"{place}, which hands it on ({error}),", _known_to(factory))
    return None


def told(factory: Callable[..., Any], given: Mapping[str, Any], place: str) -> str:
    """What a factory was called with, for the end of a traceback of its own."""
    signature = _signature(factory)
    parameters = () if signature is None else signature.parameters.values()
    row = next((each.name for each in parameters if each.kind is inspect.Parameter.VAR_POSITIONAL), None)
    alone = "" if row is None else f"; --model-arg gives keywords, and nothing to *{row}: name a function that calls it"
    arguments = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return f"{place} was called with {arguments or 'no argument'}{alone}"


def _signature(factory: Callable[..., Any]) -> inspect.Signature | None:
    """With its parameters by name where it, or an overload of its class, says them; None where nothing does."""
    # torch's layers take *args and **kwargs, and say by overloads which.
    made_by = getattr(factory, "__init__", None) if isinstance(factory, type) else None
    try:
        for each in get_overloads(made_by) if inspect.isfunction(made_by) else ():
            first, *others = inspect.signature(each).parameters.values()
            if not any(other.kind is inspect.Parameter.VAR_KEYWORD for other in others):
                return inspect.Signature(others)
        return inspect.signature(factory)
    except (TypeError, ValueError):
        return None


def _handed_on(traceback: TracebackType | None) -> bool:
    """Whether every function on the way takes any keywords, and failed where it hands them on."""
    frames = []
    while traceback is not None:
        frames.append((traceback.tb_frame.f_code, traceback.tb_lasti))
        traceback = traceback.tb_next
    return bool(frames) and all(
        code.co_flags & inspect.CO_VARKEYWORDS and dis.opname[code.co_code[at]] == "CALL_FUNCTION_EX"
        for code, at in frames
    )


def _known_to(factory: Callable[..., Any]) -> Sequence[str]:
    """Names of parameters of a class and those that it inherits from, for a hint alone."""
    classes = factory.__mro__ if isinstance(factory, type) else ()
    found = (_signature(each) for each in classes)
    return [name for each in found if each is not None for name in each.parameters]


def _missing(missing: Mapping[str, Any], place: str, features: int | None) -> InputError:
    beyond = [f"{name}: {kind.__name__}" for name, kind in missing.items() if _is_beyond(kind)]
    if beyond:
        return InputError(
            f"--model {place} needs {', '.join(missing)}; --model-arg gives numbers, texts, lists and tables, and no "
            f"{', '.join(beyond)}. Name a function that calls it"
        )
    examples = " ".join(f"--model-arg {name}={_example(name, kind, features)}" for name, kind in missing.items())
    return InputError(f"--model {place} needs {', '.join(missing)}: add {examples}")


def _unexpected(unknown: Sequence[str], place: str, known: Mapping[str, Any] | Sequence[str]) -> InputError:
    return InputError(f"--model {place} takes no {', '.join(unknown)}.{did_you_mean(unknown[0], known)}")


def _example(name: str, kind: Any, features: int | None) -> str:
    words = set(name.lower().split("_"))
    by_name = ((OF_INPUT, str(features or 3)),)
    # An annotation may be a text, too.
    by_type = BY_TYPE.get(str(getattr(kind, "__name__", kind)), "VALUE")
    return next((text for fit, text in (*EXAMPLES, *by_name) if fit & words), by_type)


def _is_beyond(kind: Any) -> bool:
    """Whether an annotation is a class of which no value of --model-arg is one."""
    if not isinstance(kind, type) or kind in (inspect.Parameter.empty, Any):
        return False
    try:
        return not any(issubclass(each, kind) for each in GIVEN_TYPES)
    except TypeError:
        # A protocol or a typed dict says nothing about classes.
        return False
