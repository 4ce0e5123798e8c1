"""Flow and truncation of any model: against autograd for every loss step, over clones and over detached windows."""

import pytest
import torch
from probe_oracles import ByClones
from torch import nn

import rnnctl
from rnnctl import FullRNN, InputError, ShapeError, model_flow, model_truncation
from rnnctl.models.torch_layers import LayeredRNN

KINDS = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}
B, H = 2, 4


class Net(nn.Module):
    """A stack with a readout at every step."""

    def __init__(self, kind="LSTM", layers=1, **settings):
        super().__init__()
        self.rnn = KINDS[kind](3, H, layers, batch_first=True, **settings)
        self.head = nn.Linear(H * (2 if self.rnn.bidirectional else 1), 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class FromLastState(Net):
    """What is said at the last step is read off h_n."""

    def forward(self, x):
        h, state = self.rnn(x)
        last = (state[0] if isinstance(state, tuple) else state)[-1]
        return torch.cat([self.head(h[:, :-1]), self.head(last)[:, None]], 1)


class Late(Net):
    """Nothing before step 3 depends on the recurrence."""

    def forward(self, x):
        y = super().forward(x)
        return torch.cat([y[:, :3].detach() + self.head.bias, y[:, 3:]], 1)


class Loop(nn.Module):
    """An Elman network by nn.RNNCell in a loop, or by hand."""

    def __init__(self, like: FullRNN):
        super().__init__()
        self.cell = nn.RNNCell(3, H).double()
        self.recurrent = nn.Linear(H, H).double()
        self.head, own = like.hidden_to_output, like.rnn_cell
        named = {"ih": own.input_to_hidden, "hh": own.hidden_to_hidden}
        self.cell.load_state_dict(
            {f"{part}_{key}": getattr(linear, part).detach() for key, linear in named.items() for part in KEYS}
        )
        self.recurrent.load_state_dict(own.hidden_to_hidden.state_dict())

    def forward(self, x):
        h, outputs = x.new_zeros(x.shape[0], H), []
        for x_t in x.unbind(1):
            h = self.step(x_t, h)
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)

    def step(self, x_t, h):
        return self.cell(x_t, h)


class ByHand(Loop):
    def step(self, x_t, h):
        return torch.tanh(x_t @ self.cell.weight_ih.T + self.cell.bias_ih + self.recurrent(h))


KEYS = ("weight", "bias")


def net(kind="LSTM", layers=1, T=5, made=Net, **settings):
    """A model in float64, with recurrent weights large enough that no step dies away, and its input."""
    torch.manual_seed(0)
    model = made(kind, layers, **settings).double()
    for name, weight in model.rnn.named_parameters():
        if name.startswith("weight_hh"):
            nn.init.orthogonal_(weight, gain=1.3)
    return model, torch.randn(B, T, 3, dtype=torch.float64)


def elman(T=5):
    torch.manual_seed(1)
    return FullRNN(3, H, 2, dtype=torch.float64), torch.randn(B, T, 3, dtype=torch.float64)


def loss_at(model, k, T, h, target=None):
    """L_k from the outputs h (time, batch, hidden), whose last step is k."""
    y = model.head(h[-1])
    return (y - (0 if target is None else target[:, k])).pow(2).mean() / T


def flow_by_clones(model, x, weight, target=None):
    """Norms F[k, t] and those of dL_k/dh_t, and the sum of all contributions."""
    T = x.shape[1]
    norms, sensitivity = torch.zeros(2, T, T, dtype=torch.float64)
    total = 0
    for k in range(T):
        clones = ByClones(model.rnn)
        out, _, _ = clones(x[:, : k + 1].transpose(0, 1))
        loss_at(model, k, T, out, target).backward()
        found = clones.results()[weight]
        norms[k, : k + 1], sensitivity[k, : k + 1] = found["W_hh"], found["h"]
        total = total + found["G"].sum(0)
    return norms, sensitivity, total


def truncated_by_detaching(model, x, weight, window):
    """The sum over k of dL_k/dW_hh, the states before the window given as constants to every layer."""
    T, total = x.shape[1], 0
    for k in range(T):
        start = max(0, k + 1 - window)
        state = None
        if start > 0:
            with torch.no_grad():
                state = model.rnn(x[:, :start])[1]
            state = state if isinstance(state, tuple) else (state,)
        clones = ByClones(model.rnn)
        out, _, _ = clones(x[:, start : k + 1].transpose(0, 1), state)
        loss_at(model, k, T, out).backward()
        total = total + clones.results()[weight]["G"].sum(0)
    return total


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_flow_is_that_of_clones_for_every_layer(kind, layers):
    model, x = net(kind, layers)
    target = torch.randn(B, 5, 2, dtype=torch.float64)
    for layer in range(layers):
        weight = f"weight_hh_l{layer}"
        found = model_flow(model, x, target=target, only=f"rnn.{weight}", verify=True)
        norms, sensitivity, total = flow_by_clones(model, x, weight, target)
        torch.testing.assert_close(found.norms, norms, rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(found.sensitivity, sensitivity, rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(found.grad_W_hh, total, rtol=1e-9, atol=1e-15)
        assert found.loss == pytest.approx(float((model(x) - target).detach().pow(2).mean()), rel=1e-12)
        assert found.agreement.holds


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_truncation_is_that_of_detached_windows_for_every_layer(kind, layers):
    model, x = net(kind, layers)
    for layer in range(layers):
        weight = f"weight_hh_l{layer}"
        found = model_truncation(model, x, windows=[1, 3], only=f"rnn.{weight}", verify=True)
        assert found.windows == (1, 3, 5)
        for window, gradient in zip(found.windows, found.gradients, strict=True):
            expected = truncated_by_detaching(model, x, weight, window)
            torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-14)
        assert found.agreement.holds


def test_a_relu_stack_without_biases_is_followed_too():
    model, x = net("RNN", 2, nonlinearity="relu", bias=False)
    found = model_truncation(model, x, windows=[2], only="*l1")
    expected = truncated_by_detaching(model, x, "weight_hh_l1", 2)
    torch.testing.assert_close(found.gradients[0], expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("loss", ["mse", "cross-entropy", "sum"])
def test_of_the_hand_written_network_both_are_those_of_the_fast_sweep(loss):
    model, x = elman()
    target = {"mse": torch.randn(B, 5, 2, dtype=torch.float64), "cross-entropy": torch.randint(0, 2, (B, 5))}.get(loss)
    found, expected = (f(model, x, target=target, loss=loss) for f in (model_flow, rnnctl.flow))
    torch.testing.assert_close(found.norms, expected.norms, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(found.sensitivity, expected.sensitivity, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(found.log_relative, expected.log_relative, rtol=1e-9, atol=1e-9)
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)


def test_of_torchs_layer_with_its_weights_both_are_those_of_the_hand_written_network():
    own, x = elman()
    layered = LayeredRNN("rnn", 3, H, 2).double()
    names = {"ih": own.rnn_cell.input_to_hidden, "hh": own.rnn_cell.hidden_to_hidden}
    state = {f"rnn.{part}_{key}_l0": getattr(names[key], part) for key in names for part in KEYS}
    layered.load_state_dict({**state, **{f"hidden_to_output.{k}": getattr(own.hidden_to_output, k) for k in KEYS}})
    torch.testing.assert_close(model_flow(layered, x).norms, rnnctl.flow(own, x).norms, rtol=1e-9, atol=1e-15)
    found, expected = model_truncation(layered, x), rnnctl.truncation(own, x)
    assert found.windows == expected.windows
    torch.testing.assert_close(torch.stack([*found.gradients]), torch.stack([*expected.gradients]))


@pytest.mark.parametrize(("made", "linear", "only"), [(Loop, (), None), (ByHand, ("recurrent",), "recurrent.weight")])
def test_flow_of_a_loop_of_the_users_is_that_of_the_same_network(made, linear, only):
    own, x = elman()
    found, expected = model_flow(made(own), x, linear=linear, only=only), rnnctl.flow(own, x)
    torch.testing.assert_close(found.norms, expected.norms, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(found.grad_W_hh, expected.grad_W_hh, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_a_last_output_read_off_the_last_state_changes_nothing(kind):
    (plain, x), (model, _) = net(kind), net(kind, made=FromLastState)
    model.load_state_dict(plain.state_dict())
    torch.testing.assert_close(model_flow(model, x).norms, model_flow(plain, x).norms, rtol=1e-9, atol=1e-15)
    found, expected = (model_truncation(each, x, windows=[1, 3]).gradients for each in (model, plain))
    torch.testing.assert_close(torch.stack([*found]), torch.stack([*expected]), rtol=1e-9, atol=1e-14)


def test_loss_steps_that_do_not_reach_the_weight_are_rows_of_zeros():
    model, x = net(made=Late)
    found, whole = model_flow(model, x), model_flow(net()[0], x)
    assert not found.norms[:3].any()
    torch.testing.assert_close(found.norms[3:], whole.norms[3:])
    assert all(found.scalars[name] is not None for name in ("loss", "grad_W_hh_norm", "median_reach"))
    assert len(model_truncation(model, x, windows=[1]).gradients) == 2


@pytest.mark.parametrize("function", [model_flow, model_truncation])
def test_dropout_between_layers_keeps_its_masks_in_every_backward_pass(function):
    model, x = net("LSTM", 2, dropout=0.5)
    assert function(model.train(), x, only="*l0", verify=True).agreement.holds


@pytest.mark.parametrize("function", [model_flow, model_truncation])
def test_the_model_is_left_as_it_was(function):
    model, x = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.head.weight.grad = torch.ones_like(model.head.weight)
    seen = []
    function(model, x, progress=seen.append)
    assert seen == [pytest.approx((k + 1) / 5) for k in range(5)]
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert all(parameter.grad is None for parameter in model.rnn.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.rnn._forward_hooks


class Pooled(Net):
    def forward(self, x):
        return super().forward(x).mean(1)


class EverySecond(Net):
    """Twice as many outputs as steps of the recurrence."""

    def forward(self, x):
        return self.head(self.rnn(x[:, ::2])[0]).repeat_interleave(2, 1)[:, :5]


class Smoothed(Net):
    def forward(self, x):
        y = super().forward(x)
        return y + y.mean(1, keepdim=True)


@pytest.mark.parametrize("function", [model_flow, model_truncation])
@pytest.mark.parametrize(
    ("made", "settings", "error", "message"),
    [
        (Net, {"layers": 2}, InputError, "follow one weight; pick one with --module of rnn.weight_hh_l0, rnn.weight"),
        (Smoothed, {}, InputError, "loss at step 0 depends on later steps of rnn.weight_hh_l0"),
        (Pooled, {}, ShapeError, r"needs an output of shape \(batch, time, output\); got \(2, 2\)"),
        (EverySecond, {}, InputError, "rnn.weight_hh_l0 ran 3 steps; the output has 5"),
    ],
)
def test_what_has_no_flow_is_refused(function, made, settings, error, message):
    model, x = net(made=made, **settings)
    with pytest.raises(error, match=message):
        function(model, x)


def test_a_reverse_direction_is_refused_and_the_forward_one_beside_it_followed():
    model, x = net(bidirectional=True)
    with pytest.raises(InputError, match="depends on later steps of rnn.weight_hh_l0_reverse"):
        model_flow(model, x, only="*_reverse")
    assert model_flow(model, x, only="rnn.weight_hh_l0", verify=True).agreement.holds
    with pytest.raises(InputError, match="truncation cuts .* in one direction"):
        model_truncation(model, x, only="rnn.weight_hh_l0")


def test_truncation_of_a_loop_of_the_users_is_refused_with_the_remedy():
    own, x = elman()
    with pytest.raises(InputError, match=r"cell.weight_hh was called 5 times.* cut by h.detach\(\)"):
        model_truncation(Loop(own), x)


@pytest.mark.parametrize("windows", [[0], [6]])
def test_a_window_outside_the_sequence_is_refused(windows):
    model, x = net()
    with pytest.raises(InputError, match="windows must be from 1 to the sequence's 5 steps"):
        model_truncation(model, x, windows=windows)
