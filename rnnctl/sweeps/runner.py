"""Runs spread over an executor: a few in flight for each worker, lost ones tried once more."""

import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any, Generic, NamedTuple, TypeVar

from rnnctl.sweeps.workers import WorkerLostError

Run = TypeVar("Run")

# So many for each worker: while one run ends, the next is there already.
IN_FLIGHT = 2
# How often a signal is looked for while nothing ends.
TICK_SECONDS = 0.2
# A run that takes its worker with it may be the one that does not fit into memory; or it was next to that one.
TRIES = 2


class Ended(NamedTuple):
    """A run that is over.

    Attributes:
        run: as it was handed out.
        answer: what the work returned; None where it failed.
        error: why it failed, or None.
    """

    run: Any
    answer: Any
    error: str | None


class Runner(Generic[Run]):
    """Hands runs out to an executor.

    Args:
        executor: of ``concurrent.futures``, or Dask's.
        work: called with a run, there.
        workers: how many it has; a function where that changes.
    """

    def __init__(self, executor: Executor, work: Callable[[Run], Any], workers: int | Callable[[], int]) -> None:
        self._executor, self._work, self._workers = executor, work, workers

    @property
    def workers(self) -> int:
        """How many there are now."""
        return self._workers() if callable(self._workers) else self._workers

    def ended(self, runs: Iterable[Run], stopped: Callable[[], bool] = lambda: False) -> Iterator[Ended]:
        """Every run as it ends, in whatever order.

        Args:
            runs: gone through as far as there is room in flight.
            stopped: once it says so nothing more is handed out; what runs already is waited for.
        Raises:
            BrokenExecutor: no run can be made any more.
        """
        in_flight: dict[Future[Any], tuple[Run, int]] = {}
        try:
            yield from self._as_they_end(iter(runs), in_flight, stopped)
        except Exception:
            # What is done already is done, though nothing more can be.
            yield from _ended_well(in_flight)
            raise

    def _as_they_end(
        self, left: Iterator[Run], in_flight: dict[Future[Any], tuple[Run, int]], stopped: Callable[[], bool]
    ) -> Iterator[Ended]:
        over: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

        def hand_out(run: Run, tries: int) -> None:
            future = self._executor.submit(self._work, run)
            in_flight[future] = run, tries
            future.add_done_callback(over.put)

        while True:
            if stopped():
                for each in in_flight:
                    each.cancel()
            else:
                self._fill(left, in_flight, hand_out)
            if not in_flight:
                return
            if (future := _first(over)) is None:
                continue
            run, tries = in_flight.pop(future)
            if stopped() and future.cancelled():
                continue
            tries += _further_tries(future)
            if not self._may_be_tried(future, tries):
                yield self._how(future, run, tries)
            elif not stopped():
                hand_out(run, tries + 1)

    def _fill(self, left: Iterator[Run], in_flight: dict[Any, Any], hand_out: Callable[[Run, int], None]) -> None:
        while len(in_flight) < IN_FLIGHT * self.workers:
            try:
                run = next(left)
            except StopIteration:
                return
            hand_out(run, 1)

    def _may_be_tried(self, future: Future[Any], tries: int) -> bool:
        """Whether a run was lost with its worker, and may be tried once more: now, or when the sweep is resumed."""
        return isinstance(_error_of(future), WorkerLostError) and tries < TRIES

    def _how(self, future: Future[Any], run: Run, tries: int) -> Ended:
        """How a run ended; raises what says that no other can be made."""
        error = _error_of(future)
        if error is None:
            return Ended(run, future.result(), None)
        if isinstance(error, WorkerLostError):
            return Ended(run, None, f"{error}; it was tried {tries} times")
        if isinstance(error, BrokenExecutor):
            raise error
        return Ended(run, None, f"{type(error).__name__}: {error}")


def _first(over: "queue.SimpleQueue[Future[Any]]") -> Future[Any] | None:
    """The next that is over; None after a while without one."""
    try:
        return over.get(timeout=TICK_SECONDS)
    except queue.Empty:
        return None


def _further_tries(future: Future[Any]) -> int:
    """Beyond the first one, of a run that its executor handed on by itself."""
    error = _error_of(future)
    return error.tries - 1 if isinstance(error, WorkerLostError) else 0


def _error_of(future: Future[Any]) -> BaseException | None:
    """Of one that is over; nobody but its executor cancels what is not stopped."""
    return BrokenExecutor("the executor cancelled a run") if future.cancelled() else future.exception()


def _ended_well(in_flight: dict[Future[Any], tuple[Run, int]]) -> Iterator[Ended]:
    """Of those in flight the runs that are done."""
    for future, (run, _) in in_flight.items():
        if future.done() and _error_of(future) is None:
            yield Ended(run, future.result(), None)
