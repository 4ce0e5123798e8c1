"""From one call of nn.RNN, nn.GRU or nn.LSTM to what each of its recurrent weights contributes, step by step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rnnctl.gradients.decay import Decay
from rnnctl.gradients.layer_sweep import LayerNorms, LayerRun, layer_norms
from rnnctl.models.arriving_gradients import Received
from rnnctl.models.calls import LayeredCall, in_packed_order, time_major
from rnnctl.models.modules import directions
from rnnctl.models.replay import initial_states

# A difference below so many units in the last place of its terms is rounding.
ROUNDING = 64


@dataclass(frozen=True, eq=False)
class StepNorms:
    """What one recurrent weight did in one call, steps in the order of the sequence.

    Attributes:
        W_hh: shape (time,), norm of G_t, float64.
        gates: shape (time, gates), norm of every gate's rows of G_t; one column for an RNN.
        h, h_direct: shape (time,), norm of dL/dh_t, in all and from outside the recurrence.
        c: shape (time,), norm of dL/dc_t, or None.
        grad_W_hh: sum of G_t, shape of the weight, float64.
        magnitude: sum of ||delta_t|| ||h_{t-1}||.
        recovered_error: how far the states are from those that the weights make, or None if unknown.
        decay: of a gradient that enters at the last step, if asked for and known.
        padded: norms of what G_t has from padding and from real steps, each (time,), if that is known.
        ends: what enters at the last step of the recurrence from outside, and what the first step sends
            back to the state before it, each (batch, hidden); None for the calls of a cell.
    """

    W_hh: Tensor
    gates: Tensor
    h: Tensor
    h_direct: Tensor
    c: Tensor | None
    grad_W_hh: Tensor
    magnitude: float
    recovered_error: float | None
    decay: Decay | None
    padded: tuple[Tensor, Tensor] | None
    ends: tuple[Tensor, Tensor] | None = None


def layered_norms(call: LayeredCall, want_decay: bool = False, lengths: Tensor | None = None) -> list[StepNorms]:
    """The norms of every layer and direction, forward before reverse, swept from the top layer down.

    Args:
        lengths: real steps of every sequence, (batch,), where the call may have run padding, too.
    """
    geometry, count = _Geometry.of(call, lengths), directions(call.module)
    from_above = geometry.received(call)
    found: list[StepNorms] = []
    for layer in range(call.module.num_layers - 1, -1, -1):
        runs = [geometry.run(call, layer, reverse, from_above) for reverse in range(count)]
        swept = [layer_norms(run, want_grad_x=layer > 0, want_decay=want_decay) for run in runs]
        replayed = call.below[layer].error if layer < call.module.num_layers - 1 else 0.0
        found = [
            _in_time(norms, bool(reverse), replayed, runs[reverse].direct[-1]) for reverse, norms in enumerate(swept)
        ] + found
        from_above = geometry.below(call, layer, swept) if layer > 0 else None
    return found


def layer_runs(call: LayeredCall) -> list[LayerRun]:
    """Every layer of a call in one direction, without gradients."""
    geometry = _Geometry.of(call, None)
    return [geometry.run(replace(call, received=Received()), layer, 0, None) for layer in range(call.module.num_layers)]


def without_carried(calls: Sequence[LayeredCall], norms: list[list[StepNorms]]) -> list[list[StepNorms]]:
    """The norms of several calls, where one took the h_n of another: what it sends back is not from outside."""
    for call, found in zip(calls, list(norms), strict=True):
        if call.source is not None and call.batch_sizes is None and calls[call.source].batch_sizes is None:
            before = norms[call.source]
            eps, count = torch.finfo(call.output.dtype).eps, directions(call.module)
            # The last step of the recurrence is the first of the sequence where it runs in reverse.
            ends = [-1 if i % count == 0 else 0 for i in range(len(before))]
            norms[call.source] = [_less(*each, eps) for each in zip(before, found, ends, strict=True)]
    return norms


def _less(before: StepNorms, after: StepNorms, end: int, eps: float) -> StepNorms:
    """``before``, whose last step passed its state on to ``after``."""
    assert before.ends is not None and after.ends is not None
    whole = before.ends[0].to(after.ends[1].dtype)
    direct = before.h_direct.clone()
    direct[end] = torch.linalg.vector_norm(unless_rounding(whole - after.ends[1], whole, eps))
    return replace(before, h_direct=direct)


def unless_rounding(part: Tensor, whole: Tensor, eps: float) -> Tensor:
    """A difference, or zeros where it is no more than the rounding of autograd's own sum."""
    small = torch.linalg.vector_norm(part) <= ROUNDING * eps * torch.linalg.vector_norm(whole)
    return torch.zeros_like(part) if bool(small) else part


@dataclass(frozen=True, eq=False)
class _Geometry:
    """How the sequences of a call lie in time.

    Attributes:
        mask: 1 where a sequence has a step, (time, batch, 1), boolean; None where all have all.
        ends: the last step of every sequence, (batch,); None where that is the last of all.
        padding: 1 where the module ran a step that is none of the sequence's own, (time, batch, 1), or None.
    """

    mask: Tensor | None
    ends: Tensor | None
    padding: Tensor | None

    @classmethod
    def of(cls, call: LayeredCall, lengths: Tensor | None) -> "_Geometry":
        sizes = call.batch_sizes
        if sizes is None:
            return cls(None, None, _padding(call.x, lengths))
        if int(sizes[0]) == int(sizes[-1]):
            return cls(None, None, None)
        present = torch.arange(int(sizes[0])) < sizes[:, None]
        device = call.x.device
        return cls(present.unsqueeze(-1).to(device), present.sum(0).sub_(1).to(device), None)

    def steps(self, data: Tensor, batch: int) -> Tensor:
        """(time, batch, features): as it is, or from packed data with zeros where a sequence has ended."""
        if data.dim() == 3:
            return data
        if self.mask is None:
            return data.view(-1, batch, data.shape[1])
        padded = data.new_zeros(*self.mask.shape[:2], data.shape[1])
        padded[self.mask.squeeze(-1)] = data
        return padded

    def received(self, call: LayeredCall) -> Tensor | None:
        """dL/d(output of the last layer), (time, batch, directions * hidden); None where there is none."""
        grad = call.received.by_name.get("output")
        if grad is None:
            return None
        packed = call.batch_sizes is not None
        return self.steps(grad if packed else time_major(call.module, grad), call.h_n.shape[1])

    def run(self, call: LayeredCall, layer: int, reverse: int, from_above: Tensor | None) -> LayerRun:
        """One layer in one direction, in the order of its recurrence.

        Args:
            from_above: dL/d(output of the layer), (time, batch, directions * hidden), or None.
        """
        module = call.module
        index, (batch, units) = layer * directions(module) + reverse, call.h_n.shape[1:]
        initial = [part[index] for part in initial_states(call)]
        half = slice(reverse * units, (reverse + 1) * units)
        output = self.steps(_output(call, layer), batch)[..., half]
        top = layer == module.num_layers - 1 and directions(module) == 1
        h = self._states(output, initial[0], reverse, call.room if top else None)
        above = None if from_above is None else _ordered(from_above[..., half], reverse)
        mask = None if self.mask is None else _ordered(self.mask, reverse).to(h.dtype)
        direct_c = self._entering(None, _row(call, "c_n", index), h, reverse)
        direct = self._entering(above, _row(call, "h_n", index), h, reverse)
        return LayerRun(
            cell=module.mode.partition("_")[0],
            nonlinearity=module.mode.partition("_")[2].lower(),
            weights=call.weights[index],
            x=_ordered(self.steps(_input(call, layer), batch), reverse),
            h=h,
            c_init=initial[1] if len(initial) > 1 else None,
            direct=torch.zeros_like(h[:1]) if direct is None else direct,
            direct_c=direct_c,
            mask=mask,
            padding=None if self.padding is None else _ordered(self.padding, reverse).to(h.dtype),
        )

    def below(self, call: LayeredCall, layer: int, swept: list[LayerNorms]) -> Tensor:
        """dL/d(output of the layer below), before its dropout, (time, batch, directions * hidden)."""
        grad = sum(_ordered(norms.grad_x, reverse) for reverse, norms in enumerate(swept) if norms.grad_x is not None)
        assert isinstance(grad, Tensor)
        noise = call.below[layer - 1].noise
        return grad if noise is None else grad * self.steps(noise, grad.shape[1])

    def _states(self, output: Tensor, h_0: Tensor, reverse: int, room: Tensor | None) -> Tensor:
        h = output.new_empty(output.shape[0] + 1, *output.shape[1:]) if room is None else room
        h[0] = h_0
        if room is None:
            h[1:] = _ordered(output, reverse)
        if self.mask is not None and reverse:
            # A short sequence starts late, from its own h_0.
            torch.where(_ordered(self.mask, reverse), h[1:], h_0, out=h[1:])
        return h

    def _entering(self, above: Tensor | None, at_end: Tensor | None, h: Tensor, reverse: int) -> Tensor | None:
        """What enters at the last steps: from above at every step, and through h_n at every sequence's end."""
        if at_end is None:
            return above
        if self.ends is None or reverse:
            entering = at_end.unsqueeze(0).clone() if above is None else above.clone()
            if above is not None:
                entering[-1] += at_end
            return entering
        entering = h.new_zeros(h.shape[0] - 1, *at_end.shape) if above is None else above.clone()
        entering[self.ends, torch.arange(at_end.shape[0])] += at_end
        return entering


def _padding(x: Tensor, lengths: Tensor | None) -> Tensor | None:
    """1 after every sequence's end, (time, batch, 1), where the lengths fit the call."""
    steps, batch = x.shape[:2]
    if lengths is None or lengths.shape[0] != batch or int(lengths.max()) > steps:
        return None
    return (torch.arange(steps, device=x.device)[:, None] >= lengths.to(x.device)).unsqueeze(-1)


def _ordered(steps: Tensor, reverse: int | bool) -> Tensor:
    return steps.flip(0) if reverse else steps


def _output(call: LayeredCall, layer: int) -> Tensor:
    return call.output if layer == call.module.num_layers - 1 else call.below[layer].output


def _input(call: LayeredCall, layer: int) -> Tensor:
    if layer == 0:
        return call.x
    below = call.below[layer - 1]
    return below.output if below.noise is None else below.output * below.noise


def _row(call: LayeredCall, name: str, index: int) -> Tensor | None:
    """The gradient of one layer's and direction's h_n or c_n, (batch, hidden)."""
    grad = call.received.by_name.get(name)
    return None if grad is None else in_packed_order(grad, call.order)[index]


def _in_time(norms: LayerNorms, reverse: bool, replayed: float, last: Tensor) -> StepNorms:
    found = norms.contributions
    by_step = (found.norm_W_hh, found.norm_gates, found.norm_h, norms.norm_direct)
    W_hh, gates, h, h_direct = (_ordered(part, reverse).clone() for part in by_step)
    return StepNorms(
        W_hh=W_hh,
        gates=gates,
        h=h,
        h_direct=h_direct,
        c=None if norms.norm_c is None else _ordered(norms.norm_c, reverse).clone(),
        grad_W_hh=found.grad_W_hh.clone(),
        magnitude=found.magnitude,
        recovered_error=max(norms.recovered_error, replayed),
        decay=norms.decay,
        padded=None if norms.padded is None else _both_ordered(norms.padded, reverse),
        ends=(last, norms.grad_h_init),
    )


def _both_ordered(parts: tuple[Tensor, Tensor], reverse: bool) -> tuple[Tensor, Tensor]:
    first, second = (_ordered(part, reverse).clone() for part in parts)
    return first, second
