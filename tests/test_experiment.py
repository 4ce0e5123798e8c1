"""Options from a plain mapping, and the experiment that they make in any process."""

import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from shell import Run, document, forget_modules_of, runner

from rnnctl import gradnorm
from rnnctl.cli.commands.bench import BenchOptions
from rnnctl.cli.commands.check import CheckOptions
from rnnctl.cli.commands.flow import FlowOptions
from rnnctl.cli.commands.gradnorm import GradnormOptions
from rnnctl.cli.commands.lyapunov import LyapunovOptions
from rnnctl.cli.commands.spectrum import SpectrumOptions
from rnnctl.cli.commands.truncation import TruncationOptions
from rnnctl.cli.commands.weights import WeightsOptions
from rnnctl.cli.options.mapping import options_from
from rnnctl.cli.setup.experiment import Experiment, experiment
from rnnctl.errors import InputError, RnnctlError

TRAIN = """
from torch import nn

class Two(nn.Module):
    def __init__(self, hidden=4):
        super().__init__()
        self.encoder, self.decoder = nn.GRU(10, hidden, batch_first=True), nn.LSTM(hidden, 5, batch_first=True)

    def forward(self, x):
        return self.decoder(self.encoder(x)[0])[0]

def squares(output, target):
    return output.square().sum()
"""

# A mapping, as a sweep would have it, of each kind of network.
MAPPINGS: Mapping[str, Mapping[str, Any]] = {
    "hand-written": {"hidden-size": 8, "seed": 3, "h_init": "normal", "gain": 1.5, "threads": 2, "loss-at": "all"},
    "real data": {"input": "x.npy", "standardize": True, "bias": False, "target": "next", "dtype": "bfloat16"},
    "cell": {"cell": "lstm", "num-layers": 2, "hidden_size": 3, "seed": 4, "lengths": "lengths.csv"},
    "users": {"model": "train:Two", "model-arg": ["hidden=3"], "loss-fn": "train:squares", "threads": 2, "seed": 5},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what the mappings name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "lengths.csv").write_text("7\n3\n5\n1\n")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(3.0, 2.0, (2, 6, 5)).astype(np.float32))
    yield tmp_path
    forget_modules_of(tmp_path)


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command line in that folder."""
    return runner(capsys, monkeypatch, folder)


def made(kind: type[Any], **mapping: Any) -> Experiment:
    return experiment(options_from(kind, mapping))


def flags(mapping: Mapping[str, Any]) -> list[str]:
    """The mapping as somebody would type it."""
    typed = []
    for key, value in mapping.items():
        name = key.replace("_", "-")
        if isinstance(value, bool):
            typed.append(f"--{name}" if value else f"--no-{name}")
        else:
            items = value if isinstance(value, list) else [value]
            typed += [part for item in items for part in (f"--{name}", str(item))]
    return typed


# ---- in a process of its own --------------------------------------------------------------------


def in_a_worker(folder: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """What a sweep's worker sees of one experiment: called in a process of its own."""
    os.chdir(folder)
    torch.set_num_threads(1)
    torch.manual_seed(11)
    state, files = torch.get_rng_state(), sorted(os.listdir("."))
    with open("said", "w+b") as said:
        kept = [os.dup(1), os.dup(2)]
        for number in (1, 2):
            os.dup2(said.fileno(), number)
        built = experiment(options_from(GradnormOptions, {**mapping, "save-weights": "never.safetensors"}))
        for number, own in enumerate(kept, start=1):
            os.dup2(own, number)
        said.seek(0)
        text = said.read()
    os.remove("said")
    left = set(os.listdir(".")) - set(files) - {"__pycache__"}
    untouched = torch.get_num_threads() == 1 and torch.equal(torch.get_rng_state(), state)
    with built.running():
        within, options = torch.get_num_threads(), {"loss": "mse", "loss_at": built.config["loss_at"]}
        more = {"loss_fn": built.loss_fn, "lengths": built.lengths, **built.of_gradient}
        result = gradnorm(built.model, built.x, **options, **more)
    after = torch.get_num_threads() == 1 and torch.equal(torch.get_rng_state(), state)
    weights = {name: value.float().numpy() for name, value in built.model.state_dict().items()}
    found = {"said": text, "left": left, "untouched": untouched, "within": within, "after": after}
    return {**found, "config": dict(built.config), "weights": weights, "norms": result.rows, "notes": built.notes}


@pytest.mark.slow
def test_a_worker_makes_from_a_mapping_what_the_command_line_makes(run: Run, folder: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {name: pool.submit(in_a_worker, str(folder), mapping) for name, mapping in MAPPINGS.items()}
        workers = {name: future.result(timeout=300) for name, future in futures.items()}
    for name, mapping in MAPPINGS.items():
        typed, found = flags(mapping), workers[name]
        ran = run("gradnorm --json --save-weights w.safetensors --force", *typed)
        assert ran.code == 0, ran.err
        expected, own = document(ran), found["config"]
        assert (found["said"], found["left"]) == (b"", set()), name
        assert found["untouched"] and found["after"], name
        assert found["within"] == mapping.get("threads", 1)
        assert (own.pop("save_weights"), expected["config"].pop("save_weights")) != (None, None)
        assert own == expected["config"]
        assert [f"Note: {note}" for note in found["notes"]] == ran.err.splitlines()[:-1]
        saved = {key: value.float().numpy() for key, value in load_file(folder / "w.safetensors").items()}
        np.testing.assert_equal(found["weights"], saved)
        # As JSON, where what is undefined is null.
        assert json.loads(json.dumps(found["norms"])) == expected["rows"]


# ---- nothing of the process is changed ----------------------------------------------------------


@pytest.mark.parametrize("name", MAPPINGS)
def test_an_experiment_prints_nothing_and_writes_nothing(
    name: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.iterdir())
    found = made(GradnormOptions, **MAPPINGS[name], save_weights="w.safetensors")
    assert capfd.readouterr() == ("", "")
    assert sorted(path for path in folder.iterdir() if path.name != "__pycache__") == before
    assert found.config["save_weights"] == "w.safetensors"


def test_what_a_command_would_tell_is_in_the_notes(folder: Path) -> None:
    np.save(folder / "flat.npy", np.ones((2, 4, 1), dtype=np.float32))
    notes = made(GradnormOptions, input="flat.npy", standardize=True, dtype="bfloat16").notes
    assert ["is constant" in note for note in notes] == [True, False]
    assert "swept along them in float32" in notes[1]


def test_threads_are_put_back_where_the_users_code_raises(folder: Path) -> None:
    (folder / "train.py").write_text("def build():\n    raise ValueError('trouble')\n")
    state = torch.get_rng_state()
    with pytest.raises(RnnctlError, match="train:build raised"):
        made(GradnormOptions, model="train:build", threads=2)
    assert torch.get_num_threads() == 1
    assert torch.equal(torch.get_rng_state(), state)


def test_the_threads_are_there_while_a_question_is_asked() -> None:
    found = made(GradnormOptions, threads=2)
    assert (found.config["threads"], torch.get_num_threads()) == (2, 1)
    with pytest.raises(ZeroDivisionError), found.running():
        assert torch.get_num_threads() == 2
        raise ZeroDivisionError
    assert torch.get_num_threads() == 1


# ---- what a command asks for --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "loss_at", "dtype"),
    [
        (GradnormOptions, "last", torch.float32),
        (FlowOptions, "all", torch.float32),
        (TruncationOptions, "all", torch.float32),
        (BenchOptions, "all", torch.float32),
        (SpectrumOptions, None, torch.float32),
        (CheckOptions, None, torch.float64),
    ],
)
def test_a_command_has_its_own_loss_steps_and_dtype(kind: type[Any], loss_at: str | None, dtype: torch.dtype) -> None:
    found = made(kind)
    assert (found.config.get("loss_at"), found.x.dtype, found.h_init.dtype) == (loss_at, dtype, dtype)


def test_a_free_run_starts_from_a_normal_state_unless_told() -> None:
    assert made(LyapunovOptions, autonomous=True).h_init.any()
    assert not made(LyapunovOptions).h_init.any()
    assert not made(LyapunovOptions, autonomous=True, h_init="zeros").h_init.any()
    assert made(LyapunovOptions, cell="gru", autonomous=True).h_init is None


def test_a_network_starts_as_it_does_by_itself_where_lengths_differ(folder: Path) -> None:
    found = made(GradnormOptions, lengths="lengths.csv")
    assert (found.h_init, found.lengths.tolist(), found.config["h_init"]) == (None, [7, 3, 5, 1], "zeros")
    with pytest.raises(InputError, match="--h-init is not for sequences of different lengths"):
        made(GradnormOptions, lengths="lengths.csv", h_init="zeros")


def test_how_weights_were_drawn_is_known_where_they_were_drawn_here(run: Run) -> None:
    run("cell --save-weights w.safetensors")
    drawn = made(LyapunovOptions, init="gaussian", gain=2, seed=3).drawn
    assert (drawn.init, drawn.gain, drawn.seed) == ("gaussian", 2.0, 3)
    assert made(LyapunovOptions, weights="w.safetensors").drawn.init is None
    drawn = made(LyapunovOptions, cell="gru", init="gaussian", gain=2.0).drawn
    assert (drawn.init, drawn.gain) == ("gaussian", 2.0)


def test_what_is_asked_of_the_hand_written_network_is_not_asked_of_another() -> None:
    network, h_init = made(GradnormOptions, hidden_size=3).hand_written
    assert (network.rnn_cell.hidden_size, h_init.shape) == (3, (4, 3))
    with pytest.raises(InputError, match="expected the hand-written network; got --cell gru"):
        _ = made(GradnormOptions, cell="gru").hand_written


# ---- options from a mapping ---------------------------------------------------------------------


def test_a_key_is_the_flags_name_with_hyphens_or_underscores() -> None:
    found = [options_from(GradnormOptions, {key: 6}).model.hidden_size for key in ("hidden-size", "hidden_size")]
    assert found == [6, 6]
    assert not options_from(GradnormOptions, {"no-bias": True}).model.bias
    assert options_from(TruncationOptions, {"windows": [1, 4]}).window.chosen == [1, 4]
    assert options_from(WeightsOptions, {"file": "w.pt"}).checkpoint.file == Path("w.pt")
    assert options_from(GradnormOptions, {"fail-on": ["loss>0", "vanishing"]}).out.fail_on == ["loss>0", "vanishing"]


def test_an_empty_mapping_is_the_defaults_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNCTL_SEED", "7")
    monkeypatch.setenv("RNNCTL_CONFIG", "missing.toml")
    found = options_from(GradnormOptions, {})
    assert (found.run.seed, found.model.hidden_size, found.verdict.vanish_below) == (0, None, 1e-3)


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"hiden-size": 3}, r"unknown option 'hiden-size'\. Did you mean hidden-size\?"),
        ({"hiden_size": 3}, r"unknown option 'hiden_size'\. Did you mean hidden-size\?"),
        ({"config": "a.toml"}, "unknown option 'config'"),
        ({"help": True}, "unknown option 'help'"),
        ({1: 2}, "names of options are texts; got 1"),
        ({"windows": "1"}, "unknown option 'windows'"),
        ({"hidden-size": 0}, "hidden-size = 0: expected a whole number of at least 1; got '0'"),
        ({"hidden-size": 2.5}, r"hidden-size = 2\.5: expected a whole number of at least 1"),
        ({"hidden-size": True}, "hidden-size = True: expected a value, not a boolean"),
        ({"hidden-size": None}, "hidden-size = None: expected a number, a text, a boolean or a list"),
        ({"hidden-size": [1, 2]}, "expected a whole number"),
        ({"hidden-size": {"a": 1}}, "expected a number, a text, a boolean or a list"),
        ({"hidden-size": 3, "hidden_size": 4}, "'hidden_size' gives hidden-size a second time"),
        ({"bias": True, "no-bias": True}, "'no-bias' gives bias a second time"),
        ({"gain": float("nan")}, "gain = nan: expected a finite number; got 'nan'"),
        ({"bias": 1}, "bias = 1: expected true or false"),
        ({"nonlinearity": "gelu"}, "nonlinearity = 'gelu': 'gelu' is not one of 'tanh', 'relu'"),
        ({"seed": 2**64}, "expected a whole number from 0 to"),
    ],
)
def test_a_mistake_in_a_mapping_names_the_key_and_what_is_right(mapping: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        options_from(GradnormOptions, mapping)


def test_an_argument_must_be_given() -> None:
    with pytest.raises(InputError, match="file must be given"):
        options_from(WeightsOptions, {})


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"target": "next"}, "add --input"),
        ({"columns": "a"}, "--columns is about --input"),
        ({"model": "train:Two", "gain": 2}, "--gain shapes a network that we build"),
        ({"num-layers": 2}, "the hand-written network has one layer"),
        ({"device": "cuda"}, "this torch finds no such device"),
    ],
)
def test_options_that_clash_are_refused_without_a_command_line(
    mapping: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=said):
        made(GradnormOptions, **mapping)
