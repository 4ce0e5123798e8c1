"""Sweeps on Dask: a scheduler and workers in processes of their own, over TCP, that know nothing of this folder."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from distributed.scheduler import KilledWorker, WorkerState
from shell import Run, forget_modules_of, runner

import rnnctl
from rnnctl.cli.sweeping import there
from rnnctl.cli.sweeping.making import made_on
from rnnctl.cli.sweeping.on_cluster import named_files
from rnnctl.cli.sweeping.plan import Plan
from rnnctl.cli.sweeping.sweep import plan_of
from rnnctl.cli.sweeping.there import Sender, answer_there
from rnnctl.sweeps import cluster
from rnnctl.sweeps.cluster import Cluster, connected, require_versions
from rnnctl.sweeps.runner import Runner
from rnnctl.sweeps.workers import WorkerLostError

MODEL = """
import torch

class Net(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.rnn = torch.nn.RNN(3, 4, batch_first=True)
        with torch.no_grad():
            self.rnn.weight_hh_l0 *= scale

    def forward(self, x):
        return self.rnn(x)[0]

def build(scale=1.0):
    return Net(scale * {factor})
"""


class Dask:
    """A scheduler in a process of its own, and workers that are started and killed one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._started("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", self.file)
        until(self.file.exists)

    @property
    def address(self) -> str:
        return str(json.loads(self.file.read_text())["address"])

    def worker(self, *more: str) -> subprocess.Popen[bytes]:
        own = tempfile(self.folder)
        place = ("--scheduler-file", self.file, "--local-directory", own, "--nthreads", "1")
        return self._started("worker", *place, *(more or ("--no-nanny",)))

    def wait_for(self, workers: int) -> None:
        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=180)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def _started(self, kind: str, *arguments: Any) -> subprocess.Popen[bytes]:
        found = os.pathsep.join([str(Path(rnnctl.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *map(str, arguments)],
            cwd=tempfile(self.folder),
            env={**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._processes.append(process)
        return process


def tempfile(folder: Path) -> Path:
    """A new folder there."""
    own = folder / f"of{len(list(folder.iterdir()))}"
    own.mkdir()
    return own


def until(holds: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    """Two workers, which no test harms."""
    made = Dask(tmp_path_factory.mktemp("dask"))
    try:
        made.worker()
        made.worker()
        made.wait_for(2)
        yield made
    finally:
        made.close()


@pytest.fixture
def own_dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    """Without a worker, to be harmed."""
    made = Dask(tmp_path_factory.mktemp("dask"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answers(path: Path) -> dict[str, Any]:
    """Of every run by its key, with all that no clock has a part in."""
    found = {
        each["key"]: {name: each.get(name) for name in ("varied", "config", "scalars", "error")} for each in lines(path)
    }
    assert len(found) == len(lines(path)), "a run twice"
    return found


def of_this_process(folder: Path) -> str:
    """A name of the folder that is another one for every process, as where there is no common disk."""
    sys.path[:0] = ["/proc/self/cwd", str(folder)]
    return "/proc/self/cwd"


SMALL = "--seq-len 5 --hidden-size 4 --json"


@pytest.mark.slow
def test_answers_of_a_cluster_are_those_of_this_machine_number_for_number(dask: Dask, run: Run, tmp_path: Path) -> None:
    line = f"sweep gradnorm --vary gain=0.5,1.5 --seeds 3 {SMALL} --to"
    here = run(f"{line} here.jsonl")
    there = run(f"{line} there.jsonl --scheduler {dask.address}")
    assert (here.code, there.code) == (0, 0), there.err
    assert answers(tmp_path / "here.jsonl") == answers(tmp_path / "there.jsonl")
    assert len(lines(tmp_path / "there.jsonl")) == 6
    assert json.loads(here.out)["rows"] == json.loads(there.out)["rows"]
    assert "2 threads" in there.err


@pytest.mark.slow
def test_files_and_modules_of_this_folder_reach_workers_that_have_none(dask: Dask, run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", rng.standard_normal((2, 6, 3)).astype("float32"))
    (tmp_path / "net.py").write_text(MODEL.format(factor=1))
    own = of_this_process(tmp_path)
    files = f"{own}/a.npy,{own}/b.npy"
    line = f"sweep gradnorm --model net:build --vary input={files} --vary model-arg.scale=0.5,1 --json --to"
    assert run(f"{line} here.jsonl").code == 0
    there = run(f"{line} there.jsonl --scheduler {dask.file}")
    assert there.code == 0, there.err
    found = answers(tmp_path / "there.jsonl")
    assert found == answers(tmp_path / "here.jsonl")
    assert {each["config"]["input"] for each in found.values()} == {f"{own}/a.npy", f"{own}/b.npy"}
    assert len({each["scalars"]["grad_W_hh_norm"] for each in found.values()}) == 4


@pytest.mark.slow
def test_workers_take_a_module_as_it_is_now_and_not_as_another_sweep_had_it(
    dask: Dask, run: Run, tmp_path: Path
) -> None:
    line = (
        f"sweep gradnorm --model net:build --input-size 3 --seq-len 5 --seeds 4 --json --scheduler {dask.address} --to"
    )
    norms = []
    for factor in (1, 2):
        (tmp_path / "net.py").write_text(MODEL.format(factor=factor))
        assert run(f"{line} {factor}.jsonl").code == 0
        norms.append({each["scalars"]["spectral_norm"] for each in lines(tmp_path / f"{factor}.jsonl")})
    assert sorted(2 * norm for norm in norms[0]) == pytest.approx(sorted(norms[1]), rel=1e-5)
    assert len(norms[0]) == 4


@pytest.mark.slow
def test_a_package_that_workers_do_not_have_is_refused_by_its_name(dask: Dask, run: Run, tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "__init__.py").write_text("")
    (tmp_path / "nets" / "small.py").write_text(MODEL.format(factor=1))
    line = f"sweep gradnorm --model nets.small:build --input-size 3 --seeds 2 --scheduler {dask.address} --to r.jsonl"
    of_this_process(tmp_path)
    ran = run(line)
    assert ran.code == 2
    assert "--model nets.small:build: the worker at tcp://127.0.0.1:" in ran.err
    assert "only a module that is one file is sent" in ran.err


@pytest.mark.slow
def test_a_failed_run_names_the_file_as_it_was_typed(dask: Dask, run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "odd.npy", np.full((2, 6, 3), np.inf))
    line = "sweep gradnorm --input odd.npy --seeds 1 --json --to"
    assert run(f"{line} here.jsonl").code == run(f"{line} there.jsonl --scheduler {dask.address}").code == 4
    assert "odd.npy" in lines(tmp_path / "there.jsonl")[0]["error"]
    assert answers(tmp_path / "there.jsonl") == answers(tmp_path / "here.jsonl")


@pytest.mark.slow
def test_a_worker_of_another_version_is_refused_with_both_versions_and_its_address(dask: Dask) -> None:
    with connected(dask.address) as client:
        worker = next(iter(client.nthreads()))
        require_versions(client, real := {"rnnctl": rnnctl.__version__, "torch": torch_version()})
        for package in real:
            with pytest.raises(rnnctl.RnnctlError, match=f"has {package} .*, and here is {package} 0.0.1") as told:
                require_versions(client, {**real, package: "0.0.1"})
            assert real[package] in str(told.value)
            assert any(address in str(told.value) for address in client.nthreads()), worker


def torch_version() -> str:
    import torch

    return str(torch.__version__)


@pytest.mark.slow
def test_a_worker_that_has_no_such_package_is_refused(dask: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "WHERE", {"rnnctl": "rnnctl_of_nobody:__version__"})
    with (
        connected(dask.address) as client,
        pytest.raises(rnnctl.RnnctlError, match="cannot load rnnctl .*rnnctl 1.2.3"),
    ):
        require_versions(client, {"rnnctl": "1.2.3"})


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_costs_no_run_and_doubles_none(own_dask: Dask, tmp_path: Path) -> None:
    own_dask.worker()
    victim = own_dask.worker()
    own_dask.wait_for(2)
    keys: list[str] = []
    with connected(own_dask.address) as client:

        def heard(record: Any) -> None:
            keys.append(record["key"])
            if len(keys) == 10:
                victim.send_signal(signal.SIGKILL)

        executor = client.get_executor()
        found = rnnctl.sweep("gradnorm", {"seq-len": 200}, {"seed": range(60)}, executor=executor, on_result=heard)
    assert victim.wait(10) == -signal.SIGKILL
    assert len(keys) == len(set(keys)) == 60
    (point,) = found.points
    assert (point.runs, point.failed) == (60, 0)


@pytest.mark.slow
def test_a_lost_scheduler_ends_the_sweep_and_the_same_command_resumes_it(
    own_dask: Dask, run: Run, tmp_path: Path
) -> None:
    own_dask.worker()
    own_dask.wait_for(1)
    to = tmp_path / "runs.jsonl"
    line = f"sweep gradnorm --seeds 150 --seq-len 100 --json --to {to}"

    def kill() -> None:
        until(lambda: to.exists() and to.read_text().count("\n") > 5)
        own_dask.scheduler.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    ran = run(f"{line} --scheduler {own_dask.address}")
    killer.join()
    assert ran.code == 1
    assert "was lost" in ran.err and "dask scheduler --port" in ran.err and "dask worker tcp://" in ran.err
    assert "Traceback" not in ran.err
    kept = answers(to)
    assert 5 < len(kept) < 150
    assert run(line).code == 0
    assert len(answers(to)) == 150 and kept.items() <= answers(to).items()


class Worker:
    """Stands for the process of a worker, with a folder of its own, of which the sender is another process."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        patch.setattr(there, "own_folder", lambda: ("tcp://there:1", str(folder)))
        patch.setattr(there, "told_of", nullcontext)
        patch.setattr(there, "_State", type("_State", (there._State,), {}))

    def sent(self, plan: Plan, versions: Any = None) -> Sender:
        """Of a plan, whose files are hidden from it but for the copies that it is sent."""
        files = tuple(named_files(plan))
        for file in files:
            Path(file.path).rename(self.folder / file.sent_as)
        return Sender(os.urandom(4).hex(), versions or there.named(), files, "another process")


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield Worker(tmp_path / "of-the-worker", monkeypatch)
    forget_modules_of(tmp_path)
    sys.modules.pop("net", None)


def of_data(folder: Path, seed: int = 0) -> Plan:
    np.save(folder / "a.npy", np.random.default_rng(seed).standard_normal((2, 6, 3)).astype("float32"))
    return plan_of("gradnorm", {"input": "a.npy"}, {"seed": [0, 1]})


def test_a_copy_gives_the_answer_of_the_file_and_is_named_as_it_was_typed(worker: Worker, tmp_path: Path) -> None:
    plan = of_data(tmp_path)
    here = [there.answer(run.asked) for run in plan.runs()]
    assert not any("error" in each for each in here)
    sender = worker.sent(plan)
    assert not (tmp_path / "a.npy").exists()
    for each, run in zip(here, plan.runs(), strict=True):
        copy = answer_there(sender, run)
        assert (each["config"], each["scalars"]) == (copy["config"], copy["scalars"])
        assert copy["config"]["input"] == "a.npy"


def test_a_file_of_other_content_at_the_same_place_is_not_taken(worker: Worker, tmp_path: Path) -> None:
    here = there.answer(of_data(tmp_path).run_at(0).asked)
    (file,) = named_files(plan := of_data(tmp_path))
    (tmp_path / "a.npy").rename(worker.folder / file.sent_as)
    of_data(tmp_path, seed=1)
    sender = Sender("a sweep", there.named(), (file,), "another process")
    assert answer_there(sender, plan.run_at(0))["scalars"] == here["scalars"]
    assert there.answer(plan.run_at(0).asked)["scalars"] != here["scalars"]


def test_a_worker_without_the_file_says_so_and_makes_no_run(worker: Worker, tmp_path: Path) -> None:
    plan = of_data(tmp_path)
    (file,) = named_files(plan)
    (tmp_path / "a.npy").unlink()
    with pytest.raises(BrokenExecutor, match="the worker at tcp://there:1 has no .*a.npy of the same content"):
        answer_there(Sender("a sweep", there.named(), (file,), "another process"), plan.run_at(0))


def test_a_worker_that_joins_with_another_version_makes_no_run(worker: Worker, tmp_path: Path) -> None:
    plan = of_data(tmp_path)
    with pytest.raises(BrokenExecutor, match=r"tcp://there:1 has rnnctl .* and torch .*, and here is rnnctl 9"):
        answer_there(worker.sent(plan, {"rnnctl": "9", "torch": "9"}), plan.run_at(0))


def test_a_module_is_imported_anew_for_every_sweep_and_only_it(worker: Worker, tmp_path: Path) -> None:
    sent, before = [], {name: id(module) for name, module in sys.modules.items()}
    for factor in (1, 2):
        (tmp_path / "net.py").write_text(MODEL.format(factor=factor))
        plan = plan_of("gradnorm", {"model": "net:build", "input-size": 3}, {"seed": [0]})
        sent.append(worker.sent(plan))
    small, large, again = (
        answer_there(sender, plan.run_at(0))["scalars"]["spectral_norm"] for sender in (sent[0], sent[1], sent[0])
    )
    assert (large, again) == (pytest.approx(2 * small, rel=1e-5), small)
    assert {name: id(sys.modules[name]) for name in before} == before


def test_only_files_that_options_name_are_sent_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("a.npy", "b.npy", "dummy", "net.py", "other.npy"):
        (tmp_path / name).write_bytes(name.encode())
    vary = {"input": ["a.npy", "b.npy", "sunspots", "gone.npy"], "seed": [0, 1]}
    plan = plan_of("gradnorm", {"model": "net:build", "target": "dummy", "loss-fn": "net:loss"}, vary)
    named = [(file.option, Path(file.path).name) for file in named_files(plan)]
    assert named == [("input", "a.npy"), ("input", "b.npy"), ("model", "net.py"), ("loss_fn", "net.py")]
    of_torch = plan_of("gradnorm", {"model": "torch.nn:RNN"}, {"seed": [0]})
    assert [file.is_installed for file in named_files(of_torch)] == [True]


class OfClient(Executor):
    """An executor of a client whose futures the test settles."""

    address = "tcp://there:1"

    def __init__(self) -> None:
        self.scheduler, self.threads, self.asked = self, 3, 0
        self.futures: list[Future[Any]] = []
        self.keys: list[str] = []
        self.at_work: tuple[str, ...] = ("a run",)

    def subscribe_topic(self, topic: str, handler: Any) -> None:
        self.tell = lambda i, change: handler((0.0, (self.keys[i], change)))

    def processing(self) -> dict[str, tuple[str, ...]]:
        return {"tcp://there:2": self.at_work}

    def unsubscribe_topic(self, topic: str) -> None:
        del self.tell

    def nthreads(self) -> dict[str, int]:
        self.asked += 1
        return {"tcp://there:2": self.threads} if self.threads else {}

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.keys.append(kwargs["key"])
        self.futures.append(Future())
        return self.futures[-1]


@pytest.fixture
def of_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[OfClient, Cluster]]:
    monkeypatch.setattr(cluster, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.05)
    executor = OfClient()
    made = Cluster(executor, executor)
    yield executor, made
    made.shutdown()


def test_where_no_worker_is_left_the_sweep_ends_and_says_what_to_start(of_client: tuple[OfClient, Cluster]) -> None:
    executor, made = of_client
    seen = executor.asked
    until(lambda: executor.asked > seen + 1)
    executor.threads = 0
    told = (
        "no worker of tcp://there:1 is left. Start .*'dask worker tcp://there:1 --nthreads 1'; the same command goes on"
    )
    with pytest.raises(BrokenExecutor, match=told):
        list(Runner(made, print, made.workers).ended([1]))


def test_before_the_first_worker_comes_a_sweep_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.05)
    executor = OfClient()
    executor.threads = 0
    made = Cluster(executor, executor)
    future = made.submit(print)
    with pytest.raises(TimeoutError):
        future.exception(0.3)
    made.shutdown()


def test_workers_that_come_later_get_runs_too(of_client: tuple[OfClient, Cluster]) -> None:
    executor, made = of_client
    assert made.workers() == 3
    executor.threads = 8
    until(lambda: made.workers() == 8)


def test_a_run_that_dask_hands_on_a_second_time_is_given_up(of_client: tuple[OfClient, Cluster]) -> None:
    executor, made = of_client
    ended = Runner(made, print, made.workers).ended([1, 2])

    def settle() -> None:
        until(lambda: len(executor.futures) == 2)
        # The first one is begun three times and never ends; of the other one only the answers are lost.
        for i, change in ((0, 1), (1, 1), (1, -1), (0, 1), (1, 1), (1, -1), (1, 1), (1, -1), (1, 1), (0, 1)):
            executor.tell(i, change)
        executor.futures[1].set_result("an answer")
        until(executor.futures[0].cancelled)

    settling = threading.Thread(target=settle)
    settling.start()
    lost, well = ended
    settling.join()
    assert lost.error == "its worker ended in the middle of it; it was tried 2 times"
    assert (well.answer, len(executor.futures)) == ("an answer", 2)


def test_runs_that_no_worker_has_are_handed_out_once_more(
    of_client: tuple[OfClient, Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "IDLE_SECONDS", 0.05)
    executor, made = of_client
    future = made.submit(print)
    with pytest.raises(TimeoutError):
        future.exception(0.3)
    executor.at_work = ()
    error = future.exception(5)
    assert isinstance(error, WorkerLostError) and error.tries == 0


def test_a_run_whose_workers_died_is_lost_and_tried_once_more(of_client: tuple[OfClient, Cluster]) -> None:
    executor, made = of_client
    killed = KilledWorker(
        "key",
        WorkerState(
            address="tcp://there:2",
            status=None,
            pid=1,
            name=1,
            nthreads=1,
            memory_limit=0,
            local_directory="",
            nanny="",
            server_id="",
        ),
        0,
    )

    def settle() -> None:
        until(lambda: len(executor.futures) == 1)
        executor.futures[0].set_exception(killed)
        until(lambda: len(executor.futures) == 2)
        executor.futures[1].set_exception(killed)

    settling = threading.Thread(target=settle)
    settling.start()
    (ended,) = Runner(made, print, made.workers).ended([1])
    settling.join()
    assert ended.error == "its worker ended in the middle of it, the last one at tcp://there:2; it was tried 2 times"


@pytest.mark.parametrize(
    ("settle", "told"),
    [
        (lambda future: future.cancel(), "the scheduler at tcp://there:1 was lost. Start"),
        (
            lambda future: future.set_exception(ModuleNotFoundError("No module named 'rnnctl'")),
            "No module named 'rnnctl'",
        ),
    ],
)
def test_what_no_run_can_survive_is_no_failure_of_a_run(
    of_client: tuple[OfClient, Cluster], settle: Callable[[Future[Any]], None], told: str
) -> None:
    executor, made = of_client
    future = made.submit(print)
    settle(executor.futures[0])
    assert told in str(future.exception(5))
    assert isinstance(future.exception(), BrokenExecutor) and not isinstance(future.exception(), WorkerLostError)


def test_a_stop_waits_for_what_was_handed_out_and_hands_out_no_more(of_client: tuple[OfClient, Cluster]) -> None:
    executor, made = of_client
    is_stopped: list[bool] = []
    ended = Runner(made, print, made.workers).ended(range(100), lambda: bool(is_stopped))

    def settle() -> None:
        until(lambda: len(executor.futures) == 6)
        is_stopped.append(True)
        for future in executor.futures:
            future.set_result("an answer")

    settling = threading.Thread(target=settle)
    settling.start()
    assert sorted(each.run for each in ended) == [0, 1, 2, 3, 4, 5]
    settling.join()


def test_what_is_not_done_when_a_sweep_ends_is_given_up_there(of_client: tuple[OfClient, Cluster]) -> None:
    executor, made = of_client
    made.submit(print)
    made.shutdown()
    assert executor.futures[0].cancelled()


def test_without_distributed_the_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    ran = run("sweep gradnorm --seeds 2 --to runs.jsonl --scheduler tcp://127.0.0.1:1")
    assert ran.code == 2
    assert f"--scheduler needs distributed. Install it: {sys.executable} -m pip install 'rnnctl[cluster]'" in ran.err


def test_where_no_scheduler_is_the_message_says_what_to_start(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.3)
    ran = run("sweep gradnorm --seeds 2 --to runs.jsonl --scheduler tcp://127.0.0.1:1")
    assert ran.code == 1
    assert "there is no scheduler at tcp://127.0.0.1:1 (" in ran.err
    assert "'dask scheduler --port 1'" in ran.err and "'dask worker tcp://127.0.0.1:1 --nthreads 1'" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        ("gone.json", "there is no file 'gone.json'"),
        ("odd.json", "or what 'dask scheduler --scheduler-file' wrote; got 'odd.json'"),
        ("carrier://pigeon:1", "'carrier://pigeon:1' is no address such as tcp://host:8786"),
    ],
)
def test_what_names_no_scheduler_is_refused(scheduler: str, told: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text('{"id": 1}')
    ran = run(f"sweep gradnorm --seeds 2 --to runs.jsonl --scheduler {scheduler}")
    assert (ran.code, told in ran.err) == (2, True), ran.err


def test_jobs_are_not_for_a_cluster(run: Run) -> None:
    ran = run("sweep gradnorm --seeds 2 --to runs.jsonl --scheduler tcp://127.0.0.1:1 --jobs 2")
    assert ran.code == 2
    assert "--jobs counts worker processes here" in ran.err


def test_a_cluster_without_workers_is_refused_with_the_line_that_starts_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "START_SECONDS", 0.1)
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as made:
        plan = plan_of("gradnorm", {}, {"seed": [0]})
        told = f"the scheduler at {made.scheduler_address} has no worker. Start .*'dask worker"
        with pytest.raises(rnnctl.RnnctlError, match=told), made_on(None, 1, plan, made.scheduler_address):
            pass


def test_several_threads_of_one_worker_give_the_answers_of_one(tmp_path: Path) -> None:
    found: dict[int, Any] = {}
    with (
        LocalCluster(n_workers=1, threads_per_worker=4, processes=False, dashboard_address=":0") as made,
        Client(made, set_as_default=False) as client,
    ):
        rnnctl.sweep(
            "gradnorm",
            {"seq-len": 8},
            {"seed": range(12)},
            executor=client.get_executor(),
            on_result=lambda record: found.update({record["varied"]["seed"]: record["scalars"]}),
        )
    here = {
        run.varied["seed"]: there.answer(run.asked)["scalars"]
        for run in plan_of("gradnorm", {"seq-len": 8}, {"seed": range(12)}).runs()
    }
    assert found == here
