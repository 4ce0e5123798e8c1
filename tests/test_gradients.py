"""Per-timestep gradients of W_hh against autograd over T clones, written by hand in oracles.py."""

import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import contributions_by_clones, norms, orthogonal
from torch import nn

import rnnctl
from rnnctl import FullRNN, InputError, ShapeError
from rnnctl.gradients.agreement import Agreement
from rnnctl.gradients.autograd import agreement, autograd_reference, clone_contributions
from rnnctl.gradients.contributions import Contributions, contribution_norms, step_norms, takes_products
from rnnctl.gradients.decay import decay_over_time
from rnnctl.gradients.layer_sweep import layer_norms
from rnnctl.models.hand_written import posed
from rnnctl.recurrence.elman import hidden_states
from rnnctl.recurrence.kinds import kind_named
from rnnctl.recurrence.nonlinearities import NONLINEARITIES
from rnnctl.recurrence.run import LayerRun
from rnnctl.recurrence.sweep import sweep_back
from rnnctl.recurrence.weights import LayerWeights


def network(seed=0, sizes=(3, 6, 2), dtype=torch.float64, **settings):
    torch.manual_seed(seed)
    return orthogonal(FullRNN(*sizes, dtype=dtype, **settings))


@given(
    seed=st.integers(0, 10_000),
    T=st.integers(1, 50),
    B=st.integers(1, 9),
    H=st.integers(1, 12),
    nonlinearity=st.sampled_from(["tanh", "relu"]),
    loss_at=st.sampled_from(["last", "all"]),
    loss=st.sampled_from(["mse", "cross-entropy", "sum"]),
    bias=st.booleans(),
    with_h_init=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_every_step_is_autograds_in_float64(seed, T, B, H, nonlinearity, loss_at, loss, bias, with_h_init):
    model = network(seed, (3, H, 4), nonlinearity=nonlinearity, bias=bias)
    x = torch.randn(B, T, 3, dtype=torch.float64)
    target = {
        "mse": torch.randn(B, T, 4, dtype=torch.float64),
        "cross-entropy": torch.randint(0, 4, (B, T)),
        "sum": None,
    }[loss]
    h_init = torch.randn(B, H, dtype=torch.float64) if with_h_init else None
    found = rnnctl.gradnorm(model, x, target=target, loss=loss, loss_at=loss_at, h_init=h_init)
    expected = contributions_by_clones(
        model.state_dict(), x, nonlinearity, loss_at, target=target, loss=loss, h_init=h_init
    )
    assert found.loss == pytest.approx(expected["loss"], rel=1e-9)
    torch.testing.assert_close(found.grad_norm_W_hh, norms(expected["G"]), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.grad_norm_h, norms(expected["grad_h"]), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.grad_norm_h_direct, norms(expected["grad_h_direct"]), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.grad_W_hh, expected["G"].sum(0), rtol=1e-6, atol=1e-9)


@given(
    seed=st.integers(0, 10_000),
    T=st.integers(1, 120),
    B=st.sampled_from([1, 2, 3, 8, 30]),
    H=st.sampled_from([1, 4, 33]),
    nonlinearity=st.sampled_from(["tanh", "relu"]),
    init=st.sampled_from(["orthogonal", "default"]),
)
@settings(max_examples=40, deadline=None)
def test_float32_holds_its_bound_against_float64(seed, T, B, H, nonlinearity, init):
    """|error of ||G_t||| <= 1e-5 sum_b ||delta_b|| ||h_b||, the states being the float32 ones."""
    torch.manual_seed(seed)
    model = FullRNN(3, H, 2, nonlinearity=nonlinearity)
    model = orthogonal(model) if init == "orthogonal" else model
    x = torch.randn(B, T, 3)
    found = rnnctl.gradnorm(model, x)
    state = {name: value.double() for name, value in model.state_dict().items()}
    exact, magnitude, total = swept_by_hand(state, float32_states(model, x).double(), nonlinearity)
    assert ((found.grad_norm_W_hh - exact).abs() <= 1e-5 * magnitude + 1e-300).all()
    assert (found.grad_W_hh.double() - total).norm() <= 1e-5 * magnitude.sum() + 1e-40


def float32_states(model, x):
    """h_init, h_0 .. h_{T-1} as the sweep itself rounds them."""
    cell = model.rnn_cell
    weights = cell.input_to_hidden.weight, cell.hidden_to_hidden.weight
    bias = cell.input_to_hidden.bias + cell.hidden_to_hidden.bias
    with torch.no_grad():
        return hidden_states(x, model.initial_state(x), *weights, bias, NONLINEARITIES[cell.nonlinearity])


def elman_chunks(h, direct, W_hh, nonlinearity):
    """The sweep of a layer without inputs along these states."""
    weights = LayerWeights(W_hh.new_zeros(len(W_hh), 1), W_hh)
    x = h.new_zeros(h.shape[0] - 1, h.shape[1], 1)
    run = LayerRun(kind_named("RNN", nonlinearity), weights, x, h, None, direct)
    return sweep_back(run.kind.reversible(run), direct)


def swept_by_hand(state, h, nonlinearity):
    """||G_t||, sum over the batch of ||delta|| ||h||, and sum of G_t, along given states in float64."""
    W_hy, W_hh = state["hidden_to_output.weight"], state["rnn_cell.hidden_to_hidden.weight"]
    # The outputs in float32, as the model has them: what cancels there is no matter of the sweep.
    y = (h[-1].float() @ W_hy.float().T + state["hidden_to_output.bias"].float()).double()
    grad_h = 2 * y @ W_hy / y.numel()
    norm, magnitude, total = [], [], torch.zeros_like(W_hh)
    for t in range(len(h) - 2, -1, -1):
        delta = grad_h * (1 - h[t + 1] ** 2 if nonlinearity == "tanh" else (h[t + 1] > 0))
        G = torch.einsum("bi,bj->ij", delta, h[t])
        norm.append(G.norm())
        magnitude.append((delta.norm(dim=1) * h[t].norm(dim=1)).sum())
        total += G
        grad_h = delta @ W_hh
    return torch.stack(norm[::-1]), torch.stack(magnitude[::-1]), total


@given(
    seed=st.integers(0, 10_000),
    T=st.integers(1, 6),
    B=st.sampled_from([1, 2, 3, 16, 100, 300]),
    H=st.sampled_from([1, 7, 64]),
    spread=st.sampled_from([0.0, 10.0]),
)
@settings(max_examples=80, deadline=None)
def test_norms_of_given_float32_factors_hold_the_bound_exactly(seed, T, B, H, spread):
    """Every form of the norm, on samples of sizes that differ by up to 10^spread."""
    g = torch.Generator().manual_seed(seed)
    delta, h = torch.randn(2, T, B, H, generator=g).unbind(0)
    delta = delta * 10 ** (-spread * torch.rand(T, B, 1, generator=g))
    total, found = contribution_norms(delta, h, takes_products(delta))
    products = delta.double().mT @ h.double()
    magnitude = (delta.double().norm(dim=2) * h.double().norm(dim=2)).sum(1)
    assert ((found - torch.linalg.matrix_norm(products)).abs() <= 1e-5 * magnitude).all()
    assert (total - products.sum(0)).norm() <= 1e-5 * magnitude.sum()


@pytest.mark.parametrize(("B", "H"), [(2, 40), (8, 20), (64, 16)])
def test_cancelling_samples_give_no_nan_and_keep_their_digits(B, H):
    """Pairs of samples whose contributions cancel to 1e-4 of their size, in every form of the norm."""
    g = torch.Generator().manual_seed(0)
    half = torch.randn(50, B // 2, H, generator=g)
    nearly = 1 + 1e-4 * torch.randn(50, B // 2, 1, generator=g)
    delta, h = torch.cat([half, -half * nearly], 1), torch.cat([half, half], 1)
    _, found = contribution_norms(delta, h, takes_products(delta))
    expected = torch.linalg.matrix_norm(delta.double().mT @ h.double())
    magnitude = (delta.double().norm(dim=2) * h.double().norm(dim=2)).sum(1)
    assert torch.isfinite(found).all()
    assert ((found - expected).abs() <= 1e-5 * magnitude).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 1e30])
@pytest.mark.parametrize("B", [1, 2, 40])
def test_tiny_and_huge_float32_values_keep_their_norms(scale, B):
    h = torch.ones(5, B, 4) * scale
    contributions = Contributions(h)
    for chunk in elman_chunks(h, torch.ones(1, B, 4), torch.eye(4), "relu"):
        contributions.add(chunk)
    expected = math.log(4 * B) + math.log(scale)
    assert contributions.grad_norm_W_hh.log().tolist() == pytest.approx([expected] * 4, abs=1e-5)
    assert contributions.grad_W_hh.sum().item() == pytest.approx(4 * 16 * B * scale, rel=1e-5)


def test_a_gradient_below_float32_is_reported_and_not_zero():
    torch.manual_seed(0)
    model, x = FullRNN(3, 20, 2), torch.randn(2, 400, 3)
    found = rnnctl.gradnorm(model, x)
    exact = rnnctl.gradnorm(model.double(), x.double())
    assert 0 < found.grad_norm_h[0] < 1e-60
    torch.testing.assert_close(found.grad_norm_h, exact.grad_norm_h, rtol=1e-2, atol=0)
    assert found.decay.fitted_steps == 400


def test_step_zero_contributes_exactly_nothing_without_h_init():
    found = rnnctl.gradnorm(network(), torch.randn(4, 9, 3, dtype=torch.float64))
    assert found.grad_norm_W_hh[0] == 0
    assert found.grad_norm_h[0] > 0
    assert found.h_init_is_zero
    assert found.verdict == "stable"


@pytest.mark.parametrize("loss_at", ["last", "all"])
def test_one_step_and_one_sequence_work(loss_at):
    found = rnnctl.gradnorm(network(), torch.randn(1, 1, 3, dtype=torch.float64), loss_at=loss_at, verify=True)
    assert found.grad_norm_W_hh.tolist() == [0]
    assert found.scalars["first_over_last"] == 1
    assert found.verdict == "undecided"
    assert found.conditions == {"nonfinite": False, "vanishing": None, "exploding": None}
    assert found.scalars["factor_per_step"] is None
    assert found.scalars["steps_to_one_percent"] is None
    assert found.scalars["cancellation"] is None
    assert found.scalars["autograd_relative_error"] is None
    assert found.why["autograd_relative_error"] == "nothing to compare: both are 0"
    assert found.rows[0]["share"] is None


def test_a_linear_orthogonal_network_decays_by_its_gain():
    """relu on positive states is linear: the factor is the gain, exactly."""
    model = FullRNN(1, 4, 1, nonlinearity="relu", dtype=torch.float64)
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight.copy_(0.9 * torch.eye(4, dtype=torch.float64))
        for name, parameter in model.named_parameters():
            if "input_to_hidden" in name or "bias" in name:
                parameter.fill_(0.5)
    found = rnnctl.gradnorm(model, torch.ones(2, 60, 1, dtype=torch.float64))
    scalars = found.scalars
    assert scalars["factor_per_step"] == pytest.approx(0.9, rel=1e-12)
    assert scalars["first_over_last"] == pytest.approx(0.9**59, rel=1e-12)
    assert scalars["steps_to_one_percent"] == math.ceil(math.log(0.01) / math.log(0.9))
    assert scalars["spectral_radius"] == pytest.approx(0.9)
    assert scalars["spectral_norm"] == pytest.approx(0.9)
    assert scalars["verdict"] == "stable"


def test_cancellation_is_one_when_all_steps_pull_one_way_and_small_when_they_do_not():
    """One unit of slope 1: G_t = h_{t-1}, of one sign or of alternating signs."""
    same, alternating = torch.ones(9, 1, 1), torch.ones(9, 1, 1)
    alternating[::2] = -1
    totals = []
    for h in (same, alternating):
        found = Contributions(h)
        for chunk in elman_chunks(h.abs(), torch.ones(1, 1, 1), torch.eye(1), "relu"):
            found.add(chunk)
        totals.append(float(found.grad_W_hh.norm() / found.grad_norm_W_hh.sum()))
    assert totals == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(
    ("gain", "init", "verdict"),
    [(0.3, "gaussian", "vanishing"), (1.0, "orthogonal", "stable"), (4.0, "identity", "exploding")],
)
def test_verdict_says_what_the_weights_do(gain, init, verdict):
    torch.manual_seed(0)
    model = FullRNN(3, 16, 2, nonlinearity="relu" if init == "identity" else "tanh")
    from rnnctl.initializers import initialize_W_hh

    initialize_W_hh(model.rnn_cell.hidden_to_hidden.weight, init, gain, torch.Generator().manual_seed(0))
    found = rnnctl.gradnorm(model, 0.1 * torch.randn(4, 30, 3))
    assert found.verdict == verdict
    assert found.conditions[verdict] if verdict != "stable" else not any(found.conditions.values())


def test_thresholds_move_the_verdict():
    model, x = network(), torch.randn(4, 9, 3, dtype=torch.float64)
    ratio = rnnctl.gradnorm(model, x).scalars["first_over_last"]
    assert rnnctl.gradnorm(model, x, vanish_below=ratio * 1.01).verdict == "vanishing"
    assert rnnctl.gradnorm(model, x, vanish_below=0, explode_above=ratio * 0.99).verdict == "exploding"
    with pytest.raises(InputError, match=r"0 <= vanish_below < explode_above; got vanish_below 2 and explode_above 1"):
        rnnctl.gradnorm(model, x, vanish_below=2, explode_above=1)


def test_decay_is_that_of_the_last_steps_loss_with_a_loss_at_all_steps_too():
    torch.manual_seed(0)
    model, x = FullRNN(3, 20, 2), torch.randn(4, 30, 3)
    last, every = (rnnctl.gradnorm(model, x, loss_at=at) for at in ("last", "all"))
    assert every.scalars["factor_per_step"] == pytest.approx(last.scalars["factor_per_step"], rel=1e-5)
    assert every.grad_norm_h[0] > 1e3 * last.grad_norm_h[0]


def test_overflow_is_nonfinite_and_names_the_step():
    model = FullRNN(3, 8, 2, nonlinearity="relu")
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight.copy_(10 * torch.eye(8))
    found = rnnctl.gradnorm(model, torch.randn(2, 80, 3), verify=True)
    assert found.verdict == "nonfinite"
    assert found.conditions["nonfinite"]
    assert 30 < found.scalars["first_nonfinite_step"] < 45
    found.require_agreement()


def test_a_nan_in_the_weights_reaches_no_eigenvalue_call():
    model = network(dtype=torch.float32)
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight[0, 0] = math.nan
    scalars = rnnctl.gradnorm(model, torch.randn(2, 5, 3)).scalars
    assert math.isnan(scalars["spectral_radius"])
    assert math.isnan(scalars["spectral_norm"])
    assert scalars["verdict"] == "nonfinite"


def test_no_gradient_at_all_is_said():
    model = network()
    with torch.no_grad():
        model.hidden_to_output.weight.zero_()
    scalars = rnnctl.gradnorm(model, torch.randn(2, 5, 3, dtype=torch.float64), verify=True).scalars
    assert scalars["verdict"] == "no gradient"
    assert scalars["first_over_last"] is None
    assert scalars["autograd_relative_error"] is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_swept_in_float32_along_its_own_states(dtype):
    torch.manual_seed(0)
    model, x = FullRNN(3, 16, 2, dtype=dtype), torch.randn(4, 12, 3, dtype=dtype)
    found = rnnctl.gradnorm(model, x, verify=True)
    assert found.grad_W_hh.dtype == dtype
    assert found.agreement.holds
    exact = rnnctl.gradnorm(model.double(), x.double())
    torch.testing.assert_close(found.grad_norm_W_hh, exact.grad_norm_W_hh, rtol=0.1, atol=1e-4)


def test_verification_survives_chaos_by_taking_the_models_own_states():
    """Gain 4: float32 rounding grows until two correct forward passes have nothing in common."""
    torch.manual_seed(0)
    model = FullRNN(3, 64, 2)
    with torch.no_grad():
        nn.init.normal_(model.rnn_cell.hidden_to_hidden.weight, std=4 / 8)
    x = torch.randn(4, 200, 3)
    found = rnnctl.gradnorm(model, x, verify=True)
    assert found.agreement.holds
    assert found.scalars["states"] == "model"
    model(x)[:, -1].square().mean().backward()
    expected = model.rnn_cell.hidden_to_hidden.weight.grad.double()
    assert (found.grad_W_hh.double() - expected).norm() < 1e-4 * expected.norm()


def test_a_wrong_sweep_is_caught_by_the_verification(monkeypatch):
    def broken(run, **settings):
        weights = replace(run.weights, W_hh=1.001 * run.weights.W_hh)
        return layer_norms(replace(run, weights=weights), **settings)

    monkeypatch.setattr("rnnctl.gradients.gradnorm.layer_norms", broken)
    found = rnnctl.gradnorm(network(), torch.randn(4, 9, 3, dtype=torch.float64), verify=True)
    assert not found.agreement.holds
    with pytest.raises(rnnctl.VerificationError, match="disagrees with autograd's W_hh.grad"):
        found.require_agreement()


def test_a_wrong_forward_pass_is_not_taken_for_chaos(monkeypatch):
    def broken(*inputs):
        h = hidden_states(*inputs)
        h[3] *= 1.01
        return h

    monkeypatch.setattr("rnnctl.models.hand_written.hidden_states", broken)
    found = rnnctl.gradnorm(network(), torch.randn(4, 9, 3, dtype=torch.float64), verify=True)
    assert not found.agreement.holds
    assert found.scalars["states"] == "sweep"


def test_the_model_is_left_as_it_was():
    model = network()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.rnn_cell.hidden_to_hidden.weight.grad = torch.full((6, 6), 7.0, dtype=torch.float64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng, threads = torch.get_rng_state(), torch.get_num_threads()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    rng = torch.get_rng_state()
    with torch.no_grad():
        rnnctl.gradnorm(model, x, verify=True)
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(not parameter.requires_grad for parameter in model.parameters())
    assert (model.rnn_cell.hidden_to_hidden.weight.grad == 7).all()
    assert not model.rnn_cell._forward_hooks


def test_results_are_frozen_ordinary_tensors():
    found = rnnctl.gradnorm(network(), torch.randn(2, 5, 3, dtype=torch.float64))
    with pytest.raises(FrozenInstanceError, match="cannot assign"):
        found.loss = 0.0
    assert (found.grad_norm_h * torch.ones(5, dtype=torch.float64, requires_grad=True)).sum().requires_grad
    assert not found.grad_W_hh.is_inference()
    assert found.grad_norm_W_hh.dtype == found.grad_norm_h.dtype == found.grad_norm_h_direct.dtype == torch.float64


def test_the_weights_are_kept_as_they_were_then():
    model = network()
    found = rnnctl.gradnorm(model, torch.randn(2, 5, 3, dtype=torch.float64))
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight.zero_()
    assert found.scalars["spectral_radius"] == pytest.approx(1)


def test_rows_and_scalars_have_the_promised_names():
    found = rnnctl.gradnorm(network(), torch.randn(2, 5, 3, dtype=torch.float64), verify=True)
    assert [row["t"] for row in found.rows] == [0, 1, 2, 3, 4]
    assert list(found.rows[0]) == ["t", "grad_norm_W_hh", "share", "grad_norm_h", "grad_norm_h_direct"]
    assert sum(row["share"] for row in found.rows) == pytest.approx(1)
    promised = "grad_W_hh_norm autograd_relative_error cancellation factor_per_step steps_to_one_percent"
    promised += " first_over_last spectral_radius spectral_norm verdict"
    assert set(promised.split()) <= set(found.scalars)


def test_progress_ends_at_one():
    seen = []
    rnnctl.gradnorm(network(), torch.randn(2, 100, 3, dtype=torch.float64), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "l1"}, "loss must be one of mse, cross-entropy, sum; got 'l1'"),
        ({"loss_at": "first"}, "loss_at must be one of last, all; got 'first'"),
        ({"target": torch.zeros(2, 5, 3)}, r"target must have the model's dtype torch.float64"),
        ({"target": torch.zeros(2, 4, 2).double()}, r"target must have shape \(2, 5, 2\); got \(2, 4, 2\)"),
        ({"target": torch.zeros(2, 5, 2).double(), "loss": "sum"}, "takes no target"),
        ({"target": torch.zeros(2, 5), "loss": "cross-entropy"}, "integer targets"),
        ({"target": torch.full((2, 5), 2), "loss": "cross-entropy"}, r"classes 0 \.\. 1 .*got values from 2 to 2"),
        ({"h_init": torch.zeros(2, 7).double()}, r"h_init must have shape \(2, 6\); got \(2, 7\)"),
    ],
)
def test_bad_arguments_are_refused_with_expected_and_got(settings, message):
    with pytest.raises(InputError, match=message):
        rnnctl.gradnorm(network(), torch.zeros(2, 5, 3, dtype=torch.float64), **settings)


def test_another_model_or_input_is_refused():
    with pytest.raises(InputError, match="must be a torch.nn.Module; got str"):
        rnnctl.gradnorm("LSTM", torch.zeros(2, 5, 3))
    with pytest.raises(InputError, match="no recurrent module"):
        rnnctl.gradnorm(nn.Linear(3, 4), torch.zeros(2, 5, 3))
    with pytest.raises(ShapeError, match=r"\(batch, time, 3\); got \(2, 5, 4\)"):
        rnnctl.gradnorm(network(), torch.zeros(2, 5, 4, dtype=torch.float64))


def test_softmax_before_cross_entropy_is_refused():
    with pytest.raises(InputError, match="takes logits.*softmax. Use output activation identity"):
        rnnctl.gradnorm(FullRNN(3, 4, 2, output_activation="softmax"), torch.zeros(2, 5, 3), loss="cross-entropy")


def test_too_long_a_sequence_is_refused_before_anything_is_allocated(monkeypatch):
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: 1000)
    with pytest.raises(rnnctl.TooLargeError, match=r"would take .*KiB of memory; 1000 B is available"):
        rnnctl.gradnorm(network(), torch.zeros(2, 50, 3, dtype=torch.float64))


def test_a_target_for_the_last_step_alone_is_that_of_the_last_step():
    model, x = network(), torch.randn(2, 5, 3, dtype=torch.float64)
    target = torch.randn(2, 5, 2, dtype=torch.float64)
    whole, alone = rnnctl.gradnorm(model, x, target=target), rnnctl.gradnorm(model, x, target=target[:, -1])
    assert whole.loss == alone.loss


@pytest.mark.parametrize("loss_at", ["last", "all"])
def test_our_own_references_are_the_oracles(loss_at):
    """check and --verify rest on these two; they share no code with oracles.py."""
    model, x = network(), torch.randn(3, 8, 3, dtype=torch.float64)
    start = torch.randn(3, 6, dtype=torch.float64)
    expected = contributions_by_clones(model.state_dict(), x, "tanh", loss_at, h_init=start)
    clones = clone_contributions(posed(model, x, None, "mse", loss_at, start))
    torch.testing.assert_close(clones, expected["G"], rtol=1e-10, atol=1e-14)
    reference = autograd_reference(posed(model, x, None, "mse", loss_at, start))
    torch.testing.assert_close(reference.grad_W_hh, expected["G"].sum(0), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(reference.h[1:], expected["h"], rtol=1e-12, atol=1e-14)


def test_agreement_is_relative_and_fails_on_nan():
    model, x = network(), torch.randn(3, 8, 3, dtype=torch.float64)
    reference = autograd_reference(posed(model, x, None, "mse", "last", torch.zeros(3, 6, dtype=torch.float64)))
    found = Contributions(reference.h)
    for chunk in elman_chunks(reference.h, torch.ones(1, 3, 6).double(), torch.eye(6).double(), "tanh"):
        found.add(chunk)
    found.grad_W_hh = reference.grad_W_hh * (1 + 1e-3)
    compared = agreement(found, reference, "sweep")
    assert isinstance(compared, Agreement)
    assert compared.relative_error == pytest.approx(1e-3)
    assert not compared.holds
    found.grad_W_hh = reference.grad_W_hh * math.nan
    assert not agreement(found, reference, "sweep").holds


def test_step_norms_are_norms_of_steps():
    block = torch.randn(70, 3, 4) * 1e-30
    torch.testing.assert_close(step_norms(block), norms(block))


def test_decay_ignores_steps_without_a_gradient():
    logs = torch.tensor([-math.inf, -3.0, -2.0, -1.0], dtype=torch.float64)
    decay = decay_over_time(logs)
    assert decay.factor_per_step == pytest.approx(math.exp(-1))
    assert decay.fitted_steps == 3
    assert decay.first_over_last == 0
    assert decay.steps_to_one_percent == 3
