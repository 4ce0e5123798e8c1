"""The one check of weights: names, shapes, kinds of numbers and values against what takes them; and into a module."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rnnctl.errors import DtypeError, InputError, ShapeError, did_you_mean, nearest, plain
from rnnctl.files.names import MOST_TOLD, first_of
from rnnctl.recurrence.finite import nonfinite_count


class Expected(NamedTuple):
    """What a tensor must be; of any shape where there is none, without a dtype of any floating-point numbers."""

    shape: tuple[int, ...] | None
    dtype: torch.dtype | None = None


def expected_by(model: nn.Module) -> dict[str, Expected]:
    """Name -> what a module takes under it."""
    # Extra states are no tensors.
    state = {name: part for name, part in model.state_dict().items() if isinstance(part, Tensor)}
    return {name: Expected(_shape(part), part.dtype) for name, part in state.items()}


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


def without_extra(
    tensors: Mapping[str, Tensor], own: Mapping[str, object], source: str, taker: str
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """The tensors without those that nobody expects, and a note that lists them.

    Nothing is left out where a name is missing: under a mistyped one it may well be among the others, and the refusal
    is to list both.

    Args:
        tensors: name -> tensor of any shape.
        own: the names that are expected.
        source: where they come from, for the note.
        taker: what the note calls that which takes them.
    """
    missing, extra = names_apart(tensors, own)
    if missing or not extra:
        return tensors, ()
    told = first_of([f"{name} {tuple(tensors[name].shape)}" for name in extra])
    count = f"{len(extra):,} tensor{'s' if len(extra) > 1 else ''}"
    kept = {name: tensor for name, tensor in tensors.items() if name in own}
    return kept, (f"{source}: left out {count} that {taker} does not have: {told}",)


def told_of_extra(missing: Sequence[str], extra: Sequence[str]) -> list[str]:
    """The extra names to tell, of many the first ones, what comes nearest to the missing ones before all others."""
    near = {nearest(name, extra) for name in missing[:MOST_TOLD]} if len(extra) > MOST_TOLD else ()
    return sorted(extra, key=lambda name: name not in near)[:MOST_TOLD]


def _shape(part: Tensor) -> tuple[int, ...] | None:
    """The shape of a part of a module; None where a lazy module takes it from what it is given."""
    return None if is_lazy(part) else tuple(part.shape)


def _wrong_names(tensors: Mapping[str, Tensor], own: Mapping[str, Expected]) -> Iterator[InputError]:
    missing, unexpected = names_apart(tensors, own)
    for name in missing:
        shape = own[name].shape
        yield InputError(f"missing: {name}" + (f" {shape}" if shape is not None else ""))
    for name in told_of_extra(missing, unexpected):
        near = did_you_mean(name, missing or own)
        yield InputError(f"unexpected: {name} {tuple(tensors[name].shape)}.{near}")
    if len(unexpected) > MOST_TOLD:
        yield InputError(f"unexpected: {len(unexpected) - MOST_TOLD:,} more")


def _wrong_shape(name: str, tensor: Tensor, own: Expected) -> ShapeError | None:
    if own.shape is None or tuple(tensor.shape) == own.shape:
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
