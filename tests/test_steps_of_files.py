"""--seq-len and --skip-steps take steps of a longer --input, and what goes with it is cut alike."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnctl.__main__ import main

STEPS, SKIP, T = 12, 3, 4
PART = slice(SKIP, SKIP + T)
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, STEPS, 2)).astype("float32")
Y = RANDOM.normal(size=(3, STEPS, 1)).astype("float32")
CLASSES = RANDOM.integers(0, 5, size=(3, STEPS))
# Steps of the three sequences, of which a cut leaves 4, 3 and 1.
LENGTHS = np.array([12, 6, 4])
CUT = ("--seq-len", T, "--skip-steps", SKIP)

Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The exit code, the JSON and what was told, in a folder with the files."""
    monkeypatch.chdir(tmp_path)
    padded = np.where((np.arange(STEPS) < LENGTHS[:, None])[..., None], X, np.nan)
    arrays = {
        **{"x": X, "x_cut": X[:, PART], "one": X[0], "one_cut": X[0, PART], "y": Y, "y_cut": Y[:, PART]},
        **{"flat": Y[0, :, 0], "flat_cut": Y[0, PART, 0], "c": CLASSES, "c_cut": CLASSES[:, PART]},
        **{"x_next": X[:, SKIP : SKIP + T + 1], "y_other": Y[:, :7], "last": Y[:, 0]},
        **{"lengths": LENGTHS, "lengths_cut": np.array([4, 3, 1]), "padded": padded, "padded_cut": padded[:, PART]},
        **{"x_infinite": np.where(np.arange(STEPS)[:, None] < 3, np.inf, X), "tokens": CLASSES},
    }
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    Path("words.py").write_text(WORDS)

    def call(*arguments: object) -> tuple[int, Any, str]:
        code = main([*map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return call


WORDS = """import torch
from torch import nn

def batch():
    return (torch.zeros(2, 7, dtype=torch.long),)

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.rnn = nn.RNN(3, 4, batch_first=True)

    def forward(self, x):
        return self.rnn(self.embed(x))[0]
"""


def answer(found: Any) -> Any:
    return {name: found[name] for name in ("scalars", "rows")}


def same(run: Run, whole: tuple[object, ...], cut: tuple[object, ...]) -> str:
    """What the first told, which answers as the second does."""
    (code, found, told), (other, expected, _) = run(*whole), run(*cut)
    assert (code, other) == (0, 0), told
    assert answer(found) == answer(expected)
    assert (found["config"]["seq_len"], found["config"]["skip_steps"]) == (T, SKIP)
    return told


COMMANDS = ["forward", "cell", "gradnorm", "unroll", "flow", "lyapunov", "spectrum", "truncation", "check"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_the_same_steps(run: Run, command: str) -> None:
    same(run, (command, "--input", "x.npy", *CUT), (command, "--input", "x_cut.npy"))


def test_bench_takes_the_same_steps(run: Run) -> None:
    """It answers in times."""
    code, found, _ = run("bench", "--input", "x.npy", *CUT, "--repeats", 1, "--no-memory")
    assert (code, found["config"]["seq_len"], found["config"]["skip_steps"]) == (0, T, SKIP)


def test_without_skip_steps_the_first_are_taken(run: Run) -> None:
    first = run("gradnorm", "--input", "sunspots", "--seq-len", 100)[1]
    assert first["config"]["seq_len"] == 100 and len(first["rows"]) == 100
    rest = run("gradnorm", "--input", "sunspots", "--skip-steps", 209)[1]
    assert rest["config"]["seq_len"] == 100 and answer(rest) != answer(first)


@pytest.mark.parametrize(
    ("whole", "cut"),
    [
        ("--input x.npy --target y.npy", "--input x_cut.npy --target y_cut.npy"),
        (
            "--input x.npy --target c.npy --loss cross-entropy",
            "--input x_cut.npy --target c_cut.npy --loss cross-entropy",
        ),
        ("--input one.npy --target flat.npy", "--input one_cut.npy --target flat_cut.npy"),
        ("--input one.npy --target y.csv", "--input one_cut.npy --target flat_cut.npy"),
    ],
)
def test_a_target_for_every_step_of_the_file_is_cut_alike_and_this_is_told(run: Run, whole: str, cut: str) -> None:
    np.savetxt("y.csv", Y[0, :, 0])
    told = same(run, ("gradnorm", *whole.split(), *CUT), ("gradnorm", *cut.split()))
    assert f"{whole.split()[3]}: cut as the input is, to its steps 3 to 6" in told


@pytest.mark.parametrize("target", ["y_cut.npy", "last.npy"])
def test_a_target_that_fits_already_is_taken_as_it_is(run: Run, target: str) -> None:
    told = same(
        run,
        ("gradnorm", "--input", "x.npy", "--target", target, *CUT),
        ("gradnorm", "--input", "x_cut.npy", "--target", target),
    )
    assert "cut as" not in told


def test_a_target_of_other_steps_is_refused_with_both_numbers(run: Run) -> None:
    code, _, told = run("gradnorm", "--input", "x.npy", "--target", "y_other.npy", "--seq-len", 4)
    assert code == 2
    assert "y_other.npy must have shape (3, 4, 1); got (3, 7, 1): a value for each of the 4 steps of x.npy" in told
    assert "Try --seq-len 7" in told
    code, _, told = run("gradnorm", "--input", "x.npy", "--target", "y_other.npy", "--skip-steps", 6)
    assert code == 2 and "each of the 6 steps" in told and "Try" not in told
    code, _, told = run("gradnorm", "--batch-size", 3, "--target", "y_other.npy", "--seq-len", 6)
    assert code == 2 and "Try --seq-len 7" in told
    assert run("gradnorm", "--batch-size", 3, "--target", "y_other.npy", "--seq-len", 7)[0] == 0


def test_target_next_takes_one_step_more_for_as_many_pairs(run: Run) -> None:
    same(
        run,
        ("gradnorm", "--input", "x.npy", "--target", "next", *CUT),
        ("gradnorm", "--input", "x_next.npy", "--target", "next"),
    )
    assert run("gradnorm", "--input", "x.npy", "--target", "next", "--seq-len", 11)[0] == 0
    code, _, told = run("gradnorm", "--input", "x.npy", "--target", "next", "--seq-len", 12)
    assert code == 2 and "one less than its steps" in told and "Give at most 11" in told
    code, _, told = run("gradnorm", "--input", "x.npy", "--target", "next", "--skip-steps", 11)
    assert code == 2 and "at least 2 steps; x.npy has 1 of its 12 left" in told


def test_what_is_standardized_is_what_is_taken(run: Run) -> None:
    same(
        run,
        ("gradnorm", "--input", "x.npy", "--standardize", *CUT),
        ("gradnorm", "--input", "x_cut.npy", "--standardize"),
    )


@pytest.mark.parametrize("cell", ["manual", "lstm"])
def test_lengths_count_the_steps_of_the_file_and_are_cut(run: Run, cell: str) -> None:
    command = ("gradnorm", "--cell", cell, "--input")
    cut = (*command, "x_cut.npy", "--lengths", "lengths_cut.npy")
    same(run, (*command, "x.npy", "--lengths", "lengths.npy", *CUT), cut)
    same(run, (*command, "padded.npy", *CUT), (*command, "padded_cut.npy"))


@pytest.mark.parametrize("data", [("--input", "x.npy", "--lengths", "lengths.npy"), ("--input", "padded.npy")])
def test_a_sequence_that_has_no_step_left_is_refused(run: Run, data: tuple[str, ...]) -> None:
    code, _, told = run("gradnorm", *data, "--skip-steps", 4)
    assert code == 2
    assert f"--skip-steps 4 leaves no step of sequence 2 of {data[-1]}, which has 4" in told
    assert run("gradnorm", *data, "--skip-steps", 3)[0] == 0


def test_padding_beyond_the_steps_that_are_taken_is_none(run: Run) -> None:
    padded, whole = (run("lyapunov", "--input", name, "--seq-len", 4) for name in ("padded.npy", "x.npy"))
    assert padded[0] == whole[0] == 0 and answer(padded[1]) == answer(whole[1])
    assert run("lyapunov", "--input", "padded.npy", "--seq-len", 5)[0] == 2


def test_what_is_not_taken_may_be_anything_and_what_is_keeps_its_number(run: Run) -> None:
    same(run, ("gradnorm", "--input", "x_infinite.npy", *CUT), ("gradnorm", "--input", "x_cut.npy"))
    code, _, told = run("gradnorm", "--input", "x_infinite.npy", "--skip-steps", 1)
    assert code == 2 and "sequence 0, step 1, feature 0" in told


def test_tokens_are_cut_as_well(run: Run) -> None:
    code, found, _ = run("gradnorm", "--model", "words:Words", "--input", "tokens.npy", *CUT)
    assert code == 0 and found["config"]["seq_len"] == T
    np.save("tokens_cut.npy", CLASSES[:, PART])
    assert answer(found) == answer(run("gradnorm", "--model", "words:Words", "--input", "tokens_cut.npy")[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--input x.npy --seq-len 13", "says seq-len 13; x.npy has 12. Give at most 12, or leave it out"),
        ("--input x.npy --skip-steps 5 --seq-len 8", "seq-len 8; x.npy after --skip-steps 5 has 7. Give at most 7"),
        ("--input x.npy --skip-steps 12", "--skip-steps 12 leaves no step of x.npy, which has 12"),
        ("--skip-steps 2", "--skip-steps is about --input, which is not given"),
        ("--model words:Words --batch words:WORDS --skip-steps 2", "--skip-steps is about --input"),
        ("--input x.npy --batch-size 7", "says batch-size 7; x.npy has 3. Leave out --batch-size"),
        ("--input x.npy --input-size 7", "says input-size 7; x.npy has 2. Leave out --input-size\n"),
        ("--input two.csv --input-size 7", "two.csv has 2. Leave out --input-size, or choose columns with --columns"),
        ("--model words:Words --batch words:batch --seq-len 3", "--batch words:batch has 7. Leave out --seq-len"),
        ("--input x.npy --header no", "are about text files (CSV), and none is read here. Leave them out"),
        ("--delimiter ;", "--delimiter is about a CSV file of --input, --target or --lengths; none is given"),
        ("--input two.csv --delimiter ab", "expected one character, such as ';', or comma, semicolon, tab"),
        ("--input two.csv --delimiter 1", "expected one character"),
    ],
)
def test_sizes_and_options_that_contradict_are_refused_with_what_settles_them(
    run: Run, arguments: str, words: str
) -> None:
    Path("two.csv").write_text("a,b\n1,2.5\n3,4\n")
    code, found, told = run("gradnorm", *arguments.split())
    assert (code, found) == (2, None)
    assert words in told


@pytest.mark.parametrize("name", ["semicolon", "SEMICOLON", ";"])
def test_the_command_line_reads_what_it_is_told_of_a_text_file(run: Run, name: str) -> None:
    Path("german.csv").write_text("1,5;2\n3;4,25\n")
    np.save("german.npy", np.array([[1.5, 2], [3, 4.25]]))
    code, found, told = run(
        "gradnorm", "--input", "german.csv", "--delimiter", name, "--decimal", ",", "--header", "no"
    )
    assert code == 0 and "Note" not in told
    assert answer(found) == answer(run("gradnorm", "--input", "german.npy")[1])
    assert [found["config"][key] for key in ("delimiter", "decimal", "header")] == [";", ",", "no"]


def test_what_was_decided_of_each_file_is_told_on_stderr(run: Run) -> None:
    Path("x.csv").write_text(",a\n0,1.5\n1,2.5\n")
    Path("y.ckpt").write_text(",b\n0,5\n1,7\n")
    Path("lengths.csv").write_text("length;\n2;\n")
    code, found, told = run(
        "gradnorm",
        "--input",
        "x.csv",
        "--target",
        "y.ckpt",
        "--lengths",
        "lengths.csv",
        "--cell",
        "lstm",
        "--output-size",
        1,
    )
    assert code == 0 and found["config"]["input_size"] == 1
    for words in (
        "x.csv: column 1 is left out",
        "y.ckpt: read as csv",
        "y.ckpt: column 1 is left out",
        "lengths.csv: ",
    ):
        assert f"Note: {words}" in told


def test_a_name_with_a_comma_is_chosen_in_quotes(run: Run) -> None:
    Path("x.csv").write_text('"u, mean";v\n1;2.5\n3;5\n')
    np.save("v.npy", np.array([[1.0], [3.0]]))
    found = run("gradnorm", "--input", "x.csv", "--columns", '"u, mean"')[1]
    assert answer(found) == answer(run("gradnorm", "--input", "v.npy")[1])
