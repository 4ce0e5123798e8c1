"""Versions of what an answer rests on, without importing any of it."""

import platform
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from rnnctl import __version__


class Installed(NamedTuple):
    """A version, and the folder or program that it is of."""

    version: str
    place: str


def torch_version() -> str:
    """Of torch: its own word where it is loaded, else that of its installation."""
    if "torch" in sys.modules:
        return str(sys.modules["torch"].__version__)
    # Every start loads this file; torch is there where an answer was computed.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return _torchs_own() or version("torch")
    except PackageNotFoundError:
        return "not installed"


def _torchs_own() -> str | None:
    """What torch will say of itself once it is loaded: with the +cu128 that its installation leaves out."""
    import re

    try:
        text = (Path(_folder("torch")) / "version.py").read_text()
    except OSError:
        return None
    found = re.search(r"^__version__ = ['\"](.+)['\"]$", text, re.MULTILINE)
    return found and found[1]


def named() -> dict[str, str]:
    """Of rnnctl and torch, as results tell them."""
    return {"rnnctl": __version__, "torch": torch_version()}


def places() -> dict[str, Installed]:
    """rnnctl, Python and torch, each with where it is."""
    return {
        "rnnctl": Installed(__version__, _folder("rnnctl")),
        "Python": Installed(platform.python_version(), sys.executable or "-"),
        "torch": Installed(torch_version(), _folder("torch")),
    }


def _folder(package: str) -> str:
    # Finding is not importing.
    spec = find_spec(package)
    return "-" if spec is None or spec.origin is None else str(Path(spec.origin).parent)
