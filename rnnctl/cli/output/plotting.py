"""``--plot FILE`` and ``--report FILE``: refused early, drawn and written at the end."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions, ReportOptions
from rnnctl.cli.output.emit import Asked, emit, require_apart, require_named, require_output, tell_notes
from rnnctl.cli.output.reporting import require_report, write_report
from rnnctl.errors import InputError
from rnnctl.results import Result

SUFFIXES = ("png", "svg", "pdf")


def places(given: CommandOptions) -> dict[str, Path | None]:
    """Flag -> the file that it names, of what a command writes in answer."""
    plot, report = given.group(PlotOptions) or PlotOptions(), given.group(ReportOptions) or ReportOptions()
    out = given.group(OutputOptions) or OutputOptions()
    return {"-o": out.output, "--plot": plot.plot, "--report": report.report}


def require_places(given: CommandOptions, answers: Asked = None) -> None:
    """Refuse before anything is computed: outputs, conditions, suffixes or places of files, matplotlib missing.

    Raises:
        InputError: any of these; a title or a resolution of no picture, or a resolution of one without pixels; one
            file for two of them.
    """
    out = given.group(OutputOptions) or OutputOptions()
    require_output(out, answers)
    report = given.group(ReportOptions) or ReportOptions()
    _require_plot(given.group(PlotOptions) or PlotOptions(), out, has_page=report.report is not None)
    require_report(report, out)
    require_apart(places(given))


def _require_plot(plot: PlotOptions, out: OutputOptions, *, has_page: bool) -> None:
    if plot.plot is None:
        return _require_nothing_drawn(plot, has_page=has_page)
    require_named("--plot", plot.plot, "picture.png")
    suffix = _suffix(plot.plot)
    if suffix not in SUFFIXES:
        raise InputError(f"--plot draws .png, .svg or .pdf; got {str(plot.plot)!r}. Change the suffix")
    if plot.dpi is not None and suffix != "png":
        raise InputError(f"--dpi is about the pixels of a .png; a .{suffix} has none. Leave it out")
    if find_spec("matplotlib") is None:
        raise InputError(f"--plot needs matplotlib. Install it: {sys.executable} -m pip install 'rnnctl[plot]'")
    from rnnctl.files.writing import require_writable

    require_writable(plot.plot, force=out.force)


def _require_nothing_drawn(plot: PlotOptions, *, has_page: bool) -> None:
    """Refuse what would be ignored without --plot; a page has a title, too."""
    if plot.title is not None and not has_page:
        raise InputError("--title is about --plot, which is not given, and neither is --report")
    if plot.dpi is not None:
        raise InputError("--dpi is about --plot, which is not given")


def _suffix(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def show(result: Result, config: Mapping[str, Any], given: CommandOptions) -> None:
    """Draw the result and report on it where asked, and emit it, under the configuration as its run settled it."""
    config, out = {**config, **result.settled}, given.group(OutputOptions) or OutputOptions()
    _draw(result, config, given.group(PlotOptions) or PlotOptions(), out)
    write_report(result, config, given)
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
