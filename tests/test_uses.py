"""Weights of hand-written code by their uses in autograd's graph, against a copy of the module for every step."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from styles import STYLES, ContinuousCell, Copies, ElmanCell, Posed, Stepped, weight
from torch import nn

import rnnctl
from rnnctl import InputError

CASES = [(name, kind) for name, style in STYLES.items() for kind in style.losses]
each_style = pytest.mark.parametrize("name", STYLES)
each_case = pytest.mark.parametrize(("name", "kind"), CASES, ids=[f"{name}-{kind}" for name, kind in CASES])
each_size = pytest.mark.parametrize("short", [0, 1], ids=["T6-B3", "shortest-B1"])


def posed(name: str, short: int = 0, **sizes: int) -> Posed:
    """Of T 6 and B 3; or short: of one sample, and of the fewest steps that recur (1), one more (2), two (3)."""
    return STYLES[name].posed(**({"T": STYLES[name].least + short - 1, "B": 1} if short else {}), **sizes)


def probed(case: Posed, kind: str, model: nn.Module | None = None, **given):
    """The trace of one step, and the model with its gradients."""
    model = case.fresh() if model is None else model
    with rnnctl.probe(model, **given) as trace:
        case.run(model, kind).backward()
    return trace, model


def assert_same(found, expected, rtol: float = 1e-9, name: str = "") -> None:
    """Relative at every step, so that an exact 0 has to be one."""
    assert found.dtype == torch.float64, name
    torch.testing.assert_close(found, expected, rtol=rtol, atol=0, msg=lambda text: f"{name}: {text}")


def norms(contributions, columns: slice | None = None):
    return (contributions if columns is None else contributions[:, :, columns]).flatten(1).norm(dim=1)


def other_columns(contributions, columns: slice):
    """Without those that multiply the state."""
    return torch.cat([contributions[:, :, : columns.start], contributions[:, :, columns.stop :]], 2)


def magnitude(case: Posed, kind: str, name: str, columns: slice | None):
    """S_t: what the samples contribute one by one, which cannot cancel."""
    total = 0
    for b in range(case.x.shape[1]):
        alone = Posed(case.style, case.model, case.x[:, b : b + 1], case.sizes)
        alone.weights[kind] = tuple(each.narrow(0 if kind == "last" else 1, b, 1) for each in case.weights[kind])
        total = total + norms(alone.copies(kind).contributions(name), columns)
    return total


@each_case
def test_the_copies_gradients_add_up_to_autograds(name, kind):
    """Of the oracle itself: nothing of rnnctl is in it."""
    case = posed(name)
    oracle, plain = case.copies(kind), case.fresh()
    case.run(plain, kind).backward()
    outside = dict(oracle.model.named_parameters())
    for each, parameter in plain.named_parameters():
        total = sum(oracle.gradients(each).values(), start=torch.zeros_like(parameter))
        if outside[each].grad is not None:
            total = total + outside[each].grad
        torch.testing.assert_close(total, parameter.grad, rtol=1e-11, atol=1e-13)
    for each in case.style.recurrent:
        assert len(oracle.contributions(each)) == sum(case.steps)


@each_size
@each_style
def test_all_recurrent_weights_are_found_and_no_others(name, short):
    case = posed(name, short)
    for kind in case.style.losses:
        trace, _ = probed(case, kind)
        assert set(trace) == set(case.style.recurrent)
        for each, found in trace.items():
            assert found.name == each
            assert found.recurrent is True


@each_size
@each_case
def test_contributions_are_those_of_a_copy_a_step(name, kind, short):
    case = posed(name, short)
    (trace, _), oracle = probed(case, kind), case.copies(kind)
    for each in case.style.recurrent:
        found, expected, columns = trace[each], oracle.contributions(each), case.columns(each)
        assert found.steps_per_chain == case.steps, each
        assert_same(found.grad_norm_W_hh, norms(expected, columns), name=each)
        assert_same(found.grad_W_hh, expected.sum(0), name=each)
        if columns is None:
            assert found.grad_norm_W_xh is None
        else:
            assert_same(found.grad_norm_W_xh, norms(other_columns(expected, columns)), name=each)


@each_size
@each_case
def test_gradients_of_the_states_are_those_between_the_copies(name, kind, short):
    # Of two steps nobody can say whether more than what the weight multiplies would be handed on to later ones.
    case = posed(name, 3 * short)
    (trace, _), oracle = probed(case, kind), case.copies(kind)
    for each, of in case.style.states.items():
        found, expected = trace[each], oracle.states(each, of)
        for field, values in expected.items():
            measured = getattr(found, field)
            if values is None:
                assert measured is None, field
            elif field == "grad_norm_h_direct" and not case.style.direct and bool(measured.isnan().any()):
                # What the loss and the next step take together may be unknown, but not half of it.
                assert bool(measured[:-1].isnan().all())
            else:
                assert_same(measured, values, name=f"{each} {field}")


def test_before_the_last_step_nothing_comes_from_outside_where_the_loss_is_at_the_last_step():
    for name in ("RawMatmul", "ConcatLSTM", "Leaky", "ConvLSTM", "InBuffer"):
        trace, _ = probed(posed(name), "last")
        found = trace[STYLES[name].weight]
        assert (found.grad_norm_h_direct[:-1] == 0).all(), name
        assert found.grad_norm_h_direct[-1] == found.grad_norm_h[-1] > 0, name


def test_the_state_is_unknown_where_every_step_looks_at_all_states_before_it():
    for kind in ("all", "last"):
        found = probed(posed("Attention"), kind)[0]["W"]
        assert found.grad_norm_state.shape == (6,)
        assert found.grad_norm_state.isnan().all()


@each_case
def test_the_sum_is_the_gradient_that_autograd_brought(name, kind):
    trace, model = probed(posed(name), kind)
    parameters = dict(model.named_parameters())
    for each, found in trace.items():
        assert_same(found.grad_W_hh, parameters[each].grad, name=each)
        assert found.agrees is True
        assert found.autograd_relative_error < 1e-12


@each_style
def test_a_step_is_bit_for_bit_as_without_the_probe(name):
    case = posed(name)
    for dtype in (torch.float64, torch.float32):
        results = []
        for watched in (False, True):
            model = case.fresh().to(dtype)
            case.x = case.x.to(dtype)
            torch.manual_seed(1)
            if watched:
                with rnnctl.probe(model):
                    outs = model(case.x)
                    loss = case.loss(outs, "all")
                    loss.backward()
            else:
                outs = model(case.x)
                loss = case.loss(outs, "all")
                loss.backward()
            gradients = {each: parameter.grad for each, parameter in model.named_parameters()}
            results.append((torch.stack(list(outs)), loss, gradients, model.state_dict(), torch.get_rng_state()))
            assert not any(parameter._backward_hooks for parameter in model.parameters())
            assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())
        torch.testing.assert_close(*results, rtol=0, atol=0)


SOME = ["RawMatmul", "ConcatLSTM", "ChunkedGRU", "IndRNN", "Continuous"]


@given(
    name=st.sampled_from(SOME),
    kind=st.sampled_from(["all", "last"]),
    T=st.integers(2, 9),
    B=st.integers(1, 5),
    D=st.integers(1, 4),
    H=st.integers(1, 6),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_sizes_and_numbers_do_not_matter(name, kind, **sizes):
    """Error at most 1e-9 S_t, wherever samples cancel."""
    case = posed(name, **sizes)
    (trace, model), oracle = probed(case, kind), case.copies(kind)
    assert set(trace) == set(case.style.recurrent)
    each = case.style.weight
    found, columns = trace[each], case.columns(each)
    S = magnitude(case, kind, each, columns)
    error = (found.grad_norm_W_hh - norms(oracle.contributions(each), columns)).abs()
    assert (error <= 1e-9 * S).all(), error / S
    assert found.steps_per_chain == case.steps
    for field, values in oracle.states(each, case.style.states[each]).items():
        if values is not None and len(values) > 2:
            floor = 1e-13 * float(values.max())
            torch.testing.assert_close(getattr(found, field), values, rtol=1e-8, atol=floor)
    torch.testing.assert_close(found.grad_W_hh, dict(model.named_parameters())[each].grad, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", ["all", "last"])
@pytest.mark.parametrize("name", ["RawMatmul", "ConcatLSTM", "ConvRNN"])
def test_float32_is_within_its_bound_of_float64(name, kind):
    case = posed(name, T=8, B=5)
    oracle, each = case.copies(kind), case.style.weight
    columns, expected = case.columns(each), oracle.contributions(each)
    S = magnitude(case, kind, each, columns)
    single = Posed(case.style, case.model, case.x.float(), case.sizes, case.weights)
    trace, model = probed(single, kind, single.fresh().float())
    found = trace[each]
    assert ((found.grad_norm_W_hh - norms(expected, columns)).abs() <= 1e-5 * S).all()
    assert (found.grad_W_hh - expected.sum(0)).norm() <= 1e-5 * magnitude(case, kind, each, None).sum()
    assert found.agrees is True
    if name == "RawMatmul":
        torch.testing.assert_close(found.grad_norm_state, oracle.states(each, "")["grad_norm_h"], rtol=1e-4, atol=0)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize("name", ["RawMatmul", "ConcatLSTM"])
def test_samples_that_cancel_leave_rounding_alone(name, dtype, bound):
    """The same sample four times, weighed so that the contributions of all of them are 0."""
    case = posed(name, B=4)
    case.x = case.x[:, :1].expand(-1, 4, -1).contiguous()
    linear = torch.randn(6, 1, 4, dtype=torch.float64) * torch.tensor([[1.0], [-2.0], [3.0], [-2.0]])
    case.weights["all"] = (linear, torch.zeros_like(linear))
    each = case.style.weight
    S = magnitude(case, "all", each, case.columns(each))
    case.x = case.x.to(dtype)
    trace, _ = probed(case, "all", case.fresh().to(dtype))
    assert (trace[each].grad_norm_W_hh <= bound * S).all()


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("TwoLinears", "wx.weight"),
        ("TwoLinears", "wx.bias"),
        ("TwoLinears", "wy.weight"),
        ("FunctionalLinear", "b"),
        ("ConcatLSTM", "linear.bias"),
        ("Continuous", "cell.U"),
        ("LayerNormed", "norm.bias"),
        ("ConvRNN", "conv_x.weight"),
    ],
)
def test_a_shared_weight_that_is_named_is_itemised_by_step_too(name, shared):
    case = posed(name)
    (trace, model), oracle = probed(case, "all", only=shared), case.copies("all")
    assert set(trace) == {shared}
    found, expected = trace[shared], oracle.contributions(shared)
    assert found.recurrent is False
    assert found.grad_norm_W_xh is None
    assert_same(found.grad_norm_W_hh, norms(expected))
    assert_same(found.grad_W_hh, dict(model.named_parameters())[shared].grad)
    assert found.agrees is True


def test_a_pattern_narrows_what_is_found():
    case = posed("TwoLayers")
    whole, _ = probed(case, "all")
    part, _ = probed(case, "all", only="cells.1.*")
    assert set(part) == {"cells.1.W"}
    assert torch.equal(part["cells.1.W"].grad_norm_W_hh, whole["cells.1.W"].grad_norm_W_hh)
    assert torch.equal(part["cells.1.W"].grad_norm_state, whole["cells.1.W"].grad_norm_state)


def test_one_step_alone_has_no_recurrent_weight():
    case = posed("RawMatmul", T=1)
    model = case.fresh()
    with pytest.raises(InputError, match="W"), rnnctl.probe(model):
        case.run(model, "all").backward()
    found = probed(case, "all", only="U")[0]["U"]
    assert found.recurrent is False
    assert_same(found.grad_norm_W_hh, norms(case.copies("all").contributions("U")))


class Scan(nn.Module):
    """All steps by one product and one running sum."""

    def __init__(self):
        super().__init__()
        self.W = weight(3, 4)

    def forward(self, x):
        return torch.cumsum(x @ self.W, 0)


def test_a_weight_used_once_for_all_steps_is_said_to_be():
    model = Scan()
    with pytest.raises(InputError, match="once"), rnnctl.probe(model):
        model(torch.randn(6, 2, 3)).square().sum().backward()


class Solver(nn.Module):
    """Two sub-steps a call, with a weight that is not its own."""

    def forward(self, W, x, h):
        for _ in range(2):
            h = h + 0.5 * (torch.tanh(x + h @ W) - h)
        return h


class Solved(Stepped):
    def __init__(self, D, H):
        super().__init__(D, H)
        self.solver = Solver()

    def step(self, t, x, h):
        m = self.at(t)
        return m.solver(m.W, m.driven(x), h)


def test_sub_steps_are_steps_unless_the_module_of_a_step_is_named():
    torch.manual_seed(0)
    case = Posed(STYLES["RawMatmul"], Solved(3, 4).double(), torch.randn(6, 3, 3, dtype=torch.float64), (6, 3, 4))
    oracle = case.copies("all")
    found = probed(case, "all", step="solver")[0]["W"]
    assert found.steps_per_chain == (6,)
    assert_same(found.grad_norm_W_hh, norms(oracle.contributions("W")))
    for field, values in oracle.states("W", "").items():
        assert values is None or assert_same(getattr(found, field), values, name=field) is None
    every_use = probed(case, "all")[0]["W"]
    assert every_use.steps_per_chain == (12,)
    assert_same(every_use.grad_W_hh, oracle.contributions("W").sum(0))


class Looking(Stepped):
    """A cell, and attention to all of its states before."""

    def __init__(self, D, H):
        super().__init__(D, H)
        self.cell = ElmanCell(D, H)

    def forward(self, x):
        h, outs = self.start(x), []
        for t, x_t in enumerate(x):
            if outs:
                past = torch.stack(outs)
                h = h + (torch.softmax((past * h).sum(2), 0).unsqueeze(2) * past).sum(0)
            h = self.at(t).cell(x_t, h)
            self.handed(t, h)
            outs.append(h)
        return outs


@pytest.mark.parametrize("kind", ["all", "last"])
def test_a_state_that_is_not_found_may_be_named(kind):
    torch.manual_seed(0)
    case = Posed(STYLES["RawMatmul"], Looking(3, 4).double(), torch.randn(6, 3, 3, dtype=torch.float64), (6, 3, 4))
    oracle = case.copies(kind)
    (found,) = probed(case, kind, state="cell", only="cell.W")[0].values()
    assert_same(found.grad_norm_W_hh, norms(oracle.contributions("cell.W")))
    assert_same(found.grad_norm_state, oracle.states("cell.W", "")["grad_norm_h"])


@pytest.mark.parametrize("kind", ["all", "last"])
def test_naming_what_is_found_anyway_changes_nothing(kind):
    case = posed("Continuous")
    assert isinstance(case.model.cell, ContinuousCell)
    plain, _ = probed(case, kind)
    for settings_given in ({"state": "cell"}, {"step": "cell"}, {"state": "cell", "step": "cell"}):
        named, _ = probed(case, kind, **settings_given)
        for field in ("grad_norm_W_hh", "grad_norm_h", "grad_norm_h_direct", "grad_norm_state"):
            assert_same(getattr(named["cell.W"], field), getattr(plain["cell.W"], field), name=field)


@pytest.mark.parametrize("accumulate", [False, True], ids=["one-loss", "two-losses"])
@pytest.mark.parametrize("name", ["RawMatmul", "ConcatLSTM", "ConvRNN", "Continuous"])
def test_sequences_one_after_the_other_are_chains_of_their_own(name, accumulate):
    case, each = posed(name), STYLES[name].weight
    shorter = Posed(case.style, case.model, 2 * case.x[:4], (4, *case.sizes[1:]))
    oracles = [part.copies("all") for part in (case, shorter)]
    model = case.fresh()
    with rnnctl.probe(model) as trace:
        losses = [part.run(model, "all") for part in (case, shorter)] if not accumulate else []
        for part in (case, shorter) if accumulate else ():
            part.run(model, "all").backward()
        if losses:
            sum(losses).backward()
    found, columns = trace[each], case.columns(each)
    expected = torch.cat([oracle.contributions(each) for oracle in oracles])
    assert found.steps_per_chain == (6, 4)
    assert_same(found.grad_norm_W_hh, norms(expected, columns))
    assert_same(found.grad_W_hh, dict(model.named_parameters())[each].grad)
    states = [oracle.states(each, "") for oracle in oracles]
    assert_same(found.grad_norm_state, torch.cat([state["grad_norm_state"] for state in states]))
    assert_same(found.grad_norm_h_direct, torch.cat([state["grad_norm_h_direct"] for state in states]))


class Rotation(Stepped):
    """h' = h W + x U, and W keeps every length."""

    def __init__(self, D, H):
        super().__init__(D, H)
        nn.init.orthogonal_(self.double().W)

    def step(self, t, x, h):
        return self.at(t).driven(x) + h @ self.at(t).W


def test_a_gradient_through_a_rotation_neither_shrinks_nor_grows():
    torch.manual_seed(0)
    case = Posed(STYLES["RawMatmul"], Rotation(3, 4).double(), torch.randn(20, 2, 3, dtype=torch.float64), (20, 3, 4))
    found = probed(case, "last", decay=True)[0]["W"]
    torch.testing.assert_close(found.grad_norm_state, found.grad_norm_state[-1:].expand(20), rtol=1e-12, atol=0)
    assert math.isclose(found.decay.factor_per_step, 1, rel_tol=1e-12)
    assert math.isclose(found.decay.first_over_last, 1, rel_tol=1e-12)
    assert probed(case, "last")[0]["W"].decay is None


class ByHand(Stepped):
    """h_t = h_{t-1} / 2 + w h_{t-1} + x_t with w = 1/4: every step back is a factor of 3/4."""

    def __init__(self):
        super().__init__(1, 1)
        nn.init.constant_(self.W, 0.25)

    def step(self, t, x, h):
        return h / 2 + h @ self.at(t).W + x


@pytest.mark.parametrize("oracle", [False, True], ids=["probe", "copies"])
def test_a_network_worked_by_hand(oracle):
    """h = 1, 11/4, 97/16; dL/dh = 9/16, 3/4, 1; contributions dL/dh_t h_{t-1}."""
    model, x = ByHand().double(), torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64).reshape(3, 1, 1)
    if oracle:
        copies = Copies(model)
        copies.model(x)[-1].sum().backward()
        states = copies.states("W", "")
        h, direct, G = states["grad_norm_h"], states["grad_norm_h_direct"], copies.contributions("W")
        W_hh, total = norms(G), G.sum(0)
    else:
        with rnnctl.probe(model) as trace:
            model(x)[-1].sum().backward()
        found = trace["W"]
        h, direct, W_hh, total = found.grad_norm_h, found.grad_norm_h_direct, found.grad_norm_W_hh, found.grad_W_hh
    assert h.tolist() == [0.5625, 0.75, 1.0]
    assert direct.tolist() == [0.0, 0.0, 1.0]
    assert W_hh.tolist() == [0.0, 0.75, 2.75]
    assert total.tolist() == [[3.5]]
