"""Short trainings: plain Adam, windows that cut a gradient and nothing else, starts, and the reach over a lag."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from remedy_cases import MSE, B, H, T, assert_same_weights, case_of, data, reader
from torch import nn
from torch.nn import functional as F

import rnnctl
from rnnctl.diagnosis.adam import Adam
from rnnctl.diagnosis.case import Case, place, putting, varied
from rnnctl.diagnosis.reach import reach
from rnnctl.diagnosis.training import trained
from rnnctl.errors import InputError


@pytest.mark.parametrize("clip", [None, 1e-6])
def test_a_training_is_plain_adam_with_the_gradient_clipped_where_that_is_asked_for(clip):
    """So short a gradient is no longer far above Adam's epsilon: it steps less."""
    case = case_of("rnn", clip=clip)
    found = trained(case.model, case.x, case.target, case.settings, 3)
    model = deepcopy(case.model)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-3), []
    moved = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.mse_loss(model(case.x), case.target)
        loss.backward()
        losses.append(loss.item())
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        before = model.out.weight.detach().clone()
        optimizer.step()
        moved.append(float((model.out.weight.detach() - before).norm() / before.norm()))
    assert found.losses == pytest.approx([*losses, F.mse_loss(model(case.x), case.target).item()], rel=1e-5)
    assert (found.loss_before, found.loss_after) == (found.losses[0], found.losses[-1])
    torch.testing.assert_close(found.model.state_dict(), model.state_dict())
    assert found.update_over_weight["out.weight"] == pytest.approx((min(moved), max(moved)), rel=1e-3)
    torch.testing.assert_close(found.predictions, model(case.x).detach())
    assert not found.predictions.requires_grad


def test_sparse_and_complex_weights_step_as_torch_has_them():
    torch.manual_seed(0)
    rows, wave = nn.Parameter(torch.randn(5, 2)), nn.Parameter(torch.randn(4, dtype=torch.complex64))
    theirs = [nn.Parameter(each.detach().clone()) for each in (rows, wave)]
    adam, optimizer = Adam({"rows": rows, "wave": wave}, 0.1), torch.optim.Adam(theirs, lr=0.1)
    for _ in range(3):
        for one, (W, z) in zip((True, False), ((rows, wave), theirs), strict=True):
            W.grad = z.grad = None
            used = F.embedding(torch.tensor([0, 3, 3]), W, sparse=one)
            (used.square().sum() + (z * (1 + 2j)).abs().sum() + (z.imag**2).sum()).backward()
        adam.step()
        optimizer.step()
    torch.testing.assert_close([rows, wave], theirs)


def test_a_weight_without_a_gradient_or_of_zeros_has_no_update_over_weight():
    model = reader()
    model.unused = nn.Linear(2, 2)
    nn.init.zeros_(model.out.bias)
    found = trained(model, *data(), MSE, 1).update_over_weight
    assert found.keys() == {name for name, _ in model.named_parameters()} - {
        "unused.weight",
        "unused.bias",
        "out.bias",
    }


def test_a_training_ends_where_the_loss_is_not_finite():
    case = case_of("rnn")
    found = trained(case.model, case.x / 0, case.target, MSE, 5)
    assert len(found.losses) == 1
    assert not math.isfinite(found.loss_after)
    assert found.update_over_weight == {}


def test_dropout_is_drawn_from_the_seed():
    case = case_of("rnn")
    case.model.layer.dropout = 0.5
    losses = [trained(case.model, case.x, case.target, MSE, 1, seed).losses for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_a_frozen_model_is_not_trained():
    case = case_of("rnn")
    case.model.requires_grad_(False)
    with pytest.raises(InputError, match="no parameter of the model takes a gradient"):
        trained(case.model, case.x, case.target, MSE, 1)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru cell", "guide's cell", "guide's network", "time first"])
@pytest.mark.parametrize("window", [1, 4, 5, 12, 30])
def test_a_window_cuts_the_gradient_and_nothing_else(name, window):
    """The input of the step before the last window gets no gradient, that of its first step does."""
    settings = {"time_first": True} if name == "time first" else {}
    case = case_of(name, window=window, **settings)
    x = case.x.transpose(0, 1) if settings else case.x
    plain = case.model(x)
    x = x.clone().requires_grad_()
    with case.in_windows():
        output = case.model(x)
    torch.testing.assert_close(output, plain)
    (output[:, -1] if output.dim() == 3 else output).sum().backward() if not settings else output[-1].sum().backward()
    by_step = x.grad.square().sum((0, 2) if not settings else (1, 2))
    assert (by_step != 0).tolist() == [t >= T - window for t in range(T)]
    with pytest.raises(AssertionError):
        torch.testing.assert_close(x.grad, torch.zeros_like(x))


def test_a_window_that_cannot_be_cut_is_refused_and_leaves_the_model_as_it_was():
    for name, said in (("both ways", "both directions"), ("no recurrence known", "not known")):
        case = case_of(name, window=4)
        with pytest.raises(InputError, match=said):
            trained(case.model, case.x, case.target, case.settings, 1)
            assert reach(case) is None
    case = case_of("rnn", window=4)
    with case.in_windows():
        assert type(case.model.layer) is not nn.RNN
    assert type(case.model.layer) is nn.RNN


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "guide's network"])
def test_reach_is_the_gradient_of_the_state_so_many_steps_back(name):
    """Of several layers that of the one where most is left; of an LSTM of h and c together."""
    case = case_of(name)
    weights = rnnctl.model_gradnorm(case.model, case.x, target=case.target).weights.values()
    wanted = max(float(each.grad_norm_state[-6] / each.grad_norm_state[-1]) for each in weights)
    assert reach(case) == pytest.approx(wanted, rel=1e-6)
    assert reach(replace(case, lag=None)) < reach(replace(case, lag=1))
    assert reach(replace(case, lag=99)) == reach(replace(case, lag=None))
    assert reach(replace(case, lag=0)) == pytest.approx(1)


def test_reach_is_what_autograd_says_of_a_cell_in_a_loop():
    case = case_of("rnn cell")
    states = [torch.zeros(B, H)]
    for x_t in case.x.unbind(1):
        states.append(case.model.cells[0](x_t, states[-1]))
    loss = F.mse_loss(case.model.out(states[-1]), case.target)
    norms = [float(grad.norm()) for grad in torch.autograd.grad(loss, states[1:])]
    for lag in (0, 1, 5, 11):
        assert reach(replace(case, lag=lag)) == pytest.approx(norms[-1 - lag] / norms[-1], rel=1e-4)


def test_another_start_has_other_weights_but_the_same_recurrent_ones():
    for name in ("rnn", "guide's cell", "no recurrence known"):
        case = case_of(name)
        model = varied(deepcopy(case.model), 3)
        assert_same_weights(model, varied(deepcopy(case.model), 3))
        assert_same_weights(varied(deepcopy(case.model), 0), case.model)
        for key, value in case.model.state_dict().items():
            recurrent = "weight_hh" in key or "hidden_to_hidden.weight" in key
            change = (model.state_dict()[key] - value).norm() / value.norm()
            assert (change == 0) if recurrent else 0.02 < change < 0.3, key


def test_a_hand_written_start_is_part_of_what_is_trained():
    case = case_of("guide's network")
    h_init = torch.full((B, H), 0.9)
    started = replace(MSE, h_init=h_init)
    wanted = F.mse_loss(case.model(case.x, h_init)[:, -1], case.target).item()
    assert trained(case.model, case.x, case.target, started, 0).loss_after == pytest.approx(wanted, rel=1e-5)


def test_a_model_that_cannot_be_copied_is_said_to_be_one():
    case = case_of("rnn")
    case.model.kept = case.model(case.x)
    with pytest.raises(InputError, match="the model cannot be copied: RuntimeError"):
        Case.copied(case)


def test_a_place_in_the_model_is_an_expression_of_it():
    model = nn.Sequential(nn.ModuleDict({"a": nn.Linear(1, 2)}))
    assert [place(""), place("a.b"), place("0.a")] == ["model", "model.a.b", "model.get_submodule('0.a')"]
    assert eval(place("0.a"), {"model": model}) is model[0]["a"]
    exec(putting("0.a", "nn.Identity()"), {"model": model, "nn": nn})
    assert isinstance(model[0]["a"], nn.Identity)
    assert putting("", "nn.GRU(1, 2)") == "model = nn.GRU(1, 2)"
