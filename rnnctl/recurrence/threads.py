"""How many threads an operation is worth."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

# Below this many multiply-adds a step, waking a second thread costs more than it does.
ONE_THREAD_BELOW = 100_000


@contextmanager
def threads_for(batch: int, hidden: int) -> Iterator[None]:
    """One thread while the steps are small, as many as before afterwards."""
    with nullcontext() if batch * hidden * hidden >= ONE_THREAD_BELOW else one_thread():
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread within: LAPACK's many short parallel parts took ten times as long on a busy machine with two."""
    # The setting is the whole process's, and may be the user's own: it goes back whatever happens.
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
