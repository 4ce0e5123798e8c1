"""What a change of the gradient over a whole sequence is called."""

import math

from rnnctl.errors import InputError


def require_thresholds(vanish_below: float, explode_above: float) -> None:
    """Raise InputError unless the thresholds leave something between them."""
    if not 0 <= vanish_below < explode_above:
        raise InputError(
            "the verdict needs 0 <= vanish_below < explode_above; "
            f"got vanish_below {vanish_below} and explode_above {explode_above}"
        )


def conditions_of(
    first_over_last: float | None, is_finite: bool, vanish_below: float, explode_above: float
) -> dict[str, bool]:
    """Which of "nonfinite", "vanishing" and "exploding" hold; the first that does is the verdict.

    Args:
        first_over_last: norm of a gradient at the first step over that at the last; None where it is not known.
    """
    # NaN compares as neither.
    ratio = math.nan if first_over_last is None else first_over_last
    return {"nonfinite": not is_finite, "vanishing": ratio < vanish_below, "exploding": ratio > explode_above}
