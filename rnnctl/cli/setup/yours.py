"""From options to somebody's model, or torch's own layers, and a batch for it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rnnctl.cli.options.data import DataOptions, LengthOptions
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
from rnnctl.cli.setup.sizes import require_room, settled_sizes, sizes_for
from rnnctl.errors import InputError, hands_over
from rnnctl.files.checkpoints import load_into
from rnnctl.files.models import load_loss, load_model
from rnnctl.files.users_code import users_code
from rnnctl.files.weights import write_weights
from rnnctl.models.modules import picked, recurrent_modules, weight_names
from rnnctl.models.torch_layers import LayeredRNN

# What shapes a network that we build, and says nothing to one that somebody else has built.
OURS_ALONE = ("hidden_size", "output_size", "nonlinearity", "output_activation", "bias", "init", "gain")


@dataclass(frozen=True)
class Yours:
    """A model that is not the hand-written one, a batch, and the configuration that they came from.

    Attributes:
        name: what messages call it: "train.models:build", "--cell lstm".
        x: (batch, time, input), or whole numbers (batch, time).
        target, lengths: as for ``model_gradnorm``.
        loss_fn: the user's own loss, or None.
        only, linear: which recurrent weights, as for ``probe``.
    """

    name: str
    model: nn.Module
    x: Tensor
    target: Tensor | None
    lengths: Tensor | None
    loss_fn: Callable[[Any, Any], Tensor] | None
    only: str | None
    linear: tuple[str, ...]
    config: Mapping[str, Any]

    @property
    def modules(self) -> list[str] | None:
        """The names of the chosen recurrent modules, "" for the model itself; None for all."""
        self.require_cells("forward describes")
        if self.only is None:
            return None
        return [each.name for each in recurrent_modules(self.model, self.only) if weight_names(each, self.only)]

    def require_cells(self, who: str) -> None:
        """Raise InputError where an nn.Linear was named; ``who``: whoever knows nothing of it."""
        if self.linear:
            raise InputError(
                f"{who} the recurrent layers and cells of torch; {self.linear[0]} is an nn.Linear, whose cell is "
                "code of yours. gradnorm and flow take it"
            )

    @hands_over
    @contextmanager
    def running(self) -> Iterator[None]:
        """Within, the model runs: seeded, what it prints on stderr, what it raises with its own traceback."""
        with torch.random.fork_rng(devices=[]), users_code(self.name):
            torch.manual_seed(self.config["seed"])
            yield


@hands_over
def build_yours(
    own: YourModelOptions,
    model: ModelOptions,
    data: DataOptions,
    run: RunOptions,
    out: OutputOptions,
    *,
    loss: str = "mse",
    loss_fn: str | None = None,
    ragged: LengthOptions | None = None,
    **also: Any,
) -> Yours:
    """Load or build the model, and read or draw the batch.

    Raises:
        InputError: options that contradict each other, data that does not fit.
        UserCodeError: the user's code raised.
    """
    require_outputs(model, out, data.input, data.target, model.weights, out.config, ragged.lengths if ragged else None)
    _require_consistent(own, model, data)
    device = chosen_device(run.device)
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    found, targets = read_data(data, out, loss if loss_fn is None else None, ragged, tokens=own.model is not None)
    loss_function = None if loss_fn is None else _loss(loss_fn, run.seed)
    network, sizes, generator = _network(own, model, data, run, found, targets, loss)
    name = own.model or f"--cell {own.cell}"
    with users_code(name):
        network = network.to(device, getattr(torch, run.dtype)) if run.dtype else network.to(device)
        _exchange_weights(network, model, out)
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    if "loss_at" in also:
        tell_of_half_precision(dtype, out)
    x = inputs(found, sizes, generator)
    x = in_range(x, dtype, data.input) if x.is_floating_point() else x
    # Whole numbers for a loss of the user's own are classes.
    classes = loss_fn is not None and targets is not None and targets.dtype.kind in "iu"
    target = fitted(targets, data, sizes, "cross-entropy" if classes else loss, dtype)
    only, linear = picked(network, own.module)
    resolved = {
        **sizes,
        "dtype": str(dtype).removeprefix("torch."),
        "device": str(device),
        "network": _title(own, sizes),
    }
    config = {
        **recorded(own, model, data, run),
        **resolved,
        "threads": torch.get_num_threads(),
        "loss": loss_fn or loss,
    }
    return Yours(
        name if loss_fn is None else f"{name} with {loss_fn}",
        network,
        x.to(device),
        None if target is None else target.to(device),
        real_lengths(found, ragged, sizes),
        loss_function,
        only,
        linear,
        {**config, **also},
    )


@hands_over
def _exchange_weights(network: nn.Module, model: ModelOptions, out: OutputOptions) -> None:
    """Load --weights, write --save-weights."""
    if model.weights is not None:
        tell_notes(load_into(network, model.weights), out)
    if model.save_weights is not None:
        state = network.state_dict()
        write_weights(model.save_weights, {name: part for name, part in state.items() if isinstance(part, Tensor)})
        tell_notes((f"wrote {model.save_weights}",), out)


def _require_consistent(own: YourModelOptions, model: ModelOptions, data: DataOptions) -> None:
    if own.model is not None and own.cell != "manual":
        raise InputError(f"--model and --cell {own.cell} both name a network; give one of them")
    if own.model is None and own.model_arg:
        raise InputError("--model-arg is a keyword for --model, which is not given")
    if data.h_init is not None:
        raise InputError("--h-init is for the hand-written network; --model and --cell start as they do by themselves")
    if own.model is None:
        return
    for name in OURS_ALONE:
        if getattr(model, name) != getattr(ModelOptions, name):
            flag = "no-bias" if name == "bias" else name.replace("_", "-")
            raise InputError(f"--{flag} shapes a network that we build; --model builds its own. Try --model-arg")
    if own.num_layers is not None or own.bidirectional:
        raise InputError("--num-layers and --bidirectional are for --cell; --model builds its own. Try --model-arg")


def _network(
    own: YourModelOptions,
    model: ModelOptions,
    data: DataOptions,
    run: RunOptions,
    found: Any,
    targets: Any,
    loss: str,
) -> tuple[nn.Module, dict[str, int], torch.Generator]:
    """The network as the seed builds it, the sizes, and the generator to go on with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        if own.model is not None:
            network = load_model(own.model, own.model_arg or (), run.seed)
            sizes = sizes_for(network, model, data, found)
        else:
            sizes = settled_sizes(model, data, found, targets, None, loss)
            require_room(sizes, torch.float32)
            network = LayeredRNN(
                own.cell,
                *(sizes[name] for name in ("input_size", "hidden_size", "output_size")),
                num_layers=own.num_layers or 1,
                bidirectional=own.bidirectional,
                nonlinearity=model.nonlinearity or "tanh",
                output_activation=model.output_activation,
                bias=model.bias,
            )
        generator = torch.Generator().set_state(torch.get_rng_state())
    if isinstance(network, LayeredRNN):
        network.initialize(model.init, model.gain, generator)
    return network, sizes, generator


def _loss(place: str, seed: int) -> Callable[[Any, Any], Tensor]:
    """The user's function; modules of the same file may be made by the import."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return load_loss(place)


def _title(own: YourModelOptions, sizes: Mapping[str, int]) -> str:
    """The network in one line, for the head of a table."""
    if own.model is not None:
        return f"{own.model}({', '.join(own.model_arg or ())})"
    shape = ", ".join(str(sizes[name]) for name in ("input_size", "hidden_size", "output_size"))
    layers = f", {own.num_layers} layers" if (own.num_layers or 1) > 1 else ""
    return f"{own.cell.upper()}({shape}){layers}{', bidirectional' if own.bidirectional else ''}"
