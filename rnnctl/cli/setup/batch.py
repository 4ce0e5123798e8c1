"""The batch of an experiment: what files hold, or random numbers, as the network takes them."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.setup.process import seeded
from rnnctl.cli.setup.request import Request
from rnnctl.errors import InputError, ShapeError
from rnnctl.files.arrays import Reader, Sequences, read_lengths, read_sequences, read_target
from rnnctl.files.cut import Cut
from rnnctl.files.dialect import Dialect
from rnnctl.files.models import load_batch
from rnnctl.files.preparing import fitted_target, split_next, standardized
from rnnctl.models.inputs import Inputs, inputs_returned


@dataclass(frozen=True)
class Data:
    """What --input, --batch and --target gave.

    Attributes:
        sequences: None for random numbers.
        targets: an array, of any shape that can be brought to (batch, time, output); None for zeros.
        notes: what is to be told of them.
        inputs: all that the model takes, from a function of the user's; else None.
        reader: of all files, --lengths included; it knows what was decided of them.
    """

    sequences: Sequences | None
    targets: Any
    notes: tuple[str, ...] = ()
    inputs: Inputs | None = None
    reader: Reader = field(default_factory=Reader)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of the sequences, (batch, time, ...); None for random numbers."""
        if self.inputs is not None:
            return self.inputs.shape
        return None if self.sequences is None else self.sequences.values.shape

    @property
    def given_by(self) -> str:
        """What messages about the model call it."""
        if self.inputs is not None:
            return self.inputs.name
        return "the random input" if self.sequences is None else "--input"

    @property
    def source(self) -> str:
        """What messages call the sequences."""
        if self.inputs is not None:
            return self.inputs.name
        return "random numbers" if self.sequences is None else self.sequences.source


@dataclass(frozen=True)
class Batch:
    """What a network is run on.

    Attributes:
        x: shape (batch, time, input), or whole numbers (batch, time); or all inputs of the model.
        target: shape (batch, time, output), integers (batch, time) for classes; None for zeros.
        h_init: shape (batch, hidden); None where the network starts as it does by itself.
        lengths: real steps of every sequence, shape (batch,), where they differ; else None.
    """

    x: Tensor | Inputs
    target: Tensor | None
    h_init: Tensor | None
    lengths: Tensor | None


def read_data(request: Request) -> Data:
    """Read what --input and --target name, or call what --batch names."""
    target, reader = request.data.target, Reader(_dialect(request.data))
    if request.batch is not None:
        inputs = _returned(request.batch, request.run.seed)
        return Data(None, _read_target(target, reader), inputs=inputs, reader=reader)
    if request.data.input is None:
        return Data(None, _read_target(target, reader), reader=reader)
    found, notes = _read_sequences(request, reader)
    if target != "next":
        return Data(found, _cut_target(found, request.data, reader), notes, reader=reader)
    # A loss of the user's own takes what it likes.
    if request.loss_fn is None:
        _require_predictable(found, request.loss)
    return Data(*split_next(found), notes, reader=reader)


def batch(
    request: Request, data: Data, sizes: Mapping[str, int], dtype: torch.dtype, generator: torch.Generator
) -> Batch:
    """The batch on the CPU, in the order in which its random numbers are drawn: x, then h_init.

    Args:
        sizes: of x, and of the state where h_init is ours to give.
        dtype: the network's.
    Raises:
        InputError: values that leave the dtype's range; --h-init beside lengths.
    """
    lengths = _real_lengths(request, data, sizes)
    if lengths is not None and request.data.h_init is not None:
        raise InputError("--h-init is not for sequences of different lengths, which start from zeros. Leave it out")
    x = _x(request, data, sizes, dtype, generator)
    starts_by_itself = not request.hand_written or lengths is not None
    h_init = None if starts_by_itself else _h_init(request.h_init, sizes, generator).to(dtype)
    target = _fitted(request, data, sizes, dtype)
    if request.measure is not None and not request.hand_written:
        # The exponents of a layer within a model are measured beside no loss.
        target = None
    # A model or a loss of the user's own may have steps of its own.
    if target is not None and request.loss_fn is None and request.own.model is None:
        _require_steps(target, request, data, sizes)
    return Batch(x, target, h_init, lengths)


def _require_steps(target: Tensor, request: Request, data: Data, sizes: Mapping[str, int]) -> None:
    """Raise ShapeError for a target (batch, time) or (batch, time, output) of other steps than the input."""
    axes = 2 if request.loss == "cross-entropy" else 3
    seq_len = sizes["seq_len"]
    if target.ndim == axes and len(target) == sizes["batch_size"] and target.shape[1] != seq_len:
        steps, source, there = target.shape[1], "the input", seq_len
        if (found := data.sequences) is not None:
            source, there = found.source, found.steps_in_file - request.data.skip_steps
        # More steps than there are cannot be taken; of random ones there are any.
        advice = f". Try --seq-len {steps}" if data.shape is None or steps <= there else ""
        needed = len(target), seq_len, *target.shape[2:]
        raise ShapeError(
            f"--target {request.data.target} must have shape {needed}; got {tuple(target.shape)}: a value for each of "
            f"the {seq_len} steps of {source}{advice}"
        )


def _returned(place: str, seed: int) -> Inputs:
    """What the user's function gives."""
    with seeded(seed):
        return inputs_returned(load_batch(place, seed), f"--batch {place}")


def _x(
    request: Request, data: Data, sizes: Mapping[str, int], dtype: torch.dtype, generator: torch.Generator
) -> Tensor | Inputs:
    if data.inputs is not None:
        # The user's own numbers stay as they are, unless a dtype is asked for: it is that of weights and data.
        return data.inputs if request.run.dtype is None else data.inputs.to(dtype=dtype)
    x = _inputs(data.sequences, sizes, generator)
    return _in_range(x, dtype, request.data.input) if x.is_floating_point() else x


def _dialect(data: DataOptions) -> Dialect:
    return Dialect(data.delimiter, data.decimal, None if data.header is None else data.header == "yes")


def _cut(data: DataOptions) -> Cut:
    """The steps of --input that are taken: T of them, and for --target next the one after."""
    take = data.seq_len
    return Cut(data.skip_steps, take + 1 if take is not None and data.target == "next" else take)


def _names(columns: str) -> Sequence[str]:
    """The names with commas between; one that holds a comma itself stands in quotes, as in the file."""
    return [name.strip() for name in next(csv.reader([columns], skipinitialspace=True))]


def _read_sequences(request: Request, reader: Reader) -> tuple[Sequences, tuple[str, ...]]:
    """The sequences, standardized where asked, and what is to be told of them."""
    data, ragged, cut = request.data, request.ragged, _cut(request.data)
    found = read_sequences(
        str(data.input),
        input_format=data.input_format,
        key=data.input_key,
        columns=_names(data.columns) if data.columns else (),
        ragged=ragged is not None,
        tokens=request.own.model is not None,
        cut=cut,
        reader=reader,
    )
    if ragged is not None and ragged.lengths is not None:
        found = _with_lengths(found, ragged.lengths, cut, reader)
    return _standardized(found, data)


def _standardized(found: Sequences, data: DataOptions) -> tuple[Sequences, tuple[str, ...]]:
    if not data.standardize:
        return found, ()
    if _are_tokens(found):
        raise InputError(f"--standardize is for values; {found.source} holds token numbers. Leave it out")
    found, constant = standardized(found)
    return found, tuple(f"{name} is constant: standardized to 0, not divided by 0" for name in constant)


def _read_target(name: str | None, reader: Reader) -> Any:
    return None if name in (None, "dummy") else read_target(str(name), reader)


def _cut_target(found: Sequences, data: DataOptions, reader: Reader) -> Any:
    """The target, of the steps that are taken of the sequences where it has a value for all of the file."""
    targets = _read_target(data.target, reader)
    if targets is None:
        return None
    cut = _cut(data).target(targets, len(found.values), found.steps_in_file)
    if cut.shape != targets.shape:
        first, last = data.skip_steps, data.skip_steps + found.values.shape[1] - 1
        reader.notes.append(f"{data.target}: cut as the input is, to its steps {first} to {last}")
    return cut


def _require_predictable(found: Sequences, loss: str) -> None:
    """Raise InputError where the next step is not what the loss compares with."""
    if loss == "cross-entropy" and not _are_tokens(found):
        raise InputError("--target next gives numbers; cross-entropy takes integer classes. Try --loss mse")
    if loss == "mse" and _are_tokens(found):
        raise InputError(
            f"--target next of {found.source} gives token numbers, which are classes: --loss cross-entropy"
        )


def _are_tokens(found: Sequences) -> bool:
    return found.values.ndim == 2


def _with_lengths(found: Sequences, path: Path, cut: Cut, reader: Reader) -> Sequences:
    """The sequences with what --lengths says of them, which is about all steps of the file."""
    lengths = read_lengths(path, len(found.values), found.steps_in_file, reader)
    lengths = cut.lengths(lengths, found.values.shape[1], str(path))
    if found.lengths is not None and (found.lengths != lengths).any():
        raise InputError(f"--lengths {path} contradicts the nan padding of {found.source}. Leave it out")
    return replace(found, lengths=lengths)


def _real_lengths(request: Request, data: Data, sizes: Mapping[str, int]) -> Tensor | None:
    """Real steps of every sequence, (batch,), or None where all are as long."""
    if data.sequences is None:
        path = None if request.ragged is None else request.ragged.lengths
        lengths = None if path is None else read_lengths(path, sizes["batch_size"], sizes["seq_len"], data.reader)
    else:
        lengths = data.sequences.lengths
    return None if lengths is None else torch.from_numpy(lengths.copy())


def _inputs(found: Sequences | None, sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
    if found is not None:
        return torch.from_numpy(found.values.copy())
    shape = sizes["batch_size"], sizes["seq_len"], sizes["input_size"]
    return torch.randn(shape, generator=generator)


def _h_init(kind: str, sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
    """Zeros, or normal numbers, of shape (batch, hidden)."""
    h_init = torch.zeros(sizes["batch_size"], sizes["hidden_size"])
    return h_init.normal_(generator=generator) if kind == "normal" else h_init


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


def _fitted(request: Request, data: Data, sizes: Mapping[str, int], dtype: torch.dtype) -> Tensor | None:
    """The target in the shape that the loss takes."""
    if data.targets is None:
        return None
    # Whole numbers for a loss of the user's own are classes.
    classes = request.loss == "cross-entropy" or (request.loss_fn is not None and data.targets.dtype.kind in "iu")
    source = str(request.data.target)
    array = fitted_target(data.targets, sizes["batch_size"], sizes["seq_len"], classes=classes, source=source)
    tensor = torch.from_numpy(array.copy())
    return tensor if classes else _in_range(tensor, dtype, f"--target {source}")
