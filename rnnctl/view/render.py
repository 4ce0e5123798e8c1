"""One result in any of the formats."""

from collections.abc import Mapping
from typing import Any

from rnnctl.results import Result
from rnnctl.view.layouts.layout import headline
from rnnctl.view.machine import SCHEMA_VERSION, csv_text, json_text, jsonl_text
from rnnctl.view.tables import table_text
from rnnctl.view.terminal import View


def rendered(result: Result, view: View, config: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """The result as text.

    Args:
        view: in which form, and what of it.
        config: the resolved configuration.
        versions: of rnnctl and torch.
    """
    if view.form == "table":
        return table_text(result, headline(result.schema, config), view)
    if view.form == "json":
        return json_text(document(result, config, versions, view.only))
    records = [result.scalars] if view.only == "scalars" else result.rows
    return jsonl_text(records) if view.form == "jsonl" else csv_text(records)


def document(
    result: Result, config: Mapping[str, Any], versions: Mapping[str, str], only: str | None, *, rows: bool = True
) -> Mapping[str, Any]:
    """What JSON says of a result: all of it, or its rows or scalars alone; without ``rows`` these are not made."""
    made: dict[str, Any] = {
        "schema": f"rnnctl.{result.schema}",
        "schema_version": SCHEMA_VERSION,
        "versions": versions,
        "config": config,
    }
    if only != "rows":
        made["scalars"] = result.scalars
    if only != "scalars":
        made |= {"rows": result.rows} if rows else {}
        made |= result.more
    if only != "rows":
        why = result.why
        undefined = {name: why[name] for name, value in result.scalars.items() if value is None and name in why}
        made |= {"why": undefined} if undefined else {}
    return made
