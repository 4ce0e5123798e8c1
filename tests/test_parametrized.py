"""Weights that a checkpoint keeps in parts: composed as the module itself has them, or said to be unknown."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shell import runner
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as spectral_norm_by_hook
from torch.nn.utils import weight_norm as weight_norm_by_hook

import rnnctl
from rnnctl import InputError
from rnnctl.files.checkpoints import load_into
from rnnctl.files.parametrized import composed
from rnnctl.files.weights import read_weights

I, H, O = 3, 4, 2  # noqa: E741
W_HH = "weight_hh_l0"
KINDS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
Save = Callable[..., Path]
pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def saved(value: Any, name: str = "run.pt") -> Path:
        torch.save(value, tmp_path / name)
        return tmp_path / name

    return saved


def moved(module: nn.Module) -> nn.Module:
    """As after a training step: nothing stands where it was made."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape).to(parameter.dtype))
    return module


def run_once(layer: nn.Module) -> None:
    layer.train()
    layer(torch.ones(1, 2, layer.weight_ih_l0.shape[1]))


def by_hook(norm: Callable[..., Any], **settings: Any) -> Callable[[nn.Module, str], None]:
    def applied(module: nn.Module, name: str) -> None:
        norm(module, name, **settings)

    return applied


# How a weight is parametrized -> what rnnctl calls it.
WAYS: Mapping[str, tuple[Callable[[nn.Module, str], Any], str]] = {
    "weight_norm": (parametrizations.weight_norm, "weight_norm"),
    "weight_norm, dim 1": (lambda m, n: parametrizations.weight_norm(m, n, dim=1), "weight_norm"),
    "weight_norm, dim -2": (lambda m, n: parametrizations.weight_norm(m, n, dim=-2), "weight_norm"),
    "weight_norm, whole": (lambda m, n: parametrizations.weight_norm(m, n, dim=None), "weight_norm"),
    "weight_norm by hook": (weight_norm_by_hook, "weight_norm"),
    "weight_norm by hook, dim 1": (by_hook(weight_norm_by_hook, dim=1), "weight_norm"),
    "weight_norm by hook, whole": (by_hook(weight_norm_by_hook, dim=None), "weight_norm"),
    "spectral_norm": (parametrizations.spectral_norm, "spectral_norm, as in eval mode"),
    "spectral_norm, dim 1": (
        lambda m, n: parametrizations.spectral_norm(m, n, dim=1),
        "spectral_norm, as in eval mode",
    ),
    "spectral_norm by hook": (spectral_norm_by_hook, "spectral_norm, as in eval mode"),
    "spectral_norm by hook, dim 1": (by_hook(spectral_norm_by_hook, dim=1), "spectral_norm, as in eval mode"),
    "pruning": (lambda m, n: prune.random_unstructured(m, n, 0.3), "pruning"),
    "pruning of units": (lambda m, n: prune.ln_structured(m, n, 0.5, n=2, dim=0), "pruning"),
}


def made(kind: type[nn.RNNBase], way: str, name: str = W_HH, **settings: Any) -> nn.RNNBase:
    """A layer in eval mode with a parametrized weight, that has run and been trained since."""
    torch.manual_seed(3)
    layer = kind(I, H, **settings)
    WAYS[way][0](layer, name)
    if "by hook" in way:
        # The power iteration of the older form begins with the first pass.
        for _ in range(20):
            run_once(layer)
    moved(layer).eval()
    layer(torch.ones(1, 2, I, dtype=next(layer.parameters()).dtype))
    return layer


def weight_of(layer: nn.Module, name: str = W_HH) -> Tensor:
    found: Tensor = getattr(layer, name)
    return found.detach().clone()


# ---- composed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_recurrent_weight_in_parts_is_listed_as_the_module_has_it(save: Save, kind: str, way: str) -> None:
    layer = made(KINDS[kind], way)
    expected = weight_of(layer)
    path = save({f"net.rnn.{name}": part for name, part in layer.state_dict().items()})
    found = rnnctl.checkpoint_contents(path)
    (row,) = [row for row in found.rows if row["recurrent"]]
    assert (row["name"], row["shape"], row["cell"]) == (f"net.rnn.{W_HH}", tuple(expected.shape), kind)
    assert {row["name"] for row in found.rows} == {f"net.rnn.{name}" for name in KINDS[kind](I, H).state_dict()}
    blocks = np.split(expected.double().numpy(), len(found.recurrent))
    for record, block in zip(found.recurrent, blocks, strict=True):
        assert record["spectral_norm"] == pytest.approx(np.linalg.norm(block, 2), rel=1e-5)
        assert record["spectral_radius"] == pytest.approx(np.abs(np.linalg.eigvals(block)).max(), rel=1e-4)
    assert found.notes == (f"{path}: composed as torch does it: net.rnn.{W_HH} ({WAYS[way][1]})",)
    assert found.scalars["elements"] == sum(p.numel() for p in KINDS[kind](I, H).parameters())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_arithmetic_is_torchs_own_in_the_dtype_of_the_file(way: str, dtype: torch.dtype) -> None:
    layer = made(nn.GRU, way)
    state = {name: part.to(dtype) for name, part in layer.state_dict().items()}
    found = composed(state)
    assert found.tensors[W_HH].dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(
        found.tensors[W_HH].double(), weight_of(layer).double(), rtol=64 * eps, atol=64 * max(eps, 1e-7)
    )


@pytest.mark.parametrize("way", WAYS)
def test_what_torch_composes_in_float32_is_composed_to_the_last_bits(way: str) -> None:
    layer = made(nn.LSTM, way)
    found = composed(layer.state_dict()).tensors[W_HH]
    torch.testing.assert_close(found, weight_of(layer), rtol=1e-6, atol=1e-7)
    assert not found.requires_grad


@pytest.mark.parametrize("name", ["weight_hh_l1_reverse", "weight_ih_l0"])
@pytest.mark.parametrize("way", ["weight_norm", "weight_norm by hook", "spectral_norm", "pruning"])
def test_any_weight_of_a_layer_is_composed(name: str, way: str) -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(I, H, num_layers=2, bidirectional=True)
    WAYS[way][0](layer, name)
    moved(layer).eval()(torch.ones(1, 2, I))
    found = composed({f"module.{key}": part for key, part in layer.state_dict().items()})
    assert set(found.tensors) == {f"module.{key}" for key in nn.LSTM(I, H, 2, bidirectional=True).state_dict()}
    torch.testing.assert_close(found.tensors[f"module.{name}"], weight_of(layer, name))


@pytest.mark.parametrize("way", ["weight_norm", "weight_norm, dim 1", "weight_norm by hook", "spectral_norm"])
@pytest.mark.parametrize("make", [lambda: nn.Linear(5, 3), lambda: nn.Conv1d(2, 3, 4), lambda: nn.Linear(1, 1)])
def test_weights_of_other_layers_are_composed(make: Callable[[], nn.Module], way: str) -> None:
    torch.manual_seed(0)
    layer = make()
    WAYS[way][0](layer, "weight")
    moved(layer).eval()
    if "hook" in way:
        layer(
            torch.ones(1, 5)
            if layer.weight.shape == (3, 5)
            else torch.ones(1, 2, 9)
            if layer.weight.dim() == 3
            else torch.ones(1, 1)
        )
    torch.testing.assert_close(composed(layer.state_dict()).tensors["weight"], weight_of(layer, "weight"))


def test_a_bias_in_a_list_of_parametrizations_is_composed() -> None:
    layer = moved(parametrizations.weight_norm(nn.Linear(4, 3), "bias"))
    torch.testing.assert_close(composed(layer.state_dict()).tensors["bias"], weight_of(layer, "bias"))


def test_a_bias_in_the_older_form_of_spectral_norm_is_composed() -> None:
    layer = spectral_norm_by_hook(nn.Linear(4, 3), "bias")
    layer(torch.ones(1, 4))
    layer.eval()(torch.ones(1, 4))
    torch.testing.assert_close(composed(layer.state_dict()).tensors["bias"], weight_of(layer, "bias"))


def test_one_parametrization_upon_another_is_composed() -> None:
    torch.manual_seed(0)
    layer = nn.GRU(I, H)
    parametrizations.weight_norm(layer, W_HH)
    parametrizations.spectral_norm(layer, W_HH)
    moved(layer).eval()
    found = composed(layer.state_dict())
    torch.testing.assert_close(found.tensors[W_HH], weight_of(layer))
    assert found.how == {W_HH: "weight_norm and spectral_norm, as in eval mode"}


def test_parameters_that_ask_for_gradients_are_composed_without_one() -> None:
    layer = moved(parametrizations.weight_norm(nn.GRU(I, H), W_HH))
    assert not composed(dict(layer.named_parameters())).tensors[W_HH].requires_grad


def test_a_weight_that_the_file_holds_itself_is_left_alone() -> None:
    state = {"weight": torch.ones(3, 2), "weight_g": torch.ones(3, 1), "weight_v": torch.ones(3, 2)}
    found = composed(state)
    assert (list(found.tensors), found.how, found.unknown) == (list(state), {}, {})


@pytest.mark.parametrize(
    "shapes",
    [
        {"W_g": (4, 3), "W_v": (4, 3)},
        {"W_g": (3, 1), "W_v": (4, 3)},
        {"b_g": (4,), "b_v": (4,)},
        {"W_v": (4, 3)},
        {"W_g": (4, 1), "U_v": (4, 3)},
        {"W_orig": (4, 3), "W_mask": (4, 1)},
        {"_g": (4, 1)},
        {"parametrizations.gate.weight": (4, 3), "parametrizations.gate.bias": (4,)},
        {"W_orig": (3,), "W_u": (2,), "W_v": (1,)},
        {"W_g": (), "W_v": ()},
    ],
)
def test_tensors_that_are_only_called_alike_stay_as_they_are(shapes: Mapping[str, tuple[int, ...]]) -> None:
    state = {name: torch.ones(shape) for name, shape in shapes.items()}
    found = composed(state)
    assert (list(found.tensors), found.how, found.unknown) == (list(state), {}, {})


# ---- unknown ------------------------------------------------------------------------------------


class Skew(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X.triu(1) - X.triu(1).T


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, X: Tensor) -> Tensor:
        return X * self.scale


class Product(nn.Module):
    def forward(self, A: Tensor, B: Tensor) -> Tensor:
        return A @ B.T

    def right_inverse(self, W: Tensor) -> tuple[Tensor, Tensor]:
        return W[:, :2].clone(), W[:, 2:].clone()


def registered(layer: nn.Module, *parts: nn.Module) -> nn.Module:
    for part in parts:
        parametrize.register_parametrization(layer, W_HH, part, unsafe=True)
    return layer


def after(layer: nn.Module, *parts: nn.Module) -> nn.Module:
    """Spectral norm upon something of the user's own."""
    return parametrizations.spectral_norm(registered(layer, *parts), W_HH)


UNKNOWN: Mapping[str, tuple[Callable[[], nn.Module], str]] = {
    "orthogonal": (lambda: parametrizations.orthogonal(nn.RNN(I, H), W_HH), "by orthogonal, whose map"),
    "orthogonal by Cayley": (lambda: parametrizations.orthogonal(nn.RNN(I, H), W_HH, "cayley"), "by orthogonal"),
    "orthogonal and tall": (lambda: parametrizations.orthogonal(nn.GRU(I, H), W_HH), "by orthogonal, whose map"),
    "orthogonal without a base": (
        lambda: parametrizations.orthogonal(nn.GRU(I, H), W_HH, use_trivialization=False),
        "by something that the file does not tell",
    ),
    "without a state": (lambda: registered(nn.RNN(I, H), Skew()), "by something that the file does not tell"),
    "with a state": (lambda: registered(nn.RNN(I, H), Scaled()), "by something that the file does not tell"),
    "of two tensors": (lambda: registered(nn.RNN(I, H), Product()), "by something that the file does not tell"),
    "one without a state before a norm": (lambda: after(nn.RNN(I, H), Skew()), "by something that the file does not"),
    "one with a state before a norm": (lambda: after(nn.RNN(I, H), Scaled()), "by something that the file does not"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_the_file_does_not_tell_is_said_and_never_listed_as_W_hh(save: Save, name: str) -> None:
    layer = moved(UNKNOWN[name][0]())
    path = save(layer.state_dict())
    found = rnnctl.checkpoint_contents(path)
    assert found.recurrent == ()
    assert [row["name"] for row in found.rows] == list(layer.state_dict())
    (note,) = found.notes
    assert note.startswith(f"{path}: {W_HH} is not known: it is made of parametrizations.{W_HH}.original")
    assert UNKNOWN[name][1] in note
    assert note.endswith("Save the weight itself (torch.nn.utils.parametrize.remove_parametrizations leaves it)")


@pytest.mark.parametrize("name", [name for name in UNKNOWN if "tall" not in name and "without a base" not in name])
def test_an_unknown_weight_is_not_loaded_into_a_plain_network(save: Save, name: str) -> None:
    path = save(moved(UNKNOWN[name][0]()).state_dict())
    model = nn.RNN(I, H)
    before = {key: part.clone() for key, part in model.state_dict().items()}
    with pytest.raises(InputError, match=f"does not fit RNN:\n  {W_HH} is not known: it is made of"):
        load_into(model, path)
    assert all(torch.equal(part, before[key]) for key, part in model.state_dict().items())
    with pytest.raises(InputError, match=f"  {W_HH} is not known: it is made of"):
        read_weights(path)


@pytest.mark.parametrize("suffix", ["_orig", "_raw", "_bar", "_g", "_v"])
@pytest.mark.parametrize("weight", [f"rnn.{W_HH}", "weight_hh", "rnn_cell.hidden_to_hidden.weight"])
def test_a_part_alone_is_said_to_be_one(suffix: str, weight: str) -> None:
    found = composed({weight + suffix: torch.eye(4)})
    assert list(found.tensors) == [weight + suffix]
    assert f"it is made of {weight}{suffix} by something that the file does not tell" in found.unknown[weight]


@pytest.mark.parametrize("name", ["orthogonal", "with a state"])
def test_the_largest_of_all_W_hh_is_unknown_where_one_of_them_is(save: Save, name: str) -> None:
    state = UNKNOWN[name][0]().state_dict()
    path = save({**{f"a.{key}": part for key, part in state.items()}, "b.weight_hh": torch.eye(4)})
    found = rnnctl.checkpoint_contents(path)
    assert [record["name"] for record in found.recurrent] == ["b.weight_hh"]
    ((name, recurrent, why),) = (record.values() for record in found.more["unknown"])
    assert (name, recurrent) == (f"a.{W_HH}", True)
    assert why.startswith(f"a.{W_HH} is not known: it is made of a.parametrizations.{W_HH}.original")
    for scalar in ("largest_spectral_radius", "largest_spectral_norm"):
        assert found.scalars[scalar] is None
        assert found.why[scalar] == f"a.{W_HH} cannot be told from the file"


def test_an_unknown_weight_that_is_no_W_hh_leaves_the_largest_known(save: Save) -> None:
    state = parametrizations.orthogonal(nn.Linear(4, 3)).state_dict()
    found = rnnctl.checkpoint_contents(save({**state, "weight_hh": 2 * torch.eye(4)}))
    assert [(record["name"], record["recurrent"]) for record in found.unknown] == [("weight", False)]
    assert found.scalars["largest_spectral_radius"] == pytest.approx(2)


@pytest.mark.parametrize(
    "kinds",
    [
        {"original0": (), "original1": ()},
        {"original0": (4,), "original1": (4, 4)},
        {"original0": (4, 1), "original1": (4, 4), "original2": (4, 4)},
        {"original": (4, 4), "0._u": (4,), "0._v": (4,), "0.scale": (1,)},
        {"original": (4, 4), "0._u": (4,)},
        {"original": (4, 4), "0._u": (3,), "0._v": (4,)},
        {"original": (4, 4), "1._u": (4,), "1._v": (4,)},
    ],
)
def test_parts_of_other_shapes_or_kinds_than_torchs_are_unknown(kinds: Mapping[str, tuple[int, ...]]) -> None:
    state = {f"parametrizations.{W_HH}.{kind}": torch.ones(shape) for kind, shape in kinds.items()}
    found = composed(state)
    assert (list(found.tensors), found.how, set(found.unknown)) == (list(state), {}, {W_HH})


def test_a_buffer_called_base_among_others_is_not_taken_for_orthogonal() -> None:
    list_of = f"parametrizations.{W_HH}"
    state = {f"{list_of}.{kind}": torch.eye(4) for kind in ("original", "0.base", "0.scale")}
    assert "by something that the file does not tell" in composed(state).unknown[W_HH]


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_model_made_alike_takes_what_the_file_alone_does_not_tell(save: Save, name: str, prefix: str) -> None:
    saved, model = moved(UNKNOWN[name][0]()).eval(), UNKNOWN[name][0]().eval()
    load_into(model, save({prefix + key: part for key, part in saved.state_dict().items()}), strict=True)
    torch.testing.assert_close(weight_of(model), weight_of(saved))


def test_a_spectral_norm_whose_axis_nothing_tells_is_unknown(save: Save) -> None:
    torch.manual_seed(0)
    # Never run: u and v are random, and W_hh is square.
    state = spectral_norm_by_hook(nn.RNN(I, 16), W_HH).state_dict()
    assert rnnctl.checkpoint_contents(save(state)).recurrent == ()
    assert W_HH in composed(state).unknown
    tall = spectral_norm_by_hook(nn.GRU(I, 16), W_HH).eval()
    tall(torch.ones(1, 2, I))
    torch.testing.assert_close(composed(tall.state_dict()).tensors[W_HH], weight_of(tall))


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("seed", range(4))
def test_one_power_iteration_tells_the_axis_of_a_square_matrix(dim: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = parametrizations.spectral_norm(nn.RNN(I, 16), W_HH, dim=dim)
    # As after weights from elsewhere: u and v lag behind.
    nn.init.normal_(layer.parametrizations.weight_hh_l0.original)
    weight_of(layer.train())
    state = layer.state_dict()
    torch.testing.assert_close(composed(state).tensors[W_HH], weight_of(layer.eval()))


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.float8_e4m3fn])
def test_parts_of_numbers_that_torch_does_not_compose_are_unknown(dtype: torch.dtype) -> None:
    g, v = torch.ones(4, 1).to(dtype), torch.ones(4, 4).to(dtype)
    assert set(composed({f"{W_HH}_g": g, f"{W_HH}_v": v}).unknown) == {W_HH}
    assert set(composed({f"{W_HH}_g": g, f"{W_HH}_v": torch.ones(4, 4)}).unknown) == {W_HH}


def test_values_that_are_not_finite_stay_so(save: Save) -> None:
    layer = made(nn.GRU, "weight_norm")
    state = layer.state_dict()
    state[f"parametrizations.{W_HH}.original0"][2] = float("nan")
    found = rnnctl.checkpoint_contents(save(state))
    assert found.scalars["nonfinite"] == H
    state = made(nn.GRU, "weight_norm").state_dict()
    # A row of zeros has no direction: torch's weight is nan there.
    state[f"parametrizations.{W_HH}.original1"][2] = 0
    assert rnnctl.checkpoint_contents(save(state)).scalars["nonfinite"] == H


# ---- into a model -------------------------------------------------------------------------------


class Tagger(nn.Module):
    def __init__(self, way: str | None = None) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(I, H, batch_first=True), nn.Linear(H, O)
        if way is not None:
            WAYS[way][0](self.rnn, W_HH)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.rnn(x)[0])
        return found


def trained(way: str | None) -> Tagger:
    torch.manual_seed(5)
    model = Tagger(way)
    model.train()
    for _ in range(20):
        model(torch.ones(1, 2, I))
    moved(model).eval()
    return model


X = torch.linspace(-1, 1, 2 * 5 * I).reshape(2, 5, I)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_a_plain_model_does_with_a_checkpoint_in_parts_what_the_saved_one_did(
    save: Save, way: str, prefix: str
) -> None:
    saved = trained(way)
    path = save({prefix + name: part for name, part in saved.state_dict().items()})
    torch.manual_seed(9)
    model = Tagger().eval()
    notes = load_into(model, path)
    torch.testing.assert_close(model(X), saved(X))
    assert f"{path}: composed as torch does it: {prefix}rnn.{W_HH} ({WAYS[way][1]})" in notes


@pytest.mark.parametrize("way", WAYS)
def test_the_hand_written_network_takes_a_checkpoint_in_parts(save: Save, way: str) -> None:
    saved = trained(way)
    saved(X)
    path = save({"state_dict": {f"module.{name}": part for name, part in saved.state_dict().items()}})
    found = read_weights(path)
    torch.testing.assert_close(found.tensors["rnn_cell.hidden_to_hidden.weight"], weight_of(saved.rnn))
    assert torch.equal(found.tensors["hidden_to_output.weight"], saved.head.weight)
    assert f"{path}: composed as torch does it: module.rnn.{W_HH} ({WAYS[way][1]})" in found.notes


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_model_in_parts_takes_its_own_checkpoint_as_it_stands(save: Save, way: str, prefix: str) -> None:
    saved = trained(way)
    path = save({prefix + name: part for name, part in saved.state_dict().items()})
    model = Tagger(way).eval()
    notes = load_into(model, path, strict=True)
    assert "composed" not in "".join(notes)
    assert all(torch.equal(part, saved.state_dict()[name]) for name, part in model.state_dict().items())
    assert torch.equal(model(X), saved(X))


@pytest.mark.parametrize(
    ("way", "other"),
    [
        ("weight_norm by hook", "weight_norm"),
        ("weight_norm", "weight_norm by hook"),
        ("weight_norm by hook, dim 1", "weight_norm, dim 1"),
        ("spectral_norm by hook", "spectral_norm"),
        ("spectral_norm", "spectral_norm by hook"),
    ],
)
def test_torchs_older_form_and_a_parametrization_take_each_others_checkpoints(save: Save, way: str, other: str) -> None:
    saved, model = trained(way), Tagger(other).eval()
    load_into(model, save({f"module.{name}": part for name, part in saved.state_dict().items()}))
    torch.testing.assert_close(model(X), saved(X))
    for mine, theirs in zip(model.parameters(), saved.parameters(), strict=True):
        assert torch.equal(mine, theirs) or mine.shape != theirs.shape
    assert {tuple(p.flatten().tolist()) for p in model.parameters()} == {
        tuple(p.flatten().tolist()) for p in saved.parameters()
    }


@pytest.mark.parametrize("way", WAYS)
def test_a_plain_checkpoint_is_refused_by_a_model_in_parts_with_what_to_do(save: Save, way: str) -> None:
    path, model = save({f"module.{n}": part for n, part in trained(None).state_dict().items()}), Tagger(way)
    before = {name: part.clone() for name, part in model.state_dict().items()}
    with pytest.raises(
        InputError,
        match=rf"does not fit Tagger: the file has rnn\.{W_HH} itself, .* Load the weights where the model is made",
    ):
        load_into(model, path)
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())


def test_gates_of_a_cell_by_hand_that_are_called_g_and_v_are_loaded_as_they_are(save: Save) -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W_g, self.W_v = nn.Parameter(torch.randn(4, 1)), nn.Parameter(torch.randn(4, 4))

    saved, model = Cell(), Cell()
    assert load_into(model, save(saved.state_dict())) == ()
    assert torch.equal(model.W_v, saved.W_v)


def test_a_cell_by_hand_takes_its_weight_from_parts(save: Save) -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W_hh = nn.Parameter(torch.randn(4, 4))

    saved = moved(parametrizations.weight_norm(Cell(), "W_hh"))
    load_into(model := Cell(), save(saved.state_dict()))
    torch.testing.assert_close(model.W_hh, saved.W_hh)


# ---- the commands -------------------------------------------------------------------------------


@pytest.fixture
def run(capsys: Any, monkeypatch: Any, tmp_path: Path) -> Iterator[Any]:
    yield runner(capsys, monkeypatch, tmp_path)


@pytest.mark.parametrize("way", ["weight_norm", "weight_norm by hook", "spectral_norm", "spectral_norm by hook"])
def test_spectrum_of_a_checkpoint_in_parts_is_that_of_the_modules_weight(save: Save, run: Any, way: str) -> None:
    saved = trained(way)
    saved(X)
    path = save(saved.state_dict(), "run.ckpt")
    ran = run("spectrum --weights run.ckpt --json")
    assert ran.code == 0
    assert f"Note: {path.name}: composed as torch does it: rnn.{W_HH}" in ran.err
    W_hh = weight_of(saved.rnn).double().numpy()
    found = json.loads(ran.out)["scalars"]
    assert found["spectral_norm"] == pytest.approx(np.linalg.norm(W_hh, 2), rel=1e-5)
    assert found["spectral_radius"] == pytest.approx(np.abs(np.linalg.eigvals(W_hh)).max(), rel=1e-5)


def test_an_unknown_weight_is_exit_2_for_spectrum_and_a_note_for_weights(save: Save, run: Any) -> None:
    save(parametrizations.orthogonal(nn.RNN(I, H), W_HH).state_dict(), "run.ckpt")
    ran = run("spectrum --weights run.ckpt")
    assert (ran.code, ran.out) == (2, "")
    assert f"{W_HH} is not known" in ran.err
    ran = run("weights run.ckpt --json")
    assert ran.code == 0
    assert ran.err.startswith(f"Note: run.ckpt: {W_HH} is not known: it is made of")
    assert json.loads(ran.out)["recurrent"] == []
    assert json.loads(ran.out)["unknown"][0]["name"] == W_HH
    assert run("weights run.ckpt --fail-on largest_spectral_radius>1").code == 1
    ran = run("weights run.ckpt")
    assert "held in parts that do not tell them" in ran.out
    assert f"{W_HH} cannot be told from the file" in ran.out
