"""Truncated backpropagation as a loop of windows has it: the state goes on, and no gradient crosses."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rnnctl.errors import InputError
from rnnctl.models.modules import Found, directions, is_layer


@contextmanager
def windows_of(model: nn.Module, found: list[Found], window: int | None, steps: int) -> Iterator[None]:
    """Within, the state is detached before every step that begins a window; the last one ends at the last step.

    Args:
        model: a copy of the user's, whose modules run by other functions within.
        found: its recurrent modules.
        window: steps of a window; None: nothing is cut.
        steps: of a sequence, T, as often as cells are called.
    Raises:
        InputError: nothing of a known kind recurs, a reverse direction, or packed sequences.
    """
    with ExitStack() as stack:
        if window is not None:
            if not found:
                raise InputError("where the state of this model could be detached is not known")
            for each in found:
                layer = is_layer(each.module)
                stack.enter_context(_cut_layer(each, window) if layer else _cut_cell(model, each, window, steps))
        yield


@contextmanager
def _cut_layer(found: Found, window: int) -> Iterator[None]:
    module: Any = found.module
    if directions(module) == 2:
        raise InputError(f"{found.name or 'the model'} runs in both directions, and a window has no end to start from")
    kind = type(module)
    # A subclass, as the user might write one: a probe then sees every call of the layer itself.
    module.__class__ = type(kind.__name__, (kind,), {"forward": _in_windows(kind, window)})
    try:
        yield
    finally:
        module.__class__ = kind


def _in_windows(kind: type[Any], window: int) -> Callable[..., Any]:
    """The ``forward`` of a layer, called window by window."""

    def forward(self: Any, input: Tensor, hx: Any = None) -> Any:
        if not isinstance(input, Tensor):
            raise InputError("packed sequences are not cut into windows")
        # Of one sequence without a batch time comes first.
        axis = 1 if self.batch_first and input.dim() == 3 else 0
        outputs = []
        steps = input.shape[axis]
        sizes = [steps % window] * (steps % window > 0) + [window] * (steps // window)
        for part in torch.split(input, sizes, axis):
            output, hx = kind.forward(self, part, _detached(hx))
            outputs.append(output)
        return torch.cat(outputs, axis), hx

    return forward


@contextmanager
def _cut_cell(model: nn.Module, found: Found, window: int, steps: int) -> Iterator[None]:
    step = 0

    def begins(module: nn.Module, args: Any) -> None:
        nonlocal step
        step = 0

    def cut(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal step
        step += 1
        if (steps - step + 1) % window:
            return args, kwargs
        return args[:1] + tuple(map(_detached, args[1:])), {name: _as_state(name, kwargs[name]) for name in kwargs}

    with model.register_forward_pre_hook(begins), found.module.register_forward_pre_hook(cut, with_kwargs=True):
        yield


def _as_state(name: str, value: Any) -> Any:
    return _detached(value) if name in ("hx", "h_t_minus_1") else value


def _detached(state: Any) -> Any:
    """h, or h and c, of any shapes, apart from autograd; None of none."""
    if isinstance(state, tuple):
        return tuple(part.detach() for part in state)
    return None if state is None else state.detach()
