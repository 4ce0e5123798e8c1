"""Whose calls and backward passes a block looks at, where several threads run a model."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import _DummyThread, current_thread, get_ident
from typing import Any

import torch
from torch import nn

# By thread, the blocks that look at the backward passes that it is within, the innermost pass last.
_PASSING: dict[int, list[Sequence["Block"]]] = {}


class Block:
    """A block that looks on: at the thread in which it is made, and at what others do on its behalf.

    The forward passes of any other thread are not looked at: autograd numbers its nodes by thread, and what two threads
    run at once is no one order of steps.

    Args:
        modules: those whose gradients it is about.
    Attributes:
        elsewhere: whether another thread called any of them.
    """

    def __init__(self, modules: Iterable[nn.Module] = ()) -> None:
        self._thread = get_ident()
        self._modules = tuple(modules)
        self._others: set[int] = set()

    @property
    def elsewhere(self) -> bool:
        """Whether another thread ran what this block looks at."""
        return bool(self._others)

    def is_here(self) -> bool:
        """Whether what runs now is this block's: in its thread, or within a backward pass that it looks at."""
        thread = get_ident()
        if thread == self._thread:
            return True
        passes = _PASSING.get(thread)
        if passes:
            return self in passes[-1]
        # Autograd's own threads, one for every other device, run hooks and checkpoints for who called it. Python did
        # not start them; one that it did start is within a pass of its own.
        theirs = isinstance(current_thread(), _DummyThread) and is_nested()
        return theirs and any(self in blocks for running in list(_PASSING.values()) for blocks in running)

    def sees_call(self) -> bool:
        """Whether a call of a module is this block's; others are noted."""
        if self.is_here():
            return True
        self._others.add(get_ident())
        return False

    def sees_pass(self, roots: Sequence[Any], others: Iterable["Block"]) -> bool:
        """Whether a backward pass that begins is this block's.

        Args:
            roots: what it starts from, tensors or edges of the graph.
            others: all that look on: a thread with one of its own is no other's.
        """
        if self.is_here():
            return True
        thread = get_ident()
        if thread in self._others or any(other._thread == thread for other in others):
            return False
        # Handed to another thread, as some do with backward alone; or it trains something else.
        leaves = {id(parameter) for module in self._modules for parameter in module.parameters()}
        return _leads_to(nodes_of(roots), leaves)


@contextmanager
def passing(blocks: Sequence[Block]) -> Iterator[None]:
    """Within, this thread runs a backward pass that these look at."""
    passes = _PASSING.setdefault(get_ident(), [])
    passes.append(blocks)
    try:
        yield
    finally:
        passes.pop()
        if not passes:
            del _PASSING[get_ident()]


def is_nested() -> bool:
    """Whether a backward pass is running, so that one that begins is a piece of it."""
    return torch._C._current_graph_task_id() != -1


def nodes_of(roots: Iterable[Any]) -> list[Any]:
    """The nodes that made tensors, or at which edges of the graph begin."""
    nodes = [root.node if hasattr(root, "node") else root.grad_fn for root in roots]
    return [node for node in nodes if node is not None]


def _leads_to(nodes: list[Any], leaves: set[int]) -> bool:
    """Whether the graph behind the nodes takes any of these leaves, by their ids."""
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if id(getattr(node, "variable", None)) in leaves:
            return True
        after = {each for each, _ in node.next_functions if each is not None} - seen
        seen |= after
        nodes += after
    return False
