"""Checkpoints of every kind: what they hold, what is taken from them, and what is refused."""

import argparse
import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
import struct
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from shell import runner
from torch import Tensor, nn

import rnnctl
from rnnctl import FullRNN, InputError, ShapeError
from rnnctl.__main__ import main
from rnnctl.dynamics.checkpoint import contents
from rnnctl.errors import DtypeError, TooLargeError
from rnnctl.files.checkpoints import load_into, read_checkpoint, without_common_prefix
from rnnctl.files.fit import load
from rnnctl.files.weights import read_weights
from rnnctl.recurrence.finite import nonfinite_count

I, H, O = 3, 4, 2  # noqa: E741
Save = Callable[..., Path]


class Tagger(nn.Module):
    """A recurrent model with an integer buffer and a readout."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, **settings: Any) -> None:
        super().__init__()
        self.rnn = kind(I, H, **settings)
        self.norm = nn.BatchNorm1d(H)
        self.head = nn.Linear(H, O)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a checkpoint and give its path."""

    def saved(value: Any, name: str = "run.pt", **settings: Any) -> Path:
        path = tmp_path / name
        if isinstance(value, bytes):
            path.write_bytes(value)
        elif path.suffix == ".safetensors":
            safetensors.torch.save_file(value, path)
        else:
            torch.save(value, path, **settings)
        return path

    return saved


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command: exit code, stdout, stderr."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def saved_by(save: Any) -> bytes:
    """One array as NumPy writes it."""
    save(stream := io.BytesIO(), np.ones(3))
    return stream.getvalue()


def zipped(data: bytes) -> bytes:
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        archive.writestr("run.pt", data)
    return stream.getvalue()


def state(seed: int = 0, **settings: Any) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(Tagger(**settings).state_dict())


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return list(found) == list(expected) and all(torch.equal(found[name], expected[name]) for name in expected)


# ---- what is taken from a file ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.pt", "run.pth", "RUN.PT", "run.safetensors"])
def test_a_plain_state_dict_is_taken_whole_and_without_a_word(save: Save, name: str) -> None:
    expected = state()
    found = read_checkpoint(save(expected, name))
    assert set(found.tensors) == set(expected)
    assert all(torch.equal(found.tensors[key], expected[key]) for key in expected)
    assert (found.notes, found.other) == ((), {})


@pytest.mark.parametrize("name", ["run.ckpt", "run.bin", "run.pth.tar", "run", "run.safetensors", "run.csv", ".pt"])
@pytest.mark.parametrize("form", ["zip", "pickle", "safetensors"])
def test_a_checkpoint_is_known_by_its_content_whatever_its_name(save: Save, name: str, form: str) -> None:
    expected = state()
    stream = io.BytesIO()
    torch.save(expected, stream, _use_new_zipfile_serialization=form == "zip")
    data = safetensors.torch.save(expected) if form == "safetensors" else stream.getvalue()
    found = read_checkpoint(save(data, name)).tensors
    assert same({key: found[key] for key in expected}, expected)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_program_is_called_one_and_no_unsafe_loading_is_advised(save: Save) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), stream := io.BytesIO())
    with pytest.raises(
        InputError, match="holds a TorchScript program, not tensors alone. Save its state dict"
    ) as caught:
        read_checkpoint(save(stream.getvalue(), "run.pt"))
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_protocol_that_needs_code_to_be_read_is_named_as_the_fault(save: Save, protocol: int) -> None:
    path = save(expected := state(), pickle_protocol=protocol)
    if protocol < 4:
        assert same(read_checkpoint(path).tensors, expected)
        return
    with pytest.raises(InputError, match=r"was pickled by a protocol that .* Save it by torch\.save's own"):
        read_checkpoint(path)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_nested_state_dict_is_taken_and_what_stands_beside_it_is_told(
    save: Save, key: str, kind: Any, zipped: bool
) -> None:
    model = Tagger()
    optimizer = torch.optim.Adam(model.parameters())
    model.head(torch.ones(H)).sum().backward()
    optimizer.step()
    beside = {"epoch": 12, "loss": 0.5, "optimizer": optimizer.state_dict(), "best": True, "note": None, "name": "a"}
    path = save({"epoch": 12, key: kind(model.state_dict()), **beside}, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path)
    assert same(found.tensors, model.state_dict())
    assert found.notes == (f"{path}: taken from its '{key}'",)
    assert found.other == {
        "epoch": "int 12",
        "loss": "float 0.5",
        "optimizer": "dict of 2",
        "best": "bool True",
        "note": "None",
        "name": "str a",
    }


def test_of_several_candidates_the_first_known_name_is_taken_and_the_others_are_named(save: Save) -> None:
    own, other = state(0), state(1)
    found = read_checkpoint(save({"ema": other, "model": other, "model_state_dict": other, "state_dict": own}))
    assert same(found.tensors, own)
    assert "taken from its 'state_dict', not from 'model_state_dict', 'model', 'ema'" in found.notes[0]
    found = read_checkpoint(save({"model_ema": other, "model": own}))
    assert same(found.tensors, own)
    assert "taken from its 'model', not from 'model_ema'" in found.notes[0]


def test_a_single_state_dict_under_any_name_is_taken_and_said(save: Save) -> None:
    found = read_checkpoint(save({"generator": state(), "step": 3, "rng": torch.ones(3), "empty": {}}))
    assert same(found.tensors, state())
    assert found.notes[0].endswith("taken from its 'generator'")
    assert found.other == {"step": "int 3", "rng": "tensor (3,)", "empty": "dict of 0"}


def test_a_known_name_that_is_no_state_dict_is_passed_over(save: Save) -> None:
    found = read_checkpoint(save({"model": "LSTM", "state_dict": {}, "net": state()}))
    assert found.notes[0].endswith("taken from its 'net'")
    assert found.other["model"] == "str LSTM"


def test_extra_states_of_modules_are_no_weights(save: Save) -> None:
    plain = {**state(), "norm._extra_state": {"calls": 3}}
    for value in (plain, {"model": plain}):
        found = read_checkpoint(save(value))
        assert same(found.tensors, state())
        assert found.other == {"norm._extra_state": "dict of 1"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"student": state(), "teacher": state()}, r"student: dict of \d+\n.*\nSave one of student, teacher alone"),
        (
            {"weights": [torch.ones(2)], "epoch": 3},
            r"It holds\n  weights: list of 1\n  epoch: int 3\nLooked for within",
        ),
        ({"W": torch.ones(2, 2), "epoch": 3}, r"W: tensor \(2, 2\)\n  epoch: int 3"),
        ({0: torch.ones(2)}, r"0: tensor \(2,\)"),
        ({"model": {"encoder": {"w": torch.ones(2)}}}, "model: dict of 1"),
        ({"a": 2**2000, 5: {}}, r"a: int \d{603}\n  5: dict of 0"),
        ([state()], r"state dict \(name -> tensor\); got list"),
        (torch.ones(3), r"state dict \(name -> tensor\); got Tensor"),
        (3, "got int"),
    ],
)
def test_what_holds_no_state_dict_is_refused_with_a_list_of_what_it_holds(save: Save, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_checkpoint(save(value))


@pytest.mark.parametrize(
    ("beside", "named"),
    [
        (argparse.Namespace(lr=0.1), r"argparse\.Namespace"),
        (np.float64(0.1), r"numpy\.\S+"),
        (Path("data"), r"pathlib\.\S+"),
        (defaultdict(list), r"collections\.defaultdict"),
    ],
)
def test_an_object_beside_the_weights_is_refused_with_its_class_and_what_to_do(
    save: Save, beside: Any, named: str
) -> None:
    path = save({"model": state(), "args": beside})
    with pytest.raises(
        InputError, match=rf"more than tensors \({named}\).*state_dict\(\).*must be plain.*vars\(args\)"
    ):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("run.pt", b"", "is empty"),
        ("run.pt", b"hello, text", r"is not a readable \.pt file"),
        ("run.safetensors", b"hello, text", r"is not a readable \.safetensors file"),
        ("run.bin", b"\xff\x01\r\n", r"is not a readable \.pt file, .*: it begins with b'\\xff\\x01\\r\\n'"),
        ("run.h5", b"\x89HDF\r\n", r": it is an HDF5 file, as Keras writes\. Expected is a state dict"),
        ("run.pth.tar", gzip.compress(b"PK", mtime=0), "it is compressed by gzip; gunzip unpacks it"),
        ("run.pt", bz2.compress(b"PK"), "it is compressed by bzip2; bunzip2 unpacks it"),
        ("run.ckpt", lzma.compress(b"PK"), "it is compressed by xz; unxz unpacks it"),
        ("run.pt", zipped(b"a checkpoint"), "it is a zip archive of other things; unzip unpacks it"),
        ("run", b"weight_hh_l0", "it holds text"),
        ("run.npy", saved_by(np.save), r"it holds one NumPy array \(\.npy\)"),
        ("run.pt", saved_by(np.savez), r"it holds NumPy arrays \(\.npz\); safetensors\.numpy\.save_file"),
        ("run.ckpt", b"PK\x03\x04 broken", r"is not a readable \.pt file: File is not a zip file"),
        ("run.pth.tar", b"", "is empty; expected what torch.save wrote, or safetensors"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(save: Save, name: str, data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_checkpoint(save(data, name))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_checkpoint(tmp_path / "missing.pt")
    with pytest.raises(InputError, match="Is a directory"):
        read_checkpoint(tmp_path)


# ---- prefixes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "net.rnn."])
def test_the_prefix_of_all_names_is_found(prefix: str) -> None:
    own = state()
    found, tensors = without_common_prefix({prefix + name: tensor for name, tensor in own.items()}, own)
    assert found == prefix
    assert same(tensors, own)


def test_the_prefix_is_the_one_that_fits_most_names() -> None:
    names = ["a.w", "b.w", "b.v", "c.other"]
    prefix, tensors = without_common_prefix({name: torch.ones(1) for name in names}, ("w", "v"))
    assert prefix == "b."
    assert list(tensors) == ["a.w", "w", "v", "c.other"]


def test_a_prefix_is_not_removed_where_two_tensors_would_have_one_name() -> None:
    names = ["module.w", "module.v", "w"]
    prefix, tensors = without_common_prefix({name: torch.ones(1) for name in names}, ("w", "v"))
    assert prefix == ""
    assert list(tensors) == names


@given(st.lists(st.text("ab.", min_size=1, max_size=5), unique=True), st.lists(st.text("ab.", max_size=3)))
def test_without_a_prefix_no_tensor_is_lost_and_no_name_is_made_up(names: list[str], known: list[str]) -> None:
    tensors = {name: torch.tensor(i) for i, name in enumerate(names)}
    prefix, found = without_common_prefix(tensors, known)
    assert [int(tensor) for tensor in found.values()] == list(range(len(names)))
    assert all(old in (new, prefix + new) for old, new in zip(names, found, strict=True))


# ---- an Elman layer from a checkpoint -----------------------------------------------------------


def test_weights_come_from_a_training_checkpoint_of_a_wrapped_model(save: Save, cli: Any) -> None:
    torch.manual_seed(3)
    model = FullRNN(I, H, O)
    wrapped = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    path = save({"epoch": 3, "model_state_dict": wrapped, "optimizer": {}})
    found = read_weights(path)
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in model.state_dict().items())
    assert found.notes == (
        f"{path}: taken from its 'model_state_dict'",
        f"{path}: taken without the prefix 'module.'",
    )
    code, out, err = cli("gradnorm", "--json", "--weights", path)
    assert code == 0
    assert err.count("Note: ") == 2
    plain = cli("gradnorm", "--json", "--weights", save(model.state_dict(), "plain.pt"))[1]
    assert json.loads(out)["rows"] == json.loads(plain)["rows"]


# ---- into a module ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.pt", "run.safetensors"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_is_loaded_bitwise_and_a_prefix_is_said(save: Save, name: str, prefix: str) -> None:
    expected = state(1, kind=nn.GRU, num_layers=2, bidirectional=True)
    expected["norm.num_batches_tracked"] = torch.tensor(7)
    model = Tagger(nn.GRU, num_layers=2, bidirectional=True)
    path = save({prefix + key: tensor for key, tensor in expected.items()}, name)
    notes = load_into(model, path)
    assert same(model.state_dict(), expected)
    assert notes == ((f"{path}: taken without the prefix 'module.'",) if prefix else ())


def test_a_rounding_is_said_and_a_widening_is_not(save: Save) -> None:
    expected = {name: tensor.double() for name, tensor in state(1).items() if tensor.is_floating_point()}
    expected["norm.num_batches_tracked"] = torch.tensor(0)
    model = Tagger()
    path = save({"model": expected})
    notes = load_into(model, path)
    count = len(expected) - 1
    assert notes == (
        f"{path}: taken from its 'model'",
        f"{path}: {count} tensors in float64 are rounded to float32",
    )
    assert model.head.weight.dtype == torch.float32
    assert torch.equal(model.head.weight, expected["head.weight"].float())
    assert load_into(Tagger().double(), save(state(1))) == ()
    assert (
        "in float16 are rounded to bfloat16"
        in load_into(nn.Linear(2, 2).bfloat16(), save(nn.Linear(2, 2).half().state_dict()))[0]
    )


def test_everything_that_does_not_fit_is_listed_at_once_and_nothing_is_loaded(save: Save) -> None:
    broken = state(1)
    del broken["rnn.bias_hh_l0"]
    broken["rnn.weight_hh_0"] = broken.pop("rnn.weight_hh_l0")
    broken["head.weight"] = torch.ones(O, H + 1)
    broken["head.bias"] = torch.tensor([1.0, float("nan")])
    broken["rnn.bias_ih_l0"] = torch.ones(4 * H, dtype=torch.int64)
    broken["norm.bias"] = torch.full((H,), 1e300, dtype=torch.float64)
    model = Tagger()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match="does not fit Tagger:") as caught:
        load_into(model, save(broken))
    assert str(caught.value).splitlines()[1:] == [
        "  missing: rnn.weight_hh_l0 (16, 4)",
        "  missing: rnn.bias_hh_l0 (16,)",
        "  unexpected: rnn.weight_hh_0 (16, 4). Did you mean rnn.weight_hh_l0?",
        "  head.weight must have shape (2, 4); got (2, 5)",
        "  rnn.bias_ih_l0 must hold floating-point numbers, as torch.float32; got torch.int64",
        "  norm.bias must fit into torch.float32; 4 of its values in torch.float64 are too large",
        "  head.bias must be finite; 1 of its 2 values are not",
    ]
    assert same(model.state_dict(), before)


def test_shapes_alone_are_a_shape_error(save: Save) -> None:
    with pytest.raises(ShapeError, match=r"weight must have shape \(2, 4\); got \(2, 3\)"):
        load_into(nn.Linear(4, 2), save(nn.Linear(3, 2).state_dict()))


def test_kinds_of_numbers_alone_are_a_dtype_error(save: Save) -> None:
    with pytest.raises(DtypeError, match="weight must hold floating-point numbers, as torch.float32; got torch.int64"):
        load_into(nn.Linear(2, 2, bias=False), save({"weight": torch.ones(2, 2, dtype=torch.int64)}))


def test_all_that_is_wrong_with_an_elman_layer_is_said_at_once(save: Save) -> None:
    state = FullRNN(I, H, O).state_dict()
    state["hidden_to_output.weight"] = torch.ones(O, H + 1)
    state["rnn_cell.input_to_hidden.weight"][1, 2] = float("nan")
    state["rnn_cell.hidden_to_hidden.bias"] = torch.ones(H, dtype=torch.int64)
    with pytest.raises(InputError, match="does not hold one Elman layer and its readout:") as caught:
        read_weights(save(state))
    assert str(caught.value).splitlines()[1:] == [
        "  hidden_to_output.weight must have shape (2, 4); got (2, 5)",
        "  rnn_cell.input_to_hidden.weight must be finite; 1 of its 12 values are not, the first nan at (1, 2)",
        "  rnn_cell.hidden_to_hidden.bias must hold floating-point numbers; got torch.int64",
    ]


def test_a_hand_written_network_takes_what_was_read_by_the_same_check(save: Save) -> None:
    expected, model = FullRNN(I, H, O), FullRNN(I, H, O)
    assert load(model, read_weights(save(expected.state_dict())).tensors, "w.pt") == ()
    assert same(model.state_dict(), expected.state_dict())
    with pytest.raises(ShapeError, match=r"w.pt does not fit FullRNN:\n  hidden_to_output.bias must have shape \(2,\)"):
        load(model, {**expected.state_dict(), "hidden_to_output.bias": torch.ones(3)}, "w.pt")
    assert same(model.state_dict(), expected.state_dict())


def test_a_module_with_an_extra_state_is_loaded(save: Save) -> None:
    class Counting(nn.Linear):
        calls = 0

        def get_extra_state(self) -> Any:
            return {"calls": self.calls}

        def set_extra_state(self, state: Any) -> None:
            self.calls = state["calls"]

    expected = Counting(2, 2)
    model = Counting(2, 2)
    assert load_into(model, save(expected.state_dict())) == ()
    assert torch.equal(model.weight, expected.weight)


# ---- what a checkpoint holds --------------------------------------------------------------------


def oracle(block: Tensor) -> tuple[float | None, float]:
    values = block.double().numpy()
    square = values.shape[0] == values.shape[1]
    return (float(np.abs(np.linalg.eigvals(values)).max()) if square else None), float(np.linalg.norm(values, 2))


def assert_measured(found: Any, name: str, W_hh: Tensor, gates: str) -> None:
    """Every gate's block of W_hh, against numpy."""
    rows = [row for row in found.recurrent if row["name"] == name]
    size = W_hh.shape[0] // max(1, len(gates))
    assert [row["gate"] for row in rows] == (list(gates) or [""])
    for i, row in enumerate(rows):
        block = W_hh[i * size : (i + 1) * size]
        radius, norm = oracle(block)
        assert row["shape"] == tuple(block.shape)
        assert row["spectral_radius"] == (None if radius is None else pytest.approx(radius, rel=1e-9))
        assert row["spectral_norm"] == pytest.approx(norm, rel=1e-9)


KINDS = {"rnn": (nn.RNN, ""), "gru": (nn.GRU, "rzn"), "lstm": (nn.LSTM, "ifgo")}


@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_layer_and_direction_of_a_module_is_known_by_cell_and_gate(
    save: Save, cell: str, bidirectional: bool
) -> None:
    kind, gates = KINDS[cell]
    expected = state(kind=kind, num_layers=2, bidirectional=bidirectional)
    found = rnnctl.checkpoint_contents(save(expected))
    rows = {row["name"]: row for row in found.rows}
    assert list(rows) == list(expected)
    for name, tensor in expected.items():
        row, is_rnn = rows[name], name.startswith("rnn.")
        assert (row["shape"], row["elements"]) == (tuple(tensor.shape), tensor.numel())
        assert row["dtype"] == ("int64" if name.endswith("tracked") else "float32")
        assert row["cell"] == (cell if is_rnn else None)
        assert row["layer"] == (int("_l1" in name) if is_rnn else None)
        assert row["direction"] == (("reverse" if "reverse" in name else "forward") if is_rnn else None)
        assert row["recurrent"] == ("weight_hh" in name)
        if row["recurrent"]:
            assert_measured(found, name, tensor, gates)
    assert found.scalars["recurrent"] == (4 if bidirectional else 2)


@pytest.mark.parametrize(("kind", "cell"), [(nn.RNNCell, "rnn"), (nn.GRUCell, "gru"), (nn.LSTMCell, "lstm")])
def test_cells_are_known_without_a_layer(save: Save, kind: Any, cell: str) -> None:
    expected = kind(I, H).state_dict()
    found = rnnctl.checkpoint_contents(save(expected))
    assert {row["cell"] for row in found.rows} == {cell}
    assert {(row["layer"], row["direction"]) for row in found.rows} == {(None, None)}
    assert_measured(found, "weight_hh", expected["weight_hh"], KINDS[cell][1])


@pytest.mark.parametrize("proj", [1, 2, 3])
def test_a_projected_lstm_has_norms_and_a_radius_only_where_its_blocks_are_square(save: Save, proj: int) -> None:
    expected = nn.LSTM(I, H, proj_size=proj).state_dict()
    found = rnnctl.checkpoint_contents(save(expected))
    assert {row["cell"] for row in found.rows} == {"lstm"}
    assert_measured(found, "weight_hh_l0", expected["weight_hh_l0"], "ifgo")
    assert {row["spectral_radius"] for row in found.recurrent} == {None}
    assert found.scalars["largest_spectral_radius"] is None
    assert found.scalars["largest_spectral_norm"] > 0


def test_the_own_network_is_known_under_its_own_names(save: Save) -> None:
    model = FullRNN(I, H, O)
    found = rnnctl.checkpoint_contents(save(model.state_dict()))
    assert {row["name"] for row in found.rows if row["cell"] == "elman (rnnctl)"} == {
        name for name in model.state_dict() if name.startswith("rnn_cell.")
    }
    W_hh = model.rnn_cell.hidden_to_hidden.weight.detach()
    assert_measured(found, "rnn_cell.hidden_to_hidden.weight", W_hh, "")
    assert_measured(rnnctl.checkpoint_contents(save(model.rnn_cell.state_dict())), "hidden_to_hidden.weight", W_hh, "")


def test_a_square_matrix_of_another_name_is_not_called_recurrent() -> None:
    tensors = {name: torch.eye(4) for name in ("attention.weight", "W_hh", "weight_hh_l0_raw", "weight_ih_l0", "hh")}
    found = contents(tensors, "tensors")
    assert found.recurrent == ()
    assert {row["cell"] for row in found.rows} == {None}
    assert found.scalars["recurrent"] == 0


@pytest.mark.parametrize(
    ("shapes", "cell"),
    [
        ({"weight_hh_l0": (12, 4)}, "gru"),
        ({"weight_hh_l0": (12, 4), "weight_ih_l0": (16, 3)}, None),
        ({"weight_hh_l0": (8, 4)}, None),
        ({"weight_hh_l0": (4, 8)}, None),
        ({"weight_hh_l0": (16, 2), "weight_hr_l0": (3, 4)}, None),
        ({"weight_hh_l0": (12, 4), "weight_hh_l0_reverse": (16, 4)}, "gru"),
        ({"hidden_to_hidden.weight": (12, 4)}, None),
    ],
)
def test_a_cell_is_told_by_shapes_that_agree(shapes: Mapping[str, tuple[int, ...]], cell: str | None) -> None:
    torch.manual_seed(0)
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    found = contents(tensors, "tensors")
    name = next(iter(shapes))
    assert found.rows[0]["cell"] == cell
    assert found.rows[0]["recurrent"]
    assert_measured(found, name, tensors[name], KINDS[cell][1] if cell else "")


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(4), torch.ones(2, 4, 4), torch.ones(0, 0), torch.ones(4, 0), torch.tensor(1.0)]
    + [torch.ones(4, 4, dtype=torch.int8), torch.ones(4, 4, dtype=torch.complex64)],
)
def test_a_recurrent_name_without_a_real_matrix_is_listed_and_not_measured(tensor: Tensor) -> None:
    found = contents({"weight_hh_l0": tensor, "weight_ih_l0": tensor}, "tensors")
    assert found.recurrent == ()
    assert [row["recurrent"] for row in found.rows] == [False, False]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_gate_that_is_not_finite_has_no_radius_and_the_others_have_theirs(save: Save, bad: float) -> None:
    expected = state(kind=nn.LSTM)
    expected["rnn.weight_hh_l0"][5, 1] = bad
    expected["head.bias"][:] = bad
    found = rnnctl.checkpoint_contents(save(expected))
    measured = {row["gate"]: row for row in found.recurrent}
    assert (measured["f"]["spectral_radius"], measured["f"]["spectral_norm"]) == (None, None)
    assert all(measured[gate]["spectral_radius"] is not None for gate in "igo")
    assert {row["name"]: row["nonfinite"] for row in found.rows if row["nonfinite"]} == {
        "rnn.weight_hh_l0": 1,
        "head.bias": O,
    }
    assert found.scalars["nonfinite"] == 1 + O
    assert found.conditions == {"nonfinite": True}


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_every_floating_dtype_is_measured_exactly(save: Save, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    W_hh = torch.randn(4, 4).to(dtype)
    found = rnnctl.checkpoint_contents(save({"weight_hh": W_hh}))
    assert found.rows[0]["dtype"] == str(dtype).removeprefix("torch.")
    assert found.scalars["bytes"] == 16 * dtype.itemsize
    assert_measured(found, "weight_hh", W_hh.double(), "")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.complex64])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_nonfinite_elements_are_counted_in_every_dtype_and_layout(
    dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnnctl.recurrence.finite.CHUNK", chunk)
    tensor = torch.zeros(3, 5)
    tensor[0, 0], tensor[1, 4], tensor[2, 2] = float("nan"), float("inf"), -float("inf")
    assert nonfinite_count(tensor.to(dtype).T) == 3
    assert nonfinite_count(torch.full((2, 2), 7)) == 0
    assert nonfinite_count(torch.zeros(3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)) == 0


def test_a_packed_dtype_is_listed_and_not_measured(save: Save) -> None:
    packed = torch.zeros(4, 4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    found = rnnctl.checkpoint_contents(save({"weight_hh": packed}))
    assert (found.rows[0]["recurrent"], found.rows[0]["nonfinite"]) == (False, 0)


def test_a_norm_beyond_every_number_has_no_value() -> None:
    found = contents({"weight_hh": torch.full((2, 2), 1.7e308, dtype=torch.float64)}, "tensors")
    norm = found.recurrent[0]["spectral_norm"]
    assert norm is None or np.isfinite(norm)


def test_sums_are_those_of_the_tensors(save: Save) -> None:
    expected = state()
    scalars = rnnctl.checkpoint_contents(save(expected)).scalars
    assert scalars["tensors"] == len(expected)
    assert scalars["elements"] == sum(tensor.numel() for tensor in expected.values())
    assert scalars["bytes"] == sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    measured = [oracle(block) for block in expected["rnn.weight_hh_l0"].chunk(4)]
    radius, norm = max(found[0] or 0.0 for found in measured), max(found[1] for found in measured)
    assert scalars["largest_spectral_radius"] == pytest.approx(radius, rel=1e-9)
    assert scalars["largest_spectral_norm"] == pytest.approx(norm, rel=1e-9)


@pytest.mark.parametrize("value", [{}, {"norm._extra_state": 3}])
def test_a_file_without_a_tensor_has_nothing_to_list(save: Save, value: Any) -> None:
    with pytest.raises(InputError, match=r"run\.pt holds no tensor; there is nothing to list"):
        rnnctl.checkpoint_contents(save(value))


def test_a_matrix_whose_spectrum_does_not_fit_into_memory_is_refused_before_it_is_computed(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(state())
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: 10**5)
    assert rnnctl.checkpoint_contents(path).recurrent
    monkeypatch.setattr("rnnctl.dynamics.checkpoint.spectral_norm", None)
    monkeypatch.setattr("rnnctl.files.checkpoints.read_bytes", Path.read_bytes)
    monkeypatch.setattr("rnnctl.files.containers.require_memory", lambda needed, what: None)
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: 1000)
    with pytest.raises(TooLargeError, match=r"the spectrum of rnn\.weight_hh_l0 in .* would take 1 KiB"):
        rnnctl.checkpoint_contents(path)


def test_progress_rises_to_the_end(save: Save) -> None:
    seen: list[float] = []
    rnnctl.checkpoint_contents(save(state(num_layers=2)), progress=seen.append)
    assert seen == sorted(seen)
    assert len(seen) == 2 * 2 * 4
    assert seen[-1] == pytest.approx(1.0)


def test_a_file_of_weights_is_not_changed_by_looking_into_it(save: Save) -> None:
    path = save({"model": state(), "epoch": 3})
    before = path.read_bytes()
    rnnctl.checkpoint_contents(path)
    assert path.read_bytes() == before


# ---- tensors larger than their storage ----------------------------------------------------------


class Storage:
    """Stands for a storage in a pickle."""


class Rebuilt:
    """A tensor over a storage, of any geometry."""

    def __init__(self, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.geometry = offset, size, stride

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, (Storage(), *self.geometry, False, OrderedDict())


def crafted(
    elements: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *, zipped: bool = True
) -> bytes:
    """A .pt file whose weight_hh claims what it likes over a storage of three float32, told to have ``elements``."""

    class Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
        def persistent_id(self, value: Any) -> Any:
            named = ("storage", torch.FloatStorage, "0", "cpu", elements)
            return None if not isinstance(value, Storage) else named if zipped else (*named, None)

    stream, whole = io.BytesIO(), io.BytesIO()
    Pickler(stream, protocol=2).dump({"model": {"weight_hh": Rebuilt(offset, size, stride)}, "epoch": 3})
    if not zipped:
        head = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION)
        sizes = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
        parts = [pickle.dumps(part, 2) for part in (*head, sizes)] + [stream.getvalue(), pickle.dumps(["0"], 2)]
        return b"".join(parts) + struct.pack("<q", elements) + bytes(12)
    torch.save({"weight_hh": torch.zeros(3)}, whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(result := io.BytesIO(), "w") as new:
        for member in old.infolist():
            data = stream.getvalue() if member.filename.endswith("data.pkl") else old.read(member)
            new.writestr(member.filename, data)
    return result.getvalue()


def safetensors_file(entry: Mapping[str, Any], data: bytes) -> bytes:
    header = json.dumps({"__metadata__": {"format": "pt"}, "weight_hh": entry}).encode()
    return struct.pack("<Q", len(header)) + header + data


LARGER = (
    r"run\.pt is not a readable \.pt file: model: weight_hh is larger than its storage: "
    r"shape \({}\) claims {} bytes.*; the file holds 12 for it"
)


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        ((3, 0, (4, 4), (4, 1)), LARGER.format("4, 4", "64")),
        ((3, 0, (2, 2), (1000, 1)), LARGER.format("2, 2", "4,008")),
        ((3, 1000, (1,), (1,)), LARGER.format("1,", "4,004")),
        ((10**6, 0, (1000, 1000), (1000, 1)), LARGER.format("1000, 1000", "4,000,000")),
        ((10**13, 0, (10**6, 10**7), (10**7, 1)), LARGER.format("1000000, 10000000", "40,000,000,000,000")),
        ((4, 0, (2, 2), (2, 1)), LARGER.format("2, 2", "16")),
        ((3, -5, (1,), (1,)), "invalid storage offset -5"),
        ((3, 2, (2,), (-1,)), "larger than its storage|overflowed"),
        ((3, 0, (2**62, 8), (8, 1)), "overflow"),
        ((2, 0, (2,), (1,)), "does not match expected size"),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused_by_name_and_size(save: Save, geometry: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_checkpoint(save(crafted(*geometry)))


@pytest.mark.parametrize(
    "geometry",
    [(3, 0, (4, 4), (4, 1)), (3, 1000, (1,), (1,)), (10**6, 0, (1000, 1000), (1000, 1)), (3, -5, (1,), (1,))],
)
def test_a_tensor_beyond_its_storage_is_refused_in_the_older_format_too(save: Save, geometry: Any) -> None:
    with pytest.raises(InputError, match=r"run\.pt is not a readable \.pt file: "):
        read_checkpoint(save(crafted(*geometry, zipped=False)))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("size", "stride", "claimed"),
    [((10**6, 10**6), (0, 0), "4,000,000,000,000"), ((5, 3), (0, 1), "60"), ((2, 2), (1, 1), "16")],
)
def test_a_tensor_that_repeats_its_storage_is_refused(
    save: Save, size: Any, stride: Any, claimed: str, zipped: bool
) -> None:
    with pytest.raises(
        InputError, match=rf"weight_hh is larger than its storage: .* claims {claimed} bytes .* holds 12"
    ):
        rnnctl.checkpoint_contents(save(crafted(3, 0, size, stride, zipped=zipped)))


def test_the_crafted_files_are_read_where_they_tell_the_truth(save: Save) -> None:
    for zipped in (True, False):
        found = read_checkpoint(save(crafted(3, 1, (1, 2), (2, 1), zipped=zipped)))
        assert torch.equal(found.tensors["weight_hh"], torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("entry", "size", "words"),
    [
        ({"dtype": "F32", "shape": [10, 100], "data_offsets": [0, 4000]}, 12, r"\(10, 100\) claims 4,000 .* holds 12 "),
        ({"dtype": "F32", "shape": [1000], "data_offsets": [0, 12]}, 12, r"\(1000,\) claims 4,000 .* holds 12 "),
        ({"dtype": "F64", "shape": [2], "data_offsets": [8, 24]}, 12, r"\(2,\) claims 16 .* holds 4 "),
        ({"dtype": "BF16", "shape": [2**62, 8], "data_offsets": [0, 12]}, 12, "is larger than its storage"),
        ({"dtype": "BOOL", "shape": [13], "data_offsets": [0, 13]}, 12, "claims 13 .* holds 12 "),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}, 20, "not fully covered"),
        ({"dtype": "F32", "shape": "no"}, 12, "invalid JSON"),
        ({"dtype": "XX", "shape": [3], "data_offsets": [0, 12]}, 12, "unknown variant `XX`"),
    ],
)
def test_a_safetensors_header_beyond_its_file_is_refused(save: Save, entry: Any, size: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_checkpoint(save(safetensors_file(entry, bytes(size)), "run.safetensors"))


def test_tied_and_sliced_tensors_fit_into_the_storage_that_they_share(save: Save) -> None:
    whole = torch.arange(32.0).view(8, 4)
    tied = {"a": whole, "b": whole, "part": whole[2:4, 1:3], "turned": whole.T}
    found = read_checkpoint(save(tied))
    assert same(found.tensors, tied)
    assert rnnctl.checkpoint_contents(save(tied)).scalars["elements"] == 3 * 32 + 4


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.eye(3).to_sparse(), "weight_hh must be a plain dense tensor; got a sparse_coo one"),
        (torch.empty(10**6, 10**6, device="meta"), r"got a meta \(without values\) one"),
    ],
)
def test_a_tensor_without_plain_values_is_refused_by_name(save: Save, tensor: Tensor, words: str) -> None:
    with pytest.raises(DtypeError, match=words):
        rnnctl.checkpoint_contents(save({"weight_hh": tensor}))


# ---- the command --------------------------------------------------------------------------------


def test_every_format_of_the_command_says_the_same(save: Save, cli: Any) -> None:
    path = save({"model": state(), "epoch": 12})
    code, out, err = cli("weights", path, "--json")
    found = json.loads(out)
    assert (code, err) == (0, f"Note: {path}: taken from its 'model'\n")
    assert list(found)[:6] == ["schema", "schema_version", "versions", "config", "scalars", "rows"]
    assert (found["schema"], found["config"]) == ("rnnctl.weights", {"file": str(path)})
    assert found["other"] == [{"name": "epoch", "holds": "int 12"}]
    assert [row["gate"] for row in found["recurrent"]] == list("ifgo")
    assert [json.loads(line) for line in cli("weights", path, "--format", "jsonl")[1].splitlines()] == found["rows"]
    cells = list(csv.DictReader(io.StringIO(cli("weights", path, "--format", "csv")[1])))
    assert [cell["name"] for cell in cells] == [row["name"] for row in found["rows"]]
    assert cells[1]["shape"] == "16x4"
    table = cli("weights", path)[1]
    assert table.startswith(f"weights: {path}\n")
    for words in ("rnn.weight_hh_l0", "(16, 4)", "lstm", "every W_hh, gate by gate", "int 12"):
        assert words in table
    for row in found["recurrent"]:
        assert f"{row['spectral_radius']:.4g}" in table


def test_tables_without_a_line_are_left_out(save: Save, cli: Any) -> None:
    out = cli("weights", save(nn.Linear(2, 2).state_dict()))[1]
    assert "every W_hh" not in out
    assert "beside the tensors" not in out
    assert "no recurrent matrix is known by its name" in out


def test_the_name_of_a_tensor_sends_no_control_codes_to_the_terminal(save: Save, cli: Any) -> None:
    out = cli("weights", save({"model": {"evil\x1b[2J\nname": torch.ones(1)}, "x\x1b": "\x1b[31m"}))[1]
    assert "\x1b" not in out
    assert r"evil\x1b[2J\nname" in out


@pytest.mark.parametrize(("condition", "code"), [("nonfinite>0", 3), ("nonfinite", 3), ("recurrent==0", 0)])
def test_conditions_on_what_a_checkpoint_holds(save: Save, cli: Any, condition: str, code: int) -> None:
    broken = state()
    broken["head.bias"][0] = float("nan")
    assert cli("weights", save(broken), "--fail-on", condition)[0] == code


def test_a_sound_checkpoint_fails_on_no_nonfinite_value(save: Save, cli: Any) -> None:
    assert cli("weights", save(state()), "--fail-on", "nonfinite>0", "--fail-on", "nonfinite")[0] == 0


def test_the_result_goes_to_a_file_and_never_over_the_checkpoint(save: Save, cli: Any, tmp_path: Path) -> None:
    path = save(state())
    before = path.read_bytes()
    code, out, err = cli("weights", path, "-o", path, "--force")
    assert (code, out) == (2, "")
    assert "is read by this very command" in err
    assert path.read_bytes() == before
    assert cli("weights", path, "-o", tmp_path / "a.json")[:2] == (0, "")
    assert json.loads((tmp_path / "a.json").read_text())["schema"] == "rnnctl.weights"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["weights"], "Missing argument 'FILE'"),
        (["weights", "missing.pt"], "there is no file 'missing.pt'"),
        (["weights", "."], "Is a directory"),
        (["weights", "a.pt", "b.pt"], "b.pt"),
        (["weights", "a.pt", "--hidden-size", "3"], "--hidden-size"),
        (["weights", "missing.pt", "--fail-on", "1<2"], "expected a comparison"),
    ],
)
def test_a_mistake_is_one_message_and_exit_2(
    cli: Any, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("Error: ")


def test_quiet_leaves_the_note_out(save: Save, cli: Any) -> None:
    assert cli("weights", save({"model": state()}), "-q")[2] == ""


def test_the_tensors_of_a_safetensors_file_come_in_one_order_every_time(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    safetensors.torch.save_file({name: torch.zeros(2) for name in "hgfedcba"}, path)
    assert [list(read_checkpoint(path).tensors) for _ in range(3)] == [list("abcdefgh")] * 3


def test_own_weights_beyond_a_narrower_dtype_are_refused(tmp_path, capsys, monkeypatch):
    run = runner(capsys, monkeypatch, tmp_path)
    state = {**nn.RNN(10, 20).state_dict()}
    state["weight_ih_l0"] = state["weight_ih_l0"] * 1e8
    torch.save(state, tmp_path / "big.pt")
    assert run("forward --weights big.pt").code == 0
    ran = run("forward --weights big.pt --dtype float16")
    assert (ran.code, ran.out) == (2, "")
    assert "must fit into torch.float16" in ran.err
