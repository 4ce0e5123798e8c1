"""One layer in one direction of somebody's module: what its states and the gradients from outside tell."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rnnctl.gradients.contributions import Contributions, step_norms, sweep_dtype, takes_products, wide_dtype
from rnnctl.gradients.decay import Decay, decay_over_time
from rnnctl.memory import require_memory
from rnnctl.recurrence.elman import ElmanSteps, elman_states
from rnnctl.recurrence.gru import GRUSteps, gru_slopes, gru_states
from rnnctl.recurrence.lstm import LSTMSteps, lstm_states
from rnnctl.recurrence.scaling import times_power_of_two
from rnnctl.recurrence.sweep import ReverseChunk, sweep_back
from rnnctl.recurrence.threads import threads_for
from rnnctl.recurrence.weights import GATES, LayerWeights

# Below so many multiply-adds a step the sweep runs in float64: small networks lose most digits to
# rounding, and their time goes into calls, not arithmetic.
FLOAT64_BELOW = 10_000
# About so many steps are recomputed forward, to see that the module did what its weights say.
CHECKED_STEPS = 16


@dataclass(frozen=True, eq=False)
class LayerRun:
    """One layer in one direction over one call, in the order in which the recurrence ran.

    Attributes:
        cell: "RNN", "GRU" or "LSTM".
        nonlinearity: of an RNN, "tanh" or "relu".
        weights: as they were at the call.
        x: its inputs, shape (time, batch, input).
        h: the state before the first step and all that the module made, (time + 1, batch, hidden).
        c_init: of an LSTM, the cell state before the first step, (batch, hidden).
        direct: dL/dh_t from outside this recurrence at the last n steps, (n, batch, hidden).
        direct_c: dL/dc_t likewise, of an LSTM whose c_n the loss depends on.
        mask: 1 where a sequence has a step, (time, batch, 1); None where all have all.
        padding: 1 where a step is none of a sequence's own although the module ran it, (time, batch, 1).
    """

    cell: str
    nonlinearity: str
    weights: LayerWeights
    x: Tensor
    h: Tensor
    c_init: Tensor | None
    direct: Tensor
    direct_c: Tensor | None = None
    mask: Tensor | None = None
    padding: Tensor | None = None

    @property
    def gates(self) -> tuple[str, ...]:
        """Their names in the order of the rows of W_hh; none for an RNN."""
        return GATES[self.cell]

    def to(self, dtype: torch.dtype) -> "LayerRun":
        """The same run in another dtype; gradients from above keep theirs, which may hold what this one cannot."""
        parts = {name: getattr(self, name) for name in ("x", "h", "c_init", "mask", "padding")}
        given: dict[str, Any] = {name: part.to(dtype) for name, part in parts.items() if part is not None}
        return replace(self, weights=self.weights.to(dtype), **given)


@dataclass(frozen=True, eq=False)
class LayerNorms:
    """What the reverse sweep of one ``LayerRun`` found, steps in the order of the recurrence.

    Attributes:
        contributions: norms and sum of all G_t.
        norm_direct: norm of ``direct``, shape (time,), float64.
        norm_c: norm of dL/dc_t, shape (time,), float64, of an LSTM.
        grad_x: dL/dx_t, shape (time, batch, input), float64, where it was asked for.
        recovered_error: the largest difference between the h_t that follow from the weights and
            those that the module made, over 1 or |h_t|; of the steps that were recomputed.
        decay: how a gradient that enters at the last step changes on its way back, if asked for.
        padded: norms of what G_t has from padding and from real steps, each (time,), if that is known.
        grad_h_init: dL/d(the state before the first step), (batch, hidden), float64.
    """

    contributions: Contributions
    norm_direct: Tensor
    norm_c: Tensor | None
    grad_x: Tensor | None
    recovered_error: float
    decay: Decay | None
    padded: tuple[Tensor, Tensor] | None
    grad_h_init: Tensor


def layer_norms(run: LayerRun, *, want_grad_x: bool = False, want_decay: bool = False) -> LayerNorms:
    """Sweep back through one layer.

    Args:
        run: the layer and what is known of it.
        want_grad_x: also dL/dx_t, for the layer below.
        want_decay: also follow what enters at the last step alone, if need be by a second sweep.
    """
    products = takes_products(run.h)
    _require_room(run, want_grad_x)
    run = _in_sweep_dtype(run)
    batch, hidden = run.h.shape[1:]
    rows = run.weights.W_hh.shape[0]
    contributions = Contributions(run.h, products, rows=rows, gates=max(1, len(run.gates)))
    with torch.inference_mode(), threads_for(batch, hidden * max(1, len(run.gates))):
        steps = _steps(run)
        norm_c: list[Tensor] = []
        grad_x = torch.zeros_like(run.x, dtype=wide_dtype(run.x)) if want_grad_x else None
        audit = None if run.padding is None else _PaddingAudit(run, products)
        for chunk in sweep_back(steps, *_entering(run)):
            contributions.add(chunk)
            if audit is not None:
                audit.add(chunk)
            if chunk.norm_c is not None:
                norm_c.insert(0, times_power_of_two(chunk.norm_c, -chunk.exponent))
            if grad_x is not None:
                grad_x[chunk.start : chunk.stop] = _grad_x(run, steps, chunk)
        grad_h_init = _grad_h_init(steps, chunk.exponent)
        norm_direct = torch.zeros(run.h.shape[0] - 1, dtype=torch.float64)
        norm_direct[norm_direct.shape[0] - run.direct.shape[0] :] = step_norms(run.direct)
        decay = _decay(run, steps, contributions.log_norm_h) if want_decay else None
        error = _recovered_error(run, steps)
    return LayerNorms(
        contributions,
        norm_direct,
        torch.cat(norm_c) if norm_c else None,
        grad_x,
        error,
        decay,
        None if audit is None else audit.norms,
        grad_h_init,
    )


def _require_room(run: LayerRun, want_grad_x: bool) -> None:
    """Refuse before allocating: an LSTM's gates and cell states over all steps, and the layer below's gradient."""
    steps, batch = run.x.shape[:2]
    kept = 5 * run.c_init.shape[1] * run.h.element_size() if run.c_init is not None else 0
    kept += 8 * run.x.shape[2] if want_grad_x else 0
    require_memory(
        steps * batch * kept, f"the sweep of {steps} steps of {batch} sequences through one {run.cell} layer"
    )


class _PaddingAudit:
    """Contributions apart by whether the step is one of the sequence or padding."""

    def __init__(self, run: LayerRun, products: bool) -> None:
        rows = run.weights.W_hh.shape[0]
        assert run.padding is not None
        self._shares = run.padding, 1 - run.padding
        self._parts = tuple(Contributions(run.h, products, rows=rows) for _ in self._shares)

    def add(self, chunk: ReverseChunk) -> None:
        for share, part in zip(self._shares, self._parts, strict=True):
            part.add(replace(chunk, delta=chunk.delta * share[chunk.start : chunk.stop]))

    @property
    def norms(self) -> tuple[Tensor, Tensor]:
        padded, real = (part.norm_W_hh for part in self._parts)
        return padded, real


def _in_sweep_dtype(run: LayerRun) -> LayerRun:
    """float32 for half precision, float64 for small float32 layers, else as it is."""
    run = run.to(sweep_dtype(run.h).dtype)
    direct_c = None if run.direct_c is None else sweep_dtype(run.direct_c)
    # Half precision would not hold a gradient that is scaled to magnitude 1.
    run = replace(run, direct=sweep_dtype(run.direct), direct_c=direct_c)
    batch, hidden = run.h.shape[1:]
    small = batch * hidden * run.weights.W_hh.shape[0] < FLOAT64_BELOW
    return run.to(wide_dtype(run.h)) if small else run


def _steps(run: LayerRun) -> ElmanSteps | GRUSteps | LSTMSteps:
    if run.cell == "RNN":
        return ElmanSteps(run.h, run.weights.W_hh, run.nonlinearity, run.mask)
    if run.c_init is None:
        return GRUSteps(run.x, run.h, run.weights, run.mask)
    return LSTMSteps(run.x, run.h, run.c_init, run.weights, run.mask)


def _entering(run: LayerRun) -> tuple[Tensor, ...]:
    return (run.direct,) if run.direct_c is None else (run.direct, run.direct_c)


def _grad_h_init(steps: ElmanSteps | GRUSteps | LSTMSteps, exponent: int) -> Tensor:
    """What the first step sends back, the sweep having just ended there."""
    carried = steps.carried(0)[0]
    return times_power_of_two(carried.to(wide_dtype(carried)), -exponent).clone()


def _grad_x(run: LayerRun, steps: ElmanSteps | GRUSteps | LSTMSteps, chunk: ReverseChunk) -> Tensor:
    """dL/dx_t of a chunk: what reaches the gates, through W_ih."""
    delta = chunk.delta
    if isinstance(steps, GRUSteps):
        # x reaches the candidate past the reset gate.
        hidden = run.h.shape[2]
        delta = delta.clone()
        slopes = gru_slopes(run.x[chunk.start : chunk.stop], run.h[chunk.start : chunk.stop], run.weights)
        candidate = slopes.candidate if run.mask is None else slopes.candidate * run.mask[chunk.start : chunk.stop]
        torch.mul(chunk.grad_h, candidate, out=delta[..., 2 * hidden :])
    return times_power_of_two((delta @ run.weights.W_ih).to(wide_dtype(delta)), -chunk.exponent)


def _decay(run: LayerRun, steps: ElmanSteps | GRUSteps | LSTMSteps, log_norm_h: Tensor) -> Decay:
    """Of what enters at the last step alone: of packed sequences, the longest ones'."""
    if bool(run.direct[:-1].any()):
        log_norm_h = torch.empty_like(log_norm_h)
        for chunk in sweep_back(steps, *(part[-1:] for part in _entering(run))):
            log_norm_h[chunk.start : chunk.stop] = chunk.log_norm
    return decay_over_time(log_norm_h.clone())


def _recovered_error(run: LayerRun, steps: ElmanSteps | GRUSteps | LSTMSteps) -> float:
    """How far h_t is from what the weights make of x_t and h_{t-1}, at some steps from first to last."""
    seq_len = run.h.shape[0] - 1
    chosen = torch.arange(0, seq_len, max(1, seq_len // CHECKED_STEPS), device=run.h.device)
    x, before, after = run.x[chosen], run.h[chosen], run.h[chosen + 1]
    if run.cell == "RNN":
        found = elman_states(x, before, run.weights, run.nonlinearity)
    elif isinstance(steps, LSTMSteps):
        found = lstm_states(steps.gates[chosen], steps.c[chosen + 1], run.weights.W_hr)
    else:
        found = gru_states(x, before, run.weights)
    error = (found - after).abs() / after.abs().clamp_min(1)
    if run.mask is not None:
        error = error * run.mask[chosen]
    return float(error.max())
