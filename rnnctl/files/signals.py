"""Signals that would end the process, put off while something is half done."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

# What somebody handles themselves is left to them.
BY_DEFAULT = (signal.SIG_DFL, signal.default_int_handler)


@contextmanager
def put_off(*signals: signal.Signals) -> Iterator[None]:
    """Within, these wait; afterwards they come, each as it would have."""
    if current_thread() is not main_thread():
        # Python lets no other thread handle signals.
        yield
        return
    came: list[int] = []
    before = {each: signal.getsignal(each) for each in signals}
    waiting = {each: handler for each, handler in before.items() if handler in BY_DEFAULT}
    for each in waiting:
        signal.signal(each, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for each, handler in waiting.items():
            signal.signal(each, handler)
        for number in came:
            signal.raise_signal(number)
