"""The command ``rnnctl`` and ``python -m rnnctl``."""

import sys

from rnnctl import __version__


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    # Asked by scripts at every start: answered without loading anything.
    if arguments == ["--version"]:
        print(f"rnnctl {__version__}")
        return 0
    from rnnctl.cli.app import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
