"""What a loss sends to the states of a chain of calls from outside the recurrence, read from autograd's graph."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

# A result of a node of autograd's graph: the node, and which of its results.
Place = tuple[Any, int]


class Readout:
    """The part of the graph between the losses and the states, beyond which it is not followed.

    Args:
        losses: of every step.
        states: where every h_t was made.
        others: what else the calls returned, c_t.
    Attributes:
        reads_h_alone: whether nothing but h is read, so that ``gradients`` tell all.
    """

    def __init__(self, losses: Sequence[Tensor], states: Sequence[Place], others: Sequence[Place]) -> None:
        # By their ids, which are good as long as the nodes are held.
        self._held = [*states, *others]
        self._numbers = {(id(node), result): number for number, (node, result) in enumerate(states)}
        self._others = {(id(node), result) for node, result in others}
        self._consumers: list[tuple[Any, list[tuple[int, int]]]] = []
        self.reads_h_alone = all(self._sees(node) for node in self._nodes([loss.grad_fn for loss in losses]))

    def _nodes(self, stack: list[Any]) -> list[Any]:
        """All nodes of the readout."""
        found: dict[int, Any] = {}
        while stack:
            node = stack.pop()
            if node is None or id(node) in found:
                continue
            found[id(node)] = node
            stack += [after for after, result in node.next_functions if not self._is_state(after, result)]
        return list(found.values())

    def _is_state(self, node: Any, result: int) -> bool:
        return (id(node), result) in self._numbers or (id(node), result) in self._others

    def _sees(self, node: Any) -> bool:
        """Note which states a node of the readout takes; False where it is more than h."""
        places = [(id(after), result) for after, result in node.next_functions]
        taken = [(self._numbers[key], place) for place, key in enumerate(places) if key in self._numbers]
        if taken:
            self._consumers.append((node, taken))
        return not self._others.intersection(places)

    def is_behind(self, places: Sequence[Place]) -> bool:
        """Whether any of the states lies behind what was made there, so that it goes on by another way as well."""
        if any(self._is_state(*place) for place in places):
            return True
        nodes = self._nodes([node for node, _ in places])
        return any(self._is_state(after, result) for node in nodes for after, result in node.next_functions)

    def gradients(self, loss: Tensor, parameters: Sequence[Tensor], like: Sequence[Tensor]) -> list[Tensor]:
        """dL/dh_t from outside the recurrence for every call, each of the shape of ``like``; zeros where there is none.

        Args:
            loss: a sum of the losses, shape ().
            parameters: of the model, to which the backward pass goes on; their ``.grad`` is left alone.
            like: h of every call, each (batch, hidden).
        """
        found = [torch.zeros_like(part) for part in like]
        with ExitStack() as stack:
            for node, taken in self._consumers:
                stack.callback(node.register_hook(_adding(taken, found)).remove)
            torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
        return found


def _adding(taken: Sequence[tuple[int, int]], found: list[Tensor]) -> Callable[..., None]:
    def add(grad_inputs: Sequence[Tensor | None], _: Sequence[Tensor | None]) -> None:
        for number, place in taken:
            grad = grad_inputs[place]
            if grad is not None:
                found[number] += grad.detach().reshape(found[number].shape)

    return add


def step_weights(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets of powers of two, which scale a gradient without rounding, each of shape (count,).

    Of two steps at least one set has different ones for any distance below 32 * 32 * 31 * 31 steps, since the
    periods of the two have no common divisor.
    """
    steps = torch.arange(count, device=like.device)
    # 13 and 32 have no common divisor: the 32 steps of a block get 32 powers, the next block has them shifted by 5;
    # likewise 11 and 31.
    by_32, by_31 = (13 * steps + 5 * (steps // 32)) % 32 - 16, (11 * steps + 7 * (steps // 31)) % 31 - 15
    return torch.exp2(by_32.to(like.dtype)), torch.exp2(by_31.to(like.dtype))


def each_reads_its_own(plain: Tensor, weighted: Sequence[Tensor], weights: Sequence[Tensor]) -> bool:
    """Whether the loss of every step reads the state of that step alone.

    Args:
        plain: what the sum of all losses sends to every step's state, shape (time, batch, hidden).
        weighted: the same of the sum of all losses times each of ``weights``, from ``step_weights``.
    """
    return all(_scaled_alike(plain, found, by) for found, by in zip(weighted, weights, strict=True))


def _scaled_alike(plain: Tensor, weighted: Tensor, weights: Tensor) -> bool:
    expected = plain * weights.view(-1, 1, 1)
    error, size = (torch.linalg.vector_norm(part.flatten(1), dim=1) for part in (weighted - expected, expected))
    # What two losses share differs by a factor of two at least; rounding may still differ in a product of all steps.
    return bool((error <= 64 * torch.finfo(plain.dtype).eps * size).all())
