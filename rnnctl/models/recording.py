"""The hooks that note what a model's recurrent modules receive, return and are told by backward."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake
from torch.nn.utils.parametrize import cached, is_parametrized
from torch.nn.utils.rnn import PackedSequence

from rnnctl.models.arriving_gradients import Arrived, Received
from rnnctl.models.calls import (
    Call,
    CellCall,
    LayeredCall,
    RefusedCallError,
    argument,
    cell_weights,
    hidden_tuple,
    layer_weights,
    narrowest_dtype,
    packed_or_time_major,
    time_major,
)
from rnnctl.models.forwards import Onlooker, looked_on
from rnnctl.models.hooks import hooked
from rnnctl.models.lineage import Sources
from rnnctl.models.modules import Found, has_own_forward, known_kind
from rnnctl.models.replay import layers_below
from rnnctl.models.tape.block import Block, is_nested
from rnnctl.models.tape.passes import End, Pass, backward_passes, now
from rnnctl.recurrence.weights import LayerWeights

# What a backward pass brought to the weights of a call: nothing that was asked for; something to all others, as far as
# they take a gradient, which this one does not; its gradient.
NOTHING, TO_OTHERS, ITS_GRADIENT = range(3)


@dataclass(eq=False)
class Calls:
    """The calls of one module, in order, those that backward repeated (checkpointing), and why others are missing.

    ``bug`` is an error of ours that was kept from the user's forward pass; ``brought`` how much the passes that count
    brought to a weight, one of ``NOTHING`` and those after it, None before the first that came by.
    """

    found: Found
    kept: list[Call]
    repeated: list[Call] = field(default_factory=list)
    without_grad: int = 0
    empty: int = 0
    unreal: int = 0
    pieces: int = 0
    refusal: str | None = None
    bug: Exception | None = None
    brought: int | None = None

    @property
    def all(self) -> list[Call]:
        """Repeated ones included."""
        return [*self.kept, *self.repeated]

    @property
    def repeats(self) -> bool:
        """Whether a call is one that a backward pass repeats."""
        return torch._C._current_graph_task_id() != -1

    def add(self, made: Callable[[int], Call]) -> None:
        """Take in a call, made for its number; one that backward repeats begins a piece once the last has gradients."""
        if not self.repeats:
            self.kept.append(made(len(self.kept)))
            return
        if not self.repeated or any(call.received for call in self.repeated):
            self.pieces += 1
        self.repeated.append(made(len(self.repeated)))


class Recording:
    """Hooks on recurrent modules, from ``attach`` to ``detach``.

    Args:
        found: the modules.
        keeps_graph: whether the calls keep autograd's graph alive, so that it can be asked further questions.
        block: whose calls and passes; those of this thread if left out.
    Attributes:
        calls: what each of them went through.
        totals: by the id of a recurrent weight, the gradient that backward brought it, in float64.
    """

    def __init__(self, found: Iterable[Found], *, keeps_graph: bool = False, block: Block | None = None) -> None:
        self._keeps_graph = keeps_graph
        self.calls = [Calls(each, []) for each in found]
        self.block = block or Block([calls.found.module for calls in self.calls])
        self.totals: dict[int, Tensor] = {}
        self._hooks = ExitStack()
        self._weights = _Snapshots()
        self._watched: dict[int, Tensor] = {}
        self._states = Sources()
        self._starts: dict[int, list[int]] = {}
        self._brought: set[int] = set()

    def attach(self) -> None:
        """Set the hooks."""
        self._hooks.enter_context(backward_passes(self._passes, self.block))
        for calls in self.calls:
            module = calls.found.module
            if isinstance(module, nn.RNNBase):
                self._attach_layered(module, calls)
            else:
                self._attach_cell(module, calls)

    def detach(self) -> None:
        """Take all hooks away."""
        self._hooks.close()
        for calls in self.calls:
            for call in calls.all:
                call.received.unwatch()

    def forget_gradients(self) -> None:
        """Keep the calls, for another backward pass through them."""
        for calls in self.calls:
            for call in calls.kept:
                call.received.by_name.clear()
        self.totals.clear()

    def _passes(self, begun: Pass) -> tuple[End, bool] | None:
        """A backward pass begins: what has arrived is put aside until it is known whether this one counts."""
        if is_nested():
            return None
        self._brought.clear()
        before = [[(call.received, call.received.taken()) for call in calls.all] for calls in self.calls]

        def end(done: bool) -> None:
            for calls, arrived in zip(self.calls, before, strict=True):
                self._settle(calls, begun, arrived)

        return end, False

    def _settle(self, calls: Calls, begun: Pass, before: list[tuple[Received, Arrived]]) -> None:
        """A pass is over: of all of them those count that brought most to the module's weights.

        A gradient of an input alone, for a saliency map or an adversarial example, is no training step.
        """
        if not any(call.received for call in calls.all):
            for received, arrived in before:
                received.put_back(arrived, beside=True)
            return
        rank, best = self._rank(calls, begun), NOTHING if calls.brought is None else calls.brought
        calls.brought = max(rank, best)
        if rank == NOTHING or rank < best:
            # Those that came to be within this pass are not in what was before.
            for call in calls.all:
                call.received.discarded |= any(call.received.taken())
        elif rank > best:
            for received, arrived in before:
                received.discarded |= any(arrived)
        if rank <= best:
            for received, arrived in before:
                received.put_back(arrived, beside=True)

    def _rank(self, calls: Calls, begun: Pass) -> int:
        """How much a pass that came by brought to a module's recurrent weights."""
        weights = [weight for call in calls.all for weight in call.parameters]
        if any(id(weight) in self._brought for weight in weights):
            return ITS_GRADIENT
        if any(weight.requires_grad for weight in weights):
            return NOTHING
        to_parameters = not begun.inputs or any(isinstance(each, nn.Parameter) for each in begun.inputs)
        return TO_OTHERS if to_parameters else NOTHING

    def _attach_layered(self, module: nn.RNNBase, calls: Calls) -> None:
        states: list[Tensor] = []

        def before(module: nn.Module, *_: Any) -> None:
            if _draws_masks(module):
                states.append(torch.get_rng_state())  # The masks are drawn again from it.

        def after(module: nn.RNNBase, *seen: Any) -> LayeredCall:
            return self._layered_call(module, states.pop() if states else None, *seen)

        self._look_on(module, Onlooker(before, self._keeping(calls, after)))

    def _attach_cell(self, module: nn.Module, calls: Calls) -> None:
        onlooker = Onlooker(after=self._keeping(calls, self._cell_call))
        if any(is_parametrized(part) for part in module.modules()):
            # A parametrization may change with every look at the weight: let forward's be the only one.
            once = _OneLook()
            onlooker = replace(onlooker, before=once.start, always=once.stop)
        self._look_on(module, onlooker)

    def _look_on(self, module: nn.Module, onlooker: Onlooker) -> None:
        """Watch every run of the module's known forward: by hooks where it is called, else from within."""
        onlooker = replace(self._timed(module, onlooker), block=self.block)
        if has_own_forward(module):
            # Its own forward may give that of torch something else than it was given.
            self._hooks.enter_context(looked_on(module, onlooker))
            return
        inside: list[None] = []

        def enter(*seen: Any) -> None:
            inside.append(None)
            onlooker.began(*seen)

        def leave(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            if inside:
                inside.pop()
            if result is not None:
                onlooker.ended(module, args, kwargs, result)

        # First of all, because another hook may put something else in place of the result.
        self._hooks.enter_context(hooked(module, leave, before=enter, always=True, block=self.block))
        if (always := onlooker.always) is not None:
            last = hooked(module, lambda *_: always(), first=False, always=True, block=self.block)
            self._hooks.enter_context(last)
        direct = Onlooker(
            lambda *seen: None if inside else onlooker.began(*seen),
            lambda *seen: None if inside else onlooker.ended(*seen),
            block=self.block,
        )
        self._hooks.enter_context(looked_on(module, direct))

    def _timed(self, module: nn.Module, onlooker: Onlooker) -> Onlooker:
        """The same, which notes when each call begins."""
        starts = self._starts.setdefault(id(module), [])

        def before(*seen: Any) -> None:
            # Of a call that failed nothing is asked: the last one is always that which runs.
            starts[:] = [now()]
            onlooker.began(*seen)

        return replace(onlooker, before=before)

    def _keeping(self, calls: Calls, kept: Callable[..., Call]) -> Callable[..., None]:
        def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
            if _is_empty(result):
                calls.empty += 1
            if _has_no_numbers(result):
                calls.unreal += 1
                return
            if calls.refusal is not None or _is_empty(result):
                return
            if not _requires_grad(result):
                calls.without_grad += 1
                return
            try:
                span = (self._starts[id(module)][0], now())
                with torch.no_grad():
                    _require_plain(result)
                    calls.add(lambda number: kept(module, args, kwargs, result, number))
                (calls.repeated if calls.repeats else calls.kept)[-1].received.span = span
            except RefusedCallError as refusal:
                calls.refusal = str(refusal)
            except Exception as error:
                # Whatever it is, it must not end the user's forward pass.
                calls.refusal, calls.bug = f"it could not be seen into: {type(error).__name__}: {error}", error

        return after

    def _layered_call(
        self,
        module: nn.RNNBase,
        rng: Tensor | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        number: int,
    ) -> LayeredCall:
        given, initial = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "hx")
        output, hidden = result
        packed = output if isinstance(output, PackedSequence) else None
        order = packed.sorted_indices if packed else None
        received = self._received_by_layer(output.data if packed else output, hidden)
        received.given = _made_by(initial)
        received.fed = _made_by(given.data if isinstance(given, PackedSequence) else given)
        pairs = layer_weights(module)
        for _, W_hh in pairs:
            self._watch(W_hh)
        room = None if packed else _with_room(time_major(module, output))
        source, derived = self._whence(module, initial)
        call = LayeredCall(
            module=module,
            kind=known_kind(module),
            weights=tuple(self._weights.of(weights) for weights, _ in pairs),
            parameters=tuple(W_hh for _, W_hh in pairs),
            x=packed_or_time_major(module, given).detach().clone(),
            batch_sizes=packed.batch_sizes if packed else None,
            order=order,
            initial=None if initial is None else hidden_tuple(initial, order),
            output=output.data.detach().clone() if room is None else room[1:],
            room=room,
            h_n=hidden_tuple(hidden, order)[0],
            below=(),
            source=source,
            derived=derived,
            narrowest=narrowest_dtype(pairs[0][1]),
            received=received,
        )
        self._handed_on(module, _parts(hidden), number)
        return replace(call, below=layers_below(call, rng))

    def _received_by_layer(self, output: Tensor, hidden: Any) -> Received:
        received = Received(on_gradient=self._weights.forget, keeps_graph=self._keeps_graph)
        received.watch("output", output)
        for name, part in zip(("h_n", "c_n"), _parts(hidden), strict=False):
            received.watch(name, part)
        return received

    def _cell_call(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, number: int
    ) -> CellCall:
        weights = cell_weights(module)
        self._watch(weights.W_hh)
        received = Received(on_gradient=self._weights.forget, keeps_graph=self._keeps_graph)
        x = argument(args, kwargs, 0, "input", "x_t")
        given = argument(args, kwargs, 1, "hx", "h_t_minus_1")
        after = _parts(result)
        for name, part in zip(("h", "c"), after, strict=False):
            received.watch(name, part)
        received.given, received.fed = _made_by(given), _made_by(x)
        if self._keeps_graph:
            for name, part in (("x", x), *zip(("h_before", "c_before"), _parts(given), strict=False)):
                if part is not None:
                    received.note(name, part)
        before = _before(module, given, after)
        source, derived = self._whence(module, given)
        self._handed_on(module, after, number)
        return CellCall(
            module=module,
            kind=known_kind(module),
            weights=self._weights.of(weights),
            parameters=(weights.W_hh,),
            x=_rows(x).detach().clone(),
            before=before,
            after=tuple(_rows(part).detach().clone() for part in after),
            source=source,
            derived=derived,
            fused=len(after) == 2 and after[0].grad_fn is after[1].grad_fn,
            narrowest=narrowest_dtype(weights.W_hh),
            received=received,
        )

    def _handed_on(self, module: nn.Module, state: tuple[Tensor, ...], number: int) -> None:
        for part in state:
            self._states.add(module, part, number)

    def _whence(self, module: nn.Module, given: Any) -> tuple[int | None, int | None]:
        """The call whose state was given as it is, h and c; or that of whose state something made what was given."""
        parts = [] if given is None else [part for part in _parts(given) if part is not None]
        found = {self._states.of(module, part) for part in parts}
        # A hook of the user's changes the gradient between the calls as an operation does.
        plain = len(found) == 1 and not any(part._backward_hooks for part in parts)
        if plain and (source := found.pop()) is not None:
            return source, None
        behind = (self._states.behind(module, part) for part in parts)
        return None, next((number for number in behind if number is not None), None)

    def _watch(self, weight: Tensor) -> None:
        """Add up what backward brings to a weight, whoever uses it."""
        if weight.requires_grad and id(weight) not in self._watched:
            # Held, so that no other tensor comes to have its id.
            self._watched[id(weight)] = weight
            handle = weight.register_hook(lambda grad: self._add(id(weight), grad))  # type: ignore[no-untyped-call]
            self._hooks.callback(handle.remove)

    def _add(self, key: int, grad: Tensor | None) -> None:
        if grad is None or not self.block.is_here():
            return
        # A copy, or clipping the gradients within the block would change what they are compared with.
        self._brought.add(key)
        wide = grad.detach().to(torch.float32 if grad.device.type == "mps" else torch.float64, copy=True)
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


def _draws_masks(module: nn.Module) -> bool:
    return isinstance(module, nn.RNNBase) and module.training and module.dropout > 0 and module.num_layers > 1


def _with_room(steps: Tensor) -> Tensor:
    """A copy of the steps, contiguous, with a free one before them."""
    room = steps.new_empty(steps.shape[0] + 1, *steps.shape[1:])
    room[1:] = steps.detach()
    return room


class _OneLook:
    """Parametrized weights are computed once between the start and the end of a call."""

    def __init__(self) -> None:
        self._open: list[ExitStack] = []

    def start(self, *_: Any) -> None:
        stack = ExitStack()
        stack.enter_context(cached())
        self._open.append(stack)

    def stop(self, *_: Any) -> None:
        if self._open:
            self._open.pop().close()


def _made_by(given: Any) -> tuple[tuple[Any, int], ...]:
    """The nodes that made the states that a call was given."""
    parts = () if given is None else _parts(given)
    return tuple((part.grad_fn, part.output_nr) for part in parts if part is not None and part.grad_fn is not None)


def _parts(result: Any) -> tuple[Tensor, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def _is_empty(result: Any) -> bool:
    """Whether there is no sequence in it, or no step."""
    first = result[0] if isinstance(result, tuple) else result
    data = first.data if isinstance(first, PackedSequence) else first
    return isinstance(data, Tensor) and data.numel() == 0


def _data_of(result: Any) -> Any:
    first = result[0] if isinstance(result, tuple) else result
    return first.data if isinstance(first, PackedSequence) else first


def _has_no_numbers(result: Any) -> bool:
    data = _data_of(result)
    return isinstance(data, Tensor) and (data.device.type == "meta" or is_fake(data))


def _require_plain(result: Any) -> None:
    data = _data_of(result)
    if isinstance(data, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(data):
        raise RefusedCallError("it was called within torch.func, which hides its gradients. Try loss.backward()")


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
    return tuple(_rows(part).detach().clone() for part in _parts(given))
