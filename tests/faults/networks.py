"""Networks as people write them: a recurrent layer or loop with a linear readout, and what goes wrong in them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

HIDDEN = 24
LAYERS: dict[str, type[nn.RNNBase]] = {"Elman": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}


def layer(kind: str, inputs: int = 1, **given: Any) -> nn.RNNBase:
    """One of torch's layers, batch first unless something else is given."""
    return LAYERS[kind](inputs, HIDDEN, **{"batch_first": True, **given})


class Tagger(nn.Module):
    """An output at every step."""

    def __init__(self, kind: str, inputs: int = 1, outputs: int = 1, ending: nn.Module | None = None, **given: Any):
        super().__init__()
        self.rnn = layer(kind, inputs, **given)
        directions = 2 if self.rnn.bidirectional else 1
        self.readout = nn.Linear(directions * HIDDEN, outputs)
        self.ending = nn.Identity() if ending is None else ending

    def forward(self, x: Tensor) -> Tensor:
        return self.ending(self.readout(self.rnn(x)[0]))


class Embedded(Tagger):
    """Tokens are whole numbers, and looked up."""

    def __init__(self, kind: str, tokens: int, **given: Any):
        super().__init__(kind, 8, tokens, **given)
        self.embedding = nn.Embedding(tokens, 8)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.embedding(x))


class Transposing(Tagger):
    """It turns the axes for a layer that is batch first already."""

    def forward(self, x: Tensor) -> Tensor:
        return self.ending(self.readout(self.rnn(x.transpose(0, 1))[0].transpose(0, 1)))


class Reshaping(Tagger):
    """It makes (time, batch, ...) with ``view``, which keeps the numbers' order and so mixes sequences and steps."""

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, features = x.shape
        h = self.rnn(x.reshape(steps, batch, features))[0]
        return self.ending(self.readout(h.reshape(batch, steps, -1)))


class Unstated(Tagger):
    """It calls the layer step by step and never hands the state on."""

    def forward(self, x: Tensor) -> Tensor:
        h = [self.rnn(x_t.unsqueeze(1))[0] for x_t in x.unbind(1)]
        return self.ending(self.readout(torch.cat(h, 1)))


class Windowed(Tagger):
    """It works window by window and detaches the state between them."""

    def __init__(self, *given: Any, window: int, **named: Any):
        super().__init__(*given, **named)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        state, parts = None, []
        for part in x.split(self.window, 1):
            h, state = self.rnn(part, state)
            state = tuple(each.detach() for each in state) if isinstance(state, tuple) else state.detach()
            parts.append(h)
        return self.ending(self.readout(torch.cat(parts, 1)))


class UnderNoGrad(Tagger):
    """The layer runs without gradients, as a feature extractor does."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.rnn(x)[0]
        return self.ending(self.readout(h))


class Unread(Tagger):
    """The readout takes the input, repeated to the width of the states that it ought to take."""

    def forward(self, x: Tensor) -> Tensor:
        self.rnn(x)
        return self.ending(self.readout(x.repeat(1, 1, HIDDEN // x.shape[2])))


class Classifier(Tagger):
    """One output for every sequence, read from the last step."""

    def forward(self, x: Tensor) -> Tensor:
        return self.ending(self.readout(self.rnn(x)[0][:, -1]))


class WindowedClassifier(Windowed):
    """``Classifier`` as truncated backpropagation trains it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, -1]


class ReverseLast(Tagger):
    """It reads the last step of the reverse direction alone."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, bidirectional=True, **named)
        self.readout = nn.Linear(HIDDEN, self.readout.out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.ending(self.readout(self.rnn(x)[0][:, -1, HIDDEN:]))


class BothEnds(Tagger):
    """It reads what each direction has seen last: h_n of both."""

    def forward(self, x: Tensor) -> Tensor:
        state = self.rnn(x)[1]
        h_n = state[0] if isinstance(state, tuple) else state
        return self.ending(self.readout(h_n.transpose(0, 1).flatten(1)))


class AtLength(Tagger):
    """One output for every sequence, read from its last real step."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        h = self.rnn(x)[0][torch.arange(len(x)), lengths - 1]
        return self.ending(self.readout(h))


class Packed(Tagger):
    """Padded sequences are packed for the layer."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        h, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])
        return self.ending(self.readout(h))


class Loop(nn.Module):
    """A cell written by hand, step by step: h_t = f(W_xh x_t + W_hh h_{t-1})."""

    def __init__(self, inputs: int = 1, outputs: int = 1, f: Callable[[Tensor], Tensor] = torch.tanh):
        super().__init__()
        self.W_xh, self.W_hh = nn.Linear(inputs, HIDDEN), nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.readout, self.f = nn.Linear(HIDDEN, outputs), f

    def step(self, x_t: Tensor, h: Tensor) -> Tensor:
        return self.f(self.W_xh(x_t) + self.W_hh(h))

    def read(self, h: Tensor) -> Tensor:
        return self.readout(h)

    def steps_of(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.unbind(1)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.steps_of(x)
        h, outputs = x.new_zeros(len(steps[0]), HIDDEN), []
        for x_t in steps:
            h = self.step(x_t, h)
            outputs.append(self.read(h))
        return torch.stack(outputs, 1)


class LoopOverBatch(Loop):
    """``for x_t in x`` walks along the first axis, which is that of the sequences."""

    def steps_of(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.unbind(0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).transpose(0, 1)


class DetachedLoop(Loop):
    """The state is detached at every step, as against "backward through the graph a second time"."""

    def step(self, x_t: Tensor, h: Tensor) -> Tensor:
        return super().step(x_t, h.detach())


class ForgottenLoop(Loop):
    """The state is made anew at every step."""

    def step(self, x_t: Tensor, h: Tensor) -> Tensor:
        return super().step(x_t, torch.zeros_like(h))


class LoopWindow(Loop):
    """``Loop`` as truncated backpropagation trains it."""

    def __init__(self, *given: Any, window: int, **named: Any):
        super().__init__(*given, **named)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(len(x), HIDDEN), []
        for t, x_t in enumerate(x.unbind(1)):
            h = self.step(x_t, h.detach() if t % self.window == 0 else h)
            outputs.append(self.read(h))
        return torch.stack(outputs, 1)


class Last(nn.Module):
    """The last output of another network."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[:, -1]


class TanhOutput(Loop):
    """An output that cannot leave [-1, 1]."""

    def read(self, h: Tensor) -> Tensor:
        return torch.tanh(self.readout(h))


class DetachedTanh(TanhOutput, DetachedLoop):
    """Both."""


class SoftmaxOutput(Loop):
    """Probabilities in place of logits."""

    def read(self, h: Tensor) -> Tensor:
        return torch.softmax(self.readout(h), -1)


class Residual(Loop):
    """h_t = h_{t-1} + f(...): nothing lets the state shrink."""

    def step(self, x_t: Tensor, h: Tensor) -> Tensor:
        return h + super().step(x_t, h)


class Standardizing(Loop):
    """It divides by the spread over time, which is 0 where the first feature is constant."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True))


class ScaledOutput(Tagger):
    """Outputs in the targets' units: the readout's times a fixed number."""

    def __init__(self, *given: Any, scale: float, **named: Any):
        super().__init__(*given, **named)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * super().forward(x)


class FixedPoint(Loop):
    """Weights are kept in steps of 1/65536, as whole numbers are: an update of 0.001 is nothing to them."""

    UNIT = 2.0**-16

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.div_(self.UNIT)

    def step(self, x_t: Tensor, h: Tensor) -> Tensor:
        a = nn.functional.linear(x_t, self.UNIT * self.W_xh.weight, self.UNIT * self.W_xh.bias)
        return self.f(a + nn.functional.linear(h, self.UNIT * self.W_hh.weight))

    def read(self, h: Tensor) -> Tensor:
        return nn.functional.linear(h, self.UNIT * self.readout.weight, self.UNIT * self.readout.bias)


class HandWrittenLSTM(nn.Module):
    """An LSTM whose four gates are one linear map of (x_t, h_{t-1}), in the order i, f, g, o."""

    def __init__(self, inputs: int = 1, outputs: int = 1, forget_bias: float = 1.0):
        super().__init__()
        self.gates, self.readout = nn.Linear(inputs + HIDDEN, 4 * HIDDEN), nn.Linear(HIDDEN, outputs)
        with torch.no_grad():
            self.gates.bias[HIDDEN : 2 * HIDDEN] = forget_bias

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), HIDDEN)
        outputs = []
        for x_t in x.unbind(1):
            i, f, g, o = self.gates(torch.cat((x_t, h), 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(self.readout(h))
        return torch.stack(outputs, 1)


def with_hidden(model: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """The model with each of its recurrent matrices set to ``change`` of it; of gates all at once."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "weight_hh" in name or "W_hh" in name:
                parameter.copy_(change(parameter))
    return model


def with_bias(model: nn.Module, value: float | Tensor, gate: int = 0) -> nn.Module:
    """The model with the bias of one gate, of those that torch stacks, set to a value; the second bias of it to 0."""
    rows = slice(gate * HIDDEN, (gate + 1) * HIDDEN)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias_ih" in name or name == "W_xh.bias":
                parameter[rows] = value
            elif "bias_hh" in name:
                parameter[rows] = 0.0
    return model


def orthogonal(gain: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Each (hidden, hidden) block becomes orthogonal, times a gain."""

    def change(weight: Tensor) -> Tensor:
        return torch.cat([gain * nn.init.orthogonal_(torch.empty_like(block)) for block in weight.split(HIDDEN)])

    return change


def gaussian(gain: float) -> Callable[[Tensor], Tensor]:
    """Independent entries of standard deviation gain / sqrt(hidden): chaotic for tanh and a gain well above 1."""
    return lambda weight: gain * torch.randn_like(weight) / HIDDEN**0.5


def frozen(model: nn.Module) -> nn.Module:
    """Everything but the readout takes no gradient."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("readout" in name)
    return model
