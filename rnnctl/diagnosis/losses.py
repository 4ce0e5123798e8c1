"""Whether output, target and loss belong together, and whether padding is learned from."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rnnctl.diagnosis.activations import function_behind, function_of
from rnnctl.diagnosis.blank_ends import BlankEnds, blank_ends
from rnnctl.diagnosis.look import Look, held_share, unknown
from rnnctl.diagnosis.patient import Patient
from rnnctl.errors import InputError
from rnnctl.gradients.training_step import training_step
from rnnctl.models.objective import Objective
from rnnctl.recurrence.states_seen import percent

# The losses that apply a function themselves, by their nodes; and what must not come before it, or better not.
APPLIES = {"LogSoftmax": "cross-entropy", "BinaryCrossEntropyWithLogits": "binary cross-entropy with logits"}
TWICE, BOUNDS = ("Softmax", "Sigmoid"), ("Tanh", "Relu")
# Where outputs end.
ENDS = {"Tanh": (-1.0, 1.0), "Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "Relu": (0.0, float("inf"))}
# Of all targets; and of the gradient that comes to the weights.
OUTSIDE, OF_PADDING = 0.01, 0.01


def loss_output(patient: Patient) -> Look:
    """Whether the loss applies a function that the output has been through, and whether it can reach the target."""
    passed = patient.passed
    try:
        loss = passed.loss
    except InputError as error:
        return unknown(str(error))
    twice = _applied_twice(patient) if loss.grad_fn is not None else None
    if twice is not None:
        return twice
    outside = _targets_outside(patient)
    return Look(False, 0.0, OUTSIDE) if outside is None else outside


def _applied_twice(patient: Patient) -> Look | None:
    graph = patient.passed.reading.graph
    for node, op in zip(graph.nodes, graph.ops, strict=True):
        if op.name in APPLIES:
            before, _ = function_behind(node)
            if before in TWICE and _leads_to_loss(patient, node):
                sentence = (
                    f"the output goes through a {before.lower()}, and {APPLIES[op.name]} applies one itself: the "
                    "gradient is flattened twice"
                )
                return Look(True, 1.0, 0.0, 1.0, sentence=sentence)
            if before in BOUNDS and _leads_to_loss(patient, node):
                sentence = (
                    f"the output goes through a {before.lower()} before {APPLIES[op.name]}, which takes any number"
                )
                return Look(True, 1.0, 0.0, 0.5, "warning", sentence)
        if op.name in ("NllLoss", "NllLoss2D") and _are_no_logarithms(node):
            sentence = "the loss takes logarithms of probabilities (log_softmax), and the output is none"
            return Look(True, 1.0, 0.0, 1.0, sentence=sentence)
    return None


def _leads_to_loss(patient: Patient, node: Any) -> bool:
    """Whether a node is one that the loss is made of directly: within a few operations of it."""
    nodes: list[Any] = [patient.passed.loss.grad_fn]
    for _ in range(12):
        if any(each is node for each in nodes):
            return True
        nodes = [after for each in nodes for after, _ in each.next_functions if after is not None][:64]
    return False


def _are_no_logarithms(node: Any) -> bool:
    """Whether what a negative log-likelihood takes does not sum to 1 over the classes once it is exponentiated."""
    before, _ = function_behind(node)
    if before == "LogSoftmax":
        return False
    given = node._saved_self.detach().double()
    classes = 1 if given.dim() > 1 else 0
    return not torch.allclose(given.exp().sum(classes), torch.ones(()).double(), rtol=1e-3, atol=1e-3)


def _targets_outside(patient: Patient) -> Look | None:
    """The share of the targets that lie beyond the ends of the output; None where it has none, or there is no target.

    A loss of classes, which are no places in the output's range, has nothing to say here.
    """
    passed, objective = patient.passed, patient.passed.objective
    target, output = objective.target, passed.prediction
    plain = objective.loss_fn is None and objective.ours == "mse"
    if not plain or not isinstance(target, Tensor) or not target.is_floating_point() or output is None:
        return None
    ends = _ends(patient, output)
    if ends is None:
        return None
    low, high = ends
    real = _real(target, patient)
    share = float(((real < low) | (real > high)).double().mean())
    sentence = (
        f"{percent(share)} of the targets lie outside {low:g} .. {high:g}, where the output ends: it cannot reach them"
    )
    return held_share(share, OUTSIDE, sentence)


def _real(target: Tensor, patient: Patient) -> Tensor:
    lengths = patient.settings.lengths
    if lengths is None or tuple(target.shape[:2]) != (patient.batch, patient.steps):
        return target
    return target[torch.arange(target.shape[1]) < lengths.cpu()[:, None]]


def _ends(patient: Patient, output: Tensor) -> tuple[float, float] | None:
    """Between which numbers an output of any shape lies whatever the weights are."""
    function, node = function_of(output)
    if function in ENDS:
        return ENDS[function]
    made = {id(each) for each, _ in patient.passed.made_by}
    with_ends = bool(patient.passed.layers) and all(layer.has_ends for layer in patient.passed.layers)
    return (-1.0, 1.0) if with_ends and (id(node) in made or id(output.grad_fn) in made) else None


def padding(patient: Patient) -> Look:
    """What part of the gradient of the recurrent weights comes of padded steps."""
    if patient.exchanged:
        return unknown("it ran over the sequences in place of their steps")
    given, x = patient.settings.lengths, patient.sequences
    if given is None and x is None:
        return unknown("the input is packed")
    seen = BlankEnds(given, fills=True) if given is not None or x is None else blank_ends(x, patient.target)
    if seen.why:
        return unknown(seen.why)
    lengths = seen.lengths
    if lengths is None or bool((lengths == patient.steps).all()):
        return Look(False, 0.0, OF_PADDING)
    objective = patient.objective if given is not None else replace(patient.objective, lengths=None)
    try:
        share = _share_of_padding(patient, objective, lengths)
    except InputError as error:
        return unknown(str(error))
    if share is None:
        return unknown("no weight is known step by step")
    whose = "" if given is not None else " (blank steps at the ends of the sequences: no lengths are given)"
    sentence = f"{percent(share)} of the gradient comes of padded steps{whose}: the network learns padding"
    # A pause that every sequence ends with may be part of the task.
    return held_share(share, OF_PADDING, sentence).as_warning(share < 10 * OF_PADDING or not seen.fills)


def _share_of_padding(patient: Patient, objective: Objective, lengths: Tensor) -> float | None:
    """The largest part of any recurrent weight's gradient that falls on padded steps; None where none is known."""
    step = training_step(patient.model, objective, lengths, patient.settings.only)
    shares = [each.padded_share for each in step.weights.values() if each.padded_share is not None]
    output = _share_of_output(patient, lengths)
    known = [*shares, *([] if output is None else [output])]
    return max(known, default=None)


def _share_of_output(patient: Patient, lengths: Tensor) -> float | None:
    """The part of what the loss sends to the output over time that falls on padded steps."""
    passed, output = patient.passed, patient.passed.prediction
    if output is None or output.dim() < 3 or output.shape[1] != patient.steps or not output.requires_grad:
        return None
    (grad,) = torch.autograd.grad(passed.loss, output, retain_graph=True, allow_unused=True)
    if grad is None:
        return None
    size = grad.detach().double().flatten(2).norm(dim=2)
    padded = torch.arange(patient.steps) >= lengths.cpu()[:, None]
    whole = float(size.sum())
    return float(size[padded].sum()) / whole if whole > 0 else None
