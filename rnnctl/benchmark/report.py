"""Time and memory of every method, as ratios to one training step of nn.RNN."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rnnctl.benchmark.methods import METHODS, REFERENCE, SWEEP, Workload, sweep_multiply_adds
from rnnctl.benchmark.peak import peak_bytes
from rnnctl.benchmark.timing import gemm_rate, medians
from rnnctl.errors import InputError
from rnnctl.results import Result

# Sizes, and the most that the sweep may take of nn.RNN's time at two threads.
REFERENCE_SIZES: tuple[tuple[Mapping[str, int], float], ...] = (
    ({"seq_len": 512, "batch_size": 32, "hidden_size": 256, "input_size": 64}, 0.50),
    ({"seq_len": 1000, "batch_size": 1, "hidden_size": 128, "input_size": 64}, 0.25),
    ({"seq_len": 100, "batch_size": 128, "hidden_size": 512, "input_size": 128}, 0.75),
    ({"seq_len": 512, "batch_size": 4, "hidden_size": 20, "input_size": 10}, 0.35),
)
LIMIT = "limit"


@dataclass(frozen=True)
class BenchReport(Result):
    """One row per size and method.

    ``rows`` have case, method, milliseconds (median), ratio (to nn.RNN in the same run), target
    (of the ratio, or None) and peak_mebibytes (above the start, in a process of its own).
    The method "limit" is the sweep's multiply-adds at the measured rate of a large product.
    """

    schema: ClassVar[str] = "bench"
    rows: tuple[Mapping[str, Any], ...]
    threads: int
    repeats: int
    gemm_gigaflops: float

    @property
    def scalars(self) -> Mapping[str, Any]:
        """threads, repeats, gemm_gigaflops, sweep_ratio (the largest), targets_met."""
        sweeps = [row for row in self.rows if row["method"] == SWEEP]
        judged = [row["ratio"] <= row["target"] for row in sweeps if row["target"] is not None]
        return {
            "threads": self.threads,
            "repeats": self.repeats,
            "gemm_gigaflops": self.gemm_gigaflops,
            "sweep_ratio": max(row["ratio"] for row in sweeps),
            "targets_met": all(judged) if judged else None,
        }


def bench(
    workloads: Sequence[tuple[Workload, float | None]],
    *,
    repeats: int = 5,
    memory: bool = True,
    progress: Callable[[float], None] | None = None,
) -> BenchReport:
    """Time every method on every workload.

    Args:
        workloads: each with the target for the sweep's ratio, or None.
        repeats: interleaved rounds; the median counts.
        memory: also measure peak memory, each method in a process of its own.
        progress: called with the fraction of the workloads that are done.
    Raises:
        InputError: no workload, or repeats below 1.
    """
    if not workloads or repeats < 1:
        raise InputError(f"bench needs a workload and at least 1 repeat; got {len(workloads)} and {repeats}")
    rows: list[Mapping[str, Any]] = []
    rate = gemm_rate(workloads[0][0].x)
    for done, (work, target) in enumerate(workloads, start=1):
        rows += _rows(work, target, rate, repeats, memory)
        if progress is not None:
            progress(done / len(workloads))
    return BenchReport(tuple(rows), torch.get_num_threads(), repeats, 2 * rate / 1e9)


def _rows(work: Workload, target: float | None, rate: float, repeats: int, memory: bool) -> list[Mapping[str, Any]]:
    runs = {name: method(work) for name, method in METHODS.items()}
    seconds = medians(runs, repeats, work.x.device)
    seconds[LIMIT] = sweep_multiply_adds(work) / rate
    seq_len, batch, hidden, inputs, _ = work.sizes
    case = f"T {seq_len}, B {batch}, H {hidden}, I {inputs}"
    peaks = {name: peak_bytes(name, work) for name in METHODS} if memory else {}
    return [
        {
            "case": case,
            "method": name,
            "milliseconds": 1e3 * value,
            "ratio": value / seconds[REFERENCE],
            "target": target if name == SWEEP else None,
            "peak_mebibytes": _mebibytes(peaks.get(name)),
        }
        for name, value in seconds.items()
    ]


def _mebibytes(size: int | None) -> float | None:
    return None if size is None else size / 2**20
