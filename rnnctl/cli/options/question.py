"""What single commands ask beside what all of them do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from rnnctl.cli.options.completing import chapter_names, finding_names, term_names
from rnnctl.cli.options.flags import option, real, whole
from rnnctl.errors import InputError


@dataclass(frozen=True)
class WindowOptions:
    """The windows of truncated BPTT."""

    panel: ClassVar[str] = "Truncation"
    windows: Annotated[
        str | None,
        option("--windows", help="Steps back, with commas between.", metavar="K,K,...", show_default="1, 2, 4, ... T"),
    ] = None

    @property
    def chosen(self) -> list[int] | None:
        """The windows as numbers, or None."""
        if self.windows is None:
            return None
        try:
            return [int(text) for text in self.windows.split(",")]
        except ValueError:
            raise InputError(
                f"--windows must be whole numbers with commas between, such as 5,20,100; got {self.windows!r}"
            ) from None


@dataclass(frozen=True)
class MeasureOptions:
    """Which exponents are measured, and over which steps."""

    panel: ClassVar[str] = "Lyapunov"
    count: Annotated[
        int | None, whole("--count", "How many of the largest exponents.", 1, show_default="all hidden units")
    ] = None
    steps: Annotated[
        int | None,
        whole("--steps", "Steps to measure.", 1, show_default="to the end of the sequence; --autonomous: 1000"),
    ] = None
    warmup: Annotated[
        int | None, whole("--warmup", "Steps before those, not counted.", 0, show_default="a tenth of the steps")
    ] = None
    autonomous: Annotated[
        bool, option("--autonomous/--driven", help="Run freely, on the biases alone, or along the sequence.")
    ] = False


@dataclass(frozen=True)
class DoctorOptions:
    """What the doctor is told of the training, what it tries, and which findings it looks for."""

    panel: ClassVar[str] = "Doctor"
    lag: Annotated[
        int | None, whole("--lag", "How many steps back the task reaches.", 0, show_default="estimated from --target")
    ] = None
    window: Annotated[
        int | None, whole("--window", "Steps of the truncated backpropagation that you train with.", 1)
    ] = None
    train_steps: Annotated[
        int | None,
        whole("--train-steps", "A short training of copies, by Adam.", 0, show_default="0; with --try 200"),
    ] = None
    try_remedies: Annotated[
        bool, option("--try", help="Try every remedy that fits on copies, and measure what it gains.")
    ] = False
    only_finding: Annotated[
        list[str] | None,
        option("--only-finding", help="Look for this alone. Repeatable.", metavar="ID", autocompletion=finding_names),
    ] = None
    skip_finding: Annotated[
        list[str] | None,
        option("--skip-finding", help="Do not look for this. Repeatable.", metavar="ID", autocompletion=finding_names),
    ] = None
    timings: Annotated[bool, option("--timings", help="Tell what each finding cost to look for.")] = False


@dataclass(frozen=True)
class GraphOptions:
    """How a graph is drawn."""

    panel: ClassVar[str] = "Graph"
    drawn_as: Annotated[Literal["text", "mermaid", "dot"], option("--as", help="How the graph is drawn.")] = "text"


@dataclass(frozen=True)
class TimingOptions:
    """How a benchmark is measured."""

    panel: ClassVar[str] = "Benchmark"
    repeats: Annotated[int, whole("--repeats", "Interleaved rounds; medians are shown.", 1)] = 7
    flow: Annotated[bool, option("--flow", help="Measure flow instead of gradnorm.")] = False
    probe: Annotated[bool, option("--probe", help="Measure probed training steps of torch's layers.")] = False
    sweep: Annotated[bool, option("--sweep", help="Measure sweeps, beside shell loops and their targets.")] = False
    memory: Annotated[
        bool, option("--memory/--no-memory", help="Also peak memory, each method in its own process.")
    ] = True


@dataclass(frozen=True)
class AgainstOptions:
    """What a benchmark is compared with, and what is kept for the next one."""

    panel: ClassVar[str] = "Benchmark"
    save: Annotated[Path | None, option("--save", help="Write the report as JSON, for --against.", metavar="FILE")] = (
        None
    )
    against: Annotated[
        Path | None,
        option("--against", help="Compare by ratios with a saved report; exit 3 where one is worse.", metavar="FILE"),
    ] = None
    tolerance: Annotated[
        float | None,
        real("--tolerance", "The share by which a ratio may be worse than in --against.", 0, show_default="0.1"),
    ] = None


@dataclass(frozen=True)
class TermArgument:
    """A word of the output."""

    panel: ClassVar[str] = "Word"
    term: Annotated[
        list[str] | None,
        typer.Argument(
            help="A word of the output, in any case; '_', '-' and blanks are alike.",
            metavar="TERM",
            autocompletion=term_names,
        ),
    ] = None


@dataclass(frozen=True)
class ChapterArgument:
    """A chapter of the guide."""

    panel: ClassVar[str] = "Chapter"
    chapter: Annotated[
        list[str] | None,
        typer.Argument(
            help="Such as gradients or your-model.",
            metavar="CHAPTER",
            show_default="the list of all chapters",
            autocompletion=chapter_names,
        ),
    ] = None
