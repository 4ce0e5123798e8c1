"""--report: a result as one page that needs nothing else, whose numbers are those of the other formats."""

import json
import math
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from pages import Node, cells, codes_of, embedded, tree
from shell import Run, commands, document, runner

import rnnctl
from rnnctl.cli.commands.flow import FlowOptions
from rnnctl.cli.commands.gradnorm import GradnormOptions
from rnnctl.cli.options.command_line import command_line
from rnnctl.cli.options.mapping import options_from
from rnnctl.results import Result
from rnnctl.view.html.chart import Chart, Curve
from rnnctl.view.html.markup import escaped, json_in_script, tag
from rnnctl.view.html.matrix import Matrix, matrix, picture
from rnnctl.view.html.page import POLICY, page
from rnnctl.view.html.page import Run as Made
from rnnctl.view.html.scale import linear, logarithmic
from rnnctl.view.html.svg import chart_svg, legend
from rnnctl.view.html.verdict import verdict
from rnnctl.view.layouts.layout import Column, Layout, Table
from rnnctl.view.layouts.table import LAYOUTS
from rnnctl.view.numbers import number

QUESTIONS = {
    "gradnorm": "gradnorm --seq-len 50",
    "gradnorm-modules": "gradnorm --cell lstm --num-layers 2 --seq-len 12",
    "flow": "flow --seq-len 20",
    "truncation": "truncation --seq-len 20",
    "spectrum": "spectrum",
    "spectrum-gates": "spectrum --cell gru",
    "lyapunov": "lyapunov --seq-len 60 --count 4",
    "gradnorm-history": "gradnorm --from run.jsonl",
}
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<!-- \u2028]]> `${1}`"
MADE = Made("rnnctl", {"file": "run.jsonl"}, {"rnnctl": "0", "torch": "0"})


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    return runner(capsys, monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a training run left: two steps of a small GRU."""
    path = tmp_path_factory.mktemp("run") / "run.jsonl"
    torch.manual_seed(0)
    model, x = torch.nn.GRU(2, 3, batch_first=True), torch.randn(2, 9, 2)
    with rnnctl.watch(model, every=1, to=path):
        for _ in range(3):
            model(x)[0][:, -1].square().sum().backward()
    return path.read_bytes()


def report(run: Run, folder: Path, line: str, *more: str) -> str:
    ran = run(f"{line} --report page.html --force", *more)
    assert (ran.code, "wrote page.html" in ran.err) == (0, True), ran.err
    return (folder / "page.html").read_text(encoding="utf-8")


def prepared(schema: str, run: Run, folder: Path, history: bytes) -> tuple[str, Node]:
    (folder / "run.jsonl").write_bytes(history)
    text = report(run, folder, QUESTIONS[schema])
    return text, tree(text)


# ---- the page --------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", QUESTIONS)
def test_every_question_has_a_page_that_asks_nothing_of_anybody(schema, run, tmp_path, history):
    text, read = prepared(schema, run, tmp_path, history)
    (policy,) = (each for each in read.all("meta") if each.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"] == POLICY
    assert POLICY == "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    loaded = [
        each.attributes[key] for each in read.all() for key in ("src", "srcset", "data") if key in each.attributes
    ]
    assert all(str(address).startswith("data:image/png;base64,") for address in loaded)
    assert all(str(each.attributes["href"]).startswith("#") for each in read.all("a"))
    assert not re.search(r"@import|url\(|https?:|//[a-z]+\.|fetch\(|XMLHttp|import\(", text)
    assert not read.all("link") and not read.all("iframe")
    assert embedded(read)["schema"] == f"rnnctl.{schema}"
    assert len(text) < 400_000


@pytest.mark.parametrize("schema", QUESTIONS)
def test_the_verdict_stands_before_the_evidence_and_that_before_the_data(schema, run, tmp_path, history):
    _, read = prepared(schema, run, tmp_path, history)
    order = [
        each.attributes["id"]
        for each in read.all()
        if each.attributes.get("id") in ("verdict", "evidence", "numbers", "tables", "made", "json")
    ]
    assert order == ["verdict", "evidence", "numbers", "tables", "made", "json"]
    pictures_of_it = read.all("svg", role="img") + read.all("img")
    assert pictures_of_it
    assert all(each.attributes.get("alt") or each.attributes.get("aria-label") for each in pictures_of_it)


def test_the_same_command_writes_the_same_bytes_whatever_the_file_is_called(run, tmp_path):
    first = report(run, tmp_path, "flow --seq-len 9")
    assert run("flow --seq-len 9 --report other.html").code == 0
    assert (tmp_path / "other.html").read_text(encoding="utf-8") == first


@pytest.mark.parametrize("schema", QUESTIONS)
def test_its_scalars_and_tables_are_those_of_the_terminal(schema, run, tmp_path, history):
    _, read = prepared(schema, run, tmp_path, history)
    shown = run(QUESTIONS[schema]).out
    (scalars,) = read.all("table", class_="scalars")
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert cells(scalars)
    for name, value, note in cells(scalars):
        said = note.partition("what it is")[0]
        assert lines[name].split(maxsplit=1)[1].split("  ") == [each for each in (value, said) if each], name
    found = ["  ".join(row).split() for table in read.all("div", class_="scroll") for row in cells(table)]
    terminal = [line.split() for line in shown.splitlines()]
    assert len(found) > 3
    # The dots of a row in the middle are narrower there.
    assert [row for row in found if row not in terminal and set(row) != {"..."}] == []


def test_a_long_table_is_cut_as_on_a_terminal_unless_all_is_asked_for(run, tmp_path):
    cut = tree(report(run, tmp_path, "gradnorm --seq-len 50"))
    assert "... 10 rows in the middle are left out; --all shows them" in cut.text
    assert len(cut.all("div", class_="scroll")[0].all("tr")) == 1 + 41
    whole = tree(report(run, tmp_path, "gradnorm --seq-len 50 --all"))
    assert len(whole.all("div", class_="scroll")[0].all("tr")) == 1 + 50
    assert "left out; --all" not in whole.text


@pytest.mark.parametrize("schema", ["gradnorm", "flow", "spectrum", "gradnorm-history"])
def test_its_json_is_that_of_the_other_format_but_for_rows_that_a_picture_shows(schema, run, tmp_path, history):
    _, read = prepared(schema, run, tmp_path, history)
    expected = document(run(f"{QUESTIONS[schema]} --json"))
    if schema in ("flow", "gradnorm-history"):
        assert expected.pop("rows")
        assert "Its rows are left out here; rnnctl's --json has them." in read.text
    assert embedded(read) == expected


def test_very_long_rows_are_left_out_of_its_json(run, tmp_path, monkeypatch):
    monkeypatch.setattr("rnnctl.view.html.page.LONGEST_ROWS", 2000)
    read = tree(report(run, tmp_path, "gradnorm --seq-len 30"))
    assert "rows" not in embedded(read)
    assert "Its rows are left out here; rnnctl's --json has them." in read.text


def test_every_scalar_has_its_meaning_and_the_command_that_shows_it(run, tmp_path):
    read = tree(report(run, tmp_path, "gradnorm"))
    details = read.all("details")
    assert len(details) == len(read.all("table", class_="scalars")[0].all("tr"))
    assert any("sum over t of ||G_t||" in each.text or "sum ||G_t||" in each.text for each in details)
    for each in details:
        (button,) = each.all("button")
        copied = read.all(id=str(button.attributes["data-copy"]))
        assert [one.text.startswith("rnnctl ") for one in copied] == [True]
        # Only the script can copy: without it there is no button.
        assert "hidden" in button.attributes


# ---- how it was made -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "line"),
    [
        (FlowOptions, {}, "rnnctl flow"),
        (FlowOptions, {"seq_len": 9, "bias": False, "verify": False}, "rnnctl flow --no-bias --seq-len 9 --no-verify"),
        (
            FlowOptions,
            {"report": "a.html", "force": True, "json": True, "save-weights": "w.st"},
            "rnnctl flow",
        ),
        (
            GradnormOptions,
            {"model": "m:Net", "model-arg": ["a=1", "b='x y'"], "vanish-below": 0.5},
            "rnnctl flow --model m:Net --model-arg a=1 --model-arg 'b='\"'\"'x y'\"'\"'' --vanish-below 0.5",
        ),
    ],
)
def test_the_command_is_every_option_that_shapes_the_answer(kind, options, line):
    given = options_from(kind, options)
    assert command_line("flow", given) == line
    name, *arguments = shlex.split(line.removeprefix("rnnctl "))
    with commands().commands["gradnorm" if kind is GradnormOptions else name].make_context(name, arguments) as context:
        for option, value in options.items():
            if option not in ("report", "force", "json", "save-weights"):
                assert context.params[option.replace("-", "_")] == value


def test_options_of_the_environment_and_of_a_file_are_in_the_command(run, tmp_path, monkeypatch):
    (tmp_path / "a.toml").write_text("hidden-size = 3\n")
    monkeypatch.setenv("RNNCTL_SEQ_LEN", "5")
    read = tree(report(run, tmp_path, "gradnorm --config a.toml --seed 2"))
    assert "rnnctl gradnorm --hidden-size 3 --seq-len 5 --seed 2" in [each.text for each in read.all("code")]
    versions, config, *_ = read.all("table", class_="config")
    assert dict(cells(versions)) == {"rnnctl": rnnctl.__version__, "torch": torch.__version__}
    assert dict(cells(config))["hidden_size"] == "3"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gradnorm --report page.htm", "--report writes .html; got 'page.htm'. Change the suffix"),
        ("flow --report page", "--report writes .html"),
        ("flow --report old.html", "'old.html' is there already; add --force to replace it"),
        ("truncation --report nowhere/page.html", "there is no folder"),
        ("spectrum --report page.html -o page.html", "-o and --report both name 'page.html'"),
        ("spectrum --report page.html -o ./page.html", "-o and --report both name"),
        ("lyapunov --plot a.svg -o a.svg", "-o and --plot both name 'a.svg'; give each a file of its own"),
        ("gradnorm --from run.jsonl --report run.jsonl", "--report writes .html"),
    ],
)
def test_a_page_that_could_not_be_written_is_refused_before_computing(line, message, run, tmp_path, monkeypatch):
    (tmp_path / "old.html").write_text("mine")
    monkeypatch.setattr("rnnctl.cli.setup.prepared.require_consistent", None)
    ran = run(line)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("old.html", "mine")]


def test_a_page_is_not_written_over_what_is_read(run, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 2), np.float32))
    (tmp_path / "x.html").symlink_to("x.npy")
    ran = run("gradnorm --input x.npy --report x.html --force")
    assert ran.code == 2 and "'x.html' is read by this very command" in ran.err
    assert np.load(tmp_path / "x.npy").shape == (1, 4, 2)


def test_what_fails_leaves_the_page_that_was_there(run, tmp_path):
    (tmp_path / "page.html").write_text("mine")
    assert run("gradnorm --input none.npy --report page.html --force").code == 2
    assert (tmp_path / "page.html").read_text() == "mine"
    # A condition that holds is an answer, too.
    assert run("gradnorm --report page.html --force --fail-on loss>0").code == 3
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


# ---- nothing gets in -------------------------------------------------------------------------


def hostile_result() -> Result:
    model = torch.nn.Module()
    name = HOSTILE.replace(".", "")
    model.add_module(name, torch.nn.GRU(2, 3, batch_first=True))
    model.forward = lambda x: getattr(model, name)(x)[0]
    return rnnctl.gradnorm(model, torch.randn(2, 4, 2))


def test_names_of_weights_files_and_columns_cannot_inject_anything():
    result = hostile_result()
    made = Made(HOSTILE, {"file": HOSTILE, HOSTILE: [HOSTILE]}, {"rnnctl": HOSTILE, "torch": HOSTILE})
    text, plain = (
        page(result, made),
        page(rnnctl.gradnorm(torch.nn.GRU(2, 3, batch_first=True), torch.randn(2, 4, 2)), MADE),
    )
    read = tree(text)
    # No element, and no attribute, that a harmless one does not have.
    names = lambda node: {(each.name, key) for each in node.all() for key in (*each.attributes, "")}  # noqa: E731
    assert names(read) == names(tree(plain))
    assert not any(key.startswith("on") for _, key in names(read))
    assert len(read.all("script")) == 2
    assert HOSTILE in {each.text.replace("\\u2028", "\u2028") for each in read.all("code")}
    assert "\u2028" not in text and 'alert(1)>"' not in text
    said = embedded(read)
    assert said["config"]["file"] == HOSTILE and said["rows"][0]["weight"].startswith(HOSTILE[:20])


def test_a_piece_for_a_notebook_is_as_safe():
    for each in (tree(hostile_result()._repr_html_()), tree(tag("p", HOSTILE, title=HOSTILE))):
        assert not each.all("script") and not each.all("img")


@pytest.mark.parametrize("text", ["<b>", '"', "'", "&", "</p>", "a\nb", "\x1b[31m", "\udc80", "\u2028", "\x00"])
def test_text_is_escaped_once_in_elements_and_attributes(text):
    made = tag("p", text, tag("b", text), title=text)
    (read,) = tree(made).all("p")
    assert made.isascii() and made.encode()
    shown = escaped(text)
    assert read.attributes["title"] == tree(shown).text == read.all("b")[0].text
    assert escaped(shown) is shown
    if text.isprintable() or "\n" in text:
        assert read.attributes["title"] == text


def test_json_within_a_script_ends_no_script_and_says_the_same():
    said = {HOSTILE: [HOSTILE, math.nan]}
    made = json_in_script(said)
    assert not set("<>&\u2028\u2029") & set(made)
    assert json.loads(made)[HOSTILE][0] == HOSTILE


# ---- the matrix ------------------------------------------------------------------------------


def made_of(values: Any, there: Any = None) -> Matrix:
    values = np.asarray(values, float)
    there = np.ones(values.shape, bool) if there is None else there
    axes = ("k", "loss step k"), ("t", "source step t")
    return Matrix("title", *axes, range(len(values)), values, there, "norm", "none")


def read_off(found: Any, code: int) -> float:
    return found.low * (found.high / found.low) ** ((code - 2) / (found.levels - 1))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3), (300, 40)])
def test_every_value_is_known_to_the_precision_that_is_said(shape):
    values = np.exp(np.random.default_rng(0).uniform(-20, 3, shape))
    found = picture(made_of(values))
    codes = np.array([list(row) for row in codes_of(found.address)])
    assert codes.shape == shape
    off = np.abs(np.array([[read_off(found, code) for code in row] for row in codes]) / values - 1)
    # The rounding of what is said is in the precision, and not in the codes.
    assert off.max() <= (1 + found.precision) / 1.025 - 1 + 1e-9
    assert found.precision < 0.09


def test_what_is_no_number_zero_or_not_there_has_a_code_of_its_own(tmp_path):
    there = np.array([[True, False], [True, True], [True, True]])
    found = picture(made_of([[1.0, 2.0], [0.0, math.nan], [math.inf, 1e-30]], there))
    assert [list(row) for row in codes_of(found.address)] == [[253, 0], [1, 254], [255, 2]]
    assert (found.high, found.low, found.clipped) == (1.0, 1e-12, True)
    (tmp_path / "a.png").write_bytes(found.png)
    # As another decoder has it: blank where nothing is, and of 0.
    opacity = imread(tmp_path / "a.png")[..., 3]
    assert opacity.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert imread(tmp_path / "a.png")[0, 0, :3] == pytest.approx([0xFE / 255, 0xE8 / 255, 0x38 / 255], abs=1e-6)


@pytest.mark.parametrize("values", [[[0.0]], [[math.nan]], [[math.inf, 0.0]]])
def test_a_matrix_without_a_number_above_zero_is_drawn_all_the_same(values):
    found = picture(made_of(values))
    assert {code for row in codes_of(found.address) for code in row} <= {1, 254, 255}


def test_of_a_large_matrix_a_cell_is_the_largest_of_a_block():
    values = np.random.default_rng(1).uniform(0.1, 1, (7, 5))
    values[6, 4], values[0, 1] = 50.0, math.nan
    there = np.tri(7, 5, dtype=bool)
    found = picture(made_of(values, there), most_cells=4)
    assert found.block == 2
    codes = codes_of(found.address)
    assert (len(codes), len(codes[0])) == (4, 3)
    assert codes[3][2] == 253 and read_off(found, codes[3][2]) == pytest.approx(50)
    # What is not there does not count, and a block without a cell is none.
    assert codes[0][0] != 254 and codes[0][1] == 0
    assert read_off(found, codes[1][0]) == pytest.approx(values[2:4, :2].max(), rel=found.precision)


def test_a_picture_that_does_not_compress_has_fewer_levels_and_then_fewer_cells():
    noise = made_of(np.exp(np.random.default_rng(0).uniform(-20, 0, (120, 120))))
    fine = picture(noise)
    fewer = picture(noise, most_bytes=len(fine.png) - 1)
    coarse = picture(noise, most_bytes=len(fewer.png) - 1)
    assert (fine.levels, fine.block) == (252, 1)
    assert (fewer.levels, fewer.block) == (64, 1) and fewer.precision > fine.precision
    assert coarse.block == 2 and len(coarse.png) < len(fewer.png)


@pytest.mark.slow
def test_a_page_of_two_thousand_steps_is_below_two_megabytes():
    result = rnnctl.flow(rnnctl.FullRNN(2, 2, 1), torch.randn(1, 6, 2))
    noise = torch.rand(2000, 2000, dtype=torch.float64).mul(-30).exp().tril()
    long = replace(result, norms=noise, sensitivity=noise, sensitivity_h=noise, log_relative=noise.log())
    assert matrix(long).values.shape == (2000, 2000)
    assert 200_000 < len(page(long, MADE)) < 2_000_000


def test_a_training_run_says_where_sequences_end(tmp_path):
    model = torch.nn.RNN(2, 3, batch_first=True)
    with rnnctl.watch(model, every=1, to=tmp_path / "run.jsonl"):
        for length in (4, 6):
            model(torch.randn(1, length, 2))[0].sum().backward()
    found = picture(matrix(rnnctl.gradnorm_history(tmp_path / "run.jsonl")))
    assert [[code > 0 for code in row] for row in codes_of(found.address)] == [[True] * 4 + [False] * 2, [True] * 6]


# ---- charts ----------------------------------------------------------------------------------


def points(drawn: str) -> list[tuple[float, float]]:
    found = re.findall(r'<circle cx="([-\d.]+)" cy="([-\d.]+)"', drawn)
    return [(float(x), float(y)) for x, y in found]


def chart(y: Any, **more: Any) -> Chart:
    return Chart("title", "x", "y", (Curve("words", list(range(len(y))), y),), **more)


def test_points_stand_where_their_values_are_on_a_log_scale():
    drawn = points(chart_svg(chart([1e-4, 1e-2, 1.0], y_base=10)))
    assert len(drawn) == 3
    (x0, y0), (x1, y1), (x2, y2) = drawn
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11) and y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert y0 > y2 and 0 < y2 < y0 < 330


def test_what_has_no_place_leaves_a_gap_and_what_stands_alone_a_mark():
    y = [1.0] * 40 + [None, 2.0, math.nan] + [1.0] * 40 + [0.0, math.inf]
    drawn = chart_svg(chart(y, y_base=10))
    (line,) = re.findall(r'd="(M[^"]+)" style="fill:none;stroke:var\(--c0', drawn)
    assert line.count("M") == 2
    assert len(points(drawn)) == 1


@pytest.mark.parametrize("y", [[], [None], [0.0, 0.0], [math.nan], [5e-324], [1e300]])
def test_where_nothing_can_be_drawn_a_chart_says_so(y):
    assert "nothing here is a number above 0" in chart_svg(chart(y, y_base=10))


def test_a_long_line_keeps_its_highest_and_lowest_points():
    y = [1.0] * 20_000
    y[7_777], y[12_345] = 50.0, 0.02
    drawn = chart_svg(chart(y, y_base=10))
    (line,) = re.findall(r'd="(M[^"]+)" style="fill:none;stroke:var\(--c0', drawn)
    heights = {float(each) for each in re.findall(r"[ML][\d.]+ ([\d.]+)", line)}
    assert len(drawn) < 40_000
    assert max(heights) - min(heights) > 200


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (linear([0, 4], whole=True), ["0", "1", "2", "3", "4"]),
        (linear([1.0, 1.0]), None),
        (logarithmic([1e-9, 1.0]), ["10⁻⁸", "10⁻⁶", "10⁻⁴", "10⁻²", "10⁰"]),
        (logarithmic([1, 2, 16], base=2), ["1", "2", "4", "8", "16"]),
        (logarithmic([1e-270]), None),
        (logarithmic([1e200, 1e-270, 5e-324, 1e300]), None),
    ],
)
def test_numbers_stand_along_an_axis_within_it(scale, words):
    ticks = scale.ticks(7)
    assert ticks and all(-0.01 <= scale.share(value) <= 1.01 for value, _ in ticks)
    assert words is None or [text for _, text in ticks] == words


def test_a_legend_names_every_line():
    named = chart([1.0], level=(0.5, "half"), circle=False)
    assert [each.text.strip() for each in tree(legend(named)).all("li")] == ["words", "half"]


# ---- what it says first ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "changed", "word", "tone"),
    [
        ("flow", {"lag_to_one_percent": 6}, "1 % after 6 steps", "plain"),
        ("flow", {"lag_to_one_percent": None}, "no fall to 1 %", "plain"),
        ("flow", {"nonfinite_reason": "h_3 is not finite"}, "nonfinite", "bad"),
        ("truncation", {"window_for_cosine_99": 4}, "window 4", "plain"),
        ("truncation", {"window_for_cosine_99": None}, "no window", "warn"),
        ("truncation", {"nonfinite_reason": "h_3 is not finite"}, "nonfinite", "bad"),
        ("spectrum", {"spectral_radius": 0.5, "norm_bound_certifies": "vanishing"}, "radius 0.5", "bad"),
        ("spectrum", {"spectral_radius": 0.5, "norm_bound_certifies": "nothing"}, "radius 0.5", "plain"),
        ("spectrum", {"spectral_radius": None, "jacobian_norm_mean": None}, "not known", "warn"),
        ("spectrum-gates", {"jacobian_norm_mean": 0.75}, "factor 0.75", "plain"),
        ("lyapunov", {"largest": None}, "not known", "warn"),
        ("lyapunov", {"largest": math.nan}, "not known", "warn"),
        ("lyapunov", {"largest": 0.1, "largest_stderr": 0.2, "marginal": True}, "marginal", "plain"),
        ("lyapunov", {"largest": -0.1, "largest_stderr": None}, "contracting", "plain"),
        ("lyapunov", {"largest": 0.1, "largest_stderr": None}, "above 0", "warn"),
        ("lyapunov", {"largest": 0.1, "largest_stderr": 0.01}, "chaotic", "bad"),
        ("gradnorm-history", {"nonfinite_steps": 2}, "nonfinite", "bad"),
        ("gradnorm-history", {"reach_at_last_step": 0.25}, "reach 0.25", "plain"),
        ("gradnorm", {"verdict": "vanishing", "reason": "so"}, "vanishing", "bad"),
        ("gradnorm", {"verdict": "undecided", "reason": "so"}, "undecided", "warn"),
        ("gradnorm", {"verdict": "stable", "reason": "so"}, "stable", "good"),
    ],
)
def test_the_verdict_is_that_of_the_scalars_and_unknown_is_said(schema, changed, word, tone):
    usual = {
        **{"nonfinite_reason": None, "seq_len": 9, "marginal": False, "spectral_norm": 1.0, "state": "h_t"},
        **{"nonfinite_steps": 0, "reach_at_first_step": 1.0, "first_step": 0, "last_step": 5},
    }
    found = verdict(Answer(schema, {**usual, **changed}))
    assert (found.word, found.tone) == (word, tone)


@dataclass(frozen=True, eq=False)
class Answer(Result):
    schema: str
    scalars: Any
    rows: Any = ()
    more: Any = None


FINDING = {
    "finding": "vanishing",
    "severity": "fault",
    "weight": "rnn.weight_hh_l0",
    "number": 1.25e-9,
    "threshold": 0.001,
    "evidence": "rnnctl gradnorm --seq-len 40",
    "remedy": "from rnnctl.initializers import orthogonal_",
    "sentence": HOSTILE,
}
DOCTOR = Layout((Table(tuple(Column(name, name, right=False) for name in FINDING)),), more={"looked_at": ()})


def test_findings_are_cards_with_their_number_and_what_to_copy(monkeypatch):
    monkeypatch.setitem(LAYOUTS, "doctor", DOCTOR)  # type: ignore[arg-type]
    second = {**FINDING, "finding": "window", "severity": "note", "number": None, "remedy": None, "sentence": "cut"}
    answer = Answer("doctor", {}, (FINDING, second), {"looked_at": []})
    read = tree(page(answer, MADE))
    (card,) = read.all("div", id="verdict")
    assert "bad" in str(card.attributes["class"]) and card.all("p")[0].text == "vanishing"
    assert "1 more below" in card.text
    first, other = read.all("ol", class_="findings")[0].all("li")
    assert "weight rnn.weight_hh_l0, number 1.25e-09, threshold 0.001" in first.text and "number" not in other.text
    assert [each.text for each in first.all("code")] == [FINDING["evidence"], FINDING["remedy"]]
    assert len(first.all("button")) == 2 and len(other.all("button")) == 1
    assert not read.all("img")


def test_a_doctor_who_finds_nothing_says_so(monkeypatch):
    monkeypatch.setitem(LAYOUTS, "doctor", DOCTOR)  # type: ignore[arg-type]
    (card,) = tree(page(Answer("doctor", {}, (), {"looked_at": []}), MADE)).all("div", id="verdict")
    assert "nothing found" in card.text and "good" in str(card.attributes["class"])


def test_numbers_on_the_page_are_written_as_everywhere():
    result = rnnctl.gradnorm(rnnctl.FullRNN(2, 3, 1), torch.randn(1, 5, 2))
    (table,) = tree(page(result, MADE)).all("table", class_="scalars")
    shown = {name: value for name, value, _ in cells(table)}
    assert shown["factor_per_step"] == number(result.scalars["factor_per_step"])
