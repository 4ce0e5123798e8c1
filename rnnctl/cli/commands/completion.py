"""``rnnctl completion``."""

import os
from typing import Annotated, Literal

import typer

from rnnctl.cli.options.command import with_exit_codes
from rnnctl.cli.pages import Page, with_page

# What typer's own completion is asked by.
ASKED = "_RNNCTL_COMPLETE"


@with_page(Page("scripts", ("rnnctl completion bash >> ~/.bashrc", 'eval "$(rnnctl completion bash)"')))
@with_exit_codes
def completion(
    context: typer.Context,
    shell: Annotated[
        Literal["bash", "zsh", "fish"],
        typer.Argument(metavar="SHELL", help="bash, zsh or fish.", rich_help_panel="Shell"),
    ],
) -> None:
    """The script that completes options, their values, files and columns in your shell."""
    root = context.find_root()
    os.environ[ASKED] = f"source_{shell}"
    try:
        root.command.main([], prog_name="rnnctl")
    except SystemExit as end:
        raise typer.Exit(end.code if isinstance(end.code, int) else 0) from end.__context__
    finally:
        del os.environ[ASKED]
