"""One report for every set of cases: a row for each method that was timed, and whether the targets are met."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from rnnctl.benchmark.machine import processor_name, system_load
from rnnctl.benchmark.methods import Workload
from rnnctl.benchmark.timing import gemm_rate
from rnnctl.errors import InputError
from rnnctl.results import Answers, Kind, Record, Result, numbers
from rnnctl.view.shown import Shown


@dataclass(frozen=True)
class Setting:
    """How it is measured.

    Attributes:
        repeats: interleaved rounds, of which the median counts.
        memory: whether peak memory is measured, where the cases know of it.
        rate: multiply-adds per second of a large product; nan where the cases do not ask for it.
    """

    repeats: int
    memory: bool = False
    rate: float = math.nan


@dataclass(frozen=True)
class Figure:
    """A field of the rows, the field of its target, and when that is met; both are None where they do not apply.

    Attributes:
        before: beside a run before, the field of what it was there.
        change: the field of how many times worse it is than there; below 1 where it is better.
    """

    name: str
    target: str
    is_met: Callable[[float, float], bool]
    before: str = "before"
    change: str = "change"

    def times_worse(self, now: float, before: float) -> float:
        """How many times worse it is than before, both positive."""
        smaller_is_better = self.is_met(1, 2)
        return now / before if smaller_is_better else before / now


@dataclass(frozen=True)
class Cases:
    """What is measured, and against what.

    Attributes:
        schema: of the report.
        sizes: the sizes that have targets, with these.
        rows: of one workload and its targets (None where it has none).
        figures: what may have a target.
        method: rnnctl's own, of which the targets are.
        largest: the scalar that is the method's largest ratio, if there is one.
        with_rate: whether the rate of a large product is measured, too.
        config: what else the configuration records.
    """

    schema: str
    sizes: tuple[tuple[Mapping[str, int], Any], ...]
    rows: Callable[[Workload, Any, Setting], Iterable[Record]]
    figures: tuple[Figure, ...]
    method: str
    largest: str | None = None
    with_rate: bool = False
    config: Mapping[str, str] = field(default_factory=dict)

    def answers(self, *, compared: bool = False) -> Answers:
        """What can be asked of a report on them, beside a run before or alone."""
        measured = (*(("gemm_gigaflops",) if self.with_rate else ()), *((self.largest,) if self.largest else ()))
        kinds: dict[str, Kind] = numbers("threads", "repeats", *measured)
        beside = {**numbers("tolerance", "worst_change"), "within_tolerance": bool} if compared else {}
        return Answers({**kinds, "targets_met": bool, **beside})


@dataclass(frozen=True)
class Comparison:
    """What a run before says of this one.

    Attributes:
        tolerance: the share by which a figure of the method may be worse.
        worst_change: the largest change of the method's figures; None where none of them is in both runs.
        slower: of every figure beyond the tolerance, what to say of it.
    """

    tolerance: float
    worst_change: float | None
    slower: tuple[str, ...]


@dataclass(frozen=True)
class BenchReport(Shown, Result):
    """One row per size and method.

    ``rows`` have case, method, milliseconds (median), and figures with their targets, None where one does not
    apply. They are said by the function that makes the report: ``bench``, ``bench_flow``, ``bench_probe``.

    Attributes:
        processor: its name; None where the system does not tell.
        load: processes that ran or waited when it began, averaged by the system over a minute; None where it does
            not tell.
        comparison: with a run before, once ``comparison.compared`` has made it.
    """

    cases: Cases = field(repr=False)
    rows: tuple[Record, ...]
    threads: int
    repeats: int
    gemm_gigaflops: float | None = None
    processor: str | None = None
    load: float | None = None
    comparison: Comparison | None = None

    @property
    def schema(self) -> str:
        """That of the cases."""
        return self.cases.schema

    @property
    def scalars(self) -> Record:
        """threads, repeats, gemm_gigaflops (where it was measured), the largest ratio, targets_met; and beside a run
        before tolerance, worst_change, within_tolerance."""
        rate = {} if self.gemm_gigaflops is None else {"gemm_gigaflops": self.gemm_gigaflops}
        ratios = (row["ratio"] for row in self.rows if row["method"] == self.cases.method)
        largest = {self.cases.largest: max(ratios)} if self.cases.largest else {}
        measured = {"threads": self.threads, "repeats": self.repeats, **rate, **largest}
        measured |= {"targets_met": self.targets_met}
        found = self.comparison
        if found is None:
            return measured
        beside = {"tolerance": found.tolerance, "worst_change": found.worst_change}
        return {**measured, **beside, "within_tolerance": None if found.worst_change is None else not found.slower}

    @property
    def settled(self) -> Record:
        """The machine: the processor's name, the threads, and how busy it was; None where the system does not tell."""
        return {"processor": self.processor, "threads": self.threads, "load": self.load}

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None."""
        return {
            "targets_met": "these sizes have no target",
            **dict.fromkeys(("worst_change", "within_tolerance"), f"no figure of {self.cases.method} is in both runs"),
        }

    def require_compared(self) -> None:
        """Raise InputError where a run before was given, and nothing of it compares."""
        if self.comparison is not None and self.comparison.worst_change is None:
            raise InputError(f"nothing was compared: {self.why['worst_change']}. Save a run of these sizes and cells")

    @property
    def targets_met(self) -> bool | None:
        """Whether every figure with a target meets it; None where there is no target."""
        met = [
            figure.is_met(row[figure.name], row[figure.target])
            for row in self.rows
            for figure in self.cases.figures
            if row[figure.name] is not None and row[figure.target] is not None
        ]
        return all(met) if met else None


# Their names from when there were three.
FlowBenchReport = BenchReport
ProbeBenchReport = BenchReport


def measured(
    cases: Cases,
    workloads: Sequence[tuple[Workload, Any]],
    setting: Setting,
    progress: Callable[[float], None] | None = None,
) -> BenchReport:
    """Measure the cases on every workload.

    Args:
        workloads: each with its targets, or None.
        progress: called with the fraction of the workloads that are done.
    Raises:
        InputError: no workload, or repeats below 1.
    """
    if not workloads or setting.repeats < 1:
        raise InputError(f"bench needs a workload and at least 1 repeat; got {len(workloads)} and {setting.repeats}")
    # At the start: what is measured loads the machine itself.
    load, gigaflops = system_load(), None
    if cases.with_rate:
        setting = replace(setting, rate=gemm_rate(workloads[0][0].x))
        gigaflops = 2 * setting.rate / 1e9
    rows: list[Record] = []
    for done, (work, targets) in enumerate(workloads, start=1):
        rows += cases.rows(work, targets, setting)
        if progress is not None:
            progress(done / len(workloads))
    return BenchReport(cases, tuple(rows), torch.get_num_threads(), setting.repeats, gigaflops, processor_name(), load)


def timed_rows(
    work: Workload,
    seconds: Mapping[str, float],
    figures: Callable[[str, float], Record],
    **labels: str,
) -> list[Record]:
    """One row for each method.

    Args:
        seconds: of each method.
        figures: of a method and its seconds, what else its row has.
        labels: what tells these rows from others of the same sizes.
    """
    case = {"case": work.title, **labels}
    return [
        {**case, "method": method, "milliseconds": 1e3 * value, **figures(method, value)}
        for method, value in seconds.items()
    ]
