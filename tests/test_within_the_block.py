"""What people do to their models within the block of a probe goes as without it: compilers, tracers, copies, passes."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.jit import script as scripted
from torch.utils.checkpoint import checkpoint

import rnnctl
from rnnctl.errors import InputError

X = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))


class Hand(nn.Module):
    """A cell that is nobody's class."""

    def __init__(self) -> None:
        super().__init__()
        self.wx, self.wh = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x):
        h = x.new_zeros(x.shape[1], 4)
        for i in range(x.shape[0]):
            h = torch.tanh(self.wx(x[i]) + self.wh(h))
        return h


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x):
        h = x.new_zeros(x.shape[1], 4)
        for i in range(x.shape[0]):
            h = self.cell(x[i], h)
        return h


MODELS = {Hand: "wh.weight", Tagger: "rnn.weight_hh_l0", Loop: "cell.weight_hh"}
each_model = pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)


def quietly(function):
    """Scripts and traces are told to be out of date."""

    def called(model):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(model)

    return called


def fake(model):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return tuple(model(mode.from_tensor(X)).shape)


def saved(model):
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return len(buffer.getvalue())


ACTS = {
    "script": quietly(lambda model: torch.jit.script(model)(X).sum().item()),
    "trace": quietly(lambda model: torch.jit.trace(model, X)(X).sum().item()),
    "export": quietly(lambda model: torch.export.export(model, (X,)).module()(X).sum().item()),
    "fake": fake,
    "meta": lambda model: tuple(copy.deepcopy(model).to("meta")(X.to("meta")).shape),
    "deepcopy": lambda model: copy.deepcopy(model)(X).sum().item(),
    "pickle": lambda model: pickle.loads(pickle.dumps(model))(X).sum().item(),
    "save": saved,
}


@each_model
@pytest.mark.parametrize("act", ACTS)
def test_what_reads_or_copies_a_model_does_so_as_without_the_probe(kind, act):
    torch.manual_seed(0)
    model = kind()
    expected = ACTS[act](model)
    with rnnctl.probe(model) as trace:
        found = ACTS[act](model)
        model(X).square().sum().backward()
    assert found == expected
    assert len(trace[MODELS[kind]].grad_norm_W_hh) == 5
    assert trace[MODELS[kind]].agrees


@each_model
def test_a_model_with_eager_pieces_is_probed_through_a_compiled_one(kind):
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = kind()
        compiled = torch.compile(model, backend="eager")
        with rnnctl.probe(model) as trace:
            compiled(X).square().sum().backward()
        with rnnctl.probe(model) as plain:
            model(X).square().sum().backward()
    torch._dynamo.reset()
    torch.testing.assert_close(
        trace[MODELS[kind]].grad_norm_W_hh, plain[MODELS[kind]].grad_norm_W_hh, rtol=1e-5, atol=0
    )


def test_a_graph_that_is_compiled_as_a_whole_is_refused_with_the_cause():
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Hand()
        compiled = torch.compile(model, backend="aot_eager")
        with pytest.raises(InputError, match="compiled graph"), rnnctl.probe(model):
            compiled(X).sum().backward()
        with pytest.raises(InputError, match="is compiled .torch.compile."), rnnctl.probe(compiled):
            compiled(X).sum().backward()
    torch._dynamo.reset()


@each_model
def test_what_is_made_of_a_model_within_the_block_has_nothing_of_ours(kind, tmp_path):
    torch.manual_seed(0)
    model = kind()
    plain = pickle.dumps(model)
    with rnnctl.probe(model) as trace, rnnctl.watch(model, to=tmp_path / "run.jsonl"):
        model(X).sum().backward()
        copied, dumped, script = copy.deepcopy(model), pickle.dumps(model), quietly(scripted)(model)
        trained = pickle.loads(dumped)
        for each in (copied, trained):
            each(X).sum().backward()
        # It has the very parameters of the model.
        with torch.no_grad():
            assert torch.equal(script(X), model(X))
    assert dumped == plain
    assert trace[MODELS[kind]].agrees
    assert len(trace[MODELS[kind]].grad_norm_W_hh) == 5
    for each in (copied, trained, script):
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in each.modules())
    with rnnctl.probe(copied) as again:
        copied(X).sum().backward()
    assert torch.equal(again[MODELS[kind]].grad_norm_W_hh, trace[MODELS[kind]].grad_norm_W_hh)


# Functions that were compiled before the block.


class Cells(nn.Module):
    """One that is called, one inside a compiled function, one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.inside, self.never = nn.GRUCell(3, 4), nn.LSTMCell(4, 4), nn.LSTMCell(4, 4)

    def forward(self, x, inside):
        h = x.new_zeros(x.shape[1], 4)
        for x_t in x:
            h = self.plain(x_t, h)
        return inside(h)[0]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_cell_inside_a_function_that_was_compiled_before_is_said_to_be_there(backend):
    torch._dynamo.reset()
    model = Cells()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(lambda h: model.inside(h), backend=backend)
        model(X, compiled).sum().backward()
        with rnnctl.probe(model) as trace:
            model(X, compiled).sum().backward()
        with rnnctl.probe(model) as eager, torch.compiler.set_stance("force_eager"):
            model(X, compiled).sum().backward()
    torch._dynamo.reset()
    assert list(trace) == ["plain.weight_hh"]
    assert trace.missing["inside.weight_hh"].startswith("it was called inside a compiled function (torch.compile)")
    assert "torch.compiler.set_stance('force_eager')" in trace.missing["inside.weight_hh"]
    assert "was not called within the block, or it was called inside" in trace.missing["never.weight_hh"]
    assert list(eager) == ["plain.weight_hh", "inside.weight_hh"]


@pytest.mark.parametrize("kind", [Hand, Loop], ids=lambda kind: kind.__name__)
def test_a_compiled_function_of_which_nothing_is_seen_is_said_to_be_one(kind):
    torch._dynamo.reset()
    model = kind()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(lambda x: model(x), backend="aot_eager")
        compiled(X).sum().backward()
        with pytest.raises(InputError, match="called inside a compiled function.*force_eager"), rnnctl.probe(model):
            compiled(X).sum().backward()
    torch._dynamo.reset()


def test_where_nothing_was_compiled_there_is_one_reason_alone(monkeypatch):
    monkeypatch.setattr("rnnctl.gradients.probed._has_compiled", lambda: False)
    model = Cells()
    with rnnctl.probe(model) as trace:
        h = model(X, lambda h: (h,))
        (h @ model.inside.weight_hh.t()).sum().backward()
    assert trace.missing["never.weight_hh"] == "it was not called within the block"
    assert (
        trace.missing["inside.weight_hh"]
        == "no call of it was seen, and its weight was used by other code than its forward"
    )


class Dropped(nn.LSTM):
    """Its own forward gives torch's something else than it was given."""

    def forward(self, x, hx=None):
        return super().forward(2 * x, hx)


class Never(nn.GRU):
    def forward(self, x):
        return x @ self.weight_ih_l0.t()


class Direct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 4)

    def forward(self, x):
        return self.rnn.forward(x)[0]


def test_a_subclass_that_runs_torchs_own_forward_is_probed():
    torch.manual_seed(0)
    model = Dropped(3, 4).double()
    plain = nn.LSTM(3, 4).double()
    plain.load_state_dict(model.state_dict())
    with rnnctl.probe(model) as trace:
        model(X.double())[0].square().sum().backward()
    with rnnctl.probe(plain) as expected:
        plain(2 * X.double())[0].square().sum().backward()
    assert trace["weight_hh_l0"].states_agree
    torch.testing.assert_close(
        trace["weight_hh_l0"].grad_norm_W_hh, expected["weight_hh_l0"].grad_norm_W_hh, rtol=1e-12, atol=0
    )
    assert nn.LSTM.forward.__module__ == "torch.nn.modules.rnn"


def test_a_forward_that_is_called_directly_is_probed():
    with rnnctl.probe(model := Direct()) as trace:
        model(X).square().sum().backward()
    assert trace["rnn.weight_hh_l0"].agrees
    assert len(trace["rnn.weight_hh_l0"].grad_norm_W_hh) == 5


def test_a_subclass_that_never_comes_to_torchs_forward_is_refused():
    model = Never(3, 4)
    with pytest.raises(InputError, match="Never with a forward of its own that never runs"), rnnctl.probe(model):
        model(X).sum().backward()


def test_an_error_of_ours_is_a_reason_and_not_the_users(monkeypatch):
    def failing(call, rng):
        if call.module.num_layers == 2:
            raise ZeroDivisionError("a bug")
        return ()

    model = nn.ModuleDict({"a": nn.GRU(3, 4, 2), "b": nn.GRU(3, 4)})
    monkeypatch.setattr("rnnctl.models.recording.layers_below", failing)
    with rnnctl.probe(model) as trace:
        (model["a"](X)[0].sum() + model["b"](X)[0].sum()).backward()
    assert "ZeroDivisionError: a bug" in trace.missing["a.weight_hh_l0"]


@pytest.mark.parametrize("first", [4, 1, 2])
def test_two_passes_through_one_graph_are_as_one_of_both_losses(first):
    class Outputs(Hand):
        def forward(self, x):
            h, outs = torch.zeros(x.shape[1], 4, dtype=x.dtype), []
            for x_t in x:
                h = torch.tanh(self.wx(x_t) + self.wh(h))
                outs.append(h)
            return outs

    torch.manual_seed(0)
    model, x = Outputs().double(), X.double()
    with rnnctl.probe(model) as trace:
        outs = model(x)
        outs[first].sum().backward(retain_graph=True)
        outs[5 - 1 - first].square().sum().backward()
    twin = copy.deepcopy(model)
    twin.zero_grad()
    with rnnctl.probe(twin) as expected:
        outs = twin(x)
        (outs[first].sum() + outs[5 - 1 - first].square().sum()).backward()
    found, one = trace["wh.weight"], expected["wh.weight"]
    for name in ("grad_norm_W_hh", "grad_norm_h", "grad_norm_h_direct", "grad_norm_state", "grad_W_hh"):
        torch.testing.assert_close(getattr(found, name), getattr(one, name), rtol=1e-9, atol=1e-14)
    assert found.agrees


def test_checkpoints_that_are_run_again_are_counted_once():
    torch.manual_seed(0)
    model = Hand()

    def run(wrapped):
        h = torch.zeros(2, 4)
        for x_t in X:
            h = wrapped(lambda x_t, h: torch.tanh(model.wx(x_t) + model.wh(h)), x_t, h)
        return h

    with rnnctl.probe(model) as trace:
        run(lambda step, *args: checkpoint(step, *args, use_reentrant=False)).sum().backward()
    with rnnctl.probe(model) as plain:
        run(lambda step, *args: step(*args)).sum().backward()
    assert torch.equal(trace["wh.weight"].grad_norm_W_hh, plain["wh.weight"].grad_norm_W_hh)
    with pytest.raises(InputError, match="use_reentrant=False"), rnnctl.probe(model):
        inputs = X.clone().requires_grad_()
        h = torch.zeros(2, 4)
        for x_t in inputs:
            h = checkpoint(lambda x_t, h: torch.tanh(model.wx(x_t) + model.wh(h)), x_t, h, use_reentrant=True)
        h.sum().backward()


@pytest.mark.parametrize("made", [False, True], ids=["leaves", "made"])
def test_parameters_that_are_handed_to_a_functional_call_stand_for_the_models(made):
    torch.manual_seed(0)
    model = Hand().double()
    leaves = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    given = {name: 1.5 * p for name, p in leaves.items()} if made else leaves
    with rnnctl.probe(model) as trace:
        torch.func.functional_call(model, given, (X.double(),)).square().sum().backward()
    twin = Hand().double()
    twin.load_state_dict({name: p.detach() for name, p in given.items()})
    with rnnctl.probe(twin) as expected:
        twin(X.double()).square().sum().backward()
    torch.testing.assert_close(
        trace["wh.weight"].grad_norm_W_hh, expected["wh.weight"].grad_norm_W_hh, rtol=1e-12, atol=0
    )
    assert trace["wh.weight"].agrees


def test_autocast_allows_for_its_own_rounding():
    model = Hand()
    with rnnctl.probe(model) as trace:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(X).float().square().sum()
        loss.backward()
    assert trace["wh.weight"].autograd_tolerance == 5e-2
    assert trace["wh.weight"].agrees


@pytest.mark.parametrize("penalty", [lambda w: w.square().sum(), lambda w: w.norm()], ids=["squares", "norm"])
def test_a_penalty_on_the_weight_is_no_step_and_part_of_the_sum(penalty):
    torch.manual_seed(0)
    model = Hand().double()
    with rnnctl.probe(model) as trace:
        (model(X.double()).square().sum() + penalty(model.wh.weight)).backward()
    found = trace["wh.weight"]
    assert len(found.grad_norm_W_hh) == 5
    assert found.agrees
    torch.testing.assert_close(found.grad_W_hh, model.wh.weight.grad, rtol=1e-12, atol=1e-14)


def test_a_graph_from_before_the_block_is_said_to_be_one():
    model = Hand()
    loss = model(X).sum()
    with pytest.raises(InputError, match="built before the block"), rnnctl.probe(model):
        loss.backward()


def test_double_backward_is_refused():
    model = Hand()
    with pytest.raises(InputError, match="create_graph=True"), rnnctl.probe(model):
        torch.autograd.grad(model(X).sum(), list(model.parameters()), create_graph=True)


class Scan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(3, 3))

    def forward(self, x):
        return torch.cumsum(x @ self.W, 0)


def test_a_weight_that_is_used_once_for_all_steps_is_said_to_be_so():
    model = Scan()
    with pytest.raises(InputError, match=r"W is used once for all steps \(a parallel scan"), rnnctl.probe(model):
        model(X).sum().backward()


# States that are shaped between two calls.

BETWEEN = {
    "as it is": lambda h: h,
    "masked": lambda h: h * torch.tensor([1.0, 0, 1, 1], dtype=h.dtype),
    "cloned": lambda h: h.clone(),
    "reshaped": lambda h: h.reshape(2, 2, 2).reshape(2, 4),
    "sliced": lambda h: torch.cat([h[:, :2], h[:, 2:]], 1),
    "normalised": lambda h: nn.functional.layer_norm(h, (4,)),
    "dropped": lambda h: nn.functional.dropout(h, 0.5),
}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell])
def test_what_a_later_call_of_a_cell_sends_back_is_not_from_outside(kind, between):
    torch.manual_seed(0)
    cell, states = kind(3, 4).double(), []
    with rnnctl.probe(cell) as trace:
        h, loss = torch.zeros(2, 4, dtype=torch.float64), 0
        for x_t in X.double():
            h = cell(x_t, h)
            h.retain_grad()
            states.append(h)
            loss = loss + (len(states) == 3) * h.square().sum()
            h = BETWEEN[between](h)
        (loss + h.sum()).backward()
    found = trace["weight_hh"]
    torch.testing.assert_close(
        found.grad_norm_h, torch.stack([state.grad.norm() for state in states]), rtol=1e-9, atol=0
    )
    expected = torch.zeros(5, dtype=torch.float64)
    expected[2], expected[-1] = (2 * states[2]).norm(), found.grad_norm_h[-1]
    torch.testing.assert_close(found.grad_norm_h_direct, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("between", ["as it is", "halved", "cloned"])
def test_what_a_later_call_of_a_layer_sends_back_is_not_from_outside(between, layers):
    torch.manual_seed(0)
    shaped = {"as it is": lambda h: h, "halved": lambda h: 0.5 * h, "cloned": lambda h: h.clone()}[between]
    layer, h = nn.GRU(3, 4, layers).double(), None
    with rnnctl.probe(layer) as trace:
        for x_t in X.double():
            output, h = layer(x_t.unsqueeze(0), h)
            h = shaped(h)
        output.square().sum().backward()
    top = trace[f"weight_hh_l{layers - 1}"]
    assert not top.grad_norm_h_direct[:-1].any()
    assert top.grad_norm_h_direct[-1] == pytest.approx(float(top.grad_norm_h[-1]), rel=1e-12)
    assert top.steps_per_chain == (5,)


def test_a_state_that_is_detached_begins_a_chain_of_its_own():
    cell = nn.GRUCell(3, 4)
    with rnnctl.probe(cell) as trace:
        h = cell(X[1], cell(X[0]))
        cell(X[3], cell(X[2], h.detach())).sum().backward()
    found = trace["weight_hh"]
    assert found.steps_per_chain[-1] == 2
    assert not found.grad_norm_W_hh[:2].any()
