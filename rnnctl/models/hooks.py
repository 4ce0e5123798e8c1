"""Looking on while a module runs: hooks that are gone afterwards, on modules that others go on copying and saving."""

import copyreg
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import RLock
from types import CodeType
from typing import Any

import torch
from torch import nn
from torch._C._dynamo import eval_frame as frames
from torch.nn.modules import module as modules

from rnnctl.models.tape.block import Block


class Hook:
    """A hook of this module alone, which its copies and what is saved of it have not.

    Args:
        call: what it does.
        block: whose calls it is told of; None for all of them.
    """

    def __init__(self, call: Callable[..., Any], block: Block | None = None) -> None:
        self._call, self._block = call, block
        # Torch notes in two strokes that a hook takes keywords, and another thread may call it between them.
        self._is_open = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # A compiler or tracer that reads this finds nothing of ours.
        if not self._is_open or torch.compiler.is_compiling() or torch._C._is_tracing():
            return None
        if self._block is not None and not self._block.sees_call():
            return None
        with uncompiled():
            return self._call(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        # Of a table that somebody copied by hand; of those of modules it is left out.
        return Hook, (_nothing,)

    @contextmanager
    def set(self, register: Callable[..., Any], **settings: Any) -> Iterator[None]:
        """Within, it is registered."""
        handle = register(self, **settings)
        _KEYS.add(handle.id)
        self._is_open = True
        try:
            yield
        finally:
            self._is_open = False
            handle.remove()
            _KEYS.discard(handle.id)


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


# Where a module keeps its hooks, and what it knows of them.
TABLES = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
_UNSET = object()
run_as_written(Hook.__call__.__code__)
run_as_written(uncompiled.__enter__.__code__)
run_as_written(uncompiled.__exit__.__code__)


# The modules that carry a hook of ours, and how many; and the keys of these in the tables of the modules.
_HOOKED: Counter[nn.Module] = Counter()
_KEYS: set[int] = set()
_COUNTING = RLock()


@contextmanager
def _counted(module: nn.Module) -> Iterator[None]:
    with _COUNTING:
        if not _HOOKED:
            copyreg.pickle(OrderedDict, _without_ours)
        _HOOKED[module] += 1
    try:
        yield
    finally:
        with _COUNTING:
            _HOOKED[module] -= 1
            if not _HOOKED[module]:
                del _HOOKED[module]
            if not _HOOKED:
                copyreg.dispatch_table.pop(OrderedDict, None)


def _without_ours(table: "OrderedDict[Any, Any]") -> Any:
    """What ``copy`` and ``pickle`` take of any ordered mapping: of a module's table of hooks all but ours."""
    made: Any = table.__reduce__()
    if _KEYS.isdisjoint(table) or not any(table is each for each in _tables()):
        return made
    return *made[:4], iter([item for item in table.items() if item[0] not in _KEYS])


def _tables() -> Iterator[Any]:
    """The tables of hooks of those modules that carry one of ours."""
    return (table for module in list(_HOOKED) for name in TABLES if (table := vars(module).get(name)) is not None)


@contextmanager
def unhooked() -> Iterator[None]:
    """Within, there is no hook of ours on any module, for who reads modules and does not run them."""
    tables: list[Any] = [modules._global_forward_hooks, modules._global_forward_pre_hooks]
    tables += _tables()
    before = [dict(table) for table in tables]
    for table in tables:
        for key in _KEYS & table.keys():
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
    block: Block | None = None,
) -> Iterator[None]:
    """Within, the module calls these at every forward pass of a block; an ``ExitStack`` can hold it open for longer.

    Args:
        module: any module; on leaving it has the hooks that it had before.
        after: ``after(module, args, kwargs, result)``.
        before: ``before(module, args, kwargs)``; after the hooks that are there already, so that it sees
            what ``forward`` is given.
        first: ``after`` comes before the hooks that are there already, so that it sees what ``forward``
            returned. Without, it sees what whoever called the module gets.
        always: ``after`` is called where ``forward`` raises as well, with None as the result.
        block: whose forward passes; those of this thread if left out.
    """
    block = block or Block()
    with ExitStack() as stack:
        stack.enter_context(_counted(module))
        if before is not None:
            stack.enter_context(Hook(before, block).set(module.register_forward_pre_hook, with_kwargs=True))
        if after is not None:
            setting = {"prepend": first, "with_kwargs": True, "always_call": always}
            stack.enter_context(Hook(after, block).set(module.register_forward_hook, **setting))
        yield


@contextmanager
def results_of(module: nn.Module) -> Iterator[list[Any]]:
    """Within, every result of the module is appended to the list, as whoever called it gets it."""
    seen: list[Any] = []

    def after(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        seen.append(result)

    with hooked(module, after, first=False):
        yield seen
