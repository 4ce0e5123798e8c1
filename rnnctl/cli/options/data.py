"""The sequences that a network is run on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from rnnctl.cli.options.flags import option, size


@dataclass(frozen=True)
class DataOptions:
    """The sequences."""

    panel: ClassVar[str] = "Data"
    seq_len: Annotated[int | None, size("--seq-len", "Time steps T.", 7)] = None
    batch_size: Annotated[int | None, size("--batch-size", "Sequences in the batch.", 4)] = None
    input: Annotated[
        str | None,
        option(
            "--input",
            help="Sequences: .npy, .npz, .pt, .safetensors, .csv; sunspots or macrodata (bundled); - for stdin.",
            metavar="FILE|NAME|-",
            show_default="random numbers",
        ),
    ] = None
    input_format: Annotated[
        Literal["npy", "npz", "pt", "safetensors", "csv"] | None,
        option("--input-format", help="Format of --input where its suffix does not tell."),
    ] = None
    input_key: Annotated[str | None, option("--input-key", help="Which of several named arrays.")] = None
    columns: Annotated[
        str | None, option("--columns", help="Columns of a .csv by header name, with commas between.")
    ] = None
    standardize: Annotated[
        bool, option("--standardize/--no-standardize", help="z-score every feature over batch and time.")
    ] = False
    target: Annotated[
        str, option("--target", help="dummy: zeros; next: predict x_{t+1}; or a file.", metavar="dummy|next|FILE")
    ] = "dummy"
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
