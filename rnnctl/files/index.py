"""Which columns of a table are features, and which only number, date or name its lines."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from rnnctl.errors import InputError
from rnnctl.files.header import is_missing
from rnnctl.files.lines import Lines, shown

# As pandas names a column without a name.
UNNAMED = re.compile(r"|Unnamed: \d+(\.\d+)*")
# What says that a column numbers the lines, where it rises or falls from each to the next.
NUMBERING = {
    *("#", "id", "idx", "index", "level_0", "no", "nr", "obs", "observation", "row", "rownames", "sample", "frame"),
    *("sequence", "step", "t", "timestamp", "datetime", "date time", "date_time", "epoch"),
}
# Parts of a date, which date the lines together.
CALENDAR = {"date", "year", "quarter", "month", "week", "day", "time", "hour", "minute", "second"}
# A day, a time of day, a month or quarter of a year, or a duration.
DATE = re.compile(
    r"\d{1,4}([-/.:]\d{1,2}){2}.*|\d{1,2}:\d\d.*|\d{4}[-/]\d\d|\d{4}[-/ ]?[QWM]\d\d?|\d{1,4}[-/ ][A-Za-z]{3}.*"
    r"|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}.*|-?\d+ days.*"
)
# What a column without a name may hold in place of dates: 1959, 19590401.
YEAR_OR_DAY = re.compile(r"(1[89]|20)\d\d((0[1-9]|1[0-2])([0-2]\d|3[01]))?")
# So many lines go one way by chance in one of 20,000 files.
CLIMBING = 8
BOOLEANS = ("true", "false")
# Evenly spaced, within what a few printed digits round.
EVEN = 1e-3


def features(lines: Lines) -> tuple[list[int], list[str]]:
    """Which columns are features: all but leading ones that number, date or name the lines; and what is to be told.

    Raises:
        InputError: a column that may be either, with the option that says which.
    """
    width, first = len(lines.titles), _parts_of_date(lines)
    # One column is left whatever it is.
    while first < width - 1 and _is_index(lines, first):
        first += 1
    keep = f"; {lines.choice(range(width))} takes it, too" if lines.selectable else ""
    notes = [
        f"{lines.name}: {lines.titles[i]} is left out: it {_said_of(lines, i)} ({shown(lines.columns[i], 3)}){keep}"
        for i in range(first)
    ]
    return list(range(first, width)), notes + _of_likenesses(lines, range(first, width))


def _of_likenesses(lines: Lines, taken: Sequence[int]) -> list[str]:
    """What to say of features that look or are called as an index is."""
    notes = []
    for i in taken if lines.header and len(taken) > 1 else ():
        if (why := _likeness(lines, i)) and lines.numbers[i]:
            other = f"; {lines.choice(k for k in taken if k != i)} leaves it out" if lines.selectable else ""
            notes.append(f"{lines.name}: {lines.titles[i]} {why} and is read as a feature{other}")
    return notes


def _likeness(lines: Lines, i: int) -> str:
    """In what a column is like an index; nothing for any other."""
    if counts_beside_others(lines, i) or _counts_lines(lines, i):
        return "counts in even steps"
    if UNNAMED.fullmatch(lines.header[i]):
        return "has no name"
    if i == 0 and _climbs_beside_others(lines, i):
        return "goes one way all along"
    return "is named as an index is" if lines.called[i] in NUMBERING | CALENDAR else ""


def _parts_of_date(lines: Lines) -> int:
    """How many leading columns are parts of a date by their names, which differ from line to line only together."""
    titles = lines.called
    count = next((i for i, title in enumerate(titles[:-1]) if title not in CALENDAR), len(titles) - 1)
    columns = [lines.numbers[i] or lines.columns[i] for i in range(count)]
    if count < 2 or any(isinstance(cells, tuple) and not all(map(DATE.fullmatch, cells)) for cells in columns):
        return 0
    together = list(zip(*columns, strict=True))
    # Days of other countries do not sort by their letters.
    in_order = not all(lines.numbers[:count]) or _turns_never(together)
    return count if in_order and len(set(together)) == len(together) else 0


def _turns_never(values: Sequence[Any]) -> bool:
    return list(values) in (sorted(values), sorted(values, reverse=True))


def _is_index(lines: Lines, i: int) -> bool:
    """Whether a column numbers, dates or names the lines; InputError where it cannot be told from a feature."""
    values, cells = lines.numbers[i], lines.columns[i]
    if values is None:
        return len(set(cells)) == len(cells) and all(map(is_label, cells))
    if lines.header:
        title = lines.called[i]
        if UNNAMED.fullmatch(lines.header[i]):
            return _is_counter(lines, i, values)
        # Four quarters share a year, no two lines a number.
        strictly = len(set(values)) == len(values) or (title in CALENDAR and values[0] != values[-1])
        return title in NUMBERING | CALENDAR and strictly and _turns_never(values)
    if counts_beside_others(lines, i) or _counts_lines(lines, i) or _climbs_beside_others(lines, i):
        how = "counts in even steps" if _is_even(values) else "goes one way all along"
        raise InputError(
            f"{lines.name}, column {i + 1} {how} ({shown(cells, 3)}): is it an index or a feature? "
            + _settling(lines, i)
        )
    return False


def _is_counter(lines: Lines, i: int, values: Sequence[float]) -> bool:
    """Whether a column without a name is an index such as pandas writes; InputError where it may be a feature."""
    whole = all(value == int(value) for value in values if math.isfinite(value))
    if (whole and len(set(values)) == len(values)) or _is_even(values):
        return True
    raise InputError(
        f"{lines.name}, column {i + 1} has no name ({shown(lines.columns[i], 3)}): is it an index or a feature? "
        + _settling(lines, i)
    )


def _settling(lines: Lines, i: int) -> str:
    if not lines.selectable:
        return "Leave it out of the file if it is an index; give it a name in a header if it is none"
    width = len(lines.titles)
    return f"Say {lines.choice(range(i + 1, width))} without it, {lines.choice(range(i, width))} with it"


def counts_beside_others(lines: Lines, i: int) -> bool:
    """Whether a column is evenly spaced and another is not."""
    values = lines.numbers[i]
    return values is not None and _is_even(values) and any(other and not _is_even(other) for other in lines.numbers)


def _counts_lines(lines: Lines, i: int) -> bool:
    """Whether a first column counts up by ones, as a number of the line or of the day does, whatever others do."""
    values = lines.numbers[i]
    return i == 0 and values is not None and _is_even(values) and values[1] - values[0] == 1 and values[0] % 1 == 0


def _climbs_beside_others(lines: Lines, i: int) -> bool:
    """Whether a column without a name never turns back over many lines, or in years, and another does."""
    values, cells = lines.numbers[i], lines.columns[i]
    if values is None or len(values) < 3 or not _turns_never(values):
        return False
    long = len(values) >= CLIMBING and len(set(values)) == len(values)
    dated = values[0] != values[-1] and all(map(YEAR_OR_DAY.fullmatch, cells))
    return (long or dated) and any(other and not _turns_never(other) for other in lines.numbers)


def _is_even(values: Sequence[float]) -> bool:
    if len(values) < 3:
        return False
    # Of what is not finite, or too far apart to be, nothing is even.
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.diff(values)
        step = (values[-1] - values[0]) / len(steps)
        return step != 0 and bool((np.abs(steps - step) <= EVEN * abs(step)).all())


def is_label(cell: str) -> bool:
    """Whether a cell names or dates a line, and is no number that was written in some other way."""
    if is_missing(cell) or cell.lower() in BOOLEANS:
        return False
    return cell[0].isalpha() or DATE.fullmatch(cell) is not None


def _said_of(lines: Lines, i: int) -> str:
    """What an index does, and whether time runs backwards in it."""
    values, cells = lines.numbers[i], lines.columns[i]
    dates = all(map(DATE.fullmatch, cells)) or lines.called[i] in CALENDAR
    # Days of other countries do not sort by their letters.
    sortable = all(re.match(r"\d{4}-", cell) for cell in cells)
    falling = values[0] > values[-1] if values else sortable and cells[0] > cells[-1]
    what = "dates the lines" if dates else "numbers the lines" if values else "names the lines"
    # Quarters turn back with every year.
    return f"{what}, backwards" if falling and i == 0 else what
