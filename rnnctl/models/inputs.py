"""What a model is called with, where one tensor is not enough."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from rnnctl.errors import InputError, ShapeError


@dataclass(frozen=True, eq=False)
class Inputs:
    """The arguments of one call of a model; tensors also within tuples, lists and mappings among them.

    Attributes:
        args, kwargs: as the model's ``forward`` takes them.
        name: what messages call them.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    name: str = "x"

    @property
    def tensors(self) -> list[Tensor | PackedSequence]:
        """All of them, of any shape, in their order."""
        return [*_tensors_in(self.args), *_tensors_in(self.kwargs)]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of every tensor that may be sequences, (batch, time, ...): two axes at least, and no mask.

        Raises:
            ShapeError: there is none.
        """
        found = [_shape(each) for each in self.tensors if _may_be_sequences(each)]
        if not found:
            others = ", ".join(str(_shape(each)) for each in self.tensors)
            raise ShapeError(
                f"{self.name} must hold a tensor of shape (batch, time, ...); it holds "
                f"{'tensors of shape ' + others if others else 'no tensor'}"
            )
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the sequences, which come first: (batch, time, ...)."""
        return self.shapes[0]

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> "Inputs":
        """The same with tensors of any shape there, those of floating-point numbers in this dtype."""

        def moved(part: Any) -> Any:
            there = part if device is None else part.to(device)
            return there.to(dtype) if dtype is not None and part.is_floating_point() else there

        return replace(self, args=_mapped(moved, self.args), kwargs=_mapped(moved, self.kwargs))


# What questions take for x.
Given = Tensor | tuple[Any, ...] | Mapping[str, Any] | Inputs


def inputs_of(x: Given) -> Tensor | Inputs:
    """What a question is given for x: a tensor as it is, a tuple or a mapping as the arguments of the model.

    Args:
        x: a tensor, of shape (batch, time, input) or whole numbers (batch, time); positional arguments in a tuple;
            or keyword arguments in a mapping.
    """
    found = x if isinstance(x, (Tensor, Inputs)) else _arguments(x, "x")
    if found is None:
        raise ShapeError(
            f"x must be a tensor of shape (batch, time, input); got {type(x).__name__}. Of a model that takes more: a "
            "tuple of its positional arguments, or a mapping of its keyword arguments"
        )
    return found


def one_tensor(x: Given) -> Tensor:
    """x for the hand-written network, of any shape; InputError where it is several inputs."""
    found = inputs_of(x)
    if isinstance(found, Inputs):
        raise ShapeError("a rnnctl.FullRNN takes x alone, a tensor of shape (batch, time, input); got several inputs")
    return found


def inputs_returned(found: Any, name: str) -> Inputs:
    """What a function of the user's returned, as the arguments of a model with sequences among them.

    Args:
        found: expected to be a tuple, a list or a mapping; a tensor of any shape is told to be put into one.
        name: of the function, for messages.
    """
    inputs = _arguments(tuple(found) if isinstance(found, list) else found, name)
    if inputs is None:
        remedy = "(x,)" if isinstance(found, (Tensor, PackedSequence)) else "what model(...) is called with"
        raise InputError(
            f"{name} must return the model's inputs, a tuple of positional arguments or a mapping of keyword "
            f"arguments; got {type(found).__name__}. Return {remedy}"
        )
    # Without sequences there is neither a length nor a batch to speak of.
    _ = inputs.shape
    return inputs


def _arguments(found: Any, name: str) -> Inputs | None:
    # A packed sequence, a tuple to Python, is one argument.
    if isinstance(found, tuple) and not isinstance(found, PackedSequence):
        return Inputs(found, name=name)
    if isinstance(found, Mapping) and all(isinstance(key, str) for key in found):
        return Inputs(kwargs=dict(found), name=name)
    return None


def _may_be_sequences(part: Tensor | PackedSequence) -> bool:
    return isinstance(part, PackedSequence) or (part.dim() >= 2 and part.dtype != torch.bool)


def _shape(part: Tensor | PackedSequence) -> tuple[int, ...]:
    if isinstance(part, PackedSequence):
        return int(part.batch_sizes[0]), len(part.batch_sizes), *part.data.shape[1:]
    return tuple(part.shape)


def _tensors_in(part: Any) -> Iterator[Tensor | PackedSequence]:
    if isinstance(part, (Tensor, PackedSequence)):
        yield part
    elif isinstance(part, (tuple, list, Mapping)):
        for each in part.values() if isinstance(part, Mapping) else part:
            yield from _tensors_in(each)


def _mapped(change: Callable[[Any], Any], part: Any) -> Any:
    """The same containers with other tensors in them; what is neither stays as it is."""
    if isinstance(part, Tensor):
        return change(part)
    if isinstance(part, PackedSequence):
        return PackedSequence(change(part.data), part.batch_sizes, *(_mapped(change, each) for each in part[2:]))
    if isinstance(part, Mapping):
        return {key: _mapped(change, each) for key, each in part.items()}
    if isinstance(part, (tuple, list)):
        parts = [_mapped(change, each) for each in part]
        # A named tuple takes its fields one by one.
        return type(part)(*parts) if hasattr(part, "_fields") else type(part)(parts)
    return part
