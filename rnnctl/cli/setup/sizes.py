"""Every size from whoever gives it: flags, data, weights, or the default."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.output.emit import chosen_format
from rnnctl.cli.setup.batch import Data
from rnnctl.cli.setup.request import DEFAULT_SIZES, Request
from rnnctl.errors import InputError
from rnnctl.files.weights import Weights
from rnnctl.memory import require_memory

# Bytes of one value of a row on its way to text, measured: as records, copied and joined for JSON; as cells of a table
# that shows all of them; as records alone.
JSON_BYTES, CELL_BYTES, RECORD_BYTES = 350, 650, 105
# The axes of sequences, in their order.
OF_SEQUENCES = ("batch_size", "seq_len", "input_size")


def settled_sizes(request: Request, data: Data, weights: Weights | None = None) -> dict[str, int]:
    """Every size from whoever gives it; two that differ are an error, none is the default."""
    claims = _claims_of_flags(request, DEFAULT_SIZES)
    if weights is not None:
        for name in ("input_size", "hidden_size", "output_size"):
            if (size := getattr(weights, name)) is not None:
                claims[name].append((size, str(request.model.weights)))
    if (found := data.sequences) is not None:
        for name, size in zip(OF_SEQUENCES, found.values.shape, strict=True):
            claims[name].append((size, found.source + (_of_steps(request) if name == "seq_len" else "")))
    if data.targets is not None and request.loss == "mse":
        size = data.targets.shape[-1] if data.targets.ndim > 1 else 1
        claims["output_size"].append((size, f"--target {request.data.target}"))
    return {name: _settled(name, claims[name], data) for name in DEFAULT_SIZES}


def sizes_for(network: nn.Module, request: Request, data: Data) -> dict[str, int]:
    """Sizes of the data, or of random numbers that a network takes as far as it says what it takes."""
    claims = _claims_of_flags(request, ("input_size", "seq_len", "batch_size"))
    if (shape := data.shape) is not None:
        for name, size in zip(OF_SEQUENCES, shape, strict=False):
            claims[name].append((size, data.source + (_of_steps(request) if name == "seq_len" else "")))
    elif not claims["input_size"]:
        known = [getattr(module, "input_size", None) for module in network.modules()]
        claims["input_size"] = [(size, "the model") for size in known if isinstance(size, int)][:1]
    if shape is not None and len(shape) != 3:
        # Token numbers have no features, and pictures several axes of them.
        if request.model.input_size is not None:
            raise InputError(
                f"--input-size counts features, the last of three axes; {data.source} is of shape {tuple(shape)}. "
                "Leave it out"
            )
        del claims["input_size"]
    return {name: _settled(name, claims[name], data) for name in claims}


def _of_steps(request: Request) -> str:
    """What was done to the steps of a file before they were counted."""
    data = request.data
    skipped = f" after --skip-steps {data.skip_steps}" if data.skip_steps else ""
    return skipped + (" (one less than its steps, for --target next)" if data.target == "next" else "")


def _claims_of_flags(request: Request, names: Iterable[str]) -> dict[str, list[tuple[int, str]]]:
    """Size -> what its flag says and the flag, or nothing."""
    claims: dict[str, list[tuple[int, str]]] = {name: [] for name in names}
    for name, found in claims.items():
        flag = getattr(request.model, name, None) or getattr(request.data, name, None)
        if flag is not None:
            found.append((flag, f"--{name.replace('_', '-')}"))
    return claims


def _settled(name: str, claims: list[tuple[int, str]], data: Data) -> int:
    if not claims:
        return DEFAULT_SIZES[name]
    (size, first), *others = claims
    for other, source in others:
        if other != size:
            said = f"{first} says {name.replace('_', '-')} {size}; {source} has {other}"
            raise InputError(". ".join([said, *_advice(name, size, first, other, data)]))
    return size


def _advice(name: str, size: int, first: str, other: int, data: Data) -> list[str]:
    """Which option settles it: the flag that says a size, or the choice of what the network is fed."""
    chosen = name == "input_size" and data.sequences is not None and data.sequences.selectable
    if not first.startswith("--"):
        return ["Choose columns with --columns"] if chosen else []
    # Of more steps the first are taken.
    fewer = f"Give at most {other}, or leave it out" if name == "seq_len" and other < size else f"Leave out {first}"
    return [f"{fewer}, or choose columns with --columns" if chosen else fewer]


def require_room(sizes: Mapping[str, int], dtype: torch.dtype) -> None:
    """Raise TooLargeError where not even the weights, the input or one h_t would fit into memory."""
    inputs, hidden, outputs, seq_len, batch = sizes.values()
    # Drawn in float32, then converted, unless that is what it is.
    each = 4 + (dtype.itemsize if dtype != torch.float32 else 0)
    parameters = hidden * (inputs + hidden + outputs)
    require_memory(each * parameters, f"a model with {parameters:,} weights")
    require_memory(each * batch * seq_len * inputs, f"an input of shape ({batch}, {seq_len}, {inputs})")
    # Every command computes at least one h_t from its pre-activation.
    require_memory(3 * each * batch * hidden, f"hidden states of shape ({batch}, {hidden})")


def require_room_for_rows(given: CommandOptions, seq_len: int) -> None:
    """Raise TooLargeError where the rows of the result, as text, would not fit into memory."""
    out, values = given.group(OutputOptions), given.values_in_rows(seq_len)
    if out is None or out.only == "scalars" or not values:
        return
    form = chosen_format(out)
    each = JSON_BYTES if form == "json" else CELL_BYTES if form == "table" and out.all else RECORD_BYTES
    what = f"the rows of {seq_len:,} steps as {form}"
    require_memory(each * values, what, "Try --only scalars, or a shorter sequence")
