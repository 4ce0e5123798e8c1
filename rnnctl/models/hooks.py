"""Looking on while a module runs: hooks that are gone afterwards, on modules that others go on copying and saving."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import CodeType
from typing import Any

import torch
from torch import nn
from torch._C._dynamo import eval_frame as frames
from torch.nn.modules import module as modules


class Hook:
    """A hook of this module alone: its copies, and what is saved of it, get one that does nothing.

    Args:
        call: what it does.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # A compiler or tracer that reads this finds nothing of ours.
        if torch.compiler.is_compiling() or torch._C._is_tracing():
            return None
        with uncompiled():
            return self._call(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return Hook, (_nothing,)


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass


class uncompiled:  # noqa: N801, it is used as a function.
    """Within, no frame is given to torch's compiler, which would take ours for the user's."""

    def __enter__(self) -> None:
        # Loaded by whoever compiles, and not by us: it takes seconds.
        self._before: Any = frames.set_eval_frame(None) if "torch._dynamo" in sys.modules else _UNSET

    def __exit__(self, *_: object) -> None:
        if self._before is not _UNSET:
            frames.set_eval_frame(self._before)


def run_as_written(code: CodeType) -> None:
    """Have a function of ours run as it is written wherever it is called between compiled pieces of a model."""
    # What torch's own skip_code does, without loading the compiler; older ones have it here themselves.
    skip = frames._FrameExecStrategy(frames._FrameAction.SKIP, frames._FrameAction.DEFAULT)
    frames.set_code_exec_strategy(code, skip)


_UNSET = object()
run_as_written(Hook.__call__.__code__)
run_as_written(uncompiled.__enter__.__code__)
run_as_written(uncompiled.__exit__.__code__)


# The modules that carry a hook of ours, and how many.
_HOOKED: Counter[nn.Module] = Counter()


@contextmanager
def _counted(module: nn.Module) -> Iterator[None]:
    _HOOKED[module] += 1
    try:
        yield
    finally:
        _HOOKED[module] -= 1
        if not _HOOKED[module]:
            del _HOOKED[module]


@contextmanager
def unhooked() -> Iterator[None]:
    """Within, there is no hook of ours on any module, for who reads modules and does not run them."""
    tables: list[Any] = [modules._global_forward_hooks, modules._global_forward_pre_hooks]
    tables += [table for module in _HOOKED for table in (module._forward_hooks, module._forward_pre_hooks)]
    before = [dict(table) for table in tables]
    for table in tables:
        for key in [key for key, hook in table.items() if isinstance(hook, Hook)]:
            del table[key]
    try:
        yield
    finally:
        for table, old in zip(tables, before, strict=True):
            new = {key: hook for key, hook in table.items() if key not in old}
            table.clear()
            # In the order in which they were: some of ours have to be first.
            table.update(old | new)


@contextmanager
def hooked(
    module: nn.Module,
    after: Callable[..., Any] | None = None,
    *,
    before: Callable[..., Any] | None = None,
    first: bool = True,
    always: bool = False,
) -> Iterator[None]:
    """Within, the module calls these at every forward pass; an ``ExitStack`` can hold it open for longer.

    Args:
        module: any module; on leaving it has the hooks that it had before.
        after: ``after(module, args, kwargs, result)``.
        before: ``before(module, args, kwargs)``; after the hooks that are there already, so that it sees
            what ``forward`` is given.
        first: ``after`` comes before the hooks that are there already, so that it sees what ``forward``
            returned. Without, it sees what whoever called the module gets.
        always: ``after`` is called where ``forward`` raises as well, with None as the result.
    """
    with ExitStack() as stack:
        stack.enter_context(_counted(module))
        if before is not None:
            stack.callback(module.register_forward_pre_hook(Hook(before), with_kwargs=True).remove)
        if after is not None:
            setting = {"prepend": first, "with_kwargs": True, "always_call": always}
            stack.callback(module.register_forward_hook(Hook(after), **setting).remove)
        yield


@contextmanager
def results_of(module: nn.Module) -> Iterator[list[Any]]:
    """Within, every result of the module is appended to the list, as whoever called it gets it."""
    seen: list[Any] = []

    def after(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        seen.append(result)

    with hooked(module, after, first=False):
        yield seen
