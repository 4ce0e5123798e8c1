"""Dask's workers as an executor: found, held against this process, given files, and watched while they work."""

import json
import logging
import math
import pkgutil
import platform
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from rnnctl.errors import InputError, RnnctlError
from rnnctl.files.sources import require_file
from rnnctl.sweeps.runner import TRIES
from rnnctl.sweeps.workers import WorkerLostError

# host:port, with or without tcp:// before it; anything else is a scheduler file.
ADDRESS = re.compile(r"\w+://.*|[^/\\]+:\d+")
# How long a scheduler may take to answer, and workers to be there at the start.
CONNECT_SECONDS = 10.0
START_SECONDS = 10.0
# Without a worker for so long nobody starts another one: a nanny takes a few seconds, and a queue is left to the user.
PATIENCE_SECONDS = 60.0
WATCH_SECONDS = 1.0
# Where runs are out and no worker has any for so long, their answers went with workers that died.
IDLE_SECONDS = 15.0
CLOSE_SECONDS = 5.0
# Where a worker of Dask finds each version, as ``pkgutil.resolve_name`` takes it.
WHERE = {"rnnctl": "rnnctl:__version__", "torch": "torch.version:__version__"}


@dataclass
class _Handed:
    """A run that was handed out: our future, Dask's, and how often a worker began it and did not end it."""

    outer: Future[Any]
    inner: Future[Any]
    starts: int = 0


class Cluster(Executor):
    """An executor of Dask's, whose errors are those of an executor of our own.

    Args:
        client: of the scheduler.
        executor: what it gave.
    """

    def __init__(self, client: Any, executor: Executor) -> None:
        self.client, self._executor = client, executor
        self.address = str(client.scheduler.address)
        self.topic = f"rnnctl-{uuid4().hex}"
        # By Dask's keys.
        self._handed: dict[str, _Handed] = {}
        self._threads: int = max(1, sum(client.nthreads().values()))
        client.subscribe_topic(self.topic, self._hear)
        # What Dask is to give up; None ends the watch.
        self._given_up: queue.SimpleQueue[Future[Any] | None] = queue.SimpleQueue()
        self._watch = threading.Thread(target=self._watch_workers, daemon=True)
        self._watch.start()

    def workers(self) -> int:
        """How many runs its workers make at a time, those that came later among them."""
        return self._threads

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a worker call the function, which does its work within ``told_of``.

        The future has WorkerLostError where workers died of it, and BrokenExecutor where the scheduler is lost.
        """
        # The same call again is another run, which is made once more because it was lost.
        key, outer = f"rnnctl-{uuid4().hex}", Future[Any]()
        # Whether it runs already only Dask knows: whoever stops waits for it, as for what runs here.
        outer.set_running_or_notify_cancel()
        try:
            inner = self._executor.submit(fn, *args, **kwargs, key=key)
        except Exception as error:
            raise BrokenExecutor(self._lost(error)) from None
        self._handed[key] = _Handed(outer, inner)
        inner.add_done_callback(lambda done: self._hand_on(key, done))
        return outer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Give up what is not done, and end the watch; the workers are somebody else's."""
        for handed in list(self._handed.values()):
            handed.inner.cancel()
        self._given_up.put(None)
        self._watch.join(CLOSE_SECONDS if wait else 0)
        with suppress(Exception):
            self.client.unsubscribe_topic(self.topic)

    def _hand_on(self, key: str, inner: Future[Any]) -> None:
        from distributed.scheduler import KilledWorker

        if inner.cancelled():
            return self._settle(key, error=BrokenExecutor(self._lost()))
        error = inner.exception()
        if error is None:
            return self._settle(key, result=inner.result())
        if isinstance(error, KilledWorker):
            # A run that waited its turn on workers that died of others has not been tried, and is as good as any.
            starts = handed.starts if (handed := self._handed.get(key)) is not None else 0
            error = _worker_lost(max(1, starts), f", the last one at {_last(error)}")
        elif isinstance(error, ImportError):
            error = BrokenExecutor(f"a worker of {self.address} cannot make it: {error}")
        self._settle(key, error=error)

    def _hear(self, event: tuple[float, tuple[str, int]]) -> None:
        """A worker begins a run (1), or has ended it (-1): one begun before that did not end took a worker along.

        Dask would go on until it has cost four workers, and blames whatever waits on these, too.
        """
        key, change = event[1]
        handed = self._handed.get(key)
        if handed is None:
            return
        handed.starts += change
        if handed.starts > TRIES:
            self._settle(key, error=_worker_lost(TRIES))
            self._given_up.put(handed.inner)

    def _settle(self, key: str, *, result: Any = None, error: BaseException | None = None) -> None:
        """Give a future its end, unless it has one: a run may end while it is given up."""
        handed = self._handed.pop(key, None)
        if handed is not None:
            handed.outer.set_result(result) if error is None else handed.outer.set_exception(error)

    def _settle_all(self, error: BaseException) -> None:
        for key in list(self._handed):
            self._settle(key, error=error)

    def _lost(self, error: Exception | None = None) -> str:
        why = "" if error is None else f" ({error or type(error).__name__})"
        return f"the scheduler at {self.address} was lost{why}. {to_start(self.address)}"

    def _watch_workers(self) -> None:
        """Count the threads of the workers, and give up where there has been none for too long."""
        # Before the first one comes a queue may keep them waiting.
        seen, busy = math.inf, time.monotonic()
        while True:
            with suppress(queue.Empty):
                if (inner := self._given_up.get(timeout=WATCH_SECONDS)) is None:
                    return
                inner.cancel()
            try:
                threads = sum(self.client.nthreads().values())
                if not threads or not self._handed or any(self.client.processing().values()):
                    busy = time.monotonic()
            except Exception:
                # A scheduler that is gone cancels what was handed out; one that is slow answers the next time.
                continue
            if threads:
                self._threads, seen = threads, time.monotonic()
            elif time.monotonic() - seen > PATIENCE_SECONDS:
                gone = f"no worker of {self.address} is left. {to_start(self.address)}"
                self._settle_all(BrokenExecutor(gone))
            if time.monotonic() - busy > IDLE_SECONDS:
                # They are handed out once more, and have not been tried.
                self._settle_all(_worker_lost(0))


def _worker_lost(tries: int, which: str = "") -> WorkerLostError:
    return WorkerLostError(f"its worker ended in the middle of it{which}", tries)


def _last(error: Any) -> str:
    return str(getattr(error.last_worker, "address", error.last_worker))


def to_start(address: str) -> str:
    """What makes a cluster of this address work again."""
    port = address.rpartition(":")[2]
    with_port = f" --port {port}" if port.isdigit() else ""
    return (
        f"Start one with 'dask scheduler{with_port}' where there is none, and workers with "
        f"'dask worker {address} --nthreads 1'; the same command goes on with what is not done"
    )


@contextmanager
def connected(scheduler: str) -> Iterator[Any]:
    """A client of the scheduler, which has a worker.

    Args:
        scheduler: its address, or the path of its scheduler file.
    Raises:
        InputError: no ``distributed`` here, no such file.
        RnnctlError: no scheduler there, or no worker.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            f"--scheduler needs distributed. Install it: {sys.executable} -m pip install 'rnnctl[cluster]'"
        ) from None
    address = scheduler if ADDRESS.fullmatch(scheduler) else _address_in(Path(scheduler))
    with _quiet():
        client = _client(Client, address)
        try:
            _require_workers(client, address)
            yield client
        finally:
            with suppress(Exception):
                client.close(timeout=CLOSE_SECONDS)


def _client(make: Any, address: str) -> Any:
    try:
        return make(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except ValueError as error:
        raise InputError(f"--scheduler: {address!r} is no address such as tcp://host:8786: {error}") from None
    except (OSError, TimeoutError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RnnctlError(f"there is no scheduler at {address} ({reason}). {to_start(address)}") from None


def _address_in(path: Path) -> str:
    """The address that a scheduler wrote into its file."""
    require_file(path, "--scheduler")
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["address"])
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"--scheduler must be an address such as tcp://host:8786, or what 'dask scheduler --scheduler-file' wrote; "
            f"got {str(path)!r}"
        ) from None


def _require_workers(client: Any, address: str) -> None:
    until = time.monotonic() + START_SECONDS
    while not client.nthreads():
        if time.monotonic() > until:
            raise RnnctlError(f"the scheduler at {address} has no worker. {to_start(address)}")
        time.sleep(START_SECONDS / 50)


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, Dask logs nothing: what concerns the user we say, and its tracebacks are of its own inside."""
    loggers = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if _of_dask(name)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _of_dask(name: str) -> bool:
    return name.partition(".")[0] in ("distributed", "tornado")


@contextmanager
def reached(client: Any) -> Iterator[None]:
    """Within, a scheduler that no longer answers is an RnnctlError that says what to start."""
    address = str(client.scheduler.address)
    try:
        yield
    except (OSError, TimeoutError) as error:
        raise RnnctlError(f"the scheduler at {address} was lost ({error}). {to_start(address)}") from None


def require_versions(client: Any, ours: Mapping[str, str]) -> None:
    """Refuse workers whose answers are not this process's.

    Args:
        client: of the scheduler.
        ours: "rnnctl" and "torch" -> version here.
    Raises:
        InputError: a package is missing on a worker, or has another version; also another Python.
    """
    python = ".".join(platform.python_version_tuple()[:2])
    for worker, theirs in client.run(platform.python_version_tuple).items():
        _require_same("Python", ".".join(theirs[:2]), python, worker)
    for package, where in WHERE.items():
        # Nothing but the standard library can be called where perhaps there is no rnnctl.
        for worker, version in client.run(pkgutil.resolve_name, where, on_error="return").items():
            if isinstance(version, Exception):
                raise InputError(
                    f"the worker at {worker} cannot load {package} ({version}); here is {package} {ours[package]}. "
                    "Install the same version there, and start the worker again"
                )
            _require_same(package, str(version), ours[package], worker)


def _require_same(package: str, theirs: str, ours: str, worker: str) -> None:
    if theirs != ours:
        raise InputError(
            f"the worker at {worker} has {package} {theirs}, and here is {package} {ours}: their answers may differ. "
            "Install the same version, and start the worker again"
        )


@contextmanager
def given_files(client: Any, contents: Iterable[tuple[str, Callable[[], bytes]]]) -> Iterator[None]:
    """Within, every worker has these files in its own folder, also one that comes later.

    Args:
        client: of the scheduler.
        contents: their names there, each without a folder, and what reads them here.
    """
    from distributed.diagnostics.plugin import UploadFile

    names = []
    try:
        for name, read in contents:
            # Dask's own plugin, which any worker can load: one of ours would keep every worker without rnnctl from
            # joining if this process were killed.
            plugin = UploadFile(__file__, load=False)
            plugin.filename, plugin.data = name, read()
            client.register_plugin(plugin, name=name)
            names.append(name)
        yield
    finally:
        for name in names:
            with suppress(Exception):
                client.unregister_worker_plugin(name)


@contextmanager
def told_of(topic: str) -> Iterator[None]:
    """Within, a worker of Dask makes a run; whoever handed that out hears of its begin and its end."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()
    worker.log_event(topic, (key, 1))
    try:
        yield
    finally:
        worker.log_event(topic, (key, -1))


def own_folder() -> tuple[str, str]:
    """Called by a worker of Dask: its address, and the folder that it got files in."""
    from distributed import get_worker

    worker = get_worker()
    return worker.address, worker.local_directory
