"""What the nonlinearities of a loop written by hand gave, read from autograd's graph, which keeps their results."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnnctl.models.tape.graph import Graph
from rnnctl.models.tape.operations import operation

# Those whose result autograd keeps.
KEPT = ("Sigmoid", "Tanh", "Relu")
# What changes nothing of a number's size on its way to whoever takes it.
_PASSES_ON = frozenset(("Index", "IndexSelect", "Gather", "MaskedSelect", "Cat", "Stack", "Expand"))


@dataclass(frozen=True, eq=False)
class Activation:
    """One nonlinearity of a step, at every step.

    Attributes:
        function: "Sigmoid", "Tanh" or "Relu".
        number: which of that function within a step.
        values: shape (steps, batch, units).
    """

    function: str
    number: int
    values: Tensor

    @property
    def words(self) -> str:
        """As a sentence names it."""
        return f"{self.function.lower()} {self.number + 1} of a step"


def step_activations(graph: Graph, steps: int) -> list[Activation]:
    """Those that are applied at every one of so many steps to (batch, units), in the order of a step."""
    by_shape: dict[tuple[str, tuple[int, ...]], list[Tensor]] = {}
    for node, op in zip(graph.nodes, graph.ops, strict=True):
        if op.name in KEPT and not op.is_own:
            result = node._saved_result.detach()
            if result.dim() == 2:
                by_shape.setdefault((op.name, tuple(result.shape)), []).append(result)
    repeated = {key: found for key, found in by_shape.items() if len(found) % steps == 0}
    return [each for (function, _), found in repeated.items() for each in _by_number(function, found, steps)]


def _by_number(function: str, found: Sequence[Tensor], steps: int) -> Iterator[Activation]:
    each_step = len(found) // steps
    for number in range(each_step):
        yield Activation(function, number, torch.stack(list(found[number::each_step])))


def function_behind(node: Any, place: int = 0) -> tuple[str, Any]:
    """The operation that made an input of a node, past what only rearranges it: its name and its node.

    Args:
        node: of autograd's graph, or None.
        place: which of its inputs.
    """
    inputs = () if node is None else node.next_functions
    return _made_of(inputs[place][0]) if len(inputs) > place else ("", None)


def _made_of(node: Any) -> tuple[str, Any]:
    while node is not None:
        op = operation(node.__class__)
        if not (op.rearranges or op.name in _PASSES_ON) or not node.next_functions:
            return op.name, node
        node = node.next_functions[0][0]
    return "", None


def function_of(output: Tensor) -> tuple[str, Any]:
    """The operation that made a tensor of any shape, past what only rearranges it: its name and its node."""
    return _made_of(output.grad_fn)
