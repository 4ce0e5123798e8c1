"""Blocks among threads and forked processes: each sees what its own thread runs, and nobody's passes fail."""

import json
import os
import sys
import threading

import pytest
import torch
from torch import nn

import rnnctl
from rnnctl.errors import InputError
from rnnctl.models.forwards import apart_from_readers
from rnnctl.models.hooks import Hook, hooked

X = torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))


class Loop(nn.Module):
    """A cell of torch's, or none of anybody's, in a loop."""

    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.cell = None if by_hand else nn.GRUCell(3, 4)
        if by_hand:
            self.wx, self.wh = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x):
        h = x.new_zeros(x.shape[1], 4)
        for x_t in x:
            h = torch.tanh(self.wx(x_t) + self.wh(h)) if self.cell is None else self.cell(x_t, h)
        return h


class Layer(nn.Module):
    def __init__(self, kind) -> None:
        super().__init__()
        self.rnn = kind(3, 4)

    def forward(self, x):
        return self.rnn(x)[0]


MODELS = {
    "hand": (lambda: Loop(True), "wh.weight"),
    "cell": (lambda: Loop(False), "cell.weight_hh"),
    "LSTM": (lambda: Layer(nn.LSTM), "rnn.weight_hh_l0"),
    "GRU": (lambda: Layer(nn.GRU), "rnn.weight_hh_l0"),
}
each_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture
def often():
    """Threads take turns as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def made(name):
    torch.manual_seed(0)
    make, weight = MODELS[name]
    model = make()
    return model, weight, probed_once(model)[weight].grad_norm_W_hh


def probed_once(model):
    with rnnctl.probe(model) as trace:
        model(X).square().sum().backward()
    return trace


def at_once(*functions):
    """Each in a thread of its own; what they return, or what they raised."""
    found, start = [None] * len(functions), threading.Barrier(len(functions))

    def run(place, function):
        start.wait()
        try:
            found[place] = function()
        except Exception as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@each_model
@pytest.mark.parametrize("shared", [True, False], ids=["one model", "own models"])
def test_threads_that_probe_at_once_each_get_what_one_gets_alone(name, shared, often):
    model, weight, expected = made(name)
    models = [model if shared else made(name)[0] for _ in range(3)]
    forward, engine, script = nn.GRU.forward, torch.autograd.Variable._execution_engine, torch.jit.script
    traces = at_once(*(lambda model=each: [probed_once(model) for _ in range(4)] for each in models))
    for trace in (trace for found in traces for trace in found):
        assert list(trace) == [weight]
        assert trace[weight].agrees
        torch.testing.assert_close(trace[weight].grad_norm_W_hh, expected, rtol=1e-5, atol=0)
    assert (nn.GRU.forward, torch.autograd.Variable._execution_engine, torch.jit.script) == (forward, engine, script)


@each_model
def test_what_another_thread_trains_within_the_block_is_not_seen(name, often):
    model, weight, expected = made(name)
    other, _, _ = made(name)
    ended, begun = threading.Event(), threading.Event()

    def train():
        while not ended.is_set():
            for each in (model, other):
                each(X).sum().backward()
            begun.set()

    def probe():
        try:
            with rnnctl.probe(model) as trace:
                begun.wait()
                loss = model(X).square().sum()
                begun.clear()
                begun.wait()
                loss.backward()
            return trace
        finally:
            ended.set()

    trained, trace = at_once(train, probe)
    assert trained is None
    assert trace[weight].agrees
    torch.testing.assert_close(trace[weight].grad_norm_W_hh, expected, rtol=1e-5, atol=0)


@each_model
def test_a_model_that_only_another_thread_runs_is_said_to_be_so(name):
    model, _, _ = made(name)
    with pytest.raises(InputError, match="another thread ran the model. Try: begin the block"), rnnctl.probe(model):
        assert at_once(lambda: model(X).sum().backward()) == [None]


def test_a_watch_counts_the_steps_of_its_own_thread(tmp_path):
    model, weight, expected = made("cell")
    with rnnctl.watch(model, every=1, to=tmp_path / "run.jsonl") as watching:
        for _ in range(3):
            assert at_once(lambda: model(X).sum().backward()) == [None]
            model(X).square().sum().backward()
    assert (watching.steps, watching.probed) == (3, 3)
    found = rnnctl.gradnorm_history(tmp_path / "run.jsonl")
    torch.testing.assert_close(found.grad_norm_W_hh, expected.expand(3, -1), rtol=1e-5, atol=0)


def test_a_hook_that_is_being_set_or_taken_away_does_nothing():
    seen = []
    hook = Hook(lambda *given: seen.append(given))
    hook("called before torch noted that it takes keywords")
    module = nn.Linear(2, 2)
    with hook.set(module.register_forward_hook):
        module(torch.ones(1, 2))
    hook("called after it was taken away, by who had it in hand")
    assert len(seen) == 1


def test_blocks_that_end_in_another_order_than_they_began_leave_nothing_behind():
    plain = torch.jit.script
    first, second = apart_from_readers(), apart_from_readers()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.jit.script is not plain
    second.__exit__(None, None, None)
    assert torch.jit.script is plain


def test_a_hook_sees_its_own_thread_alone():
    module, seen = nn.Linear(2, 2), []
    with hooked(module, lambda *call: seen.append(threading.get_ident())):
        at_once(lambda: module(torch.ones(1, 2)))
        module(torch.ones(1, 2))
    assert seen == [threading.get_ident()]


def forked(function):
    """What the function returns in a process that is forked here."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(there, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(there)
    with os.fdopen(here) as told:
        text = told.read()
    os.waitpid(child, 0)
    return json.loads(text)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_is_forked_within_the_block_writes_nothing(tmp_path):
    model, _, _ = made("cell")
    path = tmp_path / "run.jsonl"
    watching = rnnctl.watch(model, every=1, to=path)
    watch = watching.__enter__()

    def in_child():
        for _ in range(2):
            model(X).sum().backward()
        watching.__exit__(None, None, None)
        return [watch.steps, watch.probed, *watch.notes]

    model(X).sum().backward()
    before = path.read_bytes()
    assert forked(in_child) == [
        1,
        1,
        "the process was forked within the block: its steps are not in the file of its parent",
    ]
    assert path.read_bytes() == before
    model(X).sum().backward()
    watching.__exit__(None, None, None)
    assert (watch.steps, watch.probed, watch.notes) == (2, 2, ())
    assert rnnctl.gradnorm_history(path).steps == (0, 1)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_that_trains_nothing_leaves_the_block_in_peace(tmp_path):
    model, _, _ = made("cell")
    watching = rnnctl.watch(model, to=tmp_path / "run.jsonl")
    watching.__enter__()
    assert forked(lambda: watching.__exit__(None, None, None)) is False
    model(X).sum().backward()
    watching.__exit__(None, None, None)
    assert rnnctl.gradnorm_history(tmp_path / "run.jsonl").steps == (0,)
