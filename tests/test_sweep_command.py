"""``rnnctl sweep``: its runs are those of single commands, its file goes on, its exit code tells what came of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from shell import InThisProcess, Ran, Run, document, forget_modules_of, runner

import rnnctl
from rnnctl.cli.sweeping.stopping import stopping
from rnnctl.errors import InputError

SIZES = "--hidden-size 5 --input-size 3 --seq-len 6 --batch-size 2"
# Of every question a command with the options that are its own.
QUESTIONS = {
    "gradnorm": f"gradnorm {SIZES} --loss-at all --vanish-below 0.5 --h-init normal",
    "flow": f"flow {SIZES} --no-verify --loss sum",
    "truncation": f"truncation {SIZES} --windows 2,4",
    "spectrum": f"spectrum {SIZES} --nonlinearity relu",
    "lyapunov": f"lyapunov {SIZES} --autonomous --steps 30 --count 2 --init gaussian",
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    monkeypatch.setattr("rnnctl.cli.sweeping.making.WorkerPool", InThisProcess)
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows(ran: Ran) -> list[dict[str, Any]]:
    return document(ran)["rows"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_line_is_the_json_of_the_single_command(question: str, run: Run, tmp_path: Path) -> None:
    command = QUESTIONS[question]
    assert run(f"sweep {command} --vary gain=0.7,1.3 --seeds 2 --keep rows --to runs.jsonl --json").code == 0
    for line in lines(tmp_path / "runs.jsonl"):
        gain, seed = line["varied"]["gain"], line["varied"]["seed"]
        single = document(run(f"{command} --gain {gain} --seed {seed} --threads 1 --json"))
        assert {name: line[name] for name in ("config", "scalars", "rows", "versions")} == {
            name: single[name] for name in ("config", "scalars", "rows", "versions")
        }
    assert len({line["key"] for line in lines(tmp_path / "runs.jsonl")}) == 4


def test_every_grid_point_has_the_median_of_its_seeds(run: Run, tmp_path: Path) -> None:
    ran = run(f"sweep gradnorm {SIZES} --vary gain=0.5:1.5:3 --vary hidden-size=2,4 --seeds 3 --to runs.jsonl --json")
    found = rows(ran)
    assert [(row["gain"], row["hidden_size"]) for row in found] == [(g, h) for g in (0.5, 1.0, 1.5) for h in (2, 4)]
    for row in found:
        values = sorted(
            line["scalars"]["factor_per_step"]
            for line in lines(tmp_path / "runs.jsonl")
            if (line["varied"]["gain"], line["varied"]["hidden_size"]) == (row["gain"], row["hidden_size"])
        )
        low, middle, high = values
        assert row["median"] == middle
        assert row["p10"] == pytest.approx(low + 0.2 * (middle - low))
        assert row["p90"] == pytest.approx(middle + 0.8 * (high - middle))
        assert (row["runs"], row["failed"], row["undefined"]) == (3, 0, 0)


def test_what_is_varied_comes_before_what_is_set(run: Run, tmp_path: Path) -> None:
    assert run("sweep spectrum --hidden-size 9 --vary hidden-size=2,3 --to runs.jsonl").code == 0
    assert sorted(line["config"]["hidden_size"] for line in lines(tmp_path / "runs.jsonl")) == [2, 3]


def test_the_same_command_goes_on_and_makes_nothing_twice(run: Run, tmp_path: Path) -> None:
    first = run("sweep gradnorm --vary gain=0.8,0.9 --to runs.jsonl --json")
    written = (tmp_path / "runs.jsonl").read_text()
    again = run("sweep gradnorm --vary gain=0.8,0.9 --to runs.jsonl --json -q --threads 2")
    # Other threads change nothing that a key holds.
    assert (tmp_path / "runs.jsonl").read_text() == written
    assert document(again)["rows"] == document(first)["rows"]
    more = run("sweep gradnorm --vary gain=0.7:0.9:3 --to runs.jsonl --json")
    assert "2 of them done already" in more.err
    assert [row["gain"] for row in rows(more)] == [0.7, 0.8, 0.9]
    assert (tmp_path / "runs.jsonl").read_text().startswith(written)
    assert len(lines(tmp_path / "runs.jsonl")) == 3


@pytest.mark.parametrize("change", ["--seq-len 8", "--gain 1.5", "--loss sum", "--dtype float64", "--loss-at all"])
def test_another_answer_is_another_run(change: str, run: Run, tmp_path: Path) -> None:
    run("sweep gradnorm --vary hidden-size=2,3 --to runs.jsonl")
    run(f"sweep gradnorm --vary hidden-size=2,3 --to runs.jsonl {change}")
    assert len({line["key"] for line in lines(tmp_path / "runs.jsonl")}) == 4


def test_the_content_of_a_file_is_what_counts_not_its_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n2\n3\n4\n")
    (tmp_path / "b.csv").write_text("a\n1\n2\n3\n4\n")
    command = "sweep gradnorm --vary hidden-size=2,3 --to runs.jsonl --input"
    run(f"{command} a.csv")
    assert "2 of them done already" in run(f"{command} b.csv").err
    (tmp_path / "b.csv").write_text("a\n1\n2\n3\n5\n")
    assert "done already" not in run(f"{command} b.csv").err


def test_the_file_of_a_model_is_part_of_the_question(run: Run, tmp_path: Path) -> None:
    code = "from torch import nn\n\ndef build(hidden=3):\n    return nn.RNN(2, hidden, batch_first=True)\n"
    (tmp_path / "made.py").write_text(code)
    command = "sweep gradnorm --model made:build --input-size 2 --vary model-arg.hidden=2,4 --to runs.jsonl --json"
    found = rows(run(command))
    assert [row["model_arg.hidden"] for row in found] == [2, 4]
    assert "2 of them done already" in run(command).err
    assert "done already" in run(f"{command} --model-arg hidden=9").err
    (tmp_path / "made.py").write_text(code + "\n# another one\n")
    assert "done already" not in run(command).err


def test_what_flags_refuse_is_a_failed_run_and_the_others_are_made(run: Run, tmp_path: Path) -> None:
    line = "sweep gradnorm --vary loss=mse,cross-entropy --output-activation softmax --to runs.jsonl --json"
    ran = run(line)
    assert ran.code == 4
    assert "1 cannot be made, as flags alone tell" in ran.err
    (failure,) = document(ran)["failures"]
    assert failure["loss"] == "cross-entropy"
    assert "takes logits" in failure["error"]
    assert [(row["runs"], row["failed"]) for row in rows(ran)] == [(1, 0), (1, 1)]
    # Failed runs count as done, unless somebody asks for them again.
    assert run(line).code == 4
    assert len(lines(tmp_path / "runs.jsonl")) == 2
    assert run(f"{line} --retry-failed").code == 4
    assert len(lines(tmp_path / "runs.jsonl")) == 3


def test_what_only_the_run_can_tell_is_a_failed_run_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(
        "from torch import nn\n\ndef build(hidden):\n    assert hidden != 3, 'not three'\n"
        "    return nn.RNN(10, hidden, batch_first=True)\n"
    )
    ran = run("sweep gradnorm --model made:build --vary model-arg.hidden=2,3,4 --to runs.jsonl --json")
    assert ran.code == 4
    assert [row["failed"] for row in rows(ran)] == [0, 1, 0]
    assert "not three" in document(ran)["failures"][0]["error"]


def test_where_nothing_can_be_made_it_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    ran = run("sweep gradnorm --target next --vary gain=1,2 --to runs.jsonl")
    assert (ran.code, ran.out) == (2, "")
    assert "--target next predicts" in ran.err
    assert not (tmp_path / "runs.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sweep", "a question must be given"),
        ("sweep gradnorm --vary gain=1,2", "--to FILE.jsonl must be given"),
        ("sweep gradnorm --to x.jsonl", "nothing to vary"),
        ("sweep gradnorm --vary gane=1,2 --to x.jsonl", "Did you mean gain?"),
        ("sweep gradnorm --vary gain=1,x --to x.jsonl", "expected a number"),
        ("sweep gradnorm --vary gain=1,1.0 --to x.jsonl", "twice"),
        ("sweep gradnorm --vary gain=1:2 --to x.jsonl", "a range is start:stop:count"),
        ("sweep gradnorm --vary gain=1, --to x.jsonl", "nothing between two commas"),
        ("sweep gradnorm --vary gain=1,2 --to -", "--to - is no file"),
        ("sweep gradnorm --vary gain=1,2 --to x.jsonl --fail-on vanishing", "speaks of one run"),
        ("sweep gradnorm --vary gain=1:2:1 --to x.jsonl", "from 2 to"),
        ("sweep gradnorm --vary gain=-1:2:5:log --to x.jsonl", "above 0"),
        ("sweep gradnorm --vary gain=1:2:5:lin --to x.jsonl", "there may be log"),
        ("sweep gradnorm --vary gain --to x.jsonl", "NAME=a,b,c"),
        ("sweep gradnorm --vary gain=1,2 --vary gain=3,4 --to x.jsonl", "given twice"),
        ("sweep gradnorm --vary output=a,b --to x.jsonl", "changes no answer"),
        ("sweep gradnorm --vary threads=1,2 --to x.jsonl", "changes no answer"),
        ("sweep gradnorm --vary model-arg=1,2 --to x.jsonl", "model-arg.hidden"),
        ("sweep gradnorm --vary seed=1,2 --seeds 3 --to x.jsonl", "both give seeds"),
        (
            "sweep gradnorm --vary gain=1,2,3 --vary seq-len=2,3 --vary-together --to x.jsonl",
            "gain has 3, seq_len has 2",
        ),
        ("sweep gradnorm --vary gain=1,2 --shard 3/2 --to x.jsonl", "I from 1 to N"),
        ("sweep lyapunov --windows 3 --vary gain=1,2 --to x.jsonl", "--windows says nothing to lyapunov"),
        ("sweep gradnorm --vary gain=1,2 --save-weights w.safetensors --to x.jsonl", "--save-weights"),
        ("sweep gradnorm --vary gain=1,2 --input - --input-format csv --to x.jsonl", "--input -"),
        ("sweep gradnorm --vary gain=1,2 --to .", "is no file"),
        ("sweep gradnorm --vary gain=1,2 --to no/x.jsonl", "there is no folder"),
        ("sweep gradnorm --vary gain=1,2 --to x.jsonl -o x.jsonl", "x.jsonl"),
        ("sweep gradnorm --vary gain=1,2 --to x.jsonl --fail-on factor_per_step<1", "median(factor_per_step)<1"),
        ("sweep gradnorm --vary gain=1,2 --to x.jsonl --fail-on median(largest)<1", "median(largest)"),
        ("sweep gradnorm --vary gain=1,2 --to x.jsonl --fail-on median(factor_per_stp)<1", "factor_per_step"),
        ("sweep gradnorm --vary gain=1,2 --to x.jsonl --value verdict", "is text"),
        ("sweep gradnorm --vary gain=1,2 --to x.jsonl --value factor_per_stp", "Did you mean"),
        ("sweep gradnorm --vary loss=mse,sum --to x.jsonl --plot x.png", "loss is none"),
        ("sweep gradnorm --seeds 3 --to x.jsonl --plot x.png", "no setting is varied"),
        ("sweep --from no.jsonl", "there is no file"),
        ("sweep gradnorm --from there.jsonl", "QUESTION would be ignored"),
        ("sweep --from there.jsonl --gain 2", "--gain would be ignored"),
        ("sweep --from there.jsonl", "no run of a sweep"),
    ],
)
def test_what_cannot_be_a_sweep_is_refused_before_it(line: str, said: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "there.jsonl").write_text('{"a": 1}\n')
    ran = run(line)
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_a_file_of_another_question_is_refused(run: Run) -> None:
    run("sweep gradnorm --vary gain=1,2 --to runs.jsonl")
    ran = run("sweep spectrum --vary gain=1,2 --to runs.jsonl")
    assert (ran.code, ran.out) == (2, "")
    assert "a run of gradnorm, not of spectrum" in ran.err


def test_shards_make_the_grid_and_join_to_one_file(run: Run, tmp_path: Path) -> None:
    whole = run("sweep gradnorm --vary gain=0.5:1.5:5 --seeds 2 --to whole.jsonl --json")
    for number in (1, 2, 3):
        ran = run(f"sweep gradnorm --vary gain=0.5:1.5:5 --seeds 2 --shard {number}/3 --to part{number}.jsonl")
        assert ran.code == 0
    joined = "".join((tmp_path / f"part{number}.jsonl").read_text() for number in (1, 2, 3))
    (tmp_path / "joined.jsonl").write_text(joined)
    assert len(joined.splitlines()) == 10
    assert rows(run("sweep --from joined.jsonl --json")) == rows(whole)
    assert rows(run("sweep --from whole.jsonl --json")) == rows(whole)
    again = run("sweep gradnorm --vary gain=0.5:1.5:5 --seeds 2 --to joined.jsonl --json")
    assert "10 of them done already" in again.err


def test_values_that_go_together_make_pairs(run: Run) -> None:
    ran = run(
        "sweep gradnorm --vary gain=0.5,1 --vary hidden-size=3,6 --vary-together --seeds 2 --to runs.jsonl --json"
    )
    assert [(row["gain"], row["hidden_size"], row["runs"]) for row in rows(ran)] == [(0.5, 3, 2), (1.0, 6, 2)]


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("median(factor_per_step)<0.5", 3),
        ("median(factor_per_step)<0.0001", 0),
        ("max(spectral_radius)>1e3", 0),
        ("min(spectral_radius)<1e3", 3),
        ("failed>0", 0),
        ("runs<3", 3),
        # Nothing tells.
        ("median(autograd_relative_error)<1", 1),
    ],
)
def test_conditions_speak_of_what_the_runs_of_a_grid_point_say_together(condition: str, code: int, run: Run) -> None:
    line = "sweep gradnorm --no-verify --vary gain=0.5,1.5 --seeds 2 --to runs.jsonl --json"
    ran = run(f"{line} --fail-on {condition}")
    assert ran.code == code, ran.err
    assert ("at gain 0.5" in ran.err) == (code != 0)
    assert run(f"sweep --from runs.jsonl --json --fail-on {condition}").code == code


def test_failed_runs_come_before_a_condition(run: Run) -> None:
    line = "sweep gradnorm --vary loss=mse,cross-entropy --output-activation softmax --to runs.jsonl"
    ran = run(f"{line} --fail-on runs<9")
    assert ran.code == 4
    assert "runs is 1" in ran.err


def test_another_scalar_can_be_shown_of_what_is_there(run: Run) -> None:
    run("sweep lyapunov --autonomous --steps 20 --init gaussian --no-bias --vary gain=0.5,2 --to runs.jsonl")
    ran = run("sweep --from runs.jsonl --value exp_largest --json")
    assert document(ran)["scalars"]["value"] == "exp_largest"
    largest = rows(run("sweep --from runs.jsonl --json"))
    for row, other in zip(rows(ran), largest, strict=True):
        assert row["median"] == pytest.approx(2.718281828459045 ** other["median"])
    # Mean-field theory of independent entries, in closed form below the critical gain.
    assert largest[0]["theory"] == pytest.approx(-0.6931471805599453)
    # It is a scalar like any other.
    assert run("sweep --from runs.jsonl --fail-on min(theory_largest)<-0.69").code == 3
    assert run("sweep --from runs.jsonl --value nothing").code == 2


def test_a_window_that_is_asked_for_is_among_those_of_every_run(run: Run) -> None:
    ran = run("sweep truncation --vary gain=0.5,1 --value cosine_at_3 --to runs.jsonl --json")
    single = document(run("truncation --gain 0.5 --threads 1 --windows 3 --json"))
    assert rows(ran)[0]["median"] == pytest.approx(single["scalars"]["cosine_at_3"], rel=1e-9)


def test_a_dry_run_counts_and_estimates_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    line = "sweep gradnorm --vary gain=0.5:1.5:5 --vary loss=mse,sum --seeds 3 --to x.jsonl --json"
    ran = run(f"{line} --jobs 2 --dry-run")
    scalars = document(ran)["scalars"]
    assert (ran.code, scalars["runs"], scalars["done"], scalars["to_make"], scalars["workers"]) == (0, 30, 0, 30, 2)
    assert scalars["seconds"] == pytest.approx(15 * scalars["seconds_per_run"])
    assert [(row["name"], row["values"]) for row in rows(ran)] == [("gain", 5), ("loss", 2), ("seed", 3)]
    assert not (tmp_path / "x.jsonl").exists()
    run("sweep gradnorm --vary gain=0.5,0.75 --vary loss=mse --seeds 3 --to x.jsonl")
    again = run(f"{line} --dry-run")
    assert document(again)["scalars"]["done"] == 6


def test_the_table_of_the_question_and_that_of_sweep_are_heard(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        'hidden-size = 3\n[gradnorm]\nloss-at = "all"\nseq-len = 4\n[flow]\nseq-len = 9\n'
        '[sweep]\nseeds = 2\nvary = ["gain=0.9,1.1"]\nto = "runs.jsonl"\n'
    )
    ran = run("sweep gradnorm --config c.toml --json")
    assert [row["runs"] for row in rows(ran)] == [2, 2]
    configs = [line["config"] for line in lines(tmp_path / "runs.jsonl")]
    assert {(c["hidden_size"], c["seq_len"], c["loss_at"]) for c in configs} == {(3, 4, "all")}


def test_settings_of_others_in_the_environment_are_no_obstacle(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNCTL_WINDOWS", "3")
    monkeypatch.setenv("RNNCTL_HIDDEN_SIZE", "4")
    ran = run("sweep spectrum --vary gain=1,2 --to runs.jsonl --json")
    assert ran.code == 0
    assert document(ran)["config"]["settings"] == {"hidden_size": 4}


def test_the_first_signal_lets_runs_end_and_the_second_ends_it() -> None:
    told: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with stopping(lambda: told.append("said")) as stopped:
        assert not stopped()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped()
        assert told == ["said"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_library_asks_the_same(run: Run, tmp_path: Path) -> None:
    ran = run("sweep gradnorm --vary gain=0.5,1 --seeds 2 --loss sum --to runs.jsonl --json")
    heard: list[Any] = []
    with ThreadPoolExecutor(2) as executor:
        result = rnnctl.sweep(
            "gradnorm",
            {"loss": "sum"},
            {"gain": [0.5, 1], "seed": range(2)},
            executor=executor,
            on_result=heard.append,
        )
    assert [dict(row) for row in result.rows] == rows(ran)
    assert len(heard) == 4
    with pytest.raises(InputError, match="gain is varied over several values"):
        rnnctl.sweep("gradnorm", {}, {"gain": 7})
    with pytest.raises(InputError, match="Did you mean gradnorm"):
        rnnctl.sweep("gradnrom", {}, {"gain": [1]})
    with pytest.raises(InputError, match="says nothing of the answers"):
        rnnctl.sweep("gradnorm", {"json": True}, {"gain": [1]})


def test_texts_and_lists_are_arguments_of_a_model(run: Run, tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(
        "from torch import nn\n\ndef build(name, sizes=(1,)):\n    assert isinstance(name, str)\n"
        "    return nn.RNN(10, len(name) + sum(sizes), batch_first=True)\n"
    )
    line = "sweep gradnorm --model made:build --to runs.jsonl --json --vary"
    ran = run(line, 'model-arg.name="a,b","\u00fc"')
    assert [row["model_arg.name"] for row in rows(ran)] == ["a,b", "\u00fc"]
    ran = run(line, "model-arg.name=ab,abc", "--vary", "model-arg.sizes=[1],[2, 3]")
    assert [row["model_arg.sizes"] for row in rows(ran)] == [[1], [2, 3]] * 2
    assert ran.code == 0
    assert len(lines(tmp_path / "runs.jsonl")) == 6


def test_runs_of_several_sweeps_in_a_file_are_said(run: Run) -> None:
    run("sweep spectrum --vary gain=1,2 --to runs.jsonl")
    run("sweep spectrum --vary hidden-size=3 --to runs.jsonl")
    assert "runs of 2 sweeps" in run("sweep --from runs.jsonl --json").err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_keeps_what_has_ended_and_goes_on(number: int, tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(
        "import time\nfrom torch import nn\n\n\nclass Slow(nn.RNN):\n    def forward(self, *given):\n"
        "        time.sleep(0.3)\n        return super().forward(*given)\n\n\n"
        "def build():\n    return Slow(10, 3, batch_first=True)\n"
    )
    command = [sys.executable, "-m", "rnnctl", "sweep", "gradnorm", "--model", "made:build", "--seeds", "12"]
    command += ["--to", "runs.jsonl", "--jobs", "2", "--json"]
    path = tmp_path / "runs.jsonl"
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not path.exists() or not path.read_text().count("\n"):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in messages
    done = lines(path)
    assert 0 < len(done) < 12
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0
    assert sorted(line["varied"]["seed"] for line in lines(path)) == list(range(12))
    assert path.read_text().startswith("".join(json.dumps(line) + "\n" for line in done))


@pytest.mark.slow
def test_a_map_over_the_gain_is_that_of_mean_field_theory(tmp_path: Path) -> None:
    """H 512, 5 seeds: within 0.03 from the critical gain on, and within 0.05 below it."""
    settings = {"autonomous": True, "init": "gaussian", "hidden-size": 512, "bias": False, "h-init": "normal"}
    vary = {"gain": (0.5, 0.8, 1.0, 1.2, 1.7, 2.4), "seed": range(5)}
    result = rnnctl.sweep("lyapunov", {**settings, "count": 1}, vary, to=tmp_path / "runs.jsonl")
    for row in result.rows:
        assert row["runs"] == 5
        assert abs(row["median"] - row["theory"]) < (0.03 if row["gain"] >= 1 else 0.05), row
