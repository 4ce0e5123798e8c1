"""Whether the work fits into memory, asked before anything is allocated."""

import os
from decimal import Decimal

from rnnctl.errors import TooLargeError

SMALLER = "Try a shorter sequence, a smaller batch or fewer hidden units"


def require_memory(needed: int, what: str, remedy: str = SMALLER) -> None:
    """Raise TooLargeError, with both numbers, where ``needed`` bytes are not to be had.

    Args:
        needed: bytes.
        what: what they are for, as the message shall say it.
        remedy: what to try, a sentence without its full stop.
    """
    available = available_bytes()
    if available is not None and needed > available:
        raise TooLargeError(
            f"{what} would take {in_words(needed)} of memory; {in_words(available)} is available. {remedy}"
        )


def tape_bytes(steps: int, state: int) -> int:
    """What autograd's tape of a loop over all steps takes.

    Args:
        steps: time steps.
        state: bytes of one h_t.
    """
    # Both products, their sum, h_t and the copies that backward makes; nodes of the graph beside them.
    return steps * (6 * state + 8192)


def require_tape(steps: int, state: int) -> None:
    """Raise TooLargeError where autograd's tape over all steps would not fit into memory.

    Args:
        steps, state: as of ``tape_bytes``.
    """
    require_memory(tape_bytes(steps, state), f"autograd's tape of {steps} steps")


def require_torchs_tape(steps: int, state: int) -> None:
    """The same of a layer of torch's that runs all steps by itself.

    Args:
        steps, state: as of ``tape_bytes``.
    """
    # h_t and a copy of it, and what backward makes; measured, it was 3 and 5.5 KB of nodes.
    require_memory(steps * (4 * state + 6144), f"autograd's tape of {steps} steps")


def require_layers_tape(blocks: int, states: int, nodes: int, what: str) -> None:
    """The same of a layer of torch's or ours in somebody's model, with what is itemised along it afterwards.

    Args:
        blocks: of its weight, one a gate.
        states: bytes of all its h_t.
        nodes: steps that autograd's graph has nodes for; none where a kernel runs them all.
        what: the layer, as of ``require_memory``.
    """
    # Fitted to what gradnorm takes of each kind, within a quarter of it; a forward pass alone keeps half of that.
    require_memory((5 + 4 * blocks) * states + nodes * 6144 * blocks, f"{what}, with autograd's tape,")


def available_bytes() -> int | None:
    """Bytes of main memory that can still be had; None where the system does not tell."""
    known = [n for n in (_system_available(), _control_group_available()) if n is not None]
    return min(known, default=None)


def in_words(size: int) -> str:
    """A number of bytes for people: 1536 -> "1.5 KiB"."""
    # Decimal, because a size that somebody typed may be beyond every float.
    value = Decimal(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"


def _system_available() -> int | None:
    try:
        # Read as bytes and in one go: this is asked before every sweep, of which the smallest take half a millisecond.
        with open("/proc/meminfo", "rb") as file:
            _, _, rest = file.read().partition(b"MemAvailable:")
        return int(rest.split(maxsplit=1)[0]) * 1024
    except (OSError, IndexError, ValueError):
        return _total_pages()


def _total_pages() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _control_group_available() -> int | None:
    try:
        limit, used = (_text(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
        return None if limit == b"max" else max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return None


def _text(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read().strip()
