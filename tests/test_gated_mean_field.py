"""Mean-field theory of cells with gates against closed forms, the theory of the Elman cell, and measurement."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from shell import Run, runner
from torch import Generator, nn

import rnnctl
from rnnctl.dynamics.gated_mean_field import RandomMatrix, gated_mean_field
from rnnctl.dynamics.meanfield import mean_field
from rnnctl.models.driven import DrivenLayer, driven_layer
from rnnctl.models.torch_layers import LayeredRNN
from rnnctl.recurrence.kinds import kind_named
from rnnctl.recurrence.weights import LayerWeights


def made(cell, hidden, init, gain, x, seed=0, **more):
    """The layer of a network with W_hh so drawn, as x drives it."""
    torch.manual_seed(seed)
    model = LayeredRNN(cell, x.shape[2], hidden, 1, **more)
    model.initialize(init, gain, Generator().manual_seed(seed + 1))
    return driven_layer(model.rnn, x)


def noise(steps, inputs=1, batch=1):
    return torch.randn(batch, steps, inputs, generator=Generator().manual_seed(5))


def error(theory):
    """The standard error that its note tells."""
    return float(theory.note.rsplit(" ", 1)[1])


# ---- Products with a matrix that is never formed ------------------------------------------------


def test_products_are_linear_and_those_of_independent_entries():
    W = RandomMatrix(600, 500, 2, 1.5, Generator().manual_seed(0))
    u, v = torch.randn(2, 2, 500, generator=Generator().manual_seed(1), dtype=torch.float64)
    of_u, of_v = W(u), W(v)
    torch.testing.assert_close(W(2 * u - 3 * v), 2 * of_u - 3 * of_v, rtol=1e-4, atol=1e-4)
    for found, given in ((of_u, u), (of_v, v)):
        ratio = found.square().mean(dim=1) / given.square().mean(dim=1)
        torch.testing.assert_close(ratio, torch.full_like(ratio, 1.5**2), rtol=0.2, atol=0)
    # At right angles and in different matrices they have nothing in common.
    rest = v - u * ((u * v).sum(1) / u.square().sum(1)).unsqueeze(1)
    for a, b in ((W(rest), of_u), (of_u[:1], of_u[1:])):
        assert torch.cosine_similarity(a, b, dim=1).abs().max() < 5 / math.sqrt(600)


def test_what_is_long_past_is_forgotten_and_what_is_recent_is_not():
    W = RandomMatrix(300, 512, 1, 1.0, Generator().manual_seed(0))
    vectors = torch.randn(200, 1, 512, generator=Generator().manual_seed(1), dtype=torch.float64)
    products = [W(v) for v in vectors]
    for back in (1, 5, 16):
        torch.testing.assert_close(W(vectors[-back]), products[-back], rtol=1e-3, atol=1e-3)
    assert torch.cosine_similarity(W(vectors[0]), products[0]).abs() < 0.5


def test_zeros_have_no_product_and_leave_those_of_others_alone():
    W = RandomMatrix(40, 512, 2, 1.0, Generator().manual_seed(0))
    v = torch.randn(2, 512, generator=Generator().manual_seed(1), dtype=torch.float64)
    v[0] = 0
    found = W(v)
    assert (found[0] == 0).all()
    assert (found[1] != 0).all()
    assert (W(torch.zeros_like(v)) == 0).all()
    # One that has come to nothing new, beside one that has: the vectors stay at right angles.
    for _ in range(400):
        W(torch.stack([v[1], torch.randn(512, generator=Generator().manual_seed(_)).double()]))
    held = W._vectors[:, : W._used].double()
    assert (held @ held.mT - torch.eye(W._used).double()).abs().max() < 1e-4


# ---- What the units make of what they receive ---------------------------------------------------


@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM", "CoupledLSTM"])
def test_units_that_receive_what_a_layer_sends_them_do_what_its_step_does(cell):
    kind, generator = kind_named(cell, "tanh"), Generator().manual_seed(0)
    shapes = ((kind.blocks * 7, 3), (kind.blocks * 7, 7), (kind.blocks * 7,), (kind.blocks * 7,))
    weights = LayerWeights(*(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes))
    x = torch.randn(1, 5, 3, generator=generator, dtype=torch.float64)
    before = tuple(torch.randn(1, 5, 7, generator=generator, dtype=torch.float64) for _ in kind.states)
    from_x = (x @ weights.W_ih.T + weights.b_ih).view(1, 5, kind.blocks, 7)
    from_h = (before[0] @ weights.W_hh.T + weights.b_hh).view(1, 5, kind.blocks, 7)
    found, after = kind.units(from_x, from_h, before, weights), kind.next_states(x, before, weights)
    for ours, theirs in zip(found.states, after, strict=True):
        torch.testing.assert_close(ours, theirs)
    V = torch.randn(5, 7 * len(kind.states), 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(found.slopes[0](V), kind.slopes(x, before, after, weights)[0](V))


# ---- Closed forms -------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "gain"), [("gru", 0.5), ("gru", 2.0), ("lstm", 2.0), ("coupled-lstm", 0.5)])
def test_at_a_state_of_zeros_the_exponent_is_ln_of_the_known_radius(cell, gain):
    """J is I / 2 + W / 4 of one gate's block W, of spectral radius gain; where there is a c, with h = c / 2."""
    layer = made(cell, 512, "gaussian", gain, torch.zeros(1, 160, 1), bias=False)
    found = gated_mean_field(layer, 60, 100, "gaussian", gain)
    assert found.exponent == pytest.approx(math.log(0.5 + 0.25 * gain), abs=0.015)
    assert found.q == 0


@pytest.mark.parametrize("sigma", [0.8, 2.5])
def test_of_an_Elman_cell_the_drawn_fields_give_what_its_own_theory_gives(sigma):
    # Quantiles of a normal distribution: what enters is Gaussian over the units, of variance 1, and constant.
    W_ih = torch.special.ndtri((torch.arange(600) + 0.5) / 600).unsqueeze(1)
    layer = DrivenLayer("RNN", LayerWeights(W_ih, torch.zeros(600, 600)), torch.ones(1, 100, 1), torch.zeros(1, 600))
    found = gated_mean_field(layer, 20, 80, "gaussian", sigma)
    expected = mean_field(sigma, 1.0)
    assert found.exponent == pytest.approx(expected.exponent, abs=0.01)
    assert found.q == pytest.approx(expected.q, rel=0.05)


def test_with_gates_that_biases_hold_open_and_no_W_hh_the_exponent_is_that_of_the_slowest_gate():
    """Gain 0: dc' = f dc of every unit; the slowest is all that is left."""
    b_ih = torch.zeros(4, 8)
    b_ih[1] = torch.linspace(-4.0, 1.5, 8)
    weights = LayerWeights(torch.zeros(32, 1), torch.zeros(32, 8), b_ih.flatten(), torch.zeros(32))
    layer = DrivenLayer("LSTM", weights, torch.zeros(1, 150, 1), torch.zeros(1, 8), torch.zeros(1, 8))
    found = gated_mean_field(layer, 100, 50, "gaussian", 0.0)
    assert found.exponent == pytest.approx(math.log(1 / (1 + math.exp(-1.5))), abs=1e-6)
    # 4 gates, of which one has biases.
    assert found.q == pytest.approx(float(b_ih.square().mean()), rel=1e-6)


def test_the_bias_that_a_GRU_resets_is_told_from_the_one_that_it_does_not():
    """With r = 1/2 throughout a bias of n past the reset gate counts half, and h goes to tanh of it."""
    found = []
    for b_ih, b_hh in ((0.0, 2.0), (1.0, 0.0)):
        biases = [torch.tensor([0.0, 0.0, b]).repeat_interleave(64) for b in (b_ih, b_hh)]
        weights = LayerWeights(torch.zeros(192, 1), torch.zeros(192, 64), *biases)
        layer = DrivenLayer("GRU", weights, torch.zeros(1, 100, 1), torch.zeros(1, 64))
        found.append(gated_mean_field(layer, 20, 80, "gaussian", 1.0))
    # r is 1/2 only in the mean here: W_hr moves it, and with it what is reset.
    assert found[0].exponent != pytest.approx(found[1].exponent, abs=1e-3)
    assert found[0].q > found[1].q + 0.9


# ---- Against measurement ------------------------------------------------------------------------

SETUPS = [
    ("gru", "gaussian", 4.0, noise(100), {}),
    ("lstm", "gaussian", 2.0, noise(100, 10), {}),
    ("lstm", "default", 1.0, torch.tensor([0.0, 4.0]).repeat(50).view(1, 100, 1), {}),
    ("coupled-lstm", "gaussian", 3.0, torch.ones(1, 100, 1), {"bias": False}),
]


@pytest.mark.parametrize(("cell", "init", "gain", "x", "more"), SETUPS)
def test_a_wide_network_has_the_exponent_of_the_theory(cell, init, gain, x, more):
    measured = [rnnctl.lyapunov(made(cell, 256, init, gain, x, seed, **more), count=1) for seed in range(4)]
    found = rnnctl.lyapunov(made(cell, 256, init, gain, x, **more), count=1, init=init, gain=gain)
    assert found.theory.exponent == pytest.approx(np.mean([each.scalars["largest"] for each in measured]), abs=0.025)


def test_q_is_the_mean_square_of_what_reaches_the_gates():
    x = noise(100, 3)
    layer = made("lstm", 400, "gaussian", 3.0, x)
    found = gated_mean_field(layer, 20, 80, "gaussian", 3.0)
    cell = nn.LSTM(3, 400, batch_first=True)
    names = {"weight_ih_l0": layer.weights.W_ih, "weight_hh_l0": layer.weights.W_hh}
    cell.load_state_dict({**names, "bias_ih_l0": layer.weights.b_ih, "bias_hh_l0": layer.weights.b_hh})
    with torch.no_grad():
        h = cell(x)[0][0]
        a = x[0, 20:] @ cell.weight_ih_l0.T + h[19:-1] @ cell.weight_hh_l0.T + cell.bias_ih_l0 + cell.bias_hh_l0
    assert found.q == pytest.approx(float(a.square().mean()), rel=0.05)


def test_every_sequence_has_its_own_input_and_start():
    loud, quiet = 10 * noise(40), torch.zeros(1, 40, 1)
    both = made("gru", 512, "gaussian", 4.0, torch.cat([loud, quiet]), bias=False)
    alone = [made("gru", 512, "gaussian", 4.0, x, bias=False) for x in (loud, quiet)]
    q, q_loud, q_quiet = (gated_mean_field(each, 10, 30, "gaussian", 4.0).q for each in (both, *alone))
    assert q == pytest.approx((q_loud + q_quiet) / 2, rel=0.1)
    assert q_quiet == 0
    started = replace(alone[1], h_init=torch.ones(1, 512))
    assert gated_mean_field(started, 10, 30, "gaussian", 4.0).q > 1


def test_the_answer_is_the_same_every_time_and_tells_its_error():
    layer = made("gru", 100, "gaussian", 3.0, noise(60))
    first, second = (gated_mean_field(layer, 10, 50, "gaussian", 3.0) for _ in range(2))
    assert first == second
    assert 0 < error(first) < 0.05
    assert first.chi == pytest.approx(math.exp(2 * first.exponent))
    wide = replace(layer, x=noise(60, batch=9), h_init=torch.zeros(9, 100))
    assert "of the first 8 sequences" in gated_mean_field(wide, 10, 50, "gaussian", 3.0).note


# ---- Where it has no answer ---------------------------------------------------------------------


@pytest.mark.parametrize(("init", "said"), [("orthogonal", "orthogonal"), ("identity", "identity"), (None, "trained")])
def test_without_independent_entries_there_is_none(init, said):
    found = rnnctl.lyapunov(made("gru", 6, "default", 1.0, noise(12)), init=init).scalars
    assert said in found["theory_note"]
    assert [found[name] for name in ("theory_largest", "theory_factor", "theory_q", "theory_chi")] == [None] * 4


def test_with_a_projection_there_is_none():
    layer = driven_layer(nn.LSTM(2, 6, proj_size=3, batch_first=True), noise(12, 2))
    assert "projection" in rnnctl.lyapunov(layer, init="default").theory.note


def test_numbers_beyond_float64_have_none():
    found = gated_mean_field(made("gru", 6, "default", 1.0, noise(12)), 1, 11, "gaussian", 1e200)
    assert (found.q, found.chi) == (None, None)
    assert "float64" in found.note


def test_a_perturbation_that_is_lost_has_a_factor_of_0():
    b_ih = torch.zeros(3, 8)
    b_ih[1] = -1000.0
    weights = LayerWeights(torch.zeros(24, 1), torch.zeros(24, 8), b_ih.flatten(), torch.zeros(24))
    layer = DrivenLayer("GRU", weights, torch.zeros(1, 9, 1), torch.zeros(1, 8))
    found = gated_mean_field(layer, 2, 7, "gaussian", 0.0)
    assert (found.chi, found.exponent) == (0, -math.inf)


# ---- From the shell -----------------------------------------------------------------------------


@pytest.fixture
def run(capsys, monkeypatch, tmp_path) -> Run:
    return runner(capsys, monkeypatch, tmp_path)


@pytest.mark.parametrize("cell", ["gru", "lstm", "coupled-lstm", "rnn"])
def test_the_shell_tells_it_of_cells_with_drawn_weights_alone(run: Run, tmp_path, cell) -> None:
    sizes = f"lyapunov --cell {cell} --hidden-size 16 --seq-len 20 --count 1"
    weights = tmp_path / "w.safetensors"
    drawn = json.loads(run(f"{sizes} --json --gain 2 --save-weights", str(weights)).out)["scalars"]
    assert drawn["theory"] == "mean field"
    assert drawn["theory_note"].startswith("independent entries of standard deviation 1.155 / sqrt(hidden)")
    assert drawn["theory_largest"] == pytest.approx(0.5 * math.log(drawn["theory_chi"]))
    loaded = json.loads(run(f"{sizes} --json --weights", str(weights)).out)["scalars"]
    assert (loaded["theory"], loaded["theory_q"]) == ("none", None)
    assert "loaded or trained" in loaded["theory_note"]
    assert "theory_q" in run(sizes).out
    orthogonal = run(f"{sizes} --init orthogonal").out
    assert "orthogonal W_hh" in orthogonal
    assert ("theory_q" in orthogonal) == (cell == "rnn")


def test_running_freely_it_starts_where_the_network_does(run: Run) -> None:
    command = "lyapunov --cell lstm --autonomous --no-bias --hidden-size 8 --count 1 --steps 100 --json"
    found = json.loads(run(command).out)["scalars"]
    assert found["theory_q"] == 0
    assert found["theory_largest"] == pytest.approx(math.log(0.5 + 0.25 / math.sqrt(3)), abs=0.015)
