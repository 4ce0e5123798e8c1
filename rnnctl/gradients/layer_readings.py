"""What backward sends into the recurrent weights of a layer that torch unrolls, read from autograd as it passes by."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from rnnctl.gradients.contributions import step_norms
from rnnctl.gradients.layer_calls import AUTOGRAD, StepNorms
from rnnctl.gradients.norm_book import NormBook, RowsBook, widest
from rnnctl.models.arriving_gradients import Received
from rnnctl.models.calls import LayeredCall
from rnnctl.models.modules import directions
from rnnctl.models.recording import Calls
from rnnctl.models.sequences import row_of
from rnnctl.models.tape.passes import End, Pass, backward_passes, is_nested
from rnnctl.models.unrolled import Unrolled, unrolled

# From so many multiply-adds a step on, the norm of what autograd has formed costs less than to form it anew.
LEAST_WORK = 1_000_000
# A norm of so many times the smallest normal number has all digits: what was lost to underflow is nothing beside it.
FEWEST_DIGITS = 1e8

Grads = Sequence[Tensor | None]


class LayerReadings:
    """Hooks on the graphs of calls that torch unrolled, from ``attach`` to ``detach``.

    Args:
        modules: their calls.
    Attributes:
        bug: an error of ours that was kept from the user's pass, and for which the calls are swept.
    """

    def __init__(self, modules: Sequence[Calls]) -> None:
        self.bug: Exception | None = None
        self._modules = modules
        self._read: dict[Received, _CallReading | None] = {}
        self._hooks = ExitStack()

    def attach(self) -> None:
        """Begin."""
        self._hooks.enter_context(backward_passes(self._passes))

    def detach(self) -> None:
        """End."""
        self._hooks.close()
        for reading in self._readings:
            reading.detach()

    def norms(self, calls: Sequence[LayeredCall]) -> list[list[StepNorms]] | None:
        """By call and weight; None where not all of them have been read, whole and once.

        Args:
            calls: all of a module that count.
        """
        readings = [self._read.get(call.received) for call in calls]
        known = [(reading, call) for reading, call in zip(readings, calls, strict=True) if reading is not None]
        if len(known) < len(calls) or not all(call.received and reading.is_whole for reading, call in known):
            return None
        # Of states that go round from call to call it is not known here what comes from outside.
        if any(_is_linked(call) for call in calls):
            return None
        return [reading.norms(call) for reading, call in known]

    @property
    def _readings(self) -> list["_CallReading"]:
        return [reading for reading in self._read.values() if reading is not None]

    def _passes(self, begun: Pass) -> tuple[End, bool] | None:
        """A backward pass begins: the last moment at which the graph of a call is there for certain."""
        if is_nested():
            return None
        try:
            for calls in self._modules:
                for call in calls.kept:
                    if isinstance(call, LayeredCall) and call.received not in self._read:
                        self._read[call.received] = _read(call)
        except Exception as error:
            # Whatever it is, it must not end the user's backward pass.
            self.bug = error
        # A backward pass under autocast rounds its products, which the sweep does not.
        narrow = torch.is_autocast_enabled("cpu")
        return lambda done: self._end(done and not narrow), False

    def _end(self, done: bool) -> None:
        for reading in self._readings:
            reading.end(done)
            self.bug = self.bug or reading.bug


class _CallReading:
    """Hooks on the graph of one call."""

    def __init__(self, call: LayeredCall, layers: Sequence[Unrolled]) -> None:
        count = directions(call.module)
        self._layers = [
            _LayerReading(layer, call.kind.blocks, reverse=bool(number % count)) for number, layer in enumerate(layers)
        ]

    @property
    def is_whole(self) -> bool:
        """Whether one backward pass has gone by, which brought all its weights their gradients."""
        return all(layer.is_whole for layer in self._layers)

    @property
    def bug(self) -> Exception | None:
        """An error within a hook."""
        return next((layer.bug for layer in self._layers if layer.bug is not None), None)

    def end(self, done: bool) -> None:
        """A pass is over; or has failed, or was too narrow."""
        for layer in self._layers:
            layer.end(done)

    def norms(self, call: LayeredCall) -> list[StepNorms]:
        """Of every layer and direction."""
        largest_input = float(call.x.abs().max())
        return [layer.norms(row_of(call, "h_n", number), largest_input) for number, layer in enumerate(self._layers)]

    def detach(self) -> None:
        """Take the hooks away."""
        for layer in self._layers:
            layer.detach()


class _LayerReading:
    """Hooks on the nodes of one layer in one direction, which keep no node alive."""

    def __init__(self, layer: Unrolled, blocks: int, *, reverse: bool) -> None:
        self.bug: Exception | None = None
        self._steps, self._weight, self._blocks, self._reverse = len(layer.uses), layer.weight, blocks, reverse
        self._sent, self._arrived = RowsBook(blocks), NormBook()
        self._reached: set[int] = set()
        # What is sent to all states from above, and the last of it, which h_n adds to.
        self._direct: Tensor | None = None
        self._last: Tensor | None = None
        self._spoiled = False
        self._handles = [layer.stack.register_prehook(self._from_above)]
        for step, (use, state) in enumerate(zip(layer.uses, layer.states, strict=True)):
            self._handles.append(use.register_hook(partial(self._to_weight, step)))
            self._handles.append(state.register_prehook(partial(self._to_state, step)))

    @property
    def is_whole(self) -> bool:
        """As of ``_CallReading``; a step that nothing came to is none of them."""
        if self._spoiled or not self._reached or self._reached != self._sent.norms.keys():
            return False
        # The sweep scales what it carries: it has numbers where those of autograd are none, or have lost digits.
        assert self._sent.total is not None
        least = FEWEST_DIGITS * torch.finfo(self._sent.total.dtype).smallest_normal
        sent = (norm for t, gates in self._sent.norms.items() if t != self._first or any(gates) for norm in gates)
        return all(least < norm < math.inf for norm in (*self._arrived.norms.values(), *sent))

    def end(self, done: bool) -> None:
        """A pass is over."""
        try:
            self._arrived.settle()
        except Exception as error:
            self._fail(error)
        self._spoiled |= not done and bool(self._reached or self._sent.norms)

    def detach(self) -> None:
        """Take the hooks away."""
        while self._handles:
            self._handles.pop().remove()

    def norms(self, at_end: Tensor | None, largest_input: float) -> StepNorms:
        """Steps in the order of the sequence.

        Args:
            at_end: what came to the last state through h_n, shape (batch, hidden), or None.
        """
        assert self._sent.total is not None
        nothing = [0.0] * self._blocks
        gates = torch.tensor([self._sent.norms.get(t, nothing) for t in range(self._steps)], dtype=torch.float64)
        norms = reduce(torch.hypot, gates.unbind(1))
        arrived = [self._arrived.norms.get(t, 0.0) for t in range(self._steps)]
        return StepNorms(
            grad_norm_W_hh=norms,
            grad_norm_gates=gates,
            grad_norm_h=torch.tensor(arrived, dtype=torch.float64),
            grad_norm_h_direct=self._direct_norms(at_end),
            grad_norm_c=None,
            grad_norm_c_direct=torch.zeros_like(norms),
            grad_W_hh=self._sent.total.to(widest(self._sent.total)),
            magnitude=float(norms.sum()),
            recovered_error=None,
            decay=None,
            padded=None,
            largest_input=largest_input,
            seen=None,
            read_from=AUTOGRAD,
        )

    def _direct_norms(self, at_end: Tensor | None) -> Tensor:
        direct = torch.zeros(self._steps, dtype=torch.float64) if self._direct is None else self._direct.clone()
        if at_end is not None:
            whole = at_end if self._last is None else at_end + self._last
            direct[self._end] = step_norms(whole.unsqueeze(0))[0]
        return direct

    @property
    def _first(self) -> int:
        """The first step of the recurrence, whose contribution is 0 where h_init is."""
        return self._steps - 1 if self._reverse else 0

    @property
    def _end(self) -> int:
        """The last step of the recurrence: the first of the sequence where it runs in reverse."""
        return 0 if self._reverse else self._steps - 1

    def _to_weight(self, step: int, grads: Grads, _: Any) -> None:
        grad = grads[self._weight]
        # With create_graph it is itself to be differentiated: nothing is asked of it.
        if grad is None or torch.is_grad_enabled():
            return
        try:
            self._spoiled |= step in self._sent.norms
            # It enters transposed.
            self._sent.add(step, grad.t())
        except Exception as error:
            self._fail(error)

    def _to_state(self, step: int, grads: Grads) -> None:
        (grad,) = grads
        if grad is None or torch.is_grad_enabled():
            return
        try:
            self._spoiled |= step in self._reached
            self._reached.add(step)
            self._arrived.add(step, grad)
        except Exception as error:
            self._fail(error)

    def _from_above(self, grads: Grads) -> None:
        (grad,) = grads
        if grad is None or torch.is_grad_enabled():
            return
        try:
            self._spoiled |= self._direct is not None
            self._direct, self._last = step_norms(grad), grad[self._end].clone()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.bug, self._spoiled = error, True


def _read(call: LayeredCall) -> _CallReading | None:
    """Hooks on a call of which reading is cheaper than sweeping; None for others."""
    batch, units = call.h_n.shape[1:]
    work = batch * units * units * call.kind.blocks
    if work < LEAST_WORK or not _is_precise(call.output) or _is_linked(call):
        return None
    layers = unrolled(call)
    return None if layers is None else _CallReading(call, layers)


def _is_precise(output: Tensor) -> bool:
    """Whether autograd's own gradients are as precise as those of a sweep, of which one reads them without waiting."""
    return output.device.type == "cpu" and output.dtype in (torch.float32, torch.float64)


def _is_linked(call: LayeredCall) -> bool:
    """Whether its state was made from that of another call of the module."""
    return call.source is not None or call.derived is not None or call.received.outside is not None
