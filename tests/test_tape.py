"""Autograd's graph, read: what is taken out of a tensor as it was put in, first steps, cuts."""

import pytest
import torch
from torch import nn

import rnnctl


class Packed(nn.Module):
    """Two layers whose states are one tensor; V leads from the one to the other and does not recur."""

    def __init__(self, take, old: bool = False) -> None:
        super().__init__()
        # Whether the second layer sees the first one's state as it was taken out.
        self.old = old
        self.U, self.W1, self.W2, self.V = (nn.Parameter(0.5 * torch.randn(n, 4)) for n in (3, 4, 4, 4))
        self.take = take

    def forward(self, x):
        state, self.states = x.new_zeros(x.shape[1], 8), []
        for x_t in x:
            before, two = self.take(state)
            one = torch.tanh(x_t @ self.U + before @ self.W1)
            two = torch.tanh((before if self.old else one) @ self.V + two @ self.W2)
            one.retain_grad()
            two.retain_grad()
            self.states.append((one, two))
            state = torch.cat([one, two], 1)
        return state


TAKEN = {
    "slices": lambda state: (state[:, :4], state[:, 4:]),
    "slices from the end": lambda state: (state[:, :-4], state[:, -4:]),
    "split": lambda state: state.split(4, 1),
    "chunk": lambda state: state.chunk(2, 1),
    "narrow": lambda state: (state.narrow(1, 0, 4), state.narrow(1, 4, 4)),
}


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
@pytest.mark.parametrize("take", TAKEN)
def test_what_is_taken_out_as_it_was_put_in_is_that_alone(take, old):
    torch.manual_seed(0)
    model = Packed(TAKEN[take], old).double()
    with rnnctl.probe(model) as trace:
        model(torch.randn(6, 2, 3).double()).square().sum().backward()
    assert list(trace) == ["W1", "W2"]
    for place, name in enumerate(trace):
        expected = torch.stack([pair[place].grad.norm() for pair in model.states])
        torch.testing.assert_close(trace[name].grad_norm_h, expected, rtol=1e-9, atol=0)
        assert trace[name].agrees


class Stacked(Packed):
    """The same, each state a row of a stack."""

    def forward(self, x):
        state, self.states = x.new_zeros(2, x.shape[1], 4), []
        for x_t in x:
            one, two = self.take(state)
            one = torch.tanh(x_t @ self.U + one @ self.W1)
            two = torch.tanh(one @ self.V + two @ self.W2)
            one.retain_grad()
            two.retain_grad()
            self.states.append((one, two))
            state = torch.stack([one, two])
        return state


@pytest.mark.parametrize(
    "take", [lambda s: (s[0], s[1]), lambda s: (s[-2], s[-1]), lambda s: s.unbind(0)], ids=["index", "end", "unbind"]
)
def test_a_row_of_a_stack_is_what_was_put_there(take):
    torch.manual_seed(0)
    model = Stacked(take).double()
    with rnnctl.probe(model) as trace:
        model(torch.randn(6, 2, 3).double()).square().sum().backward()
    assert list(trace) == ["W1", "W2"]
    expected = torch.stack([one.grad.norm() for one, _ in model.states])
    torch.testing.assert_close(trace["W1"].grad_norm_h, expected, rtol=1e-9, atol=0)


class Normed(nn.Module):
    """An LSTM with all its pre-activations normalised: at step 0 one tensor would be as small a cut as h_0."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.norm = nn.Linear(3 + 4, 16), nn.LayerNorm(16)

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], 4)
        self.states = []
        for x_t in x:
            i, f, g, o = self.norm(self.gates(torch.cat([x_t, h], 1))).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            h.retain_grad()
            c.retain_grad()
            self.states.append((h, c))
        return h


@pytest.mark.parametrize("steps", [2, 3, 4, 9])
def test_the_first_step_hands_on_what_all_others_do(steps):
    torch.manual_seed(0)
    model = Normed().double()
    with rnnctl.probe(model) as trace:
        model(torch.randn(steps, 2, 3).double()).square().sum().backward()
    found = trace["gates.weight"]
    h, c = (torch.stack([pair[place].grad.norm() for pair in model.states]) for place in (0, 1))
    torch.testing.assert_close(found.grad_norm_h, h, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.grad_norm_c, c, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.grad_norm_state, torch.hypot(h, c), rtol=1e-9, atol=0)


class Lagged(nn.Module):
    """h_t looks at h_{t-1} and h_{t-2} through the same weight's map: two states."""

    def __init__(self) -> None:
        super().__init__()
        self.W, self.U = nn.Parameter(0.4 * torch.randn(4, 4)), nn.Parameter(torch.randn(3, 4))

    def forward(self, x):
        h = before = x.new_zeros(x.shape[1], 4)
        self.states = []
        for x_t in x:
            h, before = torch.tanh(x_t @ self.U + h @ self.W) + 0.3 * before, h
            h.retain_grad()
            self.states.append(h)
        return h


def test_a_state_of_two_steps_is_known_or_said_not_to_be():
    torch.manual_seed(0)
    model = Lagged().double()
    with rnnctl.probe(model) as trace:
        model(torch.randn(8, 2, 3).double()).square().sum().backward()
    found = trace["W"]
    expected = torch.stack([h.grad.norm() for h in model.states])
    known = ~found.grad_norm_h.isnan()
    assert known[:5].all()
    torch.testing.assert_close(found.grad_norm_h[known], expected[known], rtol=1e-9, atol=0)
    assert bool(known.all()) or "grad_norm_state" in found.why


class Concatenated(nn.Module):
    """nn.LSTM written as one map over x and h beside one another."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.gates = nn.Linear(lstm.input_size + lstm.hidden_size, 4 * lstm.hidden_size, dtype=torch.float64)
        with torch.no_grad():
            self.gates.weight.copy_(torch.cat([lstm.weight_ih_l0, lstm.weight_hh_l0], 1))
            self.gates.bias.copy_(lstm.bias_ih_l0 + lstm.bias_hh_l0)

    def forward(self, x):
        hidden = self.gates.weight.shape[0] // 4
        h = c = x.new_zeros(len(x), hidden)
        outs = []
        for x_t in x.unbind(1):
            i, f, g, o = self.gates(torch.cat([x_t, h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outs.append(h)
        return torch.stack(outs, 1)


@pytest.mark.parametrize("loss_at", ["last", "all"])
def test_a_concatenating_lstm_has_the_norms_and_the_verdict_of_torchs(loss_at):
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 5, batch_first=True).double()
    x = torch.randn(2, 9, 3).double()
    expected, found = (
        rnnctl.gradnorm(model, x, loss="sum", loss_at=loss_at, loss_fn=None) for model in (lstm, Concatenated(lstm))
    )
    one, other = expected.weights["weight_hh_l0"], found.weights["gates.weight"]
    for name in ("grad_norm_W_hh", "grad_norm_h", "grad_norm_h_direct", "grad_norm_c", "grad_norm_state"):
        torch.testing.assert_close(getattr(other, name), getattr(one, name), rtol=1e-9, atol=1e-14)
    assert found.scalars["verdict"] == expected.scalars["verdict"]
    for name in ("factor_per_step", "first_over_last", "steps_to_one_percent", "cancellation"):
        assert found.scalars[name] == pytest.approx(expected.scalars[name], rel=1e-9, abs=0), name


@pytest.mark.parametrize("hidden", [4, 70])
@pytest.mark.parametrize("scale", [1e-30, 1e25])
@pytest.mark.parametrize("concat", [False, True], ids=["plain", "columns"])
def test_tiny_and_huge_losses_scale_every_norm(hidden, scale, concat):
    """In float32, whose squares leave its range; on both sides of the size from which a norm is taken at once."""
    torch.manual_seed(0)
    weight = nn.Linear(hidden + 3 if concat else hidden, hidden)

    def norms(factor):
        with rnnctl.probe(nn.Sequential(weight)) as trace:
            h = torch.zeros(2, hidden)
            for x_t in X:
                h = torch.tanh(weight(torch.cat([h, x_t], 1) if concat else h) + x_t.sum())
            (factor * h.sum()).backward()
        return trace["0.weight"]

    X = torch.randn(5, 2, 3)
    one, other = norms(1.0), norms(scale)
    for name in ("grad_norm_W_hh", "grad_norm_h", *(["grad_norm_W_xh"] if concat else ())):
        torch.testing.assert_close(getattr(other, name) / scale, getattr(one, name), rtol=1e-5, atol=0)
        assert (getattr(one, name)[1:] > 0).all()


@pytest.mark.parametrize("between", [lambda h: h, lambda h: 0.5 * h], ids=["as it is", "halved"])
def test_a_gru_cell_fed_with_its_own_output_is_judged_by_all_ways_back(between):
    torch.manual_seed(0)
    cell, back = nn.GRUCell(4, 4).double(), nn.Linear(4, 4).double()
    model, states = nn.ModuleDict({"cell": cell, "back": back}), []
    with rnnctl.probe(model, decay=True) as trace:
        h = y = torch.zeros(2, 4, dtype=torch.float64)
        for x_t in torch.randn(8, 2, 4).double():
            h = cell(x_t + y, h)
            h.retain_grad()
            states.append(h)
            y, last = back(h), h
            h = between(h)
        last.square().sum().backward()
    ratio = float(states[0].grad.norm() / states[-1].grad.norm())
    assert trace["cell.weight_hh"].decay.first_over_last == pytest.approx(ratio, rel=1e-9)
    assert trace["back.weight"].state_made_by
    assert set(trace) == {"cell.weight_ih", "cell.weight_hh", "back.weight"}


class FourMaps(nn.Module):
    """An LSTM with one linear map a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.ModuleList(nn.Linear(3, 4) for _ in range(4))
        self.h = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(4))

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], 4)
        for x_t in x:
            i, f, g, o = (from_x(x_t) + from_h(h) for from_x, from_h in zip(self.x, self.h, strict=True))
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h


def test_the_state_of_a_weight_is_the_same_whoever_else_is_asked_for():
    torch.manual_seed(0)
    model, x = FourMaps().double(), torch.randn(6, 2, 3).double()
    with rnnctl.probe(model) as every:
        model(x).square().sum().backward()
    for name, found in every.items():
        with rnnctl.probe(model, only=name) as alone:
            model(x).square().sum().backward()
        assert list(alone) == [name]
        for field in ("grad_norm_h", "grad_norm_c", "grad_norm_state"):
            assert torch.equal(getattr(alone[name], field), getattr(found, field)), field
    assert len(every) == 4


class Skip(nn.Module):
    """h_t = tanh(x U + h_{t-1} W + h_{t-2} V)."""

    def __init__(self) -> None:
        super().__init__()
        self.U, self.W, self.V = (nn.Parameter(0.4 * torch.randn(n, 4)) for n in (3, 4, 4))

    def forward(self, x):
        h = before = x.new_zeros(x.shape[1], 4)
        self.states = []
        for x_t in x:
            h, before = torch.tanh(x_t @ self.U + h @ self.W + before @ self.V), h
            h.retain_grad()
            self.states.append(h)
        return h


@pytest.mark.parametrize("weight", ["W", "V"])
def test_of_states_of_several_steps_the_last_one_is_h_or_it_is_not_known(weight):
    torch.manual_seed(0)
    model = Skip().double()
    with rnnctl.probe(model) as trace:
        model(torch.randn(9, 2, 3).double()).square().sum().backward()
    found = trace[weight]
    expected = torch.stack([h.grad.norm() for h in model.states])
    known = ~found.grad_norm_h.isnan()
    assert known[:4].all()
    torch.testing.assert_close(found.grad_norm_h[known], expected[known], rtol=1e-9, atol=0)
    assert not found.grad_norm_h_direct[known][:-1].any()
    assert bool(known.all()) or "grad_norm_state" in found.why


class ThreeBeside(nn.Module):
    """One map over x_t, h_{t-1} and h_{t-2}: at step 1 the last of them is a constant still."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(3 + 8, 4)

    def forward(self, x):
        h = before = x.new_zeros(x.shape[1], 4)
        for x_t in x:
            h, before = torch.tanh(self.w(torch.cat([x_t, h, before], 1))), h
        return h


def test_columns_that_multiply_a_state_at_any_step_do_so_at_all():
    torch.manual_seed(0)
    model, x = ThreeBeside().double(), torch.randn(6, 2, 3).double()
    with rnnctl.probe(model) as trace:
        model(x).square().sum().backward()
    assert trace["w.weight"].columns.tolist() == list(range(3, 11))
    clones = [model.w.weight.detach().clone().requires_grad_() for _ in x]
    h = before = x.new_zeros(2, 4)
    for x_t, clone in zip(x, clones, strict=True):
        both = torch.cat([x_t, h, before], 1)
        h, before = torch.tanh(nn.functional.linear(both, clone, model.w.bias)), h
    h.square().sum().backward()
    for name, part in (("grad_norm_W_hh", slice(3, None)), ("grad_norm_W_xh", slice(0, 3))):
        expected = torch.stack([clone.grad[:, part].norm() for clone in clones])
        torch.testing.assert_close(getattr(trace["w.weight"], name), expected, rtol=1e-9, atol=0)


def test_a_gradient_penalty_is_double_backward():
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W = nn.Parameter(0.4 * torch.randn(4, 4))

        def forward(self, x):
            h = x.new_zeros(x.shape[1], 4)
            for x_t in x:
                h = torch.tanh(x_t + h @ self.W)
            return h

    model = Raw()
    with pytest.raises(rnnctl.InputError, match="create_graph=True"), rnnctl.probe(model):
        loss = model(torch.randn(5, 2, 4)).square().sum()
        (grad,) = torch.autograd.grad(loss, model.W, create_graph=True)
        (loss + grad.norm()).backward()


@pytest.mark.parametrize("concat", [False, True], ids=["plain", "columns"])
def test_complex_weights_are_itemised_too(concat):
    torch.manual_seed(0)
    kind = torch.complex128
    W, U = (torch.randn(n, 4, dtype=kind) * 0.4 for n in (4, 3))
    model = nn.ParameterDict({"W": nn.Parameter(torch.cat([U, W]) if concat else W)})
    x = torch.randn(5, 2, 3, dtype=kind)

    def run(weights):
        h = torch.zeros(2, 4, dtype=kind)
        for x_t, weight in zip(x, weights, strict=True):
            h = torch.cat([x_t, h], 1) @ weight if concat else x_t @ U + h @ weight
            h = h / (1 + h.abs())
        return h.abs().square().sum()

    with rnnctl.probe(model) as trace:
        run([model["W"]] * 5).backward()
    clones = [model["W"].detach().clone().requires_grad_() for _ in x]
    run(clones).backward()
    rows = slice(3, None) if concat else slice(None)
    expected = torch.stack([clone.grad[rows].abs().square().sum().sqrt() for clone in clones])
    torch.testing.assert_close(trace["W"].grad_norm_W_hh, expected, rtol=1e-9, atol=1e-14)
    assert trace["W"].agrees


class Beside(nn.Module):
    """cat(x, h) through one weight, as a linear map has it or the other way round."""

    def __init__(self, W, transposed):
        super().__init__()
        self.W, self.transposed = nn.Parameter(W.t().contiguous() if transposed else W), transposed

    def forward(self, x):
        h, states = x.new_zeros(x.shape[0], 5), []
        for x_t in x.unbind(1):
            both = torch.cat([x_t, h], 1)
            h = torch.tanh(nn.functional.linear(both, self.W.t() if self.transposed else self.W))
            states.append(h)
        return torch.stack(states, 1)


@pytest.mark.parametrize("transposed", [False, True], ids=["W", "W transposed"])
def test_a_weight_over_x_and_h_is_answered_as_two_weights_whichever_way_it_lies(transposed):
    torch.manual_seed(0)
    W, x = torch.randn(5, 8, dtype=torch.float64) * 0.4, torch.randn(3, 7, 3, dtype=torch.float64)
    plain = nn.RNN(3, 5, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        plain.weight_ih_l0.copy_(W[:, :3])
        plain.weight_hh_l0.copy_(W[:, 3:])
    model = Beside(W, transposed)
    for ask, names in (
        (rnnctl.gradnorm, ("grad_W_hh_norm", "cancellation", "factor_per_step", "spectral_radius", "spectral_norm")),
        (rnnctl.flow, ("grad_W_hh_norm", "median_reach", "largest_norm")),
        (rnnctl.truncation, ("grad_W_hh_norm", "cosine_at_1", "relative_error_at_2", "norm_ratio_at_4")),
    ):
        found, expected = ask(model, x, verify=True), ask(plain, x, verify=True)
        assert found.scalars["autograd_relative_error"] < 1e-12
        for name in names:
            assert found.scalars[name] == pytest.approx(expected.scalars[name], rel=1e-9), (ask.__name__, name)
    with rnnctl.probe(model) as trace:
        model(x).square().sum().backward()
    part = trace["W"].grad_of_state_columns
    expected = model.W.grad[3:] if transposed else model.W.grad[:, 3:]
    torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-14)


class FeedingOneAnother(nn.Module):
    """A slow loop, every fourth step, that is fed by a fast one and feeds it."""

    def __init__(self):
        super().__init__()
        self.fast, self.slow = nn.GRUCell(7, 4), nn.GRUCell(4, 4)

    def forward(self, x):
        fast = slow = x.new_zeros(x.shape[0], 4)
        self.states = []
        for t in range(x.shape[1]):
            fast = self.fast(torch.cat([x[:, t], slow], 1), fast)
            self.states.append(fast)
            if t % 4 == 3:
                slow = self.slow(fast, slow)
        return fast


def test_loops_that_feed_one_another_are_seen_rightly_before_their_ways_double_at_every_step():
    torch.manual_seed(0)
    model, x = FeedingOneAnother(), torch.randn(2, 16, 3)
    with rnnctl.probe(model) as trace:
        model(x).square().sum().backward()
    output = model(x)
    for state in model.states:
        state.retain_grad()
    output.square().sum().backward()
    expected = torch.stack([state.grad.norm() for state in model.states]).double()
    torch.testing.assert_close(trace["fast.weight_hh"].grad_norm_h, expected, rtol=1e-5, atol=1e-9)
    assert trace["fast.weight_hh"].agrees
