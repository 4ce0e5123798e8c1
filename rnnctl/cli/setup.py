"""From options to a model and a batch."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from rnnctl.cells import FullRNN
from rnnctl.cli.options import DataOptions, ModelOptions, OutputOptions, RunOptions
from rnnctl.errors import DeviceError, InputError
from rnnctl.files.arrays import Sequences, read_sequences, read_target
from rnnctl.files.preparing import fitted_target, split_next, standardized
from rnnctl.files.weights import Weights, read_weights, write_weights
from rnnctl.files.writing import require_writable
from rnnctl.initializers import initialize_W_hh
from rnnctl.memory import require_memory

DEFAULT_SIZES = {"input_size": 10, "hidden_size": 20, "output_size": 5, "seq_len": 7, "batch_size": 4}


@dataclass(frozen=True)
class Experiment:
    """A model, a batch, and the configuration that they came from.

    ``x`` (batch, time, input), ``target`` as for ``gradnorm``, ``h_init`` (batch, hidden).
    """

    model: FullRNN
    x: Tensor
    target: Tensor | None
    h_init: Tensor
    config: Mapping[str, Any]


def build(
    model: ModelOptions,
    data: DataOptions,
    run: RunOptions,
    out: OutputOptions,
    *,
    loss: str = "mse",
    dtype: str = "float32",
    **also: Any,
) -> Experiment:
    """Read what is to be read, settle the sizes, build the model and the batch.

    Args:
        loss: cross-entropy makes a target integers.
        dtype: this command's default.
        also: further settings to record in the configuration.
    Raises:
        InputError: anything that contradicts something else, with both numbers.
    """
    _require_outputs(model, out)
    device, torch_dtype = _device(run.device), getattr(torch, run.dtype or dtype)
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    found, targets = _sequences(data, out, loss)
    weights = read_weights(model.weights) if model.weights is not None else None
    sizes = _settled_sizes(model, data, found, targets, weights, loss)
    _require_room(sizes, torch_dtype)
    _tell(weights.notes if weights else (), out)
    network, generator = _network(model, sizes, weights, run.seed)
    network = network.to(torch_dtype)
    if weights is not None:
        # After the conversion, so that float64 weights keep all their digits.
        network.load_state_dict(dict(weights.tensors), strict=False)
    x = _x(found, sizes, generator)
    h_init = torch.zeros(sizes["batch_size"], sizes["hidden_size"])
    if data.h_init == "normal":
        h_init.normal_(generator=generator)
    if model.save_weights is not None:
        write_weights(model.save_weights, network.state_dict())
        _tell((f"wrote {model.save_weights}",), out)
    target = _target(targets, data, sizes, loss, torch_dtype)
    groups = _recorded(model, data, run)
    resolved = {"nonlinearity": network.rnn_cell.nonlinearity, "dtype": run.dtype or dtype}
    config = {**groups, **sizes, **resolved, "device": str(device), "threads": torch.get_num_threads()}
    return Experiment(
        network.to(device),
        x.to(device, torch_dtype),
        None if target is None else target.to(device),
        h_init.to(device, torch_dtype),
        {**config, "loss": loss, **also},
    )


def _require_outputs(model: ModelOptions, out: OutputOptions) -> None:
    for path in (out.output, model.save_weights):
        if path is not None:
            require_writable(path, force=out.force)


def _device(name: str) -> torch.device:
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if here[kind]))
    if not here[name]:
        there = ", ".join(kind for kind, available in here.items() if available)
        raise DeviceError(f"--device {name}: this torch finds no such device; available: {there}")
    return torch.device(name)


def _sequences(data: DataOptions, out: OutputOptions, loss: str) -> tuple[Sequences | None, Any]:
    """What --input and --target give: sequences, and targets as an array."""
    if data.input is None:
        _require_no_input_flags(data)
        found = None
    else:
        columns = [name.strip() for name in data.columns.split(",")] if data.columns else []
        found = read_sequences(data.input, input_format=data.input_format, key=data.input_key, columns=columns)
        if data.standardize:
            found, constant = standardized(found)
            _tell((f"{name} is constant: standardized to 0, not divided by 0" for name in constant), out)
    if data.target == "dummy":
        return found, None
    if data.target != "next":
        return found, read_target(data.target)
    if loss == "cross-entropy":
        raise InputError("--target next gives numbers; cross-entropy takes integer classes. Try --loss mse")
    if found is None:
        raise InputError("--target next predicts x_{t+1} of real data: add --input FILE|NAME|-")
    return split_next(found)


def _require_no_input_flags(data: DataOptions) -> None:
    for name in ("input_format", "input_key", "columns", "standardize"):
        if getattr(data, name):
            raise InputError(f"--{name.replace('_', '-')} is about --input, which is not given")


def _settled_sizes(
    model: ModelOptions,
    data: DataOptions,
    found: Sequences | None,
    targets: Any,
    weights: Weights | None,
    loss: str,
) -> dict[str, int]:
    """Every size from whoever gives it; two that differ are an error, none is the default."""
    claims: dict[str, list[tuple[int, str]]] = {name: [] for name in DEFAULT_SIZES}
    for name in DEFAULT_SIZES:
        flag = getattr(model, name, None) or getattr(data, name, None)
        if flag is not None:
            claims[name].append((flag, f"--{name.replace('_', '-')}"))
    if weights is not None:
        for name in ("input_size", "hidden_size", "output_size"):
            if (size := getattr(weights, name)) is not None:
                claims[name].append((size, str(model.weights)))
    if found is not None:
        after_split = " (one less than its steps, for --target next)" if data.target == "next" else ""
        for name, size in zip(("batch_size", "seq_len", "input_size"), found.values.shape, strict=True):
            claims[name].append((size, found.source + (after_split if name == "seq_len" else "")))
    if targets is not None and loss == "mse":
        claims["output_size"].append((targets.shape[-1] if targets.ndim > 1 else 1, f"--target {data.target}"))
    return {name: _settled(name, claims[name]) for name in DEFAULT_SIZES}


def _settled(name: str, claims: list[tuple[int, str]]) -> int:
    if not claims:
        return DEFAULT_SIZES[name]
    (size, first), *others = claims
    for other, source in others:
        if other != size:
            raise InputError(f"{first} says {name.replace('_', '-')} {size}; {source} has {other}")
    return size


def _require_room(sizes: Mapping[str, int], dtype: torch.dtype) -> None:
    inputs, hidden, outputs, seq_len, batch = sizes.values()
    # Drawn in float32, then converted.
    each = 4 + dtype.itemsize
    parameters = hidden * (inputs + hidden + outputs)
    require_memory(each * parameters, f"a model with {parameters:,} weights")
    require_memory(each * batch * seq_len * inputs, f"an input of shape ({batch}, {seq_len}, {inputs})")


def _network(
    model: ModelOptions, sizes: Mapping[str, int], weights: Weights | None, seed: int
) -> tuple[FullRNN, torch.Generator]:
    """The network as ``torch.manual_seed(seed)`` builds it, and the generator to go on with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FullRNN(
            sizes["input_size"],
            sizes["hidden_size"],
            sizes["output_size"],
            nonlinearity=model.nonlinearity or "tanh",
            output_activation=model.output_activation,
            bias=model.bias and (weights is None or weights.bias),
        )
        generator = torch.Generator().set_state(torch.get_rng_state())
    if weights is not None:
        _require_no_init(model)
    initialize_W_hh(network.rnn_cell.hidden_to_hidden.weight, model.init, model.gain, generator)
    return network, generator


def _require_no_init(model: ModelOptions) -> None:
    if model.init != "default" or model.gain != 1.0:
        raise InputError("--weights gives W_hh; --init and --gain would replace it. Leave one of them out")


def _x(found: Sequences | None, sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
    if found is not None:
        return torch.from_numpy(found.values.copy())
    shape = sizes["batch_size"], sizes["seq_len"], sizes["input_size"]
    return torch.randn(shape, generator=generator)


def _target(targets: Any, data: DataOptions, sizes: Mapping[str, int], loss: str, dtype: torch.dtype) -> Tensor | None:
    if targets is None:
        return None
    classes = loss == "cross-entropy"
    fitted = fitted_target(targets, sizes["batch_size"], sizes["seq_len"], classes=classes, source=data.target)
    tensor = torch.from_numpy(fitted.copy())
    return tensor if classes else tensor.to(dtype)


def _recorded(*groups: Any) -> dict[str, Any]:
    """The options as JSON can hold them."""
    values = {field.name: getattr(group, field.name) for group in groups for field in fields(group)}
    plain = {name: value if value is None else str(value) for name, value in values.items()}
    return {name: value if isinstance(value, (bool, int, float)) else plain[name] for name, value in values.items()}


def _tell(notes: Any, out: OutputOptions) -> None:
    if not out.quiet:
        for note in notes:
            print(f"Note: {note}", file=sys.stderr)
