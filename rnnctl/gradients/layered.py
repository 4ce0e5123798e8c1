"""From one call of nn.RNN, nn.GRU or nn.LSTM to what each of its recurrent weights contributes, step by step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rnnctl.gradients.calls import LayeredCall, in_packed_order, time_major
from rnnctl.gradients.decay import Decay
from rnnctl.gradients.found import directions
from rnnctl.gradients.layer import LayerNorms, LayerRun, layer_norms
from rnnctl.gradients.stack import initial_states


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


def layered_norms(call: LayeredCall, want_decay: bool) -> list[StepNorms]:
    """The norms of every layer and direction, forward before reverse, swept from the top layer down."""
    geometry, count = _Geometry.of(call), directions(call.module)
    from_above = geometry.received(call)
    found: list[StepNorms] = []
    for layer in range(call.module.num_layers - 1, -1, -1):
        runs = [geometry.run(call, layer, reverse, from_above) for reverse in range(count)]
        swept = [layer_norms(run, want_grad_x=layer > 0, want_decay=want_decay) for run in runs]
        replayed = call.below[layer].error if layer < call.module.num_layers - 1 else 0.0
        found = [_in_time(norms, bool(reverse), replayed) for reverse, norms in enumerate(swept)] + found
        from_above = geometry.below(call, layer, swept) if layer > 0 else None
    return found


@dataclass(frozen=True, eq=False)
class _Geometry:
    """How the sequences of a call lie in time.

    Attributes:
        mask: 1 where a sequence has a step, (time, batch, 1), boolean; None where all have all.
        ends: the last step of every sequence, (batch,); None where that is the last of all.
    """

    mask: Tensor | None
    ends: Tensor | None

    @classmethod
    def of(cls, call: LayeredCall) -> "_Geometry":
        sizes = call.batch_sizes
        if sizes is None or int(sizes[0]) == int(sizes[-1]):
            return cls(None, None)
        present = torch.arange(int(sizes[0])) < sizes[:, None]
        device = call.x.device
        return cls(present.unsqueeze(-1).to(device), present.sum(0).sub_(1).to(device))

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
        h = self._states(self.steps(_output(call, layer), batch)[..., half], initial[0], reverse)
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
        )

    def below(self, call: LayeredCall, layer: int, swept: list[LayerNorms]) -> Tensor:
        """dL/d(output of the layer below), before its dropout, (time, batch, directions * hidden)."""
        grad = sum(_ordered(norms.grad_x, reverse) for reverse, norms in enumerate(swept) if norms.grad_x is not None)
        assert isinstance(grad, Tensor)
        noise = call.below[layer - 1].noise
        return grad if noise is None else grad * self.steps(noise, grad.shape[1])

    def _states(self, output: Tensor, h_0: Tensor, reverse: int) -> Tensor:
        h = output.new_empty(output.shape[0] + 1, *output.shape[1:])
        h[0] = h_0
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


def _in_time(norms: LayerNorms, reverse: bool, replayed: float) -> StepNorms:
    found = norms.contributions
    by_step = (found.log_norm_W_hh.exp(), found.log_norm_gates.exp(), found.log_norm_h.exp(), norms.norm_direct)
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
    )
