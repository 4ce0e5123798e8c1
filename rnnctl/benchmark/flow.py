"""What the loss-step by source-step matrix costs, against T passes of autograd and the GEMM rate."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rnnctl.benchmark.methods import Workload, torch_twin
from rnnctl.benchmark.report import BenchReport, Cases, Figure, Setting, measured, timed_rows
from rnnctl.benchmark.timing import medians
from rnnctl.gradients.autograd import W_HH
from rnnctl.gradients.flow import flow
from rnnctl.models.torch_layers import LayeredRNN
from rnnctl.results import Record

PASSES, FLOW = "T autograd passes", "rnnctl flow"
W_HH_OF_LAYER = "rnn.weight_hh_l0"


class Targets(NamedTuple):
    """What ``flow`` is to reach: at least so many times as fast as T passes (None: not run), at least such a share of
    the GEMM rate; and of which cell: "rnn" is the hand-written network, any other one of torch's layers."""

    speedup: float | None = None
    gemm_share: float | None = None
    cell: str = "rnn"


FLOW_SIZES: tuple[tuple[Mapping[str, int], Targets], ...] = (
    ({"seq_len": 256, "batch_size": 4, "hidden_size": 128, "input_size": 10}, Targets(70.0)),
    ({"seq_len": 512, "batch_size": 8, "hidden_size": 256, "input_size": 10}, Targets(None, 0.40)),
    ({"seq_len": 200, "batch_size": 4, "hidden_size": 64, "input_size": 10}, Targets(2.5, cell="lstm")),
    ({"seq_len": 200, "batch_size": 4, "hidden_size": 64, "input_size": 10}, Targets(15.0, cell="gru")),
)


def bench_flow(
    workloads: Sequence[tuple[Workload, Sequence[Any] | None]],
    *,
    repeats: int = 7,
    progress: Callable[[float], None] | None = None,
) -> BenchReport:
    """Time ``flow`` on every workload, and T passes of autograd where they have a target.

    Args:
        workloads: each with its ``Targets`` (least speed-up, least share of the GEMM rate, perhaps the cell), or
            None; T passes are left out where targets are given and none of them is a speed-up.
        repeats: interleaved rounds; the median counts.
        progress: called with the fraction of the workloads that are done.
    Returns:
        ``rows`` have case, method, milliseconds, speedup (over T passes of autograd, with its target) and
        gemm_share (multiply-adds of the reverse products over time and measured GEMM rate, with its target).
    Raises:
        InputError: no workload, or repeats below 1.
    """
    return measured(CASES, workloads, Setting(repeats), progress)


def together(model: nn.Module, work: Workload) -> Callable[[], None]:
    """``rnnctl.flow``: all loss steps in one reverse pass."""
    start: dict[str, Any] = {"h_init": work.h_init} if model is work.model else {}

    def run() -> None:
        flow(model, work.x, **start)

    return run


def autograd_passes(model: nn.Module, work: Workload) -> Callable[[], None]:
    """One forward pass of torch's layer with the same weights, its graph kept, and a backward pass per loss step."""
    weight, outputs = _in_torch(model, work)

    def run() -> None:
        for _ in gradients_by_pass(weight, outputs()):
            pass

    return run


def gradients_by_pass(weight: Tensor, y: Float[Tensor, "batch time output"]) -> Iterator[Tensor]:
    """dL_k/dweight for every k, L_k being the share of step k in the mse of y against zeros.

    Args:
        weight: any leaf that y was made from.
        y: with its graph, shape (batch, time, output).
    Returns:
        Gradients, each of the shape of the weight, one for each step of y.
    """
    for k in range(y.shape[1]):
        # Not unbind, whose way back fills in zeros for every other step one by one.
        yield torch.autograd.grad(y[:, k].square().sum() / y.numel(), weight, retain_graph=True)[0]


def _asked(cell: str, work: Workload) -> nn.Module:
    """The workload's own network, or one of the same sizes as somebody builds it from torch's layers."""
    if cell == Targets().cell:
        return work.model
    _, _, hidden, inputs, outputs = work.sizes
    return LayeredRNN(cell, inputs, hidden, outputs).to(work.x)


def _in_torch(model: nn.Module, work: Workload) -> tuple[Tensor, Callable[[], Tensor]]:
    """W_hh of torch's layer, and what makes y from it."""
    if model is not work.model:
        return model.get_parameter(W_HH_OF_LAYER), lambda: model(work.x)
    rnn = torch_twin(work)
    return rnn.get_parameter("weight_hh_l0"), lambda: work.model.readout(rnn(work.x, work.h_init.unsqueeze(0))[0])


def _rows(work: Workload, targets: Sequence[Any] | None, setting: Setting) -> list[Record]:
    aims = Targets(*(targets or ()))
    model = _asked(aims.cell, work)
    runs = {FLOW: together(model, work)}
    if targets is None or aims.speedup is not None:
        runs = {PASSES: autograd_passes(model, work), **runs}
    seconds = medians(runs, setting.repeats, work.x.device)
    ratio = seconds[PASSES] / seconds[FLOW] if PASSES in seconds else None
    # Of one step W_hh meets nothing.
    share = _products(work, model) / seconds[FLOW] / setting.rate or None
    title = work.title if aims.cell == Targets().cell else f"{work.title}, {aims.cell}"
    names = ("speedup", "speedup_target", "gemm_share", "gemm_share_target")
    found = dict(zip(names, (ratio, aims.speedup, share, aims.gemm_share), strict=True))
    return timed_rows(work, seconds, lambda method, _: found if method == FLOW else dict.fromkeys(names), case=title)


def _products(work: Workload, model: nn.Module) -> int:
    """Multiply-adds of the reverse pass: the block of step t has T - t losses and meets W_hh once, except at step 0."""
    seq_len, batch, _, _, _ = work.sizes
    W_hh = model.get_parameter(W_HH if model is work.model else W_HH_OF_LAYER)
    return batch * W_hh.numel() * seq_len * (seq_len - 1) // 2


CASES = Cases(
    "bench-flow",
    FLOW_SIZES,
    _rows,
    (
        Figure("speedup", "speedup_target", operator.ge),
        Figure("gemm_share", "gemm_share_target", operator.ge, "gemm_share_before", "gemm_share_change"),
    ),
    FLOW,
    with_rate=True,
)
