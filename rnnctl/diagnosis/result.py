"""A diagnosis: what was found, ranked by evidence, what was looked at and found well, and what was not looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

from rnnctl.diagnosis.look import SEVERITIES, Evidence, Look, Rule
from rnnctl.diagnosis.rule_ids import IDS
from rnnctl.results import Kind, Result, numbers
from rnnctl.view.shown import Shown

NOTHING, NOT_KNOWN = "nothing found", "not known"
# Questions that are about one recurrent weight, which has to be named where there are several.
OF_ONE_WEIGHT = ("lyapunov", "spectrum", "truncation")
LEFT_OUT = "it was left out (--only-finding, --skip-finding)"


@dataclass(frozen=True, eq=False)
class Diagnosis(Shown, Result):
    """What the doctor says of a network.

    Attributes:
        looks: by the id of a rule what was found; of all rules that were looked at.
        rules: all of them, in their order.
        commands: question -> the command, or the words of Python, that ask it of this network.
        lag: how far back the task reaches, or None.
        lag_from: "given", "estimated" or "not known"; ``lag_words`` what that rests on.
        reach: how much of the state's gradient is left over the lag, or None with ``why_no_reach``.
        train_steps, seeds: of the short trainings.
        remedies: what was tried, one record each.
        recurs: whether a recurrent weight was seen in it: of others nothing is said to be well.
        recurrent: the name of its recurrent weight; None where there are several, of which a finding names its own.
        seconds: what each rule cost, with what it was the first to ask for; None where nobody asks.
    """

    schema: ClassVar[str] = "doctor"
    kinds: ClassVar[Mapping[str, Kind]] = {
        "verdict": (NOTHING, NOT_KNOWN, *IDS),
        **numbers("findings", "faults", "warnings", "notes", "looked_at", "not_looked_at", "lag", "reach"),
        "lag_from": ("given", "estimated", "not known"),
        **numbers("train_steps", "seeds"),
    }
    words: ClassVar[tuple[str, ...]] = IDS

    looks: Mapping[str, Look]
    rules: Sequence[Rule] = field(repr=False)
    commands: Mapping[str, str]
    lag: int | None
    lag_from: str
    lag_words: str
    reach: float | None
    why_no_reach: str
    train_steps: int
    seeds: int
    recurs: bool = True
    recurrent: str | None = None
    remedies: Sequence[Mapping[str, Any]] = ()
    seconds: Mapping[str, float] | None = None

    @cached_property
    def found(self) -> tuple[str, ...]:
        """The ids of what was found: the gravest first, causes before consequences, then by how far each is beyond."""
        held = [rule for rule in self.rules if self._look(rule).found]
        by_id = {rule.id: rule for rule in held}

        def place(rule: Rule) -> tuple[int, int, float]:
            look = self._look(rule)
            return SEVERITIES.index(look.severity), len(_causes(rule.id, by_id)), -look.excess

        return tuple(rule.id for rule in sorted(held, key=place))

    def _look(self, rule: Rule) -> Look:
        return self.looks.get(rule.id, Look(None, why=LEFT_OUT))

    @cached_property
    def scalars(self) -> Mapping[str, Any]:
        """What comes first, how much was found, and over which lag it was judged."""
        severities = [self.looks[each].severity for each in self.found]
        unseen = sum(self._look(rule).found is None for rule in self.rules)
        return MappingProxyType(
            {
                "verdict": self.verdict,
                "findings": len(self.found),
                "faults": severities.count("fault"),
                "warnings": severities.count("warning"),
                "notes": severities.count("note"),
                "looked_at": len(self.rules) - unseen,
                "not_looked_at": unseen,
                "lag": self.lag,
                "lag_from": self.lag_from,
                "reach": self.reach,
                "train_steps": self.train_steps,
                "seeds": self.seeds if self.train_steps else None,
            }
        )

    @property
    def verdict(self) -> str:
        """The first of the findings, or that there is none; "not known" where too little was seen to say so."""
        unseen = sum(look.found is None for look in self.looks.values())
        if self.found:
            return self.found[0]
        return NOTHING if self.recurs and 2 * unseen <= len(self.looks) else NOT_KNOWN

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One record per finding, in the order of ``found``."""
        by_id = {rule.id: rule for rule in self.rules}
        return tuple(self._row(by_id[each]) for each in self.found)

    def _row(self, rule: Rule) -> Mapping[str, Any]:
        look = self._look(rule)
        return {
            "finding": rule.id,
            "severity": look.severity,
            "weight": look.weight_name or (self.recurrent if rule.of_weight else None),
            "number": look.number,
            "threshold": look.threshold,
            "sentence": look.sentence,
            "evidence": self._evidence(rule, look),
            "remedy": rule.remedy,
        }

    def _evidence(self, rule: Rule, look: Look) -> str:
        """The command, or the call of Python, that shows a finding."""
        shows = look.evidence or rule.evidence
        if shows.question == "doctor":
            shows = Evidence("doctor", f"--only-finding {rule.id}", f"only_finding={rule.id!r}")
        command = self.commands[shows.question]
        name = look.weight_name if shows.question in OF_ONE_WEIGHT else ""
        if not command.startswith("rnnctl "):
            more = [part for part in (shows.keywords, f"only={name!r}" if name else "") if part]
            return ", ".join([command.removesuffix(")"), *more]) + ")"
        name = "" if "--module" in command else name
        return " ".join(part for part in (command, shows.flags, f"--module {name}" if name else "") if part)

    @cached_property
    def more(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """looked_at: every rule, whether it holds, and why that is not known; remedies: what was tried; timings."""
        looked_at = [self._looked_at(rule) for rule in self.rules]
        timings = [{"finding": name, "seconds": cost} for name, cost in (self.seconds or {}).items()]
        return {"looked_at": looked_at, "remedies": list(self.remedies), "timings": timings}

    def _looked_at(self, rule: Rule) -> Mapping[str, Any]:
        look = self._look(rule)
        return {
            "finding": rule.id,
            "found": look.found,
            "number": look.number,
            "threshold": look.threshold,
            "measured": rule.measured,
            "why": look.why,
        }

    @property
    def conditions(self) -> Mapping[str, bool | None]:
        """Every finding, and whether it holds; None where it was not looked at."""
        return {rule.id: self._look(rule).found for rule in self.rules}

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None, and of every finding that nothing tells."""
        unknown = {rule.id: self._look(rule).why for rule in self.rules if self._look(rule).found is None}
        return {
            "lag": self.lag_words,
            "reach": self.why_no_reach,
            "seeds": "no short training is asked for",
            **unknown,
        }


def _causes(name: str, found: Mapping[str, Rule]) -> set[str]:
    """The findings from which this one may follow, by one step or several."""
    causes, waiting = set[str](), [name]
    while waiting:
        after = waiting.pop()
        new = {rule.id for rule in found.values() if after in rule.explains and rule.id != name} - causes
        causes |= new
        waiting += new
    return causes
