"""From one call of a layer to the runs of its layers and directions: how its sequences lie in time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rnnctl.models.arriving_gradients import Received
from rnnctl.models.calls import LayeredCall, in_packed_order, time_major
from rnnctl.models.modules import directions
from rnnctl.models.replay import initial_states
from rnnctl.recurrence.run import LayerRun


@dataclass(frozen=True, eq=False)
class Geometry:
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
    def of(cls, call: LayeredCall, lengths: Tensor | None) -> "Geometry":
        """That of a call.

        Args:
            lengths: real steps of every sequence, shape (batch,), of a call that may have run padding, too.
        """
        sizes = call.batch_sizes
        if sizes is None:
            return cls(None, None, _padding(call.x, lengths))
        # The sizes fall: with the same at both ends all sequences are as long.
        if int(sizes[0]) == int(sizes[-1]):
            return cls(None, None, None)
        present = torch.arange(int(sizes[0])) < sizes[:, None]
        device = call.x.device
        return cls(present.unsqueeze(-1).to(device), present.sum(0).sub_(1).to(device), None)

    def steps(self, data: Tensor, batch: int) -> Tensor:
        """Of shape (time, batch, features): as it is, or from packed data with zeros where a sequence has ended.

        Args:
            data: shape (time, batch, features), or packed (steps, features).
        """
        if data.dim() == 3:
            return data
        if self.mask is None:
            return data.view(-1, batch, data.shape[1])
        padded = data.new_zeros(*self.mask.shape[:2], data.shape[1])
        # Packed data lies step by step, and so do the places that a mask over (time, batch) picks.
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
            from_above: dL/d(output of the layer), shape (time, batch, directions * hidden), or None.
        """
        module = call.module
        index, (batch, units) = layer * directions(module) + reverse, call.h_n.shape[1:]
        initial = [part[index] for part in initial_states(call)]
        half = slice(reverse * units, (reverse + 1) * units)
        output = self.steps(_output(call, layer), batch)[..., half]
        # The output was kept with room for a state before it, and is h where the layer is the whole of it.
        top = layer == module.num_layers - 1 and directions(module) == 1
        h = self._states(output, initial[0], reverse, call.room if top else None)
        above = None if from_above is None else ordered(from_above[..., half], reverse)
        mask = None if self.mask is None else ordered(self.mask, reverse).to(h.dtype)
        direct_c = self._entering(None, row_of(call, "c_n", index), h, reverse)
        direct = self._entering(above, row_of(call, "h_n", index), h, reverse)
        return LayerRun(
            kind=call.kind,
            weights=call.weights[index],
            x=ordered(self.steps(_input(call, layer), batch), reverse),
            h=h,
            c_init=initial[1] if len(initial) > 1 else None,
            direct=torch.zeros_like(h[:1]) if direct is None else direct,
            direct_c=direct_c,
            mask=mask,
            padding=None if self.padding is None else ordered(self.padding, reverse).to(h.dtype),
        )

    def below(self, call: LayeredCall, layer: int, grads: Sequence[Tensor]) -> Tensor:
        """dL/d(output of the layer below), before its dropout, shape (time, batch, directions * hidden).

        Args:
            layer: the one above.
            grads: dL/d(its input) through every direction, each (time, batch, input) in the order of its recurrence.
        """
        grad = sum(ordered(each, reverse) for reverse, each in enumerate(grads))
        assert isinstance(grad, Tensor)
        noise = call.below[layer - 1].noise
        return grad if noise is None else grad * self.steps(noise, grad.shape[1])

    def _states(self, output: Tensor, h_0: Tensor, reverse: int, room: Tensor | None) -> Tensor:
        h = output.new_empty(output.shape[0] + 1, *output.shape[1:]) if room is None else room
        h[0] = h_0
        if room is None:
            h[1:] = ordered(output, reverse)
        if self.mask is not None and reverse:
            # A short sequence starts late, from its own h_0.
            torch.where(ordered(self.mask, reverse), h[1:], h_0, out=h[1:])
        return h

    def _entering(self, above: Tensor | None, at_end: Tensor | None, h: Tensor, reverse: int) -> Tensor | None:
        """What enters at the last steps: from above at every step, and through h_n at every sequence's end."""
        if at_end is None:
            return above
        # In reverse the sequences begin at different steps, and all of them end at step 0.
        if self.ends is None or reverse:
            # Copies, because what came from above may be the call's own gradient, to be asked for again.
            entering = at_end.unsqueeze(0).clone() if above is None else above.clone()
            if above is not None:
                entering[-1] += at_end
            return entering
        entering = h.new_zeros(h.shape[0] - 1, *at_end.shape) if above is None else above.clone()
        entering[self.ends, torch.arange(at_end.shape[0])] += at_end
        return entering


def with_received(call: LayeredCall, received: Received) -> LayeredCall:
    """The same call, with other gradients than backward brought it; its states stay as they are."""
    # The room before the first step is a buffer that every run fills anew: not to be shared between runs.
    return replace(call, received=received, room=None)


def _padding(x: Tensor, lengths: Tensor | None) -> Tensor | None:
    """1 after every sequence's end, (time, batch, 1), where the lengths fit the call."""
    steps, batch = x.shape[:2]
    if lengths is None or lengths.shape[0] != batch or int(lengths.max()) > steps:
        return None
    return (torch.arange(steps, device=x.device)[:, None] >= lengths.to(x.device)).unsqueeze(-1)


def ordered(steps: Tensor, reverse: int | bool) -> Tensor:
    """Steps, shape (time, ...), in the order of a recurrence, or from there in the order of time."""
    return steps.flip(0) if reverse else steps


def _output(call: LayeredCall, layer: int) -> Tensor:
    return call.output if layer == call.module.num_layers - 1 else call.below[layer].output


def _input(call: LayeredCall, layer: int) -> Tensor:
    if layer == 0:
        return call.x
    below = call.below[layer - 1]
    return below.output if below.noise is None else below.output * below.noise


def row_of(call: LayeredCall, name: str, index: int) -> Tensor | None:
    """The gradient of one layer's and direction's h_n or c_n, (batch, hidden)."""
    grad = call.received.by_name.get(name)
    return None if grad is None else in_packed_order(grad, call.order)[index]
