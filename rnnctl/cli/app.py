"""The Typer app: every command by name, every error by exit code."""

import sys
from typing import Annotated

import typer

from rnnctl import __version__
from rnnctl.cli.bench import bench
from rnnctl.cli.cell import cell
from rnnctl.cli.check import check
from rnnctl.cli.exits import ExitCode
from rnnctl.cli.forward import forward
from rnnctl.cli.gradnorm import gradnorm
from rnnctl.cli.options import with_options
from rnnctl.cli.unroll import unroll

app = typer.Typer(
    name="rnnctl",
    help="See what happens inside a recurrent network: shapes, and the gradient of W_hh step by step.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (cell, forward, unroll, gradnorm, check, bench):
    app.command()(with_options(command))


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"rnnctl {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def rnnctl(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """See what happens inside a recurrent network: shapes, and the gradient of W_hh step by step."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def run(arguments: list[str]) -> int:
    """Run the app; usage errors become one message on stderr and exit code 2."""
    try:
        code = app(arguments, prog_name="rnnctl", standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "rnnctl"
        print(f"Error: {error.format_message()}\nTry '{path} --help' for help.", file=sys.stderr)
        return ExitCode.BAD_INPUT
    except typer.Abort:
        return ExitCode.INTERRUPTED
    return code if isinstance(code, int) else ExitCode.DONE
