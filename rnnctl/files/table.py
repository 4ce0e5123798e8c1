"""Numbers from CSV text: its header, the columns that are taken, and what to say of a cell that is no number."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rnnctl.errors import InputError, did_you_mean
from rnnctl.files.dialect import FROM_THE_FILE, Dialect, Grid, Row, grid, number
from rnnctl.files.header import has_header, is_missing
from rnnctl.files.index import BOOLEANS, counts_beside_others, features, is_label
from rnnctl.files.lines import Lines, shown

# A number with what may stand in it for thousands.
GROUPED = re.compile(r"[+-]?\d{1,3}([ ,.'_\u00a0\u202f]\d{3})+([.,]\d+)?")


@dataclass(frozen=True)
class Table:
    """The numbers of a text file.

    Attributes:
        values: shape (lines, columns).
        names: of the columns; () where they have none and all are taken.
        notes: what was decided.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...]
    notes: tuple[str, ...]


def parse_csv(
    data: bytes,
    name: str,
    columns: Sequence[str] = (),
    skipped: Sequence[str] = (),
    *,
    dialect: Dialect = FROM_THE_FILE,
    selectable: bool = True,
) -> Table:
    """The numbers of a CSV file, a row for a line, and the names of its columns.

    Args:
        data: text, as for ``grid``.
        name: for messages.
        columns: which columns, in this order, by header name, or without a header by number from 1; none means all
            but leading ones that number, date or name the lines.
        skipped: columns that are left out unless they are asked for, and then no others are.
        dialect: what is said of the file beforehand.
        selectable: whether messages may name --columns.
    Returns:
        Shape (lines, columns), the names, and what was decided.
    Raises:
        InputError: a cell that is no number, or something that the file leaves open: what, and the option that says it.
    """
    cells = grid(data, name, dialect)
    if not cells.rows:
        what = "has nothing but comments" if cells.notes else "is empty"
        raise InputError(f"{name} {what}; rows of a .csv file are time steps")
    lines, notes = _under_header(cells, name, dialect, selectable)
    _require_no_thousands(lines, dialect)
    notes += _of_commas(lines, dialect)
    if columns:
        wanted = _column_numbers(lines, columns)
    elif skipped:
        wanted = [i for i, title in enumerate(lines.titles) if title not in skipped]
    else:
        wanted, left_out = features(lines)
        notes += left_out
    values = _values(lines, wanted)
    without_names = not lines.header and wanted == list(range(len(lines.titles)))
    names = () if without_names else tuple(lines.titles[i] for i in wanted)
    return Table(values, names, (*cells.notes, *notes))


def _under_header(cells: Grid, name: str, dialect: Dialect, selectable: bool) -> tuple[Lines, list[str]]:
    """The lines with their header, and what is to be told of it."""
    rows = _of_one_length(_with_corner(_without_last_delimiter(cells.rows), cells.delimiter), name)
    first = rows[0]
    named = dialect.header
    if named is None:
        named = has_header([row.cells for row in rows], cells.number)
        if not named and _may_name(cells.comment, rows, cells):
            note = f"{name}: the comment in line {first.line - 1} names the columns ({shown(cells.comment)})"
            return Lines(name, cells, rows, cells.comment, selectable), [note]
    if named is None:
        raise InputError(
            f"{name}, line {first.line} ({shown(first.cells)}) may be names of columns or numbers. "
            "Say which with --header yes or --header no"
        )
    if named and len(rows) == 1:
        raise InputError(
            f"{name} has a header ({', '.join(first.cells)}) and no rows; rows of a .csv file are time steps"
        )
    header, rest = (first.cells, rows[1:]) if named else ((), rows)
    lines = Lines(name, cells, rest, header, selectable)
    return lines, [] if dialect.header is not None else _of_header(lines, first)


def _of_header(lines: Lines, first: Row) -> list[str]:
    """What to say where the first line is a header with numbers in it, or data with texts in it."""
    numbers = [lines.grid.number(cell) is not None for cell in first.cells]
    taken = f"{lines.name}: line {first.line} ({shown(first.cells)}) is taken"
    if lines.header:
        return [f"{taken} as names of columns (--header no if it is data)"] if any(numbers) else []
    return [] if all(numbers) else [f"{taken} as data (--header yes if it names the columns)"]


def _may_name(comment: Sequence[str], rows: Sequence[Row], cells: Grid) -> bool:
    """Whether a comment right above the first line has a name for each of several columns."""
    width = len(rows[0].cells)
    return width > 1 and len(comment) == width and all(cell and cells.number(cell) is None for cell in comment)


def _without_last_delimiter(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows without columns that only delimiters at the ends of lines make: nothing stands in or above them."""
    used = max(i for row in rows for i, cell in enumerate(row.cells, start=1) if cell)
    return [row if len(row.cells) <= used else replace(row, cells=row.cells[:used]) for row in rows]


def _with_corner(rows: Sequence[Row], delimiter: str | None) -> Sequence[Row]:
    """The rows with an empty cell above an index, where the first has none for it, as R writes tables."""
    first, *rest = rows
    # Between commas, a decimal comma makes a cell too many as well.
    if delimiter == "," or not rest or any(len(row.cells) != len(first.cells) + 1 for row in rest):
        return rows
    return [replace(first, cells=("", *first.cells)), *rest]


def _of_one_length(rows: Sequence[Row], name: str) -> Sequence[Row]:
    """The rows as they are; InputError for the first that is not as long as the first of all."""
    width = len(rows[0].cells)
    for row in rows:
        if len(row.cells) != width:
            raise InputError(
                f"{name}, line {row.line}: expected {width} columns; got {len(row.cells)}. "
                "If columns or decimals are not told apart as they should be: --delimiter, --decimal"
            )
    return rows


def _of_commas(lines: Lines, dialect: Dialect) -> list[str]:
    """What to say where a comma between whole numbers may as well be a decimal mark; InputError where it seems so."""
    given = dialect.delimiter is not None or dialect.decimal is not None
    if given or lines.header or lines.grid.delimiter != "," or len(lines.columns) != 2:
        return []
    integers, fractions = lines.columns
    if not all(re.fullmatch(r"[+-]?\d+", cell) for cell in integers) or not all(map(str.isdigit, fractions)):
        return []
    first = ",".join(lines.rows[0].cells)
    led_by_zero = any(len(cell) > 1 and cell.startswith("0") for cell in fractions)
    if led_by_zero or counts_beside_others(lines, 0) or _are_thousands(lines):
        raise InputError(
            f"{lines.name}: are lines such as {first!r} numbers with a decimal comma or thousands, or two columns? "
            "Say --decimal , or --delimiter , and write thousands without a separator"
        )
    return [f"{lines.name}: lines such as {first!r} are two columns (--decimal , if the comma is a decimal mark)"]


def _require_no_thousands(lines: Lines, dialect: Dialect) -> None:
    """Raise InputError where a space may as well stand between thousands as between two columns."""
    if dialect.delimiter is None and lines.grid.delimiter == " " and len(lines.columns) == 2 and _are_thousands(lines):
        first = " ".join(lines.rows[0].cells)
        raise InputError(
            f"{lines.name}: are lines such as {first!r} thousands, or two columns? For two columns say "
            "--delimiter space; write thousands without a separator"
        )


def _are_thousands(lines: Lines) -> bool:
    """Whether all pairs of cells are as the parts of a number of four to six digits, without a name for each."""
    high, low = lines.columns
    named = lines.header and all(lines.header)
    parted = all(re.fullmatch(r"[+-]?[1-9]\d{0,2}", c) for c in high) and all(re.fullmatch(r"\d{3}", c) for c in low)
    return parted and not named


def _column_numbers(lines: Lines, columns: Sequence[str]) -> list[int]:
    name, titles = lines.name, lines.titles
    if not lines.header:
        if not all(column.isdecimal() and 1 <= int(column) <= len(titles) for column in columns):
            raise InputError(
                f"--columns selects by header name, and {name} has no header; there it takes numbers from 1 to "
                f"{len(titles)}; got {', '.join(columns)}"
            )
        return [int(column) - 1 for column in columns]
    for column in columns:
        if titles.count(column) > 1:
            raise InputError(f"{name} has {titles.count(column)} columns {column!r}; rename one to select it")
        if column not in titles:
            near = did_you_mean(column, titles)
            raise InputError(f"{name} has no column {column!r}; it has {', '.join(titles)}.{near}")
    return [titles.index(column) for column in columns]


def _values(lines: Lines, wanted: Sequence[int]) -> NDArray[np.float64]:
    found = [numbers for i in wanted if (numbers := lines.numbers[i]) is not None]
    if len(found) < len(wanted):
        raise _no_number(lines, wanted)
    return np.ascontiguousarray(np.array(found, dtype=np.float64).T)


def _no_number(lines: Lines, wanted: Sequence[int]) -> InputError:
    """What to say of the first cell that is no number."""
    row, i = next((row, i) for row in lines.rows for i in wanted if lines.grid.number(row.cells[i]) is None)
    cell = row.cells[i]
    # A first line alone that is no number is a name.
    names = not lines.header and row is lines.rows[0] and _are_numbers(lines, lines.columns[i][1:])
    advice = ". If it names the column: --header yes" if names else _advice(lines, i, cell)
    return InputError(f"{lines.name}, line {row.line}, {lines.titles[i]}: expected a number; got {cell!r}{advice}")


def _are_numbers(lines: Lines, cells: Sequence[str]) -> bool:
    return bool(cells) and all(lines.grid.number(cell) is not None for cell in cells)


def _advice(lines: Lines, i: int, cell: str) -> str:
    """What to do about a cell that is no number."""
    if is_missing(cell):
        return ". A value is missing: fill it in, or leave out its line or its column"
    if cell.lower() in BOOLEANS:
        return ". Write 1 and 0"
    if number(cell, "," if lines.grid.decimal == "." else ".") is not None:
        return ". Say which is the decimal mark with --decimal, and write thousands without a separator"
    if GROUPED.fullmatch(cell):
        return ". Write thousands without a separator"
    parts = [lines.grid.number(part) for part in re.split(r"[^\w.+-]+", cell)]
    if any(delimiter in cell for delimiter in ",;|\t") or (len(parts) > 1 and None not in parts):
        return ". Say what separates the columns with --delimiter"
    if 1 < len(set(lines.columns[i])) < len(lines.rows) and is_label(cell):
        return ". If these are lines of several sequences, save each sequence by itself"
    numeric = [i for i, numbers in enumerate(lines.numbers) if numbers is not None]
    return f". Without the column: {lines.choice(numeric)}" if lines.selectable and numeric else ""
