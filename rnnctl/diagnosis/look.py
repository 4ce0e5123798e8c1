"""What a rule of the doctor is, and what one look at a patient finds."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rnnctl.diagnosis.patient import Patient

Severity = Literal["fault", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "note")


@dataclass(frozen=True)
class Evidence:
    """What shows a finding.

    Attributes:
        question: of rnnctl, "gradnorm"; "doctor" where no other shows the number: it is asked for this finding alone.
        flags: what it is asked beside what the doctor was, as flags.
        keywords: the same in Python.
    """

    question: str
    flags: str = ""
    keywords: str = ""


@dataclass(frozen=True)
class Look:
    """What was found of one rule.

    Attributes:
        found: whether it holds; None where it was not looked at, or cannot be told.
        number: what was measured; None where there is no one number.
        threshold: what it is held against.
        excess: how far the number is beyond it, from 0 to 1.
        severity: of what is found.
        sentence: what was found, for somebody who begins.
        why: why nothing can be told, where that is so.
        evidence: what shows it, where that is not what shows every finding of the rule.
        weight_name: of several recurrent weights the one that it is about, for questions that take one; "" of one.
    """

    found: bool | None
    number: float | None = None
    threshold: float | None = None
    excess: float = 0.0
    severity: Severity = "fault"
    sentence: str = ""
    why: str = ""
    evidence: Evidence | None = None
    weight_name: str = ""

    def as_warning(self, holds: bool) -> "Look":
        """The same, less grave where that holds."""
        return replace(self, severity="warning") if holds else self


@dataclass(frozen=True)
class Rule:
    """One finding that there may be.

    Attributes:
        id: its name, as --fail-on and --only-finding take it.
        measured: what is measured, in words.
        threshold: when it holds, in words.
        remedy: what to do then.
        look: does it.
        evidence: what shows it.
        explains: the findings that may follow from this one.
        of_weight: whether it is about a recurrent weight.
    """

    id: str
    measured: str
    threshold: str
    remedy: str
    look: "Callable[[Patient], Look]"
    evidence: Evidence
    explains: tuple[str, ...] = ()
    of_weight: bool = True


def unknown(why: str) -> Look:
    """Nothing can be told."""
    return Look(None, why=why)


def held(number: float, threshold: float, holds: bool, sentence: str) -> Look:
    """A number against a threshold, whose weight goes with the orders of magnitude between the two."""
    return Look(holds, number, threshold, beyond(number, threshold) if holds else 0.0, sentence=sentence)


def held_share(share: float, threshold: float, sentence: str) -> Look:
    """A share from 0 to 1 that is not to reach a threshold; half of its weight is that it does."""
    holds = share >= threshold
    weight = 0.5 + 0.5 * (share - threshold) / max(1 - threshold, 1e-12) if holds else 0.0
    return Look(holds, share, threshold, min(weight, 1.0), sentence=sentence)


def beyond(number: float, threshold: float) -> float:
    """From 0, at the threshold, towards 1 with the orders of magnitude between the two, in either direction."""
    ratio = abs(number / threshold) if threshold else math.inf
    if ratio == 0 or not math.isfinite(ratio):
        return 1.0
    orders = abs(math.log10(ratio))
    return orders / (1 + orders)
