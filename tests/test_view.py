"""Results as tables, JSON, JSONL and CSV."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rnnctl
from rnnctl.results import Result
from rnnctl.view import progress, tables
from rnnctl.view.layouts.layout import Column, Layout, Table, headline
from rnnctl.view.layouts.table import LAYOUTS
from rnnctl.view.machine import csv_text, json_text, jsonl_text, strict
from rnnctl.view.numbers import log_bars, log_scale, number
from rnnctl.view.render import rendered
from rnnctl.view.terminal import Terminal, View

CONFIG = {
    "input_size": 1,
    "hidden_size": 2,
    "output_size": 3,
    "nonlinearity": "tanh",
    "seq_len": 4,
    "batch_size": 5,
    "loss": "mse",
    "loss_at": "last",
    "input": None,
    "seed": 6,
    "dtype": "float32",
    "device": "cpu",
}
SCALARS = {
    "loss": 0.5,
    "grad_W_hh_norm": math.inf,
    "autograd_relative_error": None,
    "autograd_tolerance": None,
    "states": "sweep",
    "cancellation": math.nan,
    "factor_per_step": None,
    "fitted_steps": 1,
    "steps_to_one_percent": None,
    "first_over_last": 1.0,
    "spectral_radius": 0.25,
    "spectral_norm": 123456.0,
    "verdict": "stable",
    "reason": "over 4 steps: first_over_last 1",
    "vanish_below": 1e-3,
    "explode_above": 1e3,
    "first_nonfinite_step": None,
    "h_init_is_zero": True,
}


def row(t: int, norm: float) -> Mapping[str, Any]:
    return {"t": t, "grad_norm_W_hh": norm, "share": None, "grad_norm_h": -math.inf, "grad_norm_h_direct": 0.0}


@dataclass(frozen=True)
class Made(Result):
    """A result of gradnorm's kind."""

    schema: ClassVar[str] = "gradnorm"
    scalars: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]


MADE = Made(SCALARS, (row(0, 0.0), row(1, 1e-300), row(2, 1.5), row(3, math.inf)))


def text_of(result: Made = MADE, form: str = "table", **settings: Any) -> str:
    return rendered(result, View(form, **settings), CONFIG, versions={"rnnctl": "0", "torch": "0"})


def test_every_public_result_is_one_and_knows_further_records_and_words_or_none() -> None:
    public = [getattr(rnnctl, name) for name in rnnctl.__all__]
    results = [each for each in public if isinstance(each, type) and hasattr(each, "schema")]
    assert {"GradNorms", "Flow", "Spectrum", "CheckReport", "StepShapes"} <= {each.__name__ for each in results}
    assert all(issubclass(each, Result) for each in results)
    assert (MADE.more, MADE.conditions) == ({}, {})


finite_or_not = st.floats(allow_nan=True, allow_infinity=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite_or_not | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=30)
@given(values)
def test_json_is_strict_for_any_value(value: Any) -> None:
    json.loads(json_text({"value": value}), parse_constant=lambda name: pytest.fail(name))


@settings(max_examples=30)
@given(st.dictionaries(st.text(min_size=1), st.none() | st.booleans() | st.integers() | st.text()))
def test_json_keeps_what_is_finite(record: dict[str, Any]) -> None:
    assert json.loads(json_text(record)) == record


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_json_and_csv_keep_every_digit(value: float) -> None:
    assert json.loads(jsonl_text([{"x": value}]))["x"] == value
    assert float(csv_text([{"x": value}]).splitlines()[1]) == value


def test_nonfinite_numbers_are_null_and_named_beside() -> None:
    found = strict({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0, "deep": [{"a": math.nan}, math.inf]})
    assert found["nonfinite"] == {"a": "nan", "b": "inf", "c": "-inf"}
    assert (found["a"], found["b"], found["c"], found["d"]) == (None, None, None, 1.0)
    assert found["deep"] == [{"a": None, "nonfinite": {"a": "nan"}}, None]


def test_csv_has_nan_and_inf_as_such_and_no_value_as_an_empty_cell() -> None:
    record = {"a": math.nan, "b": -math.inf, "c": None, "d": True, "e": [4, 10], "f": "x,y", "g": 0.1}
    header, line = csv_text([record]).splitlines()
    assert header == "a,b,c,d,e,f,g"
    assert line == 'nan,-inf,,true,4x10,"x,y",0.1'


def test_jsonl_is_one_object_a_line() -> None:
    lines = text_of(form="jsonl").splitlines()
    assert [json.loads(line)["t"] for line in lines] == [0, 1, 2, 3]


def test_all_formats_hold_the_same_rows() -> None:
    document = json.loads(text_of(form="json"))
    lines = [json.loads(line) for line in text_of(form="jsonl").splitlines()]
    cells = list(csv.DictReader(io.StringIO(text_of(form="csv"))))
    assert document["rows"] == lines
    for line, cell, record in zip(lines, cells, MADE.rows, strict=True):
        assert float(cell["grad_norm_W_hh"]) == record["grad_norm_W_hh"]
        assert line["grad_norm_W_hh"] in (record["grad_norm_W_hh"], None)
    assert document["scalars"]["nonfinite"] == {"grad_W_hh_norm": "inf", "cancellation": "nan"}


@pytest.mark.parametrize("only", ["rows", "scalars"])
def test_only_one_part_is_in_the_document(only: str) -> None:
    other = {"rows": "scalars", "scalars": "rows"}[only]
    document = json.loads(text_of(form="json", only=only))
    assert only in document
    assert other not in document


def test_headline_says_what_was_run() -> None:
    assert headline("gradnorm", CONFIG) == (
        "gradnorm: FullRNN(1, 2, 3), tanh, T 4, batch 5, loss mse at last, random input, seed 6, float32 on cpu"
    )
    assert "sunspots" in headline("gradnorm", {**CONFIG, "input": "sunspots"})
    assert "reference sizes" in headline("bench", {**CONFIG, "seq_len": None})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (0.0, "0"),
        (1 / 3, "0.3333"),
        (1e-300, "1e-300"),
        (math.nan, "nan"),
        (1234567, "1,234,567"),
        ([4, 10], "(4, 10)"),
        ("text", "text"),
    ],
)
def test_number_is_short_and_says_what_it_is(value: Any, shown: str) -> None:
    assert number(value) == shown


def test_bars_grow_with_the_logarithm() -> None:
    assert log_bars([1e-4, 1e-2, 1.0], 11, ascii_only=True) == ["#", "######", "###########"]
    assert log_bars([1e-4, 1e-2, 1.0], 11, ascii_only=False) == ["█", "██████", "███████████"]


def test_bars_of_what_has_no_logarithm_are_empty_or_full() -> None:
    assert log_bars([0.0, None, math.nan, -1.0, math.inf, 5.0], 3, ascii_only=True) == ["", "", "", "", ">>>", "###"]
    assert log_bars([0.0, None], 3, ascii_only=False) == ["", ""]


@pytest.mark.parametrize("values", [[2.0, 3.0, 10.0], [0.5, 0.51], [7.0], [1e300, 1.1e300]])
def test_values_within_a_factor_of_ten_do_not_look_as_if_they_fell_to_nothing(values: list[float]) -> None:
    assert log_scale(values) == (pytest.approx(max(values) / 10), max(values))
    lengths = [len(bar) for bar in log_bars(values, 31, ascii_only=True)]
    assert lengths == [round(31 + 30 * math.log10(value / max(values))) for value in values]


def test_a_scale_over_more_than_a_decade_begins_at_the_smallest_value() -> None:
    assert log_scale([0.0, 1e-9, None, 1.0, math.inf, math.nan, -3.0]) == (1e-9, 1.0)
    assert log_scale([0.0, None, math.nan]) is None
    # A tenth of it is 0.
    assert log_scale([5e-324]) == (5e-324, 5e-324)


@pytest.mark.parametrize(("values", "ends"), [((1.5, 1e-300), "1e-300 .. 1.5"), ((2.0, 1.0), "0.2 .. 2")])
def test_the_title_of_a_bar_names_the_ends_of_its_scale(values: tuple[float, float], ends: str) -> None:
    rows = tuple(row(t, norm) for t, norm in enumerate((0.0, *values, math.inf)))
    assert f"W_hh, log {ends}\n" in text_of(replace(MADE, rows=rows))


def test_a_bar_of_nothing_positive_is_left_out() -> None:
    assert "W_hh, log 0.1 .. 1" in text_of(replace(MADE, rows=(row(0, 1.0), row(1, math.nan))))
    assert "W_hh, log" not in text_of(replace(MADE, rows=(row(0, 0.0), row(1, math.nan))))


@given(st.lists(st.none() | finite_or_not), st.integers(1, 40), st.booleans())
def test_bars_are_never_wider_than_they_may(numbers: list[float | None], width: int, ascii_only: bool) -> None:
    bars = log_bars(numbers, width, ascii_only=ascii_only)
    assert len(bars) == len(numbers)
    assert all(len(bar) <= width for bar in bars)
    assert not ascii_only or "".join(bars).isascii()


def test_table_shows_every_row_and_every_scalar_that_is_for_people() -> None:
    table = text_of()
    hidden = LAYOUTS["gradnorm"].hidden_scalars
    for name in SCALARS:
        assert (re.search(rf"^{name} ", table, re.MULTILINE) is None) == (name in hidden)
    assert all(re.search(rf"^ *{t} ", table, re.MULTILINE) for t in range(4))
    assert "because h_init = 0: that is not vanishing" in table


def test_table_has_no_escape_codes_unless_coloured() -> None:
    assert "\x1b" not in text_of()
    assert "\x1b[" in text_of(terminal=Terminal(color=True))


def test_table_without_a_width_is_never_folded_or_cropped() -> None:
    long = replace(MADE, scalars={**SCALARS, "states": "model", "autograd_relative_error": 1e-9})
    note = "sum of all G_t against autograd's W_hh.grad, along the states of the model's own pass; tolerance -"
    assert note in text_of(long)
    assert "…" not in text_of(long)


def test_table_of_a_given_width_stays_within_it() -> None:
    lines = text_of(terminal=Terminal(width=90), only="rows").splitlines()
    # The headline and the caption are sentences, which the terminal itself wraps.
    assert all(len(line) <= 90 for line in lines[1:-1])


NAMED = Layout(
    (
        Table(
            (
                Column("weight", "weight", right=False),
                Column("value", "a long title"),
                Column("word", "word", right=False, whole=True),
                Column("spare", "spare", spare=True),
            )
        ),
    )
)


def narrow(width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A table of a long name, a number and a word, without the headline."""
    monkeypatch.setitem(tables.LAYOUTS, "gradnorm", NAMED)  # type: ignore[arg-type]
    named = {"weight": "a.name.that.is.longer.than.any", "value": 1234567, "word": "vanishing", "spare": 0.125}
    text = text_of(Made({}, (named,)), only="rows", terminal=Terminal(width=width))
    return text.partition("cpu")[2].splitlines()


@pytest.mark.parametrize("width", [70, 50, 45])
def test_names_give_way_before_numbers_and_words_do(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(narrow(width, monkeypatch))
    assert "1,234,567" in text
    assert "vanishing" in text
    assert "a long title" in text
    assert ("0.125" in text) == (width > 45)


def test_where_nothing_fits_digits_are_folded_and_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = narrow(24, monkeypatch)
    assert "…" not in "".join(lines)
    assert sum(letter in "1234567" for line in lines for letter in line) == 7


def test_ascii_table_is_ascii() -> None:
    assert text_of(terminal=Terminal(ascii_only=True)).isascii()


def test_long_table_says_how_many_rows_it_leaves_out() -> None:
    long = replace(MADE, rows=tuple(row(t, 1.0) for t in range(100)))
    assert "60 rows in the middle are left out; --all shows them" in text_of(long)
    assert "left out" not in text_of(long, every=True)
    assert "left out" not in text_of(replace(MADE, rows=long.rows[:40]))


def test_markup_in_a_file_name_is_shown_as_it_stands() -> None:
    shown = rendered(MADE, View(), {**CONFIG, "input": "[bold]a:smile:.csv"}, versions={})
    assert "[bold]a:smile:.csv" in shown


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "over 4 steps: first_over_last 1"),
        ({"verdict": "vanishing", "reason": "first_over_last 1e-09 < 0.001"}, "first_over_last 1e-09 < 0.001"),
        ({"autograd_relative_error": 1e-7, "autograd_tolerance": 1e-5}, "tolerance 1e-05"),
        ({"steps_to_one_percent": 5}, "steps back until it has fallen to 1 %"),
    ],
)
def test_scalar_has_its_number_and_threshold_beside_it(changed: dict[str, Any], said: str) -> None:
    assert said in text_of(replace(MADE, scalars={**SCALARS, **changed}))


def test_what_has_no_value_says_why_and_each_reason_once() -> None:
    @dataclass(frozen=True)
    class Explained(Made):
        why: ClassVar[Mapping[str, str]] = {
            "autograd_relative_error": "not compared",
            "factor_per_step": "too short",
            "steps_to_one_percent": "too short",
            "first_over_last": "has a value, so that this is not said",
        }

    made = Explained(MADE.scalars, MADE.rows)
    lines = [line.split(maxsplit=2) for line in text_of(made, only="scalars").splitlines()]
    told = {words[0]: words[2].strip() for words in lines if len(words) == 3 and words[1] == "undefined"}
    assert told["autograd_relative_error"] == "not compared"
    assert (told["factor_per_step"], told["steps_to_one_percent"]) == ("too short", "as factor_per_step")
    document = json.loads(text_of(made, form="json"))
    assert document["why"] == {name: made.why[name] for name in list(made.why)[:3]}
    assert "why" not in json.loads(text_of(made, form="json", only="rows"))


class Screen(io.StringIO):
    """A terminal for progress bars."""

    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", -1.0)
    with progress.progress_bar("gradnorm", quiet=False) as show:
        assert show is not None
        show(0.5)
        show(1.0)
    assert "gradnorm" in screen.getvalue()


def test_progress_of_quick_work_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 1e9)
    with progress.progress_bar("gradnorm", quiet=False) as show:
        assert show is not None
        show(1.0)
    assert screen.getvalue().strip() == ""


@pytest.mark.parametrize(("quiet", "stream"), [(True, Screen()), (False, io.StringIO()), (False, None)])
def test_progress_is_silent_where_nobody_watches(
    quiet: bool, stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    with progress.progress_bar("gradnorm", quiet=quiet) as show:
        assert show is None
