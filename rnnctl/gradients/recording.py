"""The hooks that note what a model's recurrent modules receive, return and are told by backward."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle

from rnnctl.gradients.calls import (
    CellCall,
    LayeredCall,
    Received,
    RefusedCallError,
    argument,
    cell_weights,
    hidden_tuple,
    layer_weights,
    packed_or_time_major,
)
from rnnctl.gradients.found import Found
from rnnctl.gradients.stack import layers_below
from rnnctl.recurrence.gates import LayerWeights

Call = LayeredCall | CellCall


@dataclass(eq=False)
class Calls:
    """The calls of one module, in order, and why others are not among them."""

    found: Found
    kept: list[Call]
    without_grad: int = 0
    refusal: str | None = None


class Recording:
    """Hooks on recurrent modules, from ``attach`` to ``detach``.

    Args:
        found: the modules.
    Attributes:
        calls: what each of them went through.
        totals: by the id of a recurrent weight, the gradient that backward brought it, in float64.
    """

    def __init__(self, found: Iterable[Found]) -> None:
        self.calls = [Calls(each, []) for each in found]
        self.totals: dict[int, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._weights = _Snapshots()
        self._watched: dict[int, Tensor] = {}
        self._states = _Sources()

    def attach(self) -> None:
        """Set the hooks."""
        for calls in self.calls:
            module = calls.found.module
            if isinstance(module, nn.RNNBase):
                self._attach_layered(module, calls)
            else:
                self._hook(module, calls, self._cell_call)

    def detach(self) -> None:
        """Take all hooks away."""
        while self._handles:
            self._handles.pop().remove()

    def clear(self) -> None:
        """Forget all calls, for the next pass; the hooks on modules stay."""
        for calls in self.calls:
            calls.kept.clear()
        self.totals.clear()
        self._states = _Sources()

    def _attach_layered(self, module: nn.RNNBase, calls: Calls) -> None:
        states: list[Tensor] = []

        def before(module: nn.Module, args: Any) -> None:
            if _draws_masks(module):
                states.append(torch.get_rng_state())  # The masks are drawn again from it.

        def after(module: nn.RNNBase, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> LayeredCall:
            return self._layered_call(module, args, kwargs, result, states.pop() if states else None)

        self._handles.append(module.register_forward_pre_hook(before))
        self._hook(module, calls, after)

    def _hook(self, module: nn.Module, calls: Calls, kept: Callable[..., Call]) -> None:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
            if calls.refusal is not None:
                return
            if not _requires_grad(result):
                calls.without_grad += 1
                return
            with torch.no_grad():
                try:
                    calls.kept.append(kept(module, args, kwargs, result))
                except RefusedCallError as refusal:
                    calls.refusal = str(refusal)

        # First of all, because another hook may put something else in place of the result.
        self._handles.append(module.register_forward_hook(hook, prepend=True, with_kwargs=True))

    def _layered_call(
        self, module: nn.RNNBase, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, rng: Tensor | None
    ) -> LayeredCall:
        given, initial = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "hx")
        output, hidden = result
        packed = output if isinstance(output, PackedSequence) else None
        order = packed.sorted_indices if packed else None
        received = Received()
        received.watch("output", output.data if packed else output)
        for name, part in zip(("h_n", "c_n"), hidden if isinstance(hidden, tuple) else (hidden,), strict=False):
            received.watch(name, part)
        pairs = layer_weights(module)
        for _, W_hh in pairs:
            self._watch(W_hh)
        call = LayeredCall(
            module=module,
            weights=tuple(self._weights.of(weights) for weights, _ in pairs),
            W_hh=tuple(W_hh for _, W_hh in pairs),
            x=packed_or_time_major(module, given).detach().clone(),
            batch_sizes=packed.batch_sizes if packed else None,
            order=order,
            initial=None if initial is None else hidden_tuple(initial, order),
            output=packed_or_time_major(module, output).detach().clone(),
            h_n=hidden_tuple(hidden, order)[0],
            below=(),
            received=received,
        )
        return replace(call, below=layers_below(call, rng))

    def _cell_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> CellCall:
        weights = cell_weights(module)
        self._watch(weights.W_hh)
        received = Received()
        if isinstance(module, nn.Linear):
            return self._linear_call(module, argument(args, kwargs, 0, "input"), result, received)
        x = argument(args, kwargs, 0, "input", "x_t")
        given = argument(args, kwargs, 1, "hx", "h_t_minus_1")
        after = result if isinstance(result, tuple) else (result,)
        for name, part in zip(("h", "c"), after, strict=False):
            received.watch(name, part)
        before = _before(module, given, after)
        source = self._states.of(module, given[0] if isinstance(given, tuple) else given)
        self._states.add(module, after[0])
        return CellCall(
            module=module,
            weights=self._weights.of(weights),
            W_hh=weights.W_hh,
            x=_rows(x).detach().clone(),
            before=before,
            after=tuple(_rows(part).detach().clone() for part in after),
            source=source,
            fused=len(after) == 2 and after[0].grad_fn is after[1].grad_fn,
            received=received,
        )

    def _linear_call(self, module: nn.Linear, given: Tensor, result: Tensor, received: Received) -> CellCall:
        received.watch("output", result)
        if given.requires_grad and not given.is_leaf:
            received.watch("input", given)
        weights = self._weights.of(cell_weights(module))
        before = (_rows(given).detach().clone(),)
        return CellCall(module, weights, module.weight, None, before, (), None, False, received)

    def _watch(self, weight: Tensor) -> None:
        """Add up what backward brings to a weight, whoever uses it."""
        if weight.requires_grad and id(weight) not in self._watched:
            # Held, so that no other tensor comes to have its id.
            self._watched[id(weight)] = weight
            handle = weight.register_hook(lambda grad: self._add(id(weight), grad))  # type: ignore[no-untyped-call]
            self._handles.append(handle)

    def _add(self, key: int, grad: Tensor) -> None:
        wide = grad.detach().to(torch.float32 if grad.device.type == "mps" else torch.float64)
        self.totals[key] = self.totals[key] + wide if key in self.totals else wide
        # An optimizer may be next, and may change a weight past its version counter.
        self._weights.forget()


class _Snapshots:
    """Copies of weights as they were at a call: backward, and an optimizer, come before the sweep."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[int, Tensor, Tensor]] = {}

    def of(self, weights: LayerWeights) -> LayerWeights:
        given = {each.name: getattr(weights, each.name) for each in fields(weights)}
        return replace(weights, **{name: self._copy(part) for name, part in given.items() if part is not None})

    def forget(self) -> None:
        self._kept.clear()

    def _copy(self, weight: Tensor) -> Tensor:
        version, copy, _ = self._kept.get(id(weight), (None, weight, weight))
        if version != weight._version:
            copy = weight.detach().clone()
            # Held itself as well: an id is only good as long as its tensor lives.
            self._kept[id(weight)] = (weight._version, copy, weight)
        return copy


class _Sources:
    """Which call of a module made a state that is now handed to it again."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], tuple[Tensor, int, int]] = {}
        self._counts: dict[int, int] = {}

    def add(self, module: nn.Module, state: Tensor) -> None:
        number = self._counts.get(id(module), 0)
        self._counts[id(module)] = number + 1
        # Held itself as well: an id is only good as long as its tensor lives.
        self._made[id(module), id(state)] = (state, state._version, number)

    def of(self, module: nn.Module, state: Tensor | None) -> int | None:
        """The number of the call, or None for a state that came from elsewhere or was changed since."""
        if state is None or (id(module), id(state)) not in self._made:
            return None
        _, version, number = self._made[id(module), id(state)]
        return number if version == state._version else None


def _draws_masks(module: nn.Module) -> bool:
    return isinstance(module, nn.RNNBase) and module.training and module.dropout > 0 and module.num_layers > 1


def _requires_grad(result: Any) -> bool:
    if isinstance(result, tuple):
        return any(_requires_grad(part) for part in result)
    return isinstance(result, Tensor) and result.requires_grad


def _rows(tensor: Tensor) -> Tensor:
    """(batch, features), from one row without a batch axis or from more axes before."""
    return tensor.reshape(-1, tensor.shape[-1])


def _before(module: nn.Module, given: Any, after: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """h_{t-1} and c_{t-1} as rows; zeros where none was given."""
    if given is None:
        return tuple(torch.zeros_like(_rows(part)) for part in after)
    parts = given if isinstance(given, tuple) else (given,)
    return tuple(_rows(part).detach().clone() for part in parts)
