"""What thresholds of a verdict and windows of truncation may be; without torch, so that a mistake waits for nothing."""

from collections.abc import Sequence

from rnnctl.errors import InputError


def require_thresholds(vanish_below: float, explode_above: float) -> None:
    """Raise InputError unless the thresholds leave something between them."""
    if not 0 <= vanish_below < explode_above:
        raise InputError(
            "the verdict needs 0 <= vanish_below < explode_above; "
            f"got vanish_below {vanish_below} and explode_above {explode_above}"
        )


def default_windows(seq_len: int) -> list[int]:
    """1, 2, 4, ... below T, and T."""
    return [*(2**i for i in range(seq_len.bit_length()) if 2**i < seq_len), seq_len]


def chosen_windows(windows: Sequence[int] | None, seq_len: int) -> tuple[int, ...]:
    """The windows in order and T; 1, 2, 4, ... where none are given; InputError for one outside 1 .. T."""
    if windows is None:
        windows = default_windows(seq_len)
    if not isinstance(windows, Sequence) or any(type(window) is not int for window in windows):
        raise InputError(f"windows must be whole numbers from 1 to {seq_len}; got {windows!r}")
    for window in windows:
        if not 1 <= window <= seq_len:
            raise InputError(f"windows must be from 1 to the sequence's {seq_len} steps; got {window}")
    return tuple(sorted({*windows, seq_len}))
