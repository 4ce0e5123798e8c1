"""Names in a checkpoint that are not quite the model's: wrappers, prefixes, keys that nobody takes."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from shell import forget_modules_of, runner
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rnnctl import FullRNN, InputError
from rnnctl.cli.app import app
from rnnctl.files.checkpoints import load_into
from rnnctl.files.names import MOST_TOLD, WRAPPERS, matched
from rnnctl.files.weights import read_weights

I, H, O = 3, 4, 2  # noqa: E741
Save = Callable[..., Path]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(I, H)


class Net(nn.Module):
    """Two levels of modules, a buffer of whole numbers and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.norm = nn.BatchNorm1d(H)
        self.head = nn.Linear(H, O)


class Holder(nn.Module):
    """A model that really has a module of a wrapper's name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.add_module(name, nn.RNN(I, H))
        self.head = nn.Linear(H, O)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def saved(value: Any, name: str = "run.ckpt") -> Path:
        torch.save(value, tmp_path / name)
        return tmp_path / name

    return saved


@pytest.fixture
def run(capsys: Any, monkeypatch: Any, tmp_path: Path) -> Any:
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


def state_of(make: Callable[[], nn.Module], seed: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(make().state_dict())


def renamed(state: Mapping[str, Tensor], *changes: tuple[str, str]) -> dict[str, Tensor]:
    """Every name with the beginnings replaced that a change names."""
    found = {}
    for name, tensor in state.items():
        for old, new in changes:
            name = new + name.removeprefix(old) if name.startswith(old) else name
        found[name] = tensor
    return found


def assert_loaded(model: nn.Module, expected: Mapping[str, Tensor]) -> None:
    found = model.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# ---- wrappers -----------------------------------------------------------------------------------

WRAPPED = {
    "all in one": [("", "module.")],
    "compiled within DDP": [("", "module._orig_mod.")],
    "Lightning around a compiled one": [("", "model._orig_mod.")],
    "a submodule in DDP": [("encoder.lstm.", "encoder.module.lstm.")],
    "a compiled layer": [("encoder.lstm.", "encoder.lstm._orig_mod.")],
    "two submodules, each in its own": [("encoder.", "encoder._orig_mod."), ("head.", "head.module.")],
    "outside and inside": [("encoder.", "encoder.module."), ("", "model._orig_mod.")],
    "nested in each other": [("encoder.lstm.", "encoder.module._orig_mod.lstm._fsdp_wrapped_module.")],
    "checkpointed in FSDP": [("encoder.", "encoder._checkpoint_wrapped_module."), ("", "_fsdp_wrapped_module.")],
    "twice the same": [("encoder.", "encoder.module.module.")],
    "under a name of its own": [("encoder.lstm.", "encoder.lstm._orig_mod."), ("", "net.")],
    "under a name of its own within wrappers": [("encoder.", "encoder.module."), ("", "model.net.module.")],
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_anywhere_in_the_names_are_taken_off_and_said(save: Save, name: str) -> None:
    expected = state_of(Net)
    path = save({"state_dict": renamed(expected, *WRAPPED[name])})
    notes = load_into(model := Net(), path)
    assert_loaded(model, expected)
    said = [note for note in notes if "taken without" in note]
    assert len(said) == 1
    wrappers = [part for _, new in WRAPPED[name] for part in new.split(".") if part in (*WRAPPERS, "net")]
    assert wrappers
    assert all(part in said[0] for part in wrappers)
    assert "left out" not in "".join(notes)


def test_the_note_on_wrappers_within_names_shows_one_name_for_another(save: Save) -> None:
    path = save(renamed(state_of(Net), ("encoder.lstm.", "encoder.module.lstm.")))
    assert load_into(Net(), path) == (
        f"{path}: taken without 'module' in the names, such as encoder.lstm.weight_ih_l0 for "
        "encoder.module.lstm.weight_ih_l0",
    )


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("outside", ["", "module.", "model.", "_orig_mod."])
def test_a_model_that_has_a_module_of_a_wrappers_name_keeps_it(save: Save, name: str, outside: str) -> None:
    expected = state_of(lambda: Holder(name))
    notes = load_into(model := Holder(name), path := save(renamed(expected, ("", outside))))
    assert_loaded(model, expected)
    assert notes == ((f"{path}: taken without the prefix {outside!r}",) if outside else ())


def test_a_checkpoint_of_what_is_wrapped_is_loaded_into_the_wrapped(save: Save) -> None:
    expected = state_of(lambda: nn.RNN(I, H))
    model = nn.Sequential()
    model.add_module("module", nn.RNN(I, H))
    notes = load_into(model, path := save(expected))
    assert_loaded(model, renamed(expected, ("", "module.")))
    said = "taken with 'module' in the names, such as module.weight_ih_l0 for weight_ih_l0"
    assert notes == (f"{path}: {said}",)


def test_two_tensors_never_come_under_one_name(save: Save) -> None:
    expected = {"w": torch.ones(2), "module.w": torch.zeros(2)}

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.full((2,), 5.0))
            self.module = nn.Module()
            self.module.w = nn.Parameter(torch.full((2,), 5.0))

    assert load_into(model := Both(), save(expected)) == ()
    assert_loaded(model, expected)
    load_into(model := Both(), save(renamed(expected, ("", "module."))))
    assert_loaded(model, expected)


def test_of_two_copies_within_names_none_is_taken(save: Save) -> None:
    state = state_of(Net)
    one, other = (renamed(state, ("encoder.", f"encoder.{name}.")) for name in ("module", "model"))
    with pytest.raises(InputError, match=r"missing: encoder\.lstm\.weight_ih_l0 \(16, 3\)"):
        load_into(Net(), save({**one, **other}))


def names(*parts: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.lists(st.sampled_from(parts), min_size=1, max_size=5).map(".".join), unique=True, max_size=6)


@given(names("a", "w", "", *WRAPPERS[:3]), names("a", "w", "", "module"))
def test_matched_names_lose_no_tensor(there: list[str], known: list[str]) -> None:
    found = matched(there, known).names
    assert list(found) == there
    assert len(set(found.values())) == len(there)
    for name, own in found.items():
        # Nothing is put in but what the model has.
        assert own in known or name.endswith(own)


# ---- copies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("copy", ["ema_model.", "ema_model.module.", "ema.", "a."])
def test_an_averaged_copy_beside_the_model_is_left_out_and_listed(save: Save, copy: str) -> None:
    expected, other = state_of(Net), state_of(Net, 2)
    for place in ("model.", ""):
        path = save({**renamed(other, ("", copy)), **renamed(expected, ("", place))})
        notes = load_into(model := Net(), path)
        assert_loaded(model, expected)
        assert f"left out {len(other)} tensors that Net does not have: {copy}encoder.lstm.weight_ih_l0" in notes[-1]


def test_an_averaged_state_dict_beside_the_models_is_not_taken(save: Save) -> None:
    expected, other = state_of(Net), state_of(Net, 2)
    path = save({"ema_model": renamed(other, ("", "module.")), "model": renamed(expected, ("", "module."))})
    notes = load_into(model := Net(), path)
    assert_loaded(model, expected)
    assert notes[0] == f"{path}: taken from its 'model', not from 'ema_model'"


def test_an_averaged_model_of_torch_is_loaded_without_its_counter(save: Save) -> None:
    torch.manual_seed(1)
    averaged = AveragedModel(Net())
    path = save(averaged.state_dict())
    notes = load_into(model := Net(), path)
    assert_loaded(model, averaged.module.state_dict())
    assert notes[-1] == f"{path}: left out 1 tensor that Net does not have: n_averaged ()"


@pytest.mark.parametrize("places", [("student.", "teacher."), ("module.", "model."), ("a.rnn.", "a.ema.")])
def test_of_two_copies_that_fit_alike_none_is_taken(save: Save, places: tuple[str, str]) -> None:
    both = {place + name: part for place in places for name, part in state_of(Net).items()}
    model = Net()
    before = {name: part.clone() for name, part in model.state_dict().items()}
    with pytest.raises(InputError, match=f"takes under '{places[0]}' and under '{places[1]}': which of them is not kn"):
        load_into(model, save(both))
    assert_loaded(model, before)


@pytest.mark.parametrize(
    ("places", "within"),
    [
        (("student.", "teacher."), ""),
        (("teacher.", "student."), ""),
        (("model.", "ema_model."), ""),
        (("ema_model.", "model."), ""),
        (("student.", "teacher."), "module."),
        (("ema.", "student."), "module."),
    ],
)
def test_of_two_copies_the_one_of_the_models_shapes_is_taken(save: Save, places: tuple[str, str], within: str) -> None:
    other = state_of(lambda: nn.ModuleDict({"rnn": nn.RNN(I, 2 * H), "head": nn.Linear(2 * H, O)}))
    expected = state_of(lambda: nn.ModuleDict({"rnn": nn.RNN(I, H), "head": nn.Linear(H, O)}))
    path = save({**under(places[0], other), **under(places[1], renamed(expected, ("rnn.", f"rnn.{within}")))})
    notes = load_into(model := nn.ModuleDict({"rnn": nn.RNN(I, H), "head": nn.Linear(H, O)}), path)
    assert_loaded(model, expected)
    assert f"without {'the prefix ' if not within else ''}'{places[1].removesuffix('.' if within else '')}'" in notes[0]
    assert f"left out {len(other)} tensors" in notes[-1]
    assert f"{places[0]}rnn.weight_ih_l0 (8, 3)" in notes[-1]


# ---- keys that nobody takes ---------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, MOST_TOLD, MOST_TOLD + 1, 400])
def test_extra_keys_are_counted_listed_and_left_out(save: Save, count: int) -> None:
    expected = state_of(Net)
    extra = {f"critic.{i}.weight": torch.ones(2, i % 3 + 1) for i in range(count)}
    path = save({**extra, **expected})
    (note,) = load_into(model := Net(), path)
    assert_loaded(model, expected)
    noun = "tensor" if count == 1 else "tensors"
    assert note.startswith(f"{path}: left out {count} {noun} that Net does not have: critic.0.weight (2, 1)")
    assert note.count("critic.") == min(count, MOST_TOLD)
    assert note.endswith(f", and {count - MOST_TOLD:,} more") == (count > MOST_TOLD)
    with pytest.raises(InputError, match=r"does not fit Net:\n  unexpected: critic\.0\.weight \(2, 1\)"):
        load_into(Net(), path, strict=True)


def test_strict_takes_what_fits_under_a_prefix(save: Save) -> None:
    expected = state_of(Net)
    load_into(model := Net(), save(renamed(expected, ("encoder.", "encoder.module."))), strict=True)
    assert_loaded(model, expected)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("others", [0, 300])
def test_a_mistyped_key_is_the_refusal_that_names_the_nearest_among_however_many(
    save: Save, others: int, strict: bool
) -> None:
    state = {f"critic.{i}.weight": torch.ones(2) for i in range(others)} | state_of(Net)
    state["encoder.lstm.weight_hh_0"] = state.pop("encoder.lstm.weight_hh_l0")
    model = Net()
    before = {name: part.clone() for name, part in model.state_dict().items()}
    with pytest.raises(InputError, match=r"missing: encoder\.lstm\.weight_hh_l0 \(16, 4\)") as caught:
        load_into(model, save(state), strict=strict)
    assert "unexpected: encoder.lstm.weight_hh_0 (16, 4). Did you mean encoder.lstm.weight_hh_l0?" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3 + MOST_TOLD
    assert (f"unexpected: {others + 1 - MOST_TOLD} more" in str(caught.value)) == (others > 0)
    assert_loaded(model, before)


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(I, H), nn.LazyLinear(O)


def test_a_lazy_module_takes_its_shapes_from_the_file(save: Save) -> None:
    torch.manual_seed(1)
    expected = dict(nn.ModuleDict({"rnn": nn.RNN(I, H), "head": nn.Linear(H, O)}).state_dict())
    path = save(renamed(expected, ("", "module.")))
    assert load_into(model := Lazy(), path) == (f"{path}: taken without the prefix 'module.'",)
    assert_loaded(model, expected)
    del expected["head.weight"]
    with pytest.raises(InputError, match=r"does not fit Lazy:\n  missing: head\.weight$"):
        load_into(Lazy(), save(expected))


@pytest.mark.parametrize("model", [nn.Tanh(), nn.Sequential(nn.ReLU())])
@pytest.mark.parametrize("state", [{}, {"weight": torch.ones(2)}])
def test_a_model_that_takes_nothing_is_not_said_to_be_loaded(save: Save, model: nn.Module, state: Any) -> None:
    with pytest.raises(InputError, match="has neither parameters nor buffers: there is nothing to load"):
        load_into(model, save(state))


@pytest.mark.parametrize("state", [{}, {"other.kernel": torch.ones(2, 2)}])
def test_a_checkpoint_with_none_of_the_models_keys_is_refused(save: Save, state: Any) -> None:
    with pytest.raises(InputError, match=r"missing: weight \(2, 4\)\n  missing: bias"):
        load_into(nn.Linear(4, 2), save(state))


# ---- the hand-written network -------------------------------------------------------------------


def elman(**settings: Any) -> dict[str, Tensor]:
    return state_of(lambda: nn.RNN(I, H, **settings))


def full() -> dict[str, Tensor]:
    return state_of(lambda: FullRNN(I, H, O))


def under(place: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return renamed(state, ("", place))


OWN_WRAPPED = [
    renamed(full(), ("rnn_cell.", "rnn_cell._orig_mod.")),
    renamed(full(), ("rnn_cell.", "module.rnn_cell._orig_mod."), ("hidden_to_output.", "module.hidden_to_output.")),
    renamed(full(), ("rnn_cell.", "net.module.rnn_cell."), ("hidden_to_output.", "net.hidden_to_output._orig_mod.")),
]


@pytest.mark.parametrize("state", OWN_WRAPPED)
def test_the_own_names_are_found_within_wrappers(save: Save, state: Mapping[str, Tensor]) -> None:
    found = read_weights(path := save(state))
    assert set(found.tensors) == set(full())
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in full().items())
    assert len(found.notes) == 1
    assert found.notes[0].startswith(f"{path}: taken without ")


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (
            {**full(), "embedding": torch.ones(9, 3)},
            "1 tensor that the hand-written network does not have: embedding (",
        ),
        ({**full(), "n_averaged": torch.tensor(3)}, "n_averaged ()"),
        ({**full(), "critic.weight": torch.ones(2, 4), "critic.bias": torch.ones(2)}, "2 tensors"),
        ({**elman(), "norm.weight": torch.ones(4), "norm.bias": torch.ones(4)}, "norm.weight (4,), norm.bias (4,)"),
        ({**under("module.", full()), "criterion.weight": torch.ones(5)}, "criterion.weight (5,)"),
        ({**elman(), "a.weight": torch.ones(2, 4), "b.weight": torch.ones(2, 4)}, "a.weight (2, 4), b.weight (2, 4)"),
    ],
)
def test_what_is_no_part_of_the_hand_written_network_is_listed_and_left_out(
    save: Save, state: Mapping[str, Tensor], told: str
) -> None:
    path = save(state)
    found = read_weights(path)
    assert any("left out" in note and told in note for note in found.notes)
    expected = next(tensor for name, tensor in state.items() if name.endswith(("weight_hh_l0", "_to_hidden.weight")))
    assert any(torch.equal(expected, tensor) for tensor in found.tensors.values())
    with pytest.raises(InputError, match="extra: "):
        read_weights(path, strict=True)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (elman(num_layers=2), "extra: weight_hh_l1"),
        (elman(bidirectional=True), "extra: weight_hh_l0_reverse"),
        ({**under("enc.", elman()), **under("dec.", elman())}, "extra: dec.weight_hh_l0"),
        ({**under("enc.", elman()), **under("dec.", elman(bias=False))}, "extra: dec.weight_hh_l0"),
        ({**elman(), **under("dec.", state_of(lambda: nn.GRUCell(I, H)))}, "extra: dec.weight_hh"),
        ({**elman(), "weight_hr_l0": torch.ones(2, 4)}, "extra: weight_hr_l0"),
        ({**full(), **under("other.", full())}, "extra: other.rnn_cell.hidden_to_hidden.weight"),
    ],
)
def test_another_recurrent_layer_is_never_left_out(save: Save, state: Mapping[str, Tensor], said: str) -> None:
    with pytest.raises(InputError, match="One layer in one direction is read") as caught:
        read_weights(save(state))
    assert said in str(caught.value)


def mistyped(state: Mapping[str, Tensor], *pairs: tuple[str, str]) -> dict[str, Tensor]:
    names = dict(pairs)
    return {names.get(name, name): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (mistyped(elman(), ("bias_ih_l0", "bias_ih_0"), ("bias_hh_l0", "bias_hh_0")), "mean bias_ih_l0?"),
        (mistyped(elman(), ("bias_ih_l0", "bais_ih_l0"), ("bias_hh_l0", "bais_hh_l0")), "mean bias_hh_l0?"),
        (mistyped(full(), ("hidden_to_output.weight", "hidden_to_output.wieght")), "mean hidden_to_output.weight?"),
        (
            mistyped(elman(bias=False), ("weight_hh_l0", "weight_hh_10")),
            "weight_hh_10 (4, 4). Did you mean weight_hh_l0?",
        ),
    ],
)
def test_a_mistyped_part_of_the_hand_written_network_is_not_left_out(
    save: Save, state: Mapping[str, Tensor], said: str
) -> None:
    with pytest.raises(InputError, match="extra: ") as caught:
        read_weights(save(state))
    assert said in str(caught.value)


def test_the_one_linear_layer_that_reads_h_is_the_readout_among_other_layers(save: Save) -> None:
    head = state_of(lambda: nn.Linear(H, O))
    others = {"embed.weight": torch.ones(9, I), "norm.weight": torch.ones(H), "norm.bias": torch.ones(H)}
    found = read_weights(path := save({**others, **under("rnn.", elman()), **under("fc.", head)}))
    assert torch.equal(found.tensors["hidden_to_output.weight"], head["weight"])
    assert torch.equal(found.tensors["hidden_to_output.bias"], head["bias"])
    assert f"{path}: fc is taken as the readout (hidden_to_output)" in found.notes


@pytest.mark.parametrize(
    ("layers", "bias", "told"),
    [
        ({"fc": (O, H), "aux": (3, H)}, True, "fc, aux"),
        ({"head.0": (7, H), "head.2": (O, 7)}, True, "head.0, head.2"),
        ({"head.0": (7, H), "head.2": (7, 7), "head.4": (O, 7)}, True, "head.0, head.2, head.4"),
        ({"embed": (9, H), "fc": (O, H)}, False, "embed, fc"),
    ],
)
def test_a_readout_that_could_be_several_layers_is_said_not_to_be_known(
    save: Save, layers: Mapping[str, tuple[int, int]], bias: bool, told: str
) -> None:
    parts = {name: state_of(lambda: nn.Linear(*reversed(shape), bias=bias)) for name, shape in layers.items()}  # noqa: B023
    state = {name + "." + key: part for name, each in parts.items() for key, part in each.items()}
    found = read_weights(path := save({**under("rnn.", elman(bias=bias)), **state}))
    assert found.output_size is None
    assert f"{path}: which of {told} is the readout (hidden_to_output) is not known" in found.notes
    drawn = f"{path}: no readout (hidden_to_output) is taken from it: W_hy and b_y are drawn from the seed"
    assert found.notes[-1] == drawn
    assert f"left out {len(state)} tensors" in "".join(found.notes)


def test_a_readout_may_be_square_and_stand_beside_a_layer_that_does_not_read_h(save: Save) -> None:
    head, other = state_of(lambda: nn.Linear(H, H)), state_of(lambda: nn.Linear(I, 5))
    state = {**elman(), **under("fc.", head), **under("before.", other)}
    assert torch.equal(read_weights(save(state)).tensors["hidden_to_output.weight"], head["weight"])


# ---- the command --------------------------------------------------------------------------------

TRAIN = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.RNN(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0])
"""
GRADIENTS = ("doctor", "gradnorm", "flow", "truncation")
COMMANDS = ("cell", "forward", "unroll", *GRADIENTS, "spectrum", "lyapunov", "check", "bench")


def test_every_command_that_takes_weights_takes_strict() -> None:
    commands: Any = typer.main.get_command(app)
    for flag in ("--weights", "--strict"):
        taking = [name for name, each in commands.commands.items() if any(flag in p.opts for p in each.params)]
        # A sweep makes runs of other commands.
        assert sorted(taking) == sorted((*COMMANDS, "sweep"))


@pytest.mark.parametrize("command", COMMANDS)
def test_strict_is_recorded_and_refuses_on_every_command_that_takes_weights(command: str, save: Save, run: Any) -> None:
    save({**full(), "critic.weight": torch.ones(2)}, "w.ckpt")
    few = {"bench": "--repeats 1 --no-memory"}.get(command, "")
    ran = run(f"{command} --weights w.ckpt {few} --json")
    assert ran.code == 0
    assert "Note: w.ckpt: left out 1 tensor that the hand-written network does not have: critic.weight (2,)" in ran.err
    assert json.loads(ran.out)["config"]["strict"] is False
    ran = run(f"{command} --weights w.ckpt --strict {few} --json")
    assert (ran.code, ran.out) == (2, "")
    assert "extra: critic.weight (2,)" in ran.err
    assert "Traceback" not in ran.err
    save(full(), "w.ckpt")
    assert json.loads(run(f"{command} --weights w.ckpt --strict {few} --json").out)["config"]["strict"] is True


def test_extra_keys_change_nothing_but_the_notes_of_a_model(save: Save, run: Any, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    state = {**under("rnn.", elman()), **under("head.", state_of(lambda: nn.Linear(H, O)))}
    save(state, "plain")
    save({"state_dict": {**under("module.", state), "loss.scale": torch.ones(1)}, "epoch": 3}, "more.pth.tar")
    line = "gradnorm --model train:Net --json --weights"
    plain, more = run(f"{line} plain"), run(f"{line} more.pth.tar")
    assert json.loads(plain.out)["rows"] == json.loads(more.out)["rows"]
    assert plain.err == ""
    assert more.err.splitlines() == [
        "Note: more.pth.tar: taken from its 'state_dict'",
        "Note: more.pth.tar: taken without the prefix 'module.'",
        "Note: more.pth.tar: left out 1 tensor that Net does not have: loss.scale (1,)",
    ]
    ran = run(f"{line} more.pth.tar --strict")
    assert (ran.code, ran.out) == (2, "")
    assert "unexpected: loss.scale (1,)" in ran.err


def test_strict_without_weights_is_refused(run: Any) -> None:
    ran = run("gradnorm --strict")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "Error: --strict is about --weights, which is not given\n"
