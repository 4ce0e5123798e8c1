"""How the gradient of the state changes over the lag that is needed, and whether trajectories part."""

import math
from dataclasses import replace

from torch import Tensor

from rnnctl.cells import FullRNN
from rnnctl.diagnosis.crossing import OVER_SEQUENCES, state_cut
from rnnctl.diagnosis.lag import FAR_SHARE, explained_within
from rnnctl.diagnosis.last_loss import Reach
from rnnctl.diagnosis.look import Evidence, Look, held, unknown
from rnnctl.diagnosis.patient import EXPLODES, VANISHES, Patient
from rnnctl.dynamics.lyapunov import Lyapunov, lyapunov
from rnnctl.errors import RnnctlError
from rnnctl.models.modules import matches
from rnnctl.recurrence.states_seen import short

# As many standard errors from 0 are no chance; so many sequences, steps and weights tell.
FEW_ERRORS, GROWTH = 2, 10.0
MOST_SEQUENCES, MOST_STEPS, MOST_WEIGHTS = 8, 200, 4


def vanishing(patient: Patient) -> Look:
    """What is left of the state's gradient over the lag that the task needs."""
    if patient.exchanged:
        return unknown(OVER_SEQUENCES)
    reach = patient.reach
    if reach.value is None:
        return unknown(reach.why)
    lag, how = _judged_lag(patient)
    if lag < 1:
        return Look(False, 1.0, VANISHES, sentence=f"the task needs nothing of the past ({patient.lag.words})")
    weight, left = reach.value.over(lag)
    cut = state_cut(patient) if left < VANISHES else None
    if cut is not None and cut.found and cut.number is not None and cut.number <= lag:
        # What the weights would leave of it is not to be seen behind a cut.
        return unknown(f"the state is cut within the lag of {_steps(lag)}: see state-cut")
    best = f" ({weight}, the best of all)" if len(reach.value.curves) > 1 else ""
    sentence = (
        f"of the gradient {short(left)} is left {_steps(lag)} back{best}, {how}: what came then cannot be learned"
    )
    whole = patient.of_one_length.x.shape[1] - 1
    if _is_of_gradnorm(patient) and lag < whole:
        sentence += f" (first_over_last of gradnorm is over all {whole})"
    look = _shown(patient, held(left, VANISHES, left < VANISHES, sentence))
    if patient.lag.steps is not None:
        return look.as_warning(left < VANISHES and _nearer_inputs_teach(patient, reach.value, lag))
    # Of a task whose lag is not known nobody can say that it needs all of the sequence; still less where there is a
    # target, and no input of long ago was seen to help.
    return replace(look, severity="note" if patient.target is not None else "warning")


def _is_of_gradnorm(patient: Patient) -> bool:
    """Whether gradnorm takes the loss of the last step as well, and shows what is left of it at every step."""
    return patient.settings.loss_at != "all" and patient.settings.loss_fn is None


def _shown(patient: Patient, look: Look) -> Look:
    """The same, with the doctor as evidence where gradnorm's numbers are of another loss."""
    return look if _is_of_gradnorm(patient) else replace(look, evidence=Evidence("doctor"))


def _nearer_inputs_teach(patient: Patient, reach: Reach, lag: int) -> bool:
    """Of an estimated lag whether inputs that the gradient reaches say nearly all that those up to the lag do."""
    x, target, explained = patient.sequences, patient.target, patient.lag.explained
    if explained is None or x is None or target is None:
        return False
    reached = next(each for each in range(lag) if reach.over(each + 1)[1] < VANISHES)
    nearer = explained_within(x, target, patient.settings.lengths, reached)
    return explained - nearer < FAR_SHARE * explained


def _judged_lag(patient: Patient) -> tuple[int, str]:
    """Over how many steps, and in words why over these."""
    whole, lag = patient.of_one_length.x.shape[1] - 1, patient.lag
    if lag.taught is not None:
        return min(lag.taught, whole), "which is what the target of the step before leaves to inputs"
    if lag.steps is None:
        return whole, f"over the whole sequence (how far back the task reaches is not known: {lag.because})"
    if lag.steps > whole:
        return whole, f"which is the whole sequence, and the task needs {lag.steps}"
    given = "as --lag says" if lag.source == "given" else f"which is how far back the task reaches: {lag.words}"
    return lag.steps, given


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"


def exploding(patient: Patient) -> Look:
    """How far the state's gradient grows on its way back, at any lag: the loss of the last step sends it everywhere."""
    if patient.exchanged:
        return unknown(OVER_SEQUENCES)
    reach = patient.reach
    if reach.value is None:
        return unknown(reach.why)
    weight, grown, lag = reach.value.largest()
    where = f" ({weight})" if len(reach.value.curves) > 1 else ""
    sentence = f"the gradient grows to {short(grown)} times its size {_steps(lag)} back{where}: training leaps"
    # Neither is what is no number known to be below.
    return _shown(patient, held(grown, EXPLODES, not grown <= EXPLODES, sentence))


def chaotic(patient: Patient) -> Look:
    """Whether the largest Lyapunov exponent is above 0 by more than two standard errors."""
    if patient.exchanged:
        return unknown(OVER_SEQUENCES)
    names = [name for name in patient.recurrent if matches(name, patient.settings.only)]
    if not names:
        return unknown("no recurrent weight is to be found")
    measured, why = list[tuple[str, Lyapunov]](), ""
    for name in names[:MOST_WEIGHTS]:
        try:
            measured.append((name, _exponent(patient, name)))
        except RnnctlError as error:
            why = why or str(error)
    looks = [_judged(patient.one_of_several(name), name, found, patient.steps) for name, found in measured]
    best = max(looks, key=lambda look: (look.found is True, look.found is None, look.excess), default=unknown(why))
    if best.found is False and why:
        return unknown(why)
    # Without an end to its states a network grows, and is no chaos that makes small changes large ones.
    grows = not _has_ends(patient)
    return best.as_warning(grows or exploding(patient).found is not True)


def _has_ends(patient: Patient) -> bool:
    """Whether its states are held by a tanh."""
    if patient.passed.layers:
        return any(layer.has_ends for layer in patient.passed.layers)
    return any(each.function == "Tanh" for each in patient.written_by_hand)


def _exponent(patient: Patient, name: str) -> Lyapunov:
    asked = patient.of_question
    x, start = asked["x"], asked["h_init"]
    if isinstance(x, Tensor):
        # The largest exponent needs no more of them.
        asked |= {"x": x[:MOST_SEQUENCES, :MOST_STEPS], "h_init": None if start is None else start[:MOST_SEQUENCES]}
    # A network of ours has one weight, and takes no name for it.
    only = None if isinstance(patient.model, FullRNN) else name
    return lyapunov(patient.model, **asked, only=only, count=1)


def _judged(named: str, name: str, found: Lyapunov, steps: int) -> Look:
    largest, error = float(found.exponents[0]), found.scalars["largest_stderr"]
    if error is None:
        return Look(None, largest, why=found.why["largest_stderr"])
    # Along a short sequence a transient may grow a little, and is no chaos.
    threshold = max(FEW_ERRORS * error, math.log(GROWTH) / steps)
    sentence = (
        f"two trajectories that begin side by side part by a factor of {short(found.scalars['exp_largest'])} at every "
        f"step (the largest exponent of {name} is {short(largest)} +- {short(error)}): small changes become large ones"
    )
    holds = largest > max(threshold, found.rounding)
    weight = min(1.0, 0.5 + largest) if holds else 0.0
    return Look(holds, largest, threshold, weight, sentence=sentence, weight_name=named)
