"""The network of an experiment: the hand-written one, torch's layers, or the user's own, as the seed builds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rnnctl.cells import FullRNN
from rnnctl.cli.options.model import ModelOptions
from rnnctl.cli.setup.batch import Data
from rnnctl.cli.setup.process import seeded
from rnnctl.cli.setup.request import Request
from rnnctl.cli.setup.sizes import require_room, settled_sizes, sizes_for
from rnnctl.errors import InputError, hands_over, plain
from rnnctl.files.checkpoints import load_into
from rnnctl.files.fit import load
from rnnctl.files.models import load_model
from rnnctl.files.users_code import users_code
from rnnctl.files.weights import Weights, read_weights
from rnnctl.initializers import initialize_W_hh
from rnnctl.models.torch_layers import LAYERS, LayeredRNN


@dataclass(frozen=True)
class Drawn:
    """How W_hh was drawn, as ``lyapunov`` asks it for its theory; else its defaults.

    Attributes:
        init: None for loaded weights, and for a model of the user's own.
        seed: of the numbers that ``lyapunov`` draws beside, for the hand-written network.
    """

    init: str | None = None
    gain: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Network:
    """A network, and what the batch for it goes on from.

    Attributes:
        sizes: that are known of it and of the data.
        generator: goes on where the network's own random numbers ended.
        config: what it adds to the recorded configuration.
        notes: what is to be told of its weights.
    """

    model: nn.Module
    sizes: Mapping[str, int]
    generator: torch.Generator
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    drawn: Drawn = Drawn()

    @property
    def dtype(self) -> torch.dtype:
        """That of its first parameter of floating-point numbers."""
        return next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)


def network_for(request: Request, data: Data, device: torch.device) -> Network:
    """Build or load the network, in its dtype and on its device.

    Raises:
        InputError: sizes that contradict each other, weights that do not fit, too little memory.
        UserCodeError: the user's code raised.
    """
    return _hand_written(request, data, device) if request.hand_written else _others(request, data, device)


def _hand_written(request: Request, data: Data, device: torch.device) -> Network:
    options, dtype = request.model, getattr(torch, request.dtype)
    weights = read_weights(options.weights, strict=options.strict) if options.weights is not None else None
    sizes = settled_sizes(request, data, weights)
    require_room(sizes, dtype)
    with seeded(request.run.seed):
        model = _full_rnn(options, sizes, options.bias and (weights is None or weights.bias))
        generator = _generator()
    model = _initialized(model, options, generator, dtype)
    if weights is not None:
        _require_no_contradiction(options, weights)
        # What the file does not hold, a readout, stays as it was drawn.
        load(model, {**model.state_dict(), **weights.tensors}, str(options.weights))
    bias = model.rnn_cell.input_to_hidden.bias is not None
    config = {"nonlinearity": model.rnn_cell.nonlinearity, "h_init": request.h_init, "bias": bias}
    drawn = Drawn(None if options.weights else options.init, options.gain, request.run.seed)
    return Network(model.to(device), sizes, generator, config, _notes(weights, dtype), drawn)


def _full_rnn(options: ModelOptions, sizes: Mapping[str, int], bias: bool) -> FullRNN:
    return FullRNN(
        sizes["input_size"],
        sizes["hidden_size"],
        sizes["output_size"],
        nonlinearity=options.nonlinearity or "tanh",
        output_activation=options.output_activation,
        bias=bias,
    )


def _initialized(model: FullRNN, options: ModelOptions, generator: torch.Generator, dtype: torch.dtype) -> FullRNN:
    """W_hh as --init and --gain say: drawn in float32 and converted, so that every dtype has the same network."""
    initialize_W_hh(model.rnn_cell.hidden_to_hidden.weight, options.init, options.gain, generator)
    model = model.to(dtype)
    if not torch.isfinite(model.rnn_cell.hidden_to_hidden.weight).all():
        most = torch.finfo(dtype).max
        raise InputError(f"--gain {options.gain:g} takes W_hh beyond {dtype}, which ends at {most:.3g}")
    return model


def _others(request: Request, data: Data, device: torch.device) -> Network:
    """Torch's layers, or the user's model."""
    build = _users if request.own.model is not None else _layers
    with seeded(request.run.seed):
        model, sizes = build(request, data)
        generator = _generator()
    if isinstance(model, LayeredRNN):
        model.initialize(request.model.init, request.model.gain, generator)
    is_drawn = isinstance(model, LayeredRNN) and request.model.weights is None
    drawn = Drawn(request.model.init, request.model.gain) if is_drawn else Drawn()
    with users_code(request.name):
        model = _placed(model, device, request.run.dtype)
        weights, strict = request.model.weights, request.model.strict
        notes = load_into(model, weights, strict=strict) if weights is not None else ()
    return Network(model, sizes, generator, {"network": _title(request, sizes)}, notes, drawn)


def _users(request: Request, data: Data) -> tuple[nn.Module, dict[str, int]]:
    features = data.shape[2] if data.shape is not None and len(data.shape) == 3 else request.model.input_size
    model = load_model(str(request.own.model), request.own.model_arg or (), request.run.seed, features)
    return model, sizes_for(model, request, data)


def _layers(request: Request, data: Data) -> tuple[nn.Module, dict[str, int]]:
    own, options, sizes = request.own, request.model, settled_sizes(request, data)
    require_room(sizes, torch.float32)
    model = LayeredRNN(
        own.cell,
        *(sizes[name] for name in ("input_size", "hidden_size", "output_size")),
        num_layers=own.num_layers or 1,
        bidirectional=own.bidirectional,
        nonlinearity=options.nonlinearity or "tanh",
        output_activation=options.output_activation,
        bias=options.bias,
    )
    return model, sizes


@hands_over
def _placed(model: nn.Module, device: torch.device, dtype: str | None) -> nn.Module:
    """The model there and, where one is given, in that dtype: by its own ``to``, which may be the user's code."""
    return model.to(device) if dtype is None else model.to(device, getattr(torch, dtype))


def _generator() -> torch.Generator:
    """One that goes on where torch's own is now."""
    return torch.Generator().set_state(torch.get_rng_state())


def _title(request: Request, sizes: Mapping[str, int]) -> str:
    """The network in one line, for the head of a table."""
    own = request.own
    if own.model is not None:
        return f"{own.model}({', '.join(own.model_arg or ())})"
    shape = ", ".join(str(sizes[name]) for name in ("input_size", "hidden_size", "output_size"))
    layers = f", {own.num_layers} layers" if (own.num_layers or 1) > 1 else ""
    return f"{LAYERS[own.cell].__name__}({shape}){layers}{', bidirectional' if own.bidirectional else ''}"


def _require_no_contradiction(model: ModelOptions, weights: Weights) -> None:
    if weights.bias and not model.bias:
        raise InputError(f"--no-bias contradicts {model.weights}, which has biases. Leave it out")


def _notes(weights: Weights | None, dtype: torch.dtype) -> tuple[str, ...]:
    """What to say of the weights that were read."""
    if weights is None:
        return ()
    own = {tensor.dtype for tensor in weights.tensors.values()}
    rounded = [plain(kind) for kind in own if kind.itemsize > dtype.itemsize]
    name = plain(dtype)
    return (
        *weights.notes,
        *(f"weights in {kind} are rounded to {name}; --dtype {kind} keeps them" for kind in rounded),
    )
