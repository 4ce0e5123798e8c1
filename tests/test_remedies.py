"""Remedies: what is measured of them, that nothing is changed, and that their lines of Python do the same."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from remedy_cases import F_IN, MODELS, MSE, B, H, Looped, T, Written, assert_same_weights, case_of, data, reader
from torch import nn
from torch.nn import functional as F

import rnnctl
from rnnctl.diagnosis import remedies
from rnnctl.diagnosis.case import Case, Settings, random_state
from rnnctl.diagnosis.reach import reach
from rnnctl.diagnosis.remedies import REMEDIES, interval, tried
from rnnctl.diagnosis.training import loss_of, trained
from rnnctl.errors import InputError

EVERY_FINDING = tuple(dict.fromkeys(finding for remedy in REMEDIES for finding in remedy.fits))


def applied(remedy, case):
    """A case with a remedy, or None where it does not fit."""
    with random_state(0, case.model):
        try:
            return remedy.apply(Case.copied(case))
        except InputError:
            return None


# Tested by themselves: what they change is not in the weights or the input.
ELSEWHERE = {"clip", "window", "mask"}
FITTING = [
    (name, remedy.id)
    for name in MODELS
    for remedy in REMEDIES
    # Of code that runs over the right axis nothing is to be turned.
    if remedy.id not in ELSEWHERE and (remedy.id != "batch-first" or name == "time first")
    if applied(remedy, case_of(name)) is not None
]


def test_every_remedy_of_the_weights_and_the_set_up_fits_some_model_here():
    assert {remedy for _, remedy in FITTING} == {each.id for each in REMEDIES} - ELSEWHERE


def pasted(case, lines):
    """What is there after somebody pasted the lines: the names that they use."""
    given = {"model": deepcopy(case.model), "x": case.x, "target": case.target, "lengths": case.settings.lengths}
    with random_state(0, case.model):
        exec(compile("\n".join(lines), "lines", "exec"), given)
    return given


@pytest.mark.parametrize(("name", "remedy"), FITTING)
def test_the_lines_of_a_remedy_make_of_the_model_what_was_measured(name, remedy):
    case = case_of(name)
    after = applied(by_id(remedy), case)
    given = pasted(case, after.lines)
    torch.testing.assert_close(given["x"], after.x, rtol=0, atol=0)
    assert_same_weights(given["model"], after.model)
    ours, before = shown(after), shown(case)
    theirs = shown(replace(after, model=given["model"]))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=0)
    assert before.shape != ours.shape or not torch.equal(before, ours)


def shown(case):
    """The output of a case's model as its loss takes it."""
    found = trained(case.model, case.x, None, case.settings, 0)
    return found.predictions


def by_id(remedy):
    return next(each for each in REMEDIES if each.id == remedy)


def test_the_line_of_clipping_bounds_a_gradient_as_the_training_does():
    case = case_of("rnn", clip=None)
    after = applied(by_id("clip"), case)
    model = deepcopy(case.model)
    F.mse_loss(model(case.x) * 1e4, case.target).backward()
    exec("\n".join(after.lines), {"model": model})
    assert math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters())) == pytest.approx(1, abs=1e-4)
    assert after.settings.clip == 1


@pytest.mark.parametrize(("lag", "wider"), [(5, 8), (9, 10), (40, 12), (None, 8)])
def test_a_window_is_doubled_and_holds_the_lag(lag, wider):
    after = applied(by_id("window"), replace(case_of("rnn", window=4), lag=lag))
    assert pasted(after, after.lines)["window"] == after.settings.window == wider


@pytest.mark.parametrize(
    ("given", "loss_at", "target"),
    [
        ("lengths", "last", "every step"),
        ("lengths", "all", "every step"),
        (None, "all", "every step"),
        (None, "last", "every sequence"),
    ],
)
def test_the_lines_of_a_masked_loss_give_the_loss_of_real_steps(given, loss_at, target):
    torch.manual_seed(0)
    model, lengths = rnnctl.FullRNN(F_IN, H, 2), torch.tensor([12, 3, 7, 1, 12, 5] * 4)
    x = torch.randn(B, T, F_IN) * (torch.arange(T) < lengths[:, None])[..., None]
    target = torch.randn(B, T, 2) if target == "every step" else torch.randn(B, 2)
    settings = Settings(loss="mse", loss_at=loss_at, lengths=lengths if given else None)
    after = applied(by_id("mask"), Case(model, x, target, settings))
    assert after.settings.lengths.tolist() == lengths.tolist()
    by_hand = []
    for y, goal, length in zip(model(x), target, lengths.tolist(), strict=True):
        rows = range(length) if loss_at == "all" else [length - 1]
        by_hand += [(y[t] - (goal[t] if goal.dim() > 1 else goal)).square().mean() for t in rows]
    wanted = float(torch.stack(by_hand).detach().mean())
    found = pasted(Case(model, x, target, replace(settings, lengths=lengths)), after.lines)["loss"]
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-5)
    assert loss_of(model, x, after.target, after.settings) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.slow
def test_what_is_examined_and_the_random_state_stay_as_they_were():
    case = case_of("guide's network", window=4)
    case.model.rnn_cell.register_buffer("noise", torch.zeros(()))
    before, hooks = deepcopy(case.model.state_dict()), len(case.model.rnn_cell._forward_pre_hooks)
    x, state = case.x.clone(), torch.get_rng_state()
    found = tried(case, EVERY_FINDING, steps=2, seeds=2)
    assert sum(row["helps"] in ("yes", "no measurable help") for row in found) >= 6
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(case.x, x)
    assert_same_weights(case.model, type("Kept", (), {"state_dict": lambda self: before})())
    assert len(case.model.rnn_cell._forward_pre_hooks) == hooks
    assert all(p.grad is None for p in case.model.parameters())


@pytest.mark.slow
def test_the_same_seeds_give_the_same_rows_and_every_training_is_told_of():
    case, fractions = case_of("rnn"), []
    first = tried(case, ["dead-units", "nonfinite"], steps=1, seeds=2, progress=fractions.append)
    torch.manual_seed(77)
    assert first == tried(case, ["dead-units", "nonfinite"], steps=1, seeds=2)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    tried(case, ["stuck-gate"], steps=0, seeds=2, progress=fractions.append)
    assert fractions[-1] == 1
    assert {row["finding"] for row in first} == {"dead-units", "nonfinite"}
    assert tried(case, ["no-such-finding"]) == []


def helped(case, finding, remedy, **settings):
    """The row of one remedy that is tried alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remedies, "REMEDIES", (by_id(remedy) if isinstance(remedy, str) else remedy,))
        (row,) = tried(case, ["no-such-finding", finding], **settings)
    assert row["finding"] == finding
    return row


def test_an_orthogonal_matrix_at_the_critical_gain_helps_where_the_gradient_vanishes():
    row = helped(forgetful(learning_rate=0.01), "vanishing", "critical", steps=30, seeds=2)
    assert row["helps"] == "yes"
    assert row["reach_before"] < 1e-5 < 0.1 < row["reach_after"]
    assert row["loss_after"] < 0.6 * row["loss_before"]
    assert row["loss_low"] < row["loss_high"] < 0


def forgetful(**settings):
    """A case whose W_hh is ten times too small."""
    case = case_of("rnn", **settings)
    with torch.no_grad():
        for name, weight in case.model.layer.named_parameters():
            if "weight_hh" in name:
                weight.mul_(0.1)
    return case


def test_what_helps_stands_first_by_the_loss_and_what_was_not_tried_last():
    found = tried(forgetful(), ["vanishing"], steps=2, seeds=2)
    assert {row["remedy"] for row in found} == {each.id for each in REMEDIES if "vanishing" in each.fits}
    order = [("yes", "no measurable help").index(row["helps"]) for row in found if row["loss_after"] is not None]
    assert len(order) == 4
    assert order == sorted(order)
    for word in ("yes", "no measurable help"):
        losses = [row["loss_after"] for row in found if row["helps"] == word]
        assert losses == sorted(losses)
    assert [row["helps"] for row in found[4:]] == [f"not tried: {NO_GATES}"] * 2


NO_GATES = "no LSTM or GRU is in the model: nothing has a gate that keeps the state"


@pytest.mark.parametrize("form", ["beside", "alone"])
def test_of_code_that_nobody_knows_the_critical_gain_is_measured(form):
    case = case_of(f"written {form}")
    after = applied(by_id("critical"), case)
    W_hh = after.model.W if form == "alone" else after.model.both.weight[:, F_IN:]
    gains = torch.linalg.svdvals(W_hh.detach())
    assert float(gains.max() - gains.min()) < 1e-5
    assert f"nn.init.orthogonal_(W_hh, {float(gains[0]):.3g})" in after.lines[-1]
    factors = [
        step.scalars["factor_per_step"] for step in (rnnctl.gradnorm(each.model, case.x) for each in (case, after))
    ]
    assert factors[0] < 0.6
    assert abs(factors[1] - 1) < 0.05
    if form == "beside":
        assert torch.equal(after.model.both.weight[:, :F_IN], case.model.both.weight[:, :F_IN])


def test_of_gates_that_nobody_knows_every_block_is_orthogonal():
    after = applied(by_id("critical"), case_of("written gated"))
    for block in after.model.both.weight.detach()[:, F_IN:].split(H):
        torch.testing.assert_close(block @ block.T, torch.eye(H), rtol=0, atol=1e-5)


class Turned(Written):
    """The same, which takes (time, batch, ...) and returns it so."""

    def forward(self, x):
        h, found = x.new_zeros(x.shape[1], H), []
        for x_t in x:
            h = self.step(x_t, h)
            found.append(self.out(h))
        return torch.stack(found)


def test_code_of_no_known_layer_that_ran_over_the_sequences_is_handed_time_first():
    torch.manual_seed(0)
    case = replace(case_of("written beside", learning_rate=0.01), model=Turned())
    after = applied(by_id("batch-first"), case)
    assert after.lines == ("y = model(x.transpose(0, 1)).transpose(0, 1)",)
    torch.testing.assert_close(pasted(case, after.lines)["y"], shown(after))
    torch.testing.assert_close(shown(after)[:1], case.model(case.x[:1].transpose(0, 1)).transpose(0, 1).detach())
    row = helped(case, "time-axis", "batch-first", steps=15, seeds=2)
    assert row["helps"] == "yes"
    assert row["reach_before"] is None
    assert row["reach_after"] > 0


def test_a_remedy_that_changes_nothing_is_no_measurable_help():
    nothing = remedies.Remedy("nothing", "", ("echo",), lambda case: case)
    row = helped(case_of("gru"), "echo", nothing, steps=2, seeds=2)
    assert (row["helps"], row["loss_low"], row["loss_high"]) == ("no measurable help", 0, 0)
    assert row["reach_before"] == row["reach_after"] > 0


@pytest.mark.parametrize(
    ("factors", "helps"), [((0.5, 2.0), False), ((2.0, 0.5), False), ((0.5, 0.6), True), ((0.999, 0.999), False)]
)
def test_a_remedy_helps_that_lowers_every_loss_by_more_than_a_hundredth(factors, helps):
    turns = iter(factors)
    smaller = remedies.Remedy("smaller", "", ("echo",), lambda case: replace(case, target=case.target * next(turns)))
    row = helped(case_of("gru"), "echo", smaller, steps=0, seeds=2)
    assert row["helps"] == ("yes" if helps else "no measurable help")
    assert (row["loss_high"] > 0) == (2.0 in factors)
    assert row["loss_low"] < 0


@pytest.mark.parametrize("name", ["rnn", "rnn cell", "guide's network", "double rnn"])
def test_the_variance_that_the_critical_gain_is_for_is_that_of_what_comes_from_outside(name):
    case = case_of(name)
    W, *biases = (
        next(p for key, p in case.model.named_parameters() if any(word in key for word in words))
        for words in (
            ("weight_ih", "input_to_hidden.weight"),
            *(
                (("bias_ih", "input_to_hidden.bias"), ("bias_hh", "hidden_to_hidden.bias"))
                if "double" not in name
                else ()
            ),
        )
    )
    wanted = float((case.x @ W.T + sum(biases)).detach().square().mean())
    (line,) = (line for line in applied(by_id("critical"), case).lines if line.startswith("critical_("))
    assert float(line.partition("source_variance=")[2].rstrip(")")) == pytest.approx(wanted, rel=1e-3)


def test_a_standardized_input_helps_where_it_was_far_too_large():
    case = case_of("rnn", learning_rate=5e-3)
    row = helped(replace(case, x=1e4 * case.x + 1e5), "input-scale", "standardize", steps=15, seeds=2)
    assert row["helps"] == "yes"
    # Nothing is drawn in it: it is the start that differs.
    assert row["loss_low"] < row["loss_high"]


def test_layers_that_take_the_batch_first_help_where_steps_were_sequences():
    """The reach before is not known: what runs over the sequences has no steps to reach over."""
    row = helped(case_of("time first", learning_rate=0.01), "time-axis", "batch-first", steps=30, seeds=2)
    assert row["helps"] == "yes"
    assert row["reach_before"] is None
    assert row["reach_after"] > 0


def test_layers_that_are_handed_time_first_take_it_so_and_run_over_the_steps():
    class Turning(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 4, batch_first=True)

        def forward(self, x):
            return self.rnn(x.transpose(0, 1))[0].transpose(0, 1)

    case = Case(Turning(), torch.randn(5, 8, 3))
    after = by_id("batch-first").apply(Case.copied(case))
    assert after.lines == ("model.rnn.batch_first = False",)
    x = case.x.requires_grad_()
    (grad,) = torch.autograd.grad(after.model(x)[0, -1].sum(), x)
    assert bool((grad[0] != 0).all()) and not bool(grad[1:].any())


def test_a_readout_of_both_ends_helps_where_the_reverse_direction_has_seen_one_step():
    case = case_of("both ways", learning_rate=0.02)
    row = helped(replace(case, target=case.x[:, 0, :1].clone()), "reverse-last", "both-ends", steps=20, seeds=2)
    assert row["helps"] == "yes"


def test_no_softmax_helps_where_cross_entropy_applies_one_itself():
    classes = torch.arange(B) % 4
    case = Case(
        reader(end=nn.Softmax(-1), outputs=4), data()[0], classes, Settings("cross-entropy", learning_rate=0.03)
    )
    row = helped(case, "loss-output", "no-activation", steps=30, seeds=2)
    assert row["helps"] == "yes"
    assert row["loss_after"] < 0.6 < row["loss_before"]


def test_a_softmax_within_the_model_is_no_end():
    case = case_of("rnn")
    model = nn.Sequential(case.model, nn.Softmax(-1), nn.Linear(1, 1))
    row = helped(replace(case, model=model), "loss-output", "no-activation", steps=1, seeds=2)
    assert row["helps"].startswith("not tried: no activation stands at the end")


def test_a_loss_of_real_steps_is_measured_on_real_steps_with_and_without_it():
    """What is asked at the end of each sequence is other than what padding asks for."""
    torch.manual_seed(0)
    model, lengths = rnnctl.FullRNN(F_IN, H, 1), torch.tensor([4, 6, 3, 5, 4, 6] * 4)
    real = (torch.arange(T) < lengths[:, None])[..., None]
    x, target = torch.randn(B, T, F_IN) * real, torch.where(real, 1.0, -5.0)
    settings = Settings("mse", "all", lengths=lengths, learning_rate=0.01)
    row = helped(Case(model, x, target, settings), "padding", "mask", steps=8, seeds=2)
    assert row["helps"] == "yes"
    untreated = trained(model, x, target, replace(settings, lengths=None), 8)
    assert 1 < row["loss_before"] != untreated.loss_after
    assert loss_of(untreated.model, x, target, settings) == pytest.approx(row["loss_before"], rel=0.2)


def test_a_window_that_holds_the_lag_lets_a_gradient_through():
    case = case_of("lstm", window=4)
    row = helped(case, "window", "window", steps=2, seeds=2)
    assert row["reach_before"] == 0
    assert row["reach_after"] == pytest.approx(reach(replace(case, settings=MSE)), rel=0.5)


def test_a_window_that_can_be_cut_nowhere_is_left_out_of_what_other_remedies_are_measured_by():
    case = case_of("both ways", window=4)
    assert helped(case, "window", "window", steps=1, seeds=2)["helps"].startswith("not tried: layer runs in both")
    uncut = helped(replace(case, settings=MSE), "exploding", "critical", steps=1, seeds=2)
    assert uncut["loss_before"] is not None
    assert helped(case, "exploding", "critical", steps=1, seeds=2) == uncut


class Careful(Looped):
    """Its own code takes nothing but a plain cell."""

    def forward(self, x):
        assert self.cells[0].nonlinearity, "a plain cell"
        return super().forward(x)


def test_what_the_model_s_own_code_does_not_take_is_not_tried_and_says_so():
    case = replace(case_of("rnn cell"), model=Careful(nn.RNNCell(F_IN, H)))
    row = helped(case, "exploding", "gru", steps=1, seeds=2)
    assert row["helps"].startswith("not tried: the model's own code does not take it: AttributeError: 'GRUCell'")
    assert row["loss_before"] is row["reach_after"] is None
    assert "needs two" in helped(case, "exploding", "lstm", steps=1, seeds=2)["helps"]


@pytest.mark.parametrize("name", ["rnn", "rnn cell", "guide's network"])
def test_what_takes_the_place_of_a_layer_is_in_its_mode(name):
    case = case_of(name)
    case.model.eval()
    after = applied(by_id("gru"), case).model
    recurs = next(module for module in after.modules() if isinstance(module, (nn.GRU, nn.GRUCell)))
    assert not recurs.training


def test_an_error_of_the_model_as_it_is_stays_the_user_s_own():
    case = replace(case_of("rnn cell"), model=Careful(nn.GRUCell(F_IN, H)))
    with pytest.raises(AttributeError, match="nonlinearity"):
        trained(case.model, case.x, case.target, case.settings, 0)
    nothing = remedies.Remedy("nothing", "", ("echo",), lambda given: replace(given, model=MODELS["rnn"]()))
    with pytest.raises(AttributeError, match="nonlinearity"):
        helped(case, "echo", nothing, steps=0, seeds=1)


def test_without_a_target_the_reach_is_measured_and_nothing_is_trained():
    row = helped(replace(case_of("rnn"), target=None), "exploding", "critical", steps=1, seeds=2)
    assert row["helps"] == "not tried: there is no target to train towards"
    assert row["loss_before"] is row["loss_low"] is None
    assert 0 < row["reach_before"] < row["reach_after"]


def test_a_loss_of_the_model_s_own_is_trained_on():
    class Own(type(reader())):
        def forward(self, x):
            return {"loss": super().forward(x).square().mean()}

    torch.manual_seed(0)
    case = Case(Own(nn.RNN(F_IN, H, batch_first=True)), data()[0])
    assert helped(case, "step-size", "clip", steps=1, seeds=2)["helps"] == "no measurable help"
    found = trained(case.model, case.x, None, Settings(), 1)
    assert found.predictions is None
    assert found.loss_after < found.loss_before


def test_one_seed_has_no_interval():
    assert helped(case_of("rnn"), "exploding", "critical", steps=1, seeds=1)["helps"].startswith("not known: one seed")


def test_a_loss_that_is_not_finite_is_worse_than_any_and_two_of_them_are_alike():
    case = case_of("relu rnn")
    broken = Case(case.model, case.x * float("inf"), case.target, MSE)
    row = helped(broken, "nonfinite", "clip", steps=1, seeds=2)
    assert (row["loss_before"], row["loss_low"], row["loss_high"]) == (math.inf, 0, 0)
    assert row["helps"] == "no measurable help"
    mended = remedies.Remedy("mended", "", ("nonfinite",), lambda each: replace(each, x=case.x))
    assert helped(broken, "nonfinite", mended, steps=1, seeds=2)["helps"] == "yes"


@pytest.mark.parametrize(("count", "first"), [(1, 0), (2, 0), (5, 0), (8, 0), (9, 1), (12, 2), (20, 5)])
def test_an_interval_leaves_as_many_values_out_at_each_end_as_the_binomial_allows(count, first):
    values = [float((7 * k) % count) for k in range(count)]
    assert interval(values) == (first, count - 1 - first)
