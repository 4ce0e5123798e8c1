"""What is varied: names and values, from --vary or from a mapping, checked as the options that they set."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import HistoryOptions
from rnnctl.cli.options.mapping import checked_option, option_named
from rnnctl.cli.options.output import OutputOptions, PlotOptions, ReportOptions
from rnnctl.errors import InputError
from rnnctl.files.toml import parsed_toml
from rnnctl.files.typed import keyword_arguments
from rnnctl.sweeps.grid import values_in

# Of a model's argument the name goes on after it: model_arg.hidden.
MODEL_ARG = "model_arg"
# What says where one result goes, or how it is computed, and nothing of the answer.
OF_ONE_RESULT = (PlotOptions, ReportOptions, OutputOptions, HistoryOptions)
NOT_VARIED = ("threads", "save_weights", *(field.name for group in OF_ONE_RESULT for field in fields(group)))
BOOLEANS = {"true": True, "false": False}


def varied_texts(texts: Sequence[str]) -> dict[str, str]:
    """Name -> values as typed, of "NAME=VALUES" each; InputError where one is not of that form, or twice there."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not equals or not name:
            raise InputError(f"--vary must be NAME=a,b,c or NAME=start:stop:count, as in gain=0.6:2.4:10; got {text!r}")
        if name in found:
            raise InputError(f"--vary {name.replace('_', '-')} is given twice; give all its values at once")
        found[name] = values
    return found


def varied_values(kind: type[CommandOptions], name: str, values: str | Sequence[Any]) -> tuple[str, list[Any]]:
    """The name of what is varied, and its values as the option has them.

    Args:
        kind: the options of the question.
        name: of an option, or "model_arg." and that of an argument.
        values: a text as after --vary NAME=, or a sequence.
    Raises:
        InputError: no such option, one that changes no answer, a value that it refuses.
    """
    flag = name.replace("_", "-")
    if not isinstance(values, Iterable):
        raise InputError(f"{flag} is varied over several values, or a text such as '1:2:5'; got {values!r}")
    try:
        if name.replace("-", "_").startswith(f"{MODEL_ARG}."):
            return _of_model(name.replace("-", "_"), values)
        parameter = option_named(kind, flag)
        if parameter.name in NOT_VARIED:
            raise InputError("it changes no answer, and cannot be varied")
        if parameter.multiple:
            raise InputError(f"vary one of them by its name, as in {flag}.hidden=4,8")
        listed = values_in(values, whole=parameter.metavar == "INTEGER") if isinstance(values, str) else list(values)
        checked = [checked_option(kind, flag, _typed(parameter, value)) for value in listed]
    except InputError as error:
        raise InputError(f"--vary {flag}: {str(error).removeprefix('Invalid value: ')}") from None
    return parameter.name, [value for _, value in checked]


def _of_model(name: str, values: str | Sequence[Any]) -> tuple[str, list[Any]]:
    """Of an argument of the model the values as TOML has them."""
    argument = name.removeprefix(f"{MODEL_ARG}.")
    if isinstance(values, str) and (array := _as_array(values)) is not None:
        return name, array
    listed = values_in(values) if isinstance(values, str) else list(values)
    read = [keyword_arguments([f"{argument}={_as_text(value)}"])[argument] for value in listed]
    return name, read


def _as_array(text: str) -> list[Any] | None:
    """The values of a list that is TOML but for its brackets, as of texts in quotes; None of any other."""
    try:
        found: list[Any] = parsed_toml(f"values = [{text}]")["values"]
    except (InputError, ValueError):
        return None
    return found


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _typed(parameter: Any, value: Any) -> Any:
    """A text of --vary as TOML would have it: a number or a boolean where the option takes one."""
    if not isinstance(value, str):
        return value
    if getattr(parameter, "is_flag", False):
        return BOOLEANS.get(value.lower(), value)
    if parameter.metavar in ("INTEGER", "FLOAT"):
        for number in (int, float):
            try:
                return number(value)
            except ValueError:
                continue
    return value


def with_varied(values: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all options, name -> value, at one point of the grid."""
    found = dict(values)
    for name, value in point.items():
        if name.startswith(f"{MODEL_ARG}."):
            argument = name.removeprefix(f"{MODEL_ARG}.")
            others = [text for text in found[MODEL_ARG] or () if text.partition("=")[0].strip() != argument]
            found[MODEL_ARG] = [*others, f"{argument}={_toml(value)}"]
        else:
            found[name] = value
    return found


def _toml(value: Any) -> str:
    """As TOML writes it."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return f"[{', '.join(map(_toml, value))}]" if isinstance(value, list) else _as_text(value)
