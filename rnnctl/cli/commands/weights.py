"""``rnnctl weights``."""

from rnnctl.cli.options.model import CheckpointArgument
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.output.emit import emit, require_not_read, require_output
from rnnctl.cli.streams import tell
from rnnctl.view.progress import progress_bar


def weights(checkpoint: CheckpointArgument, out: OutputOptions) -> None:
    """What a checkpoint holds: names, shapes, dtypes, and the norms of every W_hh. No code of its model is needed."""
    require_not_read(out.output, checkpoint.file, out.config)
    require_output(out)
    from rnnctl.dynamics.checkpoint import checkpoint_contents

    with progress_bar("weights", quiet=out.quiet) as progress:
        result = checkpoint_contents(checkpoint.file, progress=progress)
    for note in () if out.quiet else result.notes:
        tell(f"Note: {note}")
    emit(result, {"file": str(checkpoint.file)}, out)
