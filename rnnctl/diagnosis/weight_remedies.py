"""Remedies that draw the recurrent weights anew, or put another cell in their place; each with its lines of Python."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnctl.cells import FullRNN, ManualRNNCell
from rnnctl.diagnosis.case import Case, place, putting
from rnnctl.diagnosis.found_weights import critical_by_measure
from rnnctl.errors import InputError
from rnnctl.initializers import chrono_, critical_, forget_bias_, identity_, orthogonal_
from rnnctl.models.calls import argument, cell_weights, layer_weights
from rnnctl.models.hooks import hooked
from rnnctl.models.modules import Found, is_layer, known_kind
from rnnctl.models.torch_layers import LayeredRNN
from rnnctl.recurrence.weights import affine

# What lines need that have such a word in them.
IMPORTS = {
    "torch.": "import torch",
    "nn.": "from torch import nn",
    "chrono_(": "from rnnctl.initializers import chrono_",
    "LayeredRNN(": "from rnnctl.models.torch_layers import LayeredRNN",
}
NO_ELMAN = "no plain Elman layer or cell is in the model"


def critical(case: Case) -> Case:
    """An orthogonal W_hh: of an Elman network at the gain that is critical for its input, of others at 1."""
    if not case.recurrent:
        return critical_by_measure(case)
    lines = []
    variances = _source_variances(case)
    for found in case.recurrent:
        if known_kind(found.module).nonlinearity is None:
            orthogonal_(found.module)
            lines.append(f"orthogonal_({place(found.name)})")
        elif found.name in variances:
            critical_(found.module, variances[found.name])
            lines.append(f"critical_({place(found.name)}, source_variance={variances[found.name]})")
        else:
            raise InputError(f"{found.name or 'the model'} was not called, so that its input is not known")
    names = sorted({line.partition("(")[0] for line in lines})
    return case.changed([f"from rnnctl.initializers import {', '.join(names)}", "", *lines])


def identity_and_relu(case: Case) -> Case:
    """relu, the identity as W_hh, and no biases, which would add up from step to step."""
    lines = ["from torch import nn", "from rnnctl.initializers import identity_", ""]
    for found in _elman(case):
        module, here = found.module, place(found.name)
        lines += _with_relu(module, here)
        identity_(module)
        for name, parameter in module.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
        lines += [f"identity_({here})", f"for name, parameter in {here}.named_parameters():"]
        lines += ['    if "bias" in name:', "        nn.init.zeros_(parameter)"]
    return case.changed(lines)


def _with_relu(module: Any, here: str) -> list[str]:
    """Let an Elman layer or cell have relu; the lines that do it."""
    module.nonlinearity = "relu"
    lines = [f'{here}.nonlinearity = "relu"']
    if isinstance(module, nn.RNN):
        module.mode = "RNN_RELU"
        lines.append(f'{here}.mode = "RNN_RELU"')
    elif isinstance(module, ManualRNNCell):
        module.activation = nn.ReLU()
        lines.append(f"{here}.activation = nn.ReLU()")
    return lines


def forget_bias(case: Case) -> Case:
    """Gates that start open: by 1, or so far that 1/e of the state is left after the lag."""
    value = 1.0 if case.lag is None else round(max(1.0, math.log(max(1, case.lag))), 2)
    return _on_gates(case, "forget_bias_", lambda module: forget_bias_(module, value), value)


def chrono(case: Case) -> Case:
    """Chrono initialisation for the lag; where that is not known for the length of the sequences."""
    longest = _longest(case)
    return _on_gates(case, "chrono_", lambda module: chrono_(module, longest), longest)


def _on_gates(case: Case, name: str, change: Callable[[nn.Module], object], value: float) -> Case:
    gated = [found for found in case.recurrent if known_kind(found.module).keep is not None]
    if not gated:
        raise InputError("no LSTM or GRU is in the model: nothing has a gate that keeps the state")
    for found in gated:
        change(found.module)
    calls = [f"{name}({place(found.name)}, {value})" for found in gated]
    return case.changed([f"from rnnctl.initializers import {name}", "", *calls])


def _longest(case: Case) -> int:
    return max(2, (case.sequences[1] if case.lag is None else case.lag) + 1)


def lstm(case: Case) -> Case:
    """An LSTM of the same sizes for every Elman layer; chrono initialisation where there are biases."""
    return _gated(case, "LSTM")


def gru(case: Case) -> Case:
    """A GRU of the same sizes for every Elman layer or cell; chrono initialisation where there are biases."""
    return _gated(case, "GRU")


def _gated(case: Case, kind: str) -> Case:
    longest, lines = _longest(case), []
    whole = {name: module for name, module in case.model.named_modules() if isinstance(module, FullRNN)}
    replaced = [_whole(name, module, kind) for name, module in whole.items()] or [
        _part(found, kind) for found in _elman(case)
    ]
    for name, inner, make, expression, more in replaced:
        case = case.changed((), model=case.put(name, make()))
        recurs = ".".join(filter(None, (name, inner)))
        lines += [putting(name, expression), *more]
        put = case.model.get_submodule(recurs)
        if put.bias:
            chrono_(put, longest)
            lines.append(f"chrono_({place(recurs)}, {longest})")
    return case.changed([*(each for word, each in IMPORTS.items() if word in "".join(lines)), "", *lines])


# Under which name in the model, where in it the layer stands then, how it is made, the same as an expression, and
# further lines.
_Replaced = tuple[str, str, Callable[[], nn.Module], str, list[str]]


def _whole(name: str, module: FullRNN, kind: str) -> _Replaced:
    """A network of torch's in place of a hand-written one, which has one form of cell alone."""
    cell, bias = module.rnn_cell, module.hidden_to_output.bias is not None
    sizes = (kind.lower(), cell.input_size, cell.hidden_size, module.output_size)
    end, like = module.output_activation, module.hidden_to_output.weight

    def made() -> nn.Module:
        layered = LayeredRNN(*sizes, bias=bias).to(like)
        layered.output_activation = end
        return layered.train(module.training)

    said = f"LayeredRNN({', '.join(map(repr, sizes))}{'' if bias else ', bias=False'}){_moved(like)}"
    more = [] if isinstance(end, nn.Identity) else [f"{place(name)}.output_activation = nn.{end!r}"]
    return name, "rnn", made, said.replace("'", '"'), more


def _part(found: Found, kind: str) -> _Replaced:
    """A layer in place of a layer, or a cell in place of a cell."""
    module: Any = found.module
    like: Tensor = module.get_parameter(found.weights[0])
    if not is_layer(module):
        if kind == "LSTM":
            raise InputError("the model's own code hands one tensor from step to step, and an LSTM's cell needs two")
        bias = cell_weights(module).b_ih is not None
        arguments = [repr(module.input_size), repr(module.hidden_size), *([] if bias else ["bias=False"])]
        settings = {"bias": bias}
    else:
        plain = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        settings = {name: getattr(module, name) for name in plain if getattr(module, name) != plain[name]}
        arguments = [repr(module.input_size), repr(module.hidden_size)]
        arguments += [f"{name}={value!r}" for name, value in settings.items()]
    of = getattr(nn, kind if is_layer(module) else f"{kind}Cell")

    def made() -> nn.Module:
        put: nn.Module = of(module.input_size, module.hidden_size, **settings).to(like)
        return put.train(module.training)

    return found.name, "", made, f"nn.{of.__name__}({', '.join(arguments)}){_moved(like)}", []


def _moved(like: Tensor) -> str:
    """What an expression needs behind it to make a module as this tensor is, of any shape."""
    parts = [] if like.device.type == "cpu" else [f'"{like.device}"']
    parts += [] if like.dtype == torch.get_default_dtype() else [f"dtype={like.dtype}"]
    return f".to({', '.join(parts)})" if parts else ""


def _elman(case: Case) -> list[Found]:
    """Those of torch's or our own class itself: what a subclass does is not known."""
    found = [each for each in case.recurrent if type(each.module) in (nn.RNN, nn.RNNCell, ManualRNNCell)]
    if not found:
        raise InputError(NO_ELMAN)
    return found


def _source_variances(case: Case) -> dict[str, float]:
    """Of every Elman module that is called, by name, the mean square of what its first layer gets from outside."""
    found = [each for each in case.recurrent if known_kind(each.module).nonlinearity is not None]
    sums: dict[str, list[tuple[float, int]]] = {each.name: [] for each in found}

    def noting(name: str) -> Callable[..., None]:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = argument(args, kwargs, 0, "input", "x_t")
            brought = _brought(module, x.data if isinstance(x, PackedSequence) else x)
            sums[name].append((float(brought.double().square().sum()), brought.numel()))

        return before

    with ExitStack() as stack, torch.no_grad():
        for each in found:
            stack.enter_context(hooked(each.module, before=noting(each.name)))
        case.returned()
    totals = {name: tuple(map(sum, zip(*parts, strict=True))) for name, parts in sums.items() if parts}
    # To the digits that the lines show, so that both mean one gain.
    return {name: float(f"{total / count:.4g}") for name, (total, count) in totals.items()}


def _brought(module: nn.Module, x: Tensor) -> Tensor:
    """W_xh x_t + b_xh + b_hh of the first layer forward, of x (..., input); shape (n, hidden)."""
    weights = layer_weights(module)[0][0] if isinstance(module, nn.RNNBase) else cell_weights(module)
    return affine(x, weights.W_ih, weights.b_h)
