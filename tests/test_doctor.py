"""The doctor: what each finding is found in and not found in, how findings are ranked, and the command."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shell import Run, document, forget_modules_of, runner
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnnctl
from rnnctl.diagnosis.lag import estimated_lag
from rnnctl.diagnosis.last_loss import against_entering
from rnnctl.diagnosis.look import beyond
from rnnctl.diagnosis.rule_ids import IDS
from rnnctl.diagnosis.rules import RULES
from rnnctl.errors import InputError
from rnnctl.view.guide import chapter

KINDS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Net(nn.Module):
    """One of torch's layers with a readout, whatever stands between them."""

    def __init__(
        self,
        kind: str = "gru",
        sizes: tuple[int, int, int] = (3, 10, 2),
        *,
        last: bool = False,
        end: Callable[[Tensor], Tensor] = lambda y: y,
        **given: Any,
    ) -> None:
        super().__init__()
        inputs, hidden, outputs = sizes
        self.rnn = KINDS[kind](inputs, hidden, **{"batch_first": True, **given})
        self.readout = nn.Linear(hidden * (2 if self.rnn.bidirectional else 1), outputs)
        self.last, self.end = last, end

    def forward(self, x: Tensor) -> Tensor:
        h = self.rnn(x)[0]
        return self.end(self.readout(h[:, -1] if self.last else h))


class Loop(nn.Module):
    """A cell written by hand: Elman, or with one gate; between two steps something may be done to the state."""

    def __init__(
        self,
        *,
        f: Callable[[Tensor], Tensor] = torch.tanh,
        between: Callable[[int, Tensor], Tensor] = lambda t, h: h,
        gate: float | None = None,
        hidden: int = 9,
    ) -> None:
        super().__init__()
        self.U, self.V = nn.Linear(3, hidden), nn.Linear(hidden, 2)
        self.W = nn.Parameter(torch.randn(hidden, hidden) / hidden**0.5)
        self.G = nn.Linear(3, hidden)
        self.f, self.between, self.gate, self.hidden = f, between, gate, hidden

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(x.shape[0], self.hidden), []
        for t, x_t in enumerate(x.unbind(1)):
            h = self.between(t, h)
            new = self.f(self.U(x_t) + h @ self.W.T)
            if self.gate is not None:
                z = torch.sigmoid(self.G(x_t) + self.gate)
                new = z * h + (1 - z) * new
            h = new
            outputs.append(self.V(h))
        return torch.stack(outputs, 1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    (tmp_path / "train.py").write_text(TRAIN)
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


TRAIN = """
import torch
from torch import nn

class Tagger(nn.Module):
    def __init__(self, batch_first=True):
        super().__init__()
        self.rnn, self.readout = nn.GRU(3, 8, batch_first=batch_first), nn.Linear(8, 4)

    def forward(self, x):
        return self.readout(self.rnn(x)[0])

class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.readout = nn.Linear(11, 8), nn.Linear(8, 4)

    def forward(self, x):
        h = x.new_zeros(len(x), 8)
        for x_t in x.unbind(1):
            h = torch.tanh(self.cell(torch.cat((x_t, h.detach()), 1)))
        return self.readout(h)

class Softmaxed(Tagger):
    def forward(self, x):
        return super().forward(x).softmax(-1)

def two():
    return nn.LSTM(3, 6, num_layers=2, batch_first=True)
"""


def drawn(batch: int = 9, steps: int = 20, features: int = 3) -> Tensor:
    return torch.randn(batch, steps, features)


def moving(x: Tensor) -> Tensor:
    """A target that the last two inputs make, within -1 .. 1, shape (batch, time, 2)."""
    return (0.2 * (x + F.pad(x, (0, 0, 1, 0))[:, :-1]))[..., :2]


def asked(model: nn.Module, x: Tensor, target: Tensor | None = None, **given: Any) -> rnnctl.Diagnosis:
    """Without the exponents, which take longest, unless they are asked for."""
    plain = {"lag": 1, "loss_at": "all", "skip_finding": ("chaotic",)}
    return rnnctl.doctor(model, x, target, **{**plain, **given})


def row(found: rnnctl.Diagnosis, finding: str) -> Any:
    return next(row for row in found.rows if row["finding"] == finding)


def state_of(found: rnnctl.Diagnosis, finding: str) -> bool | None:
    return next(each["found"] for each in found.more["looked_at"] if each["finding"] == finding)


def with_bias(model: nn.Module, gate: int, value: float, hidden: int = 10) -> nn.Module:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias_ih" in name:
                parameter[gate * hidden : (gate + 1) * hidden] = value
    return model


def scaled(model: nn.Module, factor: float) -> nn.Module:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "weight_hh" in name or name == "W":
                parameter.mul_(factor)
    return model


# ---- nothing found ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch", "steps"), [(9, 20), (2, 40)])
def test_nothing_is_found_in_a_plain_network(kind: str, batch: int, steps: int) -> None:
    x = drawn(batch, steps)
    found = asked(Net(kind), x, moving(x), skip_finding=())
    assert (found.verdict, found.rows) == ("nothing found", ())
    assert found.scalars["looked_at"] + found.scalars["not_looked_at"] == len(IDS)
    assert {each["finding"] for each in found.more["looked_at"] if each["found"] is None} == {
        "window",
        "step-size",
        "echo",
    }
    assert all(each["why"] for each in found.more["looked_at"] if each["found"] is None)


@pytest.mark.parametrize(
    "model",
    [
        Loop(),
        Loop(f=torch.relu),
        Loop(gate=0.0),
        rnnctl.FullRNN(3, 10, 2),
        Net("lstm", bidirectional=True),
        Net("gru", num_layers=2),
        Net("rnn", nonlinearity="relu"),
        nn.LSTM(3, 2, batch_first=True),
    ],
    ids=["loop", "relu loop", "gated loop", "FullRNN", "both directions", "two layers", "relu", "bare"],
)
def test_nothing_is_found_in_others(model: nn.Module) -> None:
    x = drawn()
    assert asked(model, x, moving(x), skip_finding=()).rows == ()


def test_nothing_is_found_in_a_layer_whose_W_hh_is_kept_orthogonal() -> None:
    model, x = Net("rnn"), drawn(steps=9)
    nn.utils.parametrizations.orthogonal(model.rnn, "weight_hh_l0")
    assert asked(model, x, moving(x)).rows == ()


def test_the_model_its_gradients_and_random_numbers_are_as_they_were() -> None:
    model, x = Net("lstm", num_layers=2, dropout=0.3), drawn()
    model.readout.weight.requires_grad_(False)
    before, state = {name: part.clone() for name, part in model.state_dict().items()}, torch.get_rng_state()
    asked(model, x, moving(x), train_steps=3, seeds=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
    assert model.training and not model.readout.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


# ---- one finding at a time ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_over_the_sequences_is_found_and_nothing_is_said_of_time(kind: str) -> None:
    x = drawn(6, 15)
    found = asked(Net(kind, batch_first=False), x, moving(x))
    assert (found.verdict, row(found, "time-axis")["number"]) == ("time-axis", 6.0)
    assert [state_of(found, each) for each in ("vanishing", "exploding", "state-cut")] == [None] * 3


def test_a_view_in_place_of_a_transpose_is_found() -> None:
    class Viewed(Net):
        def forward(self, x: Tensor) -> Tensor:
            h = self.rnn(x.reshape(x.shape[1], x.shape[0], -1))[0]
            return self.readout(h.reshape(*x.shape[:2], -1))

    x = drawn()
    assert asked(Viewed(batch_first=False), x, moving(x)).verdict == "time-axis"


@pytest.mark.parametrize("before", [lambda x: x + 0.1 * torch.randn_like(x), lambda x: x - x.mean((0, 1))])
def test_noise_and_what_is_taken_of_all_sequences_together_mix_none_of_them(before: Callable[[Tensor], Tensor]) -> None:
    class Given(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(before(x))

    x = drawn()
    found = asked(Given(), x, moving(x))
    assert (found.rows, state_of(found, "time-axis"), state_of(found, "vanishing")) == ((), False, False)


def test_steps_in_the_place_of_sequences_are_found() -> None:
    class Flat(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.readout(self.rnn(x.reshape(-1, 1, x.shape[2]))[0]).reshape(*x.shape[:2], -1)

    x = drawn()
    found = asked(Flat(), x, moving(x))
    assert (found.verdict, row(found, "time-axis")["number"]) == ("time-axis", 1.0)
    assert "takes steps for sequences" in row(found, "time-axis")["sentence"]


def test_of_as_many_sequences_as_steps_the_outputs_tell() -> None:
    x = drawn(8, 8)
    assert asked(Net("lstm", batch_first=False), x, moving(x)).verdict == "time-axis"
    assert asked(Net("lstm"), x, moving(x)).rows == ()


@pytest.mark.parametrize(
    ("change", "number"),
    [(lambda x: 400 * x + 900, None), (lambda x: 1e-6 * x, None), (torch.zeros_like, 0.0), (torch.ones_like, 0.0)],
    ids=["units of thousands", "micro units", "zeros", "constant"],
)
@pytest.mark.parametrize("model", [Net("lstm"), Net("rnn"), Loop()], ids=["LSTM", "Elman", "loop"])
def test_an_input_that_saturates_or_says_nothing_is_found_first(
    model: nn.Module, change: Callable[[Tensor], Tensor], number: float | None
) -> None:
    x = drawn()
    found = asked(model, change(x), moving(x))
    assert (found.verdict, row(found, "input-scale")["severity"]) == ("input-scale", "fault")
    assert number is None or row(found, "input-scale")["number"] == number


@pytest.mark.parametrize("place", ["input", "target", "weight", "state", "loss"])
def test_what_is_not_finite_is_found_where_it_is_first(place: str) -> None:
    model, x = Net("rnn", nonlinearity="relu"), drawn()
    target = moving(x)
    if place == "input":
        x[2, 5, 1] = float("nan")
    if place == "target":
        target[1, 4, 0] = float("inf")
    if place == "weight":
        model.rnn.weight_hh_l0.data[2, 3] = float("inf")
    if place == "state":
        scaled(model, 1e12)
    if place == "loss":
        model.readout.weight.data.mul_(1e30)
    found = row(asked(model, x, target), "nonfinite")
    assert found["severity"] == "fault"
    expected = {"input": "input holds nan at (2, 5, 1)", "target": "target holds inf at (1, 4, 0)"}
    expected |= {"weight": "rnn.weight_hh_l0 holds inf at (2, 3)", "state": "rnn.weight_hh_l0", "loss": "the loss is"}
    assert expected[place] in found["sentence"]
    assert found["number"] == {"input": 5.0, "target": 4.0}.get(place, found["number"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_vanishes_over_a_long_lag_and_not_over_a_short_one(kind: str) -> None:
    model, x = Net(kind), drawn(6, 60)
    far, near = asked(model, x, lag=50), asked(model, x, lag=2)
    assert (far.verdict, row(far, "vanishing")["severity"]) == ("vanishing", "fault")
    assert near.rows == ()
    assert row(far, "vanishing")["number"] == far.scalars["reach"] < 1e-3 < near.scalars["reach"]


def test_reach_is_the_state_gradient_at_the_lag_over_that_at_the_last_step() -> None:
    x, target = drawn(4, 12), torch.randn(4, 2)
    model = rnnctl.FullRNN(3, 10, 2)
    norms = rnnctl.gradnorm(model, x, target=target).grad_norm_h
    for lag in (1, 4, 11):
        reach = rnnctl.doctor(model, x, target, lag=lag).scalars["reach"]
        assert reach == pytest.approx(float(norms[-1 - lag] / norms[-1]), rel=1e-5)


def test_without_a_lag_the_whole_sequence_counts_and_is_a_warning() -> None:
    found = asked(Net("rnn"), drawn(6, 60), lag=None)
    assert (row(found, "vanishing")["severity"], found.scalars["lag_from"]) == ("warning", "not known")
    assert found.why["lag"] == "no target: not known"
    assert "not known" in row(found, "vanishing")["sentence"]


@pytest.mark.parametrize("model", [Net("rnn", nonlinearity="relu"), Loop(f=torch.relu)], ids=["Elman", "loop"])
def test_a_gradient_that_grows_is_exploding(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2 and parameter.shape[0] == parameter.shape[1]:
                parameter.copy_(1.6 * torch.eye(len(parameter)))
    x = drawn(6, 30)
    found = asked(model, x, moving(x))
    assert (found.verdict, row(found, "exploding")["number"] > 1e3) == ("exploding", True)


@pytest.mark.parametrize("kind", KINDS)
def test_an_inner_reverse_direction_is_held_against_all_that_enters_it(kind: str) -> None:
    """To its end, which is step 0, little comes of what the outer layer sends to the steps before."""
    x = drawn(steps=40)
    assert state_of(asked(Net(kind, num_layers=2, bidirectional=True), x, moving(x)), "exploding") is False


def test_what_enters_at_many_steps_adds_up_and_is_no_growth() -> None:
    class Mean(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.readout(self.rnn(x)[0].mean(1))

    x, asked_for = drawn(2, 1500), {"loss_at": "last", "only_finding": ("exploding",)}
    keeping = with_bias(Mean("lstm"), gate=1, value=12.0)
    assert asked(keeping, x, torch.randn(2, 2), **asked_for).rows == ()
    growing = scaled(Mean("rnn", nonlinearity="relu"), 9.0)
    assert asked(growing, x[:, :40], torch.randn(2, 2), **asked_for).verdict == "exploding"


@pytest.mark.parametrize(("model", "factor"), [(Net("rnn", (3, 40, 2)), 6.0), (Loop(hidden=30), 4.0)])
def test_a_wide_gain_is_chaotic_by_more_than_two_standard_errors(model: nn.Module, factor: float) -> None:
    x = drawn(4, 60)
    given: dict[str, Any] = {"only_finding": ["chaotic"], "skip_finding": ()}
    assert state_of(asked(model, x, **given), "chaotic") is False
    found = row(asked(scaled(model, factor), x, **given), "chaotic")
    assert found["number"] > found["threshold"] > 0


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (with_bias(Net("lstm"), 0, -9.0), "input gate i of rnn.weight_hh_l0 is shut"),
        (with_bias(Net("lstm"), 3, -9.0), "output gate o of rnn.weight_hh_l0 is shut"),
        (with_bias(Net("gru"), 1, 11.0), "update gate z of rnn.weight_hh_l0 is open"),
        (Loop(gate=12.0), "sigmoid 1 of a step is open"),
        (Loop(gate=-12.0), "sigmoid 1 of a step is shut"),
    ],
)
def test_a_gate_at_its_end_is_found_with_its_name(model: nn.Module, words: str) -> None:
    x = drawn()
    found = row(asked(model, x, moving(x)), "stuck-gate")
    assert words in found["sentence"]
    assert found["number"] >= 0.95


def test_a_forget_gate_that_is_open_for_a_long_lag_is_not_stuck() -> None:
    x = drawn(6, 60)
    assert state_of(asked(with_bias(Net("lstm"), 1, 4.0), x, moving(x)), "stuck-gate") is False
    assert state_of(asked(with_bias(Net("lstm"), 1, -9.0), x, moving(x)), "stuck-gate") is True


@pytest.mark.parametrize(
    ("model", "bias"),
    [(Net("rnn", nonlinearity="relu"), -20.0), (Net("rnn"), 20.0), (Loop(f=torch.relu), -20.0), (Loop(), 20.0)],
    ids=["relu", "tanh", "relu loop", "tanh loop"],
)
@pytest.mark.parametrize(("part", "severity"), [(1.0, "fault"), (0.45, "warning"), (0.2, None)])
def test_units_that_are_dead_at_every_step_are_counted(
    model: nn.Module, bias: float, part: float, severity: str | None
) -> None:
    with torch.no_grad():
        own = model.U.bias if isinstance(model, Loop) else model.rnn.bias_ih_l0
        own.zero_()
        count = round(part * len(own))
        own[:count] = bias
    x = drawn()
    found = asked(model, x, moving(x))
    assert (state_of(found, "dead-units"), severity is not None) in [(True, True), (False, False)]
    if severity is not None:
        assert row(found, "dead-units")["severity"] == severity
        assert row(found, "dead-units")["number"] == pytest.approx(count / len(own), abs=0.12)


class Stepped(Net):
    """The layer, called step by step or window by window, with something done to the state in between."""

    def __init__(self, kind: str, window: int, between: Callable[[Any], Any]) -> None:
        super().__init__(kind)
        self.window, self.between = window, between

    def forward(self, x: Tensor) -> Tensor:
        state, parts = None, []
        for part in x.split(self.window, 1):
            h, state = self.rnn(part, state)
            state = self.between(state)
            parts.append(self.readout(h))
        return torch.cat(parts, 1)


def detached(state: Any) -> Any:
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("window", "between"), [(1, detached), (5, detached), (1, lambda state: None)])
def test_a_state_that_is_detached_or_begins_anew_is_cut(kind: str, window: int, between: Any) -> None:
    x = drawn(6, 10)
    found = asked(Stepped(kind, window, between), x, moving(x), lag=8)
    assert (found.verdict, row(found, "state-cut")["number"]) == ("state-cut", float(window))
    said = "begins anew" if between is not detached else "handed on and detached"
    assert said in row(found, "state-cut")["sentence"]


@pytest.mark.slow
def test_windows_that_hold_the_lag_are_no_cut_and_a_state_that_goes_on_is_none() -> None:
    x, only = drawn(), {"only_finding": ["state-cut"]}
    assert state_of(asked(Stepped("gru", 5, detached), x, lag=3, **only), "state-cut") is False
    assert state_of(asked(Stepped("gru", 5, detached), x, lag=5, **only), "state-cut") is True
    assert state_of(asked(Stepped("lstm", 1, lambda state: state), x, lag=8, **only), "state-cut") is False


@pytest.mark.parametrize(
    ("between", "steps"),
    [
        (lambda t, h: h.detach(), 1),
        (lambda t, h: torch.zeros_like(h), 1),
        (lambda t, h: h.detach() if t % 4 == 0 else h, 4),
    ],
)
def test_a_cut_in_a_loop_written_by_hand_is_found(between: Callable[[int, Tensor], Tensor], steps: int) -> None:
    x = drawn(6, 20)
    found = asked(Loop(between=between), x, moving(x), lag=6)
    assert (found.verdict, row(found, "state-cut")["number"]) == ("state-cut", float(steps))


@pytest.mark.parametrize("model", [Net("lstm"), Loop(), rnnctl.FullRNN(3, 5, 2)], ids=["LSTM", "loop", "FullRNN"])
def test_a_window_no_longer_than_the_lag_is_found(model: nn.Module) -> None:
    x = drawn()
    found = row(asked(model, x, moving(x), lag=6, window=6), "window")
    assert (found["number"], found["threshold"]) == (6.0, 7.0)
    assert "% of the whole gradient is lost" in found["sentence"]
    assert state_of(asked(model, x, moving(x), lag=6, window=7), "window") is False


def test_what_a_window_loses_is_what_truncation_says_where_the_lag_is_not_known() -> None:
    model, x = rnnctl.FullRNN(3, 10, 2), drawn()
    lost = rnnctl.truncation(model, x, windows=[1]).scalars["relative_error_at_1"]
    found = row(asked(model, x, lag=None, window=1), "window")
    assert (found["number"], found["severity"]) == (pytest.approx(lost, rel=1e-6), "warning")


def padded_batch() -> tuple[Tensor, Tensor, Tensor]:
    x, lengths = drawn(8, 16), torch.tensor([3, 5, 4, 16, 6, 3, 7, 4])
    blank = torch.arange(16) >= lengths[:, None]
    return x.masked_fill(blank[..., None], 0.0), moving(x).masked_fill(blank[..., None], 0.0), lengths


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_over_padding_is_found_and_one_of_packed_sequences_is_not(kind: str) -> None:
    class Packed(Net):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            h, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])
            return self.readout(h)

    x, target, lengths = padded_batch()
    careless = asked(Net(kind), x, target, lengths=lengths, loss=None, loss_at=None, loss_fn=F.mse_loss)
    assert row(careless, "padding")["severity"] == "fault"
    assert asked(Packed(kind), x, target, lengths=lengths).rows == ()
    # Nobody says so, and the blank ends tell.
    unsaid = asked(Net(kind, last=True), x, target[:, -1], loss_at="last")
    assert "no lengths are given" in row(unsaid, "padding")["sentence"]


def ends_after(active: list[int], steps: int = 30, rate: float = 1.0) -> Tensor:
    """Inputs that are not 0 with this rate up to a step of each sequence, and 0 behind it, (batch, time, 3)."""
    real = torch.arange(steps) < torch.tensor(active)[:, None]
    generator = torch.Generator().manual_seed(0)
    events = real & (torch.rand(real.shape, generator=generator) < rate)
    return torch.randn(*real.shape, 3, generator=generator) * events[..., None]


@pytest.mark.parametrize(
    ("x", "target", "found"),
    [
        (ends_after([30, 6, 9, 12]), torch.randn(4, 2), "fault"),
        # A pause within now and then.
        (ends_after([30, 6, 9, 12], rate=0.9), torch.randn(4, 2), "fault"),
        # None is as long as the input: it may be a cue of some steps, and a delay.
        (ends_after([5, 6, 7, 8]), torch.randn(4, 2), "warning"),
        (ends_after([10, 10, 10, 10]), torch.randn(4, 2), False),
        (ends_after([30] * 24, rate=0.1), torch.randn(24, 2), False),
        (ends_after([30, 6, 9, 12], rate=0.3), torch.randn(4, 2), None),
        # What is asked for behind the ends is more than one number.
        (ends_after([30, 6, 9, 12]), torch.randn(4, 30, 2), False),
    ],
    ids=["padded", "with pauses", "none whole", "one end", "sparse", "sparse and longer", "asked for behind"],
)
def test_blank_ends_are_padding_where_nothing_within_is_as_blank(x: Tensor, target: Tensor, found: Any) -> None:
    every = target.dim() == 3
    made = asked(Net("gru", last=not every), x, target, loss_at="all" if every else "last", only_finding=("padding",))
    assert (made.rows[0]["severity"] if made.rows else state_of(made, "padding")) == found


@pytest.mark.parametrize("kind", KINDS)
def test_a_reverse_direction_read_at_the_last_step_is_found_and_both_ends_are_not(kind: str) -> None:
    class BothEnds(Net):
        def forward(self, x: Tensor) -> Tensor:
            state = self.rnn(x)[1]
            h = state[0] if isinstance(state, tuple) else state
            return self.readout(h.transpose(0, 1).flatten(1))

    x, target = drawn(), torch.rand(9, 2)
    found = asked(Net(kind, last=True, bidirectional=True), x, target, loss_at="last")
    assert found.verdict == "reverse-last"
    assert "weight_hh_l0_reverse" in row(found, "reverse-last")["sentence"]
    # What came first the reverse direction has just seen: nothing of it vanishes.
    ends = asked(BothEnds(kind, bidirectional=True), drawn(steps=50), target, loss_at="last", lag=49)
    assert (ends.rows, ends.scalars["reach"]) == ((), pytest.approx(1.0))


@pytest.mark.parametrize("end", [lambda y: y.softmax(-1), torch.sigmoid], ids=["softmax", "sigmoid"])
@pytest.mark.parametrize("own", [False, True], ids=["ours", "theirs"])
def test_a_softmax_before_cross_entropy_is_found_in_any_loss(end: Callable[[Tensor], Tensor], own: bool) -> None:
    x, classes = drawn(), torch.randint(4, (9, 20))
    given: dict[str, Any] = {"loss": "cross-entropy"}
    if own:
        given = {"loss_at": None, "loss_fn": lambda y, target: F.cross_entropy(y.flatten(0, 1), target.flatten())}
    found = asked(Net("gru", (3, 10, 4), end=end), x, classes, **given)
    assert (found.verdict, row(found, "loss-output")["severity"]) == ("loss-output", "fault")
    log = asked(Net("gru", (3, 10, 4), end=lambda y: y.log_softmax(-1)), x, classes, **given)
    assert state_of(log, "loss-output") is False


def test_probabilities_without_a_logarithm_in_nll_loss_are_found() -> None:
    x, classes = drawn(), torch.randint(4, (9, 20))

    def nll(y: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(y.flatten(0, 1), target.flatten())

    plain = asked(Net("gru", (3, 10, 4), end=lambda y: y.softmax(-1)), x, classes, loss_at=None, loss_fn=nll)
    log = asked(Net("gru", (3, 10, 4), end=lambda y: y.log_softmax(-1)), x, classes, loss_at=None, loss_fn=nll)
    assert (state_of(plain, "loss-output"), state_of(log, "loss-output")) == (True, False)


@pytest.mark.parametrize(
    ("model", "reachable"),
    [
        (Net(end=torch.tanh), (-1.0, 1.0)),
        (Net(end=torch.sigmoid), (0.0, 1.0)),
        (Net(end=torch.relu), (0.0, 9.0)),
        (nn.LSTM(3, 2, batch_first=True), (-1.0, 1.0)),
        (nn.GRU(3, 2, batch_first=True), (-1.0, 1.0)),
    ],
    ids=["tanh", "sigmoid", "relu", "LSTM", "GRU"],
)
def test_targets_beyond_the_ends_of_the_output_are_counted(model: nn.Module, reachable: tuple[float, float]) -> None:
    low, high = reachable
    target = torch.rand(9, 20, 2) * (high - low) + low
    assert state_of(asked(model, drawn(), target), "loss-output") is False
    target[0, :9] = low - 1
    found = row(asked(model, drawn(), target), "loss-output")
    assert found["number"] == pytest.approx(18 / 360)


def test_a_frozen_recurrent_weight_and_one_that_nothing_comes_to_are_told_apart() -> None:
    x, frozen, unread = drawn(), Net("lstm"), Net("lstm")
    frozen.rnn.weight_hh_l0.requires_grad_(False)
    unread.forward = lambda x: unread.readout(x.repeat(1, 1, 4)[..., :10]) + 0 * unread.rnn(x)[0].detach().sum()
    for model, words in ((frozen, "requires_grad is False"), (unread, "nothing of the loss comes to")):
        assert words in row(asked(model, x, moving(x)), "no-gradient")["sentence"]


@pytest.mark.parametrize("under", [torch.no_grad, torch.inference_mode])
def test_a_layer_that_runs_without_gradients_gets_none(under: Any) -> None:
    class Without(Net):
        def forward(self, x: Tensor) -> Tensor:
            with under():
                h = self.rnn(x)[0]
            return self.readout(h.clone())

    x = drawn()
    assert state_of(asked(Without("lstm"), x, moving(x)), "no-gradient") is True


@pytest.mark.parametrize("made", [Net, Loop])
def test_behind_a_readout_of_zeros_a_gradient_comes_at_the_second_step(made: Callable[[], nn.Module]) -> None:
    model = made()
    readout, x = model.readout if isinstance(model, Net) else model.V, drawn()
    for parameter in readout.parameters():
        nn.init.zeros_(parameter)
    found = asked(model, x, moving(x))
    assert (found.rows, state_of(found, "no-gradient"), state_of(found, "vanishing")) == ((), False, False)
    # Zeros that nothing trains stay in the way.
    readout.requires_grad_(False)
    assert row(asked(model, x, moving(x)), "no-gradient")["severity"] == "fault"


def test_steps_that_leap_or_stand_still_are_found_in_the_short_training() -> None:
    x = drawn()
    given = {"train_steps": 10, "seeds": 1, "only_finding": ["step-size"]}
    usual = asked(Net(), x, moving(x), **given)
    large, small = Net(), Net()
    with torch.no_grad():
        large.rnn.weight_hh_l0.mul_(1e4)
        small.readout.weight.mul_(1e-5)
    assert state_of(usual, "step-size") is False
    still, leaps = (row(asked(model, x, moving(x), **given), "step-size") for model in (large, small))
    assert "stands still" in still["sentence"] and still["number"] < 1e-5
    assert "leaps" in leaps["sentence"] and leaps["number"] > 1e-1


def test_a_readout_of_zeros_is_no_leap() -> None:
    model, x = Net(), drawn()
    nn.init.zeros_(model.readout.weight)
    assert state_of(asked(model, x, moving(x), train_steps=5, seeds=1), "step-size") is False


def test_a_loss_that_rises_from_next_to_nothing_is_no_leap_and_one_that_rises_far_is() -> None:
    """Adam begins anew on a network that has learned all there is, and steps out of its minimum."""
    x = drawn()
    for scale, leaps in ((1.0, False), (1000.0, True)):
        model = Net(end=lambda y, scale=scale: scale * y)
        with torch.no_grad():
            model.readout.weight.div_(scale)
            target = model(x) + 1e-4
        found = asked(model, x, target, train_steps=5, seeds=1, only_finding=("step-size",))
        assert ("the loss rises" in found.rows[0]["sentence"] if found.rows else False) == leaps


def test_a_random_walk_is_an_echo_and_a_task_that_is_learned_is_none() -> None:
    walk = 0.2 * torch.randn(16, 21, 2).cumsum(1)
    x = torch.rand(16, 20, 2) - 0.5
    given = {"train_steps": 60, "seeds": 1, "only_finding": ["echo"]}
    model = Net("rnn", (2, 16, 2))
    found = asked(model, walk[:, :-1], walk[:, 1:], **given)
    assert (state_of(found, "echo"), "the last value" in row(found, "echo")["sentence"]) == (True, True)
    assert state_of(asked(model, x, -x, **given), "echo") is False
    assert "target itself" in row(asked(model, x, x), "echo")["sentence"]


@pytest.mark.slow
def test_classes_that_hang_on_nothing_are_no_better_than_the_commonest_on_sequences_not_seen() -> None:
    x, classes = drawn(16, 12), torch.randint(2, (16, 12))
    known = (x[..., 0] > 0).long()
    given = {"train_steps": 80, "seeds": 1, "loss": "cross-entropy", "only_finding": ["echo"]}
    for target, holds in ((classes, True), (known, False)):
        assert state_of(asked(Net("gru", (3, 32, 2)), 2 * x, target, **given), "echo") is holds


# ---- the lag ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "steps", "lag"), [(12, 30, 2), (20, 40, 25), (3, 120, 7), (1, 300, 9)])
def test_the_lag_of_a_delay_is_found_exactly(batch: int, steps: int, lag: int) -> None:
    x = torch.randn(batch, steps, 1)
    found = estimated_lag(x, F.pad(x, (0, 0, lag, 0))[:, :steps])
    assert (found.steps, found.source) == (lag, "estimated")
    assert f"up to {lag} steps back" in found.words


def test_the_lag_of_tokens_classes_and_the_first_input_is_found() -> None:
    tokens = torch.randint(5, (20, 30))
    assert estimated_lag(tokens, F.pad(tokens, (3, 0))[:, :30]).steps == 3
    x, label = 0.1 * torch.randn(24, 25, 2), torch.randint(2, (24,))
    x[:, 0, 1] += 2.0 * label - 1
    assert estimated_lag(x, label).steps == 24
    assert estimated_lag(x, x.cumsum(1)).steps is not None


def test_the_lag_of_padded_sequences_ends_at_their_lengths() -> None:
    x, lengths = torch.randn(20, 30, 1), torch.randint(10, 31, (20,))
    target = F.pad(x, (0, 0, 4, 0))[torch.arange(20), lengths - 1]
    assert estimated_lag(x, target, lengths).steps == 4


@pytest.mark.parametrize("seed", range(3))
def test_of_noise_no_lag_is_found(seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(12, 30, 2)
    for target in (torch.randn(12, 1), torch.randn(12, 30, 1), torch.randint(3, (12,))):
        assert (estimated_lag(x, target).source, estimated_lag(x, target).steps) == ("not known", None)


@pytest.mark.parametrize("target", [torch.ones(12, 30, 1), torch.ones(7, 3), torch.ones(12, 11, 2, 3)])
def test_a_target_that_says_nothing_has_no_lag(target: Tensor) -> None:
    found = estimated_lag(torch.randn(12, 30, 2), target)
    assert (found.steps, found.words.endswith("not known")) == (None, True)


# ---- ranking ------------------------------------------------------------------------------------


def test_the_gravest_comes_first_and_causes_before_what_follows_from_them() -> None:
    x = 500 * drawn(6, 60) + 2000
    found = asked(Net("lstm"), x, moving(drawn(6, 60)), lag=50)
    assert found.found[0] == "input-scale"
    assert {"vanishing"} <= set(found.found)
    severities = [each["severity"] for each in found.rows]
    assert severities == sorted(severities, key=("fault", "warning", "note").index)


def test_a_cause_comes_before_a_finding_of_more_weight_that_follows_from_it() -> None:
    x = drawn()
    found = asked(Stepped("lstm", 1, lambda state: None), x, moving(x), lag=8)
    assert [each["finding"] for each in found.rows if each["severity"] == "fault"][:2] == ["state-cut", "no-gradient"]
    assert found.looks["no-gradient"].excess > found.looks["state-cut"].excess


def test_a_finding_names_the_weight_that_it_is_about_if_it_is_about_one() -> None:
    x = 500 * drawn(6, 60) + 2000
    rows = {each["finding"]: each["weight"] for each in asked(Net("lstm"), x, moving(drawn(6, 60)), lag=50).rows}
    assert rows["input-scale"] is None
    assert rows["vanishing"].endswith("weight_hh_l0")


def test_two_faults_are_both_named() -> None:
    x, classes = drawn(7, 20), torch.randint(4, (7, 20))
    model = Net("lstm", (3, 10, 4), batch_first=False, end=lambda y: y.softmax(-1))
    assert set(asked(model, x, classes, loss="cross-entropy").found) == {"time-axis", "loss-output"}


def test_what_a_rule_explains_are_findings_and_no_rule_explains_itself() -> None:
    assert tuple(rule.id for rule in RULES) == IDS
    for rule in RULES:
        assert set(rule.explains) <= set(IDS) - {rule.id}
        assert rule.measured and rule.threshold and rule.remedy and rule.evidence


def test_the_weight_of_a_number_goes_with_the_orders_of_magnitude() -> None:
    assert [beyond(each, 1e-3) for each in (1e-3, 1e-4, 1e-6, 0.0)] == [0.0, 0.5, pytest.approx(0.75), 1.0]
    assert beyond(1e4, 1e3) == beyond(1e2, 1e3)


def test_only_and_skip_choose_and_the_rest_is_not_known() -> None:
    x = drawn()
    found = asked(Net(), x, moving(x), only_finding=["vanishing", "echo"], skip_finding=["echo"])
    known = {each["finding"] for each in found.more["looked_at"] if each["found"] is not None}
    assert known == {"vanishing"}
    assert found.conditions["exploding"] is None and "left out" in found.why["exploding"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lag": -1}, "lag must be a whole number of at least 0; got -1"),
        ({"window": 0}, "window must be"),
        ({"seeds": 0}, "seeds must be"),
        ({"train_steps": -2}, "train_steps must be"),
        ({"only_finding": ["vanish"]}, "no finding 'vanish'.*Did you mean vanishing"),
        ({"only_finding": ["echo"], "skip_finding": ["echo"]}, "leave no finding"),
    ],
)
def test_what_makes_no_sense_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        asked(Net(), drawn(), **given)


def test_a_model_that_does_not_take_its_input_is_an_error_of_its_own() -> None:
    with pytest.raises(InputError, match="5"):
        asked(Net(), drawn(features=5))


def test_every_look_ends_on_models_that_nothing_recurs_in() -> None:
    found = asked(nn.Linear(3, 2), drawn(), lag=None)
    assert found.rows == ()
    assert [found.conditions[each] for each in ("vanishing", "state-cut", "chaotic")] == [None] * 3
    assert "no weight recurs" in found.why["state-cut"] and found.why["vanishing"]


# ---- the remedies -------------------------------------------------------------------------------


def test_try_measures_remedies_of_what_was_found() -> None:
    x, label = 0.1 * torch.randn(16, 40, 3), torch.randint(2, (16,))
    x[:, 0, 0] += 2.0 * label - 1
    given = {"loss": "cross-entropy", "loss_at": "last", "lag": 39, "only_finding": ["vanishing"]}
    found = asked(Net("lstm", last=True), x, label, try_remedies=True, train_steps=4, seeds=2, **given)
    tried = {each["remedy"]: each for each in found.more["remedies"]}
    assert tried["chrono"]["finding"] == "vanishing"
    assert tried["chrono"]["reach_after"] > 100 * tried["chrono"]["reach_before"]
    assert "chrono_" in tried["chrono"]["lines"]


# ---- the command --------------------------------------------------------------------------------


def test_the_command_shows_what_was_found_and_what_was_not(run: Run) -> None:
    found = run("doctor --seq-len 60 --lag 50")
    assert (found.code, found.err) == (0, "")
    for words in ("what was found", "vanishing", "looked at and found well", "not looked at", "no window is given"):
        assert words in found.out
    assert run("doctor --seq-len 20 --lag 1").out.splitlines()[-1].split() == ["train_steps", "0"]


def test_every_format_has_the_findings(run: Run) -> None:
    line = "doctor --seq-len 60 --lag 50"
    whole = document(run(f"{line} --json"))
    assert (whole["schema"], whole["scalars"]["verdict"]) == ("rnnctl.doctor", "vanishing")
    assert [each["finding"] for each in whole["looked_at"]] == list(IDS)
    (only,) = (json.loads(each) for each in run(f"{line} --format jsonl").out.splitlines())
    assert (only["finding"], only["severity"]) == ("vanishing", "fault")
    assert run(f"{line} --format csv").out.startswith(
        "finding,severity,weight,number,threshold,sentence,evidence,remedy"
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--lag 50 --fail-on vanishing", 3),
        ("--lag 1 --fail-on vanishing", 0),
        ("--lag 1 --fail-on stuck-gate --fail-on dead-units", 0),
        ("--lag 50 --fail-on faults>0", 3),
        ("--lag 50 --fail-on verdict==vanishing", 3),
        ("--lag 1 --fail-on window", 1),
        ("--lag 50 --skip-finding vanishing --fail-on vanishing", 1),
        ("--fail-on state-cuts", 2),
        ("--only-finding vanish", 2),
        ("--lag -1", 2),
        ("--seeds 0", 2),
    ],
)
def test_conditions_and_mistakes_have_their_exit_codes(line: str, code: int, run: Run) -> None:
    found = run(f"doctor --seq-len 60 {line}")
    assert found.code == code, found.err
    assert bool(found.err) == (code != 0)


def test_a_configuration_and_the_environment_are_heard(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "a.toml").write_text('seq-len = 60\n[doctor]\nlag = 50\nonly-finding = ["vanishing", "exploding"]\n')
    found = document(run("doctor --config a.toml --json"))
    assert (found["scalars"]["lag"], found["scalars"]["looked_at"]) == (50, 2)
    monkeypatch.setenv("RNNCTL_LAG", "2")
    assert document(run("doctor --config a.toml --json"))["scalars"]["lag"] == 2


def test_timings_tell_what_each_finding_cost(run: Run) -> None:
    found = document(run("doctor --seq-len 10 --lag 1 --timings --only-finding vanishing --json"))
    assert [each["finding"] for each in found["timings"]] == ["vanishing"]
    assert found["timings"][0]["seconds"] > 0


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("--model train:Tagger --model-arg batch_first=false --input x.npy --loss-at all", "time-axis"),
        (
            "--model train:Tagger --model-arg batch_first=false --input x.npy --target y.npy --loss cross-entropy",
            "time-axis",
        ),
        ("--model train:Softmaxed --input x.npy --target y.npy --loss cross-entropy --loss-at all", "loss-output"),
        ("--model train:two --input x.npy --lag 39", "vanishing"),
        ("--model train:Detached --input x.npy --lag 9", "state-cut"),
        ("--model train:Tagger --input x.npy --target y.npy --loss cross-entropy --window 3 --lag 5", "window"),
        ("--cell rnn --seq-len 50 --lag 40 --num-layers 2", "vanishing"),
        ("--cell lstm --num-layers 2 --seq-len 20 --window 3 --lag 5", "window"),
        ("--cell rnn --num-layers 2 --init gaussian --gain 4 --hidden-size 40 --seq-len 60 --lag 1", "chaotic"),
        ("--init gaussian --gain 3.5 --seq-len 60 --hidden-size 40 --lag 1", "chaotic"),
    ],
)
def test_the_evidence_is_a_command_that_runs_with_the_same_flags(
    line: str, finding: str, run: Run, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(5, 40, 3)).astype(np.float32))
    np.save(tmp_path / "y.npy", np.random.default_rng(0).integers(0, 4, (5, 40)))
    rows = document(run(f"doctor {line} --json"))["rows"]
    evidence = next(each["evidence"] for each in rows if each["finding"] == finding)
    shown = run(evidence.removeprefix("rnnctl "))
    assert shown.code == 0, (evidence, shown.err)
    flags = [flag for flag in line.split() if flag.startswith("--model") or flag in ("--seq-len", "--input", "--init")]
    assert all(flag in evidence for flag in flags)


def test_the_guide_has_every_finding_as_its_rule_says_it() -> None:
    text = " ".join(chapter("repair").split())
    for rule in RULES:
        said = f"- **{rule.id}**: {rule.measured}. It holds: {rule.threshold}. What to do: {rule.remedy}."
        assert said in text


@pytest.mark.parametrize("flag", ["--only-finding", "--skip-finding"])
def test_an_unknown_finding_is_told_by_the_flag_as_it_is_typed(flag: str, run: Run) -> None:
    ran = run(f"doctor {flag} vanishin")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"Error: {flag}: there is no finding 'vanishin'")
    assert "Did you mean vanishing?" in ran.err


def test_growth_is_held_against_all_that_has_entered_and_what_is_left_against_the_most_at_one_step() -> None:
    direct = torch.tensor([2.0, 1.0, 4.0, 0.0], dtype=torch.float64)
    norms = torch.tensor([2.0, 6.0, 3.5, 14.0], dtype=torch.float64)
    left, grown = against_entering(norms, direct, norms[0])
    assert left.tolist() == [0.5, 1.5, 0.875, 3.5]
    # Of 2, of 2 + 1, of 2 + 1 + 4, and of as much.
    assert grown.tolist() == [1.0, 2.0, 0.5, 2.0]
