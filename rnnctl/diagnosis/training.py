"""A short training of a copy: what the loss does, and by how much every weight moves."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rnnctl.diagnosis.adam import Adam
from rnnctl.diagnosis.case import Case, Settings, random_state
from rnnctl.errors import InputError, hands_over
from rnnctl.models.inputs import Given
from rnnctl.models.objective import Objective, called, takes_time_first, turned_back


@dataclass(frozen=True, eq=False)
class Training:
    """What came of a short training.

    Attributes:
        losses: before each step, and after the last; it ends early where one of them is not finite.
        update_over_weight: name of a parameter -> (smallest, largest) of ||its change|| / ||it|| over the steps, those
            left out in which it was 0; a parameter that was always 0 is left out.
        predictions: the output after it, detached; None where the model has only a loss of its own.
        model: the copy that was trained.
    """

    losses: tuple[float, ...]
    update_over_weight: Mapping[str, tuple[float, float]]
    predictions: Tensor | None
    model: nn.Module

    @property
    def loss_before(self) -> float:
        """Of the weights as they were."""
        return self.losses[0]

    @property
    def loss_after(self) -> float:
        """Of the weights as they are now; not finite where the training ended for that."""
        return self.losses[-1]


def trained(
    model: nn.Module, x: Given, target: Tensor | None, settings: Settings, steps: int, seed: int = 0
) -> Training:
    """Train a copy for a few steps, by Adam on all sequences at once.

    Args:
        model, x, target: as of ``gradnorm``; the model and torch's random state are afterwards as before.
        settings: how it is trained.
        steps: how many.
        seed: of what the model draws, such as dropout.
    Raises:
        InputError: no parameter takes a gradient; a window that cannot be cut; as ``gradnorm`` for x and target.
    """
    case = Case(deepcopy(model), x, target, settings)
    with random_state(seed, model), torch.enable_grad(), case.in_windows():
        return _Trainer(case).train(steps)


def loss_of(model: nn.Module, x: Given, target: Tensor | None, settings: Settings, seed: int = 0) -> float:
    """The loss of a model as it is, of x and target as of ``gradnorm``."""
    objective = settings.objective(model, x, target)
    with random_state(seed, model), torch.enable_grad():
        return float(objective.value(_output(model, objective)).detach())


def has_own_loss(case: Case) -> bool:
    """Whether the model returns a loss of its own, and nobody asks for another."""
    objective = case.objective
    with random_state(0, case.model), torch.enable_grad():
        return objective.picked(_output(case.model, objective)).is_own_loss


@dataclass
class _Trainer:
    """A model that is trained in place."""

    case: Case
    updates: dict[str, list[float]] = field(default_factory=dict)

    @hands_over
    def train(self, steps: int) -> Training:
        model, objective, clip = self.case.model, self.case.objective, self.case.settings.clip
        weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not weights:
            raise InputError("no parameter of the model takes a gradient: there is nothing to train")
        adam = Adam(weights, self.case.settings.learning_rate)
        losses: list[float] = []
        for step in range(steps + 1):
            returned = _output(model, objective)
            loss = objective.value(returned)
            losses.append(float(loss.detach()))
            if step == steps or not math.isfinite(losses[-1]):
                break
            model.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if clip is not None:
                nn.utils.clip_grad_norm_(weights.values(), clip)
            for name, moved in adam.step().items():
                self.updates.setdefault(name, []).append(moved)
        spans = {name: (min(found), max(found)) for name, found in self.updates.items()}
        part = objective.picked(returned)
        shown = None if part.is_own_loss or not isinstance(part.part, Tensor) else part.part.detach()
        return Training(tuple(losses), spans, shown, model)


def _output(model: nn.Module, objective: Objective) -> Any:
    """What the model returns, its sequences as (batch, time, ...)."""
    output = called(model, objective.x, objective.lengths, objective.time_first)
    time_first = takes_time_first(model) if objective.time_first is None else objective.time_first
    axes = [(objective.x.shape[0], objective.x.shape[1])]
    return turned_back(output, axes, ()) if time_first else output
