"""What the hand-written network is compared with: torch's recurrence where that is its own, else its own loop."""

import itertools

import pytest
import torch
from oracles import contributions_by_clones
from shell import Run, runner
from torch import nn

import rnnctl
from rnnctl import FullRNN
from rnnctl.cells import ManualRNNCell
from rnnctl.gradients.autograd import autograd_reference
from rnnctl.models.hand_written import posed
from rnnctl.models.in_torch import torchs_recurrence

STATE_BYTES = 3 * 5 * 8


def network(**settings):
    torch.manual_seed(3)
    return FullRNN(4, 5, 2, dtype=torch.float64, **settings)


def batch(T=7, B=3):
    torch.manual_seed(4)
    return torch.randn(B, T, 4, dtype=torch.float64)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path) -> Run:
    return runner(capsys, monkeypatch, tmp_path)


@pytest.fixture
def without_loop(monkeypatch):
    def loop(problem):
        raise AssertionError("the model's own loop ran")

    monkeypatch.setattr("rnnctl.gradients.autograd.loop_reference", loop)


@pytest.mark.parametrize("steps_a_call", [1, 3, 7, 100])
@pytest.mark.parametrize("loss_at", ["last", "all"])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_torchs_recurrence_gives_the_gradient_and_states_of_clones(
    monkeypatch, without_loop, nonlinearity, loss_at, steps_a_call
):
    monkeypatch.setattr("rnnctl.gradients.autograd.CALL_BYTES", steps_a_call * STATE_BYTES)
    for T, bias in itertools.product((1, 2, 7), (True, False)):
        model, x = network(nonlinearity=nonlinearity, bias=bias), batch(T)
        h_init, target = torch.randn(3, 5).double(), torch.randn(3, T, 2).double()
        found = autograd_reference(posed(model, x, target, "mse", loss_at, h_init))
        expected = contributions_by_clones(
            model.state_dict(), x, nonlinearity, loss_at, target=target, loss="mse", h_init=h_init
        )
        torch.testing.assert_close(found.grad_W_hh, expected["G"].sum(0), rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(found.h[1:], expected["h"], rtol=1e-12, atol=1e-14)
        assert torch.equal(found.h[0], h_init)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "tanh"])
@pytest.mark.parametrize("loss_at", ["last", "all"])
def test_torchs_recurrence_is_read_out_as_the_model_does(without_loop, activation, loss_at):
    model, x = network(output_activation=activation), batch()
    found = autograd_reference(posed(model, x, None, "mse", loss_at, None))
    model(x)[:, -1 if loss_at == "last" else slice(None)].square().mean().backward()
    torch.testing.assert_close(found.grad_W_hh, model.rnn_cell.hidden_to_hidden.weight.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_torchs_recurrence_has_every_dtype(without_loop, dtype):
    found = rnnctl.gradnorm(network().to(dtype), batch().to(dtype), loss_at="all", verify=True)
    assert found.agreement.holds


def test_the_comparison_leaves_model_and_random_numbers_as_they_were():
    model, x = network(), batch()
    before, state = torch.get_rng_state(), {name: part.clone() for name, part in model.state_dict().items()}
    autograd_reference(posed(model, x, None, "mse", "all", None))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(part, state[name]) for name, part in model.state_dict().items())
    assert all(part.grad is None and part.requires_grad for part in model.parameters())


class Louder(FullRNN):
    def forward(self, input_sequence, h_init=None):
        return 3 * super().forward(input_sequence, h_init)


class LeakyCell(ManualRNNCell):
    def forward(self, x_t, h_t_minus_1):
        return 0.5 * h_t_minus_1 + 0.5 * super().forward(x_t, h_t_minus_1)


def with_a_leaky_cell():
    model = network()
    model.rnn_cell.__class__ = LeakyCell
    return model


def with_a_hook(path):
    model = network()
    model.get_submodule(path).register_forward_hook(lambda module, args, out: 3 * out)
    return model


def with_a_forward_of_its_own():
    model = network()
    forward = model.rnn_cell.forward
    model.rnn_cell.forward = lambda x_t, h_t: 3 * forward(x_t, h_t)
    return model


def with_its_readout_tied():
    model = network()
    model.hidden_to_output = nn.Linear(5, 5).double()
    model.hidden_to_output.weight = model.rnn_cell.hidden_to_hidden.weight
    return model


def with_softmax_over_the_batch():
    model = network()
    model.output_activation = nn.Softmax(dim=0)
    return model


OTHERS = {
    "a forward of its class": lambda: Louder(4, 5, 2, dtype=torch.float64),
    "a cell of another class": with_a_leaky_cell,
    "a hook on the model": lambda: with_a_hook(""),
    "a hook on the cell": lambda: with_a_hook("rnn_cell"),
    "a hook on W_hh": lambda: with_a_hook("rnn_cell.hidden_to_hidden"),
    "a hook on the readout": lambda: with_a_hook("hidden_to_output"),
    "a hook on f_h": lambda: with_a_hook("rnn_cell.activation"),
    "a forward of its own": with_a_forward_of_its_own,
    "a tied readout": with_its_readout_tied,
    "a softmax over the batch": with_softmax_over_the_batch,
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_the_model_itself_does_otherwise_is_compared_as_it_does_it(what):
    model, x = OTHERS[what](), batch()
    assert torchs_recurrence(model) is None
    found = autograd_reference(posed(model, x, None, "mse", "all", None))
    model(x).square().mean().backward()
    torch.testing.assert_close(found.grad_W_hh, model.rnn_cell.hidden_to_hidden.weight.grad, rtol=1e-10, atol=1e-14)


def test_a_hook_on_all_modules_goes_with_the_models_own_loop():
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, out: None)
    try:
        assert torchs_recurrence(network()) is None
    finally:
        handle.remove()
    assert torchs_recurrence(network()) is torch.rnn_tanh


def test_what_torch_has_not_goes_with_the_models_own_loop():
    model = network()
    model.rnn_cell.hidden_to_hidden.bias = None
    assert torchs_recurrence(model) is None
    assert rnnctl.gradnorm(model, batch(), verify=True).agreement.holds
    assert torchs_recurrence(network(nonlinearity="linear")) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert torchs_recurrence(network()) is None


def test_a_readout_without_bias_is_torchs_all_the_same(without_loop):
    model = network()
    model.hidden_to_output.bias = None
    assert rnnctl.gradnorm(model, batch(), loss_at="all", verify=True).agreement.holds


def test_a_comparison_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    problem = posed(network(), batch(), None, "mse", "all", None)
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: 7 * STATE_BYTES)
    with pytest.raises(rnnctl.TooLargeError, match=r"autograd's tape of 7 steps would take .* 840 B is available"):
        autograd_reference(problem)


COMPARING = ["gradnorm", "flow", "truncation", "flow --cell lstm", "truncation --cell gru"]


def taking(monkeypatch, seconds):
    ticks = itertools.count(0, seconds)
    monkeypatch.setattr("rnnctl.gradients.agreement._clock", lambda: next(ticks))


@pytest.mark.parametrize("command", COMPARING)
def test_a_comparison_of_over_a_second_says_how_to_leave_it_out(run, monkeypatch, command):
    taking(monkeypatch, 2.34)
    ran = run(f"{command} --json")
    assert ran.code == 0
    assert ran.err == "Note: the comparison with autograd took 2.3 s; --no-verify leaves it out\n"
    assert "2.3" not in run(f"{command} --quiet").err
    assert run(f"{command} --no-verify").err == ""
    # Two runs print the same, whatever they took.
    taking(monkeypatch, 1.0)
    again = run(f"{command} --json")
    assert (again.out, again.err) == (ran.out, "")


def test_the_remark_stands_beside_a_condition_that_held_and_a_disagreement(run, monkeypatch):
    taking(monkeypatch, 5)
    ran = run("gradnorm", "--fail-on", "loss>0")
    assert ran.code == 3
    assert "took 5.0 s; --no-verify leaves it out" in ran.err
    monkeypatch.setattr("rnnctl.gradients.autograd.TOLERANCES", {torch.float32: -1.0})
    ran = run("gradnorm")
    assert ran.code == 1
    assert "took 5.0 s; --no-verify leaves it out" in ran.err


def test_where_autograd_runs_anyway_nothing_is_said_of_time(run, monkeypatch):
    taking(monkeypatch, 5)
    assert run("gradnorm --cell rnn").err == ""
