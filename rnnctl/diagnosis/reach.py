"""How much of a gradient is left over the lag that a task needs, of a model as it is trained."""

import math

from rnnctl.diagnosis.case import Case
from rnnctl.diagnosis.last_loss import longest_alone, reach_back
from rnnctl.errors import InputError


def reach(case: Case) -> float | None:
    """The norm of dL/d(state) so many steps back as the lag over that at the last step, of a loss at the last step.

    Of several recurrent weights that of the one that reaches furthest, since one way is enough; without a lag over the
    whole sequence.

    Args:
        case: whose model is left as it is.
    Returns:
        None where it is not known, or where no gradient comes to the last step.
    """
    objective = longest_alone(case.objective)
    try:
        with case.in_windows():
            found = reach_back(case.model, objective, case.settings.only)
    except InputError:
        return None
    whole = objective.x.shape[1] - 1
    _, left = found.over(whole if case.lag is None else min(case.lag, whole))
    return left if math.isfinite(left) else None
