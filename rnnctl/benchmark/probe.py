"""What a probed training step costs, as a ratio to the plain one."""

import operator
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from rnnctl.benchmark.cells import HAND_WRITTEN
from rnnctl.benchmark.methods import Workload
from rnnctl.benchmark.report import BenchReport, Cases, Figure, Setting, measured, timed_rows
from rnnctl.benchmark.timing import medians
from rnnctl.gradients.probe import probe
from rnnctl.models.torch_layers import LAYERS
from rnnctl.results import Record

Targets = Mapping[str, float]
# Sizes, and the most that a probed step may take of a plain one's time at two threads, by cell; the loss at every step.
PROBE_SIZES: tuple[tuple[Mapping[str, int], Targets], ...] = (
    (
        {"seq_len": 512, "batch_size": 32, "hidden_size": 256, "input_size": 64},
        {"rnn": 1.20, "gru": 1.30, "lstm": 1.95},
    ),
    ({"seq_len": 1000, "batch_size": 1, "hidden_size": 128, "input_size": 64}, {"rnn": 1.25}),
    ({"seq_len": 512, "batch_size": 4, "hidden_size": 20, "input_size": 10}, {"rnn": 1.35, "lstm": 2.5}),
    ({"seq_len": 500, "batch_size": 16, "hidden_size": 128, "input_size": 64}, {"raw": 1.4}),
    ({"seq_len": 200, "batch_size": 4, "hidden_size": 20, "input_size": 10}, {"raw": 1.8}),
    ({"seq_len": 200, "batch_size": 16, "hidden_size": 128, "input_size": 64}, {"concat-lstm": 1.3}),
)
MODULES: Mapping[str, Callable[..., nn.Module]] = {**LAYERS, **HAND_WRITTEN}
PLAIN, PROBED = "plain step", "probed step"


def bench_probe(
    workloads: Sequence[tuple[Workload, Targets | None]],
    *,
    repeats: int = 7,
    progress: Callable[[float], None] | None = None,
) -> BenchReport:
    """Time a training step with and without the probe: of nn.RNN, nn.GRU, nn.LSTM, and of hand-written cells.

    Args:
        workloads: sizes, batch and loss, with the targets by cell; torch's layers where there are none.
        repeats: interleaved rounds; the median counts.
        progress: called with the fraction of the workloads that are done.
    Returns:
        ``rows`` have case, cell, method, milliseconds, ratio (to the plain step in the same run) and target
        (of the ratio, or None).
    Raises:
        InputError: no workload, or repeats below 1.
    """
    return measured(CASES, workloads, Setting(repeats), progress)


def _rows(work: Workload, targets: Targets | None, setting: Setting) -> list[Record]:
    cells = dict.fromkeys(LAYERS) if targets is None else targets
    return [row for cell, target in cells.items() for row in _rows_of(cell, work, target, setting.repeats)]


def _rows_of(cell: str, work: Workload, target: float | None, repeats: int) -> list[Record]:
    _, _, hidden, inputs, _ = work.sizes
    # Torch's layers alone have to be told; the hand-written ones know no other layout.
    layout = {"batch_first": True} if cell in LAYERS else {}
    module = MODULES[cell](inputs, hidden, device=work.x.device, dtype=work.x.dtype, **layout)
    plain = _training_step(work, module)

    def probed() -> None:
        with probe(module):
            plain()

    seconds = medians({PLAIN: plain, PROBED: probed}, repeats, work.x.device)

    def figures(method: str, value: float) -> Record:
        return {"ratio": value / seconds[PLAIN], "target": target if method == PROBED else None}

    return timed_rows(work, seconds, figures, cell=cell)


def _training_step(work: Workload, module: nn.Module) -> Callable[[], None]:
    def run() -> None:
        module.zero_grad()
        h, _ = module(work.x)
        work.loss(h).backward()  # type: ignore[no-untyped-call]

    return run


CASES = Cases(
    "bench-probe",
    PROBE_SIZES,
    _rows,
    (Figure("ratio", "target", operator.le),),
    PROBED,
    largest="probe_ratio",
    config={"network": "torch's layers and hand-written cells"},
)
