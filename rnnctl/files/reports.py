"""Results that were written as JSON, read again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rnnctl.errors import InputError
from rnnctl.files.reading import parsing, read_bytes
from rnnctl.results import Record

PREFIX = "rnnctl."


@dataclass(frozen=True)
class SavedReport:
    """A result as a file has it; what stands in its records is not judged here.

    Attributes:
        source: the file, for messages.
        schema: the kind of result ("bench").
        config: the configuration of its run.
        scalars, rows: as of ``Result``.
    """

    source: str
    schema: str
    config: Mapping[str, Any]
    scalars: Record
    rows: tuple[Record, ...]


def read_report(path: Path, program: str, version: int) -> SavedReport:
    """A result from a file of strict JSON.

    Args:
        program: what writes such files, for messages.
        version: of its schema, that is known here.
    Raises:
        InputError: no such file, no JSON (NaN and Infinity are none), no result in it, or one of another version.
    """
    source = repr(str(path))
    with parsing(source, "json"):
        found = json.loads(read_bytes(path), parse_constant=_refused)
    if not _is_report(found):
        raise InputError(
            f"{source} is no report: expected what {program} writes; got {_in_words(found)}. Try {program}"
        )
    if found.get("schema_version", version) != version:
        got = found["schema_version"]
        raise InputError(f"{source}: expected schema_version {version}; got {got!r}. Is rnnctl too old?")
    schema, config, scalars = found["schema"].removeprefix(PREFIX), found["config"], found["scalars"]
    return SavedReport(source, schema, config, scalars, tuple(found["rows"]))


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _is_report(found: Any) -> bool:
    if not isinstance(found, dict):
        return False
    schema, rows = found.get("schema"), found.get("rows")
    is_ours = isinstance(schema, str) and schema.startswith(PREFIX)
    has_rows = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    return is_ours and has_rows and all(isinstance(found.get(part), dict) for part in ("config", "scalars"))


def _in_words(found: Any) -> str:
    """What was in the file, in a few words."""
    if not isinstance(found, dict):
        return f"JSON of type {type(found).__name__}"
    lacking = [name for name in ("schema", "config", "scalars", "rows") if name not in found]
    return f"an object without {', '.join(lacking)}" if lacking else f"an object whose schema is {found['schema']!r}"
