"""What worker processes of the tests are given to do, found there by name; without torch, which takes long to load."""

import os
import signal
import sys
import threading
import time
from pathlib import Path


def load():
    """Nothing is needed."""


def load_badly():
    raise RuntimeError("no such library")


def load_once(path):
    """The first worker loads, and no other."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        raise RuntimeError("there was one already") from None


def square(number):
    return number * number


def square_slowly(number):
    """Long enough for others to ask for their turn meanwhile."""
    time.sleep(0.1)
    return square(number)


def process(_):
    return os.getpid()


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_three(number):
    if number == 3:
        die(number)
    return number


def die_once(path):
    """The first to come dies, whoever comes again does not."""
    if not os.path.exists(path):
        Path(path).touch()
        die(path)
    return "lived"


def outgrow(_):
    """Take memory without end, where the process may have little."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))
    kept = []
    while True:
        kept.append(bytearray(2**24))


def fail(number):
    raise ValueError(f"no {number}")


def leave(_):
    sys.exit(3)


def unsendable(_):
    return threading.Lock()


def busy(path):
    """Tell who it is, and go on for ever without looking at anything."""
    Path(path).write_text(str(os.getpid()))
    while True:
        time.sleep(0.01)


def key_of(question, settings, vary):
    """The keys of all runs of a plan."""
    from rnnctl.cli.sweeping.sweep import plan_of

    return [run.key for run in plan_of(question, settings, vary).runs()]


def sweep_without_torch(path, count):
    """A parent: as many runs as are not in the file yet, on two workers, a line for each."""
    from rnnctl.sweeps.run_file import RunFile, done_runs
    from rnnctl.sweeps.runner import Runner
    from rnnctl.sweeps.workers import WorkerPool

    path = Path(path)
    done = {run.key for run in done_runs(path)} if path.exists() else set()
    file, pool = RunFile(path), WorkerPool(2, load)
    for ended in Runner(pool, square, 2).ended(number for number in range(count) if f"key {number}" not in done):
        said = {"config": {}, "scalars": {"square": ended.answer}, "seconds": 0.0, "versions": {}}
        file.append("gradnorm", {"key": f"key {ended.run}", "varied": {"number": ended.run}, **said})
    file.close()
    pool.shutdown()


def wait_for_a_busy_worker(path):
    """A parent that waits for a run without end."""
    from rnnctl.sweeps.workers import WorkerPool

    WorkerPool(1, load).submit(busy, path).result()


def sweep_of_gradnorm(path, settings, vary):
    """A parent: the real thing."""
    import rnnctl

    rnnctl.sweep("gradnorm", settings, vary, to=path, jobs=2)
