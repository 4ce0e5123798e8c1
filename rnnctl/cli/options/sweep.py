"""What a sweep is over, where its runs are kept, and who makes them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from rnnctl.cli.options.flags import option, whole
from rnnctl.errors import InputError


@dataclass(frozen=True)
class QuestionArgument:
    """What is asked in every run."""

    panel: ClassVar[str] = "Sweep"
    question: Annotated[
        Literal["gradnorm", "flow", "truncation", "spectrum", "lyapunov"] | None,
        typer.Argument(
            help="gradnorm, flow, truncation, spectrum or lyapunov; all their options are known here.",
            metavar="QUESTION",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class GridOptions:
    """The runs."""

    panel: ClassVar[str] = "Sweep"
    vary: Annotated[
        list[str] | None,
        option(
            "--vary",
            help="An option of the question and its values: a,b,c or start:stop:count, and :log after that for a "
            "logarithmic grid; model-arg.NAME is one argument of --model. Repeatable: the product of all.",
            metavar="NAME=VALUES",
        ),
    ] = None
    vary_together: Annotated[
        bool, option("--vary-together", help="The first values of every --vary go together, and so on; seeds apart.")
    ] = False
    shard: Annotated[
        str | None,
        option("--shard", help="Of N parts of the grid the I-th, from 1: for job arrays.", metavar="I/N"),
    ] = None
    dry_run: Annotated[bool, option("--dry-run", help="Say how many runs there are and about how long they take.")] = (
        False
    )

    @property
    def part(self) -> tuple[int, int]:
        """The shard as numbers; all of the grid by itself."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", self.shard or "1/1", flags=re.ASCII)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise InputError(f"--shard must be I/N with I from 1 to N, such as 2/8; got {self.shard!r}")
        return int(found[1]), int(found[2])


@dataclass(frozen=True)
class KeepOptions:
    """The file of runs."""

    panel: ClassVar[str] = "Sweep"
    to: Annotated[
        Path | None,
        option("--to", help="A line for every finished run; what it holds is not made again.", metavar="FILE.jsonl"),
    ] = None
    from_sweep: Annotated[
        Path | None, option("--from", help="Show what such a file holds; no run is made.", metavar="FILE.jsonl")
    ] = None
    keep: Annotated[Literal["rows"] | None, option("--keep", help="Lines hold the rows of the results, too.")] = None
    retry_failed: Annotated[bool, option("--retry-failed", help="Make failed runs again.")] = False
    same_versions: Annotated[
        bool, option("--same-versions", help="Make runs of other versions of rnnctl or torch again.")
    ] = False
    value: Annotated[
        str | None,
        option("--value", help="The scalar to be shown.", metavar="NAME", show_default="the question's main one"),
    ] = None


@dataclass(frozen=True)
class WorkerOptions:
    """Who makes the runs."""

    panel: ClassVar[str] = "Sweep"
    jobs: Annotated[int | None, whole("--jobs", "Worker processes.", 1, 1024, show_default="one a core")] = None
    scheduler: Annotated[
        str | None,
        option(
            "--scheduler",
            help="Of a Dask cluster that makes them, its address or its scheduler file (extra 'cluster').",
            metavar="ADDRESS|FILE",
        ),
    ] = None
