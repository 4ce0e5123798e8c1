"""Two benchmarks beside one another, and where each was measured; times are given here, never taken."""

import json
import math
import operator
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from shell import Run, document, forget_modules_of, runner

from rnnctl import FullRNN, InputError, bench_flow
from rnnctl.benchmark import flow, gradnorm, probe
from rnnctl.benchmark.comparison import run_before
from rnnctl.benchmark.flow import FLOW, PASSES, Targets
from rnnctl.benchmark.methods import REFERENCE, SWEEP, Workload
from rnnctl.benchmark.probe import PLAIN, PROBED
from rnnctl.benchmark.report import Figure
from rnnctl.files.reports import SavedReport
from rnnctl.view.terminal import Terminal

MINE = "T 7, B 4, H 3, I 10"
LINE = "bench --hidden-size 3 --no-memory --json"
ROWS = {"bench": SWEEP, "bench-flow": FLOW, "bench-probe": PROBED}
# Seconds of every method that is named here; of the others, one.
SECONDS = {REFERENCE: 2.0, SWEEP: 1.0, PASSES: 12.0, FLOW: 4.0, PLAIN: 2.0, PROBED: 3.0}


@pytest.fixture
def seconds(monkeypatch):
    """What every method takes, to be changed; on a machine with a rate of 1e6 multiply-adds and a load of 0.5."""
    given = dict(SECONDS)
    for cases in (gradnorm, flow, probe):
        monkeypatch.setattr(cases, "medians", lambda runs, *_: {name: given.get(name, 1.0) for name in runs})
    monkeypatch.setattr("rnnctl.benchmark.report.gemm_rate", lambda like: 1e6)
    monkeypatch.setattr("rnnctl.benchmark.report.system_load", lambda: 0.5)
    monkeypatch.setattr("rnnctl.benchmark.report.processor_name", lambda: "Abacus 3")
    return given


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


def changed(path: Path, **parts: Any) -> None:
    """Give a saved report other parts, or what a function makes of them."""
    found = json.loads(path.read_text())
    found |= {name: part(found[name]) if callable(part) else part for name, part in parts.items()}
    path.write_text(json.dumps(found))


def with_ratio(value: Any, method: str = SWEEP) -> Any:
    return lambda rows: [{**row, "ratio": value} if row["method"] == method else row for row in rows]


# ---- what is measured, and where ----------------------------------------------------------------


def test_a_bench_has_the_loss_at_every_step_unless_told(run: Run, seconds: dict[str, float]) -> None:
    assert document(run(LINE))["config"]["loss_at"] == "all"
    assert document(run(f"{LINE} --loss-at last"))["config"]["loss_at"] == "last"
    assert document(run(f"{LINE} --flow"))["config"]["loss_at"] == "all"
    assert document(run("gradnorm --json"))["config"]["loss_at"] == "last"


@pytest.mark.parametrize(("flags", "at"), [("", "all"), ("--loss-at last", "last"), ("--loss-at all", "all")])
def test_the_loss_that_is_measured_is_the_one_that_is_told(
    flags: str, at: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(Workload, "loss", lambda work, y: found.append(work.loss_at) or y.sum())
    assert run(f"{LINE} --repeats 1 {flags}").code == 0
    assert set(found) == {at}


def test_flow_refuses_a_loss_at_the_last_step_alone(run: Run) -> None:
    ran = run("bench --flow --loss-at last")
    assert ran.code == 2
    assert "--loss-at last says nothing to --flow" in ran.err


def test_seven_rounds_are_the_default_and_both_sides_of_flow_take_turns(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(flow, "together", lambda model, work: lambda: order.append("ours"))
    monkeypatch.setattr(flow, "autograd_passes", lambda model, work: lambda: order.append("theirs"))
    assert document(run("bench --flow --hidden-size 3 --json"))["scalars"]["repeats"] == 7
    # One round to warm up.
    assert order == ["theirs", "ours"] * 8


@pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_the_figures_of_flow_are_those_worked_by_hand(cell: str, gates: int, seconds: dict[str, float]) -> None:
    model, x = FullRNN(3, 4, 2), torch.zeros(2, 6, 3)
    work = Workload(model, x, model.initial_state(x), "all")
    plain, ours = bench_flow([(work, Targets(2.5, 0.4, cell))]).rows
    assert plain["case"] == "T 6, B 2, H 4, I 3" + (f", {cell}" if cell != "rnn" else "")
    assert (plain["milliseconds"], plain["speedup"]) == (12000, None)
    assert (ours["milliseconds"], ours["speedup"], ours["speedup_target"]) == (4000, 3.0, 2.5)
    # Blocks of 5, 4, .. 1 losses in a batch of 2 meet the rows of W_hh, 4 a gate, of 4 numbers each; in 4 s at 1e6.
    assert ours["gemm_share"] == pytest.approx((5 + 4 + 3 + 2 + 1) * 2 * (4 * gates) * 4 / 4e6)


@pytest.mark.parametrize("flags", ["", "--flow", "--probe"])
def test_a_report_tells_where_it_was_measured(flags: str, run: Run, seconds: Any, monkeypatch: Any) -> None:
    config = document(run(f"{LINE} {flags} --threads 1"))["config"]
    assert (config["processor"], config["threads"], config["load"]) == ("Abacus 3", 1, 0.5)
    for name in ("processor_name", "system_load"):
        monkeypatch.setattr(f"rnnctl.benchmark.report.{name}", lambda: None)
    config = document(run(f"{LINE} {flags}"))["config"]
    assert (config["processor"], config["load"]) == (None, None)


# ---- --save -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", ["", "--only rows", "--format csv", "--format table", "-o table.txt"])
def test_what_is_saved_is_what_json_shows_whatever_is_shown(shown: str, run: Run, seconds: Any, tmp_path: Path) -> None:
    expected = run(LINE).out
    ran = run(f"{LINE.removesuffix('--json')} {shown} --save new.json")
    assert ran.code == 0
    assert "wrote new.json" in ran.err
    assert (tmp_path / "new.json").read_text() == expected
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".rnnctl")]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--save there.json", "add --force"),
        ("--save missing/new.json", "there is no folder"),
        ("--save .", "is a folder"),
        ("--save new.json -o new.json", "give each a file of its own"),
        ("--save new.safetensors --save-weights new.safetensors", "give each a file of its own"),
        ("--save there.json --force --against there.json", "read by this very command"),
        ("-o there.json --force --against there.json", "read by this very command"),
        ("--save there.npy --force --input there.npy", "read by this very command"),
        ("--tolerance 0.2", "--tolerance is about --against"),
        ("--against there.json --tolerance=-0.1", "at least 0"),
        ("--against there.json --tolerance nan", "finite number"),
        ("--against none.json", "there is no file"),
        ("--against .", "cannot read"),
        ("--against there.json", "not a readable .json file"),
        ("--fail-on worst_change>2", "there is no 'worst_change' here"),
    ],
)
def test_it_is_refused_before_anything_is_measured(
    flags: str, said: str, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "there.json").write_text("precious")
    (tmp_path / "there.npy").write_text("precious")
    monkeypatch.setattr("rnnctl.benchmark.report.measured", None)
    ran = run(f"{LINE.removesuffix('--json')} {flags}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert (tmp_path / "there.json").read_text() == "precious"
    assert not (tmp_path / "new.json").exists()


def test_force_replaces_a_report(run: Run, seconds: Any, tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("old")
    assert run(f"{LINE} --save there.json --force").code == 0
    assert json.loads((tmp_path / "there.json").read_text())["schema"] == "rnnctl.bench"


# ---- --against ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("better", "now", "before", "expected"),
    [
        (operator.le, 3.0, 2.0, 1.5),
        (operator.le, 1.0, 2.0, 0.5),
        (operator.ge, 2.0, 3.0, 1.5),
        (operator.ge, 4.0, 2.0, 0.5),
    ],
)
def test_a_change_above_one_is_worse_whichever_way_is_better(
    better: Any, now: float, before: float, expected: float
) -> None:
    assert Figure("speedup", "target", better).times_worse(now, before) == expected


@pytest.mark.parametrize(
    ("flags", "method", "slow", "said"),
    [
        ("", SWEEP, 1.5, f"{MINE}, {SWEEP}: ratio is 0.75, and was 0.5: 1.5 times worse"),
        ("--probe", PROBED, 4.5, f"{MINE}, gru, {PROBED}: ratio is 2.25, and was 1.5: 1.5 times worse"),
        ("--flow", FLOW, 6.0, f"{MINE}, {FLOW}: speedup is 2, and was 3: 1.5 times worse"),
    ],
)
def test_what_got_slower_is_named_with_both_numbers_and_exit_3(
    flags: str, method: str, slow: float, said: str, run: Run, seconds: dict[str, float]
) -> None:
    run(f"{LINE} {flags} --save before.json")
    same = run(f"{LINE} {flags} --against before.json --tolerance 0")
    assert (same.code, same.err) == (0, "")
    scalars = document(same)["scalars"]
    assert (scalars["worst_change"], scalars["within_tolerance"], scalars["tolerance"]) == (1.0, True, 0.0)
    seconds[method] = slow
    for quiet in ("", "-q"):
        ran = run(f"{LINE} {flags} --against before.json {quiet}")
        assert ran.code == 3
        assert said in ran.err
        assert "--tolerance 0.1" in ran.err
    found = document(ran)
    assert (found["scalars"]["worst_change"], found["scalars"]["within_tolerance"]) == (1.5, False)
    changes = [row["change"] for row in found["rows"] if row["method"] == method]
    assert set(changes) == {1.5}


def test_a_share_of_the_rate_is_compared_too(run: Run, seconds: dict[str, float]) -> None:
    run(f"{LINE} --flow --save before.json")
    seconds.update({PASSES: 24.0, FLOW: 8.0})
    ran = run(f"{LINE} --flow --against before.json")
    row = document(ran)["rows"][1]
    assert (ran.code, row["change"], row["gemm_share_change"]) == (3, 1.0, 2.0)
    assert row["gemm_share_before"] == 2 * row["gemm_share"]
    assert ran.err.count("\n") == 1
    assert f"{FLOW}: gemm share is" in ran.err


@pytest.mark.parametrize(("tolerance", "code"), [("0.25", 0), ("0.24", 3), ("", 3), ("--", 3)])
def test_the_tolerance_is_the_share_by_which_a_ratio_may_be_worse(
    tolerance: str, code: int, run: Run, seconds: dict[str, float]
) -> None:
    run(f"{LINE} --save before.json")
    seconds[SWEEP] = 1.25
    flag = f"--tolerance {tolerance}" if tolerance.strip("-") else ""
    ran = run(f"{LINE} --against before.json {flag}")
    assert (ran.code, document(ran)["scalars"]["worst_change"]) == (code, 1.25)


def test_what_rnnctl_is_measured_against_is_told_and_not_judged(run: Run, seconds: dict[str, float]) -> None:
    run(f"{LINE} --save before.json")
    seconds["T clones"] = 9.0
    ran = run(f"{LINE} --against before.json")
    assert (ran.code, ran.err) == (0, "")
    changes = {row["method"]: row["change"] for row in document(ran)["rows"]}
    assert (changes["T clones"], changes[SWEEP]) == (9.0, 1.0)


def test_milliseconds_say_nothing(run: Run, seconds: dict[str, float]) -> None:
    run(f"{LINE} --save before.json")
    seconds.update({name: 8 * value for name, value in SECONDS.items()})
    assert run(f"{LINE} --against before.json --tolerance 0").code == 0


def test_the_worst_change_is_the_largest_of_all_rows(run: Run, seconds: dict[str, float], tmp_path: Path) -> None:
    run(f"{LINE} --probe --save before.json")
    ratios = iter([1.5, 0.5, 3.0, 0.75])
    rows = lambda found: [{**row, "ratio": next(ratios)} if row["method"] == PROBED else row for row in found]  # noqa: E731
    changed(tmp_path / "before.json", rows=rows)
    ran = run(f"{LINE} --probe --against before.json --tolerance 1.5")
    assert [row["change"] for row in document(ran)["rows"] if row["method"] == PROBED] == [1.0, 3.0, 0.5, 2.0]
    assert document(ran)["scalars"]["worst_change"] == 3.0
    assert ran.err.count("times worse") == 1


def test_without_a_run_before_nothing_is_said_of_one(run: Run, seconds: Any) -> None:
    found = document(run(LINE))
    assert not {"before", "change"} & found["rows"][0].keys()
    assert not {"tolerance", "worst_change", "within_tolerance"} & found["scalars"].keys()
    assert "change" not in run(LINE.removesuffix("--json")).out


def test_the_table_shows_what_was_and_what_changed(run: Run, seconds: dict[str, float]) -> None:
    run(f"{LINE} --save before.json")
    seconds[SWEEP] = 1.5
    out = run(f"{LINE.removesuffix('--json')} --against before.json --tolerance 0.5").out
    assert "before" in out and "change" in out
    line = next(line.split() for line in out.splitlines() if SWEEP in line)
    # Ratio, target, before, change, peak.
    assert line[-5:] == ["0.75", "-", "0.5", "1.5", "-"]
    assert "worst_change is at most 1.5 (--tolerance)" in out


def test_conditions_can_be_set_on_the_change(run: Run, seconds: dict[str, float]) -> None:
    run(f"{LINE} --save before.json")
    seconds[SWEEP] = 1.05
    assert run(f"{LINE} --against before.json").code == 0
    ran = run(f"{LINE} --against before.json --fail-on worst_change>1.02")
    assert ran.code == 3
    assert "worst_change is 1.05" in ran.err


def test_a_condition_on_something_unknown_does_not_hide_what_got_slower(run: Run, seconds: dict[str, float]) -> None:
    run(f"{LINE} --save before.json")
    seconds[SWEEP] = 3.0
    ran = run(f"{LINE} --against before.json --fail-on targets_met==false")
    assert ran.code == 1
    assert "times worse" in ran.err
    assert "these sizes have no target" in ran.err


# ---- what does not fit --------------------------------------------------------------------------


def test_what_is_in_one_file_only_is_said(run: Run, seconds: Any, tmp_path: Path) -> None:
    run(f"{LINE} --save before.json")
    other = {"case": "T 9, B 4, H 3, I 10", "method": SWEEP, "ratio": 0.1}
    gone = {"case": MINE, "method": "an old way", "ratio": 5.0}
    kept = lambda rows: [*(row for row in rows if row["method"] != "T clones"), other, gone]  # noqa: E731
    changed(tmp_path / "before.json", rows=kept)
    ran = run(f"{LINE} --against before.json")
    assert ran.code == 0
    assert f"only in 'before.json', so not compared: T 9, B 4, H 3, I 10; {MINE}, an old way\n" in ran.err
    assert f"only in this run and not in 'before.json', so not compared: {MINE}, T clones\n" in ran.err
    rows = {row["method"]: (row["before"], row["change"]) for row in document(ran)["rows"]}
    assert rows["T clones"] == (None, None)
    assert rows[SWEEP] == (0.5, 1.0)


def test_a_figure_that_one_file_lacks_is_said(run: Run, seconds: Any, tmp_path: Path) -> None:
    run(f"{LINE} --flow --save before.json")
    changed(tmp_path / "before.json", rows=lambda rows: [{**row, "speedup": None} for row in rows])
    ran = run(f"{LINE} --flow --against before.json")
    assert ran.code == 0
    assert f"only in this run and not in 'before.json', so not compared: speedup of {MINE}, {FLOW}\n" in ran.err
    assert "only in 'before.json'" not in ran.err
    assert document(ran)["rows"][1]["change"] is None


def test_where_nothing_compares_the_result_is_shown_and_it_is_said(run: Run, seconds: Any, tmp_path: Path) -> None:
    run(f"{LINE} --probe --save before.json")
    changed(tmp_path / "before.json", rows=lambda rows: [{**row, "cell": "old-" + row["cell"]} for row in rows])
    ran = run(f"{LINE} --probe --against before.json")
    found = document(ran)
    assert (found["scalars"]["worst_change"], found["scalars"]["within_tolerance"]) == (None, None)
    assert found["why"]["worst_change"] == found["why"]["within_tolerance"] == f"no figure of {PROBED} is in both runs"
    assert ran.code == 2
    assert "nothing was compared: no figure of probed step is in both runs" in ran.err


@pytest.mark.parametrize("width", [60, 80, 160])
@pytest.mark.parametrize("flags", ["", "--flow", "--probe"])
def test_no_ratio_is_broken_into_lines_in_a_narrow_window(
    flags: str, width: int, run: Run, seconds: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds.update({PLAIN: 1.2345e-3, PROBED: 1.2345e-3 * 1.234, REFERENCE: 1.0, SWEEP: 1.234, FLOW: 12 / 1.234})
    line = f"{LINE.removesuffix('--json')} {flags}"
    run(f"{line} --save before.json")
    monkeypatch.setattr("rnnctl.cli.output.emit.terminal", lambda out: Terminal(width, False, False))
    for out in (run(line).out, run(f"{line} --against before.json --only rows").out):
        assert all(len(text.rstrip()) <= width for text in out.splitlines())
        assert re.search(r"\b1\.234\b", out)
    assert "change" in out
    assert width == 80 or ("before" in out) == (width == 160)


def test_another_machine_load_and_setting_are_said(run: Run, seconds: Any, tmp_path: Path) -> None:
    run(f"{LINE} --save before.json --threads 1")
    machine = {"processor": "Abacus 2", "threads": 5, "load": 1.0}
    changed(tmp_path / "before.json", config=lambda found: {**found, **machine})
    ran = run(f"{LINE} --against before.json --threads 1 --seed 3")
    assert ran.code == 0
    assert [line.removeprefix("Note: ") for line in ran.err.splitlines()] == [
        "the processor was Abacus 2 in 'before.json' and is Abacus 3 now; ratios depend on it",
        "the number of threads was 5 in 'before.json' and is 1 now; ratios depend on it",
        "the load at the start was 1 in 'before.json' and is 0.5 now; ratios depend on it",
    ]


@pytest.mark.parametrize(
    ("flags", "now", "was"),
    [
        ("--loss-at last", "loss_at last", "loss_at all"),
        ("--nonlinearity relu --dtype float64", "nonlinearity relu, dtype float64", "nonlinearity tanh, dtype float32"),
    ],
)
def test_another_setting_is_no_run_before(flags: str, now: str, was: str, run: Run, seconds: Any) -> None:
    run(f"{LINE} --save before.json")
    ran = run(f"{LINE} --against before.json {flags}")
    assert (ran.code, ran.out) == (2, "")
    assert f"expected {now}, as in this run; got {was}." in " ".join(ran.err.split())


def test_another_version_of_a_report_is_refused(run: Run, seconds: Any, tmp_path: Path) -> None:
    run(f"{LINE} --save before.json")
    changed(tmp_path / "before.json", schema_version=99)
    ran = run(f"{LINE} --against before.json")
    assert ran.code == 2
    assert "expected schema_version 1; got 99" in ran.err


def test_of_one_step_flow_has_no_share_of_products(run: Run, seconds: Any) -> None:
    line = f"{LINE} --flow --seq-len 1"
    assert document(run(f"{line} --save before.json"))["rows"][1]["gemm_share"] is None
    assert run(f"{line} --against before.json").code == 0


def test_a_load_that_only_drifts_is_not_spoken_of_and_one_that_is_not_known_is(
    run: Run, seconds: Any, tmp_path: Path
) -> None:
    run(f"{LINE} --save before.json")
    changed(tmp_path / "before.json", config=lambda found: {**found, "load": 0.9})
    assert run(f"{LINE} --against before.json").err == ""
    changed(tmp_path / "before.json", config=lambda found: {**found, "load": None})
    assert (
        "the load at the start was not known in 'before.json' and is 0.5 now"
        in run(f"{LINE} --against before.json").err
    )


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"schema": "rnnctl.bench-flow"}, "expected a report of bench, got one of bench-flow"),
        ({"schema": "gradnorm"}, "whose schema is 'gradnorm'"),
        ({"schema": 3}, "whose schema is 3"),
        ({"rows": {}}, "is no report: expected what rnnctl bench --save writes"),
        ({"rows": [1]}, "is no report"),
        ({"rows": []}, f"expected {MINE}; got none"),
        ({"scalars": []}, "is no report"),
        ({"rows": with_ratio(None)}, f"expected {MINE}; got none"),
        ({"rows": with_ratio(0)}, f"{MINE}, {SWEEP}: expected a positive number as ratio; got 0"),
        ({"rows": with_ratio(-1.0)}, "got -1.0"),
        ({"rows": with_ratio(True)}, "got True"),
        ({"rows": with_ratio("0.5")}, "got '0.5'"),
        ({"rows": with_ratio(math.nan)}, "NaN is not JSON"),
        ({"rows": with_ratio(math.inf)}, "Infinity is not JSON"),
        ({"rows": lambda rows: [*rows, rows[0]]}, f"two rows of {MINE}, nn.RNN"),
        ({"rows": lambda rows: [{**rows[0], "method": 5}]}, "without its case or method"),
        ({"rows": lambda rows: [{"ratio": 1.0}]}, "without its case or method"),
        ({"rows": lambda rows: [{**row, "case": "T 1"} for row in rows]}, f"expected {MINE}; got T 1"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_before_anything_is_measured(
    parts: dict[str, Any], said: str, run: Run, seconds: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(f"{LINE} --save before.json")
    changed(tmp_path / "before.json", **parts)
    monkeypatch.setattr("rnnctl.benchmark.report.measured", None)
    ran = run(f"{LINE} --against before.json")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "before.json" in ran.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a readable .json file"),
        ("[1, 2]", "JSON of type list"),
        ('{"schema": "rnnctl.bench", "rows": []}', "an object without config, scalars"),
        ("[" * 100_000, "not a readable .json file"),
        ('{"case": 1}\n{"case": 2}\n', "not a readable .json file"),
        ("case,method\n", "not a readable .json file"),
        ("\x80abc", "not a readable .json file"),
    ],
)
def test_a_file_that_is_no_report_is_refused(text: str, said: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "before.json").write_bytes(text.encode("latin-1"))
    ran = run(f"{LINE} --against before.json")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_a_number_that_no_float_holds_is_refused() -> None:
    row = json.loads('{"case": "T 1", "method": "rnnctl sweep", "ratio": 1e999}')
    with pytest.raises(InputError, match="expected a positive number as ratio; got inf"):
        run_before(SavedReport("'x'", "bench", {}, {}, (row,)), gradnorm.CASES, ["T 1"], {})
