"""Time and memory of every way to the gradient, as ratios to one training step of nn.RNN."""

import operator
from collections.abc import Callable, Sequence

from rnnctl.benchmark.methods import METHODS, REFERENCE, SWEEP, Workload, sweep_multiply_adds
from rnnctl.benchmark.peak import peak_bytes
from rnnctl.benchmark.report import BenchReport, Cases, Figure, Setting, measured, timed_rows
from rnnctl.benchmark.timing import medians
from rnnctl.results import Record

# Sizes, and the most that the sweep may take of nn.RNN's time at two threads, with the loss at every step.
REFERENCE_SIZES = (
    ({"seq_len": 512, "batch_size": 32, "hidden_size": 256, "input_size": 64}, 0.65),
    ({"seq_len": 1000, "batch_size": 1, "hidden_size": 128, "input_size": 64}, 0.32),
    ({"seq_len": 100, "batch_size": 128, "hidden_size": 512, "input_size": 128}, 0.97),
    ({"seq_len": 512, "batch_size": 4, "hidden_size": 20, "input_size": 10}, 0.33),
)
LIMIT = "limit"


def bench(
    workloads: Sequence[tuple[Workload, float | None]],
    *,
    repeats: int = 7,
    memory: bool = True,
    progress: Callable[[float], None] | None = None,
) -> BenchReport:
    """Time every method on every workload.

    Args:
        workloads: each with the target for the sweep's ratio, or None.
        repeats: interleaved rounds; the median counts.
        memory: also measure peak memory, each method in a process of its own.
        progress: called with the fraction of the workloads that are done.
    Returns:
        ``rows`` have case, method, milliseconds, ratio (to nn.RNN in the same run), target (of the ratio,
        or None) and peak_mebibytes (above the start, in a process of its own). The method "limit" is the
        sweep's multiply-adds at the measured rate of a large product.
    Raises:
        InputError: no workload, or repeats below 1.
    """
    return measured(CASES, workloads, Setting(repeats, memory), progress)


def _rows(work: Workload, target: float | None, setting: Setting) -> list[Record]:
    seconds = medians({name: method(work) for name, method in METHODS.items()}, setting.repeats, work.x.device)
    seconds[LIMIT] = sweep_multiply_adds(work) / setting.rate
    peaks = {name: peak_bytes(name, work) for name in METHODS} if setting.memory else {}

    def figures(method: str, value: float) -> Record:
        compared = {"ratio": value / seconds[REFERENCE], "target": target if method == SWEEP else None}
        return {**compared, "peak_mebibytes": _mebibytes(peaks.get(method))}

    return timed_rows(work, seconds, figures)


def _mebibytes(size: int | None) -> float | None:
    return None if size is None else size / 2**20


CASES = Cases(
    "bench",
    REFERENCE_SIZES,
    _rows,
    (Figure("ratio", "target", operator.le),),
    SWEEP,
    largest="sweep_ratio",
    with_rate=True,
)
