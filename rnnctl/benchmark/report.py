"""One report for every set of cases: a row for each method that was timed, and whether the targets are met."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from rnnctl.benchmark.methods import Workload
from rnnctl.benchmark.timing import gemm_rate
from rnnctl.errors import InputError
from rnnctl.results import Answers, Record, Result, numbers


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
    """A field of the rows, the field of its target, and when that is met; both are None where they do not apply."""

    name: str
    target: str
    is_met: Callable[[float, float], bool]


@dataclass(frozen=True)
class Cases:
    """What is measured, and against what.

    Attributes:
        schema: of the report.
        sizes: the sizes that have targets, with these.
        rows: of one workload and its targets (None where it has none).
        figures: what may have a target.
        largest: a scalar -> the method of which it is the largest ratio.
        with_rate: whether the rate of a large product is measured, too.
        config: what else the configuration records.
    """

    schema: str
    sizes: tuple[tuple[Mapping[str, int], Any], ...]
    rows: Callable[[Workload, Any, Setting], Iterable[Record]]
    figures: tuple[Figure, ...]
    largest: Mapping[str, str] = field(default_factory=dict)
    with_rate: bool = False
    config: Mapping[str, str] = field(default_factory=dict)

    def answers(self) -> Answers:
        """What can be asked of a report on them."""
        rate = ("gemm_gigaflops",) if self.with_rate else ()
        return Answers({**numbers("threads", "repeats", *rate, *self.largest), "targets_met": bool})


@dataclass(frozen=True)
class BenchReport(Result):
    """One row per size and method.

    ``rows`` have case, method, milliseconds (median), and figures with their targets, None where one does not
    apply. They are said by the function that makes the report: ``bench``, ``bench_flow``, ``bench_probe``.
    """

    cases: Cases = field(repr=False)
    rows: tuple[Record, ...]
    threads: int
    repeats: int
    gemm_gigaflops: float | None = None

    @property
    def schema(self) -> str:
        """That of the cases."""
        return self.cases.schema

    @property
    def scalars(self) -> Record:
        """threads, repeats, gemm_gigaflops (where it was measured), the largest ratios, targets_met."""
        rate = {} if self.gemm_gigaflops is None else {"gemm_gigaflops": self.gemm_gigaflops}
        largest = {
            name: max(row["ratio"] for row in self.rows if row["method"] == method)
            for name, method in self.cases.largest.items()
        }
        measured = {"threads": self.threads, "repeats": self.repeats, **rate, **largest}
        return {**measured, "targets_met": self.targets_met}

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None."""
        return {"targets_met": "these sizes have no target"}

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
    gigaflops = None
    if cases.with_rate:
        setting = replace(setting, rate=gemm_rate(workloads[0][0].x))
        gigaflops = 2 * setting.rate / 1e9
    rows: list[Record] = []
    for done, (work, targets) in enumerate(workloads, start=1):
        rows += cases.rows(work, targets, setting)
        if progress is not None:
            progress(done / len(workloads))
    return BenchReport(cases, tuple(rows), torch.get_num_threads(), setting.repeats, gigaflops)


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
