"""From options to a model and a batch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnctl.cells import FullRNN
from rnnctl.cli.options import DataOptions, ModelOptions, OutputOptions, RunOptions
from rnnctl.cli.sizes import require_room, settled_sizes
from rnnctl.cli.streams import tell
from rnnctl.errors import DeviceError, InputError
from rnnctl.files.arrays import Sequences, read_sequences, read_target
from rnnctl.files.preparing import fitted_target, split_next, standardized
from rnnctl.files.weights import Weights, read_weights, write_weights
from rnnctl.files.writing import require_writable
from rnnctl.initializers import initialize_W_hh


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
    _require_outputs(model, out, data.input, data.target, model.weights, out.config)
    device, torch_dtype = _device(run.device), getattr(torch, run.dtype or dtype)
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    found, targets = _sequences(data, out, loss)
    weights = read_weights(model.weights) if model.weights is not None else None
    sizes = settled_sizes(model, data, found, targets, weights, loss)
    require_room(sizes, torch_dtype)
    network, generator = _network(model, sizes, weights, run.seed, torch_dtype)
    _tell(_notes(weights, torch_dtype), out)
    if "loss_at" in also and torch_dtype.itemsize < 4:
        _tell((f"states in {run.dtype}; the gradients are swept along them in float32",), out)
    x = _in_range(_x(found, sizes, generator), torch_dtype, data.input)
    h_init = torch.zeros(sizes["batch_size"], sizes["hidden_size"])
    if data.h_init == "normal":
        h_init.normal_(generator=generator)
    target = _target(targets, data, sizes, loss, torch_dtype)
    if model.save_weights is not None:
        write_weights(model.save_weights, network.state_dict())
        _tell((f"wrote {model.save_weights}",), out)
    resolved = {**sizes, "nonlinearity": network.rnn_cell.nonlinearity, "dtype": run.dtype or dtype}
    resolved["h_init"] = data.h_init or "zeros"
    where = {"device": str(device), "threads": torch.get_num_threads()}
    return Experiment(
        network.to(device),
        x.to(device),
        None if target is None else target.to(device),
        h_init.to(device, torch_dtype),
        {**_recorded(model, data, run), **resolved, **where, "loss": loss, **also},
    )


def _require_outputs(model: ModelOptions, out: OutputOptions, *sources: str | Path | None) -> None:
    read = {Path(source).resolve() for source in sources if source is not None and source != "-"}
    for path in (out.output, model.save_weights):
        if path is not None and path.resolve() in read:
            raise InputError(f"{str(path)!r} is read by this very command; write to another file")
        if path is not None:
            require_writable(path, force=out.force)
    if out.output is not None and out.output == model.save_weights:
        raise InputError(f"-o and --save-weights both name {str(out.output)!r}; give each a file of its own")
    if model.save_weights is not None and model.save_weights.suffix.lower() != ".safetensors":
        raise InputError(f"--save-weights writes .safetensors; got {str(model.save_weights)!r}. Change the suffix")


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


def _network(
    model: ModelOptions, sizes: Mapping[str, int], weights: Weights | None, seed: int, dtype: torch.dtype
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
    # Drawn in float32 and converted, so that every dtype has the same network.
    initialize_W_hh(network.rnn_cell.hidden_to_hidden.weight, model.init, model.gain, generator)
    network = network.to(dtype)
    if not torch.isfinite(network.rnn_cell.hidden_to_hidden.weight).all():
        raise InputError(f"--gain {model.gain:g} takes W_hh beyond {dtype}, which ends at {torch.finfo(dtype).max:.3g}")
    if weights is not None:
        _require_no_contradiction(model, weights)
        network.load_state_dict(dict(weights.tensors), strict=False)
    return network, generator


def _require_no_contradiction(model: ModelOptions, weights: Weights) -> None:
    if model.init != "default" or model.gain != 1.0:
        raise InputError("--weights gives W_hh; --init and --gain would replace it. Leave one of them out")
    if weights.bias and not model.bias:
        raise InputError(f"--no-bias contradicts {model.weights}, which has biases. Leave it out")


def _notes(weights: Weights | None, dtype: torch.dtype) -> tuple[str, ...]:
    """What to say of the weights that were read."""
    if weights is None:
        return ()
    own = {tensor.dtype for tensor in weights.tensors.values()}
    rounded = [str(kind).removeprefix("torch.") for kind in own if kind.itemsize > dtype.itemsize]
    name = str(dtype).removeprefix("torch.")
    return (
        *weights.notes,
        *(f"weights in {kind} are rounded to {name}; --dtype {kind} keeps them" for kind in rounded),
    )


def _x(found: Sequences | None, sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
    if found is not None:
        return torch.from_numpy(found.values.copy())
    shape = sizes["batch_size"], sizes["seq_len"], sizes["input_size"]
    return torch.randn(shape, generator=generator)


def _in_range(values: Tensor, dtype: torch.dtype, source: str | None) -> Tensor:
    """The values in the dtype, refused where they leave its range."""
    converted = values.to(dtype)
    if not torch.isfinite(converted).all():
        largest = float(values.abs().max())
        raise InputError(
            f"{source} holds values up to {largest:.3g}; {dtype} ends at {torch.finfo(dtype).max:.3g}. "
            "Try --standardize or --dtype float64"
        )
    return converted


def _target(targets: Any, data: DataOptions, sizes: Mapping[str, int], loss: str, dtype: torch.dtype) -> Tensor | None:
    if targets is None:
        return None
    classes = loss == "cross-entropy"
    fitted = fitted_target(targets, sizes["batch_size"], sizes["seq_len"], classes=classes, source=data.target)
    tensor = torch.from_numpy(fitted.copy())
    return tensor if classes else _in_range(tensor, dtype, f"--target {data.target}")


def _recorded(*groups: Any) -> dict[str, Any]:
    """The options as JSON can hold them."""
    values = {field.name: getattr(group, field.name) for group in groups for field in fields(group)}
    plain = {name: value if value is None else str(value) for name, value in values.items()}
    return {name: value if isinstance(value, (bool, int, float)) else plain[name] for name, value in values.items()}


def _tell(notes: Any, out: OutputOptions) -> None:
    if not out.quiet:
        for note in notes:
            tell(f"Note: {note}")
