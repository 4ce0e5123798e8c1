"""What W_hh itself tells."""

import math

import pytest
import torch

from rnnctl.errors import InputError
from rnnctl.initializers import initialize_W_hh
from rnnctl.recurrence.matrix import spectral_norm, spectral_radius


def filled(init, gain=1.0, hidden=400, seed=0):
    W = torch.empty(hidden, hidden)
    bound = hidden**-0.5
    W.uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed))
    initialize_W_hh(W, init, gain, torch.Generator().manual_seed(seed))
    return W


def test_radius_and_norm_of_a_known_matrix():
    W = torch.tensor([[0.0, 4.0], [1.0, 0.0]])
    assert spectral_radius(W) == pytest.approx(2)
    assert spectral_norm(W) == pytest.approx(4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nonfinite_matrices_reach_no_lapack(value, monkeypatch):
    monkeypatch.setattr(torch.linalg, "eigvals", None)
    monkeypatch.setattr(torch.linalg, "svdvals", None)
    assert math.isnan(spectral_radius(torch.tensor([[value]])))
    assert math.isnan(spectral_norm(torch.tensor([[value]])))


@pytest.mark.parametrize(
    ("init", "radius", "norm", "within"),
    [
        ("default", 3**-0.5, 2 * 3**-0.5, 0.06),
        ("gaussian", 1, 2, 0.1),
        ("orthogonal", 1, 1, 1e-5),
        ("identity", 1, 1, 1e-6),
    ],
)
@pytest.mark.parametrize("gain", [1.0, 1.5])
def test_initialisations_have_the_spectra_of_theory(init, radius, norm, within, gain):
    """The circular law, and the largest singular value of an iid matrix: twice its radius."""
    W = filled(init, gain)
    assert spectral_radius(W) == pytest.approx(gain * radius, rel=within)
    assert spectral_norm(W) == pytest.approx(gain * norm, rel=within)


def test_the_generator_alone_decides():
    assert torch.equal(filled("gaussian", seed=3), filled("gaussian", seed=3))
    assert not torch.equal(filled("gaussian", seed=3), filled("gaussian", seed=4))
    assert filled("gaussian", 2.0).var().item() == pytest.approx(4 / 400, rel=0.02)


def test_unknown_names_and_gains_are_refused():
    with pytest.raises(InputError, match="init must be one of default, orthogonal, identity, gaussian; got 'xavier'"):
        filled("xavier")
    with pytest.raises(InputError, match="gain must be a finite number; got nan"):
        filled("default", math.nan)
