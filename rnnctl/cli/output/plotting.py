"""``--plot FILE``: refused early, drawn at the end."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from rnnctl.cli.options.output import OutputOptions, PlotOptions
from rnnctl.cli.output.emit import Asked, emit, require_output, tell_notes
from rnnctl.errors import InputError
from rnnctl.results import Result

SUFFIXES = ("png", "svg", "pdf")


def require_places(plot: PlotOptions, out: OutputOptions, answers: Asked = None) -> None:
    """Refuse before anything is computed: outputs, conditions, the picture's suffix or place, matplotlib missing."""
    require_output(out, answers)
    if plot.plot is None:
        return
    if plot.plot.suffix.lower().removeprefix(".") not in SUFFIXES:
        raise InputError(f"--plot draws .png, .svg or .pdf; got {str(plot.plot)!r}. Change the suffix")
    if find_spec("matplotlib") is None:
        raise InputError(f"--plot needs matplotlib. Install it: {sys.executable} -m pip install 'rnnctl[plot]'")
    from rnnctl.files.writing import require_writable

    require_writable(plot.plot, force=out.force)


def show(result: Result, config: Mapping[str, Any], plot: PlotOptions, out: OutputOptions) -> None:
    """Draw the result where asked, and emit it, under the configuration as its run settled it."""
    config = {**config, **result.settled}
    _draw(result, config, plot, out)
    emit(result, config, out)


def _draw(result: Result, config: Mapping[str, Any], plot: PlotOptions, out: OutputOptions) -> None:
    """Draw the result to the file that --plot names, if any."""
    if plot.plot is None:
        return
    from rnnctl.files.writing import write_whole
    from rnnctl.view.figures import figure_bytes
    from rnnctl.view.layouts.layout import headline

    suffix = plot.plot.suffix.lower().removeprefix(".")
    write_whole(plot.plot, figure_bytes(result, headline(result.schema, config), suffix))
    tell_notes((f"wrote {plot.plot}",), out)
