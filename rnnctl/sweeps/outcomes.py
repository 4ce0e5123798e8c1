"""What is kept of finished runs: of each a few numbers, by grid point."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rnnctl.errors import InputError, did_you_mean
from rnnctl.results import Record
from rnnctl.sweeps.result import AGGREGATES, GridPoint, Sweep

SEED = "seed"
THEORY = "theory_"


@dataclass(frozen=True)
class Outcome:
    """How a run ended, as far as the result of a sweep needs it.

    Attributes:
        error: why it failed, or None.
        values: of the wanted scalars, None where it has no number.
    """

    error: str | None
    values: tuple[float | None, ...]


class Outcomes:
    """Collects runs in any order.

    Args:
        question: that they answer.
        value: the scalar to be shown.
        others: further scalars whose aggregates are asked for.
    """

    def __init__(self, question: str, value: str, others: Iterable[str] = ()) -> None:
        self.question, self.value = question, value
        self._wanted = tuple(dict.fromkeys((value, f"{THEORY}{value}", *others)))
        self._runs: dict[str, dict[Any, tuple[Mapping[str, Any], Outcome]]] = {}
        self._axes: dict[str, None] = {}
        self._known: set[str] = set()

    def outcome(self, scalars: Record, error: str | None) -> Outcome:
        """What is kept of a run."""
        self._known.update(scalars)
        return Outcome(error, tuple(_number(scalars.get(name)) for name in self._wanted))

    def add(self, place: Any, varied: Mapping[str, Any], outcome: Outcome) -> None:
        """A finished run.

        Args:
            place: of the run among all others, which sorts them.
            varied: name -> value, the seed too where it is varied.
        """
        names = [name for name in varied if name != SEED]
        self._axes.update(dict.fromkeys(names))
        point = json.dumps([[name, varied[name]] for name in sorted(names)])
        self._runs.setdefault(point, {})[place] = varied, outcome

    def result(self, axes: Sequence[str] | None = None) -> Sweep:
        """The result over all runs so far.

        Args:
            axes: their order; that of their coming if left out.
        Raises:
            InputError: none of the runs has the scalar that is to be shown, or one whose aggregate is asked for.
        """
        self._require_known()
        points = sorted(self._runs.values(), key=min)
        every = {place: run for runs in points for place, run in runs.items()}
        failed = (every[place] for place in sorted(every) if every[place][1].error is not None)
        named = tuple(self._axes if axes is None else axes)
        return Sweep(
            question=self.question,
            value=self.value,
            axes=named,
            points=tuple(self._point(named, runs) for runs in points),
            failures=tuple({**varied, "error": outcome.error} for varied, outcome in failed),
        )

    def _point(self, axes: Sequence[str], runs: Mapping[Any, tuple[Mapping[str, Any], Outcome]]) -> GridPoint:
        ordered = [runs[place] for place in sorted(runs)]
        ended = [outcome.values for _, outcome in ordered if outcome.error is None]
        of_names = {
            name: tuple(value for values in ended if (value := values[i]) is not None)
            for i, name in enumerate(self._wanted)
        }
        varied = {name: ordered[0][0].get(name) for name in axes}
        theory = of_names[f"{THEORY}{self.value}"]
        predicted = AGGREGATES["median"](theory) if theory else None
        return GridPoint(varied, of_names, len(ordered), len(ordered) - len(ended), predicted)

    def _require_known(self) -> None:
        for name in self._wanted:
            if self._known and name not in self._known and not name.startswith(THEORY):
                near = did_you_mean(name, self._known)
                known = ", ".join(sorted(self._known))
                raise InputError(f"no run of {self.question} has a {name!r}; known are {known}.{near}")


def _number(value: Any) -> float | None:
    """A number as such; truth counts as 0 and 1, and text as nothing."""
    return None if value is None or isinstance(value, str) else float(value)
