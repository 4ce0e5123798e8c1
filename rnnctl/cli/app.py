"""The Typer app: every command by name, every error by exit code."""

import errno
import os
from typing import Annotated, Any

import typer

from rnnctl import __version__
from rnnctl.cli.commands.bench import bench
from rnnctl.cli.commands.cell import cell
from rnnctl.cli.commands.check import check
from rnnctl.cli.commands.completion import completion
from rnnctl.cli.commands.doctor import doctor
from rnnctl.cli.commands.explain import explain
from rnnctl.cli.commands.flow import flow
from rnnctl.cli.commands.forward import forward
from rnnctl.cli.commands.gradnorm import gradnorm
from rnnctl.cli.commands.guide import guide
from rnnctl.cli.commands.help import help_of
from rnnctl.cli.commands.lyapunov import lyapunov
from rnnctl.cli.commands.spectrum import spectrum
from rnnctl.cli.commands.sweep import sweep
from rnnctl.cli.commands.truncation import truncation
from rnnctl.cli.commands.unroll import unroll
from rnnctl.cli.commands.version import version
from rnnctl.cli.commands.weights import weights
from rnnctl.cli.exits import ExitCode
from rnnctl.cli.options.command import with_exit_codes, with_options
from rnnctl.cli.options.config import UsageProblem
from rnnctl.cli.output.configuration import show_configuration
from rnnctl.cli.pages import Command, Group, Page, with_page
from rnnctl.cli.streams import abandon_stdout, tell, tell_error, write_stdout
from rnnctl.cli.usage import unheard_variables, usage_message

SETTINGS = {"help_option_names": ["-h", "--help"]}


class _Command(Command):
    """A command with options, which the environment can set, too."""

    @with_exit_codes
    def invoke(self, ctx: Any) -> Any:
        notes = unheard_variables(ctx.find_root().command.commands.values(), os.environ)
        if not ctx.params.get("quiet"):
            for note in notes:
                tell(f"Note: {note}")
        if ctx.params.get("show_config"):
            return show_configuration(ctx)
        ctx.command.callback.options.require_heard(ctx)
        return super().invoke(ctx)


app = typer.Typer(
    name="rnnctl",
    help="See what happens inside a recurrent network: shapes, and the gradient of W_hh step by step.",
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
    cls=Group,
)
QUESTIONS = (
    cell,
    forward,
    unroll,
    doctor,
    gradnorm,
    flow,
    truncation,
    spectrum,
    lyapunov,
    sweep,
    weights,
    check,
    bench,
)
for command in (*QUESTIONS, guide, explain):
    app.command(cls=_Command, context_settings=SETTINGS)(with_options(command))
for name, plain in {"help": help_of, "version": version, "completion": completion}.items():
    app.command(name, cls=Command, context_settings=SETTINGS)(plain)


def _show_version(wanted: bool) -> None:
    if wanted:
        write_stdout(f"rnnctl {__version__}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
@with_page(
    Page("", ("rnnctl gradnorm", "rnnctl gradnorm --input sunspots --standardize --target next", "rnnctl guide"))
)
def rnnctl(
    context: typer.Context,
    shown: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version.")
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
        tell_error(usage_message(error, arguments))
        return ExitCode.BAD_INPUT
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except (SystemExit, OSError) as error:
        return _code_of_lost_help(error)
    return code if isinstance(code, int) else ExitCode.DONE


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
