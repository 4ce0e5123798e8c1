"""JSON, JSONL and CSV of any result, from the same fields as the table."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rnnctl.results import strict, strict_line

SCHEMA_VERSION = 1


def json_text(document: Mapping[str, Any]) -> str:
    """One strict JSON document."""
    return json.dumps(strict(document), allow_nan=False, indent=2) + "\n"


def jsonl_text(records: Sequence[Mapping[str, Any]]) -> str:
    """One strict JSON object a line."""
    return "".join(strict_line(record) for record in records)


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """A header and one line a record; nan and inf as such, no value as an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if records:
        writer.writerow(records[0])
    writer.writerows([_cell(value) for value in record.values()] for record in records)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return "x".join(str(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else value
