"""What ``rnnctl bench --sweep`` measures, at small sizes; no test asserts a time."""

import os
from functools import partial
from types import SimpleNamespace

import pytest
from shell import document, runner

from rnnctl.benchmark import idle, sweep
from rnnctl.cli.commands.bench import _carried
from rnnctl.errors import RnnctlError
from rnnctl.sweeps.run_file import done_runs
from rnnctl.sweeps.runner import Ended


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    return runner(capsys, monkeypatch, tmp_path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.jsonl"


def test_runs_are_planned_once_and_those_in_the_file_are_not_made_again(path):
    drawn = []

    def making(runs):
        for run in runs:
            drawn.append(run.key)
            yield Ended(run, idle.ANSWER, None)

    _carried(40, path, making)
    _carried(40, path, making)
    assert len(set(drawn)) == len(drawn) == 40
    assert [run.key for run in done_runs(path)] == drawn


def test_workers_are_up_before_the_clock_runs():
    with sweep._workers() as pool:
        found = {each.result() for each in [pool.submit(idle.who) for _ in range(sweep.WORKERS)]}
    assert len(found) == sweep.WORKERS
    assert os.getpid() not in found


def test_the_share_is_of_the_rate_that_idle_workers_would_have(path, monkeypatch):
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(sweep, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    (row,) = sweep._of_50_milliseconds(_carried, path, 20)
    # 20 runs of 0.05 s on 2 workers: 0.5 s at best.
    assert (row["value"], row["at_least"], row["at_most"]) == (0.25, 0.9, None)
    assert len(list(done_runs(path))) == 20


def test_overhead_is_by_the_run_and_growth_is_the_largest_seen(path, monkeypatch):
    sizes = iter([100 * 2**20, 130 * 2**20, 110 * 2**20])
    monkeypatch.setattr(sweep, "_timed", lambda run: run() or 0.04)
    monkeypatch.setattr(sweep, "resident_bytes", lambda: next(sizes))
    overhead, growth = sweep._of_nothing(_carried, path, 20)
    assert (overhead["value"], overhead["at_most"]) == (2.0, 3)
    assert (growth["value"], growth["at_most"]) == (30.0, 50)
    monkeypatch.setattr(sweep, "resident_bytes", lambda: None)
    assert len(sweep._of_nothing(_carried, path.with_suffix(".2"), 20)) == 1


def test_memory_in_use_grows_with_what_is_kept():
    before = sweep.resident_bytes()
    kept = b"x" * 2**26
    assert sweep.resident_bytes() - before > 2**25
    assert len(kept) == 2**26


def test_the_loop_is_counted_as_all_of_its_runs(path, monkeypatch):
    commands, seconds = [], iter([3.0, 6.0])
    monkeypatch.setattr(sweep, "_command", lambda *line: commands.append(line))
    monkeypatch.setattr(sweep, "_timed", lambda run: run() or next(seconds))
    (row,) = sweep._beside_a_loop(_carried, path)
    assert row["value"] == 60 * (3.0 / sweep.LOOPED) / 6.0
    assert [line[0] for line in commands] == [*["gradnorm"] * sweep.LOOPED, "sweep"]
    assert commands[-1][-6:] == ("--seeds", "60", "--to", str(path), "--jobs", "2")


def test_a_command_that_fails_is_told():
    with pytest.raises(
        RnnctlError, match="rnnctl gradnorm --nothing ended with exit code 2: .*No such option: --nothing"
    ):
        sweep._command("gradnorm", "--nothing")


def test_a_large_grid_is_only_resumed_while_the_clock_runs(path, monkeypatch):
    before = []
    monkeypatch.setattr(sweep, "_timed", lambda run: before.append(path.read_bytes()) or run() or 1.0)
    (row,) = sweep._of_a_large_grid(_carried, path, 40)
    assert path.read_bytes() == before[0]
    assert before[0].count(b"\n") == 40
    assert (row["value"], row["at_most"]) == (1.0, 20)


def test_the_command_shows_every_figure_and_whether_targets_are_met(run, monkeypatch):
    small = partial(sweep._of_a_large_grid, count=20)
    small.__name__ = "small"
    missed = [{"case": "c", "figure": "f", "value": 0.5, "at_least": 0.9, "at_most": None}]

    def never(_, path):
        return missed

    monkeypatch.setattr(sweep, "MEASURED", (small,))
    assert document(run("bench --sweep --json -q"))["scalars"]["targets_met"] is True
    monkeypatch.setattr(sweep, "MEASURED", (small, never))
    ran = run("bench --sweep --save saved.json -q")
    assert "20 runs, all done" in ran.out
    assert any(line.split()[:2] == ["targets_met", "no"] for line in ran.out.splitlines())
    found = document(run("bench --sweep --json -q"))
    assert found["scalars"]["targets_met"] is False
    assert [row["value"] for row in found["rows"]][1:] == [0.5]


@pytest.mark.parametrize("more", ["--hidden-size 3", "--flow", "--against before.json", "--repeats 2", "--seed 1"])
def test_what_says_nothing_to_sweeps_is_refused(run, more):
    ran = run(f"bench --sweep {more}")
    assert ran.code == 2
    assert f"{more.split()[0]} says nothing to --sweep, which has runs of its own. Leave it out" in ran.err
