"""How far a spectral radius that is shown may be from the true one: held against matrices of exactly known radius."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import rnnctl
from rnnctl.__main__ import main
from rnnctl.models.driven import driven_layer
from rnnctl.recurrence.matrix import spectral_radius_and_error
from rnnctl.recurrence.resolvent import _disks
from rnnctl.view.render import rendered
from rnnctl.view.terminal import Terminal, View

EPS = 2.0**-52
CONFIG = {"file": "x.pt"}


def turned(J, seed=0):
    """Q J Q of rationals, with the exactly orthogonal and symmetric Q = I - 2 v v^T / v^T v, twice; then rounded."""
    J, n = np.array(J, dtype=object), len(J)
    for each in (seed, seed + 1):
        v = np.array([Fraction(int(k)) for k in np.random.default_rng(each).integers(1, 9, n)], dtype=object)
        v *= np.array([1 if k % 2 else -1 for k in np.random.default_rng(each + 50).integers(0, 9, n)], dtype=object)
        share = Fraction(2) / v.dot(v)
        J = J - share * np.outer(v, v.dot(J))
        J = J - share * np.outer(J.dot(v), v)
    return torch.tensor([[float(entry) for entry in row] for row in J], dtype=torch.float64)


def zeros(n):
    return [[Fraction(0)] * n for _ in range(n)]


def jordan(value, n):
    J = zeros(n)
    for i in range(n):
        J[i][i] = Fraction(value)
        if i + 1 < n:
            J[i][i + 1] = Fraction(1)
    return J


def blocks(*parts):
    J, start = zeros(sum(len(part) for part in parts)), 0
    for part in parts:
        for i, row in enumerate(part):
            J[start + i][start : start + len(part)] = row
        start += len(part)
    return J


def turning(real, imag, n):
    """A Jordan block of n times the pair real +- imag i."""
    J = zeros(2 * n)
    for i in range(n):
        k = 2 * i
        J[k][k] = J[k + 1][k + 1] = Fraction(real)
        J[k][k + 1], J[k + 1][k] = Fraction(imag), -Fraction(imag)
        if i + 1 < n:
            J[k][k + 2] = J[k + 1][k + 3] = Fraction(1)
    return J


def companion(roots):
    """Of the polynomial with these roots, whose coefficients are rounded."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *(-Fraction(root) * c for c in coefficients)]
        coefficients = [a + b for a, b in zip([*coefficients, Fraction(0)], shifted, strict=True)]
    n = len(roots)
    C = torch.diag(torch.ones(n - 1, dtype=torch.float64), -1)
    C[0] = torch.tensor([-float(c) for c in coefficients[1:]], dtype=torch.float64)
    return C


def hadamard(n):
    H = torch.ones(1, 1, dtype=torch.float64)
    while len(H) < n:
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return H


def gaussian(n, seed=0):
    return torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / n**0.5


def held(W, true, dtype=torch.float64):
    """The error, having seen that it holds."""
    radius, error = spectral_radius_and_error(W.to(dtype))
    assert abs(radius - true) <= error
    return error


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("value", ["1/2", "-7/10", "11/10", "0"])
@pytest.mark.parametrize("n", [2, 5, 8, 13, 20, 40])
def test_the_true_radius_of_a_jordan_block_is_within_its_error(n, value, dtype):
    W, true = turned(jordan(value, n), seed=n), abs(float(Fraction(value)))
    radius, error = spectral_radius_and_error(W.to(dtype))
    assert abs(radius - true) <= error
    # And it is no empty word: the error is of the size of what rounding did.
    if n >= 5:
        assert error <= 12 * abs(radius - true)


def test_a_jordan_block_of_a_half_does_not_show_more_unremarked():
    radius, error = spectral_radius_and_error(turned(jordan("1/2", 20)))
    assert radius > 0.6
    assert radius - 0.5 <= error < 0.2


@pytest.mark.parametrize("n", [3, 5, 8, 12, 20, 30])
@pytest.mark.parametrize("others", [["9/10"], ["2"], ["1", "-1"], ["-3/2", "5/4"]])
def test_a_simple_larger_eigenvalue_beside_a_jordan_block_is_known_to_all_its_digits(n, others):
    J = blocks(jordan("1/2", n), *([[Fraction(value)]] for value in others))
    assert held(turned(J, seed=n), max(abs(float(Fraction(value))) for value in others)) < 1e-13


@pytest.mark.parametrize("n", [2, 3, 6, 10])
def test_the_true_radius_of_a_defective_pair_is_within_its_error(n):
    assert held(turned(turning("3/10", "4/10", n), seed=n), 0.5) < 0.2


@pytest.mark.parametrize("n", [5, 12])
@pytest.mark.parametrize("inner", [["1/4"] * 6, ["-1/3", "1/5", "0"]])
def test_the_true_radius_is_within_its_error_where_the_defective_block_is_the_outermost(n, inner):
    J = blocks(jordan("9/10", n), jordan("-1/3", 6), *([[Fraction(value)]] for value in inner))
    for dtype in (torch.float64, torch.float32):
        # Nor is all of the radius in doubt.
        assert held(turned(J, seed=n), 0.9, dtype) < 0.8


@pytest.mark.parametrize("times", [2, 4, 8, 15])
def test_the_true_radius_of_a_polynomials_multiple_root_is_within_its_error(times):
    held(companion(["1/2"] * times + ["-1/4"] * 3), 0.5)


@pytest.mark.parametrize("n", [4, 16, 40])
def test_a_nilpotent_matrix_may_have_the_radius_zero(n):
    numbers = np.random.default_rng(n).integers(-3, 4, (n, n))
    J = [[Fraction(int(numbers[i, k])) / n if i < k else Fraction(0) for k in range(n)] for i in range(n)]
    radius, error = spectral_radius_and_error(turned(J, seed=n))
    assert radius <= error <= radius * 20


@pytest.mark.parametrize("n", [1, 6, 40, 200])
def test_a_triangular_matrix_has_the_radius_of_its_diagonal_whatever_stands_beside_it(n):
    W = torch.triu(100 * gaussian(n), 1)
    held(W, 0.0)
    assert held(W, 0.0) == 0
    W += torch.diag(torch.linspace(-0.5, 0.25, n, dtype=torch.float64))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    for ordered in (W, W.T, W[order][:, order]):
        assert held(ordered, 0.5) <= 0.5 * EPS
    assert held(W, 0.5, torch.float32) <= 0.5 * 2.0**-23


def test_two_units_that_lead_to_each_other_are_not_taken_for_a_chain():
    W = torch.tensor([[0.1, 0.0, 4.0], [3.0, 0.1, 0.0], [1.0, 0.0, 0.1]], dtype=torch.float64)
    held(W, 2.1)


@pytest.mark.parametrize("n", [2, 3, 17, 64, 150, 256])
def test_the_radius_of_a_random_matrix_is_known_well(n):
    W = gaussian(n, seed=n)
    true = np.abs(np.linalg.eigvals(W.numpy())).max()
    assert held(W, true) < 1e-11
    assert 1e-9 < held(W, true, torch.float32) < 1e-4
    for narrow in (torch.float16, torch.bfloat16):
        assert 1e-4 < held(W, true, narrow) < 0.02


@pytest.mark.parametrize("n", [4, 16, 64, 256])
def test_the_radius_of_normal_matrices_is_known_to_all_digits(n):
    Q = hadamard(n) / n**0.5
    exact = Q @ torch.diag(torch.arange(1.0, n + 1, dtype=torch.float64)) @ Q
    assert held(exact, n) < 8 * max(8, n) * EPS * n
    turning = torch.linalg.qr(gaussian(n, seed=n)).Q
    assert held(turning, 1.0) < 4 * max(8, n) * EPS
    # One eigenvalue many times.
    assert held(Q, 1.0) < 8 * max(8, n) * EPS
    twice = Q @ torch.diag(torch.where(torch.arange(n) % 2 == 0, 3.0, -1.0).double()) @ Q
    assert held((twice + twice.T) / 2, 3.0) < 24 * max(8, n) * EPS


@pytest.mark.parametrize("n", [4, 9, 20])
def test_rounding_that_parts_a_multiple_eigenvalue_is_seen_in_narrow_dtypes(n):
    for narrow in (torch.float16, torch.bfloat16):
        assert held(turned(jordan("1/2", n), seed=n), 0.5, narrow) > 0.05


@pytest.mark.parametrize("seed", range(6))
def test_no_change_of_the_entries_within_their_rounding_moves_the_radius_by_more_than_its_error(seed):
    """The worst change at first order is along the outermost eigenvectors; those at random are smaller."""
    rng, n = np.random.default_rng(seed), 24
    W = np.triu(rng.normal(size=(n, n)), 1) * (0.1 + 0.1 * seed) + np.diag(rng.uniform(-1, 1, n))
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    W = torch.tensor(Q @ W @ Q.T).float().double()
    radius, error = spectral_radius_and_error(W.float())
    size = float(W.norm()) * 2.0**-24
    values, right = np.linalg.eig(W.numpy())
    left = np.linalg.inv(right)
    for i in np.argsort(-np.abs(values))[:4]:
        worst = np.outer(left[i].conj(), right[:, i].conj()) * values[i]
        for E in (worst.real, -worst.real, rng.normal(size=(n, n))):
            changed = np.abs(np.linalg.eigvals(W.numpy() + E * size / np.linalg.norm(E, 2))).max()
            assert abs(changed - radius) <= error * 1.001
    assert error < radius / 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [4, 8, 16])
def test_a_change_that_parts_a_jordan_blocks_eigenvalues_further_stays_within_the_error(n, dtype):
    """A corner c makes its eigenvalues those on a ring of radius c**(1 / n): the true radius may be the larger one."""
    radius, error = spectral_radius_and_error(turned(jordan("1/2", n), seed=n).to(dtype))
    size = torch.finfo(dtype).eps / 2 * math.sqrt(n / 4 + n - 1)
    assert 0.5 + size ** (1 / n) - radius <= error


def test_a_simple_eigenvalue_is_not_the_outermost_for_sure_where_a_jordan_blocks_may_be():
    W = turned(blocks(jordan("1/2", 20), [[Fraction(9, 10)]]), seed=20)
    radius, error = spectral_radius_and_error(W.float())
    assert radius == pytest.approx(0.9, abs=1e-6)
    # A corner of the block as large as the rounding of float32 puts its eigenvalues further out.
    size = float(W.norm()) * 2.0**-24
    assert 0.5 + size ** (1 / 20) - radius > 0.05
    assert 0.5 + size ** (1 / 20) - radius <= error


@pytest.mark.parametrize("power", [-660, -30, 40, 660])
def test_a_radius_and_its_error_scale_with_the_matrix(power):
    for W in (turned(jordan("1/2", 9)), gaussian(7)):
        radius, error = spectral_radius_and_error(W)
        expected = math.ldexp(radius, power), math.ldexp(error, power)
        assert spectral_radius_and_error(W * math.ldexp(1.0, power)) == expected


def test_zeros_and_single_numbers_are_known_exactly_or_to_half_a_spacing():
    assert spectral_radius_and_error(torch.zeros(5, 5)) == (0, 0)
    assert held(torch.tensor([[0.3]]), 0.3, torch.float32) <= 0.3 * 2.0**-23
    assert all(math.isnan(value) for value in spectral_radius_and_error(torch.tensor([[math.nan]])))


def test_matrices_that_torchs_lapack_gives_up_on_have_a_radius():
    radius, error = spectral_radius_and_error(torch.ones(20, 20, dtype=torch.float64))
    assert abs(radius - 20) <= error < 1e-12


def rnn(W, dtype=torch.float64):
    layer = nn.RNN(3, len(W), batch_first=True, dtype=dtype)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(W)
    return layer


def table_of(result, width=None, form="table"):
    return rendered(result, View(form, terminal=Terminal(width=width)), CONFIG, {})


def spectrum_of(W, dtype=torch.float64):
    return rnnctl.spectrum(driven_layer(rnn(W, dtype), torch.zeros(1, 3, 3, dtype=dtype)))


def test_a_spectrum_says_in_words_that_rounding_dominates_it():
    found = spectrum_of(turned(jordan("1/2", 20)))
    assert found.scalars["spectral_radius"] - 0.5 <= found.scalars["spectral_radius_error"]
    text = " ".join(table_of(found).split())
    assert "ROUNDING DOMINATES: the true one lies between 0.5 and" in text
    assert "ROUNDING" not in table_of(spectrum_of(gaussian(20)))
    low = spectrum_of(torch.tensor([[0.5, 1.0], [-1.0, 0.25]]), torch.float32).scalars["spectral_radius_error"]
    assert 1e-8 < low < 1e-6


def test_of_a_gated_cell_every_gate_says_how_well_its_radius_is_known():
    layer = nn.GRU(3, 20, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_hh_l0[20:40] = turned(jordan("1/2", 20))
    found = rnnctl.spectrum(driven_layer(layer, torch.zeros(1, 3, 3, dtype=torch.float64)))
    errors = {record["gate"]: record["spectral_radius_error"] for record in found.more["gates"]}
    assert errors["z"] > 0.1 > 1e-11 > max(errors["r"], errors["n"])
    assert table_of(found).count("dominates") == 1
    projected = nn.LSTM(3, 6, proj_size=2, batch_first=True)
    found = rnnctl.spectrum(driven_layer(projected, torch.zeros(1, 3, 3)))
    assert {record["spectral_radius_error"] for record in found.more["gates"]} == {None}
    assert "dominates" not in table_of(found)


def test_a_checkpoint_says_which_radius_rounding_dominates():
    both = {"a": rnn(0.7 * torch.eye(20)), "b": rnn(turned(jordan("1/2", 20)))}
    torch.save({f"{name}.{k}": v for name, layer in both.items() for k, v in layer.state_dict().items()}, "x.pt")
    found = rnnctl.checkpoint_contents("x.pt")
    a, b = found.recurrent
    assert a["spectral_radius_error"] < 1e-12
    assert abs(b["spectral_radius"] - 0.5) <= b["spectral_radius_error"]
    scalars = found.scalars
    # The radius of the other may be the larger one.
    reach = b["spectral_radius"] + b["spectral_radius_error"]
    assert scalars["largest_spectral_radius"] == pytest.approx(0.7)
    assert scalars["largest_spectral_radius_error"] == pytest.approx(reach - 0.7)
    text = table_of(found)
    assert text.count("dominates") == 1
    assert "ROUNDING DOMINATES: the true one lies between" in text


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", ["spectrum", "gradnorm"])
def test_json_and_conditions_know_the_error(command, capsys):
    assert main([command, "--json"]) == 0
    error = json.loads(capsys.readouterr().out)["scalars"]["spectral_radius_error"]
    assert 0 < error < 1e-6
    assert main([command, "--fail-on", f"spectral_radius_error>{error / 2}"]) == 3
    # A table with another question says it where it matters alone.
    assert ("spectral_radius_error" in capsys.readouterr().out) == (command == "spectrum")


def test_gradnorm_remarks_on_a_radius_that_rounding_dominates():
    x = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for W, remarks in ((turned(jordan("1/2", 20)), True), (gaussian(20), False)):
        found = rnnctl.gradnorm(rnn(W), x)
        assert (found.scalars["spectral_radius_error"] > 0.1) == remarks
        # The radius's line says it, and the error has a line of its own.
        text = rendered(found, View("table"), CONFIG, {})
        assert ("ROUNDING DOMINATES" in text) == ("spectral_radius_error" in text) == remarks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(2))
def test_wide_random_matrices_are_known_as_well_as_their_entries(dtype, seed):
    """Above the size that is looked at on circles, and with few eigenvalues that are close to one another."""
    exact = torch.randn(560, 560, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 560**0.5
    radius, error = spectral_radius_and_error(exact.to(dtype))
    true = np.abs(np.linalg.eigvals(exact.numpy())).max()
    assert abs(true - radius) <= error < 2e-5 * radius * torch.finfo(dtype).eps / torch.finfo(torch.float32).eps


def test_equal_entries_are_rounded_alike():
    """All of them by the same share: the radius of 600 x 600 tenths moves by as much."""
    radius, error = spectral_radius_and_error(torch.full((600, 600), 0.1))
    assert 0 < abs(radius - 60) <= error


@pytest.mark.parametrize("seed", range(5))
def test_disks_hold_every_point_where_the_sum_over_conditions_reaches_the_bound(seed):
    """sum_i k_i / |z - v_i| >= 1 / known_to at points drawn around eigenvalues whose disks nearly touch."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=8) + 1j * rng.normal(size=8)
    conditions = 10.0 ** rng.uniform(0, 2, size=8)
    known_to = 0.3 * np.abs(values - np.roll(values, 1)).min() / conditions.max()
    radii, _ = _disks(torch.from_numpy(values), torch.from_numpy(conditions), known_to)
    z = (values[:, None] + (rng.normal(size=(8, 20000)) + 1j * rng.normal(size=(8, 20000))) * 0.5).ravel()
    far = np.abs(z[:, None] - values)
    reached = z[(conditions / far).sum(axis=1) >= 1 / known_to]
    near = np.abs(reached[:, None] - values)
    assert len(reached) > 100
    assert (near.min(axis=1) <= radii.numpy()[near.argmin(axis=1)]).all()
