"""What the loss-step by source-step matrix costs, against T passes of autograd and the GEMM rate."""

import operator
from collections.abc import Callable, Mapping, Sequence

import torch

from rnnctl.benchmark.methods import Workload
from rnnctl.benchmark.report import BenchReport, Cases, Figure, Setting, measured, timed_rows
from rnnctl.benchmark.timing import medians
from rnnctl.gradients.autograd import W_HH
from rnnctl.gradients.flow import flow
from rnnctl.results import Record

PASSES, FLOW = "T autograd passes", "rnnctl flow"
# Sizes; the least speed-up over T passes (None: not run) and the least share of the GEMM rate.
Targets = tuple[float | None, float | None]
FLOW_SIZES: tuple[tuple[Mapping[str, int], Targets], ...] = (
    ({"seq_len": 256, "batch_size": 4, "hidden_size": 128, "input_size": 10}, (50.0, None)),
    ({"seq_len": 512, "batch_size": 8, "hidden_size": 256, "input_size": 10}, (None, 0.40)),
)


def bench_flow(
    workloads: Sequence[tuple[Workload, Targets | None]],
    *,
    repeats: int = 5,
    progress: Callable[[float], None] | None = None,
) -> BenchReport:
    """Time ``flow`` on every workload, and T passes of autograd where they have a target.

    Args:
        workloads: each with its targets (least speed-up, least share of the GEMM rate), or None;
            T passes are left out where targets are given and none of them is a speed-up.
        repeats: rounds of ``flow``; T passes run once after a warm-up.
        progress: called with the fraction of the workloads that are done.
    Returns:
        ``rows`` have case, method, milliseconds, speedup (over T passes of autograd, with its target) and
        gemm_share (multiply-adds of the reverse products over time and measured GEMM rate, with its target).
    Raises:
        InputError: no workload, or repeats below 1.
    """
    return measured(CASES, workloads, Setting(repeats), progress)


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


def _rows(work: Workload, targets: Targets | None, setting: Setting) -> list[Record]:
    speedup, share = targets or (None, None)
    seconds = medians({FLOW: together(work)}, setting.repeats, work.x.device)
    ratio = None
    if targets is None or speedup is not None:
        # Once only: T passes take as long as dozens of rounds of the other.
        seconds = {**medians({PASSES: autograd_passes(work)}, 1, work.x.device), **seconds}
        ratio = seconds[PASSES] / seconds[FLOW]
    names = ("speedup", "speedup_target", "gemm_share", "gemm_share_target")
    found = dict(zip(names, (ratio, speedup, _products(work) / seconds[FLOW] / setting.rate, share), strict=True))
    return timed_rows(work, seconds, lambda method, _: found if method == FLOW else dict.fromkeys(names))


def _products(work: Workload) -> int:
    """Multiply-adds of the reverse pass: the block of step t has T - t losses and meets W_hh once, except at step 0."""
    seq_len, batch, hidden, _, _ = work.sizes
    return batch * hidden**2 * seq_len * (seq_len - 1) // 2


CASES = Cases(
    "bench-flow",
    FLOW_SIZES,
    _rows,
    (Figure("speedup", "speedup_target", operator.ge), Figure("gemm_share", "gemm_share_target", operator.ge)),
    with_rate=True,
)
