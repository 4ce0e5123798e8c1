"""Only backward passes that bring something to a recurrent weight are training steps."""

import json

import pytest
import torch
from torch import nn

import rnnctl

B, T, F, H = 2, 6, 3, 4


class Below(nn.Module):
    """A front end, whose weight is no recurrent one, then whatever recurs."""

    def __init__(self, core):
        super().__init__()
        self.front, self.core, self.head = nn.Linear(F, F), core, nn.Linear(H, 2)

    def forward(self, x):
        return self.head(self.core(self.front(x)))


class Layer(nn.Module):
    def __init__(self, kind, **settings):
        super().__init__()
        self.rnn = kind(F, H, batch_first=True, **settings)

    def forward(self, x):
        return self.rnn(x)[0][..., :H]


class Loop(nn.Module):
    def __init__(self, kind, masked=False):
        super().__init__()
        self.cell, self.masked = kind(F, H), masked

    def forward(self, x):
        hx, found = None, []
        for t, x_t in enumerate(x.unbind(1)):
            hx = self.cell(x_t, hx)
            if self.masked and t % 2:
                hx = hx * 0.9
            found.append(hx[0] if isinstance(hx, tuple) else hx)
        return torch.stack(found, 1)


class Raw(nn.Module):
    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(0.4 * torch.randn(H, H))
        self.into = nn.Linear(F, H)

    def forward(self, x):
        h, found = x.new_zeros(len(x), H), []
        for x_t in x.unbind(1):
            h = torch.tanh(self.into(x_t) + h @ self.W)
            found.append(h)
        return torch.stack(found, 1)


CORES = {
    "LSTM": lambda: Layer(nn.LSTM),
    "GRU, two layers and directions": lambda: Layer(nn.GRU, num_layers=2, bidirectional=True),
    "GRUCell": lambda: Loop(nn.GRUCell),
    "LSTMCell": lambda: Loop(nn.LSTMCell),
    "RNNCell, states scaled between calls": lambda: Loop(nn.RNNCell, masked=True),
    "raw": Raw,
    "weight_norm": lambda: _normed(Layer(nn.RNN)),
}


def _normed(layer):
    torch.nn.utils.parametrizations.weight_norm(layer.rnn, "weight_hh_l0")
    return layer


def made(core):
    torch.manual_seed(0)
    return Below(CORES[core]()).double(), torch.randn(B, T, F, dtype=torch.float64)


def saliency(model, x):
    torch.autograd.grad(model(x).square().sum(), x)


def saliency_backward(model, x):
    model(x).square().sum().backward(inputs=[x])


def saliency_of_features(model, x):
    torch.autograd.grad(model(x).square().sum(), [x, model.front.weight])


def with_frozen_weights(model, x):
    model.requires_grad_(False)
    model(x).square().sum().backward()
    model.requires_grad_(True)


ATTACKS = (saliency, saliency_backward, saliency_of_features, with_frozen_weights)


def train(model, x):
    model(x)[:, -1].square().sum().backward()


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, weight in expected.items():
        for field in ("grad_norm_W_hh", "grad_norm_h", "grad_norm_h_direct", "grad_norm_state", "grad_W_hh"):
            torch.testing.assert_close(
                getattr(found[name], field), getattr(weight, field), rtol=0, atol=0, equal_nan=True
            )
        assert found[name].steps_per_call == weight.steps_per_call
        assert found[name].agrees is weight.agrees is not False


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("core", CORES)
def test_a_gradient_of_the_input_alone_leaves_no_trace(core, attack, order):
    model, x = made(core)
    with rnnctl.probe(model) as plain:
        train(model, x)
    model, x = made(core)
    other = torch.randn(B, T, F, dtype=torch.float64, requires_grad=True)
    with rnnctl.probe(model) as trace:
        if order == "before":
            attack(model, other)
        train(model, x)
        if order == "after":
            attack(model, other)
    assert_same(trace, plain)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("core", CORES)
def test_of_one_graph_passed_through_twice_only_the_training_step_counts(core, order):
    model, x = made(core)
    with rnnctl.probe(model) as plain:
        train(model, x)
    model, x = made(core)
    x.requires_grad_()
    with rnnctl.probe(model) as trace:
        y = model(x)
        if order == "before":
            torch.autograd.grad(y.square().sum(), x, retain_graph=True)
        y[:, -1].square().sum().backward(retain_graph=order == "after")
        if order == "after":
            torch.autograd.grad(y.square().sum(), x)
    assert_same(trace, plain)


@pytest.mark.parametrize("core", CORES)
def test_a_gradient_asked_for_by_name_is_one_as_well(core):
    model, x = made(core)
    with rnnctl.probe(model) as plain:
        train(model, x)
    model, x = made(core)
    with rnnctl.probe(model) as trace:
        torch.autograd.grad(model(x)[:, -1].square().sum(), list(model.core.parameters()), allow_unused=True)
    assert_same(trace, plain)


@pytest.mark.parametrize("core", ["LSTM", "LSTMCell", "raw"])
@pytest.mark.parametrize("attack", ATTACKS[:3])
def test_where_there_is_nothing_else_it_is_said(attack, core):
    model, x = made(core)
    with (
        pytest.raises(rnnctl.InputError, match=r"no training step: they were asked for of other tensors"),
        rnnctl.probe(model),
    ):
        attack(model, x.requires_grad_())


def test_of_several_weights_of_a_layer_those_asked_for_are_told():
    model, x = made("GRU, two layers and directions")
    rnn = model.core.rnn
    with rnnctl.probe(model) as trace:
        torch.autograd.grad(model(x).square().sum(), [rnn.weight_hh_l1, rnn.weight_ih_l0])
    assert list(trace) == ["core.rnn.weight_hh_l1"]
    assert "no backward pass asked for its gradient" in trace.missing["core.rnn.weight_hh_l0"]


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("core", CORES)
def test_watch_counts_training_steps_alone(core, attack, every, tmp_path):
    lines = []
    for adversarial in (False, True):
        model, x = made(core)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        path = tmp_path / f"{adversarial}.jsonl"
        with rnnctl.watch(model, every=every, to=path) as watching:
            for _ in range(4):
                if adversarial:
                    attack(model, x.clone().requires_grad_())
                optimizer.zero_grad()
                train(model, x)
                optimizer.step()
        assert (watching.steps, watching.probed) == (4, 4 // every)
        read = [json.loads(line) for line in path.read_text().splitlines()]
        lines.append([{name: value for name, value in line.items() if name != "run"} for line in read])
    assert lines[0] == lines[1]
    assert {line["step"] for line in lines[0]} == set(range(0, 4, every))


@pytest.mark.parametrize("core", CORES)
def test_a_saliency_map_that_lets_go_of_a_kept_graph_does_not_reach_into_the_next_step(core):
    found = []
    for saliency_between in (False, True):
        model, x = made(core)
        x.requires_grad_()
        with rnnctl.probe(model) as trace:
            y = model(x)
            y[:, -1].square().sum().backward(retain_graph=saliency_between)
            if saliency_between:
                torch.autograd.grad(y.square().sum(), x)
            train(model, 2 * x.detach())
        found.append(trace)
    assert_same(found[1], found[0])
