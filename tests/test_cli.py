"""Commands, options, streams and exit codes, in this process."""

import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import save_file
from shell import InThisProcess, Run, document, forget_modules_of, runner
from torch import nn

from rnnctl import __version__, sweep, watch
from rnnctl.__main__ import main
from rnnctl.cli import options
from rnnctl.cli.app import app

COMMANDS = ("cell", "forward", "unroll", "gradnorm", "flow", "truncation", "spectrum", "lyapunov", "check", "bench")
TWO_GAINS = "--vary gain=1,2 --to x.jsonl --json -q"
QUICK_BENCH = "bench --hidden-size 3 --repeats 1 --no-memory"
# A bench cannot repeat its own times.
TIMED = (
    "seconds",
    "milliseconds",
    "ratio",
    "sweep_ratio",
    "probe_ratio",
    "gemm_gigaflops",
    "speedup",
    "gemm_share",
    "targets_met",
    "change",
    "worst_change",
    "seconds",
    "seconds_per_run",
)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Run one command line in an empty folder and an environment without settings."""
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


class Terminal(io.StringIO):
    """Text that believes itself on a screen."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


# ---- every option -------------------------------------------------------------------------------

# Option -> the command without it, and what is added.
CASES: Mapping[str, tuple[str, str]] = {
    "model": ("gradnorm --json", "--model train:build"),
    "batch": ("gradnorm --json --model train:build", "--batch train:batch"),
    "time_first": ("gradnorm --json --model train:timefirst", "--time-first"),
    "batch_first": ("gradnorm --json --model train:timefirst", "--batch-first"),
    "model_arg": ("gradnorm --json --model train:build", "--model-arg hidden=3"),
    "module": ("gradnorm --json --model train:build", "--module encoder"),
    "cell": ("gradnorm --json", "--cell lstm"),
    "num_layers": ("gradnorm --json --cell gru", "--num-layers 2"),
    "bidirectional": ("gradnorm --json --cell rnn", "--bidirectional"),
    "lengths": ("gradnorm --json", "--lengths lengths.csv"),
    "loss_fn": ("gradnorm --json --model train:build", "--loss-fn train:squares"),
    "output_key": ("gradnorm --json --model train:both", "--output-key 1"),
    "from_run": ("gradnorm --json", "--from run.jsonl"),
    "input_size": ("forward --json", "--input-size 3"),
    "hidden_size": ("forward --json", "--hidden-size 3"),
    "output_size": ("forward --json", "--output-size 3"),
    "nonlinearity": ("gradnorm --json", "--nonlinearity relu"),
    "output_activation": ("gradnorm --json", "--output-activation softmax"),
    "bias": ("gradnorm --json", "--no-bias"),
    "init": ("gradnorm --json", "--init orthogonal"),
    "gain": ("gradnorm --json", "--gain 2"),
    "weights": ("gradnorm --json", "--weights weights.safetensors"),
    "strict": ("gradnorm --json --weights more.safetensors", "--strict"),
    "save_weights": ("cell --json", "--save-weights new.safetensors"),
    "seq_len": ("gradnorm --json", "--seq-len 3"),
    "skip_steps": ("gradnorm --json --input sunspots", "--skip-steps 200"),
    "batch_size": ("gradnorm --json", "--batch-size 2"),
    "input": ("gradnorm --json", "--input sunspots"),
    "input_format": ("cell --json --input numbers.txt", "--input-format csv"),
    "input_key": ("cell --json --input two.npz", "--input-key b"),
    "columns": ("cell --json --input macrodata", "--columns realgdp"),
    "delimiter": ("cell --json --input times.csv", "--delimiter space"),
    "decimal": ("cell --json --input thirds.csv", "--decimal ,"),
    "header": ("cell --json --input years.csv", "--header no"),
    "standardize": ("gradnorm --json --input sunspots", "--standardize"),
    "target": ("gradnorm --json --input sunspots --output-size 1 --standardize", "--target next"),
    "h_init": ("gradnorm --json", "--h-init normal"),
    "loss": ("gradnorm --json", "--loss sum"),
    "loss_at": ("gradnorm --json", "--loss-at all"),
    "vanish_below": ("gradnorm --json", "--vanish-below 0.5"),
    "explode_above": ("gradnorm --json --init orthogonal --gain 2", "--explode-above 0.002"),
    "verify": ("gradnorm --json", "--no-verify"),
    "count": ("lyapunov --json", "--count 3"),
    "steps": ("lyapunov --json", "--steps 3"),
    "warmup": ("lyapunov --json", "--warmup 2"),
    "autonomous": ("lyapunov --json", "--autonomous"),
    "drawn_as": ("unroll", "--as dot"),
    "repeats": (f"{QUICK_BENCH} --json", "--repeats 2"),
    "flow": (f"{QUICK_BENCH} --json", "--flow"),
    "probe": (f"{QUICK_BENCH} --json", "--probe"),
    "sweep": (f"{QUICK_BENCH} --json", "--sweep"),
    "save": (f"{QUICK_BENCH} --json", "--save new.json"),
    "against": (f"{QUICK_BENCH} --json", "--against before.json --tolerance 1e9"),
    "tolerance": (f"{QUICK_BENCH} --json --against before.json", "--tolerance 1e9"),
    "lag": ("doctor --seq-len 40", "--lag 3"),
    "window": ("doctor --lag 3", "--window 2"),
    "train_steps": ("doctor --input sunspots --target next --seq-len 20 --seeds 1", "--train-steps 2"),
    "try_remedies": ("doctor --seq-len 40 --lag 30 --train-steps 1 --seeds 1", "--try"),
    "only_finding": ("doctor --lag 3", "--only-finding padding"),
    "skip_finding": ("doctor --lag 3", "--skip-finding chaotic"),
    "timings": ("doctor --lag 3 --json", "--timings"),
    "windows": ("truncation --json", "--windows 3"),
    "plot": ("gradnorm --json", "--plot new.png"),
    "report": ("gradnorm --json", "--report new.html"),
    "title": ("gradnorm --json --plot new.svg", "--title mine"),
    "dpi": ("gradnorm --json --plot new.png", "--dpi 60"),
    "memory": ("bench --hidden-size 3 --repeats 1 --json", "--no-memory"),
    "seed": ("gradnorm --json", "--seed 1"),
    "dtype": ("gradnorm --json", "--dtype float64"),
    "device": ("gradnorm --json", "--device cuda"),
    "threads": (f"{QUICK_BENCH} --json", "--threads 2"),
    "format": ("gradnorm", "--format jsonl"),
    "json": ("gradnorm", "--json"),
    "only": ("gradnorm --json", "--only scalars"),
    "all": ("gradnorm --seq-len 60", "--all"),
    "output": ("gradnorm", "-o new.json"),
    "force": ("gradnorm -o there.json", "--force"),
    "color": ("gradnorm", "--color always"),
    "show_config": ("gradnorm --json", "--show-config"),
    "quiet": ("cell --save-weights there.safetensors --force", "-q"),
    "fail_on": ("gradnorm --json", "--fail-on loss>0"),
    "file": ("weights --json", "weights.safetensors"),
    "term": ("explain", "G_t"),
    "chapter": ("guide", "why"),
    "config": ("gradnorm --json", "--config there.toml"),
    "question": (f"sweep {TWO_GAINS}", "spectrum"),
    "vary": ("sweep spectrum --seeds 2 --to x.jsonl --json -q", "--vary hidden-size=3"),
    "vary_together": (f"sweep spectrum {TWO_GAINS} --vary hidden-size=3,4", "--vary-together"),
    "seeds": (f"sweep spectrum {TWO_GAINS}", "--seeds 2"),
    "shard": (f"sweep spectrum {TWO_GAINS}", "--shard 1/2"),
    "dry_run": (f"sweep spectrum {TWO_GAINS}", "--dry-run"),
    "to": ("sweep spectrum --vary gain=1,2 --json -q", "--to new.jsonl"),
    "from_sweep": ("sweep --json", "--from sweep.jsonl"),
    "keep": (f"sweep spectrum {TWO_GAINS}", "--keep rows"),
    "retry_failed": ("sweep spectrum --vary gain=0.5,2 --to sweep.jsonl --json -q", "--retry-failed"),
    "same_versions": ("sweep spectrum --vary gain=0.5,2 --to sweep.jsonl --json -q", "--same-versions"),
    "value": ("sweep --from sweep.jsonl --json", "--value spectral_norm"),
    "jobs": ("sweep spectrum --vary gain=1:4:4 --dry-run --json", "--jobs 3"),
    "scheduler": (f"sweep spectrum {TWO_GAINS}", "--scheduler no.json"),
}


@pytest.fixture
def outcome(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], tuple[Any, ...]]:
    """Exit code, result, messages and files of one command; without the recorded configuration."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("rnnctl.benchmark.gradnorm.peak_bytes", lambda method, work: 2**20)
    monkeypatch.setattr("rnnctl.benchmark.report.system_load", lambda: 0.5)
    monkeypatch.setattr("rnnctl.cli.sweeping.making.WorkerPool", InThisProcess)
    monkeypatch.setattr("rnnctl.cli.commands.sweep.cores", lambda: 2)

    def observed(line: str) -> tuple[Any, ...]:
        for path in tmp_path.iterdir():
            path.unlink()
        write_inputs(tmp_path)
        torch.set_num_threads(1)
        ran = run(line)
        left = {path.name: content(path) for path in sorted(tmp_path.iterdir())}
        return ran.code, comparable(ran.out), ran.err, left

    return observed


def content(path: Path) -> bytes | str:
    """What a command left in a file; of a result what can be compared."""
    if path.suffix == ".jsonl":
        # Lines of runs come in any order, with the hour and how long each took.
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return "\n".join(sorted(json.dumps({**line, "run": None, "seconds": None}) for line in lines))
    return comparable(path.read_text()) if path.suffix == ".json" else path.read_bytes()


def write_inputs(folder: Path) -> None:
    """The files that the cases read."""
    row = {"case": "T 7, B 4, H 3, I 10", "method": "rnnctl sweep", "ratio": 1.0}
    report = {"schema": "rnnctl.bench", "config": {"load": 0.5}, "scalars": {}, "rows": [row]}
    (folder / "before.json").write_text(json.dumps(report))
    (folder / "numbers.txt").write_text("a,b\n1,2\n3,4\n")
    (folder / "times.csv").write_text("a b;c\n1 2;3\n4 5;6\n")
    (folder / "thirds.csv").write_text("a\tb\n1,333\t2,667\n")
    (folder / "years.csv").write_text("2019,2020\n1.5,2.5\n")
    (folder / "there.json").write_text("precious")
    (folder / "there.toml").write_text("seed = 5\n")
    (folder / "train.py").write_text(TRAIN)
    (folder / "lengths.csv").write_text("7\n3\n5\n1\n")
    np.savez(folder / "two.npz", a=np.ones((3, 2)), b=np.zeros((4, 2)))
    torch.manual_seed(7)
    names = {"rnn_cell.input_to_hidden.weight": (4, 10), "rnn_cell.hidden_to_hidden.weight": (4, 4)}
    save_file({name: torch.randn(shape) for name, shape in names.items()}, folder / "weights.safetensors")
    more = {**{name: torch.randn(shape) for name, shape in names.items()}, "embedding.weight": torch.ones(9, 3)}
    save_file(more, folder / "more.safetensors")
    (folder / "run.jsonl").write_text(watched_run(folder / "run.jsonl"))
    (folder / "sweep.jsonl").write_text(swept_runs(folder / "sweep.jsonl"))


@cache
def swept_runs(path: Path) -> str:
    """The file of a sweep of two runs: one was made by another version, and one failed."""
    with ThreadPoolExecutor(1) as executor:
        sweep("spectrum", {}, {"gain": [0.5, 2]}, to=path, executor=executor)
    first, second = map(json.loads, path.read_text().splitlines())
    first["versions"]["torch"] = "1.0"
    del second["scalars"], second["config"]
    second["error"] = "it failed"
    return f"{json.dumps(first)}\n{json.dumps(second)}\n"


@cache
def watched_run(path: Path) -> str:
    """What a training of two steps leaves behind, the same for every test: it has the time in it."""
    model = nn.LSTM(3, 4)
    with watch(model, every=1, to=path):
        for _ in range(2):
            model(torch.randn(5, 2, 3))[0].sum().backward()
    return path.read_text()


TRAIN = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.encoder, self.decoder = nn.GRU(10, hidden, batch_first=True), nn.LSTM(hidden, 5, batch_first=True)

    def forward(self, x):
        return self.decoder(self.encoder(x)[0])[0]

def build(hidden=4):
    return Two(hidden)

class Both(Two):
    def forward(self, x):
        states = self.encoder(x)[0]
        return self.decoder(states)[0], states

def both():
    return Both(4)

class TimeFirst(nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0]

def timefirst():
    return nn.Sequential(TimeFirst(10, 4))

def batch():
    return (torch.ones(2, 3, 10),)

def squares(output, target):
    return output.square().sum()
"""


def comparable(text: str) -> str:
    """A result without its configuration (which echoes every option) and without measured times."""
    if not text.startswith("{"):
        return text
    found = [json.loads(line) for line in text.splitlines()] if "\n{" in text else [json.loads(text)]
    for record in found:
        record.pop("config", None)
        for part in (record.get("scalars", {}), *record.get("rows", ()), *record.get("timings", ())):
            for name in TIMED:
                part.pop(name, None)
    return json.dumps(found)


@pytest.mark.parametrize("name", CASES)
def test_option_changes_the_outcome(name: str, outcome: Callable[[str], tuple[Any, ...]]) -> None:
    without, added = CASES[name]
    assert outcome(f"{without} {added}") != outcome(without)


@pytest.mark.parametrize("name", CASES)
def test_outcome_without_a_change_stays_the_same(name: str, outcome: Callable[[str], tuple[Any, ...]]) -> None:
    line = " ".join(CASES[name])
    assert outcome(line) == outcome(line)


def parameters_of_app() -> dict[str, dict[str, Any]]:
    """Command that asks a question -> its parameters by name."""
    commands: Any = typer.main.get_command(app)
    found = {
        name: {parameter.name: parameter for parameter in command.params if parameter.name != "help"}
        for name, command in commands.commands.items()
    }
    return {name: parameters for name, parameters in found.items() if name not in ("help", "version", "completion")}


def is_argument(parameter: Any) -> bool:
    """Whether it is given by its place, without a flag."""
    return bool(parameter.param_type_name == "argument")


def test_every_option_of_the_app_has_a_case_that_it_changes() -> None:
    named = {name for parameters in parameters_of_app().values() for name in parameters}
    assert named == set(CASES)


def test_every_option_group_is_taken_by_a_command() -> None:
    modules = [import_module(f"{options.__name__}.{each.name}") for each in iter_modules(options.__path__)]
    groups = [group for module in modules for group in vars(module).values() if hasattr(group, "panel")]
    declared = {field.name for group in groups for field in dataclasses.fields(group)}
    assert declared == {name for parameters in parameters_of_app().values() for name in parameters}


def test_every_case_uses_the_option_that_it_is_named_after() -> None:
    parameters = {name: found for every in parameters_of_app().values() for name, found in every.items()}
    flagged = {name: case for name, case in CASES.items() if not is_argument(parameters[name])}
    for name, (without, added) in flagged.items():
        flags = {*parameters[name].opts, *parameters[name].secondary_opts}
        assert flags & set(added.split()), name
        assert name == "repeats" or not flags & set(without.split()), name


def test_an_option_is_the_same_in_every_command() -> None:
    seen: dict[str, tuple[Any, ...]] = {}
    for parameters in parameters_of_app().values():
        for name, found in parameters.items():
            said = (found.opts, found.secondary_opts, found.default, found.help, found.envvar)
            assert seen.setdefault(name, said) == said


def test_every_option_can_be_set_by_the_environment() -> None:
    for parameters in parameters_of_app().values():
        for found in (parameter for parameter in parameters.values() if not is_argument(parameter)):
            long = next(name for name in found.opts if name.startswith("--"))
            assert found.envvar == "RNNCTL_" + long.removeprefix("--").replace("-", "_").upper()


# ---- commands -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["gradnorm", "flow", "truncation"])
def test_half_precision_is_said_to_be_swept_in_float32(command: str, run: Run) -> None:
    assert "states in bfloat16; the gradients are swept along them in float32" in run(f"{command} --dtype bfloat16").err
    assert run(command).err == ""


def test_help_lists_every_command(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    assert ran.err == ""
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", ran.out)


def test_no_arguments_show_the_help(run: Run) -> None:
    assert run("").out == run("--help").out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_names_its_options(command: str, run: Run) -> None:
    ran = run(f"{command} --help")
    assert ran.code == 0
    for option in ("--hidden-size", "--seed", "--json", "--fail-on", "--config"):
        assert option in ran.out


@pytest.mark.parametrize("flags", ["--version", "--version gradnorm"])
def test_version_is_that_of_the_package(flags: str, run: Run) -> None:
    assert run(flags) == (0, f"rnnctl {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS[:-1])
@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv"])
def test_one_step_of_one_sequence_works(command: str, form: str, run: Run) -> None:
    ran = run(f"{command} --seq-len 1 --batch-size 1 --format {form}")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out


@pytest.mark.parametrize("command", COMMANDS[:-1])
@pytest.mark.parametrize("sizes", ["--input-size 1 --hidden-size 1 --output-size 1"])
def test_one_unit_of_everything_works(command: str, sizes: str, run: Run) -> None:
    assert run(f"{command} {sizes}").code == 0


@pytest.mark.parametrize("command", ["cell", "forward", "unroll", "gradnorm", "spectrum", "lyapunov"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_every_dtype_works(command: str, dtype: str, run: Run) -> None:
    found = document(run(f"{command} --dtype {dtype} --json"))
    assert found["config"]["dtype"] == dtype


def test_bench_without_sizes_is_not_told_to_save_one_of_its_networks(run: Run, tmp_path: Path) -> None:
    ran = run("bench --save-weights w.safetensors")
    assert ran.code == 2
    assert "one network" in ran.err
    assert not list(tmp_path.iterdir())


def test_bench_reports_every_method_of_the_users_size(run: Run) -> None:
    found = document(run(f"{QUICK_BENCH} --json"))
    assert {row["case"] for row in found["rows"]} == {"T 7, B 4, H 3, I 10"}
    assert {"nn.RNN", "rnnctl sweep", "limit"} < {row["method"] for row in found["rows"]}


def test_check_holds_on_the_default_sizes(run: Run) -> None:
    found = document(run("check --json"))
    assert found["scalars"]["failed"] == 0
    assert {row["nonlinearity"] for row in found["rows"]} == {"tanh", "relu"}


def test_a_claim_that_fails_is_exit_1_with_the_report_still_printed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnctl.checks.TOLERANCES", {torch.float64: -1.0})
    ran = run("check --json --nonlinearity tanh")
    assert ran.code == 1
    assert document(ran)["scalars"]["failed"] == 8
    assert "claims do not hold" in ran.err


def test_a_disagreement_with_autograd_is_exit_1_with_the_result_still_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnnctl.gradients.autograd.TOLERANCES", {torch.float32: -1.0})
    ran = run("gradnorm --json")
    assert ran.code == 1
    assert len(document(ran)["rows"]) == 7
    assert "disagrees with autograd" in ran.err
    assert run("gradnorm --no-verify").code == 0


def test_spectrum_shows_every_part_and_its_picture(run: Run) -> None:
    found = document(run("spectrum --json --seq-len 4"))
    assert (len(found["rows"]), len(found["steps"])) == (20, 4)
    table = run("spectrum --seq-len 4").out
    assert "unit circle" in table
    assert "step Jacobians" in table
    assert "unit circle" not in run("spectrum --only scalars").out


def test_free_network_without_biases_starts_from_a_normal_state_unless_told(run: Run) -> None:
    line = "lyapunov --autonomous --no-bias --gain 0.5 --steps 5 --json"
    found = document(run(line))
    assert (found["config"]["h_init"], found["scalars"]["stands_still"]) == ("normal", False)
    assert document(run(f"{line} --h-init zeros"))["scalars"]["stands_still"]
    assert "free-running" in run(f"{line[:-7]}").out


def test_theory_is_for_drawn_weights_alone(run: Run) -> None:
    run("lyapunov --save-weights w.safetensors")
    drawn, loaded = (document(run(f"lyapunov --json {more}"))["scalars"] for more in ("", "--weights w.safetensors"))
    assert loaded["theory_largest"] is None
    assert "loaded or trained" in loaded["theory_note"]
    assert drawn["theory_largest"] == pytest.approx(0.5 * math.log(drawn["theory_chi"]))
    assert loaded["largest"] == drawn["largest"]


def test_lyapunov_shows_the_factor_that_gradnorm_measures(run: Run) -> None:
    data = "--json --input sunspots --standardize --target next"
    found = [document(run(f"{command} {data}"))["scalars"] for command in ("lyapunov", "gradnorm")]
    assert found[0]["factor_per_step"] == found[1]["factor_per_step"]
    assert found[0]["exp_largest"] == pytest.approx(found[1]["factor_per_step"], rel=0.02)


@pytest.mark.parametrize(
    ("condition", "code"), [("largest<0", 3), ("spectral_radius<1", 2), ("theory==none", 0), ("nonfinite", 0)]
)
def test_conditions_on_lyapunov(condition: str, code: int, run: Run) -> None:
    assert run("lyapunov --fail-on", condition).code == code


# ---- numbers ------------------------------------------------------------------------------------


class ByHand(NamedTuple):
    """BPTT of the default network, by autograd over one clone of W_hh per step."""

    W_hh: np.ndarray
    grad_norm_W_hh: np.ndarray
    grad_norm_h: np.ndarray
    grad_W_hh: np.ndarray
    loss: float


def by_hand(seed: int = 0, seq_len: int = 7) -> ByHand:
    torch.manual_seed(seed)
    input_to_hidden, hidden_to_hidden, hidden_to_output = nn.Linear(10, 20), nn.Linear(20, 20), nn.Linear(20, 5)
    x = torch.randn(4, seq_len, 10)
    clones = [hidden_to_hidden.weight.detach().clone().requires_grad_() for _ in range(seq_len)]
    h_t, states = torch.zeros(4, 20), []
    for x_t, clone in zip(x.unbind(1), clones, strict=True):
        h_t = torch.tanh(input_to_hidden(x_t) + h_t @ clone.T + hidden_to_hidden.bias)
        states.append(h_t)
    loss = hidden_to_output(h_t).pow(2).mean()
    grads = torch.autograd.grad(loss, [*clones, *states])
    norms = np.array([float(grad.double().norm()) for grad in grads])
    total = torch.stack(grads[:seq_len]).sum(0).numpy()
    W_hh = hidden_to_hidden.weight.detach().double().numpy()
    return ByHand(W_hh, norms[:seq_len], norms[seq_len:], total, loss.item())


@pytest.mark.parametrize("seed", [0, 3])
def test_rows_of_gradnorm_are_those_of_a_computation_by_hand(seed: int, run: Run) -> None:
    rows = document(run(f"gradnorm --json --seed {seed}"))["rows"]
    expected = by_hand(seed)
    share = expected.grad_norm_W_hh / expected.grad_norm_W_hh.sum()
    assert [row["t"] for row in rows] == list(range(7))
    assert [row["grad_norm_W_hh"] for row in rows] == pytest.approx(expected.grad_norm_W_hh, rel=1e-5)
    assert [row["grad_norm_h"] for row in rows] == pytest.approx(expected.grad_norm_h, rel=1e-5)
    assert [row["share"] for row in rows] == pytest.approx(share, rel=1e-5)
    direct = [0.0] * 6 + [expected.grad_norm_h[-1]]
    assert [row["grad_norm_h_direct"] for row in rows] == pytest.approx(direct, rel=1e-5)


def test_scalars_of_gradnorm_are_those_of_a_computation_by_hand(run: Run) -> None:
    scalars = document(run("gradnorm --json --seq-len 12"))["scalars"]
    expected = by_hand(seq_len=12)
    norm = float(np.linalg.norm(expected.grad_W_hh))
    slope = np.polyfit(np.arange(12), np.log(expected.grad_norm_h), 1)[0]
    fallen = np.flatnonzero(expected.grad_norm_h[::-1] <= 0.01 * expected.grad_norm_h[-1])[0]
    assert scalars["loss"] == pytest.approx(expected.loss, rel=1e-6)
    assert scalars["grad_W_hh_norm"] == pytest.approx(norm, rel=1e-5)
    assert scalars["cancellation"] == pytest.approx(norm / expected.grad_norm_W_hh.sum(), rel=1e-5)
    assert scalars["factor_per_step"] == pytest.approx(math.exp(-slope), rel=1e-5)
    assert scalars["first_over_last"] == pytest.approx(expected.grad_norm_h[0] / expected.grad_norm_h[-1], rel=1e-5)
    assert scalars["steps_to_one_percent"] == fallen
    assert scalars["spectral_radius"] == pytest.approx(np.abs(np.linalg.eigvals(expected.W_hh)).max(), rel=1e-5)
    assert scalars["spectral_norm"] == pytest.approx(np.linalg.norm(expected.W_hh, 2), rel=1e-5)
    assert scalars["verdict"] == "vanishing"
    assert scalars["autograd_relative_error"] < 1e-5


@pytest.mark.parametrize("command", ["cell", "forward", "gradnorm"])
def test_one_seed_gives_one_result_and_another_seed_another(command: str, run: Run) -> None:
    line = f"{command} --h-init normal --init gaussian --format csv"
    first = run(f"{line} --seed 5").out
    torch.manual_seed(99)
    assert run(f"{line} --seed 5").out == first
    assert run(f"{line} --seed 6").out != first


def test_a_command_leaves_torchs_own_generator_alone(run: Run) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    run("gradnorm --init orthogonal")
    assert torch.equal(torch.rand(3), expected)


def test_one_step_has_no_factor_and_says_so_instead_of_nan(run: Run) -> None:
    ran = run("gradnorm --seq-len 1 --json")
    assert document(ran)["scalars"]["factor_per_step"] is None
    assert "nan" not in run("gradnorm --seq-len 1").out.lower()


# ---- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS[:-1])
def test_json_says_what_it_is_and_where_it_came_from(command: str, run: Run) -> None:
    found = document(run(f"{command} --json --seed 4"))
    assert list(found)[:6] == ["schema", "schema_version", "versions", "config", "scalars", "rows"]
    assert found["schema"] == f"rnnctl.{command}"
    assert found["schema_version"] == 1
    assert found["versions"] == {"rnnctl": __version__, "torch": torch.__version__}
    assert found["config"]["seed"] == 4
    sizes = {name: found["config"][name] for name in ("input_size", "hidden_size", "output_size", "seq_len")}
    assert sizes == {"input_size": 10, "hidden_size": 20, "output_size": 5, "seq_len": 7}


def test_json_has_null_and_a_note_for_numbers_that_are_not_finite(run: Run) -> None:
    ran = run("gradnorm --init identity --gain 10 --nonlinearity relu --seq-len 60 --json")
    found = document(ran)
    assert ran.code == 0
    assert found["scalars"]["verdict"] == "nonfinite"
    broken = [row for row in found["rows"] if "nonfinite" in row]
    assert broken
    for row in broken:
        assert all(row[name] is None for name in row["nonfinite"])
        assert set(row["nonfinite"].values()) <= {"nan", "inf", "-inf"}


@pytest.mark.parametrize("command", COMMANDS[:-1])
def test_json_jsonl_and_csv_agree(command: str, run: Run) -> None:
    rows = document(run(f"{command} --json"))["rows"]
    lines = [json.loads(line) for line in run(f"{command} --format jsonl").out.splitlines()]
    cells = list(csv.DictReader(io.StringIO(run(f"{command} --format csv").out)))
    assert lines == rows
    assert [list(row) for row in cells] == [list(row) for row in rows]
    for cell, row in zip(cells, rows, strict=True):
        assert {name: from_csv(cell[name], like=value) for name, value in row.items()} == row


def from_csv(cell: str, *, like: Any) -> Any:
    if like is None:
        return None if cell == "" else cell
    if isinstance(like, bool):
        return {"true": True, "false": False}[cell]
    if isinstance(like, list):
        return [int(part) for part in cell.split("x")]
    return type(like)(cell)


def test_table_shows_the_numbers_of_the_json(run: Run) -> None:
    found = document(run("gradnorm --json"))
    table = run("gradnorm").out
    for row in found["rows"]:
        line = rf"^ *{row['t']} +{row['grad_norm_W_hh']:.4g} +{100 * row['share']:.1f} % +{row['grad_norm_h']:.4g} "
        assert re.search(line, table, re.MULTILINE)
    for name in ("loss", "cancellation", "factor_per_step", "spectral_norm"):
        assert re.search(rf"^{name} +{found['scalars'][name]:.4g}\b", table, re.MULTILINE)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_only_scalars_is_one_record(form: str, run: Run) -> None:
    scalars = document(run("gradnorm --json"))["scalars"]
    text = run(f"gradnorm --format {form} --only scalars").out
    record = json.loads(text) if form == "jsonl" else next(csv.DictReader(io.StringIO(text)))
    assert list(record) == list(scalars)
    assert float(record["cancellation"]) == scalars["cancellation"]


def test_only_leaves_the_other_part_out(run: Run) -> None:
    assert "rows" not in document(run("gradnorm --json --only scalars"))
    assert "scalars" not in document(run("gradnorm --json --only rows"))
    assert "spectral_radius" not in run("gradnorm --only rows").out
    assert "grad_norm_h_direct" not in run("gradnorm --only scalars").out


def test_long_table_is_cut_in_the_middle_unless_all(run: Run) -> None:
    cut, whole = run("gradnorm --seq-len 60").out, run("gradnorm --seq-len 60 --all").out
    assert "20 rows in the middle are left out; --all shows them" in cut
    shown = [int(t) for t in re.findall(r"^ *(\d+) .* % ", cut, re.MULTILINE)]
    assert shown == [*range(20), *range(40, 60)]
    assert [int(t) for t in re.findall(r"^ *(\d+) .* % ", whole, re.MULTILINE)] == list(range(60))


def test_machine_formats_always_hold_all_rows(run: Run) -> None:
    assert len(document(run("gradnorm --seq-len 60 --json"))["rows"]) == 60
    assert len(run("gradnorm --seq-len 60 --format csv").out.splitlines()) == 61


def test_json_and_another_format_contradict_each_other(run: Run) -> None:
    ran = run("gradnorm --json --format csv")
    assert (ran.code, ran.out) == (2, "")
    assert "contradict" in ran.err
    assert run("gradnorm --json --format json").code == 0


def test_drawing_of_a_graph_takes_no_part_and_no_second_format(run: Run) -> None:
    assert "--only rows" in run("unroll --only rows").err
    assert "--as dot" in run("unroll --as dot --json").err
    assert run("unroll --json --only rows").code == 0


# ---- terminal -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS[:-1])
def test_table_is_not_cropped_when_piped(command: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = run(command).out
    monkeypatch.setenv("COLUMNS", "30")
    assert run(command).out == wide
    assert "…" not in wide


def test_table_fits_a_narrow_terminal_without_losing_a_number(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stdout", screen)
    assert main(["gradnorm", "--color", "never", "--only", "rows"]) == 0
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines[1:-1])) <= 100
    assert "…" not in screen.getvalue()


ANSI = "\x1b["


@pytest.mark.parametrize(
    ("flags", "environment", "terminal", "colored"),
    [
        ("", {}, False, False),
        ("", {}, True, True),
        ("", {"NO_COLOR": "1"}, True, False),
        ("", {"FORCE_COLOR": "1"}, False, True),
        ("", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ("", {"TERM": "dumb"}, True, False),
        ("--color always", {"NO_COLOR": "1"}, False, True),
        ("--color never", {"FORCE_COLOR": "1"}, True, False),
        ("--color always --json", {}, True, False),
        ("--color always -o out.txt --force", {}, True, False),
    ],
)
def test_colour_is_where_it_was_asked_for(
    flags: str,
    environment: Mapping[str, str],
    terminal: bool,
    colored: bool,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    assert main(["gradnorm", *flags.split()]) == 0
    written = stream.getvalue() + "".join(path.read_text() for path in tmp_path.iterdir())
    assert (ANSI in written) == colored


@pytest.mark.parametrize("command", ["gradnorm", "unroll", "check", "cell", "forward"])
def test_a_stream_that_knows_ascii_alone_gets_ascii(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sün.csv").write_text("1\n2\n")
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert main([command, "--input", "sün.csv"]) == 0
    assert raw.getvalue().decode("ascii")


def test_json_is_still_json_on_a_stream_that_knows_ascii_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sün🌞.csv").write_text("1\n2\n")
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert main(["cell", "--json", "--input", "sün🌞.csv"]) == 0
    assert json.loads(raw.getvalue())["config"]["input"] == "sün🌞.csv"


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "form"), [("a.json", "json"), ("a.csv", "csv"), ("a.JSONL", "jsonl")])
def test_output_file_holds_what_stdout_would_in_the_format_of_its_suffix(
    name: str, form: str, run: Run, tmp_path: Path
) -> None:
    expected = run(f"cell --format {form}").out
    ran = run(f"cell -o {name}")
    written = (tmp_path / name).read_text()
    assert (ran.code, ran.out, ran.err) == (0, "", f"Note: wrote {name}\n")
    assert written.replace(f'"output": "{name}"', '"output": null') == expected


def test_format_is_stronger_than_the_suffix(run: Run, tmp_path: Path) -> None:
    run("cell -o a.json --format csv")
    assert (tmp_path / "a.json").read_text().startswith("kind,symbol")


def test_output_file_is_replaced_with_force_alone(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("precious")
    ran = run("cell -o a.json")
    assert (ran.code, ran.out) == (2, "")
    assert "--force" in ran.err
    assert target.read_text() == "precious"
    assert run("cell -o a.json --force").code == 0
    assert json.loads(target.read_text())["schema"] == "rnnctl.cell"


def test_output_is_refused_before_anything_is_computed(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def computed(*_: object, **__: object) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr("rnnctl.gradients.gradnorm.gradnorm", computed)
    monkeypatch.setattr("rnnctl.cells.FullRNN.__init__", computed)
    (tmp_path / "there.json").write_text("precious")
    for place in ("there.json", "missing/a.json", "."):
        ran = run(f"gradnorm -o {place}")
        assert ran.code == 2
        assert ran.err.startswith("Error: ")
    assert "there is no folder" in run("gradnorm --save-weights missing/a.safetensors").err


def test_output_that_fails_half_way_leaves_the_old_file_and_no_other(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a.json").write_text("precious")
    monkeypatch.setattr("os.replace", fails)
    ran = run("cell -o a.json --force")
    assert ran.code in (1, 2)
    assert "No space left on device" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "precious"


def test_result_and_weights_do_not_overwrite_each_other(run: Run, tmp_path: Path) -> None:
    ran = run("gradnorm -o same --save-weights same")
    assert ran.code == 2
    assert "-o and --save-weights both name 'same'" in ran.err
    assert not list(tmp_path.iterdir())


def test_saved_weights_give_the_same_result_again(run: Run) -> None:
    run("gradnorm --seed 3 --init gaussian --save-weights w.safetensors")
    first = document(run("gradnorm --seed 3 --init gaussian --json"))
    # x follows the weights in one stream of random numbers, which --init gaussian goes on with.
    again = document(run("gradnorm --seed 3 --weights w.safetensors --json"))
    assert again["scalars"]["spectral_radius"] == first["scalars"]["spectral_radius"]


def test_quiet_leaves_stderr_empty(run: Run) -> None:
    assert run("cell -o a.json --save-weights w.safetensors").err.count("Note: ") == 2
    assert run("cell -o a.json --save-weights w.safetensors --force -q").err == ""


# ---- conditions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("cancellation<1", 3),
        ("cancellation>1", 0),
        ("cancellation <= 1", 3),
        ("loss!=0", 3),
        ("loss==0", 0),
        ("loss>=1e9", 0),
        ("verdict==stable", 3),
        ("verdict!=stable", 0),
        ("h_init_is_zero==true", 3),
        ("h_init_is_zero==false", 0),
        ("spectral_radius<inf", 3),
        ("vanishing", 0),
        ("exploding", 0),
        ("nonfinite", 0),
    ],
)
def test_condition_that_holds_is_exit_3_with_the_result_still_printed(condition: str, code: int, run: Run) -> None:
    ran = run("gradnorm --json --fail-on", condition)
    assert ran.code == code
    assert len(document(ran)["rows"]) == 7
    assert (condition in ran.err) == (code == 3)


def test_conditions_of_a_vanishing_gradient(run: Run) -> None:
    line = "gradnorm --seq-len 40 --json --fail-on"
    assert run(line, "vanishing").code == 3
    assert run(line, "exploding").code == 0
    assert run(f"{line} exploding --fail-on vanishing").code == 3


def test_conditions_of_an_exploding_gradient(run: Run) -> None:
    line = "gradnorm --seq-len 40 --init orthogonal --gain 2 --nonlinearity relu --json --fail-on"
    assert run(line, "exploding").code == 3


def test_condition_holds_for_the_output_file_too(run: Run, tmp_path: Path) -> None:
    assert run("gradnorm -o a.json --fail-on loss>0").code == 3
    assert json.loads((tmp_path / "a.json").read_text())["rows"]


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("cancelation<1", "Did you mean cancellation?"),
        ("vanish", "Did you mean vanishing?"),
        ("cancellation", "compare it with one"),
        ("vanishing<1", "stands alone"),
        ("verdict<3", "compare it with text"),
        ("loss==stable", "compare it with a number"),
        ("loss<abc", "no number"),
        ("loss<nan", "nothing compares with nan"),
        ("", "expected a comparison"),
        ("loss", "compare it"),
        ("loss<1; import os", "expected a comparison"),
        ("__import__('os')", "expected a comparison"),
        ("1<2", "expected a comparison"),
    ],
)
def test_condition_that_cannot_be_met_is_exit_2_and_says_why(condition: str, said: str, run: Run) -> None:
    ran = run("gradnorm --fail-on", condition)
    assert ran.code == 2
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_condition_on_a_scalar_without_a_value_does_not_pass(run: Run) -> None:
    ran = run("gradnorm --seq-len 1 --fail-on factor_per_step<1")
    assert ran.code == 1
    assert "factor_per_step has no value here" in ran.err


# ---- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "No such command 'nonsense'"),
        ("gradnrom", "gradnorm"),
        ("gradnorm --hiden-size 3", "--hidden-size"),
        ("gradnorm stray", "stray"),
        ("gradnorm --hidden-size", "requires an argument"),
        ("gradnorm --hidden-size 0", "expected a whole number of at least 1; got '0'"),
        ("gradnorm --hidden-size -3", "got '-3'"),
        ("gradnorm --hidden-size 2.5", "expected a whole number of at least 1; got '2.5'"),
        ("gradnorm --seq-len abc", "got 'abc'"),
        ("gradnorm --batch-size 0", "'--batch-size': expected a whole number"),
        ("gradnorm --seed -1", "got '-1'"),
        ("gradnorm --seed 99999999999999999999", "from 0 to 18,446,744,073,709,551,615"),
        ("gradnorm --threads 0", "from 1 to 1,024"),
        ("gradnorm --threads 99999999999999999999", "from 1 to 1,024"),
        ("bench --repeats 0", "at least 1"),
        ("gradnorm --gain abc", "expected a finite number; got 'abc'"),
        ("gradnorm --gain nan", "finite"),
        ("gradnorm --gain inf", "finite"),
        ("gradnorm --vanish-below nan", "expected a finite number; got 'nan'"),
        ("gradnorm --gain 1e300", "--gain 1e+300 takes W_hh beyond torch.float32"),
        ("gradnorm --vanish-below 5 --explode-above 1", "--vanish-below 5.0 and --explode-above 1.0"),
        ("gradnorm --init xavier", "'xavier' is not one of 'default', 'orthogonal'"),
        ("gradnorm --format xml", "'xml' is not one of"),
        ("gradnorm --dtype int8", "'int8' is not one of"),
        ("gradnorm --hidden-size 1000000", "TiB of memory"),
        ("gradnorm --hidden-size 99999999999999999999", "TiB of memory"),
        ("gradnorm --seq-len 99999999999", "of memory; "),
        ("forward --batch-size 9999999999 --input-size 1 --seq-len 1", "of memory; "),
        ("forward --batch-size 2000000000 --input-size 1 --seq-len 1 --hidden-size 1000", "of memory; "),
        ("lyapunov --count 21", "count must be from 1 to the hidden size 20; got 21"),
        ("lyapunov --steps 8", "the sequence has 7 steps"),
        ("lyapunov --warmup -1", "expected a whole number of at least 0"),
        ("lyapunov --autonomous --steps 99999999999", "of memory; "),
        ("gradnorm --loss cross-entropy --output-activation softmax", "identity"),
        ("gradnorm --target next", "--input"),
        ("gradnorm --columns a", "--input, which is not given"),
        ("gradnorm --standardize", "--input, which is not given"),
        ("gradnorm --input sunspot", "Did you mean sunspots?"),
        ("gradnorm --input sunspots --input-size 2", "--input-size says input-size 2; sunspots has 1"),
        ("gradnorm --input macrodata --columns gdp", "macrodata has no column 'gdp'"),
        ("gradnorm --input missing.npy", "missing.npy"),
        ("gradnorm --weights missing.pt", "missing.pt"),
        ("gradnorm --config missing.toml", "missing.toml"),
        ("gradnorm --input .", "'.'"),
        ("gradnorm --weights .", "'.'"),
        ("gradnorm --config .", "'.'"),
        ("check --dtype float16", "float64 or float32; got torch.float16"),
    ],
)
def test_mistake_is_one_message_on_stderr_and_exit_2(line: str, said: str, run: Run) -> None:
    ran = run(line)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: ")
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert len(ran.err.splitlines()) <= 2


def test_init_beside_weights_is_a_contradiction(run: Run) -> None:
    run("cell --save-weights w.safetensors")
    assert "--init and --gain" in run("cell --weights w.safetensors --gain 2").err


def test_device_that_is_not_there_is_named_with_those_that_are(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    ran = run("gradnorm --device cuda")
    assert ran.code == 2
    assert "available: cpu" in ran.err
    assert document(run("gradnorm --device auto --json"))["config"]["device"] == "cpu"


def test_a_bug_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("rnnctl.gradients.gradnorm.gradnorm", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run("gradnorm")


def test_interrupt_is_exit_130_without_a_word(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rnnctl.gradients.gradnorm.gradnorm", interrupted)
    ran = run("gradnorm")
    assert (ran.code, ran.out) == (130, "")
    assert "Traceback" not in ran.err


# ---- streams ------------------------------------------------------------------------------------


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


def test_closed_pipe_ends_silently_and_keeps_the_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Broken(BrokenPipeError(32, "Broken pipe")))
    for line, code in (("gradnorm", 0), ("gradnorm --fail-on loss<0", 0), ("--version", 0), ("gradnorm --help", 0)):
        assert main(line.split()) == code
    errors = io.StringIO()
    monkeypatch.setattr("sys.stderr", errors)
    assert main(["gradnorm", "--fail-on", "loss>0"]) == 3
    assert errors.getvalue().startswith("--fail-on 'loss>0'")


@pytest.mark.parametrize("line", ["gradnorm", "gradnorm --json", "--version", "--help", "gradnorm --help"])
def test_full_disk_behind_stdout_is_one_message_and_exit_1(
    line: str, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", Broken(OSError(28, "No space left on device")))
    assert main(line.split()) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert said.count("\n") == 1


def test_closed_stdout_is_said_before_anything_is_computed(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("rnnctl.cells.FullRNN.__init__", None)
    assert main(["gradnorm"]) == 1
    assert "standard output is closed" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdout", None)
    assert main(["gradnorm", "-o", "a.json"]) == 0
    assert (tmp_path / "a.json").exists()


def test_closed_stderr_does_not_send_messages_to_stdout(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", None)
    assert main(["gradnorm", "--nonsense"]) == 2
    assert main(["gradnorm", "--json", "--fail-on", "loss>0"]) == 3
    assert json.loads(capsys.readouterr().out)["schema"] == "rnnctl.gradnorm"


def test_machine_formats_and_results_keep_stderr_clean(run: Run) -> None:
    for form in ("table", "json", "jsonl", "csv"):
        assert run(f"gradnorm --format {form}").err == ""
