"""``rnnctl weights``."""

from dataclasses import dataclass
from typing import ClassVar

from rnnctl.cli.loading import loading
from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.model import CheckpointArgument
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.output.emit import emit, require_not_read, require_output
from rnnctl.cli.pages import Page
from rnnctl.files.sources import require_file
from rnnctl.results import Answers
from rnnctl.view.progress import progress_bar


@dataclass(frozen=True)
class WeightsOptions(CommandOptions):
    """What ``rnnctl weights`` takes."""

    page: ClassVar[Page] = Page(
        "your model",
        ("rnnctl weights model.pt", "rnnctl weights model.safetensors --json"),
        ("--json", "--only", "--all", "--output", "--fail-on"),
    )

    checkpoint: CheckpointArgument
    out: OutputOptions


def answers() -> tuple[Answers, ...]:
    """What can be asked of the result."""
    from rnnctl.dynamics.checkpoint import CheckpointContents

    return (CheckpointContents.answers(),)


def weights(given: WeightsOptions) -> None:
    """What a checkpoint holds: names, shapes, dtypes, and the norms of every W_hh. No code of its model is needed."""
    file, out = given.checkpoint.file, given.out
    require_not_read(out.output, file, out.config)
    require_output(out)
    require_file(file)
    with loading(quiet=out.quiet):
        require_output(out, answers)
        from rnnctl.dynamics.checkpoint import checkpoint_contents

    with progress_bar("weights", quiet=out.quiet) as progress:
        result = checkpoint_contents(file, progress=progress)
    emit(result, {"file": str(file)}, out)
