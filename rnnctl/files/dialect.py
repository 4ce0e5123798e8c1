"""How a text file writes its table: encoding, comments, delimiter, decimal mark; and its cells, still text."""

import codecs
import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass

from rnnctl.errors import InputError
from rnnctl.memory import require_memory

# With what one says of them.
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "spaces"}
COMMENT = re.compile(r"\s*(#|%|//)")
# Excel's own way to say it, in a line before all others.
SEPARATOR = re.compile(r'"?sep=([,;|\t ])"?', re.IGNORECASE)
WITH_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
WITH_POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
# So many rows tell which of two delimiters leaves less that is no number.
SAMPLE = 200
LONGEST_COMMENT = 60


@dataclass(frozen=True)
class Dialect:
    """What is said of a text file beforehand; None where the file has to tell.

    Attributes:
        delimiter: one character between columns; " " is any number of spaces or tabs.
        decimal: "." or ",".
        header: whether the first line names the columns.
    """

    delimiter: str | None = None
    decimal: str | None = None
    header: bool | None = None


FROM_THE_FILE = Dialect()


@dataclass(frozen=True)
class Row:
    """A line that holds cells: its number in the file, and the cells without spaces around."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """The cells of a text file.

    Attributes:
        rows: every line that is neither blank nor a comment; not all need be as long.
        comment: the comment right above the first row, as cells; () where there is none.
        delimiter: None for a single column.
        decimal: "." or ",".
        notes: what was decided.
    """

    rows: tuple[Row, ...]
    comment: tuple[str, ...]
    delimiter: str | None
    decimal: str
    notes: tuple[str, ...]

    def number(self, cell: str) -> float | None:
        """The number in a cell, or None."""
        return number(cell, self.decimal)


def number(cell: str, decimal: str) -> float | None:
    """The number that a cell writes with this decimal mark, or None."""
    if decimal == ",":
        if "." in cell:
            return None
        cell = cell.replace(",", ".")
    try:
        # float reads "1_000", too.
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def grid(data: bytes, name: str, dialect: Dialect) -> Grid:
    """The cells of a text file, told apart as the file itself shows or as ``dialect`` says.

    Args:
        data: UTF-8 text, or UTF-16 with its byte-order mark; any line ends.
        name: for messages.
    Raises:
        InputError: another encoding, quotes that do not close, or a delimiter or decimal mark that cannot be told.
    """
    # Measured, cells took 120 to 340 bytes each beside the text: whoever has no room for this has none for the table.
    cells = sum(map(data.count, (b"\n", b",", b";", b"\t", b"|")))
    require_memory(8 * len(data) + 100 * cells, f"the table of {name}")
    text, notes = _decoded(data, name)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    delimiter = dialect.delimiter or _declared(lines)
    comments = _blanked_comments(lines)
    if comments:
        line, comment = next(iter(comments.items()))
        count = "1 comment line is" if len(comments) == 1 else f"{len(comments)} comment lines are"
        notes.append(f"{name}: {count} left out, the first is line {line}: {comment[:LONGEST_COMMENT]!r}")
    found, rows = (delimiter, ()) if delimiter else _delimiter(lines, name, dialect.decimal)
    rows = rows or _rows(lines, found, name)
    if delimiter is None and found not in (None, ","):
        notes.append(f"{name}: columns are separated by {DELIMITERS[found]}")
    decimal = dialect.decimal or _decimal(rows, found, name)
    if dialect.decimal is None and decimal == ",":
        notes.append(f"{name}: numbers have decimal commas (--decimal . if that is wrong)")
    above = comments.get(rows[0].line - 1, "") if rows else ""
    return Grid(rows, _cells_of_comment(above, found), found, decimal, tuple(notes))


def _decoded(data: bytes, name: str) -> tuple[str, list[str]]:
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    kind = "UTF-16" if wide else "UTF-8"
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not {kind} text: {error.reason} at byte {error.start}. Save it as UTF-8") from None
    if "\0" in text:
        # UTF-16 without its mark is text with a zero in every second byte.
        raise InputError(f"{name} is not {kind} text: it holds a zero at letter {text.index(chr(0))}. Save it as UTF-8")
    return text, [f"{name}: read as UTF-16"] if wide else []


def _declared(lines: list[str]) -> str | None:
    """The delimiter of a first line "sep=;", which is taken out."""
    found = SEPARATOR.fullmatch(lines[0].strip())
    if found is None:
        return None
    lines[0] = ""
    return found[1]


def _blanked_comments(lines: list[str]) -> dict[int, str]:
    """Line number -> text of every comment line; what is left of it is blank, so that numbers of lines stay."""
    comments = {}
    for i, line in enumerate(lines):
        if COMMENT.match(line) and not _is_named_by_mark(line):
            comments[i + 1], lines[i] = line.strip(), ""
    return comments


def _is_named_by_mark(line: str) -> bool:
    """Whether # is not the start of a comment but the name of a first column, the running number."""
    return re.match(r"\s*[#%]\s*[,;|\t]\s*[^\s,;|]", line) is not None


def _cells_of_comment(comment: str, delimiter: str | None) -> tuple[str, ...]:
    bare = COMMENT.sub("", comment, count=1)
    rows = _rows_or_none([bare], delimiter)
    return rows[0].cells if rows else ()


def _rows(lines: list[str], delimiter: str | None, name: str) -> tuple[Row, ...]:
    if delimiter == " ":
        lines = [line.replace("\t", " ").strip() for line in lines]
    # For a single column, a character that is in no text.
    written = delimiter or "\x1f"
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=written, strict=True, skipinitialspace=True)
    try:
        rows = [Row(reader.line_num, tuple(map(str.strip, cells))) for cells in reader]
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}, is not CSV: {error}") from None
    return tuple(row for row in rows if any(row.cells))


def _delimiter(lines: list[str], name: str, decimal: str | None) -> tuple[str | None, tuple[Row, ...]]:
    """What separates the columns, and the rows: what leaves the fewest letters that are no number.

    Returns:
        None, and no rows, for a single column.
    """
    first = next((line for line in lines if line.strip()), "")
    # A decimal comma separates columns only around quotes.
    barred = decimal == "," and not any('"' in line for line in lines)
    there = {d: _rows_or_none(lines, d) for d in DELIMITERS if d in first or (d == " " and "\t" in first)}
    wide = {d: rows for d, rows in there.items() if rows and len(rows[0].cells) > 1 and not (barred and d == ",")}
    even = {d: rows for d, rows in wide.items() if _is_even(rows, d)}
    # A space may stand in the name of a single column.
    pool = even or {d: rows for d, rows in wide.items() if d != " "}
    unread = {d: _unread(rows[1:] or rows, decimal) for d, rows in pool.items()}
    if unread.get(" ") and ("\t" in pool or _holds_another(pool[" "][0], pool)):
        del unread[" "]
    # Spaces make of "day 12,15" a day and a decimal comma: fewer letters that are no number, and no better.
    least = min(unread.values(), default=0)
    equal = [d for d in unread if unread[d] == least or (unread.get(" ") == least > 0)]
    # Tabs are spaces, too: what gives the same cells is the same.
    best = list({pool[d]: d for d in reversed(equal)}.values())
    if len(best) > 1:
        words = " or ".join(DELIMITERS[d] for d in reversed(best))
        raise InputError(f"{name}: columns may be separated by {words}. Say which with --delimiter")
    return (best[0], pool[best[0]]) if best else (None, ())


def _holds_another(first: Row, delimiters: Iterable[str]) -> bool:
    """Whether a cell of the first row that is no number holds what may separate columns as well."""
    texts = [cell for cell in first.cells if all(number(cell, mark) is None for mark in ".,")]
    return any(delimiter in cell for cell in texts for delimiter in delimiters)


def _rows_or_none(lines: list[str], delimiter: str | None) -> tuple[Row, ...]:
    """The rows that a delimiter gives; none where quotes do not close with it."""
    try:
        return _rows(lines, delimiter, "")
    except InputError:
        return ()


def _is_even(rows: tuple[Row, ...], delimiter: str) -> bool:
    """Whether all rows are as long, but for a first one without a name for an index."""
    first, *rest = (len(row.cells) for row in rows)
    return len(set(rest)) < 2 and (not rest or rest[0] == first or (rest[0] == first + 1 and delimiter != ","))


def _unread(rows: tuple[Row, ...], decimal: str | None) -> int:
    """Letters in cells that are no number with this decimal mark; with either, where none is given."""
    marks = (decimal,) if decimal else (".", ",")
    cells = (cell for row in rows[:SAMPLE] for cell in row.cells)
    return sum(len(cell) for cell in cells if all(number(cell, mark) is None for mark in marks))


def _decimal(rows: tuple[Row, ...], delimiter: str | None, name: str) -> str:
    """The decimal mark, by what the cells show; InputError where they show both, or what may be thousands."""
    commas = [(row.line, c) for row in rows for c in row.cells if "," in c and WITH_COMMA.fullmatch(c)]
    if not commas:
        points = [(row.line, c) for row in rows for c in row.cells if "." in c and WITH_POINT.fullmatch(c)]
        if delimiter == ";" and points and all(THOUSANDS.fullmatch(cell.replace(".", ",")) for _, cell in points):
            raise InputError(
                f"{name}, line {points[0][0]}: is {points[0][1]!r} in thousands, or has it a decimal point? For a "
                "decimal point say --decimal . and write thousands without a separator"
            )
        return "."
    comma = commas[0]
    point = next(((row.line, c) for row in rows for c in row.cells if "." in c and WITH_POINT.fullmatch(c)), None)
    if point is not None:
        raise InputError(
            f"{name} holds {comma[1]!r} (line {comma[0]}) and {point[1]!r} (line {point[0]}): which is the decimal "
            "mark? Say --decimal . or --decimal , and write thousands without a separator"
        )
    # Semicolons are what programs separate by where the comma is the decimal mark.
    if delimiter != ";" and all(THOUSANDS.fullmatch(cell) for _, cell in commas):
        raise InputError(
            f"{name}, line {comma[0]}: is {comma[1]!r} in thousands, or has it a decimal comma? For a decimal comma "
            "say --decimal , and write thousands without a separator"
        )
    return ","
