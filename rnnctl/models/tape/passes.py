"""When a backward pass begins and ends: the only moments at which its whole graph is there to be read."""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnnctl.errors import hands_over

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
        self.listeners: list[Listener] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    @hands_over
    def run_backward(self, roots: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        # By place, as torch hands them over: gradients of the roots, whether the graph is kept and made, and more.
        grads, keeps, create_graph, inputs, *rest = args
        begun = Pass(roots, bool(keeps), bool(create_graph), inputs)
        concerned = [found for listener in list(self.listeners) if (found := listener(begun)) is not None]
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


def is_nested() -> bool:
    """Whether a backward pass is running, so that one that begins is a piece of it."""
    return torch._C._current_graph_task_id() != -1


@contextmanager
def backward_passes(listener: Listener) -> Iterator[None]:
    """Within, the listener is told of every backward pass that Python starts, by whatever name.

    Args:
        listener: must not raise; called in the thread that starts the pass.
    """
    # backward(), grad() and checkpoints all ask this one object, by a name that is torch's own: there is no public one.
    variable: Any = torch.autograd.Variable
    if not isinstance(variable._execution_engine, _Engine):
        variable._execution_engine = _Engine(variable._execution_engine)
    engine: _Engine = variable._execution_engine
    engine.listeners.append(listener)
    try:
        yield
    finally:
        engine.listeners.remove(listener)
        if not engine.listeners and variable._execution_engine is engine:
            variable._execution_engine = engine._engine


def now() -> int:
    """A moment of the forward pass: what is made from here on has at least this number."""
    moment: int = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
    return moment
