"""Lyapunov exponents with known answers."""

import math

import pytest
import torch
from torch import nn

import rnnctl
from rnnctl.dynamics.lyapunov import kaplan_yorke_dimension, lyapunov
from rnnctl.errors import InputError, RnnctlError, TooLargeError


def network(W_hh, nonlinearity="tanh", inputs=2, bias=True, seed=0):
    torch.manual_seed(seed)
    W_hh = torch.as_tensor(W_hh, dtype=torch.float64)
    model = rnnctl.FullRNN(inputs, W_hh.shape[0], 2, nonlinearity=nonlinearity, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight.copy_(W_hh)
    return model


def linear(W_hh, **settings):
    """A relu network that a large positive input keeps in its linear part."""
    model = network(W_hh, "relu", bias=False, **settings)
    with torch.no_grad():
        model.rnn_cell.input_to_hidden.weight.fill_(1.0)
    return model


def random(hidden, gain=1.0, seed=0):
    return torch.randn(hidden, hidden, generator=torch.Generator().manual_seed(seed)).double() * gain / hidden**0.5


def test_linear_network_has_the_logarithms_of_its_eigenvalues():
    torch.manual_seed(0)
    eigenvalues = torch.tensor([0.9, 0.7, 0.5, -0.3, 0.05]).double()
    basis = torch.eye(5).double() + 0.2 * torch.randn(5, 5).double()
    model = linear(basis @ eigenvalues.diag() @ basis.inverse())
    x = torch.full((2, 400, 2), 50.0).double()
    found = lyapunov(model, x, warmup=150)
    assert found.exponents.tolist() == pytest.approx(eigenvalues.abs().log().tolist(), abs=1e-9)
    assert found.scalars["sum"] == pytest.approx(float(eigenvalues.abs().log().sum()))


@pytest.mark.parametrize("gain", [0.8, 1.0, 1.2])
def test_orthogonal_times_gain_has_the_logarithm_of_the_gain_everywhere(gain):
    torch.manual_seed(0)
    W_hh = gain * nn.init.orthogonal_(torch.empty(6, 6).double())
    model, ones = linear(W_hh, inputs=1), torch.ones(6).double()
    with torch.no_grad():
        # All states stay at 1, where relu is linear.
        model.rnn_cell.input_to_hidden.weight[:, 0] = ones - W_hh @ ones
    found = lyapunov(model, torch.ones(1, 30, 1).double(), h_init=ones.unsqueeze(0))
    assert found.exponents.tolist() == pytest.approx([math.log(gain)] * 6, abs=1e-12)
    assert not found.scalars["lost_sequences"]


def test_one_unit_settles_on_its_fixed_point():
    found = lyapunov(network([[2.0]], bias=False), autonomous=True)
    assert found.exponents.tolist() == pytest.approx([-1.793529], abs=1e-6)
    assert not found.stands_still


def test_start_at_a_fixed_point_is_said():
    found = lyapunov(network([[2.0]], bias=False), autonomous=True, h_init=torch.zeros(1, 1).double())
    assert found.stands_still
    assert found.scalars["largest"] == pytest.approx(math.log(2))


def test_simulation_of_a_wide_chaotic_network_meets_the_theory():
    model = network(random(512, 1.5, seed=1), bias=False)
    found = lyapunov(model, autonomous=True, count=1, warmup=200, steps=300, init="gaussian", gain=1.5).scalars
    assert found["theory_largest"] == pytest.approx(0.065217, abs=1e-6)
    assert found["theory_q"] == pytest.approx(0.793354, abs=1e-6)
    assert found["theory_chi"] == pytest.approx(1.139323, abs=1e-6)
    assert found["largest"] == pytest.approx(found["theory_largest"], abs=0.02)


def test_driven_default_network_meets_the_theory():
    torch.manual_seed(0)
    model = rnnctl.FullRNN(10, 256, 1)
    found = lyapunov(model, torch.randn(2, 300, 10), count=1, init="default").scalars
    assert found["largest"] == pytest.approx(found["theory_largest"], abs=0.03)
    assert found["exp_largest"] == pytest.approx(found["factor_per_step"], rel=0.03)


@pytest.mark.parametrize("gain", [0.5, 2.0, 8.0, 30.0])
def test_sum_is_the_mean_logarithm_of_the_determinant(gain):
    """Also where saturated units spread the rows of J_t over a hundred magnitudes."""
    model, x = network(random(24, gain)), torch.randn(2, 40, 2, generator=torch.Generator().manual_seed(0)).double()
    found = lyapunov(model, x, warmup=0)
    cell, h, total = model.rnn_cell, torch.zeros(2, 24).double(), 0.0
    with torch.no_grad():
        for x_t in x.unbind(1):
            a = cell.input_to_hidden(x_t) + cell.hidden_to_hidden(h)
            h = a.tanh()
            total += float((-2 * a.cosh().log()).sum(1).mean() + torch.linalg.slogdet(cell.hidden_to_hidden.weight)[1])
    assert found.scalars["sum"] == pytest.approx(total / 40, rel=1e-9)


def test_growth_of_a_small_difference_is_the_largest_exponent():
    model = network(random(40, 3.0), bias=False)
    h = torch.randn(1, 40, generator=torch.Generator().manual_seed(5)).double()
    found = lyapunov(model, autonomous=True, h_init=h, steps=400, warmup=100, count=1)
    cell, other, total = model.rnn_cell, h + 1e-9 * torch.ones_like(h), 0.0
    x = torch.zeros(1, 2).double()
    with torch.no_grad():
        for t in range(500):
            h, other = cell(x, h), cell(x, other)
            distance = (other - h).norm()
            total += float((distance / 1e-9).log()) if t >= 100 else 0.0
            other = h + (other - h) * (1e-9 / distance)
    assert found.scalars["largest"] == pytest.approx(total / 400, abs=5e-3)


def test_lost_directions_are_minus_infinity_and_the_others_are_not():
    low_rank = random(8)[:, :3] @ random(8, seed=1)[:3]
    found = lyapunov(network(low_rank), torch.randn(2, 50, 2).double())
    assert found.exponents.isinf().tolist() == [False] * 3 + [True] * 5
    assert [row["stderr"] is None for row in found.rows] == [False] * 3 + [True] * 5


def test_dead_network_is_lost_and_says_in_how_many_sequences():
    model = network(-torch.eye(3), "relu", bias=False)
    found = lyapunov(model, torch.zeros(2, 4, 2).double()).scalars
    assert found["largest"] == -math.inf
    assert found["lost_sequences"] == 2
    assert (found["efolding_steps"], found["steps_to_one_percent"], found["exp_largest"]) == (0, 1, 0)


def test_fewer_exponents_are_the_largest_of_all():
    model, x = network(random(10, 2.0)), torch.randn(2, 300, 2).double()
    few, every = lyapunov(model, x, count=3), lyapunov(model, x)
    assert few.exponents.tolist() == pytest.approx(every.exponents[:3].tolist(), abs=0.03)
    assert few.scalars["sum"] is None


@pytest.mark.parametrize(
    ("exponents", "hidden", "dimension"),
    [
        ([-0.1, -0.2], 2, 0),
        ([0.5, -0.1, -0.8], 3, 2.5),
        ([0.5, 0.1], 2, 2),
        ([0.5, -0.1], 3, None),
        ([0.5, -math.inf], 2, 1),
        ([0.0, -1.0], 2, 1),
    ],
)
def test_kaplan_yorke_dimension_of_known_spectra(exponents, hidden, dimension):
    assert kaplan_yorke_dimension(exponents, hidden) == (None if dimension is None else pytest.approx(dimension))


def test_times_follow_from_the_largest_exponent():
    found = lyapunov(linear([[0.5]]), torch.ones(1, 20, 2).double()).scalars
    assert found["efolding_steps"] == pytest.approx(1 / math.log(2))
    assert found["steps_to_one_percent"] == 7  # 2^-7 < 0.01 < 2^-6
    assert found["exp_largest"] == found["factor_per_step"] == pytest.approx(0.5)


def test_standard_error_covers_the_spread_over_networks_runs():
    model = network(random(30, 2.5), bias=False)
    runs = [lyapunov(model, autonomous=True, count=1, steps=300, seed=seed).scalars for seed in range(8)]
    spread = torch.tensor([run["largest"] for run in runs]).std()
    typical = torch.tensor([run["largest_stderr"] for run in runs]).mean()
    assert 0.3 < spread / typical < 3


def test_too_few_steps_have_no_standard_error():
    found = lyapunov(network(random(3)), torch.randn(1, 5, 2).double())
    assert found.scalars["largest_stderr"] is None


def test_convergence_ends_with_the_largest_exponent():
    found = lyapunov(network(random(4)), torch.randn(1, 80, 2).double(), warmup=0)
    assert [record["steps"] for record in found.convergence] == [10, 20, 40, 80]
    assert found.convergence[-1]["largest"] == found.scalars["largest"]


def test_overflow_names_the_step_and_ends_the_measurement():
    found = lyapunov(linear([[1e100]]), torch.ones(1, 9, 2).double(), warmup=0)
    assert found.first_nonfinite_step == 4
    assert found.scalars["steps"] == 4
    assert found.scalars["largest"] == pytest.approx(math.log(1e100))
    with pytest.raises(RnnctlError, match=r"not finite at step 4, before a step was measured \(warmup 6\)"):
        lyapunov(linear([[1e100]]), torch.ones(1, 9, 2).double(), warmup=6)


def test_seed_alone_decides():
    model = network(random(12, 2.0))
    one, same, other = (lyapunov(model, autonomous=True, steps=20, seed=seed).exponents for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"count": 0}, "count must be from 1 to the hidden size 3; got 0"),
        ({"count": 4}, "count must be from 1 to the hidden size 3; got 4"),
        ({"steps": 8}, "the sequence has 7 steps; warmup 0 and 8 measured steps do not fit"),
        ({"warmup": 7}, "the sequence has 7 steps; warmup 7 and 0 measured steps do not fit"),
        ({"warmup": -1}, "warmup -1"),
    ],
)
def test_what_does_not_fit_the_sequence_is_refused(settings, said):
    with pytest.raises(InputError, match=said):
        lyapunov(network(random(3)), torch.zeros(1, 7, 2).double(), **settings)


def test_a_driven_measurement_needs_a_sequence():
    with pytest.raises(InputError, match="unless autonomous=True"):
        lyapunov(network(random(3)))


def test_a_run_that_does_not_fit_is_refused_before_it_is_computed(monkeypatch):
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: 10_000)
    with pytest.raises(TooLargeError, match="3 exponents over 1000000 steps of 1 sequences would take"):
        lyapunov(network(random(3)), autonomous=True, steps=10**6, warmup=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nonfinite_weights_reach_no_qr_but_are_named(value, monkeypatch):
    monkeypatch.setattr(torch.linalg, "qr", None)
    with pytest.raises(InputError, match=r"W_hh must be finite"):
        lyapunov(network([[value]]), torch.zeros(1, 7, 2).double())


def test_theory_knows_the_variance_of_the_input():
    model, x = network(random(4)), torch.randn(3, 11, 2).double()
    cell = model.rnn_cell
    source = (cell.input_to_hidden(x) + cell.hidden_to_hidden.bias).square().mean().item()
    found = lyapunov(model, x, warmup=0, init="gaussian", gain=1.0).theory
    assert found.q == pytest.approx(rnnctl.mean_field(1.0, source).q)
