"""The sequences that a network is run on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from rnnctl.cli.options.completing import column_names, input_names, target_names
from rnnctl.cli.options.flags import option, size, whole

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " ", "pipe": "|", "\\t": "\t"}


def as_delimiter(value: str) -> str:
    """A delimiter by its character or its name."""
    found = DELIMITERS.get(value.lower(), value)
    # None that a number, a quoted cell or a line is written with.
    if len(found) != 1 or found.isalnum() or found in "\"'+-.\r\n":
        named = ", ".join(name for name in DELIMITERS if name.isalpha())
        raise typer.BadParameter(f"expected one character, such as ';', or {named}; got {value!r}")
    return found


@dataclass(frozen=True)
class DataOptions:
    """The sequences."""

    panel: ClassVar[str] = "Data"
    seq_len: Annotated[int | None, size("--seq-len", "Time steps T; the first ones of a longer --input.", 7)] = None
    skip_steps: Annotated[int, whole("--skip-steps", "Steps to leave out at the start of --input.", 0)] = 0
    batch_size: Annotated[int | None, size("--batch-size", "Sequences in the batch.", 4)] = None
    input: Annotated[
        str | None,
        option(
            "--input",
            help="Sequences: npy, npz, pt, safetensors, CSV by content; sunspots or macrodata (bundled); - for stdin.",
            metavar="FILE|NAME|-",
            autocompletion=input_names,
            show_default="random numbers",
        ),
    ] = None
    input_format: Annotated[
        Literal["npy", "npz", "pt", "safetensors", "csv"] | None,
        option("--input-format", help="Format of standard input; files are known by their content."),
    ] = None
    input_key: Annotated[str | None, option("--input-key", help="Which of several named arrays.")] = None
    columns: Annotated[
        str | None,
        option(
            "--columns",
            help="Columns of a .csv by header name, or by number from 1; with commas between.",
            metavar="NAME,NAME,...",
            autocompletion=column_names,
        ),
    ] = None
    delimiter: Annotated[
        str | None,
        option(
            "--delimiter",
            help="What separates columns of a .csv: a character, or tab, space, comma, semicolon, pipe.",
            metavar="CHARACTER",
            parser=as_delimiter,
            show_default="as the file shows",
        ),
    ] = None
    decimal: Annotated[
        Literal[".", ","] | None,
        option("--decimal", help="The decimal mark in a .csv.", show_default="as the file shows"),
    ] = None
    header: Annotated[
        Literal["yes", "no"] | None,
        option("--header", help="Whether a .csv begins with names.", show_default="as the file shows"),
    ] = None
    standardize: Annotated[
        bool, option("--standardize/--no-standardize", help="z-score every feature over batch and time.")
    ] = False
    target: Annotated[
        str | None,
        option(
            "--target",
            help="dummy: zeros; next: predict x_{t+1}; or a file.",
            metavar="dummy|next|FILE",
            autocompletion=target_names,
            show_default="dummy",
        ),
    ] = None
    h_init: Annotated[
        Literal["zeros", "normal"] | None,
        option(
            "--h-init",
            help="The hidden state before step 0.",
            show_default="zeros; lyapunov --autonomous: normal",
        ),
    ] = None


@dataclass(frozen=True)
class LengthOptions:
    """Sequences of different lengths."""

    panel: ClassVar[str] = "Data"
    lengths: Annotated[
        Path | None,
        option(
            "--lengths",
            help="File with the real steps of every sequence; or let --input be padded with nan.",
            metavar="FILE",
        ),
    ] = None


@dataclass(frozen=True)
class BatchOptions:
    """All inputs of a model of the user's."""

    panel: ClassVar[str] = "Data"
    batch: Annotated[
        str | None,
        option(
            "--batch",
            help="Your own function in place of --input where --model takes more than one tensor: called without "
            "arguments, it returns a tuple of positional or a mapping of keyword arguments, sequences first, "
            "(batch, time, ...). Tensors are moved to --device; --dtype, where given, is that of its floats.",
            metavar="PACKAGE.MODULE:FUNCTION",
        ),
    ] = None


@dataclass(frozen=True)
class HistoryOptions:
    """A training run that was watched."""

    panel: ClassVar[str] = "Data"
    from_run: Annotated[
        Path | None,
        option("--from", help="Show what rnnctl.watch wrote in place of running anything.", metavar="RUN.jsonl"),
    ] = None
