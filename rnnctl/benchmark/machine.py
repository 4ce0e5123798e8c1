"""Where it was measured: the processor's name, and how busy it was."""

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def processor_name() -> str | None:
    """As the system calls it; None where it does not."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    pairs = (line.partition(":") for line in lines)
    named = (value.strip() for name, _, value in pairs if name.strip() == "model name")
    return next(named, "") or platform.processor() or platform.machine() or None


def system_load() -> float | None:
    """Processes that run or wait, averaged over the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        # Windows has no such average, and some containers hide it.
        return None
