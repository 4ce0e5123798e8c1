"""Flow and truncation of any model: one forward pass, and a backward pass for the loss at every step."""

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from rnnctl.errors import InputError
from rnnctl.gradients.agreement import Agreement
from rnnctl.gradients.cut import LayerStates
from rnnctl.gradients.flow import Flow
from rnnctl.gradients.probe import ProbedWeight, probed
from rnnctl.gradients.truncation import Truncation, chosen_windows
from rnnctl.memory import require_memory
from rnnctl.models.calls import LayeredCall
from rnnctl.models.modules import recurrent_modules, weight_names
from rnnctl.models.objective import Objective, backward, called
from rnnctl.models.recording import Recording

Progress = Callable[[float], None] | None


def model_flow(
    model: nn.Module,
    x: Tensor,
    *,
    target: Tensor | None = None,
    loss: str = "mse",
    only: str | None = None,
    linear: str | Sequence[str] = (),
    verify: bool = False,
    progress: Progress = None,
) -> Flow:
    """The contribution of every source step to the gradient of the loss at every step, for one weight of any model.

    Args:
        model: any module whose output is (batch, time, output); it runs once, backward T times.
        x, target, loss: as in ``flow``.
        only, linear: as in ``probe``; they must leave one recurrent weight.
        verify: compare every backward pass with autograd's gradient; the largest error is given.
        progress: called with the fraction of the backward passes that are done.
    Returns:
        A frozen ``Flow``.
    Raises:
        InputError: several weights or none; a loss step that depends on later steps (another direction).
    """
    with _Passes(model, Objective(x, target, loss, "all"), only, linear, progress) as passes:
        seq_len = passes.seq_len
        require_memory(7 * 8 * seq_len**2, f"{seq_len} x {seq_len} norms")
        norms, sensitivity = torch.zeros(2, seq_len, seq_len, dtype=torch.float64).unbind(0)
        total = _Total()
        for k, weight in passes:
            if weight is None:
                continue
            _require_past(weight, k, seq_len)
            norms[k], sensitivity[k] = weight.grad_norm_W_hh, weight.grad_norm_h
            total.add(weight)
    log = sensitivity.log()
    return Flow(
        norms=norms,
        sensitivity=sensitivity,
        log_relative=log - log.diagonal().clone()[:, None],
        loss=passes.loss,
        grad_W_hh=total.grad_W_hh,
        agreement=total.agreement if verify else None,
        first_nonfinite_step=None,
    )


def model_truncation(
    model: nn.Module,
    x: Tensor,
    *,
    windows: Sequence[int] | None = None,
    target: Tensor | None = None,
    loss: str = "mse",
    only: str | None = None,
    linear: str | Sequence[str] = (),
    verify: bool = False,
    progress: Progress = None,
) -> Truncation:
    """The gradient that truncated BPTT would give for one weight of any model with layers of torch's.

    Every loss step sees the last K steps, the states before them detached in all layers.

    Args:
        windows: as in ``truncation``.
        model, x, target, loss, only, linear, verify, progress: as in ``model_flow``.
    Returns:
        A frozen ``Truncation``.
    Raises:
        InputError: as ``model_flow``; a cell in a loop of the user's own, which only that loop can cut.
    """
    with _Passes(model, Objective(x, target, loss, "all"), only, linear, progress) as passes:
        chosen = chosen_windows(windows, passes.seq_len)
        states, index = LayerStates.of(passes.layered_call()), passes.index
        gradients: Tensor | None = None
        total = _Total()
        for k, weight in passes:
            if weight is None:
                continue
            _require_past(weight, k, passes.seq_len)
            total.add(weight)
            found = torch.stack([_within(states, index, k, window, weight) for window in chosen])
            gradients = found if gradients is None else gradients + found
    if gradients is None:
        raise InputError(f"the loss of no step reaches {passes.name}")
    return Truncation(chosen, gradients, passes.loss, total.agreement if verify else None, None)


def _within(states: LayerStates, index: int, k: int, window: int, full: ProbedWeight) -> Tensor:
    """dL_k/dW_hh of the last ``window`` steps alone."""
    return full.grad_W_hh if window > k else states.gradient(k + 1 - window, k + 1, index)


def _require_past(weight: ProbedWeight, k: int, seq_len: int) -> None:
    if k + 1 < seq_len and bool(weight.grad_norm_h[k + 1 :].nan_to_num().any()):
        raise InputError(
            f"the loss at step {k} depends on later steps of {weight.name} (a reverse direction?); flow and truncation "
            "ask how far back the past reaches. gradnorm takes any model"
        )


class _Total:
    """The sum over all loss steps, and how well autograd agreed with each."""

    def __init__(self) -> None:
        self._grad_W_hh: Tensor | None = None
        self._errors = [0.0]
        self._agree = True
        self._tolerance = 0.0

    def add(self, weight: ProbedWeight) -> None:
        self._grad_W_hh = weight.grad_W_hh if self._grad_W_hh is None else self._grad_W_hh + weight.grad_W_hh
        if weight.autograd_relative_error is not None:
            self._errors.append(weight.autograd_relative_error)
        self._agree &= weight.agrees is not False and weight.states_agree
        self._tolerance = weight.autograd_tolerance

    @property
    def grad_W_hh(self) -> Tensor:
        if self._grad_W_hh is None:
            raise InputError("the loss of no step reaches the weight")
        return self._grad_W_hh

    @property
    def agreement(self) -> Agreement:
        """The largest relative error of all loss steps."""
        return Agreement(max(self._errors), self._tolerance, self._agree, "model")


class _Passes:
    """One forward pass with hooks on, and a backward pass for each loss step.

    Iterating gives k and what the loss at step k did to the weight, or None where it does not reach it.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, only: str | None, linear: str | Sequence[str], progress: Progress
    ) -> None:
        self._model, self._objective, self._only, self._progress = model, objective, only, progress
        linear = (linear,) if isinstance(linear, str) else tuple(linear)
        self._recording = Recording(recurrent_modules(model, only, linear))
        names = [name for calls in self._recording.calls for name in weight_names(calls.found, only)]
        if len(names) != 1:
            raise InputError(f"flow and truncation follow one weight; pick one with --module of {', '.join(names)}")
        self.name, self.loss = names[0], 0.0
        self._losses: list[Tensor] = []

    def __enter__(self) -> "_Passes":
        try:
            self._recording.attach()
            with torch.enable_grad():
                output = called(self._model, self._objective.x, None)
                self._losses = self._objective.at_every_step(output)
        except BaseException:
            self._recording.detach()
            raise
        self.loss = float(torch.stack([loss.detach() for loss in self._losses]).sum())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._recording.detach()

    @property
    def seq_len(self) -> int:
        """T."""
        return len(self._losses)

    @property
    def index(self) -> int:
        """Which of its module's weights it is."""
        found = self._calls.found
        return [found.full(weight) for weight in found.weights].index(self.name)

    def layered_call(self) -> LayeredCall:
        """The only call of a layer of torch's, or InputError for anything else."""
        kept = self._calls.kept
        call = kept[0] if len(kept) == 1 else None
        if not isinstance(call, LayeredCall) or call.batch_sizes is not None or call.module.bidirectional:
            raise InputError(
                f"truncation cuts nn.RNN, nn.GRU and nn.LSTM in one direction, called once with a plain tensor; "
                f"{self.name} was called {len(kept)} times. A loop of your own is cut by h.detach()"
            )
        return call

    def __iter__(self) -> Iterator[tuple[int, ProbedWeight | None]]:
        for k, loss in enumerate(self._losses):
            self._recording.forget_gradients()
            backward(loss, self._model, again=k + 1 < self.seq_len)
            yield k, self._found()
            if self._progress is not None:
                self._progress((k + 1) / self.seq_len)

    @property
    def _calls(self) -> Any:
        return next(c for c in self._recording.calls if self.name in weight_names(c.found, self._only))

    def _found(self) -> ProbedWeight | None:
        if not any(call.received for call in self._calls.kept):
            return None
        results, missing = probed(self._recording, self._only)
        if self.name not in results:
            raise InputError(f"{self.name}: {missing[self.name]}")
        weight = results[self.name]
        if len(weight.grad_norm_W_hh) != self.seq_len:
            raise InputError(
                f"{self.name} ran {len(weight.grad_norm_W_hh)} steps; the output has {self.seq_len}. They must be one "
                "to one"
            )
        return weight
