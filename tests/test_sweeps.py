"""Sweeps: keys, runs spread over workers of which some are lost, and answers that are the single command's."""

import json
import sys
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import sweep_work as work
import torch
from shell import document, forget_modules_of, runner

import rnnctl
from rnnctl import InputError, RnnctlError
from rnnctl.cli import versions
from rnnctl.cli.options.mapping import options_from
from rnnctl.cli.options.output import OutputOptions, PlotOptions, ReportOptions
from rnnctl.cli.questions import QUESTIONS
from rnnctl.cli.sweeping.carried_out import Carrying, Kept
from rnnctl.cli.sweeping.past import past_sweep
from rnnctl.cli.sweeping.plan import Plan
from rnnctl.cli.sweeping.sweep import plan_of
from rnnctl.sweeps.grid import grid_of
from rnnctl.sweeps.runner import IN_FLIGHT, Runner
from rnnctl.sweeps.workers import WorkerPool

SMALL = {"hidden-size": 3, "seq-len": 5, "batch-size": 2, "input-size": 2, "output-size": 2}


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# Where a result goes, how it is shown, and what computes it.
OF_NO_ANSWER = {field.name for kind in (OutputOptions, PlotOptions, ReportOptions) for field in fields(kind)} | {
    "threads",
    "save_weights",
    "from_run",
}


def other(value):
    """Any other value of its kind."""
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, (int, float)) else "other:one"


def key_of(question="gradnorm", settings=SMALL, vary=None, **more):
    return plan_of(question, settings, vary or {"seed": [0]}, **more).run_at(0).key


class TestKeys:
    @pytest.mark.parametrize("question", QUESTIONS)
    def test_every_option_changes_the_key_but_those_that_change_no_answer(self, question):
        base, grid = QUESTIONS[question].options, grid_of({"seed": [0]})
        plain = options_from(base, {})
        own = Plan(question, plain, grid).run_at(0).key
        unchanged = set()
        for group in vars(plain).values():
            for name, value in vars(group).items():
                changed = plain.having(replace(group, **{name: other(value)}))
                if Plan(question, changed, grid).run_at(0).key == own:
                    unchanged.add(name)
        # The seed is that of the grid.
        assert unchanged == (OF_NO_ANSWER & {name for group in vars(plain).values() for name in vars(group)}) | {"seed"}

    def test_every_point_and_every_question_has_a_key_of_its_own(self):
        vary = {"seed": [0, 1], "gain": "0.5:2:4", "init": "gaussian,orthogonal"}
        keys = [run.key for question in QUESTIONS for run in plan_of(question, {}, vary).runs()]
        assert len(set(keys)) == len(keys) == 5 * 16

    def test_a_number_is_one_key_however_it_is_written(self):
        settings = {"init": "gaussian"}
        keys = {key_of(settings=settings, vary={"gain": values}) for values in ([1], [1.0], "1", "1.0,2", "1:2:3")}
        assert len(keys | {key_of(settings={**settings, "gain": 1}), key_of(settings={**settings, "gain": 1.0})}) == 1
        assert key_of(vary={"hidden-size": "8"}) == key_of(vary={"hidden_size": [8]})

    def test_neither_shards_nor_kept_rows_nor_the_way_to_say_a_grid_change_keys(self):
        settings = {"hidden-size": 4, "seq-len": 6}
        vary = {"seed": range(3), "gain": [0.5, 1]}
        own = {run.key for run in plan_of("gradnorm", settings, vary, keep_rows=True).runs()}
        parts = [plan_of("gradnorm", {**settings, "threads": 2}, vary, shard=(i, 4)) for i in range(1, 5)]
        assert {run.key for part in parts for run in part.runs()} == own
        assert {
            key_of(settings={**settings, "seed": seed}, vary={"gain": [gain]}) for seed in range(3) for gain in (0.5, 1)
        } == own

    @pytest.mark.parametrize("name", ["input", "target", "weights", "lengths"])
    def test_of_a_file_the_content_counts_and_not_the_place(self, name, tmp_path):
        one, same, another = (tmp_path / f"{i}.csv" for i in "abc")
        one.write_text("1,2\n3,4\n")
        same.write_text("1,2\n3,4\n")
        another.write_text("1,2\n3,5\n")
        first, second, third = (key_of(settings={name: str(file)}) for file in (one, same, another))
        assert first == second != third

    @pytest.mark.parametrize("place", ["code_of_sweep:Net", "folder_of_sweep.inner:Net"])
    def test_the_content_of_the_file_of_a_model_counts(self, place, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        name = place.partition(":")[0]
        file = tmp_path / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(exist_ok=True)
        if file.parent != tmp_path:
            (file.parent / "__init__.py").touch()
        file.write_text("Net = 1")
        before = key_of(settings={"model": place})
        assert key_of(settings={"model": place}) == before
        file.write_text("Net = 2")
        assert key_of(settings={"model": place}) != before

    def test_keys_are_the_same_in_every_process(self, path):
        asked = ("lyapunov", {"hidden-size": 4, "init": "gaussian"}, {"seed": [0, 1], "gain": [0.5, 2]})
        with WorkerPool(1, work.load) as pool:
            there = pool.submit(work.key_of, *asked)
            assert there.result() == work.key_of(*asked)


class ByHand(Executor):
    """An executor whose runs end when they are told to."""

    def __init__(self):
        self.waiting = []

    def submit(self, fn, /, *arguments):
        future = Future()
        self.waiting.append((future, fn, arguments))
        return future

    def let_end(self, place=0):
        future, fn, arguments = self.waiting.pop(place)
        future.set_running_or_notify_cancel()
        future.set_result(fn(*arguments))


class TestRunner:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_runs_are_drawn_as_there_is_room_and_never_all_at_once(self, workers):
        executor, drawn = ByHand(), []
        runs = (drawn.append(i) or i for i in range(10**9))
        ended = Runner(executor, work.square, workers).ended(runs)
        with ThreadPoolExecutor(1) as aside:
            for done in range(50):
                first = aside.submit(next, ended)
                while not executor.waiting:
                    time.sleep(0.001)
                executor.let_end()
                assert first.result().answer == done**2
                assert len(drawn) <= done + 1 + IN_FLIGHT * workers

    def test_a_run_that_raises_fails_alone_and_says_what_was_raised(self, threads):
        ended = list(Runner(threads, work.fail, 1).ended([1, 2]))
        assert [(each.run, each.answer, each.error) for each in ended] == [
            (1, None, "ValueError: no 1"),
            (2, None, "ValueError: no 2"),
        ]

    def test_once_stopped_nothing_more_is_handed_out_and_what_runs_ends(self):
        executor, is_stopped = ByHand(), []
        ended = Runner(executor, work.square, 1).ended(range(100), lambda: bool(is_stopped))
        with ThreadPoolExecutor(1) as aside:
            first = aside.submit(next, ended)
            while len(executor.waiting) < IN_FLIGHT:
                time.sleep(0.001)
            # One of them runs already, and cannot be cancelled.
            executor.waiting[0][0].set_running_or_notify_cancel()
            executor.let_end = lambda: executor.waiting[0][0].set_result(0)
            is_stopped.append(True)
            executor.let_end()
            assert first.result().answer == 0
        assert list(ended) == []
        assert len(executor.waiting) == IN_FLIGHT

    def test_what_has_ended_is_told_before_an_executor_that_is_broken(self):
        class Breaking(ByHand):
            def submit(self, fn, /, *arguments):
                future = super().submit(fn, *arguments)
                if len(self.waiting) == 2:
                    self.waiting[0][0].set_exception(BrokenExecutor("gone"))
                    future.set_result("whole")
                return future

        ended, found = Runner(Breaking(), work.square, 1).ended(range(9)), []
        with pytest.raises(BrokenExecutor, match="gone"):  # noqa: PT012
            for each in ended:
                found.append(each.answer)
        assert found == ["whole"]


class TestWorkers:
    def test_a_worker_that_dies_costs_its_run_alone_which_is_tried_once_more(self):
        with WorkerPool(2, work.load) as pool:
            ended = {each.run: each for each in Runner(pool, work.die_at_three, 2).ended(range(8))}
        assert {number: each.answer for number, each in ended.items() if each.error is None} == {
            number: number for number in range(8) if number != 3
        }
        assert ended[3].error == (
            "the worker process ended in the middle of it (SIGKILL, as where memory runs out); it was tried 2 times"
        )

    def test_a_run_that_is_lost_once_and_then_made_is_no_failure(self, path):
        with WorkerPool(1, work.load) as pool:
            (ended,) = Runner(pool, work.die_once, 1).ended([str(path)])
        assert (ended.answer, ended.error) == ("lived", None)

    def test_what_cannot_be_sent_fails_alone_and_the_worker_goes_on(self):
        with WorkerPool(1, work.load) as pool:
            first = pool.submit(work.process, 0).result()
            with pytest.raises(Exception, match="pickle"):
                pool.submit(lambda: 0).result()
            with pytest.raises(RuntimeError, match="what a run returned cannot be sent: cannot pickle"):
                pool.submit(work.unsendable, 0).result()
            with pytest.raises(ValueError, match="no 4"):
                pool.submit(work.fail, 4).result()
            assert pool.submit(work.process, 0).result() == first

    def test_code_that_ends_its_process_is_told_with_the_exit_code(self):
        with WorkerPool(1, work.load) as pool, pytest.raises(BrokenExecutor, match="exit code 3"):
            pool.submit(work.leave, 0).result()

    def test_where_no_worker_starts_the_reason_is_told_and_nothing_waits(self):
        with WorkerPool(2, work.load_badly) as pool:
            with pytest.raises(BrokenExecutor, match="does not start: RuntimeError: no such library"):
                pool.submit(work.square, 2).result()
            with pytest.raises(BrokenExecutor, match="no such library"):
                list(Runner(pool, work.square, 2).ended(range(9)))

    def test_workers_that_do_not_start_leave_the_others_at_work(self, path):
        with WorkerPool(3, partial(work.load_once, str(path))) as pool:
            ended = list(Runner(pool, work.square_slowly, 3).ended(range(10)))
        assert sorted(each.answer for each in ended) == [number**2 for number in range(10)]

    def test_a_pool_that_nobody_waits_for_ends_busy_workers_and_cancels_the_rest(self, path):
        pool = WorkerPool(1, work.load)
        busy, next_one = pool.submit(work.busy, str(path)), pool.submit(work.square, 2)
        while not path.exists():
            time.sleep(0.005)
        pool.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(BrokenExecutor, match="SIGKILL"):
            busy.result(timeout=20)
        assert next_one.cancelled()


def keyed(path):
    """Key -> line, of a file in which every key is there once."""
    found = {line["key"]: line for line in lines(path)}
    assert len(found) == len(lines(path))
    return found


def without_time(line):
    return {name: value for name, value in line.items() if name not in ("seconds", "run")}


def flag(name, value):
    """As it is typed."""
    return f"--{'' if value else 'no-'}{name}" if isinstance(value, bool) else f"--{name} {value}"


class TestSweep:
    @pytest.mark.parametrize(
        ("question", "settings"),
        [
            ("gradnorm", SMALL),
            # Beyond the largest number, which JSON has no word for.
            ("gradnorm", {"init": "gaussian", "gain": 40.0, "nonlinearity": "relu", "seq-len": 60, "loss": "sum"}),
            ("flow", {"cell": "gru", "hidden-size": 3}),
            ("truncation", {"hidden-size": 3, "windows": "1,3"}),
            ("spectrum", {"init": "orthogonal", "hidden-size": 6}),
            ("lyapunov", {"autonomous": True, "bias": False, "init": "gaussian", "steps": 30, "hidden-size": 4}),
        ],
        ids=["gradnorm", "overflowing", "flow", "truncation", "spectrum", "lyapunov"],
    )
    def test_a_line_is_the_json_of_the_single_command(
        self, question, settings, threads, path, tmp_path, capsys, monkeypatch
    ):
        more = " ".join(flag(*each) for each in settings.items())
        rnnctl.sweep(question, settings, {"seed": [0, 3]}, executor=threads, to=path, keep_rows=True)
        run = runner(capsys, monkeypatch, tmp_path)
        found = {line["varied"]["seed"]: line for line in lines(path)}
        assert sorted(found) == [0, 3]
        for seed, line in found.items():
            single = document(run(f"{question} {more} --seed {seed} --threads 1 --json --all"))
            assert line["scalars"] == single["scalars"]
            assert line["rows"] == single["rows"]
            assert {**line["config"], "command": question} == {**single["config"], "command": question}
            assert line["versions"] == single["versions"]

    def test_order_and_number_of_workers_change_nothing(self, tmp_path):
        vary, files = {"gain": [0.5, 1.5], "seed": range(3), "init": "gaussian,orthogonal"}, []
        for count in (1, 3):
            files.append(tmp_path / f"{count}.jsonl")
            turned = dict(reversed(vary.items())) if count > 1 else vary
            with ThreadPoolExecutor(count) as executor:
                rnnctl.sweep("gradnorm", SMALL, turned, executor=executor, to=files[-1])
        one, other = map(keyed, files)
        assert one.keys() == other.keys()
        for key, line in one.items():
            assert without_time(line) == {**without_time(other[key]), "varied": line["varied"]}
            assert line["varied"] == other[key]["varied"]

    def test_a_sweep_goes_on_where_it_ended_and_makes_nothing_twice(self, threads, path):
        heard = []
        half = rnnctl.sweep("gradnorm", SMALL, {"seed": [0, 1]}, executor=threads, to=path, on_result=heard.append)
        before = path.read_bytes()
        whole = rnnctl.sweep("gradnorm", SMALL, {"seed": [0, 1, 2]}, executor=threads, to=path, on_result=heard.append)
        assert [line["varied"]["seed"] for line in heard] == [line["varied"]["seed"] for line in lines(path)]
        assert sorted(line["varied"]["seed"] for line in heard) == [0, 1, 2]
        assert path.read_bytes().startswith(before)
        again = rnnctl.sweep("gradnorm", SMALL, {"seed": [0, 1, 2]}, to=path, on_result=heard.append)
        assert len(heard) == 3
        assert (half.scalars["runs"], whole.scalars["runs"]) == (2, 3)
        assert again.rows == whole.rows

    def test_failed_runs_are_lines_and_are_made_again_when_asked(self, threads, path, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
        code = tmp_path / "sometimes.py"
        code.write_text(
            "from pathlib import Path\nfrom torch import nn\n\n\n"
            "def net(hidden=3):\n"
            "    if hidden == 5 and not Path('mended').exists():\n        raise ValueError('no five')\n"
            "    return nn.RNN(10, hidden, batch_first=True)\n"
        )
        settings, vary = {"model": "sometimes:net"}, {"model-arg.hidden": [4, 5]}
        asked = {"question": "gradnorm", "settings": settings, "vary": vary, "executor": threads, "to": path}
        try:
            failed = rnnctl.sweep(**asked)
            assert [(row["runs"], row["failed"]) for row in failed.rows] == [(1, 0), (1, 1)]
            assert "no five" in failed.failures[0]["error"]
            bad = next(line for line in lines(path) if "error" in line)
            assert (bad["config"]["model"], bad["config"]["model_arg"]) == ("sometimes:net", ["hidden=5"])
            assert "scalars" not in bad
            (tmp_path / "mended").touch()
            assert rnnctl.sweep(**asked).scalars["failed"] == 1
            mended = rnnctl.sweep(**asked, retry_failed=True)
        finally:
            forget_modules_of(tmp_path)
        assert [(row["runs"], row["failed"]) for row in mended.rows] == [(1, 0), (1, 0)]
        assert len(lines(path)) == 3
        assert past_sweep(path, None, (), []).rows == mended.rows

    def test_a_run_that_flags_alone_refuse_is_a_failed_line_and_all_of_them_an_error(self, threads, path):
        vary = {"nonlinearity": ["tanh", "linear"]}
        found = rnnctl.sweep("gradnorm", {"cell": "rnn", "hidden-size": 3}, vary, executor=threads, to=path)
        assert [row["failed"] for row in found.rows] == [0, 1]
        assert "--nonlinearity linear is for the hand-written network" in found.failures[0]["error"]
        assert lines(path)[0]["config"]["nonlinearity"] == "linear"
        with pytest.raises(InputError, match="--nonlinearity linear is for the hand-written"):
            rnnctl.sweep("gradnorm", {"cell": "rnn", "nonlinearity": "linear"}, {"seed": [0]}, executor=threads)
        with pytest.raises(InputError, match="--input - is read once"):
            rnnctl.sweep("gradnorm", {"input": "-", "input-format": "csv"}, {"seed": [0]}, executor=threads)

    def test_runs_of_other_versions_are_taken_and_told_and_made_again_when_asked(self, threads, path):
        rnnctl.sweep("gradnorm", SMALL, {"seed": [0, 1]}, executor=threads, to=path)
        path.write_text(path.read_text().replace(f'"torch": "{versions.torch_version()}"', '"torch": "1.0"', 1))
        plan = plan_of("gradnorm", SMALL, {"seed": [0, 1]})
        taken, again = (Carrying(plan, Kept(path, "factor_per_step", same_versions=same)) for same in (False, True))
        assert (taken.state.skipped, again.state.skipped) == (2, 1)
        assert "1 of the runs in" in taken.state.notes[0]
        assert again.state.notes == []
        rnnctl.sweep("gradnorm", SMALL, {"seed": [0, 1]}, executor=threads, to=path, same_versions=True)
        assert [line["varied"]["seed"] for line in lines(path)].count(lines(path)[0]["varied"]["seed"]) == 2

    def test_rows_that_were_not_kept_are_made_where_they_are_asked_for(self, threads, path):
        asked = {"question": "gradnorm", "settings": SMALL, "vary": {"seed": [0]}, "executor": threads, "to": path}
        rnnctl.sweep(**asked)
        rnnctl.sweep(**asked, keep_rows=True)
        rnnctl.sweep(**asked, keep_rows=True)
        assert [len(line.get("rows", ())) for line in lines(path)] == [0, 5]

    def test_shards_joined_by_cat_are_the_file_of_the_whole(self, threads, path, tmp_path):
        vary, parts = {"gain": [0.5, 1.0, 1.5], "seed": [0, 1]}, []
        for number in (1, 2, 3):
            parts.append(tmp_path / f"{number}.jsonl")
            rnnctl.sweep("spectrum", SMALL, vary, executor=threads, to=parts[-1], shard=(number, 3))
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        whole = rnnctl.sweep("spectrum", SMALL, vary, executor=threads)
        heard = []
        assert rnnctl.sweep("spectrum", SMALL, vary, to=path, on_result=heard.append).rows == whole.rows
        assert heard == []
        assert past_sweep(path, None, (), []).rows == whole.rows

    def test_of_two_sweeps_in_a_file_what_was_fixed_becomes_an_axis(self, threads, path):
        for hidden in (4, 3):
            settings = {**SMALL, "hidden-size": hidden}
            rnnctl.sweep("gradnorm", settings, {"gain": [1.5, 0.5], "seed": [0, 1]}, executor=threads, to=path)
        found = past_sweep(path, None, (), [])
        assert found.axes == ("gain", "hidden_size")
        assert [(row["gain"], row["hidden_size"], row["runs"]) for row in found.rows] == [
            (0.5, 3, 2),
            (0.5, 4, 2),
            (1.5, 3, 2),
            (1.5, 4, 2),
        ]

    def test_another_question_and_a_file_of_something_else_are_refused_before_a_run(self, threads, path):
        rnnctl.sweep("spectrum", SMALL, {"seed": [0]}, executor=threads, to=path)
        heard = []
        with pytest.raises(InputError, match="line 1 is a run of spectrum, not of gradnorm"):
            rnnctl.sweep("gradnorm", SMALL, {"seed": [0]}, executor=threads, to=path, on_result=heard.append)
        path.write_text("my notes")
        with pytest.raises(InputError, match="Is this a file that rnnctl sweep wrote"):
            rnnctl.sweep("gradnorm", SMALL, {"seed": [0]}, executor=threads, to=path, on_result=heard.append)
        assert (heard, path.read_text()) == ([], "my notes")

    def test_an_executor_that_can_make_no_run_is_told_in_a_sentence(self, path):
        class Gone(ByHand):
            def submit(self, fn, /, *arguments):
                raise BrokenExecutor("gone")

        with pytest.raises(RnnctlError, match="no run can be made any more: gone"):
            rnnctl.sweep("gradnorm", SMALL, {"seed": [0]}, executor=Gone(), to=path)

    @pytest.mark.slow
    def test_processes_of_ours_and_of_pythons_give_the_numbers_of_threads(self, tmp_path, threads):
        vary, files = {"gain": [0.5, 1.5], "seed": [0, 1]}, [tmp_path / f"{i}.jsonl" for i in range(3)]
        rnnctl.sweep("gradnorm", SMALL, vary, executor=threads, to=files[0])
        rnnctl.sweep("gradnorm", SMALL, vary, jobs=2, to=files[1])
        with ProcessPoolExecutor(2, get_context("spawn")) as executor:
            rnnctl.sweep("gradnorm", SMALL, vary, executor=executor, to=files[2])
        one, *others = map(keyed, files)
        for found in others:
            assert {key: without_time(line) for key, line in found.items()} == {
                key: without_time(line) for key, line in one.items()
            }


def test_the_version_of_torch_is_its_own_word_before_it_is_loaded(monkeypatch):
    loaded = {name: module for name, module in sys.modules.items() if name != "torch"}
    monkeypatch.setattr(versions.sys, "modules", loaded)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0")
    assert versions.torch_version() == torch.__version__
    monkeypatch.setattr(versions, "_folder", lambda _: str(Path("missing")))
    assert versions.torch_version() == "0"
