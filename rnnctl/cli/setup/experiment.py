"""From options to a model and a batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnnctl.cells import FullRNN
from rnnctl.cli.options.data import DataOptions, LengthOptions
from rnnctl.cli.options.loss import LossFunctionOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.setup.batch import (
    chosen_device,
    fitted,
    in_range,
    inputs,
    read_data,
    real_lengths,
    recorded,
    require_outputs,
    tell_notes,
    tell_of_half_precision,
)
from rnnctl.cli.setup.sizes import require_room, settled_sizes
from rnnctl.errors import InputError
from rnnctl.files.weights import Weights, read_weights, write_weights
from rnnctl.initializers import initialize_W_hh


@dataclass(frozen=True)
class Experiment:
    """The hand-written network, a batch, and the configuration that they came from.

    ``x`` (batch, time, input), ``target`` as for ``gradnorm``, ``h_init`` (batch, hidden), ``lengths``
    (batch,) where sequences are padded.
    """

    model: FullRNN
    x: Tensor
    target: Tensor | None
    h_init: Tensor
    config: Mapping[str, Any]
    lengths: Tensor | None = None


def build(
    model: ModelOptions,
    data: DataOptions,
    run: RunOptions,
    out: OutputOptions,
    *,
    loss: str = "mse",
    dtype: str = "float32",
    ragged: LengthOptions | None = None,
    **also: Any,
) -> Experiment:
    """Read what is to be read, settle the sizes, build the model and the batch.

    Args:
        loss: cross-entropy makes a target integers.
        dtype: this command's default.
        ragged: given by a command that takes sequences of different lengths.
        also: further settings to record in the configuration.
    Raises:
        InputError: anything that contradicts something else, with both numbers.
    """
    require_outputs(model, out, data.input, data.target, model.weights, out.config, ragged.lengths if ragged else None)
    device, torch_dtype = chosen_device(run.device), getattr(torch, run.dtype or dtype)
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    found, targets = read_data(data, out, loss, ragged)
    weights = read_weights(model.weights) if model.weights is not None else None
    sizes = settled_sizes(model, data, found, targets, weights, loss)
    require_room(sizes, torch_dtype)
    network, generator = _network(model, sizes, weights, run.seed, torch_dtype)
    tell_notes(_notes(weights, torch_dtype), out)
    if "loss_at" in also:
        tell_of_half_precision(torch_dtype, out)
    lengths = real_lengths(found, ragged, sizes)
    if lengths is not None and data.h_init is not None:
        raise InputError("--h-init is not for sequences of different lengths, which start from zeros. Leave it out")
    x = in_range(inputs(found, sizes, generator), torch_dtype, data.input)
    h_init = torch.zeros(sizes["batch_size"], sizes["hidden_size"])
    if data.h_init == "normal":
        h_init.normal_(generator=generator)
    target = fitted(targets, data, sizes, loss, torch_dtype)
    if model.save_weights is not None:
        write_weights(model.save_weights, network.state_dict())
        tell_notes((f"wrote {model.save_weights}",), out)
    resolved = {**sizes, "nonlinearity": network.rnn_cell.nonlinearity, "dtype": run.dtype or dtype}
    resolved["h_init"] = data.h_init or "zeros"
    where = {"device": str(device), "threads": torch.get_num_threads()}
    return Experiment(
        network.to(device),
        x.to(device),
        None if target is None else target.to(device),
        h_init.to(device, torch_dtype),
        {**recorded(model, data, run), **resolved, **where, "loss": loss, **also},
        lengths,
    )


def require_hand_written(own: YourModelOptions, function: LossFunctionOptions | None = None) -> None:
    """Raise InputError for options that say something about a model of the user's, where there is none."""
    if own.num_layers is not None or own.bidirectional:
        raise InputError("the hand-written network has one layer in one direction; add --cell rnn, gru or lstm")
    if own.module is not None or own.model_arg:
        name = "--module" if own.module is not None else "--model-arg"
        raise InputError(f"{name} is about --model or --cell, which are not given")
    if function is not None and function.loss_fn is not None:
        raise InputError("--loss-fn takes the output of --model or --cell, which are not given")


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
