"""Faults of what goes in, of what is compared with it, and of which steps are read."""

from dataclasses import replace
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from faults import networks
from faults.healthy import (
    CLASSES_AT_EVERY_STEP,
    ELMAN,
    ELMAN_PADDED,
    ELMAN_RARE,
    EVERY_STEP,
    GRU,
    GRU_AVERAGE,
    GRU_BOTH_ENDS,
    GRU_LATE,
    GRU_PADDED,
    LOOP,
    LOOP_LATE,
    LOOP_TAGGER,
    LOOP_WAVES,
    LOOP_WIDE,
    LSTM,
    LSTM_BOTH_ENDS,
    LSTM_PACKED,
    LSTM_TAGGER,
    TRAINED,
)
from faults.networks import Classifier, Tagger
from faults.tasks import CLASSES, Data, changed, in_units, random_walk, tags

TIME_AXIS = (
    LSTM_TAGGER.with_fault(
        "LSTM: batch_first forgotten",
        "time-axis",
        "discuss.pytorch.org, many: (batch, time, ...) given to a layer that takes (time, batch, ...); shapes fit",
        model=partial(Tagger, "LSTM", CLASSES, CLASSES, batch_first=False),
    ),
    ELMAN.with_fault(
        "Elman: axes exchanged although it is batch first",
        "time-axis",
        "an example's transpose kept beside batch_first=True",
        model=partial(networks.Transposing, "Elman"),
    ),
    LOOP_TAGGER.with_fault(
        "loop: walks along the batch",
        "time-axis",
        "for x_t in x: the first axis is not that of time",
        model=partial(networks.LoopOverBatch, CLASSES, CLASSES),
    ),
    GRU.with_fault(
        "GRU: view in place of transpose",
        "time-axis",
        "discuss.pytorch.org: view(time, batch, -1) keeps the order of the numbers and mixes the sequences",
        model=partial(networks.Reshaping, "GRU", CLASSES, CLASSES, batch_first=False),
    ),
)

INPUT_SCALE = (
    LSTM.with_fault(
        "LSTM: prices in their own units",
        "input-scale",
        "raw prices of some thousand as inputs: every gate saturates",
        consequences="stuck-gate dead-units vanishing echo",
        task=in_units(LSTM.task, 3000.0, 20000.0),
        keywords=EVERY_STEP,
    ),
    ELMAN.with_fault(
        "Elman: a sensor in volts",
        "input-scale",
        "inputs of some microvolts: all but zero beside the biases",
        task=in_units(ELMAN.task, 1e-5),
    ),
    GRU.with_fault(
        "GRU: pixels divided as whole numbers",
        "input-scale",
        "uint8 // 255 is 0 for all but the brightest: the input is constant",
        consequences="echo",
        task=changed(GRU.task, lambda data, _: {"x": torch.zeros_like(data["x"])}),
    ),
    LOOP.with_fault(
        "loop: unscaled input",
        "input-scale",
        "a feature in its own units, with tanh behind it",
        consequences="dead-units vanishing",
        task=in_units(LOOP.task, 500.0, 2000.0),
    ),
)


def over_padding(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy over all steps, padding included."""
    return F.cross_entropy(output.flatten(0, 1), target.flatten())


PADDING = (
    GRU_PADDED.with_fault(
        "GRU: read at the last padded step",
        "padding",
        "stackoverflow.com, many: output[:, -1] of a padded batch",
        consequences="vanishing",
        model=partial(Classifier, "GRU", 1, 2),
    ),
    LSTM_PACKED.with_fault(
        "LSTM: loss over padded steps",
        "padding",
        "no ignore_index: most of the loss is that of padding",
        model=partial(Tagger, "LSTM", CLASSES, CLASSES),
        keywords={"loss_fn": over_padding},
    ),
    ELMAN_PADDED.with_fault(
        "Elman: padded, and nobody says so",
        "padding",
        "pad_sequence without lengths: the state runs on through zeros",
        consequences="vanishing",
        model=partial(Classifier, "Elman", 1, 2),
        task=changed(ELMAN_PADDED.task, lambda data, _: {"lengths": None}),
    ),
)

REVERSE_LAST = (
    LSTM_BOTH_ENDS.with_fault(
        "LSTM: both directions read at the last step",
        "reverse-last",
        "github.com/yunjey/pytorch-tutorial/issues/149: output[:, -1] of a bidirectional layer",
        consequences="vanishing no-gradient",
        model=partial(Classifier, "LSTM", 1, 2, bidirectional=True),
    ),
    GRU_BOTH_ENDS.with_fault(
        "GRU: the reverse direction's last step alone",
        "reverse-last",
        "github.com/aymericdamien/TensorFlow-Examples/issues/201: its first output taken for its last",
        consequences="vanishing no-gradient",
        model=partial(networks.ReverseLast, "GRU", 1, 2),
    ),
)

LOSS_OUTPUT = (
    GRU_LATE.with_fault(
        "GRU: softmax before cross-entropy",
        "loss-output",
        "discuss.pytorch.org/t/43814: the softmax is in the loss already",
        model=lambda: Tagger("GRU", CLASSES, CLASSES, nn.Softmax(-1)),
    ),
    LOOP_LATE.with_fault(
        "loop: softmax before cross-entropy",
        "loss-output",
        "the same, as a function",
        model=partial(networks.SoftmaxOutput, CLASSES, CLASSES),
    ),
    GRU_AVERAGE.with_fault(
        "GRU: sigmoid output, targets beyond it",
        "loss-output",
        "targets standardized, the output from a network for data of 0 .. 1",
        model=lambda: Tagger("GRU", ending=nn.Sigmoid()),
    ),
    ELMAN.with_fault(
        "Elman: relu output, targets of both signs",
        "loss-output",
        "stackoverflow.com/q/51432661: Dense(1, activation='relu') at the end of a forecast",
        model=lambda: Tagger("Elman", ending=nn.ReLU()),
    ),
    LOOP_WIDE.with_fault(
        "loop: tanh output, targets beyond it",
        "loss-output",
        "an output squeezed into -1 .. 1",
        model=networks.TanhOutput,
    ),
)


def _of_other_sequences(data: Data, generator: Generator) -> Data:
    return {"target": data["target"].roll(1, 0)}


ECHO = (
    # Nothing learns this better: it has no healthy twin.
    replace(
        LSTM,
        name="LSTM: forecast of a random walk",
        findings=("echo",),
        after="stackoverflow.com/q/51432661: the forecast is the last value, one step late",
        task=random_walk(),
    ),
    GRU.with_fault(
        "GRU: targets of other sequences",
        "echo",
        "two tables joined one row apart, or shuffled each for itself",
        task=changed(tags(), _of_other_sequences),
        keywords={**CLASSES_AT_EVERY_STEP, **TRAINED},
    ),
    ELMAN_RARE.with_fault(
        "Elman: rare events, the wrong column",
        "echo",
        "imbalanced classes and an input that tells nothing: the accuracy of always the commonest looks good",
        task=changed(ELMAN_RARE.task, lambda data, generator: {"x": torch.randn(data["x"].shape, generator=generator)}),
    ),
    LOOP_WAVES.with_fault(
        "loop: target not shifted",
        "echo",
        "the target of a step is its own input: a perfect echo, and no forecast",
        task=changed(LOOP_WAVES.task, lambda data, _: {"target": data["x"]}),
    ),
)
