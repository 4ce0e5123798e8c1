"""One call of nn.RNN, nn.GRU or nn.LSTM cut out of its sequence, the states before it taken as given."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rnnctl.gradients.layer_calls import layer_runs, layered_norms
from rnnctl.models.arriving_gradients import Received
from rnnctl.models.calls import Below, LayeredCall
from rnnctl.models.replay import initial_states
from rnnctl.recurrence.lstm import LSTMSteps


@dataclass(frozen=True, eq=False)
class LayerStates:
    """The states of every layer around every step of a call in one direction.

    Attributes:
        call: the whole call.
        states: h and, of an LSTM, c: each (layers, time + 1, batch, ...), the first one given from outside.
    """

    call: LayeredCall
    states: tuple[Tensor, ...]

    @classmethod
    def of(cls, call: LayeredCall) -> "LayerStates":
        """Of a call that is neither packed nor bidirectional."""
        with torch.inference_mode():
            runs = layer_runs(call)
            h = torch.stack([run.h for run in runs])
            if call.module.mode != "LSTM":
                return cls(call, (h.clone(),))
            cells = [
                LSTMSteps(run.x, run.h, c, run.weights).c for run, c in zip(runs, initial_states(call)[1], strict=True)
            ]
            return cls(call, (h.clone(), torch.stack(cells).clone()))

    def gradient(self, start: int, stop: int, layer: int) -> Tensor:
        """The gradient of a layer's W_hh from steps start .. stop-1 alone, with what backward has just brought."""
        return layered_norms(self._cut(start, stop))[layer].grad_W_hh

    def _cut(self, start: int, stop: int) -> LayeredCall:
        call, steps = self.call, slice(start, stop)
        below = tuple(
            Below(part.output[steps], None if part.noise is None else part.noise[steps], 0.0) for part in call.below
        )
        return replace(
            call,
            x=call.x[steps],
            output=call.output[steps],
            room=None,
            below=below,
            initial=tuple(part[:, start] for part in self.states),
            h_n=self.states[0][:, stop],
            received=Received(self._received(start, stop)),
        )

    def _received(self, start: int, stop: int) -> dict[str, Tensor]:
        """Of the output its steps; of h_n and c_n, which the loss at the last step may take, all."""
        found = dict(self.call.received.by_name)
        if (grad := found.get("output")) is not None:
            # The module's own layout: time is the second axis of a batch_first output.
            time = 1 if self.call.module.batch_first and grad.dim() == 3 else 0
            found["output"] = grad.narrow(time, start, stop - start)
        return found
