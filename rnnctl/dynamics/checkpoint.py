"""What a checkpoint holds, without the code of its model: every tensor, and how strong each W_hh is."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from rnnctl.errors import InputError, plain
from rnnctl.files.checkpoints import read_checkpoint
from rnnctl.files.names import OWN_PARAMETER, TORCH_PARAMETER, first_of
from rnnctl.files.parametrized import composed
from rnnctl.memory import require_memory
from rnnctl.recurrence.cell_kind import CellKind
from rnnctl.recurrence.finite import has_values, nonfinite_count
from rnnctl.recurrence.kinds import KINDS
from rnnctl.recurrence.matrix import spectral_norm, spectral_radius_and_error
from rnnctl.results import Kind, Result, numbers
from rnnctl.view.shown import Shown

ELMAN = "elman (rnnctl)"
# Of the recurrent matrices' numbers the largest, by name.
LARGEST = ("largest_spectral_radius", "largest_spectral_radius_error", "largest_spectral_norm")
# Rows of weight_hh over hidden units -> the kind of cell that has no marker to be told by.
BY_BLOCKS = {kind.blocks: kind for kind in KINDS.values() if kind.marker is None}


@dataclass(frozen=True, eq=False)
class CheckpointContents(Shown, Result):
    """The tensors of a checkpoint, and its recurrent matrices.

    Attributes:
        rows: one record per tensor, or weight composed of several: name, shape, dtype, elements, nonfinite (how many
            of them), recurrent (whether it is a W_hh), cell ("rnn", "gru", "lstm", "elman (rnnctl)" or None: told by
            the names and shapes), layer and direction (None where the name has none).
        recurrent: one record per W_hh, per gate where it has gates: name, gate ("r", "z", "n" or "i",
            "f", "g", "o"; "" without gates), shape, spectral_radius and spectral_radius_error (None where it is not
            square), spectral_norm; all None where a value is not finite.
        unknown: weights that the file holds in parts which do not tell them: name, recurrent (whether it is a W_hh),
            why.
        other: what the file holds beside the tensors: name, holds.
        stored_bytes: of all tensors that are listed.
        notes: which part of the file was taken, and which weights were composed or cannot be, to be told to the user.
    """

    schema: ClassVar[str] = "weights"
    kinds: ClassVar[Mapping[str, Kind]] = numbers(*("tensors", "elements", "bytes", "nonfinite", "recurrent"), *LARGEST)
    words: ClassVar[tuple[str, ...]] = ("nonfinite",)

    rows: tuple[Mapping[str, Any], ...]
    recurrent: tuple[Mapping[str, Any], ...]
    unknown: tuple[Mapping[str, Any], ...]
    other: tuple[Mapping[str, Any], ...]
    stored_bytes: int

    @cached_property
    def scalars(self) -> Mapping[str, Any]:
        """Name -> number; the largest radius and norm are None where no matrix has one, or one W_hh is not known."""
        known = () if self._unknown_W_hh else self.recurrent
        return MappingProxyType(
            {
                "tensors": len(self.rows),
                "elements": sum(row["elements"] for row in self.rows),
                "bytes": self.stored_bytes,
                "nonfinite": sum(row["nonfinite"] for row in self.rows),
                "recurrent": sum(row["recurrent"] for row in self.rows),
                "largest_spectral_radius": _largest(known, "spectral_radius"),
                "largest_spectral_radius_error": _largest_radius_error(known),
                "largest_spectral_norm": _largest(known, "spectral_norm"),
            }
        )

    @property
    def more(self) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
        """Further records by name: ``recurrent``, ``unknown`` and ``other``."""
        return {"recurrent": self.recurrent, "unknown": self.unknown, "other": self.other}

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None."""
        none = "no matrix has one" if self.scalars["recurrent"] else "no recurrent matrix is known by its name"
        unsound = [row["name"] for row in self.rows if row["recurrent"] and row["nonfinite"]]
        if unsound:
            none = f"not finite: {first_of(unsound)}"
        if self._unknown_W_hh:
            none = f"{first_of(self._unknown_W_hh)} cannot be told from the file"
        return dict.fromkeys(LARGEST, none)

    @property
    def conditions(self) -> Mapping[str, bool | None]:
        """Whether "nonfinite" holds: some value is nan or infinite."""
        return {"nonfinite": self.scalars["nonfinite"] > 0}

    @property
    def _unknown_W_hh(self) -> list[str]:
        return [record["name"] for record in self.unknown if record["recurrent"]]


def checkpoint_contents(path: str | Path, *, progress: Callable[[float], None] | None = None) -> CheckpointContents:
    """What a checkpoint of torch or a safetensors file holds, by its content, without the code of its model.

    Args:
        path: a state dict, or a training checkpoint with one in it.
        progress: called with the fraction of the matrices that are done.
    Returns:
        A frozen ``CheckpointContents``.
    Raises:
        InputError: unreadable, no state dict, no tensor in it, a tensor larger than its storage.
    """
    found = read_checkpoint(Path(path))
    return contents(found.tensors, str(path), other=found.other, notes=found.notes, progress=progress)


def contents(
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    other: Mapping[str, str] = MappingProxyType({}),
    notes: tuple[str, ...] = (),
    progress: Callable[[float], None] | None = None,
) -> CheckpointContents:
    """What named tensors are, and the spectral radius and norm of every W_hh among them.

    A weight that torch's parametrizations keep in parts is listed in their place, as far as they tell it.

    Args:
        tensors: name -> tensor, of any shape and dtype.
        source: where they came from, for messages.
        other: what came with them, in words.
        notes: to be told to the user.
        progress: called with the fraction of the matrices that are done.
    Raises:
        InputError: no tensor at all; TooLargeError: a matrix too large for its eigenvalues.
    """
    if not tensors:
        raise InputError(f"{source} holds no tensor; there is nothing to list")
    found = composed(tensors)
    rows = _rows(found.tensors)
    blocks = [block for row in rows if row["recurrent"] for block in _blocks(row, found.tensors[row["name"]])]
    return CheckpointContents(
        rows=rows,
        recurrent=_measured(blocks, source, progress),
        unknown=tuple(
            {"name": weight, "recurrent": _is_W_hh(weight), "why": why} for weight, why in found.unknown.items()
        ),
        other=tuple({"name": name, "holds": words} for name, words in other.items()),
        stored_bytes=sum(tensor.numel() * tensor.element_size() for tensor in found.tensors.values()),
        notes=(*notes, *found.notes(source), *(f"{source}: {why}" for why in found.unknown.values())),
    )


@dataclass(frozen=True)
class _Layer:
    """One layer in one direction: what the names of its tensors have in common.

    ``marked`` is the kind of cell that a marker beside them names.
    """

    owner: str
    layer: int | None = None
    direction: str | None = None
    own: bool = False
    marked: CellKind | None = None


@dataclass(frozen=True)
class _Block:
    """The part of a W_hh that makes one gate."""

    name: str
    gate: str
    values: Tensor


def _rows(tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Any], ...]:
    marked, found = _marked(tensors), {name: _place(name) for name in tensors}
    places = {n: (replace(p[0], marked=marked.get(p[0].owner)), p[1]) for n, p in found.items() if p is not None}
    layers: dict[_Layer, dict[str, Tensor]] = {}
    for name, (layer, role) in places.items():
        layers.setdefault(layer, {})[role] = tensors[name]
    return tuple(_row(name, tensor, places.get(name), layers) for name, tensor in tensors.items())


def _marked(names: Iterable[str]) -> Mapping[str, CellKind]:
    """The modules that keep a marker of their kind beside their weights, by the beginning of their tensors' names."""
    markers = {kind.marker: kind for kind in KINDS.values() if kind.marker is not None}
    split = (name.rpartition(".") for name in names)
    return {owner + dot: markers[last] for owner, dot, last in split if last in markers}


def _row(
    name: str, tensor: Tensor, place: tuple[_Layer, str] | None, layers: Mapping[_Layer, Mapping[str, Tensor]]
) -> Mapping[str, Any]:
    layer, role = (None, "") if place is None else place
    return {
        "name": name,
        "shape": tuple(tensor.shape),
        "dtype": plain(tensor.dtype),
        "elements": tensor.numel(),
        "nonfinite": nonfinite_count(tensor),
        "recurrent": _is_W_hh(name) and _is_matrix(tensor),
        "cell": None if layer is None else _cell(layer, layers[layer]),
        "layer": None if layer is None else layer.layer,
        "direction": None if layer is None else layer.direction,
    }


def _place(name: str) -> tuple[_Layer, str] | None:
    """The layer that a tensor of this name belongs to, and its role there as nn.RNN calls it; None for others."""
    if (found := TORCH_PARAMETER.fullmatch(name)) is not None:
        owner, kind, part, layer, reverse = found.groups()
        direction = None if layer is None else "reverse" if reverse else "forward"
        return _Layer(owner or "", None if layer is None else int(layer), direction), f"{kind}_{part}"
    if (found := OWN_PARAMETER.fullmatch(name)) is not None:
        owner, part, kind = found.groups()
        return _Layer(owner or "", own=True), kind + {"input_to_hidden": "_ih", "hidden_to_hidden": "_hh"}[part]
    return None


def _is_W_hh(name: str) -> bool:
    place = _place(name)
    return place is not None and place[1] == "weight_hh"


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.dim() == 2 and tensor.numel() > 0 and has_values(tensor)


def _cell(layer: _Layer, held: Mapping[str, Tensor]) -> str | None:
    """The cell whose shapes these are; None where they are no cell's."""
    W_hh, W_ih, W_hr = (held.get(role) for role in ("weight_hh", "weight_ih", "weight_hr"))
    if W_hh is None or not _is_matrix(W_hh) or (W_ih is not None and W_ih.shape[:1] != W_hh.shape[:1]):
        return None
    rows, fed_back = W_hh.shape
    if W_hr is not None:
        # A projection: h_t has fewer units than the gates.
        projected = (kind for kind in KINDS.values() if kind.projects and rows % kind.blocks == 0)
        return next((each.word for each in projected if tuple(W_hr.shape) == (fed_back, rows // each.blocks)), None)
    kind = layer.marked or BY_BLOCKS.get(rows // fed_back)
    if kind is not None and kind.blocks * fed_back != rows:
        kind = None
    if layer.own:
        return ELMAN if kind is not None and not kind.gates else None
    return None if kind is None else kind.word


def _blocks(row: Mapping[str, Any], W_hh: Tensor) -> list[_Block]:
    kinds = {kind.word: kind for kind in KINDS.values()}
    gates = (kinds[row["cell"]].letters if row["cell"] in kinds else ()) or ("",)
    return [_Block(row["name"], gate, part) for gate, part in zip(gates, W_hh.chunk(len(gates)), strict=True)]


def _measured(
    blocks: list[_Block], source: str, progress: Callable[[float], None] | None
) -> tuple[Mapping[str, Any], ...]:
    # Singular values and eigenvalues both take time with the cube of the size.
    work = [block.values.numel() ** 1.5 for block in blocks]
    total, done, records = sum(work), 0.0, []
    for block, share in zip(blocks, work, strict=True):
        require_memory(8 * 8 * block.values.numel(), f"the spectrum of {block.name} in {source}")
        norm = _finite(spectral_norm(block.values.detach().double()))
        if progress is not None:
            progress((done + share / 2) / total)
        radius, error = _radius(block.values)
        done += share
        if progress is not None:
            progress(done / total)
        of_matrix = {"spectral_radius": radius, "spectral_radius_error": error, "spectral_norm": norm}
        records.append({"name": block.name, "gate": block.gate, "shape": tuple(block.values.shape), **of_matrix})
    return tuple(records)


def _radius(block: Tensor) -> tuple[float | None, float | None]:
    """The spectral radius and its error; None both of what is not square or not finite."""
    radius, error = spectral_radius_and_error(block) if block.shape[0] == block.shape[1] else (math.nan, math.nan)
    return _finite(radius), _finite(error)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _largest_radius_error(records: tuple[Mapping[str, Any], ...]) -> float | None:
    """How far the largest true radius may be from the largest one shown; another matrix may have it."""
    known = [record for record in records if record["spectral_radius"] is not None]
    if not known:
        return None
    pairs = [(record["spectral_radius"], record["spectral_radius_error"]) for record in known]
    largest = max(radius for radius, _ in pairs)
    high, low = max(radius + error for radius, error in pairs), max(radius - error for radius, error in pairs)
    error: float = max(high - largest, largest - low)
    return error


def _largest(records: tuple[Mapping[str, Any], ...], name: str) -> float | None:
    return max((record[name] for record in records if record[name] is not None), default=None)
