"""What a model is called with, where one tensor is not enough."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from rnnctl.errors import InputError, ShapeError

# Whether a model takes (time, batch, ...), as of ``rnnctl.models.model_run.ModelRun``.
TimeFirst = bool | Literal["checked"] | None


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

    @property
    def axes(self) -> list[tuple[int, int]]:
        """(batch, time) of the sequences, and of others among the tensors that are of the same batch."""
        shapes = [_shape(each) for each in self._by_time]
        return [(shape[0], shape[1]) for shape in shapes if shape[0] == shapes[0][0]]

    @property
    def _by_time(self) -> list[Tensor | PackedSequence]:
        """The tensors that may be sequences, those first that are: numbers (batch, n) may be vectors as well."""
        found = (each for each in self.tensors if _may_be_sequences(each))
        return sorted(found, key=_has_time, reverse=True)

    def turned(self) -> "Inputs":
        """The same as (time, batch, ...) in place of (batch, time, ...): the sequences, and what else lies as they do.

        Raises:
            ShapeError: a further tensor whose axes may be others, such as states (layers, batch, ...).
        """
        return self._with_sequences(lambda part: part.transpose(0, 1))

    def time_major(self) -> "Inputs":
        """The same tensors of the same shapes, laid out in memory so that those ``turned`` are contiguous.

        Raises:
            ShapeError: as ``turned``.
        """
        return self._with_sequences(lambda part: part.transpose(0, 1).contiguous().transpose(0, 1))

    def _with_sequences(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """The same with something else for the sequences, and for what else lies as they do."""
        _ = self.shape  # Refused where there are none.
        first = self._by_time[0]
        batch, seq_len = _shape(first)[:2]
        others = [each for each in self.tensors if each is not first and isinstance(each, Tensor) and each.dim() > 1]
        # By identity: a packed sequence has an order of its own, and so have its data.
        chosen = {id(first), *(id(each) for each in others if _lies_alike(each, batch, seq_len, self.name))}

        def changed(part: Tensor) -> Tensor:
            return change(part) if id(part) in chosen else part

        return replace(self, args=_mapped(changed, self.args), kwargs=_mapped(changed, self.kwargs))

    def source_of(self, given: Tensor) -> Tensor | None:
        """The input that a tensor is, or is a view of; both of any shape."""
        tensors = (each.data if isinstance(each, PackedSequence) else each for each in self.tensors)
        return next((each for each in tensors if memory_of(each) == memory_of(given)), None)

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


def _has_time(part: Tensor | PackedSequence) -> bool:
    """Whether it has an axis of time for sure: vectors at every step, or token numbers."""
    if isinstance(part, PackedSequence) or part.dim() > 2:
        return True
    return part.dim() == 2 and not part.is_floating_point() and part.dtype != torch.bool


def _lies_alike(part: Tensor, batch: int, seq_len: int, name: str) -> bool:
    """Whether a further tensor is (batch, time, ...) as the sequences are, or refused where that cannot be told."""
    if part.shape[0] != batch:
        return False
    may_be_states = part.dim() == 3 and part.shape[1] == batch
    may_be_features = part.dim() == 2 and part.shape[1] == seq_len
    if part.is_floating_point() and (may_be_states or may_be_features):
        either = "(batch, time, ...) or (layers, batch, ...)" if may_be_states else "(batch, time) or (batch, features)"
        raise ShapeError(
            f"{name} holds a tensor of shape {tuple(part.shape)}, which may be {either}: whether its axes are to be "
            "exchanged cannot be told. Try another batch size, or other lengths"
        )
    return part.shape[1] == seq_len or _has_time(part)


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


def memory_of(tensor: Tensor) -> int:
    """Where the numbers of a tensor of any shape lie, which views of it share, while it lives."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        # A tensor of a kind that has no memory of its own: fake, sparse.
        return id(tensor)
