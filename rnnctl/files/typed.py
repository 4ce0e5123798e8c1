"""What names the user's code on the command line, as text: "package.module:name", and keywords as TOML has them."""

import os
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from rnnctl.errors import InputError, shortened
from rnnctl.files.toml import parsed_toml

BARE_WORD = re.compile(r"[A-Za-z_][\w.+/-]*")
# What is no text although it looks like one: TOML's own words, and Python's, which would be true as texts.
TOML_WORDS, PYTHON_WORDS = ("true", "false", "inf", "nan"), ("True", "False", "None")


def module_and_name(place: str, flag: str) -> tuple[str, str]:
    """The two parts of "package.module:name"; InputError where it is not of that form."""
    module, colon, name = place.partition(":")
    if not colon or not name or not all(module.split(".")) or "/" in module or module.endswith(".py"):
        raise InputError(
            f"{flag} must be package.module:name, as in 'train.models:build' (no path, no .py); got {place!r}"
        )
    return module, name


def make_importable(folder: str) -> None:
    """Let the folder's modules be found first."""
    if folder not in sys.path:
        sys.path.insert(0, folder)


def require_findable(place: str, flag: str) -> None:
    """Raise InputError where the first part of its module is nowhere to be found; nothing of it is imported."""
    first, folder = module_and_name(place, flag)[0].partition(".")[0], os.getcwd()
    make_importable(folder)
    if first in sys.modules:
        return
    try:
        found = find_spec(first)
    except ValueError:
        # Of a name that no module can have, such as "".
        found = None
    if found is None:
        raise missing_module(flag, first, folder)


def missing_module(flag: str, name: str, folder: str) -> InputError:
    """What to say of a module that is not there."""
    return InputError(f"{flag}: there is no module {name!r} in {folder!r} or where Python looks")


def keyword_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """name -> value of "name=value" texts, values as in TOML."""
    given: dict[str, Any] = {}
    for text in arguments:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise InputError(f"--model-arg must be name=value, as in hidden=20; got {shortened(repr(text))}")
        if name in given:
            raise InputError(f"--model-arg {name} is given twice")
        given[name] = _toml_value(value.strip(), text)
    return given


def _toml_value(value: str, text: str) -> Any:
    if value in PYTHON_WORDS:
        raise InputError(f"--model-arg {text!r}: values are as in TOML, true or false, and no None; a text has quotes")
    if BARE_WORD.fullmatch(value) and value not in TOML_WORDS:
        return value
    try:
        (found,) = parsed_toml(f"value = {value}").values()
    except InputError as error:
        raise InputError(f"--model-arg {shortened(repr(text))}: {error}") from None
    except ValueError:
        raise InputError(
            f"--model-arg {shortened(repr(text))}: {shortened(repr(value))} is no TOML value "
            "(20, 0.5, true, [1, 2], or a text: name='\"a b\"')"
        ) from None
    return found
