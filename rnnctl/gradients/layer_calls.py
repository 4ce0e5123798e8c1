"""From one call of nn.RNN, nn.GRU or nn.LSTM to what each of its recurrent weights contributes, step by step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from rnnctl.gradients.decay import Decay
from rnnctl.gradients.layer_sweep import LayerNorms, chosen_sums, direct_norms, layer_norms
from rnnctl.models.arriving_gradients import Received
from rnnctl.models.calls import LayeredCall
from rnnctl.models.modules import directions
from rnnctl.models.replay import in_float64
from rnnctl.models.sequences import Geometry, ordered, with_received
from rnnctl.recurrence.run import LayerRun
from rnnctl.recurrence.scaling import largest_magnitude
from rnnctl.recurrence.slopes import State
from rnnctl.recurrence.states_seen import InFloat64, StatesSeen, first_bad_step, seen_in

# Of what norms were made: of a sweep, or of what autograd itself has formed.
SWEEP, AUTOGRAD = "sweep", "autograd"
# A difference below so many units in the last place of its terms is rounding.
ROUNDING = 64


@dataclass(frozen=True, eq=False)
class StepNorms:
    """What one recurrent weight did in one call, steps in the order of the sequence.

    Attributes:
        grad_norm_W_hh: norm of G_t, shape (time,), float64.
        grad_norm_gates: norm of every gate's rows of G_t, shape (time, gates); one column without gates.
        grad_norm_h, grad_norm_h_direct: norm of dL/dh_t, in all and from outside the recurrence, shape (time,).
        grad_norm_c: norm of dL/dc_t, shape (time,), or None.
        grad_norm_c_direct: of that what comes from outside the recurrence, shape (time,); 0 without c, NaN of a cell in
            a loop where no decay was asked for.
        grad_W_hh: sum of G_t, shape of the weight, float64.
        magnitude: sum of ||delta_t|| ||h_{t-1}||.
        recovered_error: how far the states are from those that the weights make, or None if unknown.
        decay: of a gradient that enters at the last step, if asked for and known.
        padded: norms of what G_t has from padding and from real steps, each (time,), if that is known.
        largest_input: the largest |x| that products were made of once more, 0 where none were.
        seen: what its states and inputs are like, if the decay was asked for.
        ends: what enters at the last step of the recurrence from outside, and what the first step sends back to the
            state before it, past c's way through h, of h and of c where it has one, each (batch, units); None for the
            calls of a cell.
        read_from: ``SWEEP`` or ``AUTOGRAD``; of the latter the magnitude is the sum of ||G_t||.
    """

    grad_norm_W_hh: Tensor
    grad_norm_gates: Tensor
    grad_norm_h: Tensor
    grad_norm_h_direct: Tensor
    grad_norm_c: Tensor | None
    grad_norm_c_direct: Tensor
    grad_W_hh: Tensor
    magnitude: float
    recovered_error: float | None
    decay: Decay | None
    padded: tuple[Tensor, Tensor] | None
    largest_input: float
    seen: StatesSeen | None
    ends: tuple[State, State] | None = None
    read_from: str = SWEEP

    @property
    def entering(self) -> Tensor:
        """Norm of what comes to the whole state from outside, shape (time,), float64."""
        return torch.hypot(self.grad_norm_h_direct, self.grad_norm_c_direct)

    @property
    def grad_norm_state(self) -> Tensor:
        """Norm of the gradient of the whole state, h_t and c_t beside one another, shape (time,), float64."""
        return self.grad_norm_h if self.grad_norm_c is None else torch.hypot(self.grad_norm_h, self.grad_norm_c)


def layered_norms(call: LayeredCall, want_decay: bool = False, lengths: Tensor | None = None) -> list[StepNorms]:
    """The norms of every layer and direction, forward before reverse, swept from the top layer down.

    Args:
        lengths: real steps of every sequence, (batch,), where the call may have run padding, too.
    """
    geometry, count = Geometry.of(call, lengths), directions(call.module)
    from_above = geometry.received(call)
    found: list[StepNorms] = []
    for layer in range(call.module.num_layers - 1, -1, -1):
        runs = [geometry.run(call, layer, reverse, from_above) for reverse in range(count)]
        swept = [layer_norms(run, want_grad_x=layer > 0, want_decay=want_decay) for run in runs]
        replayed = call.below[layer].error if layer < call.module.num_layers - 1 else 0.0
        found = [_in_time(norms, bool(reverse), replayed, runs[reverse]) for reverse, norms in enumerate(swept)] + found
        if want_decay:
            seen = [_seen(call, layer * count + reverse, run) for reverse, run in enumerate(runs)]
            found[:count] = [replace(norms, seen=each) for norms, each in zip(found, seen, strict=False)]
        grads = [norms.grad_x for norms in swept if norms.grad_x is not None]
        from_above = geometry.below(call, layer, grads) if layer > 0 else None
    return found


def layer_seen(call: LayeredCall, index: int) -> StatesSeen:
    """What the states and inputs of one of its weights are like.

    Args:
        index: of the weight in the call's module.
    """
    layer, reverse = divmod(index, directions(call.module))
    return _seen(call, index, Geometry.of(call, None).run(call, layer, reverse, None))


def _seen(call: LayeredCall, index: int, run: LayerRun) -> StatesSeen:
    """The same of a run that is there, and where its states are not finite what they would be in float64."""
    layer, reverse = divmod(index, directions(call.module))
    found = seen_in(run, reverse=bool(reverse))
    if found.first_nonfinite is None:
        return found
    batch, units = run.h.shape[1:]
    with torch.inference_mode():
        output = Geometry.of(call, None).steps(in_float64(call, layer), batch)
        step = first_bad_step(ordered(output[..., reverse * units : (reverse + 1) * units], reverse))
    step = len(output) - 1 - step if step is not None and reverse else step
    given = (call.x, *(call.initial or ()), *(part for weights in call.weights for part in weights.tensors))
    return replace(found, in_float64=InFloat64.of_states(step, before=found.first_nonfinite, given=given))


def layer_band_sums(call: LayeredCall, index: int, last: int, windows: Sequence[int]) -> Tensor:
    """The sum of the G_t from one window back to the next, (windows, rows, hidden), float64.

    Args:
        index: of the weight in the call's module.
        last: the step at which the windows end.
        windows: how many steps, the last one included, in order.
    """
    geometry, count = Geometry.of(call, None), directions(call.module)
    (layer, reverse), above = divmod(index, count), geometry.received(call)
    for each in range(call.module.num_layers - 1, layer, -1):
        runs = [geometry.run(call, each, way, above) for way in range(count)]
        grads = [layer_norms(run, want_grad_x=True).grad_x for run in runs]
        above = geometry.below(call, each, [grad for grad in grads if grad is not None])
    run = geometry.run(call, layer, reverse, above)
    lags = last - torch.arange(run.seq_len)
    chosen = torch.stack([(lags >= near) & (lags < far) for near, far in pairwise((0, *windows))])
    return chosen_sums(run, chosen.flip(1) if reverse else chosen)


def without_carried(calls: Sequence[LayeredCall], norms: list[list[StepNorms]]) -> list[list[StepNorms]]:
    """The norms of several calls, where one took the h_n of another: what it sends back is not from outside."""
    if any(call.received.outside is not None for call in calls):
        return [_from_outside(call, found) for call, found in zip(calls, norms, strict=True)]
    for call, found in zip(calls, list(norms), strict=True):
        # The sequences of a packed batch end at different steps, to each of which a part is sent back.
        if call.source is not None and call.batch_sizes is None and calls[call.source].batch_sizes is None:
            before = norms[call.source]
            eps, count = torch.finfo(call.output.dtype).eps, directions(call.module)
            # The last step of the recurrence is the first of the sequence where it runs in reverse.
            ends = [-1 if i % count == 0 else 0 for i in range(len(before))]
            norms[call.source] = [_less(*each, eps) for each in zip(before, found, ends, strict=True)]
    return norms


def _from_outside(call: LayeredCall, norms: list[StepNorms]) -> list[StepNorms]:
    """The norms of one call with what was found in the graph to come past all later calls of the module."""
    geometry, count = Geometry.of(call, None), directions(call.module)
    told = with_received(call, Received(dict(call.received.outside or {})))
    above, top = geometry.received(told), call.module.num_layers - 1
    found = []
    for index, each in enumerate(norms):
        layer, reverse = divmod(index, count)
        if layer == top:
            run = geometry.run(told, layer, reverse, above)
            h, c = (ordered(direct_norms(run, part), reverse).clone() for part in (run.direct, run.direct_c))
        else:
            h, c = (_at_end(call, told, each, (index, part), bool(reverse)) for part in (0, 1))
        found.append(replace(each, grad_norm_h_direct=h, grad_norm_c_direct=c))
    return found


def _at_end(call: LayeredCall, told: LayeredCall, norms: StepNorms, which: tuple[int, int], reverse: bool) -> Tensor:
    """Of a layer below the last: what h_n or c_n brought from later calls goes off at the last step.

    Args:
        which: the weight among those of the module, and which part of the state.
    """
    index, part = which
    direct = (norms.grad_norm_h_direct, norms.grad_norm_c_direct)[part].clone()
    whole, outside = (each.received.by_name.get(("h_n", "c_n")[part]) for each in (call, told))
    if whole is None:
        return direct
    if call.batch_sizes is not None or norms.ends is None:
        return torch.full_like(direct, torch.nan)
    carried = whole if outside is None else whole - outside
    carried = (carried.unsqueeze(1) if carried.dim() == 2 else carried)[index]
    entered = norms.ends[0][part].to(norms.ends[1][part].dtype)
    last = entered - carried.to(entered.dtype)
    eps = torch.finfo(call.output.dtype).eps
    direct[0 if reverse else -1] = torch.linalg.vector_norm(unless_rounding(last, entered, eps))
    return direct


def _less(before: StepNorms, after: StepNorms, end: int, eps: float) -> StepNorms:
    """``before``, whose last step passed its state on to ``after``."""
    assert before.ends is not None and after.ends is not None
    direct = [before.grad_norm_h_direct.clone(), before.grad_norm_c_direct.clone()]
    for norms, whole, carried in zip(direct, before.ends[0], after.ends[1], strict=False):
        wide = whole.to(carried.dtype)
        norms[end] = torch.linalg.vector_norm(unless_rounding(wide - carried, wide, eps))
    return replace(before, grad_norm_h_direct=direct[0], grad_norm_c_direct=direct[1])


def unless_rounding(part: Tensor, whole: Tensor, eps: float) -> Tensor:
    """A difference, or zeros where it is no more than the rounding of autograd's own sum.

    Args:
        part: whole less something, of any shape.
        whole: of the same shape.
        eps: of the dtype that autograd summed in.
    """
    small = torch.linalg.vector_norm(part) <= ROUNDING * eps * torch.linalg.vector_norm(whole)
    return torch.zeros_like(part) if bool(small) else part


def _in_time(norms: LayerNorms, reverse: bool, replayed: float, run: LayerRun) -> StepNorms:
    found = norms.contributions
    by_step = (found.grad_norm_W_hh, found.grad_norm_gates, found.grad_norm_h, norms.grad_norm_h_direct)
    # Copies, because tensors made in inference mode refuse autograd.
    grad_norm_W_hh, grad_norm_gates, grad_norm_h, grad_norm_h_direct = (ordered(p, reverse).clone() for p in by_step)
    return StepNorms(
        grad_norm_W_hh=grad_norm_W_hh,
        grad_norm_gates=grad_norm_gates,
        grad_norm_h=grad_norm_h,
        grad_norm_h_direct=grad_norm_h_direct,
        grad_norm_c=None if norms.grad_norm_c is None else ordered(norms.grad_norm_c, reverse).clone(),
        grad_norm_c_direct=ordered(norms.grad_norm_c_direct, reverse).clone(),
        grad_W_hh=found.grad_W_hh.clone(),
        magnitude=found.magnitude,
        recovered_error=max(norms.recovered_error, replayed),
        decay=None if norms.decay is None else norms.decay(),
        padded=None if norms.padded is None else _both_ordered(norms.padded, reverse),
        largest_input=largest_magnitude(run.x),
        seen=None,
        ends=None if norms.grad_init is None else (tuple(part[-1] for part in run.entering), norms.grad_init),
    )


def _both_ordered(parts: tuple[Tensor, Tensor], reverse: bool) -> tuple[Tensor, Tensor]:
    first, second = (ordered(part, reverse).clone() for part in parts)
    return first, second
