"""What a report says first: the answer to its question in a few words, and why."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from rnnctl.results import Record, Result
from rnnctl.view.grid_axes import axes_of, is_of_numbers, labels_of
from rnnctl.view.layouts.table import LAYOUTS
from rnnctl.view.numbers import counted_words, number
from rnnctl.view.scalars import VERDICT_STYLES

# The field by which rows are findings.
FINDING = "finding"
# Of a value beside a critical one.
SIDES = BELOW, _, ABOVE = "below", "at", "above"
# Of more than so many the sides are counted.
MOST_CROSSINGS = 3
# How bad a finding is, and how its card looks.
TONES = {"fault": "bad", "warning": "warn", "note": "plain"}


class Verdict(NamedTuple):
    """The answer.

    Attributes:
        word: the answer itself, such as "vanishing".
        sentence: with its number and why.
        tone: "bad", "good", "warn" or "plain".
    """

    word: str
    sentence: str
    tone: str = "plain"


class Finding(NamedTuple):
    """One of several answers, worst first: which, how bad, in a sentence, and the record that it is of."""

    name: str
    severity: str
    sentence: str
    row: Record

    @property
    def tone(self) -> str:
        """How its card looks."""
        return TONES.get(self.severity, "plain")


def findings(result: Result) -> tuple[Finding, ...]:
    """Those of a result whose rows are findings: what each says in a sentence."""
    rows = result.rows if _finds(result) else ()
    return tuple(Finding(str(row[FINDING]), str(row["severity"]), str(row["sentence"]), row) for row in rows)


def _finds(result: Result) -> bool:
    """Whether its rows are findings, as its layout tells: of other kinds the rows may be millions."""
    tables = LAYOUTS[result.schema].tables if result.schema in LAYOUTS else ()
    return any(column.field == FINDING for table in tables for column in table.columns)


def verdict(result: Result) -> Verdict | None:
    """The answer of a result; None of one that is no answer to a question."""
    if _finds(result):
        return _of_findings(findings(result), result.scalars)
    if "verdict" in result.scalars:
        return _of_gradient(result.scalars)
    if result.schema == "sweep":
        return _of_sweep(result)
    made = VERDICTS.get(result.schema)
    return None if made is None else made(result.scalars, result.why)


def _of_findings(found: tuple[Finding, ...], scalars: Record) -> Verdict:
    if not found:
        word = scalars.get("verdict", "nothing found")
        below = "what was looked at, and what was not and why, stands below"
        return Verdict(word, below, "good" if word == "nothing found" else "warn")
    first = found[0]
    others = f". {len(found) - 1} more below" if found[1:] else ""
    return Verdict(first.name, f"{first.sentence}{others}", first.tone)


def _of_gradient(scalars: Record) -> Verdict:
    word, factor = str(scalars["verdict"]), scalars.get("factor_per_step")
    style = VERDICT_STYLES.get(word, "")
    tone = "bad" if "red" in style else "good" if "green" in style else "warn"
    by = "" if factor is None else f"Each step back multiplies d(last loss)/dh by {number(factor)}; "
    weight = f"{scalars['weight']}: " if "weight" in scalars else ""
    return Verdict(word, f"{weight}{by}{scalars['reason']}", tone)


def _of_flow(scalars: Record, why: Mapping[str, str]) -> Verdict:
    if (reason := scalars["nonfinite_reason"]) is not None:
        return Verdict("nonfinite", reason, "bad")
    lag, seq_len = scalars["lag_to_one_percent"], scalars["seq_len"]
    if lag is None:
        return Verdict("no fall to 1 %", why.get("lag_to_one_percent", ""))
    said = f"The gradient of a loss has fallen to 1 % after {lag} steps back (median over all losses; T is {seq_len})"
    return Verdict(f"1 % after {lag} {'step' if lag == 1 else 'steps'}", said)


def _of_truncation(scalars: Record, why: Mapping[str, str]) -> Verdict:
    if (reason := scalars["nonfinite_reason"]) is not None:
        return Verdict("nonfinite", reason, "bad")
    window, seq_len = scalars["window_for_cosine_99"], scalars["seq_len"]
    if window is None:
        return Verdict("no window", why.get("window_for_cosine_99", ""), "warn")
    said = f"From a window of {window} steps on the cosine to the full gradient is at least 0.99; T is {seq_len}"
    return Verdict(f"window {window}", said)


def _of_matrix(scalars: Record, why: Mapping[str, str]) -> Verdict:
    radius = scalars["spectral_radius"]
    if radius is None:
        return _of_steps(scalars, why)
    certified = scalars["norm_bound_certifies"] == "vanishing"
    bound = "a bound certifies that the gradient vanishes" if certified else "no bound certifies that it vanishes"
    norm = number(scalars["spectral_norm"])
    said = f"W_hh has spectral radius {number(radius)} and spectral norm {norm}; {bound}, whatever the input"
    return Verdict(f"radius {number(radius)}", said, "bad" if certified else "plain")


def _of_steps(scalars: Record, why: Mapping[str, str]) -> Verdict:
    norm = scalars["jacobian_norm_mean"]
    if norm is None:
        return Verdict("not known", why.get("jacobian_norm_mean", ""), "warn")
    said = f"The largest singular value of J_t = d {scalars['state']} / d state_(t-1) is {number(norm)} in the mean"
    return Verdict(f"factor {number(norm)}", f"{said}, over all steps and sequences")


def _of_lyapunov(scalars: Record, why: Mapping[str, str]) -> Verdict:
    largest, error = scalars["largest"], scalars.get("largest_stderr")
    if largest is None or math.isnan(largest):
        return Verdict("not known", why.get("largest", "it is not a number"), "warn")
    told = f"The largest exponent is {number(largest)}{'' if error is None else f' ± {number(error)}'} nats per step"
    if scalars["marginal"]:
        return Verdict("marginal", f"{told}: within its error of 0")
    if largest <= 0:
        return Verdict("contracting", f"{told}: nearby states meet, and gradients fade")
    if error is None:
        unknown = why.get("largest_stderr", "too few steps")
        return Verdict("above 0", f"{told}; its error is not known: {unknown}", "warn")
    return Verdict("chaotic", f"{told}: nearby states part, and gradients grow", "bad")


def _of_history(scalars: Record, why: Mapping[str, str]) -> Verdict:
    if scalars["nonfinite_steps"]:
        return Verdict("nonfinite", f"{scalars['nonfinite_steps']} of the probed training steps are not finite", "bad")
    first, last = scalars["reach_at_first_step"], scalars["reach_at_last_step"]
    said = f"{number(first)} at training step {scalars['first_step']}, {number(last)} at {scalars['last_step']}"
    return Verdict(f"reach {number(last)}", f"The gradient at the far end of the recurrence over the near end: {said}")


def _of_sweep(result: Result) -> Verdict:
    scalars, known = result.scalars, [row for row in result.rows if _is_number(row["median"])]
    value, critical = str(scalars["value"]), scalars["critical"]
    without = len(result.rows) - len(known)
    rest = f"; {counted_words(without, 'grid point')} without a number" if without else ""
    rest += f"; {scalars['failed']} of {counted_words(scalars['runs'], 'run')} failed" if scalars["failed"] else ""
    tone = "warn" if rest else "plain"
    if not known:
        return Verdict("not known", f"no grid point has a {value}{rest}", "warn")
    if critical is None:
        low, high = (pick(row["median"] for row in known) for pick in (min, max))
        told = f"The median of {value} is between {number(low)} and {number(high)} at {_points(len(known))}{rest}"
        return Verdict(f"{number(low)} to {number(high)}", told, tone)
    return _of_sides(value, critical, known, rest, tone)


def _of_sides(value: str, critical: float, known: list[Record], rest: str, tone: str) -> Verdict:
    """On which side of the critical value the medians are, and between which settings that changes."""
    limit, sides = number(critical), [_side(row["median"], critical) for row in known]
    if len(set(sides)) == 1:
        word = f"{sides[0]} {limit}"
        return Verdict(word, f"The median of {value} is {word} at {_points(len(known))}{rest}", tone)
    counts = (f"{side} {limit} at {sides.count(side):,}" for side in SIDES if side in sides)
    told = f"Of {len(known):,} grid points the median of {value} is {' and '.join(counts)}"
    crossed = _crossings([row for row in known if row["median"] != critical], critical)
    if 0 < len(crossed) <= MOST_CROSSINGS:
        told = f"The median of {value} crosses {limit} {' and '.join(crossed)}"
    word = "at most" if ABOVE not in sides else "at least" if BELOW not in sides else "crosses"
    return Verdict(f"{word} {limit}", f"{told}{rest}", tone)


def _crossings(known: list[Record], critical: float) -> list[str]:
    """Between which neighbours along a single axis of numbers; none of other grids."""
    varied = {name: values for name, values in axes_of(known).items() if len(values) > 1}
    if len(varied) != 1 or not is_of_numbers(next(iter(varied.values()))):
        return []
    ((name, values),) = varied.items()
    labels, places = labels_of(values), sorted(known, key=lambda row: row[name])
    return [
        f"between {name} {labels[i]} and {labels[i + 1]}"
        for i, (before, after) in enumerate(pairwise(places))
        if _side(before["median"], critical) != _side(after["median"], critical)
    ]


def _side(value: float, critical: float) -> str:
    return SIDES[(value > critical) - (value < critical) + 1]


def _is_number(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _points(count: int) -> str:
    return "the only grid point" if count == 1 else f"all {count:,} grid points"


VERDICTS: Mapping[str, Callable[[Any, Mapping[str, str]], Verdict]] = {
    "flow": _of_flow,
    "truncation": _of_truncation,
    "spectrum": _of_matrix,
    "spectrum-gates": _of_steps,
    "spectrum-steps": _of_matrix,
    "lyapunov": _of_lyapunov,
    "gradnorm-history": _of_history,
}
