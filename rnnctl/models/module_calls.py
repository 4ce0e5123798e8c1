"""When the modules of a model were called, in the numbers that autograd gives to nodes; nothing of them is touched."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.parametrize import ParametrizationList

from rnnctl.models.forwards import Onlooker, apart_from_readers, looked_on
from rnnctl.models.hooks import Hook, hooked
from rnnctl.models.modules import is_layer
from rnnctl.models.tape.block import Block
from rnnctl.models.tape.graph import Whole
from rnnctl.models.tape.passes import now
from rnnctl.models.tape.steps import Span


class ModuleCalls:
    """The calls of those modules of a model that own a weight, make one, or are named.

    Args:
        model: any module.
        named: modules whose calls and results are kept as well, by name.
        block: whose calls; those of this thread if left out.
    Attributes:
        spans: by the module's name, its calls in order.
        making: spans in which weights are made: by parametrizations, and by hooks before a module's ``forward``.
        results: of a named module, the tensors that each of its calls returned.
        whole: runs of layers over a whole sequence, in order: what happens within them is not looked at.
        replaced: other tensors that stood for a parameter in a call (``functional_call``), by its name.
    """

    def __init__(self, model: nn.Module, named: Mapping[str, nn.Module], block: Block | None = None) -> None:
        self._block = block or Block()
        self.spans: dict[str, list[Span]] = {}
        self.making: list[tuple[int, int]] = []
        self.results: dict[str, list[tuple[Span, list[Tensor]]]] = {}
        self.replaced: list[tuple[str, Tensor]] = []
        self.whole: list[Whole] = []
        self._names = {id(module): name for name, module in model.named_modules() if _is_kept(module)}
        self._names |= {id(module): name for name, module in named.items()}
        self._named = set(named)
        self._modules = [module for module in model.modules() if id(module) in self._names]
        self._layers = [module for module in model.modules() if is_layer(module)]
        self._own = {id(module): dict(module._parameters) for module in self._modules}
        self._open: list[tuple[int, int, int]] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Within, calls are noted."""
        with ExitStack() as stack:
            # Of all modules, not one by one: what is copied, scripted or saved of the model then has no hook of ours.
            stack.enter_context(apart_from_readers())
            stack.enter_context(Hook(self._before).set(register_module_forward_pre_hook))
            after = Hook(self._after).set(register_module_forward_hook, with_kwargs=True, always_call=True)
            stack.enter_context(after)
            for layer in self._layers:
                stack.enter_context(self._noting(layer))
            for module in self._modules:
                if any(not isinstance(hook, Hook) for hook in module._forward_pre_hooks.values()):
                    # The last of those before forward: what lies between the first and this one makes weights.
                    stack.enter_context(hooked(module, before=self._made, block=self._block))
            yield

    def forget(self) -> None:
        """Drop all calls so far."""
        for kept in (self.spans, self.making, self.results, self.replaced, self.whole, self._open):
            kept.clear()

    def _noting(self, layer: nn.Module) -> AbstractContextManager[None]:
        starts: list[int] = []

        def before(*_: Any) -> None:
            starts.append(now())

        def after(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            if torch._C._current_graph_task_id() == -1:
                given = [(t.grad_fn, t.output_nr) for t in tensors_in((args, kwargs)) if t.grad_fn is not None]
                self.whole.append(Whole(starts[-1], now(), tuple(given)))

        return looked_on(layer, Onlooker(before, after, lambda: starts.clear(), self._block))

    def _before(self, module: nn.Module, args: Any) -> None:
        key = id(module)
        if key not in self._names or torch._C._current_graph_task_id() != -1 or not self._block.sees_call():
            return
        self._open.append((key, now(), len(self.making)))
        own = self._own.get(key)
        if own:
            for name, value in module._parameters.items():
                if value is not own.get(name) and isinstance(value, Tensor):
                    self.replaced.append((f"{self._names[key]}.{name}" if self._names[key] else name, value))

    def _made(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._open and self._open[-1][0] == id(module):
            self.making.append((self._open[-1][1], now()))

    def _after(self, module: nn.Module, args: Any, *more: Any) -> None:
        # Where forward raised torch leaves the keywords out.
        kwargs, result = more if len(more) == 2 else ({}, more[0])
        key = id(module)
        if not self._open or self._open[-1][0] != key or not self._block.is_here():
            return
        _, start, _ = self._open.pop()
        span = Span(start, now(), _most_axes((args, kwargs)))
        name = self._names[key]
        if isinstance(module, ParametrizationList):
            self.making.append((span.start, span.end))
            return
        self.spans.setdefault(name, []).append(span)
        if name in self._named:
            self.results.setdefault(name, []).append((span, list(tensors_in(result))))


def _is_kept(module: nn.Module) -> bool:
    return bool(module._parameters) or isinstance(module, ParametrizationList) or hasattr(module, "parametrizations")


def _most_axes(given: Any) -> int | None:
    """The most axes of any tensor in it; token numbers stand for vectors."""
    axes = [tensor.dim() + _are_tokens(tensor) for tensor in tensors_in(given)]
    return max(axes) if axes else None


def _are_tokens(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool


def tensors_in(given: Any) -> Iterator[Tensor]:
    """All tensors in tuples, lists and mappings."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, (tuple, list)):
        for part in given:
            yield from tensors_in(part)
    elif isinstance(given, Mapping):
        for part in given.values():
            yield from tensors_in(part)


def owner_of(name: str) -> str:
    """The name of the module whose call uses a parameter: "cell" of "cell.W", "cell.parametrizations.W.original"."""
    module = name.rpartition(".")[0]
    head, found, _ = f".{module}".partition(".parametrizations.")
    return head.removeprefix(".") if found else module
