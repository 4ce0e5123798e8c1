"""Shapes, gates and arithmetic of every recurrent module in a model, seen through one run of it."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rnnctl.errors import InputError, did_you_mean
from rnnctl.models.hooks import hooked
from rnnctl.models.modules import SUPPORTED, class_of, require_module
from rnnctl.models.parameter_uses import ForwardPass, counts_by_role
from rnnctl.results import Kind, Result, numbers
from rnnctl.shapes.axes import Recurrent, Weight, settings, title, weights
from rnnctl.shapes.tensors import Label, Row, call_of, extent, module_row, tensor_rows
from rnnctl.shapes.uses import ROOT, picked_uses, use_rows, use_scalars
from rnnctl.view.shown import Shown


@dataclass(frozen=True)
class RecurrentShapes(Shown, Result):
    """Every recurrent module of a model: tensors of its first call, parameters, gates, multiply-adds.

    ``rows`` have kind, module (its name in the model), symbol, name, symbolic_shape, shape, elements,
    used, multiply_adds, min, max, batch, longest, shortest, steps and padded_steps. The kinds:

    - module: elements of its parameters; used: how often it was called; steps of all sequences of
      all calls, and padded_steps: what they would be with every sequence padded to the longest.
    - tensor: of the first call; the input alone has batch, longest and shortest (lengths in time
      steps), steps and padded_steps.
    - state: one row of h_n or c_n, with its layer and direction.
    - parameter: a weight or bias; used: time steps of all calls.
    - gate: the rows of a weight or bias that belong to one gate; a part of the row above.
    - use: of ``sequence_shapes`` alone; every parameter of the model, symbol its name, module the one that owns it;
      used and uses: how often it enters something in one pass, counted in autograd's graph, of torch's layers the
      time steps of the calls that the outputs depend on; role: recurrent, shared, once, unused; name: how it was
      counted, or why it was not (then uses and role are None). No other kind has uses and role.

    ``multiply_adds`` are over all calls, steps, sequences, layers and directions; None of uses.
    """

    schema: ClassVar[str] = "forward-modules"
    kinds: ClassVar[Mapping[str, Kind]] = {
        **numbers("modules", "modules_not_called", "calls", "parameter_elements", "model_parameter_elements"),
        **numbers("multiply_adds", *counts_by_role(())),
    }
    scalars: Row
    rows: tuple[Row, ...]


@dataclass
class _Seen:
    """What is kept of the calls of the module of a name: how often it was used, and records of the first call."""

    name: str
    calls: int = 0
    times: int = 0
    steps: int = 0
    padded_steps: int = 0
    rows: list[Row] = field(default_factory=list)

    def note(self, module: Recurrent, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Take in a call."""
        call = call_of(module, args, kwargs, output)
        try:
            read = extent(module, call.given)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None
        if not self.calls:
            self.rows.extend(tensor_rows(module, call, read))
        self.calls += 1
        self.times += read.longest
        self.steps += read.steps
        self.padded_steps += read.padded_steps


def recurrent_shapes(
    model: nn.Module, run: Callable[[], Any], *, only: Collection[str] | None = None
) -> RecurrentShapes:
    """Run a model once and describe every recurrent module in it.

    Args:
        model: anything with nn.RNN, nn.GRU, nn.LSTM, their cells or ManualRNNCell in it.
        run: calls the model once, without gradients; what it returns is dropped.
        only: names of recurrent modules; all if left out.
    Returns:
        A frozen ``RecurrentShapes``. The model is left as it was, apart from what its own forward changes.
    Raises:
        InputError: no recurrent module, an unknown name in ``only``, or an input that a
            recurrent module cannot have taken.
    """
    found = _recurrent_modules(model)
    if not found:
        raise InputError(f"model has no recurrent module. Expected is one of {SUPPORTED}; it has {_types(model)}")
    found = _chosen(found, only)
    with torch.no_grad(), _watched(found) as seen:
        run()
    return _described(model, found, seen)


def model_shapes(model: nn.Module, run: Callable[[], Any], only: Collection[str] | None = None) -> RecurrentShapes:
    """Run a model once with gradients; describe every recurrent module in it, and how often each parameter is used.

    Args:
        model: any module; left as a forward pass leaves it, with no gradients.
        run: calls it once, and returns what it returned.
        only: names or patterns of modules or parameters; all if left out.
    Raises:
        InputError: neither a parameter nor a recurrent module, an unknown name in ``only``, an input that a
            recurrent module cannot have taken.
    """
    found = _recurrent_modules(model)
    if not found and next(model.parameters(), None) is None:
        raise InputError(f"the model has no parameter and no recurrent module; it has {_types(model)}")
    with _watched(found) as seen:
        uses = ForwardPass(model, run).uses
    if only is not None:
        uses = picked_uses(model, uses, [only] if isinstance(only, str) else only)
        own = {id(each.parameter) for each in uses}
        found = {name: each for name, each in found.items() if any(id(p) in own for p in each.parameters())}
    shapes = _described(model, found, seen)
    return RecurrentShapes({**shapes.scalars, **use_scalars(uses)}, (*shapes.rows, *use_rows(uses)))


def _described(model: nn.Module, found: Mapping[str, Recurrent], seen: Mapping[str, _Seen]) -> RecurrentShapes:
    labels = _first_labels(found)
    rows = tuple(record for name, module in found.items() for record in _rows(name, module, seen[name], labels))
    return RecurrentShapes(_scalars(model, found, rows), rows)


def _recurrent_modules(model: nn.Module) -> Mapping[str, Recurrent]:
    require_module(model)
    return {name or ROOT: module for name, module in model.named_modules() if class_of(module) is not None}


def _types(model: nn.Module) -> str:
    """The classes of its modules, in words."""
    types = Counter(type(module).__name__ for module in model.modules())
    return ", ".join(name if count == 1 else f"{name} ({count} times)" for name, count in types.items())


def _chosen(found: Mapping[str, Recurrent], only: Collection[str] | None) -> Mapping[str, Recurrent]:
    if only is None:
        return found
    wanted = {name or ROOT for name in ([only] if isinstance(only, str) else only)}
    if not wanted:
        raise InputError(f"only must name at least one recurrent module; the model has {', '.join(found)}")
    for name in sorted(wanted - set(found)):
        raise InputError(
            f"model has no recurrent module {name!r}; it has {', '.join(found)}.{did_you_mean(name, found)}"
        )
    return {name: module for name, module in found.items() if name in wanted}


@contextmanager
def _watched(found: Mapping[str, Recurrent]) -> Iterator[Mapping[str, _Seen]]:
    """Within, the calls of these modules are noted."""
    seen = {name: _Seen(name) for name in found}
    with ExitStack() as stack:
        for name, module in found.items():
            stack.enter_context(hooked(module, seen[name].note))
        yield seen


def _first_labels(found: Mapping[str, Recurrent]) -> Mapping[int, str]:
    """Where each parameter is met first, by identity."""
    labels: dict[int, str] = {}
    for name, module in found.items():
        for symbol, parameter in module.named_parameters():
            labels.setdefault(id(parameter), _label(name, symbol))
    return labels


def _label(module: str, symbol: str) -> str:
    return symbol if module == ROOT else f"{module}.{symbol}"


def _rows(name: str, module: Recurrent, seen: _Seen, labels: Mapping[int, str]) -> Iterator[Row]:
    known, parameters = weights(module), dict(module.named_parameters(remove_duplicate=False))
    records = [_module_row(module, known, seen), *seen.rows]
    for weight in known:
        value, shared = _value(module, weight.symbol, parameters), _shared(name, weight.symbol, parameters, labels)
        records += _weight_rows(weight, value, shared, seen)
    own = {weight.symbol for weight in known}
    records += [_other_row(symbol, value, seen) for symbol, value in parameters.items() if symbol not in own]
    return ({"kind": record["kind"], "module": name, **record} for record in records)


def _module_row(module: Recurrent, known: tuple[Weight, ...], seen: _Seen) -> Row:
    return {
        **module_row(Label("module", title(module), settings(module), ""), None),
        "elements": sum(parameter.numel() for parameter in module.parameters()),
        "used": seen.calls,
        "multiply_adds": seen.steps * sum(weight.products for weight in known),
        "steps": seen.steps,
        "padded_steps": seen.padded_steps,
    }


def _weight_rows(weight: Weight, value: Tensor | None, shared: str, seen: _Seen) -> Iterator[Row]:
    """The weight, and its part of every gate."""
    yield _weight_row("parameter", weight, weight.name + shared, value, seen)
    for rows, part in weight.slices():
        yield _weight_row("gate", part, part.name, None if value is None else value[rows], seen)


def _weight_row(kind: str, weight: Weight, name: str, value: Tensor | None, seen: _Seen) -> Row:
    counts = {"used": seen.times, "multiply_adds": seen.steps * weight.products}
    return module_row(Label(kind, weight.symbol, name, weight.symbolic_shape), value, weight.shape, **counts)


def _other_row(symbol: str, value: Tensor, seen: _Seen) -> Row:
    return module_row(Label("parameter", symbol, "of a parametrization or a subclass", ""), value, used=seen.times)


def _value(module: nn.Module, symbol: str, parameters: Mapping[str, Tensor]) -> Tensor | None:
    """The weight as it stands; None where a parametrization makes it anew, for that may change its buffers."""
    value = parameters.get(symbol, vars(module).get(symbol))
    return value if isinstance(value, Tensor) else None


def _shared(name: str, symbol: str, parameters: Mapping[str, Tensor], labels: Mapping[int, str]) -> str:
    if symbol not in parameters:
        return "; made from other parameters"
    first = labels[id(parameters[symbol])]
    return "" if first == _label(name, symbol) else f"; the same tensor as {first}"


def _scalars(model: nn.Module, found: Mapping[str, Recurrent], rows: tuple[Row, ...]) -> Row:
    modules = [record for record in rows if record["kind"] == "module"]
    # By identity: a tensor that two modules share is one parameter.
    recurrent = {id(parameter): parameter.numel() for module in found.values() for parameter in module.parameters()}
    return {
        "modules": len(modules),
        "modules_not_called": sum(record["used"] == 0 for record in modules),
        "calls": sum(record["used"] for record in modules),
        "parameter_elements": sum(recurrent.values()),
        "model_parameter_elements": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": sum(record["multiply_adds"] for record in modules),
    }
