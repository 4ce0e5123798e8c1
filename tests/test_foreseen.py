"""What can be told without torch is told without it, names the option as it is typed, and ends alike."""

import subprocess
import sys

import numpy as np
import pytest

# Command line -> what is said; all of them in one fresh interpreter, which must not have loaded torch at the end.
LINES = {
    "gradnorm --vanish-below 5 --explode-above 1": "--vanish-below < --explode-above; got --vanish-below 5.0",
    "gradnorm --vanish-below -1": "0 <= --vanish-below",
    "truncation --windows 0": "--windows must be from 1 to the sequence's 7 steps; got 0",
    "truncation --cell lstm --seq-len 12 --windows 3,13": "--windows must be from 1 to the sequence's 12 steps; got 13",
    "truncation --windows 3,b": "--windows must be whole numbers with commas between",
    "lyapunov --count 21": "--count must be from 1 to the hidden size 20; got 21",
    "lyapunov --hidden-size 3 --count 4": "--count must be from 1 to the hidden size 3; got 4",
    "lyapunov --steps 8": "the sequence has 7 steps",
    "lyapunov --cell gru --seq-len 5 --warmup 5": "the sequence has 5 steps; --warmup 5",
    "gradnorm --lengths nosuch": "--lengths: there is no file 'nosuch'",
    "gradnorm --input missing.npy": "--input: there is no file 'missing.npy'",
    "flow --input sunspot": "Did you mean sunspots?",
    "gradnorm --input .": "--input: cannot read '.': Is a directory",
    "gradnorm --input /dev/zero": "'/dev/zero' is a device",
    "gradnorm --input -": "add --input-format",
    "gradnorm --input sunspots --input-format npy": "sunspots is bundled",
    "gradnorm --target nxt": "Did you mean next?",
    "gradnorm --target missing.npy": "--target: there is no file",
    "spectrum --weights missing.pt": "--weights: there is no file 'missing.pt'",
    "gradnorm --from missing.jsonl": "--from: there is no file",
    "weights missing.pt": "there is no file 'missing.pt'",
    "bench --weights missing.pt": "--weights: there is no file",
    "bench --nonlinearity linear": "--nonlinearity linear",
    "check --dtype float16": "--dtype float64 or float32",
    "gradnorm --loss cross-entropy --output-activation softmax": "got --output-activation softmax",
    "flow --loss cross-entropy --output-activation tanh": "got --output-activation tanh",
    "gradnorm --loss sum --input sunspots --target next": "takes no target; got --target next",
    "gradnorm --loss cross-entropy --input sunspots --target next": "--target next gives numbers",
    "gradnorm --cell lstm --nonlinearity relu": "--nonlinearity relu is for cell rnn",
    "gradnorm --cell rnn --nonlinearity linear": "--nonlinearity linear",
    "gradnorm --h-init normal --lengths pyproject.toml": "--h-init is not for sequences of different lengths",
    "gradnorm --model nosuch.models:build": "--model: there is no module 'nosuch'",
    "gradnorm --model torch.nn:LSTM --batch nosuch:batch": "--batch: there is no module 'nosuch'",
    "gradnorm --model train.py:build": "--model must be package.module:name",
    "flow --model torch.nn:LSTM --model-arg a": "--model-arg must be name=value",
    "flow --model torch.nn:LSTM --model-arg a=None": "--model-arg 'a=None'",
    "gradnorm --hiden-size 3": "No such option: --hiden-size. Did you mean --hidden-size?",
    "gradnorm --zzz": "No such option: --zzz",
    "forward --plot x.png": "forward does not have it; gradnorm, flow, truncation, spectrum and lyapunov have",
    "flow --windows 3": "No such option: --windows. flow does not have it; truncation has",
    "gradnorm --bias=x": "Option '--bias' does not take a value",
    "gradnorm --config missing.toml": "there is no file 'missing.toml'",
    "gradnorm --fail-on cancelation<1": "no result has 'cancelation'. Did you mean cancellation?",
    "flow --cell lstm --fail-on nosuch": "no result has 'nosuch'",
    "help nosuch-command": "there is no command 'nosuch-command'",
    "completion nosh": "'nosh' is not one of 'bash', 'zsh', 'fish'",
}
TOLD = """
import sys
from rnnctl.__main__ import main
for line in sys.stdin.read().splitlines():
    print(f"\\0{line}\\0", file=sys.stderr)
    code = main(line.split())
    print(f"\\0{code}", file=sys.stderr)
print(f"\\0torch {'torch' in sys.modules}", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Line -> (what is said, exit code); and whether torch was loaded for any of them."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "pyproject.toml").write_text("")
    command = [sys.executable, "-c", TOLD]
    ran = subprocess.run(command, input="\n".join(LINES), capture_output=True, text=True, cwd=folder, timeout=120)
    assert ran.stdout == ""
    *parts, last = ran.stderr.split("\0")[1:]
    found = {parts[i].strip(): (parts[i + 1].strip(), int(parts[i + 2])) for i in range(0, len(parts), 3)}
    return found, last.strip()


@pytest.mark.parametrize("line", LINES)
def test_it_is_told_with_exit_code_2(line, told):
    said, code = told[0][line]
    assert code == 2
    assert LINES[line] in said
    assert "Traceback" not in said
    first, *rest = said.splitlines()
    assert first.startswith("Error: ")
    assert not first.endswith(".")
    assert rest in ([], [f"Try 'rnnctl {line.split()[0]} --help' for help"])


def test_torch_is_not_loaded_for_any_of_it(told):
    assert told[1] == "torch False"


def test_what_only_the_data_tell_is_not_refused_before(tmp_path, monkeypatch, capsys):
    from rnnctl.__main__ import main

    monkeypatch.chdir(tmp_path)
    np.save("long.npy", np.random.default_rng(0).normal(size=(2, 30, 3)))
    np.save("classes.npy", np.zeros((2, 30), np.int64))
    for line in (
        "truncation --input long.npy --windows 25",
        "lyapunov --input long.npy --steps 20",
        "lyapunov --autonomous --steps 20 --count 2",
        "gradnorm --input long.npy --loss cross-entropy --target classes.npy",
    ):
        assert main([*line.split(), "--only", "scalars"]) == 0
    assert capsys.readouterr().err == ""
