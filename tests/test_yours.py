"""The shell with models of the user's: --model, --cell, --module, --loss-fn."""

import csv
import datetime
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from probe_oracles import ByClones
from safetensors.torch import load_file
from shell import Run, document, forget_modules_of, runner
from torch import nn

import rnnctl
from rnnctl import InputError, ShapeError
from rnnctl.files.models import keyword_arguments
from rnnctl.files.users_code import PACKAGE, UserCodeError

COMMANDS = ("gradnorm", "forward", "flow", "truncation", "spectrum", "lyapunov")
# Commands that look into one recurrent weight.
OF_ONE = ("flow", "truncation", "spectrum", "lyapunov")

TRAIN = """
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Base(nn.Module):
    def __init__(self, hidden=6, cell="LSTM", layers=1, dropout=0.0, outputs=5):
        super().__init__()
        self.encoder = getattr(nn, cell)(10, hidden, layers, batch_first=True, dropout=dropout)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x):
        return self.head(self.encoder(x)[0])


class Factories:
    @staticmethod
    def small():
        return Base(3)

    class Inner:
        @classmethod
        def gru(cls, hidden=3):
            return Base(hidden, "GRU")


def build(hidden=6, cell="LSTM"):
    return Base(hidden, cell)


ready = Base(4)
number = 3


def taking(a=1, b=None, c=None, d=None, **rest):
    return Base()


def nothing():
    pass


def the_class():
    return Base


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.stack = nn.ModuleDict({"low": nn.GRU(10, 4, batch_first=True), "high": nn.RNN(4, 3, batch_first=True)})
        self.tail = nn.LSTM(3, 5, batch_first=True)

    def forward(self, x):
        return self.tail(self.stack["high"](self.stack["low"](x)[0])[0])[0]


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.inward, self.recurrent, self.head = nn.Linear(10, 4), nn.Linear(4, 4), nn.Linear(4, 5)

    def forward(self, x):
        h, outputs = x.new_zeros(x.shape[0], 4), []
        for x_t in x.unbind(1):
            h = torch.tanh(self.inward(x_t) + self.recurrent(h))
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


class Tokens(nn.Module):
    def __init__(self, vocabulary=6):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 4)
        self.rnn = nn.LSTM(4, vocabulary, batch_first=True)
        self.tied = nn.Linear(4, vocabulary)
        self.tied.weight = self.embedding.weight

    def forward(self, tokens):
        return self.rnn(self.embedding(tokens))[0]


class Several(Base):
    def forward(self, x):
        return super().forward(x), "something else", 3


class Named(Base):
    def forward(self, x):
        return {"loss": None, "logits": super().forward(x)}


class Unnamed(Base):
    def forward(self, x):
        return {"tags": super().forward(x)}


class TimeFirst(Base):
    def forward(self, x):
        return super().forward(x).transpose(0, 1)


class Last(Base):
    def forward(self, x):
        return super().forward(x)[:, -1]


class Loss(Base):
    def forward(self, x):
        return super().forward(x)[:, -1].square().mean()


class Squeezed(Base):
    def forward(self, x):
        return super().forward(x)[..., 0]


class Flat(Base):
    def forward(self, x):
        return super().forward(x).flatten(0, 1)


class Classes(Base):
    def forward(self, x):
        return super().forward(x).argmax(-1)


class Detached(Base):
    def forward(self, x):
        return super().forward(x).detach()


class Packed(Base):
    def forward(self, x, lengths):
        h, _ = self.encoder(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        return self.head(pad_packed_sequence(h, batch_first=True)[0])


class Sums(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(10, 5)

    def forward(self, x):
        return self.head(x.sum(1))


def squares(output, target):
    return output.square().sum()


def difference(output, target):
    return (output - target).square().mean()


def classes(output, target):
    assert target.dtype == torch.int64
    return nn.functional.cross_entropy(output.flatten(0, 1), target.flatten())


def of_first(output, target):
    return output[0].square().sum()


def of_one(output):
    return output.sum()


def three(output, target):
    return 3


def vector(output, target):
    return output[0, 0]
"""

TROUBLE = """
import ctypes, os, sys
import torch
from torch import nn
from train import Base


class InFactory(Base):
    def __init__(self):
        raise ValueError("trouble")


class InForward(Base):
    def forward(self, x):
        return self.deeper(x)

    def deeper(self, x):
        raise KeyError("trouble")


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, grad):
        raise ZeroDivisionError("trouble")


class InBackward(Base):
    def forward(self, x):
        return Backward.apply(super().forward(x))


class InMove(Base):
    def to(self, *args, **settings):
        raise OverflowError("trouble")


class InSaving(Base):
    def state_dict(self, *args, **settings):
        raise BufferError("trouble")


def __getattr__(name):
    if name == "in_lookup":
        raise LookupError("trouble")
    raise AttributeError(name)


def loss(output, target):
    raise ArithmeticError("trouble")


def leave():
    sys.exit("trouble")


class LeavesInForward(Base):
    def forward(self, x):
        sys.exit(0)


class Interrupts(Base):
    def forward(self, x):
        raise KeyboardInterrupt


class Noisy(Base):
    def forward(self, x):
        self.encoder.weight_hh_l0.data.add_(torch.randn(24, 6))
        return super().forward(x)


print("imported")


class Prints(Base):
    def __init__(self):
        super().__init__()
        print("built")

    def forward(self, x):
        print("run")
        return super().forward(x)


class Writes(Base):
    def forward(self, x):
        os.write(1, b"descriptor\\n")
        os.system("echo child")
        sys.__stdout__.write("original\\n")
        ctypes.CDLL(None).printf(b"from C\\n")
        return super().forward(x)
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Run one command line in a folder with models of a user's."""
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "trouble.py").write_text(TROUBLE)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "__init__.py").write_text("")
    (tmp_path / "deep" / "er" / "models.py").write_text("from train import Base\nfrom . import sizes\n")
    (tmp_path / "deep" / "er" / "sizes.py").write_text("")
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "garbled.py").write_text("def (\n")
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


def rows_of(found: Any, name: str) -> list[float]:
    return [row[name] for row in found["rows"]]


def built(kind: type[nn.RNNBase], seed: int = 0, **settings: Any) -> tuple[nn.RNNBase, nn.Linear, torch.Tensor]:
    """What --cell builds: layers, readout and the random input, in one stream of random numbers."""
    torch.manual_seed(seed)
    layers = kind(10, 20, batch_first=True, **settings)
    head = nn.Linear(20 * (2 if layers.bidirectional else 1), 5, settings.get("bias", True))
    return layers, head, torch.randn(4, 7, 10)


# ---- where models come from ---------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["train:build", "deep.er.models:Base"])
def test_every_command_takes_a_function_or_a_class_in_a_package(command: str, place: str, run: Run) -> None:
    ran = run(f"{command} --model {place} --model-arg hidden=3 --json")
    assert (ran.code, ran.err) == (0, "")
    assert document(ran)["config"]["network"] == f"{place}(hidden=3)"


@pytest.mark.parametrize("place", ["train:Factories.small", "train:Factories.Inner.gru", "train:ready"])
def test_a_factory_may_be_an_attribute_of_a_class_and_a_module_may_be_there_already(place: str, run: Run) -> None:
    found = document(run(f"gradnorm --model {place} --json"))
    cell = "GRU" if place.endswith("gru") else "LSTM"
    assert [weight["cell"] for weight in found["weights"]] == [cell]


def test_the_models_own_numbers_are_seeded(run: Run) -> None:
    found = [run(f"gradnorm --model train:build --format csv --seed {seed}").out for seed in (3, 3, 4)]
    assert found[0] == found[1] != found[2]
    torch.manual_seed(3)
    torch.rand(2)
    state = torch.get_rng_state()
    run("gradnorm --model train:build")
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_has_the_same_masks_for_the_same_seed(run: Run) -> None:
    line = "gradnorm --model train:Base --model-arg layers=2 --model-arg dropout=0.5 --format csv"
    first = run(line).out
    assert run(line).out == first
    assert run(f"{line} --seed 1").out != first
    assert run(line.replace("0.5", "0.0")).out != first


def test_a_model_arg_has_the_type_that_toml_gives_it() -> None:
    texts = ["a=20", "b=-0.5", "c=true", 'd="true"', "e=word", "f=[1, 2.5]", 'g={x = 1, y = "z"}', "h=1_000"]
    texts += ["i=1979-05-27", "j=inf", "k=a/b-c.d+e", "l='it is'", "m=0x10", "n = 3", "o=''"]
    given = keyword_arguments(texts)
    values = [20, -0.5, True, "true", "word", [1, 2.5], {"x": 1, "y": "z"}, 1000]
    values += [datetime.date(1979, 5, 27), math.inf, "a/b-c.d+e", "it is", 16, 3, ""]
    assert list(given) == list("abcdefghijklmno")
    for got, value in zip(given.values(), values, strict=True):
        assert (type(got), got) == (type(value), value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hidden"], "--model-arg must be name=value, as in hidden=20; got 'hidden'"),
        (["=3"], "must be name=value"),
        (["hid den=3"], "must be name=value"),
        (["hidden=3", "hidden=4"], "--model-arg hidden is given twice"),
        (["hidden=[1"], "'[1' is no TOML value"),
        (["hidden="], "'' is no TOML value"),
        (["hidden=two words"], "'two words' is no TOML value"),
        (["hidden=1\nother = 2"], "is no TOML value"),
        (["hidden=False"], "true or false, and no None"),
        (["hidden=None"], "true or false, and no None"),
        (["hiden=3"], "train:Base(hidden=6, cell='LSTM', layers=1, dropout=0.0, outputs=5)"),
    ],
)
def test_a_model_arg_that_cannot_be_used_is_exit_2(arguments: list[str], said: str, run: Run) -> None:
    ran = run("gradnorm --model train:Base", *(part for each in arguments for part in ("--model-arg", each)))
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("Error: ") == 1


# ---- which part of the model --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        (None, ["stack.low.weight_hh_l0", "stack.high.weight_hh_l0", "tail.weight_hh_l0"]),
        ("tail", ["tail.weight_hh_l0"]),
        ("stack", ["stack.low.weight_hh_l0", "stack.high.weight_hh_l0"]),
        ("stack.high", ["stack.high.weight_hh_l0"]),
        ("stack.low.weight_hh_l0", ["stack.low.weight_hh_l0"]),
    ],
)
def test_a_module_is_named_by_itself_by_its_container_or_by_its_weight(name, weights, run: Run) -> None:
    picked = "" if name is None else f"--module {name}"
    found = document(run(f"gradnorm --model train:Two --json {picked}"))
    assert [weight["weight"] for weight in found["weights"]] == weights
    assert list(dict.fromkeys(rows_of(found, "weight"))) == weights
    shown = document(run(f"forward --model train:Two --json {picked}"))
    modules = [row["module"] for row in shown["rows"] if row["kind"] == "module"]
    assert [f"{module}.weight_hh_l0" for module in modules] == weights


def test_one_weight_among_several_has_the_numbers_that_it_has_among_all(run: Run) -> None:
    every, one = (document(run(f"gradnorm --model train:Two --json {more}")) for more in ("", "--module stack.high"))
    chosen = [row for row in every["rows"] if row["weight"] == "stack.high.weight_hh_l0"]
    for name in ("grad_norm_W_hh", "grad_norm_h"):
        assert rows_of(one, name) == [row[name] for row in chosen]


@pytest.mark.parametrize("module", ["", "--module recurrent", "--module recurrent.weight"])
def test_a_linear_map_that_is_applied_to_the_state_is_found(module: str, run: Run) -> None:
    found = document(run(f"gradnorm --model train:Loop {module} --json"))
    assert [weight["weight"] for weight in found["weights"]] == ["recurrent.weight"]
    assert (found["weights"][0]["cell"], found["weights"][0]["calls"]) == ("Linear", 7)
    assert found["scalars"]["autograd_relative_error"] < 1e-5
    assert document(run(f"flow --model train:Loop {module} --json"))["scalars"]["loss"] > 0
    assert document(run(f"truncation --model train:Loop {module} --json"))["scalars"]["seq_len"] == 7


@pytest.mark.parametrize("command", OF_ONE)
def test_what_looks_into_one_weight_names_those_there_are(command: str, run: Run) -> None:
    ran = run(f"{command} --model train:Two")
    assert (ran.code, ran.out) == (2, "")
    assert "pick one with --module of stack.low.weight_hh_l0, stack.high.weight_hh_l0, tail.weight_hh_l0" in ran.err
    assert run(f"{command} --model train:Two --module stack.high").code == 0


# ---- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("cell", "kind"), [("rnn", nn.RNN), ("gru", nn.GRU), ("lstm", nn.LSTM)])
def test_rows_of_a_cell_are_those_of_a_computation_by_hand(cell, kind, layers, bidirectional, run: Run) -> None:
    flags = f"--num-layers {layers} {'--bidirectional' if bidirectional else ''} --loss-at all"
    found = document(run(f"gradnorm --cell {cell} {flags} --seed 5 --json"))
    module, head, x = built(kind, seed=5, num_layers=layers, bidirectional=bidirectional)
    clones = ByClones(module)
    out, _, _ = clones(x.double().transpose(0, 1))
    loss = head.double()(out).square().mean()
    loss.backward()
    assert found["scalars"]["loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
    for name, expected in clones.results().items():
        rows = [row for row in found["rows"] if row["weight"] == f"rnn.{name}"]
        assert [row["t"] for row in rows] == list(range(7))
        columns = {"grad_norm_W_hh": expected["W_hh"], "grad_norm_h": expected["h"], "grad_norm_c": expected["c"]}
        gates = {"gru": "rzn", "lstm": "ifgo"}.get(cell, "")
        columns |= {f"grad_norm_{gate}": expected["gates"][:, i] for i, gate in enumerate(gates)}
        for column, values in columns.items():
            if values is not None:
                assert [row[column] for row in rows] == pytest.approx(values.tolist(), rel=1e-4, abs=1e-9)
        total = float(expected["G"].sum(0).norm())
        summary = next(row for row in found["weights"] if row["weight"] == f"rnn.{name}")
        assert summary["grad_W_hh_norm"] == pytest.approx(total, rel=1e-5)


def test_a_model_has_the_gradient_that_autograd_gives_it(run: Run, tmp_path: Path) -> None:
    x, target = torch.randn(3, 5, 10), torch.randn(3, 5, 5)
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "y.npy", target.numpy())
    line = "gradnorm --model train:build --input x.npy --target y.npy --loss-at all --save-weights w.safetensors --json"
    found = document(run(line))
    module, head = nn.LSTM(10, 6, batch_first=True), nn.Linear(6, 5)
    saved = load_file(tmp_path / "w.safetensors")
    module.load_state_dict({name[8:]: part for name, part in saved.items() if name.startswith("encoder.")})
    head.load_state_dict({name[5:]: part for name, part in saved.items() if name.startswith("head.")})
    loss = (head(module(x)[0]) - target).square().mean()
    loss.backward()
    assert found["scalars"]["loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
    norm = float(module.weight_hh_l0.grad.norm())
    assert found["scalars"]["grad_W_hh_norm"] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("command", ["gradnorm", "flow", "truncation", "spectrum", "lyapunov"])
def test_an_rnn_with_its_weights_is_the_hand_written_network(command: str, run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(2, 12, 3)))
    data = "--input x.npy --standardize --target next"
    run(f"forward --cell rnn {data} --save-weights w.safetensors")
    own = run(f"{command} {data} --weights w.safetensors --json")
    theirs = run(f"{command} --cell rnn {data} --weights w.safetensors --json")
    assert "prefix 'rnn.'" in own.err
    named = {
        "gradnorm": ("grad_norm_W_hh", "grad_norm_h", "grad_norm_h_direct"),
        "flow": ("norm",),
        "truncation": ("relative_error", "cosine"),
        "spectrum": ("modulus", "singular_value"),
        "lyapunov": ("exponent",),
    }[command]
    for name in named:
        expected = [value or 0.0 for value in rows_of(document(own), name)]
        found = [value or 0.0 for value in rows_of(document(theirs), name)]
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-9 * max(map(abs, expected)))


@pytest.mark.parametrize("flag", ["--init orthogonal", "--gain 2", "--no-bias", "--output-activation tanh", "--seed 2"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_cell_is_shaped_by_the_flags_of_the_hand_written_network(cell: str, flag: str, run: Run) -> None:
    plain = rows_of(document(run(f"gradnorm --cell {cell} --json")), "grad_norm_W_hh")
    assert rows_of(document(run(f"gradnorm --cell {cell} --json {flag}")), "grad_norm_W_hh") != plain


def test_every_gate_of_a_cell_is_drawn_as_init_says(run: Run) -> None:
    found = document(run("spectrum --cell lstm --init orthogonal --gain 2 --json"))
    assert [gate["spectral_norm"] for gate in found["gates"]] == pytest.approx([2.0] * 4, rel=1e-5)


def test_relu_is_for_the_ungated_cell(run: Run) -> None:
    plain, relu = (document(run(f"gradnorm --cell rnn {more} --json")) for more in ("", "--nonlinearity relu"))
    assert plain["rows"] != relu["rows"]
    ran = run("gradnorm --cell gru --nonlinearity relu")
    assert (ran.code, ran.out) == (2, "")
    assert "nonlinearity relu is for cell rnn; gru has tanh and its gates" in ran.err


# ---- outputs, targets and losses ----------------------------------------------------------------


def gradients(ran: Any) -> list[float]:
    return rows_of(document(ran), "grad_norm_W_hh")


@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.parametrize("place", ["Several", "Named", "TimeFirst"])
def test_the_output_is_found_in_what_a_model_returns(place: str, at: str, run: Run) -> None:
    plain = run(f"gradnorm --model train:Base --loss-at {at} --json")
    assert gradients(run(f"gradnorm --model train:{place} --loss-at {at} --json")) == pytest.approx(gradients(plain))


@pytest.mark.parametrize("place", ["Last", "Loss"])
def test_an_output_without_time_or_a_loss_is_taken_as_it_is(place: str, run: Run) -> None:
    found, plain = (gradients(run(f"gradnorm --model train:{name} --json")) for name in (place, "Base"))
    assert found == pytest.approx(plain)


@pytest.mark.parametrize("sizes", ["", "--seq-len 5 --batch-size 5"])
@pytest.mark.parametrize("first", ["true", "false"])
def test_a_bare_layer_of_torchs_is_a_model(first: str, sizes: str, run: Run) -> None:
    arguments = " ".join(f"--model-arg {each}" for each in ("input_size=10", "hidden_size=20", f"batch_first={first}"))
    found = document(run(f"gradnorm --model torch.nn:LSTM {arguments} {sizes} --json"))
    torch.manual_seed(0)
    module = nn.LSTM(10, 20)
    x = torch.randn((5, 5, 10) if sizes else (4, 7, 10)).transpose(0, 1)
    module(x)[0][-1].square().mean().backward()
    assert found["scalars"]["grad_W_hh_norm"] == pytest.approx(float(module.weight_hh_l0.grad.norm()), rel=1e-5)
    assert [weight["weight"] for weight in found["weights"]] == ["weight_hh_l0"]
    for command in OF_ONE if sizes and first == "false" else ():
        assert run(f"{command} --model torch.nn:LSTM {arguments} {sizes}").code == 0


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("Squeezed", "may be (batch, time) or (batch, output)"),
        ("Flat", "an output of shape (4, 7, output) or (4, output); got (28, 5). Try --loss-fn"),
        ("Classes", "floating-point numbers; got torch.int64"),
        ("Unnamed", "the model returned dict, in which no output is to be found. Try --loss-fn"),
        ("Detached", "the loss does not depend on anything that takes a gradient"),
        ("Sums", "no weight recurs in the pass that was run"),
    ],
)
def test_an_output_that_does_not_fit_is_exit_2_with_what_came(place: str, said: str, run: Run) -> None:
    ran = run(f"gradnorm --model train:{place}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_a_loss_of_the_users_takes_what_the_model_returned(run: Run) -> None:
    own = gradients(run("gradnorm --model train:Base --loss-fn train:squares --json"))
    of_first = gradients(run("gradnorm --model train:Several --loss-fn train:of_first --json"))
    ours = gradients(run("gradnorm --model train:Base --loss-at all --json"))
    assert own == pytest.approx([4 * 7 * 5 * norm for norm in ours], rel=1e-5)
    assert of_first == pytest.approx(own, rel=1e-6)
    assert gradients(run("gradnorm --cell gru --loss-fn train:squares --json"))


def test_a_loss_of_the_users_takes_the_target_as_it_is(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.random.default_rng(0).normal(size=(4, 7, 5)))
    np.save(tmp_path / "classes.npy", np.arange(28).reshape(4, 7) % 5)
    own, ours = (
        gradients(run(f"gradnorm --model train:Base --target y.npy {loss} --json"))
        for loss in ("--loss-fn train:difference", "--loss-at all")
    )
    assert own == pytest.approx(ours, rel=1e-5)
    own, ours = (
        gradients(run(f"gradnorm --model train:Base --target classes.npy {loss} --json"))
        for loss in ("--loss-fn train:classes", "--loss-at all --loss cross-entropy")
    )
    assert own == pytest.approx(ours, rel=1e-5)


def test_a_loss_of_the_users_is_named_in_the_headline(run: Run) -> None:
    assert "loss train:squares," in run("gradnorm --model train:Base --loss-fn train:squares").out.splitlines()[0]


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("train:nothing_such", "--loss-fn: train has no 'nothing_such'"),
        ("train:squarez", "Did you mean squares?"),
        ("train:of_one", "--loss-fn train:of_one(output) must take (output, target): too many positional arguments"),
        ("train:three", "the loss must be one number in a tensor; got int"),
        ("train:vector", "the loss must be one number in a tensor; got (5,)"),
        ("train:number", "--loss-fn: train:number must be a function or a class; got int"),
    ],
)
def test_a_loss_that_cannot_be_one_is_exit_2(loss: str, said: str, run: Run) -> None:
    ran = run(f"gradnorm --model train:Base --loss-fn {loss}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


@pytest.mark.parametrize("place", ["train:Base --model-arg outputs=10", "--cell", "manual"])
def test_the_next_step_is_a_target_for_every_network(place: str, run: Run, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 6, 10)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "now.npy", x[:, :-1])
    np.save(tmp_path / "next.npy", x[:, 1:])
    network = {"--cell": "--cell gru", "manual": ""}.get(place, f"--model {place}")
    found, spelled = (
        gradients(run(f"gradnorm {network} {data} --json"))
        for data in ("--input x.npy --target next", "--input now.npy --target next.npy")
    )
    assert len(found) == 5
    assert found == spelled


def test_token_numbers_reach_an_embedding(run: Run, tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 6, (3, 9))
    np.save(tmp_path / "tokens.npy", tokens)
    np.save(tmp_path / "now.npy", tokens[:, :-1])
    np.save(tmp_path / "next.npy", tokens[:, 1:])
    line = "gradnorm --model train:Tokens --loss cross-entropy --loss-at all --json"
    found = document(run(f"{line} --input tokens.npy --target next --save-weights w.safetensors"))
    assert (found["config"]["batch_size"], found["config"]["seq_len"], found["config"]["input_size"]) == (3, 8, None)
    assert found["rows"] == document(run(f"{line} --input now.npy --target next.npy --weights w.safetensors"))["rows"]
    for command in ("forward", "spectrum", "lyapunov", "flow --loss cross-entropy --target next"):
        assert run(f"{command} --model train:Tokens --input tokens.npy").code == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--standardize", "--standardize is for values; tokens.npy holds token numbers"),
        ("--target next", "which are classes: --loss cross-entropy"),
        ("--cell gru", "tokens.npy must hold floating-point numbers; got int64"),
    ],
)
def test_token_numbers_are_not_taken_for_values(line: str, said: str, run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.ones((3, 9), dtype=np.int64))
    network = "" if "--cell" in line else "--model train:Tokens"
    ran = run(f"gradnorm {network} --input tokens.npy {line}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


# ---- models in trouble --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "error", "places"),
    [
        ("trouble:InFactory", "ValueError: trouble", ["in __init__"]),
        ("trouble:InForward", "KeyError: 'trouble'", ["in forward", "in deeper"]),
        ("trouble:InBackward", "ZeroDivisionError: trouble", ["in backward"]),
        ("trouble:InMove", "OverflowError: trouble", ["in to"]),
        ("trouble:InSaving --save-weights w.safetensors", "BufferError: trouble", ["in state_dict"]),
        ("trouble:in_lookup", "LookupError: trouble", ["in __getattr__"]),
        ("train:Base --loss-fn trouble:loss", "ArithmeticError: trouble", ["in loss"]),
        ("broken:Base", "ModuleNotFoundError: No module named 'nowhere_to_be_found'", ["broken.py"]),
        ("garbled:Base", "SyntaxError", ["garbled.py"]),
    ],
)
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_model_that_raises_keeps_its_traceback_without_our_frames(line, error, places, form, run: Run) -> None:
    ran = run(f"gradnorm --model {line} --format {form}")
    assert (ran.code, ran.out) == (1, "")
    assert error in ran.err
    assert all(place in ran.err for place in places)
    assert "/rnnctl/" not in ran.err
    assert "During handling" not in ran.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_keeps_the_traceback_of_a_forward_pass(command: str, run: Run) -> None:
    ran = run(f"{command} --model trouble:InForward --json")
    assert (ran.code, ran.out) == (1, "")
    assert "trouble:InForward raised:\nTraceback" in ran.err
    assert "/rnnctl/" not in ran.err


OURS = """
from contextlib import contextmanager
from rnnctl.errors import hands_over
from rnnctl.files.users_code import users_code


@hands_over
def calling(theirs):
    with users_code("theirs"):
        theirs()


@hands_over
def within(theirs):
    with users_code("theirs"):
        return [theirs() for _ in "a"]


@hands_over
@contextmanager
def running():
    with users_code("theirs"):
        yield


def around(theirs):
    with running():
        theirs()


@hands_over
def further(theirs):
    with users_code("theirs"):
        around(theirs)
"""


def of_ours() -> dict[str, Any]:
    """Compiled as if it stood in the package."""
    there: dict[str, Any] = {"__name__": "rnnctl.handing"}
    exec(compile(OURS, str(PACKAGE / "handing.py"), "exec"), there)
    return there


def theirs() -> None:
    raise ValueError("trouble")


@pytest.mark.parametrize("name", ["calling", "within", "running"])
def test_what_comes_out_of_a_function_that_hands_over_is_the_users(name: str) -> None:
    """Also out of what stands within it, and of the block of a context manager."""
    with pytest.raises(UserCodeError, match="theirs raised:\nTraceback") as caught:
        if name == "running":
            with of_ours()["running"]():
                theirs()
        else:
            of_ours()[name](theirs)
    assert "in theirs" in str(caught.value)
    assert "handing.py" not in str(caught.value)


@pytest.mark.parametrize("name", ["around", "further"])
def test_what_comes_out_of_any_other_function_of_ours_is_a_bug_of_ours(name: str) -> None:
    with pytest.raises(ValueError, match="trouble"):
        of_ours()[name](theirs)


@pytest.mark.parametrize(
    "place",
    [
        "rnnctl.gradients.gradnorm.itemised",
        "rnnctl.gradients.layer_calls.layer_norms",
        "rnnctl.models.recording.layers_below",
        "rnnctl.models.objective.sequence_loss",
    ],
)
def test_a_bug_of_ours_is_not_laid_at_the_models_door(place: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # Compiled as if it stood in the package.
    code = compile("def broken(*_, **__): raise ZeroDivisionError('a bug')", str(PACKAGE / "bug.py"), "exec")
    there: dict[str, Any] = {"__name__": "rnnctl.bug"}
    exec(code, there)
    monkeypatch.setattr(place, there["broken"])
    with pytest.raises(ZeroDivisionError, match="a bug") as caught:
        run("gradnorm --model train:Base")
    assert "rnnctl/cli/commands/gradnorm.py" in "".join(str(entry.path) for entry in caught.traceback)


@pytest.mark.parametrize(("place", "code"), [("leave", "'trouble'"), ("LeavesInForward", "0")])
def test_a_model_that_ends_the_program_is_exit_1(place: str, code: str, run: Run) -> None:
    ran = run(f"gradnorm --model trouble:{place}")
    assert (ran.code, ran.out) == (1, "")
    assert f"trouble:{place} ended the program with exit({code})" in ran.err


def test_an_interrupt_within_a_model_is_exit_130_without_a_word(run: Run) -> None:
    ran = run("gradnorm --model trouble:Interrupts")
    assert (ran.code, ran.out, ran.err) == (130, "", "imported\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_model_prints_goes_to_stderr(command: str, run: Run) -> None:
    ran = run(f"{command} --model trouble:Prints --json")
    assert ran.err.split() == ["imported", "built", "run"]
    assert document(ran)["rows"]


def test_what_a_model_writes_past_python_goes_to_stderr(run: Run, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        kept = [os.dup(1), os.dup(2)]
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            ran = run("gradnorm --model trouble:Writes --json")
        finally:
            for number, own in enumerate(kept, start=1):
                os.dup2(own, number)
                os.close(own)
    assert document(ran)["rows"]
    assert (tmp_path / "out").read_text() == ""
    written = (tmp_path / "err").read_text().split("\n")
    assert {"descriptor", "child", "from C"} <= set(written)


def test_a_model_that_does_what_its_weights_do_not_say_is_exit_1_with_the_result(run: Run) -> None:
    ran = run("gradnorm --model trouble:Noisy --json")
    if ran.code == 0:  # The change came before the call: what was seen is what was run.
        assert document(ran)["scalars"]["states_agree"]
    else:
        assert "not to be trusted" in ran.err


# ---- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--model train", "--model must be package.module:name, as in 'train.models:build'"),
        ("--model train.py:build", "(no path, no .py); got 'train.py:build'"),
        ("--model ./train:build", "no path"),
        ("--model :build", "must be package.module:name"),
        ("--model train:", "must be package.module:name"),
        ("--model .train:build", "must be package.module:name"),
        ("--model trian:build", "there is no module 'trian' in"),
        ("--model deep.missing:build", "there is no module 'deep.missing' in"),
        ("--model train.deeper:build", "there is no module 'train.deeper' in"),
        ("--model train:biuld", "--model: train has no 'biuld'. Did you mean build?"),
        ("--model train:Factories.smal", "--model: train has no 'Factories.smal'. Did you mean small?"),
        ("--model train:number", "--model: train:number must be a function or a class; got int"),
        ("--model train:nothing", "train:nothing must return a torch.nn.Module; got NoneType"),
        ("--model train:the_class", "must return a torch.nn.Module; got the class Base"),
        ("--model train:ready --model-arg hidden=3", "is a module already and takes no --model-arg"),
        ("--model train:build --cell gru", "--model and --cell gru both name a network; give one of them"),
        ("--model train:build --hidden-size 3", "--hidden-size shapes a network that we build"),
        ("--model train:build --output-size 3", "--output-size shapes a network that we build"),
        ("--model train:build --init orthogonal", "--init shapes a network that we build"),
        ("--model train:build --gain 2", "--gain shapes a network that we build"),
        ("--model train:build --no-bias", "--no-bias shapes a network that we build"),
        ("--model train:build --nonlinearity relu", "--nonlinearity shapes a network that we build"),
        ("--model train:build --output-activation tanh", "--output-activation shapes a network that we build"),
        ("--model train:build --num-layers 2", "--num-layers and --bidirectional are for --cell"),
        ("--model train:build --bidirectional", "--num-layers and --bidirectional are for --cell"),
        ("--model train:build --h-init normal", "--h-init is for the hand-written network"),
        ("--cell gru --h-init normal", "--h-init is for the hand-written network"),
        ("--cell gru --model-arg hidden=3", "--model-arg is a keyword for --model, which is not given"),
        ("--cell gru --num-layers 0", "expected a whole number of at least 1; got '0'"),
        ("--cell transformer", "'transformer' is not one of 'manual', 'rnn', 'gru', 'lstm', 'coupled-lstm'"),
        ("--num-layers 2", "the hand-written network has one layer in one direction; add --cell rnn, gru or lstm"),
        ("--bidirectional", "the hand-written network has one layer in one direction"),
        ("--model-arg hidden=3", "--model-arg is about --model or --cell, which are not given"),
        ("--module encoder", "--module is about --model or --cell, which are not given"),
        ("--loss-fn train:squares", "--loss-fn takes the output of --model or --cell, which are not given"),
        ("--model train:build --module encodr", "no recurrent module or weight 'encodr'"),
        ("--model train:build --module encodr", "Did you mean encoder?"),
        ("--model train:Sums", "the model has no recurrent module of a known kind"),
        ("--model train:Loop --module recurent", "Did you mean recurrent?"),
        ("--model train:build --input sunspots --batch-size 3", "--batch-size says batch-size 3; sunspots has 1"),
        ("--model train:build --target nxt", "Did you mean next?"),
        ("--cell lstm --hidden-size 100000000", "of memory"),
        ("--model train:build --weights missing.pt", "missing.pt"),
        ("--model train:build --save-weights w.pt", "--save-weights writes .safetensors"),
    ],
)
def test_a_mistake_is_one_message_and_exit_2(line: str, said: str, run: Run) -> None:
    ran = run(f"gradnorm {line}")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: ")
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert len(ran.err.splitlines()) <= 2


@pytest.mark.parametrize("module", ["", "--module recurrent", "--module recurrent.weight"])
def test_spectrum_and_lyapunov_take_a_cell_of_the_users_own_writing(module: str, run: Run) -> None:
    spectrum = document(run(f"spectrum --model train:Loop {module} --seq-len 6 --json"))
    assert (spectrum["schema"], spectrum["scalars"]["cell"]) == ("rnnctl.spectrum-steps", "Loop")
    assert (spectrum["scalars"]["weight"], spectrum["scalars"]["state_size"]) == ("recurrent.weight", 4)
    assert [row["t"] for row in spectrum["rows"]] == [1, 2, 3, 4, 5]
    lyapunov = document(run(f"lyapunov --model train:Loop {module} --seq-len 6 --warmup 2 --json"))
    assert (lyapunov["scalars"]["cell"], lyapunov["scalars"]["steps"], len(lyapunov["rows"])) == ("Loop", 3, 4)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("flow --cell lstm --bidirectional --module rnn.weight_hh_l0_reverse", "(a reverse direction?)"),
        ("truncation --cell lstm --bidirectional --module rnn.weight_hh_l0_reverse", "(a reverse direction?)"),
        ("flow --model train:Last", "a loss at every step needs an output of shape (batch, time, output)"),
        ("truncation --cell gru --windows 8", "windows must be from 1 to the sequence's 7 steps; got 8"),
        ("lyapunov --model train:Loop --autonomous", "code of Loop, which reads its input itself"),
        ("spectrum --model train:Loop --module head", "picks no weight that recurs in this pass; there is recurrent"),
        ("flow --model train:build --loss-fn train:squares", "No such option: --loss-fn"),
        ("bench --probe --nonlinearity relu", "--nonlinearity says nothing to --probe"),
        ("bench --probe --flow", "--flow and --probe measure different things"),
    ],
)
def test_what_a_command_cannot_do_with_a_model_is_said_plainly(line: str, said: str, run: Run) -> None:
    ran = run(line)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "Traceback" not in ran.err


# ---- weights, dtypes, devices -------------------------------------------------------------------


@pytest.mark.parametrize("network", ["--model train:build", "--cell lstm --num-layers 2", "--model train:Two"])
def test_saved_weights_give_the_same_result_again(network: str, run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(2, 5, 10)))
    first = document(run(f"gradnorm {network} --input x.npy --seed 3 --save-weights w.safetensors --json"))
    again = document(run(f"gradnorm {network} --input x.npy --seed 4 --weights w.safetensors --json"))
    other = document(run(f"gradnorm {network} --input x.npy --seed 4 --json"))
    assert again["rows"] == first["rows"] != other["rows"]


@pytest.mark.parametrize(
    ("wrapped", "said"),
    [
        (lambda state: state, ""),
        (lambda state: {"state_dict": state, "epoch": 3}, "taken from its 'state_dict'"),
        (lambda state: {"model": state, "optimizer": {"lr": 0.1}}, "taken from its 'model'"),
        (lambda state: {f"module.{name}": part for name, part in state.items()}, "without the prefix 'module.'"),
    ],
)
def test_a_training_checkpoint_is_loaded_into_the_model(wrapped, said: str, run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(2, 5, 10)))
    first = document(run("gradnorm --model train:build --input x.npy --save-weights w.safetensors --json"))
    torch.save(wrapped(load_file(tmp_path / "w.safetensors")), tmp_path / "checkpoint.pt")
    ran = run("gradnorm --model train:build --input x.npy --seed 9 --weights checkpoint.pt --json")
    assert document(ran)["rows"] == first["rows"]
    assert said in ran.err


def test_weights_that_do_not_fit_the_model_are_listed(run: Run) -> None:
    run("gradnorm --model train:build --save-weights w.safetensors")
    ran = run("gradnorm --model train:build --model-arg hidden=5 --weights w.safetensors")
    assert (ran.code, ran.out) == (2, "")
    assert "encoder.weight_hh_l0 must have shape (20, 5); got (24, 6)" in ran.err
    ran = run("gradnorm --cell lstm --weights w.safetensors")
    assert "missing: rnn.weight_hh_l0" in ran.err


@pytest.mark.parametrize("network", ["--model train:build", "--cell gru"])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_dtype_is_that_of_model_and_data(network: str, dtype: str, run: Run) -> None:
    ran = run(f"gradnorm {network} --dtype {dtype} --json")
    found = document(ran)
    assert found["config"]["dtype"] == dtype
    swept = "states in bfloat16; the gradients are swept along them in float32"
    assert (swept in ran.err) == (dtype == "bfloat16")
    for command in COMMANDS[1:]:
        assert run(f"{command} {network} --dtype {dtype}").code == 0


def test_a_device_that_is_not_there_is_said_before_the_model_is_loaded(run: Run, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ran = run("gradnorm --model trouble:Prints --device cuda")
    assert (ran.code, ran.out) == (2, "")
    assert "this torch finds no such device" in ran.err
    assert "imported" not in ran.err


def test_files_are_refused_before_the_model_is_loaded(run: Run, tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("precious")
    for more in ("-o there.json", "--plot missing/a.png", "--save-weights missing/w.safetensors", "--fail-on 1<2"):
        ran = run(f"gradnorm --model trouble:Prints {more}")
        assert (ran.code, ran.out) == (2, "")
        assert "imported" not in ran.err
    assert (tmp_path / "there.json").read_text() == "precious"


# ---- formats, conditions, configuration ---------------------------------------------------------


@pytest.mark.parametrize("network", ["--model train:Two", "--cell lstm"])
@pytest.mark.parametrize("command", ["gradnorm", "forward"])
def test_json_jsonl_and_csv_agree(command: str, network: str, run: Run) -> None:
    rows = document(run(f"{command} {network} --json"))["rows"]
    lines = [json.loads(line) for line in run(f"{command} {network} --format jsonl").out.splitlines()]
    cells = list(csv.DictReader(io.StringIO(run(f"{command} {network} --format csv").out)))
    assert lines == rows
    for cell, row in zip(cells, rows, strict=True):
        for name, value in row.items():
            text = "x".join(map(str, value)) if isinstance(value, list) else str(value).lower()
            assert cell[name].lower() == ("" if value is None else text)


def test_the_table_shows_the_numbers_of_the_json(run: Run) -> None:
    found, table = document(run("gradnorm --model train:Two --json")), run("gradnorm --model train:Two").out
    for row in found["rows"]:
        line = rf"^ *{row['t']} +{row['grad_norm_W_hh']:.4g} +{100 * row['share']:.1f} % +{row['grad_norm_h']:.4g} "
        assert re.search(line, table, re.MULTILINE)
    for row in found["weights"]:
        assert re.search(rf"^ {row['weight']} +{row['cell']} +{row['grad_W_hh_norm']:.4g} ", table, re.MULTILINE)
    for row in found["gates"]:
        assert re.search(rf"^ {row['weight']} +{row['gate']} +{100 * row['share']:.1f} % ", table, re.MULTILINE)


def test_json_says_what_it_is(run: Run) -> None:
    found = document(run("gradnorm --model train:Two --json"))
    assert list(found)[:6] == ["schema", "schema_version", "versions", "config", "scalars", "rows"]
    assert (found["schema"], found["config"]["model"]) == ("rnnctl.gradnorm-modules", "train:Two")
    assert {len(list(found[name])) for name in ("rows", "weights", "gates")} == {21, 3, 7}


def test_what_is_not_finite_is_null_with_a_note(run: Run) -> None:
    line = "gradnorm --cell rnn --nonlinearity relu --init identity --gain 30 --seq-len 60 --json"
    ran = run(line)
    found = document(ran)
    assert found["scalars"]["verdict"] == "nonfinite"
    assert all(row[name] is None for row in found["rows"] for name in row.get("nonfinite", ()))
    assert any("nonfinite" in row for row in found["rows"])
    assert run(f"{line} --fail-on nonfinite").code in (1, 3)


def test_only_one_part_is_shown_and_scalars_are_one_record(run: Run) -> None:
    line = "gradnorm --model train:build"
    assert "scalars" not in document(run(f"{line} --json --only rows"))
    assert not {"rows", "weights", "gates"} & set(document(run(f"{line} --json --only scalars")))
    (record,) = csv.DictReader(io.StringIO(run(f"{line} --format csv --only scalars").out))
    assert record["weight"] == "encoder.weight_hh_l0"


def test_a_result_goes_to_a_file_in_the_format_of_its_suffix(run: Run, tmp_path: Path) -> None:
    ran = run("gradnorm --model trouble:Prints -o result.json")
    assert ran.out == ""
    assert ran.err.endswith("Note: wrote result.json\n")
    assert json.loads((tmp_path / "result.json").read_text())["config"]["model"] == "trouble:Prints"


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("vanishing", 3),
        ("exploding", 0),
        ("nonfinite", 0),
        ("factor_per_step<0.9", 3),
        ("factor_per_step>0.9", 0),
        ("verdict==vanishing", 3),
        ("weights==1", 3),
        ("states_agree==false", 0),
        ("padded_share>0.1", 1),
    ],
)
def test_a_condition_on_a_model_is_one_on_its_worst_weight(condition: str, code: int, run: Run) -> None:
    ran = run("gradnorm --model train:build --seq-len 40 --json --fail-on", condition)
    assert ran.code == code
    assert len(document(ran)["rows"]) == 40
    assert (condition in ran.err) == (code != 0)


@pytest.mark.parametrize("condition", ["padded<1", "vanish", "verdict==foo", "weight<1", "states_agree==maybe"])
def test_a_condition_that_no_model_answers_is_refused_before_anything_runs(condition: str, run: Run) -> None:
    ran = run("gradnorm --model train:build --seq-len 40 --json --fail-on", condition)
    assert (ran.code, ran.out) == (2, "")
    assert condition in ran.err


@pytest.mark.parametrize("more", ["", "--lengths lengths.csv"])
def test_a_reverse_direction_that_only_its_first_step_reaches_has_no_gradient(more: str, run: Run, tmp_path) -> None:
    (tmp_path / "lengths.csv").write_text("7\n3\n5\n1\n")
    found = document(run(f"gradnorm --cell gru --bidirectional --json {more}"))
    assert [weight["verdict"] for weight in found["weights"]] == ["stable", "no gradient"]


@pytest.mark.parametrize(("command", "condition"), [("flow", "largest_norm>0"), ("truncation", "cosine_at_3<2")])
def test_conditions_on_the_other_commands(command: str, condition: str, run: Run) -> None:
    assert run(f"{command} --model train:build --fail-on {condition}").code == 3


def test_a_model_is_named_in_a_configuration_and_the_shell_has_the_last_word(run: Run, tmp_path: Path) -> None:
    text = 'model = "train:build"\nmodel-arg = ["hidden=3"]\nseq-len = 5\n[gradnorm]\nseq-len = 4\nmodule = "encoder"\n'
    (tmp_path / "run.toml").write_text(text)
    found = document(run("gradnorm --config run.toml --json"))
    assert (len(found["rows"]), found["config"]["network"]) == (4, "train:build(hidden=3)")
    assert document(run("forward --config run.toml --json"))["config"]["seq_len"] == 5
    changed = document(run("gradnorm --config run.toml --model train:Base --model-arg hidden=2 --json"))
    assert changed["config"]["network"] == "train:Base(hidden=2)"
    assert document(run("cell --config run.toml --json"))["config"]["seq_len"] == 5


def test_a_model_is_named_in_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNCTL_MODEL", "train:build")
    monkeypatch.setenv("RNNCTL_MODEL_ARG", "hidden=3 cell=GRU")
    found = document(run("gradnorm --json"))
    assert found["config"]["network"] == "train:build(hidden=3, cell=GRU)"
    assert found["weights"][0]["cell"] == "GRU"


# ---- how it looks -------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["--model train:Two", "--cell lstm --num-layers 2 --bidirectional"])
@pytest.mark.parametrize("command", ["gradnorm", "forward"])
def test_the_tables_of_rows_fit_80_columns_without_losing_a_number(command, network, run: Run, monkeypatch) -> None:
    class Screen(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    run("--version")
    wide = run(f"{command} {network} --only rows").out
    screen = Screen()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout", screen)
    run(f"{command} {network} --only rows --color never")
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines[1:])) <= 80
    assert "…" not in screen.getvalue()
    assert len(lines) >= len(wide.splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stream_that_knows_ascii_alone_gets_ascii(command: str, run: Run, monkeypatch) -> None:
    raw = io.BytesIO()
    run("--version")
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    run(f"{command} --cell gru")
    sys.stdout.flush()
    assert len(raw.getvalue().decode("ascii")) > 100


@pytest.mark.parametrize(
    ("command", "network"),
    [("gradnorm", "train:build"), ("spectrum", "train:build")]
    + [(command, "train:Factories.Inner.gru") for command in ("flow", "truncation", "lyapunov")],
)
def test_every_picture_can_be_drawn_of_a_model(command: str, network: str, run: Run, tmp_path: Path) -> None:
    ran = run(f"{command} --model {network} --plot picture.png --format csv")
    assert (ran.code, ran.err) == (0, "Note: wrote picture.png\n")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_says_that_the_users_code_is_run(command: str, run: Run) -> None:
    assert "Runs your code" in re.sub(r"[\s│]+", " ", run(f"{command} --help").out)


@pytest.mark.parametrize("ask", [rnnctl.gradnorm, rnnctl.flow, rnnctl.truncation, rnnctl.sequence_shapes])
def test_what_is_no_model_is_refused_by_every_question(ask: Any) -> None:
    x = torch.zeros(2, 3, 3)
    for model, got in ((nn.GRU, "type"), ("GRU", "str")):
        with pytest.raises(InputError, match=f"must be a torch.nn.Module; got {got}"):
            ask(model, x)


@pytest.mark.parametrize("ask", [rnnctl.gradnorm, rnnctl.flow, rnnctl.truncation])
@pytest.mark.parametrize(("x", "got"), [(None, "NoneType"), ([1.0], "list"), (torch.zeros(3), r"\(3,\)")])
def test_an_x_that_is_no_sequence_is_refused_before_the_model_runs(ask: Any, x: Any, got: str) -> None:
    with pytest.raises(ShapeError, match=rf"x must be a tensor of shape \(batch, time, input\); got {got}"):
        ask(nn.GRU(3, 4, batch_first=True), x)
