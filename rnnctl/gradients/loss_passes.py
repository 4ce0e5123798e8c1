"""Anybody's model run forward once with hooks on, and what the loss of every step then did to one recurrent weight."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType

import torch
from torch import Tensor, nn

from rnnctl.errors import InputError
from rnnctl.gradients.agreement import TOLERANCES, Agreement, compared, timed
from rnnctl.gradients.cell_calls import band_sums, cells_seen
from rnnctl.gradients.layer_calls import layer_band_sums, layer_seen
from rnnctl.gradients.probed import probed
from rnnctl.gradients.trace import ProbedWeight
from rnnctl.gradients.use_norms import UseNorms
from rnnctl.gradients.use_steps import UseSteps, use_steps, with_states
from rnnctl.models.calls import CellCall, LayeredCall
from rnnctl.models.model_run import ModelRun
from rnnctl.models.module_calls import ModuleCalls
from rnnctl.models.modules import has_own_forward, matches, none_found, recurrent_modules, weight_names
from rnnctl.models.objective import Objective, backward
from rnnctl.models.recording import Calls, Recording
from rnnctl.models.tape.operands import kept_operands
from rnnctl.models.weight_uses import Asked, Reading, WeightUses
from rnnctl.recurrence.states_seen import FirstNonfinite, StatesSeen, first_nonfinite, seen_together


class LossPasses:
    """One forward pass of a model, and whatever of its losses is asked of autograd afterwards.

    Iterating gives k and what the loss at step k did to the weight, or None where it does not reach it.

    Args:
        model: any module.
        objective: with the loss at all steps.
        only: as of ``probe``; it must leave one recurrent weight.
    Attributes:
        name: of the weight, once the forward pass has run.
        windows: of a weight that is found in the graph, those that ``band_sums`` will be asked for.
        losses: of every step, each of shape ().
        output_key: where the output stands in what the model returned; None where it is all of it.
        notes: what is to be told of the steps that the model ran, once it has.
    Raises:
        InputError: several weights or none.
    """

    def __init__(self, model: nn.Module, objective: Objective, only: str | None) -> None:
        self._model, self._objective, self._only = model, objective, only
        self._recording = Recording(recurrent_modules(model, only), keeps_graph=True)
        self._module_calls = ModuleCalls(model, {})
        self._in_graph: _InGraph | None = None
        self.name, self.losses, self.windows = "", list[Tensor](), tuple[int, ...]()
        self.output_key: str | None = None
        self.notes: tuple[str, ...] = ()

    def __enter__(self) -> "LossPasses":
        try:
            self._recording.attach()
            with torch.enable_grad(), self._module_calls.noted():
                self._run()
        except BaseException:
            # Where entering fails nobody calls __exit__, not even after Ctrl-C.
            self._detach()
            raise
        return self

    def _run(self) -> None:
        """Forward, to the losses and the weight that is asked about."""
        run = ModelRun(self._model, self._objective.x, None, self._objective.checked_axes)
        try:
            objective, output = run.posed(self._objective, run())
            part = objective.over_time(output)
            run.require_no_state(part, output)
            self.notes, self.output_key = run.notes, part.key
            self.losses = objective.at_every_step(output)
            self._choose()
        except InputError as error:
            raise run.explained(error) from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._detach()

    def _detach(self) -> None:
        self._recording.detach()
        if self._in_graph is not None:
            self._in_graph.detach()

    def _choose(self) -> None:
        """The one weight that is asked about: of a module whose class is known, or found in the graph."""
        called = [calls for calls in self._recording.calls if calls.kept or calls.refusal]
        seen = called or [calls for calls in self._recording.calls if not has_own_forward(calls.found.module)]
        names = [name for calls in seen for name in weight_names(calls.found, self._only)]
        known = {name for calls in seen for name in weight_names(calls.found, None)}
        reading = Reading(self._model, [loss.grad_fn for loss in self.losses], self._module_calls)
        weights = reading.of(
            Asked(
                lambda name, recurs: name not in known and (name == self._only or recurs) and matches(name, self._only)
            )
        )
        if called and names and self._only is None:
            # Beside a layer or cell others may recur, such as a readout that is fed back: they have to be named.
            weights = []
        # A module that was not called has nothing to say beside a weight that recurs.
        names = [*(names if called or not weights else ()), *(weight.name for weight in weights)]
        if len(names) != 1:
            what = (
                f"pick one with --module of {', '.join(names)}"
                if names
                else f"there is none; {none_found(self._model)}"
            )
            raise InputError(f"flow and truncation follow one weight; {what}")
        self.name = names[0]
        if weights:
            self._in_graph = _InGraph(self, reading, weights[0])

    @property
    def loss(self) -> float:
        """Over all steps."""
        return float(self.total().detach())

    @property
    def seq_len(self) -> int:
        """T."""
        return len(self.losses)

    @property
    def is_in_graph(self) -> bool:
        """Whether the weight is one that was found in the graph, and no module's of a known class."""
        return self._in_graph is not None

    @property
    def calls(self) -> Calls:
        """Of the module of a known class that the weight belongs to."""
        return next(c for c in self._recording.calls if self.name in weight_names(c.found, self._only))

    @property
    def index(self) -> int:
        """Which of its module's weights it is."""
        found = self.calls.found
        return [found.full(weight) for weight in found.weights].index(self.name)

    @property
    def parameters(self) -> list[Tensor]:
        """Of the model, those that take a gradient."""
        return [parameter for parameter in self._model.parameters() if parameter.requires_grad]

    def total(self, weights: Tensor | None = None) -> Tensor:
        """The sum of all losses, times weights of shape (time,) where they are given; shape ()."""
        losses = torch.stack(self.losses)
        return losses.sum() if weights is None else (losses * weights.to(losses)).sum()

    def nonfinite(self) -> FirstNonfinite:
        """Where a state of the forward pass is not finite first."""
        return first_nonfinite({self.name: self._seen()})

    def _seen(self) -> StatesSeen | None:
        """What the states are like, or None where that is not known."""
        if self._in_graph is not None:
            return self._in_graph.seen()
        kept = self.calls.kept
        cells = [call for call in kept if isinstance(call, CellCall)]
        if len(cells) == len(kept):
            return cells_seen(cells)
        return seen_together([layer_seen(call, self.index) for call in kept if isinstance(call, LayeredCall)])

    def __iter__(self) -> Iterator[tuple[int, ProbedWeight | UseSteps | None]]:
        for k, loss in enumerate(self.losses):
            self.forget_gradients()
            if self._in_graph is not None:
                self._in_graph.at(k)
            # A constant output takes no gradient, and is a loss step that reaches nothing.
            if loss.requires_grad:
                backward(loss, self._model, again=True)
            yield k, self._at(k)

    def forget_gradients(self) -> None:
        """Before another backward pass."""
        self._recording.forget_gradients()
        if self._in_graph is not None:
            self._in_graph.forget()

    def _at(self, k: int) -> ProbedWeight | UseSteps | None:
        weight = self._probed() if self._in_graph is None else self._in_graph.told()
        if weight is None:
            return None
        self.require_one_to_one(len(weight.grad_norm_W_hh))
        self.require_past(k, torch.stack([weight.grad_norm_state, weight.grad_norm_W_hh], dim=1))
        return weight

    def _probed(self) -> ProbedWeight | None:
        """What the last backward pass did to the weight, or None where it did not reach it."""
        if not any(call.received for call in self.calls.kept):
            return None
        results, missing = probed(self._recording, self._only)
        if self.name not in results:
            raise InputError(f"{self.name}: {missing[self.name]}")
        return results[self.name]

    def require_one_to_one(self, steps: int) -> None:
        """Raise InputError unless every step of the weight has an output, and the other way round."""
        if steps != self.seq_len:
            raise InputError(f"{self.name} ran {steps} steps; the output has {self.seq_len}. They must be one to one")

    def require_past(self, k: int, sent: Tensor) -> None:
        """Raise InputError where the loss at step k sends something to later steps.

        Args:
            sent: to every step, of shape (time, ...).
        """
        # NaN, of a state that is not known or not finite, is nothing against it.
        if k + 1 < self.seq_len and bool(sent[k + 1 :].nan_to_num(nan=0.0).any()):
            raise InputError(
                f"the loss at step {k} depends on later steps of {self.name} (a reverse direction?); flow and "
                "truncation ask how far back the past reaches. gradnorm takes any model"
            )

    def band_sums(self, k: int, windows: Sequence[int]) -> Tensor:
        """The contributions to what the loss at step k has just brought, summed from one window back to the next.

        Args:
            windows: how many of the last steps up to k each has, step k included, in order.
        Returns:
            Shape (windows, rows of the weight, hidden), float64: what each adds to the one before.
        Raises:
            InputError: several calls of a layer.
        """
        if self._in_graph is not None:
            return self._in_graph.band_sums()
        kept = self.calls.kept
        cells = [call for call in kept if isinstance(call, CellCall)]
        if len(cells) == len(kept):
            return band_sums(cells, k, windows)
        if len(kept) == 1 and isinstance(kept[0], LayeredCall):
            return layer_band_sums(kept[0], self.index, k, windows)
        raise InputError(
            f"truncation takes a layer that is called once over all steps, or a cell that is called once a step; "
            f"{self.name} was called {len(kept)} times"
        )

    def agreement(self, grad_W_hh: Tensor, magnitude: float) -> Agreement | None:
        """How well the sum of all contributions agrees with autograd's gradient of the sum of all losses.

        Args:
            grad_W_hh: that sum, shape of the weight.
            magnitude: an upper bound of its norm that cancelling terms do not shrink.
        Returns:
            None where there is nothing to compare with: the weight takes no gradient.
        """
        found, seconds = timed(lambda: self._agreement(grad_W_hh, magnitude))
        return None if found is None else replace(found, seconds=seconds)

    def _agreement(self, grad_W_hh: Tensor, magnitude: float) -> Agreement | None:
        self.forget_gradients()
        backward(self.total(), self._model, again=True)
        if self._in_graph is not None:
            return self._in_graph.agreement(grad_W_hh, magnitude)
        weight = self._probed()
        if weight is None:
            raise InputError(f"the loss of no step reaches {self.name}")
        expected = weight.grad_W_hh if self._is_shared() else self._autograds()
        if expected is None and weight.states_agree:
            return None
        expected = torch.full_like(grad_W_hh, torch.nan) if expected is None else expected
        # Of what autograd brought the sum is kept in float64, which it was not computed in.
        dtype = self.calls.kept[-1].parameters[self.index].dtype
        found = compared(grad_W_hh, expected, magnitude, weight.autograd_tolerance, "model", dtype)
        # The probe's own comparison covers a weight of several names, and states that its weights do not make.
        against = weight.agrees is False or not weight.states_agree
        return replace(found, holds=False, why=None) if against else found

    def _is_shared(self) -> bool:
        """Whether it goes by other names as well, so that autograd's gradient holds more than is asked for."""
        own = self._keys
        within = {id(each) for call in self.calls.kept for i, each in enumerate(call.parameters) if i != self.index}
        elsewhere = (calls.kept for calls in self._recording.calls if calls is not self.calls)
        return bool(own & within) or any(
            id(each) in own for kept in elsewhere for call in kept for each in call.parameters
        )

    @property
    def _keys(self) -> set[int]:
        """What tells the weight from others; several where each call had a new one."""
        return {id(call.parameters[self.index]) for call in self.calls.kept}

    def _autograds(self) -> Tensor | None:
        """What the last backward pass brought to the weight, in all; None where it takes no gradient."""
        totals = self._recording.totals
        brought = [totals[key] for key in self._keys if key in totals]
        return torch.stack(brought).sum(0) if brought else None


class _InGraph:
    """A weight that is found in the graph of all losses, and what a backward pass brings to its uses."""

    def __init__(self, passes: LossPasses, reading: Reading, weight: WeightUses) -> None:
        if len(weight.chains.chains) > 1:
            raise InputError(
                f"{weight.name} runs over {len(weight.chains.chains)} sequences that no state links; flow and "
                "truncation take one. gradnorm takes any model"
            )
        self._passes, self._weight = passes, weight
        self._k = 0
        self._sums: Tensor | None = None
        self._operands = kept_operands(reading.graph, weight.weight, weight.chains.steps)
        self._norms = UseNorms(reading.uses, [weight], matrix=self._add)
        self._norms.attach()

    def detach(self) -> None:
        """Take the hooks away."""
        self._norms.detach()

    def forget(self) -> None:
        """Before another pass."""
        self._norms.forget()
        self._sums = None

    def at(self, k: int) -> None:
        """The loss of which step is next."""
        self._k = k

    def seen(self) -> StatesSeen | None:
        """What the states are like, as far as the graph keeps them."""
        told = self.told()
        return None if told is None else with_states(told, self._weight, self._operands).seen

    def told(self) -> UseSteps | None:
        """What the last pass did, or None where it did not reach the weight."""
        self._norms.settle()
        return use_steps(self._norms, 0, None, None) if self._norms.reached else None

    def band_sums(self) -> Tensor:
        """The contributions of the steps up to that of the loss, summed from one window back to the next."""
        assert self._sums is not None
        return self._sums

    def agreement(self, grad_W_hh: Tensor, magnitude: float) -> Agreement:
        """How well the sum over all losses agrees with what autograd says of the sum of all losses."""
        weight = self._weight.weight
        (expected,) = torch.autograd.grad(self._passes.total(), weight, retain_graph=True)
        return compared(grad_W_hh, self._of_state(expected), magnitude, TOLERANCES[weight.dtype], "model")

    def _add(self, weight: WeightUses, step: int, whole: Tensor) -> None:
        """A contribution comes by: it belongs to the first window that reaches back to its step."""
        windows, whole = self._passes.windows, self._of_state(whole)
        if not windows:
            return
        if self._sums is None:
            self._sums = torch.zeros(len(windows), *whole.shape, dtype=torch.float64, device=whole.device)
        place = bisect_right(windows, self._k - step)
        # Behind the last window nobody asks.
        if place < len(windows):
            self._sums[place] += whole

    def _of_state(self, whole: Tensor) -> Tensor:
        """The columns that multiply the state, of a tensor in the shape of the weight."""
        columns = self._weight.state_columns
        return whole if columns is None else whole.index_select(self._weight.column_axis, columns.index)
