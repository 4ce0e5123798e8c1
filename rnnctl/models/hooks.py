"""Looking on while a module runs: hooks that are gone afterwards, on modules that others go on copying and saving."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn


class Hook:
    """A hook of this module alone: its copies, and what is saved of it, get one that does nothing.

    Args:
        call: what it does.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return Hook, (_nothing,)


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass


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
