"""One layer in one direction, of our network or somebody's module: what a sweep back along its run tells."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rnnctl.gradients.contributions import Contributions, step_norms, sweep_dtype, wide_dtype
from rnnctl.gradients.decay import Decay, decay_from, entry
from rnnctl.gradients.entering import FromReadout
from rnnctl.memory import require_memory
from rnnctl.recurrence.run import LayerRun
from rnnctl.recurrence.scaling import times_power_of_two
from rnnctl.recurrence.slopes import State
from rnnctl.recurrence.states_seen import Sizes
from rnnctl.recurrence.sweep import ReverseChunk, Reversible, sweep_back
from rnnctl.recurrence.threads import threads_for
from rnnctl.results import Later

# Below so many multiply-adds a step the sweep runs in float64: small networks lose most digits to
# rounding, and their time goes into calls, not arithmetic.
FLOAT64_BELOW = 10_000
# About so many steps are recomputed forward, to see that the module did what its weights say.
CHECKED_STEPS = 16


@dataclass(frozen=True, eq=False)
class LayerNorms:
    """What the reverse sweep of one ``LayerRun`` found, steps in the order of the recurrence.

    Attributes:
        contributions: norms and sum of all G_t.
        grad_norm_h_direct: norm of ``direct``, shape (time,), float64.
        grad_norm_c_direct: norm of ``direct_c``, shape (time,), float64.
        grad_norm_c: norm of dL/dc_t, shape (time,), float64, of a cell that has c.
        grad_x: dL/dx_t, shape (time, batch, input), float64, where it was asked for.
        recovered_error: the largest difference between the h_t that follow from the weights and
            those that the module made, over 1 or |h_t|; of the steps that were recomputed.
        decay: how a gradient that enters at the last step changes on its way back, if asked for; where more enters
            before it, that takes a sweep of its own, which is made when this is called.
        padded: norms of what G_t has from padding and from real steps, each (time,), if that is known.
        grad_init: the gradient of the state before the first step, past c's way through h, each part (batch, units),
            float64, of a recorded run.
    """

    contributions: Contributions
    grad_norm_h_direct: Tensor
    grad_norm_c_direct: Tensor
    grad_norm_c: Tensor | None
    grad_x: Tensor | None
    recovered_error: float
    decay: Later[Decay] | None
    padded: tuple[Tensor, Tensor] | None
    grad_init: State | None


def layer_norms(
    run: LayerRun,
    *,
    want_grad_x: bool = False,
    want_decay: bool = False,
    recorded: bool = True,
    readout: FromReadout | None = None,
    sizes: Sizes | None = None,
    progress: Callable[[float], None] | None = None,
) -> LayerNorms:
    """Sweep back through one layer.

    Args:
        run: the layer and what is known of it.
        want_grad_x: also dL/dx_t, for the layer below.
        want_decay: also follow what enters at the last step alone, if need be by a second sweep later, for which h is
            kept.
        recorded: whether the run is of somebody's module, so that its states are held against its weights, and it
            is kept what the first step sends back; neither is asked of states that we made ourselves.
        readout: what enters, in place of ``run.direct``.
        sizes: is told of all states on the way.
        progress: called with the fraction of the steps that are done.
    """
    _require_room(run, want_grad_x)
    run = in_sweep_dtype(run)
    contributions = Contributions(run.h, rows=run.weights.W_hh.shape[0], gates=run.kind.blocks)
    with _swept(run) as steps:
        listeners = _Listeners(run, want_grad_x, sizes, progress)
        for chunk in sweep_back(steps, *(run.entering if readout is None else (readout.rows,))):
            contributions.add(chunk)
            listeners.add(steps, chunk)
        return LayerNorms(
            contributions=contributions,
            grad_norm_h_direct=direct_norms(run, run.direct) if readout is None else readout.norms,
            grad_norm_c_direct=direct_norms(run, run.direct_c),
            grad_norm_c=listeners.grad_norm_c,
            grad_x=listeners.grad_x,
            recovered_error=_recovered_error(run, steps) if recorded else 0.0,
            grad_init=_grad_init(steps, chunk.exponent) if recorded else None,
            decay=_decay(run, readout, listeners.log_grad_norm_state) if want_decay else None,
            padded=listeners.padded,
        )


def chosen_sums(run: LayerRun, chosen: Tensor) -> Tensor:
    """Sums of the G_t of chosen steps, shape (choices, rows of W_hh, hidden), float64.

    Args:
        run: with the gradients of one loss.
        chosen: which steps, in the order of the recurrence, boolean, shape (choices, time).
    """
    run = in_sweep_dtype(run)
    with torch.inference_mode():
        steps, h = run.kind.reversible(run), run.h[:-1]
        found = h.new_zeros(len(chosen), *run.weights.W_hh.shape, dtype=wide_dtype(h))
        for chunk in sweep_back(steps, *run.entering):
            for total, kept in zip(found, chosen[:, chunk.start : chunk.stop], strict=True):
                delta, before = chunk.delta[kept].flatten(0, 1), h[chunk.start : chunk.stop][kept].flatten(0, 1)
                total += times_power_of_two((delta.t() @ before).to(found.dtype), -chunk.exponent)
    return found.clone()


class _Listeners:
    """What is kept of every chunk of a sweep beside the contributions."""

    def __init__(
        self, run: LayerRun, want_grad_x: bool, sizes: Sizes | None, progress: Callable[[float], None] | None
    ) -> None:
        self._run, self._sizes, self._progress = run, sizes, progress
        self._norms_c: list[Tensor] = []
        self._log_norms: list[Tensor] = []
        self.grad_x = torch.zeros_like(run.x, dtype=wide_dtype(run.x)) if want_grad_x else None
        self._audit = None if run.padding is None else _PaddingAudit(run)

    def add(self, steps: Reversible, chunk: ReverseChunk) -> None:
        """Take in one chunk."""
        if self._audit is not None:
            self._audit.add(chunk)
        self._log_norms.append(chunk.log_norm_state)
        if chunk.norm_c is not None:
            self._norms_c.append(times_power_of_two(chunk.norm_c, -chunk.exponent))
        if self.grad_x is not None:
            through = steps.input_delta(chunk) @ self._run.weights.W_ih
            self.grad_x[chunk.start : chunk.stop] = times_power_of_two(through.to(self.grad_x.dtype), -chunk.exponent)
        if self._sizes is not None:
            self._sizes.add(self._run.h[chunk.start + 1 : chunk.stop + 1])
        if self._progress is not None:
            self._progress(1 - chunk.start / self._run.seq_len)

    @property
    def grad_norm_c(self) -> Tensor | None:
        """||dL/dc_t||, shape (time,), float64, of a cell that has one."""
        return torch.cat(self._norms_c[::-1]) if self._norms_c else None

    @property
    def log_grad_norm_state(self) -> Tensor:
        """ln of the norm of the whole state's gradient, shape (time,), float64."""
        return torch.cat(self._log_norms[::-1])

    @property
    def padded(self) -> tuple[Tensor, Tensor] | None:
        """Norms of what G_t has from padding and from real steps."""
        return None if self._audit is None else self._audit.norms


def direct_norms(run: LayerRun, direct: Tensor | None) -> Tensor:
    """Norms of what enters from outside, shape (time,), float64.

    Args:
        direct: of one part of the state at the last n steps, (n, batch, units); None for nothing.
    """
    norms = torch.zeros(0, dtype=torch.float64) if direct is None else step_norms(direct)
    return torch.nn.functional.pad(norms, (run.seq_len - len(norms), 0))


def _require_room(run: LayerRun, want_grad_x: bool) -> None:
    """Refuse before allocating: gates and cell states over all steps, and the layer below's gradient."""
    kept = (run.kind.blocks + 1) * run.c_init.shape[1] * run.h.element_size() if run.c_init is not None else 0
    kept += 8 * run.x.shape[2] if want_grad_x else 0
    # Asking how much there is takes longer than a small sweep.
    if kept:
        steps, batch = run.x.shape[:2]
        what = f"the sweep of {steps} steps of {batch} sequences through one {run.kind.name} layer"
        require_memory(steps * batch * kept, what)


class _PaddingAudit:
    """Contributions apart by whether the step is one of the sequence or padding."""

    def __init__(self, run: LayerRun) -> None:
        rows = run.weights.W_hh.shape[0]
        assert run.padding is not None
        self._shares = run.padding, 1 - run.padding
        self._parts = tuple(Contributions(run.h, rows=rows) for _ in self._shares)

    def add(self, chunk: ReverseChunk) -> None:
        for share, part in zip(self._shares, self._parts, strict=True):
            part.add(replace(chunk, delta=chunk.delta * share[chunk.start : chunk.stop]))

    @property
    def norms(self) -> tuple[Tensor, Tensor]:
        padded, real = (part.grad_norm_W_hh for part in self._parts)
        return padded, real


def swept_in(h: Tensor, multiply_adds: int) -> torch.dtype:
    """float32 for half precision, float64 for small float32 layers, else that of the states.

    Args:
        h: a tensor of their dtype and device, of any shape.
        multiply_adds: of all sequences in one step.
    """
    if multiply_adds < FLOAT64_BELOW:
        return wide_dtype(h)
    return torch.float32 if h.dtype.itemsize < 4 else h.dtype


def copy_bytes(kept: torch.dtype, swept: torch.dtype) -> int:
    """Of one number that a sweep has in another dtype than the run that it goes along; 0 where it takes it as it is."""
    return 0 if kept == swept else swept.itemsize


def in_sweep_dtype(run: LayerRun) -> LayerRun:
    """The run, and what enters it, in the dtype of ``swept_in``."""
    batch, hidden = run.h.shape[1:]
    if run.h.dtype.itemsize < 4:
        # Half precision would not hold a gradient that is scaled to magnitude 1.
        direct_c = None if run.direct_c is None else sweep_dtype(run.direct_c)
        run = replace(run, direct=sweep_dtype(run.direct), direct_c=direct_c)
    # Half precision is widened for the arithmetic alone: the weights are as rounded as the module had them.
    return run.to(swept_in(run.h, batch * hidden * run.weights.W_hh.shape[0]))


def _grad_init(steps: Reversible, exponent: int) -> State:
    """What the first step sends back, the sweep having just ended there."""
    return tuple(times_power_of_two(part.to(wide_dtype(part)), -exponent).clone() for part in steps.carried(0))


def _decay(run: LayerRun, readout: FromReadout | None, log_grad_norm_state: Tensor) -> Later[Decay]:
    """Of what enters at the last step alone: of sequences that end at different steps, the longest ones'."""
    own = [direct_norms(run, part) for part in run.entering] if readout is None else [readout.norms]
    entering = torch.stack(own).sum(0)
    last = entry(entering) if run.mask is None else _entry_of_packed(run, entering)
    # Where nothing enters earlier the sweep that has just ended was this one.
    if not bool((entering[:last] != 0).any()):
        return Later.made(decay_from(log_grad_norm_state.clone(), last))
    count = run.seq_len - last
    given = [_from(part, count).clone() for part in run.entering] if readout is None else [readout.last(count)]
    direct, *more = given
    alone = replace(run, weights=run.weights.copied(), direct=direct, direct_c=more[0] if more else None)
    return Later(lambda: decay_from(_log_norms(alone), last))


def _log_norms(run: LayerRun) -> Tensor:
    """ln of the norm of the whole state's gradient, shape (time,), float64."""
    found = torch.empty(run.seq_len, dtype=torch.float64)
    with _swept(run) as steps:
        for chunk in sweep_back(steps, *run.entering):
            found[chunk.start : chunk.stop] = chunk.log_norm_state
    return found


@contextmanager
def _swept(run: LayerRun) -> Iterator[Reversible]:
    """The steps of a layer, within what a sweep runs under."""
    batch, hidden = run.h.shape[1:]
    with torch.inference_mode(), threads_for(batch, hidden * run.kind.blocks):
        yield run.kind.reversible(run)


def _entry_of_packed(run: LayerRun, entering: Tensor) -> int:
    """The last step at which something enters sequences that have a step before it; 0 where all begin where it does."""
    assert run.mask is not None
    has_before = torch.nn.functional.pad(run.mask[:-1].float(), (0, 0, 0, 0, 1, 0))
    within = [direct_norms(run, part * has_before[-len(part) :]) for part in run.entering]
    counted = torch.stack(within).sum(0)
    return entry(counted) if bool(counted.any()) else 0 if bool(entering.any()) else run.seq_len - 1


def _from(direct: Tensor, count: int) -> Tensor:
    """What enters at the last so many steps, of which the first is the last that anything enters to go further back.

    Args:
        direct: of one part of the state at the last n steps, shape (n, batch, units).
    """
    return direct[-count:] if count <= len(direct) else torch.zeros_like(direct[-1:])


def state_errors(found: Tensor, made: Tensor) -> Tensor:
    """How far states that follow from the weights are from those that the module made.

    Args:
        found, made: of any one shape, which the errors have as well.
    """
    # Relative beyond 1: states of relu have no bound, and rounding grows with them.
    return (found - made).abs() / made.abs().clamp_min(1)


def _recovered_error(run: LayerRun, steps: Reversible) -> float:
    """How far h_t is from what the weights make of x_t and h_{t-1}, at some steps from first to last."""
    chosen = torch.arange(0, run.seq_len, max(1, run.seq_len // CHECKED_STEPS), device=run.h.device)
    before = [states[chosen] for states in (run.h, steps.c) if states is not None]
    after = run.h[chosen + 1]
    found = run.kind.next_states(run.x[chosen], tuple(before), run.weights)[0]
    error = state_errors(found, after)
    if run.mask is not None:
        error = error * run.mask[chosen]
    return float(error.max())
