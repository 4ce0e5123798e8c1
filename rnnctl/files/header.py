"""Whether the first line of a table names its columns: by what stands beneath, or not to be told."""

import math
import re
from collections.abc import Callable, Sequence

# What programs write for a value that is not there; "nan" is a number, which is not finite.
MISSING = {"", "na", "n/a", "#n/a", "<na>", "null", "none", "nil", "?", "-", ".", "missing"}

# So many rows beneath tell as much as all.
SAMPLE = 200

Numbers = Callable[[str], float | None]
Cells = Sequence[str]


def is_missing(cell: str) -> bool:
    """Whether a cell says that it holds no value."""
    return cell.lower() in MISSING


def has_header(rows: Sequence[Cells], number: Numbers) -> bool | None:
    """Whether the first row names the columns; None where nothing tells.

    Args:
        rows: cells as text, all rows as long.
        number: the number in a cell, or None.
    """
    first, rest = rows[0], rows[1 : SAMPLE + 1]
    if not rest:
        return any(number(cell) is None for cell in first)
    columns = list(zip(*rest, strict=True))
    votes = {vote for cell, beneath in zip(first, columns, strict=True) if (vote := _vote(cell, beneath, number))}
    if votes == {"header"}:
        return True if _may_be_names(first, columns[0], number) else None
    if votes:
        return None if len(votes) > 1 else False
    if all(number(cell) is not None for cell in first):
        return _of_numbers(first, rest, number)
    if first[0] == "" and all(map(_is_whole, first[1:])) and _are_index(columns[0], number):
        # The empty corner above an index, as pandas writes it beside columns without names.
        return True
    # A number over numbers, beside a text over texts: a year and a place, or a value and a place.
    beside = (
        number(cell) is not None and _all_numbers(beneath, number) for cell, beneath in zip(first, columns, strict=True)
    )
    return None if first[0] == "" or any(beside) else True


def _vote(cell: str, beneath: Cells, number: Numbers) -> str | None:
    """What one column says of its first cell: "header", "data", or nothing."""
    values = [other for other in beneath if not is_missing(other)]
    if not values or is_missing(cell) or number(cell) is not None:
        return None
    if _all_numbers(values, number):
        return "header"
    if cell in values:
        return "data"
    forms = {_form(value) for value in values}
    # A date over dates; a word over dates.
    if "0" in _form(cell):
        return "data" if _form(cell) in forms else None
    return "header" if all("0" in form for form in forms) else None


def _may_be_names(first: Cells, beneath: Cells, number: Numbers) -> bool:
    """Whether numbers among the names are names as well: after the name of an index of dates, years, or a count."""
    numbers = [cell for cell in first if number(cell) is not None]
    if not numbers:
        return True
    if number(first[0]) is not None or not all(map(_is_whole, numbers)):
        return False
    counting = int(numbers[0]) in (0, 1) and _steps([int(cell) for cell in numbers]) <= {1}
    return counting or all(map(_is_year, numbers)) or not _all_numbers(beneath, number)


def _of_numbers(first: Cells, rest: Sequence[Cells], number: Numbers) -> bool | None:
    """The same for a first row of numbers alone, which most often is data."""
    if len(set(first)) < len(first):
        return False
    counts = _counts(first, number)
    alone = counts and not any(_step(row, number) is not None for row in rest)
    if not all(map(_is_whole, first)):
        return None if alone else False
    with_decimals = not any(_is_whole(cell) for row in rest for cell in row)
    if counts and with_decimals and (int(first[0]), int(first[1])) == (0, 1):
        return True
    years = all(map(_is_year, first)) and not any(_is_year(cell) for row in rest for cell in row)
    return None if with_decimals or alone or (years and len(first) > 1) else False


def _counts(row: Cells, number: Numbers) -> bool:
    """Whether a row goes up in even steps: by 1, or over more cells than three, which do so by chance."""
    step = _step(row, number)
    return step is not None and step > 0 and (step == 1 or len(row) > 3)


def _step(row: Cells, number: Numbers) -> float | None:
    """The step in which three or more numbers go up or down; None where it is not the same all along."""
    values = [value for cell in row if (value := number(cell)) is not None]
    if len(values) < max(3, len(row)):
        return None
    step = values[1] - values[0]
    return step if all(math.isclose(other, step, rel_tol=1e-6) for other in _steps(values)) else None


def _all_numbers(cells: Cells, number: Numbers) -> bool:
    return all(number(cell) is not None for cell in cells if not is_missing(cell))


def _are_index(cells: Cells, number: Numbers) -> bool:
    """Whether no two are alike, all of them whole numbers or all texts."""
    alike = all(map(_is_whole, cells)) or all(number(cell) is None for cell in cells)
    return alike and len(set(cells)) == len(cells) and not any(map(is_missing, cells))


def _steps(values: Sequence[float]) -> set[float]:
    return {b - a for a, b in zip(values, values[1:], strict=False)}


def _is_whole(cell: str) -> bool:
    return re.fullmatch(r"\d{1,9}", cell) is not None


def _is_year(cell: str) -> bool:
    return re.fullmatch(r"1[89]\d\d|20\d\d", cell) is not None


def _form(cell: str) -> str:
    """A cell with 0 for any digits and a for any letters, which dates have in common."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", cell))
