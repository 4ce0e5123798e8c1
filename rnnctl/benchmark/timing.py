"""Medians of interleaved runs, and the rate of a large matrix product."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch import Tensor

GEMM_SIZE = 1024
_WAKE = torch.ones(256, 256)


def medians(runs: Mapping[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, float]:
    """Seconds of each, the median of ``repeats`` rounds in which each runs once, after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            seconds[name].append(_timed(run, device))
    return {name: median(values) for name, values in seconds.items()}


def gemm_rate(like: Tensor, repeats: int = 7) -> float:
    """Multiply-adds per second of a large product in the dtype and on the device of a tensor of any shape."""
    a = torch.ones(GEMM_SIZE, GEMM_SIZE, dtype=like.dtype, device=like.device)
    best = min(_timed(lambda: torch.mm(a, a), like.device) for _ in range(repeats))
    return GEMM_SIZE**3 / best


def _timed(run: Callable[[], object], device: torch.device) -> float:
    # The method before may have sent torch's threads to sleep: waking them is not this one's cost.
    torch.mm(_WAKE, _WAKE)
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    """Work on an accelerator goes on after the call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
