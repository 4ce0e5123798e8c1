"""What float32 and float64 say of one network: the same, to what float32 holds."""

import copy

import pytest
import torch
from torch import nn

import rnnctl
from rnnctl import FullRNN
from rnnctl.gradients.decay import first_at_one_percent

F, H, B, T = 3, 8, 3, 24

# ---- where 1 % is reached -----------------------------------------------------------------------


def chain(factor, dtype, nonlinearity):
    """One unit whose gradient changes by one factor at every step back."""
    model = FullRNN(1, 1, 1, nonlinearity=nonlinearity, dtype=dtype)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1)
        model.rnn_cell.hidden_to_hidden.weight.fill_(factor)
    return model


def both_lags(model, x):
    """At the last step alone, and the median over all loss steps."""
    return (
        rnnctl.gradnorm(model, x).scalars["steps_to_one_percent"],
        rnnctl.flow(model, x).scalars["lag_to_one_percent"],
    )


@pytest.mark.parametrize("nonlinearity", ["relu", "linear"])
@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 6, 7, 9, 10])
def test_a_factor_whose_power_is_one_percent_reaches_it_at_that_lag(lag, nonlinearity):
    x = torch.ones(2, 14, 1, dtype=torch.float64)
    assert both_lags(chain(0.01 ** (1 / lag), torch.float64, nonlinearity), x) == (lag, lag)


@pytest.mark.parametrize("factor", [0.1, 10**-0.5, 10 ** (-2 / 3), 0.01 ** (1 / 7), 0.3, 0.9])
@pytest.mark.parametrize("nonlinearity", ["relu", "linear"])
def test_in_float32_it_is_the_lag_of_the_factor_that_float32_has(factor, nonlinearity):
    own = float(torch.tensor(factor, dtype=torch.float32))
    lag = next(lag for lag in range(60) if own**lag <= 0.01 + 1e-9)
    model, x = chain(factor, torch.float32, nonlinearity), torch.ones(2, 60, 1)
    assert both_lags(model, x) == (lag, lag)
    assert both_lags(copy.deepcopy(model).double(), x.double()) == (lag, lag)
    # What float32 has for 0.1 is more than that, by less than can be meant.
    assert factor != 0.1 or lag == 2


def test_what_is_above_one_percent_by_more_than_rounding_is_above_it():
    ratios = torch.tensor([1.0, 0.010000002, torch.nan, 0.0100000005, 0.0], dtype=torch.float64)
    assert first_at_one_percent(ratios) == 3
    assert first_at_one_percent(ratios[:3]) is None
    assert first_at_one_percent(ratios[4:]) == 0


# ---- what a window leaves out -------------------------------------------------------------------


def cell_of(kind, weights, x_t, h, c):
    """One step by torch's own functions; (h, c)."""
    if kind == "LSTM":
        return torch.lstm_cell(x_t, (h, c), *weights)
    step = torch.gru_cell if kind == "GRU" else torch.rnn_tanh_cell
    return step(x_t, h, *weights), c


def contributions(kind, layers, readout, x, target, at):
    """Of every loss k at every step t to W_hh of one layer, (k, t, rows, hidden): a clone of it at every step."""
    steps, states, y = x.shape[1], [[x.new_zeros(len(x), H)] * 2 for _ in layers], []
    clones = [layers[at][1].detach().clone().requires_grad_() for _ in range(steps)]
    for x_t, clone in zip(x.unbind(1), clones, strict=True):
        below = x_t
        for place, (state, weights) in enumerate(zip(states, layers, strict=True)):
            used = [weights[0], clone if place == at else weights[1], *weights[2:]]
            state[:] = cell_of(kind, used, below, *state)
            below = state[0]
        y.append(nn.functional.linear(below, *readout))
    G = torch.zeros(steps, steps, *clones[0].shape, dtype=torch.float64)
    for k, y_k in enumerate(y):
        loss = ((y_k - target[:, k]) ** 2).mean() / steps
        G[k, : k + 1] = torch.stack(torch.autograd.grad(loss, clones[: k + 1], retain_graph=True))
    return G


class Layered(nn.Module):
    def __init__(self, kind, layers):
        super().__init__()
        self.rnn, self.out = getattr(nn, kind)(F, H, layers, batch_first=True), nn.Linear(H, 2)

    def forward(self, x):
        return self.out(self.rnn(x)[0])


class InALoop(nn.Module):
    """A cell of torch's, or weights of its own."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.out = kind, nn.Linear(H, 2)
        self.cell = None if kind == "own" else getattr(nn, f"{kind}Cell")(F, H)
        self.into, self.back = nn.Linear(F, H), nn.Linear(H, H)

    def forward(self, x):
        h = c = x.new_zeros(len(x), H)
        found = []
        for x_t in x.unbind(1):
            if self.kind == "LSTM":
                h, c = self.cell(x_t, (h, c))
            else:
                h = torch.tanh(self.into(x_t) + self.back(h)) if self.kind == "own" else self.cell(x_t, h)
            found.append(self.out(h))
        return torch.stack(found, 1)


def layers_of(model):
    """The kind of cell, what ``contributions`` takes, and the readout."""
    if isinstance(model, FullRNN):
        cell = model.rnn_cell
        own = [cell.input_to_hidden.weight, cell.hidden_to_hidden.weight]
        return "RNN", [[*own, cell.input_to_hidden.bias, cell.hidden_to_hidden.bias]], model.hidden_to_output
    if isinstance(model, InALoop) and model.kind == "own":
        own = [model.into.weight, model.back.weight, model.into.bias, model.back.bias]
        return "RNN", [own], model.out
    if isinstance(model, InALoop):
        cell = model.cell
        return model.kind, [[cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]], model.out
    return type(model.rnn).__name__, model.rnn.all_weights, model.out


MODELS = {
    "hand-written": (lambda: FullRNN(F, H, 2), None),
    **{f"nn.{kind}": (lambda kind=kind: Layered(kind, 1), None) for kind in ("RNN", "GRU", "LSTM")},
    "two layers, lower": (lambda: Layered("RNN", 2), "*l0"),
    "two layers, upper": (lambda: Layered("LSTM", 2), "*l1"),
    **{f"{kind}Cell": (lambda kind=kind: InALoop(kind), "cell*") for kind in ("RNN", "GRU", "LSTM")},
    "own weights": (lambda: InALoop("own"), "back*"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", [0, 1])
def test_what_a_window_leaves_out_is_summed_and_no_difference(name, seed):
    torch.manual_seed(seed)
    make, only = MODELS[name]
    model, x, target = make(), torch.randn(B, T, F), torch.randn(B, T, 2)
    kind, layers, readout = layers_of(copy.deepcopy(model).double())
    wide = [[weight.detach() for weight in layer] for layer in layers]
    at = 0 if only is None or not only.endswith("l1") else 1
    G = contributions(kind, wide, (readout.weight, readout.bias), x.double(), target.double(), at)
    lag = torch.arange(T)[:, None] - torch.arange(T)
    windows = (1, 4, 11, T - 2, T - 1, T)
    found = {
        dtype: rnnctl.truncation(
            copy.deepcopy(model).to(dtype), x.to(dtype), target=target.to(dtype), windows=windows, only=only
        )
        for dtype in (torch.float32, torch.float64)
    }
    for place, window in enumerate(windows):
        kept, omitted = (G[chosen].sum(0) for chosen in (lag < window, lag >= window))
        for dtype, digits in ((torch.float32, 1e-4), (torch.float64, 1e-10)):
            row = found[dtype].rows[place]
            expected = float(omitted.norm() / G.sum((0, 1)).norm())
            assert row["relative_error"] == pytest.approx(expected, rel=digits, abs=0)
            # Step 0 multiplies a state of zeros: the largest lag of all has nothing to leave out.
            assert (row["relative_error"] == 0) == (window >= T - 1)
            assert row["norm_ratio"] == pytest.approx(float(kept.norm() / G.sum((0, 1)).norm()), rel=1e-6)
            torch.testing.assert_close(
                found[dtype].gradients[place], kept, rtol=digits, atol=digits * float(kept.max())
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_left_out_is_known_far_below_the_range_of_float32(dtype):
    """Of one linear unit with W_hh = 1/16, states near 1 and a loss at every step: closed form."""
    model, x = chain(2.0**-4, dtype, "linear"), torch.ones(1, 60, 1, dtype=dtype)
    found = rnnctl.truncation(model, x, loss="sum", windows=[10, 40, 50])
    h = [0.0]
    for _ in range(60):
        # Three biases and weights of 1 on x = 1.
        h.append(3 + h[-1] / 16)
    total = sum(h[t] * 16.0 ** -(k - t) for k in range(60) for t in range(k + 1))
    for row in found.rows[:3]:
        left = sum(h[t] * 16.0 ** -(k - t) for k in range(60) for t in range(k + 1) if k - t >= row["window"])
        assert row["relative_error"] == pytest.approx(left / total, rel=1e-5, abs=0)
    assert found.rows[2]["relative_error"] < 1e-58


def test_bands_of_a_cell_are_those_of_windows_that_begin_one_where_another_ends():
    torch.manual_seed(0)
    model, x = InALoop("GRU"), torch.randn(B, T, F)
    every = rnnctl.truncation(model, x, windows=range(1, T + 1), only="cell*")
    some = rnnctl.truncation(model, x, windows=[2, 7], only="cell*")
    for row in some.rows:
        assert row == pytest.approx(every.rows[row["window"] - 1], rel=1e-6)
    assert all(row["relative_error"] > 0 for row in every.rows[:-2])
