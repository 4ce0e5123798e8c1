"""Flow and truncation of any model: against autograd for every loss step, over clones and over detached windows."""

from dataclasses import replace

import pytest
import torch
from probe_oracles import ByClones
from torch import nn

import rnnctl
from rnnctl import FullRNN, InputError, ShapeError, model_flow, model_truncation
from rnnctl.gradients.probe import probed
from rnnctl.models.torch_layers import LayeredRNN

KINDS = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM, "CoupledLSTM": rnnctl.CoupledLSTM}
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


class Averaged(Net):
    """Every output reads the states of all steps up to its own."""

    def forward(self, x):
        h = self.rnn(x)[0]
        steps = torch.arange(1, h.shape[1] + 1, dtype=h.dtype)
        return self.head(h.cumsum(1) / steps[:, None])


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
    y = model.head(h.mean(0) if isinstance(model, Averaged) else h[-1])
    return (y - (0 if target is None else target[:, k])).pow(2).mean() / T


def flow_by_clones(model, x, weight, target=None):
    """Norms F[k, t] and those of dL_k/dh_t and dL_k/dc_t (None without c), and the sum of all contributions."""
    T = x.shape[1]
    norms, h, c = torch.zeros(3, T, T, dtype=torch.float64)
    has_c = "LSTM" in model.rnn.mode
    total = 0
    for k in range(T):
        clones = ByClones(model.rnn)
        out, _, _ = clones(x[:, : k + 1].transpose(0, 1))
        loss_at(model, k, T, out, target).backward()
        found = clones.results()[weight]
        norms[k, : k + 1], h[k, : k + 1] = found["W_hh"], found["h"]
        if has_c:
            c[k, : k + 1] = found["c"]
        total = total + found["G"].sum(0)
    return norms, (h, c if has_c else None), total


def assert_states(found, expected, atol=1e-15):
    """h and c of a flow, each, and both beside one another."""
    h, c = expected
    torch.testing.assert_close(found.sensitivity_h, h, rtol=1e-9, atol=atol)
    if c is None:
        assert found.sensitivity_c is None
        assert found.sensitivity.equal(found.sensitivity_h)
    else:
        torch.testing.assert_close(found.sensitivity_c, c, rtol=1e-9, atol=atol)
        torch.testing.assert_close(found.sensitivity, torch.hypot(h, c), rtol=1e-9, atol=atol)


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
        norms, states, total = flow_by_clones(model, x, weight, target)
        torch.testing.assert_close(found.norms, norms, rtol=1e-9, atol=1e-15)
        assert_states(found, states)
        torch.testing.assert_close(found.grad_W_hh, total, rtol=1e-9, atol=1e-15)
        assert found.loss == pytest.approx(float((model(x) - target).detach().pow(2).mean()), rel=1e-12)
        assert found.agreement.holds


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_flow_through_a_readout_of_several_steps_is_that_of_clones(kind, layers):
    model, x = net(kind, layers, made=Averaged)
    weight = "weight_hh_l0"
    found = model_flow(model, x, only=f"rnn.{weight}", verify=True)
    norms, states, total = flow_by_clones(model, x, weight)
    torch.testing.assert_close(found.norms, norms, rtol=1e-9, atol=1e-15)
    assert_states(found, states)
    torch.testing.assert_close(found.grad_W_hh, total, rtol=1e-9, atol=1e-15)
    assert found.agreement.holds


class Skipping(nn.Module):
    """Every output reads the state of its own step and that of ``gap`` steps before."""

    def __init__(self, kind, gap, hidden=2):
        super().__init__()
        self.rnn, self.gap = KINDS[kind](3, hidden, batch_first=True), gap
        self.head = nn.Linear(hidden, 2)

    def forward(self, x):
        h = self.rnn(x)[0]
        return self.head(h + nn.functional.pad(h, (0, 0, self.gap, 0))[:, : h.shape[1]])


@pytest.mark.parametrize(("gain", "T", "gap"), [(0.3, 80, 60), (3.0, 80, 60), (1.0, 40, 1), (0.02, 40, 30)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_enters_long_after_a_gradient_has_vanished_or_exploded_keeps_its_size(gain, T, gap, dtype):
    torch.manual_seed(0)
    model, x = Skipping("RNN", gap).double(), 0.1 * torch.randn(2, T, 3).double()
    with torch.no_grad():
        nn.init.orthogonal_(model.rnn.weight_hh_l0, gain=gain)
    found = rnnctl.flow(model.to(dtype), x.to(dtype), verify=True)
    # By T passes of our own: total dL_k/dh_t from states that keep their gradients.
    cell = nn.RNNCell(3, 2).double()
    cell.load_state_dict({name.removesuffix("_l0"): value.double() for name, value in model.rnn.state_dict().items()})
    head, h_t, states = model.head.double(), torch.zeros(2, 2).double(), []
    for x_t in x.unbind(1):
        h_t = cell(x_t, h_t)
        states.append(h_t)
    for k in (T - 1, gap):
        read = states[k] + (states[k - gap] if k >= gap else 0)
        loss = head(read).square().mean() / T
        grads = torch.autograd.grad(loss, states[: k + 1], retain_graph=True)
        expected = torch.stack([grad.norm() for grad in grads])
        rtol = 1e-9 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(found.sensitivity[k, : k + 1], expected, rtol=rtol, atol=1e-300)
    assert found.agreement.holds


def test_a_readout_a_thousand_steps_back_is_not_taken_for_its_own_step():
    torch.manual_seed(0)
    model, x = Skipping("RNN", 1024).double(), torch.randn(1, 1060, 3).double()
    with torch.no_grad():
        model.rnn.weight_hh_l0.mul_(0.1)
    found = rnnctl.flow(model, x, verify=True)
    own = found.sensitivity[1059, 1059]
    assert found.sensitivity[1059, 35] == pytest.approx(float(own), rel=1e-6)
    assert found.agreement.holds


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_what_vanishes_by_many_magnitudes_is_followed_in_every_state_and_layer(kind, layers):
    model, x = net(kind, layers, T=36)
    with torch.no_grad():
        for name, parameter in model.rnn.named_parameters():
            # Gates that keep little, and a W_hh that hands on less.
            parameter.mul_(0.05 if name.startswith("weight_hh") else 1.0).sub_(1.5 if name.startswith("bias_hh") else 0)
    found = model_flow(model, x, only="*l0", verify=True)
    norms, states, _ = flow_by_clones(model, x, "weight_hh_l0")
    assert states[0][-1, 0] < 1e-7 * states[0][-1, -1]
    torch.testing.assert_close(found.norms, norms, rtol=1e-9, atol=0)
    assert_states(found, states, atol=0)
    assert found.agreement.holds


@pytest.mark.parametrize("memory", [None, 10**5, 1])
def test_memory_decides_how_losses_are_taken_together_and_not_what_comes_out(memory, monkeypatch):
    model, x = net("LSTM", 2, T=9, made=Averaged)
    whole = model_flow(model, x, only="*l0"), model_truncation(model, x, windows=[2], only="*l0")
    monkeypatch.setattr("rnnctl.gradients.loss_steps.available_bytes", lambda: memory)
    torch.testing.assert_close(model_flow(model, x, only="*l0").norms, whole[0].norms, rtol=1e-12, atol=1e-15)
    parts = model_truncation(model, x, windows=[2], only="*l0").gradients
    torch.testing.assert_close(parts, whole[1].gradients, rtol=1e-12, atol=1e-15)


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
def test_of_the_hand_written_network_hooks_and_the_fast_sweep_say_the_same(loss):
    model, x = elman()
    target = {"mse": torch.randn(B, 5, 2, dtype=torch.float64), "cross-entropy": torch.randint(0, 2, (B, 5))}.get(loss)
    # With a pattern it is looked at as anybody's model is.
    found, expected = (rnnctl.flow(model, x, target=target, loss=loss, only=only) for only in ("rnn_cell*", None))
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


@pytest.mark.parametrize(("made", "only"), [(Loop, None), (ByHand, None), (ByHand, "recurrent.weight")])
def test_flow_of_a_loop_of_the_users_is_that_of_the_same_network(made, only):
    own, x = elman()
    found, expected = model_flow(made(own), x, only=only), rnnctl.flow(own, x)
    torch.testing.assert_close(found.norms, expected.norms, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(found.grad_W_hh, expected.grad_W_hh, rtol=1e-9, atol=1e-14)


CELLS = {"RNN": nn.RNNCell, "GRU": nn.GRUCell, "LSTM": nn.LSTMCell}


class CellLoop(nn.Module):
    """A cell in a loop, whose readout reads its own step, all steps so far, or the cell state as well."""

    def __init__(self, like: nn.Module, kind: str, reads: str):
        super().__init__()
        self.cell, self.reads = CELLS[kind](3, H).double(), reads
        self.head = like.head
        state = {name.removesuffix("_l0"): value for name, value in like.rnn.state_dict().items()}
        self.cell.load_state_dict(state)

    def forward(self, x):
        hx, states = None, []
        for x_t in x.unbind(1):
            hx = self.cell(x_t, hx)
            read = hx[0] + hx[1] if self.reads == "c" else hx[0]
            states.append(read if isinstance(hx, tuple) else hx)
        h = torch.stack(states, 1)
        if self.reads == "all":
            h = h.cumsum(1) / torch.arange(1, h.shape[1] + 1, dtype=h.dtype)[:, None]
        return self.head(h) if self.reads != "step" else torch.stack([self.head(h_t) for h_t in states], 1)


@pytest.mark.parametrize("reads", ["step", "stacked", "all"])
@pytest.mark.parametrize("kind", CELLS)
def test_flow_and_truncation_of_a_cell_in_a_loop_are_those_of_its_layer(kind, reads):
    layer, x = net(kind, made=Averaged if reads == "all" else Net)
    loop = CellLoop(layer, kind, reads)
    found, expected = model_flow(loop, x, verify=True), flow_by_clones(layer, x, "weight_hh_l0")
    torch.testing.assert_close(found.norms, expected[0], rtol=1e-9, atol=1e-15)
    assert_states(found, expected[1])
    torch.testing.assert_close(found.grad_W_hh, expected[2], rtol=1e-9, atol=1e-15)
    assert found.agreement.holds
    cut, whole = (model_truncation(each, x, windows=[1, 3], verify=True) for each in (loop, layer))
    torch.testing.assert_close(cut.gradients, whole.gradients, rtol=1e-9, atol=1e-14)
    assert cut.agreement.holds


def test_a_readout_of_the_cell_state_as_well_is_that_of_clones():
    layer, x = net("LSTM")
    loop, T = CellLoop(layer, "LSTM", "c"), 5
    found, cut = model_flow(loop, x, verify=True), model_truncation(loop, x, windows=[2], verify=True)
    expected = torch.zeros(2, 4 * H, H).double()
    for k in range(T):
        clones, hx = [loop.cell.weight_hh.detach().clone().requires_grad_() for _ in range(k + 1)], None
        for x_t, clone in zip(x.unbind(1), clones, strict=False):
            hx = torch.func.functional_call(loop.cell, {"weight_hh": clone}, (x_t, hx))
        loss = loop.head(hx[0] + hx[1]).square().mean() / T
        G = torch.stack(torch.autograd.grad(loss, clones))
        torch.testing.assert_close(found.norms[k, : k + 1], G.flatten(1).norm(dim=1), rtol=1e-9, atol=1e-15)
        expected += torch.stack([G[-2:].sum(0), G.sum(0)])
    torch.testing.assert_close(cut.gradients, expected, rtol=1e-9, atol=1e-14)
    assert found.agreement.holds
    assert cut.agreement.holds


@pytest.mark.parametrize("kind", KINDS)
def test_a_last_output_read_off_the_last_state_changes_nothing(kind):
    (plain, x), (model, _) = net(kind), net(kind, made=FromLastState)
    model.load_state_dict(plain.state_dict())
    torch.testing.assert_close(model_flow(model, x).norms, model_flow(plain, x).norms, rtol=1e-9, atol=1e-15)
    found, expected = (model_truncation(each, x, windows=[1, 3]).gradients for each in (model, plain))
    torch.testing.assert_close(torch.stack([*found]), torch.stack([*expected]), rtol=1e-9, atol=1e-14)


class Pairs(Net):
    """Every output but the last reads two steps, or no state; the last is read off the output, or off h_n alone."""

    reads_state, reads_pairs = True, True

    def forward(self, x):
        h, state = self.rnn(x)
        last = (state[0] if isinstance(state, tuple) else state)[-1] if self.reads_state else h[:, -1]
        pairs = torch.cat([h[:, :1], h[:, 1:-1] + h[:, :-2]], 1)
        early = self.head(pairs) if self.reads_pairs else x[:, :-1, :2]
        return torch.cat([early, self.head(last)[:, None]], 1)


@pytest.mark.parametrize("reads_pairs", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_enters_by_the_last_state_alone_enters_at_the_last_step(kind, reads_pairs):
    model, x = net(kind, 2, made=Pairs)
    model.reads_pairs = reads_pairs
    by_state = [model_flow(model, x, only="*l0", verify=True), model_truncation(model, x, windows=[1, 3], only="*l0")]
    model.reads_state = False
    by_output = [model_flow(model, x, only="*l0"), model_truncation(model, x, windows=[1, 3], only="*l0")]
    assert by_state[0].agreement.holds
    torch.testing.assert_close(by_state[0].norms, by_output[0].norms, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(by_state[1].gradients, by_output[1].gradients, rtol=1e-9, atol=1e-14)


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
    assert seen == sorted(seen)
    assert len(seen) == 5
    assert seen[-1] == 1
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
    with pytest.raises(InputError, match="depends on later steps of rnn.weight_hh_l0_reverse"):
        model_truncation(model, x, only="*_reverse")
    found = model_truncation(model, x, windows=[1, 3], only="rnn.weight_hh_l0", verify=True)
    expected = torch.zeros_like(found.gradients)
    for k in range(5):
        clones = ByClones(model.rnn)
        loss_at(model, k, 5, clones(x.transpose(0, 1))[0][: k + 1]).backward()
        G = clones.results()["weight_hh_l0"]["G"]
        expected += torch.stack([G[max(0, k + 1 - window) : k + 1].sum(0) for window in found.windows])
    torch.testing.assert_close(found.gradients, expected, rtol=1e-9, atol=1e-14)
    assert found.agreement.holds


@pytest.mark.parametrize(("made", "only"), [(Loop, None), (ByHand, None), (ByHand, "recurrent.weight")])
def test_truncation_of_a_loop_of_the_users_is_that_of_the_same_network(made, only):
    own, x = elman()
    settings = {"only": only, "windows": [1, 2, 4], "verify": True}
    found, expected = model_truncation(made(own), x, **settings), rnnctl.truncation(own, x, windows=[1, 2, 4])
    torch.testing.assert_close(found.gradients, expected.gradients, rtol=1e-9, atol=1e-14)
    assert found.agreement.holds


@pytest.mark.parametrize("windows", [[0], [6]])
def test_a_window_outside_the_sequence_is_refused(windows):
    model, x = net()
    with pytest.raises(InputError, match="windows must be from 1 to the sequence's 5 steps"):
        model_truncation(model, x, windows=windows)


@pytest.mark.parametrize("function", [model_flow, model_truncation])
def test_states_that_the_weights_do_not_make_are_no_agreement(function, monkeypatch):
    model, x = net()

    def with_other_states(*args, **settings):
        found, missing = probed(*args, **settings)
        return {name: replace(weight, states_agree=False) for name, weight in found.items()}, missing

    assert function(model, x, verify=True).agreement.holds
    monkeypatch.setattr("rnnctl.gradients.loss_passes.probed", with_other_states)
    assert not function(model, x, verify=True).agreement.holds


def test_a_weight_of_two_modules_is_compared_with_its_own_part_of_the_gradient():
    torch.manual_seed(0)
    model, x = Net("RNN").double(), torch.randn(B, 5, 3).double()
    model.other = nn.RNN(3, H, batch_first=True).double()
    model.other.weight_hh_l0 = model.rnn.weight_hh_l0
    model.forward = lambda x: model.head(model.rnn(x)[0] + model.other(x)[0])
    found = model_flow(model, x, only="rnn.*", verify=True)
    assert found.agreement.holds


class Odd(nn.Module):
    """A cell in a loop that is more than its own recurrence: in what goes around it, or in what changes in it."""

    def __init__(self, kind, way):
        super().__init__()
        self.cell, self.way, self.head, self.back = CELLS[kind](3, H), way, nn.Linear(H, 2), nn.Linear(H, 3)

    def forward(self, x):
        return self.run(x, [None] * x.shape[1])

    def run(self, x, clones):
        """With a clone of W_hh for every step, where they are given."""
        hx, outputs, states = None, [], []
        for t, (x_t, clone) in enumerate(zip(x.unbind(1), clones, strict=True)):
            if hx is not None:
                x_t, hx = self.around(x_t, hx, states)
            W_hh = self.cell.weight_hh if clone is None else clone
            W_hh = W_hh * (0.5 + 0.2 * t) if self.way == "changing weights" else W_hh
            changed = self.way == "changing weights" or clone is not None
            named = {"weight_hh": W_hh} if changed else {}
            hx = torch.func.functional_call(self.cell, named, (x_t, hx)) if named else self.cell(x_t, hx)
            h = hx[0] if isinstance(hx, tuple) else hx
            if self.way == "hook":
                h.register_hook(lambda grad: 0.5 * grad)
            states.append(h)
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)

    def around(self, x_t, hx, states):
        h = hx[0] if isinstance(hx, tuple) else hx
        if self.way == "fed back":
            x_t = x_t + self.back(h)
        elif self.way == "attention":
            past = torch.stack(states)
            x_t = x_t + self.back((torch.softmax((past * h).sum(-1, keepdim=True), 0) * past).sum(0))
        elif self.way == "c cut":
            hx = (hx[0], hx[1].detach())
        elif self.way == "c shrunk":
            hx = (hx[0], 0.9 * hx[1])
        return x_t, hx


WAYS = [(kind, way) for kind in CELLS for way in ("fed back", "attention", "hook", "changing weights")]


@pytest.mark.parametrize(("kind", "way"), [*WAYS, ("LSTM", "c cut"), ("LSTM", "c shrunk")])
def test_a_loop_that_is_more_than_its_cell_has_the_flow_that_clones_say(kind, way):
    torch.manual_seed(0)
    model, T = Odd(kind, way).double(), 6
    x = torch.randn(B, T, 3).double()
    found, cut = model_flow(model, x, verify=True), model_truncation(model, x, windows=[1, 3], verify=True)
    expected = torch.zeros_like(cut.gradients)
    for k in range(T):
        clones = [model.cell.weight_hh.detach().clone().requires_grad_() for _ in range(k + 1)]
        loss = model.run(x[:, : k + 1], clones)[:, -1].square().mean() / T
        G = torch.stack(torch.autograd.grad(loss, clones))
        factor = 0.5 + 0.2 * torch.arange(k + 1).double() if way == "changing weights" else torch.ones(k + 1).double()
        # Contributions are of the weight that a call had, which was made of the parameter by a factor.
        of_call = G / factor.view(-1, 1, 1)
        torch.testing.assert_close(found.norms[k, : k + 1], of_call.flatten(1).norm(dim=1), rtol=1e-9, atol=1e-15)
        expected += torch.stack([of_call[max(0, k + 1 - window) :].sum(0) for window in cut.windows])
    torch.testing.assert_close(cut.gradients, expected, rtol=1e-9, atol=1e-14)
    assert found.agreement.holds
    assert cut.agreement.holds


class FromStates(Net):
    """The last output reads what the module returns beside its outputs."""

    def __init__(self, kind, layers, reads):
        super().__init__(kind, layers)
        self.reads = reads

    def forward(self, x):
        h, state = self.rnn(x)
        h_n, c_n = state if isinstance(state, tuple) else (state, state)
        last = {"c_n": c_n[-1], "mean": h_n.mean(0), "first": h_n[0]}[self.reads]
        return torch.cat([self.head(h[:, :-1]), self.head(last)[:, None]], 1)


@pytest.mark.parametrize(("kind", "reads"), [("LSTM", "c_n"), ("GRU", "mean"), ("LSTM", "first"), ("RNN", "mean")])
def test_truncation_where_the_last_output_reads_other_states_sums_the_last_steps_of_clones(kind, reads):
    torch.manual_seed(0)
    model, x, T = FromStates(kind, 2, reads).double(), torch.randn(B, 5, 3).double(), 5
    found = model_truncation(model, x, windows=[1, 2, 3], only="*l0", verify=True)
    expected = torch.zeros_like(found.gradients)
    for k in range(T):
        clones = ByClones(model.rnn)
        out, h_n, c_n = clones(x.transpose(0, 1))
        last = {"c_n": c_n[-1] if kind == "LSTM" else None, "mean": h_n.mean(0), "first": h_n[0]}[reads]
        (model.head(out[k] if k < T - 1 else last).square().mean() / T).backward()
        G = clones.results()["weight_hh_l0"]["G"]
        expected += torch.stack([G[max(0, k + 1 - window) : k + 1].sum(0) for window in found.windows])
    torch.testing.assert_close(found.gradients, expected, rtol=1e-9, atol=1e-14)
    assert found.agreement.holds


@pytest.mark.parametrize("function", [model_flow, model_truncation])
@pytest.mark.parametrize("made", [lambda: Net("GRU"), lambda: Odd("GRU", "plain")])
def test_a_frozen_weight_has_contributions_and_nothing_to_compare_them_with(function, made):
    model = made().double()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("weight_hh" not in name)
    found = function(model, torch.randn(B, 5, 3).double(), verify=True)
    assert found.agreement is None
    assert found.scalars["grad_W_hh_norm"] > 0


def test_a_weight_of_two_layers_of_one_module_is_no_disagreement():
    model, x = net("RNN", 2)
    model.rnn.input_size = 3
    model = nn.Sequential(nn.Linear(3, H), nn.RNN(H, H, 2, batch_first=True)).double()
    model[1].weight_hh_l1 = model[1].weight_hh_l0
    model.forward = lambda x: model[1](model[0](x))[0]
    assert model_flow(model, x, only="*l0", verify=True).agreement.holds


def test_truncation_of_a_layer_that_is_called_twice_is_refused():
    model, x = net()
    model.forward = lambda x: model.head(torch.cat([model.rnn(x[:, :2])[0], model.rnn(x[:, 2:])[0]], 1))
    with pytest.raises(InputError, match="called once over all steps.*rnn.weight_hh_l0 was called 2 times"):
        model_truncation(model, x)


class Remembering(nn.Module):
    """An LSTM whose forget gates keep c, as a layer or as a cell in a loop."""

    def __init__(self, in_a_loop):
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)
        with torch.no_grad():
            self.rnn.bias_hh_l0[8:16] += 8
            self.rnn.weight_hh_l0.mul_(0.01)
        self.cell = nn.LSTMCell(3, 8) if in_a_loop else None
        if self.cell is not None:
            self.cell.load_state_dict({name.removesuffix("_l0"): p for name, p in self.rnn.state_dict().items()})
            self.rnn = None

    def forward(self, x):
        if self.cell is None:
            return self.head(self.rnn(x)[0])
        hx, found = None, []
        for x_t in x.unbind(1):
            hx = self.cell(x_t, hx)
            found.append(hx[0])
        return self.head(torch.stack(found, 1))


@pytest.mark.parametrize("in_a_loop", [False, True])
def test_an_lstm_that_keeps_c_remembers_by_every_question(in_a_loop, tmp_path):
    torch.manual_seed(0)
    model, x = Remembering(in_a_loop).double(), torch.randn(2, 60, 3, dtype=torch.float64)
    gradnorm = rnnctl.gradnorm(model, x, loss_at="last")
    assert (gradnorm.scalars["verdict"], gradnorm.conditions["vanishing"]) == ("stable", False)
    assert "over the older half: what a longer one does is unknown" in gradnorm.scalars["reason"]
    flow = rnnctl.flow(model, x)
    # h is lost within a step; c, and so the state, arrives at every lag.
    h, c, state = (flow.lag_profile[name] for name in ("median_h", "median_c", "median"))
    assert h[1] < 0.01 < 0.9 < c[1:].min()
    assert state.min() > 0.01
    assert flow.scalars["lag_to_one_percent"] is None
    assert flow.scalars["median_reach"] > 0.01
    with rnnctl.watch(model, every=1, to=tmp_path / "run.jsonl"):
        model(x)[:, -1].square().mean().backward()
    history = rnnctl.gradnorm_history(tmp_path / "run.jsonl")
    assert history.scalars["reach_at_first_step"] == pytest.approx(gradnorm.scalars["first_over_last"], rel=1e-9)
    assert {"grad_norm_h", "grad_norm_c", "grad_norm_state"} < set(history.rows[0])
