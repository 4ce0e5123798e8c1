"""The recurrent parts of somebody's model: which modules have recurrent weights, of which kind, and their names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from torch import nn

from rnnctl.cells import ManualRNNCell
from rnnctl.coupled_lstm import CoupledLSTM
from rnnctl.errors import InputError, did_you_mean
from rnnctl.recurrence.cell_kind import CellKind
from rnnctl.recurrence.kinds import kind_named


def _elman(module: nn.Module) -> CellKind:
    return kind_named("RNN", str(module.nonlinearity))


# Which classes recur, and of which kind their step is.
LAYERS: Mapping[type[nn.Module], Callable[[nn.Module], CellKind]] = {
    nn.RNN: _elman,
    nn.GRU: lambda module: kind_named("GRU"),
    nn.LSTM: lambda module: kind_named("LSTM"),
    CoupledLSTM: lambda module: kind_named("CoupledLSTM"),
}
CELLS: Mapping[type[nn.Module], Callable[[nn.Module], CellKind]] = {
    nn.RNNCell: _elman,
    nn.GRUCell: lambda module: kind_named("GRU"),
    nn.LSTMCell: lambda module: kind_named("LSTM"),
    ManualRNNCell: _elman,
}


def known_kind(module: nn.Module) -> CellKind:
    """What one step of a module of these classes is."""
    kind = kind_of(module)
    assert kind is not None, type(module)
    return kind


def spoken(kind: type[nn.Module]) -> str:
    """A class as one imports it: "nn.LSTM"."""
    return f"{'nn' if kind.__module__.startswith('torch.') else 'rnnctl'}.{kind.__name__}"


SUPPORTED = ", ".join(spoken(kind) for kind in (*LAYERS, *CELLS))


def class_of(module: nn.Module) -> type[nn.Module] | None:
    """Which of the classes above it is, itself or by inheritance; None for others."""
    return next((kind for kind in (*LAYERS, *CELLS) if isinstance(module, kind)), None)


def is_layer(module: nn.Module) -> bool:
    """Whether one call runs over a whole sequence."""
    return class_of(module) in LAYERS


def kind_of(module: nn.Module) -> CellKind | None:
    """What one step of it is; None for a module that is no cell, such as a linear map."""
    known = class_of(module)
    return None if known is None else {**LAYERS, **CELLS}[known](module)


@dataclass(frozen=True, eq=False)
class Found:
    """A module with recurrent weights.

    Attributes:
        name: in the model, "" for the model itself.
        module: the module.
        weights: the names of its recurrent weights within it, layer by layer, forward before reverse.
    """

    name: str
    module: nn.Module
    weights: tuple[str, ...]

    def full(self, weight: str) -> str:
        """The weight's name within the model."""
        return f"{self.name}.{weight}" if self.name else weight


def require_module(model: object) -> None:
    """Raises: InputError: something else, such as a class in place of what it builds."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module; got {type(model).__name__}")


def recurrent_modules(model: nn.Module, only: str | None = None) -> list[Found]:
    """Every recurrent module of a model whose kind is known, and what shares a weight with those that are asked for.

    Weights of other modules are found in autograd's graph alone, and not here.

    Args:
        only: a pattern of module or weight names, as in "decoder.*".
    Raises:
        InputError: a pattern that no module and no parameter has; a module that cannot be seen into.
    """
    require_module(model)
    if not isinstance(only, str | None):
        raise InputError(f"only takes a name or a pattern; got only={only!r}")
    modules = dict(model.named_modules())
    found = _found(modules)
    for name, module in modules.items():
        _require_transparent(name, module)
        if only is None or not found:
            _require_not_quantized(name, module)
    kept = [each for each in found if only is None or _matches(each, only)]
    if not kept and only is not None:
        require_matched(model, found, only)
    # One weight under two names gets the gradients of both.
    shared = {id(parameter) for each in kept for parameter in each.module.parameters()}
    return [each for each in found if each in kept or any(id(p) in shared for p in each.module.parameters())]


def require_matched(model: nn.Module, found: Sequence[Found], only: str) -> None:
    """Raise InputError for a pattern that no module and no parameter of the model has."""
    names = [name for name, _ in model.named_parameters()]
    if any(matches(name, only) for name in names):
        return
    known = [each.full(weight) for each in found for weight in each.weights] or names
    raise InputError(
        f"only={only!r} matches no recurrent weight; the model has {', '.join(known) or 'no parameters'}."
        f"{did_you_mean(only, (*names, *dict(model.named_modules())))}"
    )


def matches(weight: str, only: str | None) -> bool:
    """Whether a pattern of module or weight names lets a parameter through."""
    if only is None or fnmatch(weight, only):
        return True
    # The pattern may be of any module that holds it, down to the one whose parameter it is.
    parts = weight.split(".")
    return any(fnmatch(".".join(parts[:count]), only) for count in range(1, len(parts)))


def picked(model: nn.Module, name: str | None) -> str | None:
    """What ``only`` has to be for one module or parameter of the model, by its name.

    Args:
        name: of a module, or of a parameter; None for all.
    Raises:
        InputError: there is none of that name, with the nearest.
    """
    if name is None:
        return None
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters(remove_duplicate=False))
    weights = _found(modules)
    known = [key for each in weights for key in (each.name, *(each.full(weight) for weight in each.weights)) if key]
    if name in known or name in parameters:
        return name
    if name in modules and name:
        own = [key for key in parameters if key.startswith(f"{name}.")]
        if own:
            return f"{name}.*"
    raise InputError(
        f"the model has no recurrent module or weight {name!r}, nor a parameter of that name; it has "
        f"{', '.join(known or parameters) or 'none'}.{did_you_mean(name, (*known, *modules, *parameters))}"
    )


def require_no_linear(linear: object) -> None:
    """Raise InputError for an argument that is gone, with what to write in its place."""
    if linear is not None and linear != ():
        raise InputError(
            f"linear={linear!r} is gone: every recurrent weight is found by itself. Leave it out, or narrow what is "
            "shown by only='name.weight'"
        )


def weight_names(found: Found, only: str | None) -> tuple[str, ...]:
    """The full names of those recurrent weights of a module that the pattern lets through."""
    names = tuple(found.full(weight) for weight in found.weights)
    if only is None or fnmatch(found.name, only):
        return names
    return tuple(name for name in names if fnmatch(name, only))


def _found(modules: Mapping[str, nn.Module]) -> list[Found]:
    """Those of the modules that have recurrent weights, by name."""
    weights = {name: recurrent_weights(module) for name, module in modules.items()}
    return [Found(name, modules[name], own) for name, own in weights.items() if own]


def directions(module: nn.Module) -> int:
    """2 for a bidirectional module, else 1."""
    return 2 if module.bidirectional else 1


def recurrent_weights(module: nn.Module) -> tuple[str, ...]:
    """The names of its recurrent weights within it, layer by layer, forward before reverse; none of another class."""
    if is_layer(module):
        assert isinstance(module, nn.RNNBase)
        suffixes = ("", "_reverse")[: directions(module)]
        return tuple(f"weight_hh_l{layer}{suffix}" for layer in range(module.num_layers) for suffix in suffixes)
    if isinstance(module, ManualRNNCell):
        return ("hidden_to_hidden.weight",)
    return ("weight_hh",) if class_of(module) is not None else ()


def _matches(found: Found, only: str) -> bool:
    return bool(weight_names(found, only))


def none_found(model: nn.Module) -> str:
    """What to say of a model in which no class is known to recur."""
    kinds = sorted({type(module).__name__ for module in model.modules()})
    return f"the model has no recurrent module of a known kind ({SUPPORTED}); it has {', '.join(kinds)}"


def _require_transparent(name: str, module: nn.Module) -> None:
    """Raise InputError for a module that runs what it holds without calling it."""
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(_refusal(name, "is a TorchScript module", "probe the model that it was made of"))
    if isinstance(module, nn.DataParallel):
        raise InputError(_refusal(name, "is nn.DataParallel, which copies its module", "probe model.module"))


def _require_not_quantized(name: str, module: nn.Module) -> None:
    if "quantized" in type(module).__module__ and any(kind in type(module).__name__ for kind in ("LSTM", "GRU", "RNN")):
        raise InputError(_refusal(name, "is quantized and has no gradient", "probe the model before it is quantized"))


def why_compiled(model: nn.Module) -> str | None:
    """What to say of a model that is compiled as a whole or in part, and showed nothing; None for others."""
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            return _refusal(name, "is compiled (torch.compile)", "probe the model that was compiled")
    return None


def has_own_forward(module: nn.Module) -> bool:
    """Whether its class has a ``forward`` beside that of the known class."""
    kind = class_of(module)
    return kind is not None and type(module).forward is not kind.forward


def why_own_forward(found: Found) -> str:
    """What to say of a module with a ``forward`` of its own that never came to that of the known class."""
    kind = class_of(found.module)
    assert kind is not None
    what = f"is a {type(found.module).__name__} with a forward of its own that never runs that of {spoken(kind)}"
    return _refusal(found.name, what, f"call super().forward(...), or let it hold an {spoken(kind)}")


def _refusal(name: str, what: str, remedy: str) -> str:
    return f"{name or 'the model'} {what}: its steps cannot be seen from outside. Try: {remedy}"
