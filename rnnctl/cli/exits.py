"""What the exit codes mean."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command; a sweep alone has RUNS_FAILED."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    CONDITION_HELD = 3
    RUNS_FAILED = 4
    INTERRUPTED = 130
