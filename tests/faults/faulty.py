"""All set-ups with a fault, each beside its healthy twin: training runs, complains of nothing and learns little."""

from functools import partial

from torch import nn

from faults import networks
from faults.healthy import ELMAN, GRU_AVERAGE, GRU_BOTH_ENDS, GRU_PADDED, LOOP_WIDE, LSTM_TAGGER
from faults.networks import Classifier, Tagger
from faults.of_data import ECHO, INPUT_SCALE, LOSS_OUTPUT, PADDING, REVERSE_LAST, TIME_AXIS
from faults.of_networks import CHAOTIC, DEAD_UNITS, EXPLODING, NONFINITE, STUCK_GATE, VANISHING
from faults.of_training import NO_GRADIENT, STATE_CUT, STEP_SIZE, WINDOW
from faults.tasks import CLASSES, in_units

TWO_FAULTS = (
    LSTM_TAGGER.with_fault(
        "LSTM: batch_first forgotten, softmax before cross-entropy",
        "time-axis loss-output",
        "two lines of one tutorial",
        model=lambda: Tagger("LSTM", CLASSES, CLASSES, nn.Softmax(-1), batch_first=False),
    ),
    ELMAN.with_fault(
        "Elman: called without its state, unscaled input",
        "input-scale state-cut",
        "raw units in a loop that forgets",
        consequences="vanishing no-gradient dead-units time-axis",
        model=partial(networks.Unstated, "Elman"),
        task=in_units(ELMAN.task, 500.0, 2000.0),
    ),
    GRU_AVERAGE.with_fault(
        "GRU: frozen, sigmoid output",
        "no-gradient loss-output",
        "a network for data of 0 .. 1 fine-tuned on others",
        model=lambda: networks.frozen(Tagger("GRU", ending=nn.Sigmoid())),
    ),
    GRU_BOTH_ENDS.with_fault(
        "GRU: reverse direction's last step, softmax",
        "reverse-last loss-output",
        "output[:, -1] and a softmax at the end",
        consequences="vanishing no-gradient",
        model=partial(networks.ReverseLast, "GRU", 1, 2, nn.Softmax(-1)),
    ),
    GRU_PADDED.with_fault(
        "GRU: read at the last padded step, softmax",
        "padding loss-output",
        "output[:, -1] of a padded batch and a softmax at the end",
        consequences="vanishing",
        model=partial(Classifier, "GRU", 1, 2, nn.Softmax(-1)),
    ),
    LOOP_WIDE.with_fault(
        "loop: state detached, tanh output",
        "state-cut loss-output",
        "detach() in the loop, and an output squeezed",
        consequences="vanishing no-gradient",
        model=networks.DetachedTanh,
    ),
)

FAULTY = (
    *TIME_AXIS,
    *INPUT_SCALE,
    *NONFINITE,
    *VANISHING,
    *EXPLODING,
    *CHAOTIC,
    *STUCK_GATE,
    *DEAD_UNITS,
    *STATE_CUT,
    *WINDOW,
    *PADDING,
    *REVERSE_LAST,
    *LOSS_OUTPUT,
    *NO_GRADIENT,
    *STEP_SIZE,
    *ECHO,
    *TWO_FAULTS,
)
