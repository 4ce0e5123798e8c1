"""What float32 and float64 say of one network: the same, to what float32 holds."""

import copy

import pytest
import torch
from shell import document, runner
from torch import nn

import rnnctl
from rnnctl import FullRNN
from rnnctl.cells import ManualRNNCell
from rnnctl.cli.commands.gradnorm import GradnormOptions
from rnnctl.cli.options.mapping import options_from
from rnnctl.cli.setup.experiment import experiment
from rnnctl.gradients.decay import first_at_one_percent
from rnnctl.models.torch_layers import LayeredRNN

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
def test_what_a_window_leaves_out_is_summed_and_no_difference(name):
    torch.manual_seed(0)
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


# ---- where float32 overflows --------------------------------------------------------------------


def growing(model, gain):
    """Relu states that are multiplied by one number at every step."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "weight_hh" in name or "hidden_to_hidden.weight" in name or "back.weight" in name:
                weight.copy_(gain * torch.eye(H))
    return model


class Relu(nn.Module):
    """A layer of torch's within a class of the user's, whose readout is the user's own code."""

    def __init__(self, layers=1, both_ways=False):
        super().__init__()
        self.rnn = nn.RNN(F, H, layers, nonlinearity="relu", batch_first=True, bidirectional=both_ways)
        self.out = nn.Linear(2 * H if both_ways else H, 2)

    def forward(self, x):
        return self.out(self.rnn(x)[0])


class ReluInALoop(nn.Module):
    def __init__(self, own=False):
        super().__init__()
        self.cell = None if own else nn.RNNCell(F, H, nonlinearity="relu")
        self.into, self.back = nn.Linear(F, H), nn.Linear(H, H)

    def forward(self, x):
        h, found = x.new_zeros(len(x), H), []
        for x_t in x.unbind(1):
            h = torch.relu(self.into(x_t) + self.back(h)) if self.cell is None else self.cell(x_t, h)
            found.append(h)
        return torch.stack(found, 1)


OURS = {
    "hand-written": lambda: FullRNN(F, H, 2, nonlinearity="relu"),
    "nn.RNN": lambda: nn.RNN(F, H, nonlinearity="relu", batch_first=True),
    "readout of ours": lambda: LayeredRNN("rnn", F, H, 2, nonlinearity="relu"),
}
# What is known of them is known of the states: of the loss it is their code that tells.
THEIRS = {
    "layer": (Relu, "*l0"),
    "upper layer": (lambda: Relu(2), "*l1"),
    "a direction": (lambda: Relu(both_ways=True), "*l0"),
    "cell": (ReluInALoop, "cell*"),
}
WRITTEN_BY_HAND = (lambda: ReluInALoop(own=True), "back*")
ASKED = [rnnctl.gradnorm, rnnctl.flow, rnnctl.truncation]


def reason_of(question, model, x, **settings):
    scalars = question(model, x, **settings).scalars
    return scalars["reason" if question is rnnctl.gradnorm else "nonfinite_reason"]


def first_bad(model, x):
    """The first step at which a state that torch itself makes is not finite, or None."""
    run = model.rnn_cell if isinstance(model, FullRNN) else model
    if isinstance(run, ManualRNNCell):
        h = x.new_zeros(len(x), H)
        states = [h := run(x_t, h) for x_t in x.unbind(1)]
    elif isinstance(run, ReluInALoop):
        states = run(x).unbind(1)
    else:
        states = (run if isinstance(run, nn.RNN) else run.rnn)(x)[0].unbind(1)
    return next((t for t, h in enumerate(states) if not h.isfinite().all()), None)


@pytest.mark.parametrize("question", ASKED)
@pytest.mark.parametrize("name", OURS)
def test_a_run_that_float64_holds_says_so(name, question):
    torch.manual_seed(0)
    model, x = growing(OURS[name](), 100.0), torch.randn(2, T, F)
    before = copy.deepcopy(model.state_dict())
    step = first_bad(model, x)
    assert first_bad(copy.deepcopy(model).double(), x.double()) is None
    reason = reason_of(question, model, x)
    assert f"first at step {step}" in reason
    assert reason.endswith("float32 ends at 3.4e38; in float64 it is finite (--dtype float64)")
    # And so it is.
    assert "float64" not in (reason_of(question, copy.deepcopy(model).double(), x.double()) or "")
    # The model is left as it was.
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.dtype == torch.float32 and weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("question", ASKED[::2])
@pytest.mark.parametrize("name", THEIRS)
def test_of_the_users_code_states_alone_are_made_once_more(name, question):
    torch.manual_seed(0)
    make, only = THEIRS[name]
    model, x = growing(make(), 100.0), torch.randn(2, T, F)
    ran = []
    model.register_forward_hook(lambda *_: ran.append(None))
    only = "rnn.weight_hh_l0" if name == "a direction" else only
    reason = reason_of(question, model, x, only=only)
    assert len(ran) == 1
    assert "float32 ends at 3.4e38; in float64 it is finite at every step (--dtype float64)" in reason
    assert reason.endswith("of the loss that is not known")


@pytest.mark.parametrize("question", ASKED[:2])
@pytest.mark.parametrize("name", [*OURS, *THEIRS])
def test_a_run_that_overflows_in_float64_too_says_where(name, question):
    torch.manual_seed(0)
    make, only = (OURS[name], None) if name in OURS else THEIRS[name]
    only = "rnn.weight_hh_l0" if name == "a direction" else only
    model, x = growing(make(), 1e20), torch.randn(2, T, F)
    wide = copy.deepcopy(model).double()
    # In one direction only, where there are two.
    h = wide.rnn(x.double())[0][..., :H] if name == "a direction" else None
    step = first_bad(wide, x.double())
    if h is not None:
        step = int((~h.isfinite()).flatten(2).any(2).any(0).nonzero()[0])
    reason = reason_of(question, model, x, only=only)
    assert reason.endswith(f"float32 ends at 3.4e38; in float64 it is not finite either, first at step {step}")
    own = reason_of(question, wide, x.double(), only=only)
    assert f"first at step {step}" in own
    assert own.endswith("float64 ends at 1.8e308")


def test_in_reverse_it_is_the_step_of_the_sequence_in_float64_too():
    torch.manual_seed(0)
    model, x = growing(Relu(both_ways=True), 1e20), torch.randn(2, T, F)
    with torch.no_grad():
        model.rnn.weight_hh_l0_reverse.copy_(1e20 * torch.eye(H))
    h = copy.deepcopy(model).double().rnn(x.double())[0][..., H:]
    step = int((~h.isfinite()).flatten(2).any(2).any(0).nonzero()[-1])
    reason = reason_of(rnnctl.gradnorm, model, x, only="*reverse")
    assert reason.endswith(f"in float64 it is not finite either, first at step {step}")


@pytest.mark.parametrize("question", ASKED)
@pytest.mark.parametrize("name", OURS)
def test_a_loss_alone_that_overflows_is_told_apart(name, question):
    torch.manual_seed(0)
    model, x = growing(OURS[name](), 10.0), torch.randn(2, T, F)
    assert first_bad(model, x) is None
    reason = reason_of(question, model, x)
    assert "h_t" not in reason
    assert reason.endswith("float32 ends at 3.4e38; in float64 it is finite (--dtype float64)")
    # States that float64 holds, and squares that it does not.
    beyond = growing(OURS[name](), 1e9)
    assert first_bad(copy.deepcopy(beyond).double(), x.double()) is None
    assert reason_of(question, beyond, x).endswith("in float64 h_t is finite, and the loss or a gradient is not")


@pytest.mark.parametrize("question", ASKED)
def test_what_nobody_can_repeat_is_not_guessed(question):
    torch.manual_seed(0)
    model, x = growing(ReluInALoop(own=True), 100.0), torch.randn(2, T, F)
    unknown = "float32 ends at 3.4e38; whether float64 holds it is not known: try --dtype float64"
    assert reason_of(question, model, x).endswith(unknown)
    # Squares in the user's own code.
    assert reason_of(question, growing(Relu(), 10.0), x).endswith(f"the loss is inf: {unknown}")
    hooked = growing(OURS["nn.RNN"](), 10.0)
    hooked.register_forward_hook(lambda module, args, output: output)
    assert reason_of(question, hooked, x).endswith(f"the loss is inf: {unknown}")


@pytest.mark.parametrize("question", ASKED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_says_where_it_ends(dtype, question):
    torch.manual_seed(0)
    model, x = growing(OURS["hand-written"](), 100.0).to(dtype), torch.randn(2, T, F).to(dtype)
    ends = {torch.float16: "float16 ends at 6.6e4", torch.bfloat16: "bfloat16 ends at 3.4e38"}[dtype]
    assert reason_of(question, model, x).endswith(f"{ends}; in float64 it is finite (--dtype float64)")


@pytest.mark.parametrize("question", ASKED[::2])
@pytest.mark.parametrize("name", [*OURS, "cell", "upper layer", "own"])
@pytest.mark.parametrize("where", ["x", "weight"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_range_is_blamed_for_what_was_given(name, where, question, dtype):
    torch.manual_seed(0)
    make, only = (OURS[name], None) if name in OURS else THEIRS.get(name, WRITTEN_BY_HAND)
    model, x = make().to(dtype), torch.randn(2, 9, F, dtype=dtype)
    if where == "x":
        x[1, 4] = torch.nan
    else:
        with torch.no_grad():
            next(model.parameters())[0, 0] = torch.inf
    reason = reason_of(question, model, x, only=only)
    assert reason.endswith("what it is given is not finite")
    assert f"h_t is not finite first at step {4 if where == 'x' else 0}" in reason


@pytest.mark.parametrize("question", ASKED)
@pytest.mark.parametrize("make", [OURS["hand-written"], OURS["nn.RNN"], Relu])
def test_what_was_given_later_than_it_overflows_is_not_to_blame(make, question):
    torch.manual_seed(0)
    model, x = growing(make(), 1e10), torch.randn(2, 9, F)
    x[:, 8] = torch.nan
    reason = reason_of(question, model, x)
    assert first_bad(model, x) < 8
    assert reason.endswith("float32 ends at 3.4e38; in float64 it is not finite either, first at step 8")


def test_an_upper_layer_is_made_of_the_one_below_it_in_float64_too():
    torch.manual_seed(0)
    model, x = Relu(2), torch.randn(2, T, F)
    with torch.no_grad():
        model.rnn.weight_hh_l1.copy_(1e20 * torch.eye(H))
    step = first_bad(copy.deepcopy(model).double(), x.double())
    for only in (None, "*l1"):
        reason = reason_of(rnnctl.gradnorm, model, x, only=only)
        assert reason.endswith(f"in float64 it is not finite either, first at step {step}")


def test_a_probe_says_it_of_the_weights_that_are_not_finite():
    torch.manual_seed(0)
    model, x = growing(Relu(2), 100.0), torch.randn(2, T, F)
    with rnnctl.probe(model, decay=True) as trace:
        model(x).square().mean().backward()
    why = trace["rnn.weight_hh_l1"].why["grad_norm_W_hh"]
    assert why.startswith(f"h_t is not finite first at step {first_bad(model, x)} (rnn.weight_hh_l1)")
    assert "in float64 it is finite" in why
    with rnnctl.probe(model, decay=True) as trace:
        model(x[:, :5]).square().mean().backward()
    assert "grad_norm_W_hh" not in trace["rnn.weight_hh_l1"].why


def test_autograd_is_said_to_overflow_in_the_dtype_that_it_ran_in():
    torch.manual_seed(0)
    found = rnnctl.flow(growing(Relu(), 10.0), torch.randn(2, T, F), verify=True)
    assert found.why["autograd_relative_error"] == "autograd's own gradient is not finite in float32"


# ---- every command in both dtypes ---------------------------------------------------------------

# What says how far rounding itself goes, or how much of it is allowed, is another number in another dtype.
OF_ROUNDING = {
    *("autograd_relative_error", "autograd_tolerance", "recovered_error", "largest_relative_error"),
    "spectral_radius_error",
}
# The last digits of sums over many steps, of what a window leaves out 1e-4; a growing network makes more of them.
BOUND = 1e-5
LARGE = "--seq-len 40 --hidden-size 48 --batch-size 5"
LINES = [
    *("cell", "cell --nonlinearity relu --batch-size 1", "check --seq-len 9", "check --seq-len 1 --batch-size 1"),
    *("forward", "forward --cell lstm --num-layers 2 --bidirectional", "forward --nonlinearity relu --seq-len 1"),
    *("unroll", "unroll --cell gru", f"unroll --cell lstm {LARGE}"),
    *("gradnorm", "gradnorm --seq-len 1 --batch-size 1", f"gradnorm --loss-at all {LARGE}"),
    *("gradnorm --nonlinearity relu --loss sum --gain 2 --verify", "gradnorm --loss cross-entropy --loss-at all"),
    "gradnorm --cell rnn --num-layers 2 --seq-len 30 --batch-size 1",
    f"gradnorm --cell gru --bidirectional --loss-at all {LARGE}",
    *("gradnorm --cell lstm --num-layers 2", "gradnorm --cell coupled-lstm", "gradnorm --cell lstm --seq-len 1"),
    *("flow", "flow --seq-len 1 --batch-size 1", f"flow {LARGE}", f"flow --cell lstm {LARGE}"),
    *("flow --cell gru --batch-size 1 --seq-len 30", "flow --cell rnn --num-layers 2 --module rnn.weight_hh_l0"),
    *("truncation --seq-len 50", f"truncation {LARGE}", "truncation --seq-len 1 --batch-size 1"),
    *(
        "truncation --cell lstm --seq-len 30",
        "truncation --cell gru --num-layers 2 --module rnn.weight_hh_l0 --seq-len 40",
    ),
    *("spectrum", f"spectrum --nonlinearity relu {LARGE}", "spectrum --cell gru", "spectrum --cell lstm --seq-len 1"),
    *("lyapunov", "lyapunov --autonomous --gain 2 --steps 50", f"lyapunov --cell lstm --count 3 {LARGE}"),
    "lyapunov --cell rnn --nonlinearity relu --seq-len 30 --batch-size 1",
]


def require_alike(narrow, wide):
    """Every scalar, to what float32 holds; counts, steps and words to the letter."""
    assert narrow.keys() == wide.keys()
    for name in narrow.keys() - OF_ROUNDING:
        found, expected = narrow[name], wide[name]
        if isinstance(expected, float) and isinstance(found, float):
            bound = 10 * BOUND if name.startswith("relative_error_at") else BOUND
            assert found == pytest.approx(expected, rel=bound, abs=0), name
        else:
            assert (type(found), found) == (type(expected), expected), name


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    return runner(capsys, monkeypatch, tmp_path)


@pytest.mark.parametrize("line", LINES)
def test_a_command_answers_alike_in_both_dtypes(line, run):
    narrow, wide = (document(run(f"{line} --json --dtype {dtype}")) for dtype in ("float32", "float64"))
    require_alike(narrow["scalars"], wide["scalars"])
    assert narrow.get("why", {}).keys() == wide.get("why", {}).keys()


@pytest.mark.parametrize(
    "mapping",
    [
        {},
        {"cell": "lstm", "num-layers": 2},
        {"h-init": "normal", "init": "orthogonal", "loss": "cross-entropy"},
    ],
)
def test_both_dtypes_have_the_same_network_and_numbers(mapping):
    """Drawn in float32 and converted: what is compared is the arithmetic alone."""
    narrow, wide = (
        experiment(options_from(GradnormOptions, {**mapping, "seed": 3, "dtype": dtype}))
        for dtype in ("float32", "float64")
    )
    for name, weight in wide.model.state_dict().items():
        assert torch.equal(narrow.model.state_dict()[name].double(), weight)
    for name in ("x", "target", "h_init"):
        one, other = getattr(narrow, name), getattr(wide, name)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one.to(other.dtype), other)


LIBRARY = [*ASKED, rnnctl.spectrum, rnnctl.lyapunov]


@pytest.mark.parametrize("question", LIBRARY)
@pytest.mark.parametrize("kind", ["own", "LSTM"])
@pytest.mark.parametrize("sizes", [(1, 30), (B, 9)])
def test_code_of_the_users_is_answered_alike_in_both_dtypes(sizes, kind, question):
    torch.manual_seed(0)
    model, x, only = InALoop(kind), torch.randn(*sizes, F), "back*" if kind == "own" else "cell*"
    narrow = question(model, x, only=only)
    wide = question(copy.deepcopy(model).double(), x.double(), only=only)
    stated = {"computed_in"}
    require_alike(
        *({name: value for name, value in each.scalars.items() if name not in stated} for each in (narrow, wide))
    )


@pytest.mark.parametrize("kind", ["own", "GRU"])
def test_a_watched_training_step_is_told_alike_in_both_dtypes(kind, tmp_path):
    torch.manual_seed(0)
    model, x = InALoop(kind), torch.randn(B, T, F)
    told = []
    for dtype in (torch.float32, torch.float64):
        each, path = copy.deepcopy(model).to(dtype), tmp_path / f"{dtype}.jsonl"
        with rnnctl.watch(each, every=1, to=path):
            each(x.to(dtype)).square().mean().backward()
        # But for when it began.
        told.append({**rnnctl.gradnorm_history(path).scalars, "run": None})
    require_alike(*told)
