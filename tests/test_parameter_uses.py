"""How often every parameter of a model is used in one forward pass: counted by hand, and for code of many hands."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from shell import Run, document, forget_modules_of, runner
from styles import STYLES
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_sequence
from torch.utils.checkpoint import checkpoint

from rnnctl import FullRNN, InputError, recurrent_shapes, sequence_shapes
from rnnctl.view.tables import table_text
from rnnctl.view.terminal import Terminal, View

T = 6
R, S, ONCE = "recurrent", "shared", "once"


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def use_rows(result):
    return {row["symbol"]: row for row in result.rows if row["kind"] == "use"}


def counted(model, x, **given):
    """Parameter -> uses and role."""
    return {name: (row["uses"], row["role"]) for name, row in use_rows(sequence_shapes(model, x, **given)).items()}


def why(model, x, name):
    row = use_rows(sequence_shapes(model, x))[name]
    assert (row["uses"], row["used"], row["role"]) == (None, None, None)
    return row["name"]


W_U_b = {"W": (T, R), "U": (T, S), "b": (T, S)}
BY_HAND = {
    **dict.fromkeys(("RawMatmul", "HoistedTranspose", "FunctionalLinear", "Einsum", "Addmm", "Heads"), W_U_b),
    **dict.fromkeys(("Leaky", "Rates", "WeightDrop", "InBuffer", "Attention", "SpikingReadSpikes"), W_U_b),
    "TwoLinears": {
        "wx.weight": (T, S),
        "wx.bias": (T, S),
        "wh.weight": (T, R),
        "wy.weight": (T, S),
        "wy.bias": (T, S),
    },
    "ConcatLSTM": {"linear.weight": (T, R), "linear.bias": (T, S)},
    # Three gates, each with its own piece.
    "ChunkedGRU": {"W": (3 * T, R), "U": (T, S), "b": (T, S)},
    "ResetFirstGRU": {"W_n": (T, R), "W_rz": (T, R), "U": (T, S)},
    "LearnedLeak": {"cell.W": (T, R), "cell.U": (T, S), "cell.leak": (2 * T, R)},
    "LayerNormed": {**W_U_b, "norm.weight": (T, R), "norm.bias": (T, S)},
    "ConvLSTM": {"conv.weight": (T, R), "conv.bias": (T, S)},
    "IndRNN": {"u": (T, R), "U": (T, S)},
    # Three steps of a solver in every call.
    "Continuous": {"cell.W": (3 * T, R), "cell.U": (3 * T, S), "cell.b": (3 * T, S)},
    "Feedback": {"W_hh": (T, R), "W_xh": (T, R), "W_hy": (T, R)},
    "LearnedStart": {**W_U_b, "h_0": (1, ONCE)},
    "NoStart": {**W_U_b, "W": (T - 1, R)},
    "TwoDirections": {"W": (2 * T, R), "U": (2 * T, S), "b": (2 * T, S)},
    "WeightNorm": {
        "U": (T, S),
        "wh.bias": (T, S),
        "wh.parametrizations.weight.original0": (T, R),
        "wh.parametrizations.weight.original1": (T, R),
    },
}


@pytest.mark.parametrize("name", BY_HAND)
def test_uses_of_hand_written_cells_are_those_that_one_counts_by_hand(name):
    case = STYLES[name].posed(T=T)
    assert counted(case.fresh(), case.x) == BY_HAND[name]


@pytest.mark.parametrize("name", STYLES)
def test_what_recurs_is_what_is_written_to_recur(name):
    case = STYLES[name].posed(T=T)
    found = counted(case.fresh(), case.x)
    assert {each for each, (_, role) in found.items() if role == R} == set(case.style.recurrent)
    assert list(found) == [each for each, _ in case.model.named_parameters()]


@pytest.mark.parametrize("seq_len", [1, 2, 5])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_torchs_layers_use_their_weights_at_every_step(kind, seq_len):
    layer = kind(3, 4, 2, batch_first=True, bidirectional=True)
    for name, (uses, role) in counted(layer, torch.randn(2, seq_len, 3)).items():
        assert (uses, role) == (seq_len, ONCE if seq_len == 1 else R if "_hh_" in name and "bias" not in name else S)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_projection_of_the_state_recurs():
    found = counted(nn.LSTM(3, 4, proj_size=2, batch_first=True), torch.randn(2, 5, 3))
    assert {name for name, (_, role) in found.items() if role == R} == {"weight_hh_l0", "weight_hr_l0"}


def test_packed_sequences_have_the_steps_of_the_longest():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(3, 4)

        def forward(self, x):
            return self.rnn(pack_sequence([x[0], x[1, :2]]))[0]

    assert counted(Packed(), torch.randn(2, 5, 3))["rnn.weight_hh_l0"] == (5, R)


class Stepwise(nn.Module):
    """A layer called once a step."""

    def __init__(self, carries, feeds, windows=False, direct=False):
        super().__init__()
        self.rnn = nn.GRU(3, 3, batch_first=True)
        self.carries, self.feeds, self.windows, self.direct = carries, feeds, windows, direct

    def forward(self, x):
        state, outs = None, []
        for t in range(x.shape[1]):
            given = outs[-1] if self.feeds and outs else x[:, t : t + 1]
            y, after = (self.rnn.forward if self.direct else self.rnn)(given, state)
            state = after if self.carries else None
            if self.windows and t == 2:
                state = state.detach()
            outs.append(y)
        return torch.cat(outs, 1)


@pytest.mark.parametrize(
    ("settings", "weight_hh", "weight_ih"),
    [
        ({"carries": True, "feeds": False}, R, S),
        ({"carries": True, "feeds": False, "direct": True}, R, S),
        ({"carries": True, "feeds": False, "windows": True}, R, S),
        ({"carries": True, "feeds": True}, R, R),
        # From zeros at every call.
        ({"carries": False, "feeds": False}, S, S),
        ({"carries": False, "feeds": True}, S, R),
    ],
)
def test_a_layer_called_step_by_step_recurs_by_what_is_handed_on(settings, weight_hh, weight_ih):
    found = counted(Stepwise(**settings), torch.randn(2, 5, 3))
    assert found == {
        "rnn.weight_ih_l0": (5, weight_ih),
        "rnn.weight_hh_l0": (5, weight_hh),
        "rnn.bias_ih_l0": (5, S),
        "rnn.bias_hh_l0": (5, S),
    }


def test_weights_that_a_layer_makes_of_others_are_counted_by_its_steps():
    layer = nn.LSTM(3, 4, 2, batch_first=True)
    parametrizations.spectral_norm(layer, "weight_hh_l0")
    parametrizations.weight_norm(layer, "weight_ih_l1")
    found = counted(layer, torch.randn(2, 5, 3))
    assert found["parametrizations.weight_hh_l0.original"] == (5, R)
    assert (
        found["parametrizations.weight_ih_l1.original0"] == found["parametrizations.weight_ih_l1.original1"] == (5, S)
    )


class Aside(nn.Module):
    """Every way not to be counted beside a layer that is."""

    def __init__(self):
        super().__init__()
        self.rnn, self.dropped = nn.GRU(3, 3, batch_first=True), nn.LSTM(3, 3, batch_first=True)
        self.penalty, self.returned, self.idle, self.frozen = (nn.Parameter(torch.ones(2)) for _ in range(4))
        self.frozen.requires_grad_(False)

    def forward(self, x):
        self.dropped(x * self.frozen[0])
        return {"y": (self.rnn(x), "text"), "penalty": (self.penalty**2).sum(), "returned": self.returned}


def test_unused_is_what_takes_gradients_and_the_outputs_do_not_depend_on():
    model, x = Aside(), torch.randn(2, 5, 3)
    found = counted(model, x)
    assert found["idle"] == (0, "unused")
    assert {found[f"dropped.{name}"] for name, _ in model.dropped.named_parameters()} == {(0, "unused")}
    assert found["rnn.weight_hh_l0"] == (5, R)
    assert why(model, x, "frozen") == "takes no gradient (requires_grad=False)"
    for name in ("penalty", "returned"):
        assert "made of parameters alone" in why(model, x, name)
    scalars = sequence_shapes(model, x).scalars
    assert scalars["parameters"] == 12
    assert scalars["recurrent_parameters"] == 1
    assert scalars["shared_parameters"] == 3
    assert scalars["once_parameters"] == 0
    assert scalars["unused_parameters"] == 5
    assert scalars["uncounted_parameters"] == 3


def test_a_weight_that_enters_a_layer_by_another_way_is_not_taken_for_unused():
    class Dropped(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(3, 4, batch_first=True)
            self.raw = nn.Parameter(self.rnn._parameters.pop("weight_hh_l0").detach())

        def forward(self, x):
            self.rnn.weight_hh_l0 = F.dropout(self.raw, 0.5)
            self.rnn._flat_weights = [getattr(self.rnn, name) for name in self.rnn._flat_weights_names]
            return self.rnn(x)[0]

    assert "by another way than as its parameter" in why(Dropped(), torch.randn(2, 5, 3), "raw")


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant, self.cell, self.head = reentrant, nn.GRUCell(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = x.new_zeros(len(x), 4, requires_grad=True)
        for x_t in x.unbind(1):
            h = checkpoint(self.cell, x_t, h, use_reentrant=self.reentrant)
        return self.head(h)


def test_checkpointing_is_seen_through_or_said():
    x = torch.randn(2, 5, 3)
    found = counted(Checkpointed(False), x)
    assert (found["cell.weight_hh"], found["cell.weight_ih"], found["head.bias"]) == ((5, R), (5, S), (1, ONCE))
    assert "use_reentrant=False" in why(Checkpointed(True), x, "cell.weight_hh")
    assert counted(Checkpointed(True), x)["head.weight"] == (1, ONCE)


def test_outputs_without_a_gradient_leave_nothing_to_count():
    class Silent(nn.GRU):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)[0]

    x = torch.randn(2, 5, 3)
    assert "torch.no_grad" in why(Silent(3, 4, batch_first=True), x, "weight_hh_l0")
    assert "requires_grad=False" in why(nn.GRU(3, 4, batch_first=True).requires_grad_(False), x, "weight_hh_l0")


def test_outputs_in_any_container_are_looked_at():
    @dataclasses.dataclass
    class Output:
        y: torch.Tensor

    class Returning(nn.Module):
        def __init__(self, how):
            super().__init__()
            self.how, self.W = how, nn.Linear(3, 3)

        def forward(self, x):
            h = x.new_zeros(len(x), 3)
            for x_t in x.unbind(1):
                h = torch.tanh(self.W(h) + x_t)
            return self.how(h)

    for how in (Output, lambda h: [(h,)], lambda h: {"a": {"b": h}}, lambda h: pack_sequence([h])):
        assert counted(Returning(how), torch.randn(2, 4, 3)) == {"W.weight": (4, R), "W.bias": (4, S)}


def test_a_parameter_of_two_names_has_one_row_that_says_both():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    rows = use_rows(sequence_shapes(model, torch.randn(2, 4, 3)))
    assert list(rows) == ["0.weight", "0.bias", "2.bias"]
    # What it multiplies the second time comes from the first.
    assert (rows["0.weight"]["uses"], rows["0.weight"]["role"]) == (2, R)
    assert rows["0.weight"]["name"].endswith("the same tensor as 2.weight")
    assert list(counted(model, torch.randn(2, 4, 3), only="2.weight")) == ["0.weight"]


def test_a_model_without_anything_recurrent_is_described_as_well():
    found = sequence_shapes(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(2, 5, 8))
    assert {row["kind"] for row in found.rows} == {"use"}
    assert {row["role"] for row in found.rows} == {ONCE}
    assert (found.scalars["modules"], found.scalars["parameters"]) == (0, 12)
    with pytest.raises(InputError, match="no parameter and no recurrent module; it has Tanh"):
        sequence_shapes(nn.Tanh(), torch.randn(2, 5, 8))


def test_rows_of_uses_say_name_shape_and_elements():
    model, x = nn.Sequential(FullRNN(3, 4, 2)), torch.randn(2, 5, 3)
    found = sequence_shapes(model, x)
    assert len({tuple(row) for row in found.rows}) == 1
    for name, parameter in model.named_parameters():
        row = use_rows(found)[name]
        assert (row["shape"], row["elements"], row["uses"], row["used"]) == (
            [*parameter.shape],
            parameter.numel(),
            5,
            5,
        )
        assert (row["min"], row["max"]) == (parameter.min().item(), parameter.max().item())
        assert row["module"] == name.rpartition(".")[0]
    assert use_rows(sequence_shapes(nn.Linear(3, 2), x))["weight"]["module"] == "(model)"


def test_what_is_said_of_modules_is_as_without_the_uses():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.cell = nn.LSTM(3, 4, batch_first=True), nn.GRUCell(4, 4)

        def forward(self, x):
            return self.cell(self.rnn(x)[0][:, -1])

    model, x = Decoder(), torch.randn(2, 5, 3)
    found, plain = sequence_shapes(model, x), recurrent_shapes(model, lambda: model(x))
    assert tuple(row for row in found.rows if row["kind"] != "use") == plain.rows
    assert found.scalars.items() >= plain.scalars.items()


@pytest.mark.parametrize(
    ("only", "modules", "uses"),
    [
        ("encoder", ["encoder"], 4),
        ("cells", ["cells.0"], 4),
        ("cells.0.weight_hh", ["cells.0"], 1),
        ("head", [], 2),
        ("head.bias", [], 1),
        ("*.weight*", ["encoder", "cells.0"], 5),
        (["encoder", "head"], ["encoder"], 6),
        ([""], ["encoder", "cells.0"], 10),
    ],
)
def test_only_narrows_to_modules_and_parameters(only, modules, uses):
    model = nn.ModuleDict(
        {"encoder": nn.GRU(3, 4), "cells": nn.ModuleList([nn.GRUCell(3, 4)]), "head": nn.Linear(4, 2)}
    )
    model.forward = lambda x: model["head"](model["cells"][0](x[0], model["encoder"](x)[0][0]))
    found = sequence_shapes(model, torch.randn(2, 5, 3), only=only)
    assert [row["module"] for row in found.rows if row["kind"] == "module"] == modules
    assert found.scalars["parameters"] == len(use_rows(found)) == uses


def test_a_name_that_nothing_has_is_refused_with_the_nearest():
    model, x = nn.GRU(3, 4, batch_first=True), torch.randn(2, 5, 3)
    with pytest.raises(InputError, match=r"no module or parameter 'weight_hh_l9'; .* Did you mean weight_hh_l0\?"):
        sequence_shapes(model, x, only="weight_hh_l9")
    with pytest.raises(InputError, match="only must name at least one"):
        sequence_shapes(model, x, only=[])


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_a_plain_forward_pass_leaves_it(training):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.cell = nn.LSTM(3, 4, 2, batch_first=True, dropout=0.5), nn.GRUCell(4, 4)
            self.norm = nn.BatchNorm1d(4)
            self.cell.weight_ih.requires_grad_(False)

        def forward(self, x):
            h = x.new_zeros(len(x), 4)
            for x_t in F.dropout(self.rnn(x)[0], 0.3, self.training).unbind(1):
                h = self.norm(self.cell(x_t, h))
            return h

    model, x = Normed().train(training), torch.randn(3, 5, 3)
    own = model.norm.register_forward_hook(lambda *_: None)
    model.rnn.weight_hh_l0.grad = kept = torch.ones_like(model.rnn.weight_hh_l0)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    states = []
    for run in (lambda: sequence_shapes(model, x), lambda: model(x)):
        model.load_state_dict(start)
        torch.manual_seed(1)
        run()
        states.append(({name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()))
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert model.training is training
    assert model.rnn.weight_hh_l0.grad is kept
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert all(p.grad is None for p in model.parameters() if p is not model.rnn.weight_hh_l0)
    assert not any(p._backward_hooks for p in model.parameters())
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()].count(0) == 3
    own.remove()


def test_hooks_are_gone_where_the_model_raises():
    model = nn.Sequential(nn.GRU(3, 4))
    with pytest.raises(RuntimeError):
        model(torch.randn(2, 5, 9))
    with pytest.raises((InputError, RuntimeError)):
        sequence_shapes(model, torch.randn(2, 5, 9))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not hasattr(nn.GRU.forward, "__wrapped__")


# ---- the table and the shell --------------------------------------------------------------------

CODE = """
import torch
from torch import nn


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a_rather_long_name = nn.ModuleDict({"of things": nn.LSTM(10, 4, batch_first=True)})
        self.step, self.head, self.tied = nn.Linear(8, 4), nn.Linear(4, 2), nn.Linear(4, 2)
        self.tied.weight = self.head.weight
        self.head.bias.requires_grad_(False)

    def forward(self, x, lengths=None):
        h = x.new_zeros(len(x), 4)
        for x_t in self.a_rather_long_name["of things"](x)[0].unbind(1):
            h = torch.tanh(self.step(torch.cat([x_t, h], 1)))
        return self.head(h)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(10, 3)

    def forward(self, x):
        return self.map(x)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(10, 3)

    def forward(self, x, y):
        h = None
        for x_t, y_t in zip(x.unbind(1), y.unbind(1)):
            h = self.cell(x_t + y_t, h)
        return h


def batch():
    return torch.randn(2, 4, 10), torch.randn(2, 4, 10)
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Run one command line in a folder with models in it."""
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "lengths.csv").write_text("7\n3\n5\n1\n")
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


def test_the_shell_counts_the_uses_of_every_parameter(run: Run) -> None:
    found = document(run("forward --model mine:Mixed --json"))
    uses = {row["symbol"]: (row["uses"], row["role"]) for row in found["rows"] if row["kind"] == "use"}
    assert uses["step.weight"] == uses["a_rather_long_name.of things.weight_hh_l0"] == (7, R)
    assert (uses["step.bias"], uses["head.weight"], uses["tied.bias"]) == ((7, S), (1, ONCE), (0, "unused"))
    assert uses["head.bias"] == (None, None)
    assert found["scalars"]["recurrent_parameters"] == 2
    table = run("forward --model mine:Mixed").out
    assert re.search(r"^ step\.weight +\(4, 8\) +7 times, recurrent *$", table, re.MULTILINE)
    assert re.search(r"^ head\.weight +\(2, 4\) +once *$", table, re.MULTILINE)
    assert re.search(r"^ +the same tensor as tied\.weight *$", table, re.MULTILINE)
    assert re.search(
        r"^ head\.bias +\(2\) +not counted: takes no gradient \(requires_grad=False\) *$", table, re.MULTILINE
    )
    assert table.count("every parameter") == 1


def test_module_lengths_batch_and_conditions_go_with_it(run: Run) -> None:
    shown = document(run("forward --model mine:Mixed --module step --json"))
    assert [row["symbol"] for row in shown["rows"]] == ["step.weight", "step.bias"]
    assert document(run("forward --model mine:Mixed --lengths lengths.csv --json"))["scalars"]["parameters"] == 9
    given = document(run("forward --model mine:Two --batch mine:batch --json"))
    assert [row["uses"] for row in given["rows"] if row["kind"] == "use"] == [4] * 4
    assert run("forward --model mine:Mixed --fail-on unused_parameters>0").code == 3
    assert run("forward --model mine:Plain --fail-on recurrent_parameters>0").code == 0
    assert "recurrent ones" not in run("forward --model mine:Plain").out
    assert run("forward --cell lstm --fail-on recurrent_parameters!=1").code == 0


def test_a_name_that_the_model_has_not_is_exit_2(run: Run) -> None:
    ran = run("forward --model mine:Mixed --module stepp")
    assert (ran.code, ran.out) == (2, "")
    assert "Did you mean step?" in ran.err


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_table_fits_the_window_and_breaks_no_name(width):
    model, x = STYLES["WeightNorm"].make(3, 4), torch.randn(T, 2, 3)
    text = table_text(sequence_shapes(model, x), "forward", View(terminal=Terminal(width=width)))
    assert max(map(len, text.splitlines())) <= width
    for name, _ in model.named_parameters():
        assert re.search(rf"^ {re.escape(name)} ", text, re.MULTILINE)
    assert "\x1b" not in text
    assert text.count("recurrent") >= 2
