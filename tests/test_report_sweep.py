"""The page of a sweep: on which side of the critical value it is, and where that changes."""

from typing import Any

import pytest
from pages import Node, tree

from rnnctl.sweeps.result import GridPoint, Sweep
from rnnctl.view.html.charts import charts
from rnnctl.view.html.page import Run as Made
from rnnctl.view.html.page import page
from rnnctl.view.html.verdict import verdict


def point(values: tuple[float, ...], value: str, failed: int = 0, **varied: Any) -> GridPoint:
    return GridPoint(varied, {value: values}, runs=len(values) + failed, failed=failed)


def swept(medians: list[float | None], value: str = "factor_per_step", spread: float = 0.0) -> Sweep:
    """Over the gain 1, 2, 3, ...: where it is None the run failed."""
    made = [
        point((), value, 1, gain=float(i))
        if median is None
        else point((median, median + spread) if spread else (median,), value, gain=float(i))
        for i, median in enumerate(medians, 1)
    ]
    return Sweep("gradnorm", value, ("gain",), tuple(made), ())


@pytest.mark.parametrize(
    ("medians", "word", "sentence"),
    [
        ([0.5, 0.7], "below 1", "The median of factor_per_step is below 1 at all 2 grid points"),
        ([0.5], "below 1", "The median of factor_per_step is below 1 at the only grid point"),
        ([1.5, 2.0, float("inf")], "above 1", "The median of factor_per_step is above 1 at all 3 grid points"),
        ([1.0, 1.0], "at 1", "The median of factor_per_step is at 1 at all 2 grid points"),
        ([0.5, 0.7, 1.2], "crosses 1", "The median of factor_per_step crosses 1 between gain 2 and 3"),
        ([0.5, 1.0, 1.2], "crosses 1", "The median of factor_per_step crosses 1 between gain 1 and 3"),
        ([0.5, None, 1.2], "crosses 1", "between gain 1 and 3; 1 grid point without a number; 1 of 3 runs failed"),
        ([0.5, 1.5, 0.5], "crosses 1", "crosses 1 between gain 1 and 2 and between gain 2 and 3"),
        (
            [0.5, 1.5] * 3,
            "crosses 1",
            "Of 6 grid points the median of factor_per_step is below 1 at 3 and above 1 at 3",
        ),
        ([0.5, 1.0], "at most 1", "Of 2 grid points the median of factor_per_step is below 1 at 1 and at 1 at 1"),
        ([2.5, 1.0], "at least 1", "is at 1 at 1 and above 1 at 1"),
        ([None, None], "not known", "no grid point has a factor_per_step; 2 grid points without a number; 2 of 2 runs"),
        ([float("nan")], "not known", "no grid point has a factor_per_step; 1 grid point without a number"),
    ],
)
def test_the_verdict_of_a_sweep_says_where_the_critical_value_is_crossed(medians, word, sentence):
    found = verdict(swept(medians))
    assert found is not None and found.word == word
    assert sentence in found.sentence
    assert found.tone == ("warn" if None in medians or word == "not known" else "plain")


def test_over_two_settings_the_sides_are_counted():
    sizes = [(gain, size) for gain in (0.5, 1.5) for size in (8, 16)]
    made = tuple(point((gain - 1,), "largest", gain=gain, hidden_size=size) for gain, size in sizes)
    found = verdict(Sweep("lyapunov", "largest", ("gain", "hidden_size"), made, ()))
    assert found == ("crosses 0", "Of 4 grid points the median of largest is below 0 at 2 and above 0 at 2", "plain")


def test_where_nothing_is_critical_the_verdict_is_from_where_to_where_it_goes():
    found = verdict(swept([0.25, 2.0, None], "loss"))
    assert found is not None and found.word == "0.25 to 2"
    assert found.sentence.startswith("The median of loss is between 0.25 and 2 at all 2 grid points; 1 grid point")


@pytest.mark.parametrize(("spread", "words"), [(0.0, ["median"]), (0.5, ["10 to 90 % of the seeds", "median"])])
def test_a_band_is_drawn_where_seeds_differ(spread, words):
    (chart,) = charts(swept([0.5, 0.7, 1.2], spread=spread))
    assert [curve.words for curve in chart.curves] == words


def read(result: Sweep, **config: Any) -> Node:
    return tree(page(result, Made("rnnctl sweep", config, {"rnnctl": "0", "torch": "0"})))


def test_a_sweep_from_a_file_is_titled_by_question_value_and_axes():
    (heading,) = read(swept([0.5, 0.7, 1.2]), file="runs.jsonl").all("h1")
    assert heading.text == "sweep of gradnorm, factor_per_step over gain (1, 2, 3): runs.jsonl"


def test_the_page_of_a_sweep_says_its_verdict_first():
    (card,) = read(swept([0.5, 0.7]), file="runs.jsonl").all("div", id="verdict")
    assert card.text == "below 1The median of factor_per_step is below 1 at all 2 grid points"
