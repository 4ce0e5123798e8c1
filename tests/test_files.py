"""What is read from files and what is written to them, by the library and by the command line."""

import csv
import io
import json
import math
import os
import pickle
import stat
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import rnnctl.data
from rnnctl.__main__ import main
from rnnctl.errors import DtypeError, InputError, RnnctlError, ShapeError, TooLargeError, did_you_mean
from rnnctl.files.arrays import Reader, read_sequences, read_target
from rnnctl.files.preparing import fitted_target, split_next, standardized
from rnnctl.files.weights import TORCH_NAMES, read_weights, write_weights
from rnnctl.files.writing import require_writable, write_whole
from rnnctl.memory import available_bytes, in_words, require_memory

VALUES = np.random.default_rng(0).normal(size=(3, 6, 2))
I, H, O = 3, 4, 2  # noqa: E741


class Malicious:
    """Makes a folder where it is unpickled without care."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


class Tagger(nn.Module):
    """nn.RNN and a readout under names that many models have."""

    def __init__(self, kind: type[nn.RNNBase] = nn.RNN, **settings: Any) -> None:
        super().__init__()
        self.rnn = kind(I, H, batch_first=True, **settings)
        self.fc = nn.Linear(H, O)


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def pt(value: Any, **settings: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **settings)
    return stream.getvalue()


def npy_header(shape: str, dtype: str = "<f8") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def own_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    rnn, fc = nn.RNN(I, H), nn.Linear(H, O)
    return {
        "rnn_cell.input_to_hidden.weight": rnn.weight_ih_l0.detach(),
        "rnn_cell.input_to_hidden.bias": rnn.bias_ih_l0.detach(),
        "rnn_cell.hidden_to_hidden.weight": rnn.weight_hh_l0.detach(),
        "rnn_cell.hidden_to_hidden.bias": rnn.bias_hh_l0.detach(),
        "hidden_to_output.weight": fc.weight.detach(),
        "hidden_to_output.bias": fc.bias.detach(),
    }


def torch_state(kind: type[nn.RNNBase] = nn.RNN, **settings: Any) -> dict[str, torch.Tensor]:
    return dict(kind(I, H, **settings).state_dict())


FORMATS = {
    "npy": npy(VALUES),
    "npz": npz(x=VALUES),
    "pt": pt(torch.tensor(VALUES)),
    "safetensors": safetensors.torch.save({"x": torch.tensor(VALUES)}),
}
ALL_FORMATS = {**FORMATS, "csv": b"a,b\n1,2\n3,4\n5,6\n"}


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, bytes | str], str]:
    """Write a file and give its path."""

    def write(name: str, data: bytes | str) -> str:
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return str(path)

    return write


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Make bytes standard input."""

    def feed(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return feed


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command: exit code, stdout, stderr."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


# Reading sequences


@pytest.mark.parametrize("kind", FORMATS)
def test_every_binary_format_gives_back_the_array_that_was_written(file, kind: str) -> None:
    found = read_sequences(file(f"x.{kind}", FORMATS[kind]))
    np.testing.assert_array_equal(found.values, VALUES)
    assert found.values.dtype == np.float64
    assert found.features == ("feature 0", "feature 1")


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_standard_input_reads_every_format(file, stdin, kind: str) -> None:
    stdin(ALL_FORMATS[kind])
    expected = read_sequences(file(f"x.{kind}", ALL_FORMATS[kind]))
    found = read_sequences("-", input_format=kind)
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.source == "standard input"


def test_standard_input_without_a_format_asks_for_one() -> None:
    with pytest.raises(InputError, match=r"add --input-format npy\|npz"):
        read_sequences("-")


def test_closed_standard_input_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        read_sequences("-", input_format="csv")


@pytest.mark.parametrize("kind", ["npz", "pt", "safetensors"])
def test_a_key_picks_one_of_several_arrays(file, kind: str) -> None:
    tensors = {"x": torch.tensor(VALUES), "speed": torch.tensor(-VALUES)}
    data = {"npz": npz(x=VALUES, speed=-VALUES), "pt": pt(tensors), "safetensors": safetensors.torch.save(tensors)}
    path = file(f"two.{kind}", data[kind])
    np.testing.assert_array_equal(read_sequences(path, key="speed").values, -VALUES)
    with pytest.raises(InputError, match=r"holds 2 arrays .*pick one with --input-key"):
        read_sequences(path)
    with pytest.raises(InputError, match=r"no array 'sped'; it holds .*Did you mean speed\?"):
        read_sequences(path, key="sped")


@pytest.mark.parametrize("kind", ["npy", "pt", "csv"])
def test_a_key_to_a_single_array_is_refused(file, kind: str) -> None:
    with pytest.raises(InputError, match="holds one without a name"):
        read_sequences(file(f"x.{kind}", ALL_FORMATS[kind]), key="x")


@pytest.mark.parametrize("name", ["x.ckpt", "x.bin", "x.pth.tar", "x.pth", "x.dat", "x"])
@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_a_file_is_known_by_its_content_whatever_it_is_called(file, kind: str, name: str) -> None:
    expected = read_sequences(file(f"own.{kind}", ALL_FORMATS[kind]))
    path, reader = file(name, ALL_FORMATS[kind]), Reader()
    np.testing.assert_array_equal(read_sequences(path, reader=reader).values, expected.values)
    np.testing.assert_array_equal(read_target(path), expected.values if kind != "csv" else expected.values[0])
    # What the suffix says already is not told.
    said = [] if (name, kind) == ("x.pth", "pt") else [f"{path}: read as {kind}, which it is by its content"]
    assert reader.notes == said


def test_a_file_of_no_known_kind_is_refused_with_its_beginning(file) -> None:
    with pytest.raises(InputError, match=r"none of npy, npz, .* by its content: it begins with b'\\x89PNG"):
        read_sequences(file("x.ckpt", b"\x89PNG\r\n\x1a\n"))
    with pytest.raises(InputError, match="by its content: it is empty"):
        read_sequences(file("x.ckpt", b""))


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_an_input_format_that_the_content_contradicts_is_refused_with_both(file, stdin, kind: str) -> None:
    for other, data in ALL_FORMATS.items():
        # The two formats of numpy are told apart by their bytes.
        if other != kind and {other, kind} != {"npy", "npz"}:
            words = rf"by its content it is {other}; got --input-format {kind}"
            with pytest.raises(InputError, match=rf"x\.dat .*{words}"):
                read_sequences(file("x.dat", data), input_format=kind)
            stdin(data)
            with pytest.raises(InputError, match=f"standard input .*{words}"):
                read_sequences("-", input_format=kind)
    assert read_sequences(file("x.dat", ALL_FORMATS[kind]), input_format=kind).values.ndim == 3


def test_what_is_decided_of_standard_input_is_told(stdin) -> None:
    stdin(b",a\r\n0,1.5\r\n1,2.5\r\n")
    reader = Reader()
    np.testing.assert_array_equal(read_sequences("-", input_format="csv", reader=reader).values, [[[1.5], [2.5]]])
    assert [note.split(": ")[:2] for note in reader.notes] == [["standard input", "column 1 is left out"]]


@pytest.mark.parametrize("suffix", ["PT", "pth"])
def test_other_spellings_of_the_suffix_are_known(file, suffix: str) -> None:
    np.testing.assert_array_equal(read_sequences(file(f"x.{suffix}", FORMATS["pt"])).values, VALUES)


def test_older_torch_files_are_read(file) -> None:
    data = pt(torch.tensor(VALUES), _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(read_sequences(file("old.pt", data)).values, VALUES)


@pytest.mark.parametrize(
    "array",
    [VALUES.astype(">f8"), np.asfortranarray(VALUES), VALUES.astype(np.longdouble), VALUES[:, ::2]],
    ids=["big-endian", "column-major", "long double", "strided"],
)
def test_numbers_survive_every_memory_layout(file, cli, array: Any) -> None:
    path = file("x.npy", npy(array))
    np.testing.assert_array_equal(read_sequences(path).values, array.astype(np.float64))
    assert cli("forward", "--input", path)[0] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_narrow_floats_are_read_exactly(file, dtype: torch.dtype) -> None:
    narrow = torch.tensor(VALUES).to(dtype)
    for name, data in {"x.pt": pt(narrow), "x.safetensors": safetensors.torch.save({"x": narrow})}.items():
        np.testing.assert_array_equal(read_sequences(file(name, data)).values, narrow.double().numpy())


def test_two_axes_are_one_sequence(file) -> None:
    assert read_sequences(file("a.npy", npy(VALUES[0]))).values.shape == (1, 6, 2)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((1, 2, 3, 4)), r"\(batch, time, input\).*got shape \(1, 2, 3, 4\)"),
        (np.float64(3), r"got shape \(\)"),
        (np.ones(6), r"got shape \(6,\). For one feature, reshape it to \(time, 1\)"),
        (np.ones((2, 0, 3)), r"shape \(2, 0, 3\); an empty batch or sequence"),
        (np.ones((0, 3)), r"shape \(0, 3\); an empty"),
    ],
)
def test_wrong_axes_are_refused_with_the_shape(file, array: Any, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        read_sequences(file("x.npy", npy(array)))


@pytest.mark.parametrize(
    "array",
    [np.ones((3, 2), complex), np.array([["a"]]), np.array([[1]], "M8[s]"), np.zeros((3,), [("a", "f4")])],
    ids=["complex", "text", "dates", "records"],
)
def test_what_is_no_real_number_is_refused(file, array: Any) -> None:
    with pytest.raises(DtypeError, match="must hold real numbers; got dtype"):
        read_sequences(file("x.npy", npy(array)))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_integers_are_refused_as_sequences(file, dtype: Any) -> None:
    with pytest.raises(DtypeError, match=r"floating-point numbers; got (int64|uint8|bool)\. Save"):
        read_sequences(file("x.npy", npy(np.ones((3, 2), dtype))))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_value_that_is_not_finite_is_named(file, bad: float) -> None:
    values = VALUES.copy()
    values[1, 4, 1] = values[2, 0, 0] = bad
    with pytest.raises(InputError, match=rf"2 values .* first is {bad} in sequence 1, step 4, feature 1"):
        read_sequences(file("x.npy", npy(values)))


def test_a_nan_in_a_csv_is_named_by_its_column(file) -> None:
    with pytest.raises(InputError, match=r"1 value that is not finite; the first is nan in .*step 1, speed"):
        read_sequences(file("x.csv", "time,speed\n1,2\n3,nan\n"))


# CSV


def test_a_csv_with_a_header_names_its_features(file) -> None:
    found = read_sequences(file("x.csv", "\ufeffa, b\r\n1,2.5\r\n\r\n3,-4e1\r\n"))
    np.testing.assert_array_equal(found.values, [[[1, 2.5], [3, -40]]])
    assert found.features == ("a", "b")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_csv_without_a_header_keeps_its_first_row(file, end: str) -> None:
    found = read_sequences(file("x.csv", end.join(["1,2", "3,4", ""])))
    np.testing.assert_array_equal(found.values, [[[1, 2], [3, 4]]])
    assert found.features == ("feature 0", "feature 1")


def test_columns_select_by_header_in_the_order_asked_for(file) -> None:
    path = file("x.csv", "a,name,c\n1,anna,3\n4,otto,6\n")
    found = read_sequences(path, columns=["c", "a"])
    np.testing.assert_array_equal(found.values, [[[3, 1], [6, 4]]])
    assert found.features == ("c", "a")


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        ("", (), "x.csv is empty"),
        (" \n\n", (), "x.csv is empty"),
        ("a,b\n", (), r"a header \(a, b\) and no rows"),
        ("a,b\n1,2\n3\n", (), "line 3: expected 2 columns; got 1"),
        ("a,b\n1,2\n3,4,5\n", (), "line 3: expected 2 columns; got 3"),
        ("a,b\n1,2\n3,\n", (), "line 3, b: expected a number; got ''"),
        ("a,b\n1,x\n", (), "line 2, b: expected a number; got 'x'"),
        ("1,2\n3,x\n", (), "line 2, column 2: expected a number; got 'x'"),
        ("a,b\n1_000,2\n", (), "line 2, a: expected a number; got '1_000'"),
        ('"a,b\n1,2\n', (), "is not CSV"),
        ("a\n" + "1" * 200_000 + "\n", (), "line 2, is not CSV: field larger"),
        ("speed,b\n1,2\n", ("sped",), r"no column 'sped'; it has speed, b. Did you mean speed\?"),
        ("a,a\n1,2\n", ("a",), "2 columns 'a'"),
        ("1,2\n", ("a",), "selects by header name, and .* has no header"),
    ],
)
def test_a_csv_that_is_none_is_refused_with_the_line(file, text: str, columns: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_sequences(file("x.csv", text), columns=columns)


def test_text_in_another_encoding_is_refused(file) -> None:
    with pytest.raises(InputError, match="not UTF-8 text: .* at byte 0. Save it as UTF-8"):
        read_sequences(file("x.csv", "höhe,b\n1,2\n".encode("latin-1")[1:]))
    with pytest.raises(InputError, match="not UTF-16 text: .* at byte 2"):
        read_sequences(file("x.csv", b"\xff\xfea"))


def test_columns_of_a_binary_file_are_refused(file) -> None:
    with pytest.raises(InputError, match=r"header of a \.csv file; .* is npy"):
        read_sequences(file("x.npy", FORMATS["npy"]), columns=["a"])


# The bundled sequences


def raw_columns(name: str, skipped: int) -> tuple[list[str], list[list[float]]]:
    """The bundled file by the plainest means."""
    text = (Path(rnnctl.data.__file__).parent / f"{name}.csv").read_text(encoding="utf-8")
    header, *rows = list(csv.reader(text.splitlines()))
    return header[skipped:], [[float(cell) for cell in row[skipped:]] for row in rows]


@pytest.mark.parametrize(("name", "skipped", "shape"), [("sunspots", 1, (309, 1)), ("macrodata", 2, (203, 12))])
def test_bundled_sequences_are_their_data_columns(name: str, skipped: int, shape: tuple[int, int]) -> None:
    header, rows = raw_columns(name, skipped)
    found = read_sequences(name)
    assert found.values.shape == (1, *shape)
    np.testing.assert_array_equal(found.values[0], rows)
    assert list(found.features) == header


def test_the_year_of_a_bundled_sequence_can_be_asked_for() -> None:
    found = read_sequences("macrodata", columns=["year", "unemp"])
    np.testing.assert_array_equal(found.values[0, :2], [[1959, 5.8], [1959, 5.1]])


def test_the_sources_of_the_bundled_sequences_are_told() -> None:
    assert rnnctl.data.__doc__ is not None
    for word in ("public domain", "NOAA", "Federal Reserve", *rnnctl.data.TIME_COLUMNS):
        assert word in rnnctl.data.__doc__


def test_a_bundled_name_with_another_format_is_refused() -> None:
    with pytest.raises(InputError, match="sunspots is bundled and is csv; got --input-format npy"):
        read_sequences("sunspots", input_format="npy")


@pytest.mark.parametrize("name", ["sunspot", "sunspots.csv"])
def test_a_misspelt_bundled_name_is_told_the_nearest(tmp_path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"no file '{name}'.*Did you mean sunspots\?"):
        read_sequences(name)


def test_a_file_of_a_bundled_name_comes_first(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sunspots").write_bytes(FORMATS["npy"])
    np.testing.assert_array_equal(read_sequences("sunspots", input_format="npy").values, VALUES)


# Files that are not what they should be


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_an_empty_file_is_said_to_be_empty(file, kind: str) -> None:
    with pytest.raises(InputError, match=rf"x\.{kind} is empty"):
        read_sequences(file(f"x.{kind}", b""))


@pytest.mark.parametrize("kind", FORMATS)
def test_text_is_refused_with_its_beginning(file, kind: str) -> None:
    with pytest.raises(InputError, match=rf"not a readable \.{kind} file: it starts with b'hello"):
        read_sequences(file(f"x.{kind}", b"hello, this is text"))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file_is_refused_wherever_it_ends(file, kind: str) -> None:
    data = FORMATS[kind]
    for length in (1, 5, 9, 20, 50, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(InputError, match=r"not a readable"):
            read_sequences(file(f"x.{kind}", data[:length]))


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_a_file_under_the_suffix_of_another_format_is_read_by_its_content_and_said(file, kind: str) -> None:
    for other, data in ALL_FORMATS.items():
        # The two formats of numpy are told apart by their bytes.
        if other != kind and {other, kind} != {"npy", "npz"}:
            reader, expected = Reader(), read_sequences(file(f"own.{other}", data))
            np.testing.assert_array_equal(
                read_sequences(file(f"x.{kind}", data), reader=reader).values, expected.values
            )
            assert f"x.{kind}: read as {other}, which it is by its content" in reader.notes[0]


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(ALL_FORMATS)),
    changes=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_corrupt_file_is_read_or_refused_and_never_crashes(file, kind: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(ALL_FORMATS[kind])
    for place, value in changes:
        data[place % len(data)] = value
    try:
        found = read_sequences(file(f"x.{kind}", bytes(data)))
    except InputError:
        return
    assert found.values.ndim == 3
    assert np.isfinite(found.values).all()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy_header("(1000000, 1000000)") + b"x" * 100, "8000000000000 bytes; 100 bytes follow"),
        (npy_header("(99999999999999999999, 2)") + b"x" * 100, "100 bytes follow"),
        (npy_header("(-3, 2)") + b"x" * 100, r"shape \(-3, 2\)"),
        (npy_header("(0, 99999999999999999999)"), "not a readable"),
        (npy_header("(3, 2)", "|O") + b"x" * 48, "must hold real numbers; got dtype object"),
        (b"\x93NUMPY\x09\x00" + b"x" * 100, "format version 9.0; readable are 1.0 and 2.0"),
        (b"\x93NUMPY\x02\x00" + struct.pack("<I", 9000) + b"(" * 9000, "not a readable"),
    ],
    ids=["8 TB", "beyond int64", "negative", "empty and huge", "objects", "version", "nested"],
)
def test_an_npy_header_that_lies_is_refused_before_allocating(file, data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_sequences(file("x.npy", data))


def zipped(name: str, data: bytes) -> bytearray:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return bytearray(stream.getvalue())


def test_a_zip_without_arrays_is_refused(file) -> None:
    with pytest.raises(InputError, match="holds no array"):
        read_sequences(file("x.npz", bytes(zipped("readme.txt", b"hi"))))


def test_an_unknown_compression_or_a_password_is_refused(file) -> None:
    for offset, value in ((8, 99), (6, 1)):
        data = zipped("x.npy", npy(VALUES))
        data[offset] = value
        data[data.find(b"PK\x01\x02") + offset + 2] = value
        with pytest.raises(InputError, match=r"not a readable \.npz file: .*(compression|encrypted)"):
            read_sequences(file("x.npz", bytes(data)))


def test_an_array_that_unpacks_beyond_memory_is_refused_before_unpacking(file, monkeypatch) -> None:
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: 100_000)
    for name, data in {"x.npz": zipped("x.npy", bytes(10**6)), "x.pt": zipped("a/data.pkl", bytes(10**6))}.items():
        with pytest.raises(TooLargeError, match=r"976\.6 KiB of memory; 97\.66 KiB is available"):
            read_sequences(file(name, bytes(data)))


def test_a_file_beyond_memory_is_refused_before_reading(file, monkeypatch) -> None:
    path = file("x.npy", FORMATS["npy"])
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: 100)
    with pytest.raises(TooLargeError, match=r"the file .* would take 416 B of memory; 100 B is available"):
        read_sequences(path)


@pytest.mark.parametrize("name", ["x.pt", "x.npy", "x.npz"])
def test_a_malicious_pickle_is_refused_and_not_run(file, tmp_path, name: str) -> None:
    evil = Malicious(tmp_path / "owned")
    attempts = [pickle.dumps(evil, protocol) for protocol in range(6)]
    attempts += [pt(evil), pt({"x": evil}), pt(evil, _use_new_zipfile_serialization=False)]
    attempts += [npy(np.array([evil])), npz(x=np.array([evil]))]
    for data in attempts:
        with pytest.raises(InputError, match=r"x\.(pt|npy|npz)"):
            read_sequences(file(name, data))
    assert not (tmp_path / "owned").exists()
    pickle.loads(attempts[2])
    assert (tmp_path / "owned").exists(), "the attack itself must work"


def test_a_pickled_model_is_told_what_to_save(file) -> None:
    with pytest.raises(InputError, match=r"more than tensors \(torch\S*RNN\).*could run code.*state_dict"):
        read_sequences(file("x.pt", pt(nn.RNN(2, 2))))


def test_object_arrays_are_refused(file) -> None:
    with pytest.raises(DtypeError, match="must hold real numbers; got dtype object"):
        read_sequences(file("x.npy", npy(np.array([[{}]], dtype=object))))


def test_a_tensor_of_stride_0_is_refused_before_it_is_unfolded(file) -> None:
    huge = torch.zeros(1).expand(10**6, 10**6)
    with pytest.raises(TooLargeError, match=r"shape \(1000000, 1000000\), would take 3\.638 TiB"):
        read_sequences(file("x.pt", pt(huge)))
    small = torch.ones(1).expand(5, 3)
    np.testing.assert_array_equal(read_sequences(file("y.pt", pt(small))).values, np.ones((1, 5, 3)))


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.eye(3).to_sparse(), "sparse_coo"),
        (torch.empty(3, 3, device="meta"), "meta"),
        ([torch.ones(3)], "must hold a tensor or named tensors; got list"),
        ({"a": {"b": torch.ones(3)}}, "must hold a tensor or named tensors; got dict"),
        ({}, "holds no array"),
    ],
)
def test_what_is_no_plain_tensor_is_refused(file, tensor: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_sequences(file("x.pt", pt(tensor)))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.npy", "no file '.*missing.npy'"),
        ("folder.npy", "Is a directory"),
        ("a" * 300 + ".npy", "no file"),
        ("a\0b.npy", "no file"),
        ("x.csv/y.npy", "no file"),
        ("", "Is a directory|Permission denied"),
    ],
)
def test_a_path_that_is_no_file_is_refused(file, tmp_path, name: str, words: str) -> None:
    file("x.csv", "1\n")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(InputError, match=words):
        read_sequences(str(tmp_path / name))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device here")
def test_a_device_without_an_end_is_not_read() -> None:
    with pytest.raises(InputError, match="a device, not a file"):
        read_sequences("/dev/zero", input_format="npy")


# Preparing


def sequences_of(file: Any, array: Any) -> Any:
    return read_sequences(file("prepared.npy", npy(array)))


def test_standardized_features_have_mean_0_and_deviation_1(file) -> None:
    found, constant = standardized(sequences_of(file, VALUES * [3, 1e4] + [5, -1e6]))
    flat = found.values.reshape(-1, 2)
    np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose((flat**2).mean(axis=0), 1, rtol=1e-9)
    by_hand = [(v - np.mean(VALUES[..., 0])) / np.std(VALUES[..., 0]) for v in VALUES[1, :, 0]]
    np.testing.assert_allclose(found.values[1, :, 0], by_hand, rtol=1e-9)
    assert constant == ()


def test_a_constant_feature_is_named_and_becomes_zero(file) -> None:
    path = file("x.csv", "speed,mass\n1,0.1\n2,0.1\n4,0.1\n")
    found, constant = standardized(read_sequences(path))
    assert constant == ("mass",)
    np.testing.assert_array_equal(found.values[0, :, 1], 0)
    assert np.ptp(found.values[0, :, 0]) > 1


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_extreme_values_are_standardized_without_overflow(file, scale: float) -> None:
    plain, _ = standardized(sequences_of(file, VALUES))
    extreme, constant = standardized(sequences_of(file, VALUES * scale))
    assert constant == ()
    np.testing.assert_allclose(extreme.values, plain.values, rtol=1e-9)


def test_a_small_change_on_a_large_value_is_no_constant(file) -> None:
    found, constant = standardized(sequences_of(file, np.array([[1e9], [1e9 + 1e-4], [1e9], [1e9 + 1e-4]])))
    assert constant == ()
    np.testing.assert_allclose(found.values[0, :, 0], [-1, 1, -1, 1], rtol=1e-2)


def test_next_pairs_every_step_with_the_one_after(file) -> None:
    inputs, targets = split_next(sequences_of(file, VALUES))
    for step in range(5):
        np.testing.assert_array_equal(inputs.values[:, step], VALUES[:, step])
        np.testing.assert_array_equal(targets[:, step], VALUES[:, step + 1])
    assert inputs.values.shape[1] == targets.shape[1] == 5


def test_a_single_step_has_no_next(file) -> None:
    with pytest.raises(ShapeError, match="at least 2 steps; .* has 1"):
        split_next(sequences_of(file, VALUES[:, :1]))


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.float32, bool])
def test_whole_numbers_of_any_dtype_are_classes(dtype: Any) -> None:
    fitted = fitted_target(np.array([[1], [0]], dtype), 1, 2, classes=True, source="t")
    assert fitted.dtype == np.int64
    np.testing.assert_array_equal(fitted, [[1, 0]])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.5, "integer targets .* t has fractions"),
        (1e30, r"class numbers; t has one of 1e\+30"),
        (-(2.0**63), "one of"),
    ],
)
def test_what_is_no_class_number_is_refused(value: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fitted_target(np.full((1, 2), value), 1, 2, classes=True, source="t")


def test_a_target_of_one_sequence_gets_its_batch_axis() -> None:
    assert fitted_target(np.zeros((6, 2)), 1, 6, classes=False, source="t").shape == (1, 6, 2)
    assert fitted_target(np.zeros(6), 1, 6, classes=False, source="t").shape == (1, 6, 1)
    assert fitted_target(np.zeros((3, 6, 2)), 3, 6, classes=False, source="t").shape == (3, 6, 2)


def test_targets_are_read_as_they_stand_integers_included(file) -> None:
    classes = np.arange(6).reshape(1, 6)
    found = read_target(file("t.npy", npy(classes)))
    np.testing.assert_array_equal(found, classes)
    assert found.dtype == classes.dtype
    np.testing.assert_array_equal(read_target(file("t.csv", "1\n0\n")), [[1], [0]])


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("t.npy", npy(np.array([1.0, np.nan])), r"finite numbers; the first that is none is nan at \(1,\)"),
        ("t.npy", npy(np.zeros((0, 3))), r"shape \(0, 3\); an empty target"),
        ("t.npz", npz(a=VALUES, b=VALUES), "holds 2 arrays .*in a file of its own"),
    ],
)
def test_a_target_that_is_none_is_refused(file, name: str, data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_target(file(name, data))


def test_a_misspelt_target_is_told_the_nearest() -> None:
    with pytest.raises(InputError, match=r"dummy, next or a file; .*'nxt'\. Did you mean next\?"):
        read_target("nxt")
    with pytest.raises(InputError, match="standard input is for --input"):
        read_target("-")


# Weights


def same_tensors(found: Any, expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("suffix", ["pt", "PT", "pth", "safetensors"])
def test_weights_in_own_names_come_back_bitwise(file, suffix: str) -> None:
    state = own_state()
    data = safetensors.torch.save(state) if suffix == "safetensors" else pt(state)
    found = read_weights(Path(file(f"w.{suffix}", data)))
    same_tensors(found.tensors, state)
    assert (found.input_size, found.hidden_size, found.output_size, found.bias) == (I, H, O, True)
    assert found.notes == ()


def test_weights_in_the_names_of_nn_rnn_are_taken_for_the_cell(file) -> None:
    rnn = nn.RNN(I, H)
    found = read_weights(Path(file("w.pt", pt(rnn.state_dict()))))
    assert torch.equal(found.tensors["rnn_cell.input_to_hidden.weight"], rnn.weight_ih_l0)
    assert torch.equal(found.tensors["rnn_cell.hidden_to_hidden.weight"], rnn.weight_hh_l0)
    assert torch.equal(found.tensors["rnn_cell.input_to_hidden.bias"], rnn.bias_ih_l0)
    assert torch.equal(found.tensors["rnn_cell.hidden_to_hidden.bias"], rnn.bias_hh_l0)
    assert found.output_size is None
    assert "no readout" in found.notes[0]


def test_weights_without_biases_are_known_as_such(file) -> None:
    found = read_weights(Path(file("w.pt", pt(torch_state(bias=False)))))
    assert not found.bias
    assert len(found.tensors) == 2


@pytest.mark.parametrize("prefix", ["module.", "encoder.rnn."])
@pytest.mark.parametrize("state", [own_state, torch_state])
def test_a_prefix_is_found_and_said(file, state: Any, prefix: str) -> None:
    named = state()
    path = Path(file("w.pt", pt({prefix + name: tensor for name, tensor in named.items()})))
    found = read_weights(path)
    same_tensors(found.tensors, {TORCH_NAMES.get(name, name): tensor for name, tensor in named.items()})
    assert f"without the prefix '{prefix}'" in found.notes[0]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_linear_layer_beside_nn_rnn_is_taken_as_the_readout_and_said(file, prefix: str) -> None:
    model = Tagger()
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    found = read_weights(Path(file("w.pt", pt(state))))
    assert torch.equal(found.tensors["hidden_to_output.weight"], model.fc.weight)
    assert torch.equal(found.tensors["hidden_to_output.bias"], model.fc.bias)
    assert found.output_size == O
    assert any("fc is taken as the readout" in note for note in found.notes)


@pytest.mark.parametrize("state", [torch_state, lambda kind: Tagger(kind).state_dict()])
@pytest.mark.parametrize(("kind", "words"), [(nn.GRU, r"\(12, 4\)\. Is this a GRU"), (nn.LSTM, r"\(16, 4\).*LSTM")])
def test_gated_weights_are_refused_with_their_name(file, kind: Any, words: str, state: Any) -> None:
    with pytest.raises(ShapeError, match=rf"W_hh must be square \(hidden, hidden\); got {words}"):
        read_weights(Path(file("w.pt", pt(state(kind)))))


def renamed(old: str, new: str) -> dict[str, torch.Tensor]:
    return {new if name == old else name: tensor for name, tensor in torch_state().items()}


def without(*names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in own_state().items() if name not in names}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (renamed("weight_hh_l0", "weight_hh_0"), [r"missing: rnn_cell.hidden_to_hidden.weight \(or weight_hh_l0\)"]),
        (renamed("weight_hh_l0", "weight_hh_0"), [r"extra: weight_hh_0 \(4, 4\)\. Did you mean weight_hh_l0\?"]),
        (without("hidden_to_output.bias", "rnn_cell.hidden_to_hidden.bias"), ["hidden_to_hidden.bias", "output.bias"]),
        (torch_state(num_layers=2), ["extra: weight_hh_l1", "no second layer"]),
        (torch_state(bidirectional=True), ["extra: weight_hh_l0_reverse", "no _reverse"]),
        (dict(nn.RNNCell(I, H).state_dict()), [r"extra: weight_hh \(4, 4\)\. Did you mean weight_hh_l0\?"]),
        ({}, ["missing: rnn_cell.input_to_hidden.weight", "missing: rnn_cell.hidden_to_hidden.weight"]),
        ({**own_state(), **torch_state()}, ["holds rnn_cell.input_to_hidden.weight twice"]),
        (
            {f"{part}.{name}": tensor for part in ("enc", "dec") for name, tensor in torch_state().items()},
            ["extra: dec.weight_hh_l0"],
        ),
    ],
)
def test_missing_and_extra_names_are_listed(file, state: Any, words: list[str]) -> None:
    path = Path(file("w.pt", pt(state)))
    for word in words:
        with pytest.raises(InputError, match=word):
            read_weights(path)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("rnn_cell.hidden_to_hidden.weight", (4, 5), r"square .* got \(4, 5\)\. Is this weight_ih_l0\?"),
        ("rnn_cell.hidden_to_hidden.weight", (4, 4, 4), r"2 non-empty axes; got shape \(4, 4, 4\)"),
        ("rnn_cell.hidden_to_hidden.weight", (), r"2 non-empty axes; got shape \(\)"),
        ("rnn_cell.hidden_to_hidden.weight", (0, 0), r"2 non-empty axes; got shape \(0, 0\)"),
        ("rnn_cell.input_to_hidden.weight", (5, 3), r"W_xh must have 4 rows, as W_hh \(4, 4\) has; got \(5, 3\)"),
        ("rnn_cell.hidden_to_hidden.bias", (5,), r"must have shape \(4,\); got \(5,\)"),
        ("hidden_to_output.weight", (2, 7), r"must have shape \(2, 4\); got \(2, 7\)"),
        ("hidden_to_output.bias", (7,), r"must have shape \(2,\); got \(7,\)"),
    ],
)
def test_a_wrong_shape_is_named_with_both_shapes(file, name: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        read_weights(Path(file("w.pt", pt({**own_state(), name: torch.ones(shape)}))))


@pytest.mark.parametrize(
    ("tensor", "error", "words"),
    [
        (torch.ones(4, 4, dtype=torch.int64), DtypeError, "floating-point numbers; got torch.int64"),
        (torch.ones(4, 4) + 0j, DtypeError, "floating-point numbers; got torch.complex64"),
        (torch.eye(4).to_sparse(), DtypeError, "plain dense tensor; got a sparse_coo one"),
        (torch.empty(4, 4, device="meta"), DtypeError, "got a meta"),
        (torch.zeros(1).expand(10**6, 10**6), InputError, r"claims 4,000,000,000,000 bytes \(3\.638 TiB\).* 4 for it"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(file, tensor: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        read_weights(Path(file("w.pt", pt({**own_state(), "rnn_cell.hidden_to_hidden.weight": tensor}))))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"layers": [torch_state()], "epoch": 3}, r"It holds\n  layers: list of 1\n  epoch: int 3\nLooked for "),
        (torch.ones(3), r"state dict \(name -> tensor\); got Tensor"),
        (nn.RNN(2, 2), "more than tensors"),
    ],
)
def test_what_is_no_state_dict_is_refused(file, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_weights(Path(file("w.pt", pt(value))))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_unreadable_weights_are_refused(file, suffix: str) -> None:
    data = pt(own_state()) if suffix == "pt" else safetensors.torch.save(own_state())
    for broken in (b"", b"hello, this is text", data[:-30], data[: len(data) // 3]):
        with pytest.raises(InputError, match=rf"w\.{suffix} is (empty|not a readable)"):
            read_weights(Path(file(f"w.{suffix}", broken)))
    same_tensors(read_weights(Path(file("w.bin", data))).tensors, own_state())
    with pytest.raises(InputError, match="there is no file"):
        read_weights(Path(f"missing.{suffix}"))


def test_malicious_weights_are_refused_and_not_run(file, tmp_path) -> None:
    with pytest.raises(InputError, match="could run code"):
        read_weights(Path(file("w.pt", pt({**own_state(), "x": Malicious(tmp_path / "owned")}))))
    assert not (tmp_path / "owned").exists()


def test_written_weights_are_safetensors_and_read_back_bitwise(tmp_path) -> None:
    state = {name: tensor.double() / 3 for name, tensor in own_state().items()}
    # Not contiguous, as a tied or transposed weight may be.
    state["rnn_cell.hidden_to_hidden.weight"] = state["rnn_cell.hidden_to_hidden.weight"].T
    path = tmp_path / "w.safetensors"
    write_weights(path, state)
    same_tensors(safetensors.torch.load_file(path), state)
    same_tensors(read_weights(path).tensors, state)


def test_weights_are_not_written_under_a_suffix_that_lies(tmp_path) -> None:
    with pytest.raises(InputError, match=r"written as \.safetensors; got '.*w\.pt'\. Name it w\.safetensors"):
        write_weights(tmp_path / "w.pt", own_state())
    assert list(tmp_path.iterdir()) == []


# Writing


def test_a_file_is_written_whole_with_the_usual_permissions(tmp_path) -> None:
    (tmp_path / "plain").touch()
    write_whole(tmp_path / "x.json", b"new")
    assert (tmp_path / "x.json").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "x.json"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch) -> None:
    target = tmp_path / "x.json"
    target.write_bytes(b"old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RnnctlError, match=r"cannot write '.*x\.json': No space left on device"):
        write_whole(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_interrupted_write_leaves_no_temporary_file(tmp_path, monkeypatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt("stop")

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stop"):
        write_whole(tmp_path / "x.json", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_a_link(tmp_path) -> None:
    (tmp_path / "real.json").write_bytes(b"old")
    (tmp_path / "link.json").symlink_to("real.json")
    write_whole(tmp_path / "link.json", b"new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_bytes() == b"new"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_a_device_is_written_to_and_not_replaced() -> None:
    require_writable(Path("/dev/null"), force=True)
    write_whole(Path("/dev/null"), b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(RnnctlError, match="cannot write '/dev/full': No space left on device"):
        write_whole(Path("/dev/full"), b"gone")


def test_an_existing_file_needs_force(tmp_path) -> None:
    target = tmp_path / "x.json"
    require_writable(target, force=False)
    target.touch()
    with pytest.raises(InputError, match="is there already; add --force"):
        require_writable(target, force=False)
    require_writable(target, force=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (".", "is a folder; name a file in it"),
        ("missing/x.json", "there is no folder '.*missing'"),
        ("file/x.json", "Not a directory"),
        ("n" * 300, "File name too long"),
        ("a\0b", "null"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(tmp_path, name: str, words: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=words):
        require_writable(tmp_path / name, force=True)


def test_a_name_of_the_greatest_length_can_be_written(tmp_path) -> None:
    target = tmp_path / ("n" * 255)
    require_writable(target, force=False)
    write_whole(target, b"x")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_permission_is_refused(tmp_path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot write in the folder .*Permission denied"):
        require_writable(tmp_path / "x.json", force=False)


def test_a_read_only_disk_is_refused(tmp_path, monkeypatch) -> None:
    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(InputError, match="cannot write in the folder .*Read-only file system"):
        require_writable(tmp_path / "x.json", force=False)


# Small rooms


def test_memory_is_refused_with_both_numbers() -> None:
    with pytest.raises(TooLargeError, match=r"a cloud would take 1024 TiB of memory; .*B is available"):
        require_memory(2**50, "a cloud")
    require_memory(1, "a byte")


def test_where_the_system_does_not_tell_nothing_is_refused(monkeypatch) -> None:
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: None)
    require_memory(2**60, "a cloud")


def test_available_memory_is_no_more_than_there_is() -> None:
    found = available_bytes()
    assert found is None or 0 < found <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**30, "1 GiB"), (8e12, "7.276 TiB")]
)
def test_bytes_are_told_in_words(size: float, words: str) -> None:
    assert in_words(size) == words


def test_the_nearest_name_is_told_and_none_where_none_is_near() -> None:
    assert did_you_mean("sunspot", ["macrodata", "sunspots"]) == " Did you mean sunspots?"
    assert did_you_mean("xyz", ["macrodata", "sunspots"]) == ""
    assert did_you_mean("", []) == ""


# The command line


def forward_sizes(cli: Any, *arguments: Any) -> dict[str, int]:
    code, out, err = cli("forward", "--json", *arguments)
    assert code == 0, err
    config = json.loads(out)["config"]
    return {key: config[key] for key in ("batch_size", "seq_len", "input_size", "hidden_size", "output_size")}


def test_sizes_come_from_the_data_and_from_the_weights(cli, file) -> None:
    weights = file("w.pt", pt(own_state()))
    data = file("x.npy", npy(np.ones((2, 9, I))))
    sizes = forward_sizes(cli, "--input", data, "--weights", weights)
    assert list(sizes.values()) == [2, 9, I, H, O]
    assert forward_sizes(cli, "--input", "macrodata")["input_size"] == 12
    assert forward_sizes(cli, "--input", "sunspots", "--seq-len", 309)["seq_len"] == 309


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--input", "sunspots", "--seq-len", 310), ["310", "309", "Give at most 309, or leave it out"]),
        (("--input", "sunspots", "--input-size", 3), ["3", "sunspots has 1", "choose columns with --columns"]),
        (("--input", "macrodata", "--batch-size", 7), ["7", "macrodata has 1", "Leave out --batch-size"]),
        (("--input", "sunspots", "--target", "next", "--output-size", 5), ["5", "next has 1"]),
        (("--input", "sunspots", "--target", "next", "--seq-len", 309), ["309", "308", "one less"]),
        (("--weights", "{w}", "--hidden-size", 7), ["7", "has 4"]),
        (("--weights", "{w}", "--input", "sunspots"), ["input-size 3", "sunspots has 1"]),
        (("--target", "{t}", "--output-size", 6), ["6", "has 2"]),
    ],
)
def test_contradicting_sizes_are_refused_with_both_numbers(cli, file, arguments: Any, words: list[str]) -> None:
    places = {"w": file("w.pt", pt(own_state())), "t": file("t.npy", npy(np.zeros((4, 7, 2))))}
    code, out, err = cli("gradnorm", *(str(argument).format(**places) for argument in arguments))
    assert (code, out) == (2, "")
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    "flags", [["--columns", "a"], ["--standardize"], ["--input-key", "a"], ["--input-format", "csv"]]
)
def test_flags_about_the_input_need_one(cli, flags: list[str]) -> None:
    code, _, err = cli("forward", *flags)
    assert code == 2
    assert f"{flags[0]} is about --input" in err


def loss_of(cli: Any, *arguments: Any) -> float:
    code, out, err = cli("gradnorm", "--json", *arguments)
    assert code == 0, err
    return float(json.loads(out)["scalars"]["loss"])


@pytest.fixture
def tagger(file) -> tuple[Tagger, str]:
    """A model of torch's own in float64, and the file of its weights."""
    torch.manual_seed(3)
    model = Tagger().double()
    return model, file("tagger.pt", pt(model.state_dict()))


def test_next_step_loss_of_trained_weights_is_that_of_nn_rnn(cli, file) -> None:
    torch.manual_seed(3)
    rnn, fc = nn.RNN(2, H, batch_first=True, dtype=torch.float64), nn.Linear(H, 2, dtype=torch.float64)
    state = {**rnn.state_dict(), **{f"head.{name}": tensor for name, tensor in fc.state_dict().items()}}
    x = torch.tensor((VALUES - VALUES.mean((0, 1))) / VALUES.std((0, 1)))
    expected = nn.functional.mse_loss(fc(rnn(x[:, :-1])[0]), x[:, 1:]).item()
    data, weights = file("x.npy", npy(VALUES)), file("w.pt", pt(state))
    arguments = ["--input", data, "--weights", weights, "--target", "next", "--standardize", "--loss-at", "all"]
    # The last digits are there only if neither weights nor data went through float32.
    assert loss_of(cli, *arguments, "--dtype", "float64") == pytest.approx(expected, rel=1e-13)
    assert loss_of(cli, *arguments) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss_at", ["last", "all"])
def test_loss_against_a_target_file_is_that_of_nn_rnn(cli, file, tagger, loss_at: str) -> None:
    model, weights = tagger
    x = np.random.default_rng(5).normal(size=(3, 6, I))
    values, classes = np.random.default_rng(6).normal(size=(3, 6, O)), np.arange(18).reshape(3, 6) % O
    y = model.fc(model.rnn(torch.tensor(x))[0])
    steps = slice(None) if loss_at == "all" else slice(-1, None)
    common = ["--input", file("x.npy", npy(x)), "--weights", weights, "--dtype", "float64", "--loss-at", loss_at]
    mse = nn.functional.mse_loss(y[:, steps], torch.tensor(values)[:, steps])
    assert loss_of(cli, *common, "--target", file("v.npy", npy(values))) == pytest.approx(mse.item(), rel=1e-12)
    entropy = nn.functional.cross_entropy(y[:, steps].flatten(0, 1), torch.tensor(classes)[:, steps].flatten())
    for dtype in (np.int64, np.uint8, np.float64):
        target = ["--loss", "cross-entropy", "--target", file("c.npy", npy(classes.astype(dtype)))]
        assert loss_of(cli, *common, *target) == pytest.approx(entropy.item(), rel=1e-12)


def test_a_single_sequence_takes_a_target_without_a_batch_axis(cli, file) -> None:
    target = file("t.csv", "\n".join(["1"] * 309))
    one = loss_of(cli, "--input", "sunspots", "--standardize", "--target", target)
    full = loss_of(cli, "--input", "sunspots", "--standardize", "--target", file("t.npy", npy(np.ones((1, 309, 1)))))
    assert one == full
    assert one != loss_of(cli, "--input", "sunspots", "--standardize", "--output-size", 1)


@pytest.mark.parametrize(
    ("target", "flags", "words"),
    [
        (np.full((4, 7), 0.5), ["--loss", "cross-entropy"], "integer targets"),
        (np.full((4, 7), 5), ["--loss", "cross-entropy"], "classes 0 .. 4"),
        (np.zeros((4, 6, 5)), [], "must have shape (4, 7, 5); got (4, 6, 5)"),
        (np.float64(0), [], "got ()"),
        (np.zeros((4, 7, 5)), ["--loss", "sum"], "takes no target"),
    ],
)
def test_a_target_that_does_not_fit_is_one_message(cli, file, target: Any, flags: list[str], words: str) -> None:
    code, out, err = cli("gradnorm", "--target", file("t.npy", npy(target)), *flags)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("Error:") == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--target", "next"], "add --input"), (["--input", "sunspots", "--target", "next"], "integer classes")],
)
def test_next_needs_real_data_and_mse(cli, flags: list[str], words: str) -> None:
    code, _, err = cli("gradnorm", *flags, *(["--loss", "cross-entropy"] if "--input" in flags else []))
    assert code == 2
    assert words in err


def test_a_constant_feature_is_told_on_stderr_and_not_when_quiet(cli, file) -> None:
    path = file("x.csv", "speed,mass\n1,7\n2,7\n3,7\n")
    code, _, err = cli("forward", "--input", path, "--standardize")
    assert code == 0
    assert "mass is constant" in err
    assert cli("forward", "--input", path, "--standardize", "-q")[2] == ""


def test_columns_of_the_command_line_are_separated_by_commas(cli) -> None:
    sizes = forward_sizes(cli, "--input", "macrodata", "--columns", "unemp, infl")
    assert (sizes["input_size"], sizes["seq_len"]) == (2, 203)
    code, _, err = cli("forward", "--input", "macrodata", "--columns", "unemp,inflation")
    assert code == 2
    assert "Did you mean infl?" in err


def test_the_command_line_reads_standard_input(cli, stdin) -> None:
    stdin(b"a,b\n1,2\n3,4\n")
    sizes = forward_sizes(cli, "--input", "-", "--input-format", "csv")
    assert (sizes["batch_size"], sizes["seq_len"], sizes["input_size"]) == (1, 2, 2)


def test_notes_on_weights_are_told(cli, file) -> None:
    state = {f"module.{name}": tensor for name, tensor in torch_state().items()}
    code, _, err = cli("forward", "--weights", file("w.pt", pt(state)))
    assert code == 0
    assert "without the prefix 'module.'" in err
    assert "drawn from the seed" in err


@pytest.mark.parametrize("flags", [["--init", "orthogonal"], ["--gain", "2"]])
def test_weights_and_an_initialisation_contradict_each_other(cli, file, flags: list[str]) -> None:
    code, _, err = cli("forward", "--weights", file("w.pt", pt(own_state())), *flags)
    assert code == 2
    assert "would replace it" in err


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saved_weights_reproduce_the_run(cli, tmp_path, dtype: str) -> None:
    path = tmp_path / "w.safetensors"
    flags = ["--dtype", dtype, "--input", "sunspots", "--standardize", "--target", "next"]
    first = loss_of(cli, *flags, "--seed", 5, "--init", "orthogonal", "--save-weights", path)
    assert loss_of(cli, *flags, "--seed", 9, "--weights", path) == first
    assert loss_of(cli, *flags, "--seed", 9) != first
    # The file itself, without this project's reader.
    saved = safetensors.torch.load_file(path)
    W_hh = saved["rnn_cell.hidden_to_hidden.weight"]
    assert str(W_hh.dtype) == f"torch.{dtype}"
    torch.testing.assert_close(W_hh @ W_hh.T, torch.eye(20, dtype=W_hh.dtype), rtol=0, atol=1e-5)
    assert list(tmp_path.iterdir()) == [path]


def test_float64_weights_keep_all_their_digits(cli, file, tmp_path) -> None:
    state = {name: tensor.double() + 1 / 3e8 for name, tensor in own_state().items()}
    copy = tmp_path / "copy.safetensors"
    assert cli("forward", "--weights", file("w.pt", pt(state)), "--dtype", "float64", "--save-weights", copy)[0] == 0
    same_tensors(safetensors.torch.load_file(copy), state)


@pytest.mark.parametrize("flag", ["--output", "--save-weights"])
def test_an_existing_file_needs_force_on_the_command_line(cli, tmp_path, flag: str) -> None:
    target = tmp_path / "x.safetensors"
    target.write_bytes(b"old")
    code, out, err = cli("forward", flag, target)
    assert (code, out) == (2, "")
    assert "--force" in err
    assert target.read_bytes() == b"old"
    assert cli("forward", flag, target, "--force")[0] == 0
    assert target.read_bytes() != b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("flag", ["--output", "--save-weights"])
@pytest.mark.parametrize("name", ["missing/x.safetensors", "file/x.safetensors", "."])
def test_an_unwritable_place_is_refused_before_computing(cli, tmp_path, monkeypatch, flag: str, name: str) -> None:
    def too_late(*_: Any, **__: Any) -> None:
        raise AssertionError("a network was built before the place was looked at")

    monkeypatch.setattr("rnnctl.cells.FullRNN.__init__", too_late)
    (tmp_path / "file").touch()
    code, out, err = cli("forward", flag, tmp_path / name)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_bad_input_leaves_no_output_behind(cli, file, tmp_path) -> None:
    bad = file("x.npy", FORMATS["npy"][:-1])
    out = tmp_path / "result.json"
    assert cli("gradnorm", "--input", bad, "-o", out, "--save-weights", tmp_path / "w.safetensors")[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


@pytest.mark.parametrize("kind", ["json", "csv", "jsonl"])
def test_the_output_file_holds_what_stdout_would(cli, tmp_path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    flags = ["gradnorm", "--input", "sunspots", "--standardize", "--no-verify"]
    code, out, err = cli(*flags, "-o", path)
    assert (code, out) == (0, "")
    assert str(path) in err
    assert path.read_text(encoding="utf-8") == cli(*flags, "--format", kind)[1]


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_every_unreadable_input_is_one_message_and_exit_2(cli, file, kind: str) -> None:
    for data in (b"", b"\x00\xff\x80 no such thing", ALL_FORMATS[kind][:3]):
        code, out, err = cli("forward", "--input", file(f"x.{kind}", data))
        assert (code, out) == (2, "")
        assert err.startswith("Error: ")
        assert err.count("\n") == 1


def test_weights_that_are_not_finite_are_refused_with_key_and_place(cli, file) -> None:
    W_hh = torch.zeros(H, H)
    W_hh[1, 0] = math.nan
    state = {**own_state(), "rnn_cell.hidden_to_hidden.weight": W_hh}
    code, out, err = cli("gradnorm", "--weights", file("w.pt", pt(state)), "--json", "--no-verify")
    assert code == 2
    assert not out
    assert "rnn_cell.hidden_to_hidden.weight must be finite" in err
    assert "nan at (1, 0)" in err


def test_a_file_that_is_read_is_not_written(cli, file) -> None:
    path = file("x.csv", "1\n2\n")
    code, _, err = cli("gradnorm", "--input", path, "-o", path, "--force")
    assert code == 2
    assert "is read by this very command" in err
    assert Path(path).read_text(encoding="utf-8") == "1\n2\n"
