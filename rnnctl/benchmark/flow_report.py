"""What the loss-step by source-step matrix costs, against T passes of autograd and the GEMM rate."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rnnctl.benchmark.methods import Workload
from rnnctl.benchmark.timing import gemm_rate, medians
from rnnctl.gradients.agreement import W_HH
from rnnctl.gradients.flow import flow
from rnnctl.results import Result

PASSES, FLOW = "T autograd passes", "rnnctl flow"
# Sizes; the least speed-up over T passes (None: not run) and the least share of the GEMM rate.
Targets = tuple[float | None, float | None]
FLOW_SIZES: tuple[tuple[Mapping[str, int], Targets], ...] = (
    ({"seq_len": 256, "batch_size": 4, "hidden_size": 128, "input_size": 10}, (50.0, None)),
    ({"seq_len": 512, "batch_size": 8, "hidden_size": 256, "input_size": 10}, (None, 0.40)),
)


@dataclass(frozen=True)
class FlowBenchReport(Result):
    """One row per size and method.

    ``rows`` have case, method, milliseconds (median), speedup (over T passes of autograd, with its
    target) and gemm_share (multiply-adds of the reverse products over time and measured GEMM rate,
    with its target); None where a method or a target does not apply.
    """

    schema: ClassVar[str] = "bench-flow"
    rows: tuple[Mapping[str, Any], ...]
    threads: int
    repeats: int
    gemm_gigaflops: float

    @property
    def scalars(self) -> Mapping[str, Any]:
        """threads, repeats, gemm_gigaflops, targets_met."""
        pairs = [(row[of], row[f"{of}_target"]) for row in self.rows for of in ("speedup", "gemm_share")]
        judged = [value >= target for value, target in pairs if target is not None and value is not None]
        return {
            "threads": self.threads,
            "repeats": self.repeats,
            "gemm_gigaflops": self.gemm_gigaflops,
            "targets_met": all(judged) if judged else None,
        }


def bench_flow(
    workloads: Sequence[tuple[Workload, Targets | None]],
    *,
    repeats: int = 5,
    progress: Callable[[float], None] | None = None,
) -> FlowBenchReport:
    """Time ``flow`` on every workload, and T passes of autograd where they have a target.

    Args:
        workloads: each with its targets (least speed-up, least share of the GEMM rate), or None;
            T passes are left out where targets are given and none of them is a speed-up.
        repeats: rounds of ``flow``; T passes run once after a warm-up.
        progress: called with the fraction of the workloads that are done.
    """
    rate = gemm_rate(workloads[0][0].x)
    rows: list[Mapping[str, Any]] = []
    for done, (work, targets) in enumerate(workloads, start=1):
        rows += _rows(work, targets, rate, repeats)
        if progress is not None:
            progress(done / len(workloads))
    return FlowBenchReport(tuple(rows), torch.get_num_threads(), repeats, 2 * rate / 1e9)


def together(work: Workload) -> Callable[[], None]:
    """``rnnctl.flow``: all loss steps in one reverse pass."""

    def run() -> None:
        flow(work.model, work.x, h_init=work.h_init)

    return run


def autograd_passes(work: Workload) -> Callable[[], None]:
    """F[k, t] by one backward pass per loss step through a retained graph over T clones of W_hh."""

    def run() -> None:
        cell, h_t = work.model.rnn_cell, work.h_init
        W_hh = work.model.get_parameter(W_HH).detach()
        clones = [W_hh.clone().requires_grad_() for _ in range(work.x.shape[1])]
        losses = []
        for x_t, clone in zip(work.x.unbind(1), clones, strict=True):
            h_t = torch.func.functional_call(cell, {"hidden_to_hidden.weight": clone}, (x_t, h_t))
            losses.append(work.model.readout(h_t).square().mean())
        for k, loss in enumerate(losses):
            grads = torch.autograd.grad(loss, clones[: k + 1], retain_graph=True)
            torch.stack([torch.linalg.matrix_norm(grad) for grad in grads])

    return run


def _rows(work: Workload, targets: Targets | None, rate: float, repeats: int) -> list[Mapping[str, Any]]:
    speedup, share = targets or (None, None)
    seq_len, batch, hidden, inputs, _ = work.sizes
    case = f"T {seq_len}, B {batch}, H {hidden}, I {inputs}"
    seconds = medians({FLOW: together(work)}, repeats, work.x.device)
    ratio = None
    if targets is None or speedup is not None:
        seconds = {**medians({PASSES: autograd_passes(work)}, 1, work.x.device), **seconds}
        ratio = seconds[PASSES] / seconds[FLOW]
    # The block of step t has T - t losses and meets W_hh once, except at step 0.
    products = batch * hidden**2 * seq_len * (seq_len - 1) // 2
    return [
        {
            "case": case,
            "method": name,
            "milliseconds": 1e3 * value,
            "speedup": ratio if name == FLOW else None,
            "speedup_target": speedup if name == FLOW else None,
            "gemm_share": products / value / rate if name == FLOW else None,
            "gemm_share_target": share if name == FLOW else None,
        }
        for name, value in seconds.items()
    ]
