"""A network that is looked at: what several rules ask of it, each made when it is first asked for and then kept."""

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from rnnctl.diagnosis.activations import Activation, step_activations
from rnnctl.diagnosis.case import Case, Settings, random_state
from rnnctl.diagnosis.lag import NO_TARGET, Lag, estimated_lag
from rnnctl.diagnosis.last_loss import Reach, longest_alone, reach_back
from rnnctl.diagnosis.training import Training, trained
from rnnctl.diagnosis.watched_pass import WatchedPass
from rnnctl.errors import InputError, RnnctlError
from rnnctl.gradients.limits import require_thresholds
from rnnctl.gradients.model_gradnorm import ModelGradNorms, itemised
from rnnctl.models.inputs import Inputs, inputs_of
from rnnctl.models.modules import require_module
from rnnctl.models.objective import Objective, called, lengths_apart
from rnnctl.models.returned import tensors_in
from rnnctl.models.seen_axes import Over

T = TypeVar("T")
EXPLODES, VANISHES = 1e3, 1e-3
# Small ones, until a gradient passes weights that begin as zeros: one for each of them that stands before another.
FIRST_STEPS = 3
require_thresholds(VANISHES, EXPLODES)


@dataclass(frozen=True, eq=False)
class Known(Generic[T]):
    """What was asked for, or why there is none."""

    value: T | None
    why: str = ""

    @classmethod
    def by(cls, make: Callable[[], T]) -> "Known[T]":
        """What comes of a call; an error that was foreseen is the reason."""
        try:
            return cls(make())
        except RnnctlError as error:
            return cls(None, str(error))


class Patient:
    """A copy of somebody's network, every weight of which takes a gradient, with what it is trained on.

    Args:
        case: any module, of which nothing is changed, with all that it is trained with; its lag where that is given.
        train_steps: of the short training; 0 for none.
        seeds: of how many short trainings.
    Attributes:
        frozen: the parameters that took no gradient.
        training_seconds: what the short trainings took, as far as they were asked for.
    Raises:
        InputError: it cannot be copied.
    """

    def __init__(self, case: Case, train_steps: int = 0, seeds: int = 1) -> None:
        require_module(case.model)
        given, lengths = lengths_apart(case.model, case.x, case.settings.lengths)
        start = case.settings.h_init
        # Zeros are what every network starts from by itself.
        start = start if start is not None and bool(start.any()) else None
        self.x, self.target = given, case.target
        self.settings = replace(case.settings, lengths=lengths, h_init=start)
        self.train_steps, self.seeds, self.original, self._lag = train_steps, seeds, case.model, case.lag
        self.training_seconds = 0.0
        self.frozen = frozenset(name for name, each in case.model.named_parameters() if not each.requires_grad)
        self.model = _thawed(Case.copied(case).model)

    @property
    def batch(self) -> int:
        """Sequences."""
        return inputs_of(self.x).shape[0]

    @property
    def steps(self) -> int:
        """T."""
        return inputs_of(self.x).shape[1]

    @property
    def sequences(self) -> Tensor | None:
        """The input that has the steps, shape (batch, time, input) or whole numbers (batch, time); None if packed."""
        if isinstance(self.x, Tensor):
            return self.x
        shape = self.x.shape
        return next((t for t in self.x.tensors if isinstance(t, Tensor) and tuple(t.shape) == shape), None)

    @cached_property
    def passed(self) -> WatchedPass:
        """One forward pass of it; what is wrong with the call itself is an error."""
        return WatchedPass(self.model, self.settings.objective(self.model, self.x, self.target))

    @cached_property
    def over(self) -> Over | None:
        """What its recurrence ran over: the first of its weights that says something; None where none was seen."""
        seen = [over for _, over in self.passed.run.steps_seen]
        return next((way for way in ("sequences", "time", "either", "else") if way in seen), None)

    @property
    def exchanged(self) -> bool:
        """Whether it took sequences for steps, so that what is measured step by step means nothing."""
        return self.over == "sequences" or self.mixes.value is True

    @cached_property
    def mixes(self) -> Known[bool]:
        """Whether what one sequence is given changes what the model makes of another, its modules in eval mode."""
        return Known.by(lambda: _mixes(self))

    @cached_property
    def objective(self) -> Objective:
        """What is differentiated; where the model ran over the sequences, of that."""
        found = self.settings.objective(self.model, self.x, self.target)
        return replace(found, time_first=False) if self.over == "sequences" else found

    @cached_property
    def gradnorm(self) -> Known[ModelGradNorms]:
        """One training step, every recurrent weight itemised."""
        judged = {"vanish_below": VANISHES, "explode_above": EXPLODES}
        only = self.settings.only
        return Known.by(lambda: itemised(self.model, self.objective, only, verify=True, **judged))

    @cached_property
    def of_one_length(self) -> Objective:
        """The longest sequences alone, without what pads the others."""
        return longest_alone(self.objective)

    @property
    def of_question(self) -> dict[str, Any]:
        """The keywords that every question about a model takes, beside its sequences of one length."""
        x = self.of_one_length.x if self.settings.h_init is None else self.x
        return {"x": x, "h_init": self.settings.h_init, "time_first": self.objective.time_first}

    @cached_property
    def reach(self) -> Known[Reach]:
        """How far back the loss of the last step reaches."""
        return Known.by(lambda: reach_back(self.begun, self.of_one_length, self.settings.only))

    @cached_property
    def lag(self) -> Lag:
        """How far back the task reaches."""
        if self._lag is not None:
            return Lag(self._lag, "given", f"it is given: {self._lag} steps")
        x = self.sequences
        if self.target is None or x is None or not isinstance(self.target, Tensor):
            return Lag(None, "not known", NO_TARGET)
        every = self.settings.loss_at == "all" or self.settings.loss_fn is not None
        return estimated_lag(x, self.target, self.settings.lengths, at_every_step=every)

    @cached_property
    def written_by_hand(self) -> list[Activation]:
        """The nonlinearities of a loop in which no module of a known kind ran; nothing of other models."""
        if self.passed.layers or self.steps < 2:
            return []
        return step_activations(self.passed.reading.graph, self.steps)

    @cached_property
    def gradients(self) -> Known[Mapping[str, float]]:
        """The norm of what the loss brings to every parameter that the model has, 0 where nothing comes."""
        return Known.by(lambda: _gradient_norms(self.model, self.passed.loss))

    @cached_property
    def begun(self) -> nn.Module:
        """The model; a copy after a few small steps where no gradient comes to a recurrent weight before that.

        Behind a readout of zeros, as many are drawn, none does at the first step, and one does at the second.
        """
        norms = self.gradients.value or {}
        if all(norms.get(name, 1.0) for name in self.recurrent):
            return self.model
        settings = replace(self.settings, window=None)
        known = Known.by(lambda: trained(self.original, self.x, self.target, settings, FIRST_STEPS).model)
        return self.model if known.value is None else _thawed(known.value)

    @cached_property
    def gradients_later(self) -> Mapping[str, float]:
        """``gradients``, those that were 0 as they are in ``begun``."""
        norms = self.gradients.value or {}
        if self.begun is self.model:
            return norms
        later = Known.by(lambda: _gradient_norms(self.begun, WatchedPass(self.begun, self.objective).loss)).value or {}
        return {name: norm or later.get(name, 0.0) for name, norm in norms.items()}

    @cached_property
    def recurrent(self) -> list[str]:
        """The names of its recurrent weights: of modules of known kinds, and those that the graph shows."""
        known = [each.full(weight) for each in (c.found for c in self.passed.calls) for weight in each.weights]
        counted = self.passed.reading.counts() if self.passed.roots else {}
        return [*known, *(name for name, (_, recurs) in counted.items() if recurs and name not in known)]

    def one_of_several(self, name: str = "") -> str:
        """The recurrent weight that a question about one has to be told, this or the first; "" where there is one."""
        several = len(self.recurrent) > 1 and self.settings.only is None
        return (name if name in self.recurrent else self.recurrent[0]) if several else ""

    @cached_property
    def trainings(self) -> tuple[Training, ...]:
        """Short trainings of copies of the network as it was given, one for each seed."""
        held = self._given.held_out
        seen = self._given if held is None else self._given.part(~held)
        # Where the state of a loop written by hand could be cut is not known.
        settings = seen.settings if self.passed.layers else replace(seen.settings, window=None)
        given, began = (self.original, seen.x, seen.target, settings, self.train_steps), time.perf_counter()
        found = tuple(trained(*given, seed) for seed in range(self.seeds))
        self.training_seconds += time.perf_counter() - began
        return found

    @property
    def _given(self) -> Case:
        return Case(self.model, self.x, self.target, self.settings)

    @cached_property
    def held_out(self) -> Objective | None:
        """What the short trainings are held against; None where they see all there is."""
        held = self._given.held_out
        return None if held is None else self._given.part(held).objective


def _thawed(model: nn.Module) -> nn.Module:
    """The same, every parameter of which takes a gradient."""
    for parameter in model.parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(True)
    return model


def _gradient_norms(model: nn.Module, loss: Tensor) -> dict[str, float]:
    named = {name: each for name, each in model.named_parameters() if each.requires_grad}
    grads = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    norms = (0.0 if grad is None else float(torch.linalg.vector_norm(grad.double().abs())) for grad in grads)
    return dict(zip(named, norms, strict=True))


def _mixes(patient: Patient) -> bool:
    """Whether the first sequence's input reaches the outputs of others."""
    x = patient.sequences
    if x is None or not isinstance(patient.x, Tensor) or patient.batch < 2:
        raise InputError("it takes a batch of two sequences and one input to tell")
    other = x.clone()
    # Its own steps in another order: what a model takes of all sequences together, such as their mean, stays.
    other[0] = x[0].flip(0)
    if bool((other[0] == x[0]).all()):
        other[0] = x[1]
    before, after = (outputs_of(patient, each) for each in (x, other))
    pairs = [
        (a, b) for a, b in zip(before, after, strict=True) if a.shape == b.shape and a.shape[:1] == (patient.batch,)
    ]
    if bool((other == x).all()) or not pairs:
        raise InputError("no output is of every sequence")
    # As many digits as products of a batch may differ by from those of another.
    return any(not torch.allclose(a[1:], b[1:], rtol=1e-4, atol=1e-6, equal_nan=True) for a, b in pairs)


def outputs_of(patient: Patient, x: Tensor) -> list[Tensor]:
    """All floating-point tensors that the model returns for an input, (batch, time, ...), in eval mode."""
    # Not of the copy that was looked at: a parametrized layer that has run cannot be copied any more.
    model, settings = deepcopy(patient.original).eval(), patient.settings
    # The same numbers every time: of what a model draws nothing may look as if the input had made it.
    with random_state(0, model), torch.no_grad():
        returned = called(model, _with_start(x, settings), settings.lengths, _plain(settings.time_first))
    held: Any = {"0": returned} if isinstance(returned, Tensor) else returned
    return [each for _, each in tensors_in(held) if isinstance(each, Tensor) and each.is_floating_point()]


def _with_start(x: Tensor, settings: Settings) -> Tensor | Inputs:
    return x if settings.h_init is None else Inputs((x, settings.h_init))


def _plain(time_first: Any) -> bool | None:
    return None if time_first == "checked" else time_first
