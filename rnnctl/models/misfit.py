"""Why a model did not take its inputs, where that can be told; else its own traceback says more."""

import inspect
from collections.abc import Callable, Mapping
from itertools import zip_longest
from traceback import walk_tb
from types import FrameType
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from rnnctl.errors import InputError, RnnctlError, plain, with_article
from rnnctl.models.inputs import Inputs

# What refuses a size of its input, the size that it takes, and the axis of it. A recurrent one says so by itself.
SIZES: tuple[tuple[type | tuple[type, ...], Callable[[Any], int], int], ...] = (
    (nn.Linear, lambda module: module.in_features, -1),
    ((nn.RNNBase, nn.RNNCellBase), lambda module: module.input_size, -1),
    (nn.LayerNorm, lambda module: module.normalized_shape[-1], -1),
    (nn.RMSNorm, lambda module: module.normalized_shape[-1], -1),
    (nn.Conv1d, lambda module: module.in_channels, -2),
    (nn.BatchNorm1d, lambda module: module.num_features, 1),
    (nn.MultiheadAttention, lambda module: module.embed_dim, -1),
)
NAMES_OF_INPUT = ("input", "x", "query")
# What an axis of x counts, and the option that sets it.
AXES = (("sequences", "--batch-size"), ("steps", "--seq-len"), ("features", "--input-size"))
# How the line begins that ends a traceback of the model's own.
GIVEN = "the model was given "
BY_BATCH = "in the shell by --batch package.module:function"


def misfit(model: nn.Module, inputs: Inputs, error: Exception) -> InputError | None:
    """What to say in place of an error that a model raised; None where the fault may be elsewhere.

    Args:
        inputs: what it was called with.
        error: with its traceback.
    """
    if isinstance(error, RnnctlError):
        return None
    if isinstance(error, TypeError):
        return _other_arguments(model, inputs)
    # From within outwards: the first that was given the inputs themselves is the one that refused them.
    frames = [frame for frame, _ in walk_tb(error.__traceback__)][::-1]
    found = (_tokens_wanted(frame, inputs) or _other_size(frame, model, inputs) for frame in frames)
    return next((each for each in found if each is not None), None)


def told(model: nn.Module, inputs: Inputs) -> str:
    """What a model was given, in one line for the end of a traceback of its own."""
    try:
        names = list(inspect.signature(model.forward).parameters)
    except (TypeError, ValueError):
        names = []
    # One tensor by itself is x to all messages, whatever forward calls it.
    alone = [inputs.name] if len(inputs.args) == 1 and not inputs.kwargs else names
    args = zip_longest(alone[: len(inputs.args)], inputs.args, fillvalue="argument")
    return GIVEN + ", ".join(f"{name} {_kind(part)}" for name, part in (*args, *inputs.kwargs.items()))


def _kind(part: Any) -> str:
    """Such as float32 (4, 7, 10)."""
    if isinstance(part, PackedSequence):
        return f"packed {_kind(part.data)}"
    if isinstance(part, Tensor):
        return f"{plain(part.dtype)} {tuple(part.shape)}"
    if isinstance(part, (tuple, list)):
        return f"({', '.join(_kind(each) for each in part)})"
    return type(part).__name__


def _other_arguments(model: nn.Module, inputs: Inputs) -> InputError | None:
    """Where ``forward`` has other parameters than what was given."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):
        return None
    forward = f"the model's forward({', '.join(signature.parameters)})"
    try:
        missing = _missing(signature, signature.bind_partial(*inputs.args, **inputs.kwargs).arguments)
    except TypeError as error:
        return InputError(f"{forward} does not take {_counted(inputs)}: {error}")
    if not missing:
        return None
    return InputError(
        f"{forward} also needs {', '.join(missing)}; it was given {_counted(inputs)}. Give x as a tuple or a mapping "
        f"of all its arguments, {BY_BATCH}"
    )


def _missing(signature: inspect.Signature, given: Mapping[str, Any]) -> list[str]:
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = (each for each in signature.parameters.values() if each.kind not in several)
    return [each.name for each in needed if each.default is inspect.Parameter.empty and each.name not in given]


def _counted(inputs: Inputs) -> str:
    count = len(inputs.args)
    positional = [f"{count} positional argument{'' if count == 1 else 's'}"] if count or not inputs.kwargs else []
    return " and ".join([*positional, *inputs.kwargs])


def _tokens_wanted(frame: FrameType, inputs: Inputs) -> InputError | None:
    """Where an embedding was given numbers that are no tokens, or tokens that it does not have."""
    given, weight = frame.f_locals.get("input"), frame.f_locals.get("weight")
    if frame.f_code is not F.embedding.__code__ or not isinstance(given, Tensor) or not isinstance(weight, Tensor):
        return None
    x = inputs.source_of(given)
    if x is None:
        return None
    if x.is_floating_point():
        return InputError(
            f"the model embeds tokens, whole numbers of shape (batch, time); {inputs.name} holds {plain(x.dtype)} of "
            f"shape {tuple(x.shape)}. Give it whole numbers, {BY_BATCH} or --input FILE"
        )
    low, high = (int(value) for value in given.aminmax()) if given.numel() else (0, 0)
    if low >= 0 and high < len(weight):
        return None
    return InputError(
        f"the model embeds tokens from 0 to {len(weight) - 1}; {inputs.name} holds values from {low} to {high}"
    )


def _other_size(frame: FrameType, model: nn.Module, inputs: Inputs) -> InputError | None:
    """Where a module of torch's was given the inputs themselves, or a step, and another size of them."""
    module = frame.f_locals.get("self")
    given = next((frame.f_locals[name] for name in NAMES_OF_INPUT if name in frame.f_locals), None)
    # In torch's own code alone: a subclass may do anything to its input first.
    if not str(frame.f_globals.get("__name__")).startswith("torch.nn.modules."):
        return None
    taken = next(((size(module), axis) for kind, size, axis in SIZES if isinstance(module, kind)), None)
    if taken is None or not isinstance(module, nn.Module) or not isinstance(given, Tensor):
        return None
    (size, axis), x = taken, inputs.source_of(given)
    # What was reshaped on the way says nothing about the axes of x.
    if x is None or given.dim() < -axis or given.shape[axis] == size or (of_x := _axis_of(x, given, axis)) is None:
        return None
    name = next((name for name, each in model.named_modules() if each is module), "")
    what, flag = AXES[of_x] if of_x < x.dim() - 1 else AXES[-1]
    return InputError(
        f"{name or 'the model'}, {with_article(type(module).__name__)}, takes {size} {what}; {inputs.name} has "
        f"{x.shape[of_x]}, being of shape {tuple(x.shape)}. Try {flag} {size}, or data of {size} {what}"
    )


def _axis_of(x: Tensor, view: Tensor, axis: int) -> int | None:
    """The axis of x that a view of it has there, whole; None where it is none of them."""
    there = view.shape[axis], view.stride(axis)
    return next((each for each in reversed(range(x.dim())) if (x.shape[each], x.stride(each)) == there), None)
