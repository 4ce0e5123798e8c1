"""Remedies that change what stands around the recurrence: input, axes, readout, loss, clipping and window."""

import inspect
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rnnctl.diagnosis.case import Case, place, putting
from rnnctl.errors import InputError
from rnnctl.models.hooks import results_of
from rnnctl.models.modules import directions, is_layer
from rnnctl.models.objective import takes_lengths
from rnnctl.models.returned import tensors_in

# The largest norm of the whole gradient that clipping lets through.
LARGEST_NORM = 1.0
# What may stand at the end of a model where a loss takes numbers without bounds.
ENDS = (nn.Softmax, nn.LogSoftmax, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.ReLU, nn.Softplus)
OWN_LOSS = "the loss is your own: which steps it counts is up to it"


def standardize(case: Case) -> Case:
    """Every feature with mean 0 and standard deviation 1 over all steps, padding left out."""
    x, lengths = _numbers(case), case.settings.lengths
    steps = x.flatten(0, 1) if lengths is None else x[torch.arange(x.shape[1]) < lengths.cpu()[:, None]]
    mean, std = steps.mean(0), steps.std(0, correction=0)
    lines = ["import torch", "", "# x: the inputs that you train on, shape (batch, time, features)"]
    if lengths is None:
        lines.append("steps = x.flatten(0, 1)")
    else:
        lines.append("steps = x[torch.arange(x.shape[1]) < lengths[:, None]]  # without padding")
    lines += [
        "mean, std = steps.mean(0), steps.std(0, correction=0)",
        "x = (x - mean) / torch.where(std > 0, std, 1.0)",
    ]
    return case.changed(lines, x=(x - mean) / torch.where(std > 0, std, 1.0))


def _numbers(case: Case) -> Tensor:
    """The input, where it is one tensor of finite floating-point features."""
    if not isinstance(case.x, Tensor):
        raise InputError("the model takes several inputs: which of them are features is not known")
    if not case.x.is_floating_point() or case.x.dim() < 3:
        raise InputError("the input has no floating-point features at every step")
    if not bool(torch.isfinite(case.x).all()):
        raise InputError("the input is not finite, and has no mean")
    return case.x


def clipped(case: Case) -> Case:
    """The whole gradient no longer than 1."""
    line = f"nn.utils.clip_grad_norm_(model.parameters(), {LARGEST_NORM})  # after loss.backward(), before the step"
    return case.changed(["from torch import nn", "", line], settings=replace(case.settings, clip=LARGEST_NORM))


def wider_window(case: Case) -> Case:
    """A window that the lag fits into, where that is known; else one twice as long."""
    window, steps = case.settings.window, case.sequences[1]
    if window is None:
        raise InputError("nothing is truncated, as far as is known: --window says what you train with")
    if window >= steps:
        raise InputError(f"the window of {window} holds all {steps} steps")
    wider = min(steps, 2 * window if case.lag is None else max(2 * window, case.lag + 1))
    why = "twice as many" if case.lag is None else f"more than the lag of {case.lag}"
    line = f"window = {wider}  # steps between two .detach() of the state: {why}"
    return case.changed([line], settings=replace(case.settings, window=wider))


def cut_where_known(case: Case) -> Case:
    """The same, trained without windows where the state of its model could be cut nowhere."""
    try:
        with case.in_windows():
            return case
    except InputError:
        return case.changed((), settings=replace(case.settings, window=None))


def batch_first(case: Case) -> Case:
    """Layers that take the axes in the order in which they are handed them; of other code the input turned.

    Where all of them take (batch, time, ...) already, the code around them hands them (time, batch, ...).
    """
    if case.settings.time_first is True:
        raise InputError("the model is said to take (time, batch, ...)")
    layers = [each for each in case.recurrent if is_layer(each.module)]
    if not layers:
        return _handed_time_first(case)
    turned = [each for each in layers if not each.module.batch_first]
    for found in turned or layers:
        module: Any = found.module
        module.batch_first = bool(turned)
    return case.changed([f"{place(found.name)}.batch_first = {bool(turned)}" for found in turned or layers])


def _handed_time_first(case: Case) -> Case:
    if not isinstance(case.x, Tensor):
        raise InputError("the model takes several inputs: which of them to turn is not known")
    batch, steps = case.sequences[:2]
    y = replace(case, settings=replace(case.settings, time_first=True)).returned()
    back = isinstance(y, Tensor) and y.dim() > 2 and tuple(y.shape[:2]) == (steps, batch)
    line = f"y = model(x.transpose(0, 1)){'.transpose(0, 1)' if back else ''}"
    return case.changed([line], settings=replace(case.settings, time_first=True))


def both_ends(layer: Any, given: Any, result: Any) -> Any:
    """At the last step of an output what each direction has at its own end: the reverse one ends at step 0."""
    out, state = result
    half, axis = out.shape[-1] // 2, 1 if layer.batch_first else 0
    first, last = out.narrow(axis, 0, 1), out.narrow(axis, -1, 1)
    end = torch.cat((last[..., :half], first[..., half:]), -1)
    return torch.cat((out.narrow(axis, 0, out.shape[axis] - 1), end), axis), state


def read_both_ends(case: Case) -> Case:
    """The readout of the last step gets the end of the reverse direction as well."""
    layers = [each for each in case.recurrent if is_layer(each.module) and directions(each.module) == 2]
    if not layers:
        raise InputError("no layer of a known kind runs in both directions")
    for found in layers:
        found.module.register_forward_hook(both_ends)
    source = inspect.getsource(both_ends).replace(": Any", "").replace(" -> Any", "").rstrip()
    hooks = [f"{place(found.name)}.register_forward_hook(both_ends)" for found in layers]
    return case.changed(["import torch", "", *source.splitlines(), "", *hooks])


def no_end_activation(case: Case) -> Case:
    """Nothing between the last linear map and the loss."""
    ends = [name for name, module in case.model.named_modules() if isinstance(module, ENDS) and _is_end(case, module)]
    if not ends:
        raise InputError("no activation stands at the end as a module of its own; if forward applies one, take it out")
    lines = ["from torch import nn", ""]
    for name in ends:
        case = case.changed((), model=case.put(name, nn.Identity()))
        lines.append(putting(name, "nn.Identity()"))
    return case.changed(lines)


def _is_end(case: Case, module: nn.Module) -> bool:
    """Whether what a module returns is an output of the model, by itself or with the other steps."""
    with results_of(module) as results, torch.no_grad():
        returned = case.returned()
    found = [returned] if isinstance(returned, Tensor) else [part for _, part in tensors_in(returned)]
    outputs = [part for part in found if isinstance(part, Tensor)]
    if any(each is part for each in results for part in outputs):
        return True
    stacked = [torch.stack(results, axis) for axis in (0, 1)] if _alike(results) else []
    return any(each.shape == part.shape and torch.equal(each, part) for each in stacked for part in outputs)


def _alike(results: list[Any]) -> bool:
    return bool(results) and all(isinstance(each, Tensor) and each.shape == results[0].shape for each in results)


def careless(case: Case) -> Case:
    """The same as somebody trains it who does not tell padding from steps."""
    return case.changed((), settings=replace(case.settings, lengths=None))


def masked(case: Case) -> Case:
    """The loss on real steps alone."""
    settings, given = case.settings, case.settings.lengths
    if settings.loss_fn is not None:
        raise InputError(OWN_LOSS)
    lengths = _trailing(case) if given is None else given
    if bool((lengths == case.sequences[1]).all()):
        raise InputError("no step is padding: all sequences are as long")
    takes = takes_lengths(case.model)
    y = case.objective.picked(careless(case).returned()).part
    over_time = y.dim() == 3 and y.shape[1] == case.sequences[1]
    if takes is None and not over_time:
        raise InputError("the model reads its last step itself and takes no lengths: pack the sequences in it")
    lines = ["import torch", "from torch.nn import functional as F", ""]
    if given is None:
        lines.append(
            "lengths = x.shape[1] - (x == 0).all(-1).flip(1).int().cumprod(1).sum(1)  # without trailing zeros"
        )
    lines += _masked_loss(case, takes, over_time)
    return case.changed(lines, settings=replace(settings, lengths=lengths), target=_over_time(case, over_time))


def _over_time(case: Case, over_time: bool) -> Tensor | None:
    """The target with an axis of time, for an output that has one: a loss on real steps takes it from there."""
    target = case.target
    if target is None or not over_time or target.dim() != (1 if case.settings.loss == "cross-entropy" else 2):
        return target
    return target.unsqueeze(1).expand(-1, case.sequences[1], *target.shape[1:])


def _masked_loss(case: Case, takes: str | None, over_time: bool) -> list[str]:
    settings, target = case.settings, case.target
    lines = [f"y = model(x{'' if takes is None else f', {takes}=lengths'})"]
    of_all = settings.loss_at == "all"
    if over_time and of_all:
        lines.append("real = torch.arange(x.shape[1]) < lengths[:, None]")
    elif over_time:
        lines.append("real = torch.arange(len(x)), lengths - 1")
    name = {"mse": "mse_loss", "cross-entropy": "cross_entropy"}.get(settings.loss or "mse")
    if name is None or target is None:
        raise InputError("there is no target that padding could spoil")
    # The target of the last step alone has no axis of time to choose from.
    axes = 2 if settings.loss == "cross-entropy" else 3
    chosen = "target[real]" if target.dim() == axes else "target"
    return [*lines, f"loss = F.{name}({'y[real]' if over_time else 'y'}, {chosen if over_time else 'target'})"]


def _trailing(case: Case) -> Tensor:
    """Lengths without the steps at the end whose features are all 0."""
    x = _numbers(case)
    zeros = (x == 0).flatten(2).all(-1).flip(1).int().cumprod(1).sum(1)
    if bool((zeros == x.shape[1]).any()):
        raise InputError("which steps are padding is not known: give lengths")
    return x.shape[1] - zeros
