"""What follows from Lyapunov exponents, however many are shown and as far as their errors leave it open."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import rnnctl
from rnnctl.models.driven import driven_layer
from rnnctl.view.render import View, rendered
from rnnctl.view.terminal import Terminal

OF_MARGINAL = ("kaplan_yorke_dimension", "efolding_steps", "steps_to_one_percent")


def network(W_hh, nonlinearity="tanh", inputs=2, dtype=torch.float64):
    W_hh = torch.as_tensor(W_hh, dtype=torch.float64)
    torch.manual_seed(0)
    model = rnnctl.FullRNN(inputs, len(W_hh), 2, nonlinearity=nonlinearity, bias=False, dtype=dtype)
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight.copy_(W_hh)
    return model


def random(hidden, gain=1.0, seed=0):
    return torch.randn(hidden, hidden, generator=torch.Generator().manual_seed(seed)).double() * gain / hidden**0.5


def inputs(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


class ByHand(nn.Module):
    """A gated cell of the user's own writing."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.W, self.U, self.keep = nn.Linear(5, 5), nn.Linear(2, 5), nn.Linear(2, 5)

    def forward(self, x):
        h, states = x.new_zeros(len(x), 5), []
        for x_t in x.unbind(1):
            keep = self.keep(x_t).sigmoid()
            h = keep * h + (1 - keep) * torch.tanh(2 * self.W(h) + self.U(x_t))
            states.append(h)
        return torch.stack(states, 1)


def gated(kind):
    torch.manual_seed(0)
    return driven_layer(getattr(nn, kind)(2, 6, batch_first=True, dtype=torch.float64), inputs(3, 50, 2))


# ---- --count ------------------------------------------------------------------------------------

MEASURED = {
    "FullRNN": lambda **more: rnnctl.lyapunov(network(random(9, 2.0)), inputs(3, 50, 2), **more),
    "contracting": lambda **more: rnnctl.lyapunov(network(random(9, 0.5)), inputs(4, 40, 2), warmup=0, **more),
    "free": lambda **more: rnnctl.lyapunov(network(random(40, 3.0)), autonomous=True, steps=60, **more),
    "relu": lambda **more: rnnctl.lyapunov(network(random(9, 1.5), "relu"), inputs(2, 40, 2), **more),
    "low rank": lambda **more: rnnctl.lyapunov(network(random(9)[:, :3] @ random(9)[:3]), inputs(2, 40, 2), **more),
    "GRU": lambda **more: rnnctl.lyapunov(gated("GRU"), **more),
    "LSTM": lambda **more: rnnctl.lyapunov(gated("LSTM"), **more),
    "code": lambda **more: rnnctl.lyapunov(ByHand().double(), inputs(2, 40, 2), **more),
}


@pytest.mark.parametrize("case", MEASURED)
def test_count_changes_nothing_but_how_many_are_shown(case):
    every = MEASURED[case]()
    for count in {1, 2, every.state_size // 2, every.state_size - 1}:
        few = MEASURED[case](count=count)
        torch.testing.assert_close(few.exponents, every.exponents[:count], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(few.stderr, every.stderr[:count], rtol=1e-7, atol=1e-9, equal_nan=True)
        steps, shown = ([row["largest"] for row in found.convergence] for found in (few, every))
        assert steps == pytest.approx(shown, abs=1e-9)
        assert few.scalars["sum"] is few.scalars["log_condition"] is None
        for name, value in few.scalars.items():
            expected = every.scalars[name]
            if isinstance(value, float):
                expected = pytest.approx(expected, rel=1e-6, abs=1e-9)
            assert value is None or value == expected, name


def test_the_shown_estimate_is_the_growth_of_any_one_perturbation():
    """Not the largest of several, which would be too large by chance: each column grows by what is left of it."""
    model, x = network(random(9, 0.5)), inputs(1, 400, 2)
    found = rnnctl.lyapunov(model, x, warmup=50)
    cell, h, v = model.rnn_cell, torch.zeros(1, 9).double(), inputs(9, 1, seed=9)
    total = 0.0
    with torch.no_grad():
        for t, x_t in enumerate(x.unbind(1)):
            h = cell(x_t, h)
            v = (1 - h.T.square()) * (cell.hidden_to_hidden.weight @ v)
            total += float(v.norm().log()) if t >= 50 else 0.0
            v = v / v.norm()
    assert found.scalars["largest"] == pytest.approx(total / 350, abs=0.004)


# ---- within their error of 0 --------------------------------------------------------------------


def rotations(kind, hidden, seed, dtype):
    torch.manual_seed(seed)
    if kind == "identity":
        return torch.eye(hidden)
    if kind == "permutation":
        return torch.eye(hidden)[torch.randperm(hidden)]
    return nn.init.orthogonal_(torch.empty(hidden, hidden, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["identity", "permutation", "orthogonal"])
@pytest.mark.parametrize(("hidden", "steps"), [(1, 40), (2, 7), (12, 40), (40, 1)])
def test_a_network_that_neither_grows_nor_shrinks_is_marginal_for_every_seed(kind, hidden, steps, dtype):
    for seed in range(3):
        # Also one that was drawn in float32 and widened.
        W = rotations(kind, hidden, seed, dtype if seed else torch.float32)
        model = network(W, "linear", dtype=dtype)
        found = rnnctl.lyapunov(model, inputs(2, steps, 2).to(dtype), warmup=0, seed=seed)
        assert found.marginal
        for name in OF_MARGINAL:
            assert found.scalars[name] is None
            assert found.why[name] == "the largest exponent is within its error of 0"
        assert found.scalars["entropy_rate"] == pytest.approx(0, abs=1e-4)
        assert 0 <= found.scalars["log_condition"] <= 1e-4


def test_what_is_a_few_eps_is_told_by_the_dtype_of_the_weights():
    for dtype, told in ((torch.float32, False), (torch.float64, True)):
        found = rnnctl.lyapunov(network([[1 - 2e-7]], "linear", dtype=dtype), inputs(1, 30, 2).to(dtype))
        assert found.marginal != told
        assert (found.scalars["efolding_steps"] is not None) == told


def along_slopes(logs):
    """A one-unit tanh network and the input along which ln of its slope is this, shape (steps,)."""
    model = network([[3.0]], inputs=1)
    with torch.no_grad():
        model.rnn_cell.input_to_hidden.weight.fill_(1.0)
    a = torch.acosh(torch.exp((math.log(3) - logs) / 2))
    h = torch.cat([torch.zeros(1).double(), a.tanh()[:-1]])
    return model, (a - 3 * h).view(1, -1, 1)


@pytest.mark.parametrize("errors_away", [-6, -1.5, 1.5, 6])
def test_an_exponent_within_two_of_its_errors_of_0_is_not_told_from_it(errors_away):
    series = 0.1 * inputs(200)
    series = series - series.mean() + errors_away * 0.1 / math.sqrt(200)
    found = rnnctl.lyapunov(*along_slopes(series), warmup=0)
    known = abs(errors_away) > 2
    assert found.scalars["marginal"] == (not known)
    assert (found.scalars["efolding_steps"] is not None) == known
    assert (found.scalars["steps_to_one_percent"] is not None) == (errors_away < -2)
    dimension = found.scalars["kaplan_yorke_dimension"]
    assert dimension == (None if not known else 1 if errors_away > 0 else 0)
    reason = found.why["steps_to_one_percent"]
    assert reason == ("a perturbation does not shrink" if known else "the largest exponent is within its error of 0")


def test_without_an_error_rounding_alone_is_near_0():
    found = rnnctl.lyapunov(network([[0.999]], "linear"), inputs(1, 5, 2), warmup=0)
    assert found.scalars["largest_stderr"] is None
    assert found.scalars["efolding_steps"] == pytest.approx(-1 / math.log(0.999))


# ---- steps to 1 % -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 61])
def test_one_percent_is_reached_at_the_step_that_is_at_it(steps):
    for factor, expected in ((0.01 ** (1 / steps), steps), (0.01 ** (1 / steps) * (1 + 1e-6), steps + 1)):
        found = rnnctl.lyapunov(network([[factor]], "linear"), inputs(1, 30, 2))
        assert found.scalars["steps_to_one_percent"] == expected


@pytest.mark.parametrize(("factor", "expected"), [(0.1, 2), (0.5, 7), (1e-5, 1), (0.9, 44)])
def test_one_percent_of_known_factors(factor, expected):
    for nonlinearity in ("linear", "relu"):
        model = network([[factor]], nonlinearity)
        with torch.no_grad():
            model.rnn_cell.input_to_hidden.weight.fill_(1.0)
        found = rnnctl.lyapunov(model, torch.ones(1, 30, 2).double())
        assert found.scalars["steps_to_one_percent"] == expected


# ---- entropy and condition ----------------------------------------------------------------------


def test_entropy_rate_is_the_sum_of_what_grows():
    W = torch.diag(torch.tensor([2.0, -1.5, 0.9, 0.1]).double())
    basis = torch.linalg.qr(random(4)).Q
    model, x = network(basis @ W @ basis.T, "linear"), inputs(2, 160, 2)
    expected = math.log(2) + math.log(1.5)
    assert rnnctl.lyapunov(model, x, warmup=120).scalars["entropy_rate"] == pytest.approx(expected, abs=1e-6)
    for count, known in ((1, False), (2, False), (3, True)):
        found = rnnctl.lyapunov(model, x, warmup=120, count=count)
        entropy = found.scalars["entropy_rate"]
        assert entropy == (pytest.approx(expected, abs=1e-6) if known else None)
        assert found.why["entropy_rate"] == "--count leaves exponents out that may be positive"


def test_entropy_rate_of_a_network_that_forgets_is_0_and_of_a_chaotic_one_is_not():
    assert rnnctl.lyapunov(network(random(8, 0.5)), inputs(2, 40, 2), count=1).scalars["entropy_rate"] == 0
    found = rnnctl.lyapunov(network(random(60, 5.0)), autonomous=True, steps=150)
    positive = [row["exponent"] for row in found.rows if row["exponent"] > 0]
    assert len(positive) > 2
    assert found.scalars["entropy_rate"] == pytest.approx(sum(positive))


def test_an_exponent_within_its_error_of_0_leaves_the_entropy_of_those_after_it_open():
    series = 0.1 * inputs(200)
    model, x = along_slopes(series - series.mean() - 0.001)
    assert rnnctl.lyapunov(model, x, warmup=0).scalars["entropy_rate"] == 0
    twice = network(3 * torch.eye(2), inputs=1)
    with torch.no_grad():
        twice.rnn_cell.input_to_hidden.weight.fill_(1.0)
    found = rnnctl.lyapunov(twice, x, warmup=0, count=1)
    assert found.scalars["largest"] < 0
    assert found.scalars["entropy_rate"] is None


@pytest.mark.parametrize("steps", [1, 4, 12])
def test_condition_is_that_of_the_product_of_all_jacobians(steps):
    W = np.diag([0.9, 0.6, 0.3])
    basis = torch.linalg.qr(random(3)).Q.numpy()
    model = network(torch.from_numpy(basis @ W @ basis.T), "linear")
    found = rnnctl.lyapunov(model, inputs(2, 80 + steps, 2), warmup=80)
    expected = math.log(np.linalg.cond(np.linalg.matrix_power(basis @ W @ basis.T, steps)))
    assert found.scalars["log_condition"] == pytest.approx(expected, rel=1e-6)


def test_condition_is_infinite_where_a_direction_is_lost():
    low_rank = random(6)[:, :3] @ random(6, seed=1)[:3]
    assert rnnctl.lyapunov(network(low_rank), inputs(2, 30, 2)).scalars["log_condition"] == math.inf
    dead = network(-torch.eye(3), "relu")
    assert rnnctl.lyapunov(dead, torch.zeros(2, 4, 2).double()).scalars["log_condition"] == math.inf


# ---- as shown -----------------------------------------------------------------------------------


def shown(result, form="table", width=80):
    return rendered(result, View(form, terminal=Terminal(width=width)), {"file": "x"}, versions={})


@pytest.mark.parametrize("width", [60, 80, 160])
def test_entropy_condition_and_error_are_told_beside_their_numbers(width):
    found = rnnctl.lyapunov(network(random(6, 2.0)), inputs(2, 40, 2))
    text = shown(found, width=width)
    assert max(map(len, text.splitlines())) <= width
    for name in ("entropy_rate", "log_condition", "largest_stderr"):
        assert name in text
    assert "marginal" not in text
    alone = shown(found, width=200)
    assert "sum of the positive exponents" in alone
    assert "(largest - smallest) x steps" in alone
    assert "block" not in alone


def test_a_marginal_network_is_said_to_be_one():
    model = network(rotations("orthogonal", 4, 0, torch.float64), "linear")
    found = rnnctl.lyapunov(model, inputs(2, 30, 2))
    text = shown(found, width=160)
    assert "within its error of 0; nats per step along the sequence" in text
    document = json.loads(shown(found, "json"))
    assert document["scalars"]["marginal"] is True
    assert set(OF_MARGINAL) <= set(document["why"])
    lost = json.loads(shown(rnnctl.lyapunov(network(torch.zeros(2, 2)), inputs(1, 12, 2)), "json"))
    assert lost["scalars"]["nonfinite"]["log_condition"] == "inf"
    assert lost["why"]["largest_stderr"] == "a direction that is lost has none"


# ---- exponents whose errors are not known, or small ---------------------------------------------


@pytest.mark.parametrize("steps", [2000, 3000])
@pytest.mark.parametrize("angle", [0.001, 0.003])
def test_a_slow_turn_without_a_standard_error_is_marginal(steps, angle):
    """Similar to a rotation: both exponents are 0, and over part of a turn nothing tells how far a mean is off."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    S = np.diag([3, 1 / 3])
    found = rnnctl.lyapunov(network(S @ turn @ np.linalg.inv(S), "linear"), torch.zeros(1, steps, 2).double())
    scalars = found.scalars
    assert scalars["largest_stderr"] is None or abs(scalars["largest"]) <= 2 * scalars["largest_stderr"]
    assert [scalars[name] for name in OF_MARGINAL] == [None] * 3


@pytest.mark.parametrize("steps", [500, 1000, 4000])
@pytest.mark.parametrize("units", [2, 5])
def test_growth_by_a_power_of_time_is_marginal_however_long_it_is_watched(steps, units):
    model = network(torch.eye(units) + torch.diag(torch.ones(units - 1), 1), "linear")
    found = rnnctl.lyapunov(model, torch.zeros(1, steps, 2).double()).scalars
    assert [found[name] for name in OF_MARGINAL] == [None] * 3


@pytest.mark.parametrize(("gain", "is_marginal"), [(1.0, True), (1.05, False), (0.95, False)])
def test_a_narrow_dtype_hides_no_more_than_its_rounding(gain, is_marginal):
    Q = torch.linalg.qr(random(12, seed=3)).Q
    found = rnnctl.lyapunov(network(gain * Q, "linear", dtype=torch.bfloat16), torch.zeros(1, 60, 2).bfloat16())
    assert found.scalars["marginal"] == is_marginal
    if not is_marginal:
        assert found.scalars["efolding_steps"] == pytest.approx(1 / abs(math.log(gain)), rel=0.05)


def test_what_rounding_alone_makes_positive_is_no_entropy():
    x = torch.zeros(1, 40, 2).double()
    found = [rnnctl.lyapunov(network(torch.linalg.qr(random(9, seed=seed)).Q, "linear"), x) for seed in range(6)]
    assert any((each.exponents > 0).any() for each in found)
    assert [each.scalars["entropy_rate"] for each in found] == [0] * 6


def test_a_variance_that_grows_without_end_is_the_reason_of_no_q():
    found = rnnctl.lyapunov(network(random(9, 3.0), "linear"), inputs(1, 30, 2), init="gaussian", gain=3.0)
    assert (found.theory.q, found.why["theory_q"]) == (None, "the variance of a_t grows without end")
