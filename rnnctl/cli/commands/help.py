"""``rnnctl help``."""

from typing import Annotated

import typer

from rnnctl.cli.options.command import with_exit_codes
from rnnctl.cli.options.completing import command_names
from rnnctl.cli.pages import Page, page_text, with_page
from rnnctl.cli.streams import write_stdout


@with_page(Page("", ("rnnctl help gradnorm", "rnnctl gradnorm -h")))
@with_exit_codes
def help_of(
    context: typer.Context,
    command: Annotated[
        str | None,
        typer.Argument(
            metavar="COMMAND",
            help="Which; without one, what rnnctl can do.",
            autocompletion=command_names,
            rich_help_panel="Command",
        ),
    ] = None,
) -> None:
    """The help of a command, as --help shows it."""
    write_stdout(page_text(context, command) + "\n")
