"""The shape of every tensor in a step and in a sequence."""

import pytest
import torch
from torch import nn

from rnnctl import (
    FullRNN,
    InputError,
    RecurrentShapes,
    SequenceShapes,
    ShapeError,
    recurrent_shapes,
    sequence_shapes,
    step_shapes,
)
from rnnctl.view.render import rendered
from rnnctl.view.terminal import View


def by_symbol(result):
    return {row["symbol"]: row for row in result.rows}


def test_one_step_has_the_guides_tensors():
    cell = FullRNN(10, 20, 5).rnn_cell
    x, h = torch.randn(4, 10), torch.randn(4, 20)
    rows = by_symbol(step_shapes(cell, x, h))
    assert [rows[s]["shape"] for s in ("x_t", "h_{t-1}", "a_t", "h_t")] == [[4, 10], [4, 20], [4, 20], [4, 20]]
    assert rows["x_t"]["symbolic_shape"] == "(batch, input)"
    assert rows["W_xh"]["shape"] == [20, 10]
    assert rows["W_hh"]["symbolic_shape"] == "(hidden, hidden)"
    cell.requires_grad_(False)
    a = x @ cell.input_to_hidden.weight.T + cell.input_to_hidden.bias
    assert rows["W_xh x_t + b_xh"]["max"] == pytest.approx(float(a.max()), rel=1e-5)
    a = a + h @ cell.hidden_to_hidden.weight.T + cell.hidden_to_hidden.bias
    assert rows["a_t"]["min"] == pytest.approx(float(a.min()), rel=1e-5)
    assert rows["h_t"]["max"] == pytest.approx(float(a.max().tanh()), rel=1e-5)


def test_the_guides_question_on_input_50_and_hidden_100():
    rows = by_symbol(sequence_shapes(FullRNN(50, 100, 5), torch.randn(4, 7, 50)))
    assert rows["W_xh"]["shape"] == [100, 50]
    assert rows["W_hh"]["shape"] == [100, 100]


def test_every_weight_is_one_tensor_used_at_every_step():
    result = sequence_shapes(FullRNN(10, 20, 5), torch.randn(4, 7, 10))
    used = {row["symbol"]: row["used"] for row in result.rows if row["kind"] == "parameter"}
    assert used == dict.fromkeys(["W_xh", "b_xh", "W_hh", "b_hh", "W_hy", "b_y"], 7)


def test_multiply_adds_are_those_that_a_profiler_counts():
    from torch.utils.flop_counter import FlopCounterMode

    model, x = FullRNN(10, 20, 5), torch.randn(4, 7, 10)
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert 2 * sequence_shapes(model, x).scalars["multiply_adds"] == counter.get_total_flops()


def test_elements_are_those_of_the_parameters():
    model = FullRNN(3, 4, 2)
    counted = sequence_shapes(model, torch.randn(1, 2, 3)).scalars["parameter_elements"]
    assert counted == sum(p.numel() for p in model.parameters())


def test_all_hidden_states_are_one_range_row_and_tanh_bounds_them():
    model, x = FullRNN(10, 20, 5), 100 * torch.randn(4, 7, 10)
    rows = by_symbol(sequence_shapes(model, x))
    assert rows["h_0 .. h_6"]["shape"] == [4, 20]
    assert rows["h_0 .. h_6"]["used"] == 7
    assert rows["h"]["shape"] == [4, 7, 20]
    assert -1 <= rows["h"]["min"] < -0.99
    assert 0.99 < rows["h"]["max"] <= 1
    assert rows["y"]["max"] == pytest.approx(float(model(x).detach().max()), rel=1e-5)


def test_without_biases_there_are_no_bias_rows():
    model = FullRNN(3, 4, 2, bias=False)
    rows = by_symbol(sequence_shapes(model, torch.randn(1, 1, 3)))
    assert not {"b_xh", "b_hh", "b_y"} & set(rows)
    rows = by_symbol(step_shapes(model.rnn_cell, torch.randn(1, 3), torch.randn(1, 4)))
    assert {"W_xh x_t", "W_hh h_{t-1}"} <= set(rows)
    assert not any("b_" in symbol for symbol in rows)


@pytest.mark.parametrize("steps", [1, 2])
def test_states_are_numbered_from_0_and_both_functions_are_named(steps):
    model = FullRNN(3, 4, 2, nonlinearity="relu", output_activation="sigmoid")
    rows = by_symbol(sequence_shapes(model, torch.randn(2, steps, 3)))
    h = rows["h_0" if steps == 1 else "h_0 .. h_1"]
    assert h["name"] == f"hidden state at {'the only' if steps == 1 else 'every'} step, f_h = relu"
    assert (h["shape"], h["used"]) == ([2, 4], steps)
    assert rows["y"]["name"] == "output sequence, f_y = sigmoid"
    assert "h_t" not in rows


def test_of_softmax_it_is_said_that_every_row_sums_to_1():
    rows = by_symbol(sequence_shapes(FullRNN(3, 4, 2, output_activation="softmax"), torch.randn(2, 5, 3)))
    assert rows["y"]["name"] == "output sequence, f_y = softmax: every row sums to 1"


def shown(result, **config):
    config = {"input_size": 3, "hidden_size": 4, "output_size": 2, "nonlinearity": "tanh", "seq_len": 7, **config}
    settled = {"batch_size": 2, "input": None, "seed": 0, "dtype": "float32", "device": "cpu"}
    return rendered(result, View(), {**config, **settled}, {})


def test_one_step_speaks_of_one_step_and_of_zeros_where_it_starts_from_them():
    cell, x = FullRNN(3, 4, 2).rnn_cell, torch.randn(2, 3)
    first, later = step_shapes(cell, x, torch.zeros(2, 4)), step_shapes(cell, x, torch.eye(4)[:2])
    assert (first.scalars["state_is_zero"], later.scalars["state_is_zero"]) == (True, False)
    texts = shown(first), shown(later)
    for text in texts:
        assert text.startswith("cell: FullRNN(3, 4, 2), tanh, one step, batch 2,")
        assert "T 7" not in text
        assert "all steps" not in text
    said = ["h_{t-1} is 0, for step 0 starts from h_init = 0: W_hh h_{t-1} is 0 as well" in text for text in texts]
    assert said == [True, False]
    assert "T 7, batch 2" in shown(sequence_shapes(FullRNN(3, 4, 2), torch.randn(2, 7, 3)))


def test_wrong_shapes_are_refused_and_no_hook_is_left():
    model = FullRNN(3, 4, 2)
    with pytest.raises(ShapeError, match=r"\(batch, time, 3\)"):
        sequence_shapes(model, torch.zeros(2, 5, 4))
    with pytest.raises(ShapeError, match=r"h_t_minus_1 must have shape \(2, 4\)"):
        step_shapes(model.rnn_cell, torch.zeros(2, 3), torch.zeros(2, 5))
    sequence_shapes(model, torch.zeros(2, 5, 3))
    assert not model.rnn_cell._forward_hooks


def test_any_model_is_described_by_the_same_entry():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)
            self.received = []

        def forward(self, x, lengths=None):
            self.received.append(lengths)
            return self.head(self.rnn(x)[0])

    model, x, lengths = Tagger(), torch.randn(2, 5, 3), torch.tensor([5, 3])
    found = sequence_shapes(model, x, lengths=lengths)
    assert type(found) is RecurrentShapes
    assert torch.equal(model.received[0], lengths)
    assert [row["module"] for row in found.rows if row["kind"] == "module"] == ["rnn"]
    plain = recurrent_shapes(model, lambda: model(x, lengths))
    assert tuple(row for row in found.rows if row["kind"] != "use") == plain.rows
    assert found.scalars.items() >= plain.scalars.items()
    assert sequence_shapes(model, x, only=["rnn"]).scalars["modules"] == 1
    with pytest.raises(InputError, match="no module or parameter 'rn'; .* Did you mean rnn"):
        sequence_shapes(model, x, only=["rn"])
    with pytest.raises(InputError, match="h_init is for a FullRNN"):
        sequence_shapes(model, x, torch.zeros(2, 4))


def test_a_full_rnn_is_described_with_its_own_symbols_and_whole():
    model, x = FullRNN(3, 4, 2), torch.randn(2, 5, 3)
    found = sequence_shapes(model, x, torch.ones(2, 4), lengths=torch.tensor([5, 3]))
    assert type(found) is SequenceShapes
    assert by_symbol(found)["h_init"]["min"] == 1
    assert sequence_shapes(model, x, only=["rnn_cell"]).scalars["calls"] == x.shape[1]
    with pytest.raises(InputError, match="lengths must be from 1 to the 5 steps of x; got values from 5 to 6"):
        sequence_shapes(model, x, lengths=torch.tensor([5, 6]))
