"""A result as a small piece of HTML for a notebook: static, and with no style that reaches beyond it."""

from collections.abc import Iterator

from rnnctl.results import Result
from rnnctl.view.html.charts import charts
from rnnctl.view.html.markup import Markup, tag
from rnnctl.view.html.matrix import matrix, picture
from rnnctl.view.html.parts import sentence
from rnnctl.view.html.still import GREY, colours, still
from rnnctl.view.html.svg import chart_svg, legend
from rnnctl.view.html.verdict import verdict
from rnnctl.view.layouts.layout import Column, Layout
from rnnctl.view.layouts.table import LAYOUTS
from rnnctl.view.numbers import number
from rnnctl.view.scalars import lines_of

# Cells along either side of a matrix: the notebook's file is to stay small.
MOST_CELLS, MOST_BYTES = 256, 60_000
# The further records that say of each weight what it is in a few numbers.
SUMMARIES = "summaries"
# Of several weights, which have a picture each.
MOST_PANELS = 2
WIDTH, IMAGE = 350, "width:320px;height:320px;image-rendering:pixelated"
WIDE = "max-width:480px"
LEFT = "text-align:left;vertical-align:top"


def piece(result: Result) -> str:
    """The answer, the first picture, the scalars with their notes."""
    return tag("div", *_parts(result), class_=f"rnnctl rnnctl-{result.schema}")


def _parts(result: Result) -> Iterator[Markup]:
    yield tag("p", tag("b", f"rnnctl {result.schema.partition('-')[0]}"), *_answer(result))
    yield from _summaries(result)
    yield from _picture(result)
    yield _scalars(result, LAYOUTS.get(result.schema, Layout(())))


def _answer(result: Result) -> Iterator[Markup | str]:
    if (answer := verdict(result)) is not None:
        yield ": "
        yield tag("b", answer.word)
        yield f". {sentence(answer.sentence)}"


def _picture(result: Result) -> Iterator[Markup]:
    if (found := matrix(result)) is not None:
        drawn = picture(found, MOST_CELLS, MOST_BYTES)
        ends = f"log scale from {drawn.low:.2g}{' or less' if drawn.clipped else ''} to {drawn.high:.2g}"
        alt = f"{found.of}: {found.rows[1]} down, {found.columns[1]} across; {ends}"
        image = tag("img", src=drawn.address, alt=alt, style=f"{IMAGE};background:{GREY}")
        yield tag("div", still(found, image, WIDTH), tag("div", alt), *colours(found, drawn))
        return
    every = charts(result)
    shown = every[: MOST_PANELS if SUMMARIES in result.more else 1]
    for chart in shown:
        yield tag("div", tag("div", chart.title), chart_svg(chart), legend(chart), style=WIDE)
    if len(every) > len(shown):
        yield tag("div", f"{len(shown)} of {len(every)} pictures; plot() draws the others, too")


def _summaries(result: Result) -> Iterator[Markup]:
    """A line for each of several weights, where the result has no scalars of them."""
    rows = result.more.get(SUMMARIES, ())
    for table in LAYOUTS[result.schema].more[SUMMARIES] if rows else ():
        columns = [
            each for each in table.columns if not each.optional or any(row[each.field] is not None for row in rows)
        ]
        head = tag("tr", *(tag("td", tag("b", each.title), style=LEFT) for each in columns))
        lines = (tag("tr", *(_cell(number(row[each.field]), each) for each in columns)) for row in rows)
        yield tag("table", tag("tbody", head, *lines))


def _cell(text: str, column: Column) -> Markup:
    return tag("td", text, style="text-align:right" if column.right else LEFT)


def _scalars(result: Result, layout: Layout) -> Markup:
    rows = (
        tag(
            "tr",
            tag("th", line.name, scope="row", style=LEFT),
            tag("td", line.shown, style="text-align:right;vertical-align:top"),
            tag("td", line.note, style=LEFT),
        )
        for line in lines_of(result, layout)
    )
    return tag("table", tag("tbody", *rows))
