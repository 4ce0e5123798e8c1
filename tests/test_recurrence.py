"""The recurrence forward and in reverse, against autograd, nn.RNN and pencil and paper."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import contributions_by_clones, norms, orthogonal
from torch import nn

from rnnctl import FullRNN
from rnnctl.recurrence.cell_steps import STEP_BY_STEP
from rnnctl.recurrence.elman import hidden_states
from rnnctl.recurrence.kinds import kind_named
from rnnctl.recurrence.lstm import cell_states
from rnnctl.recurrence.nonlinearities import NONLINEARITIES
from rnnctl.recurrence.run import LayerRun
from rnnctl.recurrence.scaling import power_of_two, times_power_of_two
from rnnctl.recurrence.sweep import LONGEST_CHUNK, chunk_steps, sweep_back
from rnnctl.recurrence.threads import ONE_THREAD_BELOW, threads_for
from rnnctl.recurrence.weights import LayerWeights


def states_of(model, x, h_init=None):
    cell = model.rnn_cell
    start = model.initial_state(x) if h_init is None else h_init
    bias = cell.input_to_hidden.bias
    return hidden_states(
        x,
        start,
        cell.input_to_hidden.weight.detach(),
        cell.hidden_to_hidden.weight.detach(),
        None if bias is None else (bias + cell.hidden_to_hidden.bias).detach(),
        NONLINEARITIES[cell.nonlinearity],
    )


def chunks_of(h, direct, W_hh, nonlinearity):
    """The sweep of a layer without inputs along these states."""
    x = h.new_zeros(h.shape[0] - 1, h.shape[1], 1)
    weights = LayerWeights(W_hh.new_zeros(len(W_hh), 1), W_hh)
    run = LayerRun(kind_named("RNN", nonlinearity), weights, x, h, None, direct)
    return sweep_back(run.kind.reversible(run), direct)


def swept(h, direct, W_hh, nonlinearity):
    """grad_h and delta at every step, unscaled, in float64."""
    grad_h = torch.full(h[1:].shape, math.nan, dtype=torch.float64)
    delta = grad_h.clone()
    for chunk in chunks_of(h, direct, W_hh, nonlinearity):
        scale = torch.tensor(2.0, dtype=torch.float64) ** -chunk.exponent
        grad_h[chunk.start : chunk.stop] = chunk.grad_h.double() * scale
        delta[chunk.start : chunk.stop] = chunk.delta.double() * scale
    return grad_h, delta


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("bias", [True, False])
def test_states_are_those_of_nn_rnn(nonlinearity, bias):
    torch.manual_seed(0)
    model = FullRNN(3, 6, 2, nonlinearity=nonlinearity, bias=bias, dtype=torch.float64)
    rnn = nn.RNN(3, 6, nonlinearity=nonlinearity, bias=bias, batch_first=True, dtype=torch.float64)
    cell = model.rnn_cell
    with torch.no_grad():
        rnn.weight_ih_l0.copy_(cell.input_to_hidden.weight)
        rnn.weight_hh_l0.copy_(cell.hidden_to_hidden.weight)
        if bias:
            rnn.bias_ih_l0.copy_(cell.input_to_hidden.bias)
            rnn.bias_hh_l0.copy_(cell.hidden_to_hidden.bias)
    x, start = torch.randn(5, 40, 3, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    h = states_of(model, x, start)
    expected, _ = rnn(x, start[None])
    assert torch.equal(h[0], start)
    torch.testing.assert_close(h[1:].transpose(0, 1), expected.detach(), rtol=1e-12, atol=1e-14)


def test_a_long_input_is_projected_in_chunks_alike(monkeypatch):
    model, x = FullRNN(3, 4, 2), torch.randn(2, 100, 3)
    whole = states_of(model, x)
    monkeypatch.setattr("rnnctl.recurrence.elman.CHUNK_BYTES", 300)
    torch.testing.assert_close(states_of(model, x), whole)


@given(
    seed=st.integers(0, 1000),
    T=st.integers(1, 90),
    B=st.integers(1, 4),
    H=st.integers(1, 9),
    last_steps=st.integers(1, 90),
    nonlinearity=st.sampled_from(["tanh", "relu"]),
)
@settings(max_examples=60, deadline=None)
def test_sweep_is_autograds_for_any_sizes_and_any_loss_steps(seed, T, B, H, last_steps, nonlinearity):
    g = torch.Generator().manual_seed(seed)
    n = min(last_steps, T)
    W = torch.linalg.qr(torch.randn(H, H, generator=g, dtype=torch.float64))[0]
    a = torch.randn(T, B, H, generator=g, dtype=torch.float64)
    weights = torch.randn(n, B, H, generator=g, dtype=torch.float64)
    f = torch.tanh if nonlinearity == "tanh" else torch.relu
    h, states, pre = torch.zeros(B, H, dtype=torch.float64), [], []
    for t in range(T):
        p = (a[t] + h @ W.T).requires_grad_()
        p.retain_grad()
        h = f(p)
        h.retain_grad()
        pre.append(p)
        states.append(h)
    sum((w * s).sum() for w, s in zip(weights, states[-n:], strict=True)).backward()
    stacked = torch.cat([torch.zeros(1, B, H, dtype=torch.float64), torch.stack([s.detach() for s in states])])
    grad_h, delta = swept(stacked, weights, W, nonlinearity)
    for t in range(T):
        torch.testing.assert_close(grad_h[t], states[t].grad, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(delta[t], pre[t].grad, rtol=1e-9, atol=1e-13)


def test_three_steps_of_one_unit_worked_by_hand():
    w, u = 0.5, 2.0
    x = [0.3, -0.1, 0.2]
    h0 = math.tanh(u * x[0])
    h1 = math.tanh(u * x[1] + w * h0)
    h2 = math.tanh(u * x[2] + w * h1)
    grad = [0.0, 0.0, 1.0]
    grad[1] = (1 - h2**2) * w
    grad[0] = grad[1] * (1 - h1**2) * w
    h = hidden_states(
        torch.tensor(x, dtype=torch.float64).view(1, 3, 1),
        torch.zeros(1, 1, dtype=torch.float64),
        torch.tensor([[u]], dtype=torch.float64),
        torch.tensor([[w]], dtype=torch.float64),
        None,
        NONLINEARITIES["tanh"],
    )
    assert h.flatten().tolist() == pytest.approx([0, h0, h1, h2], rel=1e-14)
    W, one = torch.tensor([[w]], dtype=torch.float64), torch.ones(1, 1, 1, dtype=torch.float64)
    grad_h, delta = swept(h, one, W, "tanh")
    assert grad_h.flatten().tolist() == pytest.approx(grad, rel=1e-14)
    slopes = [1 - s**2 for s in (h0, h1, h2)]
    assert delta.flatten().tolist() == pytest.approx([g * s for g, s in zip(grad, slopes, strict=True)], rel=1e-14)


@pytest.mark.parametrize(("batch", "hidden"), [(1, 3), (3, STEP_BY_STEP // 3), (2, STEP_BY_STEP // 2), (7, 300)])
@pytest.mark.parametrize("steps", [1, 2, 37])
def test_cell_states_agree_with_a_loop_on_both_sides_of_the_branch(steps, batch, hidden):
    """1023 and 1024 numbers a step; every gate has values of its own, some of them exactly shut or open."""
    g = torch.Generator().manual_seed(0)
    gates = torch.rand(steps, batch, 4, hidden, generator=g, dtype=torch.float64)
    gates[:, :, 2] = 2 * gates[:, :, 2] - 1
    gates[:, :, 1, 0], gates[:, :, 1, 1] = 0.0, 1.0
    c = c_init = torch.randn(batch, hidden, generator=g, dtype=torch.float64)
    expected = [c_init]
    for i, f, candidate, _ in (step.unbind(1) for step in gates):
        c = f * c + i * candidate
        expected.append(c)
    found = cell_states(gates, c_init)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("gain", "dtype"), [(0.3, torch.float32), (3.0, torch.float32), (0.01, torch.float64)])
def test_norms_far_outside_the_dtype_are_exact_in_logarithms(gain, dtype):
    """A linear orthogonal network: ln ||grad_h[t]|| = ln ||grad_h[T-1]|| + (T-1-t) ln gain."""
    T, H = 400, 6
    W = gain * torch.linalg.qr(torch.randn(H, H, dtype=torch.float64, generator=torch.manual_seed(0)))[0]
    positive = torch.ones(T + 1, 2, H, dtype=dtype)
    direct = torch.full((1, 2, H), 0.5, dtype=dtype)
    logs = torch.empty(T, dtype=torch.float64)
    for chunk in chunks_of(positive, direct, W.to(dtype), "relu"):
        logs[chunk.start : chunk.stop] = chunk.log_norm
    steps_back = torch.arange(T - 1, -1, -1, dtype=torch.float64)
    expected = math.log(0.5 * math.sqrt(2 * H)) + steps_back * math.log(gain)
    torch.testing.assert_close(logs, expected, rtol=1e-6, atol=1e-4 if dtype == torch.float32 else 1e-9)


def test_a_loss_far_back_is_not_lost_beside_a_vanished_one():
    """Direct gradients of very different sizes meet in one sweep without overflow or NaN."""
    T, H = 300, 4
    W = 0.1 * torch.eye(H)
    h = torch.ones(T + 1, 1, H)
    direct = torch.zeros(T, 1, H)
    direct[-1], direct[100], direct[50] = 1e-3, 1e20, 1e-30
    grad_h, _ = swept(h, direct, W, "relu")
    expected = torch.zeros(T, dtype=torch.float64)
    value = 0.0
    for t in range(T - 1, -1, -1):
        value = float(direct[t, 0, 0]) + 0.1 * value
        expected[t] = value
    found = grad_h[:, 0, 0]
    usable = expected > 1e-250
    torch.testing.assert_close(found[usable], expected[usable], rtol=1e-4, atol=0)


def test_zeros_stay_zeros_and_nan_stays_nan():
    W, h = torch.eye(3), torch.ones(11, 2, 3)
    grad_h, delta = swept(h, torch.zeros(10, 2, 3), W, "relu")
    assert not grad_h.any()
    assert not delta.any()
    bad = torch.ones(10, 2, 3)
    bad[4] = math.nan
    grad_h, _ = swept(h, bad, W, "relu")
    assert torch.isnan(grad_h[:5]).all()
    assert torch.isfinite(grad_h[5:]).all()


def test_chunks_tile_the_sequence_from_its_end():
    h, direct = torch.ones(101, 1, 2), torch.ones(1, 1, 2)
    chunks = [(c.start, c.stop) for c in chunks_of(h, direct, 0.5 * torch.eye(2), "relu")]
    assert chunks[0][1] == 100
    assert chunks[-1][0] == 0
    assert all(later[0] == earlier[1] for later, earlier in zip(chunks[:-1], chunks[1:], strict=True))
    assert max(stop - start for start, stop in chunks) <= LONGEST_CHUNK


def test_a_chunk_holds_at_least_one_step_however_wide():
    assert chunk_steps(10, 10**6, 10**6, 4) == 1
    assert chunk_steps(3, 1, 1, 4) == 3


def test_small_steps_run_on_one_thread_and_the_number_is_restored():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError, match="stop"), threads_for(1, 8):
            assert torch.get_num_threads() == 1
            raise KeyError("stop")
        assert torch.get_num_threads() == 2
        with threads_for(ONE_THREAD_BELOW, 1):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("exponent", [-2000, -300, -126, -1, 0, 5, 120, 140, 253])
def test_powers_of_two_neither_round_nor_make_nan(exponent):
    values = torch.tensor([0.0, 1.5 * 2.0**-120, -(2.0**-126)])
    exact = values.double() * 2.0**exponent
    found = times_power_of_two(values, exponent)
    assert torch.equal(found.double(), torch.where(exact.abs() < 2.0**-149, exact.sign() * 0, exact.float().double()))


@pytest.mark.parametrize(
    ("values", "power"), [([0.0], None), ([math.inf], None), ([math.nan], None), ([0.75, -3.0], 2)]
)
def test_power_of_two_is_that_of_the_largest(values, power):
    assert power_of_two(torch.tensor(values)) == power


def test_the_oracle_itself_notices_a_dropped_step():
    """gradcheck's default tolerances passed a sweep that dropped 12 of 30 steps; per-step errors do not."""
    torch.manual_seed(0)
    model = orthogonal(FullRNN(3, 5, 2, dtype=torch.float64))
    x = torch.randn(2, 30, 3, dtype=torch.float64)
    expected = norms(contributions_by_clones(model.state_dict(), x, "tanh", "last")["G"])
    truncated = expected.clone()
    truncated[:12] = 0
    assert not torch.allclose(truncated, expected, rtol=1e-6, atol=1e-9)


def flat_sigmoid(a):
    """s (1 - s) of s = sigmoid(a), also where 1 - s rounds to 0."""
    return 1 / (math.exp(a) + 2 + math.exp(-a))


SECH2 = 1 / math.cosh(20) ** 2


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "CoupledLSTM"])
def test_exact_slopes_of_saturated_gates_are_small_and_not_zero(kind):
    # Gates at sigmoid(50), which is 1 in float64, and candidates at tanh(20), likewise; h_0 = c_0 = 0.5.
    s, tanh_c = flat_sigmoid(50), math.tanh(1.5 if kind == "LSTM" else 0.5)
    biases, expected = {
        # The candidate's own W_hh h + b_hh is 0.25, so that r reaches it: 19.75 + 0.25.
        "GRU": ([50, 50, 19.75], [0.25 * s * s * SECH2, -0.5 * s, s * SECH2]),
        "LSTM": ([50, 50, 20, 50], [s, 0.5 * s, SECH2, tanh_c * s]),
        "CoupledLSTM": ([50, 20, 50], [-0.5 * s, s * SECH2, tanh_c * s]),
    }[kind]
    b_ih = torch.tensor(biases, dtype=torch.float64)
    b_hh = torch.zeros_like(b_ih)
    if kind == "GRU":
        b_hh[2] = 0.25
    zeros = b_ih.new_zeros(len(biases), 1)
    found, half = kind_named(kind), b_ih.new_full((1, 1), 0.5)
    before = (half,) * len(found.states)
    exact = found.exact(b_ih.new_zeros(1, 1, 1), before, LayerWeights(zeros, zeros, b_ih, b_hh))
    assert exact.slopes.slopes.flatten().tolist() == pytest.approx(expected, rel=1e-12, abs=0)
