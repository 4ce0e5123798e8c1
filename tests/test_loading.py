"""Torch is loaded without looking for garbage in it, and nothing else goes without."""

import gc
import subprocess
import sys

import pytest

from rnnctl.cli.loading import loading

AFTER = """
import gc, sys
from rnnctl.__main__ import main
code = main(sys.argv[1:])
print(code, gc.isenabled(), gc.get_freeze_count() > 100_000, file=sys.stderr)
"""


@pytest.fixture
def before_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.parametrize("line", ["forward --hidden-size 3", "forward --fail-on nonsense"])
def test_after_a_command_garbage_is_looked_for_but_not_in_torch(line):
    found = subprocess.run([sys.executable, "-c", AFTER, *line.split()], capture_output=True, text=True, timeout=120)
    code = 2 if "nonsense" in line else 0
    assert found.stderr.splitlines()[-1] == f"{code} True True"


def test_within_it_is_not_looked_for_and_afterwards_it_is(before_torch):
    before = gc.get_freeze_count()
    with loading():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > before


def test_an_error_on_the_way_leaves_the_collector_on(before_torch):
    with pytest.raises(ValueError, match="no"), loading():
        raise ValueError("no")
    assert gc.isenabled()


def test_where_torch_is_there_already_nothing_is_changed():
    import torch

    assert torch.__name__ in sys.modules
    before = gc.get_freeze_count()
    with loading():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_whoever_switched_the_collector_off_finds_it_off(before_torch):
    before = gc.get_freeze_count()
    gc.disable()
    try:
        with loading():
            pass
        assert not gc.isenabled()
        assert gc.get_freeze_count() == before
    finally:
        gc.enable()
