"""What is packed beside the code; the gate runs this with the wheel alone."""

import re
import tomllib
from importlib import resources
from pathlib import Path

import rnnctl

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_type_checkers_are_told_that_the_package_is_typed():
    assert (resources.files(rnnctl) / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_every_requirement_has_a_lowest_version():
    """The gate runs with the lowest, which it finds by this pattern."""
    assert [each for each in PROJECT["dependencies"] if not re.fullmatch(r"[\w-]+>=[\d.]+(,<[\d.]+)?", each)] == []
