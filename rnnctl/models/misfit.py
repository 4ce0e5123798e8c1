"""Why a model did not take its inputs, where that can be told; else its own traceback says more."""

import inspect
from collections.abc import Mapping
from traceback import walk_tb
from types import FrameType
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from rnnctl.errors import InputError, RnnctlError, plain, with_article
from rnnctl.models.inputs import Inputs

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
    found = (_tokens_wanted(frame, inputs) or _other_features(frame, model, inputs) for frame in frames)
    return next((each for each in found if each is not None), None)


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
    """Where an embedding was given numbers that are no tokens."""
    given = frame.f_locals.get("input")
    if frame.f_code is not F.embedding.__code__ or not isinstance(given, Tensor):
        return None
    x = _source(given, inputs)
    if x is None or not x.is_floating_point():
        return None
    return InputError(
        f"the model embeds tokens, whole numbers of shape (batch, time); {inputs.name} holds {plain(x.dtype)} of shape "
        f"{tuple(x.shape)}. Give it whole numbers, {BY_BATCH} or --input FILE"
    )


def _other_features(frame: FrameType, model: nn.Module, inputs: Inputs) -> InputError | None:
    """Where a linear map or a recurrent module was given the inputs themselves, or a step, with other features."""
    module, given = frame.f_locals.get("self"), frame.f_locals.get("input")
    if not isinstance(module, (nn.Linear, nn.RNNBase, nn.RNNCellBase)) or not isinstance(given, Tensor):
        return None
    # In torch's own code alone: a subclass may do anything to its input first.
    if not str(frame.f_globals.get("__name__")).startswith("torch.nn.modules."):
        return None
    size = module.in_features if isinstance(module, nn.Linear) else module.input_size
    x = _source(given, inputs)
    # What was reshaped on the way says nothing about the features of x.
    if x is None or given.dim() == 0 or x.shape[-1] != given.shape[-1] or given.shape[-1] == size:
        return None
    name = next((name for name, each in model.named_modules() if each is module), "")
    return InputError(
        f"{name or 'the model'}, {with_article(type(module).__name__)}, takes {size} features; {inputs.name} has "
        f"{x.shape[-1]}, being of shape {tuple(x.shape)}. Try --input-size {size}, or data of {size} features"
    )


def _source(given: Tensor, inputs: Inputs) -> Tensor | None:
    """The input that a tensor is, or is a view of."""
    tensors = (each.data if isinstance(each, PackedSequence) else each for each in inputs.tensors)
    return next((each for each in tensors if _share_memory(each, given)), None)


def _share_memory(one: Tensor, other: Tensor) -> bool:
    try:
        return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        # A tensor of a kind that has no memory of its own: fake, sparse.
        return one is other
