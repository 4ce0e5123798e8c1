"""The linear network, whose gradients and exponents have closed forms."""

import math

import pytest
import torch
from oracles import contributions_by_clones, norms
from shell import document, runner

import rnnctl
from rnnctl import FullRNN, InputError

T, B, H = 9, 3, 5


def network(W_hh=None, hidden=H, **settings):
    torch.manual_seed(0)
    model = FullRNN(3, hidden, 2, nonlinearity="linear", dtype=torch.float64, **settings)
    if W_hh is not None:
        with torch.no_grad():
            model.rnn_cell.hidden_to_hidden.weight.copy_(W_hh)
    return model, torch.randn(B, T, 3, dtype=torch.float64)


@pytest.mark.parametrize("loss_at", ["last", "all"])
@pytest.mark.parametrize("bias", [True, False])
def test_contributions_are_those_of_clones(loss_at, bias):
    model, x = network(1.2 * torch.linalg.qr(torch.randn(H, H)).Q, bias=bias)
    h_init = torch.randn(B, H, dtype=torch.float64)
    found = rnnctl.gradnorm(model, x, loss_at=loss_at, h_init=h_init, verify=True)
    expected = contributions_by_clones(model.state_dict(), x, "linear", loss_at, h_init=h_init)
    torch.testing.assert_close(found.grad_norm_W_hh, norms(expected["G"]), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(found.grad_norm_h, norms(expected["grad_h"]), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(found.grad_W_hh, expected["G"].sum(0), rtol=1e-9, atol=1e-14)
    assert found.agreement.holds


def test_a_gradient_travels_back_by_powers_of_W_hh():
    W = torch.randn(H, H, dtype=torch.float64)
    model, x = network(W)
    found = rnnctl.gradnorm(model, x)
    y = model(x)[:, -1].detach()
    arriving = 2 * y @ model.hidden_to_output.weight.detach() / y.numel()
    by_power = [(arriving @ torch.linalg.matrix_power(W, T - 1 - t)).norm() for t in range(T)]
    torch.testing.assert_close(found.grad_norm_h, torch.stack(by_power), rtol=1e-10, atol=0)


def test_flow_reaches_back_by_powers_of_W_hh_and_truncation_sums_its_last_steps():
    W = 0.9 * torch.linalg.qr(torch.randn(H, H, dtype=torch.float64)).Q
    model, x = network(W)
    found = rnnctl.flow(model, x, verify=True)
    # Of an orthogonal W_hh every step back multiplies by the gain, whatever the loss.
    lags = (torch.arange(T)[:, None] - torch.arange(T)).double()
    expected = torch.where(lags >= 0, lags * math.log(0.9), -math.inf)
    torch.testing.assert_close(found.log_relative, expected, rtol=1e-9, atol=1e-9)
    assert found.agreement.holds
    assert rnnctl.truncation(model, x, windows=[2], verify=True).agreement.holds


def test_exponents_are_the_logarithms_of_the_eigenvalues_moduli():
    W = torch.diag(torch.tensor([1.1, -0.9, 0.5, 0.25, 1e-3]).double())
    Q = torch.linalg.qr(torch.randn(H, H, dtype=torch.float64)).Q
    model, _ = network(Q @ W @ Q.T, bias=False)
    found = rnnctl.lyapunov(model, autonomous=True, steps=400, warmup=200)
    expected = [math.log(value) for value in (1.1, 0.9, 0.5, 0.25, 1e-3)]
    assert found.exponents.tolist() == pytest.approx(expected, abs=1e-6)


def test_every_step_jacobian_is_W_hh_and_nothing_saturates_or_dies():
    W = torch.randn(H, H, dtype=torch.float64)
    model, x = network(W)
    found = rnnctl.spectrum(model, x)
    norm = float(torch.linalg.matrix_norm(W, 2))
    assert [step["jacobian_norm_max"] for step in found.steps] == pytest.approx([norm] * T, rel=1e-10)
    assert found.scalars["norm_bound"] == pytest.approx(norm)
    assert found.scalars["mean_slope"] == 1
    assert found.scalars["saturated_fraction"] is found.scalars["dead_fraction"] is None


@pytest.mark.parametrize(("gain", "q"), [(0.5, 1 / (1 - 0.25)), (2.0, None)])
def test_theory_of_a_wide_linear_network_is_its_gain(gain, q):
    theory = rnnctl.mean_field(gain, 1.0, "linear")
    assert theory.exponent == pytest.approx(math.log(gain))
    assert theory.q == (None if q is None else pytest.approx(q))


def test_the_shell_takes_it_where_it_makes_sense_and_says_where_not(tmp_path, capsys, monkeypatch):
    run = runner(capsys, monkeypatch, tmp_path)
    for command in ("gradnorm", "flow", "truncation", "spectrum", "lyapunov", "cell", "forward", "unroll", "check"):
        ran = run(f"{command} --nonlinearity linear --json --seq-len 20")
        assert ran.code == 0, ran.err
        assert document(ran)["config"]["nonlinearity"] == "linear"
    assert len(document(ran)["rows"]) == 4
    for line in ("gradnorm --cell rnn", "gradnorm --cell gru", "bench --seq-len 5 --no-memory"):
        ran = run(f"{line} --nonlinearity linear")
        assert (ran.code, ran.out) == (2, "")
        assert "linear" in ran.err


def test_nn_rnn_has_no_linear_and_no_cell_takes_an_unknown_name():
    with pytest.raises(InputError, match="nonlinearity must be one of tanh, relu, linear; got 'sine'"):
        FullRNN(3, 4, 2, nonlinearity="sine")
