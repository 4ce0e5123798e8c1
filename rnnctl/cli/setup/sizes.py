"""Every size from whoever gives it: flags, data, weights, or the default."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.model import ModelOptions
from rnnctl.errors import InputError
from rnnctl.files.arrays import Sequences
from rnnctl.files.weights import Weights
from rnnctl.memory import require_memory

DEFAULT_SIZES = {"input_size": 10, "hidden_size": 20, "output_size": 5, "seq_len": 7, "batch_size": 4}


def settled_sizes(
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


def sizes_for(network: nn.Module, model: ModelOptions, data: DataOptions, found: Sequences | None) -> dict[str, int]:
    """Sizes of the data, or of random numbers that a network takes as far as it says what it takes."""
    claims: dict[str, list[tuple[int, str]]] = {name: [] for name in ("input_size", "seq_len", "batch_size")}
    for name, group in (("input_size", model), ("seq_len", data), ("batch_size", data)):
        flag = getattr(group, name)
        if flag is not None:
            claims[name].append((flag, f"--{name.replace('_', '-')}"))
    if found is not None:
        for name, size in zip(("batch_size", "seq_len", "input_size"), found.values.shape, strict=False):
            claims[name].append((size, found.source))
    elif not claims["input_size"]:
        known = [getattr(module, "input_size", None) for module in network.modules()]
        claims["input_size"] = [(size, "the model") for size in known if isinstance(size, int)][:1]
    if found is not None and found.values.ndim == 2:
        # Token numbers have no features.
        del claims["input_size"]
    return {name: _settled(name, claims[name]) for name in claims}


def _settled(name: str, claims: list[tuple[int, str]]) -> int:
    if not claims:
        return DEFAULT_SIZES[name]
    (size, first), *others = claims
    for other, source in others:
        if other != size:
            raise InputError(f"{first} says {name.replace('_', '-')} {size}; {source} has {other}")
    return size


def require_room(sizes: Mapping[str, int], dtype: torch.dtype) -> None:
    inputs, hidden, outputs, seq_len, batch = sizes.values()
    # Drawn in float32, then converted.
    each = 4 + dtype.itemsize
    parameters = hidden * (inputs + hidden + outputs)
    require_memory(each * parameters, f"a model with {parameters:,} weights")
    require_memory(each * batch * seq_len * inputs, f"an input of shape ({batch}, {seq_len}, {inputs})")
    # Every command computes at least one h_t from its pre-activation.
    require_memory(3 * each * batch * hidden, f"hidden states of shape ({batch}, {hidden})")
