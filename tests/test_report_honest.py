"""Pages of --report say what they cannot show, and the same whenever they are written."""

import re
from pathlib import Path

import pytest
from pages import Node, cells, embedded, tree
from shell import Run, forget_modules_of, runner

from rnnctl.view.html.chart import Chart, Curve
from rnnctl.view.html.svg import chart_svg, legend

TWO_LAYERS = """
import torch

class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for number in "12":
            self.add_module("a\\u2028b\\u202ec\\x1b[31m\\rd" + number, torch.nn.RNN(3, 3, batch_first=True))

    def forward(self, x):
        for layer in self.children():
            x, _ = layer(x)
        return x
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    return runner(capsys, monkeypatch, tmp_path)


def report(run: Run, folder: Path, line: str, *more: str) -> Node:
    ran = run(f"{line} --report page.html --force", *more)
    assert (ran.code, "wrote page.html" in ran.err) == (0, True), ran.err
    return tree((folder / "page.html").read_text(encoding="utf-8"))


# ---- a logarithmic axis ----------------------------------------------------------------------


def heights(drawn: str) -> list[float]:
    """Of the points of the first line, from left to right."""
    (line,) = re.findall(r'd="(M[^"]+)" style="fill:none;stroke:var\(--c0', drawn)
    return [float(each) for each in re.findall(r"[ML][-\d.]+ ([-\d.]+)", line)]


def falling(low: int, count: int = 100, **more: tuple[float, ...]) -> Chart:
    y = [10.0 ** (low * i / (count - 1)) for i in range(count)]
    return Chart("title", "x", "y", (Curve("words", list(range(count)), y, **more),), y_base=10)


@pytest.mark.parametrize("low", [-3, -59, -250])
def test_a_line_that_falls_is_drawn_falling_to_its_end(low):
    found = heights(chart_svg(falling(low)))
    steps = [after - before for before, after in zip(found, found[1:], strict=False)]
    assert len(found) == 100 and min(steps) > 2.0 and max(steps) - min(steps) < 0.25


def test_a_line_ends_where_numbers_are_too_small_and_the_legend_says_so():
    chart = falling(-300)
    found = heights(chart_svg(chart))
    assert len(found) == 90 and min(b - a for a, b in zip(found, found[1:], strict=False)) > 2.0
    assert tree(legend(chart)).text.strip() == "words (not drawn: below 1e-270 at 10 of 100)"


def test_the_legend_says_what_a_logarithmic_axis_has_no_place_for():
    y = [1.0, 0.0, None, float("nan"), float("inf"), 1e250, 0.5]
    curve = Curve("words", list(range(7)), y)
    log = Chart("title", "x", "y", (curve,), y_base=10)
    said = "words (not drawn: 0 at 1, above 1e+200 at 1, not finite at 2 of 7)"
    assert tree(legend(log)).text.strip() == said
    assert tree(legend(Chart("title", "x", "y", (curve,)))).text.strip() == "words"
    band = Curve("band", [0, 1], [1.0, 1.0], low=[0.5, 0.0])
    assert "band (not drawn: 0 at 1 of 2)" in tree(legend(Chart("title", "x", "y", (band,), y_base=10))).text


# ---- the same bytes, a title, an error ---------------------------------------------------------


def test_what_was_measured_of_time_is_not_on_the_page(run, tmp_path):
    line = "doctor --seq-len 6 --only-finding padding --timings"
    assert "what each cost" in run(line).out
    read = report(run, tmp_path, line)
    first = (tmp_path / "page.html").read_bytes()
    assert "seconds" not in [title for table in read.all("table") for title in cells(table)[0]]
    assert "timings" not in embedded(read) and "looked_at" in embedded(read)
    report(run, tmp_path, line)
    assert (tmp_path / "page.html").read_bytes() == first


@pytest.mark.parametrize(("title", "headings"), [("My <own> title", ["My <own> title"]), ("", [])])
def test_a_title_is_that_of_the_page(title, headings, run, tmp_path):
    read = report(run, tmp_path, "flow --seq-len 5", "--title", title)
    assert [each.text for each in read.all("h1")] == headings
    assert read.all("title")[0].text == f"rnnctl {title}".strip()
    assert "--title" not in read.all("div", class_="command")[-1].text


def test_an_error_repeats_no_control_character_of_a_name(run, tmp_path):
    (tmp_path / "hostile_names.py").write_text(TWO_LAYERS)
    ran = run("flow --model hostile_names:Two --seq-len 4 --input-size 3")
    forget_modules_of(tmp_path)
    assert ran.code == 2
    assert "a\\u2028b\\u202ec\\x1b[31m\\rd2.weight_hh_l0" in ran.err
    assert all(letter.isprintable() or letter == "\n" for letter in ran.err)


def test_lines_and_tabs_of_a_message_stay(capsys):
    from rnnctl.cli.streams import tell

    tell("Traceback:\n\tline 1\r\n")
    assert capsys.readouterr().err == "Traceback:\n\tline 1\\r\n\n"
