"""The whole report: the answer first, then what shows it, then the data and how they were made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files

from rnnctl.results import Record, Result
from rnnctl.view.blocks import sections
from rnnctl.view.grid_axes import axes_of, varied_words
from rnnctl.view.html.charts import charts
from rnnctl.view.html.markup import Markup, own, script_text, tag
from rnnctl.view.html.matrix import MATRICES, matrix, picture
from rnnctl.view.html.parts import (
    Copying,
    chart_figure,
    config_table,
    finding_cards,
    matrix_figure,
    scalars_table,
    section_tables,
    verdict_card,
)
from rnnctl.view.html.verdict import findings, verdict
from rnnctl.view.layouts.layout import headline
from rnnctl.view.layouts.table import LAYOUTS
from rnnctl.view.machine import json_text
from rnnctl.view.render import document
from rnnctl.view.terminal import View

# Nothing is asked of anybody: what the page needs is in it.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
# In letters of JSON: longer rows are left out.
LONGEST_ROWS = 400_000
# Of the further records: seconds, which differ from run to run.
OF_TIME = "timings"
SECTIONS = {"evidence": "Evidence", "numbers": "Numbers", "tables": "Tables", "made": "How it was made"}


@dataclass(frozen=True)
class Run:
    """What a report says of how its result was made.

    Attributes:
        command: the command line that makes it again; "" where none does.
        config: the resolved configuration.
        versions: of rnnctl and torch.
        title: of the page, "" for none; what was run if None.
    """

    command: str
    config: Record
    versions: Mapping[str, str]
    title: str | None = None


def page(result: Result, run: Run, *, every: bool = False) -> str:
    """A result as one file of HTML: the same text for the same result.

    Args:
        run: how it was made.
        every: all rows of long tables, as --all has them.
    """
    title = _title(result, run) if run.title is None else run.title
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"rnnctl {title}".strip()),
        tag("style", _file("report.css")),
    )
    body = tag("body", *_body(result, run, title, View(every=every)), tag("script", _file("report.js")))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _title(result: Result, run: Run) -> str:
    """What was run; of a sweep that is read from a file its result alone tells."""
    if result.schema != "sweep" or "file" not in run.config:
        return headline(result.schema, run.config)
    scalars, varied = result.scalars, varied_words(axes_of(result.rows))
    return f"sweep of {scalars['question']}, {scalars['value']} over {varied or 'nothing'}: {run.config['file']}"


def _file(name: str) -> Markup:
    return own(files("rnnctl.view.html").joinpath(name).read_text(encoding="utf-8"))


def _body(result: Result, run: Run, title: str, view: View) -> Iterator[Markup]:
    copying = Copying()
    parts = {
        "evidence": list(_evidence(result, copying)),
        "numbers": list(_numbers(result, copying)),
        "tables": list(_tables(result, view, copying)),
        "made": list(_made(result, run, copying)),
    }
    shown = {name: inside for name, inside in parts.items() if inside}
    yield tag("a", "to the result", href="#verdict", class_="skip")
    yield tag("header", *_top(result, title), _links(shown))
    yield tag("main", *(_section(name, inside) for name, inside in shown.items()))
    yield tag("footer", tag("p", f"Written by rnnctl {run.versions['rnnctl']}. It is whole: nothing is loaded."))


def _top(result: Result, title: str) -> Iterator[Markup]:
    yield tag("p", f"rnnctl {result.schema.partition('-')[0]}", class_="brand")
    if title:
        yield tag("h1", title)
    if (answer := verdict(result)) is not None:
        yield verdict_card(answer)
    if result.notes:
        yield tag("ul", *(tag("li", note) for note in result.notes), class_="notes")


def _links(shown: Mapping[str, object]) -> Markup:
    return tag("nav", tag("ul", *(tag("li", tag("a", SECTIONS[name], href=f"#{name}")) for name in shown)))


def _section(name: str, inside: list[Markup]) -> Markup:
    heading = f"{name}-title"
    return tag("section", tag("h2", SECTIONS[name], id=heading), *inside, id=name, aria_labelledby=heading)


def _evidence(result: Result, copying: Copying) -> Iterator[Markup]:
    """What shows that it is so: findings, the matrix, charts."""
    if found := findings(result):
        yield finding_cards(found, copying)
    if (drawn := matrix(result)) is not None:
        yield matrix_figure(drawn, picture(drawn))
    if figures := [chart_figure(chart) for chart in charts(result)]:
        yield tag("div", *figures, class_="charts")


def _numbers(result: Result, copying: Copying) -> Iterator[Markup]:
    if result.scalars:
        yield scalars_table(result, LAYOUTS[result.schema], copying)


def _tables(result: Result, view: View, copying: Copying) -> Iterator[Markup]:
    layout = LAYOUTS[result.schema]
    layout = replace(layout, more={name: tables for name, tables in layout.more.items() if name != OF_TIME})
    yield from section_tables(sections(layout, result, view), copying)
    if caption := layout.caption(result.scalars):
        yield tag("p", caption, class_="rest")


def _made(result: Result, run: Run, copying: Copying) -> Iterator[Markup]:
    if run.command:
        yield tag("h3", "The command")
        yield copying.command(run.command)
    yield tag("h3", "Versions")
    yield config_table(run.versions)
    yield tag("h3", "The configuration")
    yield config_table(run.config)
    yield tag("h3", "The result as JSON")
    text, without = _json(result, run)
    if without:
        yield tag("p", "Its rows are left out here; rnnctl's --json has them.", class_="rest")
    yield tag("p", copying.button("json", "copy the JSON"))
    # Translated as a text, so that it stays as it is indented.
    yield tag("script", script_text(text), type="application/json", id="json")


def _json(result: Result, run: Run) -> tuple[str, bool]:
    """The document of --json, without rows where they are long or a picture shows them; and whether it is without."""
    if result.schema not in MATRICES:
        text = _json_text(result, run, rows=True)
        if len(text) <= LONGEST_ROWS:
            return text, False
    return _json_text(result, run, rows=False), True


def _json_text(result: Result, run: Run, *, rows: bool) -> str:
    made = document(result, run.config, run.versions, None, rows=rows)
    return json_text({name: value for name, value in made.items() if name != OF_TIME})
