"""Mean-field theory against published values and another quadrature."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnctl.dynamics.meanfield import iid_sigma_w, mean_field, prediction


def test_gain_of_three_halves_gives_the_known_fixed_point():
    found = mean_field(1.5)
    assert found.q == pytest.approx(0.793354, abs=1e-6)
    assert found.chi == pytest.approx(1.139323, abs=1e-6)
    assert found.exponent == pytest.approx(0.065217, abs=1e-6)
    assert found.factor_per_step == pytest.approx(math.sqrt(1.139323), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 1.5), st.floats(0, 0.5))
def test_fixed_point_and_chi_are_those_of_gauss_hermite(sigma, source):
    nodes, weights = np.polynomial.hermite_e.hermegauss(180)
    weights = weights / weights.sum()
    found = mean_field(sigma, source)
    u = math.sqrt(found.q) * nodes
    assert sigma**2 * weights @ np.tanh(u) ** 2 + source == pytest.approx(found.q, abs=1e-8)
    assert sigma**2 * weights @ np.cosh(u) ** -4 == pytest.approx(found.chi, abs=1e-6)


def test_large_variance_meets_the_limit_of_a_step_function():
    """E[sech^4(u)] -> 4/3 of the density at 0, for u of variance q -> infinity."""
    found = mean_field(1e4)
    assert found.q == pytest.approx(1e8, rel=1e-3)
    assert found.chi == pytest.approx(1e8 * (4 / 3) / math.sqrt(2 * math.pi * found.q), rel=1e-6)


@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.0])
def test_without_a_source_a_small_gain_lets_everything_die(sigma):
    found = mean_field(sigma)
    assert (found.q, found.chi) == (0, sigma**2)
    assert found.exponent == (0.5 * math.log(sigma**2) if sigma else -math.inf)


def test_a_source_makes_a_chaotic_network_more_stable():
    assert mean_field(1.5, 1.0).chi < 1 < mean_field(1.5).chi


def test_relu_loses_half_its_variance_per_step():
    found = mean_field(1.2, 0.7, "relu")
    assert found.q == pytest.approx(0.7 / (1 - 0.72))
    assert found.chi == pytest.approx(0.72)
    assert mean_field(1.5, 0.7, "relu").q is None


def test_variance_of_each_way_to_draw():
    assert iid_sigma_w("gaussian", 1.5) == 1.5
    assert iid_sigma_w("default", 1.0) == pytest.approx(3**-0.5)
    assert iid_sigma_w("gaussian", -2.0) == 2.0


@pytest.mark.parametrize(("init", "said"), [("orthogonal", "orthogonal"), ("identity", "identity"), (None, "trained")])
def test_theory_says_where_it_does_not_apply(init, said):
    found = prediction(init, 1.0, 0.1, "tanh")
    assert said in found.note
    assert (found.q, found.chi, found.exponent, found.factor_per_step) == (None,) * 4


def test_variance_beyond_every_number_has_no_prediction():
    assert mean_field(1e200).chi is None
    assert mean_field(1.0, math.nan).chi is None
