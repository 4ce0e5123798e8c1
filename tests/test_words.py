"""Every word of the output is explained once, and what is said of it elsewhere is made of that."""

import ast
import importlib
import pkgutil
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from textwrap import wrap

import pytest
from shell import Ran, Run, commands, runner

import rnnctl
from rnnctl.benchmark import flow, gradnorm, probe
from rnnctl.errors import InputError
from rnnctl.gradients.verdict import VERDICTS
from rnnctl.results import Result
from rnnctl.view.explanation import explanation, word_list
from rnnctl.view.layouts.table import LAYOUTS
from rnnctl.view.terminal import Terminal
from rnnctl.view.words import Word, explained, glossary, notes_beside, word_of, words

ROOT = Path(__file__).parents[1]
# What the output and its notes say beside scalars and columns.
NOTIONS = """
G_t ||.|| share direct total cancellation factor_per_step reach leaf use sweep T_clones f_h f_y chi q nats Kaplan-Yorke
Henrici recovered undefined undecided BPTT W_hh W_xh W_hy h_init lag window cosine spectral_radius spectral_norm
departure_from_normality transient_growth Jacobian J_t saturated dead keep_gate Lyapunov_exponent mean_field_theory
standard_error marginal autograd standardize tokens vanishing exploding stable nonfinite no_gradient a_t h_t c_t x_t y_t
delta_t dL/dh_t dL/dc_t sigma_w Pesin GEMM singular_value eigenvalue softmax padding gate
"""
# Commands that need a file of the reader's own, or that measure time.
NOT_RUN = ("train:", "run.jsonl", "before.json", "lengths.npy", "weights.safetensors", "rnnctl bench")
# The result of each of these.
SCHEMAS = {
    "rnnctl gradnorm": "gradnorm",
    "rnnctl gradnorm --cell lstm": "gradnorm-modules",
    "rnnctl flow --only scalars": "flow",
    "rnnctl truncation": "truncation",
    "rnnctl spectrum": "spectrum",
    "rnnctl spectrum --cell lstm": "spectrum-gates",
    "rnnctl lyapunov --only scalars": "lyapunov",
    "rnnctl forward": "forward",
    "rnnctl forward --cell lstm": "forward-modules",
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    return runner(capsys, monkeypatch, tmp_path)


def kinds_of_results(base: type[Result] = Result) -> Iterator[type[Result]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds_of_results(kind)


@cache
def scalars() -> frozenset[str]:
    """Of every kind of result; patterns among them."""
    for each in pkgutil.walk_packages(rnnctl.__path__, "rnnctl."):
        if not each.name.endswith("__main__"):
            importlib.import_module(each.name)
    reports = (each.CASES.answers(compared=True).kinds for each in (gradnorm, flow, probe))
    declared = [*(kind.kinds for kind in kinds_of_results()), *reports]
    return frozenset(name for kinds in declared for name in kinds)


def columns() -> set[tuple[str, str, bool]]:
    """Field, title and whether it is a bar, of every table."""
    tables = [
        table
        for layout in LAYOUTS.values()
        for table in (*layout.tables, *layout.closing, *(each for more in layout.more.values() for each in more))
    ]
    return {(column.field, column.title, column.bar) for table in tables for column in table.columns}


def without_word(names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if word_of(name) is None})


def lines_at_80(word: Word) -> list[str]:
    return wrap(f"{word.term}: {word.text}", 80, break_on_hyphens=False)


# ---- every word is there ------------------------------------------------------------------------


def test_every_scalar_of_every_result_is_explained_with_a_note() -> None:
    assert len(scalars()) > 100
    assert without_word(scalars()) == []
    assert [name for name in scalars() if not explained(name).note] == []


def test_every_column_of_every_table_is_explained_by_its_field_and_by_its_title() -> None:
    assert len(columns()) > 100
    assert without_word(name for field, title, _ in columns() for name in (field, title)) == []
    assert {explained(title).term for _, title, is_bar in columns() if is_bar} == {"log bar"}


def test_every_verdict_and_every_notion_is_explained() -> None:
    assert without_word([*VERDICTS, *NOTIONS.split()]) == []


@pytest.mark.parametrize(
    ("name", "term"),
    [
        ("cosine_at_20", "cosine"),
        ("relative_error_at_5", "relative_error"),
        ("unique_encoder.weight", "leaf"),
        ("encoder.weight_uses", "use"),
        ("grad_norm_f", "grad_norm_?"),
        ("grad_norm_h", "grad_norm_h"),
        ("transient_growth_step", "transient_growth_step"),
        ("spectral_radius_error", "spectral_radius_error"),
    ],
)
def test_a_name_fits_a_pattern_unless_it_has_a_word_of_its_own(name: str, term: str) -> None:
    assert explained(name).term == term


@pytest.mark.parametrize(
    ("name", "term"),
    [("K", "window"), ("k", "loss"), ("G", "G_t"), ("g", "gate"), ("f", "gate"), ("F", "gate"), ("h_n", "h_t")],
)
def test_two_words_that_differ_in_case_alone_are_told_apart(name: str, term: str) -> None:
    assert explained(name).term == term


def test_no_name_is_there_twice() -> None:
    owners: dict[str, list[str]] = {}
    for word in words():
        for name in word.names:
            # K and k are two.
            owners.setdefault(re.sub(r"[\s_-]+", " ", name), []).append(word.term)
    assert {key: terms for key, terms in owners.items() if len(terms) > 1} == {}


# ---- every word is whole ------------------------------------------------------------------------


@pytest.mark.parametrize("word", words(), ids=lambda word: word.term)
def test_a_word_has_two_to_six_lines_an_equation_and_a_command(word: Word) -> None:
    assert 2 <= len(lines_at_80(word)) <= 6
    assert len(explanation(word, Terminal()).splitlines()) <= 6
    assert re.fullmatch(r"none, \w.+|.+( of |[=<>|/(]).+", word.equation)
    name, *arguments = shlex.split(word.see.removeprefix("rnnctl "))
    assert word.see.startswith("rnnctl ")
    # An option that is not there, or a value that it does not take, is an error.
    with commands().commands[name].make_context(name, arguments) as context:
        assert context.params
    assert f"{word.note}{word.see}{word.text}{word.equation}".isascii()
    assert "\n" not in word.note


def test_the_command_of_a_scalar_or_column_shows_it(run: Run) -> None:
    found: dict[str, Ran] = {}
    for word in words():
        if not word.note or any(part in word.see for part in NOT_RUN):
            continue
        if word.see not in found:
            found[word.see] = run(word.see.removeprefix("rnnctl "))
        assert found[word.see].code == 0, word.see
        assert any(name.strip("*") in found[word.see].out for name in word.names), f"{word.see} shows no {word.term}"
    assert len(found) > 20
    for see, schema in SCHEMAS.items():
        assert_says_what_the_file_says(found[see].out if see in found else run(see.removeprefix("rnnctl ")).out, schema)


@pytest.mark.parametrize("verdict", ["vanishing", "exploding", "stable", "nonfinite", "undecided"])
def test_the_command_of_a_verdict_comes_to_it(verdict: str, run: Run) -> None:
    found = run(explained(verdict).see.removeprefix("rnnctl "))
    assert re.search(rf"^verdict +{verdict} ", found.out, flags=re.MULTILINE)


def assert_says_what_the_file_says(table: str, schema: str) -> None:
    """Beside every scalar with a fixed note, where it has a value."""
    said = notes_beside(schema)
    lines = {line.split()[0]: line for line in table.splitlines() if line.split()}
    shown = [term for term in said if term in lines and "undefined" not in lines[term]]
    assert shown
    for term in shown:
        assert said[term] in lines[term]


# ---- what is made of them -----------------------------------------------------------------------


def test_no_layout_has_a_fixed_sentence_of_its_own_beside_a_scalar() -> None:
    kept = [
        f"{path.name}: {key.value}"
        for path in (ROOT / "rnnctl" / "view" / "layouts").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        # What depends on values is no constant; where the step is 1, "n" is all that is said of it.
        if isinstance(key, ast.Constant) and isinstance(value, ast.Constant) and value.value not in ("", "n")
        if key.value in scalars()
    ]
    assert kept == []


def test_notes_are_of_results_and_scalars_that_there_are() -> None:
    for word in words():
        for schema in (*word.beside, *word.notes):
            assert schema in LAYOUTS
            assert word.term in scalars() | {"theory"}
            assert word.said_in(schema)
        assert word.said_in("no such result") is None


def test_a_note_that_one_result_says_otherwise_is_said_there_alone() -> None:
    assert notes_beside("gradnorm")["steps_to_one_percent"] == "steps back until it has fallen to 1 %"
    assert notes_beside("lyapunov")["steps_to_one_percent"] == "until a perturbation has shrunk to 1 %"
    assert "steps_to_one_percent" not in notes_beside("flow")


def test_a_glossary_is_a_markdown_table_with_a_row_for_every_word_once() -> None:
    head, rule, *rows = glossary(["per step", "factor_per_step", "cancellation"]).splitlines()
    assert (head, rule) == ("| word | what it says |", "|---|---|")
    assert [row.split("`")[1] for row in rows] == ["factor_per_step", "cancellation"]
    # A bar ends a cell unless it is escaped.
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3, 3]
    assert "\\|\\|sum G_t\\|\\|" in rows[1]
    assert glossary(["nats"]).splitlines()[2] == f"| `nats` | {explained('nats').text} |"
    with pytest.raises(InputError, match="Did you mean share"):
        glossary(["shares"])


def shown_by_gradnorm(table: str) -> list[str]:
    """The columns and scalars of what ``rnnctl gradnorm`` prints, in their order."""
    lines = [line.strip() for line in table.splitlines()]
    # Of a bar the ends of its scale, which are not words.
    titles = re.sub(r"(, log) .*", r"\1", next(line for line in lines if line.startswith("t ")))
    first = next(i for i, line in enumerate(lines) if line.startswith("loss "))
    return [*re.split(r" {2,}", titles), *(line.split()[0] for line in lines[first:] if line)]


def test_the_glossary_of_the_readme_has_every_column_and_scalar_of_gradnorm(run: Run) -> None:
    names = shown_by_gradnorm(run("gradnorm").out)
    assert {"t", "share", "W_hh, log", "cancellation", "verdict"} <= set(names)
    _, mark, after = (ROOT / "README.md").read_text(encoding="utf-8").partition("<!-- glossary -->\n")
    written = re.split(r"^#", after, maxsplit=1, flags=re.MULTILINE)[0].strip()
    assert written == (glossary(names).strip() if mark else "")


# ---- explain ------------------------------------------------------------------------------------


def test_explain_says_of_every_term_its_text_its_equation_and_its_command(run: Run) -> None:
    for word in words():
        found = run("explain", word.term)
        assert (found.code, found.err) == (0, "")
        said = " ".join(found.out.split())
        for part in (word.text, word.equation, word.see):
            assert " ".join(part.split()) in said
        assert "\x1b" not in found.out


@pytest.mark.parametrize(
    "line",
    [
        "kaplan yorke",
        "KAPLAN-YORKE",
        "Kaplan_Yorke_Dimension",
        "kaplan-yorke dimension",
        " kaplan  yorke ",
    ],
)
def test_case_and_what_parts_the_parts_of_a_term_do_not_matter(line: str, run: Run) -> None:
    assert run("explain", *line.split()).out.startswith("kaplan_yorke_dimension: ")
    assert run("explain", line).out.startswith("kaplan_yorke_dimension: ")


@pytest.mark.parametrize(
    ("line", "nearest"),
    [
        ("cancelation", "cancellation"),
        ("grad norm Whh", "grad_norm_W_hh"),
        ("spectral-radios", "spectral_radius"),
        ("henrichi", "Henrici"),
        ("undefind", "undefined"),
        ("lyapunow exponent", "Lyapunov exponent"),
    ],
)
def test_an_unknown_term_is_refused_with_the_nearest(line: str, nearest: str, run: Run) -> None:
    found = run(f"explain {line}")
    assert (found.code, found.out) == (2, "")
    assert found.err == (
        f"Error: no word {line!r} is explained; 'rnnctl explain' lists those that are. Did you mean {nearest}?\n"
    )


def test_of_a_term_that_is_near_to_none_nothing_is_guessed(run: Run) -> None:
    found = run("explain zzzzqqqq")
    assert (found.code, found.out) == (2, "")
    assert found.err.endswith("'rnnctl explain' lists those that are\n")


@pytest.mark.parametrize("width", [60, 80, 160])
def test_what_is_explained_and_listed_fits_into_the_window(width: int) -> None:
    for word in words():
        text = explanation(word, Terminal(width))
        assert max(map(len, text.splitlines())) <= width, word.term
    listed = word_list(Terminal(width)).splitlines()
    assert max(map(len, listed)) <= width
    assert all(line == line.rstrip() for line in listed)


def test_the_list_has_every_term_once_under_its_group(run: Run) -> None:
    found = run("explain")
    assert (found.code, found.err) == (0, "")
    blocks = [block.splitlines() for block in found.out.split("\n\n")]
    listed = {
        lines[0]: sorted(term for line in lines[1:] for term in re.split(r" {3,}", line.strip()))
        for lines in blocks[:-1]
    }
    expected: dict[str, list[str]] = {}
    for word in words():
        expected.setdefault(word.group, []).append(word.term)
    assert listed == {group: sorted(terms) for group, terms in expected.items()}
    assert blocks[-1][0].startswith("'rnnctl explain TERM'")


def test_a_list_reads_down_its_columns_and_takes_fewer_lines_in_a_wider_window() -> None:
    narrow, wide = (word_list(Terminal(width)).splitlines() for width in (60, 160))
    assert len(wide) < len(narrow)
    assert [line.split()[0] for line in narrow[1:3]] == ["t", "x_t"]


def test_in_colour_the_heads_are_bold_and_the_lines_as_long() -> None:
    word = explained("cancellation")
    bold, plain = explanation(word, Terminal(60, color=True)), explanation(word, Terminal(60))
    assert re.findall(r"\x1b\[1m(.*?)\x1b\[0m", bold) == ["cancellation", "equation", "see it"]
    assert re.sub(r"\x1b\[\d+m", "", bold) == plain
    listed = word_list(Terminal(60, color=True))
    assert re.sub(r"\x1b\[\d+m", "", listed) == word_list(Terminal(60))
    assert "\x1b[1mThe verdict" in listed
