"""Where something is not finite, or too small for its dtype: every number that is none says so, and none is a 0."""

import copy
import math

import pytest
import torch
from shell import document, forget_modules_of, runner
from torch import nn

import rnnctl
from rnnctl import FullRNN
from rnnctl.dynamics.checkpoint import contents
from rnnctl.errors import RnnctlError
from rnnctl.gradients.truncation import Truncation
from rnnctl.recurrence.states_seen import FirstNonfinite, is_nan_alone

GROWING = "--nonlinearity linear --init orthogonal --gain 10"
HELD = "float32 ends at 3.4e38; in float64 it is finite (--dtype float64)"
MINE = """
import torch
from torch import nn

class Linear(nn.Module):
    def __init__(self, hidden=6, gain=10.0):
        super().__init__()
        torch.manual_seed(1)
        self.U, self.W = nn.Linear(10, hidden), nn.Parameter(gain * torch.linalg.qr(torch.randn(hidden, hidden))[0])
    def step(self, x_t, h):
        return self.U(x_t) + h @ self.W
    def forward(self, x):
        h, states = x.new_zeros(x.shape[0], len(self.W)), []
        for x_t in x.unbind(1):
            h = self.step(x_t, h)
            states.append(h)
        return torch.stack(states, 1)

class Log(Linear):
    def step(self, x_t, h):
        return torch.log(torch.tanh(0.05 * h @ self.W + self.U(x_t)) + 0.95)

class Sine(Linear):
    def __init__(self):
        super().__init__(gain=1.0)
    def step(self, x_t, h):
        return torch.sin(super().step(x_t, h))
    def forward(self, x):
        found = super().forward(x)
        return torch.log(found - 2)
"""


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    (tmp_path / "overflowing.py").write_text(MINE)
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


def mine(name, **settings):
    namespace: dict = {}
    exec(MINE, namespace)
    return namespace[name](**settings)


# ---- reasons ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        f"gradnorm {GROWING} --seq-len 60",
        "gradnorm --nonlinearity relu --init identity --gain 50 --seq-len 40 --batch-size 1",
        "gradnorm --cell rnn --nonlinearity relu --init identity --gain 30 --seq-len 60",
        "gradnorm --model overflowing:Linear --seq-len 60",
        "gradnorm --model overflowing:Linear --seq-len 30 --dtype float16 --no-verify",
        f"gradnorm {GROWING} --seq-len 60 --dtype bfloat16",
    ],
)
def test_every_number_of_gradnorm_that_overflow_takes_gives_that_reason(line, run):
    found = document(run(f"{line} --json"))
    scalars, why = found["scalars"], found["why"]
    names = ("cancellation", "factor_per_step", "steps_to_one_percent", "first_over_last")
    for name in names:
        if scalars[name] is None:
            assert why[name] == scalars["reason"], name
    # A share of what is not known is none, be it 0.
    assert scalars["cancellation"] is None
    dtype = found["config"]["dtype"]
    assert f"{dtype} ends at" in why["cancellation"]
    assert all(row["share"] is None for row in found["rows"])


def test_a_ratio_of_infinite_sums_is_none_and_answers_no_condition(run):
    ran = run(f"gradnorm {GROWING} --seq-len 25 --fail-on cancellation>0.9")
    assert ran.code == 1
    assert f"cancellation has no value here: the loss or a gradient is not finite: {HELD}" in ran.err
    assert run(f"gradnorm {GROWING} --seq-len 25 --dtype float64 --fail-on cancellation>0.9").code in (0, 3)
    # What is known stays: the norms on the way back are finite.
    found = document(run(f"gradnorm {GROWING} --seq-len 25 --json"))
    assert found["scalars"]["factor_per_step"] == pytest.approx(10, rel=1e-4)
    assert found["why"]["steps_to_one_percent"] == "it does not fall to 1 % within this sequence"


def test_padding_has_no_known_share_of_what_is_not_finite():
    torch.manual_seed(0)
    model = nn.RNN(3, 4, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        model.weight_hh_l0.copy_(40 * torch.eye(4))
    found = rnnctl.gradnorm(model, torch.randn(2, 60, 3), lengths=torch.tensor([60, 20]))
    assert found.scalars["padded_share"] is None
    assert found.why["padded_share"] == found.scalars["reason"]


def test_no_window_has_a_known_part_of_an_infinite_gradient():
    gradients = torch.ones(2, 3, 3, dtype=torch.float64)
    gradients[1, 0, 2] = math.inf
    parts = {"loss": 1.0, "agreement": None, "nonfinite": FirstNonfinite()}
    found = Truncation((1, 5), gradients, torch.ones(2, dtype=torch.float64), **parts)
    assert all(math.isnan(row[name]) for row in found.rows for name in ("norm_ratio", "relative_error", "cosine"))


def test_against_an_infinite_norm_nothing_has_vanished():
    decay = rnnctl.gradients.decay.decay_over_time(torch.tensor([0.0, 1.0, math.inf], dtype=torch.float64))
    assert math.isnan(decay.first_over_last)
    assert decay.steps_to_one_percent is None


@pytest.mark.parametrize("line", [f"{GROWING} --seq-len 60", "--nonlinearity relu --init identity --gain 50"])
def test_lyapunov_says_of_gradnorms_factor_what_gradnorm_says(line, run):
    line = f"{line} --seq-len 60 --json"
    reason = document(run(f"gradnorm {line}"))["why"]["factor_per_step"]
    assert document(run(f"lyapunov {line}"))["why"]["factor_per_step"] == f"of gradnorm: {reason}"
    assert HELD in reason


@pytest.mark.parametrize("kind", ["own", "LSTM", "GRU"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("question", [rnnctl.lyapunov, rnnctl.spectrum])
def test_what_is_given_is_not_called_an_overflow(question, value, kind):
    torch.manual_seed(0)
    model = FullRNN(3, 4, 2) if kind == "own" else getattr(nn, kind)(3, 4, batch_first=True)
    x = torch.randn(2, 12, 3)
    x[0, 7, 1] = value
    found = question(model, x)
    # Gates that an infinite number shuts leave numbers behind them.
    if found.first_nonfinite_step is None:
        assert value == math.inf
        return
    assert found.first_nonfinite_step == 7
    said = [found.scalars["nonfinite_reason"], *found.why.values()]
    assert said[0] == "h_t is not finite first at step 7: what it is given is not finite"
    assert not any("overflows" in each for each in said if "gradnorm" not in each)
    x[0, 7, 1] = 0
    assert "nonfinite_reason" not in question(model, x).scalars


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("command", ["lyapunov --warmup 0", "spectrum"])
def test_the_users_code_says_where_the_dtype_that_it_runs_in_ends(command, dtype, run):
    line = f"{command} --model overflowing:Linear --seq-len 60 --batch-size 2 --dtype {dtype}"
    scalars = document(run(f"{line} --json"))["scalars"]
    ends = f"{dtype} ends at {'6.6e4' if dtype == 'float16' else '3.4e38'}; whether float64 holds it is not known"
    step = scalars["first_nonfinite_step"]
    assert scalars["nonfinite_reason"].startswith(f"h_t or its Jacobian is not finite first at step {step}: {ends}")
    assert "try --dtype float64" in scalars["nonfinite_reason"]
    assert ends in " ".join(run(line).out.split())
    wide = document(run(f"{line.replace(dtype, 'float64')} --json"))["scalars"]
    assert wide["first_nonfinite_step"] is None


def test_what_cannot_be_measured_names_the_dtype(run):
    ran = run("lyapunov --model overflowing:Linear --seq-len 60 --dtype float16")
    assert ran.code == 1
    assert "float16 ends at 6.6e4" in ran.err
    model, x = mine("Linear"), torch.randn(2, 60, 10)
    with pytest.raises(RnnctlError, match=r"Try a smaller warmup.*float32 ends at 3\.4e38.*try --dtype float64"):
        rnnctl.lyapunov(model, x, warmup=50)


@pytest.mark.parametrize("command", ["flow", "truncation"])
@pytest.mark.parametrize("only", ["", " --only scalars"])
def test_a_loss_that_alone_overflows_says_so_on_the_screen(command, only, run):
    said = " ".join(run(f"{command} {GROWING} --seq-len 25{only}").out.split())
    assert f"the loss is inf: {HELD}" in said


def test_claims_that_nothing_can_hold_say_where_float32_ends(run):
    line = "check --nonlinearity relu --init identity --gain 50 --seq-len 40"
    ran = run(f"{line} --dtype float32")
    assert ran.code == 1
    assert HELD in ran.err
    assert HELD in " ".join(ran.out.split())
    found = document(run(f"{line} --dtype float32 --json"))["scalars"]
    assert HELD in found["nonfinite_reason"]
    assert found["nonfinite"] == {"largest_relative_error": "nan"}
    wide = document(run(f"{line} --dtype float64 --json"))["scalars"]
    assert (wide["failed"], "nonfinite_reason" in wide) == (0, False)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_checkpoint_without_a_radius_names_the_weight_that_is_not_finite(value):
    state = nn.RNN(3, 4).state_dict()
    state["weight_hh_l0"][1, 2] = value
    found = contents(state, "broken.pt")
    assert found.scalars["largest_spectral_radius"] is None
    assert found.why["largest_spectral_radius"] == "not finite: weight_hh_l0"
    assert found.why["largest_spectral_norm"] == "not finite: weight_hh_l0"


# ---- nan that is no overflow --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("question", [rnnctl.gradnorm, rnnctl.flow, rnnctl.truncation])
@pytest.mark.parametrize("name", ["Log", "Sine"])
def test_an_operation_without_a_value_is_no_overflow(name, question, dtype):
    """The logarithm of what is below 0, in the loop or behind it."""
    model, x = mine(name).to(dtype), torch.randn(2, 30, 10, generator=torch.Generator().manual_seed(0)).to(dtype)
    # Where log ends: most steps are far from it.
    x[0, 12] *= 50
    assert model(x).isnan().any()
    assert not model(x).isinf().any()
    scalars = question(model, x).scalars
    reason = scalars["reason" if question is rnnctl.gradnorm else "nonfinite_reason"]
    assert "it is nan and not inf: an operation without a value there, or an overflow inside the step" in reason
    assert "ends at" not in reason
    assert "try --dtype" not in reason


@pytest.mark.parametrize("question", [rnnctl.lyapunov, rnnctl.spectrum])
def test_a_trajectory_that_ends_at_nan_blames_no_dtype(question):
    model, x = mine("Log"), torch.randn(2, 30, 10, generator=torch.Generator().manual_seed(0))
    x[0, 12] *= 50
    reason = question(model, x).scalars["nonfinite_reason"]
    assert "it is nan and not inf" in reason
    assert "ends at" not in reason


def test_sums_of_infinite_products_are_an_overflow_though_they_are_nan():
    """Of signs that differ: the state before is near the end of its range."""
    model, x = mine("Linear"), torch.randn(2, 60, 10)
    with torch.no_grad():
        model.W.mul_(1e6)
    h = model(x)
    first = int((~h.isfinite()).flatten(2).any(2).any(0).nonzero()[0])
    assert h[:, first].isnan().any()
    assert "float32 ends at 3.4e38" in rnnctl.gradnorm(model, x).scalars["reason"]
    assert "float32 ends at 3.4e38" in rnnctl.lyapunov(model, x, warmup=0).scalars["nonfinite_reason"]


# ---- what float32 cannot hold by itself ---------------------------------------------------------


def shrinking(factor, kind="linear"):
    torch.manual_seed(0)
    model = FullRNN(3, 6, 2, nonlinearity=kind)
    with torch.no_grad():
        weight = model.rnn_cell.hidden_to_hidden.weight
        weight.copy_(factor * torch.linalg.qr(torch.randn(6, 6))[0])
    return model


@pytest.mark.parametrize("kind", ["linear", "tanh"])
@pytest.mark.parametrize("factor", [1e-8, 1e-5, 1e-2, 3e-1])
def test_what_shrinks_beyond_float32_is_no_zero_in_it(factor, kind):
    model, x = shrinking(factor, kind), torch.randn(3, 30, 3)
    wide = copy.deepcopy(model).double()
    narrow, exact = (rnnctl.flow(*each) for each in ((model, x), (wide, x.double())))
    assert narrow.scalars["median_reach"] == pytest.approx(exact.scalars["median_reach"], rel=1e-4)
    if kind == "linear":
        assert exact.scalars["median_reach"] == pytest.approx(factor**29, rel=1e-4)
    assert torch.allclose(narrow.log_relative.tril(), exact.log_relative.tril(), rtol=1e-5, atol=1e-4)
    reach = rnnctl.gradnorm(model, x).scalars["first_over_last"]
    assert float(narrow.log_relative[-1, 0].exp()) == pytest.approx(reach, rel=1e-4)
    errors, expected = (
        [row["relative_error"] for row in rnnctl.truncation(m, each).rows]
        for m, each in ((model, x), (wide, x.double()))
    )
    assert errors == pytest.approx(expected, rel=1e-3, abs=0)
    assert all(error > 0 for error in errors[:-1])


def test_a_stretch_of_the_sequence_that_loses_more_than_the_rest_is_seen_in_time():
    """At a few steps in the middle every unit is nearly saturated, and a step there shrinks by 2**-20."""
    model, x = shrinking(1.0, "tanh"), torch.zeros(2, 60, 3)
    with torch.no_grad():
        for parameter in model.rnn_cell.input_to_hidden.parameters():
            parameter.fill_(1.0)
        model.rnn_cell.hidden_to_hidden.bias.zero_()
    x[:, 20:34] = 1.7
    narrow, exact = (rnnctl.flow(*each) for each in ((model, x), (copy.deepcopy(model).double(), x.double())))
    assert exact.log_relative[-1, 0] < -100
    assert torch.isfinite(narrow.log_relative.tril()).all()
    assert narrow.log_relative[-1, 0] == pytest.approx(float(exact.log_relative[-1, 0]), rel=0.05)


def test_two_layers_share_a_scale_and_keep_what_shrinks():
    torch.manual_seed(0)
    model = nn.RNN(3, 5, 2, batch_first=True)
    with torch.no_grad():
        for name in ("weight_hh_l0", "weight_hh_l1"):
            getattr(model, name).mul_(1e-6)
    x = torch.randn(2, 20, 3)
    narrow = rnnctl.flow(model, x, only="*hh_l1")
    exact = rnnctl.flow(copy.deepcopy(model).double(), x.double(), only="*hh_l1")
    assert narrow.scalars["median_reach"] == pytest.approx(exact.scalars["median_reach"], rel=1e-4)
    assert 0 < narrow.scalars["median_reach"] < 1e-100


def test_where_autograd_itself_underflows_a_zero_is_said_to_be_none():
    """A backward pass for every loss of code of the user's own has no scale of ours."""
    model, x = mine("Linear", gain=1e-6), torch.randn(2, 15, 10)
    narrow, exact = rnnctl.flow(model, x), rnnctl.flow(copy.deepcopy(model).double(), x.double())
    assert narrow.scalars["median_reach"] == 0
    assert 0 < exact.scalars["median_reach"] < 1e-70
    assert any("may have underflowed in float32" in note for note in narrow.notes)
    assert exact.notes == ()


# ---- the two rules by themselves ----------------------------------------------------------------


def test_a_share_is_of_something_finite():
    share_of = rnnctl.gradients.decay.share_of
    assert share_of(1.0, 4.0) == 0.25
    assert share_of(0.0, 4.0) == 0
    for part, whole in ((0.0, 0.0), (1.0, math.inf), (math.inf, math.inf), (math.nan, 1.0), (1.0, math.nan)):
        assert share_of(part, whole) is None


def test_nan_alone_is_told_from_an_overflow():
    nan, near, both = (torch.tensor(each) for each in ([1.0, math.nan], [1e30, 1.0], [math.inf, math.nan]))
    assert is_nan_alone(nan)
    assert is_nan_alone(nan, torch.ones(2))
    assert not is_nan_alone(nan, near)
    assert is_nan_alone(nan.double(), near.double())
    assert not is_nan_alone(both)
    assert not is_nan_alone(torch.tensor([math.inf]))


def test_of_windows_whose_gradients_overflow_that_is_the_reason_and_not_that_they_are_0(run):
    line = "truncation --seq-len 60 --hidden-size 12 --gain 40 --nonlinearity relu --fail-on"
    ran = run(f"{line} cosine_at_8<0.5")
    assert ran.code == 1
    assert "cosine_at_8 has no value here: the gradients are not finite" in ran.err
    assert HELD in ran.err
