"""Sequences from files, whose kind their content tells; from standard input; and by bundled names."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rnnctl.data import TIME_COLUMNS, bundled_csv
from rnnctl.errors import DtypeError, InputError, ShapeError
from rnnctl.files.containers import (
    kind_of,
    load_numpy,
    load_pt,
    load_safetensors,
    other_kind,
    picked,
    require_no_key,
    require_plain,
)
from rnnctl.files.cut import WHOLE, Cut
from rnnctl.files.dialect import FROM_THE_FILE, Dialect
from rnnctl.files.reading import parsing, read_bytes, read_stdin
from rnnctl.files.sources import FORMATS, is_bundled, require_file, require_source, require_target
from rnnctl.files.table import Table, parse_csv

SUFFIXES = {**{kind: kind for kind in FORMATS}, "pth": "pt"}


@dataclass(frozen=True)
class Sequences:
    """Sequences as they were found.

    Attributes:
        values: shape (batch, time, feature), the file's own dtype; token numbers (batch, time).
        features: the name of every feature, from a CSV header or "feature 0", ...
        source: where they came from, for messages.
        lengths: real steps of every sequence, (batch,), where the rest was padded with nan (now 0); or None.
        whole: steps that there were before any were cut off; None where none were.
        selectable: whether --columns chooses the features.
    """

    values: NDArray[Any]
    features: tuple[str, ...]
    source: str
    lengths: NDArray[np.int64] | None = None
    whole: int | None = None
    selectable: bool = False

    @property
    def steps_in_file(self) -> int:
        """How many steps the longest sequence had where it was found."""
        return self.values.shape[1] if self.whole is None else self.whole

    @property
    def left(self) -> str:
        """How many steps there are, for messages, and of how many they were cut."""
        return f"{self.values.shape[1]}" + ("" if self.whole is None else f" of its {self.whole} left")


@dataclass
class Reader:
    """How the files of one command are read, and what was decided of them.

    Attributes:
        dialect: what is said of text files.
        notes: what was decided, to be told to the user.
        text: whether one of them was text.
    """

    dialect: Dialect = FROM_THE_FILE
    notes: list[str] = field(default_factory=list)
    text: bool = False

    def require_heeded(self) -> None:
        """Raise InputError where something is said of text files and none was read."""
        if self.dialect != FROM_THE_FILE and not self.text:
            raise InputError(
                "--delimiter, --decimal and --header are about text files (CSV), and none is read here. Leave them out"
            )


@dataclass(frozen=True)
class _Found:
    """Bytes, of which format they are, and a name for messages; perhaps another format, by their suffix."""

    data: bytes
    kind: str
    name: str
    suffix: str | None = None


def read_sequences(
    source: str,
    *,
    input_format: str | None = None,
    key: str | None = None,
    columns: Sequence[str] = (),
    ragged: bool = False,
    tokens: bool = False,
    cut: Cut = WHOLE,
    reader: Reader | None = None,
) -> Sequences:
    """Sequences from a file, a bundled name, or "-" for standard input.

    Args:
        source: a path, a name of ``rnnctl.data.TIME_COLUMNS``, or "-".
        input_format: one of FORMATS; needed for standard input alone, a file tells by its content.
        key: which array of a .npz, .pt or .safetensors file with several.
        columns: which columns of a CSV file, by header name, or by number from 1 without a header; by default all
            but those that number, date or name the lines.
        ragged: whether steps that are nan to the last may stand after the end of a sequence.
        tokens: whether whole numbers (batch, time) are taken as they are, for a model that embeds them.
        cut: which steps are taken; what the others hold does not matter.
        reader: what is known of text files; it gathers what was decided.
    Returns:
        (batch, time, feature); a (time, feature) array is one sequence, a (time,) one of one feature.
    Raises:
        InputError: no such file, unknown format, key or column, something that is no number,
            a value that is not finite, something that a text file leaves open.
        DtypeError: integers, which are more often class numbers than values.
        ShapeError: not one to three axes, or an empty one.
    """
    reader = reader or Reader()
    found = _found(source, input_format, reader)
    if columns and found.kind != "csv":
        raise InputError(f"--columns selects by the header of a .csv file; {found.name} is {found.kind}")
    header: tuple[str, ...] = ()
    if found.kind == "csv":
        require_no_key(key, found.name)
        table = _table(found, reader, columns, TIME_COLUMNS.get(source, ()), selectable=True)
        array, header = table.values, table.names
    else:
        array = _array(found, key, "pick one with --input-key")
        if tokens and array.dtype.kind in "iu" and array.ndim in (1, 2) and array.size:
            return _cut(Sequences(np.atleast_2d(array.astype(np.int64)), ("token",), found.name), cut)
        _require_floating(array, found.name)
    values = _batch_time_feature(array, found.name)
    features = header or tuple(f"feature {i}" for i in range(values.shape[2]))
    sequences = Sequences(values, features, found.name, selectable=found.kind == "csv")
    sequences = _cut(_without_padding(sequences, reader) if ragged else sequences, cut)
    _require_finite(sequences, cut.skip, "" if ragged else _hint_of_padding(sequences.values))
    return sequences


def read_target(source: str, reader: Reader | None = None) -> NDArray[Any]:
    """An array of targets as it stands in the file, of any shape, with no axis added.

    Args:
        source: a path.
        reader: as for ``read_sequences``.
    Raises:
        InputError: no such file, or something in it that is no finite number.
    """
    require_target(source)
    return _finite_array(source, reader or Reader())


def _finite_array(source: str, reader: Reader) -> NDArray[Any]:
    found = _found(source, None, reader)
    if found.kind == "csv":
        array: NDArray[Any] = _table(found, reader, (), (), selectable=False).values
    else:
        array = _array(found, None, "save the target in a file of its own")
    if array.size == 0:
        raise ShapeError(f"{source} has shape {array.shape}; an empty target has no loss")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = tuple(int(i) for i in bad[0])
        raise InputError(f"{source} must hold finite numbers; the first that is none is {array[place]} at {place}")
    return array


def read_lengths(path: Path, batch: int, seq_len: int, reader: Reader | None = None) -> NDArray[np.int64]:
    """Real steps of every sequence, shape (batch,), from any file that ``read_target`` reads.

    Raises:
        InputError, ShapeError: not one whole number from 1 to ``seq_len`` for each of ``batch`` sequences.
    """
    require_file(path)
    array = _finite_array(str(path), reader or Reader()).astype(np.float64)
    flat = array.reshape(-1)
    if flat.shape != (batch,):
        raise ShapeError(
            f"--lengths {path} must hold one length for each of {batch} sequences; got shape {array.shape}"
        )
    if (flat != np.trunc(flat)).any() or flat.min() < 1 or flat.max() > seq_len:
        raise InputError(
            f"--lengths {path} must hold whole numbers from 1 to the {seq_len} steps of the input; got {flat.tolist()}"
        )
    return flat.astype(np.int64)


def _found(source: str, input_format: str | None, reader: Reader) -> _Found:
    require_source(source, input_format)
    if is_bundled(source):
        return _Found(bundled_csv(source), "csv", source)
    if source == "-":
        data = read_stdin()
        return _Found(data, _format(data, str(input_format), "standard input"), "standard input")
    data = read_bytes(Path(source))
    if input_format is not None:
        return _Found(data, _format(data, input_format, source), source)
    suffix = SUFFIXES.get(Path(source).suffix.lower().removeprefix("."))
    kind = kind_of(data) or suffix
    if kind is None:
        what = other_kind(data) if data else "it is empty"
        raise InputError(f"{source!r} is none of {', '.join(FORMATS)} by its content: {what}")
    if kind == "csv" and _is_json(data):
        raise InputError(f"{source!r} is JSON by its content; save the numbers as CSV, or by numpy.save")
    # Numpy's two are told apart where they are read.
    if suffix != kind and {suffix, kind} != {"npy", "npz"}:
        reader.notes.append(f"{source}: read as {kind}, which it is by its content")
    return _Found(data, kind, source, suffix)


def _is_json(data: bytes) -> bool:
    """Whether it is a JSON document of lists or mappings, or lines of such."""
    text = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    for part in (text, text.partition(b"\n")[0]) if text[:1] in (b"[", b"{") else ():
        try:
            return isinstance(json.loads(part), (list, dict))
        except (ValueError, RecursionError):
            continue
    return False


def _format(data: bytes, input_format: str, name: str) -> str:
    """The format that the user names; InputError where the content is that of another."""
    kind = kind_of(data)
    if kind not in (None, input_format) and {kind, input_format} != {"npy", "npz"}:
        raise InputError(
            f"{name} is not a readable .{input_format} file: it starts with {data[:8]!r}, and by its content it is "
            f"{kind}; got --input-format {input_format}"
        )
    return input_format


def _table(found: _Found, reader: Reader, columns: Sequence[str], skipped: Sequence[str], *, selectable: bool) -> Table:
    """The table of a text file; what was decided of it goes to the reader."""
    # Of a bundled file there is nothing to find out.
    bundled = bool(skipped)
    dialect = FROM_THE_FILE if bundled else reader.dialect
    try:
        table = parse_csv(found.data, found.name, columns, skipped, dialect=dialect, selectable=selectable)
    except InputError as error:
        if found.suffix in (None, "csv"):
            raise
        start = f"it starts with {found.data[:8]!r}"
        raise InputError(f"{found.name} is not a readable .{found.suffix} file: {start}. As text: {error}") from None
    reader.text = reader.text or not bundled
    reader.notes += table.notes
    return table


def _cut(found: Sequences, cut: Cut) -> Sequences:
    """The sequences without the steps that are not taken."""
    if cut == WHOLE:
        return found
    values = cut.values(found.values, found.source)
    lengths = None if found.lengths is None else cut.lengths(found.lengths, values.shape[1], found.source)
    if lengths is not None and (lengths == values.shape[1]).all():
        lengths = None
    return replace(found, values=values, lengths=lengths, whole=found.values.shape[1])


def _array(found: _Found, key: str | None, advice: str) -> NDArray[Any]:
    """The array of a binary file, real numbers in a dtype that torch has as well."""
    if found.kind in ("npy", "npz"):
        array = load_numpy(found.data, found.name, found.kind, key, advice)
    else:
        array = _to_numpy(_tensor(found, key, advice), found)
    if array.dtype.kind not in "fiub":
        raise DtypeError(f"{found.name} must hold real numbers; got dtype {array.dtype}")
    wider_than_torch = array.dtype.kind == "f" and array.dtype.itemsize > 8
    # What is beyond float64 becomes infinite, which is refused, or told, as any other.
    with np.errstate(over="ignore"):
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


def _without_padding(found: Sequences, reader: Reader) -> Sequences:
    """Zeros, and lengths, in place of the steps at the end of a sequence that are nan in every feature."""
    real = ~np.isnan(found.values).all(axis=2)
    seq_len = real.shape[1]
    lengths = np.where(real.any(axis=1), seq_len - real[:, ::-1].argmax(axis=1), 0)
    if (lengths == seq_len).all():
        return found
    if (lengths == 0).any():
        raise InputError(f"{found.source}: sequence {int(lengths.argmin())} is nan at every step; leave it out")
    padding = np.arange(seq_len) >= lengths[:, None]
    span = " to ".join(str(each) for each in dict.fromkeys((int(lengths.min()), int(lengths.max()))))
    reader.notes.append(
        f"{found.source}: nan to the last step is padding; the sequences have {span} steps of {seq_len}"
    )
    return replace(found, values=np.where(padding[..., None], 0.0, found.values), lengths=lengths)


def _hint_of_padding(values: NDArray[Any]) -> str:
    """What to say where a sequence ends in nan, as padding does."""
    if not np.isnan(values[:, -1]).all(axis=1).any():
        return ""
    return ". Sequences padded with nan are taken by gradnorm and forward"


def _require_finite(found: Sequences, skipped: int, hint: str) -> None:
    bad = np.argwhere(~np.isfinite(found.values))
    if len(bad):
        sequence, step, feature = bad[0]
        count = "1 value that is" if len(bad) == 1 else f"{len(bad)} values that are"
        place = f"sequence {sequence}, step {step + skipped}, {found.features[feature]}"
        raise InputError(
            f"{found.source} holds {count} not finite; the first is {found.values[tuple(bad[0])]} in {place}{hint}"
        )
