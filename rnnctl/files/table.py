"""Numbers from CSV text, columns chosen by header name."""

import csv
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rnnctl.errors import InputError, did_you_mean

Line = tuple[int, list[str]]


def parse_csv(
    data: bytes, name: str, columns: Sequence[str], skipped: Sequence[str]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The numbers of a CSV file, a row for a line, and the names of its columns.

    Args:
        data: UTF-8 text; a first line with anything that is no number is the header.
        name: for messages.
        columns: which columns, by header name, in this order; none means all but ``skipped``.
        skipped: columns that are left out unless they are asked for.
    Returns:
        Shape (lines, columns), and the names, () without a header.
    """
    header, lines = _header_and_lines(data, name)
    width = len(header or lines[0][1])
    wanted = _column_numbers(header, columns, skipped, name, width)
    titles = [title or f"column {i}" for i, title in enumerate(header or [""] * width, start=1)]
    values = [_numbers(line, titles, wanted, name) for line in lines]
    return np.array(values, dtype=np.float64), tuple(titles[i] for i in wanted) if header else ()


def _header_and_lines(data: bytes, name: str) -> tuple[list[str], list[Line]]:
    lines = _lines(data, name)
    if not lines:
        raise InputError(f"{name} is empty; rows of a .csv file are time steps")
    if all(map(_is_number, lines[0][1])):
        return [], lines
    header = [cell.strip() for cell in lines[0][1]]
    if len(lines) == 1:
        raise InputError(f"{name} has a header ({', '.join(header)}) and no rows; rows of a .csv file are time steps")
    return header, lines[1:]


def _lines(data: bytes, name: str) -> list[Line]:
    """Line number and cells of every line that is not blank."""
    try:
        text = io.StringIO(data.decode("utf-8-sig"), newline="")
        reader = csv.reader(text, strict=True)
        return [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}, is not CSV: {error}") from None


def _column_numbers(
    header: list[str], columns: Sequence[str], skipped: Sequence[str], name: str, width: int
) -> list[int]:
    if not columns:
        return [i for i in range(width) if not header or header[i] not in skipped]
    if not header:
        raise InputError(f"--columns selects by header name, and {name} has no header")
    for column in columns:
        if header.count(column) > 1:
            raise InputError(f"{name} has {header.count(column)} columns {column!r}; rename one to select it")
        if column not in header:
            near = did_you_mean(column, header)
            raise InputError(f"{name} has no column {column!r}; it has {', '.join(header)}.{near}")
    return [header.index(column) for column in columns]


def _numbers(line: Line, titles: list[str], wanted: list[int], name: str) -> list[float]:
    number, row = line
    if len(row) != len(titles):
        raise InputError(f"{name}, line {number}: expected {len(titles)} columns; got {len(row)}")
    for i in wanted:
        if not _is_number(row[i]):
            hint = ". Separate columns with commas" if ";" in row[i] or "\t" in row[i] else ""
            raise InputError(f"{name}, line {number}, {titles[i]}: expected a number; got {row[i]!r}{hint}")
    return [float(row[i]) for i in wanted]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    # float reads "1_000", too.
    return "_" not in cell
