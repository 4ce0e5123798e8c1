"""What a model needs: arguments that nobody gave, sizes that were guessed wrong, a batch that it refuses."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from shell import Run, forget_modules_of, runner
from torch import Tensor, nn

import rnnctl
from rnnctl import InputError

NEEDS = """
import functools
from typing import Any, Protocol, Sequence

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.rnn = nn.GRU(input_size, hidden_size, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


class Other(Net):
    def __init__(self, n_features, num_classes, *, n_hidden):
        super().__init__(n_features, n_hidden)


class Sized(Protocol):
    size: int


class Typed(Net):
    def __init__(self, a: int, b: "float", c: bool, d: "str", e: Sequence[int], f: [1], g: Any, h, i: int | None,
                 j: Sized):
        super().__init__(10, a)


class HandsOn(Net):
    def __init__(self, **settings):
        super().__init__(**settings)


class HandsOnTwice(HandsOn):
    def __init__(self, *args, depth, **settings):
        super().__init__(*args, **settings)


def build(input_size, *, hidden_size):
    return Net(input_size, hidden_size)


def wrapped(function):
    @functools.wraps(function)
    def inner(*args, **settings):
        return function(*args, **settings)

    return inner


def hands_on(*args, **settings):
    return Net(*args, **settings)


class Makes:
    def __call__(self, hidden_size):
        return Net(10, hidden_size)

    def method(self, hidden_size):
        return Net(10, hidden_size)


makes = Makes()
decorated = wrapped(build)
bound = functools.partial(Net, 10)
lambda_ = lambda width, n: Net(width, n)
ready = Net(10, 4)


class Options:
    pass


class FromOptions(Net):
    def __init__(self, options: Options, depth: int):
        super().__init__(10, depth)


class ByPosition(Net):
    def __init__(self, input_size, /, hidden_size=4):
        super().__init__(input_size, hidden_size)


class InARow(Net):
    def __init__(self, *sizes):
        super().__init__(*sizes)


def forgets():
    return Net(3)


def fixed(**settings):
    return Net(**{"input_size": 3})


def adds(**settings):
    return Net(3, 4, **{"colour": "red"})


class Strict(Net):
    def __init__(self, hidden_size=4):
        if hidden_size < 0:
            raise ValueError("hidden must not be negative")
        super().__init__(10, hidden_size)


class Front(nn.Module):
    def __init__(self, kind="Linear"):
        super().__init__()
        self.front = {
            "Linear": lambda: nn.Linear(6, 4),
            "LayerNorm": lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4)),
            "Conv1d": lambda: nn.Conv1d(6, 4, 3, padding=1),
            "BatchNorm1d": lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Conv1d(6, 4, 1)),
        }[kind]()
        self.turned = kind in ("Conv1d", "BatchNorm1d")
        self.rnn = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        z = self.front(x.transpose(1, 2)).transpose(1, 2) if self.turned else self.front(x)
        return self.rnn(z)[0]


class Attends(Front):
    def __init__(self):
        super().__init__()
        self.front = nn.MultiheadAttention(6, 2, batch_first=True)
        self.rnn = nn.LSTM(6, 4, batch_first=True)

    def forward(self, x):
        return self.rnn(self.front(x[:, :, :], x, x)[0])[0]


class OverTime(Front):
    def __init__(self):
        super().__init__()
        self.front = nn.Linear(9, 9)
        self.rnn = nn.LSTM(10, 4, batch_first=True)

    def forward(self, x):
        return self.rnn(self.front(x.transpose(1, 2)).transpose(1, 2))[0]


class ByHand(nn.Module):
    def __init__(self, way="matmul"):
        super().__init__()
        self.U, self.W = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.eye(4))
        self.way = way

    def enters(self, x_t):
        if self.way == "einsum":
            return torch.einsum("bi,ih->bh", x_t, self.U)
        return x_t @ self.U if self.way == "matmul" else nn.functional.linear(x_t, self.U.T)

    def forward(self, x):
        h, states = x.new_zeros(x.shape[0], 4), []
        for x_t in x.unbind(1):
            h = torch.tanh(self.enters(x_t) + h @ self.W)
            states.append(h)
        return torch.stack(states, 1)


class Insists(Net):
    def __init__(self):
        super().__init__(10, 4)

    def forward(self, x):
        assert x.shape[1] == 28, "28 steps"
        return super().forward(x)


class Starts(Net):
    def __init__(self):
        super().__init__(10, 4)
        self.start = nn.Parameter(torch.zeros(1, 2, 4))

    def forward(self, x):
        return self.rnn(x, self.start)[0]


class Masked(Net):
    def __init__(self):
        super().__init__(10, 4)

    def forward(self, x, mask):
        return super().forward(x * mask)


class Noted(ByHand):
    def forward(self, x):
        try:
            return super().forward(x)
        except RuntimeError as error:
            error.add_note("a note of the user's")
            raise


def batch():
    return {"x": torch.ones(4, 7, 10), "mask": torch.ones(4, 7)}


def viewed(output, target):
    return output.view(3)
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Run one command line in a folder with models of a user's."""
    (tmp_path / "needs.py").write_text(NEEDS)
    np.save(tmp_path / "x.npy", np.linspace(-1, 1, 4 * 7 * 10, dtype=np.float32).reshape(4, 7, 10))
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


# ---- arguments ----------------------------------------------------------------------------------

BOTH = "--model-arg input_size=3 --model-arg hidden_size=20"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("needs:Net", f"needs:Net needs input_size, hidden_size: add {BOTH}"),
        ("needs:Net --model-arg input_size=7", "needs:Net needs hidden_size: add --model-arg hidden_size=20"),
        (
            "needs:Other",
            "needs n_features, num_classes, n_hidden: add --model-arg n_features=3 --model-arg num_classes=5 "
            "--model-arg n_hidden=20",
        ),
        ("needs:HandsOn", f"needs:HandsOn needs input_size, hidden_size: add {BOTH}"),
        ("needs:HandsOnTwice", "needs:HandsOnTwice needs depth: add --model-arg depth=VALUE"),
        ("needs:HandsOnTwice --model-arg depth=1", f"needs input_size, hidden_size: add {BOTH}"),
        ("needs:build", f"needs:build needs input_size, hidden_size: add {BOTH}"),
        ("needs:decorated", f"needs:decorated needs input_size, hidden_size: add {BOTH}"),
        ("needs:hands_on", f"needs:hands_on needs input_size, hidden_size: add {BOTH}"),
        ("needs:bound", "needs:bound needs hidden_size: add --model-arg hidden_size=20"),
        ("needs:lambda_", "needs:lambda_ needs width, n: add --model-arg width=VALUE --model-arg n=VALUE"),
        ("needs:makes", "needs:makes needs hidden_size: add --model-arg hidden_size=20"),
        ("needs:makes.method", "needs:makes.method needs hidden_size"),
        ("torch.nn:LSTM", f"torch.nn:LSTM needs input_size, hidden_size: add {BOTH}"),
        ("torch.nn:GRU --model-arg hidden_size=4", "torch.nn:GRU needs input_size: add --model-arg input_size=3"),
        ("torch.nn:Linear", "needs in_features, out_features: add --model-arg in_features=3 --model-arg out_features"),
        ("needs:Net --input x.npy", "add --model-arg input_size=10 --model-arg hidden_size=20"),
        ("needs:Net --input-size 6", "add --model-arg input_size=6 --model-arg hidden_size=20"),
        ("needs:Net --batch needs:batch", "add --model-arg input_size=10 --model-arg hidden_size=20"),
        (
            "needs:Typed",
            "add --model-arg a=2 --model-arg b=0.1 --model-arg c=true --model-arg d=text --model-arg e=VALUE "
            "--model-arg f=VALUE --model-arg g=VALUE --model-arg h=VALUE --model-arg i=VALUE "
            "--model-arg j=VALUE\n",
        ),
        (
            "needs:FromOptions",
            "needs options, depth; --model-arg gives numbers, texts, lists and tables, and no options: Options. Name a "
            "function that calls it",
        ),
        ("needs:ByPosition", "takes input_size by position alone, and --model-arg gives keywords. Name a function"),
    ],
)
@pytest.mark.parametrize("command", ["gradnorm", "forward", "flow"])
def test_an_argument_that_nobody_gave_is_named_with_an_example(command: str, model: str, said: str, run: Run) -> None:
    ran = run(f"{command} --model {model}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1 and ran.err.startswith("Error: --model ")


def test_what_the_message_says_to_add_is_enough(run: Run) -> None:
    for model in ("needs:Net", "needs:HandsOn", "needs:hands_on", "needs:decorated", "needs:bound", "needs:Other"):
        said = run(f"gradnorm --model {model}").err
        assert run(f"gradnorm --model {model} {said.partition(': add ')[2]}").code == 0


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("needs:Net --model-arg hiden_size=3", "takes no hiden_size. Did you mean hidden_size?"),
        ("needs:Strict --model-arg hidden=3", "--model needs:Strict(hidden_size=4) takes no hidden. Did you mean hidd"),
        ("needs:HandsOn --model-arg input_siz=3", "takes no input_siz. Did you mean input_size?"),
        ("needs:bound --model-arg hiden_size=3", "takes no hiden_size. Did you mean hidden_size?"),
        ("needs:makes --model-arg hiden_size=3", "takes no hiden_size. Did you mean hidden_size?"),
        ("torch.nn:GRU --model-arg batchfirst=true", "takes no batchfirst. Did you mean batch_first?"),
        ("needs:ready --model-arg hidden_size=3", "is a module already and takes no --model-arg"),
        ("needs:batch", "must return a torch.nn.Module; got dict"),
    ],
)
def test_an_argument_that_is_not_taken_is_told_what_is(model: str, said: str, run: Run) -> None:
    ran = run(f"gradnorm --model {model}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("model", "raised", "called"),
    [
        ("needs:Strict --model-arg hidden_size=-1", "ValueError: hidden must not be negative", "hidden_size=-1"),
        ("needs:Strict --model-arg hidden_size=many", "TypeError: '<' not supported", "hidden_size='many'"),
        ("needs:forgets", "missing 1 required positional argument: 'hidden_size'", "no argument"),
        ("needs:fixed --model-arg hidden_size=3", "positional argument: 'hidden_size'", "hidden_size=3"),
        ("needs:adds --model-arg size=3", "unexpected keyword argument 'colour'", "size=3"),
        (
            "needs:InARow",
            "missing 2 required positional arguments",
            "no argument; --model-arg gives keywords, and nothing to *sizes: name a function that calls it",
        ),
    ],
)
def test_what_a_factory_raises_ends_with_what_it_was_called_with(
    model: str, raised: str, called: str, run: Run
) -> None:
    ran = run(f"gradnorm --model {model}")
    assert (ran.code, ran.out) == (1, "")
    *_, error, last = ran.err.splitlines()
    assert raised in error
    assert last == f"{model.split()[0]} was called with {called}"
    assert "needs.py" in ran.err and "rnnctl/" not in ran.err


# ---- sizes that were guessed --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "said", "more"),
    [
        ("Front", "front, a Linear, takes 6 features; x has 4, being of shape (4, 7, 4)", "--input-size 6"),
        ("Front --model-arg kind=LayerNorm", "front.0, a LayerNorm, takes 6 features", "--input-size 6"),
        ("Front --model-arg kind=Conv1d", "front, a Conv1d, takes 6 features", "--input-size 6"),
        ("Front --model-arg kind=BatchNorm1d", "front.0, a BatchNorm1d, takes 6 features", "--input-size 6"),
        ("Front --input x.npy", "takes 6 features; x has 10, being of shape (4, 7, 10)", None),
        ("Attends --input x.npy", "front, a MultiheadAttention, takes 6 features; x has 10", None),
        ("OverTime", "front, a Linear, takes 9 steps; x has 7", "--seq-len 9"),
    ],
)
def test_a_front_end_of_other_sizes_names_the_option_that_sets_them(
    model: str, said: str, more: str | None, run: Run
) -> None:
    ran = run(f"gradnorm --model needs:{model}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err and ran.err.count("\n") == 1
    if more is not None:
        assert f"Try {more}, or data" in ran.err
        assert run(f"gradnorm --model needs:{model} {more}").code == 0


# ---- a batch that the model refuses -------------------------------------------------------------

RANDOM = ": random numbers, of --batch-size 4, --seq-len 7, --input-size 10; --input FILE gives others"


@pytest.mark.parametrize("command", ["gradnorm", "flow", "truncation", "forward", "unroll", "spectrum", "lyapunov"])
@pytest.mark.parametrize(
    ("model", "raised", "given"),
    [
        ("ByHand", "shapes cannot be multiplied (4x10 and 3x4)", f"x float32 (4, 7, 10){RANDOM}"),
        ("ByHand --model-arg way=einsum", "einsum(): subscript i has size 3", f"x float32 (4, 7, 10){RANDOM}"),
        ("ByHand --model-arg way=linear", "shapes cannot be multiplied", f"x float32 (4, 7, 10){RANDOM}"),
        ("Insists", "AssertionError: 28 steps", f"x float32 (4, 7, 10){RANDOM}"),
        ("Starts", "Expected hidden size (1, 4, 4), got [1, 2, 4]", f"x float32 (4, 7, 10){RANDOM}"),
        ("ByHand --input x.npy", "shapes cannot be multiplied", "x float32 (4, 7, 10)"),
        ("ByHand --dtype float64", "shapes cannot be multiplied", f"x float64 (4, 7, 10){RANDOM}"),
        ("Masked --batch needs:batch", "The size of tensor a (10)", "x float32 (4, 7, 10), mask float32 (4, 7)"),
        ("Noted", "a note of the user's", f"x float32 (4, 7, 10){RANDOM}"),
    ],
)
def test_a_batch_that_the_model_refuses_ends_the_users_traceback(
    command: str, model: str, raised: str, given: str, run: Run
) -> None:
    ran = run(f"{command} --model needs:{model}")
    assert (ran.code, ran.out) == (1, "")
    *_, error, last = ran.err.splitlines()
    # Nothing is added to the user's own words.
    assert raised in error and RANDOM not in error
    assert last == f"the model was given {given}"
    assert "needs.py" in ran.err and "rnnctl/" not in ran.err


def test_the_sizes_that_the_last_line_names_set_what_was_given(run: Run) -> None:
    for model, more in (("ByHand", "--input-size 3"), ("Insists", "--seq-len 28"), ("Starts", "--batch-size 2")):
        assert run(f"gradnorm --model needs:{model} {more}").code == 0


def test_a_loss_that_raises_is_not_told_what_the_model_was_given(run: Run) -> None:
    ran = run("gradnorm --model needs:ByHand --input-size 3 --loss-fn needs:viewed")
    assert ran.code == 1
    assert "invalid for input of size" in ran.err.splitlines()[-1]


class Multiplies(nn.Module):
    """Takes one width alone."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.U = nn.GRU(3, 4, batch_first=True), nn.Parameter(torch.ones(5, 3))

    def forward(self, x: Tensor, *more: Tensor, scale: float = 1.0) -> Tensor:
        return self.rnn(x @ self.U * scale)[0]


def test_the_error_in_the_library_is_the_users_own_with_a_note() -> None:
    x = torch.ones(2, 5, 4)
    for inputs, given in (
        (x, "x float32 (2, 5, 4)"),
        ((x, x[:, :, 0]), "x float32 (2, 5, 4), more float32 (2, 5)"),
        ({"x": x, "scale": 2.0}, "x float32 (2, 5, 4), scale float"),
    ):
        with pytest.raises(RuntimeError, match="cannot be multiplied") as caught:
            rnnctl.gradnorm(Multiplies(), inputs)
        assert caught.value.__notes__ == [f"the model was given {given}"]


def test_tokens_beyond_the_table_are_told_its_range() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.rnn = nn.Embedding(6, 4), nn.GRU(4, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(self.table(x))[0]

    for values in ([0, 6], [-1, 3]):
        with pytest.raises(InputError, match=rf"tokens from 0 to 5; x holds values from {values[0]} to {values[1]}"):
            rnnctl.gradnorm(Tokens(), torch.tensor([values]))
