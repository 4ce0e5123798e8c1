"""The equations as modules."""

import pytest
import torch
from torch import nn

from rnnctl import DtypeError, FullRNN, InputError, ManualRNNCell, ShapeError


class HandWrittenCell(nn.Module):
    """The guide's cell, typed from its page."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_to_hidden = nn.Linear(input_size, hidden_size)
        self.hidden_to_hidden = nn.Linear(hidden_size, hidden_size)
        self.activation = nn.Tanh()

    def forward(self, x_t, h):
        return self.activation(self.input_to_hidden(x_t) + self.hidden_to_hidden(h))


class HandWrittenRNN(nn.Module):
    """The guide's sequence processor, typed from its page."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.rnn_cell = HandWrittenCell(input_size, hidden_size)
        self.hidden_to_output = nn.Linear(hidden_size, output_size)

    def forward(self, x):
        h = torch.zeros(x.shape[0], self.hidden_size)
        outputs = []
        for t in range(x.shape[1]):
            h = self.rnn_cell(x[:, t, :], h)
            outputs.append(self.hidden_to_output(h))
        return torch.stack(outputs, dim=1)


def test_parameters_and_outputs_are_bitwise_those_of_the_guide():
    torch.manual_seed(0)
    ours, x = FullRNN(10, 20, 5), torch.randn(4, 7, 10)
    torch.manual_seed(0)
    theirs, _ = HandWrittenRNN(10, 20, 5), torch.randn(4, 7, 10)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    assert torch.equal(ours(x), theirs(x))


def test_state_dict_keys_are_the_promised_ones():
    layers = ("rnn_cell.input_to_hidden", "rnn_cell.hidden_to_hidden", "hidden_to_output")
    expected = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    assert list(FullRNN(2, 3, 4).state_dict()) == expected
    assert list(FullRNN(2, 3, 4, bias=False).state_dict()) == expected[::2]


def test_the_guides_shapes():
    cell, rnn = ManualRNNCell(10, 20), FullRNN(10, 20, 5)
    assert cell(torch.randn(4, 10), torch.randn(4, 20)).shape == (4, 20)
    assert rnn(torch.randn(4, 7, 10)).shape == (4, 7, 5)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_one_step_is_the_equation(nonlinearity):
    cell = ManualRNNCell(3, 4, nonlinearity=nonlinearity, dtype=torch.float64)
    x, h = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    W_xh, W_hh = cell.input_to_hidden, cell.hidden_to_hidden
    for b in range(2):
        a = W_xh.weight @ x[b] + W_xh.bias + W_hh.weight @ h[b] + W_hh.bias
        expected = a.tanh() if nonlinearity == "tanh" else a.clamp(min=0)
        torch.testing.assert_close(cell(x, h)[b], expected)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("identity", lambda y: y),
        ("softmax", lambda y: torch.softmax(y, -1)),
        ("sigmoid", torch.sigmoid),
        ("tanh", torch.tanh),
    ],
)
def test_output_activation_is_applied_to_the_readout(name, function):
    torch.manual_seed(1)
    plain = FullRNN(3, 4, 5)
    active = FullRNN(3, 4, 5, output_activation=name)
    active.load_state_dict(plain.state_dict())
    x = torch.randn(2, 6, 3)
    torch.testing.assert_close(active(x), function(plain(x)))


def test_a_given_h_init_is_where_it_starts():
    rnn = FullRNN(3, 4, 5)
    x, h = torch.randn(2, 1, 3), torch.randn(2, 4)
    torch.testing.assert_close(rnn(x, h)[:, 0], rnn.readout(rnn.rnn_cell(x[:, 0], h)))
    assert torch.equal(rnn(x), rnn(x, torch.zeros(2, 4)))


def test_the_same_cell_runs_at_every_step():
    rnn, calls = FullRNN(3, 4, 5), []
    rnn.rnn_cell.register_forward_hook(lambda module, _inputs, _output: calls.append(module))
    rnn(torch.randn(2, 6, 3))
    assert calls == [rnn.rnn_cell] * 6


@pytest.mark.parametrize(
    ("x", "h", "message"),
    [
        (torch.zeros(4, 9), torch.zeros(4, 20), r"x_t must have shape \(batch, 10\); got \(4, 9\)"),
        (torch.zeros(10), torch.zeros(4, 20), r"x_t must have shape .*got \(10,\).*unsqueeze\(0\)"),
        (torch.zeros(4, 10), torch.zeros(3, 20), r"h_t_minus_1 must have shape \(4, 20\); got \(3, 20\)"),
        (torch.zeros(0, 10), torch.zeros(0, 20), r"got \(0, 10\).*empty"),
    ],
)
def test_the_cell_refuses_wrong_shapes(x, h, message):
    with pytest.raises(ShapeError, match=message):
        ManualRNNCell(10, 20)(x, h)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(7, 10), r"\(batch, time, 10\); got \(7, 10\)"),
        (torch.zeros(4, 7, 11), r"\(batch, time, 10\); got \(4, 7, 11\)"),
        (torch.zeros(0, 7, 10), "empty"),
        (torch.zeros(4, 0, 10), "empty"),
        ([[1.0]], "must be a tensor.*got list"),
    ],
)
def test_the_network_refuses_wrong_shapes(x, message):
    with pytest.raises(ShapeError, match=message):
        FullRNN(10, 20, 5)(x)


def test_a_wrong_dtype_is_refused_with_both():
    with pytest.raises(DtypeError, match=r"float32; got torch.float64"):
        FullRNN(10, 20, 5)(torch.zeros(4, 7, 10, dtype=torch.float64))
    with pytest.raises(DtypeError, match=r"float32; got torch.int64"):
        FullRNN(10, 20, 5)(torch.zeros(4, 7, 10, dtype=torch.long))
    with pytest.raises(DtypeError, match=r"h_init must have .*float32; got torch.float64"):
        FullRNN(10, 20, 5)(torch.zeros(4, 7, 10), torch.zeros(4, 20, dtype=torch.float64))


def test_a_wrong_device_is_refused_with_both():
    with pytest.raises(InputError, match=r"weights' device cpu; got meta"):
        FullRNN(10, 20, 5)(torch.zeros(4, 7, 10, device="meta"))


def test_refusal_comes_before_any_arithmetic():
    rnn = FullRNN(10, 20, 5)
    rnn.rnn_cell.input_to_hidden.forward = None
    with pytest.raises(ShapeError, match="h_init must have shape"):
        rnn(torch.zeros(4, 7, 10), torch.zeros(4, 21))


@pytest.mark.parametrize("sizes", [(0, 20, 5), (10, -1, 5), (10, 20, 0), (10, 2.5, 5), (True, 20, 5)])
def test_sizes_are_whole_numbers_from_one_up(sizes):
    with pytest.raises(InputError, match="must be a whole number from 1 up"):
        FullRNN(*sizes)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match="nonlinearity must be one of tanh, relu, linear; got 'elu'"):
        ManualRNNCell(1, 1, nonlinearity="elu")
    with pytest.raises(InputError, match="output_activation must be one of identity, softmax, sigmoid, tanh"):
        FullRNN(1, 1, 1, output_activation="relu")


def test_autocast_may_bring_the_dtypes_together():
    rnn = FullRNN(3, 4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert rnn(torch.zeros(2, 3, 3)).shape == (2, 3, 5)


def test_gradients_flow_through_the_loop():
    rnn = FullRNN(2, 3, 1, dtype=torch.float64)
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rnn, (x,))
