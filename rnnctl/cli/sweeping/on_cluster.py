"""A sweep on Dask's workers: versions held against each other, files sent where there is no common disk."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rnnctl.cli.sweeping.plan import CODE, FILES, NO_FILE, Plan, digest_of_file, source_of
from rnnctl.cli.sweeping.there import NamedFile, Sender, answer_there, lacking
from rnnctl.cli.versions import named
from rnnctl.errors import InputError
from rnnctl.files.reading import read_bytes
from rnnctl.sweeps.cluster import Cluster, connected, given_files, reached, require_versions
from rnnctl.sweeps.runner import Runner


@contextmanager
def made_by_scheduler(scheduler: str, plan: Plan) -> Iterator[Runner[Any]]:
    """What makes runs on the workers of a scheduler.

    Args:
        scheduler: its address, or the path of its scheduler file.
        plan: of the runs.
    Raises:
        InputError: no ``distributed`` here; workers of another version, or without a package that the runs need.
        RnnctlError: no scheduler, or no worker.
    """
    with connected(scheduler) as client, made_by_client(client, client.get_executor(), plan) as runner:
        yield runner


@contextmanager
def made_by_client(client: Any, executor: Executor, plan: Plan) -> Iterator[Runner[Any]]:
    """What makes runs on an executor of this client's."""
    with reached(client):
        require_versions(client, named())
        files = tuple(named_files(plan))
        sent = _to_be_sent(client, files)
    with given_files(client, [(file.sent_as, partial(read_bytes, Path(file.path))) for file in sent]):
        cluster = Cluster(client, executor)
        try:
            yield Runner(cluster, partial(answer_there, Sender(cluster.topic, named(), files)), cluster.workers)
        finally:
            cluster.shutdown()


def named_files(plan: Plan) -> Iterator[NamedFile]:
    """The files that the plan's options name, each once; what comes with rnnctl is none."""
    varied = plan.varied()
    for option in FILES + CODE:
        values = (str(value) for value in varied.get(option, (plan.value_of(option),)) if value is not None)
        for said in dict.fromkeys(value for value in values if value not in NO_FILE):
            path = source_of(said, option) if option in CODE else Path(said)
            # What cannot be read is refused by the run itself.
            if path is not None and path.is_file():
                yield NamedFile(option, said, str(path.absolute()), digest_of_file(str(path)))


def _to_be_sent(client: Any, files: tuple[NamedFile, ...]) -> list[NamedFile]:
    """Those that a worker lacks; all that can be sent where no worker has come yet."""
    if not files or not client.nthreads():
        return [file for file in files if file.is_whole]
    missing: dict[NamedFile, str] = {}
    for worker, lacked in client.run(lacking, files).items():
        missing |= dict.fromkeys(lacked, worker)
    for file, worker in missing.items():
        if not file.is_whole:
            raise InputError(
                f"--{file.option.replace('_', '-')} {file.said}: the worker at {worker} has no such module of the same "
                "content, and only a module that is one file is sent. Install it there, or start the worker where it is"
            )
    return list(missing)
