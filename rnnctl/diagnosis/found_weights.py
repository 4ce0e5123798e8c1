"""An orthogonal W_hh for code of the user's own, whose recurrent weights only autograd's graph shows."""

import torch
from torch import Tensor, nn

from rnnctl.diagnosis.case import Case
from rnnctl.errors import InputError
from rnnctl.gradients.trace import ProbedWeight
from rnnctl.gradients.training_step import training_step

# What f_h is nobody says: the gain is sought by measuring, until a gradient keeps its norm to so much per step.
CLOSE_ENOUGH, MOST_TRIES = 0.02, 6
SMALLEST_GAIN, LARGEST_GAIN = 0.1, 10.0


def critical_by_measure(case: Case) -> Case:
    """Orthogonal blocks in every weight that recurs; where there is one block, at a gain at which a gradient stays.

    Args:
        case: whose model has recurrent weights (gates * hidden, hidden), or such columns of weights on cat(x, h).
    Raises:
        InputError: a weight of another form; as ``gradnorm``.
    """
    found = _probed(case)
    blocks = {name: _columns(case, weight) for name, weight in found.items()}
    for block in blocks.values():
        for square in torch.split(block, block.shape[1]):
            nn.init.orthogonal_(square)
    sought = {name: block.clone() for name, block in blocks.items() if len(block) == block.shape[1]}
    gains = _gains(case, blocks, sought)
    lines = ["from torch import nn"]
    for name, block in blocks.items():
        lines += ["", f"W_hh = model.get_parameter({name!r}).detach(){_slice(found[name])}"]
        if name in gains:
            lines.append(f"nn.init.orthogonal_(W_hh, {gains[name]})  # measured: a gradient keeps its norm")
        else:
            lines += [f"for block in W_hh.split({block.shape[1]}):", "    nn.init.orthogonal_(block)"]
    return case.changed(lines)


def _probed(case: Case) -> dict[str, ProbedWeight]:
    objective = case.objective
    return dict(training_step(case.model, objective, objective.lengths, case.settings.only).weights)


def _gains(case: Case, blocks: dict[str, Tensor], sought: dict[str, Tensor]) -> dict[str, float]:
    """Scale each of the orthogonal matrices until a gradient neither grows nor fades along the input."""
    gains = dict.fromkeys(sought, 1.0)
    for _ in range(MOST_TRIES):
        measured = _probed(case) if gains else {}
        decays = {name: measured[name].decay for name in gains if name in measured}
        factors = {name: each.factor_per_step for name, each in decays.items() if each is not None}
        off = {name: factor for name, factor in factors.items() if factor and abs(factor - 1) > CLOSE_ENOUGH}
        if not off:
            break
        for name, factor in off.items():
            # To the digits that the lines show.
            gains[name] = float(f"{min(LARGEST_GAIN, max(SMALLEST_GAIN, gains[name] / factor)):.3g}")
            blocks[name].copy_(sought[name] * gains[name])
    return gains


def _columns(case: Case, weight: ProbedWeight) -> Tensor:
    """The part of a parameter that multiplies the state, (gates * hidden, hidden), apart from autograd."""
    whole = case.model.get_parameter(weight.name).detach()
    if whole.dim() != 2 or weight.column_axis != 1 or whole.is_complex():
        raise InputError(f"{weight.name} is no matrix that multiplies the state from the left")
    if weight.columns is not None and int(weight.columns[-1] - weight.columns[0]) != len(weight.columns) - 1:
        raise InputError(f"{weight.name}: the columns that multiply the state do not stand side by side")
    block = whole if weight.columns is None else whole[:, int(weight.columns[0]) : int(weight.columns[-1]) + 1]
    if len(block) % block.shape[1]:
        raise InputError(f"{weight.name} has {len(block)} rows for a state of {block.shape[1]}: no square blocks")
    return block


def _slice(weight: ProbedWeight) -> str:
    if weight.columns is None:
        return ""
    return f"[:, {int(weight.columns[0])}:{int(weight.columns[-1]) + 1}]"
