"""The page of a doctor: what is to be pasted can be copied, and what was tried is drawn."""

import re
from typing import Any

import pytest
from pages import Node, tree

from rnnctl.diagnosis.result import Diagnosis
from rnnctl.view.html.chart import Chart, Curve
from rnnctl.view.html.charts import charts
from rnnctl.view.html.page import Run as Made
from rnnctl.view.html.page import page
from rnnctl.view.html.parts import sentence
from rnnctl.view.html.svg import chart_svg, legend

NOT_TRIED = dict.fromkeys(("reach_before", "reach_after", "loss_before", "loss_after", "loss_low", "loss_high"))
TRIED: dict[str, Any] = {
    "remedy": "clip",
    "finding": "exploding",
    "reach_before": 1e-9,
    "reach_after": 0.5,
    "loss_before": 4.0,
    "loss_after": 1.0,
    "loss_low": -3.5,
    "loss_high": -2.0,
    "unseen_before": None,
    "unseen_after": None,
    "measured_on": None,
    "helps": "yes",
    "lines": "clip_(model)\nif True:\n    model.train()",
}


def diagnosis(*remedies: Any) -> Diagnosis:
    return Diagnosis({}, (), {}, 3, "given", "", None, "", 5, 2, remedies=remedies)


def read(*remedies: Any) -> Node:
    return tree(page(diagnosis(*remedies), Made("rnnctl doctor", {"file": "x"}, {"rnnctl": "0", "torch": "0"})))


def test_lines_to_paste_are_a_block_of_code_with_a_button_line_by_line():
    found = read(TRIED, {**TRIED, "remedy": "one", "lines": "one_(model)"})
    blocks = {each.text: str(each.attributes["id"]) for each in (*found.all("pre"), *found.all("code"))}
    copied = {str(each.attributes["data-copy"]) for each in found.all("button")}
    for lines in (TRIED["lines"], "one_(model)"):
        assert blocks[lines] in copied


def test_two_columns_of_one_word_tell_it_once():
    found = page_of_looks()
    told = [each.attributes["title"] for each in found.all("th") if each.attributes.get("title")]
    heads = {each.text: each.attributes.get("title") for each in found.all("th", scope="col")}
    assert len(told) == len(set(told)) > 1
    assert heads["number"] and heads["measured"] is None and heads["number"] != heads["looked at"]


def page_of_looks() -> Node:
    return tree(page(Looked(), Made("rnnctl doctor", {"file": "x"}, {"rnnctl": "0", "torch": "0"})))


class Looked(Diagnosis):
    """One that looked at something and found it well."""

    def __init__(self) -> None:
        super().__init__({}, (), {}, 3, "given", "", None, "", 5, 2)

    more = {  # noqa: RUF012
        "looked_at": [
            {"finding": "padding", "found": False, "number": 0.0, "threshold": 0.1, "measured": "the share", "why": ""}
        ],
        "remedies": [],
        "timings": [],
    }


def test_a_table_with_sentences_is_stacked_in_a_narrow_window_and_says_what_each_is():
    (table,) = page_of_looks().all("table", class_="stacked")
    cells = {each.attributes["data-title"]: each.text for each in table.all("td")}
    assert cells == {"number": "0", "threshold": "0.1", "measured": "the share"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("of the gradient 0.1 is left", "Of the gradient 0.1 is left"),
        ("a gate is shut", "A gate is shut"),
        ("nothing", "Nothing"),
        ("h_t is not finite", "h_t is not finite"),
        ("x reaches 120", "x reaches 120"),
        ("rnn.weight_hh_l0 takes none", "rnn.weight_hh_l0 takes none"),
        ("weight_hh_l0 takes none", "weight_hh_l0 takes none"),
        ("63 % of the input", "63 % of the input"),
        ("", ""),
    ],
)
def test_a_sentence_begins_with_a_capital_unless_that_is_a_name(text, said):
    assert sentence(text) == said


def test_what_was_tried_is_drawn_with_the_interval_of_what_it_changed():
    reach, loss = charts(diagnosis(TRIED, {**TRIED, **NOT_TRIED, "remedy": "none"}))
    assert (reach.names, loss.names) == (("clip",), ("clip",))
    assert [curve.x for curve in reach.curves] == [[1e-9], [0.5]]
    assert [curve.x for curve in loss.curves] == [[4.0], [1.0]]
    assert loss.curves[1].span == [(0.5, 2.0)] and reach.curves[1].span is None
    assert "interval" in loss.curves[1].words
    drawn = chart_svg(loss)
    (bar,) = re.findall(r'd="M([\d.]+) [\d.]+H([\d.]+)" style="fill:none;stroke:var\(--c0', drawn)
    (ring, disc) = (float(each) for each in re.findall(r'<circle cx="([\d.]+)"', drawn)[:2])
    assert float(bar[0]) < disc < float(bar[1]) < ring
    assert "clip" in drawn


def test_where_sequences_were_kept_their_losses_are_drawn():
    kept = {"unseen_before": 5.0, "unseen_after": 2.5, "measured_on": "sequences not trained on"}
    _, loss = charts(diagnosis({**TRIED, **kept}))
    assert [curve.x for curve in loss.curves] == [[5.0], [2.5]]
    assert loss.curves[1].span == [(1.5, 3.0)]
    assert "sequences not trained on" in loss.title


def test_without_a_remedy_that_was_measured_nothing_is_drawn():
    assert charts(diagnosis()) == charts(diagnosis({**TRIED, **NOT_TRIED})) == ()
    (reach,) = charts(diagnosis({**TRIED, **NOT_TRIED, "reach_before": 0.0, "reach_after": 0.0}))
    assert "nothing here is a number above 0" in chart_svg(reach)
    assert "as it is (not drawn: 0 at 1 of 1)" in tree(legend(reach)).text


def test_the_level_of_named_rows_goes_down():
    curve = Curve("words", [1.0, 3.0], [0, 1], joined=False)
    drawn = chart_svg(Chart("title", "x", "", (curve,), whole=False, names=("one", "two"), level=(2.0, "middle")))
    left, right = (float(each) for each in re.findall(r'<circle cx="([\d.]+)"', drawn))
    (level,) = re.findall(r'd="M([\d.]+) 14V280" style="[^"]*dasharray', drawn)
    assert left < float(level) < right and float(level) == pytest.approx((left + right) / 2, abs=0.2)
