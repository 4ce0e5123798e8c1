"""What is taken a piece, a chunk or a step at a time gives the same numbers as all at once, with all their digits."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import contributions_by_clones, norms

import rnnctl
from rnnctl.cells import FullRNN
from rnnctl.gradients.contributions import contribution_norms, step_norms, takes_products
from rnnctl.gradients.entering import FromReadout
from rnnctl.gradients.norm_book import norm_of
from rnnctl.models.hand_written import posed
from rnnctl.recurrence.scaling import largest_magnitude, largest_magnitudes, row_norms
from rnnctl.recurrence.states_seen import of_states
from rnnctl.recurrence.sweep import ReverseChunk, _next_size
from rnnctl.results import Later


@pytest.mark.parametrize("count", [100, 2**11, 2**11 + 1, 2**13, 2**18, 3 * 10**5])
@pytest.mark.parametrize("value", [1.1, -0.3])
def test_a_norm_of_many_alike_keeps_its_digits(count, value):
    """torch's own float32 norm of 2**18 equal numbers is off by 2e-4."""
    exact = abs(torch.tensor(value).double().item()) * math.sqrt(count)
    block = torch.full((2, 1, count), value)
    for found in (*row_norms(block), *step_norms(block), norm_of(block[0]), norm_of(block[0].reshape(1, -1).t())):
        assert float(found) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize(("B", "H"), [(64, 256), (128, 512), (4, 300)])
def test_contributions_that_are_alike_everywhere_hold_the_bound(B, H):
    delta, h = torch.full((2, B, H), 0.7), torch.full((2, B, H), 0.9)
    _, found = contribution_norms(delta, h, takes_products(delta))
    expected = delta[0, 0, 0].double() * h[0, 0, 0].double() * B * H
    assert found.tolist() == pytest.approx([float(expected)] * 2, rel=3e-6)


@given(
    seed=st.integers(0, 10_000),
    B=st.sampled_from([2, 6, 40]),
    H=st.sampled_from([3, 30, 70]),
    shrink=st.sampled_from([0.0, 1e-5, 1e-3, 0.03]),
    products=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=60, deadline=None)
def test_batches_that_cancel_at_chosen_steps_hold_the_bound_at_all(seed, B, H, shrink, products, dtype):
    """The first half of a batch against the second at every third step, the rest of it at random."""
    g = torch.Generator().manual_seed(seed)
    delta, h = torch.randn(2, 12, B, H, generator=g, dtype=dtype).unbind(0)
    half = B // 2
    h[::3, half:] = h[::3, :half]
    delta[::3, half:] = -delta[::3, :half] * (1 + shrink * torch.randn(4, half, 1, generator=g, dtype=dtype))
    _, found = contribution_norms(delta, h, products)
    exact = torch.linalg.matrix_norm(delta.double().mT @ h.double())
    sizes = (delta.double().norm(dim=2) * h.double().norm(dim=2)).sum(1)
    assert ((found - exact).abs() <= (1e-5 if dtype == torch.float32 else 1e-12) * sizes).all()


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("small", [1e-17, 1e-22, 1e-30, 1e-37])
def test_steps_far_below_their_chunk_keep_their_norms(small, products):
    """Squares of these leave float32; the norms do not."""
    g = torch.Generator().manual_seed(0)
    delta, h = torch.randn(2, 6, 3, 40, generator=g).unbind(0)
    delta[2] *= small
    h[4] *= small
    _, found = contribution_norms(delta, h, products)
    torch.testing.assert_close(found, torch.linalg.matrix_norm(delta.double().mT @ h.double()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("tiny", ["delta", "h"])
def test_the_square_of_one_factor_alone_may_leave_the_range(tiny):
    """The product of both norms is far from any end of float32."""
    g = torch.Generator().manual_seed(0)
    delta, h = torch.randn(2, 6, 3, 40, generator=g).unbind(0)
    small, large = (delta, h) if tiny == "delta" else (h, delta)
    small *= 1e-22
    large *= 1e10
    _, found = contribution_norms(delta, h, False)
    torch.testing.assert_close(found, torch.linalg.matrix_norm(delta.double().mT @ h.double()), rtol=1e-5, atol=0)


def test_magnitudes_are_those_of_the_largest_number_and_nan_stays():
    rows = torch.tensor([[1.0, -3.0], [0.5, 0.25], [0.0, -0.0], [math.inf, -1.0], [math.nan, 9.0]])
    assert largest_magnitudes(rows)[:4].tolist() == [3, 0.5, 0, math.inf]
    assert math.isnan(largest_magnitudes(rows)[4])
    assert [largest_magnitude(row) for row in rows[:4]] == [3, 0.5, 0, math.inf]
    assert math.isnan(largest_magnitude(rows))


class OwnReadout(FullRNN):
    """Reads out as its parent does, in words of its own."""

    def readout(self, h_t):
        return self.output_activation(h_t @ self.hidden_to_output.weight.T + self.hidden_to_output.bias)


@pytest.mark.parametrize("loss", ["mse", "cross-entropy", "sum"])
@pytest.mark.parametrize("kind", [FullRNN, OwnReadout])
@pytest.mark.parametrize("loss_at", ["last", "all"])
def test_what_the_loss_sends_to_the_states_is_autograds(loss, kind, loss_at):
    torch.manual_seed(1)
    model, x = kind(3, 5, 4, dtype=torch.float64), torch.randn(2, 23, 3, dtype=torch.float64)
    target = {"mse": torch.randn(2, 23, 4).double(), "cross-entropy": torch.randint(0, 4, (2, 23)), "sum": None}[loss]
    expected = contributions_by_clones(model.state_dict(), x, "tanh", loss_at, target=target, loss=loss)
    problem = posed(model, x, target, loss, loss_at, None)
    found, direct = problem.direct(problem.states())
    assert found == pytest.approx(expected["loss"], rel=1e-12)
    torch.testing.assert_close(direct, expected["grad_h_direct"][-len(direct) :], rtol=1e-11, atol=1e-15)
    swept = rnnctl.gradnorm(model, x, target=target, loss=loss, loss_at=loss_at)
    torch.testing.assert_close(swept.grad_norm_W_hh, norms(expected["G"]), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(swept.grad_norm_h_direct, norms(expected["grad_h_direct"]), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("output_activation", ["identity", "softmax", "sigmoid", "tanh"])
def test_the_readouts_own_function_is_differentiated(output_activation):
    torch.manual_seed(1)
    model = FullRNN(3, 5, 4, output_activation=output_activation, dtype=torch.float64)
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    problem = posed(model, x, None, "mse", "all", None)
    h = problem.states()
    leaf = h[1:].clone().requires_grad_()
    (expected,) = torch.autograd.grad(model.readout(leaf).square().mean(), leaf)
    torch.testing.assert_close(problem.direct(h)[1], expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("change", ["hook", "patch", "weight"])
def test_a_readout_that_does_something_else_is_asked_itself(change):
    torch.manual_seed(1)
    model, x = FullRNN(3, 5, 4, dtype=torch.float64), torch.randn(2, 7, 3, dtype=torch.float64)
    if change == "hook":
        model.hidden_to_output.register_forward_hook(lambda module, args, y: y**3)
    elif change == "patch":
        model.readout = lambda h_t: torch.sin(h_t[..., :4])
    else:
        torch.nn.utils.parametrizations.weight_norm(model.hidden_to_output)
    problem = posed(model, x, None, "mse", "all", None)
    h = problem.states()
    leaf = h[1:].clone().requires_grad_()
    (expected,) = torch.autograd.grad(model.readout(leaf).square().mean(), leaf)
    torch.testing.assert_close(problem.direct(h)[1], expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("chunk", [1, 4, 320])
@pytest.mark.parametrize("gain", [0.02, 1.0, 3.0])
def test_chunks_that_drift_give_what_one_that_does_not_gives(monkeypatch, chunk, gain):
    """By a factor of 6 a step up, or 25 down: chunks are cut, and what entered them is asked for again."""
    monkeypatch.setattr("rnnctl.recurrence.sweep.LONGEST_CHUNK", chunk)
    torch.manual_seed(0)
    model, x = FullRNN(3, 6, 2, nonlinearity="relu"), torch.randn(2, 40, 3).abs()
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight.copy_(torch.linalg.qr(torch.randn(6, 6)).Q.abs() * gain)
    found = rnnctl.gradnorm(model, x, loss_at="all")
    wide = copy.deepcopy(model).double()
    expected = contributions_by_clones(wide.state_dict(), x.double(), "relu", "all")
    for name, each in (("W_hh", "G"), ("h", "grad_h"), ("h_direct", "grad_h_direct")):
        torch.testing.assert_close(getattr(found, f"grad_norm_{name}"), norms(expected[each]), rtol=1e-3, atol=0)


def test_what_enters_is_made_for_the_steps_that_are_asked_for():
    problem = posed(FullRNN(3, 4, 2), torch.randn(2, 9, 3), None, "mse", "all", None)
    h = problem.states()
    _, direct = problem.direct(h)
    readout = FromReadout(problem, h)
    for start, stop in ((5, 9), (7, 9), (2, 7), (0, 2)):
        torch.testing.assert_close(readout.rows(start, stop), direct[start:stop])
    torch.testing.assert_close(readout.last(3), direct[-3:])
    torch.testing.assert_close(readout.norms, step_norms(direct))


def test_a_step_without_a_loss_is_sent_nothing():
    problem = posed(FullRNN(3, 4, 2), torch.randn(2, 9, 3), None, "mse", "last", None)
    readout = FromReadout(problem, problem.states())
    assert [len(readout.rows(*steps)) for steps in ((6, 9), (3, 6), (0, 3))] == [1, 0, 0]
    assert (readout.norms[:-1] == 0).all()
    assert readout.norms[-1] > 0


def chunk(steps, first):
    rows = torch.zeros(steps, 1, 1)
    return ReverseChunk(0, steps, 0, rows, rows, torch.linspace(first, 1, steps, dtype=torch.float64))


@pytest.mark.parametrize(
    ("steps", "first", "itemsize", "expected"),
    [
        (10, 1.0, 4, 40),
        (10, 0.0, 4, 40),
        (10, math.nan, 4, 40),
        (40, 2.0**-41, 4, 40),
        (40, 2.0**79, 4, 20),
        (40, 2.0**-41, 8, 160),
        (100, 1.0, 4, 256),
        (1, 2.0**59, 4, 1),
    ],
)
def test_chunks_are_as_long_as_the_magnitude_stays(steps, first, itemsize, expected):
    assert _next_size(chunk(steps, first), 256, itemsize) == expected


def test_views_of_many_steps_are_taken_a_part_at_a_time(monkeypatch):
    problem = posed(FullRNN(3, 4, 2), torch.randn(2, 9, 3), None, "mse", "last", None)
    whole = problem.states()
    for views in (1, 4, 9, 10):
        monkeypatch.setattr("rnnctl.recurrence.elman.VIEWS", views)
        assert torch.equal(problem.states(), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_saturated_numbers_are_counted_a_part_at_a_time(monkeypatch, dtype, masked):
    monkeypatch.setattr("rnnctl.recurrence.states_seen.CHUNK_BYTES", 300)
    h = torch.randn(50, 3, 7, generator=torch.Generator().manual_seed(0)).mul(2).tanh().to(dtype)
    h[..., 2] = 0
    mask = (torch.rand(50, 3, 1, generator=torch.Generator().manual_seed(1)) < 0.6).to(dtype) if masked else None
    kept = h.double() if mask is None else h.double() * mask
    found = of_states(h, has_ends=True, mask=mask)
    assert found.saturated == sum(abs(value) > 0.99 for value in kept.flatten().tolist())
    assert found.silent.tolist() == [unit == 2 for unit in range(7)]


def test_a_value_for_later_is_made_once_and_let_go_of():
    made = []
    later = Later(lambda: made.append(None) or 5)
    assert (later(), later(), pickle.loads(pickle.dumps(later))(), len(made)) == (5, 5, 5, 1)
    assert Later.made(3)() == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_decay_of_later_is_that_of_the_weights_then_and_keeps_no_states_once_read(dtype):
    torch.manual_seed(0)
    model, x = FullRNN(3, 20, 2, dtype=dtype), torch.randn(4, 30, 3, dtype=dtype)
    expected = rnnctl.gradnorm(model, x, loss_at="last").decay
    found = rnnctl.gradnorm(model, x, loss_at="all")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert found.decay.factor_per_step == pytest.approx(expected.factor_per_step, rel=1e-5)
    assert found.decay_later._make is None
    assert copy.deepcopy(found).decay == found.decay
