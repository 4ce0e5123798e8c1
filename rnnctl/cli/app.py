"""The Typer app: every command by name, every error by exit code."""

import errno
from typing import Annotated, Any

import typer

from rnnctl import __version__
from rnnctl.cli.commands.bench import bench
from rnnctl.cli.commands.cell import cell
from rnnctl.cli.commands.check import check
from rnnctl.cli.commands.flow import flow
from rnnctl.cli.commands.forward import forward
from rnnctl.cli.commands.gradnorm import gradnorm
from rnnctl.cli.commands.guide import guide
from rnnctl.cli.commands.lyapunov import lyapunov
from rnnctl.cli.commands.spectrum import spectrum
from rnnctl.cli.commands.truncation import truncation
from rnnctl.cli.commands.unroll import unroll
from rnnctl.cli.commands.weights import weights
from rnnctl.cli.exits import ExitCode
from rnnctl.cli.options.command import with_options
from rnnctl.cli.options.config import UsageProblem
from rnnctl.cli.streams import abandon_stdout, tell, write_stdout

app = typer.Typer(
    name="rnnctl",
    help="See what happens inside a recurrent network: shapes, and the gradient of W_hh step by step.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (cell, forward, unroll, gradnorm, flow, truncation, spectrum, lyapunov, weights, check, bench, guide):
    app.command()(with_options(command))


def _show_version(wanted: bool) -> None:
    if wanted:
        write_stdout(f"rnnctl {__version__}\n")
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
    except UsageProblem as error:
        tell(_usage_message(error))
        return ExitCode.BAD_INPUT
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except (SystemExit, OSError) as error:
        return _code_of_lost_help(error)
    return code if isinstance(code, int) else ExitCode.DONE


def _usage_message(error: Any) -> str:
    """What is wrong, in which environment variable if it stands in one, and where to read on."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    message = error.format_message().replace("Value error, ", "")
    path = context.command_path if context is not None else "rnnctl"
    if context is not None and parameter is not None:
        source = context.get_parameter_source(parameter.name)
        if source is not None and source.name == "ENVIRONMENT":
            message += f" (from {parameter.envvar})"
    return f"Error: {message}\nTry '{path} --help' for help."


def _code_of_lost_help(error: SystemExit | OSError) -> int:
    """Typer prints the help by itself: silence where its reader left, a message where the disk is full."""
    if isinstance(error.__context__, BrokenPipeError):
        abandon_stdout()
        return ExitCode.DONE
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        abandon_stdout()
        tell(f"Error: cannot write: {error.strerror}")
        return ExitCode.FAILED
    raise error
