"""The loss-step by source-step matrix and the truncation windows, against autograd by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import activation, orthogonal

import rnnctl
from rnnctl import FullRNN, InputError, flow, gradnorm, truncation
from rnnctl.gradients.flow import mixed_norms, norm_factors

LEVELS = {"p10": 0.1, "median": 0.5, "p90": 0.9}


def network(nonlinearity="tanh", H=5, **settings):
    torch.manual_seed(0)
    return orthogonal(FullRNN(3, H, 2, nonlinearity=nonlinearity, dtype=torch.float64, **settings))


def by_hand(model, x, nonlinearity, window=None, h_init=None, target=None):
    """Contributions (k, t, H, H) and dL_k/dh_t by one autograd pass per loss step; with ``window``
    the state is detached so that loss step k sees exactly its last ``window`` steps."""
    T, W_x, W_h = x.shape[1], model.rnn_cell.input_to_hidden, model.rnn_cell.hidden_to_hidden
    H = W_h.weight.shape[0]
    G, S = torch.zeros(T, T, H, H, dtype=torch.float64), torch.zeros(T, T, dtype=torch.float64)
    for k in range(T):
        clones = [W_h.weight.detach().clone().requires_grad_() for _ in range(k + 1)]
        h = torch.zeros(x.shape[0], H, dtype=torch.float64) if h_init is None else h_init
        states = []
        for t in range(k + 1):
            if window is not None and t == k + 1 - window:
                h = h.detach()
            h = activation(nonlinearity)(W_x(x[:, t]) + h @ clones[t].T + W_h.bias)
            h.retain_grad()
            states.append(h)
        y = model.hidden_to_output(h)
        wanted = torch.zeros_like(y) if target is None else target[:, k]
        ((y - wanted) ** 2).mean().div(T).backward()
        for t in range(k + 1):
            G[k, t] = 0 if clones[t].grad is None else clones[t].grad
            S[k, t] = 0 if states[t].grad is None else states[t].grad.norm()
    return G, S


@given(
    seed=st.integers(0, 999),
    T=st.integers(1, 20),
    B=st.integers(1, 6),
    H=st.integers(1, 5),
    nonlinearity=st.sampled_from(["tanh", "relu"]),
)
@settings(max_examples=15, deadline=None)
def test_every_pair_is_autograds(seed, T, B, H, nonlinearity):
    model = network(nonlinearity, H)
    torch.manual_seed(seed)
    x, h_init = torch.randn(B, T, 3, dtype=torch.float64), torch.randn(B, H, dtype=torch.float64)
    target = torch.randn(B, T, 2, dtype=torch.float64)
    G, S = by_hand(model, x, nonlinearity, h_init=h_init, target=target)
    found = flow(model, x, h_init=h_init, target=target, verify=True)
    torch.testing.assert_close(found.norms, G.flatten(2).norm(dim=2), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.sensitivity, S, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.grad_W_hh, G.sum((0, 1)), rtol=1e-6, atol=1e-9)
    # Of a relu that is off at all steps both are 0.
    assert found.agreement.holds is (True if bool(G.any()) else None)


def test_no_loss_reaches_a_later_step():
    found = flow(network(), torch.randn(2, 9, 3, dtype=torch.float64))
    assert not found.norms.triu(1).any()
    assert not found.sensitivity.triu(1).any()
    assert all(row["t"] <= row["k"] for row in found.rows)
    assert len(found.rows) == 45


def test_the_sum_is_gradnorms_with_a_loss_at_all_steps():
    model, x = network(), torch.randn(2, 9, 3, dtype=torch.float64)
    found, whole = flow(model, x), gradnorm(model, x, loss_at="all")
    assert found.loss == pytest.approx(whole.loss)
    torch.testing.assert_close(found.grad_W_hh, whole.grad_W_hh)
    one = flow(model, x[:1, :1])
    assert one.norms.tolist() == [[0.0]]


def test_losses_taken_a_few_at_a_time_give_the_same(monkeypatch):
    model, x = network(), torch.randn(2, 30, 3, dtype=torch.float64)
    whole, cut = flow(model, x), truncation(model, x, windows=[3, 10])
    monkeypatch.setattr("rnnctl.gradients.loss_steps.losses_at_a_time", lambda *_: 7)
    parts, cut_parts = flow(model, x, verify=True), truncation(model, x, windows=[3, 10])
    torch.testing.assert_close(parts.norms, whole.norms)
    torch.testing.assert_close(cut_parts.gradients, cut.gradients)
    assert parts.agreement.holds


def test_vanished_pairs_keep_their_size_in_float32():
    torch.manual_seed(0)
    model, x = FullRNN(3, 12, 2), torch.randn(2, 250, 3)
    found = flow(model, x)
    exact = flow(model.double(), x.double())
    assert 0 < found.sensitivity[-1, 0] < 1e-60
    # float32 states and slopes: a relative error per step, over 250 of them.
    torch.testing.assert_close(found.sensitivity.tril(), exact.sensitivity.tril(), rtol=1e-2, atol=0)


def test_lag_profile_of_a_linear_network_is_its_gain_to_the_lag():
    model = FullRNN(1, 4, 1, nonlinearity="relu", dtype=torch.float64)
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight.copy_(0.8 * torch.eye(4, dtype=torch.float64))
        for name, parameter in model.named_parameters():
            if "input_to_hidden" in name or "bias" in name:
                parameter.fill_(0.5)
    found = flow(model, torch.ones(2, 30, 1, dtype=torch.float64))
    expected = 0.8 ** torch.arange(30, dtype=torch.float64)
    for name in ("p10", "median", "p90"):
        torch.testing.assert_close(found.lag_profile[name], expected)
    assert found.scalars["lag_to_one_percent"] == math.ceil(math.log(0.01) / math.log(0.8))
    assert found.more["lag_profile"][3]["median"] == pytest.approx(0.8**3)


def quantile_by_hand(values, level):
    """Between the two neighbours in order, in proportion."""
    ordered = sorted(values)
    place = level * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def test_lag_profile_is_the_quantiles_of_autograds_ratios_from_low_to_high():
    torch.manual_seed(3)
    # Inputs of very different sizes: some steps let hardly anything through, others nearly all.
    x = torch.randn(2, 20, 3, dtype=torch.float64) * torch.logspace(-1, 1, 20).double()[torch.randperm(20)][:, None]
    model = network()
    _, S = by_hand(model, x, "tanh")
    profile = flow(model, x).more["lag_profile"]
    for lag, record in enumerate(profile):
        ratios = [float(S[k, k - lag] / S[k, k]) for k in range(lag, 20)]
        expected = {name: quantile_by_hand(ratios, level) for name, level in LEVELS.items()}
        assert record == pytest.approx({"lag": lag, **expected}, rel=1e-6)
    assert profile[5]["p10"] < 0.5 * profile[5]["median"] < 0.25 * profile[5]["p90"]


@given(st.integers(0, 999), st.integers(1, 7), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_norms_through_the_triangle_are_those_of_the_products(seed, B, H):
    g = torch.Generator().manual_seed(seed)
    h, delta = torch.randn(3, B, H, generator=g), torch.randn(4, B, H, generator=g)
    h *= torch.tensor([1e-30, 1.0, 1e30]).view(3, 1, 1)
    factors, powers = norm_factors(h)
    for t in range(3):
        expected = torch.linalg.matrix_norm(delta.double().mT @ h[t].double())
        found = mixed_norms(delta, factors[t], torch.empty(4)).double() * 2.0 ** -powers[t]
        # Relative to what the samples weigh before they cancel: float32 holds no more.
        magnitude = (delta.double().norm(dim=2) * h[t].double().norm(dim=1)).sum(1)
        assert ((found - expected).abs() <= 1e-6 * magnitude).all()


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_truncated_gradients_are_those_of_detached_states(nonlinearity):
    model, x = network(nonlinearity), torch.randn(3, 11, 3, dtype=torch.float64)
    found = truncation(model, x, windows=[1, 2, 5], verify=True)
    assert found.windows == (1, 2, 5, 11)
    for window, gradient, row in zip(found.windows, found.gradients, found.rows, strict=True):
        expected = by_hand(model, x, nonlinearity, window)[0].sum((0, 1))
        full = by_hand(model, x, nonlinearity)[0].sum((0, 1))
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-12)
        assert row["norm_ratio"] == pytest.approx(float(expected.norm() / full.norm()))
        assert row["relative_error"] == pytest.approx(float((expected - full).norm() / full.norm()), abs=1e-12)
        assert row["cosine"] == pytest.approx(float((expected * full).sum() / expected.norm() / full.norm()))
    assert found.agreement.holds


def test_windows_double_up_to_the_sequence_and_their_rows_are_scalars():
    found = truncation(network(), torch.randn(2, 20, 3, dtype=torch.float64))
    assert found.windows == (1, 2, 4, 8, 16, 20)
    assert found.scalars["cosine_at_20"] == pytest.approx(1)
    assert found.scalars["relative_error_at_20"] == 0
    assert found.scalars["cosine_at_4"] == found.rows[2]["cosine"]
    good = found.scalars["window_for_cosine_99"]
    assert all(row["cosine"] >= 0.99 for row in found.rows if row["window"] >= good)
    assert truncation(network(), torch.randn(2, 1, 3, dtype=torch.float64)).windows == (1,)


@pytest.mark.parametrize("window", [0, 21, -1])
def test_a_window_outside_the_sequence_is_refused(window):
    with pytest.raises(InputError, match=f"windows must be from 1 to the sequence's 20 steps; got {window}"):
        truncation(network(), torch.randn(2, 20, 3, dtype=torch.float64), windows=[window])


@pytest.mark.parametrize("windows", [[2.5], [True], ["a"], 5])
def test_windows_that_are_no_whole_numbers_are_refused(windows):
    with pytest.raises(InputError, match="windows must be whole numbers from 1 to 20; got"):
        truncation(network(), torch.randn(2, 20, 3, dtype=torch.float64), windows=windows)


def test_a_condition_on_a_window_adds_it(capsys):
    from rnnctl.__main__ import main

    assert main(["truncation", "--seq-len", "30", "--format", "csv", "--fail-on", "cosine_at_20<0.9"]) == 0
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "1",
        "2",
        "4",
        "8",
        "16",
        "20",
        "30",
    ]
    assert main(["truncation", "--seq-len", "30", "--windows", "3", "--fail-on", "cosine_at_2<1.1"]) == 3
    assert main(["truncation", "--seq-len", "10", "--fail-on", "cosine_at_20<0.9"]) == 2
    assert "windows must be from 1 to the sequence's 10 steps; got 20" in capsys.readouterr().err


def test_a_network_without_a_gradient_has_no_cosine():
    model = network()
    with torch.no_grad():
        model.hidden_to_output.weight.zero_()
    found = truncation(model, torch.randn(2, 5, 3, dtype=torch.float64))
    assert {row["cosine"] for row in found.rows} == {None}
    assert found.scalars["window_for_cosine_99"] is None
    assert flow(model, torch.randn(2, 5, 3, dtype=torch.float64)).scalars["lag_to_one_percent"] is None


def test_pairs_that_do_not_fit_are_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: 1000)
    with pytest.raises(rnnctl.TooLargeError, match="50 x 50 norms would take .* 1000 B is available"):
        flow(network(), torch.zeros(1, 50, 3, dtype=torch.float64))


def test_overflow_gives_no_wrong_number():
    model = FullRNN(3, 8, 2, nonlinearity="relu")
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight.copy_(10 * torch.eye(8))
    found = flow(model, torch.randn(2, 60, 3), verify=True)
    assert not torch.isfinite(found.norms[-1, -1])
    assert torch.isfinite(found.norms[5, 3])
    step = found.scalars["first_nonfinite_step"]
    assert 20 < step < 60
    assert truncation(model, torch.randn(2, 60, 3)).scalars["first_nonfinite_step"] > 20
    assert flow(network(), torch.randn(2, 5, 3, dtype=torch.float64)).scalars["first_nonfinite_step"] is None
