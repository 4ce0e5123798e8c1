"""The guide: its blocks print what they show, everything has its one place in it, and any terminal can show it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import FILE_NAME, ROOT, ROUNDING, assert_alike, assert_same_run, blocks_of, outputs
from shell import InThisProcess, Run, commands, forget_modules_of, runner

import rnnctl
from rnnctl.view.guide import CHAPTERS, chapter, folded, shown
from rnnctl.view.terminal import Terminal

HEAVY = ("torch", "numpy", "matplotlib")
# Where bars do not fit they go, with what stands above them.
BAR_TITLE = re.compile(r"\S+, log( \S+ \.\. \S+)?")
# What begins a heading or a row of a table, in backticks: there it is defined, and nowhere else.
DEFINED = re.compile(r"^(?:#+|\|) `([^`]+)`", flags=re.MULTILINE)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setattr("rnnctl.cli.sweeping.making.WorkerPool", InThisProcess)
    return runner(capsys, monkeypatch, tmp_path)


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_block_of_a_chapter_prints_what_it_shows(name: str, run: Run, tmp_path: Path) -> None:
    try:
        for block in blocks_of(chapter(name)):
            for what, found, expected in outputs(block, run, tmp_path):
                (assert_same_run if "run.jsonl" in what else assert_alike)(found, expected)
    finally:
        forget_modules_of(tmp_path)
    if "factors.csv" in chapter(name):
        lines = (tmp_path / "factors.csv").read_text(encoding="utf-8").splitlines()
        assert [line.split(",")[0] for line in lines] == ["hidden_size", "10", "160"]


def test_every_chapter_has_blocks_and_begins_with_its_title_and_its_one_line() -> None:
    for name in CHAPTERS:
        title, empty, line, end = chapter(name).split("\n")[:4]
        assert (title.removeprefix("# ").lower().replace(" ", "-"), empty, end) == (name, "", "")
        assert 20 < len(line) <= 60
        assert [block for block in blocks_of(chapter(name)) if not FILE_NAME.match(block.text)]


def existing() -> list[str]:
    """Every command, every option by its first long name, and every public name, as the guide has it in backticks."""
    app = commands()
    options = {
        next(name for name in each.opts if name.startswith("--"))
        for command in (app, *app.commands.values())
        for each in command.params
        if each.param_type_name == "option"
    }
    public = [f"rnnctl.{name}" for name in rnnctl.__all__]
    return [*(f"rnnctl {name}" for name in app.commands), *sorted(options | {"--help"}), *public]


def test_every_command_option_and_public_name_is_defined_in_one_place() -> None:
    defined = [name for where in CHAPTERS for name in DEFINED.findall(chapter(where))]
    assert len(existing()) > 120
    assert [name for name in existing() if defined.count(name) != 1] == []


def test_no_name_is_defined_twice() -> None:
    defined = [name for where in CHAPTERS for name in DEFINED.findall(chapter(where))]
    named = [name for name in defined if name.startswith(("-", "rnnctl"))]
    assert [name for name in named if named.count(name) > 1] == []


def test_what_must_be_defined_is_found_in_the_commands_themselves() -> None:
    looked_for = {"rnnctl gradnorm", "rnnctl guide", "--hidden-size", "--windows", "--version", "rnnctl.probe"}
    assert looked_for <= set(existing())


@pytest.mark.parametrize("words", ["your-model", "your model", "Your_Model", "YOUR  MODEL"])
def test_a_chapter_is_found_by_its_words_in_any_spelling(words: str, run: Run) -> None:
    ran = run("guide", words)
    assert (ran.code, ran.out, ran.err) == (0, chapter("your-model"), "")
    assert run("guide " + words.replace("_", " ")).out == ran.out


def test_the_list_has_one_line_for_every_chapter(run: Run) -> None:
    lines = [line for line in run("guide").out.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == list(CHAPTERS)
    for line in lines:
        assert len(line) <= 78
        assert f"\n{line.split('  ')[-1].strip()}\n" in chapter(line.split()[0])


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("gradeint", "gradients"), ("repairs", "repair"), ("howfar", "how-far-back")],
)
def test_an_unknown_chapter_is_refused_with_the_nearest_and_all_of_them(asked: str, meant: str, run: Run) -> None:
    ran = run("guide", asked)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: ")
    assert f"{asked!r}" in ran.err
    assert f"Did you mean {meant}?" in ran.err
    assert ", ".join(CHAPTERS) in ran.err


@pytest.mark.parametrize(
    ("asked", "meant"), [("gradient", "gradients"), ("how far", "how-far-back"), ("your", "your-model")]
)
def test_the_beginning_of_one_chapter_is_enough(asked: str, meant: str, run: Run) -> None:
    assert run("guide", asked).out == run("guide", meant).out
    # Of two chapters it tells neither.
    assert run("guide", "s").code == 2


def test_a_section_is_found_by_its_heading(run: Run) -> None:
    found = run("guide", "security").out
    assert found == run("guide SECURITY").out
    assert found.startswith("## Security\n")
    assert found.strip() in chapter("scripts")
    assert "\n## " not in found


def test_no_file_outside_the_guide_is_a_chapter(run: Run) -> None:
    for asked in ("../README", "/etc/passwd", "words.toml", " "):
        assert run("guide", asked).code == 2


@pytest.mark.parametrize("width", [40, 60, 80, 160])
@pytest.mark.parametrize("name", CHAPTERS)
def test_a_terminal_shows_every_word_of_a_chapter_in_its_width(name: str, width: int) -> None:
    """No line is longer, and no word or number is broken or lost: each is found again."""
    text = chapter(name)
    found = shown(text, Terminal(width=width))
    for line in found.splitlines():
        assert len(line) <= width, line
    # In 40 columns a cell of a table may be narrower than a name.
    if width >= 60:
        # With a bar its title goes, and the ends of its scale there.
        there = words_of(BAR_TITLE.sub("", text) if width < 83 else text)
        assert not there - words_of(found)


def test_headings_are_told_from_text_without_colour() -> None:
    for name in CHAPTERS:
        headings = re.findall(r"^##? .+", chapter(name).replace("`", ""), flags=re.MULTILINE)
        assert len(headings) > 4
        assert set(headings) <= set(shown(chapter(name), Terminal(width=160)).splitlines())


def words_of(text: str) -> set[str]:
    """Of prose, tables and code; names and numbers whole."""
    return set(re.findall(r"\w[\w.-]*\w", text)) - {"console", "python", "text", "sh", "toml", "csv"}


README = (ROOT / "README.md").read_text(encoding="utf-8")
LINKS = re.findall(r"\]\(([^)]+)\)", README)


def test_the_readme_is_read_in_two_minutes_and_leads_to_every_chapter() -> None:
    assert len(README.splitlines()) <= 220
    assert {f"rnnctl/guide/{name}.md" for name in CHAPTERS} <= set(LINKS)
    for link in LINKS:
        assert (ROOT / link).is_file(), link


def test_the_readme_shows_a_small_picture_that_comes_with_the_command_that_drew_it() -> None:
    (picture,) = [link for link in LINKS if link.endswith((".png", ".svg"))]
    assert (ROOT / picture).parent == ROOT / "rnnctl" / "guide"
    assert (ROOT / picture).stat().st_size < 100_000
    assert re.search(rf"!\[[^\]]{{20,}}\]\({picture}\)", README)
    assert re.search(rf"`rnnctl \w+[^`]* --plot {Path(picture).name}`", README)


def test_the_readme_says_by_how_much_the_tests_let_numbers_differ() -> None:
    assert_alike("a 1.019", "a 1")
    assert_alike(f"a {0.9 * ROUNDING}", "a 0")
    for found, expected in (("a 1.021", "a 1"), (f"a {1.1 * ROUNDING}", "a 0")):
        with pytest.raises(AssertionError):
            assert_alike(found, expected)
    assert "by 2 %, or by 1e-5 where they are rounding itself" in README


def test_a_terminal_sees_a_chapter_drawn_in_its_width_and_in_colour(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "64")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = run("guide why").out
    assert "\x1b[" in coloured
    assert coloured == shown(chapter("why"), Terminal(width=64, color=True))
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("NO_COLOR", "1")
    assert run("guide why").out == shown(chapter("why"), Terminal(width=64))


@pytest.mark.parametrize("width", [None, 70])
def test_where_there_is_only_ascii_a_chapter_is_ascii(width: int | None) -> None:
    for name in CHAPTERS:
        assert shown(chapter(name), Terminal(width=width, ascii_only=True)).isascii()


def test_bars_go_where_they_do_not_fit_and_other_lines_go_on_below_their_last_column() -> None:
    table = " t    norm   bar\n ──────────────\n 0       1   ███\n 1      22   █▏"
    assert list(folded(table, 16)) == table.split("\n")
    assert list(folded(table, 14)) == [" t    norm", " ───────────", " 0       1", " 1      22"]
    assert list(folded("name   1  a b c d e\n\nx", 14)) == ["name   1  a b", "       c d e", "", "x"]
    assert list(folded("1.25,2.25,3.25", 10)) == ["1.25,2.25,", "    3.25"]


def test_the_guide_does_not_import_torch() -> None:
    """Listed, shown, drawn and refused in an interpreter of its own."""
    script = f"""
import sys
from rnnctl.__main__ import main
from rnnctl.view.guide import chapter, shown
from rnnctl.view.terminal import Terminal
codes = [int(main(line.split())) for line in ("guide", "guide why", "guide nosuch", "guide --help")]
shown(chapter("why"), Terminal(width=80, color=True))
print(codes, [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stderr.splitlines()[-1] == "[0, 0, 2, 0] []"
