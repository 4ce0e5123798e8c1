"""The one check of weights: names, shapes, kinds of numbers and values against what takes them; and into a module."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnnctl.errors import DtypeError, InputError, ShapeError, did_you_mean, plain
from rnnctl.recurrence.finite import nonfinite_count


class Expected(NamedTuple):
    """What a tensor must be; without a dtype, any of floating-point numbers."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None = None


def expected_by(model: nn.Module) -> dict[str, Expected]:
    """Name -> what a module takes under it."""
    # Extra states are no tensors.
    state = {name: part for name, part in model.state_dict().items() if isinstance(part, Tensor)}
    return {name: Expected(tuple(part.shape), part.dtype) for name, part in state.items()}


def load(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> tuple[str, ...]:
    """Load tensors into a module of the same names and shapes, all of them or none.

    Args:
        model: any module; unchanged where the tensors are refused. Its dtypes and devices stay.
        tensors: name -> tensor, of the shape that the module has under the name.
        source: where they come from, for messages.
    Returns:
        Notes for the user: what was rounded.
    Raises:
        InputError, ShapeError, DtypeError: as ``require_fit``.
    """
    own = expected_by(model)
    require_fit(tensors, own, f"{source} does not fit {type(model).__name__}")
    # Not strict: that would ask for the extra states; all else is checked above.
    model.load_state_dict(dict(tensors), strict=False)
    return tuple(_roundings(tensors, own, source))


def require_fit(tensors: Mapping[str, Tensor], own: Mapping[str, Expected], what: str, *, places: bool = False) -> None:
    """Raise unless the tensors are those expected, and finite in the expected dtype; all that is wrong, one a line.

    Args:
        tensors: name -> tensor of any shape.
        own: name -> what is expected.
        what: the first line of the message.
        places: say as well where the first value is that is not finite.
    Raises:
        ShapeError, DtypeError: where nothing but shapes, or kinds of numbers, is wrong.
        InputError: else.
    """
    shared = [(name, tensors[name], own[name]) for name in own if name in tensors]
    shapes = [_wrong_shape(*each) for each in shared]
    values = [_wrong_values(*each, places) for each in shared]
    faults = [*_wrong_names(tensors, own), *(fault for fault in (*shapes, *values) if fault is not None)]
    if faults:
        kinds = {type(fault) for fault in faults}
        kind = kinds.pop() if len(kinds) == 1 else InputError
        raise kind("\n".join([f"{what}:", *(f"  {fault}" for fault in faults)]))


def names_apart(tensors: Mapping[str, object], own: Mapping[str, object]) -> tuple[list[str], list[str]]:
    """The names that are missing among the tensors, and those that nobody expects."""
    return [name for name in own if name not in tensors], [name for name in tensors if name not in own]


def _wrong_names(tensors: Mapping[str, Tensor], own: Mapping[str, Expected]) -> Iterator[InputError]:
    missing, unexpected = names_apart(tensors, own)
    for name in missing:
        yield InputError(f"missing: {name} {own[name].shape}")
    for name in unexpected:
        near = did_you_mean(name, missing or own)
        yield InputError(f"unexpected: {name} {tuple(tensors[name].shape)}.{near}")


def _wrong_shape(name: str, tensor: Tensor, own: Expected) -> ShapeError | None:
    if tuple(tensor.shape) == own.shape:
        return None
    return ShapeError(f"{name} must have shape {own.shape}; got {tuple(tensor.shape)}")


def _wrong_values(name: str, tensor: Tensor, own: Expected, places: bool) -> InputError | None:
    wanted = "floating-point" if own.dtype is None else _kind(own.dtype)
    if _kind(tensor.dtype) != wanted:
        exactly = "" if own.dtype is None else f", as {own.dtype}"
        return DtypeError(f"{name} must hold {wanted} numbers{exactly}; got {tensor.dtype}")
    if bad := nonfinite_count(tensor):
        where = _first_nonfinite(tensor) if places else ""
        return InputError(f"{name} must be finite; {bad:,} of its {tensor.numel():,} values are not{where}")
    # A value that is finite in a wide dtype may be infinite in a narrow one.
    if own.dtype is not None and not _holds(own.dtype, tensor.dtype) and (bad := nonfinite_count(tensor.to(own.dtype))):
        return InputError(f"{name} must fit into {own.dtype}; {bad:,} of its values in {tensor.dtype} are too large")
    return None


def _first_nonfinite(tensor: Tensor) -> str:
    # In float32, which the 8-bit formats fit into: some of them know no isfinite.
    wide = tensor.float() if tensor.dtype.itemsize == 1 else tensor
    place = tuple(int(i) for i in (~torch.isfinite(wide)).nonzero()[0])
    return f", the first {float(wide[place])} at {place}"


def _kind(dtype: torch.dtype) -> str:
    return "complex" if dtype.is_complex else "floating-point" if dtype.is_floating_point else "whole"


def _holds(wide: torch.dtype, narrow: torch.dtype) -> bool:
    """Whether the first one has every number of the second one."""
    if wide == narrow or _kind(wide) == "whole":
        return True
    one, other = torch.finfo(wide), torch.finfo(narrow)
    return one.eps <= other.eps and one.max >= other.max and one.tiny <= other.tiny


def _roundings(tensors: Mapping[str, Tensor], own: Mapping[str, Expected], source: str) -> Iterator[str]:
    pairs = ((tensor.dtype, own[name].dtype or tensor.dtype) for name, tensor in tensors.items())
    for pair, count in Counter(pair for pair in pairs if not _holds(pair[1], pair[0])).items():
        narrow, wide = (plain(dtype) for dtype in reversed(pair))
        yield f"{source}: {count} tensors in {wide} are rounded to {narrow}"
