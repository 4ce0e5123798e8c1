"""Hooks that are gone afterwards, and that neither copies nor files carry along."""

import copy
import copyreg
import io
import os
import pickle
import signal
from collections import OrderedDict
from contextlib import ExitStack

import pytest
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from rnnctl import probe, watch
from rnnctl.models.hooks import hooked, results_of

KINDS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


def hooks_of(module):
    return [dict(getattr(module, kind)) for kind in KINDS]


class Scaled(nn.Linear):
    """A linear map with a keyword."""

    def forward(self, x, *, scale=1.0):
        if scale is None:
            raise RuntimeError("no scale")
        return scale * super().forward(x)


def test_both_hooks_see_positions_keywords_and_the_result():
    module, x, seen = Scaled(2, 3), torch.ones(1, 2), []
    with hooked(module, lambda *call: seen.append(call), before=lambda *call: seen.append(call)):
        y = module(x, scale=2.0)
    before, after = seen
    assert before[0] is module
    assert before[1:] == ((x,), {"scale": 2.0})
    assert after == (module, (x,), {"scale": 2.0}, y)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_every_hook_is_taken_away(error):
    module = Scaled(2, 3)
    kept = module.register_forward_hook(lambda *call: None)
    there = hooks_of(module)
    try:
        with hooked(module, lambda *call: None, before=lambda *call: None, always=True):
            assert hooks_of(module) != there
            if error is not None:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert hooks_of(module) == there
    kept.remove()


def test_a_stack_holds_hooks_open_for_as_long_as_it_likes():
    modules, stack, seen = [Scaled(2, 2), Scaled(2, 2)], ExitStack(), []
    for module in modules:
        stack.enter_context(hooked(module, lambda module, *call: seen.append(module)))
    for module in modules:
        module(torch.ones(1, 2))
    stack.close()
    for module in modules:
        module(torch.ones(1, 2))
    assert seen == modules
    assert not any(any(hooks_of(module)) for module in modules)


def test_first_sees_what_forward_returned_and_otherwise_what_the_caller_gets():
    module, x, seen = Scaled(2, 3), torch.ones(1, 2), []
    replacing = module.register_forward_hook(lambda module, args, result: result + 1)
    with (
        hooked(module, lambda *call: seen.append(call[-1])),
        hooked(module, lambda *call: seen.append(call[-1]), first=False),
    ):
        y = module(x)
    replacing.remove()
    assert torch.equal(seen[0], module(x))
    assert seen[1] is y


def test_before_sees_what_forward_is_given():
    module, seen = Scaled(2, 3), []
    replacing = module.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    with hooked(module, before=lambda module, args, kwargs: seen.append(args[0])):
        module(torch.ones(1, 2))
    replacing.remove()
    assert torch.equal(seen[0], torch.full((1, 2), 2.0))


@pytest.mark.parametrize("always", [True, False])
def test_a_call_that_fails_is_seen_where_it_is_asked_for(always):
    module, seen = Scaled(2, 3), []
    with (
        hooked(module, lambda *call: seen.append(call[-1]), always=always),
        pytest.raises(RuntimeError, match="no scale"),
    ):
        module(torch.ones(1, 2), scale=None)
    assert seen == [None] * always


def test_copies_and_files_of_the_module_carry_hooks_that_do_nothing():
    module, seen = Scaled(2, 3), []
    with hooked(module, lambda *call: seen.append(call), before=lambda *call: seen.append(call)):
        buffer = io.BytesIO()
        torch.save(module, buffer)
        buffer.seek(0)
        for other in (copy.deepcopy(module), torch.load(buffer, weights_only=False)):
            assert torch.equal(other(torch.ones(1, 2), scale=2.0), 2 * nn.Linear.forward(module, torch.ones(1, 2)))
    assert seen == []


class Copied(Scaled):
    """Copies itself, as some do: by what stands in it."""

    def __deepcopy__(self, memo):
        made = memo[id(self)] = object.__new__(type(self))
        made.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return made

    def __getstate__(self):
        return dict(self.__dict__)


def in_python(module):
    buffer = io.BytesIO()
    pickle._Pickler(buffer).dump(module)
    return buffer.getvalue()


def saved(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    return buffer.getvalue()


def in_an_old_protocol(module):
    return pickle.dumps(module, 2)


@pytest.mark.parametrize("kind", [Scaled, Copied])
@pytest.mark.parametrize("form", [pickle.dumps, in_an_old_protocol, in_python, saved, copy.deepcopy])
def test_what_is_made_of_a_hooked_module_is_what_is_made_of_it_without(kind, form):
    module = kind(2, 3)
    handles = [
        module.register_forward_hook(print, with_kwargs=True, always_call=True),
        module.register_forward_pre_hook(print),
    ]
    tables = hooks_of(module)
    plain = form(module)
    with hooked(module, print, before=print, always=True), hooked(module, print, first=False):
        made = form(module)
        there = hooks_of(module)
    if isinstance(made, bytes):
        assert made == plain
        assert b"rnnctl" not in made
    else:
        assert hooks_of(made) == hooks_of(plain) == tables
    assert [len(table) for table in there] == [3, 2, 3, 1, 2]
    assert OrderedDict not in copyreg.dispatch_table
    for handle in handles:
        handle.remove()
    assert not any(hooks_of(module))


def test_other_mappings_with_the_same_keys_are_copied_whole():
    module = Scaled(2, 3)
    with hooked(module, print):
        same = OrderedDict.fromkeys(module._forward_hooks, "mine")
        assert copy.deepcopy(same) == pickle.loads(pickle.dumps(same)) == same


def test_results_are_kept_in_order():
    module = Scaled(2, 2)
    with results_of(module) as seen:
        returned = [module(torch.ones(1, 2), scale=scale) for scale in (1.0, 2.0)]
    module(torch.ones(1, 2))
    assert len(seen) == 2
    assert all(one is other for one, other in zip(seen, returned, strict=True))


@pytest.mark.parametrize("looking", [probe, lambda model: watch(model, every=1, to=os.devnull)])
def test_an_interrupt_while_a_block_closes_comes_once_everything_is_put_back(looking, monkeypatch):
    torch.manual_seed(0)
    model, remove = torch.nn.Sequential(torch.nn.GRUCell(3, 4)), RemovableHandle.remove
    forward = torch.nn.GRUCell.forward

    def interrupted(handle):
        signal.raise_signal(signal.SIGINT)
        remove(handle)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), looking(model):
            model(torch.randn(2, 3)).sum().backward()
            monkeypatch.setattr(RemovableHandle, "remove", interrupted)
    finally:
        signal.signal(signal.SIGINT, handler)
    monkeypatch.undo()
    assert torch.nn.GRUCell.forward is forward
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks
