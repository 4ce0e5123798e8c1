"""A progress bar on stderr for work that takes over a second."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 1.0


@contextmanager
def progress_bar(label: str, *, quiet: bool) -> Iterator[Callable[[float], None] | None]:
    """Yield a function that takes the fraction done; None where no terminal is watching."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(label, total=1.0)
    began = time.monotonic()

    def show(fraction: float) -> None:
        if time.monotonic() - began > PATIENCE_SECONDS and not bar.live.is_started:
            bar.start()
        bar.update(task, completed=fraction)

    try:
        yield show
    finally:
        bar.stop()
