"""Where the result goes, and how it looks there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from rnnctl.cli.options.config import json_or_format, load_config
from rnnctl.cli.options.flags import option, whole


@dataclass(frozen=True)
class PlotOptions:
    """A picture beside the result."""

    panel: ClassVar[str] = "Output"
    plot: Annotated[
        Path | None, option("--plot", help="Draw the result to a .png, .svg or .pdf file (extra 'plot').")
    ] = None
    title: Annotated[
        str | None,
        option(
            "--title", help="Above the picture and the page; '' for none.", metavar="TEXT", show_default="what was run"
        ),
    ] = None
    dpi: Annotated[
        int | None, whole("--dpi", "Pixels per inch of a .png, from 30 to 1200.", 30, 1200, show_default="150")
    ] = None


@dataclass(frozen=True)
class ReportOptions:
    """A page beside the result."""

    panel: ClassVar[str] = "Output"
    report: Annotated[
        Path | None,
        option(
            "--report",
            help="Write verdict, pictures, tables and configuration to one .html file that needs nothing else.",
            metavar="FILE.html",
        ),
    ] = None


def _unless_stdout(path: Path | None) -> Path | None:
    """None, which is standard output, for "-"."""
    return None if path == Path("-") else path


@dataclass(frozen=True)
class OutputOptions:
    """Where the result goes."""

    panel: ClassVar[str] = "Output"
    format: Annotated[
        Literal["table", "json", "jsonl", "csv"] | None,
        option(
            "--format",
            help="jsonl and csv hold the rows.",
            show_default="by the suffix of -o, else table",
            callback=json_or_format,
        ),
    ] = None
    json: Annotated[bool, option("--json", help="Short for --format json.", callback=json_or_format)] = False
    only: Annotated[
        Literal["rows", "scalars"] | None,
        option("--only", help="Only one part; with csv or jsonl, scalars make one line.", show_default="both"),
    ] = None
    all: Annotated[bool, option("--all", help="All rows of a long table, all steps of a graph.")] = False
    output: Annotated[
        Path | None,
        option(
            "--output",
            "-o",
            help="Write the result to a file; - for stdout.",
            show_default="stdout",
            callback=_unless_stdout,
        ),
    ] = None
    force: Annotated[bool, option("--force", help="Replace files that are there already.")] = False
    color: Annotated[
        Literal["auto", "always", "never"], option("--color", help="auto heeds NO_COLOR and FORCE_COLOR.")
    ] = "auto"
    quiet: Annotated[bool, option("--quiet", "-q", help="No notes and no progress on stderr.")] = False
    show_config: Annotated[
        bool, option("--show-config", help="Show what every option is set to and by whom, without running.")
    ] = False
    fail_on: Annotated[
        list[str] | None,
        option(
            "--fail-on",
            help="Exit 3 if it holds: a comparison on a scalar ('cancellation<0.1'); gradnorm also "
            "vanishing, exploding, nonfinite; doctor any finding. Repeatable.",
            metavar="CONDITION",
        ),
    ] = None
    config: Annotated[
        Path | None,
        option(
            "--config",
            help="Options from a TOML file; flags and RNNCTL_* variables come first.",
            metavar="FILE.toml",
            is_eager=True,
            callback=load_config,
        ),
    ] = None
