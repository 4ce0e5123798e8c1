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
# What a map is called that the user names in place of a cell.
LINEAR = "Linear"


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


def recurrent_modules(model: nn.Module, only: str | None = None, linear: Sequence[str] = ()) -> list[Found]:
    """Every recurrent module of a model, and those ``nn.Linear`` that the user names.

    Args:
        only: a pattern of module or weight names, as in "decoder.*".
        linear: names of ``nn.Linear`` modules that are called once per step.
    Raises:
        InputError: none is there, or none is left, with what the model has; one that cannot be seen into.
    """
    require_module(model)
    if not isinstance(only, str | None) or not all(isinstance(name, str) for name in linear):
        raise InputError(f"only and linear take names; got only={only!r}, linear={linear!r}")
    modules = dict(model.named_modules())
    found = [Found(name, module, _weights(module)) for name, module in modules.items() if _weights(module)]
    # A map that is named stands for itself, not for the cell around it.
    named = {f"{name}.weight" for name in linear}
    found = [each for each in found if each.full(each.weights[0]) not in named]
    found += [Found(name, _named_linear(modules, name), ("weight",)) for name in linear]
    for name, module in modules.items():
        _require_transparent(name, module)
        if only is None or not found:
            _require_not_quantized(name, module)
    if not found:
        raise InputError(_none_found(modules))
    kept = [each for each in found if only is None or _matches(each, only)]
    if not kept:
        known = [each.full(weight) for each in found for weight in each.weights]
        raise InputError(f"only={only!r} matches no recurrent weight; the model has {', '.join(known)}")
    for each in kept:
        _require_own_forward(each.name, each.module)
    # One weight under two names gets the gradients of both.
    shared = {id(parameter) for each in kept for parameter in each.module.parameters()}
    return [each for each in found if each in kept or any(id(p) in shared for p in each.module.parameters())]


def picked(model: nn.Module, name: str | None) -> tuple[str | None, tuple[str, ...]]:
    """What ``only`` and ``linear`` have to be for one module or weight of the model, by its name.

    Args:
        name: of a recurrent module, of one that holds some, of a recurrent weight, or of an
            ``nn.Linear`` that is one by the user's word; None for all.
    Raises:
        InputError: there is none of that name, with the nearest.
    """
    if name is None:
        return None, ()
    modules = dict(model.named_modules())
    if isinstance(modules.get(name), nn.Linear):
        return f"{name}.weight", (name,)
    found = [Found(key, module, _weights(module)) for key, module in modules.items() if _weights(module)]
    known = [key for each in found for key in (each.name, *(each.full(weight) for weight in each.weights)) if key]
    if name in known:
        return name, ()
    if any(key.startswith(f"{name}.") for key in known):
        return f"{name}.*", ()
    raise InputError(
        f"the model has no recurrent module or weight {name!r}; it has {', '.join(known) or 'none'}."
        f"{did_you_mean(name, (*known, *modules))}"
    )


def weight_names(found: Found, only: str | None) -> tuple[str, ...]:
    """The full names of those recurrent weights of a module that the pattern lets through."""
    names = tuple(found.full(weight) for weight in found.weights)
    if only is None or fnmatch(found.name, only):
        return names
    return tuple(name for name in names if fnmatch(name, only))


def directions(module: nn.Module) -> int:
    """2 for a bidirectional module, else 1."""
    return 2 if module.bidirectional else 1


def _weights(module: nn.Module) -> tuple[str, ...]:
    if is_layer(module):
        assert isinstance(module, nn.RNNBase)
        suffixes = ("", "_reverse")[: directions(module)]
        return tuple(f"weight_hh_l{layer}{suffix}" for layer in range(module.num_layers) for suffix in suffixes)
    if isinstance(module, ManualRNNCell):
        return ("hidden_to_hidden.weight",)
    return ("weight_hh",) if class_of(module) is not None else ()


def _matches(found: Found, only: str) -> bool:
    return bool(weight_names(found, only))


def _named_linear(modules: Mapping[str, nn.Module], name: str) -> nn.Linear:
    module = modules.get(name)
    linear = [key for key, value in modules.items() if isinstance(value, nn.Linear)]
    if module is None:
        raise InputError(f"linear: the model has no module {name!r}.{did_you_mean(name, linear)}")
    if not isinstance(module, nn.Linear):
        raise InputError(
            f"linear: {name!r} is a {type(module).__name__}; expected an nn.Linear that is called once per step"
            + (f", such as {', '.join(linear[:4])}" if linear else "")
        )
    return module


def _none_found(modules: Mapping[str, nn.Module]) -> str:
    kinds = sorted({type(module).__name__ for module in modules.values()})
    return (
        f"the model has no recurrent module that can be probed by itself ({SUPPORTED}); it has {', '.join(kinds)}. "
        "For a hand-written cell name the nn.Linear that is applied to h at every step: linear='name', "
        "in the shell --module name"
    )


def _require_transparent(name: str, module: nn.Module) -> None:
    """Raise InputError for a module that runs what it holds without calling it."""
    if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
        raise InputError(_refusal(name, "is compiled (torch.compile)", "probe the model that was compiled"))
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(_refusal(name, "is a TorchScript module", "probe the model that it was made of"))
    if isinstance(module, nn.DataParallel):
        raise InputError(_refusal(name, "is nn.DataParallel, which copies its module", "probe model.module"))


def _require_not_quantized(name: str, module: nn.Module) -> None:
    if "quantized" in type(module).__module__ and any(kind in type(module).__name__ for kind in ("LSTM", "GRU", "RNN")):
        raise InputError(_refusal(name, "is quantized and has no gradient", "probe the model before it is quantized"))


def _require_own_forward(name: str, module: nn.Module) -> None:
    kind = class_of(module)
    if kind is not None and type(module).forward is not kind.forward:
        what = f"is a {type(module).__name__} with a forward of its own"
        raise InputError(_refusal(name, what, f"let it hold an {spoken(kind)} instead of being one"))


def _refusal(name: str, what: str, remedy: str) -> str:
    return f"{name or 'the model'} {what}: its steps cannot be seen from outside. Try: {remedy}"
