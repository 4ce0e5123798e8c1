"""Mean-field theory under a drive that changes in time: against measurements, other quadrature and eigenvalues."""

import csv
import io
import math

import numpy as np
import pytest
import torch

import rnnctl
from rnnctl.data import bundled_csv
from rnnctl.dynamics import followed_drive
from rnnctl.dynamics.finite_width import Course, Cycle, cycles, largest_modulus, share_of_width
from rnnctl.dynamics.followed_drive import is_stationary
from rnnctl.dynamics.meanfield import prediction
from rnnctl.initializers import initialize_W_hh
from rnnctl.recurrence.nonlinearities import TANH


def network(seed, hidden=512, inputs=1, gain=1.5, bias=False, nonlinearity="tanh"):
    torch.manual_seed(seed)
    model = rnnctl.FullRNN(inputs, hidden, 1, bias=bias, nonlinearity=nonlinearity)
    generator = torch.Generator().manual_seed(seed)
    initialize_W_hh(model.rnn_cell.hidden_to_hidden.weight, "gaussian", gain, generator)
    return model


def sequence(values):
    return torch.as_tensor(np.array(values), dtype=torch.float32).reshape(1, -1, 1)


def sunspots():
    rows = csv.reader(io.StringIO(bundled_csv("sunspots").decode()))
    values = np.array([float(row[1]) for row in list(rows)[1:]])
    return sequence((values - values.mean()) / values.std())


def noise(seed, batch, steps, inputs):
    return torch.randn(batch, steps, inputs, generator=torch.Generator().manual_seed(seed)).double()


def switched(seed, steps=200, level=4.0):
    """On or off at random."""
    return sequence(level * np.random.default_rng(seed).integers(0, 2, steps))


# Of each a gain at which it was answered wrongly, or a drive of another kind; each network has other random numbers.
DRIVES = {
    "spikes": (sequence([5, *[0] * 9] * 25), 1.5),
    "alternating": (sequence([0, 4] * 125), 1.5),
    "alternating, chaotic": (sequence([4, 0] * 100), 2.5),
    "sunspots": (sunspots(), 1.2),
    "three steps": (sequence([3, 0, -1] * 70), 1.5),
    "switched at random": (switched(0), 1.5),
    "switched off once": (sequence([3] * 100 + [0] * 100), 1.2),
}


@pytest.mark.parametrize("name", DRIVES)
def test_theory_is_within_a_hundredth_of_the_mean_over_eight_networks(name):
    x, gain = DRIVES[name]
    found = [rnnctl.lyapunov(network(seed, gain=gain), x, count=1, init="gaussian", gain=gain) for seed in range(8)]
    measured, theory = (np.mean([each.scalars[key] for each in found]) for key in ("largest", "theory_largest"))
    assert theory == pytest.approx(measured, abs=0.01)
    assert all("followed along the sequence" in each.theory.note for each in found)


def oracle(model, x, sigma, warmup, h_init):
    """q and 0.5 ln chi of one sequence, every unit and node one by one, and what chance takes of the exponent."""
    cell = model.rnn_cell
    W, b = cell.input_to_hidden.weight, cell.input_to_hidden.bias + cell.hidden_to_hidden.bias
    s = (x.double() @ W.double().T + b.double()).detach().numpy()
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum()
    q_h, found = np.square(h_init.numpy()).mean(), []
    for s_t in s:
        a = s_t[:, None] + sigma * np.sqrt(q_h) * nodes
        q = sigma**2 * q_h + np.square(s_t).mean()
        d = 1 / np.cosh(a) ** 2
        second, fourth = ((d**power @ weights).mean() for power in (2, 4))
        found.append((q, 0.5 * np.log(sigma**2 * second), min(1, fourth / second**2 / len(s_t))))
        q_h = (np.tanh(a) ** 2 @ weights).mean()
    q, exponent, chance = np.mean(found[warmup:], axis=0)
    return q, exponent - chance / 2


@pytest.mark.parametrize("warmup", [0, 7])
def test_q_and_chi_are_those_of_gauss_hermite_unit_by_unit(warmup):
    model, steps = network(3, hidden=6, inputs=2, gain=1.3, bias=True), 24
    x = torch.stack([noise(seed, 1, steps, 2)[0] * torch.linspace(0, 2, steps).double()[:, None] for seed in (0, 1)])
    # A step that comes again is no draw: q_t is followed.
    x[:, 3] = x[:, 2]
    h_init = torch.tensor([[0.5, -0.2, 0.1, 0.9, 0.0, -0.4], [0.0] * 6])
    found = rnnctl.lyapunov(model, x.float(), h_init=h_init, warmup=warmup, init="gaussian", gain=1.3).theory
    expected = [oracle(model, each, 1.3, warmup, h) for each, h in zip(x.float(), h_init, strict=True)]
    assert found.q == pytest.approx(np.mean([q for q, _ in expected]), rel=1e-6)
    assert found.exponent == pytest.approx(np.mean([exponent for _, exponent in expected]), abs=1e-6)


@pytest.mark.parametrize(("level", "gain"), [(100.0, 1.0), (0.0, 0.0), (3.0, 40.0)])
def test_saturated_silent_and_violent_networks_have_the_theory_of_a_finer_rule(level, gain):
    model, x = network(0, hidden=40, gain=gain, bias=True), switched(3, 30, level)
    found = rnnctl.lyapunov(model, x, warmup=0, init="gaussian", gain=gain)
    if not gain:
        assert found.theory.exponent == -math.inf
        return
    cell, v, logs = model.rnn_cell, 0.0, []
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    weight = torch.exp(-(z**2) / 2) / torch.exp(-(z**2) / 2).sum()
    for x_t in x[0].unbind(0):
        s = (cell.input_to_hidden(x_t) + cell.hidden_to_hidden.bias).detach().double()
        a = s[:, None] + math.sqrt(v) * z
        d = torch.cosh(a) ** -2
        second, fourth = float((d**2 @ weight).mean()), float((d**4 @ weight).mean())
        logs.append(0.5 * math.log(gain**2 * second) - min(1, fourth / second**2 / 40) / 2)
        v = gain**2 * float((torch.tanh(a) ** 2 @ weight).mean())
    assert found.theory.exponent == pytest.approx(np.mean(logs), abs=2e-4)


@pytest.mark.parametrize(("batch", "steps", "inputs"), [(1, 400, 1), (1, 40, 1), (4, 30, 2), (2, 300, 10), (1, 12, 3)])
def test_normal_noise_and_what_never_changes_is_stationary(batch, steps, inputs):
    """Of such noise one in a hundred may look as if it were not."""
    weights = noise(99, 1, 16, inputs)[0]
    strength = [(noise(seed, batch, steps, inputs) @ weights.T).square().mean(2) for seed in range(60)]
    assert sum(map(is_stationary, strength)) >= 59
    assert is_stationary(torch.full((batch, steps), 2.5).double())
    assert is_stationary(torch.zeros(batch, steps).double())


@pytest.mark.parametrize("seed", range(4))
def test_what_comes_in_bursts_grows_or_goes_on_is_not_stationary(seed):
    white, t = noise(seed, 1, 300, 1)[0, :, 0], torch.arange(300).double()
    slow = torch.zeros(300).double()
    for i in range(1, 300):
        slow[i] = 0.95 * slow[i - 1] + 0.3 * white[i]
    for values in (
        white * (1 + 3 * (t > 150)),
        white * t / 100,
        white**3,
        slow,
        torch.sin(t / 7) + 0.01 * white,
        1 + (t % 5 == 0).double(),
        sunspots()[0, :, 0].double(),
        switched(seed)[0, :, 0].double() + 0.01 * white[:200],
    ):
        assert not is_stationary(values.square().unsqueeze(0))


@pytest.mark.parametrize("values", [[0, 4] * 4, [5, 0, 0, 0, 5, 0, 0], [1, 1, 2]])
def test_a_size_that_comes_again_is_no_draw_however_few_there_are(values):
    assert not is_stationary(sequence(values)[:, :, 0].double().square())


@pytest.mark.parametrize("kind", ["noise", "constant", "zeros"])
def test_stationary_drives_have_the_steady_state_of_their_mean_strength(kind):
    x = {"noise": noise(0, 2, 60, 3), "constant": torch.ones(2, 60, 3), "zeros": torch.zeros(2, 60, 3)}[kind].float()
    model = network(1, hidden=30, inputs=3, bias=True)
    cell = model.rnn_cell
    source = (cell.input_to_hidden(x) + cell.hidden_to_hidden.bias).double().square().mean().item()
    found = rnnctl.lyapunov(model, x, warmup=0, count=1, init="gaussian", gain=1.5).theory
    expected = prediction("gaussian", 1.5, source, "tanh")
    assert (found.q, found.chi) == pytest.approx((expected.q, expected.chi), rel=1e-5)


@pytest.mark.parametrize("nonlinearity", ["relu", "linear"])
def test_what_does_not_depend_on_the_strength_is_not_followed(nonlinearity):
    found = rnnctl.lyapunov(
        network(0, hidden=20, gain=0.5, nonlinearity=nonlinearity), DRIVES["spikes"][0], init="gaussian", gain=0.5
    )
    assert found.theory.chi == 0.25 * {"relu": 0.5, "linear": 1.0}[nonlinearity]


@pytest.mark.parametrize("init", ["orthogonal", None])
def test_weights_that_are_not_independent_have_no_theory_under_any_drive(init):
    found = rnnctl.lyapunov(network(0, hidden=8), DRIVES["spikes"][0], count=1, init=init)
    assert found.theory.chi is None
    assert "not independent" in found.theory.note


def test_any_gain_takes_as_many_nodes(monkeypatch):
    """The mean over a drive of many thousands is not that of millions of nodes."""
    seen, x = [], DRIVES["spikes"][0][:, :20]
    of_input = followed_drive._of_input
    monkeypatch.setattr(followed_drive, "_of_input", lambda a, f: seen.append(a.numel()) or of_input(a, f))
    for gain in (2.0, 1e3, 1e6):
        found = rnnctl.lyapunov(network(0, hidden=8), x, count=1, init="gaussian", gain=gain)
        assert math.isfinite(found.theory.exponent)
    assert max(seen) <= 8 * 61


@pytest.mark.parametrize("root", [1.9, 2.1, 5.0, 60.0])
def test_nodes_in_z_and_in_the_input_meet(root):
    source = 2 * noise(0, 1, 1, 50)[0]
    found = followed_drive._step(source, torch.tensor([1.0]).double(), TANH, root**2)
    z = torch.linspace(-8, 8, 40001, dtype=torch.float64)
    weight = torch.exp(-(z**2) / 2) / torch.exp(-(z**2) / 2).sum()
    a = source[0, :, None] + root * z
    for mean, values in ((found.h, a.tanh() ** 2), (found.slope, a.cosh() ** -4), (found.fourth, a.cosh() ** -8)):
        assert mean.item() == pytest.approx((values @ weight).mean().item(), rel=1e-5)


def test_variances_beyond_every_number_have_no_theory():
    model = network(0, hidden=4, gain=1.0)
    found = rnnctl.lyapunov(model, DRIVES["spikes"][0], count=1, init="gaussian", gain=1e200)
    assert found.theory.chi is None
    assert "leave float64" in found.theory.note


@pytest.mark.parametrize(
    ("units", "factors", "draws"), [(32, 1, 500), (32, 2, 500), (64, 1, 120), (64, 2, 120), (64, 4, 120)]
)
def test_largest_modulus_is_that_of_products_of_gaussian_matrices(units, factors, draws):
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        product = np.eye(units)
        for _ in range(factors):
            product = rng.normal(size=(units, units)) @ product / math.sqrt(units)
        found.append(math.log(np.abs(np.linalg.eigvals(product)).max()) / factors)
    error = 3 * np.std(found) / math.sqrt(draws)
    expected = largest_modulus(torch.full((factors,), float(units)))
    assert expected == pytest.approx(np.mean(found), abs=max(error, 0.005))


def test_a_cycle_that_acts_over_and_over_grows_by_its_largest_eigenvalue():
    """The growth of a vector under one product of gaussian matrices, over a window of periods."""
    rng, units, before, steps = np.random.default_rng(1), 64, 10, 150
    found = []
    for _ in range(256):
        first, second = (rng.normal(size=(units, units)) / math.sqrt(units) for _ in range(2))
        v, logs = rng.normal(size=units), []
        for step in range(before + steps):
            w = (second if step % 2 else first) @ v
            logs.append(math.log(np.linalg.norm(w) / np.linalg.norm(v)))
            v = w / np.linalg.norm(w)
        found.append(np.mean(logs[before:]))
    course = Course(torch.full((160,), -9.0), torch.full((160,), 64.0), torch.zeros(160, dtype=torch.bool))
    share = share_of_width(course, [Cycle(0, 160, 2)], before)
    assert share == pytest.approx(np.mean(found), abs=1.5 * np.std(found) / 16)
    assert share > 0.01


def test_without_a_cycle_chance_lowers_the_logarithm():
    units, moving = torch.tensor([50.0, 200.0] * 200), torch.zeros(400, dtype=torch.bool)
    chance = -0.5 * (1 / 50 + 1 / 200) / 2
    assert share_of_width(Course(torch.full((400,), -0.3), units, moving), [], 10) == pytest.approx(chance)
    # Chaotic, the states never come to the same cycle; at rest they are always there.
    chaotic = torch.full((400,), 0.1)
    assert share_of_width(Course(chaotic, units, moving), [Cycle(0, 400, 2)], 10) == pytest.approx(chance)
    assert share_of_width(Course(chaotic, units, ~moving), [Cycle(0, 400, 2)], 10) > 0.005


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 4] * 20, [Cycle(0, 40, 2)]),
        ([5, 0, 0] * 9, [Cycle(0, 27, 3)]),
        ([1] * 30, [Cycle(0, 30, 1)]),
        (list(range(30)), []),
        ([0, 1] * 3, []),
        ([7, *[0] * 12, *[1, 2] * 10, 9], [Cycle(1, 13, 1), Cycle(13, 33, 2)]),
    ],
)
def test_cycles_are_the_parts_that_repeat_themselves(values, expected):
    assert list(cycles(sequence(values)[0])) == expected
