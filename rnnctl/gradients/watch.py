"""Probe every n-th step of a training loop, and append what it shows to a file."""

import signal
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnctl.errors import InputError, RnnctlError
from rnnctl.files.runs import RunWriter
from rnnctl.files.signals import put_off
from rnnctl.gradients.probe import Probing
from rnnctl.gradients.probed import probed
from rnnctl.gradients.trace import ProbedWeight
from rnnctl.models.calls import reached
from rnnctl.models.hooks import hooked
from rnnctl.models.modules import (
    Found,
    none_found,
    recurrent_modules,
    require_no_linear,
    weight_names,
    why_compiled,
)
from rnnctl.models.recording import Calls
from rnnctl.models.tape.block import Block, is_nested
from rnnctl.models.tape.passes import End, Pass, backward_passes


@contextmanager
def watch(
    model: nn.Module,
    *,
    every: int = 100,
    to: str | Path,
    only: str | None = None,
    linear: object = None,
) -> Iterator["Watch"]:
    """Probe every n-th training step within the block, one line of JSON for each recurrent weight.

    A training step is one backward pass that brings something to a weight of a recurrent module: with gradient
    accumulation every micro-batch is one, and norms are of gradients as they arrive, so scaled where a ``GradScaler``
    scales the loss. Calls under ``torch.no_grad`` count for nothing, nor do gradients of an input alone (saliency,
    adversarial examples), nor what other threads run and what a process does that is forked within the block. The
    model is trained to the same numbers as without; between probed steps it carries one hook a module. Where the file
    cannot be written any more training goes on, and ``notes`` says what is lost.

    Args:
        model: any module.
        every: how many steps from one probed step to the next; step 0 is probed.
        to: a file of JSON lines; one that is there already is continued, as a run of its own. Of
            several processes let one watch.
        only: a pattern of module or weight names, such as "decoder.*".
        linear: gone; an InputError says what to write instead.
    Yields:
        A ``Watch`` that counts the steps, and notes what the file lacks.
    Raises:
        InputError: nothing recurrent, or something that cannot be seen into; a place that cannot be
            written; on leaving, that no backward pass came through the model.
    Source: Werbos 1990, "Backpropagation through time".
    """
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise InputError(f"every must be a whole number of steps from 1 up; got {every!r}")
    if not isinstance(to, (str, Path)):
        raise InputError(f"to must be a path, as text or a Path; got {to!r}")
    require_no_linear(linear)
    found = recurrent_modules(model, only)
    _require_watchable(model, found)
    writer = RunWriter(Path(to))
    watching = Watch(model, found, only, every, writer)
    try:
        watching._attach()
        yield watching
        watching._require_steps()
    finally:
        # As of ``probe``.
        with put_off(signal.SIGINT):
            watching._end()


def _require_watchable(model: nn.Module, found: Sequence[Found]) -> None:
    """Raise InputError for what is known before training to show nothing."""
    compiled = why_compiled(model)
    if compiled is not None:
        raise InputError(compiled)
    if not found and type(model).__module__.startswith("torch.nn.") and not any(True for _ in model.children()):
        raise InputError(f"{none_found(model)}. Give the model that calls it at every step")


class Watch:
    """How far ``watch`` has come.

    Attributes:
        steps: backward passes seen so far.
        probed: how many of them were probed.
        notes: what was lost of them, and why; empty where nothing was.
    """

    def __init__(
        self, model: nn.Module, found: Sequence[Found], only: str | None, every: int, writer: RunWriter
    ) -> None:
        self.steps = 0
        self.probed = 0
        self.notes: tuple[str, ...] = ()
        self._model, self._found, self._only, self._every, self._writer = model, found, only, every, writer
        self._block = Block([model])
        self._hooks: ExitStack | None = None
        self._probing: Probing | None = None
        self._pass: weakref.ref[_End] | None = None
        # Whether the pass that runs has come by a module that is watched, or by a weight found in the graph.
        self._reached = False
        self._touched: Tensor | None = None
        # Of the modules, as they were last called: functional_call puts others in their place.
        self._weights = weakref.WeakValueDictionary[int, Tensor]()

    def _attach(self) -> None:
        self._hooks = ExitStack()
        for each in self._found:
            self._hooks.enter_context(hooked(each.module, self._listener(), block=self._block))
        # Before the probes: who listens first is told last that a pass is over.
        self._hooks.enter_context(backward_passes(self._passes, self._block))
        self._arm()

    def _detach(self) -> None:
        hooks, self._hooks = self._hooks, None
        if hooks is not None:
            hooks.close()
        self._disarm()

    def _arm(self) -> None:
        self._probing = Probing(self._model, self._only, block=self._block)
        self._probing.attach()

    def _disarm(self) -> Probing | None:
        probing, self._probing = self._probing, None
        if probing is not None:
            probing.detach()
        return probing

    def _end(self) -> None:
        self._detach()
        try:
            self._writer.close()
        except RnnctlError as error:
            self._lose(f"rnnctl.watch lost lines: {error}")

    def _passes(self, begun: Pass) -> tuple[End, bool] | None:
        if not self._writer.is_ours:
            self.notes = ("the process was forked within the block: its steps are not in the file of its parent",)
            self._detach()
            return None
        return None if is_nested() else (lambda done: self._over(begun, done), False)

    def _listener(self) -> Callable[..., None]:
        made: weakref.ref[Tensor] | None = None

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
            nonlocal made
            given = _state(args[1]) if len(args) > 1 else None
            # Of the steps of a cell the first will do: a gradient at a later one comes by there as well.
            if given is None or made is None or given is not made() or not given.requires_grad:
                self._weights.update((id(weight), weight) for weight in module.parameters())
                self._called(result)
            after = _state(result)
            made = None if after is None else weakref.ref(after)

        return hook

    def _called(self, result: Any) -> None:
        """A module returned: ask to be told when a backward pass comes by."""
        nodes = {id(node): node for node in map(_made_by, _tensors(result)) if node is not None}
        for node in nodes.values():
            node.register_prehook(self._notice)
        # Run again by torch's checkpoints, whose own backward pass is only a part of this one.
        if nodes and torch._C._current_graph_task_id() != -1:
            self._notice()

    def _notice(self, grads: Any = None) -> None:
        """A backward pass is here: be called at its end, once."""
        if self._hooks is not None and self._pass is None:
            end = _End(self)
            # A pass that fails never ends, but lets go of what it was to call.
            self._pass = weakref.ref(end, self._failed)
            torch.autograd.Variable._execution_engine.queue_callback(end)

    def _failed(self, ended: "weakref.ref[_End]") -> None:
        """What such a pass left behind belongs to no step."""
        if ended is self._pass:
            self._pass = None
            if self._disarm() is not None:
                self._arm()

    def _ended(self) -> None:
        self._pass = None
        self._reached = True

    def _over(self, begun: Pass, done: bool) -> None:
        """A backward pass is over."""
        probing = self._probing
        in_graph = probing is not None and bool(probing.tape.found or probing.tape.missing)
        reached, self._reached = (self._reached and begun.brings_to(self._weights.values())) or in_graph, False
        if not (done and reached):
            return
        step, self.steps = self.steps, self.steps + 1
        # Else it came through calls of before the recording began: the next one will do.
        if probing is not None and (in_graph or any(_took_part(calls) for calls in probing.recording.calls)):
            self._disarm()
            self._touch(probing)
            self._write(step, _records(step, probing))
        if self._probing is None and self._hooks is not None and self.steps % self._every == 0:
            self._arm_again()

    def _arm_again(self) -> None:
        try:
            self._arm()
        except Exception as error:
            # The model is another one by now: no reason to end the backward pass in which that is noticed.
            self._stop(f"{type(error).__name__}: {error}", self.steps)

    def _touch(self, probing: Probing) -> None:
        """Where no module is known, a weight that was found tells of the passes to come."""
        if self._found or self._touched is not None or self._hooks is None or not probing.tape.found:
            return
        self._touched = touched = probing.tape.found[0].parameter
        self._weights[id(touched)] = touched

        def reached(grad: Tensor) -> None:
            self._reached = True

        self._hooks.callback(self._touched.register_hook(reached).remove)  # type: ignore[no-untyped-call]

    def _write(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        try:
            self._writer.append(records)
            self.probed += 1
        except RnnctlError as error:
            self._stop(str(error), step)

    def _stop(self, why: str, step: int) -> None:
        self._detach()
        self._lose(f"rnnctl.watch ends here: {why}; training step {step} and those after it are not in the file")

    def _lose(self, said: str) -> None:
        self.notes = (*self.notes, said)
        # Not raised, nor where warnings are errors: a full disk is no reason to lose a training run.
        with suppress(RuntimeWarning):
            warnings.warn(said, RuntimeWarning, stacklevel=2)

    def _require_steps(self) -> None:
        if self.steps == 0 and self._probing is not None and self._writer.is_ours:
            results, missing = self._probing.results()
            if results:
                names = ", ".join(results)
                raise InputError(
                    f"no training step was seen: the passes brought nothing to {names}, or to any weight of the same "
                    "module (requires_grad=False)"
                )
            raise InputError(f"no training step was seen; {self._probing.why_nothing(missing)}")


class _End:
    """What a backward pass calls at its end."""

    def __init__(self, watching: Watch) -> None:
        self._watching = watching

    def __call__(self) -> None:
        self._watching._ended()


def _state(value: Any) -> Tensor | None:
    """h of what a cell takes or returns: h, or h and c."""
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, Tensor) else None


def _tensors(result: Any) -> Iterator[Tensor]:
    """Those that a recurrent module returned."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, PackedSequence):
        yield result.data
    elif isinstance(result, tuple):
        for part in result:
            yield from _tensors(part)


def _made_by(tensor: Tensor) -> Any:
    """The node of the graph that made a tensor's memory: changes in place leave it where it is."""
    base = tensor._base if tensor._is_view() and tensor._base is not None else tensor
    return base.grad_fn


def _took_part(calls: Calls) -> bool:
    """Whether a module was reached by the pass, or refused to be seen into on its way there."""
    return calls.refusal is not None or any(call.received for call in (*calls.kept, *calls.repeated))


def _records(step: int, probing: Probing) -> list[Mapping[str, Any]]:
    """One for every recurrent weight that took part."""
    recording, only = probing.recording, probing.only
    recording.calls = [calls for calls in recording.calls if _took_part(calls)]
    try:
        recording.calls = [
            replace(calls, kept=reached(calls.kept, lambda call: bool(call.received))) for calls in recording.calls
        ]
        with torch.no_grad():
            results, missing = probed(recording, only, tape=probing.tape, readings=probing.readings)
    except Exception as error:
        # Whatever it is, it must not end the training step in whose backward pass it happens.
        why = f"{type(error).__name__}: {error}"
        results, missing = {}, {name: why for calls in recording.calls for name in weight_names(calls.found, only)}
    refused = [{"step": step, "weight": name, "error": why} for name, why in missing.items()]
    return [*(_record(step, result) for result in results.values()), *refused]


def _record(step: int, result: ProbedWeight) -> Mapping[str, Any]:
    return {
        "step": step,
        "weight": result.name,
        "cell": result.cell,
        "grad_norm_W_hh": result.grad_norm_W_hh.tolist(),
        "grad_norm_h": result.grad_norm_h.tolist(),
        "grad_norm_c": None if result.grad_norm_c is None else result.grad_norm_c.tolist(),
        "grad_norm_state": result.grad_norm_state.tolist(),
        "grad_norm_gates": {gate: norms.tolist() for gate, norms in result.grad_norm_gates.items()},
        "autograd_relative_error": result.autograd_relative_error,
        "agrees": result.agrees,
        "states_agree": result.states_agree,
        "read_from": result.read_from,
        "h_init_is_zero": result.h_init_is_zero,
        "steps_per_call": list(result.steps_per_call),
        "chains": len(result.steps_per_chain),
    }
