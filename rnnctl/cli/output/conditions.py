"""``--fail-on``: conditions on a result, parsed and never evaluated as code."""

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from rnnctl.errors import InputError, RnnctlError, did_you_mean
from rnnctl.results import Answers
from rnnctl.view.words import word_of, words

# What a gradient is called, and what where nothing tells.
VERDICT, UNDECIDED = "verdict", "undecided"
COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
BOOLEANS = {"true": "1", "false": "0"}
# Of a sweep: what its runs say of a scalar together.
AGGREGATE = re.compile(r"(median|mean|min|max|p10|p90)\((\w+)\)")
_PATTERN = re.compile(r"\s*([A-Za-z_]\w*(?:\([A-Za-z_]\w*\))?)\s*(<=|>=|==|!=|<|>)\s*([^\s=<>!]\S*)\s*")
# A finding, which is never compared, may have a hyphen in its name.
_WORD = r"\s*[A-Za-z_]\w*(?:-\w+)*\s*"


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
    if re.fullmatch(_WORD, text):
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


def require_heard_of(conditions: Sequence[Condition]) -> None:
    """Raise InputError for a name that no result of any command has: without torch, which knows what each has."""
    for condition in conditions:
        aggregate = AGGREGATE.fullmatch(condition.name)
        name = aggregate[2] if aggregate else condition.name
        if word_of(name) is None:
            near = did_you_mean(name, (name for word in words() for name in word.names))
            raise InputError(f"--fail-on {condition.text!r}: no result has {name!r}.{near}")


def aggregated_names(texts: Sequence[str]) -> tuple[str, ...]:
    """The scalars whose aggregates conditions speak of: "median(factor_per_step)<0.5"."""
    found = (AGGREGATE.fullmatch(condition.name) for condition in parsed(texts))
    return tuple(match[2] for match in found if match is not None)


def require_aggregates(conditions: Sequence[Condition], counts: Collection[str]) -> None:
    """Raise InputError for a condition on a single scalar, of which every run of a sweep has one.

    Args:
        counts: what a grid point has beside aggregates.
    """
    for condition in conditions:
        if condition.comparison is None:
            raise InputError(
                f"--fail-on {condition.text!r} speaks of one run; a sweep compares median(...), mean, min, max, p10 or "
                f"p90 of a grid point, or {', '.join(counts)}"
            )
        if AGGREGATE.fullmatch(condition.name) is None and condition.name not in counts:
            raise InputError(
                f"--fail-on {condition.text!r}: every run has a {condition.name}; a sweep compares median(...), mean, "
                f"min, max, p10 or p90 of a grid point, such as 'median({condition.name})<1', or {', '.join(counts)}"
            )


def require_answerable(conditions: Sequence[Condition], answers: Sequence[Answers]) -> None:
    """Raise InputError for a condition that no result of this command can answer, whatever comes out.

    Args:
        answers: what each kind of result that may come out of it answers.
    """
    for condition in conditions:
        refusals = [_unanswerable(condition, each) for each in answers]
        if refusals and all(refusal is not None for refusal in refusals):
            raise InputError(f"--fail-on {condition.text!r}: {refusals[0]}")


def _unanswerable(condition: Condition, answers: Answers) -> str | None:
    """Why a result of this kind has no answer; None where it has one."""
    name, limit = condition.name, condition.limit
    if condition.comparison is None:
        if name in answers.words:
            return None
        words = (scalar for scalar, kind in answers.kinds.items() if isinstance(kind, tuple) and name in kind)
        if (scalar := next(words, None)) is not None:
            return f"{name} is what {scalar} may be; say '{scalar}=={name}'"
        return _why_unknown(name, answers.kinds, answers.words)
    kind = next((kind for pattern, kind in answers.kinds.items() if fnmatchcase(name, pattern)), None)
    if kind is None:
        return _why_unknown(name, answers.kinds, answers.words)
    if kind is float or kind is bool:
        what = "a number" if kind is float else "true or false"
        return f"{name} is {what}; compare it with {what}. Got {limit!r}" if isinstance(limit, str) else None
    if not isinstance(limit, str):
        return f"{name} is text; compare it with text, by == or !="
    if isinstance(kind, tuple) and limit not in kind:
        return f"{name} is one of {', '.join(kind)}; got {limit!r}.{did_you_mean(limit, kind)}"
    return None


def require_known(
    conditions: Sequence[Condition], scalars: Mapping[str, Any], words: Mapping[str, bool | None]
) -> None:
    """Raise InputError for a condition on something that this result does not have."""
    for condition in conditions:
        known: Mapping[str, Any] = words if condition.comparison is None else scalars
        if condition.name not in known:
            raise InputError(f"--fail-on {condition.text!r}: {_why_unknown(condition.name, scalars, words)}")


def _why_unknown(name: str, scalars: Collection[str], words: Collection[str]) -> str:
    if name in scalars:
        return f"{name} is a value; compare it with one, as in '{name}<1'"
    if name in words:
        return f"{name} stands alone, without a comparison"
    known = (*words, *scalars)
    return f"there is no {name!r} here; known are {', '.join(known)}.{did_you_mean(name, known)}"


def held(
    conditions: Sequence[Condition],
    scalars: Mapping[str, Any],
    words: Mapping[str, bool | None],
    why: Mapping[str, str] | None = None,
) -> list[str]:
    """What to say of every condition that holds.

    Args:
        why: of what has no value, the reason.
    Raises:
        RnnctlError: none holds, and nothing tells whether one of them does, which must not pass for a success.
    """
    unknown = [each for each in conditions if _is_unknown(each, scalars, words)]
    messages = [message for c in conditions if c not in unknown and (message := _held(c, scalars, words)) is not None]
    said = [_why_not_told(each, why or {}) for each in unknown]
    if said and not messages:
        raise RnnctlError("\n".join(said))
    return [*messages, *said]


def _is_unknown(condition: Condition, scalars: Mapping[str, Any], words: Mapping[str, bool | None]) -> bool:
    value = words[condition.name] if condition.comparison is None else scalars[condition.name]
    if condition.name == VERDICT and value != condition.limit:
        # Undecided itself, or of a weight that is not the one shown.
        return value == UNDECIDED or words.get(str(condition.limit), False) is None
    return value is None or (isinstance(value, float) and math.isnan(value))


def _why_not_told(condition: Condition, why: Mapping[str, str]) -> str:
    name = condition.name
    reason = why.get(str(condition.limit), why.get("vanishing")) if name == VERDICT else why.get(name)
    because = f": {reason}" if reason else ""
    if condition.comparison is None:
        return f"--fail-on {name}: it is not known{because}"
    if name == VERDICT:
        return f"--fail-on {condition.text!r}: the verdict is {UNDECIDED}{because}"
    return f"--fail-on {condition.text!r}: {name} has no value here{because or '; nothing to compare'}"


def _held(condition: Condition, scalars: Mapping[str, Any], words: Mapping[str, bool | None]) -> str | None:
    if condition.comparison is None:
        return f"--fail-on {condition.name}: it is so" if words[condition.name] else None
    value, limit = scalars[condition.name], condition.limit
    if isinstance(value, str) != isinstance(limit, str):
        kind = "text" if isinstance(value, str) else "a number"
        raise InputError(f"--fail-on {condition.text!r}: {condition.name} is {value!r}; compare it with {kind}")
    holds = COMPARISONS[condition.comparison](value, limit)
    return f"--fail-on {condition.text!r}: {condition.name} is {value}" if holds else None
