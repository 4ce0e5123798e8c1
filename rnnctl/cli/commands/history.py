"""``rnnctl gradnorm --from``: what a training run left in its file."""

from pathlib import Path

from rnnctl.cli.options.output import OutputOptions, PlotOptions
from rnnctl.cli.output.emit import require_not_read
from rnnctl.cli.output.plotting import require_places, show
from rnnctl.cli.streams import tell


def show_history(path: Path, module: str | None, plot: PlotOptions, out: OutputOptions) -> None:
    """Show the last run of a file that ``rnnctl.watch`` wrote.

    Args:
        path: the file.
        module: a weight or a module of the run; the first if left out.
    """
    for written in (out.output, plot.plot):
        require_not_read(written, path, out.config)
    require_places(plot, out)
    from rnnctl.gradients.history import gradnorm_history

    result = gradnorm_history(path, module)
    for note in () if out.quiet else result.notes:
        tell(f"Note: {note}")
    show(result, {"file": str(path), "module": module}, plot, out)
