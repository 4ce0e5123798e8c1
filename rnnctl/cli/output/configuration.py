"""``--show-config``: what every option is set to, and by whom, without running anything."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.output.emit import emit, require_output
from rnnctl.results import Record, Result

# What typer calls the places that a value may come from.
SOURCES = {"COMMANDLINE": "flag", "ENVIRONMENT": "environment", "DEFAULT_MAP": "file"}


@dataclass(frozen=True, eq=False)
class Configuration(Result):
    """What a command is set to: one row an option, in the order of its help."""

    rows: tuple[Record, ...]
    schema: ClassVar[str] = "config"

    @property
    def scalars(self) -> Record:
        """None: it is all in the rows."""
        return {}


def show_configuration(context: Any) -> None:
    """Write what the command that is being run is set to, in the format that it asks for."""
    out = OutputOptions(**{field.name: context.params[field.name] for field in fields(OutputOptions)})
    require_output(out)
    shown = (each for each in context.command.params if each.name not in ("help", "show_config"))
    rows = tuple(_row(context, parameter) for parameter in shown)
    emit(Configuration(rows), {"command": context.command_path}, out)


def _row(context: Any, parameter: Any) -> Mapping[str, Any]:
    source = context.get_parameter_source(parameter.name)
    kind = SOURCES.get(source.name if source is not None else "", "default")
    where = {"environment": parameter.envvar, "file": str(context.params["config"])}.get(kind)
    longest = max(parameter.opts, key=len)
    return {"option": longest, "value": _value(context, parameter), "source": kind, "where": where}


def _value(context: Any, parameter: Any) -> Any:
    """As JSON can hold it; of what is settled later, the words that the help says of it."""
    value = context.params[parameter.name]
    if value is None:
        settled = getattr(parameter, "show_default", None)
        words = settled if isinstance(settled, str) else None
        return int(words) if words is not None and words.isdigit() else words
    if isinstance(value, tuple):
        value = list(value)
    return value if isinstance(value, (bool, int, float, list)) else str(value)
