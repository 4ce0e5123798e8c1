"""``--fail-on``: conditions on a result, parsed and never evaluated as code."""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rnnctl.errors import InputError, RnnctlError, did_you_mean

COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
BOOLEANS = {"true": "1", "false": "0"}
_PATTERN = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=|==|!=|<|>)\s*([^\s=<>!]\S*)\s*")


@dataclass(frozen=True)
class Condition:
    """``name comparison limit``, or a bare name that the result itself can answer."""

    text: str
    name: str
    comparison: str | None = None
    limit: float | str | None = None


def parsed(texts: Sequence[str]) -> tuple[Condition, ...]:
    """The conditions, or InputError for what is none; asked before anything is computed."""
    return tuple(_parsed(text) for text in texts)


def _parsed(text: str) -> Condition:
    if re.fullmatch(r"\s*[A-Za-z_]\w*\s*", text):
        return Condition(text, text.strip())
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise InputError(
            f"--fail-on {text!r}: expected a comparison of a scalar with a number, such as "
            "'factor_per_step<0.9', or vanishing, exploding, nonfinite"
        )
    name, comparison, limit = match.groups()
    limit = BOOLEANS.get(limit.lower(), limit)
    try:
        number = float(limit)
    except ValueError:
        if comparison not in ("==", "!="):
            raise InputError(f"--fail-on {text!r}: {limit!r} is no number to compare with") from None
        return Condition(text, name, comparison, limit)
    if math.isnan(number):
        raise InputError(f"--fail-on {text!r}: nothing compares with nan. Try --fail-on nonfinite")
    return Condition(text, name, comparison, number)


def require_known(conditions: Sequence[Condition], scalars: Mapping[str, Any], words: Mapping[str, bool]) -> None:
    """Raise InputError for a condition on something that this result does not have."""
    for condition in conditions:
        known: Mapping[str, Any] = words if condition.comparison is None else scalars
        if condition.name not in known:
            raise InputError(f"--fail-on {condition.text!r}: {_why_unknown(condition.name, scalars, words)}")


def _why_unknown(name: str, scalars: Mapping[str, Any], words: Mapping[str, bool]) -> str:
    if name in scalars:
        return f"{name} is a value; compare it with one, as in '{name}<1'"
    if name in words:
        return f"{name} stands alone, without a comparison"
    known = (*words, *scalars)
    return f"there is no {name!r} here; known are {', '.join(known)}.{did_you_mean(name, known)}"


def held(conditions: Sequence[Condition], scalars: Mapping[str, Any], words: Mapping[str, bool]) -> list[str]:
    """What to say of every condition that holds.

    Raises:
        RnnctlError: a scalar has no value to compare, which must not pass for a success.
    """
    return [message for c in conditions if (message := _held(c, scalars, words)) is not None]


def _held(condition: Condition, scalars: Mapping[str, Any], words: Mapping[str, bool]) -> str | None:
    if condition.comparison is None:
        return f"--fail-on {condition.name}: it is so" if words[condition.name] else None
    value, limit = scalars[condition.name], condition.limit
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise RnnctlError(f"--fail-on {condition.text!r}: {condition.name} has no value here; nothing to compare")
    if isinstance(value, str) != isinstance(limit, str):
        kind = "text" if isinstance(value, str) else "a number"
        raise InputError(f"--fail-on {condition.text!r}: {condition.name} is {value!r}; compare it with {kind}")
    holds = COMPARISONS[condition.comparison](value, limit)
    return f"--fail-on {condition.text!r}: {condition.name} is {value}" if holds else None
