"""The gradients that backward brings to the results of one call."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(eq=False)
class Received:
    """Gradients by what they belong to; those of several passes added up.

    Attributes:
        by_name: name -> gradient, in the shape of what was watched.
        double_backward: whether a gradient was itself to be differentiated.
        discarded: whether gradients came that were of no training step, and are not kept.
        on_gradient: called whenever one arrives.
        keeps_graph: whether ``places`` are noted, which keeps autograd's graph alive with this object.
        places: name -> the node of the graph that made what was watched, and which of its results it is.
        sites: the same until a backward pass has gone by, and ``views`` of a view its own node, not that of its memory;
            ``given`` the same of the states that the call was given, and ``fed`` of its input.
        span: the numbers of the nodes that the call made, the end excluded.
        outside: what came to what was watched past the states of all later calls of the module, by name; None where
            states are handed over as they are, or nobody asked.
        entering: of that, what came past their inputs as well; None where no input is made of what was returned.
    """

    by_name: dict[str, Tensor] = field(default_factory=dict)
    double_backward: bool = False
    discarded: bool = False
    on_gradient: Callable[[], None] = field(default=lambda: None)
    keeps_graph: bool = False
    places: dict[str, tuple[Any, int]] = field(default_factory=dict)
    sites: dict[str, tuple[Any, int]] = field(default_factory=dict)
    views: dict[str, tuple[Any, int]] = field(default_factory=dict)
    given: tuple[tuple[Any, int], ...] = ()
    fed: tuple[tuple[Any, int], ...] = ()
    span: tuple[int, int] = (0, 0)
    outside: dict[str, Tensor] | None = None
    entering: dict[str, Tensor] | None = None
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _handles: list[Any] = field(default_factory=list)
    _shapes: dict[str, "_Shape"] = field(default_factory=dict)

    def watch(self, name: str, tensor: Tensor) -> None:
        """Keep the gradient of this tensor once backward has it.

        The hook sits on the node that made the memory: it outlives changes in place, also those of a
        view, and comes after the hooks that others set on the tensor.

        Args:
            name: what it will be found by.
            tensor: of any shape, which its gradient will have.
        """
        base = _memory_of(tensor)
        node, result = base.grad_fn, base.output_nr
        if not tensor.requires_grad or node is None or (id(node), result) in self._seen:
            # Two views of one memory: its gradient holds both.
            return
        self._seen.add((id(node), result))
        self._shapes[name] = _Shape(tensor, base)
        self.note(name, tensor)
        self.sites[name] = node, result
        if tensor is not base and tensor.grad_fn is not None:
            self.views[name] = tensor.grad_fn, tensor.output_nr
        self._handles.append(node.register_prehook(lambda grads: self._take(name, grads[result])))

    def note(self, name: str, tensor: Tensor) -> None:
        """Keep where a tensor of any shape was made, if the graph is kept."""
        base = _memory_of(tensor)
        if self.keeps_graph and base.grad_fn is not None:
            self.places[name] = base.grad_fn, base.output_nr

    def came(self, into: dict[str, Tensor], name: str, grad: Tensor, *, of_view: bool) -> None:
        """Add to ``outside`` or ``entering``.

        Args:
            into: which of the two.
            name: of what was watched.
            grad: of the memory that it lies in, of its shape; or of itself.
            of_view: whether it is that.
        """
        found = grad if of_view else self._shapes[name].part_of(grad)
        into[name] = into[name] + found if name in into else found

    def taken(self) -> "Arrived":
        """What has arrived so far, which is forgotten here."""
        found = self.by_name, self.outside, self.entering
        self.by_name, self.outside, self.entering = {}, None, None
        return found

    def put_back(self, before: "Arrived", *, beside: bool) -> None:
        """What had arrived before, in place of what has since then, or beside it."""
        since = self.taken() if beside else ({}, None, None)
        self.by_name = _summed(before[0], since[0]) or {}
        self.outside, self.entering = (_summed(*parts) for parts in zip(before[1:], since[1:], strict=True))

    def forget_sites(self) -> None:
        """Let go of the graph."""
        self.sites.clear()
        self.views.clear()
        self.given = self.fed = ()

    def unwatch(self) -> None:
        """Take the hooks away."""
        self.forget_sites()
        while self._handles:
            self._handles.pop().remove()
        # A node that is held keeps the whole graph behind it alive.
        self.places.clear()

    def sent_by(self, loss: Tensor) -> "Received":
        """What a loss sends to the results, without a backward pass through what made them.

        Args:
            loss: shape (), whose graph is kept.
        """
        if not loss.requires_grad:
            return Received()
        edges = [torch.autograd.graph.GradientEdge(*place) for place in self.places.values()]
        # Asked for in the middle of a sweep, which runs in inference mode, where autograd does not.
        with torch.inference_mode(False):
            grads = torch.autograd.grad(loss, edges, retain_graph=True, allow_unused=True)
        found = {
            name: self._shapes[name].part_of(grad.detach())
            for name, grad in zip(self.places, grads, strict=False)
            if grad is not None
        }
        return Received(found)

    def _take(self, name: str, grad: Tensor | None) -> None:
        if grad is None:
            return
        # With create_graph the gradient is itself to be differentiated.
        self.double_backward |= torch.is_grad_enabled()
        found = self._shapes[name].part_of(grad.detach())
        self.by_name[name] = self.by_name[name] + found if name in self.by_name else found
        self.on_gradient()

    def __bool__(self) -> bool:
        return bool(self.by_name)


# ``by_name``, ``outside`` and ``entering`` of what was received.
Arrived = tuple[dict[str, Tensor], dict[str, Tensor] | None, dict[str, Tensor] | None]


def _summed(first: dict[str, Tensor] | None, second: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
    """By name; None where there is neither."""
    if first is None or second is None:
        return second if first is None else first
    return {**first, **{name: first[name] + part if name in first else part for name, part in second.items()}}


def _memory_of(tensor: Tensor) -> Tensor:
    """The tensor whose memory it lies in: itself, unless it is a view."""
    return tensor._base if tensor._is_view() and tensor._base is not None else tensor


class _Shape:
    """Where a tensor lies in the memory that it is a view of."""

    def __init__(self, tensor: Tensor, base: Tensor) -> None:
        self._whole = tensor is base
        self._view = tuple(tensor.shape), tensor.stride(), tensor.storage_offset() - base.storage_offset()
        self._base = tuple(base.shape), base.stride()

    def part_of(self, grad: Tensor) -> Tensor:
        """The tensor's part of the gradient of the memory."""
        if self._whole:
            return grad
        size, stride = self._base
        # Autograd brings the memory's gradient in strides of its own choice; the view's are those of the memory.
        if grad.stride() != stride:
            grad = torch.empty_strided(size, stride, dtype=grad.dtype, device=grad.device).copy_(grad)
        return grad.as_strided(*self._view[:2], grad.storage_offset() + self._view[2])
