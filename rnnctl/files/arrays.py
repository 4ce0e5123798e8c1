"""Sequences from files: .npy, .npz, .pt, .safetensors, .csv, standard input, bundled names."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rnnctl.data import TIME_COLUMNS, bundled_csv
from rnnctl.errors import DtypeError, InputError, ShapeError, did_you_mean
from rnnctl.files.containers import load_numpy, load_pt, load_safetensors, picked, require_no_key, require_plain
from rnnctl.files.reading import parsing, read_bytes, read_stdin
from rnnctl.files.table import parse_csv

FORMATS = ("npy", "npz", "pt", "safetensors", "csv")


@dataclass(frozen=True)
class Sequences:
    """Sequences as they were found.

    Attributes:
        values: shape (batch, time, feature), the file's own dtype; token numbers (batch, time).
        features: the name of every feature, from a CSV header or "feature 0", ...
        source: where they came from, for messages.
        lengths: real steps of every sequence, (batch,), where the rest was padded with nan (now 0); or None.
    """

    values: NDArray[Any]
    features: tuple[str, ...]
    source: str
    lengths: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class _Found:
    """Bytes, what format they should have, and a name for messages."""

    data: bytes
    kind: str
    name: str


def read_sequences(
    source: str,
    *,
    input_format: str | None = None,
    key: str | None = None,
    columns: Sequence[str] = (),
    ragged: bool = False,
    tokens: bool = False,
) -> Sequences:
    """Sequences from a file, a bundled name, or "-" for standard input.

    Args:
        source: a path, a name of ``rnnctl.data.TIME_COLUMNS``, or "-".
        input_format: one of FORMATS, where the suffix does not tell.
        key: which array of a .npz, .pt or .safetensors file with several.
        columns: which columns of a CSV file, by header name; all by default, of a bundled
            sequence all but its time columns.
        ragged: whether steps that are nan to the last may stand after the end of a sequence.
        tokens: whether whole numbers (batch, time) are taken as they are, for a model that embeds them.
    Returns:
        (batch, time, feature); a (time, feature) array is one sequence, a (time,) one of one feature.
    Raises:
        InputError: no such file, unknown format, key or column, something that is no number,
            a value that is not finite.
        DtypeError: integers, which are more often class numbers than values.
        ShapeError: not one to three axes, or an empty one.
    """
    found = _found(source, input_format)
    if columns and found.kind != "csv":
        raise InputError(f"--columns selects by the header of a .csv file; {found.name} is {found.kind}")
    header: tuple[str, ...] = ()
    if found.kind == "csv":
        require_no_key(key, found.name)
        array, header = parse_csv(found.data, found.name, columns, TIME_COLUMNS.get(source, ()))
    else:
        array = _array(found, key, "pick one with --input-key")
        if tokens and array.dtype.kind in "iu" and array.ndim in (1, 2) and array.size:
            return Sequences(np.atleast_2d(array.astype(np.int64)), ("token",), found.name)
        _require_floating(array, found.name)
    values = _batch_time_feature(array, found.name)
    sequences = Sequences(values, header or tuple(f"feature {i}" for i in range(values.shape[2])), found.name)
    sequences = _without_padding(sequences) if ragged else sequences
    _require_finite(sequences, "" if ragged else _hint_of_padding(sequences.values))
    return sequences


def read_target(source: str) -> NDArray[Any]:
    """An array of targets as it stands in the file, with no axis added.

    Raises:
        InputError: no such file, or something in it that is no finite number.
    """
    if source == "-":
        raise InputError("--target must be dummy, next or a file; standard input is for --input")
    if not os.path.exists(source) and "." not in source:
        near = did_you_mean(source, ("dummy", "next"))
        raise InputError(f"--target must be dummy, next or a file; there is no file {source!r}.{near}")
    found = _found(source, None)
    if found.kind == "csv":
        array: NDArray[Any] = parse_csv(found.data, found.name, (), ())[0]
    else:
        array = _array(found, None, "save the target in a file of its own")
    if array.size == 0:
        raise ShapeError(f"{source} has shape {array.shape}; an empty target has no loss")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = tuple(int(i) for i in bad[0])
        raise InputError(f"{source} must hold finite numbers; the first that is none is {array[place]} at {place}")
    return array


def read_lengths(path: Path, batch: int, seq_len: int) -> NDArray[np.int64]:
    """Real steps of every sequence, shape (batch,), from any file that ``read_target`` reads.

    Raises:
        InputError, ShapeError: not one whole number from 1 to ``seq_len`` for each of ``batch`` sequences.
    """
    array = read_target(str(path)).astype(np.float64)
    flat = array.reshape(-1)
    if flat.shape != (batch,):
        raise ShapeError(f"{path} must hold one length for each of {batch} sequences; got shape {array.shape}")
    if (flat != np.trunc(flat)).any() or flat.min() < 1 or flat.max() > seq_len:
        raise InputError(
            f"{path} must hold whole numbers from 1 to the {seq_len} steps of the input; got {flat.tolist()}"
        )
    return flat.astype(np.int64)


def _found(source: str, input_format: str | None) -> _Found:
    if source in TIME_COLUMNS and not os.path.exists(source):
        if input_format not in (None, "csv"):
            raise InputError(f"{source} is bundled and is csv; got --input-format {input_format}. Leave it out")
        return _Found(bundled_csv(source), "csv", source)
    if source == "-":
        if input_format is None:
            raise InputError(f"standard input has no suffix: add --input-format {'|'.join(FORMATS)}")
        return _Found(read_stdin(), input_format, "standard input")
    if not os.path.exists(source):
        bundled = "" if "." in source else f", and the bundled sequences are {', '.join(TIME_COLUMNS)}"
        raise InputError(f"there is no file {source!r}{bundled}.{did_you_mean(source, TIME_COLUMNS)}")
    suffix = Path(source).suffix.lower().removeprefix(".")
    kind = input_format or {"pth": "pt"}.get(suffix, suffix)
    if kind not in FORMATS and not os.path.isdir(source):
        raise InputError(
            f"{source!r} has the suffix {suffix!r}; readable are {', '.join(FORMATS)}. Say which with --input-format"
        )
    return _Found(read_bytes(Path(source)), kind, source)


def _array(found: _Found, key: str | None, advice: str) -> NDArray[Any]:
    """The array of a binary file, real numbers in a dtype that torch has as well."""
    if found.kind in ("npy", "npz"):
        array = load_numpy(found.data, found.name, found.kind, key, advice)
    else:
        array = _to_numpy(_tensor(found, key, advice), found)
    if array.dtype.kind not in "fiub":
        raise DtypeError(f"{found.name} must hold real numbers; got dtype {array.dtype}")
    wider_than_torch = array.dtype.kind == "f" and array.dtype.itemsize > 8
    return array.astype(np.float64 if wider_than_torch else array.dtype.newbyteorder("="), copy=False)


def _tensor(found: _Found, key: str | None, advice: str) -> Tensor:
    data, name = found.data, found.name
    loaded = load_pt(data, name) if found.kind == "pt" else load_safetensors(data, name)
    if isinstance(loaded, Tensor):
        require_no_key(key, name)
        return loaded
    if isinstance(loaded, Mapping) and all(isinstance(value, Tensor) for value in loaded.values()):
        named: dict[str, Tensor] = {str(own): value for own, value in loaded.items()}
        return named[picked(named, key, name, advice)]
    raise InputError(f"{name} must hold a tensor or named tensors; got {type(loaded).__name__}")


def _to_numpy(tensor: Tensor, found: _Found) -> NDArray[Any]:
    require_plain(tensor, found.name)
    # bfloat16 and the 8-bit formats are unknown to numpy; float32 holds them exactly.
    narrow = tensor.is_floating_point() and str(tensor.dtype) not in ("torch.float16", "torch.float64")
    with parsing(found.name, found.kind):
        array: NDArray[Any] = (tensor.float() if narrow else tensor).detach().resolve_conj().resolve_neg().numpy()
        return array


def _require_floating(array: NDArray[Any], name: str) -> None:
    if array.dtype.kind != "f":
        raise DtypeError(f"{name} must hold floating-point numbers; got {array.dtype}. Save array.astype('float32')")


def _batch_time_feature(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.ndim not in (2, 3):
        hint = ". For one feature, reshape it to (time, 1)" if array.ndim == 1 else ""
        raise ShapeError(
            f"{name} must be (batch, time, input), or (time, input) for one sequence; got shape {array.shape}{hint}"
        )
    if 0 in array.shape:
        raise ShapeError(f"{name} has shape {array.shape}; an empty batch or sequence has no gradient")
    return array[None] if array.ndim == 2 else array


def _without_padding(found: Sequences) -> Sequences:
    """Zeros, and lengths, in place of the steps at the end of a sequence that are nan in every feature."""
    real = ~np.isnan(found.values).all(axis=2)
    seq_len = real.shape[1]
    lengths = np.where(real.any(axis=1), seq_len - real[:, ::-1].argmax(axis=1), 0)
    if (lengths == seq_len).all():
        return found
    if (lengths == 0).any():
        raise InputError(f"{found.source}: sequence {int(lengths.argmin())} is nan at every step; leave it out")
    padding = np.arange(seq_len) >= lengths[:, None]
    return replace(found, values=np.where(padding[..., None], 0.0, found.values), lengths=lengths)


def _hint_of_padding(values: NDArray[Any]) -> str:
    """What to say where a sequence ends in nan, as padding does."""
    if not np.isnan(values[:, -1]).all(axis=1).any():
        return ""
    return ". Sequences padded with nan are taken by gradnorm and forward"


def _require_finite(found: Sequences, hint: str) -> None:
    bad = np.argwhere(~np.isfinite(found.values))
    if len(bad):
        sequence, step, feature = bad[0]
        count = "1 value that is" if len(bad) == 1 else f"{len(bad)} values that are"
        raise InputError(
            f"{found.source} holds {count} not finite; the first is "
            f"{found.values[tuple(bad[0])]} in sequence {sequence}, step {step}, {found.features[feature]}{hint}"
        )
