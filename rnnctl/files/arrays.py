"""Sequences from files: .npy, .npz, .pt, .safetensors, .csv, standard input, bundled names."""

import csv
import io
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnnctl.data import TIME_COLUMNS, bundled_csv
from rnnctl.errors import InputError, ShapeError
from rnnctl.files.reading import load_pt, load_safetensors, read_bytes
from rnnctl.nearest import did_you_mean

FORMATS = ("npy", "npz", "pt", "safetensors", "csv")


@dataclass(frozen=True)
class Sequences:
    """Sequences as they were found.

    Attributes:
        values: shape (batch, time, feature), the file's own dtype.
        features: the name of every feature, from a CSV header or "feature 0", ...
        source: where they came from, for messages.
    """

    values: NDArray[Any]
    features: tuple[str, ...]
    source: str


def read_sequences(
    source: str, *, input_format: str | None = None, key: str | None = None, columns: Sequence[str] = ()
) -> Sequences:
    """Sequences from a file, a bundled name, or "-" for standard input.

    Args:
        source: a path, a name of ``rnnctl.data.TIME_COLUMNS``, or "-".
        input_format: one of FORMATS, where the suffix does not tell.
        key: which array of a .npz, .pt or .safetensors file with several.
        columns: which columns of a CSV file, by header name; all by default, of a bundled
            sequence all but its time columns.
    Returns:
        (batch, time, feature); a (time, feature) array is one sequence, a (time,) one of one feature.
    Raises:
        InputError: no such file, unknown format, key or column, something that is no number,
            a value that is not finite.
        ShapeError: not two or three axes, or an empty one.
    """
    array, header, name = _read(source, input_format, key, columns)
    values = _batch_time_feature(array, name)
    features = header or tuple(f"feature {i}" for i in range(values.shape[2]))
    found = Sequences(values, features, name)
    _require_finite(found)
    return found


def read_target(source: str, *, input_format: str | None = None, key: str | None = None) -> NDArray[Any]:
    """An array of targets as it stands in the file, with no axis added."""
    array, _, name = _read(source, input_format, key, ())
    if array.size == 0 or not np.isfinite(array).all():
        raise InputError(f"{name} is empty or holds values that are not finite; targets must be numbers")
    return array


def _read(
    source: str, input_format: str | None, key: str | None, columns: Sequence[str]
) -> tuple[NDArray[Any], tuple[str, ...], str]:
    """The array, its column names if it has any, and a name for messages."""
    data, kind, name = _bytes_and_format(source, input_format)
    if columns and kind != "csv":
        raise InputError(f"--columns selects by the header of a .csv file; {name} is {kind}")
    if key is not None and kind in ("csv", "npy"):
        raise InputError(f"--input-key picks one of several named arrays; {name} is {kind} and holds one")
    if kind == "csv":
        array, header = _parse_csv(data, name, columns, TIME_COLUMNS.get(source, ()))
        return array, header, name
    array = _pick(_load(data, kind, name), key, name)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} must hold real numbers; got dtype {array.dtype}")
    return array, (), name


def _bytes_and_format(source: str, input_format: str | None) -> tuple[bytes, str, str]:
    if source in TIME_COLUMNS and not Path(source).exists():
        return bundled_csv(source), "csv", source
    if source == "-":
        if input_format is None:
            raise InputError(f"standard input has no suffix: add --input-format {'|'.join(FORMATS)}")
        return sys.stdin.buffer.read(), input_format, "standard input"
    suffix = Path(source).suffix.lower().removeprefix(".")
    kind = input_format or {"pth": "pt"}.get(suffix, suffix)
    if not Path(source).exists() and "." not in source:
        raise InputError(
            f"there is no file {source!r}, and the bundled sequences are {', '.join(TIME_COLUMNS)}."
            + did_you_mean(source, TIME_COLUMNS)
        )
    data = read_bytes(Path(source))
    if kind not in FORMATS:
        raise InputError(
            f"{source!r} has the suffix {suffix!r}; readable are {', '.join(FORMATS)}. Say which with --input-format"
        )
    return data, kind, source


def _load(data: bytes, kind: str, name: str) -> NDArray[Any] | Mapping[str, Any]:
    if kind in ("npy", "npz"):
        return _load_numpy(data, kind, name)
    loaded = load_pt(data, name) if kind == "pt" else load_safetensors(data, name)
    if isinstance(loaded, Tensor):
        return _to_numpy(loaded)
    if isinstance(loaded, Mapping) and all(isinstance(value, Tensor) for value in loaded.values()):
        return {str(key): _to_numpy(value) for key, value in loaded.items()}
    raise InputError(f"{name} must hold a tensor or named tensors; got {type(loaded).__name__}")


def _to_numpy(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _load_numpy(data: bytes, kind: str, name: str) -> NDArray[Any] | Mapping[str, Any]:
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{name} is not a readable .{kind} file of numbers: {error}") from None


def _pick(loaded: NDArray[Any] | Mapping[str, Any], key: str | None, name: str) -> NDArray[Any]:
    if isinstance(loaded, np.ndarray):
        if key is not None:
            raise InputError(f"--input-key {key!r}: {name} holds a single array without a name")
        return loaded
    known = ", ".join(loaded) or "nothing"
    if key is None and len(loaded) == 1:
        return np.asarray(next(iter(loaded.values())))
    if key is None:
        raise InputError(f"{name} holds {len(loaded)} arrays ({known}); pick one with --input-key")
    if key not in loaded:
        raise InputError(f"{name} has no array {key!r}; it holds {known}.{did_you_mean(key, loaded)}")
    return np.asarray(loaded[key])


def _parse_csv(
    data: bytes, name: str, columns: Sequence[str], skipped: Sequence[str]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    lines = [(n, row) for n, row in enumerate(csv.reader(io.StringIO(text)), start=1) if any(map(str.strip, row))]
    if not lines:
        raise InputError(f"{name} is empty; rows of a .csv file are time steps")
    header: list[str] = []
    if not all(_is_number(cell) for cell in lines[0][1]):
        header = [cell.strip() for cell in lines.pop(0)[1]]
    if not lines:
        raise InputError(f"{name} has a header and no rows; rows of a .csv file are time steps")
    width = len(header or lines[0][1])
    wanted = _column_numbers(header, columns, skipped, name, width)
    values = [_numbers(row, number, width, wanted, header, name) for number, row in lines]
    return np.array(values, dtype=np.float64), tuple(header[i] for i in wanted) if header else ()


def _column_numbers(
    header: list[str], columns: Sequence[str], skipped: Sequence[str], name: str, width: int
) -> list[int]:
    if not columns:
        return [i for i in range(width) if not header or header[i] not in skipped]
    if not header:
        raise InputError(f"--columns selects by header name, and {name} has no header")
    for column in columns:
        if column not in header:
            raise InputError(
                f"{name} has no column {column!r}; it has {', '.join(header)}.{did_you_mean(column, header)}"
            )
    return [header.index(column) for column in columns]


def _numbers(row: list[str], number: int, width: int, wanted: list[int], header: list[str], name: str) -> list[float]:
    if len(row) != width:
        raise InputError(f"{name}, line {number}: expected {width} columns; got {len(row)}")
    for i in wanted:
        if not _is_number(row[i]):
            column = header[i] if header else f"column {i + 1}"
            raise InputError(f"{name}, line {number}, {column}: expected a number; got {row[i]!r}")
    return [float(row[i]) for i in wanted]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _batch_time_feature(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise ShapeError(
            f"{name} must be (batch, time, input), or (time, input) for one sequence; got shape {array.shape}"
        )
    if 0 in array.shape:
        raise ShapeError(f"{name} has shape {array.shape}; an empty batch or sequence has no gradient")
    return array


def _require_finite(found: Sequences) -> None:
    bad = np.argwhere(~np.isfinite(found.values))
    if len(bad):
        sequence, step, feature = bad[0]
        raise InputError(
            f"{found.source} holds {len(bad)} values that are not finite; the first is "
            f"{found.values[tuple(bad[0])]} in sequence {sequence}, step {step}, {found.features[feature]}"
        )
