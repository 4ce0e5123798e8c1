"""Runs of a sweep that compute nothing, for workers: what is left is the sweep's own. Without torch."""

import os
import time
from typing import Any

from rnnctl.results import Record

# What a run of gradnorm says, as to the number of its names.
ANSWER = {
    "config": {f"option_{i}": i for i in range(40)},
    "scalars": {"factor_per_step": 0.5, **{f"scalar_{i}": i / 10 for i in range(24)}},
    "seconds": 0.0,
    "versions": {"rnnctl": "0", "torch": "0"},
}
NAP = 0.05


def load() -> None:
    """What the workers need is this module."""


def nothing(_: Any) -> Record:
    """A run that takes no time."""
    return ANSWER


def nap(_: Any) -> Record:
    """A run of 50 ms in which the processor is free for what is measured."""
    time.sleep(NAP)
    return ANSWER


def who() -> int:
    """Which worker this is; long enough for each of them to take one."""
    time.sleep(NAP)
    return os.getpid()
