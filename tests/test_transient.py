"""How far powers of W_hh grow: against powers formed one by one, and against what pencil and paper say."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import rnnctl
from rnnctl.__main__ import main
from rnnctl.dynamics import transient
from rnnctl.dynamics.transient import transient_growth
from rnnctl.models.driven import driven_layer
from rnnctl.recurrence.radius_error import eigen


def growth(W, dtype=torch.float64):
    W = torch.as_tensor(W, dtype=dtype).double()
    return transient_growth(W, eigen(W, dtype), dtype)


def one_by_one(W, count):
    """The largest norm of the first powers, and where it is."""
    norms = [np.linalg.norm(np.linalg.matrix_power(W, n), 2) for n in range(1, count + 1)]
    return max(norms), 1 + int(np.argmax(norms))


def random(n, radius, seed=0):
    W = np.random.default_rng(seed).normal(size=(n, n))
    return W * radius / np.abs(np.linalg.eigvals(W)).max()


@pytest.mark.parametrize("radius", [0.3, 0.9, 0.97])
@pytest.mark.parametrize("n", [1, 2, 5, 12, 33])
def test_the_largest_norm_is_that_of_powers_formed_one_by_one(n, radius):
    for seed in range(4):
        W = random(n, radius, seed)
        found, (norm, step) = growth(W), one_by_one(W, 150)
        assert found.norm == pytest.approx(norm, rel=1e-9)
        assert found.step == step
        assert found.norm >= np.linalg.norm(W, 2) * (1 - 1e-12)


# The norm n b a^(n - 1) of what grows is largest at n = -1 / ln a or beside it: on both sides of every block of powers.
@pytest.mark.parametrize("a", [0.2, 0.6, 0.8, 0.9, 0.95, 0.984, 0.985, 0.99, 0.995, 0.9993, -0.9, 0.9998])
@pytest.mark.parametrize("b", [1.0, 40.0])
def test_the_growth_of_a_jordan_block_is_that_of_its_formula(a, b):
    n = np.arange(1, 40000)
    diagonal, above = a**n, n * b * a ** (n - 1.0)
    # The largest singular value of [[p, q], [0, p]].
    norms = np.abs(above) / 2 + np.sqrt((above / 2) ** 2 + diagonal**2)
    found = growth([[a, b], [0.0, a]])
    assert found.norm == pytest.approx(norms.max(), rel=1e-9)
    # Where two neighbours are as large rounding decides.
    assert norms[found.step - 1] == pytest.approx(norms.max(), rel=1e-9)


@pytest.mark.parametrize("n", [2, 3, 20, 40])
def test_a_chain_grows_until_its_end(n):
    """Every unit feeds the next one alone, twice as strongly: the radius is 0."""
    found = growth(np.diag(np.full(n - 1, 2.0), -1))
    assert (found.norm, found.step) == (pytest.approx(2.0 ** (n - 1)), n - 1)


def test_powers_that_come_back_are_looked_at_once_around():
    scales = np.diag([1.0, 2.0, 4.0, 8.0])
    W = scales @ np.roll(np.eye(4), 1, axis=0) @ np.linalg.inv(scales)
    assert (growth(W).norm, growth(W).step) == (8, 3)
    assert (growth(W.T.copy()).norm, growth(np.linalg.inv(W)).step) == (8, 1)
    W = np.diag([1.0, 1.0, 4.0, 1.0]) @ np.roll(np.eye(4), 1, axis=0) @ np.diag([1.0, 1.0, 0.25, 1.0])
    assert (growth(W).norm, growth(W).step) == one_by_one(W, 8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [1, 2, 30])
def test_powers_of_an_orthogonal_matrix_stay_as_long(n, dtype):
    Q = np.linalg.qr(random(n, 1.0))[0]
    found = growth(Q, dtype)
    assert (found.norm, found.step) == (pytest.approx(1, abs=1e-6), 1)


def test_zeros_and_a_single_number():
    assert (growth(np.zeros((3, 3))).norm, growth(np.zeros((3, 3))).step) == (0, 1)
    assert (growth([[-0.5]]).norm, growth([[-0.5]]).step) == (0.5, 1)


def test_above_a_radius_of_1_powers_grow_without_end():
    for W in ([[1.001]], random(20, 1.2), [[1.1, 5.0], [0.0, 0.2]]):
        assert (growth(W).norm, growth(W).step) == (math.inf, math.inf)


def test_at_a_radius_of_1_nothing_is_told_unless_the_norms_tell_it(monkeypatch):
    monkeypatch.setattr(transient, "POWERS", 5000)
    found = growth([[1.0, 1.0], [0.0, 1.0]])
    assert (found.norm, found.step) == (None, None)
    assert "1 within its error" in found.why
    # Known to float32's digits alone, it may be 1; of float64's not.
    W = np.array([[1 - 1e-9, 0.5], [-0.25, 1e-3]]) @ np.diag([1.0, 1.0])
    W = W / np.abs(np.linalg.eigvals(W)).max() * (1 + 2.0**-40)
    assert growth(W).norm == math.inf
    assert growth(W, torch.float32).norm != math.inf


def test_what_is_not_settled_within_bounded_work_says_so(monkeypatch):
    W = [[0.99, 3.0], [0.0, 0.99]]
    assert growth(W).step in (99, 100)
    monkeypatch.setattr(transient, "POWERS", 300)
    found = growth(W)
    assert (found.norm, found.step) == (None, None)
    assert "not settled in the 256 powers that were formed" in found.why
    monkeypatch.setattr(transient, "POWERS", 1 << 17)
    monkeypatch.setattr(transient, "WORK", 8 * 130)
    assert "not settled in the 128 powers that were formed: ||W_hh^99|| = 110.9" in growth(W).why


def test_growth_that_rounding_dominates_says_so():
    """A turned chain of 30 units: the powers of what is stored are not those of what was meant."""
    Q = np.linalg.qr(random(30, 1.0, seed=3))[0]
    chain = np.diag(np.full(29, 4.0), -1)
    found = growth(Q @ chain @ Q.T)
    assert (found.norm, found.step, found.why) == (None, None, transient.ROUNDED)
    # As it stands no entry of it is rounded.
    assert growth(chain).norm == pytest.approx(4.0**29)


def test_a_turned_chain_that_rounding_leaves_alone_grows_as_the_chain():
    Q = np.linalg.qr(random(20, 1.0, seed=3))[0]
    found = growth(Q @ np.diag(np.full(19, 1.5), -1) @ Q.T)
    assert (found.norm, found.step) == (pytest.approx(1.5**19, rel=1e-6), 19)


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_huge_and_tiny_entries_are_no_matter(size):
    found = growth([[0.5, size], [0.0, 0.5]])
    # Below, the first power is the largest: n a^(n - 1) is 1 at n = 1 and at n = 2.
    assert found.norm == pytest.approx(max(size, 0.5))
    assert found.step in (1, 2)


def test_large_matrices_have_the_growth_of_powers_formed_one_by_one():
    W = random(transient.LANCZOS_ABOVE + 4, 0.9)
    found, (norm, step) = growth(W), one_by_one(W, 6)
    assert (found.norm, found.step) == (pytest.approx(norm, rel=1e-12), step)
    assert step > 1


def rnn(W):
    layer = nn.RNN(3, len(W), batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(torch.as_tensor(W))
    return layer


def test_a_spectrum_shows_growth_beside_the_radius():
    W = random(12, 0.9)
    found = rnnctl.spectrum(driven_layer(rnn(W), torch.zeros(1, 3, 3, dtype=torch.float64))).scalars
    norm, step = one_by_one(W, 150)
    assert (found["transient_growth"], found["transient_growth_step"]) == (pytest.approx(norm), step)


def test_json_and_conditions_know_growth(capsys):
    assert main(["spectrum", "--json"]) == 0
    scalars = json.loads(capsys.readouterr().out)["scalars"]
    assert scalars["transient_growth"] >= scalars["spectral_norm"] * (1 - 1e-9)
    assert scalars["transient_growth_step"] == 1
    assert main(["spectrum", "--gain", "3", "--json", "--fail-on", "transient_growth>1000"]) == 3
    assert json.loads(capsys.readouterr().out)["scalars"]["nonfinite"]["transient_growth"] == "inf"


@pytest.mark.parametrize(
    ("dtype", "gain", "units"), [(torch.bfloat16, 0.577, 128), (torch.float16, 0.9, 64), (torch.float32, 0.8, 40)]
)
def test_growth_of_rounded_weights_is_that_of_the_exact_ones(dtype, gain, units):
    exact = torch.randn(units, units, generator=torch.Generator().manual_seed(0)).double() * gain / units**0.5
    rounded = exact.to(dtype).double()
    found = transient_growth(rounded, eigen(rounded, dtype), dtype)
    powers = [np.linalg.norm(np.linalg.matrix_power(exact.numpy(), n), 2) for n in range(1, 60)]
    assert found.norm == pytest.approx(max(powers), rel=0.01)


def test_powers_that_come_back_to_1_within_rounding_do_not_tell_whether_they_grow():
    scales = torch.tensor([1.0, 2.5, 1.2, 1.1]).double()
    W = torch.eye(4).double().roll(1, dims=0) * scales.unsqueeze(1) / scales
    assert growth(W).norm == pytest.approx(2.5)
    found = growth(W, torch.bfloat16)
    assert (found.norm, found.step) == (None, None)
    assert "rounding" in found.why
