"""``--report FILE.html``: refused early, written at the end."""

from collections.abc import Mapping
from typing import Any

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.command_line import command_line
from rnnctl.cli.options.output import OutputOptions, PlotOptions, ReportOptions
from rnnctl.cli.output.emit import require_named, tell_notes
from rnnctl.cli.versions import named
from rnnctl.errors import InputError
from rnnctl.results import Result


def require_report(report: ReportOptions, out: OutputOptions) -> None:
    """Raise InputError for a report that could not be written, before anything is computed."""
    if report.report is None:
        return
    from rnnctl.files.writing import require_writable

    # First what it is: a file that is there and no page is not one to be replaced.
    require_named("--report", report.report, "page.html")
    if report.report.suffix.lower() != ".html":
        raise InputError(f"--report writes .html; got {str(report.report)!r}. Change the suffix")
    require_writable(report.report, force=out.force)


def write_report(result: Result, config: Mapping[str, Any], given: CommandOptions) -> None:
    """Write the page that --report names, if any."""
    report, out = given.group(ReportOptions) or ReportOptions(), given.group(OutputOptions) or OutputOptions()
    if report.report is None:
        return
    from rnnctl.files.writing import write_whole
    from rnnctl.view.html.page import Run, page

    title = (given.group(PlotOptions) or PlotOptions()).title
    run = Run(command_line(result.schema.partition("-")[0], given), config, named(), title)
    written = write_whole(report.report, page(result, run, every=out.all).encode())
    tell_notes((written,), out)
