"""What a probed training step costs, as a ratio to the plain one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from rnnctl.benchmark.methods import Workload
from rnnctl.benchmark.timing import medians
from rnnctl.errors import InputError
from rnnctl.gradients.probe import probe
from rnnctl.models.torch_layers import LAYERS
from rnnctl.results import Result

Targets = Mapping[str, float]
# Sizes, and the most that a probed step may take of a plain one's time at two threads, by cell.
PROBE_SIZES: tuple[tuple[Mapping[str, int], Targets], ...] = (
    (
        {"seq_len": 512, "batch_size": 32, "hidden_size": 256, "input_size": 64},
        {"rnn": 1.6, "gru": 1.6, "lstm": 2.2},
    ),
    ({"seq_len": 512, "batch_size": 4, "hidden_size": 20, "input_size": 10}, {"lstm": 4.0}),
)
PLAIN, PROBED = "plain step", "probed step"


@dataclass(frozen=True)
class ProbeBenchReport(Result):
    """Two rows per size and cell.

    ``rows`` have case, cell, method, milliseconds (median), ratio (to the plain step in the same run) and
    target (of the ratio, or None).
    """

    schema: ClassVar[str] = "bench-probe"
    rows: tuple[Mapping[str, Any], ...]
    threads: int
    repeats: int

    @property
    def scalars(self) -> Mapping[str, Any]:
        """threads, repeats, probe_ratio (the largest), targets_met."""
        ratios = [row for row in self.rows if row["method"] == PROBED]
        judged = [row["ratio"] <= row["target"] for row in ratios if row["target"] is not None]
        return {
            "threads": self.threads,
            "repeats": self.repeats,
            "probe_ratio": max(row["ratio"] for row in ratios),
            "targets_met": all(judged) if judged else None,
        }


def bench_probe(
    workloads: Sequence[tuple[Workload, Targets | None]],
    *,
    repeats: int = 5,
    progress: Callable[[float], None] | None = None,
) -> ProbeBenchReport:
    """Time a training step of nn.RNN, nn.GRU and nn.LSTM with and without the probe.

    Args:
        workloads: sizes, batch and loss, with the targets by cell; all three cells where there are none.
        repeats: interleaved rounds; the median counts.
        progress: called with the fraction of the workloads that are done.
    Raises:
        InputError: no workload, or repeats below 1.
    """
    if not workloads or repeats < 1:
        raise InputError(f"bench needs a workload and at least 1 repeat; got {len(workloads)} and {repeats}")
    rows: list[Mapping[str, Any]] = []
    for done, (work, targets) in enumerate(workloads, start=1):
        for cell in targets or LAYERS:
            rows += _rows(work, cell, None if targets is None else targets[cell], repeats)
        if progress is not None:
            progress(done / len(workloads))
    return ProbeBenchReport(tuple(rows), torch.get_num_threads(), repeats)


def _rows(work: Workload, cell: str, target: float | None, repeats: int) -> list[Mapping[str, Any]]:
    seq_len, batch, hidden, inputs, _ = work.sizes
    module = LAYERS[cell](inputs, hidden, batch_first=True, device=work.x.device, dtype=work.x.dtype)
    plain = _training_step(work, module)

    def probed() -> None:
        with probe(module):
            plain()

    seconds = medians({PLAIN: plain, PROBED: probed}, repeats, work.x.device)
    return [
        {
            "case": f"T {seq_len}, B {batch}, H {hidden}, I {inputs}",
            "cell": cell,
            "method": name,
            "milliseconds": 1e3 * value,
            "ratio": value / seconds[PLAIN],
            "target": target if name == PROBED else None,
        }
        for name, value in seconds.items()
    ]


def _training_step(work: Workload, module: nn.RNNBase) -> Callable[[], None]:
    def run() -> None:
        module.zero_grad()
        h, _ = module(work.x)
        work.loss(h).backward()  # type: ignore[no-untyped-call]

    return run
