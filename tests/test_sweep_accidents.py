"""What may happen to a sweep: killed at any moment, a full disk, places that cannot be written, too little memory."""

import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import sweep_work as work
from shell import forget_modules_of

import rnnctl
from rnnctl import InputError, RnnctlError
from rnnctl.cli.sweeping.carried_out import Carrying, Kept
from rnnctl.cli.sweeping.sweep import plan_of
from rnnctl.sweeps.run_file import RunFile, done_runs
from rnnctl.sweeps.runner import Runner
from rnnctl.sweeps.workers import WorkerPool

SMALL = {"hidden-size": 3, "seq-len": 5, "batch-size": 2, "input-size": 2, "output-size": 2}
NOBODY = 65534


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.jsonl"


@contextmanager
def parent(name, *arguments):
    """A process of its own that calls a function of ``sweep_work``, killed at the end of the block."""
    # Not as the main module, which workers do not have.
    line = [sys.executable, "-c", f"import sweep_work; sweep_work.{name}(*{arguments!r})"]
    process = subprocess.Popen(line, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(is_so):
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def size(path):
    return path.stat().st_size if path.exists() else 0


def counted(path):
    """How often each key is there."""
    return Counter(run.key for run in done_runs(path))


def is_running(process):
    """Whether it lives: nobody may be there to collect what an orphan leaves."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


class TestKills:
    def test_a_parent_killed_twenty_times_has_made_every_run_once_in_the_end(self, path):
        moments = random.Random(0)
        for _ in range(20):
            before = size(path)
            with parent("sweep_without_torch", str(path), 10**9):
                wait_until(lambda before=before: size(path) > before)
                time.sleep(moments.uniform(0, 0.02))
        assert len(counted(path)) >= 20
        count = 100 + max(run.varied["number"] for run in done_runs(path))
        work.sweep_without_torch(str(path), count)
        assert counted(path) == {f"key {number}": 1 for number in range(count)}
        # Whole lines alone, but for those that a kill tore: at most one each.
        notes = []
        runs = list(done_runs(path, notes=notes))
        assert len(runs) + len(notes) == len(path.read_bytes().splitlines())
        assert len(notes) <= 20
        assert all(run.scalars["square"] == run.varied["number"] ** 2 for run in runs)

    def test_another_process_is_refused_until_the_first_is_gone_however_it_went(self, path):
        with parent("sweep_without_torch", str(path), 10**9) as first:
            wait_until(lambda: size(path) > 0)
            with pytest.raises(InputError, match="being written by another sweep.*--shard I/N"):
                RunFile(path)
            first.kill()
            first.wait()
            RunFile(path).close()

    def test_the_death_of_the_parent_ends_a_busy_worker(self, path):
        with parent("wait_for_a_busy_worker", str(path)):
            wait_until(lambda: size(path) > 0)
            worker = int(path.read_text())
            assert is_running(worker)
        wait_until(lambda: not is_running(worker))

    @pytest.mark.slow
    def test_a_real_sweep_that_was_killed_goes_on_and_has_the_numbers_of_one_that_was_not(self, path, threads):
        vary = {"gain": [0.5, 1.0, 1.5, 2.0, 2.5], "seed": list(range(200)), "init": ["gaussian"]}
        with parent("sweep_of_gradnorm", str(path), SMALL, vary):
            wait_until(lambda: size(path) > 10_000)
        before = len(counted(path))
        assert 0 < before < 1000
        resumed = rnnctl.sweep("gradnorm", SMALL, vary, executor=threads, to=path)
        assert set(counted(path).values()) == {1}
        assert resumed.scalars["runs"] == 1000
        assert resumed.rows == rnnctl.sweep("gradnorm", SMALL, vary, executor=threads).rows

    def test_an_interrupt_keeps_what_has_ended_and_leaves_the_file_free(self, path, threads):
        heard = []

        def interrupt(line):
            heard.append(line)
            if len(heard) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            rnnctl.sweep("spectrum", SMALL, {"seed": range(5)}, executor=threads, to=path, on_result=interrupt)
        assert set(counted(path)) == {line["key"] for line in heard}
        assert rnnctl.sweep("spectrum", SMALL, {"seed": range(5)}, executor=threads, to=path).scalars["runs"] == 5
        assert sorted(counted(path).values()) == [1] * 5


@contextmanager
def no_file_above(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestPlaces:
    @pytest.mark.parametrize("share", [0.2, 1.0, 2.5])
    def test_a_disk_that_fills_up_keeps_whole_lines_and_the_same_sweep_goes_on(self, share, path, threads, tmp_path):
        asked = {"question": "spectrum", "settings": SMALL, "vary": {"seed": range(6)}, "executor": threads}
        whole = rnnctl.sweep(**asked, to=tmp_path / "whole.jsonl")
        line = len((tmp_path / "whole.jsonl").read_bytes().splitlines()[0]) + 1
        # Twice, because whoever is told of it may try again before anything is freed.
        for _ in range(2):
            with no_file_above(int(share * line)), pytest.raises(RnnctlError, match="cannot write .*File too large"):
                rnnctl.sweep(**asked, to=path)
        kept = len(counted(path))
        assert kept == int(share)
        heard = []
        assert rnnctl.sweep(**asked, to=path, on_result=heard.append).rows == whole.rows
        assert len(heard) == 6 - kept
        assert sorted(counted(path).values()) == [1] * 6

    def test_a_device_without_room_is_told(self, threads):
        with pytest.raises(RnnctlError, match="cannot write '/dev/full': No space left on device"):
            rnnctl.sweep("spectrum", SMALL, {"seed": [0]}, executor=threads, to="/dev/full")

    def test_a_file_and_a_folder_that_may_not_be_written_are_refused(self):
        with tempfile.TemporaryDirectory() as name:
            folder, file = Path(name, "closed"), Path(name, "file.jsonl")
            folder.mkdir(mode=0o555)
            file.touch(mode=0o444)
            os.chmod(name, 0o755)
            with unprivileged():
                for place in (folder / "runs.jsonl", file):
                    with pytest.raises(InputError, match=f"cannot write '{place}': Permission denied"):
                        RunFile(place)

    def test_a_folder_a_missing_folder_and_a_file_as_a_folder_are_refused_before_a_run(self, tmp_path, path, threads):
        path.write_text("")
        heard = []
        for place, why in (
            (tmp_path, "is a folder; name a file in it"),
            (tmp_path / "missing" / "runs.jsonl", "there is no folder"),
            (path / "runs.jsonl", "Not a directory"),
        ):
            with pytest.raises(InputError, match=why):
                rnnctl.sweep("spectrum", SMALL, {"seed": [0]}, executor=threads, to=place, on_result=heard.append)
        assert heard == []

    def test_a_file_that_is_deleted_meanwhile_is_told(self, path, threads):
        with pytest.raises(RnnctlError, match="the file was deleted, with all that stood in it"):
            rnnctl.sweep(
                "spectrum", SMALL, {"seed": range(4)}, executor=threads, to=path, on_result=lambda _: path.unlink()
            )

    def test_what_another_sweep_wrote_since_it_was_read_is_not_made_twice(self, path, threads):
        carrying = Carrying(plan_of("spectrum", SMALL, {"seed": [0, 1]}), Kept(path, "spectral_radius"))
        rnnctl.sweep("spectrum", SMALL, {"seed": [0, 1]}, executor=threads, to=path)
        before = path.read_bytes()
        with pytest.raises(InputError, match="was written meanwhile by another sweep. Start this one again"):
            carrying.carry_out(lambda runs: iter(()))
        assert path.read_bytes() == before


@contextmanager
def unprivileged():
    """Permissions are nothing to root."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


class TestMemory:
    def test_a_run_that_outgrows_its_limit_fails_alone(self):
        with WorkerPool(1, work.load) as pool:
            (lost,) = Runner(pool, work.outgrow, 1).ended([0])
            assert (lost.answer, lost.error.partition(":")[0]) == (None, "MemoryError")
            assert pool.submit(work.square, 3).result() == 9

    @pytest.mark.slow
    def test_a_model_that_takes_its_worker_with_it_is_a_failed_run_and_the_others_are_made(
        self, path, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        (tmp_path / "outgrowing.py").write_text(
            "import os\n\nfrom torch import nn\n\n\n"
            "def net(hidden=3):\n"
            f"    if hidden == 5:\n        os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
            "    return nn.RNN(10, hidden, batch_first=True)\n"
        )
        try:
            vary = {"model-arg.hidden": [3, 4, 5, 6]}
            found = rnnctl.sweep("gradnorm", {"model": "outgrowing:net"}, vary, to=path, jobs=2)
        finally:
            forget_modules_of(tmp_path)
        assert [row["failed"] for row in found.rows] == [0, 0, 1, 0]
        assert found.failures[0]["error"].endswith("(SIGKILL, as where memory runs out); it was tried 2 times")
        assert len(counted(path)) == 4
