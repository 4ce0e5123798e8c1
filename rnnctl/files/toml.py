"""TOML as --config and --model-arg have it, within limits: nothing that is written there takes for ever to read."""

import re
import tomllib
from pathlib import Path
from typing import Any

from rnnctl.errors import InputError
from rnnctl.files.reading import read_bytes

# Of a configuration, in bytes.
LARGEST = 2**20
# The parser looks at every beginning of a key: at one of 50,000 parts for a minute.
MOST_PARTS = 8
# Of a number that Python would not write out again, as of 4,300 digits; hexadecimal digits it reads without a limit.
MOST_BITS = 4096
TOO_LONG = "an integer has more than a thousand digits"

_PART = r"""(?:[\w-]++|"(?:\\.|[^"\\\n])*+"|'[^'\n]*+')"""
# Long texts and comments are passed over; every other text as a part, so that what stands in it is no key.
_TOKEN = re.compile(
    rf'"""(?s:.*?)"""|\'\'\'(?s:.*?)\'\'\'|#[^\n]*+|({_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MOST_PARTS}}})|{_PART}'
)


def read_toml(path: Path) -> dict[str, Any]:
    """What a configuration holds.

    Raises:
        InputError: it cannot be read, is larger than ``LARGEST``, or is not valid TOML.
    """
    data = read_bytes(path, LARGEST)
    try:
        return parsed_toml(data.decode().replace("\r\n", "\n"))
    except InputError as error:
        # What TOML allows and this does not.
        raise InputError(f"{path}: {error}") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None


def parsed_toml(text: str) -> dict[str, Any]:
    """What a text holds.

    Raises:
        InputError: it is beyond the limits.
        ValueError: it is no TOML.
    """
    if any(found[1] for found in _TOKEN.finditer(text)):
        raise InputError(f"a key has more than {MOST_PARTS} parts")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise InputError("lists or tables are nested too deeply to be read") from None
    # All else of it is about the digits of an integer.
    except ValueError:
        raise InputError(TOO_LONG) from None
    require_short_integers(tables)
    return tables


def require_short_integers(value: Any) -> None:
    """Raise InputError for an integer, however deep in lists and mappings, that is too long to be shown again."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, int) and each.bit_length() > MOST_BITS:
            raise InputError(TOO_LONG)
        left += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
