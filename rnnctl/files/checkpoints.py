"""Tensors by name from whatever a training run has saved, and into a module."""

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rnnctl.errors import InputError
from rnnctl.files.containers import is_broken_zip, kind_of, load_pt, load_safetensors, other_kind, require_dense
from rnnctl.files.fit import Expected, expected_by, load, without_extra
from rnnctl.files.names import MOST_TOLD, Matched, matched
from rnnctl.files.names import without_common_prefix as without_common_prefix
from rnnctl.files.parametrized import TWINS, Parts, composed, parts_by_weight
from rnnctl.files.reading import read_bytes
from rnnctl.files.storage import require_held

# Where trainers put the state dict of the model, in the order in which it is looked for.
NESTED = ("state_dict", "model_state_dict", "model")
# What torch saves under a module's name for its get_extra_state: anything, and no weight.
EXTRA_STATE = "_extra_state"
LONGEST_TEXT = 40
# What else a file may be by its content.
OTHER_KINDS = {
    "npy": "it holds one NumPy array (.npy)",
    "npz": "it holds NumPy arrays (.npz); safetensors.numpy.save_file(dict(numpy.load(FILE)), NEW) converts them",
    "csv": "it holds text",
}


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
    """The named tensors of what torch.save wrote (read with weights_only) or of safetensors, told by the content.

    Args:
        path: of any name; a plain state dict, or a training checkpoint that holds one beside other things: as its
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


def load_into(model: nn.Module, path: Path, *, strict: bool = False) -> tuple[str, ...]:
    """Load a checkpoint into a module of the same names and shapes, all of it or nothing.

    Args:
        model: any module; unchanged where the file is refused. Its dtypes and devices stay.
        path: as for ``read_checkpoint``; a prefix of all names and what wrappers put into them is taken off, and
            weights that the model has plain are composed of weight_norm's parts and their like.
        strict: refuse names that the model does not have; else they are left out.
    Returns:
        Notes for the user: what was taken, without which parts of the names, what was composed, left out, rounded.
    Raises:
        InputError: unreadable; names missing or unexpected (with the nearest), values that are not finite here
            or in the model's dtype: all of them, one a line. A weight that only one of the two has in parts;
            a model that takes nothing; several prefixes that fit alike.
        ShapeError, DtypeError: where nothing but shapes, or kinds of numbers, is wrong.
    """
    found, own, kind = read_checkpoint(path), expected_by(model), type(model).__name__
    if not own:
        raise InputError(f"{kind} has neither parameters nor buffers: there is nothing to load {path} into")
    stored, in_parts = parts_by_weight(found.tensors), parts_by_weight(own)
    fitting = matched([*found.tensors, *stored], [*own, *in_parts], _of_one_shape(found.tensors, own))
    made = composed(found.tensors, [weight for weight in stored if fitting.names[weight] in in_parts])
    names = {**fitting.names, **_in_the_other_form(stored, in_parts, fitting)}
    tensors = {names[name]: tensor for name, tensor in made.tensors.items()}
    _require_same_form(tensors, in_parts, f"{path} does not fit {kind}")
    if unknown := [why for weight, why in made.unknown.items() if names[weight] in own]:
        raise InputError("\n".join([f"{path} does not fit {kind}:", *(f"  {why}" for why in unknown)]))
    kept, left_out = (tensors, ()) if strict else without_extra(tensors, own, str(path), kind)
    if fitting.rivals and all(name in kept for name in own):
        places = " and under ".join(map(repr, fitting.rivals[:MOST_TOLD]))
        raise InputError(f"{path} holds what {kind} takes under {places}: which of them is not known. Save one alone")
    notes = (*found.notes, *fitting.notes(str(path)), *made.notes(str(path)), *left_out)
    return (*notes, *load(model, kept, str(path)))


def _of_one_shape(tensors: Mapping[str, Tensor], own: Mapping[str, Expected]) -> Callable[[str, str], bool]:
    """Whether a tensor of the file has the shape that the model has under a name: of two copies, the right one."""
    return lambda name, mine: name in tensors and mine in own and tuple(tensors[name].shape) == own[mine].shape


def _in_the_other_form(stored: Mapping[str, Parts], in_parts: Mapping[str, Parts], fitting: Matched) -> dict[str, str]:
    """Parts of weights in torch's older form and the model's parametrizations, or the other way round: name -> name."""
    names: dict[str, str] = {}
    for weight, parts in stored.items():
        own = in_parts.get(fitting.names[weight], {})
        for form in (*TWINS, *({new: old for old, new in twin.items()} for twin in TWINS)):
            if form.keys() == parts.keys() and set(form.values()) == own.keys():
                names |= {parts[kind]: own[other] for kind, other in form.items()}
    return names


def _require_same_form(tensors: Mapping[str, Tensor], in_parts: Mapping[str, Parts], what: str) -> None:
    """Raise InputError where a weight is plain in the file and in parts in the model."""
    for weight, parts in in_parts.items():
        if weight in tensors and tensors.keys().isdisjoint(parts.values()):
            raise InputError(
                f"{what}: the file has {weight} itself, and the model makes it of {', '.join(parts.values())}. "
                "Load the weights where the model is made, before they are parametrized; or leave that out"
            )


def _loaded(path: Path) -> Any:
    data, name = read_bytes(path), str(path)
    kind = kind_of(data)
    if kind == "safetensors":
        return load_safetensors(data, name)
    # What is wrong with a broken archive, torch says best.
    if kind == "pt" or (kind is None and is_broken_zip(data)):
        return load_pt(data, name)
    if not data:
        raise InputError(f"{name} is empty; expected what torch.save wrote, or safetensors")
    found = OTHER_KINDS.get(kind or "") or other_kind(data)
    raise InputError(
        f"{name} is not a readable .pt file, and is not a readable .safetensors file: {found}. "
        "Expected is a state dict or a checkpoint that torch.save wrote, or safetensors, whatever the name"
    )


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
