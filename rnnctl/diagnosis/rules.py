"""Every finding of the doctor: what is measured, when it holds, what to do, and what may follow from it."""

from rnnctl.diagnosis.crossing import no_gradient, reverse_last, state_cut, window
from rnnctl.diagnosis.gradients import chaotic, exploding, vanishing
from rnnctl.diagnosis.inputs import input_scale, nonfinite, time_axis
from rnnctl.diagnosis.look import Evidence, Rule
from rnnctl.diagnosis.losses import loss_output, padding
from rnnctl.diagnosis.rule_ids import IDS
from rnnctl.diagnosis.states import dead_units, stuck_gate
from rnnctl.diagnosis.trainings import echo, step_size

_OF_GRADIENT = ("vanishing", "exploding", "chaotic")
_OF_TRAINING = ("step-size", "echo")

# In the order in which they are looked at, which a table of what was found well keeps.
RULES: tuple[Rule, ...] = (
    Rule(
        "time-axis",
        "the steps of the recurrence against those of the input, and whether sequences reach one another",
        "it runs over the sequences, or they are mixed",
        "transpose where axes are exchanged (never view or reshape), or batch_first=True",
        time_axis,
        Evidence("forward"),
        ("state-cut", "reverse-last", "no-gradient", "window", "padding", *_OF_GRADIENT, *_OF_TRAINING),
        of_weight=False,
    ),
    Rule(
        "input-scale",
        "the share of what the input sends to the first layer beyond 3, its size and how much it varies",
        "half of it is beyond 3; or its largest number is below 0.01; or it varies by less than 0.001 of its size",
        "standardize every feature (--standardize)",
        input_scale,
        Evidence("doctor"),
        ("nonfinite", "dead-units", "stuck-gate", "no-gradient", *_OF_GRADIENT, *_OF_TRAINING),
        of_weight=False,
    ),
    Rule(
        "nonfinite",
        "input, target, weights, states, loss and gradients, one after the other",
        "a number of them is infinite or not a number",
        "remove it where it is first; where a state overflows, standardize, clip the gradient or take tanh",
        nonfinite,
        Evidence("gradnorm"),
        ("no-gradient", *_OF_GRADIENT, *_OF_TRAINING),
        of_weight=False,
    ),
    Rule(
        "vanishing",
        "the norm of d(loss at the last step)/d(state) over the lag that the task needs, of 1",
        "below 0.001",
        "an orthogonal W_hh of critical gain; LSTM or GRU, with a forget bias or chrono initialisation for the lag",
        vanishing,
        Evidence("gradnorm"),
        ("no-gradient", "echo"),
    ),
    Rule(
        "exploding",
        "the largest norm of d(loss at the last step)/d(state) at any step, of that at the last",
        "above 1000",
        "clip the gradient's norm; an orthogonal W_hh of critical gain",
        exploding,
        Evidence("gradnorm"),
        _OF_TRAINING,
    ),
    Rule(
        "chaotic",
        "the largest Lyapunov exponent along the sequence",
        "above 0 by more than two standard errors, and by a factor of 10 over the sequence",
        "an orthogonal W_hh of critical gain, or a smaller one",
        chaotic,
        Evidence("lyapunov", "--count 1", "count=1"),
        ("exploding", *_OF_TRAINING),
    ),
    Rule(
        "stuck-gate",
        "the share of units and steps in which a gate is open or shut",
        "0.95 or more",
        "draw the gate's biases anew: forget bias 1, or chrono initialisation for the lag",
        stuck_gate,
        Evidence("spectrum"),
        ("dead-units", "no-gradient", *_OF_GRADIENT, "echo"),
    ),
    Rule(
        "dead-units",
        "the share of units that are 0 (relu), or beyond 0.99 (tanh), at every step of every sequence",
        "0.4 or more; from 0.5 on a fault",
        "draw weights and biases smaller, or standardize; of relu the identity as W_hh and biases of 0",
        dead_units,
        Evidence("spectrum"),
        ("no-gradient", *_OF_GRADIENT, "echo"),
    ),
    Rule(
        "state-cut",
        "over how many steps a gradient can cross from state to state",
        "fewer than the sequence has, or than the lag needs",
        "hand the state on from step to step, without detach() within the lag",
        state_cut,
        Evidence("doctor"),
        ("no-gradient", "vanishing", "window", "echo"),
    ),
    Rule(
        "window",
        "the window of truncated backpropagation against the lag, and what it loses of the whole gradient",
        "it is no longer than the lag; where that is not known, more than 0.1 is lost",
        "a window longer than the lag",
        window,
        Evidence("truncation"),
        ("echo",),
    ),
    Rule(
        "padding",
        "the share of the gradient that comes of padded steps",
        "0.01 or more; from 0.1 on a fault",
        "pack the sequences (pack_padded_sequence), read each at its own end, and leave padding out of the loss",
        padding,
        Evidence("doctor"),
        ("vanishing", "echo"),
        of_weight=False,
    ),
    Rule(
        "reverse-last",
        "the steps at which a gradient enters each recurrence",
        "only at the first that it makes",
        "read h_n of both directions, or the output of the reverse one at step 0",
        reverse_last,
        Evidence("gradnorm"),
        ("no-gradient", "vanishing", "state-cut", "echo"),
    ),
    Rule(
        "loss-output",
        "what the output goes through before the loss, and the share of the targets beyond its ends",
        "a softmax or sigmoid comes twice; or 0.01 or more of the targets lie outside",
        "give the loss what comes before the softmax; scale the target, or end with a linear layer",
        loss_output,
        Evidence("doctor"),
        ("no-gradient", "vanishing", *_OF_TRAINING),
        of_weight=False,
    ),
    Rule(
        "no-gradient",
        "the norm of the gradient that comes to every recurrent weight",
        "it takes none, or it is 0",
        "requires_grad=True; no torch.no_grad, detach or .data on the way from the weight to the loss",
        no_gradient,
        Evidence("doctor"),
        ("vanishing", *_OF_TRAINING),
    ),
    Rule(
        "step-size",
        "the norm of an update over that of its recurrent weight in the short training, and what becomes of the loss",
        "outside 1e-5 .. 1e-1; or the loss rises",
        "another learning rate; clip the gradient's norm",
        step_size,
        Evidence("doctor"),
        ("echo",),
    ),
    Rule(
        "echo",
        "the loss after the short training over that of the last value, the mean or the shares of the classes",
        "above 0.95",
        "see the findings before it; where there are none, train longer, or predict the change",
        echo,
        Evidence("doctor"),
        of_weight=False,
    ),
)
assert tuple(rule.id for rule in RULES) == IDS
