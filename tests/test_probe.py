"""rnnctl.probe against loops written out with a clone of W_hh for every step, and against a run without it."""

import copy
import gc
import pickle
import threading
import warnings
import weakref
from dataclasses import FrozenInstanceError, fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_oracles import ByClones, CloningCell, assert_same, states_by_layer
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

import rnnctl
from rnnctl import InputError

KINDS = {"tanh": nn.RNN, "relu": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM, "proj": nn.LSTM}


@st.composite
def cases(draw):
    """One module, its input and its loss; the sizes that matter, not the numbers."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    T, B = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    layout = draw(st.sampled_from(["padded", "batch_first", "unbatched", "sorted", "unsorted"]))
    lengths = None
    if layout in ("sorted", "unsorted"):
        lengths = draw(st.lists(st.integers(1, T), min_size=B, max_size=B))
        lengths = sorted(lengths, reverse=True) if layout == "sorted" else lengths
        T = max(lengths)
    hidden = draw(st.integers(2 if kind == "proj" else 1, 6))
    made = {
        "input_size": draw(st.integers(1, 4)),
        "hidden_size": hidden,
        "num_layers": draw(st.integers(1, 3)),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "batch_first": layout == "batch_first" or (lengths is not None and draw(st.booleans())),
    }
    if kind in ("tanh", "relu"):
        made["nonlinearity"] = kind
    if kind == "proj":
        made["proj_size"] = draw(st.integers(1, hidden - 1))
    if made["num_layers"] > 1:
        made["dropout"] = draw(st.sampled_from([0.0, 0.0, 0.4, 1.0]))
    return {
        "kind": kind,
        "made": made,
        "layout": layout,
        "lengths": lengths,
        "T": T,
        "B": 1 if layout == "unbatched" else B,
        "hx": draw(st.sampled_from([None, "given", "leaf"])),
        "loss": draw(st.sampled_from(["all", "last", "h_n", "c_n", "all+h_n", "last+c_n", "all+h_n+c_n"])),
        "train": draw(st.booleans()),
        "seed": draw(st.integers(0, 10_000)),
    }


class Posed:
    """A drawn case made of tensors: the module's call and the oracle's, and one loss for both."""

    def __init__(self, case, dtype, linear_loss=False):
        torch.manual_seed(case["seed"])
        self.case, made = case, case["made"]
        self.T, self.B, self.lengths = case["T"], case["B"], case["lengths"]
        self.module = KINDS[case["kind"]](**made).to(dtype).train(case["train"])
        rows = made["num_layers"] * (1 + made["bidirectional"])
        units = made.get("proj_size") or made["hidden_size"]
        self.x = (0.7 * torch.randn(self.T, self.B, made["input_size"])).to(dtype)
        h, c = (0.5 * torch.randn(rows, self.B, n) for n in (units, made["hidden_size"]))
        self.hx = None if case["hx"] is None else (h.to(dtype), c.to(dtype))
        lengths = [self.T] * self.B if self.lengths is None else self.lengths
        self.ends = torch.tensor(lengths) - 1
        shapes = {"all": (self.T, self.B, units * (1 + made["bidirectional"])), "h_n": h.shape, "c_n": c.shape}
        self.weigh = {name: (torch.randn(shape), torch.randn(shape)) for name, shape in shapes.items()}
        if linear_loss:
            self.weigh = {name: (a, torch.zeros_like(b)) for name, (a, b) in self.weigh.items()}

    @property
    def terms(self):
        wanted = self.case["loss"].split("+")
        if self.module.mode != "LSTM":
            wanted = [term for term in wanted if term != "c_n"] or ["h_n"]
        return wanted

    def loss(self, output, h_n, c_n):
        """Of a time-major padded output in the batch's own order."""
        total = 0
        for term in self.terms:
            a, b = (part.to(output.dtype) for part in self.weigh["all" if term == "last" else term])
            value = {"all": output, "last": output, "h_n": h_n, "c_n": c_n}[term]
            if term == "last":
                rows = torch.arange(self.B)
                a, b, value = a[self.ends, rows], b[self.ends, rows], output[self.ends, rows]
            total = total + (a * value + 0.5 * b * value**2).sum()
        return total

    def hx_for(self, module):
        if self.hx is None:
            return None
        parts = [part.clone().requires_grad_(self.case["hx"] == "leaf") for part in self.hx]
        if self.case["layout"] == "unbatched":
            parts = [part.squeeze(1) for part in parts]
        return tuple(parts) if module.mode == "LSTM" else parts[0]

    def run(self, module):
        """Output (time-major, padded), h_n, c_n of the module itself."""
        layout, x = self.case["layout"], self.x
        if layout == "unbatched":
            x = x.squeeze(1)
        elif module.batch_first:
            x = x.transpose(0, 1)
        if self.lengths is not None:
            x = pack_padded_sequence(x, self.lengths, module.batch_first, enforce_sorted=layout == "sorted")
        output, hidden = module(x, self.hx_for(module))
        h_n, c_n = hidden if isinstance(hidden, tuple) else (hidden, None)
        if self.lengths is not None:
            output, _ = pad_packed_sequence(output)
        elif layout == "unbatched":
            output, h_n = output.unsqueeze(1), h_n.unsqueeze(1)
            c_n = None if c_n is None else c_n.unsqueeze(1)
        elif module.batch_first:
            output = output.transpose(0, 1)
        return output, h_n, c_n

    def expected(self, states=None):
        """By the oracle, with the batch sorted as packed data are."""
        order = torch.arange(self.B)
        if self.lengths is not None:
            order = torch.sort(torch.tensor(self.lengths), descending=True)[1]
            if self.case["layout"] == "sorted":
                order = torch.arange(self.B)
        back = torch.argsort(order)
        lengths = None if self.lengths is None else torch.tensor(self.lengths)[order].tolist()
        hx = None if self.hx is None else tuple(part.double()[:, order] for part in self.hx)
        states = None if states is None else [part[:, order].double() for part in states]
        oracle = ByClones(self.module, states)
        output, h_n, c_n = oracle(self.x.double()[:, order], hx, lengths)
        loss = self.loss(output[:, back], h_n[:, back], None if c_n is None else c_n[:, back])
        loss.backward()
        return oracle.results(), loss.detach()


@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_every_step_of_every_layer_is_autograds_in_float64(case):
    posed = Posed(case, torch.float64)
    torch.manual_seed(1)
    with rnnctl.probe(posed.module) as trace:
        loss = posed.loss(*posed.run(posed.module))
        loss.backward()
    torch.manual_seed(1)
    expected, value = posed.expected()
    torch.testing.assert_close(loss.detach(), value, rtol=1e-10, atol=1e-12)
    assert list(trace) == list(expected)
    for name, each in expected.items():
        assert_same(trace[name], each)
        weight = dict(posed.module.named_parameters())[name]
        torch.testing.assert_close(trace[name].grad_W_hh, weight.grad, rtol=1e-9, atol=1e-13)
        # Of 0 beside 0 there is nothing that could agree.
        assert trace[name].agrees is (True if weight.grad.any() else None)
        assert trace[name].states_agree
        assert trace[name].steps_per_call == (posed.T,)
        assert trace[name].h_init_is_zero == (posed.hx is None)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@given(case=cases(), wide=st.sampled_from([0, 0, 0, 33, 80]))
@settings(max_examples=25, deadline=None)
def test_float32_holds_its_bound_against_a_float64_oracle_along_the_modules_states(case, wide):
    """|error of ||G_t||| <= 1e-5 sum_b ||delta_b|| ||h_b||; a linear loss brings both the same gradient."""
    made = {**case["made"], "dropout": 0.0}
    if wide:
        made["hidden_size"] = wide
    posed = Posed({**case, "made": made}, torch.float32, linear_loss=True)
    states = states_by_layer(posed.module, lambda part: part_output(posed, part), **made)
    with rnnctl.probe(posed.module) as trace:
        posed.loss(*posed.run(posed.module)).backward()
    expected, _ = posed.expected(states)
    for name, each in expected.items():
        found = trace[name]
        error = (found.grad_norm_W_hh - each["W_hh"]).abs()
        assert (error <= 1e-5 * each["magnitude"] + 1e-30).all(), (name, error / each["magnitude"])
        assert (found.grad_W_hh - each["G"].sum(0)).norm() <= 1e-5 * each["magnitude"].sum() + 1e-30
        torch.testing.assert_close(found.grad_norm_h, each["h"], rtol=1e-5, atol=1e-30)
        torch.testing.assert_close(found.grad_norm_h_direct, each["h_direct"], rtol=1e-5, atol=1e-30)
        if each["c"] is not None:
            torch.testing.assert_close(found.grad_norm_c, each["c"], rtol=1e-5, atol=1e-30)
        assert found.agrees is (True if found.grad_W_hh.any() else None)
        assert found.states_agree


def part_output(posed, part):
    """The output of a module of fewer layers, its h_0 and c_0 cut to them."""
    whole = posed.hx
    rows = part.num_layers * (2 if part.bidirectional else 1)
    posed.hx = None if whole is None else tuple(state[:rows] for state in whole)
    try:
        return posed.run(part.train(posed.module.training))[0]
    finally:
        posed.hx = whole


CELLS = {
    "tanh": (lambda i, h: nn.RNNCell(i, h), 1),
    "relu": (lambda i, h: nn.RNNCell(i, h, nonlinearity="relu"), 1),
    "gru": (lambda i, h: nn.GRUCell(i, h), 3),
    "lstm": (lambda i, h: nn.LSTMCell(i, h), 4),
}


def state_of(hx):
    return hx[0] if isinstance(hx, tuple) else hx


def zeros(cell, batch):
    h = torch.zeros(batch, cell.hidden_size, dtype=torch.float64)
    return (h, h) if isinstance(cell.cell if isinstance(cell, CloningCell) else cell, nn.LSTMCell) else h


def without_hx(cell, x):
    hx, outs = None, []
    for t, x_t in enumerate(x):
        hx = cell(x_t) if t == 0 else cell(x_t, hx)
        outs.append(state_of(hx))
    return outs


def given_zeros(cell, x):
    hx, outs = zeros(cell, x.shape[1]), []
    for x_t in x:
        hx = cell(x_t, hx)
        outs.append(state_of(hx))
    return outs[-1:]


def two_sequences(cell, x):
    return without_hx(cell, x) + without_hx(cell, 2 * x[:3])


def shrinking(cell, x):
    """A batch that loses a sample a step."""
    hx, outs = zeros(cell, x.shape[1]), []
    for t, x_t in enumerate(x):
        n = max(1, x.shape[1] - t)
        hx = tuple(part[:n] for part in hx) if isinstance(hx, tuple) else hx[:n]
        hx = cell(x_t[:n], hx)
        outs.append(state_of(hx))
    return outs


def teacher_forced(cell, x):
    """Each step sees its own last output in place of half of its input."""
    hx, outs = zeros(cell, x.shape[1]), []
    for t, x_t in enumerate(x):
        x_t = x_t if t % 2 else torch.cat([state_of(hx), x_t], 1)[:, : x_t.shape[1]]
        hx = cell(x_t, hx)
        outs.append(state_of(hx))
    return outs


def unbatched(cell, x):
    return without_hx(cell, x[:, 0])


class Loop(nn.Module):
    def __init__(self, cell, loop):
        super().__init__()
        self.cell, self.loop = cell, loop

    def forward(self, x):
        return self.loop(self.cell, x)


def squares(outs):
    return sum((k + 1) * out.square().sum() + out.sum() for k, out in enumerate(outs))


LOOPS = [without_hx, given_zeros, two_sequences, shrinking, teacher_forced, unbatched]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
@pytest.mark.parametrize("kind", CELLS)
def test_every_call_of_a_cell_in_somebodys_loop_is_autograds(kind, loop):
    torch.manual_seed(0)
    make, gates = CELLS[kind]
    model, x = Loop(make(3, 4).double(), loop), torch.randn(6, 5, 3, dtype=torch.float64)
    with rnnctl.probe(model) as trace:
        squares(model(x)).backward()
    clones = CloningCell(model.cell, gates=gates)
    outs = loop(clones, x)
    squares(outs).backward()
    found, expected = trace["cell.weight_hh"], clones.results()
    if loop is shrinking:
        # The oracle takes a slice for something outside: what the loss alone sends to each state, by hand.
        sent = [2 * (k + 1) * out.detach() + 1 for k, out in enumerate(outs)]
        expected["h_direct"] = torch.stack([part.norm() for part in sent])
    assert_same(found, expected, atol=1e-12)
    assert found.agrees
    assert found.states_agree
    assert found.cell == {"tanh": "RNN", "relu": "RNN", "gru": "GRU", "lstm": "LSTM"}[kind]
    assert found.steps_per_call == (1,) * len(clones.clones)


def squared(output):
    loss = output.square().sum()
    loss.backward()
    return loss.detach()


def outcome(build, step, **settings):
    """Loss, gradients, state and random numbers after a step without and with the probe; and the trace."""
    found, trace = [], None
    for probed in (False, True):
        torch.manual_seed(0)
        model = build()
        torch.manual_seed(1)
        if probed:
            with rnnctl.probe(model, **settings) as trace:
                loss = step(model)
        else:
            loss = step(model)
        gradients = {name: p.grad for name, p in model.named_parameters()}
        hooks = [(m._forward_hooks, m._forward_pre_hooks) for m in model.modules()]
        found.append((loss, gradients, model.state_dict(), torch.get_rng_state(), hooks))
    return *found, trace


def assert_untouched(plain, probed):
    (loss, gradients, state, rng, hooks), (loss_2, gradients_2, state_2, rng_2, hooks_2) = plain, probed
    assert torch.equal(loss, loss_2)
    assert torch.equal(rng, rng_2)
    for name, grad in gradients.items():
        assert (grad is None) == (gradients_2[name] is None), name
        assert grad is None or torch.equal(grad, gradients_2[name]), name
    for name, value in state.items():
        assert torch.equal(value, state_2[name]), name
    assert [(len(a), len(b)) for a, b in hooks] == [(len(a), len(b)) for a, b in hooks_2]


def agreed(build, step, **settings):
    """The trace of a step that the probe left as it was, and with which autograd agrees."""
    plain, probed, trace = outcome(build, step, **settings)
    assert_untouched(plain, probed)
    assert all(found.agrees for found in trace.values()), {n: f.autograd_relative_error for n, f in trace.items()}
    assert all(found.states_agree for found in trace.values())
    return trace


def stacked(cell_type=nn.GRUCell):
    return Loop(cell_type(4, 4), lambda cell, x: torch.stack(without_hx(cell, x)))


X = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("pick", ["h_n", "c_n", "output"])
@pytest.mark.parametrize("made", [{}, {"num_layers": 2}, {"batch_first": True}, {"bidirectional": True}], ids=str)
def test_a_loss_on_one_of_three_results_alone(made, pick):
    """oneDNN's kernel tells hooks of the other two None."""

    def step(model):
        output, (h_n, c_n) = model(X)
        return squared({"output": output, "h_n": h_n, "c_n": c_n}[pick])

    agreed(lambda: nn.LSTM(4, 4, **made), step)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_users_full_backward_hook_is_no_trouble(kind):
    def build():
        model = kind(4, 4)
        model.register_full_backward_hook(lambda module, grad_in, grad_out: None)
        return model

    agreed(build, lambda model: squared(model(X.clone().requires_grad_())[0]))


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("layout", ["padded", "batch_first", "unbatched", "packed"])
@pytest.mark.parametrize("both", [True, False], ids=["both", "output"])
def test_results_may_be_changed_in_place(kind, layout, both):
    def step(model):
        x = X.double()
        if layout == "packed":
            x = pack_padded_sequence(x, [5, 3])
        output, hidden = model(x[:, 0] if layout == "unbatched" else x)
        output = output.data if layout == "packed" else output
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        # Of a module of one layer they may share memory, and autograd keeps what relu_ leaves behind.
        output.mul_(2)
        parts = [output.flatten(), hidden.flatten()] if both else [torch.relu_(output).flatten()]
        return squared(torch.cat(parts))

    agreed(lambda: kind(4, 4, batch_first=layout == "batch_first").double(), step)


def test_a_cells_state_may_be_changed_in_place_unbatched():
    def step(model):
        h = None
        for x_t in X[:, 0]:
            h = model(x_t, h).mul_(0.5)
        return squared(h)

    agreed(lambda: nn.GRUCell(4, 4), step)


@pytest.mark.parametrize("shape", [(2, 4), (4,), (2, 1, 4)], ids=str)
def test_a_linear_maps_result_may_be_changed_in_place(shape):
    def step(model):
        h = torch.zeros(shape)
        for x_t in X:
            h = torch.tanh_(model[0](h).add_(x_t[0]))
        return squared(h)

    agreed(lambda: nn.Sequential(nn.Linear(4, 4)), step)


def test_a_gradient_that_the_user_clips_on_its_way_is_the_clipped_one():
    def step(model):
        h = None
        for x_t in X:
            h = model(x_t, h)
            h.register_hook(lambda grad: grad.clamp(-0.1, 0.1))
        return squared(3 * h)

    agreed(lambda: nn.GRUCell(4, 4), step)


@pytest.mark.parametrize("sequence", [list, tuple])
def test_states_may_come_as_a_list(sequence):
    def cells(model):
        hx = sequence([torch.zeros(2, 4), torch.zeros(2, 4)])
        for x_t in X:
            hx = sequence(model(x_t, hx))
        return squared(hx[0])

    agreed(lambda: nn.LSTMCell(4, 4), cells)
    agreed(lambda: nn.LSTM(4, 4), lambda model: squared(model(X, sequence([X[:1], X[1:2]]))[0]))


def wrapped(wrap, name, make):
    def build():
        model = make()
        wrap(model.cell if isinstance(model, Loop) else model[0] if isinstance(model, nn.Sequential) else model, name)
        return model

    return build


WRAPS = {
    "spectral_norm": parametrizations.spectral_norm,
    "weight_norm": parametrizations.weight_norm,
    "orthogonal": parametrizations.orthogonal,
    "prune": lambda module, name: prune.l1_unstructured(module, name, 0.5),
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_weight_that_is_made_anew_for_every_call(wrap):
    """Asking a module for it makes another one, and spectral_norm takes a step each time."""
    trace = agreed(wrapped(WRAPS[wrap], "weight_hh", stacked), lambda model: squared(model(X)))
    assert trace["cell.weight_hh"].steps_per_call == (1,) * 5
    build = wrapped(WRAPS[wrap], "weight_hh_l0", lambda: nn.LSTM(4, 4))
    agreed(build, lambda model: squared(model(X)[0]))
    agreed(build, lambda model: squared(model(X)[0] + model(2 * X)[0]))


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_linear_map_whose_weight_is_made_anew(wrap):
    def step(model):
        h = torch.zeros(2, 4)
        for x_t in X:
            h = torch.tanh(x_t + model[0](h))
        return squared(h)

    agreed(wrapped(WRAPS[wrap], "weight", lambda: nn.Sequential(nn.Linear(4, 4))), step)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.GRU(4, 4), nn.GRU(4, 4)
        self.b.weight_hh_l0 = self.a.weight_hh_l0

    def forward(self, x):
        return self.b(self.a(x)[0])[0]


@pytest.mark.parametrize("only", [None, "a", "b.*", "b.weight_hh_l0"])
def test_a_shared_weight_agrees_under_each_of_its_names(only):
    trace = agreed(Tied, lambda model: squared(model(X)), only=only)
    assert list(trace) == [f"{name}.weight_hh_l0" for name in "ab" if only is None or only[0] == name]


def test_a_shared_weights_names_sum_to_its_gradient():
    *_, trace = outcome(Tied, lambda model: squared(model(X)))
    torch.manual_seed(0)
    model = Tied()
    squared(model(X))
    total = sum(found.grad_W_hh for found in trace.values())
    torch.testing.assert_close(total.float(), model.a.weight_hh_l0.grad, rtol=1e-5, atol=1e-6)


def test_a_penalty_on_the_weight_is_not_of_any_step_and_said():
    def step(model):
        loss = model(X)[0].sum() + model.weight_hh_l0.square().sum()
        loss.backward()
        return loss.detach()

    plain, probed, trace = outcome(lambda: nn.GRU(4, 4), step)
    assert_untouched(plain, probed)
    assert trace["weight_hh_l0"].agrees is False
    assert trace["weight_hh_l0"].states_agree


def in_steps(optimizer):
    def step(model):
        made = optimizer(model.parameters(), lr=0.1)
        for _ in range(3):
            made.zero_grad()
            loss = squared(model(X)[0])
            made.step()
        return loss

    return step


def old_style(model):
    for _ in range(3):
        model.zero_grad()
        loss = squared(model(X)[0])
        for p in model.parameters():
            if p.grad is not None:
                p.data.add_(p.grad, alpha=-0.1)
    return loss


def accumulating(model):
    model.weight_hh_l0.grad = torch.ones_like(model.weight_hh_l0)
    for k in range(3):
        loss = squared(model((k + 1) * X)[0])
    return loss


def two_losses(model):
    output, hidden = model(X)
    first = output.square().sum()
    first.backward(retain_graph=True)
    first.backward(retain_graph=True)
    (hidden[0] if isinstance(hidden, tuple) else hidden).sum().backward()
    return first.detach()


def by_autograd_grad(model):
    loss = model(X)[0].square().sum()
    torch.autograd.grad(loss, list(model.parameters()))
    return loss.detach()


def in_a_thread(model):
    loss = model(X)[0].square().sum()
    thread = threading.Thread(target=loss.backward)
    thread.start()
    thread.join()
    return loss.detach()


def after_a_failed_call(model):
    with pytest.raises(RuntimeError, match="must be equal to input_size"):
        model(torch.zeros(5, 2, 9))
    return squared(model(X)[0])


def nested(model):
    with rnnctl.probe(model) as inner, rnnctl.probe(model) as same:
        loss = squared(model(X)[0])
    torch.testing.assert_close(inner["weight_hh_l0"].grad_norm_W_hh, same["weight_hh_l0"].grad_norm_W_hh)
    return loss


def to_double(model):
    return squared(model.double()(X.double())[0])


STEPS = {
    "plain": lambda model: squared(model(X)[0]),
    "SGD": in_steps(torch.optim.SGD),
    "Adam": in_steps(torch.optim.Adam),
    **{f.__name__: f for f in (old_style, accumulating, two_losses, by_autograd_grad, in_a_thread)},
    **{f.__name__: f for f in (after_a_failed_call, nested, to_double)},
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_step_leaves_model_and_numbers_as_without_the_probe(kind, step):
    trace = agreed(lambda: kind(4, 4, 2, dropout=0.4), STEPS[step])
    calls = 3 if step in ("SGD", "Adam", "old_style", "accumulating") else 1
    assert trace["weight_hh_l1"].steps_per_call == (5,) * calls


def test_weights_changed_past_their_version_between_calls_are_seen_with_a_frozen_W_hh():
    def build():
        model = nn.LSTM(4, 4)
        model.weight_hh_l0.requires_grad_(False)
        return model

    plain, probed, trace = outcome(build, old_style)
    assert_untouched(plain, probed)
    assert trace["weight_hh_l0"].agrees is None
    assert trace["weight_hh_l0"].states_agree


def test_a_frozen_W_hh_still_has_contributions():
    def build():
        return nn.GRU(4, 4).requires_grad_(False)

    def step(model):
        return squared(model(X.clone().requires_grad_())[0])

    plain, probed, frozen = outcome(build, step)
    assert_untouched(plain, probed)
    *_, free = outcome(lambda: nn.GRU(4, 4), step)
    torch.testing.assert_close(frozen["weight_hh_l0"].grad_norm_W_hh, free["weight_hh_l0"].grad_norm_W_hh)
    assert frozen["weight_hh_l0"].agrees is None


@pytest.mark.parametrize("where", ["forward", "loss", "backward"])
@pytest.mark.parametrize("error", [ValueError("theirs"), KeyboardInterrupt("theirs")], ids=["error", "interrupt"])
def test_an_exception_goes_through_and_leaves_nothing_behind(where, error):
    def throw(*_):
        raise error

    model = nn.Sequential(nn.GRU(4, 4, 2, dropout=0.5))
    own = model[0].register_forward_hook(throw) if where == "forward" else None
    with pytest.raises(type(error), match="theirs"), rnnctl.probe(model) as trace:
        output, h_n = model(X)
        if where == "loss":
            throw()
        output.register_hook(throw)
        output.sum().backward()
    assert len(model[0]._forward_hooks) == (1 if own else 0)
    assert not model[0]._forward_pre_hooks
    assert not any(p._backward_hooks for p in model.parameters())
    assert model.training
    with pytest.raises(InputError, match="filled when the block ends"):
        len(trace)


def test_no_hook_stays_on_the_tensors_that_the_user_keeps():
    model = nn.GRU(4, 4)
    with rnnctl.probe(model):
        output, h_n = model(X)
        squared(output)
    assert not output._backward_hooks
    assert not h_n._backward_hooks


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointed_steps_are_counted_once_and_in_order(use_reentrant):
    x = X.clone().requires_grad_()

    def one_by_one(model):
        h, outs = torch.zeros(2, 4, requires_grad=True), []
        for x_t in x:
            h = checkpoint(model.cell, x_t, h, use_reentrant=use_reentrant)
            outs.append(h)
        return squared(torch.stack(outs))

    *_, plain = outcome(stacked, lambda model: squared(model(x)))
    expected = plain["cell.weight_hh"].grad_norm_W_hh
    steps = [lambda model: squared(checkpoint(model, x, use_reentrant=use_reentrant))]
    if use_reentrant:
        with pytest.raises(InputError, match="order of its steps is lost. Try use_reentrant=False"):
            agreed(stacked, one_by_one)
    else:
        steps.append(one_by_one)
    for step in steps:
        trace = agreed(stacked, step)
        torch.testing.assert_close(trace["cell.weight_hh"].grad_norm_W_hh, expected, rtol=1e-5, atol=1e-7)
    agreed(
        lambda: nn.LSTM(4, 4, 2, dropout=0.5),
        lambda model: squared(checkpoint(lambda z: model(z)[0], x, use_reentrant=use_reentrant)),
    )


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell, nn.RNN, nn.GRU, nn.LSTM])
def test_autocast_and_half_precision_agree_within_their_own_rounding(kind):
    cells = issubclass(kind, nn.RNNCellBase)

    def build():
        return stacked(kind) if cells else kind(4, 4)

    def forward(model, x):
        return (model(x) if cells else model(x)[0]).float()

    def autocast(model):
        with torch.autocast("cpu", torch.bfloat16):
            output = forward(model, X)
        return squared(output)

    agreed(build, autocast)
    for dtype in (torch.bfloat16, torch.float16):
        agreed(lambda dtype=dtype: build().to(dtype), lambda model, dtype=dtype: squared(forward(model, X.to(dtype))))


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_one_call_a_step_or_a_chunk_gives_the_contributions_of_the_whole(kind):
    def split(*sizes):
        def step(model):
            hidden, outs = None, []
            for part in X.split(sizes):
                output, hidden = model(part, hidden)
                outs.append(output)
            return squared(torch.cat(outs))

        return step

    whole = agreed(lambda: kind(4, 4, 2), split(5))
    for sizes in ((1,) * 5, (3, 2)):
        parts = agreed(lambda: kind(4, 4, 2), split(*sizes))
        for name, found in parts.items():
            assert found.steps_per_call == sizes
            torch.testing.assert_close(found.grad_norm_W_hh, whole[name].grad_norm_W_hh, rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(found.grad_norm_h, whole[name].grad_norm_h, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_carried_state_is_not_from_outside_in_either_direction(kind, layers):
    """What the second call sends back enters the first one at the end of each direction's own recurrence."""
    torch.manual_seed(0)
    module = kind(4, 3, layers, bidirectional=True, dtype=torch.float64)
    parts = torch.randn(9, 2, 4, dtype=torch.float64).split([5, 4])
    weigh = torch.randn(9, 2, 6, dtype=torch.float64)
    with rnnctl.probe(module) as trace:
        first, hidden = module(parts[0])
        second, _ = module(parts[1], hidden)
        (weigh * torch.cat([first, second]).square()).sum().backward()
    calls = [ByClones(module), ByClones(module)]
    first, _, c_n = calls[0](parts[0])
    # The states that the recurrence itself hands on, apart from those that the loss sees.
    h_n = torch.stack([steps.states[0 if i % 2 else 4] for i, steps in enumerate(calls[0].steps)])
    second, _, _ = calls[1](parts[1], (h_n, h_n if c_n is None else c_n))
    (weigh * torch.cat([first, second]).square()).sum().backward()
    by_call = [call.results() for call in calls]
    for name, found in trace.items():
        one, two = (results[name] for results in by_call)
        assert_same(found, {key: None if one[key] is None else torch.cat([one[key], two[key]]) for key in one})
        assert found.steps_per_call == (5, 4)
        assert found.agrees


class OfLargeStates(nn.Module):
    """Units from 1e4 to 1e6, and one near 0 that is the difference of two ones."""

    def __init__(self, cell):
        super().__init__()
        self.rnn = cell
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in cell.parameters():
                parameter.copy_(0.1 * torch.randn_like(parameter))
            W_ih, W_hh, b_ih, b_hh = cell.parameters()
            W_ih[0], W_hh[0], b_hh[0] = 1e-6, 0.0, -1.0
            b_ih.copy_(torch.tensor([1.0, 6e4, 7e4, 3e5, 2e5, 9e4]))

    def forward(self, x):
        """The states after every step."""
        if isinstance(self.rnn, nn.RNN):
            return self.rnn(x)[0]
        h, states = x.new_zeros(x.shape[1], 6), []
        for x_t in x:
            h = self.rnn(x_t, h)
            states.append(h)
        return torch.stack(states)


@pytest.mark.parametrize(
    "build",
    [lambda: nn.RNN(4, 6, nonlinearity="relu"), lambda: nn.RNNCell(4, 6, nonlinearity="relu")],
    ids=["layer", "cell"],
)
def test_states_far_from_1_agree_within_their_own_rounding(build):
    """Of a sound relu network in float32: the error is relative to the state, of a unit near 0 absolute."""
    model, x = OfLargeStates(build()), torch.randn(12, 2, 4)
    with rnnctl.probe(model) as trace:
        h = model(x)
        h.sum().backward()
    (found,) = trace.values()
    h = h.detach().double()
    assert 0 < h[..., 0].max() < 1e-4 < 1e4 < h[..., 1:].min() < 1e5 < h.max() < 1e6
    W_ih, W_hh, b_ih, b_hh = (parameter.detach().double() for parameter in model.rnn.parameters())
    before = torch.cat([torch.zeros(1, 2, 6).double(), h[:-1]])
    follows = (x.double() @ W_ih.T + before @ W_hh.T + b_ih + b_hh).relu()
    difference = (follows - h).abs()
    assert float(difference.max()) > 1e-3
    assert found.recovered_error == pytest.approx(float((difference / h.clamp_min(1)).max()), rel=1e-6)
    assert found.states_agree
    assert found.agrees


@pytest.mark.parametrize(
    "between", [lambda h: h.clone(), lambda h: 0.5 * h, lambda h: h[:1]], ids=["cloned", "masked", "sliced"]
)
def test_what_comes_back_through_a_changed_state_is_not_from_outside(between):
    """A loss at the last step alone: before it nothing comes from anywhere else."""

    def step(model):
        h = torch.zeros(2, 4)
        for x_t in X:
            h = between(h)
            h = model(x_t[: len(h)], h)
        return squared(h)

    found = agreed(lambda: nn.GRUCell(4, 4), step)["weight_hh"]
    assert found.grad_norm_h_direct[-1] == found.grad_norm_h[-1]
    assert not found.grad_norm_h_direct[:-1].any()
    assert found.steps_per_chain == (5,)


@pytest.mark.parametrize("loss_at", ["last", "all"])
def test_the_rnn_of_the_guide_has_the_numbers_of_gradnorm(loss_at):
    torch.manual_seed(0)
    model, x = rnnctl.FullRNN(4, 6, 2, dtype=torch.float64), torch.randn(3, 7, 4, dtype=torch.float64)
    expected = rnnctl.gradnorm(model, x, loss_at=loss_at)
    with rnnctl.probe(model) as trace:
        y = model(x)[:, -1:] if loss_at == "last" else model(x)
        y.square().mean().backward()
    found = trace["rnn_cell.hidden_to_hidden.weight"]
    for name in ("grad_norm_W_hh", "grad_norm_h", "grad_norm_h_direct", "grad_W_hh"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-15)


class HandWrittenLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.input, self.recurrent = nn.Linear(4, 12), nn.Linear(3, 12, bias=False)

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], 3)
        outs = []
        for x_t in x:
            i, f, g, o = (self.input(x_t) + self.recurrent(h)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outs.append(h)
        return torch.stack(outs)


def test_a_linear_map_of_a_hand_written_lstm_by_clones():
    torch.manual_seed(0)
    model, x = HandWrittenLSTM().double(), X.double()
    with rnnctl.probe(model) as trace:
        squared(model(x))
    found, clones = trace["recurrent.weight"], CloningCell(model.recurrent, "weight")
    del model.recurrent
    object.__setattr__(model, "recurrent", clones)
    squared(model(x))
    expected = clones.results()
    torch.testing.assert_close(found.grad_norm_W_hh, expected["W_hh"], rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(found.grad_W_hh, expected["G"].sum(0), rtol=1e-9, atol=1e-15)
    assert found.agrees
    assert found.cell == "Linear"
    assert found.h_init_is_zero
    assert found.grad_norm_W_hh[0] == 0


def test_nothing_is_kept_alive_and_nothing_grows():
    def tensors():
        gc.collect()
        return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())

    model = stacked(nn.LSTMCell)
    kept = []
    for step in range(53):
        x = torch.randn(5, 2, 4)
        with rnnctl.probe(model) as trace:
            output = model(x)
            squared(output)
        kept += [weakref.ref(x), weakref.ref(output)]
        del x, output
        if step == 2:
            before = tensors()
    assert tensors() == before
    assert not any(ref() is not None for ref in kept)
    whole = weakref.ref(model)
    del model
    gc.collect()
    assert whole() is None
    assert trace["cell.weight_hh"].agrees


def test_a_copy_made_within_the_block_is_not_watched():
    model = nn.GRU(4, 4)
    with rnnctl.probe(model) as trace:
        squared(model(X)[0])
        double = copy.deepcopy(model)
        squared(double(X)[0])
    assert trace["weight_hh_l0"].steps_per_call == (5,)
    assert trace["weight_hh_l0"].agrees


def test_results_can_be_copied_and_sent_to_another_process():
    with rnnctl.probe(model := nn.GRU(4, 4)) as trace:
        squared(model(X)[0])
    found = pickle.loads(pickle.dumps(trace["weight_hh_l0"]))
    assert torch.equal(found.grad_norm_gates["z"], trace["weight_hh_l0"].grad_norm_gates["z"])


def test_results_are_frozen_ordinary_float64_tensors():
    with rnnctl.probe(model := nn.LSTM(4, 4)) as trace:
        squared(model(X)[0])
    found = trace["weight_hh_l0"]
    tensors = [getattr(found, field.name) for field in fields(found)]
    tensors = [each for each in tensors if isinstance(each, torch.Tensor)] + list(found.grad_norm_gates.values())
    assert len(tensors) == 11
    assert not any(each.is_inference() or each.requires_grad for each in tensors)
    with pytest.raises(FrozenInstanceError, match="cannot assign"):
        found.name = "other"
    assert list(found.grad_norm_gates) == ["i", "f", "g", "o"]


class OwnForward(nn.GRU):
    def forward(self, x, hx=None):
        return super().forward(2 * x, hx)


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(4, 4)), {nn.LSTM}, dtype=torch.qint8)


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.GRU(4, 4))


def compiled():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.compile(nn.GRU(4, 4))


def compiled_in_place():
    model = nn.GRU(4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.compile()
    return model


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU()), {}, "no recurrent module.*it has Linear, ReLU, Sequential"),
        (lambda: print, {}, "must be a torch.nn.Module; got builtin"),
        (lambda: nn.GRU, {}, "must be a torch.nn.Module; got type"),
        (
            Tied,
            {"only": "decoder.*"},
            "'decoder.*' matches no recurrent weight; the model has a.weight_hh_l0, b.weight",
        ),
        (HandWrittenLSTM, {"linear": "recurrent"}, "linear='recurrent' is gone: .*only='name.weight'"),
        (HandWrittenLSTM, {"state": "recurent"}, "no such module. Did you mean recurrent?"),
        (HandWrittenLSTM, {"step": "recurent"}, "no such module. Did you mean recurrent?"),
        (compiled, {}, "compiled .*Try: probe the model that was compiled"),
        (compiled_in_place, {}, "compiled"),
        (quantized, {}, "0 is quantized"),
        (scripted, {}, "TorchScript"),
        (lambda: nn.DataParallel(nn.GRU(4, 4)), {}, "DataParallel.*model.module"),
        (lambda: OwnForward(4, 4), {}, "OwnForward with a forward of its own"),
    ],
)
def test_what_cannot_be_seen_into_is_refused_with_a_reason(build, settings, message):
    with pytest.raises(InputError, match=message), rnnctl.probe(build(), **settings):
        pass


def never(model):
    pass


def forward_only(model):
    model(X)


def without_gradients(model):
    with torch.no_grad():
        model(X)


def inference(model):
    with torch.inference_mode():
        model(X)


def create_graph(model):
    parameters = list(model.parameters())
    torch.autograd.grad(model(X)[0].square().sum(), parameters, create_graph=True)


def frozen(model):
    model.requires_grad_(False)(X)


def empty_batch(model):
    model(X[:, :0])[0].sum().backward()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (never, "not called within the block"),
        (forward_only, r"no gradient reached it: call backward\(\)"),
        (without_gradients, "without gradients .*torch.no_grad"),
        (inference, "without gradients .*inference_mode"),
        (create_graph, "double backward.*create_graph=True"),
        (frozen, "nothing in it requires one"),
        (empty_batch, "empty|no sequence|batch"),
    ],
)
def test_a_step_that_tells_nothing_is_refused_with_a_reason(step, message):
    model = nn.GRU(4, 4)
    with pytest.raises(InputError, match=message), rnnctl.probe(model):
        step(model)
    assert not model._forward_hooks


def test_names_that_are_none_are_key_errors_with_the_nearest():
    pair = nn.ModuleDict({"a": nn.GRU(4, 4), "b": nn.GRU(4, 4)})
    with rnnctl.probe(pair) as trace:
        with pytest.raises(InputError, match="filled when the block ends"):
            trace["a.weight_hh_l0"]
        squared(pair["a"](X)[0])
    with pytest.raises(KeyError, match=r"no recurrent weight is named 'a.weight_h_l0'.* Did you mean a.weight_hh_l0\?"):
        trace["a.weight_h_l0"]
    with pytest.raises(KeyError, match="no result for 'b.weight_hh_l0': it was not called"):
        trace["b.weight_hh_l0"]
    assert "b.weight_hh_l0" not in trace
    assert trace.get("nothing") is None
    assert list(trace.missing) == ["b.weight_hh_l0"]


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_losses_scale_every_norm(kind, scale):
    def times(factor):
        def step(model):
            loss = factor * model(X)[0].sum()
            loss.backward()
            return loss.detach()

        return step

    one, other = (agreed(lambda: kind(4, 4, 2), times(factor)) for factor in (1.0, scale))
    for name, found in other.items():
        torch.testing.assert_close(found.grad_norm_W_hh / scale, one[name].grad_norm_W_hh, rtol=1e-5, atol=0)
        torch.testing.assert_close(found.grad_norm_h / scale, one[name].grad_norm_h, rtol=1e-5, atol=0)
        assert found.grad_norm_W_hh[0] == 0
        assert found.h_init_is_zero


@pytest.mark.parametrize("hidden", [8, 64])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_what_vanishes_below_float32_is_still_right_in_every_layer(kind, hidden):
    """A float64 loop knows the norms; a deeper layer hears of them from the upper one."""
    torch.manual_seed(0)
    model = kind(4, hidden, 2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.mul_(0.3 if "weight_hh" in name else 1.0 if "weight" in name else 0.0)
            if name.startswith("bias_hh") and kind is not nn.RNN:
                p[hidden : 2 * hidden] = -2.0
    x = 0.5 * torch.randn(150, 2, 4)
    with rnnctl.probe(model) as trace:
        model(x)[0][-1].sum().backward()
    oracle = ByClones(model)
    oracle(x.double())[0][-1].sum().backward()
    for name, exact in oracle.results().items():
        assert 0 < exact["W_hh"][1] < 1e-60
        torch.testing.assert_close(trace[name].grad_norm_W_hh, exact["W_hh"], rtol=1e-4, atol=0)
        torch.testing.assert_close(trace[name].grad_norm_h, exact["h"], rtol=1e-4, atol=0)


def test_exploding_and_non_finite_steps_are_numbers_of_their_own_and_no_crash():
    model = nn.RNN(4, 8, nonlinearity="relu")
    with torch.no_grad():
        model.weight_hh_l0.copy_(10 * torch.eye(8))
    with rnnctl.probe(model) as trace:
        model(X.abs().repeat(16, 1, 1))[0].sum().backward()
    found = trace["weight_hh_l0"]
    assert found.agrees is None
    assert not found.grad_norm_W_hh.isfinite().all()
    for kind in (nn.RNN, nn.GRU, nn.LSTM):
        bad = X.clone()
        bad[2, 0, 0] = torch.nan
        with rnnctl.probe(model := kind(4, 4, 2)) as trace:
            model(bad)[0].sum().backward()
        assert trace["weight_hh_l0"].grad_norm_W_hh.isnan().any()
        assert trace["weight_hh_l0"].agrees is None


def test_chaos_is_followed_along_the_modules_own_states():
    def build():
        model = nn.RNN(4, 64)
        nn.init.normal_(model.weight_hh_l0, std=0.5)
        return model

    agreed(build, lambda model: squared(model(X.repeat(12, 1, 1))[0][-1]))


def test_weight_noise_in_a_pre_hook_is_part_of_the_step_and_noise_after_the_call_is_noticed():
    """Noise on the weights is there when they are noted; noise that another hook puts first on the output is not."""

    def step(model):
        return squared(model(X)[0])

    def pre():
        model = nn.GRU(4, 4)

        def add(module, _):
            module.weight_hh_l0.data.add_(torch.randn(12, 4))

        model.register_forward_pre_hook(add)
        return model

    agreed(pre, step)
    model = nn.GRU(4, 4)
    with rnnctl.probe(model) as trace:
        model.register_forward_hook(lambda m, _, out: (out[0] + 0.1 * torch.randn_like(out[0]), out[1]), prepend=True)
        squared(model(X)[0])
    assert not trace["weight_hh_l0"].states_agree


def test_a_users_hook_on_module_or_input_is_part_of_the_model():
    def build():
        model = nn.GRU(4, 4)
        model.register_forward_hook(lambda module, args, out: (3 * out[0] + torch.randn_like(out[0]), out[1]))
        model.register_forward_pre_hook(lambda module, args: (2 * args[0],))
        return model

    agreed(build, lambda model: squared(model(X)[0]))


@pytest.mark.parametrize("changed", ["clipped", "zeroed", "scaled", "dropped"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_that_are_changed_after_the_backward_pass_agree_as_they_arrived(changed, dtype):
    torch.manual_seed(0)
    model, x = nn.LSTM(3, 4, batch_first=True).to(dtype), torch.randn(2, 6, 3, dtype=dtype)
    with rnnctl.probe(model) as trace:
        model(x)[0].square().sum().backward()
        arrived = model.weight_hh_l0.grad.double().clone()
        if changed == "clipped":
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        elif changed == "zeroed":
            model.zero_grad(set_to_none=False)
        elif changed == "scaled":
            model.weight_hh_l0.grad.mul_(2)
        else:
            model.zero_grad()
    found = trace["weight_hh_l0"]
    assert found.agrees
    torch.testing.assert_close(found.grad_W_hh, arrived, rtol=1e-5, atol=1e-7)
