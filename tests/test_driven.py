"""Spectrum and Lyapunov exponents of layers of other people's models, against torch's own cells."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rnnctl
from rnnctl.dynamics.jacobian import KRYLOV, spectral_radii, tangent_norms
from rnnctl.dynamics.trajectory import stretches
from rnnctl.errors import DtypeError, InputError, RnnctlError, ShapeError, TooLargeError
from rnnctl.models.driven import DrivenLayer, driven_layer
from rnnctl.recurrence import kinds
from rnnctl.recurrence.elman import ELMAN
from rnnctl.recurrence.gru import GRU
from rnnctl.recurrence.slopes import HiddenSlopes
from rnnctl.recurrence.weights import LayerWeights
from rnnctl.view.figures import FIGURES, figure_bytes
from rnnctl.view.render import rendered
from rnnctl.view.terminal import Terminal, View

KINDS = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}


def made(kind, inputs=3, hidden=5, seed=0, scale=1.0, **options):
    torch.manual_seed(seed)
    module = KINDS[kind](inputs, hidden, batch_first=True, dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    return module


def driven(module, x, seed=1, **settings):
    """From a random initial state."""
    generator = torch.Generator().manual_seed(seed)
    rows = module.num_layers * (2 if module.bidirectional else 1)
    h = torch.randn(rows, x.shape[0], module.proj_size or module.hidden_size, generator=generator).double()
    c = torch.randn(rows, x.shape[0], module.hidden_size, generator=generator).double()
    return driven_layer(module, x, (h, c) if module.mode == "LSTM" else h, **settings)


def inputs(batch, steps, features=3, seed=0):
    return torch.randn(batch, steps, features, generator=torch.Generator().manual_seed(seed)).double()


def along(layer):
    """The trajectory along the layer's own inputs."""
    return stretches(layer, layer.x, layer.state_init)


def torch_step(layer):
    """One step of torch's own cell on (batch, state); of a projected LSTM, which has no cell, its equations."""
    W_ih, W_hh, b_ih, b_hh = layer.weights.W_ih, layer.weights.W_hh, layer.weights.b_ih, layer.weights.b_hh
    W_hr = layer.weights.W_hr

    def gru(x, state):
        return torch.gru_cell(x, state, W_ih, W_hh, b_ih, b_hh)

    def lstm(x, state):
        return torch.cat(torch.lstm_cell(x, state.chunk(2, dim=1), W_ih, W_hh, b_ih, b_hh), dim=1)

    def projected(x, state):
        h, c = state[:, : W_hh.shape[1]], state[:, W_hh.shape[1] :]
        i, f, g, o = (x @ W_ih.T + h @ W_hh.T + b_ih + b_hh).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([(torch.sigmoid(o) * torch.tanh(c)) @ W_hr.T, c], dim=1)

    return gru if layer.cell == "GRU" else lstm if W_hr is None else projected


def autograd_jacobians(layer):
    """The states, (time, batch, state), and J_t of every sequence by differentiating torch's own cell."""
    step, state = torch_step(layer), layer.state_init
    states, jacobians = [], []
    for x in layer.x.unbind(1):
        # Sequences do not meet: the sum over them has every J_t as a block of its derivative.
        blocks = torch.autograd.functional.jacobian(lambda s, x=x: step(x, s).sum(0), state)
        jacobians.append(blocks.transpose(0, 1))
        state = step(x, state).detach()
        states.append(state)
    return torch.stack(states), torch.stack(jacobians)


# ---- the tangent maps ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"), [("GRU", {}), ("LSTM", {}), ("LSTM", {"proj_size": 2}), ("GRU", {"hidden": 1})]
)
@pytest.mark.parametrize("scale", [0.3, 1.0, 6.0])
def test_tangent_maps_are_autograds_jacobians_of_torchs_cells(kind, options, scale):
    layer = driven(made(kind, scale=scale, **options), inputs(2, 7))
    states, jacobians = autograd_jacobians(layer)
    (stretch,) = along(layer)
    torch.testing.assert_close(stretch.state, states, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(stretch.slopes.flattened().matrices(), jacobians.flatten(0, 1), rtol=1e-7, atol=1e-12)
    V = inputs(2, layer.state_size, 4, seed=5)
    for J, step in zip(jacobians, stretch.slopes, strict=True):
        torch.testing.assert_close(step(V), J @ V, rtol=1e-7, atol=1e-12)
        torch.testing.assert_close(step.transposed(V), J.mT @ V, rtol=1e-7, atol=1e-12)


def test_elman_map_is_the_slope_times_W_hh_and_its_transpose():
    W_hh, slope, V = inputs(1, 4, 4)[0], inputs(1, 3, 4, seed=1)[0], inputs(3, 4, 2, seed=2)
    J = slope.unsqueeze(2) * W_hh
    torch.testing.assert_close(HiddenSlopes(W_hh, slope.unsqueeze(1))(V), J @ V)
    torch.testing.assert_close(HiddenSlopes(W_hh, slope.unsqueeze(1)).transposed(V), J.mT @ V)


@settings(deadline=None, max_examples=25)
@given(
    kind=st.sampled_from(["RNN", "GRU", "LSTM"]),
    layers=st.integers(1, 3),
    both=st.booleans(),
    bias=st.booleans(),
    batch_first=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    steps=st.integers(1, 9),
    batch=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_driven_layer_runs_as_the_module_does(kind, layers, both, bias, batch_first, dtype, steps, batch, seed):
    torch.manual_seed(seed)
    options = {"bias": bias, "bidirectional": both, "batch_first": batch_first, "dtype": dtype}
    module = KINDS[kind](3, 4, layers, **options)
    x = torch.randn((batch, steps, 3) if batch_first else (steps, batch, 3), dtype=dtype)
    h = torch.randn(layers * (1 + both), batch, 4, dtype=dtype)
    hx = (h, torch.randn_like(h)) if kind == "LSTM" else h
    output, h_n = module(x, hx)
    h_n = h_n[0] if kind == "LSTM" else h_n
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    for layer in range(layers):
        for direction in range(1 + both):
            found = driven_layer(module, x, hx, layer=layer, direction=direction)
            last = final_state(found)[:, :4]
            torch.testing.assert_close(last, h_n[layer * (1 + both) + direction].double(), rtol=0, atol=tolerance)
    top = driven_layer(module, x, hx, layer=layers - 1)
    first = final_state(DrivenLayer(**{**vars(top), "x": top.x[:, :1]}))[:, :4]
    ours = output if batch_first else output.transpose(0, 1)
    torch.testing.assert_close(first, ours[:, 0, :4].double(), rtol=0, atol=tolerance)


def final_state(layer):
    """By the tangent's own trajectory; of an RNN by its equation."""
    if layer.cell != "RNN":
        return list(along(layer))[-1].state[-1]
    weights, h = layer.weights.to(torch.float64), layer.h_init.double()
    for x in layer.x.double().unbind(1):
        bias = 0 if weights.b_ih is None else weights.b_ih + weights.b_hh
        h = torch.tanh(x @ weights.W_ih.T + h @ weights.W_hh.T + bias)
    return h.detach()


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_cell_is_its_module_of_one_layer(kind):
    cells = {"RNN": nn.RNNCell, "GRU": nn.GRUCell, "LSTM": nn.LSTMCell}
    module, x = made(kind), inputs(2, 6)
    cell = cells[kind](3, 5, dtype=torch.float64)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in module.state_dict().items()})
    assert rnnctl.lyapunov(driven_layer(cell, x)).rows == rnnctl.lyapunov(driven_layer(module, x)).rows
    assert driven_layer(cell, x).name == f"{kind}Cell"
    alone = [rnnctl.lyapunov(driven_layer(each, x[0])).exponents for each in (cell, module)]
    torch.testing.assert_close(*alone)


def test_stretches_follow_on_over_their_seams(monkeypatch):
    layer = driven(made("LSTM"), inputs(2, 8))
    (whole,) = along(layer)
    monkeypatch.setattr("rnnctl.dynamics.trajectory.STRETCH_BYTES", 8 * 6 * 2 * 20 * 3)
    parts = list(along(layer))
    assert [part.start for part in parts] == [0, 3, 6]
    torch.testing.assert_close(torch.cat([part.state for part in parts]), whole.state)
    torch.testing.assert_close(torch.cat([part.slopes.slopes for part in parts]), whole.slopes.slopes)


# ---- RNN: as FullRNN ----------------------------------------------------------------------------


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("bias", [True, False])
def test_an_RNN_has_exactly_the_numbers_of_the_FullRNN_with_its_weights(nonlinearity, bias):
    torch.manual_seed(0)
    full = rnnctl.FullRNN(3, 6, 2, nonlinearity=nonlinearity, bias=bias)
    module = nn.RNN(3, 6, nonlinearity=nonlinearity, bias=bias, batch_first=True)
    names = {"weight_ih_l0": "input_to_hidden.weight", "weight_hh_l0": "hidden_to_hidden.weight"}
    names |= {"bias_ih_l0": "input_to_hidden.bias", "bias_hh_l0": "hidden_to_hidden.bias"} if bias else {}
    module.load_state_dict({ours: full.rnn_cell.state_dict()[theirs] for ours, theirs in names.items()})
    x, h = torch.randn(2, 25, 3), torch.randn(1, 2, 6)
    layer = driven_layer(module, x, h)
    ours, theirs = rnnctl.lyapunov(layer, seed=3), rnnctl.lyapunov(full, x, h_init=h[0], seed=3)
    assert ours.rows == theirs.rows
    assert {**ours.scalars, "factor_per_step": theirs.scalars["factor_per_step"]} == theirs.scalars
    ours, theirs = rnnctl.spectrum(layer), rnnctl.spectrum(full, x, h_init=h[0])
    assert (ours.rows, ours.scalars, ours.more) == (theirs.rows, theirs.scalars, theirs.more)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_the_mean_field_prediction_is_of_drawn_weights_alone(kind):
    layer = driven_layer(made(kind), inputs(2, 12))
    drawn = rnnctl.lyapunov(layer, init="default").scalars
    assert (drawn["theory"], drawn["factor_per_step"]) == ("mean field", None)
    assert drawn["theory_largest"] == pytest.approx(0.5 * math.log(drawn["theory_chi"]))
    found = rnnctl.lyapunov(layer).scalars
    assert (found["theory"], found["theory_largest"]) == ("none", None)
    assert found["theory_note"] == "loaded or trained weights are not independent random numbers"


# ---- Lyapunov exponents with known answers ------------------------------------------------------


def weightless(kind, hidden, **biases):
    """All weights 0; the named gates' biases, a number or one for each unit."""
    gates = {"GRU": "rzn", "LSTM": "ifgo"}[kind]
    b_ih = torch.zeros(len(gates), hidden, dtype=torch.float64)
    for gate, values in biases.items():
        b_ih[gates.index(gate)] = torch.as_tensor(values)
    zeros = torch.zeros(len(gates) * hidden, hidden, dtype=torch.float64)
    weights = LayerWeights(zeros[:, :1], zeros, b_ih.flatten(), torch.zeros(len(gates) * hidden).double())
    start = torch.zeros(1, hidden).double()
    return DrivenLayer(kind, weights, torch.zeros(1, 40, 1).double(), start, start if kind == "LSTM" else None)


def log_sigmoid(values):
    return [-math.log1p(math.exp(-value)) for value in values]


def test_a_GRU_without_weights_forgets_by_its_update_gate():
    found = rnnctl.lyapunov(weightless("GRU", 3, z=[2.0, 0.0, -3.0], n=1.0), warmup=20)
    assert found.exponents.tolist() == pytest.approx(log_sigmoid([2.0, 0.0, -3.0]), abs=1e-6)
    assert found.scalars["sum"] == pytest.approx(sum(log_sigmoid([2.0, 0.0, -3.0])))
    assert found.state_size == 3


def test_an_LSTM_without_weights_forgets_by_its_forget_gate_and_loses_h():
    layer = weightless("LSTM", 3, f=[2.0, 0.0, -3.0], i=1.0, g=0.5, o=0.3)
    found = rnnctl.lyapunov(layer, warmup=35)
    assert found.exponents[:3].tolist() == pytest.approx(log_sigmoid([2.0, 0.0, -3.0]), abs=1e-3)
    assert found.exponents[3:].tolist() == [-math.inf] * 3
    assert found.state_size == 6


def test_one_unit_one_step_one_sequence():
    for kind in KINDS:
        layer = driven_layer(made(kind, inputs=1, hidden=1), torch.ones(1, 1, 1).double())
        found = rnnctl.lyapunov(layer)
        assert found.steps == 1
        assert found.exponents.shape == (layer.state_size,)
        assert len(rnnctl.spectrum(layer).steps) == 1
    layer = driven_layer(made("GRU", inputs=1, hidden=1), torch.ones(1, 1, 1).double())
    (J,) = autograd_jacobians(layer)[1].flatten().tolist()
    assert rnnctl.lyapunov(layer).exponents.tolist() == pytest.approx([math.log(abs(J))])


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize(("kind", "options"), [("GRU", {}), ("LSTM", {}), ("LSTM", {"proj_size": 3})])
def test_sum_is_the_mean_logarithm_of_the_determinant(kind, options, scale):
    layer = driven(made(kind, hidden=8, scale=scale, **options), inputs(2, 30))
    total = torch.linalg.slogdet(autograd_jacobians(layer)[1])[1].mean()
    found = rnnctl.lyapunov(layer, warmup=0)
    assert found.scalars["sum"] == pytest.approx(float(total), rel=1e-8)


@pytest.mark.parametrize("scale", [2.0, 9.0, 15.0])
def test_determinant_of_an_LSTM_is_that_of_its_output_gate_times_its_forget_gates(scale):
    """Rows of h less their share of c leave diag(tanh(c) o (1 - o)) W_ho; also where gates are saturated."""
    layer = driven(made("LSTM", hidden=6, scale=scale), inputs(1, 20))
    (stretch,) = along(layer)
    _, f, _, o = stretch.gates.unbind(2)
    c, W_ho = stretch.state[..., 6:], layer.weights.W_hh[18:]
    previous = torch.cat([layer.h_init.unsqueeze(0), stretch.state[:-1, :, :6]])
    weights = layer.weights
    bias = weights.b_ih[18:] + weights.b_hh[18:]
    a_o = layer.x.transpose(0, 1) @ weights.W_ih[18:].T + previous @ W_ho.T + bias
    log_slope = torch.nn.functional.logsigmoid(a_o) + torch.nn.functional.logsigmoid(-a_o)
    by_step = (c.tanh().abs().log() + log_slope + f.log()).sum(2) + torch.linalg.slogdet(W_ho)[1]
    found = rnnctl.lyapunov(layer, warmup=0)
    assert scale < 15 or float(o.max()) > 1 - 1e-9
    assert found.scalars["sum"] == pytest.approx(float(by_step.mean().detach()), rel=1e-5)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_growth_of_a_small_difference_is_the_largest_exponent(kind):
    layer = driven(made(kind, hidden=20, scale=4.0), inputs(1, 600))
    found = rnnctl.lyapunov(layer, count=1, warmup=100)
    step, state, total = torch_step(layer), layer.state_init, 0.0
    other = state + 1e-8 * torch.ones_like(state) / state.shape[1] ** 0.5
    with torch.no_grad():
        for t, x in enumerate(layer.x.unbind(1)):
            state, other = step(x, state), step(x, other)
            distance = (other - state).norm()
            total += float((distance / 1e-8).log()) if t >= 100 else 0.0
            other = state + (other - state) * (1e-8 / distance)
    assert found.scalars["largest"] == pytest.approx(total / 500, abs=5e-3)


def test_fewer_exponents_are_the_largest_of_all():
    layer = driven(made("LSTM", hidden=6, scale=2.0), inputs(2, 300))
    few, every = rnnctl.lyapunov(layer, count=3), rnnctl.lyapunov(layer)
    assert few.exponents.tolist() == pytest.approx(every.exponents[:3].tolist(), abs=0.03)
    assert few.scalars["sum"] is None
    with pytest.raises(InputError, match="count must be from 1 to the size of h and c together 12; got 13"):
        rnnctl.lyapunov(layer, count=13)


def test_running_freely_is_running_on_zeros_from_the_same_start():
    layer = driven(made("LSTM", scale=3.0), inputs(2, 5))
    freely = rnnctl.lyapunov(layer, autonomous=True, steps=30, warmup=10)
    zeros = DrivenLayer(**{**vars(layer), "x": torch.zeros(2, 40, 3).double()})
    assert freely.autonomous
    assert freely.rows == rnnctl.lyapunov(zeros, steps=30, warmup=10).rows


def test_running_freely_measures_equal_starts_once():
    layer = driven_layer(made("GRU", scale=3.0), inputs(4, 5))
    alone = driven_layer(made("GRU", scale=3.0), inputs(1, 5))
    assert (
        rnnctl.lyapunov(layer, autonomous=True, steps=50).rows == rnnctl.lyapunov(alone, autonomous=True, steps=50).rows
    )


def test_a_start_that_is_never_left_is_said():
    found = rnnctl.lyapunov(driven_layer(made("LSTM", bias=False), inputs(2, 5)), autonomous=True, steps=20)
    assert found.stands_still
    assert not rnnctl.lyapunov(driven_layer(made("LSTM"), inputs(2, 5)), autonomous=True, steps=20).stands_still


def test_the_reverse_direction_takes_its_input_from_the_end():
    module, x = made("GRU", bidirectional=True), inputs(2, 20)
    single = made("GRU")
    state = module.state_dict()
    single.load_state_dict({name: state[f"{name}_reverse"] for name in single.state_dict()})
    ours = rnnctl.lyapunov(driven_layer(module, x, direction=1))
    assert ours.rows == rnnctl.lyapunov(driven_layer(single, x.flip(1))).rows


# ---- spectrum -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_every_gate_has_numpys_eigenvalues_and_singular_values(kind):
    module = made(kind, hidden=7)
    found = rnnctl.spectrum(driven_layer(module, inputs(1, 2)))
    blocks = module.weight_hh_l0.detach().chunk(3 if kind == "GRU" else 4)
    for name, block, summary in zip("rzn" if kind == "GRU" else "ifgo", blocks, found.more["gates"], strict=True):
        own = [row for row in found.rows if row["gate"] == name]
        values = np.array([complex(row["real"], row["imag"]) for row in own])
        theirs = np.linalg.eigvals(block.numpy())
        assert np.sort_complex(values) == pytest.approx(np.sort_complex(theirs))
        singular = np.linalg.svd(block.numpy(), compute_uv=False)
        assert [row["singular_value"] for row in own] == pytest.approx(singular.tolist())
        assert summary["gate"] == name
        assert summary["spectral_radius"] == pytest.approx(np.abs(theirs).max())
        assert summary["spectral_norm"] == pytest.approx(singular[0])
        assert summary["condition_number"] == pytest.approx(np.linalg.cond(block.numpy()))
        departure = math.sqrt((singular**2).sum() - (np.abs(theirs) ** 2).sum())
        assert summary["departure_from_normality"] == pytest.approx(departure)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("GRU", {}), ("LSTM", {}), ("LSTM", {"proj_size": 2}), ("GRU", {"hidden": KRYLOV + 9})],
)
def test_step_jacobians_have_the_norms_and_radii_of_autograds(kind, options):
    layer = driven(made(kind, scale=2.0, **options), inputs(3, 5))
    J = autograd_jacobians(layer)[1]
    norms, radii = torch.linalg.matrix_norm(J, ord=2), torch.linalg.eigvals(J).abs().amax(2)
    steps = rnnctl.spectrum(layer).steps
    assert [s["jacobian_norm_mean"] for s in steps] == pytest.approx(norms.mean(1).tolist(), rel=1e-7)
    assert [s["jacobian_norm_max"] for s in steps] == pytest.approx(norms.amax(1).tolist(), rel=1e-7)
    assert [s["jacobian_radius_mean"] for s in steps] == pytest.approx(radii.mean(1).tolist(), rel=1e-7)


def test_norms_where_singular_values_crowd_at_the_top():
    layer = driven(made("LSTM", hidden=60), inputs(1, 4))
    weights = layer.weights
    with torch.no_grad():
        weights.b_ih[60:120] = 8.0
    (stretch,) = along(layer)
    J = stretch.slopes.flattened()
    exact = torch.linalg.matrix_norm(J.matrices(), ord=2)
    torch.testing.assert_close(tangent_norms(J), exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("power", [-300, -160, 0, 100, 200])
def test_norms_neither_underflow_nor_overflow(power):
    J = HiddenSlopes(10.0**power * inputs(1, 5, 5)[0], torch.ones(2, 1, 5).double())
    exact = torch.linalg.matrix_norm(inputs(1, 5, 5)[0], ord=2) * 10.0**power
    assert tangent_norms(J).tolist() == pytest.approx([float(exact)] * 2, rel=1e-12, abs=0)
    assert tangent_norms(HiddenSlopes(J.W_hh, torch.zeros(2, 1, 5).double())).tolist() == [0, 0]


def test_jacobians_that_leave_float64_are_infinite_without_lapack(monkeypatch):
    monkeypatch.setattr(torch.linalg, "eigvals", lambda J: torch.zeros(J.shape[:2]) / torch.isfinite(J).all())
    J = HiddenSlopes(*(torch.full(shape, 1e300, dtype=torch.float64) for shape in ((3, 3), (1, 1, 3))))
    assert tangent_norms(J).tolist() == spectral_radii(J).tolist() == [math.inf]


def test_a_projection_leaves_singular_values_alone():
    found = rnnctl.spectrum(driven_layer(made("LSTM", hidden=6, proj_size=2), inputs(2, 4)))
    assert len(found.rows) == 4 * 2
    assert all(row["modulus"] is None and row["singular_value"] > 0 for row in found.rows)
    assert {record["spectral_radius"] for record in found.more["gates"]} == {None}
    assert [record["shape"] for record in found.more["gates"]] == [(6, 2)] * 4
    assert found.scalars["state_size"] == 8


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_saturated_gates_and_what_is_kept_are_counted(kind):
    keep = "z" if kind == "GRU" else "f"
    other = "r" if kind == "GRU" else "i"
    layer = weightless(kind, 4, **{keep: [5.0, 5.0, 0.0, -5.0], other: [3.0, 2.9, -3.0, -2.9]})
    found = rnnctl.spectrum(layer)
    sigmoids = 2 if kind == "GRU" else 3
    # sigmoid(2.9) = 0.948, sigmoid(3) = 0.953.
    assert found.steps[0]["saturated"] == pytest.approx((3 + 2) / (4 * sigmoids))
    kept = sum(math.exp(value) for value in log_sigmoid([5.0, 5.0, 0.0, -5.0])) / 4
    assert found.scalars["keep_mean"] == pytest.approx(kept)
    by_gate = {record["gate"]: record for record in found.more["gates"]}
    assert (by_gate[keep]["saturated"], by_gate[other]["saturated"]) == (0.75, 0.5)
    assert by_gate[keep]["mean"] == pytest.approx(kept)


def test_candidates_count_as_saturated_by_their_size():
    found = rnnctl.spectrum(weightless("GRU", 4, n=[0.0, 3.0, -3.0, 1.0]))
    (candidate,) = (record for record in found.more["gates"] if record["gate"] == "n")
    assert candidate["saturated"] == 0.5
    assert found.scalars["saturated_fraction"] == 0


def candidates_by_hand(layer):
    """n or g of every step, from its equation along the states of torch's own cell, (time, batch, hidden)."""
    step, state, H, found = torch_step(layer), layer.state_init, layer.hidden_size, []
    W_ih, W_hh, b_ih, b_hh = (getattr(layer.weights, name).detach() for name in ("W_ih", "W_hh", "b_ih", "b_hh"))
    third = slice(2 * H, 3 * H)
    for x in layer.x.unbind(1):
        from_x, from_h = x @ W_ih.T + b_ih, state[:, :H] @ W_hh.T + b_hh
        factor = torch.sigmoid(from_x + from_h)[:, :H] if layer.cell == "GRU" else 1
        found.append(torch.tanh(from_x[:, third] + factor * from_h[:, third]))
        state = step(x, state).detach()
    return torch.stack(found)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_candidates_at_both_ends_of_tanh_are_saturated(kind):
    layer = driven(made(kind, hidden=8, scale=8.0), inputs(3, 15))
    candidates = candidates_by_hand(layer)
    high, low = ((end > 0.99).double().mean().item() for end in (candidates, -candidates))
    assert min(high, low) > 0.1
    record = rnnctl.spectrum(layer).more["gates"][2]
    assert record["gate"] == {"GRU": "n", "LSTM": "g"}[kind]
    assert record["saturated"] == pytest.approx(high + low)


def test_what_one_square_matrix_alone_has_is_undefined():
    found = rnnctl.spectrum(driven_layer(made("GRU"), inputs(1, 3))).scalars
    undefined = {name for name, value in found.items() if value is None}
    assert undefined == {
        *("spectral_radius", "spectral_norm", "condition_number", "departure_from_normality", "relative_departure"),
        *("norm_bound", "norm_bound_certifies", "mean_slope", "dead_fraction", "first_nonfinite_step"),
    }


def test_radii_are_left_out_where_they_would_take_long(monkeypatch):
    monkeypatch.setattr("rnnctl.dynamics.gate_spectra.CHEAP_EIGENVALUES", 2 * 3 * 5**3 - 1)
    found = rnnctl.spectrum(driven_layer(made("GRU"), inputs(2, 3)))
    assert found.scalars["jacobian_radius_mean"] is None
    assert found.scalars["jacobian_norm_mean"] > 0
    assert "takes long here" in table_of(found)


# ---- what cannot be measured --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_nan_in_the_input_ends_the_trajectory_at_its_step(kind):
    x = inputs(2, 9)
    x[1, 4, 0] = math.nan
    layer = driven_layer(made(kind), x)
    found = rnnctl.spectrum(layer)
    assert found.scalars["first_nonfinite_step"] == 4
    assert [step["t"] for step in found.steps] == [0, 1, 2, 3]
    assert found.conditions == {"nonfinite": True}
    assert rnnctl.lyapunov(layer, warmup=1).first_nonfinite_step == 4
    x[:, 0] = math.nan
    with pytest.raises(
        RnnctlError, match="not finite at step 0, before a step was measured.*whether x and the initial"
    ):
        rnnctl.lyapunov(driven_layer(made(kind), x), warmup=0)
    empty = rnnctl.spectrum(driven_layer(made(kind), x))
    assert empty.steps == ()
    assert empty.scalars["jacobian_norm_max"] is None


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_nonfinite_weights_reach_no_lapack_but_are_named(kind, monkeypatch):
    for name in ("eigvals", "svdvals", "qr"):
        monkeypatch.setattr(torch.linalg, name, None)
    module = made(kind)
    with torch.no_grad():
        module.weight_hh_l0[1, 2] = math.nan
    for measure in (rnnctl.spectrum, rnnctl.lyapunov):
        with pytest.raises(InputError, match=rf"W_hh( of {kind} layer 0)? must be finite; it holds nan at \(1, 2\)"):
            measure(driven_layer(module, inputs(1, 3)))


def test_what_does_not_fit_is_refused_before_it_is_computed(monkeypatch):
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: 10_000)
    layer = driven_layer(made("LSTM"), inputs(2, 50))
    with pytest.raises(TooLargeError, match=r"spectrum of W_hh \(20, 5\) would take"):
        rnnctl.spectrum(layer)
    with pytest.raises(TooLargeError, match="10 exponents over 45 steps of 2 sequences would take"):
        rnnctl.lyapunov(layer)


def test_active_dropout_below_the_layer_is_refused_with_the_remedy():
    module, x = made("LSTM", num_layers=2, dropout=0.3), inputs(2, 5)
    with pytest.raises(InputError, match=r"dropout of 0.3 between the layers is active.*Try module.eval\(\)"):
        driven_layer(module, x, layer=1)
    driven_layer(module, x, layer=0)
    assert driven_layer(module.eval(), x, layer=1).x.shape == (2, 5, 5)


class OwnForward(nn.LSTM):
    def forward(self, x, hx=None):
        return super().forward(2 * x, hx)


def refused():
    x = inputs(2, 5)
    packed = nn.utils.rnn.pack_padded_sequence(x, [5, 3], batch_first=True)
    return {
        "another module": (nn.Linear(3, 5), x, {}, InputError, "module must be an nn.RNN, .* got Linear"),
        "own forward": (OwnForward(3, 5).double(), x, {}, InputError, "OwnForward has a forward of its own"),
        "packed": (made("GRU"), packed, {}, InputError, "x must be a tensor: a trajectory has one length"),
        "no such layer": (made("GRU"), x, {"layer": 1}, InputError, "layer must be from 0 to 0 of this GRU; got 1"),
        "no such direction": (made("GRU"), x, {"direction": -1}, InputError, "direction must be from 0 to 0"),
        "features": (made("GRU"), x[..., :2], {}, ShapeError, r"x must have shape \(batch, time, 3\)"),
        "dtype": (made("GRU"), x.float(), {}, DtypeError, "x must have the weights' dtype"),
        "h_0": (made("GRU"), x, {"hx": x[:, :1]}, ShapeError, r"h_0 must have shape \(1, 2, 5\)"),
        "h_0 alone": (made("LSTM"), x, {"hx": x}, InputError, r"hx must be \(h_0, c_0\); got 1 tensor"),
        "cell's layer": (nn.GRUCell(3, 5).double(), x, {"layer": 1}, InputError, "layer must be from 0 to 0"),
    }


@pytest.mark.parametrize("case", refused())
def test_what_is_no_driven_layer_is_refused(case):
    module, x, options, error, said = refused()[case]
    # Below beartype, which guards the signature in the tests alone.
    plain = getattr(driven_layer, "__wrapped__", driven_layer)
    with pytest.raises(error, match=said):
        plain(module, x, **options)


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"cell": "GRUU"}, InputError, "cell must be one of RNN, GRU, LSTM, CoupledLSTM; got 'GRUU'"),
        (
            {"cell": "RNN", "nonlinearity": "gelu"},
            InputError,
            "nonlinearity must be tanh or relu or linear; got 'gelu'",
        ),
        ({"cell": "LSTM"}, InputError, "an LSTM needs c_init"),
        ({"c_init": torch.zeros(2, 5)}, InputError, "c_init is an LSTM's; GRU has no c"),
        ({"cell": "RNN"}, ShapeError, r"must have shape \(1 x hidden, hidden\); got \(15, 5\)"),
        ({"x": torch.zeros(2, 4, 9)}, ShapeError, r"x of mine must have shape \(batch, time, 3\)"),
        ({"h_init": torch.zeros(1, 5)}, ShapeError, r"h_init of mine must have shape \(2, 5\)"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(changed, error, said):
    layer = driven_layer(made("GRU"), inputs(2, 4))
    with pytest.raises(error, match=said):
        DrivenLayer(**{**vars(layer), "name": "mine", **changed})


def test_a_driven_layer_takes_nothing_beside_itself():
    layer = driven_layer(made("GRU"), inputs(2, 4))
    for measure in (rnnctl.spectrum, rnnctl.lyapunov):
        with pytest.raises(InputError, match="a DrivenLayer has its own x and initial state"):
            measure(layer, layer.x)
    with pytest.raises(InputError, match="spectrum of a FullRNN needs x"):
        rnnctl.spectrum(rnnctl.FullRNN(2, 3, 1))


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_nothing_of_the_module_is_changed(kind):
    module, x = made(kind, num_layers=2, bidirectional=True).train(), inputs(2, 6).requires_grad_()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    layer = driven_layer(module, x, layer=1, direction=1)
    rnnctl.spectrum(layer), rnnctl.lyapunov(layer)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert module.training
    assert not layer.x.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


# ---- how it is shown ----------------------------------------------------------------------------


def table_of(result, form="table"):
    return rendered(result, View(form, terminal=Terminal(width=100)), {"file": "x"}, versions={})


@pytest.mark.parametrize("options", [{}, {"proj_size": 2}])
def test_a_gated_spectrum_is_shown_in_every_form(options):
    found = rnnctl.spectrum(driven_layer(made("LSTM", **options), inputs(2, 6)))
    text = table_of(found)
    assert "W_hh of an LSTM stacks one matrix a gate: see the gates" in text
    assert "f_t may be 1" in text
    document = json.loads(table_of(found, "json"))
    assert document["schema"] == "rnnctl.spectrum-gates"
    assert len(document["rows"]) == len(found.rows)
    assert [record["gate"] for record in document["gates"]] == ["i", "f", "g", "o"]
    assert len(document["steps"]) == 6
    assert table_of(found, "csv").startswith("gate,i,real,imag,modulus,singular_value")


def test_lyapunov_of_an_LSTM_says_what_its_state_is():
    found = rnnctl.lyapunov(driven_layer(made("LSTM"), inputs(2, 6)))
    assert "the state of an LSTM is h_t and c_t, 10 numbers" in table_of(found)
    assert found.cell == found.scalars["cell"] == "LSTM"
    still = rnnctl.lyapunov(driven_layer(made("LSTM", bias=False), inputs(2, 6)), autonomous=True, steps=5)
    assert "h_t and c_t never leave their start" in table_of(still)


@pytest.mark.parametrize("options", [{}, {"proj_size": 2}])
def test_the_picture_shows_every_gate_and_the_steps(options):
    found = rnnctl.spectrum(driven_layer(made("LSTM", **options), inputs(2, 6)))
    gates, steps = FIGURES["spectrum-gates"](found).axes
    drawn = {line.get_label(): line for line in gates.lines}
    assert set("ifgo") <= set(drawn)
    singular = [row["singular_value"] for row in found.rows if row["gate"] == "f"]
    real = [row["real"] for row in found.rows if row["gate"] == "f"]
    np.testing.assert_allclose(*((drawn["f"].get_ydata(), singular) if options else (drawn["f"].get_xdata(), real)))
    means = {line.get_label(): line.get_ydata() for line in steps.lines}
    np.testing.assert_allclose(means["mean of f_t"], [step["keep_mean"] for step in found.steps])
    assert figure_bytes(found, "title", "png").startswith(b"\x89PNG")


def test_the_picture_of_no_finite_step_is_no_error():
    x = inputs(1, 3).fill_(math.nan)
    found = rnnctl.spectrum(driven_layer(made("GRU"), x))
    assert figure_bytes(found, "title", "svg").startswith(b"<?xml")
    assert "undefined" in table_of(found)


def of_new_kind(monkeypatch, like, module, **changed):
    """A layer whose kind is nearly one that there is."""
    kind = dataclasses.replace(like, name="New", **changed)
    monkeypatch.setitem(kinds.KINDS, "New", kind)
    layer = driven_layer(module, inputs(2, 6))
    return dataclasses.replace(layer, cell="New"), layer, kind


def test_spectrum_of_a_kind_without_gates_has_the_jacobians_of_its_slopes(monkeypatch):
    layer, elman, _ = of_new_kind(monkeypatch, ELMAN["tanh"], made("RNN"), nonlinearity=None)
    found, expected = rnnctl.spectrum(layer), rnnctl.spectrum(elman)
    for name in ("jacobian_norm_mean", "jacobian_norm_max"):
        assert found.scalars[name] == pytest.approx(expected.scalars[name], rel=1e-10)
    assert found.scalars["keep_gate"] is None and found.scalars["keep_mean"] is None
    assert [gate.gate for gate in found.gates] == ["W_hh"]
    assert found.gates[0].eigenvalues.abs()[0] == pytest.approx(expected.scalars["spectral_radius"])
    assert table_of(found)
    assert figure_bytes(found, "title", "png")


def test_spectrum_of_a_kind_with_gates_none_of_which_keeps_the_state(monkeypatch):
    layer, gru, _ = of_new_kind(monkeypatch, GRU, made("GRU"), keep=None)
    found, expected = rnnctl.spectrum(layer), rnnctl.spectrum(gru)
    assert found.scalars["keep_mean"] is None and expected.scalars["keep_mean"] is not None
    assert found.scalars["jacobian_norm_mean"] == expected.scalars["jacobian_norm_mean"]
    assert "keep_mean" in table_of(found)


def test_only_the_elman_cell_has_kinds_of_one_name(monkeypatch):
    layer, _, kind = of_new_kind(monkeypatch, ELMAN["tanh"], made("RNN"))
    assert layer.kind is kind
