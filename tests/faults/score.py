"""The score: what the doctor names of every set-up, what it names first, and what its remedies bring back.

    python tests/faults/score.py SEEDS STEPS > tests/faults/score.md

by SEEDS short trainings of so many STEPS; of 0 no remedy is tried. What stands above the list of all set-ups stands in
the guide (chapter repair), and says by how many.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import torch

import rnnctl
from rnnctl.diagnosis.case import Settings, varied
from rnnctl.diagnosis.rules import RULES
from rnnctl.diagnosis.training import trained

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.faulty import FAULTY  # noqa: E402
from faults.healthy import HEALTHY  # noqa: E402
from faults.setups import SetUp  # noqa: E402

# A remedy restores a training whose loss is then at most so many times that of the healthy twin.
RESTORED = 1.1
# Faults that are not named, such as are not named first, and healthy networks that are said to have one: name of the
# set-up -> why.
MISSED: Mapping[str, str] = {}
NOT_FIRST: Mapping[str, str] = {}
ALARMS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Scored:
    """What the doctor says of one set-up.

    Attributes:
        found: (id, severity) in its order.
        remedy: the best of those that help, or None.
        loss: after the short training with it.
        twin_loss: after the same training of the healthy twin.
    """

    setup: SetUp
    found: tuple[tuple[str, str], ...]
    remedy: str | None = None
    loss: float | None = None
    twin_loss: float | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The findings without their severity."""
        return tuple(name for name, _ in self.found)

    @property
    def missed(self) -> tuple[str, ...]:
        """Faults that are not named."""
        return tuple(name for name in self.setup.findings if name not in self.ids)

    @property
    def is_first(self) -> bool:
        """Whether the first finding is one of the faults."""
        return bool(self.ids) and self.ids[0] in self.setup.findings

    @property
    def alarms(self) -> tuple[str, ...]:
        """What is called a fault and is neither one nor follows from one."""
        right = {*self.setup.findings, *self.setup.consequences, *_explained(self.setup.findings)}
        return tuple(name for name, severity in self.found if severity == "fault" and name not in right)

    @property
    def is_restored(self) -> bool:
        """Whether the remedy brings the loss to within ``RESTORED`` of the twin's."""
        return self.loss is not None and self.twin_loss is not None and self.loss <= RESTORED * self.twin_loss


def _explained(findings: Iterable[str]) -> set[str]:
    """What may follow from these, and from that in turn, as the rules say."""
    explains = {rule.id: rule.explains for rule in RULES}
    followed, waiting = set[str](), list(findings)
    while waiting:
        new = set(explains[waiting.pop()]) - followed
        followed |= new
        waiting += new
    return followed


def scored(setup: SetUp, seeds: int) -> Scored:
    """What is found, nothing tried."""
    found = rnnctl.doctor(**setup.make(), seeds=seeds)
    return Scored(setup, _found(found.rows))


def scored_with_remedies(setup: SetUp, seeds: int, steps: int) -> Scored:
    """What is found, and the best of the remedies beside the healthy twin."""
    found = rnnctl.doctor(**{**setup.make(), "train_steps": steps}, seeds=seeds, try_remedies=True)
    helping = [row for row in found.more["remedies"] if row["helps"] == "yes"]
    twin = None if setup.twin is None else twin_loss(setup.twin, seeds, steps)
    if not helping:
        return Scored(setup, _found(found.rows), twin_loss=twin)
    return Scored(setup, _found(found.rows), helping[0]["remedy"], helping[0]["loss_after"], twin)


def twin_loss(twin: SetUp, seeds: int, steps: int) -> float:
    """The loss of a healthy network after the short training that remedies get, from the same other starts."""
    given = twin.make()
    settings = Settings(**{each.name: given[each.name] for each in fields(Settings) if each.name in given})
    losses = []
    for seed in range(seeds):
        model = deepcopy(given["model"])
        varied(model, seed)
        losses.append(trained(model, given["x"], given["target"], settings, steps, seed).loss_after)
    return median(losses)


def _found(rows: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    return tuple((row["finding"], row["severity"]) for row in rows)


def summary(all_scored: list[Scored], seeds: int, steps: int) -> Iterator[str]:
    """The counts, a row for every finding, and what went wrong."""
    faulty = [each for each in all_scored if each.setup.findings]
    healthy = [each for each in all_scored if not each.setup.findings]
    faults = sum(len(each.setup.findings) for each in faulty)
    named = faults - sum(len(each.missed) for each in faulty)
    yield f"- {named} of {faults} faults in {len(faulty)} networks are named"
    yield f"- in {sum(each.is_first for each in faulty)} of {len(faulty)} the first finding is one of the faults"
    yield f"- of {len(healthy)} healthy networks {sum(bool(each.alarms) for each in healthy)} are said to have a fault"
    if any(each.twin_loss is not None for each in faulty):
        restored = sum(each.is_restored for each in faulty)
        yield (
            f"- in {restored} a remedy that was tried brings the loss to within 10 % of the healthy twin's, "
            f"by {seeds} short trainings of {steps} steps each"
        )
    yield from ("", "| fault | networks | named | first | restored |", "|---|---|---|---|---|")
    for name in dict.fromkeys(name for each in faulty for name in each.setup.findings):
        yield f"| {name} | {' | '.join(map(str, _counts(name, faulty)))} |"
    wrong = [each for each in all_scored if each.missed or each.alarms or (each.setup.findings and not each.is_first)]
    if wrong:
        yield from ("", "| not as it should be | it has | it is said to have | why |", "|---|---|---|---|")
    for each in wrong:
        why = {**ALARMS, **NOT_FIRST, **MISSED}.get(each.setup.name, "not known")
        yield f"| {each.setup.name} | {', '.join(each.setup.findings) or 'nothing'} | {_said(each)} | {why} |"


def _counts(name: str, faulty: list[Scored]) -> tuple[int, int, int, int | str]:
    """Of one finding: how many networks have it, in how many it is named, one of theirs is first, and is restored."""
    with_it = [each for each in faulty if name in each.setup.findings]
    tried = any(each.twin_loss is not None for each in with_it)
    restored = sum(each.is_restored for each in with_it) if tried else "not tried"
    return (
        len(with_it),
        sum(name not in each.missed for each in with_it),
        sum(each.is_first for each in with_it),
        restored,
    )


def listed(all_scored: list[Scored]) -> Iterator[str]:
    """A row for every set-up."""
    yield "| set-up | after | fault | found | best remedy | loss with it | of the healthy twin |"
    yield "|---|---|---|---|---|---|---|"
    for each in all_scored:
        faults = ", ".join(each.setup.findings) or "none"
        losses = f"{_number(each.loss)} | {_number(each.twin_loss)}"
        yield f"| {each.setup.name} | {each.setup.after} | {faults} | {_said(each)} | {each.remedy or ''} | {losses} |"


def _said(each: Scored) -> str:
    return ", ".join(name if severity == "fault" else f"{name} ({severity})" for name, severity in each.found) or "-"


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.3g}"


def main(seeds: int, steps: int) -> None:
    torch.set_num_threads(1)
    all_scored = []
    for setup in (*FAULTY, *HEALTHY):
        tries = setup.findings and steps
        all_scored.append(scored_with_remedies(setup, seeds, steps) if tries else scored(setup, seeds))
        print(setup.name, _said(all_scored[-1]), file=sys.stderr, flush=True)
    print("\n".join([*summary(all_scored, seeds, steps), "", "## All of them", "", *listed(all_scored)]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
