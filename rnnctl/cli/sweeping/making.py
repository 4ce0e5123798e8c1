"""Who makes the runs of a sweep: worker processes of our own, somebody's executor, or Dask's workers."""

import os
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import contextmanager
from functools import partial
from typing import Any

from rnnctl.cli.asking import answer, load
from rnnctl.cli.sweeping.on_cluster import made_by_client, made_by_scheduler
from rnnctl.cli.sweeping.plan import Plan, PlannedRun
from rnnctl.errors import RnnctlError
from rnnctl.sweeps.runner import Runner
from rnnctl.sweeps.workers import WorkerPool


def answer_of(run: PlannedRun) -> dict[str, Any]:
    """What a worker does with a run."""
    return answer(run.asked)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def made_on(
    executor: Executor | None, jobs: int, plan: Plan, scheduler: str | None = None
) -> Iterator[Runner[PlannedRun]]:
    """What makes the runs of a plan: an executor, a Dask cluster, or so many processes of our own.

    Args:
        executor: anybody's, which is not shut down.
        jobs: processes of our own, which end with the block.
        plan: of the runs.
        scheduler: of the cluster, its address or scheduler file.
    Raises:
        InputError: the cluster cannot make them: versions, modules.
        RnnctlError: no run can be made, or none any more.
    """
    try:
        with _made_on(executor, jobs, plan, scheduler) as runner:
            yield runner
    except BrokenExecutor as error:
        raise RnnctlError(f"no run can be made any more: {error or type(error).__name__}") from None


@contextmanager
def _made_on(executor: Executor | None, jobs: int, plan: Plan, scheduler: str | None) -> Iterator[Runner[PlannedRun]]:
    if scheduler is not None:
        with made_by_scheduler(scheduler, plan) as runner:
            yield runner
    elif executor is not None and (client := _client_of(executor)) is not None:
        with made_by_client(client, executor, plan) as runner:
            yield runner
    elif executor is not None:
        yield Runner(executor, answer_of, getattr(executor, "_max_workers", None) or jobs)
    else:
        with _own(jobs, plan.question) as pool:
            yield Runner(pool, answer_of, jobs)


def _client_of(executor: Executor) -> Any:
    """Dask's client where it gave the executor, else None; nothing of Dask's is imported for it."""
    is_of_dask = type(executor).__module__.partition(".")[0] == "distributed"
    return getattr(executor, "_client", None) if is_of_dask else None


@contextmanager
def _own(jobs: int, question: str) -> Iterator[WorkerPool]:
    pool = WorkerPool(jobs, partial(load, question))
    try:
        yield pool
    except BaseException:
        # Whoever waits no longer is not to wait for runs either.
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
