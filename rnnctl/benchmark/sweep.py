"""What a sweep costs beside its runs: idle workers, time and memory, a shell loop, a large grid that is resumed."""

import operator
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from rnnctl.benchmark.idle import ANSWER, NAP, load, nap, nothing, who
from rnnctl.benchmark.machine import processor_name, system_load
from rnnctl.benchmark.report import BenchReport, Cases, Figure
from rnnctl.errors import RnnctlError
from rnnctl.results import Record
from rnnctl.sweeps.runner import Ended, Runner
from rnnctl.sweeps.workers import WorkerPool

WORKERS = 2
STATM = Path("/proc/self/statm")
# Of the shell loop so many are run, and the others counted as taking as long.
LOOPED = 3
SMALL = ("gradnorm", "--hidden-size", "8")

# Makes runs and tells how each ended: a Runner's ``ended``.
Making = Callable[[Iterable[Any]], Iterator[Ended]]
# Plans so many runs of a question, and has those made that are not in the file yet. Questions are above this room.
Carrying = Callable[[int, Path, Making], None]


def bench_sweep(carry: Carrying, *, progress: Callable[[float], None] | None = None) -> BenchReport:
    """Measure what sweeps are to reach.

    Args:
        carry: (number of runs, file, what makes them): plans these runs and keeps a line of each in the file.
        progress: called with the fraction that is done.
    Returns:
        ``rows`` have case, figure, value, and at_least or at_most, its target.
    """
    load, rows = system_load(), list[Record]()
    with TemporaryDirectory() as folder:
        for done, rows_of in enumerate(MEASURED, start=1):
            rows += rows_of(carry, Path(folder, f"{rows_of.__name__}.jsonl"))
            if progress is not None:
                progress(done / len(MEASURED))
    return BenchReport(CASES, tuple(rows), torch.get_num_threads(), 1, None, processor_name(), load)


def _of_50_milliseconds(carry: Carrying, path: Path, count: int = 200) -> list[Record]:
    clock: list[float] = []

    def making(runs: Iterable[Any]) -> Iterator[Ended]:
        # From the first to the last, every line kept in between; planning is measured elsewhere.
        clock.append(time.perf_counter())
        yield from Runner(pool, nap, WORKERS).ended(runs)
        clock.append(time.perf_counter())

    with _workers() as pool:
        carry(count, path, making)
    share = count * NAP / WORKERS / (clock[1] - clock[0])
    return [_row(f"{count} runs of 50 ms, {WORKERS} workers", "share of the ideal rate", share, at_least=0.9)]


def _of_nothing(carry: Carrying, path: Path, count: int = 20_000) -> list[Record]:
    sizes = [resident_bytes()]

    def making(runs: Iterable[Any]) -> Iterator[Ended]:
        for made, ended in enumerate(Runner(pool, nothing, WORKERS).ended(runs)):
            if made % 1000 == 0:
                sizes.append(resident_bytes())
            yield ended

    with _workers() as pool:
        seconds = _timed(lambda: carry(count, path, making))
    sizes.append(resident_bytes())
    case = f"{count:,} runs of nothing, {WORKERS} workers"
    rows = [_row(case, "overhead, milliseconds a run", 1e3 * seconds / count, at_most=3)]
    known = [size for size in sizes if size is not None]
    return (
        [*rows, _row(case, "growth of the parent, MiB", (max(known) - known[0]) / 2**20, at_most=50)] if known else rows
    )


def _beside_a_loop(_: Carrying, path: Path, count: int = 60) -> list[Record]:
    looped = _timed(_loop) / LOOPED * count
    swept = _timed(lambda: _command("sweep", *SMALL, "--seeds", str(count), "--to", str(path), "--jobs", str(WORKERS)))
    case = f"{count} runs of gradnorm, {WORKERS} workers"
    return [_row(case, f"times as fast as a shell loop ({LOOPED} of it timed)", looped / swept, at_least=10)]


def _of_a_large_grid(carry: Carrying, path: Path, count: int = 100_000) -> list[Record]:
    carry(count, path, lambda runs: (Ended(run, ANSWER, None) for run in runs))

    def making(runs: Iterable[Any]) -> Iterator[Ended]:
        raise AssertionError("a run was to be made again")

    seconds = _timed(lambda: carry(count, path, making))
    return [_row(f"{count:,} runs, all done", "seconds to plan and resume", seconds, at_most=20)]


MEASURED = (_of_50_milliseconds, _of_nothing, _beside_a_loop, _of_a_large_grid)


def _workers() -> WorkerPool:
    """Workers that are up."""
    pool = WorkerPool(WORKERS, load)
    while len({each.result() for each in [pool.submit(who) for _ in range(WORKERS)]}) < WORKERS:
        pass
    return pool


def _loop() -> None:
    for seed in range(LOOPED):
        _command(*SMALL, "--seed", str(seed))


def _command(*line: str) -> None:
    command = [sys.executable, "-P", "-m", "rnnctl", *line, "--quiet"]
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise RnnctlError(f"rnnctl {' '.join(line)} ended with exit code {ended.returncode}: {ended.stderr.strip()}")


def _timed(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def resident_bytes() -> int | None:
    """Memory of this process that is in use; None where the system does not tell."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _row(case: str, figure: str, value: float, at_least: float | None = None, at_most: float | None = None) -> Record:
    return {"case": case, "figure": figure, "value": value, "at_least": at_least, "at_most": at_most}


CASES = Cases(
    "bench-sweep",
    (),
    lambda *_: (),
    (Figure("value", "at_least", operator.ge), Figure("value", "at_most", operator.le)),
    "rnnctl sweep",
    config={"command": f"gradnorm, {WORKERS} workers"},
)
