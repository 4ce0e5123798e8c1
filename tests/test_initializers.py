"""Initialisation in place: closed forms of the weights, and what a step or a long run makes of them."""

import math

import pytest
import torch
from torch import nn

import rnnctl
from rnnctl.dynamics.meanfield import mean_field
from rnnctl.errors import InputError
from rnnctl.initializers import KEEPS, MODES, chrono_, critical_, forget_bias_, identity_, orthogonal_
from rnnctl.recurrence.critical_gain import critical_gain
from rnnctl.recurrence.kinds import kind_named

H = 6
LAYERS = {
    "rnn": lambda: nn.RNN(3, H, num_layers=2, bidirectional=True),
    "gru": lambda: nn.GRU(3, H, num_layers=2, bidirectional=True),
    "lstm": lambda: nn.LSTM(3, H, num_layers=2, bidirectional=True),
    "coupled": lambda: rnnctl.CoupledLSTM(3, H, num_layers=2, bidirectional=True),
    "rnn cell": lambda: nn.RNNCell(3, H),
    "gru cell": lambda: nn.GRUCell(3, H),
    "lstm cell": lambda: nn.LSTMCell(3, H),
    "guide's cell": lambda: rnnctl.ManualRNNCell(3, H),
    "guide's network": lambda: rnnctl.FullRNN(3, H, 2),
    "double": lambda: nn.GRU(3, H, dtype=torch.float64),
}
GATED = [name for name in LAYERS if name not in ("rnn", "rnn cell", "guide's cell", "guide's network")]


def matrices(module):
    """Every W_hh of it."""
    return [p for name, p in module.named_parameters() if "weight_hh" in name or "hidden_to_hidden.weight" in name]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", LAYERS)
def test_every_block_of_an_orthogonal_W_hh_has_the_gain_as_its_singular_values(name):
    module = LAYERS[name]()
    assert orthogonal_(module, 1.5, generator=generator()) is module
    blocks = [block for W in matrices(module) for block in W.detach().split(H)]
    for block in blocks:
        assert torch.linalg.svdvals(block).tolist() == pytest.approx([1.5] * H, rel=1e-5)
    for one, other in zip(blocks, blocks[1:], strict=False):
        assert not torch.allclose(one, other)


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_not_W_hh_stays_as_it_was(name):
    module = LAYERS[name]()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    identity_(orthogonal_(module), 0.5)
    changed = {key for key, value in module.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key in before if "weight_hh" in key or "hidden_to_hidden.weight" in key}
    assert all(p.requires_grad and p.grad_fn is None for p in module.parameters())


def test_the_same_generator_draws_the_same_and_torch_s_own_is_used_without_one():
    def drawn(**settings):
        return orthogonal_(nn.RNN(3, H), **settings).weight_hh_l0.detach()

    assert torch.equal(drawn(generator=generator(3)), drawn(generator=generator(3)))
    assert not torch.equal(drawn(generator=generator(3)), drawn(generator=generator(4)))
    torch.manual_seed(5)
    rnn = nn.RNN(3, H)
    torch.manual_seed(5)
    assert torch.equal(orthogonal_(rnn).weight_hh_l0, drawn(generator=generator(5)))


def test_a_projected_lstm_gets_orthonormal_columns_and_no_identity():
    module = orthogonal_(nn.LSTM(3, H, proj_size=2), 2.0)
    for block in module.weight_hh_l0.detach().split(H):
        assert (block.T @ block).flatten().tolist() == pytest.approx([4, 0, 0, 4], abs=1e-5)
    with pytest.raises(InputError, match=r"square W_hh.*orthogonal_"):
        identity_(module)


def test_a_relu_network_of_the_identity_adds_up_its_inputs():
    rnn = identity_(nn.RNN(H, H, nonlinearity="relu", bias=False))
    with torch.no_grad():
        rnn.weight_ih_l0.copy_(torch.eye(H))
    x = torch.rand(9, 2, H)
    torch.testing.assert_close(rnn(x)[0], x.cumsum(0))


@pytest.mark.parametrize("name", GATED)
def test_with_a_forget_bias_a_step_without_input_keeps_as_much_as_the_sigmoid_says(name):
    """Of a step from a state of 1 with every weight at 0, and the other gates shut or at rest."""
    module = forget_bias_(LAYERS[name](), 2.0)
    for key, parameter in module.named_parameters():
        if "weight" in key:
            nn.init.zeros_(parameter)
    kept = kept_by_one_step(module)
    assert kept.tolist() == pytest.approx([1 / (1 + math.exp(-2))] * kept.numel(), rel=1e-5)


def kept_by_one_step(module):
    """d(state after)/d(state before) of a step whose weights are 0, unit by unit, of the first layer or the cell."""
    dtype = next(module.parameters()).dtype
    layers = (module.num_layers * (2 if module.bidirectional else 1),) if isinstance(module, nn.RNNBase) else ()
    x = torch.zeros(*(1 for _ in layers), 1, 3, dtype=dtype)
    has_c = isinstance(module, nn.LSTMCell) or getattr(module, "mode", "") in ("LSTM", "COUPLED_LSTM")
    state = torch.ones(*layers, 1, H, dtype=dtype, requires_grad=True)
    after = module(x, (torch.zeros_like(state), state) if has_c else state)
    end = (after if not layers else after[1])[1] if has_c else (after[1] if layers else after)
    (slope,) = torch.autograd.grad(end.sum(), state)
    return slope.flatten()


@pytest.mark.parametrize("name", GATED)
def test_the_two_biases_of_a_gate_add_up_and_the_others_stay(name):
    module = LAYERS[name]()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    forget_bias_(module, 3.0)
    letters = gates_of(module)
    first = letters.index({"rzn": "z", "ifgo": "f", "fgo": "f"}[letters]) * H
    for key, value in module.state_dict().items():
        if "bias_ih" in key:
            both = value + module.state_dict()[key.replace("ih", "hh")]
            assert both[first : first + H].tolist() == [3.0] * H
            kept = [*range(first), *range(first + H, len(value))]
            assert torch.equal(value[kept], before[key][kept])


def gates_of(module):
    if isinstance(module, nn.RNNBase):
        return MODES[module.mode]
    return "rzn" if isinstance(module, nn.GRUCell) else "ifgo"


def test_the_rows_of_every_weight_are_those_that_the_kinds_have():
    for name, mode in (("GRU", "GRU"), ("LSTM", "LSTM"), ("CoupledLSTM", "COUPLED_LSTM")):
        kind = kind_named(name)
        assert "".join(kind.letters) == MODES[mode]
        assert kind.keep == KEEPS[MODES[mode]]


@pytest.mark.parametrize("name", GATED)
def test_chrono_spreads_the_times_evenly_up_to_the_longest(name):
    torch.manual_seed(0)
    kind = type(LAYERS[name]())
    module = chrono_(kind(3, 2000), 50, generator=generator())
    letters, state = gates_of(module), module.state_dict()
    biases = sum(value for key, value in state.items() if key.startswith(("bias_ih", "bias_hh")) and "l1" not in key)
    by_gate = dict(zip(letters, biases.split(2000), strict=True))
    times = by_gate["z" if letters == "rzn" else "f"].exp()
    assert 0.999 < float(times.min()) < 1.2
    assert 48.8 < float(times.max()) <= 49 + 1e-3
    assert float(times.mean()) == pytest.approx(25, rel=0.03)
    assert float(times.std()) == pytest.approx(48 / math.sqrt(12), rel=0.03)
    if "i" in letters:
        torch.testing.assert_close(by_gate["i"], -by_gate["f"])


def test_after_chrono_the_gradient_of_an_lstm_arrives_over_the_lag():
    torch.manual_seed(0)
    x = torch.randn(4, 61, 3)
    drawn = nn.LSTM(3, 32, batch_first=True)
    before = rnnctl.gradnorm(drawn, x).scalars["first_over_last"]
    after = rnnctl.gradnorm(chrono_(drawn, 60, generator=generator()), x).scalars["first_over_last"]
    assert before < 1e-9
    assert after > 0.01


def test_chrono_for_two_steps_opens_every_gate_by_half():
    module = chrono_(nn.LSTM(3, H), 2)
    assert (module.bias_ih_l0 + module.bias_hh_l0)[: 2 * H].tolist() == [0.0] * (2 * H)


@pytest.mark.parametrize("source", [1e-3, 0.1, 1.0, 30.0])
def test_at_the_critical_gain_chi_is_1(source):
    gain = critical_gain(source)
    assert gain > 1
    assert mean_field(gain, source).chi == pytest.approx(1, abs=1e-9)


def test_critical_gains_without_a_source_and_of_relu_are_those_of_pencil_and_paper():
    assert critical_gain() == critical_gain(0.0, "linear") == critical_gain(2.0, "linear") == 1
    assert critical_gain(0.7, "relu") == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("init", ["orthogonal", "gaussian"])
def test_at_the_critical_gain_the_largest_exponent_is_near_0(init):
    """And far from it at half the gain: ln 2 at least, since a weaker W_hh saturates tanh less."""
    model = driven(0.5)
    assert critical_(model, 0.5, init=init, generator=generator()) is model
    x = torch.randn(1, 200, 10, generator=generator(1))
    assert abs(float(rnnctl.lyapunov(model, x, count=1).exponents[0])) < 0.03
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight.div_(2)
    assert float(rnnctl.lyapunov(model, x, count=1).exponents[0]) < -0.4


def driven(source):
    """A wide network whose W_xh x_t has this variance for normal x, without biases."""
    torch.manual_seed(0)
    model = rnnctl.FullRNN(10, 160, 2, bias=False)
    nn.init.normal_(model.rnn_cell.input_to_hidden.weight, std=math.sqrt(source / 10))
    return model


def test_every_layer_of_an_elman_network_gets_the_critical_gain_of_its_nonlinearity():
    rnn = critical_(nn.RNN(3, H, num_layers=2, bidirectional=True, nonlinearity="relu"), 4.0)
    for W in matrices(rnn):
        assert torch.linalg.svdvals(W.detach()).tolist() == pytest.approx([math.sqrt(2)] * H, rel=1e-5)
    cell = critical_(nn.RNNCell(3, 300), 0.2, init="gaussian", generator=generator())
    assert float(cell.weight_hh.detach().std()) * math.sqrt(300) == pytest.approx(critical_gain(0.2), rel=0.02)


class InTheGuidesForm(nn.Module):
    """Somebody's own cell, with the names that the guide gives to its maps."""

    def __init__(self, rows=H):
        super().__init__()
        self.input_to_hidden, self.hidden_to_hidden = nn.Linear(3, rows), nn.Linear(H, rows)


def test_a_cell_in_the_guide_s_form_is_taken_unless_its_map_has_gates():
    W_hh = identity_(InTheGuidesForm(), 2.0).hidden_to_hidden.weight
    assert torch.equal(W_hh.detach(), 2 * torch.eye(H))
    with pytest.raises(InputError, match="got InTheGuidesForm"):
        orthogonal_(InTheGuidesForm(4 * H))


class Tagger(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.parts = nn.ModuleList([inner])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: orthogonal_(nn.Linear(2, 2)), r"orthogonal_ takes nn.RNN.* got Linear$"),
        (lambda: identity_(Tagger(nn.GRU(2, 3))), r"got Tagger.*identity_\(model.get_submodule\('parts.0'\)\)"),
        (lambda: orthogonal_(nn.RNN(2, 3), math.inf), r"gain must be a finite number; got inf"),
        (lambda: forget_bias_(nn.LSTM(2, 3), math.nan), r"value must be a finite number; got nan"),
        (lambda: forget_bias_(nn.RNN(2, 3)), r"forget_bias_ sets a gate that keeps the state, and RNN has none"),
        (lambda: chrono_(rnnctl.FullRNN(2, 3, 1), 9), r"chrono_ sets a gate .* and FullRNN has none"),
        (lambda: chrono_(nn.GRU(2, 3, bias=False), 9), r"this GRU has none \(bias=False\)"),
        (lambda: chrono_(nn.GRU(2, 3), 1), r"longest must be at least 2 steps; got 1"),
        (lambda: critical_(nn.LSTM(2, 3)), r"Elman network alone.*got LSTM.*chrono_"),
        (lambda: critical_(nn.Linear(3, 3)), r"Elman network alone.*got Linear"),
        (lambda: critical_(nn.RNN(2, 3), -1.0), r"source_variance must be a finite number from 0 up; got -1"),
        (lambda: critical_(nn.RNN(2, 3), init="identity"), r"init must be orthogonal or gaussian; got 'identity'"),
        (
            lambda: orthogonal_(nn.utils.parametrizations.weight_norm(nn.GRU(2, 3), "weight_hh_l0")),
            r"weight_hh_l0 .*lost",
        ),
    ],
)
def test_what_cannot_be_initialised_is_refused_with_what_to_try(call, said):
    with pytest.raises(InputError, match=said):
        call()


def test_an_unknown_name_of_the_module_is_an_attribute_error():
    import rnnctl.initializers

    with pytest.raises(AttributeError, match="has no attribute 'critical'"):
        _ = rnnctl.initializers.critical
