"""The parts of a page: tables, scalars with their meanings, findings, commands, pictures."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from rnnctl.results import Record, Result
from rnnctl.view.blocks import Block, Section, lines
from rnnctl.view.fitting import Filled
from rnnctl.view.html.chart import Chart
from rnnctl.view.html.markup import Markup, joined, json_in_script, own, tag
from rnnctl.view.html.matrix import Matrix, Picture, palette
from rnnctl.view.html.still import colours, still
from rnnctl.view.html.svg import chart_svg, legend
from rnnctl.view.html.verdict import Finding, Verdict
from rnnctl.view.layouts.layout import Layout
from rnnctl.view.numbers import number
from rnnctl.view.scalars import VERDICT_STYLES, Line, lines_of
from rnnctl.view.words import word_of

NOTHING = own("")
PLAIN_WORD = re.compile(r"(?:a|[a-z]{2,})(?:[ ,:]|$)")
# Of a matrix, in pixels.
WIDEST = 620
HINT = (
    "Point at a cell, or move by the arrow keys (with Shift by ten). + and - zoom, as the wheel does once the picture "
    "is chosen; dragging moves it, 0 shows all of it. A click puts the cell into the page's address."
)


class Copying:
    """Commands and texts with a button that copies them; each has a name of its own on the page."""

    def __init__(self) -> None:
        self._numbers = count()

    def command(self, text: str) -> Markup:
        """A command line, or lines of code."""
        name = f"copied-{next(self._numbers)}"
        shown = tag("pre", text, id=name) if "\n" in text else tag("code", text, id=name)
        return tag("div", shown, self.button(name, "copy"), class_="command")

    def button(self, name: str, words: str) -> Markup:
        """Copies the text of the element of this name; only the script can, which shows it."""
        return tag("button", words, type="button", data_copy=name, hidden="")


def is_command(text: str) -> bool:
    """Whether a text is one to be copied: a command line of ours, or lines of code."""
    return text.startswith(("rnnctl ", "rnnctl.", "python ", "import ", "from "))


def sentence(text: str) -> str:
    """With a capital at its beginning, unless that is a name or a symbol, such as weight_hh_l0 or h_t."""
    return text[:1].upper() + text[1:] if PLAIN_WORD.match(text) else text


# ---- the answer -------------------------------------------------------------------------------


def verdict_card(verdict: Verdict) -> Markup:
    """The answer, large, and its sentence."""
    word, told = tag("p", verdict.word, class_="word"), tag("p", sentence(verdict.sentence), class_="sentence")
    return tag("div", word, told, class_=f"verdict {verdict.tone}", id="verdict")


def finding_cards(findings: Sequence[Finding], copying: Copying) -> Markup:
    """One card a finding: what it is, its number and threshold, the command that shows it, what would help."""
    return tag("ol", *(_finding_card(each, copying) for each in findings), class_="findings")


def _finding_card(finding: Finding, copying: Copying) -> Markup:
    row = finding.row
    badge = tag("span", finding.severity, class_="badge")
    parts = [tag("p", tag("span", finding.name, class_="name"), badge), tag("p", sentence(finding.sentence))]
    told = (f"{name} {number(row[name])}" for name in ("weight", "number", "threshold") if row.get(name) is not None)
    parts.append(tag("p", ", ".join(told), class_="told"))
    for title, name in (("Shown by", "evidence"), ("What would help", "remedy")):
        if row.get(name):
            text = str(row[name])
            parts += [tag("p", title), copying.command(text)] if is_command(text) else [tag("p", f"{title}: {text}")]
    return tag("li", *parts, class_=finding.tone)


# ---- pictures ---------------------------------------------------------------------------------


def chart_figure(chart: Chart) -> Markup:
    """A chart with its title above and its legend below."""
    return tag("figure", tag("figcaption", chart.title), chart_svg(chart), legend(chart), class_="chart")


def matrix_figure(matrix: Matrix, picture: Picture) -> Markup:
    """A matrix as a picture that stands by itself, and what the script needs to make it one to explore."""
    rows, columns = matrix.values.shape
    block = "" if picture.block == 1 else f" Each cell is the largest of {picture.block} x {picture.block}."
    ends = f"log scale from {picture.low:.2g}{' or less' if picture.clipped else ''} to {picture.high:.2g}"
    about = f"{matrix.of}, {rows} x {columns}: {matrix.rows[1]} down, {matrix.columns[1]} across; {ends}.{block}"
    image = tag(
        "img",
        src=picture.address,
        alt=f"{matrix.title}: {about}",
        class_="static" if _is_square(matrix) else "static wide",
    )
    data = tag("script", json_in_script(_for_script(matrix, picture)), type="application/json")
    title, told = tag("figcaption", matrix.title), tag("p", about, class_="about")
    shown = still(matrix, image, WIDEST)
    return tag("figure", title, told, shown, _scale(picture), *colours(matrix, picture), data, class_="matrix")


def _is_square(matrix: Matrix) -> bool:
    return bool(matrix.values.shape[0] == matrix.values.shape[1] and isinstance(matrix.labels, range))


def _for_script(matrix: Matrix, picture: Picture) -> Mapping[str, Any]:
    return {
        "rows": matrix.rows,
        "columns": matrix.columns,
        "labels": None if isinstance(matrix.labels, range) else list(matrix.labels),
        "square": _is_square(matrix),
        "beyond": matrix.beyond,
        "low": picture.low,
        "high": picture.high,
        "levels": picture.levels,
        "block": picture.block,
        "clipped": picture.clipped,
        "precision": picture.precision,
        "hint": HINT,
        "help": f"{matrix.title}: a picture to be explored by the arrow keys; the value is told beside it",
    }


def _scale(picture: Picture) -> Markup:
    """The colours from the smallest to the largest."""
    cells = 64
    colors = palette(cells)[2 : 2 + cells]
    width = 620 / cells
    bars = (
        tag("rect", x=f"{i * width:.2f}", width=f"{width + 0.5:.2f}", height=12, fill=f"#{r:02x}{g:02x}{b:02x}")
        for i, (r, g, b, _) in enumerate(colors)
    )
    # Not of their product, which may leave the range of float64.
    middle = math.sqrt(picture.low) * math.sqrt(picture.high)
    ends = ((0, "start", picture.low), (310, "middle", middle), (620, "end", picture.high))
    words = (tag("text", f"{value:.2g}", x=x, y=32, text_anchor=at, fill="currentColor") for x, at, value in ends)
    alt = f"colours from {picture.low:.2g} to {picture.high:.2g}, logarithmic"
    return tag("svg", *bars, *words, viewBox="0 0 620 40", font_size=13, role="img", aria_label=alt, class_="scale")


# ---- scalars ----------------------------------------------------------------------------------


def scalars_table(result: Result, layout: Layout, copying: Copying | None) -> Markup:
    """Name, value and note of every scalar that is for people.

    Args:
        copying: with it each has what ``rnnctl explain`` says of it; without it the note alone.
    """
    rows = (
        tag("tr", tag("th", line.name, scope="row"), _value(line), tag("td", line.note, _meaning(line.name, copying)))
        for line in lines_of(result, layout)
    )
    return tag("table", tag("tbody", *rows), class_="scalars")


def _value(line: Line) -> Markup:
    style = VERDICT_STYLES.get(line.shown, "")
    tone = " tone-bad" if "red" in style else " tone-good" if "green" in style else ""
    return tag("td", line.shown, class_=f"number{tone}" if len(line.shown) < 24 else "number text")


def _meaning(name: str, copying: Copying | None) -> Markup:
    word = word_of(name)
    if copying is None or word is None:
        return NOTHING
    inside = (
        tag("summary", "what it is", aria_label=f"what {name} is"),
        tag("p", word.text),
        tag("p", word.equation, class_="equation"),
        copying.command(word.see),
    )
    return tag("details", *inside)


# ---- tables -----------------------------------------------------------------------------------


def section_tables(sections: Iterable[Section], copying: Copying) -> Iterator[Markup]:
    """Every table of a result, under its headings."""
    for section in sections:
        if section.heading:
            yield tag("h3", section.heading)
        for block in section.blocks:
            yield _table(block, copying)


def _table(block: Block, copying: Copying) -> Markup:
    title = (tag("h3", block.title),) if block.title else ()
    # Where a result has no rows, its columns alone say so.
    head = tag("thead", tag("tr", *_heads(block.columns)))
    shown = lines([each.texts for each in block.columns], block.left_out)
    body = tag("tbody", *(_row(block.columns, line, block.keys, copying) for line in shown))
    # What is wider than a page is reached by the keyboard, too.
    kind = "stacked" if any(map(_is_text, block.columns[block.keys :])) else None
    table = tag(
        "div",
        tag("table", head, body, class_=kind),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=_name(block),
    )
    rest = (tag("p", block.said_of_rest, class_="rest"),) if block.left_out else ()
    return joined((*title, table, *rest))


def _name(block: Block) -> str:
    return block.title or f"table of {', '.join(each.title for each in block.columns[: block.keys])}"


def _heads(columns: Sequence[Filled]) -> Iterator[Markup]:
    """Each with what its word says; of two columns of one word the first has it."""
    told = set[str]()
    for filled in columns:
        word = word_of(filled.column.field) or word_of(filled.column.title)
        is_told = word is None or filled.column.bar or word.term in told
        meaning = None if word is None or is_told else word.note or None
        told |= {word.term} if word is not None and meaning else set()
        yield tag("th", filled.title, scope="col", class_=_class(filled), title=meaning)


def _is_text(filled: Filled) -> bool:
    """Whether it has sentences, for which a narrow page has no room beside other columns."""
    return not filled.is_whole


def _class(filled: Filled) -> str | None:
    return "bar" if filled.column.bar else "number" if filled.column.right else None


def _row(columns: Sequence[Filled], line: Sequence[str] | None, keys: int, copying: Copying) -> Markup:
    if line is None:
        return tag("tr", *(tag("td", "...", class_=_class(each)) for each in columns))
    cells = zip(columns, line, strict=True)
    return tag("tr", *(_cell(each, text, i < keys, copying) for i, (each, text) in enumerate(cells)))


def _cell(filled: Filled, text: str, is_key: bool, copying: Copying) -> Markup:
    if is_key:
        return tag("th", text, scope="row", class_=_class(filled))
    is_copied = filled.column.code or text.startswith("rnnctl ")
    return tag("td", copying.command(text) if is_copied else text, class_=_class(filled), data_title=filled.title)


def config_table(record: Record) -> Markup:
    """Name and value of every setting."""
    rows = (tag("tr", tag("th", name, scope="row"), tag("td", _setting(value))) for name, value in record.items())
    return tag("table", tag("tbody", *rows), class_="config")


def _setting(value: Any) -> str:
    """As JSON would have it, but for the quotes."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_setting, value))
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
