"""Whether a model's steps are the input's: (batch, time, ...) given against what the recurrent weights saw."""

from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from shell import Run, document, forget_modules_of, runner
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnnctl
from rnnctl import InputError, ShapeError
from rnnctl.models.inputs import Inputs
from rnnctl.models.objective import turned_back
from rnnctl.shapes.forward import sequence_shapes
from rnnctl.shapes.unroll import unroll

D, H = 3, 5


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def weight(*shape):
    return nn.Parameter(0.3 * torch.randn(*shape))


class Model(nn.Module):
    """Parts, and a function of them and the input for ``forward``."""

    def __init__(self, function, /, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, *x):
        return self.function(self, *x)


# ---- the same mistake in every way of writing a network -----------------------------------------


def over_layer(m, x):
    return m.rnn(x)[0]


def looped(step, hidden=H):
    def forward(m, x):
        h, states = x.new_zeros(x.shape[1], hidden), []
        for x_t in x:
            h = step(m, x_t, h)
            states.append(h)
        return torch.stack(states)

    return forward


def from_nothing(m, x):
    h, states = None, []
    for x_t in x:
        h = m.cell(x_t, h)
        states.append(h[0] if isinstance(h, tuple) else h)
    return torch.stack(states)


def step_by_step(m, x):
    h, states = None, []
    for t in range(len(x)):
        y, h = m.rnn(x[t : t + 1], h)
        states.append(y)
    return torch.cat(states)


def in_windows(m, x):
    h, states = None, []
    for window in x.split(2):
        y, h = m.rnn(window, None if h is None else 1.0 * h.detach())
        states.append(y)
    return torch.cat(states)


def one_by_one(m, x):
    return torch.stack([m.rnn(x[:, i])[0] for i in range(x.shape[1])], 1)


def both_ways(m, x):
    def run(x):
        return from_nothing(m, x)

    return torch.cat([run(x), run(x.flip(0)).flip(0)], -1)


def matrix(m, x_t, h):
    return torch.tanh(x_t @ m.U + h @ m.W)


def columns(m, x):
    """The sequences are the last axis of the state."""
    h, states = x.new_zeros(H, x.shape[1]), []
    for x_t in x:
        h = torch.tanh(m.U.T @ x_t.T + m.W @ h)
        states.append(h.T)
    return torch.stack(states)


RAW = {"U": (D, H), "W": (H, H)}
# Name -> the weight that is named, the function of (time, batch, input), and the parts.
TIME_FIRST = {
    "rnn": ("rnn.weight_hh_l0", over_layer, lambda: {"rnn": nn.RNN(D, H)}),
    "lstm": ("rnn.weight_hh_l0", over_layer, lambda: {"rnn": nn.LSTM(D, H)}),
    "deep both ways": ("rnn.weight_hh_l0", over_layer, lambda: {"rnn": nn.GRU(D, H, 2, bidirectional=True)}),
    "behind a map": (
        "rnn.weight_hh_l0",
        lambda m, x: m.head(m.rnn(torch.relu(m.front(x)))[0]),
        lambda: {"front": nn.Linear(D, 4), "rnn": nn.GRU(4, H), "head": nn.Linear(H, 2)},
    ),
    "the last state": ("rnn.weight_hh_l0", lambda m, x: m.rnn(x)[1][-1], lambda: {"rnn": nn.GRU(D, H)}),
    "flattened": ("rnn.weight_hh_l0", lambda m, x: m.rnn(x)[0].reshape(-1, H), lambda: {"rnn": nn.GRU(D, H)}),
    "step by step": ("rnn.weight_hh_l0", step_by_step, lambda: {"rnn": nn.LSTM(D, H)}),
    "windows": ("rnn.weight_hh_l0", in_windows, lambda: {"rnn": nn.RNN(D, H)}),
    "one by one": ("rnn.weight_hh_l0", one_by_one, lambda: {"rnn": nn.RNN(D, H)}),
    "cell": ("cell.weight_hh", looped(lambda m, x, h: m.cell(x, h)), lambda: {"cell": nn.RNNCell(D, H)}),
    "cell from nothing": ("cell.weight_hh", from_nothing, lambda: {"cell": nn.LSTMCell(D, H)}),
    "cell cut off": (
        "cell.weight_hh",
        looped(lambda m, x, h: m.cell(x, h.detach())),
        lambda: {"cell": nn.GRUCell(D, H)},
    ),
    "cell with noise": (
        "cell.weight_hh",
        looped(lambda m, x, h: m.cell(x, F.dropout(h, 0.1))),
        lambda: {"cell": nn.GRUCell(D, H)},
    ),
    "cell both ways": ("cell.weight_hh", both_ways, lambda: {"cell": nn.GRUCell(D, H)}),
    "our cell": (
        "cell.hidden_to_hidden.weight",
        looped(lambda m, x, h: m.cell(x, h)),
        lambda: {"cell": rnnctl.ManualRNNCell(D, H)},
    ),
    "matrices": ("W", looped(matrix), lambda: {name: weight(*shape) for name, shape in RAW.items()}),
    "columns": ("W", columns, lambda: {name: weight(*shape) for name, shape in RAW.items()}),
    "einsum": (
        "W",
        looped(lambda m, x, h: torch.tanh(x @ m.U + torch.einsum("bi,ij->bj", h, m.W))),
        lambda: {name: weight(*shape) for name, shape in RAW.items()},
    ),
    "a map of both": (
        "both.weight",
        looped(lambda m, x, h: torch.tanh(m.both(torch.cat([x, h], 1)))),
        lambda: {"both": nn.Linear(D + H, H)},
    ),
    "units alone": ("a", looped(lambda m, x, h: torch.tanh(x + h * m.a), D), lambda: {"a": weight(D)}),
    "convolution": (
        "c.weight",
        looped(lambda m, x, h: torch.tanh(x + m.c(h.unsqueeze(1)).squeeze(1)), D),
        lambda: {"c": nn.Conv1d(1, 1, 3, padding=1)},
    ),
}
# Of one use nobody can say that it recurs.
COUNTED_BY_USES = {name for name, (named, _, _) in TIME_FIRST.items() if not named.startswith(("rnn.", "cell."))}


def made(name):
    named, function, parts = TIME_FIRST[name]
    return named, Model(function, **parts()).double()


def squares(output, _=None):
    return output.square().sum()


def counted(count, what):
    return f"{count} {what}{'' if count == 1 else 's'}"


@pytest.mark.parametrize(("batch", "time"), [(1, 9), (4, 7), (7, 4), (2, 6), (9, 1)])
@pytest.mark.parametrize("name", TIME_FIRST)
def test_a_model_that_runs_over_the_sequences_is_refused_with_what_it_saw(name, batch, time):
    if name in COUNTED_BY_USES and batch == 1:
        pytest.skip("of one use nobody can say that it recurs: another test")
    named, model = made(name)
    x = torch.randn(batch, time, D).double()
    said = (
        rf"^{named} saw {counted(batch, 'step')} of {counted(time, 'sequence')}; "
        rf"x has {counted(batch, 'sequence')} of {counted(time, 'step')}\. Try time_first=True \(--time-first\)"
    )
    with pytest.raises(ShapeError, match=said):
        rnnctl.gradnorm(model, x, loss_fn=squares)
    (note,) = rnnctl.gradnorm(model, x, loss_fn=squares, time_first=False).notes
    assert note.startswith(f"{named} saw {counted(batch, 'step')} of {counted(time, 'sequence')}, as --batch-first")


def floats(rows):
    """All numbers in them, in float64."""
    found = [value for row in rows for value in row.values() if isinstance(value, float)]
    return torch.tensor(found, dtype=torch.float64)


def numbers(result):
    return floats(result.rows)


@pytest.mark.parametrize(("batch", "time"), [(1, 9), (4, 7), (7, 4), (4, 4)])
@pytest.mark.parametrize("name", [name for name in TIME_FIRST if name != "cell with noise"])
def test_time_first_is_what_a_model_that_turns_its_axes_itself_gives(name, batch, time):
    _, model = made(name)
    x = torch.randn(batch, time, D).double()
    itself = Model(lambda m, x: m.inner(x.transpose(0, 1)), inner=model)
    found = rnnctl.gradnorm(model, x, loss_fn=squares, time_first=True)
    expected = rnnctl.gradnorm(itself, x, loss_fn=squares)
    # Of sizes that are alike it cannot be seen whether the model turned its output already.
    assert all("taken for (time, batch, ...)" in note and batch == time for note in found.notes)
    assert all("not known" in note for note in expected.notes)
    torch.testing.assert_close(numbers(found), numbers(expected), rtol=1e-12, atol=1e-15)


def twins(kind, *sizes, **options):
    """One layer of either layout, with the same weights in float64, in a model."""
    first, second = kind(*sizes, **options).double(), kind(*sizes, batch_first=True, **options).double()
    second.load_state_dict(first.state_dict())
    return Model(over_layer, rnn=first), Model(over_layer, rnn=second)


COMMANDS = {
    "forward": sequence_shapes,
    "unroll": unroll,
    "gradnorm": rnnctl.gradnorm,
    "flow": rnnctl.flow,
    "truncation": rnnctl.truncation,
    "spectrum": rnnctl.spectrum,
    "lyapunov": rnnctl.lyapunov,
}


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_question_refuses_it_and_answers_time_first_as_for_a_batch_first_layer(command, kind):
    ask, x = COMMANDS[command], torch.randn(2, 6, D).double()
    model, twin = twins(kind, D, H)
    with pytest.raises(ShapeError, match=r"rnn.weight_hh_l0 saw 2 steps of 6 sequences; x has 2 sequences of 6 steps"):
        ask(model, x, time_first="checked")
    found, expected, swapped = ask(model, x, time_first=True), ask(twin, x), ask(model, x, time_first=False)
    assert (found.notes, expected.notes) == ((), ())
    torch.testing.assert_close(numbers(found), numbers(expected), rtol=1e-12, atol=1e-15)
    if command != "forward":
        # There the tensors have names and shapes, which are those of the layer.
        assert [list(row) for row in found.rows] == [list(row) for row in expected.rows]
    assert "saw 2 steps of 6 sequences, as --batch-first" in swapped.notes[0]
    # What it saw is what the other layout sees of the exchanged input.
    exchanged = ask(twin, x.transpose(0, 1))
    torch.testing.assert_close(numbers(swapped), numbers(exchanged), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_question_refuses_hand_written_weights_over_the_sequences(command):
    _, model = made("matrices")
    x = torch.randn(3, 6, D).double()
    with pytest.raises(ShapeError, match=r"^W saw 3 steps of 6 sequences; x has 3 sequences of 6 steps"):
        COMMANDS[command](model, x, time_first="checked")
    itself = Model(lambda m, x: m.inner(x.transpose(0, 1)).transpose(0, 1), inner=model)
    found, expected = COMMANDS[command](model, x, time_first=True), COMMANDS[command](itself, x)
    torch.testing.assert_close(numbers(found), numbers(expected), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("command", COMMANDS)
def test_in_python_gradients_refuse_it_by_themselves_and_what_only_looks_says_it(command, kind):
    model, _ = twins(kind, D, H)
    ask, x = COMMANDS[command], torch.randn(2, 6, D).double()
    if command in ("gradnorm", "flow", "truncation"):
        with pytest.raises(ShapeError, match="saw 2 steps of 6 sequences; x has 2 sequences of 6 steps"):
            ask(model, x)
    else:
        (note,) = ask(model, x).notes
        assert "saw 2 steps of 6 sequences, the input has 2 sequences of 6 steps. Try time_first=True" in note


@pytest.mark.parametrize("command", COMMANDS)
def test_our_own_network_takes_batch_first_alone(command):
    model, x = rnnctl.FullRNN(D, H, 2), torch.randn(2, 6, D)
    with pytest.raises(InputError, match=r"time_first is for other models; a rnnctl\.FullRNN"):
        COMMANDS[command](model, x, time_first=True)
    COMMANDS[command](model, x, time_first=False)


# ---- the loss, the target and lengths mean what they say ----------------------------------------


@pytest.mark.parametrize("loss_at", ["last", "all"])
@pytest.mark.parametrize("target", ["over time", "none"])
def test_loss_and_target_are_of_the_inputs_axes(loss_at, target):
    x, over_time = torch.randn(3, 6, D).double(), torch.randn(3, 6, H).double()
    given = {"target": {"over time": over_time, "none": None}[target], "loss_at": loss_at}
    model, twin = twins(nn.GRU, D, H)
    found, expected = rnnctl.gradnorm(model, x, time_first=True, **given), rnnctl.gradnorm(twin, x, **given)
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)
    torch.testing.assert_close(numbers(found), numbers(expected), rtol=1e-12, atol=1e-15)


def test_a_target_goes_with_what_the_model_saw_where_that_is_meant():
    x, target = torch.randn(3, 6, D).double(), torch.randn(3, 6, H).double()
    model, twin = twins(nn.GRU, D, H)
    found = rnnctl.gradnorm(model, x, target=target, time_first=False)
    expected = rnnctl.gradnorm(twin, x.transpose(0, 1), target=target.transpose(0, 1))
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)


def test_a_loss_of_the_users_own_takes_the_output_turned_back_or_as_it_was():
    x, (model, _) = torch.randn(3, 6, D).double(), twins(nn.GRU, D, H)
    shapes = []

    def loss(output, _):
        shapes.append(tuple(output.shape))
        return output.square().mean()

    for given, time_first in ((x, True), (x, False), (x.transpose(0, 1), False)):
        rnnctl.gradnorm(model, given, loss_fn=loss, time_first=time_first)
    assert shapes == [(3, 6, H), (3, 6, H), (6, 3, H)]
    expected = model(x.transpose(0, 1)).square().mean()
    assert rnnctl.gradnorm(model, x, loss_fn=loss, time_first=True).loss == pytest.approx(expected.item(), rel=1e-12)


class Packing(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.rnn = nn.GRU(D, H, batch_first=batch_first)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=self.rnn.batch_first, enforce_sorted=False)
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=self.rnn.batch_first)[0]


@pytest.mark.parametrize("loss_at", ["last", "all"])
def test_lengths_are_those_of_the_sequences(loss_at):
    model, twin = Packing(False).double(), Packing(True).double()
    twin.load_state_dict(model.state_dict())
    x, lengths = torch.randn(4, 6, D).double(), torch.tensor([6, 2, 5, 1])
    found = rnnctl.gradnorm(model, x, lengths=lengths, loss_at=loss_at, time_first=True)
    expected = rnnctl.gradnorm(twin, x, lengths=lengths, loss_at=loss_at)
    assert (found.notes, expected.notes) == ((), ())
    torch.testing.assert_close(numbers(found), numbers(expected), rtol=1e-12, atol=1e-15)


def test_lengths_of_sequences_that_are_the_models_steps_are_refused():
    model, _ = twins(nn.GRU, D, H)
    x, lengths = torch.randn(4, 6, D).double(), torch.tensor([6, 2, 5, 1])
    with pytest.raises(ShapeError, match="saw 4 steps of 6 sequences"):
        rnnctl.gradnorm(model, x, lengths=lengths)
    with pytest.raises(InputError, match="lengths count steps of sequences, and the model ran over the sequences"):
        rnnctl.gradnorm(model, x, lengths=lengths, time_first=False)


# ---- where it is no mistake ---------------------------------------------------------------------


def gru(inputs=D, **options):
    return nn.GRU(inputs, H, batch_first=True, **options)


def truncated(m, x):
    h, states = None, []
    for window in x.split(3, 1):
        y, h = m.rnn(window, h)
        h = h.detach()
        states.append(y)
    return torch.cat(states, 1)


def decoded(m, x):
    h = m.encoder(x)[1][0]
    y, states = torch.zeros_like(h), []
    for _ in range(3):
        h = m.cell(y, h)
        y = h
        states.append(h)
    return torch.stack(states, 1)


def of_words(m, x):
    """Words of three numbers in every step, one layer over either."""
    words = m.words(x.reshape(-1, D, 1))[1][-1]
    return m.rnn(words.view(*x.shape[:2], -1))[0]


LEGITIMATE = {
    "batch first": (over_layer, lambda: {"rnn": gru()}),
    "deep both ways": (over_layer, lambda: {"rnn": gru(num_layers=2, bidirectional=True)}),
    "behind a map": (lambda m, x: m.rnn(m.front(x))[0], lambda: {"rnn": gru(), "front": nn.Linear(D, D)}),
    "turned by itself": (lambda m, x: m.rnn(x.transpose(0, 1))[0], lambda: {"rnn": nn.LSTM(D, H)}),
    "turned behind a map": (
        lambda m, x: m.rnn(m.front(x).transpose(0, 1))[0],
        lambda: {"rnn": nn.LSTM(D, H), "front": nn.Linear(D, D)},
    ),
    "strided": (
        lambda m, x: m.rnn(m.front(x.transpose(1, 2)).transpose(1, 2))[0],
        lambda: {"rnn": gru(), "front": nn.Conv1d(D, D, 2, 2)},
    ),
    "strided and turned": (
        lambda m, x: m.rnn(m.front(x.transpose(1, 2)).permute(2, 0, 1))[0],
        lambda: {"rnn": nn.RNN(D, H), "front": nn.Conv1d(D, D, 2, 2)},
    ),
    "every second step": (lambda m, x: m.rnn(x[:, ::2])[0], lambda: {"rnn": gru()}),
    "the last step alone": (lambda m, x: m.rnn(x[:, -1:])[0], lambda: {"rnn": gru()}),
    "truncated": (truncated, lambda: {"rnn": gru()}),
    "windows as sequences": (
        lambda m, x: m.rnn(x.reshape(2 * len(x), -1, D))[0],
        lambda: {"rnn": gru()},
    ),
    "one by one": (lambda m, x: torch.stack([m.rnn(each)[0] for each in x]), lambda: {"rnn": gru()}),
    "one by one behind a map": (
        lambda m, x: torch.stack([m.rnn(m.front(each))[0] for each in x]),
        lambda: {"rnn": nn.GRU(D, H), "front": nn.Linear(D, D)},
    ),
    "a decoder of its own": (decoded, lambda: {"encoder": gru(), "cell": nn.GRUCell(H, H)}),
    "words within steps": (of_words, lambda: {"words": gru(1), "rnn": gru(H)}),
    "siamese": (lambda m, x: m.rnn(x)[0] - m.rnn(x.flip(1))[0], lambda: {"rnn": gru()}),
    "cell": (lambda m, x: from_nothing(m, x.unbind(1)), lambda: {"cell": nn.LSTMCell(D, H)}),
    "cell with noise": (
        lambda m, x: looped(lambda m, x, h: m.cell(x, F.dropout(h, 0.1)))(m, x.transpose(0, 1)),
        lambda: {"cell": nn.GRUCell(D, H)},
    ),
    "matrices": (
        lambda m, x: looped(matrix)(m, x.transpose(0, 1)).transpose(0, 1),
        lambda: {name: weight(*shape) for name, shape in RAW.items()},
    ),
}


@pytest.mark.parametrize(("batch", "time"), [(1, 8), (3, 8), (4, 8), (8, 4), (8, 2)])
@pytest.mark.parametrize("name", LEGITIMATE)
def test_what_runs_over_time_is_neither_refused_nor_remarked_on(name, batch, time):
    function, parts = LEGITIMATE[name]
    result = rnnctl.gradnorm(Model(function, **parts()), torch.randn(batch, time, D), loss_fn=squares)
    if not (name == "windows as sequences" and time == 2):
        assert result.notes == ()


@pytest.mark.parametrize("name", ["batch first", "turned by itself", "cell", "one by one", "truncated"])
def test_of_as_many_steps_as_sequences_memory_tells_them_apart(name):
    function, parts = LEGITIMATE[name]
    assert rnnctl.gradnorm(Model(function, **parts()), torch.randn(6, 6, D), loss_fn=squares).notes == ()


@pytest.mark.parametrize("name", ["rnn", "cell", "step by step", "one by one", "deep both ways"])
def test_of_as_many_steps_as_sequences_a_view_of_the_input_gives_the_mistake_away(name):
    named, model = made(name)
    x = torch.randn(6, 6, D).double()
    said = rf"^{named} saw 6 steps of 6 sequences, its steps along the input's sequences; x has 6 sequences"
    with pytest.raises(ShapeError, match=said):
        rnnctl.gradnorm(model, x, loss_fn=squares)
    batch_first = Model(lambda m, x: m.inner(x.transpose(0, 1)), inner=model)
    with pytest.raises(ShapeError, match=r"By time_first=True \(--time-first\) the model was given \(time, batch"):
        rnnctl.gradnorm(batch_first, x, loss_fn=squares, time_first=True)


@pytest.mark.parametrize("name", ["behind a map", "matrices", "einsum", "a map of both", "units alone", "convolution"])
def test_where_nothing_tells_the_axes_apart_that_is_said(name):
    named, model = made(name)
    x = torch.randn(6, 6, D).double()
    batch_first = Model(lambda m, x: m.inner(x.transpose(0, 1)), inner=model)
    for each, prefix in ((model, ""), (batch_first, "inner.")):
        (note,) = rnnctl.gradnorm(each, x, loss_fn=squares).notes
        assert note.startswith(f"{prefix}{named} saw as many steps as sequences, 6: whether it ran over")
        # Whoever says which it is has no need of it.
        assert rnnctl.gradnorm(each, x, loss_fn=squares, time_first=False).notes == ()


def test_of_as_many_steps_as_sequences_a_layers_own_layout_is_taken_for_the_inputs():
    function, parts = LEGITIMATE["behind a map"]
    assert rnnctl.gradnorm(Model(function, **parts()), torch.randn(6, 6, D), loss_fn=squares).notes == ()


@pytest.mark.parametrize("name", TIME_FIRST)
def test_of_one_step_of_one_sequence_there_is_nothing_to_tell(name):
    _, model = made(name)
    x = torch.randn(1, 1, D).double()
    if name in COUNTED_BY_USES:
        with pytest.raises(InputError, match=r"no weight recurs in the pass that was run.* earlier use of it$"):
            rnnctl.gradnorm(model, x, loss_fn=squares)
    else:
        assert rnnctl.gradnorm(model, x, loss_fn=squares).notes == ()


@pytest.mark.parametrize(
    ("function", "saw"),
    [
        (lambda m, x: m.rnn(x.reshape(-1, 1, D))[0], "1 step of 24 sequences"),
        (lambda m, x: m.rnn(x.reshape(-1, D))[0], "24 steps of 1 sequence"),
        (lambda m, x: m.rnn(x[:3].transpose(0, 1))[0], "3 steps of 6 sequences"),
    ],
)
def test_what_is_neither_time_nor_the_sequences_is_told(function, saw):
    result = rnnctl.gradnorm(Model(function, rnn=gru()), torch.randn(4, 6, D), loss_fn=squares)
    assert result.notes == (f"rnn.weight_hh_l0 saw {saw}; the input has 4 sequences of 6 steps",)


def continued(m, x):
    """Beyond what it was given a model goes on by itself."""
    y, h = m.rnn(x)
    states = [y[-1:]]
    for _ in range(3):
        y, h = m.rnn(states[-1][..., :D], h)
        states.append(y)
    return torch.cat(states)


def test_a_model_that_goes_on_by_itself_is_looked_at_where_it_was_given_something():
    model, x = Model(continued, rnn=nn.GRU(D, H)), torch.randn(4, 6, D)
    with pytest.raises(ShapeError, match="saw 4 steps of 6 sequences; x has 4 sequences of 6 steps"):
        rnnctl.gradnorm(model, x, loss_fn=squares)
    found = rnnctl.gradnorm(model, x, loss_fn=squares, time_first=True)
    assert (len(found.rows), found.notes) == (9, ())


# ---- weights of which one use is seen -----------------------------------------------------------


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "forward"])
@pytest.mark.parametrize("name", ["matrices", "a map of both"])
def test_of_one_sequence_a_hand_written_loop_takes_one_step_which_is_said(command, name):
    _, model = made(name)
    x = torch.randn(1, 6, D).double()
    said = r"the input's 1 sequence of 6 steps are 1 step of 6 sequences: is this one\? Then try time_first=True"
    with pytest.raises(InputError, match=said):
        COMMANDS[command](model, x)
    with pytest.raises(InputError, match=r"^(?!.*time_first).*$"):
        COMMANDS[command](model, x, time_first=False)


def without_a_start(m, x):
    h, states = None, []
    for x_t in x:
        h = torch.tanh(x_t @ m.U + (0 if h is None else h @ m.W))
        states.append(h)
    return torch.stack(states)


def test_a_first_step_without_a_state_uses_no_recurrent_weight():
    model = Model(without_a_start, U=weight(D, H), W=weight(H, H))
    with pytest.raises(ShapeError, match="^W saw 3 steps of 6 sequences; x has 4 sequences of 6 steps"):
        rnnctl.gradnorm(model, torch.randn(4, 6, D), loss_fn=squares)
    with pytest.raises(InputError, match=r"2 sequences of 6 steps are 2 steps of 6 sequences: is this one\?"):
        rnnctl.gradnorm(model, torch.randn(2, 6, D), loss_fn=squares)
    assert len(rnnctl.gradnorm(model, torch.randn(4, 6, D), loss_fn=squares, time_first=True).rows) == 5


def test_further_axes_of_a_state_are_not_taken_for_sequences():
    """As many heads as steps, of which every second is left out: as many as sequences."""

    def heads(m, x):
        h = x.new_zeros(len(x), 8, H)
        for x_t in x[:, ::2].unbind(1):
            h = torch.tanh(h * m.a + (x_t @ m.U).unsqueeze(1))
        return h

    model = Model(heads, U=weight(D, H), a=weight(H))
    found = rnnctl.gradnorm(model, torch.randn(4, 8, D), loss_fn=squares)
    assert (len(found.rows), found.notes) == (4, ())


def test_a_forward_pass_in_which_nothing_recurs_says_what_may_be_the_reason():
    _, model = made("matrices")
    (note,) = sequence_shapes(model, torch.randn(1, 6, D).double()).notes
    assert note.startswith("nothing recurs in this pass. To a model that takes (time, batch, ...)")
    assert sequence_shapes(model, torch.randn(1, 6, D).double(), time_first=True).notes == ()


# ---- several inputs, and what a model returns ---------------------------------------------------


class Translator(nn.Module):
    def __init__(self, batch_first=False):
        super().__init__()
        self.encoder = nn.GRU(D, H, batch_first=batch_first)
        self.decoder = nn.GRU(2, H, batch_first=batch_first)

    def forward(self, source, target, mask=None):
        if mask is not None:
            assert mask.shape == source.shape[:2]
        return self.decoder(target, self.encoder(source)[1])[0]


@pytest.mark.parametrize("masked", [False, True])
def test_a_decoders_input_and_a_mask_are_turned_with_the_sequences(masked):
    model, twin = Translator().double(), Translator(True).double()
    twin.load_state_dict(model.state_dict())
    x = {"source": torch.randn(3, 7, D).double(), "target": torch.randn(3, 5, 2).double()}
    x |= {"mask": torch.ones(3, 7, dtype=torch.bool)} if masked else {}
    found, expected = rnnctl.gradnorm(model, x, time_first=True), rnnctl.gradnorm(twin, x)
    assert (found.notes, expected.notes) == ((), ())
    torch.testing.assert_close(numbers(found), numbers(expected), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("time_first", [None, False])
def test_a_model_that_fails_for_its_exchanged_axes_says_so(time_first):
    """The decoder's states are as many as the source has steps."""
    x = (torch.randn(3, 7, D), torch.randn(3, 5, 2))
    error, said = (
        (ShapeError, "encoder.weight_hh_l0 saw 3 steps of 7") if time_first is None else (RuntimeError, "hidden")
    )
    with pytest.raises(error, match=said):
        rnnctl.gradnorm(Translator(), x, time_first=time_first)


def test_a_state_among_the_inputs_stays_as_it_is():
    model, twin = twins(nn.GRU, D, H, num_layers=2)
    model.function = twin.function = lambda m, x, h: m.rnn(x, h)[0]
    x = (torch.randn(3, 6, D).double(), torch.randn(2, 3, H).double())
    found, expected = rnnctl.gradnorm(model, x, time_first=True), rnnctl.gradnorm(twin, x)
    torch.testing.assert_close(numbers(found), numbers(expected), rtol=1e-12, atol=1e-15)


def test_tensors_whose_axes_cannot_be_told_are_refused():
    x = torch.randn(2, 6, D)
    for other, either in ((torch.randn(2, 2, H), "(layers, batch, ...)"), (torch.randn(2, 6), "(batch, features)")):
        with pytest.raises(ShapeError, match=r"which may be \(batch, time") as raised:
            Inputs((x, other)).turned()
        assert either in str(raised.value)
    # Vectors of each sequence, numbers of another length, and lengths are told.
    kept = (torch.randn(2, 4), torch.randn(3, 2, H), torch.tensor([6, 4]))
    assert [each.shape for each in Inputs((x, *kept)).turned().args] == [(6, 2, D), *(each.shape for each in kept)]
    assert Inputs((x, torch.ones(2, 9, dtype=torch.long))).turned().args[1].shape == (9, 2)


def test_series_without_features_are_sequences():
    model = Model(lambda m, x: m.rnn(x.unsqueeze(-1))[0], rnn=nn.GRU(1, H))
    with pytest.raises(ShapeError, match=r"saw 3 steps of 7 sequences; x has 3 sequences of 7 steps"):
        rnnctl.gradnorm(model, torch.randn(3, 7), loss_fn=squares)
    assert len(rnnctl.gradnorm(model, torch.randn(3, 7), loss_fn=squares, time_first=True).rows) == 7


def test_vectors_before_tokens_are_not_taken_for_sequences():
    """A picture's features, and its caption."""
    model = Model(lambda m, v, x: m.rnn(m.e(x))[0] + v[:, None, :1], e=nn.Embedding(9, D), rnn=gru())
    x = (torch.randn(3, 4), torch.randint(9, (3, 6)))
    assert rnnctl.gradnorm(model, x, loss_fn=squares).notes == ()
    model = Model(lambda m, v, x: m.rnn(m.e(x))[0] + v[None, :, :1], e=nn.Embedding(9, D), rnn=nn.GRU(D, H))
    with pytest.raises(ShapeError, match=r"saw 3 steps of 6 sequences; x has 3 sequences of 6 steps"):
        rnnctl.gradnorm(model, x, loss_fn=lambda output, _: output.sum())
    assert len(rnnctl.gradnorm(model, x, loss_fn=squares, time_first=True).rows) == 6


def test_a_model_may_look_at_its_input_by_views():
    model = Model(lambda m, x: m.rnn(x.view(len(x), -1).view(len(x), -1, D))[0], rnn=nn.GRU(D, H))
    assert len(rnnctl.gradnorm(model, torch.randn(3, 6, D), time_first=True).rows) == 6


Pair = namedtuple("Pair", "y h")


def test_of_what_a_model_returns_that_over_time_is_turned_back():
    y, state, last, numbers_of_steps = torch.randn(6, 2, H), torch.randn(6, 2, H), torch.randn(2, H), torch.randn(6, 2)
    found = turned_back({"a": (y, [numbers_of_steps]), "b": Pair(last, state), "c": "text"}, [(2, 6)], [state])
    assert torch.equal(found["a"][0], y.transpose(0, 1))
    assert torch.equal(found["a"][1][0], numbers_of_steps.T)
    assert found["b"] == Pair(last, state)
    assert found["c"] == "text"


def test_states_of_as_many_layers_as_steps_are_not_turned():
    model = Model(lambda m, x: m.rnn(x), rnn=nn.GRU(D, H, 4))
    shapes = []

    def loss(output, _):
        shapes.extend(tuple(each.shape) for each in output)
        return output[1].square().sum()

    x = torch.randn(2, 4, D)
    found = rnnctl.gradnorm(model, x, loss_fn=loss, time_first=True)
    assert shapes == [(2, 4, H), (4, 2, H)]
    assert found.loss == pytest.approx(model(x.transpose(0, 1))[1].square().sum().item())


def test_a_bare_layer_is_time_first_by_itself_and_a_subclass_may_say_otherwise():
    layer, x = nn.GRU(D, H), torch.randn(3, 6, D)
    assert numbers(rnnctl.gradnorm(layer, x)).equal(numbers(rnnctl.gradnorm(layer, x, time_first=True)))
    assert "saw 3 steps of 6 sequences, as --batch-first" in rnnctl.gradnorm(layer, x, time_first=False).notes[0]
    assert rnnctl.gradnorm(layer, torch.randn(6, 6, D)).notes == ()

    class Turning(nn.GRU):
        def forward(self, x):
            return super().forward(x.transpose(0, 1))[0]

    own = Turning(D, H)
    said = r"saw 3 steps of 6 .* Being a layer that is not batch_first, .* seems to take \(batch, time, \.\.\.\)"
    with pytest.raises(ShapeError, match=said):
        rnnctl.gradnorm(own, x)
    assert rnnctl.gradnorm(own, x, time_first=False).notes == ()


def test_around_the_users_own_code_there_is_nothing_to_compare():
    model, _ = twins(nn.GRU, D, H)
    with rnnctl.probe(model) as trace:
        model(torch.randn(3, 6, D).double()).sum().backward()
    assert len(trace["rnn.weight_hh_l0"].grad_norm_W_hh) == 3


def test_nothing_of_a_run_stays_on_the_model():
    model, _ = twins(nn.GRU, D, H)
    forward = nn.GRU.forward
    with pytest.raises(ShapeError, match="saw 3 steps of 6"):
        rnnctl.gradnorm(model, torch.randn(3, 6, D).double())
    assert nn.GRU.forward is forward
    assert all(each.grad is None for each in model.parameters())
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


# ---- the shell ----------------------------------------------------------------------------------

MINE = """
import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, batch_first=False):
        super().__init__()
        self.rnn = nn.RNN(3, 8, batch_first=batch_first)

    def forward(self, x):
        return self.rnn(x)[0]


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.rnn, self.head = nn.Embedding(9, 3), nn.LSTM(3, 4), nn.Linear(4, 9)

    def forward(self, x):
        return self.head(self.rnn(self.embedding(x))[0])


class Front(Model):
    def forward(self, x):
        return self.rnn(torch.relu(x))[0]


def tokens():
    return (torch.arange(28).reshape(4, 7) % 9,)
"""


@pytest.fixture
def run(capsys, monkeypatch, tmp_path: Path) -> Iterator[Run]:
    (tmp_path / "mine.py").write_text(MINE)
    torch.save(torch.randn(1, 30, 3), tmp_path / "x.pt")
    torch.save(torch.randn(4, 7, 3), tmp_path / "several.pt")
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_it_with_its_flags(run: Run, command: str) -> None:
    ran = run(f"{command} --model mine:Model --input x.pt")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "Error: rnn.weight_hh_l0 saw 1 step of 30 sequences; --input has 1 sequence of 30 steps. Try --time-first if "
        "the model takes (time, batch, ...), or --batch-first if its steps are meant to be the sequences\n"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_answers_with_either_flag(run: Run, command: str) -> None:
    line = f"{command} --model mine:Model --input several.pt --dtype float64"
    turned, meant = run(f"{line} --time-first"), run(f"{line} --batch-first")
    assert (turned.code, turned.err, meant.code) == (0, "", 0)
    note = "rnn.weight_hh_l0 saw 4 steps of 7 sequences, as --batch-first (time_first=False) takes it; the input has 4"
    assert meant.err == f"Note: {note} sequences of 7 steps\n"
    assert run(f"{line} --batch-first --quiet").err == ""
    found = document(run(f"{line} --time-first --json"))
    expected = document(run(f"{line} --model-arg batch_first=true --json"))
    assert all(found["config"][name] != expected["config"][name] for name in ("time_first", "model_arg"))
    if command != "forward":
        # There the tensors' shapes are those of the layer.
        torch.testing.assert_close(floats(found["rows"]), floats(expected["rows"]), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("command", COMMANDS)
def test_data_of_flags_makes_the_same_mistake(run: Run, command: str) -> None:
    ran = run(f"{command} --model mine:Model --input-size 3 --seq-len 7 --batch-size 4")
    assert (ran.code, ran.out) == (2, "")
    assert "rnn.weight_hh_l0 saw 4 steps of 7 sequences; the random input has 4 sequences of 7 steps" in ran.err
    assert run(f"{command} --model mine:Model --input-size 3 --seq-len 7 --batch-size 4 --time-first").code == 0


def test_tokens_are_turned_alike(run: Run) -> None:
    ran = run("gradnorm --model mine:Tokens --batch mine:tokens")
    assert ran.code == 2
    assert "rnn.weight_hh_l0 saw 4 steps of 7 sequences; --batch mine:tokens has 4 sequences of 7 steps" in ran.err
    assert len(document(run("gradnorm --model mine:Tokens --batch mine:tokens --time-first --json"))["rows"]) == 7


def test_what_is_not_known_is_a_note_beside_the_answer(run: Run) -> None:
    ran = run("gradnorm --model mine:Front --input-size 3 --seq-len 5 --batch-size 5 --json")
    assert (ran.code, len(document(ran)["rows"])) == (0, 5)
    assert ran.err.startswith("Note: rnn.weight_hh_l0 saw as many steps as sequences, 5: whether it ran over")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--model mine:Model --input x.pt --time-first --batch-first", "contradict each other; give one of them"),
        ("--time-first", "--time-first is about --model, which is not given"),
        ("--cell lstm --batch-first", "--batch-first is about --model, which is not given"),
        (
            "--model mine:Model --model-arg batch_first=true --input several.pt --time-first",
            "By --time-first the model",
        ),
    ],
)
def test_flags_that_say_nothing_or_the_wrong_thing_are_refused(run: Run, line: str, said: str) -> None:
    ran = run(f"gradnorm {line}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_the_environment_and_files_say_it_as_well(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.toml").write_text("[gradnorm]\ntime-first = true\n")
    line = "gradnorm --model mine:Model --input several.pt --json"
    found = [run(f"{line} --config settings.toml")]
    monkeypatch.setenv("RNNCTL_TIME_FIRST", "1")
    found.append(run(line))
    assert [len(document(each)["rows"]) for each in found] == [7, 7]


@pytest.mark.parametrize("by", [lambda h: h.mean(), lambda h: h.mean(0), lambda h: h.sum(0)[:, None]])
def test_a_weight_that_is_scaled_by_the_state_has_axes_of_its_own_alone(by):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.W, self.into = nn.Parameter(0.5 * torch.randn(H, H)), nn.Linear(D, H)

        def forward(self, x):
            h, found = x.new_zeros(len(x), H), []
            for x_t in x.unbind(1):
                h = torch.tanh(self.into(x_t) + h @ (self.W * by(h)))
                found.append(h)
            return torch.stack(found, 1)

    torch.manual_seed(0)
    found = rnnctl.gradnorm(Scaled().double(), torch.randn(2, 5, D, dtype=torch.float64))
    assert found.weights["W"].agrees is True
