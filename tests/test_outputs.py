"""What a model returns: which part is the output, when the model's own loss is the one, and what is then refused."""

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from shell import Run, document, forget_modules_of, runner
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnnctl
from rnnctl.errors import DtypeError, InputError, ShapeError

Pair = namedtuple("Pair", ["hidden", "logits"])
Scored = namedtuple("Scored", ["nll", "scores"])


@dataclass
class Output:
    """Without a name that is known."""

    loss: Any
    tags: Any
    state: Any = None


class ModelOutput(OrderedDict):
    """A mapping whose entries are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Returns(nn.Module):
    """A GRU that hands its states to a function for what to return."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.form = nn.GRU(3, 4, batch_first=True), form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.rnn(x)[0])


def own(y: Tensor) -> Tensor:
    """A loss that none of ours is."""
    return y.abs().sum() / 3


X = torch.linspace(-1, 1, 2 * 5 * 3).reshape(2, 5, 3)
TARGET = torch.linspace(0, 1, 2 * 5 * 4).reshape(2, 5, 4)


def right(loss: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """The loss, and the norm of dL/dW_hh by autograd alone."""
    torch.manual_seed(0)
    layer = nn.GRU(3, 4, batch_first=True)
    value = loss(layer(X)[0])
    value.backward()
    return float(value.detach()), float(layer.weight_hh_l0.grad.norm())


def found(form: Callable[[Tensor], Any], **settings: Any) -> tuple[float, float]:
    scalars = rnnctl.gradnorm(Returns(form), X, **settings).scalars
    return scalars["loss"], scalars["grad_W_hh_norm"]


def mse_at_last(y: Tensor) -> Tensor:
    return y[:, -1].square().mean()


# ---- the model's own loss -----------------------------------------------------------------------

# What is returned -> where the model's own loss stands in it.
WITH_A_LOSS: dict[str, tuple[Callable[[Tensor], Any], str | None]] = {
    "alone": (own, None),
    "before the outputs": (lambda y: (own(y), y), "0"),
    "in a list": (lambda y: [own(y), y], "0"),
    "behind the outputs": (lambda y: (y, own(y)), "1"),
    "behind outputs and state": (lambda y: (y, (y[:, -1], None), own(y)), "2"),
    "before another number": (lambda y: (own(y), y, y.mean()), "0"),
    "mapping": (lambda y: {"logits": y, "loss": own(y)}, "loss"),
    "mapping with parts of the loss": (lambda y: {"ce_loss": y.mean(), "kl_loss": y.sum(), "loss": own(y)}, "loss"),
    "the whole among its parts": (lambda y: {"loss_ce": y.mean(), "total_loss": own(y), "y": y}, "total_loss"),
    "another name": (lambda y: {"nll_loss": own(y), "logits": y}, "nll_loss"),
    "no loss by name": (lambda y: {"Cost": own(y), "logits": y}, "Cost"),
    "of a regression": (lambda y: {"regression_loss": own(y), "prediction": y}, "regression_loss"),
    "the whole among numbers": (lambda y: {"loss": own(y), "aux_loss": y.mean(), "logits": y}, "loss"),
    "nested": (lambda y: (y, {"loss": own(y)}), "1.loss"),
    "dataclass": (lambda y: Output(own(y), y), "loss"),
    "named tuple": (lambda y: Scored(own(y), y), "nll"),
    "attributes": (lambda y: SimpleNamespace(output=y, loss=own(y)), "loss"),
    "as in transformers": (lambda y: ModelOutput(loss=own(y), logits=y, hidden_states=None, past=(y, y)), "loss"),
    "beside a loss for the eye": (lambda y: (own(y), y, own(y).detach()), "0"),
}


@pytest.mark.parametrize("name", WITH_A_LOSS)
def test_a_loss_that_the_model_returns_is_the_one_where_nobody_asks_for_another(name: str) -> None:
    form, key = WITH_A_LOSS[name]
    result = rnnctl.gradnorm(Returns(form), X)
    assert (result.scalars["loss"], result.scalars["grad_W_hh_norm"]) == pytest.approx(right(own), rel=1e-5)
    assert (result.own_loss, result.output_key) == (True, key)
    assert dict(result.settled) == {"loss": "the model's own", "loss_at": None, "target": None, "output_key": key}


@pytest.mark.parametrize("settings", [{"loss": "mse"}, {"loss": "sum"}, {"loss_at": "all"}, {"target": TARGET}])
@pytest.mark.parametrize("name", WITH_A_LOSS)
def test_what_the_models_own_loss_would_not_hear_is_refused(name: str, settings: dict[str, Any]) -> None:
    form, key = WITH_A_LOSS[name]
    flag = "--" + next(iter(settings)).replace("_", "-")
    place = "" if key is None else rf" \({key}\)"
    with pytest.raises(
        InputError, match=rf"own loss is differentiated{place}, and {flag}.* would be ignored.*--output-key"
    ):
        rnnctl.gradnorm(Returns(form), X, **settings)


@pytest.mark.parametrize("ask", [rnnctl.flow, rnnctl.truncation])
@pytest.mark.parametrize("settings", [{}, {"loss": "sum"}, {"target": TARGET}])
@pytest.mark.parametrize("name", WITH_A_LOSS)
def test_a_loss_at_every_step_is_not_made_of_one_number(name: str, settings: dict[str, Any], ask: Any) -> None:
    with pytest.raises(InputError, match="a loss at every step needs an output over time.*--output-key"):
        ask(Returns(WITH_A_LOSS[name][0]), X, **settings)


@pytest.mark.parametrize(
    ("form", "key"),
    [
        (lambda y: (y, own(y), y.mean()), 1),
        (lambda y: {"ce_loss": y.mean(), "kl_loss": own(y), "logits": y}, "kl_loss"),
        (lambda y: {"inner": {"parts": [y.mean(), own(y)]}, "logits": y}, "inner.parts.1"),
        (lambda y: {"kl": own(y), "logits": y}, "kl"),
    ],
)
def test_a_number_that_is_named_is_the_loss(form: Any, key: Any) -> None:
    assert found(form, output_key=key) == pytest.approx(right(own), rel=1e-5)
    with pytest.raises(InputError, match="--loss sum would be ignored"):
        rnnctl.gradnorm(Returns(form), X, output_key=key, loss="sum")


@pytest.mark.parametrize(
    ("form", "names"),
    [
        (lambda y: (y, own(y), y.mean()), "1, 2"),
        (lambda y: {"ce_loss": y.mean(), "kl_loss": y.sum(), "logits": y}, "ce_loss, kl_loss"),
        (lambda y: ({"loss": y.mean()}, {"loss": y.sum()}, y), "0.loss, 1.loss"),
        (lambda y: (own(y), y.mean(), y), "0, 1"),
        (lambda y: Scored(own(y), y.mean()), "nll, scores"),
        (lambda y: {"losses": [y.mean(), y.sum()], "logits": y}, "losses.0, losses.1"),
        (lambda y: {"nll": own(y), "entropy": y.mean(), "logits": y}, "nll, entropy"),
        (lambda y: (y, {"aux_loss": y.mean()}), "1.aux_loss"),
        (lambda y: {"logits": y, "loss_reg": y.mean()}, "loss_reg"),
        (lambda y: {"logits": y, "moe": {"balancing.cost": y.mean()}}, "moe.balancing.cost"),
    ],
)
def test_several_numbers_that_may_be_the_loss_are_told_apart_by_the_user(form: Any, names: str) -> None:
    with pytest.raises(
        InputError, match=f"what may be its loss, or parts of it: {names}. Name one, or an output, with"
    ):
        rnnctl.gradnorm(Returns(form), X)


@pytest.mark.parametrize(
    ("form", "key"),
    [
        (lambda y: {"loss": None, "logits": y}, "logits"),
        (lambda y: {"loss": 0.25, "logits": y}, "logits"),
        (lambda y: {"loss": own(y).detach(), "logits": y}, "logits"),
        (lambda y: {"logits": y, "temperature": y.mean()}, "logits"),
        (lambda y: (None, y), "1"),
        (lambda y: (y, own(y).detach(), own(y).item()), "0"),
        (lambda y: (y, torch.tensor(3)), "0"),
    ],
)
def test_what_one_cannot_train_on_is_no_loss(form: Any, key: str) -> None:
    result = rnnctl.gradnorm(Returns(form), X)
    assert (result.own_loss, result.output_key) == (False, key)
    assert result.scalars["loss"] == pytest.approx(right(mse_at_last)[0], rel=1e-5)
    assert found(form, loss="sum") == pytest.approx(right(lambda y: y[:, -1].sum()), rel=1e-5)


@pytest.mark.parametrize("settings", [{}, {"loss": "sum"}])
def test_a_loss_of_every_sequence_is_not_one_number(settings: dict[str, Any]) -> None:
    def form(y: Tensor) -> Any:
        return {"loss": y.square().mean((1, 2)), "logits": y}

    with pytest.raises(
        InputError, match=r"own loss has shape \(2,\), .* --output-key; there is logits float32 \(2, 5, 4\)"
    ):
        rnnctl.gradnorm(Returns(form), X, **settings)
    assert found(form, output_key="logits") == pytest.approx(right(mse_at_last), rel=1e-5)
    with pytest.raises(ShapeError, match=r"--loss and --target take an output of shape .* got \(2,\). Try --loss-fn$"):
        rnnctl.gradnorm(Returns(lambda y: y.square().mean((1, 2))), X)
    with pytest.raises(ShapeError, match=r"got \(2,\). Try --loss-fn, or --output-key; there is 1 float32 \(2, 5, 4\)"):
        rnnctl.gradnorm(Returns(lambda y: (y.square().mean((1, 2)), y)), X, **settings)


# ---- which output -------------------------------------------------------------------------------

# What is returned -> a key, and the same part in full; None as key: what is taken by itself.
OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], Any, str | None]] = {
    "a tensor": (lambda y: y, None, None),
    "the first of a tuple": (lambda y: (y, 2 * y[:, -1]), None, "0"),
    "output and (h, c)": (lambda y: (y, (y[:, -1], y[:, 0])), None, "0"),
    "the first that is a tensor": (lambda y: ("name", None, [], y), None, "3"),
    "a known name": (lambda y: {"attention": 2 * y, "logits": y}, None, "logits"),
    "a known name in a named tuple": (lambda y: Pair(2 * y, y), None, "logits"),
    "a known name that is there": (lambda y: {"output": None, "logits": y}, None, "logits"),
    "a known name further in": (lambda y: {"output": (y, 2 * y)}, None, "output.0"),
    "packed": (lambda y: (pack_padded_sequence(y, torch.tensor([5, 5]), batch_first=True), None), None, "0"),
    "by name": (lambda y: {"tags": y, "logits": 2 * y}, "tags", "tags"),
    "by index": (lambda y: (2 * y, y), 1, "1"),
    "by index as a text": (lambda y: (2 * y, y), "1", "1"),
    "from behind": (lambda y: [2 * y, 3 * y, y], -1, "2"),
    "by the index of a name": (lambda y: Pair(2 * y, y), 1, "logits"),
    "by the index of what is there": (lambda y: ModelOutput(loss=None, hidden=2 * y, tags=y), 1, "tags"),
    "field": (lambda y: Output(own(y), y), "tags", "tags"),
    "further in": (lambda y: {"heads": [2 * y, {"tags": y}]}, "heads.1.tags", "heads.1.tags"),
    "a name with a dot": (lambda y: {"a.b": y, "a": 2 * y}, "a.b", "a.b"),
    "a key that is no text": (lambda y: {3: y, "y": 2 * y}, 3, "3"),
    "attribute": (lambda y: torch.distributions.Normal(y, 1.0), "loc", "loc"),
    "within what is named": (lambda y: {"rnn": (y, 2 * y), "y": 3 * y}, "rnn", "rnn.0"),
    "packed by name": (
        lambda y: {"y": 2 * y, "p": pack_padded_sequence(y, torch.tensor([5, 5]), batch_first=True)},
        "p",
        "p",
    ),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_output_is_that_which_is_named_or_the_unsurprising_one(name: str) -> None:
    form, key, full = OUTPUTS[name]
    for loss, oracle in (("mse", lambda y: y.square().mean()), ("sum", lambda y: y.sum())):
        settings = {"output_key": key, "loss": loss}
        assert found(form, loss_at="all", **settings) == pytest.approx(right(oracle), rel=1e-5)
        every = rnnctl.flow(Returns(form), X, **settings)
        assert every.loss == pytest.approx(right(oracle)[0], rel=1e-5)
        assert every.output_key == full
        cut = rnnctl.truncation(Returns(form), X, **settings)
        assert (cut.loss, cut.output_key) == (pytest.approx(every.loss), full)
    aimed = found(form, output_key=key, target=TARGET)
    assert aimed == pytest.approx(right(lambda y: (y[:, -1] - TARGET[:, -1]).square().mean()), rel=1e-5)
    assert rnnctl.gradnorm(Returns(form), X, output_key=key).output_key == full


@pytest.mark.parametrize(
    ("form", "key", "said"),
    [
        (lambda y: {"tags": y}, "tag", r"no such part; there is tags float32 \(2, 5, 4\). Did you mean tags\?"),
        (lambda y: (y, y), 2, r"no such part; there is 0 float32 \(2, 5, 4\), 1 float32 \(2, 5, 4\)"),
        (lambda y: (y, y), -3, "no such part"),
        (lambda y: (y, y), "--1", "no such part"),
        (lambda y: (y, y), "\u00b2", "no such part"),
        (lambda y: {"y": y}, "", "no such part"),
        (lambda y: {"a": {"b": y}}, "a.c", "--output-key a.c: the model returned no such part; there is a.b float32"),
        (lambda y: {"a": y}, "a.b", "no such part; there is a float32"),
        (lambda y: y, 0, r"--output-key 0: the model returned one tensor alone, float32 \(2, 5, 4\). Leave it out"),
        (lambda y: {str(i): y for i in range(12)}, "y", "7 float32 .*, and 4 more"),
    ],
)
@pytest.mark.parametrize("ask", [rnnctl.gradnorm, rnnctl.flow, rnnctl.truncation])
def test_a_key_that_leads_nowhere_is_told_what_there_is(form: Any, key: Any, said: str, ask: Any) -> None:
    with pytest.raises(InputError, match=said):
        ask(Returns(form), X, output_key=key)


@pytest.mark.parametrize(
    ("form", "kind", "said"),
    [
        (
            lambda y: {"tags": y, "state": y},
            InputError,
            r"the model returned dict, .* there is tags float32 \(2, 5, 4\)",
        ),
        (lambda y: Output(None, y), InputError, "the model returned Output, in which no output is to be found"),
        (lambda y: None, InputError, "the model returned NoneType, in which no output is to be found. Try --loss-fn$"),
        (lambda y: [], InputError, "the model returned list, .* Try --loss-fn$"),
        (
            lambda y: (y.argmax(-1), y),
            DtypeError,
            r"got torch.int64. Try --loss-fn, or --output-key; there is 1 float32",
        ),
        (
            lambda y: (own(y).detach(), y),
            ShapeError,
            r"got \(\). Try --loss-fn, or --output-key; there is 1 float32 \(2, 5, 4\)",
        ),
        (
            lambda y: (y[..., 0], y),
            ShapeError,
            r"may be \(batch, time\) .* --loss-fn, or --output-key; there is 1 float32 \(2, 5, 4\)",
        ),
        (lambda y: list(y.unbind(1)), InputError, r"5 tensors of shape \(2, 4\), as many as there are steps"),
        (lambda y: tuple(y.sum((0, 2))), InputError, r"5 tensors of shape \(\), as many as there are steps"),
    ],
)
def test_an_output_that_cannot_be_told_is_not_guessed(form: Any, kind: Any, said: str) -> None:
    with pytest.raises(kind, match=said):
        rnnctl.gradnorm(Returns(form), X)


@pytest.mark.parametrize("form", [lambda y: y[:, -1], lambda y: y[:, -1:], lambda y: (y[:, -1], y)])
def test_a_loss_at_all_steps_is_not_that_of_one_output_a_sequence(form: Any) -> None:
    oracle = pytest.approx(right(mse_at_last), rel=1e-5)
    assert found(form) == found(form, loss_at="last") == oracle
    with pytest.raises(InputError, match=r"--loss-at all would be ignored: the output, of shape \(2, .*4\), is one of"):
        rnnctl.gradnorm(Returns(form), X, loss_at="all")
    # Of one step, last and all are the same.
    assert rnnctl.gradnorm(Returns(form), X[:, :1], loss_at="all").loss == rnnctl.gradnorm(Returns(form), X[:, :1]).loss


def test_one_of_the_steps_may_be_named() -> None:
    assert found(lambda y: list(y.unbind(1)), output_key=-1) == pytest.approx(right(mse_at_last), rel=1e-5)
    # With one step there is nothing to mistake.
    assert rnnctl.gradnorm(Returns(lambda y: [y[:, 0]]), X[:, :1], loss="sum").output_key == "0"


def test_a_network_of_ours_returns_one_tensor() -> None:
    model = rnnctl.FullRNN(3, 4, 2)
    for ask in (rnnctl.gradnorm, rnnctl.flow, rnnctl.truncation):
        with pytest.raises(InputError, match="the model returned one tensor alone"):
            ask(model, X, output_key=0)


def test_a_loss_of_the_users_takes_the_part_that_is_named_and_else_all() -> None:
    def form(y: Tensor) -> Any:
        return {"loss": y.mean(), "parts": (y, 2 * y)}

    oracle = right(lambda y: y.square().sum())
    assert found(form, loss_fn=lambda parts, _: parts[0].square().sum(), output_key="parts") == pytest.approx(oracle)
    assert found(form, loss_fn=lambda all, _: all["parts"][0].square().sum()) == pytest.approx(oracle)
    with pytest.raises(InputError, match=r"--output-key part: .* Did you mean parts"):
        rnnctl.gradnorm(Returns(form), X, loss_fn=lambda parts, _: parts, output_key="part")


class Counting(nn.Module):
    """Its own loss counts the real steps that it was told of."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]
        return y.sum(), y


def test_lengths_are_heard_by_a_loss_whose_model_takes_them() -> None:
    lengths = torch.tensor([5, 3])
    result = rnnctl.gradnorm(Counting(), X, lengths=lengths)
    assert result.own_loss
    assert result.scalars["loss"] == pytest.approx(right(lambda y: y[0].sum() + y[1, :3].sum())[0], rel=1e-5)
    with pytest.raises(InputError, match="its forward takes no lengths: .* --output-key, or leave them out"):
        rnnctl.gradnorm(Returns(lambda y: (own(y), y)), X, lengths=lengths)
    named = found(lambda y: (own(y), y), lengths=lengths, output_key=1, loss="sum")
    assert named == pytest.approx(right(lambda y: y[0, 4].sum() + y[1, 2].sum()), rel=1e-5)


# ---- in the shell -------------------------------------------------------------------------------

TRAIN = """
import torch
from dataclasses import dataclass
from torch import nn

class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True)

    def states(self, x):
        return self.rnn(x)[0]

class Plain(Base):
    def forward(self, x):
        return self.states(x)

class OwnLoss(Base):
    def forward(self, x):
        y = self.states(x)
        return y.square().mean(), y

class Last(Base):
    def forward(self, x):
        return self.states(x)[:, -1]

class Named(Base):
    def forward(self, x):
        y = self.states(x)
        return {"loss": y.square().mean(), "tags": y, "logits": 2 * y}

@dataclass
class Result:
    cost: torch.Tensor
    tags: torch.Tensor

class Fields(Base):
    def forward(self, x):
        y = self.states(x)
        return Result(y.square().mean(), y)

def tokens():
    return (torch.ones(4, 7, dtype=torch.int64),)

def squares(output, target):
    return output.square().sum()

def of_first(output, target):
    return output[1].square().sum()
"""
GRADIENTS = ("gradnorm", "flow", "truncation")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Run one command line in a folder with models of a user's."""
    (tmp_path / "train.py").write_text(TRAIN)
    np.save(tmp_path / "y.npy", np.linspace(0, 1, 4 * 7 * 4, dtype=np.float32).reshape(4, 7, 4))
    np.save(tmp_path / "tokens.npy", np.ones((4, 7), dtype=np.int64))
    np.save(tmp_path / "lengths.npy", np.array([7, 3, 5, 1]))
    np.save(tmp_path / "x.npy", np.linspace(-1, 1, 4 * 8 * 3, dtype=np.float32).reshape(4, 8, 3))
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


@pytest.mark.parametrize("model", ["OwnLoss", "Named"])
def test_the_header_and_the_json_say_whose_loss_it_is(model: str, run: Run) -> None:
    ran = run(f"gradnorm --model train:{model}")
    assert (ran.code, ran.err) == (0, "")
    assert ", batch 4, the model's own loss, random input," in ran.out.splitlines()[0]
    config = document(run(f"gradnorm --model train:{model} --json"))["config"]
    assert (config["loss"], config["loss_at"], config["target"]) == ("the model's own", None, None)
    assert config["output_key"] == {"OwnLoss": "0", "Named": "loss"}[model]
    assert run(f"gradnorm --model train:{model} --output-key loss -q").code == (0 if model == "Named" else 2)


def test_the_header_names_an_output_that_is_not_plain(run: Run) -> None:
    for more, said in (
        ("Named --output-key tags --loss sum --loss-at all", "loss sum at all of tags,"),
        ("OwnLoss --output-key 1", "loss mse at last of output 1,"),
        ("Fields --output-key cost", "the model's own loss (cost),"),
        ("OwnLoss --output-key 1 --loss-fn train:squares", "loss train:squares of output 1,"),
        ("Plain", "loss mse at last,"),
    ):
        assert said in run(f"gradnorm --model train:{more}").out.splitlines()[0]
    assert "loss mse at all of tags," in run("flow --model train:Named --output-key tags").out.splitlines()[0]
    config = document(run("gradnorm --model train:Plain --json"))["config"]
    assert (config["loss"], config["loss_at"], config["target"], config["output_key"]) == ("mse", "last", "dummy", None)
    assert "output_key" not in document(run("gradnorm --json"))["config"]


@pytest.mark.parametrize("command", GRADIENTS)
@pytest.mark.parametrize("more", ["--loss mse", "--loss sum", "--target y.npy", "--loss sum"])
@pytest.mark.parametrize("place", ["OwnLoss --output-key 1", "Named --output-key tags", "Fields --output-key tags"])
def test_a_loss_is_that_of_the_output_that_is_named(command: str, more: str, place: str, run: Run) -> None:
    named, plain = (document(run(f"{command} --model train:{model} {more} --json")) for model in (place, "Plain"))
    assert (named["rows"], named["scalars"]) == (plain["rows"], plain["scalars"])


@pytest.mark.parametrize("source", ["flag", "environment", "file"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss", "mse"),
        ("loss", "sum"),
        ("loss-at", "last"),
        ("target", "y.npy"),
        ("target", "dummy"),
        ("lengths", "lengths.npy"),
    ],
)
def test_an_option_that_the_models_own_loss_would_not_hear_is_exit_2_wherever_it_stands(
    source: str, key: str, value: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asked.toml").write_text(f'{key} = "{value}"\n')
    if source == "environment":
        monkeypatch.setenv(f"RNNCTL_{key.upper().replace('-', '_')}", value)
    more = {"flag": f"--{key} {value}", "file": "--config asked.toml", "environment": ""}[source]
    ran = run(f"gradnorm --model train:OwnLoss {more}")
    assert (ran.code, ran.out) == (2, "")
    assert "--output-key" in ran.err and "Traceback" not in ran.err
    assert ran.err.count("\n") == 1
    assert run(f"gradnorm --model train:OwnLoss --output-key 1 {more}").code == 0


@pytest.mark.parametrize("command", ["flow", "truncation"])
def test_flow_and_truncation_say_which_outputs_there_are(command: str, run: Run) -> None:
    ran = run(f"{command} --model train:OwnLoss")
    assert (ran.code, ran.out) == (2, "")
    assert (
        "own loss (0) is one number. Name the output with --output-key; beside the loss there is 1 float32" in ran.err
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--model train:Plain --loss-fn train:squares --loss mse", "--loss mse would be ignored. Leave it out"),
        ("--model train:Plain --loss-fn train:squares --loss-at last", "--loss-at last would be ignored"),
        (
            "--cell gru --loss-fn train:squares --loss sum --loss-at all",
            "--loss sum and --loss-at all would be ignored",
        ),
        ("--model train:Plain --input tokens.npy --input-size 3", "--input-size counts features, the last of three"),
        ("--model train:Plain --batch train:tokens --input-size 3", "--batch train:tokens is of shape (4, 7)"),
        ("--cell gru --weights w.pt --init orthogonal", "--weights gives W_hh; --init and --gain would replace it"),
        ("--cell gru --weights w.pt --gain 2", "--weights gives W_hh; --init and --gain would replace it"),
        ("--weights w.pt --gain 2", "--weights gives W_hh; --init and --gain would replace it"),
        ("--model train:Last --loss-at all", "--loss-at all would be ignored"),
        ("--output-key 1", "--output-key picks the output of --model or --cell, which are not given"),
        ("--cell gru --output-key 1", "the model returned one tensor alone, float32 (4, 7, 5). Leave it out"),
    ],
)
def test_an_option_that_nothing_would_hear_is_exit_2(line: str, said: str, run: Run) -> None:
    ran = run(f"gradnorm {line}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_a_loss_of_the_users_hears_all_that_the_model_returned(run: Run) -> None:
    own, named = (
        document(run(f"gradnorm --model train:OwnLoss --loss-fn train:{more} --json"))
        for more in ("of_first", "squares --output-key 1")
    )
    assert own["rows"] == named["rows"]
    assert own["config"]["loss_at"] is None


@pytest.mark.parametrize("command", ["forward", "unroll", "spectrum", "lyapunov"])
@pytest.mark.parametrize("target", ["dummy", "y.npy"])
def test_a_target_where_no_loss_is_asked_for_is_exit_2(command: str, target: str, run: Run) -> None:
    ran = run(f"{command} --model train:Plain --target {target}")
    assert (ran.code, ran.out) == (2, "")
    assert f"--target {target} is for a loss, and none is asked for here. Leave it out" in ran.err
    # Of a network that we build it sets the features of y, and of any the next step takes the last one off.
    built = document(run(f"forward --json --target {target}"))["config"]["output_size"]
    assert built == {"dummy": 5, "y.npy": 4}[target]
    assert document(run("forward --model train:Plain --input x.npy --target next --json"))["config"]["seq_len"] == 7


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--loss sum", "--loss would"),
        ("--loss-at last", "--loss-at would"),
        ("--loss-fn train:squares", "--loss-fn would"),
        ("--output-key 1 --target dummy", "--target and --output-key would"),
        ("--lengths lengths.npy", "--lengths would"),
        ("--no-verify --vanish-below 0.1", "--vanish-below and --no-verify would"),
        ("--hidden-size 3 --no-bias", "--hidden-size and --no-bias would"),
        ("--model-arg a=1 --num-layers 2 --bidirectional", "--model-arg and --num-layers and --bidirectional would"),
        ("--weights w.pt --save-weights v.pt", "--weights and --save-weights would"),
        ("--seq-len 3 --h-init zeros --standardize", "--seq-len and --standardize and --h-init would"),
        ("--seed 3 --dtype float64", "--seed and --dtype would"),
    ],
)
def test_what_shapes_a_run_says_nothing_to_one_that_is_over(more: str, said: str, run: Run) -> None:
    model = nn.GRU(3, 4, batch_first=True)
    with rnnctl.watch(model, every=1, to="run.jsonl"):
        model(X)[0].sum().backward()
    plain = run("gradnorm --from run.jsonl --format csv --device cpu --threads 1")
    assert (plain.code, plain.err) == (0, "")
    ran = run(f"gradnorm --from run.jsonl {more}")
    assert (ran.code, ran.out) == (2, "")
    assert f"--from shows a run that is over; {said} be ignored. Leave it out" in ran.err


class LastState(nn.Module):
    """The states of all layers, then the outputs: with as many layers as sequences both look alike."""

    def __init__(self, kind=nn.GRU):
        super().__init__()
        self.rnn, self.head = kind(3, 4, num_layers=2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        output, state = self.rnn(x)
        return state, self.head(output)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("ask", [rnnctl.gradnorm, rnnctl.flow, rnnctl.truncation])
@pytest.mark.parametrize("shape", [(2, 2, 3), (2, 5, 3)])
def test_the_last_state_of_a_layer_is_no_output_over_time(ask, kind, shape):
    torch.manual_seed(0)
    model, x = LastState(kind), torch.randn(*shape)
    settings = {"loss_at": "all"} if ask is rnnctl.gradnorm else {"only": "rnn.weight_hh_l1"}
    with pytest.raises(rnnctl.InputError, match="is the last state of a layer"):
        ask(model, x, **settings)
    found = ask(model, x, output_key=1, **settings)
    assert found.loss == pytest.approx(float(model(x)[1].detach().square().mean()), rel=1e-5)
