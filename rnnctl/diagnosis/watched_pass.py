"""One forward pass of a model, looked on: what recurs in it, its states, and what its output and its loss are."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rnnctl.errors import InputError
from rnnctl.models.calls import Call, CellCall, LayeredCall, chains_of
from rnnctl.models.hooks import hooked
from rnnctl.models.model_run import ModelRun
from rnnctl.models.module_calls import ModuleCalls, tensors_in
from rnnctl.models.modules import Found, directions, recurrent_modules
from rnnctl.models.objective import Objective
from rnnctl.models.parameter_uses import nodes_in
from rnnctl.models.recording import Calls, Recording
from rnnctl.models.returned import Picked, picked
from rnnctl.models.sequences import Geometry
from rnnctl.models.weight_uses import Reading
from rnnctl.recurrence.cell_kind import CellKind
from rnnctl.recurrence.states_seen import has_ends
from rnnctl.recurrence.weights import LayerWeights, pre_activations


@dataclass(frozen=True, eq=False)
class SeenLayer:
    """One recurrent weight of a known kind in one call, or in all calls of a cell, apart from autograd.

    Attributes:
        name: of the weight.
        kind: of cell.
        weights: as they were.
        x, before, after: what it was given and h around each step, shape (steps, batch, features).
        mask: 1 where a sequence has a step, (steps, batch, 1); None where all have all.
        is_first: whether it receives what the model was given, and no other layer's states.
        has_ends: whether |h| near 1 is an end of its range.
    """

    name: str
    kind: CellKind
    weights: LayerWeights
    x: Tensor
    before: Tensor
    after: Tensor
    mask: Tensor | None
    is_first: bool
    has_ends: bool

    def real(self, steps: Tensor) -> Tensor:
        """Of something at every step and sequence, (steps, batch, ...), the real steps: (n, ...)."""
        flat = steps.flatten(0, 1)
        return flat if self.mask is None else flat[self.mask.flatten().bool()]

    def sums(self) -> Tensor:
        """What reaches each gate, shape (steps, batch, gates, hidden)."""
        return pre_activations(self.x, self.before, self.weights, self.kind.blocks, None)


class WatchedPass:
    """A model run once on its input.

    Args:
        model: any module; its parameters take a gradient.
        objective: what it is run on, and its loss.
    Attributes:
        run: the call, which knows the steps that the model ran.
        output: what the model returned.
        calls: of its recurrent modules of known kinds.
        made_by: of what these returned, the places in the graph.
    Raises:
        InputError: a model that cannot be seen into; x does not fit it.
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        self._model, self._given = model, objective
        recording, self._module_calls = Recording(recurrent_modules(model), keeps_graph=True), ModuleCalls(model, {})
        time_first = None if objective.time_first == "checked" else objective.time_first
        self.run = ModelRun(model, objective.x, objective.lengths, time_first)
        self.made_by: set[tuple[Any, int]] = set()
        try:
            recording.attach()
            with torch.enable_grad(), self._module_calls.noted(), self._noting_results():
                self.output = self.run()
        finally:
            recording.detach()
        self.calls: list[Calls] = recording.calls

    def _noting_results(self) -> ExitStack:
        stack = ExitStack()
        for found in recurrent_modules(self._model):
            stack.enter_context(hooked(found.module, self._note))
        return stack

    def _note(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        self.made_by |= {(each.grad_fn, each.output_nr) for each in tensors_in(result) if each.grad_fn is not None}

    @property
    def objective(self) -> Objective:
        """Of the steps that the model ran."""
        return self._posed[0]

    @cached_property
    def _posed(self) -> tuple[Objective, Any]:
        return self.run.posed(self._given, self.output)

    @cached_property
    def loss(self) -> Tensor:
        """The loss, shape (); InputError where there is none that takes a gradient."""
        with torch.enable_grad():
            return self._posed[0].value(self._posed[1])

    @cached_property
    def part(self) -> Picked:
        """What of the output is differentiated, or given to the user's own loss function; InputError as ``loss``."""
        return self._posed[0].picked(self._posed[1])

    @cached_property
    def prediction(self) -> Tensor | None:
        """The output, shape (batch, time, output) or (batch, output); None where it is not to be told.

        Beside a loss of the model's own the first tensor of numbers that may be one.
        """
        returned, objective = self._posed[1], self._posed[0]
        try:
            found = picked(returned, objective.output_key)
        except InputError:
            return None
        batch = objective.x.shape[0]
        parts: list[Any] = [found.part] if not found.is_own_loss else list(tensors_in(_as_container(returned)))
        fitting = (each for each in parts if isinstance(each, Tensor) and each.is_floating_point() and each.dim() > 1)
        return next((each for each in fitting if each.shape[0] == batch), None)

    @cached_property
    def roots(self) -> list[Any]:
        """The nodes of autograd's graph from which all that was computed leads back, the loss first."""
        try:
            own = [self.loss.grad_fn]
        except InputError:
            own = []
        return [*own, *nodes_in(self.output)]

    @cached_property
    def reading(self) -> Reading:
        """What the graph says of the model's weights."""
        return Reading(self._model, self.roots, self._module_calls)

    @property
    def most_uses(self) -> int:
        """How often the weight that is used most is, or its module is called: steps that the graph has lost count."""
        calls = max(map(len, self._module_calls.spans.values()), default=0)
        return max([calls, *(count for count, _ in self.reading.counts().values())])

    @cached_property
    def layers(self) -> list[SeenLayer]:
        """Every recurrent weight of a known kind with its states, call by call; of a cell all calls together."""
        seen = [calls for calls in self.calls if calls.refusal is None and calls.kept]
        first = min(seen, key=lambda calls: calls.kept[0].received.span[0], default=None)
        return [each for calls in seen for each in _seen_layers(calls, is_first=calls is first)]

    def require_fitting_target(self) -> None:
        """Raise the InputError of a target that the output cannot be held against, whether or not it has a gradient."""
        try:
            found = self.part
        except InputError:
            # Which of several outputs is meant is told by the looks that need to know it.
            return
        output, objective = found.part, self.objective
        if objective.target is None or objective.loss_fn is not None or found.is_own_loss:
            return
        if isinstance(output, Tensor) and output.is_floating_point():
            with torch.enable_grad():
                replace(objective, output_key=None).value(output.detach().requires_grad_())

    @property
    def chains(self) -> list[tuple[str, int, int]]:
        """Of every known module that ran with gradients: its weight's name, all its steps, and those of the longest
        chain of calls each of which took the state of the one before."""
        found = []
        for calls in self.calls:
            if calls.kept and calls.refusal is None:
                steps = [_steps(call) for call in calls.kept]
                longest = max(sum(steps[i] for i in chain) for chain in chains_of(calls.kept))
                found.append((calls.found.full(calls.found.weights[0]), sum(steps), longest))
        return found

    @property
    def ran_without_gradient(self) -> list[str]:
        """The weights of known modules that were run without gradients alone (torch.no_grad)."""
        return [
            calls.found.full(weight)
            for calls in self.calls
            if calls.without_grad and not calls.kept
            for weight in calls.found.weights
        ]


def _as_container(returned: Any) -> Any:
    """What ``tensors_in`` looks into: of a dataclass or an object of the user's own its fields."""
    return returned if isinstance(returned, (Tensor, tuple, list, Mapping)) else vars(returned)


def _steps(call: Call) -> int:
    if isinstance(call, CellCall):
        return 1
    return len(call.batch_sizes) if call.batch_sizes is not None else call.x.shape[0]


def _seen_layers(calls: Calls, *, is_first: bool) -> Iterator[SeenLayer]:
    cells = [call for call in calls.kept if isinstance(call, CellCall)]
    if cells and len({call.x.shape for call in cells}) == 1:
        yield _of_cells(calls.found, cells, is_first)
    for call in calls.kept:
        if isinstance(call, LayeredCall):
            yield from _of_layer(calls.found, call, is_first)


def _of_cells(found: Found, cells: list[CellCall], is_first: bool) -> SeenLayer:
    last = cells[-1]
    x, before, after = (
        torch.stack(part) for part in zip(*((c.x, c.before[0], c.after[0]) for c in cells), strict=True)
    )
    f = last.kind.nonlinearity
    ends = f is None or f.saturates
    return SeenLayer(found.full(found.weights[0]), last.kind, last.weights, x, before, after, None, is_first, ends)


def _of_layer(found: Found, call: LayeredCall, is_first: bool) -> Iterator[SeenLayer]:
    geometry = Geometry.of(call, None)
    for index, weight in enumerate(found.weights):
        layer, reverse = divmod(index, directions(call.module))
        run = geometry.run(call, layer, reverse, None)
        # A copy, as the room that h lies in is another run's as well.
        h, first = run.h.clone(), is_first and layer == 0
        name, ends = found.full(weight), has_ends(run)
        yield SeenLayer(name, call.kind, run.weights, run.x, h[:-1], h[1:], run.mask, first, ends)
