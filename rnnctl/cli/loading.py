"""Loading torch, and what is computed with it."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rnnctl.view.progress import announced


@contextmanager
def loading(*, quiet: bool = False) -> Iterator[None]:
    """Within, torch is loaded: garbage is not looked for meanwhile, and never in what is there afterwards."""
    with announced("loading torch", quiet=quiet or "torch" in sys.modules), _without_garbage():
        yield


@contextmanager
def _without_garbage() -> Iterator[None]:
    # Of modules nothing is garbage, but each look at torch's takes tens of milliseconds: there were several on the way,
    # and one at the exit. Where torch is there, this is somebody's process, with garbage of their own to be found.
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
