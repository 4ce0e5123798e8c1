"""Looking on while the ``forward`` of a known class runs: by a call, called directly, or from within a subclass."""

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import torch
from torch import nn

from rnnctl.errors import hands_over
from rnnctl.models.hooks import run_as_written, uncompiled, unhooked
from rnnctl.models.modules import class_of
from rnnctl.models.tape.block import Block

# Class -> what takes the place of its forward while anybody looks on.
_WATCHED: "dict[type[nn.Module], _Watched]" = {}
# Two threads that begin and end at once would else leave ours behind.
_SETTING = RLock()


@dataclass(frozen=True, eq=False)
class Onlooker:
    """What is told of a run of ``forward``.

    Attributes:
        before: ``before(module, args, kwargs)``.
        after: ``after(module, args, kwargs, result)``, where it did not raise.
        always: ``always()``, whether it raised or not; last of all.
        block: whose runs it is told of; those of the thread that makes it if left out.
    """

    before: Callable[..., Any] | None = None
    after: Callable[..., Any] | None = None
    always: Callable[[], None] | None = None
    block: Block = field(default_factory=Block)

    def began(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Tell it that ``forward`` is about to run."""
        if self.before is not None:
            self.before(module, args, kwargs)

    def ended(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        """Tell it that ``forward`` has run."""
        if self.after is not None:
            self.after(module, args, kwargs, result)


class _Watched:
    """The ``forward`` of one class, and who looks on when which module runs it."""

    def __init__(self, kind: type[nn.Module]) -> None:
        self.kind, self.original = kind, kind.forward
        self.onlookers: dict[int, list[Onlooker]] = {}

    def install(self) -> None:
        onlookers, original, run, plain = self.onlookers, self.original, self._run, _is_plain

        @hands_over
        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if id(self) not in onlookers or not plain():
                return original(self, *args, **kwargs)
            return run(self, args, kwargs)

        # With the names of the file of the original: TorchScript reads its source, and looks them up here.
        made: Any = types.FunctionType(
            forward.__code__, original.__globals__, original.__name__, forward.__defaults__, forward.__closure__
        )
        made.__wrapped__, made.__doc__, made.__qualname__ = original, original.__doc__, original.__qualname__
        made.__module__ = original.__module__
        run_as_written(made.__code__)
        self.kind.forward = made

    def remove(self) -> None:
        self.kind.forward = self.original

    @hands_over
    def _run(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        onlookers = [each for each in list(self.onlookers.get(id(module), ())) if each.block.sees_call()]
        try:
            with uncompiled():
                for each in onlookers:
                    each.began(module, args, kwargs)
            result = self.original(module, *args, **kwargs)
            with uncompiled():
                for each in onlookers:
                    each.ended(module, args, kwargs, result)
            return result
        finally:
            for each in onlookers:
                if each.always is not None:
                    each.always()


run_as_written(_Watched._run.__code__)


def _is_plain() -> bool:
    """Whether it runs for its numbers: a compiler or tracer that reads this finds nothing of ours."""
    return not torch.compiler.is_compiling() and not torch._C._is_tracing()


@contextmanager
def looked_on(module: nn.Module, onlooker: Onlooker) -> Iterator[None]:
    """Within, the onlooker is told of every run of the known ``forward`` by this module.

    The class has it, not the module: copies of the module, and what is saved or scripted of it, have nothing of ours.

    Args:
        module: of one of the classes in ``rnnctl.models.modules``, or of a subclass.
        onlooker: its functions must not raise.
    """
    kind = class_of(module)
    assert kind is not None
    with _SETTING:
        watched = _WATCHED.get(kind)
        if watched is None:
            watched = _WATCHED[kind] = _Watched(kind)
            watched.install()
        watched.onlookers.setdefault(id(module), []).append(onlooker)
    try:
        yield
    finally:
        with _SETTING:
            watched.onlookers[id(module)].remove(onlooker)
            if not watched.onlookers[id(module)]:
                del watched.onlookers[id(module)]
            if not watched.onlookers and _WATCHED.get(kind) is watched:
                watched.remove()
                del _WATCHED[kind]


# Who reads a model's code; TorchScript also by what ``torch.jit.script`` calls, whose own name others may have taken.
_READERS: tuple[tuple[Any, str], ...] = (
    (torch.jit, "script"),
    (torch.jit._script, "_script_impl"),
    (torch.export, "export"),
)
# What they are while nobody looks on, and how many blocks do.
_PLAIN: list[Callable[..., Any]] = []
_LOOKING: list[None] = []


@contextmanager
def apart_from_readers() -> Iterator[None]:
    """Within, whoever reads a model's code finds it as it is: TorchScript and ``torch.export``."""
    with _SETTING:
        if not _LOOKING:
            _PLAIN[:] = [getattr(owner, name) for owner, name in _READERS]
            for (owner, name), plain in zip(_READERS, _PLAIN, strict=True):
                setattr(owner, name, _reading(plain))
        _LOOKING.append(None)
    try:
        yield
    finally:
        with _SETTING:
            _LOOKING.pop()
            if not _LOOKING:
                for (owner, name), plain in zip(_READERS, _PLAIN, strict=True):
                    setattr(owner, name, plain)


def _reading(function: Callable[..., Any]) -> Callable[..., Any]:
    @hands_over
    @functools.wraps(function)
    def reading(*args: Any, **kwargs: Any) -> Any:
        watched = list(_WATCHED.values())
        for each in watched:
            each.remove()
        try:
            with unhooked():
                return function(*args, **kwargs)
        finally:
            with _SETTING:
                for each in watched:
                    if _WATCHED.get(each.kind) is each:
                        each.install()

    return reading
