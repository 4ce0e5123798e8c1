"""Set-ups in which nothing is wrong: they learn, and no finding of severity "fault" is due."""

from dataclasses import replace
from functools import partial

import torch
from torch import Generator, nn

import rnnctl
from faults.networks import (
    HIDDEN,
    AtLength,
    BothEnds,
    Classifier,
    Embedded,
    HandWrittenLSTM,
    Last,
    Loop,
    Packed,
    Tagger,
    orthogonal,
    with_bias,
    with_hidden,
)
from faults.setups import SetUp
from faults.tasks import (
    CLASSES,
    STEPS,
    Data,
    changed,
    counted,
    delayed,
    first_sign,
    first_value,
    next_tags,
    padded_sign,
    padded_tags,
    rare_events,
    smoothed,
    tags,
    tokens,
    waves,
)

EVERY_STEP = {"loss_at": "all"}
CLASSES_AT_EVERY_STEP = {"loss": "cross-entropy", "loss_at": "all"}
CLASS_AT_THE_END = {"loss": "cross-entropy"}
TRAINED = {"train_steps": 200}
FAR_BACK = {**CLASS_AT_THE_END, "lag": STEPS - 1}


def eye(weight: torch.Tensor) -> torch.Tensor:
    """The identity, as of the IRNN."""
    return torch.eye(len(weight))


def zero_biases(model: nn.Module) -> nn.Module:
    """All biases 0: a common way to begin, and no update over weight is a number then."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.zero_()
    return model


def _with_constant(data: Data, generator: Generator) -> Data:
    return {"x": torch.cat((data["x"], torch.ones_like(data["x"])), 2)}


def zero_readout(model: Tagger) -> nn.Module:
    """Outputs begin at 0."""
    with torch.no_grad():
        for parameter in model.readout.parameters():
            parameter.zero_()
    return model


ELMAN = SetUp(
    "Elman: moving average", "Elman", partial(Tagger, "Elman"), smoothed(), "torch's defaults", keywords=EVERY_STEP
)
ELMAN_RELU = SetUp(
    "Elman: relu and the identity",
    "Elman",
    lambda: with_hidden(Tagger("Elman", nonlinearity="relu"), lambda weight: 0.9 * eye(weight)),
    smoothed(),
    "the IRNN of Le, Jaitly and Hinton 2015",
    keywords=EVERY_STEP,
)
ELMAN_RARE = SetUp(
    "Elman: rare events",
    "Elman",
    partial(Tagger, "Elman", 1, 2),
    rare_events(),
    "nine steps in ten are of one class",
    keywords={**CLASSES_AT_EVERY_STEP, **TRAINED},
)
ELMAN_FAR = SetUp(
    "Elman: orthogonal, first of 30 steps",
    "Elman",
    lambda: with_hidden(Classifier("Elman", 1, 2), orthogonal()),
    first_sign(),
    "Saxe et al. 2014",
    keywords=FAR_BACK,
)
ELMAN_VALUE = SetUp(
    "Elman: relu and the identity, value of 30 steps ago",
    "Elman",
    lambda: with_hidden(Classifier("Elman", nonlinearity="relu"), eye),
    first_value(),
    "the IRNN of Le, Jaitly and Hinton 2015",
    keywords={"lag": STEPS - 1},
)
GRU = SetUp(
    "GRU: tagger", "GRU", partial(Tagger, "GRU", CLASSES, CLASSES), tags(), "torch's defaults",
    keywords=CLASSES_AT_EVERY_STEP,
)  # fmt: skip
GRU_LATE = replace(GRU, name="GRU: tagger, 5 steps late", task=tags(5))
GRU_AVERAGE = replace(ELMAN, name="GRU: moving average", kind="GRU", model=partial(Tagger, "GRU"))
GRU_NO_BIASES = replace(
    GRU_AVERAGE,
    name="GRU: moving average, biases 0",
    model=lambda: zero_biases(Tagger("GRU")),
    after="biases begin at 0 in many codes",
)
GRU_FAR = SetUp(
    "GRU: update gate open, first of 30 steps",
    "GRU",
    lambda: with_bias(Classifier("GRU", 1, 2), 2.0, gate=1),
    first_sign(),
    "Tallec and Ollivier 2018",
    keywords=FAR_BACK,
)
GRU_UNIT = SetUp(
    "GRU: sigmoid output, targets within it",
    "GRU",
    lambda: Tagger("GRU", ending=nn.Sigmoid()),
    changed(smoothed(), lambda data, _: {"target": torch.sigmoid(data["target"])}),
    "data scaled to 0 .. 1",
    keywords=EVERY_STEP,
)
GRU_PADDED = SetUp(
    "GRU: padded, read at its length", "GRU", partial(AtLength, "GRU", 1, 2), padded_sign(), "lengths heeded",
    keywords=CLASS_AT_THE_END,
)  # fmt: skip
LSTM = SetUp(
    "LSTM: forecast of waves",
    "LSTM",
    partial(Tagger, "LSTM"),
    waves(),
    "torch's defaults",
    keywords={**EVERY_STEP, **TRAINED},
)
LSTM_AVERAGE = replace(ELMAN, name="LSTM: moving average", kind="LSTM", model=partial(Tagger, "LSTM"))
LSTM_TAGGER = SetUp(
    "LSTM: tagger, log-softmax before cross-entropy",
    "LSTM",
    lambda: Tagger("LSTM", CLASSES, CLASSES, nn.LogSoftmax(-1)),
    tags(),
    "superfluous, and no fault: the softmax of logarithms of probabilities is those probabilities",
    keywords=CLASSES_AT_EVERY_STEP,
)
LSTM_FAR = SetUp(
    "LSTM: forget bias, first of 30 steps",
    "LSTM",
    lambda: with_bias(Classifier("LSTM", 1, 2), 4.0, gate=1),
    first_sign(),
    "Jozefowicz et al. 2015",
    keywords=FAR_BACK,
)
LAG_59 = {"task": first_sign(60), "keywords": {**FAR_BACK, "lag": 59}}
LSTM_60 = replace(LSTM_FAR, name="LSTM: forget bias, first of 60 steps", **LAG_59)
GRU_60 = replace(
    GRU_FAR,
    name="GRU: update gate open, first of 60 steps",
    model=lambda: with_bias(Classifier("GRU", 1, 2), 4.0, gate=1),
    **LAG_59,
)
LSTM_NOISY = replace(LSTM_FAR, name="LSTM: forget bias, first of 30 steps in noise", task=first_sign(noise=0.5))
LSTM_PACKED = SetUp(
    "LSTM: padded and packed", "LSTM", partial(Packed, "LSTM", CLASSES, CLASSES), padded_tags(), "lengths heeded",
    keywords=CLASSES_AT_EVERY_STEP,
)  # fmt: skip
LSTM_BOTH_ENDS = SetUp(
    "LSTM: both directions, each at its end",
    "LSTM",
    partial(BothEnds, "LSTM", 1, 2, bidirectional=True),
    first_sign(),
    "h_n of both directions",
    keywords=CLASS_AT_THE_END,
)
ELMAN_PADDED = replace(
    GRU_PADDED,
    name="Elman: padded, read at its length",
    kind="Elman",
    model=partial(AtLength, "Elman", 1, 2),
)
GRU_BOTH_ENDS = SetUp(
    "GRU: both directions, each at its end",
    "GRU",
    partial(BothEnds, "GRU", 1, 2, bidirectional=True),
    first_sign(),
    "h_n of both directions",
    keywords=CLASS_AT_THE_END,
)
GRU_EMBEDDED = replace(
    GRU,
    name="GRU: tokens looked up",
    model=partial(Embedded, "GRU", CLASSES),
    task=tokens(),
    after="one token is 0, and many a sequence ends with it: no padding",
)
GRU_TWO_WAYS = replace(
    GRU,
    name="GRU: two layers in both directions",
    model=partial(Tagger, "GRU", CLASSES, CLASSES, bidirectional=True, num_layers=2),
    task=next_tags(),
    after="every step read; gradients enter each direction at every step",
)
GRU_ZERO_READOUT = replace(
    GRU_AVERAGE,
    name="GRU: a readout of zeros",
    model=lambda: zero_readout(Tagger("GRU")),
    after="a common way to begin: at the first step no weight before it has a gradient, later all have",
    keywords={**EVERY_STEP, **TRAINED},
)
LSTM_COUNTED = SetUp(
    "LSTM: events counted",
    "LSTM",
    lambda: with_bias(Classifier("LSTM"), 4.0, gate=1),
    counted(),
    "sparse inputs: zeros at the end are no padding",
)
LSTM_STACKED = SetUp(
    "LSTM: two layers, time first",
    "LSTM",
    partial(Tagger, "LSTM", num_layers=2, batch_first=False),
    smoothed(),
    "torch's own layout, which the network is told of",
    keywords={**EVERY_STEP, "time_first": True},
)
LOOP = SetUp("loop: moving average", "hand-written", Loop, smoothed(), "an Elman cell", keywords=EVERY_STEP)
LOOP_TAGGER = SetUp(
    "loop: tagger", "hand-written", partial(Loop, CLASSES, CLASSES), tags(), "an Elman cell",
    keywords=CLASSES_AT_EVERY_STEP,
)  # fmt: skip
LOOP_LATE = replace(LOOP_TAGGER, name="loop: tagger, 5 steps late", task=tags(5))
LOOP_RELU = SetUp(
    "loop: relu", "hand-written", partial(Loop, f=torch.relu), delayed(1), "an Elman cell", keywords=EVERY_STEP
)
LOOP_FAR = SetUp(
    "loop: orthogonal, first of 30 steps",
    "hand-written",
    lambda: zero_biases(with_hidden(Last(Loop(1, 2)), orthogonal())),
    first_sign(),
    "Saxe et al. 2014",
    keywords=FAR_BACK,
)
LOOP_NOISY = replace(
    LOOP_FAR,
    name="loop: orthogonal, first of 20 steps in noise",
    task=first_sign(20, noise=0.3),
    keywords={**FAR_BACK, "lag": 19},
)
LOOP_VALUE = SetUp(
    "loop: orthogonal, value of 30 steps ago",
    "hand-written",
    lambda: zero_biases(with_hidden(Last(Loop()), orthogonal())),
    first_value(),
    "Saxe et al. 2014",
    keywords={"lag": STEPS - 1},
)
LOOP_LSTM = SetUp(
    "loop: LSTM", "hand-written", partial(HandWrittenLSTM, CLASSES, CLASSES), tags(), "forget bias 1",
    keywords=CLASSES_AT_EVERY_STEP,
)  # fmt: skip
LOOP_OF_TWO = replace(
    LOOP, name="loop: a constant feature", model=partial(Loop, 2), task=changed(LOOP.task, _with_constant)
)
LOOP_WIDE = replace(
    LOOP,
    name="loop: targets of variance 9",
    task=changed(smoothed(), lambda data, _: {"target": 3 * data["target"]}),
)
LOOP_WAVES = replace(LSTM, name="loop: forecast of waves", kind="hand-written", model=Loop)
FULL_RNN = SetUp(
    "loop: FullRNN, delay",
    "hand-written",
    partial(rnnctl.FullRNN, 1, HIDDEN, 1),
    delayed(1),
    "rnnctl's own network",
    keywords=EVERY_STEP,
)

HEALTHY = (
    ELMAN,
    ELMAN_RELU,
    ELMAN_RARE,
    ELMAN_FAR,
    ELMAN_VALUE,
    ELMAN_PADDED,
    GRU,
    GRU_LATE,
    GRU_AVERAGE,
    GRU_NO_BIASES,
    GRU_FAR,
    GRU_60,
    GRU_UNIT,
    GRU_PADDED,
    GRU_EMBEDDED,
    GRU_TWO_WAYS,
    GRU_ZERO_READOUT,
    GRU_BOTH_ENDS,
    LSTM,
    LSTM_AVERAGE,
    LSTM_TAGGER,
    LSTM_FAR,
    LSTM_60,
    LSTM_NOISY,
    LSTM_PACKED,
    LSTM_BOTH_ENDS,
    LSTM_COUNTED,
    LSTM_STACKED,
    LOOP,
    LOOP_TAGGER,
    LOOP_LATE,
    LOOP_RELU,
    LOOP_FAR,
    LOOP_NOISY,
    LOOP_VALUE,
    LOOP_LSTM,
    LOOP_OF_TWO,
    LOOP_WIDE,
    LOOP_WAVES,
    FULL_RNN,
)
