"""The layout of the package: arrows point down, there is no circle, and its own README speaks of what is there."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rnnctl"
# From the bottom up: a room imports from itself and from rooms further down.
FLOORS = (
    ("errors", "data"),
    ("results", "memory"),
    ("recurrence", "view", "losses"),
    ("initializers",),
    ("cells",),
    ("coupled_lstm", "files", "graph"),
    ("models",),
    ("gradients", "shapes"),
    ("dynamics", "sweeps"),
    ("checks", "benchmark", "diagnosis"),
    ("cli",),
    ("__init__",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def module(path):
    """rnnctl/models/hooks.py -> models.hooks; the package itself -> __init__."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imported(path):
    """Every module of ours that a file takes something from, wherever in it that stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rnnctl":
            name = node.module.removeprefix("rnnctl").removeprefix(".")
            for alias in node.names:
                inner = PACKAGE / name.replace(".", "/") / f"{alias.name}.py"
                yield f"{name}.{alias.name}".strip(".") if inner.exists() else name or "__init__"


def room(name):
    return name.split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=module)
def test_arrows_point_down(path):
    own = room(module(path))
    for name in imported(path):
        # The version stands in the package itself, which loads nothing else by itself.
        if room(name) != own and name != "__init__":
            assert {room(name), own} <= FLOOR.keys(), "a new module at the root needs its floor above"
            assert FLOOR[room(name)] < FLOOR[own], f"{module(path)} takes from {name}, which is not below it"


def test_there_is_no_circle():
    below = {module(path): set(imported(path)) - {"__init__"} for path in FILES if module(path) != "__init__"}
    while below:
        free = {name for name, needed in below.items() if not needed & below.keys() - {name}}
        assert free, f"a circle among {sorted(below)}"
        below = {name: needed for name, needed in below.items() if name not in free}


def test_the_readme_of_the_package_names_what_is_there():
    text = (PACKAGE / "README.md").read_text()
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_]+(?:\.py)?)`", text)
    assert len(named) > 25
    for name in named:
        place = PACKAGE.parent / name if name.startswith("tests/") else PACKAGE / name
        assert place.exists() or place.with_suffix(".py").exists(), name
    for room_of_ours in (path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()):
        assert f"{room_of_ours}/" in text or room_of_ours == "data", room_of_ours
