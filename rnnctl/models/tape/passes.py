"""When a backward pass begins and ends: the only moments at which its whole graph is there to be read."""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from rnnctl.errors import hands_over
from rnnctl.models.tape.block import Block, passing

# Called after a pass with whether it came to its end, or failed.
End = Callable[[bool], None]


@dataclass(frozen=True, eq=False)
class Pass:
    """A backward pass that is about to begin.

    Attributes:
        roots: what it starts from, tensors or edges of the graph.
        keeps: whether its graph is kept.
        creates: whether a graph is made of it, to differentiate it further.
        inputs: of which the gradient is asked for; empty for that of all leaves.
    """

    roots: Sequence[Any]
    keeps: bool
    creates: bool
    inputs: Sequence[Any]

    def brings_to(self, parameters: Iterable[Tensor]) -> bool:
        """Whether the gradient of any of them is asked for, which takes one."""
        edges = [each.node for each in self.inputs if hasattr(each, "node")]
        asked = {id(getattr(each, "variable", each)) for each in (*self.inputs, *edges)}
        return any(each.requires_grad and (not self.inputs or id(each) in asked) for each in parameters)


# Told of a pass before it begins; returns what is called after it, and whether the graph must last until then; None
# where the pass is no concern of it.
Listener = Callable[[Pass], tuple[End, bool] | None]


class _Engine:
    """Autograd's engine, which tells who listens of every backward pass, and does all else as it is."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.listeners: list[tuple[Block, Listener]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    @hands_over
    def run_backward(self, roots: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        # By place, as torch hands them over: gradients of the roots, whether the graph is kept and made, and more.
        grads, keeps, create_graph, inputs, *rest = args
        begun = Pass(roots, bool(keeps), bool(create_graph), inputs)
        listeners = list(self.listeners)
        blocks = dict.fromkeys(block for block, _ in listeners)
        seeing = [block for block in blocks if block.sees_pass(roots, blocks)]
        with passing(seeing):
            told = [listener(begun) for block, listener in listeners if block in seeing]
            concerned = [found for found in told if found is not None]
            done = False
            try:
                keeps = keeps or any(lasts for _, lasts in concerned)
                found = self._engine.run_backward(roots, grads, keeps, create_graph, inputs, *rest, **kwargs)
                done = True
                return found
            finally:
                for end, _ in reversed(concerned):
                    end(done)


class Pause:
    """Python's garbage collector rests until ``end``.

    A graph read into lists, or hooked node by node, is so many new objects that the collector would look through all of
    the process, which takes longer than the backward pass; they are let go of by themselves.
    """

    def __init__(self) -> None:
        self._was_on = gc.isenabled()
        gc.disable()

    def end(self) -> None:
        if self._was_on:
            gc.enable()


@contextmanager
def backward_passes(listener: Listener, block: Block) -> Iterator[None]:
    """Within, the listener is told of every backward pass of a block that Python starts, by whatever name.

    Args:
        listener: must not raise; called in the thread that starts the pass.
        block: whose passes.
    """
    told = block, listener
    with _SETTING:
        engine = _engine()
        engine.listeners.append(told)
    try:
        yield
    finally:
        with _SETTING:
            engine.listeners.remove(told)
            if not engine.listeners and _VARIABLE._execution_engine is engine:
                _VARIABLE._execution_engine = engine._engine


# backward(), grad() and checkpoints all ask this one object, by a name that is torch's own: there is no public one.
_VARIABLE: Any = torch.autograd.Variable
# Two threads that begin and end at once would else leave ours behind, or take away that of each other.
_SETTING = RLock()


def _engine() -> _Engine:
    if not isinstance(_VARIABLE._execution_engine, _Engine):
        _VARIABLE._execution_engine = _Engine(_VARIABLE._execution_engine)
    engine: _Engine = _VARIABLE._execution_engine
    return engine


def now() -> int:
    """A moment of the forward pass: what is made from here on has at least this number."""
    moment: int = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
    return moment
