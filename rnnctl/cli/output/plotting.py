"""``--plot FILE``: refused early, drawn at the end."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rnnctl.cli.options.output import OutputOptions, PlotOptions
from rnnctl.cli.output.emit import Asked, emit, require_output, tell_notes
from rnnctl.errors import InputError
from rnnctl.results import Result

SUFFIXES = ("png", "svg", "pdf")


def require_places(plot: PlotOptions, out: OutputOptions, answers: Asked = None) -> None:
    """Refuse before anything is computed: outputs, conditions, the picture's suffix or place, matplotlib missing.

    Raises:
        InputError: any of these; a title or a resolution of no picture, or a resolution of one without pixels.
    """
    require_output(out, answers)
    if plot.plot is None:
        return _require_nothing_drawn(plot)
    suffix = _suffix(plot.plot)
    if suffix not in SUFFIXES:
        raise InputError(f"--plot draws .png, .svg or .pdf; got {str(plot.plot)!r}. Change the suffix")
    if plot.dpi is not None and suffix != "png":
        raise InputError(f"--dpi is about the pixels of a .png; a .{suffix} has none. Leave it out")
    if find_spec("matplotlib") is None:
        raise InputError(f"--plot needs matplotlib. Install it: {sys.executable} -m pip install 'rnnctl[plot]'")
    from rnnctl.files.writing import require_writable

    require_writable(plot.plot, force=out.force)


def _require_nothing_drawn(plot: PlotOptions) -> None:
    """Refuse what would be ignored without --plot."""
    for flag, value in (("--title", plot.title), ("--dpi", plot.dpi)):
        if value is not None:
            raise InputError(f"{flag} is about --plot, which is not given")


def _suffix(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


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
    from rnnctl.view.figures import DPI, figure_bytes
    from rnnctl.view.figures.title import letters_without_glyph
    from rnnctl.view.layouts.layout import headline

    title = headline(result.schema, config) if plot.title is None else plot.title
    picture = figure_bytes(result, title, _suffix(plot.plot), DPI if plot.dpi is None else plot.dpi)
    tell_notes((write_whole(plot.plot, picture),), out)
    if (lost := letters_without_glyph(title)) and _suffix(plot.plot) != "svg":
        tell_notes((f"matplotlib's font has no {', '.join(lost)}: boxes in the title. A .svg keeps the text",), out)
