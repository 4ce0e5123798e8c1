"""``--show-config``: what every option is set to, and by whom, without running anything."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.output.emit import chosen_format, deliver, require_output, text_of
from rnnctl.cli.pages import settled_for
from rnnctl.results import Record, Result

# What typer calls the places that a value may come from.
SOURCES = {"COMMANDLINE": "flag", "ENVIRONMENT": "environment", "DEFAULT_MAP": "file"}
# Whose content says a size that no flag gives.
SETTLED_BY = {
    "seq_len": ("input", "batch", "from_run"),
    "batch_size": ("input", "batch", "from_run"),
    "input_size": ("input", "batch", "model", "weights", "from_run"),
    "hidden_size": ("model", "weights", "from_run"),
    "output_size": ("model", "target", "weights", "from_run"),
}


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
    # All of them: what is looked for may be anywhere.
    text = text_of(Configuration(rows), {"command": context.command_path}, replace(out, all=True), chosen_format(out))
    deliver(text, out)


def _row(context: Any, parameter: Any) -> Mapping[str, Any]:
    source = context.get_parameter_source(parameter.name)
    kind = SOURCES.get(source.name if source is not None else "", "default")
    where = {"environment": parameter.envvar, "file": str(context.params["config"])}.get(kind)
    longest = max(parameter.opts, key=len)
    return {"option": longest, "value": _value(context, parameter), "source": kind, "where": where}


def _value(context: Any, parameter: Any) -> Any:
    """As JSON can hold it; of what is settled later, the words that the help says of it, or by what it is settled."""
    value = context.params[parameter.name]
    if value is None:
        if (giver := _giver(parameter.name, context.params)) is not None:
            return f"as {giver} says"
        settled = getattr(parameter, "show_default", None)
        words = settled_for(context.info_name, settled) if isinstance(settled, str) else None
        return int(words) if words is not None and words.isdigit() else words
    if isinstance(value, tuple):
        value = list(value)
    return value if isinstance(value, (bool, int, float, list)) else str(value)


def _giver(name: str, given: Mapping[str, Any]) -> str | None:
    """The option that settles a size when the command runs, where it is given."""
    return next((f"--{giver.replace('_', '-')}" for giver in SETTLED_BY.get(name, ()) if given.get(giver)), None)
