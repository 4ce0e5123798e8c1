"""Ctrl-C in a sweep: the first one lets runs end, the second ends it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping(tell: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Yield what says whether to stop: after SIGINT or SIGTERM. A second one raises KeyboardInterrupt.

    Args:
        tell: called at the first one.
    """
    came: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)
        tell()

    if current_thread() is not main_thread():
        # Python lets no other thread handle signals.
        yield lambda: False
        return
    before = {each: signal.signal(each, handle) for each in SIGNALS}
    try:
        yield lambda: bool(came)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
