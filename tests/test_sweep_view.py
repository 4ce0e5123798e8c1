"""How a sweep looks: map and lines of characters, tables, machine formats, the headline."""

import csv
import io
import json
import math
import random
import re

import pytest
from made_sweeps import sweep

from rnnctl.errors import InputError
from rnnctl.view.grid_axes import axes_of, is_logarithmic, labels_of, planned, require_drawable, words_of
from rnnctl.view.layouts.layout import headline
from rnnctl.view.layouts.table import LAYOUTS
from rnnctl.view.render import rendered
from rnnctl.view.scale import scale_of
from rnnctl.view.terminal import Terminal, View

GAINS = [0.5, 1.0, 1.5, 2.0, 2.5]
BELOW, ABOVE = ".:-=", "*#%@"
ANSI = re.compile(r"\x1b\[[\d;]*m")


def shown(result, width=None, *, color=False, ascii_only=False, **view):
    config = {"command": "sweep lyapunov", "vary": {name: [1, 2] for name in result.axes}}
    return rendered(result, View(terminal=Terminal(width, color, ascii_only), **view), config, {})


def picture(result, width=None, **terminal):
    return LAYOUTS["sweep"].picture(result, Terminal(width, **terminal)).splitlines()


def signs_in(lines, labels, count):
    """One sign for every cell of a map, by the label of its row."""
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line.split() and line.split()[0] in labels}
    block = len(next(iter(rows.values()))) // count
    return {label: row[::block] for label, row in rows.items()}


# ---- the map in the terminal --------------------------------------------------------------------


def test_every_cell_of_a_map_has_the_sign_of_its_distance_from_the_critical_value():
    axes = {"gain": GAINS, "hidden_size": [16, 64, 256]}
    drawn = {(g, h): round(math.log(g) * 0.7 + 0.03 * math.log(h), 3) for g in GAINS for h in axes["hidden_size"]}
    lines = picture(sweep(axes, lambda at: drawn[at["gain"], at["hidden_size"]]))
    reach = max(abs(value) for value in drawn.values())
    assert lines[0] == "median of largest: hidden_size up, gain across"
    # Upwards is larger.
    assert [line.split()[0] for line in lines[2:5]] == ["256", "64", "16"]
    found = signs_in(lines, {"16", "64", "256"}, len(GAINS))
    for (gain, hidden), value in drawn.items():
        ramp = "*#%@" if value > 0 else "=-:."
        expected = ramp[min(3, int(abs(value) / reach * 4))]
        assert found[str(hidden)][GAINS.index(gain)] == expected, (gain, hidden, value)


def test_a_factor_over_decades_is_on_a_log_scale_about_one():
    factors = {1: 1 / 81, 2: 1 / 28, 3: 1 / 8, 4: 1 / 2, 5: 1.0, 6: 1.1, 7: 3.1, 8: 9.1, 9: 80.0}
    result = sweep(
        {"gain": list(factors), "batch_size": [1, 2]}, lambda at: factors[at["gain"]], value="factor_per_step"
    )
    lines = picture(result)
    # Four steps of a factor of 3 on either side.
    assert signs_in(lines, {"1", "2"}, 9)["2"] == "..-=+*#%@"
    assert "at 1" in lines[-1]
    assert "a factor of 3 each" in lines[-1]


@pytest.mark.parametrize(("value", "critical"), [("largest", 0.0), ("factor_per_step", 1.0), ("spectral_radius", 1.0)])
@pytest.mark.parametrize("size", [1e-6, 0.3, 5.0])
def test_the_side_of_every_cell_is_seen_without_colour(value, critical, size):
    draw = random.Random(1)
    axes = {"gain": [float(i) for i in range(12)], "hidden_size": list(range(2, 7))}
    drawn = {(g, h): draw.gauss(0, size) for g in axes["gain"] for h in axes["hidden_size"]}
    at_value = {key: critical * math.exp(each) if critical else each for key, each in drawn.items()}
    lines = picture(sweep(axes, lambda at: at_value[at["gain"], at["hidden_size"]], value=value))
    found = signs_in(lines, set("23456"), 12)
    for (gain, hidden), number in at_value.items():
        assert found[str(hidden)][int(gain)] in (ABOVE if number > critical else BELOW)


def test_infinities_lie_at_the_ends_and_on_their_side():
    ends = {1: -math.inf, 2: -0.1, 3: 0.0, 4: 0.2, 5: math.inf}
    result = sweep({"gain": list(ends), "batch_size": [1, 2]}, lambda at: ends[at["gain"]])
    assert signs_in(picture(result), {"1", "2"}, 5)["1"] == ".:+@@"
    result = sweep({"gain": [1, 5], "batch_size": [1, 2]}, lambda at: ends[at["gain"]])
    assert signs_in(picture(result), {"1", "2"}, 2)["1"] == ".@"
    assert picture(result)[-1] == "nothing finite: . -inf, @ inf"


def test_points_without_a_number_have_signs_of_their_own_that_the_legend_names():
    axes = {"gain": [1, 2, 3, 4], "hidden_size": [8, 16]}
    values = {1: "failed", 2: None, 3: 0.5, 4: -0.5}
    points = [(gain, hidden) for gain in values for hidden in (8, 16) if (gain, hidden) != (3, 8)]
    lines = picture(sweep(axes, lambda at: values[at["gain"]], points=points))
    assert signs_in(lines, {"8", "16"}, 4) == {"16": "!?@.", "8": "!? ."}
    assert lines[-1] == "! failed, ? undefined, blank: no run"
    lines = picture(sweep(axes, lambda at: 0.5))
    assert lines[-1].startswith("scale: ")
    assert picture(sweep(axes, lambda at: "failed"))[-2:] == ["no number to draw", "! failed"]


def test_values_without_a_critical_one_use_the_whole_ramp_linear_or_log():
    axes = {"seq_len": [1, 2, 3], "batch_size": [1, 2]}
    lags = {1: 10, 2: 14, 3: 19}
    lines = picture(sweep(axes, lambda at: lags[at["seq_len"]], value="lag_to_one_percent"))
    assert signs_in(lines, {"1", "2"}, 3)["1"] == ".+@"
    assert lines[-1] == "scale: .:-=+*#%@ linear, from 10 to 19, 1 each"
    lags = {1: 0, 2: 10, 3: 1000}
    lines = picture(sweep(axes, lambda at: lags[at["seq_len"]], value="lag_to_one_percent"))
    assert signs_in(lines, {"1", "2"}, 3)["1"] == "..@"
    assert "log, from 10 or less to 1000" in lines[-1]


def test_values_are_in_order_whatever_the_order_of_the_grid():
    result = sweep({"gain": [2, 0.5, 1], "hidden_size": [64, 8]}, lambda at: at["gain"] - 1)
    lines = picture(result)
    assert lines[1].split() == ["0.5", "1", "2"]
    assert [line.split()[0] for line in lines[2:4]] == ["64", "8"]
    assert signs_in(lines, {"64", "8"}, 3)["8"] == ":+@"


def test_a_label_without_room_is_left_out_and_none_runs_into_another():
    gains = [i + 0.5 for i in range(100, 130)]
    for width in (40, 60, 70, 100, 200):
        lines = picture(sweep({"gain": gains, "batch_size": [1, 2]}, lambda at: 1.0), width)
        labels = lines[1].split()
        assert set(labels) <= {f"{gain:.4g}" for gain in gains}
        assert len(labels) > 3
        for label in labels:
            column, block = lines[1].index(label), (len(lines[2]) - 3) // len(gains)
            assert (column - 3) // block == gains.index(float(label))


def test_of_a_grid_that_is_larger_than_the_window_every_so_many_points_are_shown():
    axes = {"gain": [i / 100 for i in range(1, 151)], "hidden_size": list(range(1, 41))}
    lines = picture(sweep(axes, lambda at: at["gain"] - 0.5), 60)
    assert "(of 40 x 150 points every 2 x 3)" in lines
    rows = [line for line in lines if re.match(r" +\d+ [.:\-=*#%@+]+$", line)]
    assert len(rows) == 20
    # Of gains 0.01, 0.04, 0.07, ... those below 0.5.
    assert len(re.findall(r"[.:\-=]", rows[0].split()[1])) == len([g for g in axes["gain"][::3] if g < 0.5])
    assert max(map(len, rows)) <= 60


@pytest.mark.parametrize(
    ("texts", "count"), [(["a", "b"], 2), (["a", "b", "c", "d"], 4), (["a", "b", "c", "d", "e"], 0)]
)
def test_further_axes_make_up_to_four_maps_on_one_scale(texts, count):
    axes = {"gain": GAINS, "init": texts, "hidden_size": [8, 16]}
    result = sweep(axes, lambda at: math.log(at["gain"]) + (9 if at["init"] == "b" else 0))
    lines = picture(result)
    assert len([line for line in lines if line.startswith("init ")]) == count
    if count:
        first = lines[lines.index("init a") + 2]
        # Beside 9 more the values of a are all in the step next to 0.
        assert set(first.split()[1]) <= set("=+*")
        assert len([line for line in lines if line.startswith("scale: ")]) == 1
    else:
        assert lines == ["no picture: init would make 5 maps, of which 4 can be drawn"]


# ---- lines in the terminal ----------------------------------------------------------------------


def chart_of(result, width=80, **terminal):
    """The rows of a chart without their labels, and the lines below it."""
    lines = picture(result, width, ascii_only=True, **terminal)
    axis = next(
        i for i, line in enumerate(lines) if i > 3 and not re.match(r" *(-?[\d.e+-]+)? ?[ .:\-oxv^!?@a-hA-H]*$", line)
    )
    margin = len(lines[axis]) - len(lines[axis].lstrip())
    return [line[margin:].ljust(72) for line in lines[1:axis]], lines[axis:]


def test_medians_band_theory_and_critical_value_stand_where_they_belong():
    gains = [1.0, 2.0, 3.0, 4.0, 5.0]
    medians = dict(zip(gains, (-1.0, -0.5, 0.25, 0.5, 1.0), strict=True))
    result = sweep(
        {"gain": gains}, lambda at: medians[at["gain"]], spread=(-0.5, 0.0, 0.5), theory=lambda at: at["gain"] / 5 - 1.8
    )
    rows, below = chart_of(result)
    # p10 and p90 of three values lie 0.8 of the way out: the scale goes from theory's -1.6 to 1.4.
    low, high, width, height = -1.6, 1.4, 72, len(rows)

    def place(gain, value):
        return height - 1 - round((value - low) / (high - low) * (height - 1)), round((gain - 1) / 4 * (width - 1))

    for gain, median in medians.items():
        row, column = place(gain, median)
        assert rows[row][column] == "o"
        bottom, top = place(gain, median - 0.4)[0], place(gain, median + 0.4)[0]
        assert {rows[i][column] for i in range(top, bottom + 1)} <= set(":o-.x@")
        assert rows[top - 1][column] in " -" if top else True
    row, column = place(3, 3 / 5 - 1.8)
    assert rows[row][column] == "x"
    critical = rows[place(1, 0)[0]]
    assert critical.count("-") > 50
    assert below[0].split() == ["1", "gain", "5"]
    assert below[1] == "o median, : 10 to 90 %, x theory, - critical value 0"


def test_without_spread_there_is_no_band_and_without_theory_none():
    text = "\n".join(picture(sweep({"gain": GAINS}, lambda at: at["gain"] - 1), 80))
    assert "░" not in text
    assert "10 to 90" not in text
    assert "theory" not in text
    assert text.endswith("● median, ─ critical value 0")


def test_where_median_and_theory_meet_both_are_seen():
    result = sweep({"gain": GAINS}, lambda at: at["gain"] - 1, theory=lambda at: at["gain"] - 1)
    text = "\n".join(picture(result, 80))
    assert text.count("◉") == len(GAINS) + 1
    assert text.endswith("○ theory, ◉ both, ─ critical value 0")


def test_a_line_goes_from_left_to_right_whatever_the_order_of_the_grid():
    values = {2.0: 1.0, 0.5: -0.5, 1.0: 0.1}
    one, other = (sweep({"gain": order}, lambda at: values[at["gain"]]) for order in (list(values), sorted(values)))
    assert picture(one) == picture(other)


def test_a_logarithmic_grid_has_its_points_at_even_distances():
    rows, below = chart_of(sweep({"seq_len": [1, 10, 100, 1000]}, lambda at: 0.5))
    (row,) = [row for row in rows if "o" in row]
    assert [i for i, sign in enumerate(row) if sign == "o"] == [0, 24, 47, 71]
    assert below[0].split() == ["1", "seq_len,", "log", "1,000"]


def test_a_further_text_axis_makes_a_line_for_each_of_its_values():
    axes = {"gain": GAINS, "nonlinearity": ["tanh", "relu", "linear"]}
    lift = {"tanh": 0.0, "relu": 1.0, "linear": 2.0}
    result = sweep(axes, lambda at: lift[at["nonlinearity"]] - 1, theory=lambda at: lift[at["nonlinearity"]] - 1)
    rows, below = chart_of(result)
    for letter, row in (("a", rows[-1]), ("b", rows[len(rows) // 2]), ("c", rows[0])):
        # Theory lies under the medians, whose letters stay.
        assert row.count(letter) == len(GAINS)
    assert below[1:4] == ["a nonlinearity tanh", "b nonlinearity relu", "c nonlinearity linear"]
    assert below[4] == "capitals: theory, where it differs, - critical value 0"
    apart = sweep(axes, lambda at: -1.0, theory=lambda at: 1.0)
    assert any("A" in row or "@" in row for row in chart_of(apart)[0])


def test_points_without_a_number_stand_below_the_chart_and_infinities_at_the_ends():
    values = dict(zip(GAINS, ("failed", None, -0.5, 1.0, math.inf), strict=True))
    rows, below = chart_of(sweep({"gain": GAINS}, lambda at: values[at["gain"]]))
    assert (rows[-1].split(), rows[-1][18], rows[0][71]) == (["!", "?"], "?", "^")
    assert rows[-2].count("o") == 1
    assert below[1] == "o median, - critical value 0, ! failed, ? undefined, ^ inf"


@pytest.mark.parametrize("width", [40, 60, 80, 160])
@pytest.mark.parametrize(
    "axes", [{"gain": GAINS}, {"gain": GAINS, "hidden_size": [8, 1024]}, {"gain": GAINS, "init": ["orthogonal", "b"]}]
)
def test_pictures_fit_the_window_in_ascii_and_colour_changes_no_sign(axes, width):
    result = sweep(axes, lambda at: at["gain"] - 1.2, spread=(-0.2, 0.1, 0.2), theory=lambda at: at["gain"] - 1.3)
    text = shown(result, width, ascii_only=True)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    coloured = picture(result, width, color=True)
    assert "\x1b[38;5;" in "".join(coloured)
    assert [ANSI.sub("", line).rstrip() for line in coloured] == [line.rstrip() for line in picture(result, width)]


# ---- which axes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "axes",
    [{"init": ["a", "b"]}, {"bias": [True, False]}, {"gain": [1.0], "init": ["a", "b"]}, {"gain": [1, math.inf]}],
)
def test_without_an_axis_of_numbers_there_is_no_picture(axes):
    assert picture(sweep(axes, lambda at: 1.0)) == []


def test_what_changes_in_step_is_one_axis_and_a_single_value_none():
    points = [(0.5, 8, 3), (1.0, 16, 3), (2.0, 32, 3)]
    result = sweep({"gain": [], "hidden_size": [], "batch_size": []}, lambda at: at["gain"] - 1, points=points)
    assert picture(result)[0] == "median of largest over gain"
    assert axes_of(result.rows) == {"gain": [0.5, 1.0, 2.0], "batch_size": [3]}


@pytest.mark.parametrize(
    ("values", "is_log"),
    [
        ([1, 2, 4, 8], True),
        ([8, 1, 4, 2], True),
        ([1, 2, 3], False),
        ([1, 2], False),
        ([10, 11, 12], False),
        ([0, 1, 10], False),
        ([-4, -2, -1], False),
        ([16, 40, 101, 256], True),
        ([1, 10, 11], False),
        ([0.6, 0.8, 1.0, 1.2], False),
    ],
)
def test_an_axis_is_logarithmic_where_ratios_are_constant(values, is_log):
    assert is_logarithmic(values) is is_log


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "no setting is varied"),
        ({"gain": [1.0]}, "no setting is varied"),
        ({"init": ["a", "b"], "cell": ["lstm", "gru"]}, "init and cell are none"),
        ({"bias": [True, False]}, "bias is none"),
        ({"gain": [1, 2], "hidden_size": [1, 2], "seq_len": [1, 2]}, "gain, hidden_size and seq_len are 3"),
        ({"gain": [1, 2, 3], "init": list("abcdefghi")}, "at most 8 lines; init would make 9"),
        ({"gain": [1, 2, 3], "h": [1, 2, 3], "init": list("abcde")}, "at most 4 maps; init would make 5"),
    ],
)
def test_what_no_figure_shows_is_refused_with_what_one_shows(axes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        require_drawable(axes)


@pytest.mark.parametrize(
    ("axes", "across", "up", "apart"),
    [
        ({"gain": [1, 2, 3]}, "gain", None, ()),
        ({"gain": [1, 2, 3], "h": [8, 16, 32]}, "gain", "h", ()),
        ({"h": [8, 16], "gain": [1, 2, 3]}, "gain", None, ("h",)),
        ({"init": ["a", "b"], "gain": [1, 2, 3], "h": [8, 16, 32]}, "gain", "h", ("init",)),
    ],
)
def test_a_figure_of_two_long_axes_is_a_map_and_else_lines(axes, across, up, apart):
    plan = require_drawable(axes)
    assert (plan.across, plan.up, plan.apart) == (across, up, apart)
    assert planned(axes, 2).up == (up or ("gain" if "h" in axes else None))


def test_labels_have_the_digits_that_tell_them_apart():
    assert labels_of([0.1, 0.25]) == ["0.1", "0.25"]
    assert labels_of([1.00001, 1.00002]) == ["1.00001", "1.00002"]
    assert labels_of([True, "a\nb", 1024]) == ["yes", "a\\nb", "1,024"]
    assert [words_of(name) for name in ("hidden_size", "model_arg.d_ff", "total_W_hh")] == [
        "hidden size",
        "d ff",
        "total W_hh",
    ]


def test_a_scale_is_none_where_nothing_is_finite_and_log_over_a_decade():
    assert scale_of([math.inf, math.nan], None) is None
    assert [scale_of(values, None).is_log for values in ([1, 9.9], [1, 10], [0, 1, 10], [-1, 1, 10])] == [
        False,
        True,
        True,
        False,
    ]


# ---- tables -------------------------------------------------------------------------------------


def titles_of(text, first):
    line = next(line for line in text.splitlines() if line.split()[:1] == [first])
    return re.split(r" {2,}", line.strip())


def test_the_table_has_a_column_for_every_axis_and_counts_of_trouble_where_there_is_any():
    axes = {"gain": GAINS, "init": ["a", "b"]}
    text = shown(sweep(axes, lambda at: at["gain"]))
    assert titles_of(text, "gain") == ["gain", "init", "runs", "median", "10 %", "90 %"]
    trouble = {0.5: "failed", 1.0: None}
    text = shown(sweep(axes, lambda at: trouble.get(at["gain"], 1.0), theory=lambda at: 0.5))
    assert titles_of(text, "gain") == [
        "gain",
        "init",
        "runs",
        "failed",
        "undefined",
        "median",
        "10 %",
        "90 %",
        "theory",
    ]
    assert re.search(r"^ +0\.5 +b +1 +1 +0 +- +- +- +0\.5$", text, re.MULTILINE)
    assert re.search(r"^ +1 +a +1 +0 +1 +- +- +- +0\.5$", text, re.MULTILINE)


def test_failures_are_told_with_what_was_varied_and_fold_in_a_narrow_window():
    result = sweep({"model_arg.hidden": [4, 8]}, lambda at: "failed" if at["model_arg.hidden"] == 8 else 1.0)
    text = shown(result)
    assert "failed runs\n" in text
    assert re.search(r"^ +8 +0 +no \{'model_arg.hidden': 8\} is possible$", text, re.MULTILINE)
    assert max(map(len, shown(result, 40).splitlines())) <= 40
    assert "failed runs" not in shown(sweep({"gain": GAINS}, lambda at: 1.0))


def test_many_points_and_failures_are_cut_in_the_middle():
    text = shown(sweep({"gain": list(range(100))}, lambda at: "failed"))
    assert text.count("... 60 rows in the middle are left out; --all shows them") == 2


def test_a_part_of_a_split_table_has_all_axes():
    axes = {"gain": [1, 2], "a_setting_with_a_long_name": [3, 4], "another": ["x", "y"]}
    text = shown(sweep(axes, lambda at: 1.0, theory=lambda at: 1.0), 60)
    assert max(map(len, text.splitlines())) <= 60
    heads = [line for line in text.splitlines() if line.startswith(" gain ")]
    assert heads
    assert all("another" in line for line in heads)


def test_every_scalar_has_a_note_and_of_a_value_that_has_no_critical_one_that_is_said():
    result = sweep({"gain": GAINS}, lambda at: 1.0)
    assert set(LAYOUTS["sweep"].notes(result.scalars)) == set(result.scalars)
    lag = sweep({"gain": GAINS}, lambda at: 1.0, value="lag_to_one_percent")
    assert re.search(r"^critical +undefined +lag_to_one_percent has no value", shown(lag, only="scalars"), re.MULTILINE)


def test_a_sweep_without_a_run_is_shown():
    text = shown(sweep({"gain": []}, lambda at: 1.0), 80)
    assert re.search(r"^grid_points +0 ", text, re.MULTILINE)


# ---- machine formats ----------------------------------------------------------------------------


def test_json_csv_and_jsonl_have_texts_booleans_lists_and_what_is_not_finite():
    axes = {"init": ["a, b", "c"], "bias": [True], "lags": [(1, 2)]}
    result = sweep(axes, lambda at: -math.inf if at["init"] == "c" else "failed")
    document = json.loads(shown(result, form="json"))
    assert document["schema"] == "rnnctl.sweep"
    first, second = document["rows"]
    assert (first["init"], first["bias"], first["lags"], first["median"]) == ("a, b", True, [1, 2], None)
    assert second["nonfinite"] == {"median": "-inf", "p10": "-inf", "p90": "-inf"}
    assert document["failures"][0]["seed"] == 0
    assert [json.loads(line)["init"] for line in shown(result, form="jsonl").splitlines()] == axes["init"]
    rows = list(csv.DictReader(io.StringIO(shown(result, form="csv"))))
    assert [(row["init"], row["bias"], row["lags"], row["median"]) for row in rows] == [
        ("a, b", "true", "1x2", ""),
        ("c", "true", "1x2", "-inf"),
    ]


# ---- the headline -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        (
            {"gain": [0.6 + 0.2 * i for i in range(10)], "hidden_size": [64, 256], "seed": [0, 1, 2, 3, 4]},
            "gain (10 values from 0.6 to 2.4), hidden_size (64, 256), 5 seeds",
        ),
        ({"nonlinearity": ["tanh", "relu"], "seed": [3]}, "nonlinearity (tanh, relu), 1 seed"),
        ({"seed": [0, 1]}, "2 seeds"),
        ({"gain": [1.5]}, "gain 1.5"),
        ({"init": list("abcde"), "bias": [True, False]}, "init (5 values), bias (yes, no)"),
        ({"gain": [4, 3, 2, 1, 0]}, "gain (5 values from 0 to 4)"),
        ({"weights": ["a" * 30, "b" * 30]}, "weights (2 values)"),
    ],
)
def test_the_headline_names_the_question_and_the_grid(vary, words):
    assert headline("sweep", {"command": "sweep lyapunov", "vary": vary}) == f"sweep of lyapunov over {words}"
