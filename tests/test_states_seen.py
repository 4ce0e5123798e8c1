"""Why a gradient does not come through: ends of the range of h, silent units, what is not a number."""

import json

import pytest
import torch
from torch import nn

import rnnctl
from rnnctl.__main__ import main
from rnnctl.recurrence.states_seen import percent, short

T, B, F, H = 9, 3, 3, 4


def said(capsys, *words):
    code = main([*words, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)["scalars"]


def test_raw_data_says_that_it_saturates_and_what_helps(capsys):
    found = said(capsys, "gradnorm", "--input", "macrodata")
    assert found["verdict"] == "vanishing"
    assert found["reason"].endswith("; 99.98 % of h beyond 0.99: x reaches 1.3e4; try --standardize")
    assert found["saturated_fraction"] == pytest.approx(0.9998, abs=5e-5)
    assert "beyond" not in said(capsys, "gradnorm", "--input", "macrodata", "--standardize")["reason"]


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_of_every_cell_raw_data_is_said_to_leave_nothing(cell, capsys):
    found = said(capsys, "gradnorm", "--input", "macrodata", "--cell", cell)
    assert "x reaches 1.3e4; try --standardize" in found["reason"]
    assert found["saturated_fraction"] + found["dead_fraction"] > 0.5
    # Sums of as large numbers are rounded as coarsely: no disagreement, and not said to be none by much.
    assert (found["autograd_relative_error"] or 0) < found["autograd_tolerance"] < 1e-2
    found = said(capsys, "gradnorm", "--input", "macrodata", "--cell", cell, "--standardize")
    assert "x reaches" not in found["reason"]
    assert found["autograd_tolerance"] == 1e-5


def test_units_that_never_fire_are_counted(capsys):
    model = nn.RNN(F, H, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        model.bias_ih_l0.copy_(torch.tensor([-100.0, -100.0, -100.0, 1.0]))
    found = rnnctl.gradnorm(model, torch.randn(B, T, F)).scalars
    assert (found["dead_fraction"], found["saturated_fraction"]) == (0.75, None)
    assert "75 % of the units at 0 at every step: they pass nothing on" in found["reason"]


def test_large_weights_are_not_blamed_on_the_input(capsys):
    found = said(capsys, "gradnorm", "--gain", "50")
    assert (
        "% of h beyond 0.99, though x is small: the weights or biases are large; draw them smaller" in (found["reason"])
    )


@pytest.mark.parametrize("layers", [1, 2])
def test_the_share_is_that_of_the_states_themselves(layers):
    torch.manual_seed(0)
    model, x = nn.RNN(F, H, num_layers=layers, batch_first=True), 3 * torch.randn(B, T, F)
    h = model(x)[0].detach()
    weight = rnnctl.gradnorm(model, x).weights[f"weight_hh_l{layers - 1}"]
    assert weight.seen.saturated_fraction == float((h.abs() > 0.99).double().mean())
    if layers == 1:
        assert weight.seen.largest_input == float(x.abs().max())


def test_of_packed_sequences_real_steps_alone_count():
    torch.manual_seed(0)
    model, x = nn.RNN(F, H, batch_first=True), 30 * torch.randn(B, T, F)
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([T, 4, 2]), batch_first=True)
    with rnnctl.probe(model, decay=True) as trace:
        output = model(packed)[0]
        output.data.square().sum().backward()
    seen = trace["weight_hh_l0"].seen
    assert seen.entries == output.data.numel()
    assert seen.saturated == int((output.data.abs() > 0.99).sum())


class Net(nn.Module):
    """A layer, or a cell in a loop, whose input is spoilt at a step."""

    def __init__(self, kind, in_a_loop, spoil=lambda x_t: x_t, at=3):
        super().__init__()
        self.rnn = None if in_a_loop else getattr(nn, kind)(F, H, num_layers=2, batch_first=True)
        self.cell = getattr(nn, f"{kind}Cell")(F, H) if in_a_loop else None
        self.spoil, self.at = spoil, at

    def forward(self, x):
        x = torch.stack([self.spoil(x_t) if t == self.at else x_t for t, x_t in enumerate(x.unbind(1))], 1)
        if self.rnn is not None:
            return self.rnn(x)[0]
        state, found = None, []
        for x_t in x.unbind(1):
            state = self.cell(x_t, state)
            found.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(found, 1)


QUESTIONS = [
    ("gradnorm", lambda model, x, only: rnnctl.gradnorm(model, x, only=only)),
    ("flow", lambda model, x, only: rnnctl.flow(model, x, only=only)),
    ("truncation", lambda model, x, only: rnnctl.truncation(model, x, only=only)),
]


@pytest.mark.parametrize(("question", "ask"), QUESTIONS)
@pytest.mark.parametrize("in_a_loop", [False, True])
@pytest.mark.parametrize(("kind", "gate"), [("RNN", None), ("GRU", "r"), ("LSTM", "i")])
def test_an_input_that_is_not_finite_is_found_at_its_step(question, ask, kind, gate, in_a_loop):
    model = Net(kind, in_a_loop, lambda x_t: x_t * torch.nan)
    weight = "cell.weight_hh" if in_a_loop else "rnn.weight_hh_l0"
    found = ask(model, torch.randn(B, T, F), weight).scalars
    assert found["first_nonfinite_step"] == 3
    assert found["first_nonfinite_weight"] == weight
    assert found["first_nonfinite_gate"] == gate


@pytest.mark.parametrize(("question", "ask"), QUESTIONS)
@pytest.mark.parametrize(("kind", "letters"), [("GRU", "rzn"), ("LSTM", "ifgo")])
def test_the_gate_that_gets_no_number_is_named(question, ask, kind, letters):
    for place, letter in enumerate(letters):
        model = Net(kind, in_a_loop=False)
        with torch.no_grad():
            model.rnn.bias_ih_l1[place * H] = torch.nan
        found = ask(model, torch.randn(B, T, F), "*l1").scalars
        assert (found["first_nonfinite_step"], found["first_nonfinite_gate"]) == (0, letter)
        if question == "gradnorm":
            whole = rnnctl.gradnorm(model, torch.randn(B, T, F)).scalars
            assert whole["first_nonfinite_weight"] == "rnn.weight_hh_l1"
            assert f"h_t is not finite first at step 0 (rnn.weight_hh_l1, gate {letter})" in whole["reason"]


@pytest.mark.parametrize(("question", "ask"), QUESTIONS)
def test_a_relu_that_overflows_is_followed_to_its_step(question, ask):
    model, x = nn.RNN(F, 1, nonlinearity="relu", batch_first=True), torch.ones(1, 30, F)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1.0)
        model.weight_hh_l0.fill_(1e3)
    # 5 (1 + 1e3 + ... + 1e3^t) is beyond float32 from the step on at which 1e3^t > 3.4e38 / 5.
    found = ask(model, x, None).scalars
    assert (found["first_nonfinite_step"], found["first_nonfinite_gate"]) == (13, None)


def test_in_reverse_it_is_the_step_of_the_sequence():
    model, x = nn.GRU(F, H, bidirectional=True, batch_first=True), torch.randn(B, T, F)
    x[:, 5] = torch.inf
    found = rnnctl.gradnorm(model, x)
    assert {name: weight.seen.first_nonfinite for name, weight in found.weights.items()} == {
        "weight_hh_l0": 5,
        "weight_hh_l0_reverse": 5,
    }


class ByHand(nn.Module):
    """Weights of its own, found in autograd's graph; keeps its states for the tests."""

    def __init__(self, style, f=torch.tanh):
        super().__init__()
        self.style, self.f, self.states = style, f, []
        self.W, self.b = nn.Parameter(0.5 * torch.randn(H, H)), nn.Parameter(torch.zeros(H))
        self.into, self.both = nn.Linear(F, H), nn.Linear(F + H, H)

    def step(self, x_t, h):
        if self.style == "matrix":
            return self.f(self.into(x_t) + h @ self.W)
        if self.style == "linear":
            return self.f(self.into(x_t) + nn.functional.linear(h, self.W, self.b))
        if self.style == "column":
            return self.f(self.into(x_t) + (self.W @ h.t()).t())
        if self.style == "cat":
            return self.f(self.both(torch.cat([x_t, h], 1)))
        return torch.utils.checkpoint.checkpoint(
            lambda x_t, h: self.f(self.into(x_t) + h @ self.W), x_t, h, use_reentrant=False
        )

    def forward(self, x):
        h, self.states = x.new_zeros(len(x), H), []
        for x_t in x.unbind(1):
            h = self.step(x_t, h)
            self.states.append(h.detach())
        return h


@pytest.mark.parametrize("style", ["matrix", "linear", "column", "cat"])
def test_of_weights_written_by_hand_what_they_multiply_tells(style):
    torch.manual_seed(0)
    model, x = ByHand(style), 40 * torch.randn(B, T, F)
    found = rnnctl.gradnorm(model, x)
    # All states but the last, which nothing multiplies.
    h = torch.stack(model.states[:-1])
    seen = next(weight.seen for name, weight in found.weights.items() if name in ("W", "both.weight"))
    if style == "column":
        # Kept the other way round: units and sequences are not told apart, and their number is the same.
        assert seen.entries == h.numel()
    share = float((h.abs() > 0.99).double().sum()) / h.numel()
    assert seen.saturated / h.numel() == pytest.approx(share, abs=1e-9)
    assert seen.largest_input == pytest.approx(float(x.abs().max()))


@pytest.mark.parametrize(("question", "ask"), QUESTIONS[:1])
@pytest.mark.parametrize("style", ["matrix", "linear", "column", "cat"])
def test_of_weights_written_by_hand_the_first_step_without_a_number_is_found(style, question, ask):
    model, x = ByHand(style, torch.relu), torch.ones(B, 30, F)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(300.0)
    found = ask(model, x, None)
    first = next(t for t, h in enumerate(model.states) if not h.isfinite().all())
    name = "both.weight" if style == "cat" else "W"
    assert (found.scalars["first_nonfinite_step"], found.scalars["first_nonfinite_weight"]) == (first, name)
    assert found.scalars["verdict"] == "nonfinite"
    assert f"h_t is not finite first at step {first} ({name})" in found.scalars["reason"]


def test_what_a_checkpoint_would_make_once_more_is_not_asked_for():
    torch.manual_seed(0)
    x = torch.randn(B, T, F)
    plain, saving = ByHand("matrix"), ByHand("checkpoint")
    saving.load_state_dict(plain.state_dict())
    found, expected = rnnctl.gradnorm(saving, x), rnnctl.gradnorm(plain, x)
    torch.testing.assert_close(found.weights["W"].grad_W_hh, expected.weights["W"].grad_W_hh)
    assert found.scalars["verdict"] == expected.scalars["verdict"]
    assert found.scalars["saturated_fraction"] is None
    assert found.why["saturated_fraction"].startswith("of a weight that was found in autograd's graph")


def test_numbers_are_short_and_a_rest_is_never_rounded_away():
    assert [percent(share) for share in (0.9998, 0.99999, 1.0, 0.5, 0.0123)] == [
        "99.98 %",
        "99.99 %",
        "100 %",
        "50 %",
        "1.23 %",
    ]
    assert [short(value) for value in (13197.0, 5.04, 0.3, 1e-7)] == ["1.3e4", "5", "0.3", "1e-7"]


def test_of_states_that_are_not_kept_nothing_is_said_but_where_they_fail():
    model, x = ByHand("matrix", torch.relu), torch.ones(B, 30, F)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(300.0)
    # Elementwise beside the product: what a step keeps is more than its state.
    model.step = lambda x_t, h: torch.relu(model.into(x_t) + torch.einsum("bi,ij->bj", h, model.W * h.mean()))
    found = rnnctl.gradnorm(model, x)
    assert found.weights["W"].seen.silent is None
    assert found.scalars["first_nonfinite_step"] is not None
    for name in ("dead_fraction", "saturated_fraction"):
        assert found.scalars[name] is None
        assert found.why[name].startswith("of a weight that was found in autograd's graph")
    assert found.scalars["largest_input"] == 1.0
