"""Recurrent layers of other people's packages: itemised as they are, against a copy of the cell for every call."""

import copy

import pytest
import snntorch
import torch
import torchrecurrent
from ncps.torch import LTC, CfC
from ncps.wirings import AutoNCP
from torch import nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

import rnnctl
from rnnctl import InputError

T, B, D, H = 5, 3, 4, 4

# The state multiplies no weight of these: they look at the input before.
NOT_RECURRENT = ["TRNN", "TGRU", "TLSTM"]
LAYERS = [name for name in torchrecurrent.__all__ if not name.endswith("Cell") and name not in NOT_RECURRENT]
# Besides weight_hh, or in place of it: gains on the state count, addends do not.
RECURRENT = {
    "DSGU": ["weight_hh", "weight_ho"],
    "FastRNN": ["weight_hh", "alpha", "beta"],
    "FastGRNN": ["weight_hh", "zeta"],
    "coRNN": ["weight_hh", "weight_ch"],
    "LEM": ["weight_hh", "weight_ch"],
    "MultiplicativeLSTM": ["weight_hh", "weight_mh"],
    "PeepholeLSTM": ["weight_hh", "weight_ph"],
    "ResLSTM": ["weight_hh", "weight_proj", "weight_ph"],
    "SCRN": ["weight_hh", "alpha"],
    "UnICORNN": ["weight_hh", "weight_ch"],
    "WMCLSTM": ["weight_hh", "weight_mh"],
    "IndRNN": ["vector_u"],
}
each_layer = pytest.mark.parametrize("name", LAYERS)


class PerCall(nn.Module):
    """In place of a cell: a copy of it for every call, whose gradients are the call's contributions."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.copies, self.states = cell, [], []

    def forward(self, *given):
        each = copy.deepcopy(self.cell)
        self.copies.append(each)
        after = each(*given)
        self.states.append(tree_leaves(after))
        for state in self.states[-1]:
            state.retain_grad()
        return after

    def contributions(self, name: str):
        return torch.stack([dict(each.named_parameters())[name].grad.double() for each in self.copies])


def drawn(model: nn.Module) -> nn.Module:
    """With parameters of size 0.4; the packages set many of them to 0 or 1."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.4)
    return model


X = torch.randn(T, B, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def loss_of(out):
    """Of every step, with weights of both signs."""
    weights = torch.randn(2, *out.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    a, b = weights.to(out.dtype)
    return (a * out + 0.5 * b * out**2).sum()


def run(model, x=X, **given):
    torch.manual_seed(1)
    out = model(x, **given)
    out = out[0] if isinstance(out, tuple) else out
    loss = loss_of(out)
    loss.backward()
    return out, loss


def probed(model, settings=None, **given):
    """The trace of a step that left everything as it is without the probe."""
    watched = copy.deepcopy(model)
    with rnnctl.probe(watched, **(settings or {})) as trace:
        out, loss = run(watched, **given)
    after = torch.get_rng_state()
    plain_out, plain_loss = run(model, **given)
    assert torch.equal(out, plain_out)
    assert torch.equal(loss, plain_loss)
    assert torch.equal(after, torch.get_rng_state())
    gradients = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in watched.named_parameters():
        assert (parameter.grad is None) == (gradients[name].grad is None), name
        assert parameter.grad is None or torch.equal(parameter.grad, gradients[name].grad), name
    for name, found in trace.items():
        assert found.recurrent is True, name
        assert found.agrees is True, name
        exact = gradients[name].grad.dtype == torch.float64
        close = {"rtol": 1e-9, "atol": 1e-13} if exact else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(found.grad_W_hh, gradients[name].grad.double(), **close)
    return trace


def by_step(contributions):
    """Norms; of numbers too."""
    return contributions.reshape(len(contributions), -1).norm(dim=1)


def assert_norms(found, contributions, rtol: float = 1e-9) -> None:
    expected = by_step(contributions)
    floor = 1e-14 * float(expected.max())
    torch.testing.assert_close(found, expected, rtol=rtol, atol=floor)


def torchrecurrent_layer(name, layers=1, **given):
    """In float64 throughout: dtype= leaves some of their scalars in float32."""
    return drawn(getattr(torchrecurrent, name)(D, H, num_layers=layers, **given)).double()


def by_call(model):
    """Cells that were copied for every call, after a step of the model."""
    oracle = copy.deepcopy(model)
    oracle.cells = nn.ModuleList(PerCall(cell) for cell in oracle.cells)
    run(oracle)
    return oracle.cells


@each_layer
def test_a_layer_of_torchrecurrent_is_itemised_as_a_copy_a_step_is(name):
    model = torchrecurrent_layer(name)
    (oracle,) = by_call(model)
    trace = probed(model)
    assert set(trace) == {f"cells.0.{each}" for each in RECURRENT.get(name, ["weight_hh"])}
    for each, found in trace.items():
        assert found.steps_per_chain == (T,)
        assert_norms(found.grad_norm_W_hh, oracle.contributions(each.removeprefix("cells.0.")))


@each_layer
def test_two_layers_of_torchrecurrent_have_their_weights_apart(name):
    """Their states are stacked to one tensor at every step, and a dropout draws between them."""
    model = torchrecurrent_layer(name, 2, dropout=0.3)
    oracles = by_call(model)
    trace = probed(model)
    names = RECURRENT.get(name, ["weight_hh"])
    assert set(trace) == {f"cells.{layer}.{each}" for layer in range(2) for each in names}
    for layer, oracle in enumerate(oracles):
        for each in names:
            found = trace[f"cells.{layer}.{each}"]
            assert found.steps_per_chain == (T,)
            assert_norms(found.grad_norm_W_hh, oracle.contributions(each))


@pytest.mark.parametrize("name", NOT_RECURRENT)
def test_a_layer_whose_state_multiplies_no_weight_has_none(name):
    model = torchrecurrent_layer(name)
    with pytest.raises(InputError, match="recurrent"), rnnctl.probe(model):
        run(model)


@pytest.mark.parametrize("name", ["MGU", "LiGRU", "NAS", "OriginalLSTM", "PeepholeLSTM"])
def test_the_states_of_torchrecurrents_cells_are_what_they_return(name):
    model = torchrecurrent_layer(name)
    (oracle,) = by_call(model)
    found = probed(model)["cells.0.weight_hh"]
    norms = [torch.stack([state.grad.norm() for state in each]) for each in zip(*oracle.states, strict=True)]
    torch.testing.assert_close(found.grad_norm_h, norms[0], rtol=1e-9, atol=0)
    torch.testing.assert_close(found.grad_norm_state, torch.stack(norms).norm(dim=0), rtol=1e-9, atol=0)
    assert (found.grad_norm_c is None) == (len(norms) == 1)


GATES = ["ff1.weight", "ff2.weight", "time_a.weight", "time_b.weight"]
BACKBONE = ["backbone.0.weight", *GATES]


def ncps_cfc(**given):
    return CfC(D, 5, batch_first=False, backbone_units=6, **given)


def ncps_wired(kind):
    return kind(D, AutoNCP(9, 2, seed=4), batch_first=False)


CFC = {
    "default": (ncps_cfc, BACKBONE),
    "no_gate": (lambda: ncps_cfc(mode="no_gate"), BACKBONE),
    "pure": (lambda: ncps_cfc(mode="pure"), ["backbone.0.weight", "ff1.weight", "A"]),
    "two_layers": (lambda: ncps_cfc(backbone_layers=2), [*BACKBONE, "backbone.2.weight"]),
    "projected": (lambda: ncps_cfc(proj_size=2), BACKBONE),
    "wired": (lambda: ncps_wired(CfC), [f"layer_{k}.{each}" for k in range(3) for each in GATES]),
}


def by_ncps_call(model, **given):
    oracle = copy.deepcopy(model)
    oracle.rnn_cell = PerCall(oracle.rnn_cell)
    run(oracle, **given)
    return oracle.rnn_cell


def whole(found):
    """All columns, those that multiply the state and the others."""
    return found.grad_norm_W_hh if found.grad_norm_W_xh is None else found.grad_norm_W_hh.hypot(found.grad_norm_W_xh)


@pytest.mark.parametrize("which", CFC)
def test_a_closed_form_continuous_network_is_itemised_as_a_copy_a_step_is(which):
    make, names = CFC[which]
    model = drawn(make()).double()
    oracle, trace = by_ncps_call(model), probed(model)
    assert set(trace) == {f"rnn_cell.{name}" for name in names}
    for each, found in trace.items():
        assert found.steps_per_chain == (T,)
        assert_norms(whole(found), oracle.contributions(each.removeprefix("rnn_cell.")))


def test_a_closed_form_continuous_network_beside_a_memory():
    """Its LSTM is one more hand-written cell, with states of its own."""
    zeros = torch.zeros(B, 5, dtype=torch.float64)
    model, given = drawn(ncps_cfc(mixed_memory=True)).double(), {"hx": (zeros, zeros)}
    oracle, trace = by_ncps_call(model, **given), probed(model, **given)
    assert set(trace) == {"lstm.recurrent_map.weight", *(f"rnn_cell.{name}" for name in BACKBONE)}
    for name in BACKBONE:
        assert_norms(whole(trace[f"rnn_cell.{name}"]), oracle.contributions(name))
    memory = copy.deepcopy(model)
    memory.lstm = PerCall(memory.lstm)
    run(memory, **given)
    expected = memory.lstm.contributions("recurrent_map.weight")
    assert_norms(trace["lstm.recurrent_map.weight"].grad_norm_W_hh, expected)


def test_the_columns_of_the_input_are_told_from_those_of_the_state():
    model = drawn(ncps_cfc()).double()
    expected = by_ncps_call(model).contributions("backbone.0.weight")
    found = probed(model)["rnn_cell.backbone.0.weight"]
    assert_norms(found.grad_norm_W_hh, expected[:, :, D:])
    assert_norms(found.grad_norm_W_xh, expected[:, :, :D])


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_columns_of_the_layer_before_are_no_state_of_a_wired_network(layer):
    """All layers' states are one tensor that every step splits: what stands beside a state in it is not of it."""
    model = drawn(ncps_wired(CfC)).double()
    name = f"layer_{layer}.ff1.weight"
    before = [D, *model.rnn_cell.layer_sizes][layer]
    expected = by_ncps_call(model).contributions(name)
    found = probed(model)[f"rnn_cell.{name}"]
    assert_norms(found.grad_norm_W_hh, expected[:, :, before:])
    assert_norms(found.grad_norm_W_xh, expected[:, :, :before])


@pytest.mark.parametrize("unfolds", [1, 3])
@pytest.mark.parametrize("wired", [False, True])
def test_a_liquid_time_constant_network_is_itemised(wired, unfolds):
    """Its layer calls `cell.forward` past the hooks of the cell, whose solver uses the weights several times a call."""
    units = AutoNCP(7, 2, seed=4) if wired else 4
    model = drawn(LTC(D, units, batch_first=False, ode_unfolds=unfolds)).double()
    oracle, trace = by_ncps_call(model), probed(model)
    assert set(trace) == {f"rnn_cell.{name}" for name in ("w", "sigma", "erev", "cm")}
    for each, found in trace.items():
        expected = oracle.contributions(each.removeprefix("rnn_cell."))
        steps = sum(found.steps_per_chain)
        assert steps == len(found.grad_norm_W_hh)
        if steps == T:
            assert_norms(found.grad_norm_W_hh, expected)
            continue
        # By use, then; cm enters twice a sub-step, the others once.
        assert steps in {T * unfolds, T * unfolds * (2 if each.endswith("cm") else 1)}
        assert (found.grad_norm_W_hh.reshape(T, -1).sum(1) >= (1 - 1e-9) * by_step(expected)).all()


class Spiking(nn.Module):
    """The loop of snntorch's own documentation."""

    def __init__(self, neuron, image=False, **given):
        super().__init__()
        self.into = nn.Conv2d(D, H, 3, padding=1) if image else nn.Linear(D, H)
        self.lif = neuron(beta=torch.tensor(0.9), **given)

    def forward(self, x):
        states = self.lif.reset_mem()
        spikes, potentials = [], []
        for x_t in x:
            states = self.lif(self.into(x_t), *states)
            spikes.append(states[0])
            potentials.append(states[-1])
        return torch.stack(spikes + potentials)


class Hidden(Spiking):
    """The neurons keep their states themselves."""

    def forward(self, x):
        self.lif.reset_mem()
        return torch.stack([self.lif(self.into(x_t)) for x_t in x])


def leaky(kind=Spiking, **given):
    return lambda: kind(snntorch.RLeaky, **given)


def synaptic(kind=Spiking, **given):
    return lambda: kind(snntorch.RSynaptic, alpha=torch.tensor(0.8), **given)


ALL, ONE = {"linear_features": H}, {"all_to_all": False}
CONV = {"image": True, "conv2d_channels": H, "kernel_size": 3}
SPIKING = {
    "RLeaky": (leaky(**ALL), ["recurrent.weight"]),
    "RLeaky, beta learned": (leaky(**ALL, learn_beta=True), ["recurrent.weight", "beta"]),
    "RLeaky, one to one": (lambda: Spiking(snntorch.RLeaky, **ONE, V=torch.rand(H)), ["V"]),
    "RLeaky, convolution": (leaky(**CONV), ["recurrent.weight"]),
    "RLeaky, no reset": (leaky(**ALL, reset_mechanism="none"), ["recurrent.weight"]),
    "RLeaky, hidden": (leaky(Hidden, **ALL, init_hidden=True), ["recurrent.weight"]),
    "RSynaptic": (synaptic(**ALL), ["recurrent.weight"]),
    "RSynaptic, both learned": (
        synaptic(**ALL, learn_alpha=True, learn_beta=True),
        ["recurrent.weight", "alpha", "beta"],
    ),
    "RSynaptic, one to one": (
        lambda: Spiking(snntorch.RSynaptic, alpha=torch.tensor(0.8), **ONE, V=torch.rand(H)),
        ["V"],
    ),
    "RSynaptic, hidden": (synaptic(Hidden, **ALL, init_hidden=True), ["recurrent.weight"]),
}


class ClonedCalls(nn.Module):
    """The neurons with clones of their parameters for every call; they keep graphs, and cannot be copied then."""

    def __init__(self, neurons):
        super().__init__()
        self.neurons, self.clones = neurons, []

    def reset_mem(self):
        return self.neurons.reset_mem()

    def forward(self, *given):
        parameters = self.neurons.named_parameters()
        self.clones.append({name: each.detach().clone().requires_grad_() for name, each in parameters})
        return functional_call(self.neurons, self.clones[-1], given)


def spiking(make):
    """A model and its inputs; strong enough that there are spikes."""
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        model.into.bias.fill_(0.4)
    x = 2 * X.float()
    return model, x if isinstance(model.into, nn.Linear) else x[..., None, None].expand(-1, -1, -1, 3, 2)


def by_spiking_call(model, x):
    oracle = copy.deepcopy(model)
    oracle.lif = ClonedCalls(oracle.lif)
    run(oracle, x)
    return {name: torch.stack([clones[name].grad for clones in oracle.lif.clones]) for name in oracle.lif.clones[0]}


@pytest.mark.parametrize("which", SPIKING)
def test_spiking_neurons_are_itemised_as_clones_a_step_are(which):
    """In float32: the package's spikes are, whatever it is given."""
    make, names = SPIKING[which]
    model, x = spiking(make)
    oracle, trace = by_spiking_call(model, x), probed(model, x=x)
    assert 0 < run(copy.deepcopy(spiking(make)[0]), x)[0][:T].mean() < 1
    # V is also known as recurrent.V.
    assert set(trace) - {"lif.recurrent.V"} == {f"lif.{name}" for name in names}
    for name in names:
        found, expected = trace[f"lif.{name}"], oracle[name].double()
        assert found.steps_per_chain == (T,)
        assert bool((by_step(expected) > 0)[1:].any())
        assert_norms(found.grad_norm_W_hh, expected, rtol=1e-5)


def test_neurons_that_run_their_recurrence_twice_a_step_are_one_step_where_they_are_named():
    """Reset to zero: state - reset * state, with the state made twice."""
    model, x = spiking(leaky(**ALL, reset_mechanism="zero"))
    expected = by_spiking_call(model, x)["recurrent.weight"].double()
    found = probed(model, {"step": "lif"}, x=x)["lif.recurrent.weight"]
    assert found.steps_per_chain == (T,)
    assert_norms(found.grad_norm_W_hh, expected, rtol=1e-5)
