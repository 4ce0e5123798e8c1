"""How the gradient of one recurrent weight, time step by time step, changed in the course of training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from rnnctl.errors import InputError, did_you_mean
from rnnctl.files.runs import ProbedStep, read_run
from rnnctl.results import Kind, Record, Result
from rnnctl.view.shown import Shown


@dataclass(frozen=True, eq=False)
class GradNormHistory(Shown, Result):
    """The norms of one recurrent weight at every probed step of a training run.

    Sequences begin at time step 0 and may be of different lengths; what is beyond the end of one is NaN.

    Attributes:
        weight: its name in the model.
        cell: "RNN", "GRU", "LSTM" or "Linear"; "" where no step could be probed.
        run: when the run began.
        steps: training steps that were probed, in order, shape (probed,).
        lengths: time steps of each, shape (probed,).
        grad_norm_W_hh: norm of time step t's contribution G_t, shape (probed, time), float64.
        grad_norm_h: norm of dL/dh_t, the recurrent path included, shape (probed, time), float64.
        grad_norm_state: norm of the gradient of the whole state, shape (probed, time), float64; NaN of a step
            whose line does not say it.
        probed: what the file says of each of these steps.
        failed: what it says of steps at which this weight could not be probed.
        other_weights: further names in the run.
        notes: what else of the file was left out.
    Units: loss per unit of weight or of state.
    """

    schema: ClassVar[str] = "gradnorm-history"
    kinds: ClassVar[Mapping[str, Kind]] = {
        **dict.fromkeys(("weight", "cell", "other_weights", "run"), str),
        **dict.fromkeys(("probed_steps", "first_step", "last_step", "time_steps", "largest_norm"), float),
        **dict.fromkeys(("reach_at_first_step", "reach_at_last_step"), float),
        **dict.fromkeys(("nonfinite_steps", "disagreements", "failed_steps"), float),
        "h_init_is_zero": bool,
    }
    words: ClassVar[tuple[str, ...]] = ("nonfinite",)

    weight: str
    cell: str
    run: str
    steps: tuple[int, ...]
    lengths: tuple[int, ...]
    grad_norm_W_hh: Tensor
    grad_norm_h: Tensor
    grad_norm_state: Tensor
    probed: tuple[ProbedStep, ...]
    failed: tuple[ProbedStep, ...]
    other_weights: tuple[str, ...]

    @cached_property
    def scalars(self) -> Record:
        """Where training stood, in single numbers; None where there is no value."""
        by_step = self.more["by_step"]
        first, last = by_step[0], by_step[-1]
        # NaN are left out of the largest: max of them depends on where they stand.
        norms = [norm for each in self.probed for norm in each.grad_norm_W_hh]
        return {
            "weight": self.weight,
            "cell": self.cell,
            "other_weights": ", ".join(self.other_weights) or "none",
            "run": self.run,
            "probed_steps": len(self.steps),
            "first_step": first["step"],
            "last_step": last["step"],
            "time_steps": max(self.lengths),
            "largest_norm": max((norm for norm in norms if not math.isnan(norm)), default=None),
            "reach_at_first_step": first["reach"],
            "reach_at_last_step": last["reach"],
            "nonfinite_steps": sum(not row["finite"] for row in by_step),
            "disagreements": _count_of(False, [row["agrees"] for row in by_step]),
            "failed_steps": len(self.failed),
            "h_init_is_zero": all(each.h_init_is_zero for each in self.probed),
        }

    @cached_property
    def rows(self) -> Sequence[Record]:
        """One record per probed training step and time step; c's and the whole state's norms where there is a c."""
        names = ["grad_norm_W_hh", "grad_norm_h"]
        if any(each.grad_norm_c is not None for each in self.probed):
            names += ["grad_norm_c", "grad_norm_state"]
        return [
            {"step": each.step, "t": t, **{name: _at(getattr(each, name), t) for name in names}}
            for each in self.probed
            for t in range(len(each.grad_norm_W_hh))
        ]

    @cached_property
    def more(self) -> Mapping[str, Sequence[Record]]:
        """One record per probed training step; and the steps that failed, with the reason."""
        return {
            "by_step": [_summary(each) for each in self.probed],
            "failed": [{"step": each.step, "error": each.error} for each in self.failed],
        }

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None."""
        reach = "at that step it is not finite, not known, 0 where the gradient enters, or of several sequences"
        return {
            "largest_norm": "no norm is a number",
            "reach_at_first_step": reach,
            "reach_at_last_step": reach,
            "disagreements": "no step had anything to compare",
        }

    @property
    def conditions(self) -> Mapping[str, bool | None]:
        """What --fail-on knows by a bare name."""
        return {"nonfinite": self.scalars["nonfinite_steps"] > 0}


def gradnorm_history(path: str | Path, weight: str | None = None) -> GradNormHistory:
    """Read what ``rnnctl.watch`` wrote of one recurrent weight: the last run of the file.

    Args:
        path: the file.
        weight: its name, or a pattern or a module's name, of which the first weight is taken; the
            first of the file if left out.
    Returns:
        A frozen ``GradNormHistory``.
    Raises:
        InputError: no such file, not a file of ``rnnctl.watch``, no such weight, or none of its steps
            could be probed.
    """
    run = read_run(Path(path))
    # The first is the one that is shown by itself: rather one that could be probed.
    names = list(dict.fromkeys(each.weight for each in sorted(run.steps, key=lambda each: each.error is not None)))
    name = names[0] if weight is None else _named(weight, names, run.source)
    lines = [each for each in run.steps if each.weight == name]
    probed = tuple(each for each in lines if each.error is None)
    failed = tuple(each for each in lines if each.error is not None)
    if not probed:
        raise InputError(f"{run.source}: {name} could not be probed at any step: {failed[0].error}")
    return GradNormHistory(
        weight=name,
        cell=probed[-1].cell,
        run=run.name,
        steps=tuple(each.step for each in probed),
        lengths=tuple(len(each.grad_norm_W_hh) for each in probed),
        grad_norm_W_hh=_matrix([each.grad_norm_W_hh for each in probed]),
        grad_norm_h=_matrix([each.grad_norm_h for each in probed]),
        grad_norm_state=_matrix([each.grad_norm_state or (math.nan,) for each in probed]),
        probed=probed,
        failed=failed,
        other_weights=tuple(other for other in names if other != name),
        notes=(*run.notes, *_of_h_alone(probed)),
    )


def _named(weight: str, names: Sequence[str], source: str) -> str:
    """The exact name, or else the first that the pattern or the module's name fits."""
    if weight in names:
        return weight
    for name in names:
        if fnmatch(name, weight) or fnmatch(name, f"{weight}.*"):
            return name
    raise InputError(
        f"{source} has no recurrent weight {weight!r}; it has {', '.join(names)}.{did_you_mean(weight, names)}"
    )


def _of_h_alone(probed: Sequence[ProbedStep]) -> Sequence[str]:
    """What is to be said where h may be but a part of a state of which the file says no more."""
    if all(each.grad_norm_state is not None or each.cell in ("RNN", "GRU") for each in probed):
        return ()
    return ("the file says nothing of the whole state, as before rnnctl wrote that: reach is of h alone",)


def _at(norms: Sequence[float] | None, t: int) -> float | None:
    return None if norms is None else norms[t]


def _count_of(wanted: bool, found: Sequence[bool | None]) -> int | None:
    """How many are so; None where nothing tells of any."""
    return sum(each is wanted for each in found) if any(each is not None for each in found) else None


def _matrix(lines: Sequence[Sequence[float]]) -> Tensor:
    width = max(len(line) for line in lines)
    padded = [[*line, *[math.nan] * (width - len(line))] for line in lines]
    return torch.tensor(padded, dtype=torch.float64)


def _summary(probed: ProbedStep) -> Record:
    norms = probed.grad_norm_W_hh
    finite = all(math.isfinite(norm) for norm in norms)
    largest = max(range(len(norms)), key=norms.__getitem__) if finite else None
    return {
        "step": probed.step,
        "time_steps": len(norms),
        "finite": finite,
        "largest_norm": None if largest is None else norms[largest],
        "at_t": largest,
        "reach": _reach(probed),
        "autograd_relative_error": probed.autograd_relative_error,
        "agrees": _agrees(probed, finite),
    }


def _agrees(probed: ProbedStep, finite: bool) -> bool | None:
    # Where autograd has nothing to compare, the states alone can tell.
    if not probed.states_agree:
        return False
    # What is no number agrees with nothing, whatever the line says.
    return None if probed.agrees and not finite else probed.agrees


def _reach(probed: ProbedStep) -> float | None:
    """Of the gradient of the state: the far end of the recurrence over the end from which it comes."""
    if probed.chains > 1:
        return None
    norms = probed.grad_norm_state or probed.grad_norm_h
    far, near = norms[0], norms[-1]
    if probed.weight.endswith("_reverse"):
        far, near = near, far
    known = math.isfinite(far) and math.isfinite(near) and near > 0
    return far / near if known else None
