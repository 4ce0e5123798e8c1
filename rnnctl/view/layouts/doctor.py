"""How a diagnosis is shown: what was found, what to do, and what was looked at."""

from collections.abc import Mapping

from rnnctl.view.layouts.layout import Column, Layout, Record, Table
from rnnctl.view.numbers import printable_lines
from rnnctl.view.words import notes_beside


def _lines(row: Record) -> str:
    """Line by line as they are to be pasted; names of modules among them cannot write anything else."""
    return printable_lines(row["lines"])


_FOUND = Table(
    (
        Column("finding", "finding", right=False, whole=True),
        Column("severity", "severity", right=False, whole=True),
        Column("number", "number"),
        Column("threshold", "threshold"),
        Column("sentence", "what it is", right=False),
    ),
    title="what was found",
    optional=True,
)
_TO_DO = Table(
    (
        Column("finding", "finding", right=False, whole=True),
        Column("remedy", "remedy", right=False),
        Column("evidence", "evidence", right=False, code=True),
    ),
    title="what shows it, and what to do",
    optional=True,
)
_WELL = Table(
    (
        Column("finding", "looked at", right=False, whole=True),
        Column("number", "number"),
        Column("threshold", "threshold"),
        Column("measured", "measured", right=False),
    ),
    title="looked at and found well",
    where=lambda row: row["found"] is False,
    optional=True,
)
_UNSEEN = Table(
    (Column("finding", "not looked at", right=False, whole=True), Column("why", "why", right=False)),
    title="not looked at",
    where=lambda row: row["found"] is None,
    optional=True,
)
_TRIED = Table(
    (
        Column("remedy", "remedy", right=False, whole=True),
        Column("finding", "finding", right=False, whole=True),
        Column("reach_before", "reach before"),
        Column("reach_after", "reach after"),
        Column("loss_before", "loss before"),
        Column("loss_after", "loss after"),
        Column("unseen_before", "unseen before", spare=True),
        Column("unseen_after", "unseen after", spare=True),
        Column("loss_low", "low", spare=True),
        Column("loss_high", "high", spare=True),
        Column("helps", "helps", right=False),
        Column("measured_on", "measured on", right=False, spare=True),
    ),
    title="remedies, tried on copies",
    optional=True,
)
_LINES = Table(
    (
        Column("remedy", "remedy", right=False, whole=True),
        Column("lines", "lines to paste", right=False, text=_lines, code=True),
    ),
    title="as Python",
    where=lambda row: bool(row["lines"]),
    optional=True,
)
_TIMINGS = Table(
    (Column("finding", "finding", right=False, whole=True), Column("seconds", "seconds")),
    title="what each cost, with what it was the first to ask for",
    optional=True,
)


def _notes(scalars: Record) -> Mapping[str, str]:
    looked_at, unseen = scalars["looked_at"], scalars["not_looked_at"]
    of_what = f"of what could be looked at: {unseen} of {looked_at + unseen} were not"
    return {**notes_beside("doctor"), **({} if scalars["findings"] or not unseen else {"verdict": of_what})}


DOCTOR = Layout(
    (_FOUND, _TO_DO),
    _notes,
    ("findings", "notes", "looked_at", "seeds"),
    more={"looked_at": (_WELL, _UNSEEN), "remedies": (_TRIED, _LINES), "timings": (_TIMINGS,)},
)
