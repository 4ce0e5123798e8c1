"""Torch is loaded without looking for garbage in it, and nothing else goes without."""

import gc
import io
import subprocess
import sys
import time

import pytest

from rnnctl.cli.loading import loading
from rnnctl.view.progress import announced

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
@pytest.mark.parametrize("line", ["forward --hidden-size 3", "forward --fail-on vanishing"])
def test_after_a_command_garbage_is_looked_for_but_not_in_torch(line):
    found = subprocess.run([sys.executable, "-c", AFTER, *line.split()], capture_output=True, text=True, timeout=120)
    code = 2 if "fail-on" in line else 0
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


class Screen(io.StringIO):
    """Text that believes itself on a screen."""

    def isatty(self):
        return True


def test_loading_is_announced_where_it_takes_long_and_the_line_is_empty_again(monkeypatch):
    monkeypatch.setattr("rnnctl.view.progress.PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr("sys.stderr", screen := Screen())
    with announced("loading torch", quiet=False):
        deadline = time.monotonic() + 20
        while not screen.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert screen.getvalue() == f"loading torch ...\r{' ' * len('loading torch ...')}\r"


@pytest.mark.parametrize(("stream", "quiet"), [(Screen(), True), (io.StringIO(), False), (None, False)])
def test_nothing_is_announced_where_nobody_watches_or_wants_it(stream, quiet, monkeypatch):
    monkeypatch.setattr("rnnctl.view.progress.PATIENCE_SECONDS", 0)
    monkeypatch.setattr("sys.stderr", stream)
    with announced("loading torch", quiet=quiet):
        time.sleep(0.05)
    assert stream is None or stream.getvalue() == ""


def test_what_is_done_at_once_is_not_announced(monkeypatch):
    monkeypatch.setattr("sys.stderr", screen := Screen())
    with announced("loading torch", quiet=False):
        pass
    assert screen.getvalue() == ""
