"""What sweeps are made of: the grid, what a grid of runs says, and the file that keeps them."""

import itertools
import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from rnnctl import InputError
from rnnctl.sweeps.grid import Axis, Grid, grid_of, values_in
from rnnctl.sweeps.outcomes import Outcomes
from rnnctl.sweeps.result import quantile
from rnnctl.sweeps.run_file import RunFile, done_runs


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestGrid:
    @pytest.mark.parametrize(
        ("text", "values"),
        [
            ("0.6:2.4:10", [0.6, 0.8, 1, 1.2, 1.4, 1.6, 1.8, 2, 2.2, 2.4]),
            ("2:-1:4", [2, 1, 0, -1]),
            ("1e-3:1:4:log", [0.001, 0.01, 0.1, 1]),
            ("1000:1:4 log", [1000, 100, 10, 1]),
            ("0.1:0.3:3", [0.1, 0.2, 0.3]),
            ("-0.3:0.3:7", [-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3]),
            ("0:3e-30:4", [0, 1e-30, 2e-30, 3e-30]),
            ("0:6e20:4", [0, 2e20, 4e20, 6e20]),
        ],
    )
    def test_a_range_has_both_ends_and_the_decimals_that_were_meant(self, text, values):
        assert values_in(text) == values

    @pytest.mark.parametrize(
        ("text", "values"),
        [
            ("64:256:3", [64, 160, 256]),
            ("1:3:9", [1, 2, 3]),
            ("1:100:4:log", [1, 5, 22, 100]),
            ("1:64:7log", [1, 2, 4, 8, 16, 32, 64]),
        ],
    )
    def test_of_a_range_of_whole_numbers_each_comes_once(self, text, values):
        found = values_in(text, whole=True)
        assert found == values
        assert all(type(value) is int for value in found)

    @pytest.mark.parametrize(
        ("text", "values"),
        [
            ("a, b,c", ["a", "b", "c"]),
            ('"a,b",c', ["a,b", "c"]),
            ("models.mine:Net,theirs:Net", ["models.mine:Net", "theirs:Net"]),
            ("models:build:3", ["models:build:3"]),
        ],
    )
    def test_a_list_is_its_texts(self, text, values):
        assert values_in(text) == values

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("1:2:1", "from 2 to 1,000,000 values; got 1"),
            ("1:2:9999999999", "got 9,999,999,999"),
            ("0:1:5:log", "lies above 0"),
            ("1:inf:5", "finite"),
            ("1:2:5:lgo", "there may be log; got 'lgo'"),
        ],
    )
    def test_a_range_that_there_is_not_is_refused(self, text, why):
        with pytest.raises(InputError, match=why):
            values_in(text)

    @given(some.lists(some.integers(1, 4), min_size=1, max_size=4))
    def test_a_grid_is_the_product_and_the_last_axis_is_the_fastest(self, counts):
        names = "abcd"[: len(counts)]
        grid = grid_of({name: range(count) for name, count in zip(names, counts, strict=True)})
        expected = [dict(zip(names, point, strict=True)) for point in itertools.product(*map(range, counts))]
        assert list(grid) == expected
        assert [grid[i] for i in range(len(grid))] == expected

    @given(some.lists(some.integers(1, 5), min_size=1, max_size=3), some.integers(1, 9))
    def test_shards_hold_every_point_of_the_grid_once(self, counts, of):
        varied = {f"n{i}": range(count) for i, count in enumerate(counts)}
        parts = [grid_of(varied, shard=(number, of)) for number in range(1, of + 1)]
        found = [tuple(point.values()) for part in parts for point in part]
        assert sorted(found) == list(itertools.product(*map(range, counts)))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1

    def test_what_goes_together_is_in_step_and_seeds_are_apart(self):
        grid = grid_of({"a": [1, 2], "seed": [0, 1], "b": "xy"}, together=True)
        assert [(point["a"], point["b"], point["seed"]) for point in grid] == [
            (1, "x", 0),
            (1, "x", 1),
            (2, "y", 0),
            (2, "y", 1),
        ]
        with pytest.raises(InputError, match="as many values of each; a has 2, b has 3"):
            grid_of({"a": [1, 2], "b": [1, 2, 3]}, together=True)

    @pytest.mark.parametrize(("values", "why"), [([], "no value"), ([1, 2, 1], "over 1 twice")])
    def test_no_value_and_one_twice_are_refused(self, values, why):
        with pytest.raises(InputError, match=why):
            grid_of({"a": values})

    def test_a_point_of_a_grid_of_billions_is_made_without_the_others(self):
        axis = tuple((i,) for i in range(2000))
        grid = Grid((Axis(("a",), axis), Axis(("b",), axis), Axis(("c",), axis)), (2, 3))
        assert len(grid) == (2000**3 - 2) // 3 + 1
        assert next(iter(grid)) == {"a": 0, "b": 0, "c": 1}
        # (2 - 1) + 3 x 10^9 = 750 x 2000^2 + 0 x 2000 + 1
        assert grid[10**9] == {"a": 750, "b": 0, "c": 1}


class TestWhatRunsSay:
    @given(some.lists(some.floats(-1e6, 1e6), min_size=1, max_size=20), some.floats(0, 1))
    def test_quantiles_are_those_of_numpy(self, values, share):
        assert quantile(values, share) == pytest.approx(np.quantile(values, share), rel=1e-9, abs=1e-9)

    def test_quantiles_beside_infinite_values_are_numbers(self):
        assert quantile([float("inf"), 1.0, float("inf")], 0.9) == float("inf")
        assert quantile([float("-inf"), 1.0, 2.0], 0.5) == 1.0

    @staticmethod
    def runs():
        """Place, varied, scalars, error: of two grid points."""
        value = {0: 3.0, 1: 1.0, 2: None, 3: 2.0, 4: 7.0, 5: None}
        for place in range(6):
            point, seed = divmod(place, 3)
            error = "it broke" if place == 5 else None
            scalars = (
                {} if error else {"factor_per_step": value[place], "theory_factor_per_step": 10.0 + seed, "t": "x"}
            )
            yield place, {"gain": 0.5 + point, "seed": seed}, scalars, error

    def swept(self, order, **more):
        found = Outcomes("gradnorm", "factor_per_step", **more)
        for place, varied, scalars, error in order:
            found.add(place, varied, found.outcome(scalars, error))
        return found.result(["gain"])

    def test_medians_spread_and_counts_stand_beside_every_point(self):
        result = self.swept(self.runs())
        counts = ("runs", "failed", "undefined")
        assert [tuple(row[name] for name in counts) for row in result.rows] == [(3, 0, 1), (3, 1, 0)]
        shown = ("gain", "median", "p10", "p90", "theory")
        assert [row[name] for row in result.rows for name in shown] == pytest.approx(
            [0.5, 2, 1.2, 2.8, 11, 1.5, 4.5, 2.5, 6.5, 10.5]
        )
        assert result.scalars == {
            "question": "gradnorm",
            "value": "factor_per_step",
            "grid_points": 2,
            "runs": 6,
            "failed": 1,
            "critical": 1.0,
        }
        assert result.failures == ({"gain": 1.5, "seed": 2, "error": "it broke"},)

    def test_the_order_in_which_runs_end_changes_nothing(self):
        runs, own = list(self.runs()), self.swept(self.runs())
        for seed in range(10):
            random.Random(seed).shuffle(runs)
            found = self.swept(runs)
            assert (found.rows, found.failures) == (own.rows, own.failures)

    def test_a_scalar_that_no_run_has_is_refused_with_the_nearest(self):
        with pytest.raises(InputError, match="no run of gradnorm has a 'factor_per_stp'.*factor_per_step"):
            self.swept(self.runs(), others=["factor_per_stp"])


SAID = {"config": {"a": 1}, "scalars": {"x": 1.5}, "seconds": 0.5, "versions": {"rnnctl": "1", "torch": "2"}}


def append(path, *keys, question="gradnorm", **more):
    file = RunFile(path)
    for key in keys:
        file.append(question, {"key": key, "varied": {"n": key}, **SAID, **more})
    file.close()


class TestRunFile:
    def test_a_run_is_read_as_it_was_written_with_numbers_that_json_lacks(self, path):
        scalars = {"a": float("nan"), "b": float("-inf"), "c": 0.1 + 0.2, "d": None, "e": "nan", "f": True}
        append(path, "k", scalars=scalars, rows=[{"t": 0}], varied={"model_arg.x": float("inf")})
        (run,) = done_runs(path)
        assert repr(run.scalars) == repr(scalars)
        assert (run.varied, run.config, run.rows) == ({"model_arg.x": float("inf")}, {"a": 1}, [{"t": 0}])
        assert (run.key, run.question, run.error, run.seconds) == ("k", "gradnorm", None, 0.5)

    @pytest.mark.parametrize("cut", [2, 20, 100, 200])
    def test_cat_of_a_torn_file_loses_the_torn_line_alone(self, path, tmp_path, cut):
        one, two = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
        append(one, "a", "b")
        append(two, "c", "d")
        path.write_bytes(one.read_bytes()[:-cut] + two.read_bytes())
        notes = []
        assert [run.key for run in done_runs(path, notes=notes)] == ["a", "c", "d"]
        assert notes == [f"{path}, line 2 is torn, as by an interruption, and is left out"]

    def test_a_torn_line_that_its_own_writer_went_on_after_is_refused(self, path):
        append(path, "a", "b", "c")
        path.write_text(path.read_text().replace('"key": "b"', '"key": "b'))
        with pytest.raises(InputError, match="line 2 is no JSON object"):
            list(done_runs(path))

    def test_interruptions_one_after_the_other_leave_no_torn_line(self, path):
        append(path, "a", "b")
        for key in "cd":
            path.write_bytes(path.read_bytes()[:-7])
            append(path, key)
        # What some file systems leave of a line that was not on the disk when power went.
        path.write_bytes(path.read_bytes()[:-7] + b"\0" * 100)
        append(path, "e")
        notes = []
        assert [run.key for run in done_runs(path, notes=notes)] == ["a", "e"]
        assert notes == []
        assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "e"]
        # Of a whole line the end alone may be missing.
        path.write_bytes(path.read_bytes()[:-1])
        append(path, "f")
        assert [run.key for run in done_runs(path)] == ["a", "e", "f"]

    @pytest.mark.parametrize(
        "text", [b"notes of mine", b"{}\n", b"\x89PNG\r\n\x1a\n\0", b'{"schema": "rnnctl.watch"', b"[1, 2]\n"]
    )
    def test_what_no_sweep_wrote_is_refused_even_as_a_single_torn_line(self, path, text):
        path.write_bytes(text)
        with pytest.raises(InputError, match="Is this a file that rnnctl sweep wrote|no run of a sweep"):
            list(done_runs(path))

    def test_lines_of_other_programs_questions_and_versions_are_refused_with_their_place(self, path):
        append(path, "a")
        append(path, "b", question="flow")
        with pytest.raises(InputError, match="line 2 is a run of flow, not of gradnorm"):
            list(done_runs(path))
        with pytest.raises(InputError, match="line 1 is a run of gradnorm, not of flow"):
            list(done_runs(path, "flow"))
        path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 7', 1))
        with pytest.raises(InputError, match="line 1 has schema_version 7; this rnnctl reads 1"):
            list(done_runs(path))
        path.write_text('{"schema": "rnnctl.gradnorm", "scalars": {}}\n')
        with pytest.raises(InputError, match="line 1 is no run of a sweep"):
            list(done_runs(path))

    @pytest.mark.parametrize("name", ["key", "varied", "config", "scalars", "seconds", "versions"])
    def test_a_line_without_what_every_line_has_is_refused(self, path, name):
        append(path, "a")
        (line,) = lines(path)
        path.write_text(json.dumps({**line, name: None}) + "\n")
        with pytest.raises(InputError, match=f"line 1 has no {name} as rnnctl sweep writes it; got None"):
            list(done_runs(path))

    def test_two_cannot_write_at_once_and_the_second_is_told_of_shards(self, path):
        file = RunFile(path)
        with pytest.raises(InputError, match="being written by another sweep.*--shard I/N"):
            RunFile(path)
        file.close()
        RunFile(path).close()

    def test_a_file_system_without_locks_is_written_all_the_same(self, path, monkeypatch):
        def none(*_):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr("fcntl.flock", none)
        append(path, "a")
        assert [run.key for run in done_runs(path)] == ["a"]
