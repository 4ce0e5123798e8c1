"""How a flag is declared: its name, its help, its variable of the environment, and what reads its numbers."""

from typing import Any

import typer

from rnnctl.cli.options.numbers import real_number, real_number_from, whole_number


def option(*names: str, help: str, **settings: Any) -> Any:
    """A typer option that the environment can also set, as RNNCTL_<NAME>."""
    long = next(name for name in names if name.startswith("--"))
    variable = "RNNCTL_" + long.split("/")[0].removeprefix("--").replace("-", "_").upper()
    return typer.Option(*names, help=help, envvar=variable, show_envvar=False, **settings)


def whole(name: str, what: str, least: int, most: int | None = None, **settings: Any) -> Any:
    """An option that takes a whole number from ``least`` to ``most``."""
    return option(name, help=what, parser=whole_number(least, most), metavar="INTEGER", **settings)


def real(name: str, what: str, least: float | None = None, **settings: Any) -> Any:
    """An option that takes any finite number, or one of at least ``least``."""
    parser = real_number if least is None else real_number_from(least)
    return option(name, help=what, parser=parser, metavar="FLOAT", **settings)


def size(name: str, what: str, default: int) -> Any:
    """An option that takes a size; ``default`` is what stands for none, as the help tells it."""
    return whole(name, what, 1, show_default=str(default))
