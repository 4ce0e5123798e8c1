"""The parts of an experiment that every kind of model shares: outputs, device, data, what is recorded."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnctl.cli.options.data import DataOptions, LengthOptions
from rnnctl.cli.options.model import ModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.output.emit import require_not_read
from rnnctl.cli.streams import tell
from rnnctl.errors import DeviceError, InputError
from rnnctl.files.arrays import Sequences, read_lengths, read_sequences, read_target
from rnnctl.files.preparing import fitted_target, split_next, standardized
from rnnctl.files.writing import require_writable


def require_outputs(model: ModelOptions, out: OutputOptions, *sources: str | Path | None) -> None:
    for path in (out.output, model.save_weights):
        require_not_read(path, *sources)
        if path is not None:
            require_writable(path, force=out.force)
    if out.output is not None and out.output == model.save_weights:
        raise InputError(f"-o and --save-weights both name {str(out.output)!r}; give each a file of its own")
    if model.save_weights is not None and model.save_weights.suffix.lower() != ".safetensors":
        raise InputError(f"--save-weights writes .safetensors; got {str(model.save_weights)!r}. Change the suffix")


def chosen_device(name: str) -> torch.device:
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if here[kind]))
    if not here[name]:
        there = ", ".join(kind for kind, available in here.items() if available)
        raise DeviceError(f"--device {name}: this torch finds no such device; available: {there}")
    return torch.device(name)


def read_data(
    data: DataOptions,
    out: OutputOptions,
    loss: str | None,
    ragged: LengthOptions | None = None,
    *,
    tokens: bool = False,
) -> tuple[Sequences | None, Any]:
    """What --input and --target give: sequences, and targets as an array.

    Args:
        loss: None for one of the user's own, which takes what it likes.
        ragged: given by a command that takes sequences of different lengths.
        tokens: whether --input may hold whole numbers.
    """
    if data.input is None:
        _require_no_input_flags(data)
        found = None
    else:
        columns = [name.strip() for name in data.columns.split(",")] if data.columns else []
        found = read_sequences(
            data.input,
            input_format=data.input_format,
            key=data.input_key,
            columns=columns,
            ragged=ragged is not None,
            tokens=tokens,
        )
        found = _with_lengths(found, ragged)
        if data.standardize and _are_tokens(found):
            raise InputError(f"--standardize is for values; {found.source} holds token numbers. Leave it out")
        if data.standardize:
            found, constant = standardized(found)
            tell_notes((f"{name} is constant: standardized to 0, not divided by 0" for name in constant), out)
    if data.target == "dummy":
        return found, None
    if data.target != "next":
        return found, read_target(data.target)
    if found is None:
        raise InputError("--target next predicts x_{t+1} of real data: add --input FILE|NAME|-")
    if loss == "cross-entropy" and not _are_tokens(found):
        raise InputError("--target next gives numbers; cross-entropy takes integer classes. Try --loss mse")
    if loss == "mse" and _are_tokens(found):
        raise InputError(
            f"--target next of {found.source} gives token numbers, which are classes: --loss cross-entropy"
        )
    return split_next(found)


def _are_tokens(found: Sequences) -> bool:
    return found.values.ndim == 2


def _with_lengths(found: Sequences, ragged: LengthOptions | None) -> Sequences:
    """The sequences with what --lengths says of them."""
    if ragged is None or ragged.lengths is None:
        return found
    lengths = read_lengths(ragged.lengths, *found.values.shape[:2])
    if found.lengths is not None and (found.lengths != lengths).any():
        raise InputError(f"--lengths {ragged.lengths} contradicts the nan padding of {found.source}. Leave it out")
    return replace(found, lengths=lengths)


def real_lengths(found: Sequences | None, ragged: LengthOptions | None, sizes: Mapping[str, int]) -> Tensor | None:
    """Real steps of every sequence, (batch,), or None where all are as long."""
    if found is None:
        path = None if ragged is None else ragged.lengths
        lengths = None if path is None else read_lengths(path, sizes["batch_size"], sizes["seq_len"])
    else:
        lengths = found.lengths
    return None if lengths is None else torch.from_numpy(lengths.copy())


def _require_no_input_flags(data: DataOptions) -> None:
    for name in ("input_format", "input_key", "columns", "standardize"):
        if getattr(data, name):
            raise InputError(f"--{name.replace('_', '-')} is about --input, which is not given")


def inputs(found: Sequences | None, sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
    if found is not None:
        return torch.from_numpy(found.values.copy())
    shape = sizes["batch_size"], sizes["seq_len"], sizes["input_size"]
    return torch.randn(shape, generator=generator)


def in_range(values: Tensor, dtype: torch.dtype, source: str | None) -> Tensor:
    """The values in the dtype, refused where they leave its range."""
    converted = values.to(dtype)
    if not torch.isfinite(converted).all():
        largest = float(values.abs().max())
        raise InputError(
            f"{source} holds values up to {largest:.3g}; {dtype} ends at {torch.finfo(dtype).max:.3g}. "
            "Try --standardize or --dtype float64"
        )
    return converted


def fitted(targets: Any, data: DataOptions, sizes: Mapping[str, int], loss: str, dtype: torch.dtype) -> Tensor | None:
    if targets is None:
        return None
    classes = loss == "cross-entropy"
    fitted = fitted_target(targets, sizes["batch_size"], sizes["seq_len"], classes=classes, source=data.target)
    tensor = torch.from_numpy(fitted.copy())
    return tensor if classes else in_range(tensor, dtype, f"--target {data.target}")


def recorded(*groups: Any) -> dict[str, Any]:
    """The options as JSON can hold them."""
    values = {field.name: getattr(group, field.name) for group in groups for field in fields(group)}
    kept = (bool, int, float, list, type(None))
    return {name: value if isinstance(value, kept) else str(value) for name, value in values.items()}


def tell_of_half_precision(dtype: torch.dtype, out: OutputOptions) -> None:
    """Half precision is what the states have, not the sweep."""
    if dtype.itemsize < 4:
        name = str(dtype).removeprefix("torch.")
        tell_notes((f"states in {name}; the gradients are swept along them in float32",), out)


def tell_notes(notes: Any, out: OutputOptions) -> None:
    if not out.quiet:
        for note in notes:
            tell(f"Note: {note}")
