"""Tensors against the bytes that their file holds for them: a small file can claim a huge tensor."""

import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from rnnctl.errors import InputError
from rnnctl.memory import in_words

# What torch says of a tensor that reaches beyond its storage, or of a storage beyond its file, in either format.
_REFUSALS = ("not resizable", "wrong byte size", "does not match expected size", "out of bounds for storage")
_RECORD = re.compile(r"record size \((\d+) bytes\) does not match expected size \((\d+) bytes")


def require_held(tensor: Tensor, name: str) -> None:
    """Raise InputError where a dense tensor of any shape has more elements than its storage, as an expanded one has."""
    claimed, held = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if claimed > held:
        raise InputError(f"{_larger(name, tuple(tensor.shape), claimed, held)}. Save tensor.contiguous()")


def oversized_in_pt(data: bytes, refusal: str) -> str | None:
    """Which tensor is larger than its storage, if torch.load refused the file with these words for one that is."""
    record = _RECORD.search(refusal)
    if record is not None and int(record[1]) > int(record[2]):
        return None
    try:
        found = _beyond_storage(data) if record is None else _beyond_record(data, int(record[1]), int(record[2]))
    # Whatever breaks a second time has been refused once already; only the name is lost.
    except Exception:
        found = None
    if found is not None:
        return _larger(*found)
    return "a tensor in it is larger than its storage" if any(words in refusal for words in _REFUSALS) else None


def oversized_in_safetensors(data: bytes) -> str | None:
    """The first tensor whose header claims more than the file holds, if there is one."""
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        for name, entry in header.items():
            if name != "__metadata__" and (found := _beyond_file(entry, len(data) - start)) is not None:
                return _larger(name, tuple(entry["shape"]), *found)
    # No header at all: the parser's own words are better.
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _larger(name: str, shape: tuple[int, ...], claimed: int, held: int) -> str:
    return (
        f"{name} is larger than its storage: shape {shape} claims {claimed:,} bytes ({in_words(claimed)}); "
        f"the file holds {held:,} for it"
    )


def _beyond_storage(data: bytes) -> tuple[str, tuple[int, ...], int, int] | None:
    """The first tensor that reaches beyond its storage: name, shape, bytes claimed, bytes held."""
    kept: list[torch.UntypedStorage] = []
    held: dict[int, int] = {}

    def without_data(storage: Any, location: str) -> Any:
        # On the meta device a storage grows to what a tensor claims, at no cost.
        empty = torch.UntypedStorage(storage.nbytes(), device="meta")  # type: ignore[no-untyped-call]
        kept.append(empty)
        held[empty._cdata] = storage.nbytes()
        return empty

    loaded = torch.load(io.BytesIO(data), map_location=without_data, weights_only=True)
    for name, tensor in _tensors(loaded):
        claimed, there = tensor.untyped_storage().nbytes(), held[tensor.untyped_storage()._cdata]
        if claimed > there:
            return name, tuple(tensor.shape), claimed, there
    return None


def _beyond_record(data: bytes, held: int, claimed: int) -> tuple[str, tuple[int, ...], int, int] | None:
    """The first tensor whose storage claims so many bytes, found without reading any."""
    loaded = torch.load(io.BytesIO(data), map_location="meta", weights_only=True)
    named = ((name, tensor) for name, tensor in _tensors(loaded) if tensor.untyped_storage().nbytes() == claimed)
    return next(((name, tuple(tensor.shape), claimed, held) for name, tensor in named), None)


def _tensors(loaded: Any, name: str = "the tensor") -> Iterator[tuple[str, Tensor]]:
    if isinstance(loaded, Tensor):
        yield name, loaded
    elif isinstance(loaded, Mapping):
        for key, value in loaded.items():
            yield from _tensors(value, str(key) if name == "the tensor" else f"{name}: {key}")


def _beyond_file(entry: Mapping[str, Any], there: int) -> tuple[int, int] | None:
    """Bytes claimed and held, where the first are more."""
    begin, end = entry["data_offsets"]
    bits = int(found[0]) if (found := re.search(r"\d+", entry["dtype"])) else 8
    claimed, held = math.prod(entry["shape"]) * bits // 8, max(0, min(end, there) - begin)
    return (claimed, held) if claimed > held else None
