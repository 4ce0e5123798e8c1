"""Shapes, gates and arithmetic of the recurrent modules in anybody's model."""

import csv
import io
import json
import re
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence
from torch.utils.flop_counter import FlopCounterMode

from rnnctl import FullRNN, InputError, ManualRNNCell, RecurrentShapes, recurrent_shapes
from rnnctl.view.machine import csv_text, json_text
from rnnctl.view.tables import table_text
from rnnctl.view.terminal import Terminal, View

IN, H, B, T = 3, 5, 4, 6
SEQUENCES = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}
CELLS = {"RNNCell": nn.RNNCell, "GRUCell": nn.GRUCell, "LSTMCell": nn.LSTMCell, "ManualRNNCell": ManualRNNCell}

# What torch says about its own choice of implementation.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:TF32 acceleration on top of oneDNN")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def rows_of(result, kind, module="(model)"):
    return {row["symbol"]: row for row in result.rows if row["kind"] == kind and row["module"] == module}


def described(module, *inputs, **named):
    return recurrent_shapes(module, lambda: module(*inputs, **named))


def counted(run):
    """Multiply-adds by torch's own counter; mkldnn's LSTM is one opaque op to it."""
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


def lengths_of(words, sizes):
    """Numbers for a symbolic shape such as "(2 directions x hidden, batch)"."""
    found = []
    for axis in re.fullmatch(r"\((.*)\)( packed)?", words)[1].split(", "):
        length = 1
        for factor in axis.split(" x "):
            number = re.match(r"\d+", factor)
            length *= int(number[0]) if number else sizes[factor]
        found.append(length)
    return found


@given(
    kind=st.sampled_from(list(SEQUENCES)),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    batch_first=st.booleans(),
    bias=st.booleans(),
    projected=st.booleans(),
    form=st.sampled_from(["batched", "unbatched", "packed"]),
    states_given=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_axes_and_multiply_adds_of_any_sequence_module(
    kind, layers, bidirectional, batch_first, bias, projected, form, states_given
):
    projection = {"proj_size": 2} if projected and kind == "LSTM" else {}
    module = SEQUENCES[kind](
        IN, H, layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional, **projection
    )
    lengths = (6, 4, 4, 1)
    x = {
        "batched": torch.randn((B, T, IN) if batch_first else (T, B, IN)),
        "unbatched": torch.randn(T, IN),
        "packed": pack_sequence([torch.randn(n, IN) for n in lengths]),
    }[form]
    D, P = 1 + bidirectional, projection.get("proj_size", H)
    middle = () if form == "unbatched" else (B,)
    h_0, c_0 = torch.randn(layers * D, *middle, P), torch.randn(layers * D, *middle, H)
    hx = None if not states_given else (h_0, c_0) if kind == "LSTM" else h_0
    result = described(module, x, hx)
    with torch.no_grad():
        output, after = module(x, hx)
    finals = after if kind == "LSTM" else (after,)
    tensors = rows_of(result, "tensor")
    sizes = {"input": IN, "hidden": H, "proj": P, "batch": B, "time": T, "num_layers": layers, "directions": D}
    sizes["steps"] = sum(lengths)
    for row in result.rows:
        if row["kind"] != "module":
            assert lengths_of(row["symbolic_shape"], sizes) == row["shape"]
    plain = output.data if form == "packed" else output
    actual = {"input": x.data if form == "packed" else x, "output": plain}
    actual |= dict(zip(("h_n", "c_n"), finals, strict=False))
    actual |= dict(zip(("h_0", "c_0"), (h_0, c_0)[: len(finals)], strict=False)) if states_given else {}
    assert set(tensors) == {*actual, "h_0", *(["c_0"] if kind == "LSTM" else [])}
    for symbol, tensor in actual.items():
        row = tensors[symbol]
        assert (row["shape"], row["elements"]) == (list(tensor.shape), tensor.numel())
        assert (row["min"], row["max"]) == (tensor.min().item(), tensor.max().item())
    names = [name for name, _ in module.named_parameters()]
    assert list(rows_of(result, "parameter")) == names
    assert all(list(module.get_parameter(n).shape) == rows_of(result, "parameter")[n]["shape"] for n in names)
    assert result.scalars["multiply_adds"] == counted(lambda: module(x, hx))
    assert result.scalars["multiply_adds"] == sum(r["multiply_adds"] for r in rows_of(result, "parameter").values())


# ManualRNNCell takes a batch and a state, and nothing else.
CELL_CALLS = [
    (kind, batch, given)
    for kind in CELLS
    for batch in [(B,), ()]
    for given in [True, False]
    if kind != "ManualRNNCell" or (batch and given)
]


@pytest.mark.parametrize(("kind", "batch", "states_given"), CELL_CALLS)
@pytest.mark.parametrize("bias", [True, False])
def test_axes_and_multiply_adds_of_any_cell(kind, bias, batch, states_given):
    cell = CELLS[kind](IN, H, bias=bias)
    x, h, c = torch.randn(*batch, IN), torch.randn(*batch, H), torch.randn(*batch, H)
    hx = None if not states_given else (h, c) if kind == "LSTMCell" else h
    result = described(cell, x, hx)
    with torch.no_grad():
        after = cell(x, hx)
    after = after if kind == "LSTMCell" else (after,)
    tensors, zeros = rows_of(result, "tensor"), torch.zeros_like(h)
    before = (h, c) if states_given else (zeros, zeros)
    actual = {"x_t": x, "h_{t-1}": before[0], "h_t": after[0]}
    actual |= {"c_{t-1}": before[1], "c_t": after[1]} if kind == "LSTMCell" else {}
    assert set(tensors) == set(actual)
    for symbol, tensor in actual.items():
        row = tensors[symbol]
        assert (row["shape"], row["min"], row["max"]) == (list(tensor.shape), tensor.min().item(), tensor.max().item())
    sizes = {"input": IN, "hidden": H, "batch": B}
    for row in result.rows:
        if row["kind"] != "module":
            assert lengths_of(row["symbolic_shape"], sizes) == row["shape"]
    assert sorted(rows_of(result, "parameter")) == sorted(name for name, _ in cell.named_parameters())
    assert result.scalars["multiply_adds"] == counted(lambda: cell(x, hx))


def test_multiply_adds_of_a_packed_gru_by_counting_every_product():
    gru, lengths = nn.GRU(IN, H, 2, bidirectional=True), (7, 3, 2)
    products = 0
    for length in lengths:
        for _step in range(length):
            for _direction in range(2):
                for inputs in (IN, 2 * H):
                    for _gate in "rzn":
                        products += H * inputs + H * H
    packed = pack_sequence([torch.randn(n, IN) for n in lengths])
    result = described(gru, packed)
    assert result.scalars["multiply_adds"] == products
    row = rows_of(result, "tensor")["input"]
    assert (row["batch"], row["longest"], row["shortest"], row["steps"]) == (3, 7, 2, 12)
    assert row["padded_steps"] == pad_packed_sequence(packed)[0][..., 0].numel()
    assert "12 steps of 3 sequences of length 2 to 7; padded: 21 steps, 1.75 times the work" in row["name"]
    assert row["symbolic_shape"] == "(steps, input) packed"


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_row_of_h_n_belongs_to_the_layer_and_direction_it_names(kind, bidirectional):
    module = SEQUENCES[kind](IN, H, 3, bidirectional=bidirectional)
    x, silenced = torch.randn(T, B, IN), 0
    for layer in range(3):
        for direction in ["forward", "reverse"][: 1 + bidirectional]:
            saved = {name: value.clone() for name, value in module.state_dict().items()}
            suffix = f"_l{layer}" + "_reverse" * (direction == "reverse")
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    # A layer whose weights are all 0 stays at h = 0, for its candidate is tanh(0).
                    parameter *= not name.endswith(suffix)
            states = [row for row in described(module, x).rows if row["kind"] == "state"]
            zero = {row["name"].split(" = ")[0] for row in states if row["min"] == row["max"] == 0}
            assert zero == {f"layer {layer}, {direction}" if bidirectional else f"layer {layer}"}
            silenced += len(zero)
            module.load_state_dict(saved)
    assert silenced == 3 * (1 + bidirectional)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("form", ["batch_first", "time_first", "unbatched"])
@pytest.mark.parametrize("projection", [{}, {"proj_size": 2}])
def test_h_n_of_the_last_layer_is_where_its_name_says_it_is_in_the_output(bidirectional, form, projection):
    lstm = nn.LSTM(IN, H, 2, bidirectional=bidirectional, batch_first=form == "batch_first", **projection)
    x = torch.randn(T, IN) if form == "unbatched" else torch.randn(B, T, IN)
    output, (h_n, _) = lstm(x)
    claims = 0
    for symbol, row in rows_of(described(lstm, x), "state").items():
        if " = output" in row["name"]:
            place = eval(row["name"].split(" = ")[1], {"output": output})
            torch.testing.assert_close(place, eval(symbol, {"h_n": h_n}), rtol=0, atol=0)
            claims += 1
    assert claims == 1 + bidirectional


def test_packed_sequences_end_at_different_steps_so_no_place_is_claimed():
    rows = described(nn.RNN(IN, H), pack_sequence([torch.randn(n, IN) for n in (4, 2)])).rows
    assert not any(" = output" in row["name"] for row in rows)


def test_batch_first_does_not_reach_h_n_and_the_row_says_so():
    row = rows_of(described(nn.GRU(IN, H, 2, batch_first=True), torch.randn(B, T, IN)), "tensor")["h_n"]
    assert (row["symbolic_shape"], row["shape"]) == ("(num_layers x directions, batch, hidden)", [2, B, H])
    assert "batch is never first, even with batch_first" in row["name"]
    row = rows_of(described(nn.GRU(IN, H), torch.randn(T, IN)), "tensor")["h_n"]
    assert (row["symbolic_shape"], "batch" in row["name"]) == ("(num_layers x directions, hidden)", False)


def gate_parts(result, module):
    """Each gate's rows of the actual parameters, by its name ("W_hi"), cut as the symbol says."""
    parts = {}
    for symbol, row in rows_of(result, "gate").items():
        name, start, stop = re.fullmatch(r"(\w+)\[(\d+):(\d+)\]", symbol).groups()
        value = module.get_parameter(name).detach()[int(start) : int(stop)]
        assert (row["shape"], row["min"], row["max"]) == (list(value.shape), value.min().item(), value.max().item())
        parts[row["name"].split(",")[0]] = value
    return parts


def test_gate_slices_of_an_lstm_put_into_the_textbooks_equations_give_its_step():
    cell, x, h, c = nn.LSTMCell(IN, H), torch.randn(B, IN), torch.randn(B, H), torch.randn(B, H)
    result = described(cell, x, (h, c))
    p = gate_parts(result, cell)
    a = {k: x @ p[f"W_i{k}"].T + p[f"b_i{k}"] + h @ p[f"W_h{k}"].T + p[f"b_h{k}"] for k in "ifgo"}
    c_t = a["f"].sigmoid() * c + a["i"].sigmoid() * a["g"].tanh()
    h_t = a["o"].sigmoid() * c_t.tanh()
    torch.testing.assert_close((h_t, c_t), cell(x, (h, c)))
    words = [row["name"] for symbol, row in rows_of(result, "gate").items() if symbol.startswith("weight_hh")]
    assert words == [
        "W_hi, input gate i",
        "W_hf, forget gate f",
        "W_hg, cell candidate g",
        "W_ho, output gate o",
    ]


def test_gate_slices_of_a_gru_put_into_the_textbooks_equations_give_its_step():
    gru, x, h = nn.GRU(IN, H), torch.randn(1, B, IN), torch.randn(1, B, H)
    p = gate_parts(described(gru, x, h), gru)
    i = {k: x @ p[f"W_i{k}"].T + p[f"b_i{k}"] for k in "rzn"}
    s = {k: h @ p[f"W_h{k}"].T + p[f"b_h{k}"] for k in "rzn"}
    r, z = (i["r"] + s["r"]).sigmoid(), (i["z"] + s["z"]).sigmoid()
    h_t = (1 - z) * (i["n"] + r * s["n"]).tanh() + z * h
    torch.testing.assert_close(h_t, gru(x, h)[0])


def test_gates_of_every_layer_and_direction_cover_their_parameter_once():
    lstm = nn.LSTM(IN, H, 2, bidirectional=True, proj_size=2)
    result = described(lstm, torch.randn(T, B, IN))
    gates = rows_of(result, "gate")
    for symbol, row in rows_of(result, "parameter").items():
        parts = [gates[gate] for gate in gates if gate.startswith(f"{symbol}[")]
        if symbol.startswith("weight_hr"):
            assert not parts
            continue
        assert len(parts) == 4
        assert sum(part["elements"] for part in parts) == row["elements"]
        assert sum(part["multiply_adds"] for part in parts) == row["multiply_adds"]
    assert not rows_of(described(nn.RNN(IN, H), torch.randn(T, IN)), "gate")


class Decoder(nn.Module):
    """An embedding, a cell called step by step, a readout, and an encoder that may go unused."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(IN, H, batch_first=True)
        self.cells = nn.ModuleList([nn.GRUCell(IN, H)])
        self.head = nn.Linear(H, 2)

    def forward(self, x, encode=True):
        h = self.encoder(x)[1][0][0] if encode else x.new_zeros(len(x), H)
        for x_t in x.unbind(1):
            h = self.cells[0](x_t, hx=h)
        return self.head(h)


def test_a_cell_in_a_loop_is_counted_over_all_calls_and_shown_at_the_first():
    model, x = Decoder(), torch.randn(B, T, IN)
    result = described(model, x)
    assert (result.scalars["modules"], result.scalars["calls"]) == (2, 1 + T)
    cell = rows_of(result, "module", "cells.0")["GRUCell(3, 5)"]
    assert (cell["used"], cell["steps"]) == (T, T * B)
    assert rows_of(result, "parameter", "cells.0")["weight_hh"]["used"] == T
    first = rows_of(result, "tensor", "cells.0")["x_t"]
    assert (first["min"], first["max"]) == (x[:, 0].min().item(), x[:, 0].max().item())
    assert result.scalars["multiply_adds"] == counted(lambda: model(x)) - B * model.head.weight.numel()


def test_module_that_is_not_called_is_listed_as_such():
    model = Decoder()
    result = recurrent_shapes(model, lambda: model(torch.randn(B, T, IN), encode=False))
    row = rows_of(result, "module", "encoder")["LSTM(3, 5)"]
    assert (row["used"], row["multiply_adds"], result.scalars["modules_not_called"]) == (0, 0, 1)
    assert not rows_of(result, "tensor", "encoder")
    assert rows_of(result, "parameter", "encoder")["weight_hh_l0"]["shape"] == [4 * H, H]
    assert re.search(r"LSTM\(3, 5\) +not called", table_text(result, "forward", View()))


def test_parameters_are_counted_once_however_many_modules_share_them():
    model = nn.Sequential(nn.RNN(H, H, 2), nn.RNN(H, H), nn.Linear(H, 2))
    model[1].weight_hh_l0 = model[0].weight_hh_l0
    model[0].weight_hh_l1 = model[0].weight_hh_l0
    x = torch.randn(T, B, H)
    result = recurrent_shapes(model, lambda: model[1](model[0](x)[0]))
    recurrent = {p for module in (model[0], model[1]) for p in module.parameters()}
    assert result.scalars["parameter_elements"] == sum(p.numel() for p in recurrent)
    assert result.scalars["model_parameter_elements"] == sum(p.numel() for p in model.parameters())
    assert "the same tensor as 0.weight_hh_l0" in rows_of(result, "parameter", "1")["weight_hh_l0"]["name"]
    assert "the same tensor as 0.weight_hh_l0" in rows_of(result, "parameter", "0")["weight_hh_l1"]["name"]
    assert result.scalars["multiply_adds"] == 3 * 2 * H * H * T * B
    assert "the same tensor as 0.weight_hh_l0" in table_text(result, "forward", View())


def test_one_module_under_two_names_is_one_module():
    model = nn.ModuleDict({"a": nn.GRU(IN, H)})
    model["b"] = model["a"]
    x = torch.randn(T, IN)
    result = recurrent_shapes(model, lambda: (model["a"](x), model["b"](x)))
    assert (result.scalars["modules"], result.scalars["calls"]) == (1, 2)


def test_only_the_chosen_modules_are_described():
    model, x = Decoder(), torch.randn(B, T, IN)
    result = recurrent_shapes(model, lambda: model(x), only=["encoder"])
    assert {row["module"] for row in result.rows} == {"encoder"}
    assert result.scalars["parameter_elements"] == sum(p.numel() for p in model.encoder.parameters())
    with pytest.raises(InputError, match=r"no recurrent module 'encodr'; it has encoder, cells.0. Did you mean enc"):
        recurrent_shapes(model, lambda: model(x), only=["encodr"])
    with pytest.raises(InputError, match=r"only must name at least one"):
        recurrent_shapes(model, lambda: model(x), only=[])
    assert recurrent_shapes(model.encoder, lambda: model.encoder(x), only=[""]).scalars["modules"] == 1


def test_model_without_recurrent_modules_is_told_what_it_has():
    with pytest.raises(InputError, match=r"no recurrent module.*nn.LSTM.*Sequential, Linear \(2 times\), ReLU"):
        recurrent_shapes(nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)), lambda: None)


def test_full_rnn_is_described_by_its_cell():
    model, x = FullRNN(10, 20, 5), torch.randn(4, 7, 10)
    result = described(model, x)
    readout = 7 * 4 * model.hidden_to_output.weight.numel()
    assert result.scalars["multiply_adds"] == counted(lambda: model(x)) - readout
    assert rows_of(result, "parameter", "rnn_cell")["hidden_to_hidden.weight"]["symbolic_shape"] == "(hidden, hidden)"


def hooks_of(model):
    kinds = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks", "_backward_hooks")
    return [list(getattr(module, kind)) for module in model.modules() for kind in kinds]


@pytest.mark.parametrize("training", [True, False])
def test_model_and_random_numbers_are_as_after_a_plain_forward(training):
    lstm, x = nn.LSTM(IN, H, 2, dropout=0.5).train(training), torch.randn(T, B, IN)
    lstm.weight_hh_l0.requires_grad_(False)
    lstm.register_forward_hook(lambda *_: None)
    hooks, before = hooks_of(lstm), {name: value.clone() for name, value in lstm.state_dict().items()}
    torch.manual_seed(1)
    lstm(x)
    drawn = torch.get_rng_state()
    torch.manual_seed(1)
    described(lstm, x)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert (hooks_of(lstm), lstm.training) == (hooks, training)
    assert all(torch.equal(value, before[name]) for name, value in lstm.state_dict().items())
    assert not lstm.weight_hh_l0.requires_grad
    assert all(p.grad is None for p in lstm.parameters())
    assert torch.is_grad_enabled()


def test_hooks_are_removed_where_the_run_fails():
    model = Decoder()
    hooks = hooks_of(model)
    with pytest.raises(RuntimeError, match="must be equal to input_size"):
        recurrent_shapes(model, lambda: model(torch.randn(B, T, IN + 1)))
    assert hooks_of(model) == hooks


def test_what_is_seen_is_the_modules_own_output_and_not_that_of_a_hook():
    rnn = nn.RNN(IN, H)
    rnn.register_forward_hook(lambda module, args, output: (output[0] + 100, output[1]))
    assert rows_of(described(rnn, torch.randn(T, IN)), "tensor")["output"]["max"] <= 1


def test_no_tensor_of_a_call_is_kept():
    cell, kept = nn.GRUCell(IN, H), []

    def run():
        for _ in range(3):
            x = torch.randn(B, IN)
            h = cell(x)
            # Two of the last call may still be in this frame's variables.
            kept.extend([weakref.ref(x), weakref.ref(h)])
            assert sum(ref() is not None for ref in kept) <= 2

    recurrent_shapes(cell, run)
    assert all(ref() is None for ref in kept)


def test_run_has_no_gradients():
    gru, x = nn.GRU(IN, H), torch.randn(T, IN)
    outputs = []
    recurrent_shapes(gru, lambda: outputs.append(gru(x)[0]))
    assert not outputs[0].requires_grad


def test_parametrized_weights_are_named_with_what_they_are_made_from():
    gru, x = nn.GRU(IN, H), torch.randn(T, B, IN)
    products = counted(lambda: gru(x))
    parametrizations.spectral_norm(gru, "weight_hh_l0")
    result = described(gru, x)
    row = rows_of(result, "parameter")["weight_hh_l0"]
    assert (row["shape"], row["min"]) == ([3 * H, H], None)
    assert "made from other parameters" in row["name"]
    assert rows_of(result, "parameter")["parametrizations.weight_hh_l0.original"]["shape"] == [3 * H, H]
    assert result.scalars["multiply_adds"] == products
    assert result.scalars["parameter_elements"] == sum(p.numel() for p in gru.parameters())


def test_description_alone_never_evaluates_a_parametrization():
    class Counting(nn.Module):
        calls = 0

        def forward(self, W):
            Counting.calls += 1
            return W

    gru = nn.GRU(IN, H)
    parametrize.register_parametrization(gru, "weight_hh_l0", Counting())
    before = Counting.calls
    recurrent_shapes(gru, lambda: None)
    assert Counting.calls == before


def test_inputs_by_keyword_are_seen():
    lstm, x, hx = nn.LSTM(IN, H), torch.randn(T, B, IN), (torch.randn(1, B, H), torch.randn(1, B, H))
    assert described(lstm, input=x, hx=hx).rows == described(lstm, x, hx).rows


def test_subclass_is_described_and_one_that_takes_something_else_is_refused():
    class Last(nn.GRU):
        def forward(self, x):
            return super().forward(x)[0]

    class Tokens(nn.GRU):
        def forward(self, tokens):
            return super().forward(nn.functional.one_hot(tokens, IN).float())

    tensors = rows_of(described(Last(IN, H), torch.randn(T, B, IN)), "tensor")
    assert tensors["output"]["shape"] == [T, B, H]
    assert "h_n" not in tensors
    tokens = Tokens(IN, H)
    with pytest.raises(InputError, match=r"\(model\): the input of Tokens\(3, 5\) must .* forward of its own"):
        described(tokens, torch.zeros(T, B, dtype=torch.long))
    assert not tokens._forward_hooks


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_are_described(dtype):
    rnn, x = nn.GRU(IN, H, dtype=dtype), torch.randn(T, B, IN, dtype=dtype)
    assert rows_of(described(rnn, x), "tensor")["input"]["max"] == x.max().item()


def test_nonfinite_values_show():
    rnn, x = nn.RNN(IN, H), torch.full((T, IN), torch.nan)
    result = described(rnn, x)
    document = json.loads(json_text({"rows": result.rows}))
    row = next(row for row in document["rows"] if row["symbol"] == "h_n")
    assert row["nonfinite"] == {"min": "nan", "max": "nan"}


def mixed():
    model = nn.ModuleDict(
        {
            "encoder": nn.LSTM(12, 20, 2, batch_first=True, bidirectional=True, proj_size=4),
            "packed": nn.GRU(12, 20),
            "cell": ManualRNNCell(12, 20),
        }
    )
    packed = pack_sequence([torch.randn(n, 12) for n in (9, 4, 2)])
    assert isinstance(packed, PackedSequence)

    def run():
        model["encoder"](torch.randn(4, 7, 12))
        model["packed"](packed)
        model["cell"](torch.randn(4, 12), torch.zeros(4, 20))

    return recurrent_shapes(model, run)


def test_all_rows_have_the_same_keys_and_every_format_takes_them():
    result = mixed()
    assert isinstance(result, RecurrentShapes)
    assert len({tuple(row) for row in result.rows}) == 1
    lines = list(csv.DictReader(io.StringIO(csv_text(result.rows))))
    assert [line["symbol"] for line in lines] == [row["symbol"] for row in result.rows]
    assert json.loads(json_text({"rows": result.rows}))["rows"] == [dict(row) for row in result.rows]


@pytest.mark.parametrize("width", [80, 160])
def test_table_stays_within_the_window_and_breaks_no_name(width):
    result = mixed()
    text = table_text(result, "forward", View(terminal=Terminal(width=width)))
    assert all(len(line) <= width for line in text.splitlines())
    for row in result.rows:
        if row["kind"] in ("tensor", "state", "parameter"):
            assert re.search(rf"^ {re.escape(row['symbol'])} ", text, re.MULTILINE)
    for words in ("(num_layers x directions, batch, proj)", "W_hf, forget gate f", "weight_hh_l0[20:40]"):
        assert words in text
    assert "15 (padded 27)" in text


def test_table_has_a_section_for_each_module_and_none_of_what_it_has_not():
    text = table_text(mixed(), "forward", View())
    positions = [text.index(f"\n{name}\n") for name in ("encoder", "packed", "cell")]
    assert positions == sorted(positions)
    cell = text[positions[2] :]
    assert "rows of weight_hh" not in cell
    assert "layer, direction" not in cell
    assert table_text(mixed(), "forward", View(terminal=Terminal(ascii_only=True))).isascii()
