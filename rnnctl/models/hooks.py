"""Hooks on modules that others go on copying and saving."""

from collections.abc import Callable
from typing import Any


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
