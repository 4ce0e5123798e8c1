"""What the exit codes mean."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command; 4 is kept for sweeps."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    CONDITION_HELD = 3
    INTERRUPTED = 130
