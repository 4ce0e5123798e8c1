"""What backward sends into the recurrent weights of a layer that torch unrolls, read from autograd as it passes by."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial, reduce

import torch
from torch import Tensor

from rnnctl.gradients.contributions import step_norms
from rnnctl.gradients.decay import entry
from rnnctl.gradients.layer_calls import AUTOGRAD, StepNorms
from rnnctl.gradients.norm_book import NormBook, RowsBook, widest
from rnnctl.models.arriving_gradients import Received
from rnnctl.models.calls import LayeredCall
from rnnctl.models.modules import directions
from rnnctl.models.recording import Calls
from rnnctl.models.sequences import ordered, row_of
from rnnctl.models.tape.block import Block, is_nested
from rnnctl.models.tape.passes import End, Pass, Pause, backward_passes
from rnnctl.models.unrolled import Unrolled, unrolled

# Reading costs two hooks a step and two looks at every number of G_t, a sweep the products that form it: it is cheaper
# from so many multiply-adds a step on. Microseconds a step on one thread, reading / sweep: nn.RNN B 4, H 512 169 / 155;
# B 16, H 128 59 / 62; B 32, H 128 73 / 108; B 32, H 256 109 / 269; B 128, H 64 68 / 127; nn.GRU B 4, H 256 133 / 134;
# B 16, H 64 99 / 86; B 16, H 128 122 / 174; B 32, H 256 280 / 1142.
LEAST_WORK = 500_000
# Of so few sequences the norms come of the sweep's own factors, and no G_t is formed.
FEW_SEQUENCES = 4
# A norm of so many times the smallest normal number has all digits: what was lost to underflow is nothing beside it.
SURELY_NORMAL = 1e8

Grads = Sequence[Tensor | None]


class LayerReadings:
    """Hooks on the graphs of calls that torch unrolled, from ``attach`` to ``detach``.

    Args:
        modules: their calls.
        block: whose passes.
    Attributes:
        bug: an error of ours that was kept from the user's pass, and for which the calls are swept.
    """

    def __init__(self, modules: Sequence[Calls], block: Block) -> None:
        self.bug: Exception | None = None
        self._modules, self._block = modules, block
        self._read: dict[Received, _CallReading | None] = {}
        self._hooks = ExitStack()

    def attach(self) -> None:
        """Begin."""
        self._hooks.enter_context(backward_passes(self._passes, self._block))

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
        found = []
        for call in calls:
            reading = self._read.get(call.received)
            # Of states that go round from call to call it is not known here what comes from outside.
            norms = None if reading is None or _is_linked(call) else reading.norms(call)
            if norms is None:
                return None
            found.append(norms)
        return found

    @property
    def _readings(self) -> list["_CallReading"]:
        return [reading for reading in self._read.values() if reading is not None]

    def _passes(self, begun: Pass) -> tuple[End, bool] | None:
        """A backward pass begins: the last moment at which the graph of a call is there for certain."""
        if is_nested():
            return None
        pause = Pause()
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
        if not self._readings:
            pause.end()
        return lambda done: self._end(done and not narrow, pause), False

    def _end(self, done: bool, pause: Pause) -> None:
        for reading in self._readings:
            reading.end(done)
            self.bug = self.bug or reading.bug
        pause.end()


class _CallReading:
    """Hooks on the graph of one call."""

    def __init__(self, call: LayeredCall, layers: Sequence[Unrolled]) -> None:
        count = directions(call.module)
        self._layers = [
            _LayerReading(layer, call.kind.blocks, reverse=bool(number % count)) for number, layer in enumerate(layers)
        ]

    @property
    def bug(self) -> Exception | None:
        """An error within a hook."""
        return next((layer.bug for layer in self._layers if layer.bug is not None), None)

    def end(self, done: bool) -> None:
        """A pass is over; or has failed, or was too narrow."""
        for layer in self._layers:
            layer.end(done)

    def norms(self, call: LayeredCall) -> list[StepNorms] | None:
        """Of every layer and direction; None where not all of them have been read, whole and once."""
        found = []
        for number, layer in enumerate(self._layers):
            norms = layer.norms(row_of(call, "h_n", number))
            if norms is None:
                return None
            found.append(norms)
        return found

    def detach(self) -> None:
        """Take the hooks away."""
        for layer in self._layers:
            layer.detach()


class _LayerReading:
    """Hooks on the nodes of one layer in one direction, which keep no node alive."""

    def __init__(self, layer: Unrolled, blocks: int, *, reverse: bool) -> None:
        self.bug: Exception | None = None
        self._steps, self._blocks, self._reverse = len(layer.states), blocks, reverse
        self._sent, self._arrived = RowsBook(blocks), NormBook()
        self._reached: set[int] = set()
        # What is sent to all states from above, and the last of it, which h_n adds to.
        self._direct: Tensor | None = None
        self._last: Tensor | None = None
        self._spoiled = False
        self._handles = [layer.stack.register_prehook(self._from_above)]
        for step, (weight, state) in enumerate(zip(layer.weights, layer.states, strict=True)):
            self._handles.append(weight.register_prehook(partial(self._to_weight, step)))
            self._handles.append(state.register_prehook(partial(self._to_state, step)))

    def end(self, done: bool) -> None:
        """A pass is over."""
        try:
            self._arrived.settle()
            self._sent.settle()
        except Exception as error:
            self._fail(error)
        self._spoiled |= not done and bool(self._reached or self._sent.steps)

    def detach(self) -> None:
        """Take the hooks away."""
        while self._handles:
            self._handles.pop().remove()

    def norms(self, at_end: Tensor | None) -> StepNorms | None:
        """Steps in the order of the sequence; None where more than one pass has gone by, or digits were lost.

        Args:
            at_end: what came to the last state through h_n, shape (batch, hidden), or None.
        """
        if self._spoiled or self._sent.is_lost or not self._reached or self._reached != self._sent.steps:
            return None
        assert self._sent.total is not None
        nothing, steps = [0.0] * self._blocks, range(self._steps)
        gates = torch.tensor([self._sent.norms.get(t, nothing) for t in steps], dtype=torch.float64)
        arrived = torch.tensor([self._arrived.norms.get(t, 0.0) for t in steps], dtype=torch.float64)
        direct = self._direct_norms(at_end)
        if not _has_all_digits(gates, arrived, direct, self._sent.total.dtype):
            return None
        gates, arrived, direct = (ordered(part, self._reverse) for part in (gates, arrived, direct))
        norms = reduce(torch.hypot, gates.unbind(1))
        return StepNorms(
            grad_norm_W_hh=norms,
            grad_norm_gates=gates,
            grad_norm_h=arrived,
            grad_norm_h_direct=direct,
            grad_norm_c=None,
            grad_norm_c_direct=torch.zeros_like(norms),
            grad_W_hh=self._sent.total.to(widest(self._sent.total)),
            magnitude=float(norms.sum()),
            recovered_error=None,
            decay=None,
            padded=None,
            # No product of it is made once more, to be rounded in other ways.
            largest_input=0.0,
            seen=None,
            read_from=AUTOGRAD,
        )

    def _direct_norms(self, at_end: Tensor | None) -> Tensor:
        """In the order of the recurrence."""
        direct = torch.zeros(self._steps, dtype=torch.float64) if self._direct is None else self._direct.clone()
        if at_end is not None:
            whole = at_end if self._last is None else at_end + self._last
            direct[-1] = step_norms(whole.unsqueeze(0))[0]
        return direct

    def _to_weight(self, step: int, grads: Grads) -> None:
        (grad,) = grads
        # With create_graph it is itself to be differentiated: nothing is asked of it.
        if grad is None or torch.is_grad_enabled():
            return
        try:
            # It enters transposed. Of a first state that is 0 it is exactly 0.
            self._sent.add(step, grad.t(), at_once=step == 0)
        except Exception as error:
            self._fail(error)

    def _to_state(self, step: int, grads: Grads) -> None:
        (grad,) = grads
        if grad is None or torch.is_grad_enabled():
            return
        try:
            if step in self._reached:
                # Of two passes the norm of the sum is asked for, and the first contribution is gone.
                self._spoiled = True
            self._reached.add(step)
            self._arrived.add(step, grad)
        except Exception as error:
            self._fail(error)

    def _from_above(self, grads: Grads) -> None:
        (grad,) = grads
        if grad is None or torch.is_grad_enabled():
            return
        try:
            steps = ordered(grad, self._reverse)
            self._direct, self._last = step_norms(steps), steps[-1].clone()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.bug, self._spoiled = error, True


def _read(call: LayeredCall) -> _CallReading | None:
    """Hooks on a call of which reading is cheaper than sweeping; None for others."""
    batch, units = call.h_n.shape[1:]
    work = (batch - FEW_SEQUENCES) * units * units * call.kind.blocks
    if work < LEAST_WORK or not _is_precise(call.output) or _is_changed(call):
        return None
    layers = unrolled(call)
    return None if layers is None else _CallReading(call, layers)


def _is_changed(call: LayeredCall) -> bool:
    """Whether a weight is not what it was at the call, past its version counter: the sweep knows what it was."""
    pairs = zip(call.parameters, call.weights, strict=True)
    return any(not torch.equal(now.detach(), then.W_hh) for now, then in pairs)


def _has_all_digits(gates: Tensor, arrived: Tensor, direct: Tensor, dtype: torch.dtype) -> bool:
    """Whether nothing was lost to underflow or overflow, which a sweep, scaling what it carries, has numbers for.

    Args:
        gates: norms of the contributions, shape (time, gates), in the order of the recurrence.
        arrived, direct: of what came to the states, in all and from outside, shape (time,).
        dtype: in which autograd formed them.
    """
    last = entry(direct)
    # Nothing is to come after the last step that anything enters, nor of a first state that is 0.
    first = 0 if bool(gates[0].any()) else 1
    inner = torch.cat([arrived[: last + 1], gates[first : last + 1].flatten()])
    least = SURELY_NORMAL * torch.finfo(dtype).smallest_normal
    rest = bool(arrived[last + 1 :].any()) or bool(gates[last + 1 :].any())
    return not rest and bool(((inner > least) & (inner < math.inf)).all())


def _is_precise(output: Tensor) -> bool:
    """Whether autograd's own gradients are as precise as those of a sweep, of which one reads them without waiting."""
    return output.device.type == "cpu" and output.dtype in (torch.float32, torch.float64)


def _is_linked(call: LayeredCall) -> bool:
    """Whether its state was made from that of another call of the module."""
    return call.source is not None or call.derived is not None or call.received.outside is not None
