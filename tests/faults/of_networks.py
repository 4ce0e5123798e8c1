"""Faults of weights, states and gradients."""

from functools import partial

import torch
from torch import Generator, nn

from faults import networks
from faults.healthy import (
    ELMAN,
    ELMAN_FAR,
    ELMAN_RELU,
    ELMAN_VALUE,
    EVERY_STEP,
    GRU,
    GRU_60,
    GRU_AVERAGE,
    LOOP,
    LOOP_FAR,
    LOOP_LSTM,
    LOOP_OF_TWO,
    LOOP_RELU,
    LOOP_VALUE,
    LSTM,
    LSTM_60,
    LSTM_AVERAGE,
    LSTM_FAR,
    eye,
    zero_biases,
)
from faults.networks import HIDDEN, Classifier, Last, Loop, Tagger, gaussian, with_bias, with_hidden
from faults.tasks import CLASSES, Data, changed


def _missing(data: Data, generator: Generator) -> Data:
    x = data["x"].clone()
    x[3, 7] = float("nan")
    return {"x": x}


def _half_overflowed(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        next(parameter for name, parameter in model.named_parameters() if "weight_hh" in name)[3, 5] = float("inf")
    return model


NONFINITE = (
    LSTM.with_fault(
        "LSTM: a missing value",
        "nonfinite",
        "NaN of a table's empty cell in one step of one sequence",
        task=changed(LSTM.task, _missing),
        keywords=EVERY_STEP,
    ),
    LOOP_OF_TWO.with_fault(
        "loop: standardized by a spread of 0",
        "nonfinite",
        "a constant feature divided by its standard deviation",
        model=partial(networks.Standardizing, 2),
    ),
    GRU.with_fault(
        "GRU: weights that overflowed in half precision",
        "nonfinite",
        "a checkpoint saved as float16 with inf in it",
        model=lambda: _half_overflowed(Tagger("GRU", CLASSES, CLASSES)),
    ),
    ELMAN_RELU.with_fault(
        "Elman: relu overflows",
        "nonfinite",
        "relu with recurrent weights above 1: inf before the last step",
        consequences="exploding",
        model=lambda: with_hidden(Tagger("Elman", nonlinearity="relu"), lambda weight: 30 * eye(weight)),
    ),
)

VANISHING = (
    ELMAN_FAR.with_fault(
        "Elman: torch's weights, first of 30 steps",
        "vanishing",
        "Bengio et al. 1994; the default of nn.RNN halves the gradient at every step",
        consequences="echo",
        model=partial(Classifier, "Elman", 1, 2),
    ),
    LSTM_60.with_fault(
        "LSTM: forget gates half open, first of 60 steps",
        "vanishing",
        "github.com/pytorch/pytorch/issues/20102: no forget bias of 1",
        consequences="echo",
        model=partial(Classifier, "LSTM", 1, 2),
    ),
    LOOP_FAR.with_fault(
        "loop: weights drawn too small",
        "vanishing",
        "normal of standard deviation 0.01, as of old tutorials",
        consequences="echo",
        model=lambda: zero_biases(with_hidden(Last(Loop(1, 2)), lambda weight: 0.01 * torch.randn_like(weight))),
    ),
    GRU_60.with_fault(
        "GRU: first of 60 steps",
        "vanishing",
        "gates half open at the start",
        consequences="echo",
        model=partial(Classifier, "GRU", 1, 2),
    ),
)

EXPLODING = (
    ELMAN_VALUE.with_fault(
        "Elman: relu of gain 1.8",
        "exploding",
        "Pascanu et al. 2013: gradients grow with every step, nothing overflows",
        consequences="step-size",
        model=lambda: with_hidden(Classifier("Elman", nonlinearity="relu"), lambda weight: 1.8 * eye(weight)),
    ),
    LOOP_VALUE.with_fault(
        "loop: residual state",
        "exploding",
        "h + relu(W h) with nothing that lets it shrink",
        consequences="step-size",
        model=lambda: zero_biases(with_hidden(Last(networks.Residual(f=torch.relu)), lambda weight: 0.7 * eye(weight))),
    ),
    ELMAN_RELU.with_fault(
        "Elman: relu of gain 1.5, a loss at every step",
        "exploding",
        "Le et al. 2015 with a scale above 1",
        consequences="step-size",
        model=lambda: with_hidden(Tagger("Elman", nonlinearity="relu"), lambda weight: 1.5 * eye(weight)),
    ),
)


CHAOTIC = (
    ELMAN.with_fault(
        "Elman: gain 3",
        "chaotic",
        "Sompolinsky et al. 1988: random weights of gain above 1",
        consequences="exploding",
        model=lambda: with_hidden(Tagger("Elman"), gaussian(3.0)),
    ),
    LOOP_FAR.with_fault(
        "loop: normal weights of standard deviation 1",
        "chaotic",
        "torch.randn as the initialisation of a matrix",
        consequences="exploding dead-units echo",
        model=lambda: zero_biases(with_hidden(Last(Loop(1, 2)), torch.randn_like)),
    ),
)

STUCK_GATE = (
    LSTM_FAR.with_fault(
        "LSTM: forget gates shut",
        "stuck-gate",
        "a forget bias of the wrong sign",
        consequences="vanishing echo",
        model=lambda: with_bias(Classifier("LSTM", 1, 2), -8.0, gate=1),
    ),
    GRU_AVERAGE.with_fault(
        "GRU: update gates open",
        "stuck-gate",
        "torch's z keeps the state; other codes' lets the new one in: the sign of a bias carried over",
        consequences="vanishing echo",
        model=lambda: with_bias(Tagger("GRU"), 9.0, gate=1),
    ),
    LSTM_AVERAGE.with_fault(
        "LSTM: input gates shut",
        "stuck-gate",
        "the order of the gates i, f, g, o mistaken: the bias meant for one stands at another",
        consequences="vanishing",
        model=lambda: with_bias(Tagger("LSTM"), -9.0, gate=0),
    ),
    LOOP_LSTM.with_fault(
        "loop: LSTM with output gates shut",
        "stuck-gate",
        "a hand-written cell with a bias too low in one gate",
        consequences="vanishing",
        model=lambda: _gate_shut(networks.HandWrittenLSTM(CLASSES, CLASSES)),
    ),
)


def _gate_shut(model: networks.HandWrittenLSTM) -> nn.Module:
    with torch.no_grad():
        model.gates.bias[3 * HIDDEN :] = -12.0
    return model


DEAD_UNITS = (
    ELMAN_RELU.with_fault(
        "Elman: relu units that never fire",
        "dead-units",
        "biases far below 0, as after one step too large",
        consequences="no-gradient vanishing",
        model=lambda: with_bias(ELMAN_RELU.model(), -6.0),
    ),
    LOOP_RELU.with_fault(
        "loop: relu units that never fire",
        "dead-units",
        "the same in a loop",
        consequences="no-gradient vanishing",
        model=lambda: with_bias(Loop(f=torch.relu), -6.0),
    ),
    LOOP.with_fault(
        "loop: tanh units at their ends",
        "dead-units",
        "biases drawn as weights of standard deviation 10",
        consequences="vanishing",
        model=lambda: with_bias(Loop(), 12.0 * torch.randn(HIDDEN).sign()),
    ),
)
