"""Standard errors of Lyapunov exponents: how often two of them hold the truth, and where there are none."""

import math

import pytest
import torch
from torch import nn

import rnnctl
from rnnctl.dynamics.copies import shares
from rnnctl.dynamics.standard_error import standard_errors, why_no_error

DRAWS = 1000


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def autoregressive(coefficients, steps, draws=DRAWS, seed=0, burn=400):
    """Series of mean 0 and variance 1, shape (steps, draws)."""
    e = noise(burn + steps, draws, seed=seed)
    for t in range(burn + steps):
        for lag, phi in enumerate(coefficients, 1):
            if t >= lag:
                e[t] += phi * e[t - lag]
    return e[burn:] / e[burn:].std()


def of_time_constant(tau, steps, draws=DRAWS, seed=0):
    return autoregressive([math.exp(-1 / tau)], steps, draws, seed)


def errors(series):
    """Of one sequence whose exponents have these local exponents, shape (steps, count)."""
    return standard_errors(series.unsqueeze(1), torch.ones(1).double())


def covered(estimates, truth, found):
    """In what part of the cases that have an error two of them hold the truth; and in what part there is none."""
    known = ~found.isnan()
    held = (estimates - truth).abs() <= 2 * found
    return float(held[known].double().mean()), float((~known).double().mean())


# ---- one sequence -------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.05, 1, 3, 9, 19])
def test_two_errors_hold_the_mean_of_a_series_of_any_time_constant(tau):
    series = of_time_constant(tau, 278, draws=2000, seed=1)
    held, unknown = covered(series.mean(dim=0), 0, errors(series))
    assert 0.9 <= held <= 0.985
    assert unknown <= (0.002 if tau < 10 else 0.1)


@pytest.mark.parametrize(("tau", "steps"), [(0.05, 20), (0.05, 60), (1, 60), (3, 120), (9, 1000), (40, 1000)])
def test_two_errors_hold_the_mean_over_fewer_and_more_steps(tau, steps):
    series = of_time_constant(tau, steps, seed=3)
    held, unknown = covered(series.mean(dim=0), 0, errors(series))
    assert 0.9 <= held <= 0.985
    assert unknown <= 0.02


def test_two_errors_hold_the_mean_of_series_that_swing_and_of_moving_averages():
    swinging = autoregressive([1.8 * math.cos(0.5), -0.81], 278)
    assert 0.92 <= covered(swinging.mean(dim=0), 0, errors(swinging))[0] <= 0.985
    e = noise(279, DRAWS)
    alike, opposed = e[1:] + 0.8 * e[:-1], e[1:] - 0.8 * e[:-1]
    assert 0.9 <= covered(alike.mean(dim=0), 0, errors(alike))[0] <= 0.985
    # Neighbours that undo one another: an error of noise alike would be nine times as large.
    assert errors(opposed).median() < 2 * opposed.mean(dim=0).std()
    assert covered(opposed.mean(dim=0), 0, errors(opposed))[0] >= 0.95


def test_errors_are_no_larger_than_they_need_be():
    series = of_time_constant(9, 1000)
    assert errors(series).median() == pytest.approx(float(series.mean(dim=0).std()), rel=0.08)


def test_the_error_of_steps_that_tell_nothing_of_one_another_is_the_familiar_one():
    series = noise(16, DRAWS)
    familiar = series.std(dim=0) / 4
    assert float((errors(series) - familiar).abs().lt(1e-9).double().mean()) > 0.6


def test_random_walks_without_end_are_too_short_to_tell():
    assert errors(noise(278, DRAWS).cumsum(dim=0)).isnan().double().mean() > 0.5
    assert errors(torch.arange(100.0).double().unsqueeze(1)).isnan().all()
    assert why_no_error(0.1, 278).startswith("too short to tell")


def test_fewer_than_ten_steps_are_too_short_to_tell():
    assert errors(noise(9, 5)).isnan().all()
    assert not errors(noise(10, 5)).isnan().any()
    assert why_no_error(0.1, 9) == "too short to tell: it takes 10 steps"


def test_steps_that_grow_alike_have_an_error_of_rounding_alone():
    series = -0.7 + 1e-16 * noise(100, 50)
    assert errors(series).max() < 1e-15
    assert (errors(torch.full((20, 2), -3.0).double()) == 0).all()


def test_a_cycle_of_two_or_more_steps_has_hardly_an_error():
    t = torch.arange(205.0).double().unsqueeze(1)
    for period in (2, 3, 5, 14):
        around = 2 * math.pi * t / period + torch.linspace(0, 6, 9).double()
        for cycles in (around.cos(), (2 * around.cos()).exp().log1p()):
            found, off = errors(cycles), cycles.mean(dim=0) - cycles[: 14 * period].mean(dim=0)
            assert found.max() < 0.05
            assert off.square().mean().sqrt() < 2 * found.max() + 1e-12


def test_lost_directions_have_no_error_and_the_others_theirs():
    series = noise(50, 4)
    series[2, 1] = series[30, 3] = -math.inf
    found = errors(series)
    assert found.isnan().tolist() == [False, True, False, True]
    assert float(found[2]) == pytest.approx(float(errors(series[:, 2:3])))
    assert why_no_error(-math.inf, 50) == "a direction that is lost has none"


# ---- drift --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.05, 3])
@pytest.mark.parametrize(("height", "fall"), [(1, 3), (1, 30), (3, 10), (3, 30), (10, 10), (10, 40), (1000, 20)])
def test_an_error_includes_what_the_first_steps_still_drift(height, fall, tau):
    drift = height * torch.exp(-torch.arange(278) / fall).double().unsqueeze(1)
    series = of_time_constant(tau, 278, draws=500) + drift
    held, unknown = covered(series.mean(dim=0), 0, errors(series))
    assert held >= 0.88
    assert unknown <= 0.05


@pytest.mark.parametrize("fall", [1, 5, 20, 50])
def test_a_series_that_only_relaxes_has_the_error_of_its_drift(fall):
    series = -0.4 + torch.exp(-torch.arange(300) / fall).double().unsqueeze(1)
    off = abs(float(series.mean()) + 0.4)
    assert off / 2 <= float(errors(series)) <= 1.5 * off


# ---- several sequences --------------------------------------------------------------------------


def of_batch(logs):
    """The mean over steps and sequences of every draw, and its error; ``logs`` is (steps, batch, draws)."""
    batch = logs.shape[1]
    return logs.mean(dim=(0, 1)), standard_errors(logs, torch.full((batch,), 1 / batch).double())


def batch_of_series(tau, batch, draws, seed):
    return of_time_constant(tau, 278, batch * draws, seed).view(278, batch, draws)


@pytest.mark.parametrize("batch", [2, 4, 8])
@pytest.mark.parametrize("tau", [0.05, 9])
def test_errors_hold_for_sequences_that_share_nothing_or_their_fluctuation(tau, batch):
    own = batch_of_series(tau, batch, 500, seed=4)
    common = of_time_constant(tau, 278, 500, seed=5).unsqueeze(1)
    for logs in (own, common + 0.1 * own, common + own):
        estimates, found = of_batch(logs)
        assert 0.9 <= covered(estimates, 0, found)[0] <= 0.99


def test_two_sequences_that_differ_by_chance_are_seldom_taken_for_unlike_ones():
    logs = batch_of_series(0.05, 2, 1000, seed=8)
    found, exact = of_batch(logs)[1], 1 / math.sqrt(2 * 278)
    assert found.quantile(0.5) == pytest.approx(exact, rel=0.15)
    assert found.quantile(0.98) < 3.5 * exact


@pytest.mark.parametrize("batch", [2, 3, 4, 8, 30])
@pytest.mark.parametrize("own", [1e-9, 0.3])
def test_errors_hold_for_sequences_with_exponents_of_their_own(own, batch):
    logs = noise(1, batch, 1000, seed=6) + own * noise(100, batch, 1000, seed=7)
    estimates, found = of_batch(logs)
    assert 0.9 <= covered(estimates, 0, found)[0] <= 0.985


def test_a_sequence_with_copies_has_the_share_of_all_of_them():
    logs = 0.1 * noise(100, 2, 6) + noise(1, 2, 6, seed=1)
    once = standard_errors(logs, torch.tensor([0.25, 0.75]).double())
    copied = standard_errors(logs[:, [0, 1, 1, 1]], torch.tensor([0.25, 0.0, 0.0, 0.75]).double())
    torch.testing.assert_close(copied, once)
    # Two levels alone: their distance over root 2 is their spread, and that times the root of the squared shares.
    levels = torch.tensor([1.0, 4.0]).double().view(1, 2, 1).expand(20, 2, 1)
    expected = 3 / math.sqrt(2) * math.hypot(0.25, 0.75) * 12.71 / 2
    assert float(standard_errors(levels, torch.tensor([0.25, 0.75]).double())) == pytest.approx(expected)


def test_copies_are_found_by_all_that_makes_a_sequence():
    x, h = noise(4, 7, 3), noise(4, 5, seed=1)
    x[2], h[2] = x[0], h[0]
    x[3] = x[1]
    assert shares([x, h]).sort().values.tolist() == [0, 0.25, 0.25, 0.5]
    assert shares([x]).sort().values.tolist() == [0, 0, 0.5, 0.5]
    assert shares([x[:2]]).tolist() == [0.5, 0.5]
    close = torch.stack([x[0], x[0] * (1 + 1e-12), x[1]])
    assert shares([close]).tolist() == pytest.approx([1 / 3] * 3)
    assert shares([close], 1e-9).sort().values.tolist() == pytest.approx([0, 1 / 3, 2 / 3])


# ---- through lyapunov ---------------------------------------------------------------------------


def along_slopes(logs, weight=1.0):
    """A one-unit tanh network and the input along which ln of its slope is this, shape (batch, steps)."""
    model = rnnctl.FullRNN(1, 1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight.fill_(weight)
        model.rnn_cell.input_to_hidden.weight.fill_(1.0)
    a = torch.acosh(torch.exp((math.log(weight) - logs) / 2))
    h = torch.cat([torch.zeros(len(logs), 1).double(), a.tanh()[:, :-1]], dim=1)
    return model, (a - weight * h).unsqueeze(2)


def test_errors_of_a_network_are_those_of_the_slopes_that_it_runs_along():
    series = 0.2 * of_time_constant(9, 278, draws=6) - 1.3
    found = [rnnctl.lyapunov(*along_slopes(one.unsqueeze(0)), warmup=0) for one in series.unbind(1)]
    stderr = torch.tensor([each.scalars["largest_stderr"] for each in found]).double()
    torch.testing.assert_close(stderr, errors(series), rtol=1e-6, atol=1e-12)
    estimates = torch.tensor([each.scalars["largest"] for each in found]).double()
    torch.testing.assert_close(estimates, series.mean(dim=0))


def test_identical_sequences_count_once():
    torch.manual_seed(0)
    layer, gru, x = rnnctl.FullRNN(3, 6, 2), nn.GRU(3, 6, batch_first=True), torch.randn(2, 60, 3)
    close = {"rtol": 1e-6, "atol": 1e-12}
    for model in (layer, gru):
        alone, apart = rnnctl.lyapunov(model, x[:1]), rnnctl.lyapunov(model, x)
        for same in (x[:1].repeat(16, 1, 1), x[:1].expand(2, -1, -1)):
            torch.testing.assert_close(rnnctl.lyapunov(model, same).stderr, alone.stderr, **close)
        torch.testing.assert_close(rnnctl.lyapunov(model, x.repeat(5, 1, 1)).stderr, apart.stderr, **close)
        mixed = rnnctl.lyapunov(model, x[[0, 0, 0, 1]])
        torch.testing.assert_close(mixed.exponents, (alone.exponents + apart.exponents) / 2)


def test_copies_in_a_chaotic_network_are_copies_though_rounding_parts_them():
    torch.manual_seed(0)
    model = rnnctl.FullRNN(2, 40, 1, dtype=torch.float64)
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight.copy_(torch.randn(40, 40) * 3 / 40**0.5)
    x = 0.1 * torch.randn(1, 300, 2).double()
    one, many = (rnnctl.lyapunov(model, x.repeat(n, 1, 1), count=1).scalars["largest_stderr"] for n in (1, 9))
    assert many > 0.6 * one


class ByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.W, self.U = nn.Linear(4, 4), nn.Linear(2, 4)

    def forward(self, x):
        h, states = x.new_zeros(len(x), 4), []
        for x_t in x.unbind(1):
            h = torch.tanh(self.W(h) + self.U(x_t))
            states.append(h)
        return torch.stack(states, 1)


def test_identical_sequences_count_once_in_code_of_the_users_own():
    torch.manual_seed(0)
    model, x = ByHand(), torch.randn(3, 40, 2)
    alone, apart = rnnctl.lyapunov(model, x[:1]), rnnctl.lyapunov(model, x)
    torch.testing.assert_close(rnnctl.lyapunov(model, x[[0] * 6]).stderr, alone.stderr, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(rnnctl.lyapunov(model, x.repeat(2, 1, 1)).stderr, apart.stderr, rtol=1e-5, atol=1e-9)


class OneUnit(nn.Module):
    def forward(self, x):
        h, states = x.new_zeros(len(x), 1), []
        for x_t in x.unbind(1):
            h = torch.tanh(h @ self.w + x_t)
            states.append(h)
        return torch.stack(states, 1)

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, 1).double())


def test_sequences_that_part_later_on_are_no_copies():
    logs = torch.full((4, 40), -1.0).double()
    logs[1:3, 5:] = -2.0
    model, x = along_slopes(logs)
    for each in (model, OneUnit()):
        found = rnnctl.lyapunov(each, x, warmup=20)
        # Two of them, a nat apart.
        assert found.scalars["largest_stderr"] == pytest.approx(0.5 * 12.71 / 2, rel=1e-6)


def test_sequences_that_run_freely_from_one_start_among_others_count_once():
    torch.manual_seed(0)
    model = rnnctl.FullRNN(2, 5, 1, dtype=torch.float64)
    starts = torch.randn(2, 5).double()
    settings = {"autonomous": True, "steps": 60, "warmup": 0}
    apart, copied = (rnnctl.lyapunov(model, h_init=h, **settings).stderr for h in (starts, starts.repeat(3, 1)))
    torch.testing.assert_close(copied, apart, rtol=1e-6, atol=1e-12)


def test_the_error_includes_the_drift_that_the_convergence_shows():
    logs = (-1.0 - 0.5 * torch.exp(-torch.arange(200) / 15).double()).unsqueeze(0) + 0.02 * noise(1, 200)
    found = rnnctl.lyapunov(*along_slopes(logs), warmup=0)
    steps = [row["largest"] for row in found.convergence]
    assert steps == sorted(steps)
    assert abs(found.scalars["largest"] + 1) <= 2 * found.scalars["largest_stderr"]
    later = rnnctl.lyapunov(*along_slopes(logs), warmup=100)
    assert later.scalars["largest_stderr"] < 0.2 * found.scalars["largest_stderr"]


def test_what_is_too_short_to_tell_says_so():
    logs = torch.linspace(-2, -1, 100).double().unsqueeze(0)
    found = rnnctl.lyapunov(*along_slopes(logs), warmup=0)
    assert found.scalars["largest_stderr"] is None
    assert found.why["largest_stderr"].startswith("too short to tell: neighbouring steps")
    short = rnnctl.lyapunov(*along_slopes(logs[:, :7]), warmup=0)
    assert short.scalars["largest_stderr"] is None
    assert short.why["largest_stderr"] == "too short to tell: it takes 10 steps"
