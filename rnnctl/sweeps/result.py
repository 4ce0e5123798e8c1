"""What a grid of runs says: for every grid point the median of one scalar over its seeds, and how far they spread."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from rnnctl.results import Kind, Record, Result, Value, numbers
from rnnctl.view.shown import Shown

# Where a system neither forgets nor explodes: what its main scalars are then.
CRITICAL = {"factor_per_step": 1.0, "spectral_radius": 1.0, "largest": 0.0}
LOW, HIGH = 0.1, 0.9
# Of every grid point.
COUNTS = ("runs", "failed", "undefined")


@dataclass(frozen=True)
class GridPoint:
    """One combination of what is varied, over all its seeds.

    Attributes:
        varied: name -> value, without the seed.
        values: of each scalar that is aggregated, the numbers of the runs that have one, in the order of the seeds.
        runs: that were made, failed ones among them.
        failed: of those, that ended with an error.
        theory: what theory says of the value there, the median over the seeds; None where it says nothing.
    """

    varied: Mapping[str, Value]
    values: Mapping[str, tuple[float, ...]]
    runs: int
    failed: int
    theory: float | None = None

    def aggregate(self, kind: str, name: str) -> float | None:
        """Such as the median of a scalar over the seeds; None where no run has a number."""
        values = self.values.get(name, ())
        return AGGREGATES[kind](values) if values else None

    def undefined(self, name: str) -> int:
        """How many runs ended well and have no such number."""
        return self.runs - self.failed - len(self.values.get(name, ()))


@dataclass(frozen=True, eq=False)
class Sweep(Shown, Result):
    """The answers to one question over a grid of settings.

    Attributes:
        question: "lyapunov".
        value: the scalar that is shown, "largest".
        axes: what is varied beside the seed, in the order of the grid.
        points: the grid points of which there is a run, in the order of the grid.
        failures: of every failed run what was varied, the seed too where it was, and the error.
    """

    schema: ClassVar[str] = "sweep"
    kinds: ClassVar[Mapping[str, Kind]] = {
        "question": str,
        "value": str,
        **numbers("grid_points", "runs", "failed", "critical"),
    }
    question: str
    value: str
    axes: tuple[str, ...]
    points: tuple[GridPoint, ...]
    failures: tuple[Record, ...]

    @property
    def critical(self) -> float | None:
        """Where the value is neither of one regime nor of the other: exponent 0, factor 1; None where nothing is."""
        return CRITICAL.get(self.value)

    @property
    def scalars(self) -> Record:
        """How much there is of it."""
        return {
            "question": self.question,
            "value": self.value,
            "grid_points": len(self.points),
            "runs": sum(point.runs for point in self.points),
            "failed": sum(point.failed for point in self.points),
            "critical": self.critical,
        }

    @property
    def why(self) -> Mapping[str, str]:
        """Why nothing is critical."""
        return {"critical": f"{self.value} has no value at which the regime changes"}

    @property
    def judged_cases(self) -> Sequence[tuple[str, Record]]:
        """Every grid point in words, with its counts, and with what was aggregated there, in every way."""
        return [(_where(point), self._aggregates(point)) for point in self.points]

    def _aggregates(self, point: GridPoint) -> Record:
        found = {f"{kind}({name})": point.aggregate(kind, name) for name in point.values for kind in AGGREGATES}
        return {**self._counts(point), **found}

    # Kept, as tables and pictures ask for them again and again, and quantiles take their time.
    @cached_property
    def rows(self) -> Sequence[Record]:
        """One for every grid point."""
        return [self._row(point) for point in self.points]

    @property
    def more(self) -> Mapping[str, Sequence[Record]]:
        """The failed runs."""
        return {"failures": self.failures}

    def _row(self, point: GridPoint) -> dict[str, Any]:
        shown = {name: point.aggregate(name, self.value) for name in ("median", "p10", "p90")}
        varied = {name: point.varied.get(name) for name in self.axes}
        return {**varied, **self._counts(point), **shown, "theory": point.theory}

    def _counts(self, point: GridPoint) -> dict[str, int]:
        return dict(zip(COUNTS, (point.runs, point.failed, point.undefined(self.value)), strict=True))


@dataclass(frozen=True, eq=False)
class SweepPlan(Shown, Result):
    """What a sweep would do.

    Attributes:
        question: "lyapunov".
        axes: of everything that is varied its name and its values.
        runs: of the whole grid.
        done: of those, that are in the file already.
        refused: that cannot be made, as flags alone tell.
        workers: how many are made at a time.
        seconds_per_run: of those that were tried; None where none was, or it failed.
    """

    schema: ClassVar[str] = "sweep-plan"
    kinds: ClassVar[Mapping[str, Kind]] = {
        "question": str,
        **numbers("runs", "done", "refused", "to_make", "workers", "seconds_per_run", "seconds"),
    }
    question: str
    axes: tuple[tuple[str, tuple[Value, ...]], ...]
    runs: int
    done: int
    refused: int
    workers: int
    seconds_per_run: float | None

    @property
    def scalars(self) -> Record:
        """How much there is to do, and how long it takes."""
        to_make = self.runs - self.done - self.refused
        each = self.seconds_per_run
        return {
            "question": self.question,
            "runs": self.runs,
            "done": self.done,
            "refused": self.refused,
            "to_make": to_make,
            "workers": self.workers,
            "seconds_per_run": each,
            "seconds": None if each is None else each * math.ceil(to_make / self.workers),
        }

    @property
    def why(self) -> Mapping[str, str]:
        """Why nothing is estimated."""
        nothing = self.runs == self.done + self.refused
        reason = "there is no run to make" if nothing else "the runs that were tried failed"
        return dict.fromkeys(("seconds_per_run", "seconds"), reason)

    @property
    def rows(self) -> Sequence[Record]:
        """One for everything that is varied."""
        return [
            {"name": name, "values": len(values), "start": values[0], "stop": values[-1]} for name, values in self.axes
        ]


def _where(point: GridPoint) -> str:
    return ", ".join(f"{name} {value}" for name, value in point.varied.items())


def quantile(values: Sequence[float], share: float) -> float:
    """With linear interpolation between neighbours in order; NaN where one of the values is NaN.

    Args:
        values: at least one.
        share: from 0 to 1.
    Source: Hyndman & Fan 1996, definition 7, which numpy's is.
    """
    if any(math.isnan(value) for value in values):
        return math.nan
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    # Not low + ..., which is NaN between two infinities.
    return low if place == below or low == high else low * (1 - (place - below)) + high * (place - below)


AGGREGATES = {
    "median": lambda values: quantile(values, 0.5),
    "mean": lambda values: math.fsum(values) / len(values),
    "min": lambda values: quantile(values, 0.0),
    "max": lambda values: quantile(values, 1.0),
    "p10": lambda values: quantile(values, LOW),
    "p90": lambda values: quantile(values, HIGH),
}
