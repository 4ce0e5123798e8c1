"""One layer of a whole model, as a run of the model drives it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnctl.errors import InputError
from rnnctl.models.calls import argument
from rnnctl.models.driven import DrivenLayer, driven_layer
from rnnctl.models.modules import Found, directions, recurrent_modules, weight_names
from rnnctl.models.objective import called


def driven_by(model: nn.Module, run: Callable[[], Any], only: str | None = None) -> DrivenLayer:
    """The layer that one recurrent weight of a model belongs to, with what it receives in a run.

    Args:
        model: any module; hooks are set on one recurrent module of it while it runs, without gradients.
        run: calls the model once.
        only: a pattern of module or weight names that leaves one weight, as in ``probe``.
    Returns:
        A ``DrivenLayer`` for ``lyapunov`` and ``spectrum``.
    Raises:
        InputError: several weights or none; a module that was not called, or not in a way that has a
            single trajectory; as ``driven_layer``.
    """
    found, weight = _only_one(recurrent_modules(model, only), only)
    module = found.module
    if not isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        raise InputError(
            f"spectrum and lyapunov need the whole step of {found.full(weight)}, which is known of torch's own layers "
            f"and cells; this is a {type(module).__name__}"
        )
    calls = _calls_of(module, run)
    if not calls:
        raise InputError(f"{found.name or 'the model'} was not called")
    if isinstance(module, nn.RNNCellBase):
        return driven_layer(module, torch.stack([x for x, _ in calls], dim=-2), calls[0][1])
    if len(calls) > 1:
        raise InputError(f"{found.name} was called {len(calls)} times; one trajectory needs one call over all steps")
    x, hx = calls[0]
    if isinstance(x, PackedSequence):
        raise InputError(f"{found.name} received packed sequences; give it sequences of one length")
    index = found.weights.index(weight)
    return driven_layer(module, x, hx, layer=index // directions(module), direction=index % directions(module))


def driven_along(model: nn.Module, x: Tensor | None, h_init: Tensor | None, only: str | None) -> DrivenLayer:
    """The layer of one recurrent weight of any model, as x drives it.

    Args:
        x: the model's input, shape (batch, time, input).
        h_init: None: only a ``FullRNN`` takes one beside its input.
    Raises:
        InputError: x left out, h_init given; as ``driven_by``.
    """
    if x is None or h_init is not None:
        raise InputError("a model needs x and starts as it does by itself: leave out h_init, or use driven_layer")
    return driven_by(model, lambda: called(model, x, None), only)


def _only_one(found: list[Found], only: str | None) -> tuple[Found, str]:
    by_name = {each.full(weight): (each, weight) for each in found for weight in each.weights}
    pairs = [by_name[name] for each in found for name in weight_names(each, only)]
    if len(pairs) != 1:
        names = ", ".join(each.full(weight) for each, weight in pairs)
        raise InputError(f"spectrum and lyapunov look at one weight; pick one with --module of {names}")
    return pairs[0]


def _calls_of(module: nn.Module, run: Callable[[], Any]) -> list[tuple[Tensor, Any]]:
    """Input and given state of every call."""
    calls: list[tuple[Tensor, Any]] = []

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _result: Any) -> None:
        calls.append((argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "hx")))

    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        with torch.no_grad():
            run()
    finally:
        handle.remove()
    return calls
