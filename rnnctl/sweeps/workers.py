"""Worker processes of our own: fresh interpreters that load once and then run one call after the other.

``ProcessPoolExecutor`` would lose every run in flight where one worker dies, and would import the caller's program
again in each of them.
"""

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

# A worker that was told to end and does not is killed after so many seconds.
PATIENCE_SECONDS = 5.0
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class WorkerLostError(BrokenExecutor):
    """A worker process ended in the middle of a run; the others go on, and another one takes its place.

    Args:
        text: how it ended.
        tries: how many workers this run has cost since it was handed out; Dask hands it on by itself.
    """

    def __init__(self, text: str, tries: int = 1) -> None:
        super().__init__(text)
        self.tries = tries


class WorkerPool(Executor):
    """An executor whose workers may die: each costs its own run alone.

    Args:
        count: of worker processes, at least 1.
        load: called once in every worker, at its start; found by its name in its module.
    """

    def __init__(self, count: int, load: Callable[[], None]) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Call] | None] = queue.SimpleQueue()
        self._why_broken: str | None = None
        self._state = threading.Lock()
        self._workers = [_Worker(load) for _ in range(count)]
        self._serving = count
        self._threads = [threading.Thread(target=self._serve, args=(each,), daemon=True) for each in self._workers]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a worker call the function, which is found there by its name.

        Raises:
            BrokenExecutor: workers do not start here.
        """
        future: Future[Any] = Future()
        with self._state:
            if self._why_broken is not None:
                raise BrokenExecutor(self._why_broken)
            self._calls.put((future, (fn, args, kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers once they are idle, or at once where nobody waits for them, and where they just start."""
        if cancel_futures:
            for future in self._waiting():
                future.cancel()
        for _ in self._threads:
            self._calls.put(None)
        for worker in self._workers:
            if not wait or not worker.has_loaded:
                worker.kill()
        if not wait:
            return
        for thread in self._threads:
            thread.join()
        # Left by a worker that does not start, with nobody there to take it.
        for future in self._waiting():
            future.cancel()

    def _waiting(self) -> Iterator[Future[Any]]:
        """Of all calls that no worker has taken, which it takes."""
        with suppress(queue.Empty):
            while True:
                if (call := self._calls.get_nowait()) is not None:
                    yield call[0]

    def _serve(self, worker: "_Worker") -> None:
        """Hand one call after the other to a worker, which is started again where it was lost."""
        with suppress(WorkerLostError):
            worker.start()
        while (call := self._calls.get()) is not None:
            try:
                worker.start()
            except WorkerLostError as error:
                self._calls.put(call)
                self._retire(str(error))
                return
            future, work = call
            if future.set_running_or_notify_cancel():
                _carry_out(worker, future, work)
        worker.stop()

    def _retire(self, why: str) -> None:
        """One worker less, as it does not start; the others go on, and without any nothing does."""
        with self._state:
            self._serving -= 1
            if self._serving:
                return
            self._why_broken = f"a worker process does not start: {why}"
        for future in self._waiting():
            if future.set_running_or_notify_cancel():
                future.set_exception(BrokenExecutor(self._why_broken))


def _carry_out(worker: "_Worker", future: Future[Any], work: Call) -> None:
    try:
        is_result, value = worker.call(work)
    except WorkerLostError as error:
        future.set_exception(error)
    except Exception as error:
        # What cannot be sent is the caller's mistake.
        future.set_exception(error)
    else:
        future.set_result(value) if is_result else future.set_exception(value)


class _Worker:
    """One process, and the line to it."""

    def __init__(self, load: Callable[[], None]) -> None:
        self._load = load
        self.has_loaded = False
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Connection[Any, Any] | None = None

    def start(self) -> None:
        """Start it, unless it runs, and wait until it has loaded; WorkerLostError where it does not come so far."""
        if self._process is not None:
            return
        self._line, theirs = Pipe()
        # It is to find what this process finds, and to have its modules; -c imports nothing of the caller's.
        serving = f"from rnnctl.sweeps.workers import serve; serve({theirs.fileno()})"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {serving}"],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Ctrl-C is for the parent, which lets runs end.
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerLostError(str(error)) from None
        finally:
            theirs.close()
        self.has_loaded, reason = self.call((self._load, (), {}))
        if not self.has_loaded:
            self.stop()
            raise WorkerLostError(f"{type(reason).__name__}: {reason}")

    def call(self, work: Call) -> tuple[bool, Any]:
        """Whether it returned, and what it returned or raised.

        Raises:
            WorkerLostError: the process ended meanwhile; it is to be started again.
        """
        assert self._line is not None
        sent = pickle.dumps(work)
        try:
            self._line.send_bytes(sent)
            received = self._line.recv_bytes()
        except (EOFError, OSError):
            raise WorkerLostError(f"the worker process ended in the middle of it ({self._end()})") from None
        answer: tuple[bool, Any] = pickle.loads(received)
        return answer

    def _end(self) -> str:
        """Forget a process that is lost; how it ended, in words."""
        process = self._process
        self.stop()
        code = None if process is None else process.returncode
        if code is None or code >= 0:
            return f"exit code {code}"
        return "SIGKILL, as where memory runs out" if code == -signal.SIGKILL else f"signal {-code}"

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        """Close the line, upon which it ends."""
        line, process, self._line, self._process = self._line, self._process, None, None
        if line is not None:
            line.close()
        if process is not None:
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def serve(descriptor: int) -> None:
    """What a worker process does: call what comes, until the line is closed, be it by the death of the parent."""
    line: Connection[Any, Any] = Connection(descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    # In a thread of its own, so that the end of the parent ends a long run, too.
    threading.Thread(target=_receive, args=(line, work), daemon=True).start()
    while True:
        try:
            function, arguments, keywords = pickle.loads(work.get())
            answer = True, function(*arguments, **keywords)
        except Exception as error:
            answer = False, error
        # Without a parent, of whose end the thread above knows first.
        with suppress(OSError):
            line.send_bytes(_pickled(answer))


def _receive(line: "Connection[Any, Any]", work: "queue.SimpleQueue[bytes]") -> None:
    try:
        while True:
            work.put(line.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


def _pickled(answer: tuple[bool, Any]) -> bytes:
    try:
        return pickle.dumps(answer)
    except Exception as error:
        return pickle.dumps((False, RuntimeError(f"what a run returned cannot be sent: {error}")))
