"""Behind the last step that a loss reads there is no way back; and what a narrow dtype loses on it is said."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import rnnctl
from rnnctl.__main__ import main


def scalars(capsys, *words, code=0):
    ran = main([*map(str, words), "--json"])
    out, err = capsys.readouterr()
    assert ran == code, err
    return json.loads(out)["scalars"]


@pytest.mark.parametrize("network", [[], ["--cell", "rnn"], ["--cell", "lstm"]])
def test_trailing_padding_changes_no_verdict(network, tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(2, 9, 3))
    padded = x.copy()
    padded[:, 6:] = np.nan
    np.save(tmp_path / "short.npy", x[:, :6])
    np.save(tmp_path / "padded.npy", padded)
    sizes = ["--dtype", "float64", *network]
    short, long = (scalars(capsys, "gradnorm", "--input", tmp_path / f"{n}.npy", *sizes) for n in ("short", "padded"))
    for name in ("first_over_last", "factor_per_step", "steps_to_one_percent"):
        assert long[name] == pytest.approx(short[name], rel=1e-9) if short[name] is not None else long[name] is None
    assert (long["verdict"], long["reason"]) == (short["verdict"], short["reason"])
    assert "over 6 steps" in long["reason"]


class Early(nn.Module):
    """Its loss reads a step in the middle."""

    def __init__(self, core, at):
        super().__init__()
        self.core, self.at = core, at

    def forward(self, x):
        return self.core(x)[:, self.at]


class Layer(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(3, 4, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


class Cells(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell = kind(3, 4)

    def forward(self, x):
        state, found = None, []
        for x_t in x.unbind(1):
            state = self.cell(x_t, state)
            found.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(found, 1)


class Raw(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.W, self.into, self.scale = nn.Parameter(0.4 * torch.randn(4, 4)), nn.Linear(3, 4), scale

    def forward(self, x):
        h, found = x.new_zeros(len(x), 4), []
        for x_t in x.unbind(1):
            h = torch.tanh(self.into(x_t) + h @ self.W)
            found.append(h)
        return torch.stack(found, 1) * self.scale


@pytest.mark.parametrize("core", [lambda: Layer(nn.LSTM), lambda: Cells(nn.GRUCell), lambda: Cells(nn.LSTMCell), Raw])
def test_a_loss_that_reads_an_early_step_is_followed_from_there(core):
    torch.manual_seed(0)
    model, x = core().double(), torch.randn(2, 8, 3, dtype=torch.float64)
    found = rnnctl.gradnorm(Early(model, 4), x).scalars
    expected = rnnctl.gradnorm(Early(model, 4), x[:, :5]).scalars
    assert found["first_over_last"] == pytest.approx(expected["first_over_last"], rel=1e-9)
    assert found["factor_per_step"] == pytest.approx(expected["factor_per_step"], rel=1e-9)
    assert found["verdict"] == expected["verdict"] == "stable"


@pytest.mark.parametrize("scale", [3e-2, 1e-2, 1e-3, 1e-4])
def test_in_float16_what_is_lost_on_the_way_back_is_not_called_vanishing(scale):
    torch.manual_seed(0)
    model, x = Raw(scale), torch.randn(4, 6, 3)
    exact = rnnctl.gradnorm(model.double(), x.double()).scalars
    found = rnnctl.gradnorm(model.half(), x.half()).scalars
    assert exact["verdict"] == "stable"
    assert found["verdict"] in ("stable", "undecided", "no gradient")
    if found["verdict"] == "stable":
        assert found["first_over_last"] == pytest.approx(exact["first_over_last"], rel=0.1)
    else:
        assert "underflow" in found["reason"]


def test_in_float16_what_has_fallen_far_enough_is_vanishing_whatever_is_lost() -> None:
    torch.manual_seed(0)
    model, x = Raw(scale=100.0), torch.randn(4, 8, 3)
    with torch.no_grad():
        model.W.mul_(0.05)
    found = rnnctl.gradnorm(model.half(), x.half()).scalars
    exact = rnnctl.gradnorm(model.double(), x.double()).scalars
    assert (found["verdict"], exact["verdict"]) == ("vanishing", "vanishing")


def test_raw_data_is_vanishing_for_every_way_to_write_the_network(capsys):
    found = [
        scalars(capsys, "gradnorm", "--input", "macrodata", *network)
        for network in ([], ["--cell", "rnn"], ["--cell", "manual"])
    ]
    assert {each["verdict"] for each in found} == {"vanishing"}


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("verdict==vanishing", 1),
        ("verdict!=stable", 1),
        ("verdict==undecided", 3),
        ("vanishing", 1),
    ],
)
def test_a_condition_on_a_verdict_that_is_undecided_is_no_success(condition, code, capsys):
    assert main(["gradnorm", "--seq-len", "1", "--fail-on", condition]) == code
    err = capsys.readouterr().err
    assert condition in err
    if code == 1:
        assert "one step alone" in err
