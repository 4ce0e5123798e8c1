"""Models that take more than one tensor: --batch, a tuple or a mapping for x, and what is said of what is missing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from shell import Run, document, forget_modules_of, runner
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import rnnctl
from rnnctl.errors import InputError, ShapeError
from rnnctl.models.inputs import Inputs

COMMANDS = ("gradnorm", "forward", "flow", "truncation", "spectrum", "lyapunov")
GRADIENTS = ("gradnorm", "flow", "truncation")

TRAIN = """
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Plain(nn.Module):
    def __init__(self, hidden=4):
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, hidden, batch_first=True), nn.Linear(hidden, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Masked(Plain):
    def forward(self, x, mask, scale=1.0):
        return super().forward(scale * x * mask.unsqueeze(-1))


class Padded(Plain):
    def forward(self, x, lengths=None, scale=1.0):
        if lengths is None:
            return scale * super().forward(x)
        h, _ = self.rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        return scale * self.head(pad_packed_sequence(h, batch_first=True, total_length=x.shape[1])[0])


class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 3)
        self.encoder, self.decoder = nn.GRU(3, 4, batch_first=True), nn.GRU(3, 4, batch_first=True)
        self.head = nn.Linear(4, 6)

    def forward(self, source, target, *, teacher=True):
        _, h = self.encoder(self.embedding(source))
        return self.head(self.decoder(self.embedding(target), h)[0])


class Summary(Translator):
    def forward(self, source, lengths, target):
        return super().forward(source, target)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(6, 3), nn.GRU(3, 4, batch_first=True)

    def forward(self, tokens):
        return self.rnn(self.embedding(tokens))[0]


class ByHand(Tokens):
    def forward(self, tokens):
        return self.rnn(nn.functional.embedding(tokens, self.embedding.weight))[0]


class OfComputed(Tokens):
    def forward(self, x):
        return self.rnn(self.embedding(x.sum(-1) * 2))[0]


class Projects(nn.Module):
    def __init__(self, cut=False):
        super().__init__()
        self.inward, self.rnn, self.cut = nn.Linear(12, 3), nn.GRU(3, 4, batch_first=True), cut

    def forward(self, x):
        return self.rnn(self.inward(x[..., :7] if self.cut else x))[0]


class Within(Projects):
    def forward(self, x):
        return self.rnn(nn.functional.relu(x)[..., :3] @ torch.ones(4, 4))[0]


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.deep = nn.ModuleDict({"cell": nn.GRUCell(5, 4)})

    def forward(self, x):
        h, outputs = x.new_zeros(len(x), 4), []
        for x_t in x.unbind(1):
            h = self.deep["cell"](x_t, h)
            outputs.append(h)
        return torch.stack(outputs, 1)


class Odd(nn.Linear):
    def forward(self, input):
        raise RuntimeError("trouble")


class OwnForward(Projects):
    def __init__(self):
        super().__init__()
        self.inward = Odd(12, 3)


class Confused(Plain):
    def forward(self, x):
        return len(3)


# Drawn by the first import alone.
noise = torch.rand(3)


def x():
    return torch.linspace(-1, 1, 2 * 5 * 3).reshape(2, 5, 3)


def alone():
    return (x(),)


def listed():
    return [x(), torch.ones(2, 5)]


def named():
    return {"mask": torch.ones(2, 5, dtype=torch.bool), "x": x()}


def scaled():
    return x(), torch.ones(2, 5), 2.0


def sentences():
    return torch.arange(8).reshape(2, 4) % 6, torch.arange(10).reshape(2, 5) % 6


def summary():
    source, target = sentences()
    return source, torch.tensor([4, 2]), target


def small():
    return (sentences()[0].to(torch.int8),)


def backwards():
    return tuple(reversed(sentences()))


def drawn():
    return (torch.randn(2, 5, 3),)


def ragged():
    return x(), torch.tensor([5, 3]), 2.0


def ragged_by_name():
    return {"x": x(), "scale": 2.0, "lengths": torch.tensor([5, 3])}


def full():
    return x(), torch.tensor([5, 5]), 2.0


def wide():
    return torch.ones(2, 5, 9), torch.ones(2, 5)


def numbers():
    return x(), torch.ones(2, 5, 3)


def with_state():
    return torch.randn(2, 5, 3), (torch.randn(1, 2, 4), torch.randn(1, 2, 4))


def noisy():
    print("drawn")
    return (x(),)


def tensor():
    return x()


def text():
    return "x"


def nothing():
    pass


def empty():
    return ()


def no_tensor():
    return 3, {"x": [4]}


def vectors():
    return torch.ones(3), torch.tensor(1.0)


def keys():
    return {0: x()}


def needing(path):
    return (x(),)


def raising():
    return {}["trouble"]


def squares(output, target):
    return output.square().sum()


value = 3
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Run one command line in a folder with models of a user's and their batches."""
    (tmp_path / "train.py").write_text(TRAIN)
    x = torch.linspace(-1, 1, 2 * 5 * 3).reshape(2, 5, 3).numpy()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "doubled.npy", 2 * x)
    np.save(tmp_path / "lengths.npy", np.array([5, 3]))
    np.save(tmp_path / "y.npy", np.random.default_rng(0).normal(size=(2, 5, 2)).astype(np.float32))
    np.save(tmp_path / "classes.npy", np.arange(10).reshape(2, 5) % 6)
    np.save(tmp_path / "four.npy", np.arange(8).reshape(2, 4) % 6)
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


def without_config(ran: Any) -> Any:
    assert ran.code == 0, ran.err
    found = document(ran)
    found.pop("config")
    return found


class Masked(nn.Module):
    """An LSTM that needs a mask."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.rnn(x * mask.unsqueeze(-1))[0]
        return found


class Optics(Masked):
    """Its lens is a mask, and no length."""

    def forward(self, x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        return super().forward(x, lens)


class Pair(NamedTuple):
    """One argument with a tensor in it."""

    first: torch.Tensor
    second: str


class Packs(nn.Module):
    """An LSTM over packed sequences, its lengths among other inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return scale * pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])[0]


# ---- in the shell -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_one_tensor_in_a_batch_gives_what_the_same_input_gives(command: str, run: Run) -> None:
    model = f"{command} --model train:Plain --json"
    assert without_config(run(f"{model} --batch train:alone")) == without_config(run(f"{model} --input x.npy"))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("batch", ["listed", "named"])
def test_every_command_runs_a_model_of_several_inputs(command: str, batch: str, run: Run) -> None:
    found = without_config(run(f"{command} --model train:Masked --batch train:{batch} --json"))
    assert found == without_config(run(f"{command} --model train:Plain --input x.npy --json"))


def test_an_argument_that_is_no_tensor_reaches_the_model(run: Run) -> None:
    found = without_config(run("gradnorm --model train:Masked --batch train:scaled --json"))
    assert found == without_config(run("gradnorm --model train:Plain --input doubled.npy --json"))


def test_a_decoder_is_itemised_by_its_own_steps(run: Run) -> None:
    line = "--model train:Translator --batch train:sentences --loss cross-entropy --target classes.npy --json"
    found = document(run(f"gradnorm {line} --loss-at all"))
    steps = {weight["weight"]: weight["steps"] for weight in found["weights"]}
    assert steps == {"encoder.weight_hh_l0": 4, "decoder.weight_hh_l0": 5}
    assert found["scalars"]["autograd_relative_error"] < 1e-6
    flow = document(run(f"flow {line} --module decoder"))["scalars"]
    # Its steps are those of the output, whichever input comes first.
    reverse = line.replace("sentences", "backwards").replace("classes", "four")
    assert document(run(f"truncation {reverse} --module decoder"))["rows"][-1]["window"] == 4
    assert (flow["seq_len"], flow["loss"]) == (5, pytest.approx(found["scalars"]["loss"], rel=1e-6))


def test_the_config_says_where_the_batch_came_from_and_how_large_it_is(run: Run) -> None:
    config = document(run("forward --model train:Masked --batch train:listed --json"))["config"]
    assert (config["batch"], config["batch_size"], config["seq_len"]) == ("train:listed", 2, 5)
    assert config["input_size"] == 3
    tokens = document(run("forward --model train:Translator --batch train:sentences --json"))["config"]
    assert (tokens["batch_size"], tokens["seq_len"], tokens["input_size"]) == (2, 4, None)
    head = run("gradnorm --model train:Masked --batch train:listed").out.splitlines()[0]
    assert "T 5, batch 2" in head and "train:listed" in head and "random input" not in head


def test_a_target_and_a_loss_of_the_users_stand_beside_a_batch(run: Run) -> None:
    for more in ("--target y.npy --loss-at all", "--loss-fn torch.nn.functional:mse_loss --target y.npy"):
        found = without_config(run(f"gradnorm --model train:Masked --batch train:listed --json {more}"))
        assert found == without_config(run(f"gradnorm --model train:Plain --input x.npy --json {more}"))


def test_a_batch_is_seeded_like_the_model(run: Run) -> None:
    line = "gradnorm --model train:Plain --batch train:drawn --format csv"
    assert run(line).out == run(line).out != run(f"{line} --seed 1").out
    torch.manual_seed(5)
    state = torch.get_rng_state()
    run(line)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_a_batch_prints_goes_to_stderr(run: Run) -> None:
    ran = run("gradnorm --model train:Plain --batch train:noisy --json")
    assert document(ran)["rows"]
    assert "drawn" in ran.err


def test_a_dtype_that_is_asked_for_is_that_of_the_floats_in_a_batch(run: Run) -> None:
    for batch in ("listed", "with_state"):
        model = (
            "train:Masked" if batch == "listed" else "torch.nn:LSTM --model-arg input_size=3 --model-arg hidden_size=4"
        )
        found = document(run(f"gradnorm --model {model} --batch train:{batch} --dtype float64 --json"))
        assert found["config"]["dtype"] == "float64"
        assert found["scalars"]["autograd_relative_error"] < 1e-12


def test_a_dtype_that_is_not_asked_for_is_the_users_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "double.py").write_text("import torch\n\ndef batch():\n    return (torch.ones(2, 5, 3).double(),)\n")
    ran = run("gradnorm --model train:Plain --batch double:batch")
    assert (ran.code, ran.out) == (1, "")
    assert "train:Plain raised:\nTraceback" in ran.err


@pytest.mark.parametrize("batch", ["ragged", "ragged_by_name"])
def test_lengths_in_a_batch_are_those_that_the_loss_counts(batch: str, run: Run) -> None:
    for at in ("last", "all"):
        found = document(run(f"gradnorm --model train:Padded --batch train:{batch} --loss sum --loss-at {at} --json"))
        plain = f"gradnorm --model train:Padded --input x.npy --lengths lengths.npy --loss sum --loss-at {at} --json"
        expected = document(run(plain))
        # The batch has the output scaled by 2, which is behind the lengths.
        for mine, theirs in zip(found["rows"], expected["rows"], strict=True):
            assert mine["grad_norm_W_hh"] == pytest.approx(2 * theirs["grad_norm_W_hh"], rel=1e-6)
        for name in ("padded_share", "first_over_last"):
            assert found["scalars"][name] == pytest.approx(expected["scalars"][name], rel=1e-6)


def test_lengths_of_the_input_say_nothing_about_an_output_with_other_steps(run: Run) -> None:
    ran = run("gradnorm --model train:Summary --batch train:summary")
    assert (ran.code, ran.out) == (2, "")
    assert "take an output of shape (2, 4, output) or (2, output); got (2, 5, 6). Try --loss-fn" in ran.err
    assert run("gradnorm --model train:Summary --batch train:summary --loss-fn train:squares").code == 0


@pytest.mark.parametrize("command", ["flow", "truncation"])
def test_what_asks_about_every_step_refuses_lengths_that_differ(command: str, run: Run) -> None:
    ran = run(f"{command} --model train:Padded --batch train:ragged")
    assert (ran.code, ran.out) == (2, "")
    assert "take sequences of one length; got lengths from 3 to 5. gradnorm takes several" in ran.err
    assert run(f"{command} --model train:Padded --batch train:full").code == 0


@pytest.mark.parametrize("command", GRADIENTS)
def test_a_time_first_layer_by_itself_takes_its_state_beside_its_input(command: str, run: Run) -> None:
    arguments = "--model-arg input_size=3 --model-arg hidden_size=4"
    found = [
        document(run(f"{command} --model torch.nn:LSTM {arguments} {more} --batch train:with_state --json"))
        for more in ("", "--model-arg batch_first=true")
    ]
    assert found[0]["rows"] == found[1]["rows"]
    if command == "gradnorm":
        assert not found[0]["weights"][0]["h_init_is_zero"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--batch train:alone", "--batch gives the inputs of --model, which is not given"),
        ("--cell gru --batch train:alone", "--batch gives the inputs of --model, which is not given"),
        (
            "--model train:Plain --batch train:alone --input x.npy",
            "--batch train:alone and --input x.npy both give the inputs. Leave out one of them",
        ),
        (
            "--model train:Plain --batch train:alone --lengths lengths.npy",
            "--batch train:alone gives lengths among the model's inputs. Leave out --lengths",
        ),
        ("--model train:Plain --batch train:alone --target next", "beside --batch try --target FILE or --loss-fn"),
        ("--model train:Plain --batch train:alone --standardize", "--standardize is about --input"),
        ("--model train:Plain --batch train:alone --seq-len 7", "--seq-len says seq-len 7; --batch train:alone has 5"),
        ("--batch train:alone --from run.jsonl", "it takes no --model, --cell, --input or --batch"),
    ],
)
def test_a_batch_beside_what_contradicts_it_is_exit_2(line: str, said: str, run: Run) -> None:
    ran = run(f"gradnorm {line}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ("train:tensor", "a mapping of keyword arguments; got Tensor. Return (x,)"),
        ("train:text", "got str. Return what model(...) is called with"),
        ("train:nothing", "got NoneType"),
        ("train:keys", "got dict"),
        ("train:empty", "--batch train:empty must hold a tensor of shape (batch, time, ...); it holds no tensor"),
        ("train:no_tensor", "it holds no tensor"),
        ("train:vectors", "it holds tensors of shape (3,), ()"),
        (
            "train:needing",
            "--batch train:needing(path) must be callable without arguments: missing a required argument",
        ),
        ("train:value", "--batch: train:value must be a function or a class; got int"),
        ("train:named_x", "--batch: train has no 'named_x'. Did you mean named?"),
        ("train.py", "--batch must be package.module:name"),
        ("nowhere:batch", "--batch: there is no module 'nowhere'"),
    ],
)
def test_what_is_no_batch_is_exit_2(batch: str, said: str, run: Run) -> None:
    ran = run(f"gradnorm --model train:Plain --batch {batch}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_a_batch_that_raises_keeps_its_traceback_without_our_frames(run: Run) -> None:
    ran = run("gradnorm --model train:Plain --batch train:raising")
    assert (ran.code, ran.out) == (1, "")
    assert "train:raising raised:\nTraceback" in ran.err and "KeyError: 'trouble'" in ran.err
    assert "/rnnctl/" not in ran.err


# ---- what a model says of what it lacks ---------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_that_needs_more_arguments_is_told_which(command: str, run: Run) -> None:
    ran = run(f"{command} --model train:Translator --module decoder --input classes.npy")
    assert (ran.code, ran.out) == (2, "")
    said = "the model's forward(source, target, teacher) also needs target; it was given 1 positional argument. "
    assert f"{said}Give x as a tuple or a mapping of all its arguments, in the shell by --batch package" in ran.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train:Masked --batch train:alone", "also needs mask; it was given 1 positional argument"),
        ("train:Plain --batch train:listed", "does not take 2 positional arguments: too many positional arguments"),
        ("train:Plain --batch train:named", "does not take mask and x: got an unexpected keyword argument 'mask'"),
    ],
)
def test_other_arguments_than_a_model_has_are_exit_2(line: str, said: str, run: Run) -> None:
    ran = run(f"gradnorm --model {line}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("model", ["Tokens", "ByHand"])
def test_a_model_that_embeds_tokens_is_told_that_it_was_given_numbers(command: str, model: str, run: Run) -> None:
    ran = run(f"{command} --model train:{model}")
    assert (ran.code, ran.out) == (2, "")
    said = "the model embeds tokens, whole numbers of shape (batch, time); x holds float32 of shape (4, 7, 3). "
    assert f"{said}Give it whole numbers, in the shell by --batch package.module:function or --input FILE" in ran.err


def test_numbers_for_the_tokens_of_a_batch_are_told_by_its_name(run: Run) -> None:
    ran = run("gradnorm --model train:Translator --batch train:numbers")
    assert (ran.code, ran.out) == (2, "")
    assert "--batch train:numbers holds float32 of shape (2, 5, 3)" in ran.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "train:Projects",
            "inward, a Linear, takes 12 features; x has 3, being of shape (4, 7, 3). Try --input-size 12",
        ),
        ("train:Loop --input-size 6", "deep.cell, a GRUCell, takes 5 features; x has 6, being of shape (4, 7, 6)"),
        ("train:Plain --input-size 4", "rnn, an LSTM, takes 3 features; x has 4"),
        ("torch.nn:GRU --model-arg input_size=3 --model-arg hidden_size=2 --input-size 4", "the model, a GRU, takes 3"),
        ("train:Masked --batch train:wide", "traceback"),
    ],
)
@pytest.mark.parametrize("command", ["gradnorm", "spectrum"])
def test_an_input_of_another_size_is_told_where_the_model_refuses_it(
    command: str, line: str, said: str, run: Run
) -> None:
    ran = run(f"{command} --model {line}")
    if said == "traceback":
        # The mask has made another tensor of it: where it went wrong is the user's to see.
        assert (ran.code, "Traceback" in ran.err) == (1, True)
        return
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


@pytest.mark.parametrize(
    "model",
    [
        "OfComputed",
        "Projects --model-arg cut=true --input-size 8",
        "Within --input-size 8",
        "Confused",
        "OwnForward",
        "Tokens --batch train:small",
    ],
)
def test_an_error_that_is_not_about_the_input_keeps_the_users_traceback(model: str, run: Run) -> None:
    ran = run(f"gradnorm --model train:{model}")
    assert (ran.code, ran.out) == (1, "")
    assert "raised:\nTraceback" in ran.err and "in forward" in ran.err
    assert "/rnnctl/" not in ran.err and "During handling" not in ran.err


# ---- in the library -----------------------------------------------------------------------------

QUESTIONS = [rnnctl.gradnorm, rnnctl.flow, rnnctl.truncation, rnnctl.spectrum, rnnctl.lyapunov, rnnctl.sequence_shapes]


@pytest.mark.parametrize("ask", QUESTIONS)
def test_every_question_takes_a_tuple_or_a_mapping_for_x(ask: Any) -> None:
    model, x = Masked(), torch.randn(2, 6, 3)
    mask = torch.ones(2, 6)
    mask[:, 4:] = 0
    plain = nn.LSTM(3, 4, batch_first=True)
    plain.load_state_dict(model.rnn.state_dict())
    expected = ask(plain, x * mask.unsqueeze(-1))
    for given in ((x, mask), {"mask": mask, "x": x}, {"mask": mask.bool(), "x": x}):
        found = ask(model, given)
        numbers = [[value for value in row.values() if isinstance(value, float)] for row in found.rows]
        assert numbers == [[value for value in row.values() if isinstance(value, float)] for row in expected.rows]


@pytest.mark.parametrize("ask", QUESTIONS)
def test_a_missing_argument_names_the_remedy_of_the_library(ask: Any) -> None:
    with pytest.raises(InputError, match="also needs mask; .* Give x as a tuple or a mapping of all its arguments"):
        ask(Masked(), torch.randn(2, 6, 3))


@pytest.mark.parametrize("ask", QUESTIONS)
def test_the_hand_written_network_takes_one_tensor(ask: Any) -> None:
    with pytest.raises(ShapeError, match="a rnnctl.FullRNN takes x alone, a tensor .* got several inputs"):
        ask(rnnctl.FullRNN(3, 4, 2), (torch.randn(2, 6, 3),))


@pytest.mark.parametrize("ask", [rnnctl.gradnorm, rnnctl.flow, rnnctl.truncation])
def test_inputs_without_sequences_are_refused_before_the_model_runs(ask: Any) -> None:
    with pytest.raises(ShapeError, match=r"x must hold a tensor of shape \(batch, time, \.\.\.\); it holds no tensor"):
        ask(Masked(), (None, "mask"))


def test_a_hook_that_gives_the_model_an_argument_is_left_to_it() -> None:
    model, x = Masked(), torch.randn(2, 6, 3)
    model.register_forward_pre_hook(lambda module, args: (*args, torch.ones(2, 6)))
    found, expected = rnnctl.gradnorm(model, x), rnnctl.gradnorm(model, (x,))
    assert found.scalars["loss"] == expected.scalars["loss"] > 0


def test_lengths_among_the_inputs_are_those_beside_them() -> None:
    model, x, lengths = Packs(), torch.randn(3, 6, 3), torch.tensor([6, 2, 4])
    expected = rnnctl.gradnorm(model, x, lengths=lengths, loss="sum")
    for given in ((x, lengths), {"lengths": lengths, "x": x}, (x, lengths, 1.0)):
        found = rnnctl.gradnorm(model, given, loss="sum")
        assert (found.rows, dict(found.scalars)) == (expected.rows, dict(expected.scalars))
    with pytest.raises(InputError, match="x holds lengths already. Leave them out of it, or leave out lengths"):
        rnnctl.gradnorm(model, (x, lengths), lengths=lengths)


def test_lengths_that_are_no_tensor_stay_where_they_are() -> None:
    model, x = Packs(), torch.randn(3, 6, 3)
    shapes = rnnctl.sequence_shapes(model, (x, [6, 2, 4]))
    assert shapes.rows == rnnctl.sequence_shapes(model, x, lengths=torch.tensor([6, 2, 4])).rows


def test_what_is_no_length_by_its_shape_is_none_by_its_name() -> None:
    x, mask = torch.randn(3, 6, 3), torch.ones(3, 6, dtype=torch.int64)
    assert rnnctl.gradnorm(Optics(), (x, mask)).rows == rnnctl.gradnorm(Masked(), (x, mask)).rows


def test_a_packed_sequence_is_one_argument() -> None:
    model = nn.Sequential(nn.LSTM(3, 4))
    packed = pack_padded_sequence(torch.randn(5, 2, 3), torch.tensor([5, 5]))
    assert Inputs((packed,)).shape == (2, 5, 3)
    found = rnnctl.gradnorm(model, (packed,))
    padded = pad_packed_sequence(packed, batch_first=True)[0]
    bare = model[0]
    assert found.scalars["loss"] == pytest.approx(rnnctl.gradnorm(bare, padded).scalars["loss"], rel=1e-6)
    assert rnnctl.gradnorm(bare, (packed,)).scalars["loss"] == found.scalars["loss"]
    with pytest.raises(ShapeError, match="got PackedSequence"):
        rnnctl.gradnorm(model, packed)  # type: ignore[arg-type]


# ---- the arguments of one call ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "shape"),
    [
        ((torch.ones(2, 5, 3), torch.ones(4, 6)), {}, (2, 5, 3)),
        ((torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 5, 3)), {}, (2, 5, 3)),
        ((torch.ones(2), torch.ones(2, 5, dtype=torch.int64)), {}, (2, 5)),
        ((None, {"a": [torch.ones(2, 5, 3)]}), {"b": torch.ones(4, 6)}, (2, 5, 3)),
        ((), {"mask": torch.ones(2), "x": (1, torch.ones(2, 5, 3))}, (2, 5, 3)),
    ],
)
def test_the_sequences_are_the_first_tensor_over_batch_and_time(args: Any, kwargs: Any, shape: Any) -> None:
    assert Inputs(args, kwargs).shape == shape


def test_tensors_are_moved_and_floats_converted_wherever_they_are() -> None:
    pair = Pair(torch.ones(2), "a name")
    packed, odd = pack_padded_sequence(torch.ones(5, 2, 3), torch.tensor([5, 5])), object()
    given = Inputs(
        (torch.ones(2, 3), [torch.ones(1, dtype=torch.int64), odd], packed), {"a": {"b": torch.ones(1)}, "pair": pair}
    )
    found = given.to(torch.device("meta"), torch.float64)
    dtypes = [part.dtype for part in found.tensors if isinstance(part, torch.Tensor)]
    assert dtypes == [torch.float64, torch.int64, torch.float64, torch.float64]
    assert all((part.data if isinstance(part, PackedSequence) else part).is_meta for part in found.tensors)
    assert isinstance(found.args[2], PackedSequence) and found.args[2].data.dtype == torch.float64
    assert isinstance(found.args[1], list) and found.args[1][1] is odd
    assert given.args[0].device.type == "cpu"
    assert isinstance(found.kwargs["pair"], Pair) and found.kwargs["pair"].second == "a name"
