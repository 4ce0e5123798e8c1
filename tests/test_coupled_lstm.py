"""The LSTM with coupled gates: against an nn.LSTM whose input gate is tied to its forget gate, and against clones."""

import copy
import pickle

import pytest
import torch
from probe_oracles import ByClones
from shell import document, runner
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import rnnctl
from rnnctl import CoupledLSTM, InputError, ShapeError

FEATURES, H, T, B = 3, 5, 8, 4


def made(seed=0, scale=1.5, **settings):
    torch.manual_seed(seed)
    module = CoupledLSTM(FEATURES, H, **settings).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    return module


def tied(module):
    """nn.LSTM whose input gate is 1 - f: sigmoid(-a) = 1 - sigmoid(a)."""
    settings = {name: getattr(module, name) for name in ("bias", "batch_first", "dropout", "bidirectional")}
    twin = nn.LSTM(module.input_size, module.hidden_size, module.num_layers, **settings).double()
    state = {}
    for name, value in module.named_parameters():
        f, g, o = value.detach().chunk(3)
        state[name] = torch.cat([-f, f, g, o])
    twin.load_state_dict(state)
    return twin


SETTINGS = [
    {},
    {"bias": False},
    {"batch_first": True, "num_layers": 2},
    {"bidirectional": True, "num_layers": 3},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("given", [False, True])
def test_outputs_states_and_gradients_are_those_of_the_tied_LSTM(settings, given):
    module = made(**settings)
    twin, rows = tied(module), module.num_layers * (2 if module.bidirectional else 1)
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    hx = tuple(torch.randn(rows, T if module.batch_first else B, H).double() for _ in range(2)) if given else None
    (found, found_hidden), (expected, expected_hidden) = module(x, hx), twin(x, hx)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_hidden, expected_hidden)
    sum(part.square().sum() for part in (found, *found_hidden)).backward()
    sum(part.square().sum() for part in (expected, *expected_hidden)).backward()
    for name, parameter in module.named_parameters():
        i, f, g, o = getattr(twin, name).grad.chunk(4)
        torch.testing.assert_close(parameter.grad, torch.cat([f - i, g, o]))


@pytest.mark.parametrize("sorted_already", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_packed_sequences_are_read_as_the_tied_LSTM_reads_them(sorted_already, bidirectional):
    module = made(num_layers=2, bidirectional=bidirectional)
    lengths = torch.tensor([8, 5, 5, 2] if sorted_already else [5, 8, 2, 5])
    packed = pack_padded_sequence(torch.randn(T, B, FEATURES).double(), lengths, enforce_sorted=sorted_already)
    hx = tuple(torch.randn(4 if bidirectional else 2, B, H).double() for _ in range(2))
    (found, hidden), (expected, expected_hidden) = module(packed, hx), tied(module)(packed, hx)
    assert isinstance(found, PackedSequence)
    torch.testing.assert_close(found.data, expected.data)
    torch.testing.assert_close(hidden, expected_hidden)


def test_one_sequence_without_a_batch_axis():
    module, x = made(), torch.randn(T, FEATURES).double()
    hx = torch.randn(1, H).double(), torch.randn(1, H).double()
    torch.testing.assert_close(module(x, hx), tied(module)(x, hx))


@pytest.mark.parametrize("lengths", [None, [8, 6, 3, 1]])
@pytest.mark.parametrize("settings", [{}, {"bias": False}, {"bidirectional": True, "num_layers": 2}])
def test_the_probe_says_what_clones_say(settings, lengths):
    module, x = made(**settings), torch.randn(T, B, FEATURES).double()
    module.train()
    given = x if lengths is None else pack_padded_sequence(x, lengths)
    with rnnctl.probe(module) as trace:
        output, (h_n, c_n) = module(given)
        data = output if lengths is None else output.data
        (data.square().sum() + h_n.pow(3).sum() + c_n.square().sum()).backward()
    clones = ByClones(module)
    y, last_h, last_c = clones(x, lengths=lengths)
    steps = torch.arange(T)[:, None] < torch.tensor(lengths or [T] * B)
    (y[steps].square().sum() + last_h.pow(3).sum() + last_c.square().sum()).backward()
    for name, expected in clones.results().items():
        found = trace[name]
        assert (found.cell, found.gates) == ("CoupledLSTM", ("f", "g", "o"))
        torch.testing.assert_close(found.grad_norm_W_hh, expected["W_hh"], rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(found.grad_norm_h, expected["h"], rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(found.grad_norm_c, expected["c"], rtol=1e-9, atol=1e-13)
        by_gate = torch.stack([*found.grad_norm_gates.values()], dim=1)
        torch.testing.assert_close(by_gate, expected["gates"], rtol=1e-9, atol=1e-13)
        assert found.agrees
        assert found.states_agree


@pytest.mark.parametrize("kind", [nn.LSTM, CoupledLSTM])
def test_a_short_sequence_read_from_its_end_starts_from_its_own_given_state(kind):
    torch.manual_seed(0)
    module, lengths = kind(FEATURES, H, bidirectional=True).double(), [8, 6, 3, 1]
    x, hx = torch.randn(T, B, FEATURES).double(), tuple(torch.randn(2, B, H).double() for _ in range(2))
    with rnnctl.probe(module) as trace:
        module(pack_padded_sequence(x, lengths), hx)[0].data.square().sum().backward()
    clones = ByClones(module)
    y, _, _ = clones(x, hx, lengths)
    y[torch.arange(T)[:, None] < torch.tensor(lengths)].square().sum().backward()
    for name, expected in clones.results().items():
        torch.testing.assert_close(trace[name].grad_norm_W_hh, expected["W_hh"], rtol=1e-9, atol=1e-13)
        assert trace[name].agrees


def test_dropout_between_layers_is_drawn_again_for_the_sweep():
    module = made(num_layers=3, dropout=0.5).train()
    with rnnctl.probe(module) as trace:
        module(torch.randn(T, B, FEATURES).double())[0].square().sum().backward()
    assert all(found.agrees and found.states_agree for found in trace.values())


@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_spectrum_and_exponents_are_those_of_the_tied_LSTM(scale):
    module = made(scale=scale, batch_first=True)
    twin, x = tied(module), torch.randn(2, 60, FEATURES).double()
    found, expected = (rnnctl.lyapunov(each, x, seed=1) for each in (module, twin))
    # The smallest exponents of saturated units lose digits to the rounding of the gates, here and there.
    torch.testing.assert_close(found.exponents, expected.exponents, rtol=1e-4, atol=1e-7)
    assert found.state_size == 2 * H
    ours, theirs = (rnnctl.spectrum(each, x) for each in (module, twin))
    for name in ("jacobian_norm_mean", "jacobian_norm_max", "jacobian_radius_mean", "keep_mean"):
        values = [[step[name] for step in each.steps] for each in (ours, theirs)]
        assert values[0] == pytest.approx(values[1], rel=1e-7)
    assert [gate.gate for gate in ours.gates] == ["f", "g", "o"]


def test_copies_pickles_and_state_dicts_come_back_as_they_were():
    module, x = made(num_layers=2), torch.randn(T, B, FEATURES).double()
    expected = module(x)[0]
    again = CoupledLSTM(FEATURES, H, 2).double()
    again.load_state_dict(module.state_dict())
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), again):
        torch.testing.assert_close(twin(x)[0], expected)


def test_bad_input_is_refused_with_expected_and_got():
    module = made()
    with pytest.raises(ShapeError, match=r"input must have shape \(time, batch, 3\); got \(8, 4, 2\)"):
        module(torch.randn(T, B, 2).double())
    with pytest.raises(ShapeError, match=r"c_0 must have shape \(1, 4, 5\); got \(1, 4, 6\)"):
        module(torch.randn(T, B, FEATURES).double(), (torch.zeros(1, B, H).double(), torch.zeros(1, B, 6).double()))
    with pytest.raises(InputError, match="no projection"):
        CoupledLSTM(FEATURES, H, proj_size=2)


QUESTIONS = ("gradnorm", "gradnorm --lengths lengths.csv", "flow", "truncation", "spectrum", "lyapunov", "forward")


@pytest.mark.parametrize("line", QUESTIONS)
def test_the_shell_asks_every_question_of_it(line, tmp_path, capsys, monkeypatch):
    (tmp_path / "lengths.csv").write_text("n\n7\n5\n3\n1\n")
    run = runner(capsys, monkeypatch, tmp_path)
    ran = run(f"{line} --cell coupled-lstm --hidden-size 6 --json")
    assert ran.code == 0, ran.err
    found = document(ran)
    assert found["config"]["network"] == "CoupledLSTM(10, 6, 5)"
    table = run(f"{line} --cell coupled-lstm --hidden-size 6")
    assert table.code == 0
    assert "CoupledLSTM(10, 6" in table.out


def test_a_checkpoint_is_told_from_a_GRUs(tmp_path, capsys, monkeypatch):
    run = runner(capsys, monkeypatch, tmp_path)
    for cell, gates in (("coupled-lstm", ["f", "g", "o"]), ("gru", ["r", "z", "n"])):
        assert run(f"forward --cell {cell} --num-layers 2 --save-weights {cell}.safetensors").code == 0
        found = document(run(f"weights {cell}.safetensors --json"))
        assert {row["cell"] for row in found["rows"] if row["recurrent"]} == {cell}
        assert [row["gate"] for row in found["recurrent"]] == 2 * gates
        assert run(f"gradnorm --cell {cell} --num-layers 2 --weights {cell}.safetensors").code == 0


def test_training_is_watched(tmp_path):
    module, path = made(), tmp_path / "run.jsonl"
    with rnnctl.watch(module, every=1, to=path):
        for _ in range(3):
            module(torch.randn(T, B, FEATURES).double())[0].square().sum().backward()
    history = rnnctl.gradnorm_history(path)
    assert (history.cell, history.steps) == ("CoupledLSTM", (0, 1, 2))


def test_a_weight_that_is_another_tensor_at_every_call_is_used_and_trained():
    module = nn.utils.parametrizations.weight_norm(made(), "weight_hh_l0")
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    before = module(x)[0]
    scale = module.parametrizations.weight_hh_l0.original0
    with torch.no_grad():
        scale.mul_(3)
    plain = made()
    with torch.no_grad():
        plain.weight_hh_l0.copy_(module.weight_hh_l0)
    assert not torch.equal(module(x)[0], before)
    torch.testing.assert_close(module(x)[0], plain(x)[0])
    with rnnctl.probe(module) as trace:
        module(x)[0][-1].square().sum().backward()
    (found,) = trace.values()
    assert found.agrees and bool(scale.grad.abs().sum() > 0)
    found = rnnctl.flow(BatchFirst(module), x.transpose(0, 1), only="*weight_hh_l0", verify=True)
    assert found.agreement.holds


class BatchFirst(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, x):
        return self.rnn(x.transpose(0, 1))[0].transpose(0, 1)


def test_functional_calls_use_the_weights_that_they_are_given():
    module, other = made(), made(seed=1)
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    given = {name: value.detach() for name, value in other.named_parameters()}
    found = torch.func.functional_call(module, given, (x,))[0]
    torch.testing.assert_close(found, other(x)[0])
    grads = torch.func.grad(lambda each: torch.func.functional_call(module, each, (x,))[0].square().sum())(given)
    other(x)[0].square().sum().backward()
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad)


@pytest.mark.parametrize("shape", [(FEATURES,), (1, T, B, FEATURES)])
def test_an_input_of_other_axes_is_refused(shape):
    with pytest.raises(ShapeError, match="input must have shape"):
        made()(torch.zeros(shape).double())
