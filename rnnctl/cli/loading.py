"""Loading torch, and what is computed with it."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Within, torch is loaded: garbage is not looked for meanwhile, and never in what is there afterwards."""
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
