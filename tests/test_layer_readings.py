"""Norms that are read from autograd where torch unrolls a layer: against clones of W_hh, and against the sweep."""

import json
import weakref

import pytest
import torch
from probe_oracles import ByClones, assert_same
from test_probe import Posed
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

import rnnctl
from rnnctl.gradients import layer_readings
from rnnctl.gradients.norm_book import NormBook, RowsBook, norm_of

ALWAYS, NEVER = -(1 << 62), 1 << 62
KINDS = {"tanh": nn.RNN, "relu": nn.RNN, "gru": nn.GRU}
SETTINGS = {
    "one layer": {},
    "no bias": {"bias": False},
    "the batch first": {"batch_first": True},
    "both directions": {"bidirectional": True},
    "three layers": {"num_layers": 3, "dropout": 0.4},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True, "dropout": 0.4, "batch_first": True},
    "two layers, no bias": {"num_layers": 2, "bias": False},
}


@pytest.fixture(autouse=True)
def read_at_every_size(monkeypatch):
    monkeypatch.setattr(layer_readings, "LEAST_WORK", ALWAYS)


def posed_as(kind, settings, loss, dtype=torch.float64, hx=None, layout=None):
    made = {"input_size": 3, "hidden_size": 5, "num_layers": 1, "bidirectional": False, **settings}
    if kind != "gru":
        made["nonlinearity"] = kind
    layout = layout or ("batch_first" if made.get("batch_first") else "padded")
    case = {"kind": kind, "made": made, "layout": layout, "lengths": None, "T": 7, "B": 4, "hx": hx, "loss": loss}
    return Posed({**case, "B": 1 if layout == "unbatched" else 4, "train": True, "seed": 3}, dtype)


def probed(step, model, **settings):
    torch.manual_seed(1)
    model.zero_grad()
    with rnnctl.probe(model, **settings) as trace:
        step(model)
    return trace


@pytest.mark.parametrize("loss", ["all", "last", "h_n", "all+h_n"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_step_of_every_layer_that_is_read_is_autograds(kind, settings, loss):
    posed = posed_as(kind, settings, loss, hx="leaf" if "+" in loss else None)
    trace = probed(lambda module: posed.loss(*posed.run(module)).backward(), posed.module)
    torch.manual_seed(1)
    expected, _ = posed.expected()
    assert list(trace) == list(expected)
    for name, weight in trace.items():
        assert weight.read_from == "autograd"
        assert_same(weight, expected[name])
        # Of a reverse direction that only its first step sends something back.
        comes = bool(expected[name]["W_hh"].any())
        assert weight.agrees is (True if comes else None)
        assert weight.autograd_relative_error is None if not comes else weight.autograd_relative_error <= 1e-12
        assert weight.magnitude == pytest.approx(float(expected[name]["W_hh"].sum()))
        assert weight.h_init_is_zero is (posed.hx is None)
        assert weight.steps_per_call == (posed.T,)


def test_an_unbatched_sequence_is_read():
    posed = posed_as("gru", {}, "all+h_n", layout="unbatched")
    (weight,) = probed(lambda module: posed.loss(*posed.run(module)).backward(), posed.module).values()
    assert weight.read_from == "autograd"
    assert_same(weight, posed.expected()[0]["weight_hh_l0"])


def test_what_is_read_has_no_states_to_compare_and_says_so():
    (weight,) = probed(at_all, nn.GRU(3, 4)).values()
    assert weight.recovered_error is None
    assert weight.states_agree is True
    assert "read from autograd" in weight.why["recovered_error"]


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU])
def test_a_weight_that_was_changed_past_its_version_is_swept_as_it_was(kind):
    """Backward multiplies with what it finds: that is no gradient of the pass, and it is said."""

    def changed(module):
        loss = module(torch.randn(9, 6, 3))[0].square().sum()
        module.weight_hh_l0.data.mul_(1.5)
        loss.backward()

    (weight,) = probed(changed, kind(3, 4)).values()
    assert (weight.read_from, weight.agrees) == ("sweep", False)


def test_a_weight_that_was_found_in_the_graph_is_read_from_autograd_too():
    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            self.W = nn.Parameter(torch.randn(4, 4) / 2)

        def forward(self, x):
            h = x.new_zeros(2, 4)
            for x_t in x:
                h = torch.tanh(x_t + h @ self.W)
            return h

    (weight,) = probed(lambda model: model(torch.randn(5, 2, 4)).square().sum().backward(), Raw()).values()
    assert weight.read_from == "autograd"
    assert "read from autograd" in weight.why["recovered_error"]


def at_all(model):
    (model(X)[0] ** 2).sum().backward()


def at_last(model):
    (model(X)[0][-1] ** 2).sum().backward()


X = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3)])
def test_the_size_decides_and_the_result_says_how(monkeypatch, kind, gates):
    x = torch.randn(6, 9, 3)
    work = (9 - 4) * gates * 5**2
    for least, expected in ((work, "autograd"), (work + 1, "sweep")):
        monkeypatch.setattr(layer_readings, "LEAST_WORK", least)
        (weight,) = probed(lambda model: model(x)[0].square().sum().backward(), kind(3, 5)).values()
        assert weight.read_from == expected
        assert (weight.recovered_error is None) is (expected == "autograd")
        assert ("recovered_error" in weight.why) is (expected == "autograd")


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU])
def test_large_layers_are_read_and_small_ones_are_swept(monkeypatch, kind):
    monkeypatch.undo()
    for batch, hidden, expected in ((32, 256, "autograd"), (1, 900, "sweep"), (4, 20, "sweep")):
        x = torch.randn(3, batch, 2)
        step = lambda model, x=x: (model(x)[0] ** 2).mean().backward()  # noqa: E731
        (weight,) = probed(step, kind(2, hidden)).values()
        assert weight.read_from == expected, (batch, hidden)


@pytest.mark.parametrize("cancels", [False, True])
@pytest.mark.parametrize("kind", ["tanh", "gru"])
def test_in_float32_norms_hold_the_bound_of_the_sweep(kind, cancels):
    """Against an oracle in float64 along the module's own states; of a batch of pairs that all but cancel as well."""
    torch.manual_seed(0)
    settings = {"nonlinearity": kind} if kind != "gru" else {}
    module, x = KINDS[kind](3, 140, **settings), torch.randn(5, 4, 3)
    weigh = torch.randn(5, 4, 140)
    if cancels:
        x[:, 2:], weigh[:, 2:] = x[:, :2] + 1e-4, -weigh[:, :2]
    trace = probed(lambda module: (module(x)[0] * weigh).sum().backward(), module)
    with torch.no_grad():
        states = module(x)[0]
    oracle = ByClones(module, [states.double()])
    (oracle(x.double())[0] * weigh).sum().backward()
    found, expected = trace["weight_hh_l0"], oracle.results()["weight_hh_l0"]
    assert found.read_from == "autograd"
    bound = (1e-5 * expected["magnitude"]).clamp_min(1e-30)
    assert bool(((found.grad_norm_W_hh - expected["W_hh"]).abs() <= bound).all())
    gates = torch.stack([found.grad_norm_gates[gate] for gate in found.gates], 1) if found.gates else None
    if gates is not None:
        assert bool(((gates - expected["gates"]).abs() <= bound.unsqueeze(1)).all())


def packed(model):
    output, _ = model(pack_padded_sequence(X, [6, 5, 3, 2]))
    output.data.square().sum().backward()


def twice(model):
    loss = (model(X)[0] ** 2).sum()
    loss.backward(retain_graph=True)
    loss.backward()


def two_losses(model):
    """Neither passes by all steps."""
    output, _ = model(X)
    output[2].sum().backward(retain_graph=True)
    output[-1].square().sum().backward()


def carried(model):
    output, h_n = model(X)
    (model(X, h_n)[0] ** 2).sum().add(output.sum()).backward()


def masked(model):
    output, h_n = model(X)
    (model(X, 0.5 * h_n)[0] ** 2).sum().add(output.sum()).backward()


def fed_back(model):
    first, _ = model(X)
    (model(first @ torch.ones(first.shape[-1], 3, dtype=X.dtype))[0] ** 2).sum().backward()


def one_packed(model):
    at_all(model)
    packed(model)


def checkpointed(model):
    checkpoint(lambda x: model(x)[0], X.clone().requires_grad_(), use_reentrant=True).square().sum().backward()


def under_autocast(model):
    with torch.autocast("cpu"):
        loss = model(X)[0].float().square().sum()
    loss.backward()


def autocast_around_backward(model):
    loss = model(X)[0].square().sum()
    with torch.autocast("cpu"):
        loss.backward()


def of_tensors_of_others(model):
    weights = {name: 2 * value for name, value in model.named_parameters()}
    functional_call(model, weights, (X,))[0].square().sum().backward()


def underflowing(model):
    (1e-37 * model(X)[0].square().sum()).backward()


def overflowing(model):
    model(X)[0].square().sum().backward(torch.tensor(3e38))


def failing_first(model):
    output, _ = model(X)
    handle = model.weight_ih_l0.register_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        output.square().sum().backward(retain_graph=True)
    handle.remove()
    output.square().sum().backward()


def fail(grad):
    raise RuntimeError("on purpose")


def output_replaced(model):
    handle = model.register_forward_hook(lambda m, _, out: (2 * out[0], out[1]), prepend=True)
    at_all(model)
    handle.remove()


def of_some_weights(model):
    """Those of the layer below take no part, though its states do."""
    output, _ = model(X)
    output.square().sum().backward(inputs=[model.weight_ih_l0, model.weight_hh_l1])


def two_layers(kind):
    return kind(3, 4, num_layers=2)


def frozen(kind):
    model = kind(3, 4, num_layers=2)
    model.weight_hh_l0.requires_grad_(False)
    return model


def parametrized(kind):
    return parametrizations.weight_norm(kind(3, 4), "weight_hh_l0")


def plain(kind):
    return kind(3, 4)


SWEPT = {
    "packed": (plain, packed),
    "passed through twice": (plain, twice),
    "two losses in two passes": (plain, two_losses),
    "states handed on": (plain, carried),
    "states handed on, changed": (plain, masked),
    "one call of two is packed": (plain, one_packed),
    "re-entrant checkpoints": (plain, checkpointed),
    "autocast": (plain, under_autocast),
    "autocast around backward": (plain, autocast_around_backward),
    "tensors for weights": (plain, of_tensors_of_others),
    "of some weights alone": (two_layers, of_some_weights),
    "a frozen weight": (frozen, at_all),
    "a parametrized weight": (parametrized, at_all),
    "half precision": (lambda kind: kind(3, 4).bfloat16(), lambda model: model(X.bfloat16())[0].sum().backward()),
    "underflow": (plain, underflowing),
    "overflow": (plain, overflowing),
    "a pass that failed first": (plain, failing_first),
    "another output in place of its own": (plain, output_replaced),
}


@pytest.mark.parametrize(("build", "step"), SWEPT.values(), ids=SWEPT)
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU])
def test_what_cannot_be_read_for_certain_is_swept_to_the_same_numbers(monkeypatch, kind, build, step):
    torch.manual_seed(2)
    model = build(kind)
    found = probed(step, model)
    monkeypatch.setattr(layer_readings, "LEAST_WORK", NEVER)
    expected = probed(step, model)
    assert list(found) == list(expected)
    for name, weight in found.items():
        assert weight.read_from == expected[name].read_from == "sweep"
        for field in ("grad_norm_W_hh", "grad_norm_h", "grad_norm_h_direct", "grad_W_hh"):
            got, want = getattr(weight, field), getattr(expected[name], field)
            torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
        assert weight.recovered_error == pytest.approx(expected[name].recovered_error, nan_ok=True)


@pytest.mark.parametrize("asked", [{"decay": True}, {"lengths": torch.tensor([6, 6, 3, 2])}], ids=["decay", "lengths"])
def test_what_only_a_sweep_tells_is_swept(asked):
    (weight,) = probed(at_all, nn.GRU(3, 4), **asked).values()
    assert weight.read_from == "sweep"
    assert weight.decay is not None or weight.padded_share is not None


def test_what_cannot_be_unrolled_is_swept():
    (weight,) = probed(at_all, nn.LSTM(3, 4)).values()
    assert weight.read_from == "sweep"


def test_steps_that_no_loss_reaches_contribute_nothing():
    (weight,) = probed(lambda model: model(X)[0][2].square().sum().backward(), nn.RNN(3, 4)).values()
    assert weight.read_from == "autograd"
    assert (weight.grad_norm_h > 0).tolist() == [True] * 3 + [False] * 3
    assert (weight.grad_norm_W_hh > 0).tolist() == [False, True, True, False, False, False]
    assert (weight.grad_norm_h_direct > 0).tolist() == [False, False, True, False, False, False]


def accumulated(model):
    at_all(model)
    at_last(model)


def with_detached_states(model):
    _, h_n = model(X)
    (model(X, h_n.detach())[0] ** 2).sum().add(h_n.sum()).backward()


def recomputed(model):
    checkpoint(lambda x: model(x)[0], X, use_reentrant=False).square().sum().backward()


def clipped_on_its_way(model):
    output, _ = model(X)
    output.register_hook(lambda grad: grad.clamp(-0.1, 0.1))
    output.square().sum().backward()


def changed_in_place(model):
    output, h_n = model(X)
    output.mul_(2).add_(1)
    h_n.mul_(3)
    output.square().sum().add(h_n.sum()).backward()


def of_a_saliency_map_before(model):
    x = X.clone().requires_grad_()
    torch.autograd.grad(model(x)[0].square().sum(), x)
    at_all(model)


STEPS = (at_all, accumulated, with_detached_states, recomputed, clipped_on_its_way, changed_in_place, fed_back)


@pytest.mark.parametrize("step", [*STEPS, of_a_saliency_map_before], ids=lambda step: step.__name__)
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU])
def test_what_is_read_of_a_users_step_is_what_a_sweep_finds(monkeypatch, kind, step):
    torch.manual_seed(2)
    model = kind(3, 4, num_layers=2, bidirectional=True).double()
    monkeypatch.setattr(__name__ + ".X", X.double())
    found = probed(step, model)
    monkeypatch.setattr(layer_readings, "LEAST_WORK", NEVER)
    for name, want in probed(step, model).items():
        got = found[name]
        assert (got.read_from, want.read_from) == ("autograd", "sweep")
        assert got.steps_per_call == want.steps_per_call
        for field in ("grad_norm_W_hh", "grad_norm_h", "grad_norm_h_direct", "grad_norm_state", "grad_W_hh"):
            torch.testing.assert_close(getattr(got, field), getattr(want, field), rtol=1e-9, atol=1e-14)
        for gate, norms in want.grad_norm_gates.items():
            torch.testing.assert_close(got.grad_norm_gates[gate], norms, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU])
def test_a_model_that_is_read_gets_the_same_gradients_bit_for_bit(kind, step):
    found = []
    for watched in (False, True):
        torch.manual_seed(2)
        model = kind(3, 4, num_layers=2, dropout=0.5)
        if watched:
            with rnnctl.probe(model):
                step(model)
        else:
            step(model)
        found.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_a_weight_under_two_names_is_held_against_all_that_it_got():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.GRU(3, 4), nn.GRU(3, 4)
            self.b.weight_hh_l0 = self.a.weight_hh_l0

        def forward(self, x):
            return self.a(x)[0], 2 * self.b(x)[0]

    trace = probed(lambda model: sum(part.square().sum() for part in model(X)).backward(), Two())
    assert [weight.read_from for weight in trace.values()] == ["autograd"] * 2
    assert all(weight.agrees for weight in trace.values())


@pytest.mark.parametrize(("place", "name"), [(RowsBook, "add"), (NormBook, "add"), (layer_readings, "step_norms")])
def test_an_error_of_ours_leaves_the_pass_alone_and_the_layer_is_swept(monkeypatch, place, name):
    def fails(*_):
        raise RuntimeError("on purpose")

    monkeypatch.setattr(place, name, fails)
    model = nn.GRU(3, 4)
    (weight,) = probed(at_all, model).values()
    assert weight.read_from == "sweep"
    assert weight.agrees is True
    assert model.weight_hh_l0.grad is not None


def test_a_double_backward_is_refused_as_ever(monkeypatch):
    asked = []
    for book in (RowsBook, NormBook):
        monkeypatch.setattr(book, "add", lambda *_: asked.append("of what is differentiated further"))
    model = nn.RNN(3, 4)
    with pytest.raises(rnnctl.InputError, match="double backward"), rnnctl.probe(model):
        torch.autograd.grad(model(X)[0].square().sum(), model.parameters(), create_graph=True)
    assert not asked


def test_no_hook_stays_on_a_graph_that_the_user_keeps(monkeypatch):
    model = nn.GRU(3, 4)
    with rnnctl.probe(model) as trace:
        loss = model(X)[0].square().sum()
        loss.backward(retain_graph=True)
    assert trace["weight_hh_l0"].read_from == "autograd"
    monkeypatch.setattr(RowsBook, "add", lambda *_: pytest.fail("it was told of a pass after the block"))
    monkeypatch.setattr(layer_readings, "step_norms", lambda *_: pytest.fail("it was told of a pass after the block"))
    errors = []
    monkeypatch.setattr(layer_readings._LayerReading, "_fail", lambda self, error: errors.append(error))
    loss.backward()
    assert not errors


def test_what_is_read_keeps_no_graph_alive():
    model = nn.GRU(3, 4)
    with rnnctl.probe(model):
        x = X.clone().requires_grad_()
        inner = 2 * x
        gone = weakref.ref(inner)
        loss = model(inner)[0].square().sum()
        loss.backward()
        del loss, inner
    assert gone() is None


@pytest.mark.parametrize(
    ("change", "has_all"),
    [
        ({}, True),
        ({"gates": (0, 0, 0.0)}, True),
        ({"gates": (0, 0, 1e-33)}, False),
        ({"gates": (2, 1, 1e-33)}, False),
        ({"gates": (2, 1, 0.0)}, False),
        ({"gates": (1, 0, float("inf"))}, False),
        ({"arrived": (1, 1e-33)}, False),
        ({"arrived": (1, 0.0)}, False),
        ({"arrived": (2, float("nan"))}, False),
        ({"arrived": (3, 1.0)}, False),
        ({"gates": (3, 1, 1e-33)}, False),
    ],
)
def test_a_norm_has_all_digits_where_nothing_left_the_range_of_float32(change, has_all):
    """Nothing enters the last of four steps; the gates of the first are both 0 where its state before it is."""
    gates, arrived, direct = torch.ones(4, 2), torch.ones(4), torch.tensor([1.0, 0.0, 1.0, 0.0])
    gates[3] = arrived[3] = 0
    if change.get("gates") == (0, 0, 0.0):
        gates[0] = 0
    for name, (*place, value) in change.items():
        {"gates": gates, "arrived": arrived}[name][tuple(place)] = value
    found = layer_readings._has_all_digits(gates.double(), arrived.double(), direct.double(), torch.float32)
    assert found is has_all


def test_watch_writes_which_way_it_was(monkeypatch, tmp_path):
    model = nn.RNN(3, 4)
    for number, least in enumerate((ALWAYS, NEVER)):
        monkeypatch.setattr(layer_readings, "LEAST_WORK", least)
        with rnnctl.watch(model, to=tmp_path / f"{number}.jsonl"):
            at_all(model)
    found = [json.loads((tmp_path / f"{number}.jsonl").read_text()) for number in range(2)]
    assert [line["read_from"] for line in found] == ["autograd", "sweep"]
    assert all(line["agrees"] and line["states_agree"] for line in found)
    torch.testing.assert_close(*(torch.tensor(line["grad_norm_W_hh"]) for line in found))


def test_rows_are_measured_block_by_block_at_any_magnitude():
    torch.manual_seed(0)
    for scale in (1e-30, 1.0, 1e30):
        book, grads = RowsBook(3), [scale * torch.randn(6, 5) for _ in range(2)]
        grads[1][2:4] = 0
        for step, grad in enumerate(grads):
            book.add(step, grad.t().contiguous().t())
            expected = [float(rows.double().norm()) for rows in grad.view(3, -1)]
            assert book.norms[step] == pytest.approx(expected, rel=1e-6)
        torch.testing.assert_close(book.total, grads[0] + grads[1])
        assert bool((grads[0] != book.total).any())


@pytest.mark.parametrize("lies", [lambda wide: wide, lambda wide: wide.t(), lambda wide: wide[:, ::2]])
def test_the_norm_of_a_million_numbers_has_the_digits_of_float32(lies):
    wide = lies(torch.randn(2200, 1000, generator=torch.Generator().manual_seed(0)))
    assert wide.numel() > 10**6
    assert norm_of(wide) == pytest.approx(float(wide.double().norm()), rel=1e-6)


def test_norms_of_large_rows_are_made_for_all_steps_together():
    grads = torch.randn(3, 6, 2048, generator=torch.Generator().manual_seed(0))
    book = RowsBook(2)
    for step, grad in enumerate(grads):
        book.add(step, grad, at_once=step == 1)
    assert list(book.norms) == [1]
    book.settle()
    assert not book.is_lost
    for step, grad in enumerate(grads):
        assert book.norms[step] == pytest.approx([float(rows.double().norm()) for rows in grad.view(2, -1)], rel=1e-6)
    torch.testing.assert_close(book.total, grads.sum(0))


@pytest.mark.parametrize("scale", [0.0, 1e-21, 1e-30, 1e30, float("nan")])
def test_a_norm_of_large_rows_whose_squares_leave_the_range_is_lost_and_not_0(scale):
    grad = scale * torch.ones(1, 2048)
    book = RowsBook(1)
    book.add(0, grad)
    book.settle()
    assert book.is_lost
    at_once = RowsBook(1)
    at_once.add(0, grad, at_once=True)
    at_once.settle()
    assert not at_once.is_lost
    assert at_once.norms[0] == pytest.approx([float(grad.double().norm())], rel=1e-6, nan_ok=True)
