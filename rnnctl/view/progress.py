"""Progress on stderr, where a terminal is watching, of work that takes over a second: a bar, or its name alone."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What is told the fraction that is done; None where nobody watches.
Progress = Callable[[float], None] | None
PATIENCE_SECONDS = 1.0


@contextmanager
def progress_bar(label: str, *, quiet: bool) -> Iterator[Progress]:
    """Yield a function that takes the fraction done; None where no terminal is watching."""
    if not _is_watched(quiet=quiet):
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


@contextmanager
def counted(label: str, total: int, *, quiet: bool) -> Iterator[Callable[[int, str], None]]:
    """Yield a function that takes how many are done, and what else there is to say; it shows the rate and what is left.

    It does nothing where no terminal is watching.
    """
    if not _is_watched(quiet=quiet):
        yield lambda done, more: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[more]}"), TimeRemainingColumn())
    bar = Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True), transient=True)
    task, began = bar.add_task(label, total=total, more=""), time.monotonic()

    def show(done: int, more: str) -> None:
        rate = done / max(time.monotonic() - began, 1e-3)
        bar.update(task, completed=done, more=f"{more}, {rate:.3g}/s")

    with bar:
        yield show


@contextmanager
def announced(label: str, *, quiet: bool) -> Iterator[None]:
    """Within, something is done that cannot say how far it is: its name is shown once it takes over a second."""
    if not _is_watched(quiet=quiet):
        yield
        return
    text, shown = f"{label} ...", threading.Event()

    def show() -> None:
        shown.set()
        sys.stderr.write(text)
        sys.stderr.flush()

    timer = threading.Timer(PATIENCE_SECONDS, show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        # It may be writing just now.
        timer.join()
        if shown.is_set():
            sys.stderr.write(f"\r{' ' * len(text)}\r")
            sys.stderr.flush()


def _is_watched(*, quiet: bool) -> bool:
    return not quiet and sys.stderr is not None and sys.stderr.isatty()
