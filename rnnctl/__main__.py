"""The command ``rnnctl`` and ``python -m rnnctl``."""

import sys

from rnnctl import __version__
from rnnctl.cli.exits import ExitCode
from rnnctl.cli.streams import tell_error, write_stdout
from rnnctl.errors import RnnctlError


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        # Asked by scripts at every start: answered without loading anything.
        return _version() if arguments in (["--version"], ["-V"]) else _run(arguments)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except RnnctlError as error:
        tell_error(str(error))
        return ExitCode.FAILED


def _version() -> int:
    write_stdout(f"rnnctl {__version__}\n")
    return ExitCode.DONE


def _run(arguments: list[str]) -> int:
    from rnnctl.cli.app import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
