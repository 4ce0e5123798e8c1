"""The spectrum of W_hh and of the step Jacobians."""

import math

import numpy as np
import pytest
import torch

import rnnctl
from rnnctl.dynamics.jacobian import KRYLOV, jacobian_norms
from rnnctl.dynamics.spectrum import departure_from_normality, spectrum
from rnnctl.dynamics.trajectory import Stretch, stretches
from rnnctl.errors import InputError, TooLargeError
from rnnctl.models.driven import own_layer
from rnnctl.view.plane import eigenvalue_plane
from rnnctl.view.terminal import Terminal


def along(model, x, h_init):
    """The trajectory of the network."""
    return stretches(own_layer(model, x, h_init), x, h_init)


def network(W_hh, nonlinearity="tanh", inputs=3, bias=True, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    W_hh = torch.as_tensor(W_hh, dtype=dtype)
    model = rnnctl.FullRNN(inputs, W_hh.shape[0], 2, nonlinearity=nonlinearity, bias=bias, dtype=dtype)
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight.copy_(W_hh)
    return model


def jacobians_by_autograd(model, x, h_init):
    """J_t of every sequence, (time, batch, hidden, hidden), by differentiating the cell."""
    h, found = h_init, []
    for x_t in x.unbind(1):
        pairs = [(x_b.unsqueeze(0), h_b) for x_b, h_b in zip(x_t, h, strict=True)]
        step = [
            torch.autograd.functional.jacobian(lambda s, x_b=x_b: model.rnn_cell(x_b, s.unsqueeze(0))[0], h_b)
            for x_b, h_b in pairs
        ]
        found.append(torch.stack(step))
        h = model.rnn_cell(x_t, h).detach()
    return torch.stack(found)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("hidden", [1, 2, 17, KRYLOV + 20])
def test_jacobian_norms_are_those_of_autograds_jacobians(nonlinearity, hidden):
    torch.manual_seed(1)
    model = network(1.5 * torch.randn(hidden, hidden) / hidden**0.5, nonlinearity)
    x, h_init = torch.randn(3, 5, 3).double(), torch.randn(3, hidden).double()
    J = jacobians_by_autograd(model, x, h_init)
    norms = torch.linalg.matrix_norm(J, ord=2)
    steps = spectrum(model, x, h_init=h_init).steps
    assert [s["jacobian_norm_mean"] for s in steps] == pytest.approx(norms.mean(1).tolist(), rel=1e-9)
    assert [s["jacobian_norm_max"] for s in steps] == pytest.approx(norms.amax(1).tolist(), rel=1e-9)


@pytest.mark.parametrize("case", ["zero", "identity", "orthogonal", "tiny", "huge", "rank one"])
def test_jacobian_norms_of_awkward_matrices(case):
    torch.manual_seed(2)
    H, slope = 60, torch.rand(7, 60).double()
    W = {
        "zero": torch.zeros(H, H),
        "identity": torch.eye(H),
        "orthogonal": torch.linalg.qr(torch.randn(H, H)).Q,
        "tiny": torch.randn(H, H).double() * 1e-200,
        "huge": torch.randn(H, H).double() * 1e200,
        "rank one": torch.outer(torch.randn(H), torch.randn(H)),
    }[case].double()
    norms = torch.linalg.matrix_norm(slope.unsqueeze(2) * W, ord=2)
    assert torch.allclose(jacobian_norms(slope, W), norms, rtol=1e-4, atol=0)
    assert jacobian_norms(torch.zeros(2, H).double(), W).tolist() == [0, 0]


def test_eigenvalues_and_singular_values_are_numpys():
    W = torch.randn(12, 12, generator=torch.Generator().manual_seed(3)).double()
    found = spectrum(network(W), torch.zeros(1, 1, 3).double())
    theirs = np.linalg.eigvals(W.numpy())
    assert np.sort_complex(found.eigenvalues.numpy()) == pytest.approx(np.sort_complex(theirs))
    assert found.singular_values.tolist() == pytest.approx(np.linalg.svd(W.numpy(), compute_uv=False).tolist())
    moduli = [row["modulus"] for row in found.rows]
    assert moduli == sorted(moduli, reverse=True)
    assert found.scalars["condition_number"] == pytest.approx(np.linalg.cond(W.numpy()))


def test_departure_of_a_jordan_block_is_its_upper_part():
    found = spectrum(network([[0.5, 3.0], [0.0, 0.2]]), torch.zeros(1, 1, 3).double()).scalars
    assert found["departure_from_normality"] == pytest.approx(3)
    assert found["relative_departure"] == pytest.approx(3 / math.sqrt(0.25 + 9 + 0.04))


@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-200])
def test_normal_matrices_do_not_depart(scale):
    Q = torch.linalg.qr(torch.randn(30, 30, generator=torch.Generator().manual_seed(0)).double()).Q * scale
    assert departure_from_normality(torch.linalg.eigvals(Q), torch.linalg.svdvals(Q)) == (0, 0)


@pytest.mark.parametrize(("gain", "certified"), [(0.5, "vanishing"), (1.0, "nothing"), (2.0, "nothing")])
def test_bound_certifies_vanishing_alone(gain, certified):
    found = spectrum(network(gain * torch.eye(4)), torch.zeros(1, 2, 3).double()).scalars
    assert found["norm_bound"] == pytest.approx(gain)
    assert found["norm_bound_certifies"] == certified


def test_saturated_share_counts_states_beyond_99_percent():
    model = network(torch.zeros(2, 2), inputs=1, bias=False)
    with torch.no_grad():
        model.rnn_cell.input_to_hidden.weight.copy_(torch.tensor([[1.0], [10.0]]))
    (step,) = spectrum(model, torch.ones(1, 1, 1).double()).steps
    assert step["saturated"] == 0.5
    assert step["dead"] is None
    assert step["mean_slope"] == pytest.approx((math.cosh(1) ** -2 + math.cosh(10) ** -2) / 2)


def test_units_at_both_ends_of_tanh_are_saturated():
    torch.manual_seed(0)
    model, x = network(3 * torch.randn(9, 9)), 2 * torch.randn(4, 12, 3).double()
    h, shares = torch.zeros(4, 9).double(), []
    for x_t in x.unbind(1):
        h = model.rnn_cell(x_t, h).detach()
        shares.append([sum(end > 0.99 for end in ends.flatten().tolist()) / 36 for ends in (h, -h)])
    assert min(map(sum, zip(*shares, strict=True))) > 0.1 * 12
    assert [step["saturated"] for step in spectrum(model, x).steps] == pytest.approx([sum(pair) for pair in shares])


def test_dead_units_are_dead_in_every_sequence():
    model = network(torch.zeros(3, 3), "relu", inputs=1, bias=False)
    with torch.no_grad():
        model.rnn_cell.input_to_hidden.weight.copy_(torch.tensor([[1.0], [-1.0], [0.0]]))
    x = torch.tensor([[[1.0], [1.0]], [[-1.0], [1.0]]]).double()
    found = spectrum(model, x)
    assert [step["dead"] for step in found.steps] == pytest.approx([1 / 3, 2 / 3])
    assert found.scalars["dead_fraction"] == pytest.approx(1 / 3)
    assert found.scalars["saturated_fraction"] is None


def test_slope_of_a_saturated_unit_is_not_rounded_to_zero():
    model = network([[0.0]], inputs=1, bias=False)
    with torch.no_grad():
        model.rnn_cell.input_to_hidden.weight.fill_(25.0)
    (stretch,) = along(model, torch.ones(1, 1, 1).double(), torch.zeros(1, 1).double())
    assert stretch.slopes.slopes.item() == pytest.approx(4 * math.exp(-50), rel=1e-12, abs=0)


def test_stretches_follow_the_model_over_their_seams(monkeypatch):
    monkeypatch.setattr("rnnctl.dynamics.trajectory.STRETCH_BYTES", 3 * 2 * 5 * 8)
    model, x = network(torch.randn(5, 5)), torch.randn(2, 8, 3).double()
    found: list[Stretch] = list(along(model, x, torch.zeros(2, 5).double()))
    assert [s.start for s in found] == [0, 3, 6]
    h = torch.zeros(2, 5).double()
    for x_t, ours in zip(x.unbind(1), torch.cat([s.state for s in found]), strict=True):
        h = model.rnn_cell(x_t, h).detach()
        assert torch.allclose(h, ours)


def test_overflow_names_the_step_and_keeps_what_was_before():
    model = network([[1e100]], "relu", inputs=1, bias=False)
    with torch.no_grad():
        model.rnn_cell.input_to_hidden.weight.fill_(1.0)
    found = spectrum(model, torch.ones(1, 9, 1).double())
    assert found.scalars["first_nonfinite_step"] == 4  # 1, 1e100, 1e200, 1e300, inf
    assert [step["t"] for step in found.steps] == [0, 1, 2, 3]
    assert found.conditions == {"nonfinite": True}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_weights_are_computed_in_float64(dtype):
    W = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    model, x = network(W, dtype=dtype), torch.zeros(1, 2, 3, dtype=dtype)
    found = spectrum(model, x)
    exact = np.linalg.svd(W.to(dtype).double().numpy(), compute_uv=False)
    assert found.singular_values.tolist() == pytest.approx(exact.tolist(), rel=1e-13)
    assert found.scalars["computed_in"] == "float64 on cpu"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nonfinite_weights_reach_no_lapack_but_are_named(value, monkeypatch):
    monkeypatch.setattr(torch.linalg, "eigvals", None)
    model = network(torch.eye(3))
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight[1, 2] = value
    with pytest.raises(InputError, match=rf"W_hh must be finite; it holds {value} at \(1, 2\)"):
        spectrum(model, torch.zeros(1, 1, 3).double())


def test_what_does_not_fit_is_refused_before_it_is_computed(monkeypatch):
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: 100)
    with pytest.raises(TooLargeError, match=r"spectrum of W_hh \(9, 9\) would take"):
        spectrum(network(torch.eye(9)), torch.zeros(1, 1, 3).double())


def test_nothing_of_the_model_is_changed():
    model = network(torch.randn(4, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    spectrum(model, torch.randn(1, 3, 3).double())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


# ---- the picture --------------------------------------------------------------------------------


def test_picture_is_ascii_where_the_terminal_is():
    text = eigenvalue_plane([1j, 0.5, 0.5, -2], Terminal(ascii_only=True))
    assert text.isascii()
    assert text.count("*") == 2 + 1
    assert text.count("@") == 1 + 1


def test_picture_puts_eigenvalues_where_they_are():
    *lines, legend = eigenvalue_plane([0, 1, 1j], Terminal()).splitlines()
    rows = {i: line.index("●") for i, line in enumerate(lines) if "●" in line}
    middle = len(lines) // 2
    assert set(rows) == {middle, min(rows)}
    assert rows[middle] == rows[min(rows)]
    assert lines[middle].rindex("●") > rows[middle]
    assert "both axes to 1.05" in legend


@pytest.mark.parametrize("width", [20, 40, 80, 160])
def test_picture_fits_its_terminal(width):
    *lines, _ = eigenvalue_plane([1.0, -3 + 2j], Terminal(width=width)).splitlines()
    assert max(map(len, lines)) < width
