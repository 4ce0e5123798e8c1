"""Spectrum and Lyapunov exponents of recurrent code that nobody has a class for, from autograd's graph."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import rnnctl
from rnnctl.dynamics.jacobian import KRYLOV, spectral_radii, tangent_norms
from rnnctl.errors import DtypeError, InputError, RnnctlError, TooLargeError
from rnnctl.models.driven import driven_along
from rnnctl.models.made_tensors import MadeTensors
from rnnctl.recurrence.slopes import DenseMaps
from rnnctl.view.figures import FIGURES, figure_bytes
from rnnctl.view.render import rendered
from rnnctl.view.terminal import Terminal, View
from tests.styles import STYLES

T, B, D, H = 9, 3, 3, 4


def inputs(steps=T, batch=B, features=D, seed=0, dtype=torch.float64):
    return torch.randn(batch, steps, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


class Written(nn.Module):
    """Somebody's loop over (batch, time, input): ``step`` takes a tuple of states, the first of which is the output."""

    sizes: tuple[int, ...] = (H,)

    def __init__(self, hidden=H, features=D) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden = hidden
        self.W = nn.Parameter(1.3 * torch.randn(hidden, hidden) / hidden**0.5)
        self.U = nn.Parameter(torch.randn(features, hidden) / 2)
        self.double()

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.new_zeros(len(x), self.hidden) for _ in self.sizes)

    def step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        return (torch.tanh(x @ self.U + state[0] @ self.W),)

    def forward(self, x: Tensor) -> Tensor:
        state, outs = self.start(x), []
        for x_t in x.unbind(1):
            state = self.step(x_t, *state)
            outs.append(state[0])
        return torch.stack(outs, 1)


class Leaky(Written):
    """(1 - a) h + a tanh(...)"""

    a = 0.3

    def step(self, x, h):
        return ((1 - self.a) * h + self.a * torch.tanh(x @ self.U + h @ self.W),)


class Linear(Written):
    def step(self, x, h):
        return (x @ self.U + h @ self.W,)


class CatLSTM(Written):
    """One map over x and h beside one another."""

    sizes = (H, H)

    def __init__(self, hidden=H, features=D) -> None:
        super().__init__(hidden, features)
        del self.W, self.U
        self.gates = nn.Linear(features + hidden, 4 * hidden).double()

    def step(self, x, h, c):
        i, f, g, o = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class TwoBack(Written):
    """A step that looks at two steps before it."""

    sizes = (H, H)

    def __init__(self, hidden=H, features=D) -> None:
        super().__init__(hidden, features)
        self.V = nn.Parameter(torch.randn(hidden, hidden).double() / 3)

    def step(self, x, h, before):
        return torch.tanh(x @ self.U + h @ self.W + before @ self.V), h


class Convolved(Written):
    """A kernel over a state of channels and places."""

    def __init__(self, hidden=2, features=6) -> None:
        super().__init__(hidden, features)
        del self.W, self.U
        self.conv = nn.Conv1d(hidden, hidden, 3, padding=1).double()

    def start(self, x):
        return (x.new_zeros(len(x), self.hidden, x.shape[2]),)

    def step(self, x, h):
        return (torch.tanh(x.unsqueeze(1) + self.conv(h)),)


class Learned(Leaky):
    """The state before step 0 is a weight."""

    def __init__(self, hidden=H, features=D) -> None:
        super().__init__(hidden, features)
        self.h_0 = nn.Parameter(torch.randn(hidden).double())

    def start(self, x):
        return (self.h_0.expand(len(x), -1),)


class Linears(Written):
    """nn.Linear for x and for h, as torch lays weights out."""

    def __init__(self, hidden=H, features=D, f=torch.tanh) -> None:
        super().__init__(hidden, features)
        del self.W, self.U
        self.f, self.inward, self.recurrent = (
            f,
            nn.Linear(features, hidden).double(),
            nn.Linear(hidden, hidden).double(),
        )

    def step(self, x, h):
        return (self.f(self.inward(x) + self.recurrent(h)),)


def by_torch_func(model, x):
    """J of every step but the first and every sequence, (time - 1, batch, state, state): the step differentiated."""
    state, found = model.start(x), []
    for t, x_t in enumerate(x.unbind(1)):
        if t:
            sizes = [part[0].numel() for part in state]

            def step(flat, x_b, shapes=tuple(part.shape[1:] for part in state), sizes=tuple(sizes)):
                parts = [part.reshape(1, *shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
                return torch.cat([part.reshape(-1) for part in model.step(x_b[None], *parts)])

            flat = torch.cat([part.reshape(len(x), -1) for part in state], 1)
            found.append(torch.stack([torch.func.jacrev(step)(s, x_b) for s, x_b in zip(flat, x_t, strict=True)]))
        state = tuple(part.detach() for part in model.step(x_t, *state))
    return torch.stack(found).detach()


def jacobians(model, x, only=None):
    steps = driven_along(model, x, None, only)
    return torch.stack([steps.jacobian(step) for step in range(steps.seq_len)])


def exponents_by_qr(J, warmup=0):
    """Of (time, batch, state, state), by their definition; the mean over the sequences, falling."""
    steps, batch, state, _ = J.shape
    found = torch.zeros(batch, state, dtype=torch.float64)
    for b in range(batch):
        Q = torch.linalg.qr(torch.randn(state, state, generator=torch.Generator().manual_seed(5)).double()).Q
        for t in range(steps):
            Q, R = torch.linalg.qr(J[t, b] @ Q)
            if t >= warmup:
                found[b] += R.diagonal().abs().log() / (steps - warmup)
    return found.mean(0).sort(descending=True).values


MODELS = {
    "leaky": (Leaky, "W"),
    "concatenating LSTM": (CatLSTM, "gates.weight"),
    "linears": (Linears, "recurrent.weight"),
}


# ---- the Jacobians ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_jacobians_are_those_of_the_step_by_torch_func(case, batch):
    make, only = MODELS[case]
    model, x = make(), inputs(batch=batch)
    found, expected = jacobians(model, x, only), by_torch_func(model, x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_steps_that_look_two_steps_back_have_the_eigenvalues_of_both_states():
    """What is handed on may be h_{t-1} V in place of h_{t-1}: another basis. Of step 0 there is no step before."""
    model, x = TwoBack(), inputs()
    steps = driven_along(model, x, None, "W")
    assert (steps.first_step, steps.state_size) == (2, 2 * H)
    found = torch.stack([steps.jacobian(step) for step in range(steps.seq_len)])
    expected = by_torch_func(model, x)[1 : 1 + len(found)]
    assert len(found) >= T - 6
    for one, other in zip(found.flatten(0, 1), expected.flatten(0, 1), strict=True):
        ours, theirs = (np.sort_complex(np.linalg.eigvals(each.numpy()).round(8)) for each in (one, other))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_jacobian_of_a_convolution_is_of_all_channels_and_places():
    model, x = Convolved(), inputs(features=6)
    torch.testing.assert_close(jacobians(model, x, "conv.weight"), by_torch_func(model, x), rtol=1e-10, atol=1e-14)


def test_a_leaky_networks_jacobian_is_the_leak_and_the_slopes_times_W():
    """(1 - a) I + a diag(f'(a_t)) W, of h W as of W h."""
    model, x = Leaky(), inputs()
    h, expected = x.new_zeros(B, H), []
    with torch.no_grad():
        for x_t in x.unbind(1):
            slope = 1 - torch.tanh(x_t @ model.U + h @ model.W) ** 2
            expected.append(0.7 * torch.eye(H).double() + 0.3 * slope.unsqueeze(2) * model.W.T)
            (h,) = model.step(x_t, h)
    torch.testing.assert_close(jacobians(model, x), torch.stack(expected[1:]), rtol=1e-12, atol=1e-15)


def test_a_learned_start_is_the_state_before_step_0():
    model, x = Learned(), inputs()
    found = rnnctl.spectrum(model, x)
    assert (found.first_step, [step["t"] for step in found.steps]) == (0, list(range(T)))
    # The same network from a step before: its first input leads nowhere but to that state.
    h = model.h_0.detach().expand(B, -1)
    slope = 1 - torch.tanh(x[:, 0] @ model.U + h @ model.W).detach() ** 2
    first = 0.7 * torch.eye(H).double() + 0.3 * slope.unsqueeze(2) * model.W.detach().T
    torch.testing.assert_close(jacobians(model, x)[0], first, rtol=1e-12, atol=1e-15)
    assert rnnctl.spectrum(Leaky(), x).first_step == 1


class LearnedH(CatLSTM):
    def __init__(self) -> None:
        super().__init__()
        self.h_0 = nn.Parameter(torch.randn(H).double())

    def start(self, x):
        return self.h_0.expand(len(x), -1), x.new_zeros(len(x), H)


def test_a_start_of_which_a_part_is_constant_is_none():
    assert rnnctl.spectrum(LearnedH(), inputs()).first_step == 1


TWO_STATES = ("ConcatLSTM", "ConcatLSTMStateFirst", "FourLinearsLSTM", "PackedState", "ConvLSTM", "PeepholeLSTM")
ONE_STATE = [
    name for name, each in STYLES.items() if len(each.steps(6)) == 1 and name not in ("Attention", *TWO_STATES)
]


@pytest.mark.parametrize("name", ONE_STATE)
def test_of_any_style_products_of_jacobians_carry_gradients_from_state_to_state(name):
    """v J_T .. J_2 is what autograd sends a v from the last known state to the first: no state is left out."""
    posed = STYLES[name].posed()
    steps = driven_along(posed.model, posed.x, None, STYLES[name].weight)
    first, last = (torch.autograd.graph.GradientEdge(*_edge(steps, place)) for place in (0, -1))
    shape = steps._graph.shape(steps._states[-1][-1])
    v = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (expected,) = torch.autograd.grad(last, first, v, retain_graph=True)
    axis = steps._axes[-1]
    rows = (v.reshape(1, -1) if axis is None else v.movedim(axis, 0).reshape(steps.batch, -1)).unsqueeze(1)
    for step in reversed(range(steps.seq_len)):
        rows = rows @ steps.jacobian(step)
    got = expected.reshape(1, -1) if axis is None else expected.movedim(axis, 0).reshape(steps.batch, -1)
    torch.testing.assert_close(rows.squeeze(1), got, rtol=1e-9, atol=1e-14)
    assert steps.seq_len >= 4


def _edge(steps, place):
    at, number = steps._states[place][-1]
    return steps._graph.nodes[at], number


@pytest.mark.parametrize("name", TWO_STATES)
def test_of_two_states_what_comes_out_of_both_is_what_autograd_sends_through_both(name):
    """h is made of c: autograd's gradient of c holds what goes through h as well, dL/dc + dL/dh dh/dc."""
    posed = STYLES[name].posed()
    steps = driven_along(posed.model, posed.x, None, STYLES[name].weight)
    graph, (h, c), (h_last, c_last) = steps._graph, steps._states[0], steps._states[-1]
    edges = [torch.autograd.graph.GradientEdge(graph.nodes[at], number) for at, number in (h, c, h_last, c_last)]
    generator = torch.Generator().manual_seed(3)
    v, w = (torch.randn(graph.shape(each), generator=generator, dtype=torch.float64) for each in (h, c))
    dh, dc = torch.autograd.grad(edges[2:], edges[:2], (v, w), retain_graph=True)
    (through,) = torch.autograd.grad(edges[0], edges[1], dh)
    rows = torch.cat([v.flatten(1), w.flatten(1)], 1).unsqueeze(1)
    for step in reversed(range(steps.seq_len)):
        rows = rows @ steps.jacobian(step)
    expected = torch.cat([dh.flatten(1), (dc - through).flatten(1)], 1)
    torch.testing.assert_close(rows.squeeze(1), expected, rtol=1e-9, atol=1e-13)


class Half(torch.autograd.Function):
    """x / 2, backward by the number of its elements, which vmap does not give away."""

    @staticmethod
    def forward(ctx, x):
        return x / 2

    @staticmethod
    def backward(ctx, grad):
        return grad * (0.5 if float(grad.abs().sum()) >= 0 else math.nan)


class Halved(Leaky):
    def step(self, x, h):
        (h,) = super().step(x, h)
        return (Half.apply(h),)


class Liar(torch.autograd.Function):
    """x / 2, backward something else where it runs for several gradients at once."""

    @staticmethod
    def forward(ctx, x):
        return x / 2

    @staticmethod
    def backward(ctx, grad):
        batched = torch._C._functorch.is_functorch_wrapped_tensor(grad)
        return grad * (3.0 if batched else 0.5)


class Lied(Leaky):
    def step(self, x, h):
        (h,) = super().step(x, h)
        return (Liar.apply(h),)


@pytest.mark.parametrize("make", [Halved, Lied])
def test_functions_that_do_not_run_for_all_rows_at_once_run_row_by_row(make):
    model, x = make(), inputs()
    torch.testing.assert_close(jacobians(model, x), by_torch_func(_plainly(model), x), rtol=1e-10, atol=1e-14)


def _plainly(model):
    """With x / 2 by torch's own division."""
    plain = Leaky()
    plain.load_state_dict(model.state_dict())
    plain.step = lambda x, h: tuple(part / 2 for part in Leaky.step(plain, x, h))
    return plain


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_rows_are_the_same_however_many_are_taken_at_once(rows, monkeypatch):
    expected = jacobians(CatLSTM(), inputs())
    monkeypatch.setattr("rnnctl.models.graph_steps.BLOCK_BYTES", rows * 64 * B * 2 * H)
    torch.testing.assert_close(jacobians(CatLSTM(), inputs()), expected, rtol=1e-13, atol=1e-15)


# ---- as known classes ---------------------------------------------------------------------------


def full_of(model, nonlinearity="tanh"):
    full = rnnctl.FullRNN(D, model.hidden, 2, nonlinearity=nonlinearity, dtype=torch.float64)
    with torch.no_grad():
        for theirs, ours in ((full.rnn_cell.input_to_hidden, "inward"), (full.rnn_cell.hidden_to_hidden, "recurrent")):
            theirs.load_state_dict(getattr(model, ours).state_dict())
    return full


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "linear"])
@pytest.mark.parametrize("hidden", [1, 5, KRYLOV + 3])
def test_an_elman_network_by_hand_has_the_spectrum_of_the_FullRNN_with_its_weights(nonlinearity, hidden):
    f = {"tanh": torch.tanh, "relu": torch.relu, "linear": lambda a: a}[nonlinearity]
    model, x = Linears(hidden, f=f), inputs()
    found, expected = rnnctl.spectrum(model, x), rnnctl.spectrum(full_of(model, nonlinearity), x)
    for ours, theirs in zip(found.steps, expected.steps[1:], strict=True):
        assert ours["t"] == theirs["t"]
        for name in ("jacobian_norm_mean", "jacobian_norm_max"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-9)
    for name in ("spectral_radius", "spectral_norm", "condition_number", "departure_from_normality"):
        assert found.scalars[name] == pytest.approx(expected.scalars[name], rel=1e-9)
    assert found.more["eigenvalues"] == expected.rows


def test_exponents_of_an_elman_network_by_hand_are_those_of_the_FullRNN_from_its_first_state():
    model, x = Linears(), inputs(steps=60)
    full = full_of(model)
    first = full.rnn_cell(x[:, 0], x.new_zeros(B, H)).detach()
    for settings in ({}, {"count": 2}, {"warmup": 5, "steps": 20}):
        found = rnnctl.lyapunov(model, x, **settings)
        expected = rnnctl.lyapunov(full, x[:, 1:], h_init=first, **settings)
        torch.testing.assert_close(found.exponents, expected.exponents, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.stderr, expected.stderr, rtol=1e-9, atol=1e-12)
        assert [row["steps"] for row in found.convergence] == [row["steps"] for row in expected.convergence]
        assert (found.first_step, expected.first_step) == (1, 0)


def test_an_lstm_over_x_and_h_beside_one_another_is_the_nn_LSTM_with_its_weights():
    model, x = CatLSTM(), inputs(steps=40)
    lstm = nn.LSTM(D, H, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(model.gates.weight[:, :D])
        lstm.weight_hh_l0.copy_(model.gates.weight[:, D:])
        lstm.bias_ih_l0.copy_(model.gates.bias)
        lstm.bias_hh_l0.zero_()
    _, (h, c) = lstm(x[:, :1])
    layer = rnnctl.driven_layer(lstm, x[:, 1:], (h, c))
    found, expected = rnnctl.lyapunov(model, x), rnnctl.lyapunov(layer)
    torch.testing.assert_close(found.exponents, expected.exponents, rtol=1e-8, atol=1e-10)
    ours, theirs = rnnctl.spectrum(model, x), rnnctl.spectrum(layer)
    for name in ("jacobian_norm_mean", "jacobian_norm_max", "jacobian_radius_mean"):
        assert ours.scalars[name] == pytest.approx(theirs.scalars[name], rel=1e-9)
    assert (found.state_size, found.kind.state, ours.state) == (2 * H, "h_t and others", "h_t and others")


class ByHand(nn.LSTM):
    """An nn.LSTM whose own forward is a loop, and never torch's."""

    def forward(self, x):
        h = c = x.new_zeros(len(x), self.hidden_size)
        outs = []
        for x_t in x.unbind(1):
            a = F.linear(x_t, self.weight_ih_l0, self.bias_ih_l0) + F.linear(h, self.weight_hh_l0, self.bias_hh_l0)
            i, f, g, o = a.chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outs.append(h)
        return torch.stack(outs, 1)


def test_a_subclass_that_does_its_steps_by_hand_is_measured_and_one_that_runs_torchs_is_refused():
    torch.manual_seed(0)
    model, x = ByHand(D, H, batch_first=True).double(), inputs()
    plain = nn.LSTM(D, H, batch_first=True).double()
    plain.load_state_dict(model.state_dict())
    found, expected = rnnctl.spectrum(model, x), rnnctl.spectrum(plain, x)
    assert (found.cell, expected.cell) == ("ByHand", "LSTM")
    for ours, theirs in zip(found.steps, expected.steps[1:], strict=True):
        assert ours["jacobian_norm_mean"] == pytest.approx(theirs["jacobian_norm_mean"], rel=1e-9)

    class Doubled(nn.LSTM):
        def forward(self, x):
            return super().forward(2 * x)

    with pytest.raises(InputError, match="Doubled has a forward of its own"):
        rnnctl.spectrum(Doubled(D, H, batch_first=True).double(), x)


class Beside(nn.Module):
    """A layer of torch's, and a loop of somebody's on what it returns."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.GRU(D, D, batch_first=True).double(), Leaky()

    def forward(self, x):
        return self.decoder(self.encoder(x)[0])


def test_beside_a_layer_of_torchs_code_of_ones_own_has_to_be_named():
    model, x = Beside(), inputs()
    alone = rnnctl.spectrum(model.encoder, x)
    assert rnnctl.spectrum(model, x).scalars == rnnctl.spectrum(model, x, only="encoder").scalars == alone.scalars
    for only in ("decoder", "decoder.*", "decoder.W"):
        found = rnnctl.spectrum(model, x, only=only)
        assert (found.cell, found.weight) == ("Leaky", "decoder.W")
    expected = by_torch_func(model.decoder, model.encoder(x)[0].detach())
    torch.testing.assert_close(jacobians(model, x, "decoder"), expected, rtol=1e-10, atol=1e-14)
    with pytest.raises(InputError, match="pick one with --module of encoder.weight_hh_l0, decoder.W"):
        rnnctl.lyapunov(TwoByHand(), x)


class TwoByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = ByHand(D, D).double(), Leaky()

    def forward(self, x):
        return self.decoder(self.encoder(x))


# ---- exponents and eigenvalues with known answers ------------------------------------------------


def test_a_linear_network_has_the_logarithms_of_its_eigenvalues_and_singular_values_of_W():
    model = Linear()
    eigenvalues = torch.tensor([0.9, 0.7, -0.4, 0.2]).double()
    basis = torch.eye(H).double() + 0.2 * torch.randn(H, H, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        model.W.copy_(basis @ eigenvalues.diag() @ basis.inverse())
    found = rnnctl.lyapunov(model, inputs(steps=400), warmup=150)
    assert found.exponents.tolist() == pytest.approx(eigenvalues.abs().log().sort(descending=True).values.tolist())
    assert found.scalars["sum"] == pytest.approx(float(eigenvalues.abs().log().sum()))
    spectrum = rnnctl.spectrum(model, inputs())
    norm = np.linalg.svd(model.W.detach().numpy(), compute_uv=False)[0]
    assert spectrum.scalars["jacobian_norm_mean"] == pytest.approx(norm)
    assert spectrum.scalars["jacobian_radius_mean"] == pytest.approx(0.9)


def test_a_leaky_linear_network_has_the_eigenvalues_of_the_leak_and_W():
    class Leaking(Leaky):
        def step(self, x, h):
            return ((1 - self.a) * h + self.a * (x @ self.U + h @ self.W),)

    model = Leaking()
    with torch.no_grad():
        model.W.copy_(torch.diag(torch.tensor([0.5, -0.5, 1.0, 0.0])))
    found = rnnctl.lyapunov(model, inputs(steps=300), warmup=250)
    expected = sorted((math.log(0.7 + 0.3 * w) for w in (0.5, -0.5, 1.0, 0.0)), reverse=True)
    assert found.exponents.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("case", ["leaky", "concatenating LSTM", "linears"])
def test_exponents_are_those_of_the_jacobians_by_their_definition(case):
    make, only = MODELS[case]
    model, x = make(), inputs(steps=200)
    expected = exponents_by_qr(by_torch_func(model, x), warmup=50)
    found = rnnctl.lyapunov(model, x, only=only, warmup=50)
    assert found.exponents.tolist() == pytest.approx(expected.tolist(), abs=2e-2)
    assert found.scalars["sum"] == pytest.approx(float(expected.sum()), rel=1e-9)


def test_a_W_without_full_rank_loses_its_directions_in_float32_as_in_float64():
    for dtype in (torch.float32, torch.float64):
        model = Linears(12)
        with torch.no_grad():
            model.recurrent.weight[:, 4:] = model.recurrent.weight[:, :4] @ torch.randn(4, 8).double()
        found = rnnctl.lyapunov(model.to(dtype), inputs(steps=30, dtype=dtype))
        assert found.exponents.isinf().tolist() == [False] * 4 + [True] * 8


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_narrow_models_are_differentiated_in_their_own_dtype_which_is_said(dtype, tolerance):
    model, x = Leaky().to(dtype), inputs(dtype=dtype)
    found = rnnctl.spectrum(model, x)
    wide = Leaky()
    wide.load_state_dict({name: part.double() for name, part in model.state_dict().items()})
    expected = rnnctl.spectrum(wide, x.double())
    assert found.scalars["jacobian_norm_mean"] == pytest.approx(expected.scalars["jacobian_norm_mean"], rel=tolerance)
    assert found.more == expected.more
    assert found.computed_in == f"{str(dtype).removeprefix('torch.')}, as it runs"
    assert rnnctl.lyapunov(model, x).scalars["computed_in"] == found.computed_in


def test_W_hh_is_the_part_that_multiplies_the_state():
    class Cat(Written):
        def __init__(self, features, hidden, state_first) -> None:
            super().__init__(hidden, features)
            del self.W, self.U
            self.state_first, self.map = state_first, nn.Linear(features + hidden, hidden).double()

        def step(self, x, h):
            return (torch.tanh(self.map(torch.cat([h, x] if self.state_first else [x, h], 1))),)

    for features, hidden, state_first in ((3, 4, True), (4, 4, False), (1, 6, False)):
        model = Cat(features, hidden, state_first)
        part = model.map.weight.detach()[:, slice(0, hidden) if state_first else slice(features, None)]
        found = rnnctl.spectrum(model, inputs(features=features))
        expected = np.linalg.svd(part.numpy(), compute_uv=False)
        assert found.singular_values.tolist() == pytest.approx(expected.tolist())
        assert np.sort_complex(found.eigenvalues.numpy()) == pytest.approx(np.sort_complex(np.linalg.eigvals(part)))


def test_W_hh_is_what_is_made_of_the_weight_where_it_is_made_anew():
    model, x = Linears(), inputs()
    parametrizations.weight_norm(model.recurrent)
    with torch.no_grad():
        model.recurrent.parametrizations.weight.original0.mul_(torch.tensor([[0.5], [2.0], [1.0], [1.0]]))
    found = rnnctl.spectrum(model, x, only="recurrent.parametrizations.weight.original1")
    expected = np.linalg.svd(model.recurrent.weight.detach().numpy(), compute_uv=False)
    assert found.singular_values.tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize(
    ("name", "is_square"),
    [("Einsum", True), ("HoistedTranspose", True), ("WeightDrop", True), ("Addmm", True)]
    + [("ConvRNN", False), ("IndRNN", False), ("Heads", False), ("ChunkedGRU", False), ("Continuous", False)],
)
def test_eigenvalues_are_given_where_the_weight_is_one_square_matrix_a_step(name, is_square):
    posed = STYLES[name].posed()
    found = rnnctl.spectrum(posed.model, posed.x, only=STYLES[name].weight)
    assert (found.eigenvalues is not None) == bool(found.more["eigenvalues"]) == is_square
    assert (found.scalars["spectral_radius"] is not None) == (found.scalars["hidden_size"] is not None) == is_square
    assert found.scalars["jacobian_norm_mean"] > 0
    if name in ("Einsum", "HoistedTranspose", "Addmm"):
        expected = np.linalg.svd(posed.model.W.detach().numpy(), compute_uv=False)
        assert found.singular_values.tolist() == pytest.approx(expected.tolist())


def test_norms_and_radii_of_dense_maps_are_numpys():
    J = torch.randn(7, KRYLOV + 4, KRYLOV + 4, generator=torch.Generator().manual_seed(0)).double()
    maps = DenseMaps(J, torch.float64)
    norms = [np.linalg.norm(each, 2) for each in J.numpy()]
    radii = [np.abs(np.linalg.eigvals(each)).max() for each in J.numpy()]
    assert tangent_norms(maps).tolist() == pytest.approx(norms, rel=1e-6)
    assert spectral_radii(maps).tolist() == pytest.approx(radii)
    V = torch.randn(7, KRYLOV + 4, 2).double()
    torch.testing.assert_close((maps.transposed(V) * V).sum(), (V * maps(V)).sum())


def test_a_state_that_never_leaves_its_start_is_said():
    still = rnnctl.lyapunov(Leaky(), torch.zeros(B, T, D).double())
    assert still.stands_still
    assert "never leaves" in table_of(still)
    assert not rnnctl.lyapunov(Leaky(), inputs()).stands_still


# ---- which axis counts the sequences ------------------------------------------------------------


class TimeFirst(Leaky):
    def forward(self, x):
        return super().forward(x.transpose(0, 1))


class Middle(Leaky):
    """The sequences are the second axis of the state: (units, batch)."""

    def start(self, x):
        return (x.new_zeros(self.hidden, len(x)),)

    def step(self, x, h):
        return ((1 - self.a) * h + self.a * torch.tanh(self.W.T @ h + (x @ self.U).T),)


@pytest.mark.parametrize("batch", [2, H, T])
def test_sequences_are_found_wherever_their_axis_is(batch):
    x = inputs(batch=batch)
    expected = by_torch_func(Leaky(), x)
    torch.testing.assert_close(jacobians(Leaky(), x), expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(jacobians(Middle(), x), expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(jacobians(TimeFirst(), x.transpose(0, 1)), expected, rtol=1e-10, atol=1e-14)


class Apart(Leaky):
    """Every unit sees itself alone, so that units look like sequences."""

    def __init__(self, hidden) -> None:
        super().__init__(hidden)
        self.W = nn.Parameter(self.W.detach()[0].clone())

    def step(self, x, h):
        return (torch.tanh(x @ self.U + h * self.W),)

    def forward(self, x):
        return super().forward(x.transpose(0, 1))


def test_units_that_do_not_meet_are_not_taken_for_sequences():
    """x as (time, batch, input), and as many units as steps."""
    steps = driven_along(Apart(T), inputs().transpose(0, 1), None, "W")
    assert (steps.batch, steps.state_size) == (B, T)


class Normed(Leaky):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(H).double()

    def step(self, x, h):
        return (torch.tanh(x @ self.U + self.norm(h @ self.W)),)


def test_sequences_that_depend_on_one_another_are_refused_with_the_remedy():
    model, x = Normed(), inputs()
    for ask in (rnnctl.spectrum, rnnctl.lyapunov):
        with pytest.raises(InputError, match=r"W: at step 1 .* depends on other sequences .*BatchNorm.*Try model.eval"):
            ask(model, x, only="W")
    model.eval()
    torch.testing.assert_close(jacobians(model, x, "W"), by_torch_func(model, x), rtol=1e-10, atol=1e-14)


class Late(Leaky):
    """Sequences meet at one later step alone."""

    def forward(self, x):
        h, outs = x.new_zeros(len(x), H), []
        for t, x_t in enumerate(x.unbind(1)):
            (h,) = self.step(x_t, h)
            if t == 5:
                h = h - 0.1 * h.mean(0)
            outs.append(h)
        return torch.stack(outs, 1)


def test_sequences_that_meet_at_one_later_step_are_refused_there():
    with pytest.raises(
        InputError, match="W: (at step 5 the state of a sequence depends on other|its state is not known at step 5)"
    ):
        rnnctl.spectrum(Late(), inputs())


class Folded(Leaky):
    """The sequences have no axis of their own."""

    def start(self, x):
        return (x.new_zeros(len(x) * self.hidden),)

    def step(self, x, h):
        (h,) = super().step(x, h.view(len(x), -1))
        return (torch.sin(h.flatten()),)


def test_a_state_without_an_axis_of_sequences_is_taken_one_sequence_at_a_time():
    with pytest.raises(InputError, match=r"no axis of its state, of shape \(12,\), counts the 3 sequences.*Try one"):
        rnnctl.spectrum(Folded(), inputs())
    found, x = rnnctl.spectrum(Folded(), inputs(batch=1)), inputs(batch=1)
    assert found.state_size == H
    h, (h_before,) = None, (x.new_zeros(1, H),)
    model = Leaky()
    for t, x_t in enumerate(x.unbind(1)):
        J = torch.func.jacrev(lambda s, x_t=x_t: torch.sin(Leaky.step(model, x_t, s[None])[0][0]))(h_before[0])
        h = torch.sin(model.step(x_t, h_before)[0]).detach()
        if t:
            assert found.steps[t - 1]["jacobian_norm_max"] == pytest.approx(
                float(torch.linalg.matrix_norm(J.detach(), 2))
            )
        h_before = h


# ---- what is not finite -------------------------------------------------------------------------


class Exploding(Linears):
    def __init__(self) -> None:
        super().__init__(2, 1, f=torch.relu)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.recurrent.weight.copy_(1e100 * torch.eye(2).double())
            self.inward.weight.fill_(1.0)


def test_overflow_names_the_step_and_keeps_what_was_before():
    x = torch.ones(2, 9, 1).double()
    found = rnnctl.spectrum(Exploding(), x)
    # 1, 1e100, 1e200, 1e300, inf: relu's slope there would be as good as ever.
    assert found.scalars["first_nonfinite_step"] == 4
    assert [step["t"] for step in found.steps] == [1, 2, 3]
    assert found.conditions == {"nonfinite": True}
    measured = rnnctl.lyapunov(Exploding(), x, warmup=0)
    assert (measured.first_nonfinite_step, measured.steps) == (4, 3)
    assert measured.exponents.tolist() == pytest.approx([math.log(1e100)] * 2)
    with pytest.raises(
        RnnctlError, match="h_t is not finite at step 4, before a step was measured.*Try a smaller warmup"
    ):
        rnnctl.lyapunov(Exploding(), x, warmup=3)


def test_a_start_that_is_not_finite_is_named_and_nothing_is_measured():
    x = inputs()
    x[1, 0] = math.nan
    found = rnnctl.spectrum(Leaky(), x)
    assert (found.steps, found.first_nonfinite_step) == ((), 0)
    assert table_of(found, "csv") == ""
    assert "h_t overflows first at step 0" in table_of(found)
    assert figure_bytes(found, "title", "svg").startswith(b"<?xml")


class Rooted(Leaky):
    """sqrt|h|, whose slope at 0 is none."""

    def step(self, x, h):
        return (torch.tanh(x @ self.U + h.abs().sqrt() @ self.W),)


def test_a_jacobian_that_is_not_finite_ends_the_trajectory_whatever_the_state_is():
    x = inputs()
    x[0, 4] = 0
    with torch.no_grad():
        (model := Rooted()).W.zero_()
    found = rnnctl.spectrum(model, x)
    assert model(x).isfinite().all()
    # What step 4 hands on is the root of 0.
    assert (found.first_nonfinite_step, [step["t"] for step in found.steps]) == (4, [1, 2, 3])


def test_tensors_that_were_overwritten_are_not_taken_for_what_they_were():
    w, made = torch.ones(2, requires_grad=True), MadeTensors()
    with made:
        first = w * 2
        node = first.grad_fn
        second = first.add_(1)
        third = Half.apply(second)
    assert made.of(node, 0) is None
    assert made.of(second.grad_fn, 0).tolist() == [3, 3]
    assert made.of(third.grad_fn, 0) is None


def test_nan_in_a_later_input_ends_the_trajectory_at_its_step():
    x = inputs()
    x[2, 6] = math.nan
    found = rnnctl.spectrum(CatLSTM(), x)
    assert (found.first_nonfinite_step, [step["t"] for step in found.steps]) == (6, [1, 2, 3, 4, 5])


def test_a_nonfinite_weight_reaches_no_lapack_but_is_named(monkeypatch):
    for name in ("eigvals", "svdvals", "qr"):
        monkeypatch.setattr(torch.linalg, name, None)
    model = Linears()
    with torch.no_grad():
        model.recurrent.weight[1, 2] = math.nan
    for ask in (rnnctl.spectrum, rnnctl.lyapunov):
        with pytest.raises(InputError, match=r"recurrent.weight must be finite; it holds nan at \(1, 2\)"):
            ask(model, inputs())


# ---- refusals -----------------------------------------------------------------------------------


class Three(Written):
    """A gate with a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.V = nn.Parameter(self.W.detach().clone())

    def step(self, x, h):
        z = torch.sigmoid(h @ self.V)
        return (z * h + (1 - z) * torch.tanh(x @ self.U + h @ self.W),)


@pytest.mark.parametrize(
    ("make", "only", "said"),
    [
        (Three, None, "spectrum and lyapunov look at one weight; pick one with --module of W, V"),
        (Leaky, "U", "only='U' picks no weight that recurs in this pass; there is W"),
        (Three, "U", "only='U' picks no weight that recurs in this pass; there are W, V"),
        (Leaky, "V", "only='V' matches no recurrent weight; the model has W, U"),
        (lambda: nn.Linear(D, H).double(), None, "there is none; the model has no recurrent module of a known kind"),
    ],
)
def test_weights_that_are_not_one_are_refused(make, only, said):
    for ask in (rnnctl.spectrum, rnnctl.lyapunov):
        with pytest.raises(InputError, match=said):
            ask(make(), inputs(), only=only)


def test_weights_of_one_state_have_the_same_jacobians():
    model, x = Three(), inputs()
    expected = by_torch_func(model, x)
    for only in ("W", "V"):
        torch.testing.assert_close(jacobians(model, x, only), expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Attention", "W: its state is not known at step 0: steps look at earlier steps than the one before"),
        ("TwoDirections", "W runs over 2 sequences that no state links; spectrum and lyapunov take one"),
        ("TwoWindows", "W runs over 2 sequences that no state links"),
    ],
)
def test_steps_without_one_chain_of_states_are_refused(name, said):
    posed = STYLES[name].posed()
    for ask in (rnnctl.spectrum, rnnctl.lyapunov):
        with pytest.raises(InputError, match=said):
            ask(posed.model, posed.x)


def test_what_only_a_known_layer_takes_is_refused():
    model, x = Leaky(), inputs()
    with pytest.raises(InputError, match="autonomous: the steps of W are code of Leaky, which reads its input itself"):
        rnnctl.lyapunov(model, x, autonomous=True)
    with pytest.raises(InputError, match="h_init"):
        rnnctl.spectrum(model, x, h_init=x.new_zeros(B, H))
    with pytest.raises(InputError, match="a model needs x"):
        rnnctl.spectrum(model)
    with pytest.raises(
        InputError, match=r"the sequence has 8 steps from step 1 on; warmup 0 and 9 measured.*Try a longer --seq-len$"
    ):
        rnnctl.lyapunov(model, x, steps=9)
    with pytest.raises(InputError, match="count must be from 1 to the size of the state 8; got 9"):
        rnnctl.lyapunov(CatLSTM(), x, count=9)


def test_a_step_alone_has_no_jacobian():
    with pytest.raises(InputError, match="there is none"):
        rnnctl.spectrum(Leaky(), inputs(steps=1))


def test_a_complex_state_is_refused():
    class Complex(Leaky):
        def forward(self, x):
            return torch.view_as_real(super().forward(x.to(torch.complex128)))

        def step(self, x, h):
            return (torch.tanh(x @ self.U.to(x.dtype) + h @ self.W.to(x.dtype)),)

    with pytest.raises(DtypeError, match="W: its state is complex"):
        rnnctl.spectrum(Complex(), inputs())


def test_what_does_not_fit_is_refused_before_it_is_computed(monkeypatch):
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: 10_000)
    with pytest.raises(TooLargeError, match=r"the Jacobian of a step, \(8, 8\) for each of 3 sequences, would take"):
        rnnctl.spectrum(CatLSTM(), inputs())


# ---- nothing is changed -------------------------------------------------------------------------


def test_nothing_of_the_model_is_changed_and_frozen_weights_are_no_obstacle():
    model, x = Linears(), inputs().requires_grad_()
    expected = jacobians(model, x)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    torch.testing.assert_close(jacobians(model, x.detach()), expected)
    rnnctl.spectrum(model, x), rnnctl.lyapunov(model, x)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert x.grad is None
    assert not any((m._forward_hooks or m._forward_pre_hooks) for m in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_under_no_grad_it_is_the_same():
    with torch.no_grad():
        found = jacobians(Leaky(), inputs())
    torch.testing.assert_close(found, jacobians(Leaky(), inputs()))


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_is_measured_as_long_as_autograd_sees_its_steps():
    x, expected = inputs(), rnnctl.spectrum(Leaky(), inputs())
    model = torch.compile(Leaky(), backend="eager", fullgraph=True)
    assert rnnctl.spectrum(model, x).steps == expected.steps
    torch._dynamo.reset()
    with pytest.raises(InputError, match="the model is compiled"):
        rnnctl.spectrum(torch.compile(Leaky(), backend="aot_eager"), x)


def test_inputs_of_several_arguments_are_taken():
    class Scaled(Leaky):
        def forward(self, x, *, scale):
            return super().forward(x * scale)

    x, scale = inputs(), torch.rand(B, 1, 1).double()
    expected = rnnctl.spectrum(Leaky(), x * scale).steps
    assert rnnctl.spectrum(Scaled(), {"x": x, "scale": scale}).steps == expected


# ---- how it is shown ----------------------------------------------------------------------------


def table_of(result, form="table", width=100):
    return rendered(result, View(form, terminal=Terminal(width=width)), {"file": "x"}, versions={})


@pytest.mark.parametrize(("make", "is_square"), [(Leaky, True), (CatLSTM, False)])
def test_a_spectrum_of_steps_is_shown_in_every_form(make, is_square):
    found = rnnctl.spectrum(make(), inputs())
    text = table_of(found)
    assert "measured from step 1 on" in text
    assert ("eigenvalues and singular values of W_hh" in text) == is_square
    assert ("is not one square matrix" in text) == (not is_square)
    document = json.loads(table_of(found, "json"))
    assert document["schema"] == "rnnctl.spectrum-steps"
    assert [row["t"] for row in document["rows"]] == list(range(1, T))
    assert len(document["eigenvalues"]) == (H if is_square else 0)
    assert table_of(found, "csv").startswith("t,jacobian_norm_mean,jacobian_norm_max,jacobian_radius_mean\n1,")
    undefined = {"keep_gate", "keep_mean", "saturated_fraction", "norm_bound", "norm_bound_certifies", "mean_slope"}
    undefined |= {"dead_fraction", "first_nonfinite_step"}
    if not is_square:
        undefined |= {"hidden_size", "spectral_radius", "spectral_norm", "condition_number"}
        undefined |= {"departure_from_normality", "relative_departure"}
    assert {name for name, value in found.scalars.items() if value is None} == undefined
    assert all(
        len(line) <= 60
        for line in table_of(found, width=60).splitlines()
        if "title" not in line and "J_t =" not in line and "both axes" not in line
    )


def test_the_picture_shows_the_steps_and_eigenvalues_where_there_are_some():
    found = rnnctl.spectrum(Leaky(), inputs())
    plane, steps = FIGURES["spectrum-steps"](found).axes
    assert sorted(plane.lines[1].get_xdata()) == pytest.approx(sorted(row["real"] for row in found.more["eigenvalues"]))
    drawn = {line.get_label(): line for line in steps.lines}
    np.testing.assert_allclose(drawn["||J_t|| mean"].get_xdata(), range(1, T))
    np.testing.assert_allclose(drawn["||J_t|| mean"].get_ydata(), [s["jacobian_norm_mean"] for s in found.steps])
    (alone,) = FIGURES["spectrum-steps"](rnnctl.spectrum(CatLSTM(), inputs())).axes
    assert alone.lines
    assert figure_bytes(found, "title", "png").startswith(b"\x89PNG")


def test_lyapunov_says_what_the_state_is_where_it_begins_and_that_there_is_no_theory():
    found = rnnctl.lyapunov(CatLSTM(), inputs())
    text = table_of(found, width=200)
    assert "the state of a CatLSTM is h_t and others, 8 numbers" in text
    assert "measured from step 1 on" in text
    assert found.scalars["theory"] == "none"
    assert found.scalars["theory_note"] == "the mean-field theory is the Elman cell's; none here for the CatLSTM"
    assert (found.scalars["nonlinearity"], found.scalars["factor_per_step"]) == (None, None)
    assert "first_step" not in table_of(rnnctl.lyapunov(Learned(), inputs()))


def test_radii_are_left_out_where_they_would_take_long(monkeypatch):
    monkeypatch.setattr("rnnctl.dynamics.step_spectra.CHEAP_EIGENVALUES", B * (T - 1) * H**3 - 1)
    found = rnnctl.spectrum(Leaky(), inputs())
    assert found.scalars["jacobian_radius_mean"] is None
    assert "takes long here" in table_of(found)


def test_stretches_follow_on_over_their_seams_and_progress_is_told(monkeypatch):
    whole = rnnctl.spectrum(Leaky(), inputs()).steps, rnnctl.lyapunov(Leaky(), inputs()).rows
    monkeypatch.setattr("rnnctl.dynamics.trajectory.STRETCH_BYTES", 3 * 8 * B * H * H)
    told: list[float] = []
    assert rnnctl.spectrum(Leaky(), inputs(), progress=told.append).steps == whole[0]
    assert rnnctl.lyapunov(Leaky(), inputs()).rows == whole[1]
    assert told == pytest.approx([3 / 8, 6 / 8, 1])
