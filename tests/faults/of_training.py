"""Faults of how gradients travel and what is done with them."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faults import networks
from faults.healthy import (
    ELMAN,
    EVERY_STEP,
    FAR_BACK,
    GRU_AVERAGE,
    GRU_FAR,
    LOOP,
    LOOP_NOISY,
    LSTM,
    LSTM_AVERAGE,
    LSTM_NOISY,
    TRAINED,
    zero_biases,
)
from faults.networks import Last, Loop, Tagger, orthogonal, with_bias, with_hidden

STATE_CUT = (
    LOOP_NOISY.with_fault(
        "loop: state detached at every step",
        "state-cut",
        "detach() against 'backward through the graph a second time'",
        consequences="vanishing no-gradient",
        model=lambda: zero_biases(with_hidden(Last(networks.DetachedLoop(1, 2)), orthogonal())),
    ),
    LSTM_AVERAGE.with_fault(
        "LSTM: called step by step without its state",
        "state-cut",
        "self.lstm(x_t) in a loop, the state left out: it begins at 0 each time",
        consequences="vanishing no-gradient time-axis",
        model=partial(networks.Unstated, "LSTM"),
    ),
    GRU_FAR.with_fault(
        "GRU: state detached between windows of 5",
        "state-cut",
        "truncated backpropagation by detach() within forward",
        consequences="vanishing window",
        model=lambda: with_bias(networks.WindowedClassifier("GRU", 1, 2, window=5), 2.0, gate=1),
    ),
    LOOP.with_fault(
        "loop: state made anew at every step",
        "state-cut",
        "h = zeros within the loop in place of before it",
        consequences="vanishing no-gradient",
        model=networks.ForgottenLoop,
    ),
)


def _windowed_loop() -> nn.Module:
    return zero_biases(with_hidden(Last(networks.LoopWindow(1, 2, window=3)), orthogonal()))


WINDOW = (
    GRU_FAR.with_fault(
        "GRU: windows of 10, needed 29",
        "window",
        "bptt = 10 taken over from an example",
        keywords={**FAR_BACK, "window": 10},
        trained=lambda: with_bias(networks.WindowedClassifier("GRU", 1, 2, window=10), 2.0, gate=1),
    ),
    LSTM_NOISY.with_fault(
        "LSTM: windows of 6, needed 29",
        "window",
        "states carried over from window to window, gradients not",
        keywords={**FAR_BACK, "window": 6},
        trained=lambda: with_bias(networks.WindowedClassifier("LSTM", 1, 2, window=6), 4.0, gate=1),
    ),
    LOOP_NOISY.with_fault(
        "loop: windows of 3, needed 19",
        "window",
        "the same in a loop",
        keywords={**LOOP_NOISY.keywords, "window": 3},
        trained=_windowed_loop,
    ),
)


NO_GRADIENT = (
    GRU_AVERAGE.with_fault(
        "GRU: frozen and never thawed",
        "no-gradient",
        "requires_grad = False left from fine-tuning",
        model=lambda: networks.frozen(Tagger("GRU")),
    ),
    LSTM.with_fault(
        "LSTM: under no_grad",
        "no-gradient",
        "an encoder called as for inference",
        consequences="state-cut",
        model=partial(networks.UnderNoGrad, "LSTM"),
        keywords=EVERY_STEP,
    ),
    ELMAN.with_fault(
        "Elman: the readout takes the input",
        "no-gradient",
        "a wrong variable handed on: the states are made and not used",
        model=partial(networks.Unread, "Elman"),
    ),
    LOOP.with_fault(
        "loop: frozen and never thawed",
        "no-gradient",
        "only the readout was given back to training",
        model=lambda: networks.frozen(Loop()),
    ),
)


def all_but_nothing(output: Tensor, target: Tensor) -> Tensor:
    """A mean divided once more by the number of samples, and again: below what Adam can tell from 0."""
    return 1e-11 * F.mse_loss(output, target)


def _small_readout(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.readout.parameters():
            parameter.mul_(1e-3)
    return model


STEP_SIZE = (
    LOOP.with_fault(
        "loop: weights in whole units",
        "step-size",
        "weights kept as fixed-point numbers: a step of 0.001 is nothing to them",
        model=networks.FixedPoint,
        keywords={**EVERY_STEP, **TRAINED},
    ),
    GRU_AVERAGE.with_fault(
        "GRU: a loss all but 0",
        "step-size",
        "divided by the number of samples twice: gradients below Adam's epsilon",
        model=partial(Tagger, "GRU"),
        keywords={"loss_fn": all_but_nothing, **TRAINED},
    ),
    LSTM.with_fault(
        "LSTM: outputs a thousand times the readout's",
        "step-size",
        "a small readout behind a large fixed scale: each step overshoots",
        model=lambda: _small_readout(networks.ScaledOutput("LSTM", scale=1000.0)),
        keywords={**EVERY_STEP, **TRAINED},
    ),
)
