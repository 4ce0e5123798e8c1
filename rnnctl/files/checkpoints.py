"""Tensors by name from whatever a training run has saved, and into a module."""

from collections import Counter
from collections.abc import Collection, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rnnctl.errors import InputError
from rnnctl.files.containers import load_pt, load_safetensors, require_dense
from rnnctl.files.fit import expected_by, load
from rnnctl.files.reading import read_bytes
from rnnctl.files.storage import require_held

# Where trainers put the state dict of the model, in the order in which it is looked for.
NESTED = ("state_dict", "model_state_dict", "model")
# What torch saves under a module's name for its get_extra_state: anything, and no weight.
EXTRA_STATE = "_extra_state"
LONGEST_TEXT = 40


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file, under the names they have there.

    Attributes:
        tensors: name -> tensor.
        notes: which part of the file they are, where that is not the whole.
        other: what else there is, by its key and in words: "epoch" -> "int 12", "optimizer" -> "dict of 2".
    """

    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...]
    other: Mapping[str, str]


def read_checkpoint(path: Path) -> Checkpoint:
    """The named tensors of a ``.pt``/``.pth`` (weights_only) or ``.safetensors`` file.

    Args:
        path: a plain state dict, or a training checkpoint that holds one beside other things: as its
            "state_dict", "model_state_dict" or "model", or as the only mapping of names to tensors in it.
    Raises:
        InputError: unreadable, or nothing in it is a state dict (what it holds is listed), or a
            tensor claims more elements than the file holds for it.
        DtypeError: a tensor that is sparse, quantized, nested or without values.
    """
    name, loaded = str(path), _loaded(path)
    if not isinstance(loaded, Mapping):
        raise InputError(f"{name} must hold a state dict (name -> tensor); got {type(loaded).__name__}")
    nested = _nested(loaded)
    key = _chosen(loaded, nested, name)
    taken: Mapping[Any, Any] = loaded if key is None else loaded[key]
    tensors: dict[str, Tensor] = {own: value for own, value in taken.items() if isinstance(value, Tensor)}
    for own, tensor in tensors.items():
        require_dense(tensor, f"{name}: {own}")
        require_held(tensor, f"{name}: {own}")
    beside = [] if key is None else [(own, value) for own, value in loaded.items() if own != key]
    extra = [(own, value) for own, value in taken.items() if own not in tensors]
    other = {str(own): _in_words(value) for own, value in (*beside, *extra)}
    return Checkpoint(tensors, () if key is None else (_which(name, key, nested),), other)


def without_common_prefix(tensors: Mapping[str, Tensor], known: Collection[str]) -> tuple[str, dict[str, Tensor]]:
    """The prefix ("module.", "_orig_mod.", "model.") without which the most names are known.

    Args:
        tensors: name -> tensor of any shape; they are not looked at.
        known: the names that are wanted, such as the keys of a model's own state dict.
    Returns:
        The prefix, "" where none helps, and the tensors without it; a name that does not begin with it stays.
    """
    found = Counter(prefix for name in tensors for prefix in _prefixes(name, known))
    best_first = sorted(found, key=lambda prefix: (-found[prefix], len(prefix)))
    # Without some prefixes, two tensors would have one name.
    safe = (p for p in best_first if len({name.removeprefix(p) for name in tensors}) == len(tensors))
    prefix = next(safe, "")
    return prefix, {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def load_into(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Load a checkpoint into a module of the same names and shapes, all of it or nothing.

    Args:
        model: any module; unchanged where the file is refused. Its dtypes and devices stay.
        path: as for ``read_checkpoint``; a prefix that all names of the model have there is removed.
    Returns:
        Notes for the user: what was taken, without which prefix, what was rounded.
    Raises:
        InputError: unreadable; names missing or unexpected (with the nearest), values that are not finite here
            or in the model's dtype: all of them, one a line.
        ShapeError, DtypeError: where nothing but shapes, or kinds of numbers, is wrong.
    """
    found = read_checkpoint(path)
    prefix, tensors = without_common_prefix(found.tensors, expected_by(model))
    return (*found.notes, *without_prefix_note(path, prefix), *load(model, tensors, str(path)))


def without_prefix_note(path: Path, prefix: str) -> tuple[str, ...]:
    """What to say of a prefix that was taken off; nothing where there was none."""
    return (f"{path}: taken without the prefix {prefix!r}",) if prefix else ()


def _loaded(path: Path) -> Any:
    data, name, suffix = read_bytes(path), str(path), path.suffix.lower()
    if suffix == ".safetensors":
        return load_safetensors(data, name)
    if suffix not in (".pt", ".pth"):
        raise InputError(f"{name!r} must be a .pt state dict or a .safetensors file; got the suffix {path.suffix!r}")
    return load_pt(data, name)


def _nested(loaded: Mapping[Any, Any]) -> list[str]:
    """The keys of state dicts within a checkpoint, those of ``NESTED`` first."""
    inner = {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, Mapping)}
    keys = [key for key, value in inner.items() if value and _is_state_dict(value)]
    return sorted(keys, key=lambda key: NESTED.index(key) if key in NESTED else len(NESTED))


def _is_state_dict(mapping: Mapping[Any, Any]) -> bool:
    return all(
        isinstance(key, str) and (isinstance(value, Tensor) or key.endswith(EXTRA_STATE))
        for key, value in mapping.items()
    )


def _chosen(loaded: Mapping[Any, Any], nested: list[str], name: str) -> str | None:
    """The key of the state dict to take; None for the whole."""
    if _is_state_dict(loaded):
        return None
    if nested and (nested[0] in NESTED or len(nested) == 1):
        return nested[0]
    lines = [f"{name} must hold a state dict (name -> tensor), or a single one within. It holds"]
    lines += [f"  {key}: {_in_words(value)}" for key, value in loaded.items()]
    lines.append(f"Save one of {', '.join(nested)} alone" if nested else f"Looked for within: {', '.join(NESTED)}")
    raise InputError("\n".join(lines))


def _which(name: str, key: str, nested: list[str]) -> str:
    rest = ", ".join(repr(other) for other in nested if other != key)
    return f"{name}: taken from its {key!r}" + (f", not from {rest}" if rest else "")


def _in_words(value: Any) -> str:
    """A value of a checkpoint by its type and its size, or by itself where that is short."""
    if value is None:
        return "None"
    kind = type(value).__name__
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    if isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= LONGEST_TEXT):
        return f"{kind} {value}"
    return f"{kind} of {len(value):,}" if isinstance(value, Sized) else kind


def _prefixes(name: str, known: Collection[str]) -> list[str]:
    """What stands in front of a known name at the end of this one."""
    starts = [0, *(i + 1 for i, letter in enumerate(name) if letter == ".")]
    return [name[:start] for start in starts if name[start:] in known]
