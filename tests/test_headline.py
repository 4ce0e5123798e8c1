"""The line above every result, and the title of every picture: what was run, with every setting of the user's."""

import numpy as np
import pytest
import torch
from shell import forget_modules_of

from rnnctl import FullRNN
from rnnctl.__main__ import main
from rnnctl.view.figures import figure_bytes
from rnnctl.view.layouts.layout import headline

SIZES = "T 7, batch 4"
LOSS = "loss mse at last, random input, seed 0, float32 on cpu"


@pytest.fixture
def first_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lengths.csv").write_text("3\n5\n")
    np.save("x.npy", np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32))
    np.savez("several.npz", mine=np.ones((2, 5, 3), np.float32), other=np.zeros(3, np.float32))
    (tmp_path / "mine.py").write_text("import torch\n\nclass Net(torch.nn.GRU):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.save(FullRNN(10, 20, 5).state_dict(), "w.pt")

    def run(line):
        assert main(line.split()) == 0
        return capsys.readouterr().out.splitlines()[0]

    yield run
    forget_modules_of(tmp_path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gradnorm", f"gradnorm: FullRNN(10, 20, 5), tanh, {SIZES}, {LOSS}"),
        ("gradnorm --cell lstm", f"gradnorm of LSTM(10, 20, 5), {SIZES}, {LOSS}"),
        ("gradnorm --cell lstm --num-layers 2", f"gradnorm of LSTM(10, 20, 5), 2 layers, {SIZES}, {LOSS}"),
        (
            "gradnorm --model mine:Net --model-arg input_size=10 --model-arg hidden_size=4",
            f"gradnorm of mine:Net(input_size=10, hidden_size=4), {SIZES}, {LOSS}",
        ),
        ("spectrum --cell gru", f"spectrum of GRU(10, 20, 5), {SIZES}, random input, seed 0, float32 on cpu"),
        ("lyapunov --cell gru", f"lyapunov of GRU(10, 20, 5), {SIZES}, random input, seed 0, float32 on cpu"),
        (
            "forward --cell rnn --nonlinearity relu",
            f"forward of RNN(10, 20, 5), relu, {SIZES}, random input, seed 0, float32 on cpu",
        ),
        (
            "lyapunov --autonomous",
            "lyapunov: FullRNN(10, 20, 5), tanh, free-running, batch 4, seed 0, float32 on cpu",
        ),
    ],
)
def test_it_names_the_network_and_what_is_the_default_is_not_said(line, expected, first_line):
    assert first_line(line) == expected


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--init orthogonal", "tanh, init orthogonal, T 7"),
        ("--gain 1.5", "tanh, gain 1.5, T 7"),
        ("--no-bias", "tanh, no bias, T 7"),
        ("--output-activation softmax", "tanh, softmax outputs, T 7"),
        ("--h-init normal", "tanh, h_init normal, T 7"),
        ("--weights w.pt", "tanh, weights w.pt, T 7"),
        ("--loss sum --loss-at all", "loss sum at all"),
        ("--input macrodata --standardize", "macrodata, standardized, seed"),
        ("--input macrodata --target next", "macrodata, target next, seed"),
        ("--input macrodata --columns realgdp,cpi", "macrodata, columns realgdp,cpi, seed"),
        ("--input macrodata --skip-steps 3 --seq-len 20", "T 20, batch 1, loss mse at last, macrodata, from step 3"),
        ("--input several.npz --input-key mine", "several.npz, key mine, seed"),
        ("--cell gru --input x.npy --lengths lengths.csv", "x.npy, lengths lengths.csv, seed"),
        ("--cell gru --num-layers 2 --module rnn.weight_hh_l1", "random input, module rnn.weight_hh_l1, seed"),
        ("--cell gru --no-bias --gain 2 --init identity", "GRU(10, 20, 5), init identity, gain 2, no bias, T 7"),
        ("--seed 3 --dtype float64", "seed 3, float64 on cpu"),
    ],
)
def test_every_setting_that_is_not_the_default_is_named(flags, words, first_line):
    assert words in first_line(f"gradnorm {flags}")


def test_of_a_measurement_its_own_settings_too(first_line):
    assert "random input, count 2, steps 5, warmup 1, seed 0" in first_line(
        "lyapunov --count 2 --steps 5 --warmup 1 --seq-len 9"
    )
    assert "tanh, h_init zeros, free-running" in first_line("lyapunov --autonomous --h-init zeros --steps 20")
    assert "tanh, gain 0.5, T 5" in first_line("bench --gain 0.5 --seq-len 5 --repeats 1 --no-memory")


def test_a_long_title_is_broken_into_lines_that_fit_the_picture(monkeypatch):
    import torch
    from matplotlib.figure import Figure

    import rnnctl

    result = rnnctl.gradnorm(FullRNN(3, 4, 2), torch.randn(2, 5, 3))
    titles = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: titles.append(figure.get_suptitle()))
    figure_bytes(result, "gradnorm: " + ", ".join(["a setting"] * 30), "svg")
    lines = titles[0].splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= 96
    assert " ".join(lines) == "gradnorm: " + ", ".join(["a setting"] * 30)


def test_without_a_shell_a_configuration_needs_no_more_than_it_has():
    config = {"seq_len": 3, "batch_size": 1, "input": None, "seed": 0, "dtype": "float32", "device": "cpu"}
    assert headline("spectrum", {**config, "network": "net"}) == (
        "spectrum of net, T 3, batch 1, random input, seed 0, float32 on cpu"
    )


def test_lengths_that_nan_says_and_biases_that_a_file_has_not_are_named(first_line, capsys):
    values = np.ones((2, 5, 3), np.float32)
    values[1, 3:] = np.nan
    np.save("padded.npy", values)
    assert "padded.npy, lengths nan, seed" in first_line("gradnorm --cell gru --input padded.npy")
    assert main(["gradnorm", "--input", "padded.npy"]) == 0
    ran = capsys.readouterr()
    assert ran.out.startswith("gradnorm: FullRNN(3, 20, 5), tanh, T 5, batch 2")
    assert "padded.npy: nan to the last step is padding; the sequences have 3 to 5 steps of 5" in ran.err
    torch.save(torch.nn.RNN(10, 20, bias=False).state_dict(), "nb.pt")
    assert "tanh, no bias, weights nb.pt, T 7" in first_line("gradnorm --weights nb.pt")
    assert "random input" in first_line("check --loss sum")
    assert "loss sum" in first_line("check --loss sum")


def test_how_a_text_file_was_told_to_be_read_is_named(first_line):
    with open("years.csv", "w") as file:
        file.write("2019;2020\n1,5;2\n3;4\n5;6\n")
    line = first_line("gradnorm --input years.csv --header yes --delimiter ; --decimal ,")
    assert "years.csv, delimiter ;, decimal ,, header yes" in line
