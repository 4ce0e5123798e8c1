"""From options to an experiment: any network, a batch, and the configuration that they came from."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from rnnctl.cells import FullRNN
from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.setup.batch import Batch, batch, read_data
from rnnctl.cli.setup.network import Drawn, Network, network_for
from rnnctl.cli.setup.process import seeded, threads
from rnnctl.cli.setup.request import Request, recorded, request_of, require_consistent
from rnnctl.cli.setup.sizes import OF_SEQUENCES, require_room_for_rows
from rnnctl.errors import DeviceError, InputError, plain
from rnnctl.files.models import load_loss
from rnnctl.files.users_code import users_code
from rnnctl.models.inputs import TimeFirst
from rnnctl.models.misfit import GIVEN
from rnnctl.models.model_run import ExchangedAxesError
from rnnctl.models.modules import picked


@dataclass(frozen=True)
class Experiment:
    """A network, a batch, and what the library's questions take beside them.

    Attributes:
        name: what messages call it: "train.models:build", "--cell lstm".
        x: shape (batch, time, input), or whole numbers (batch, time); the ``Inputs`` that --batch gives.
        target: as for ``gradnorm``.
        h_init: shape (batch, hidden); None where the network starts as it does by itself.
        lengths: real steps of every sequence, shape (batch,), where they differ; else None.
        time_first: as for ``gradnorm``.
        given_by: what messages call x.
        loss_fn: the user's own loss, or None.
        only: which weights, as for ``probe``.
        output_key: which output, as for ``gradnorm``.
        drawn: how W_hh was drawn, as for ``lyapunov``.
        notes: what is to be told of it, a sentence each.
        config: the options as they were settled, as JSON can hold them.
    """

    name: str
    model: nn.Module
    x: Any
    target: Tensor | None
    h_init: Tensor | None
    lengths: Tensor | None
    time_first: TimeFirst
    given_by: str
    loss_fn: Callable[[Any, Any], Tensor] | None
    only: str | None
    output_key: str | None
    drawn: Drawn
    notes: tuple[str, ...]
    config: Mapping[str, Any]

    @property
    def hand_written(self) -> tuple[FullRNN, Tensor]:
        """The hand-written network and its h_init, for what is asked of it alone; InputError for any other."""
        if not isinstance(self.model, FullRNN):
            raise InputError(f"expected the hand-written network; got {self.name}")
        return self.model, self.model.initial_state(self.x) if self.h_init is None else self.h_init

    @property
    def of_gradient(self) -> dict[str, Any]:
        """The keywords of every question about a gradient: target, output_key, and those of ``of_model``."""
        return {"target": self.target, "output_key": self.output_key, **self.of_model}

    @property
    def of_model(self) -> dict[str, Any]:
        """The keywords of every question about a model: h_init, time_first, only."""
        return {name: getattr(self, name) for name in ("h_init", "time_first", "only")}

    @property
    def _of_random_numbers(self) -> str:
        """How x came to its shape; nothing where it is not ours."""
        if self.config["input"] is not None or self.config.get("batch") is not None:
            return ""
        flags = [f"--{name.replace('_', '-')} {self.config[name]}" for name in OF_SEQUENCES]
        return f": random numbers, of {', '.join(flags)}; --input FILE gives others"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within, a question is asked: seeded, with its threads; what the user's code prints goes to stderr.

        Raises:
            UserCodeError: the user's code raised; the text is its own traceback.
        """
        with threads(self.config["threads"]), seeded(self.config["seed"]), users_code(self.name):
            try:
                yield
            except ExchangedAxesError as error:
                raise error.in_shell(self.given_by) from None
            except Exception as error:
                # To what the model was given, said by whoever called it, how it can be given otherwise.
                notes = getattr(error, "__notes__", [])
                notes[:] = [note + self._of_random_numbers if note.startswith(GIVEN) else note for note in notes]
                raise


def experiment(given: CommandOptions) -> Experiment:
    """Read what is to be read, settle the sizes, build the network and the batch.

    Nothing is printed or written but by the user's own code; torch's threads and random numbers are afterwards
    what they were, so that a worker process can call it.

    Args:
        given: a command's options, from the command line or from ``options_from``.
    Raises:
        InputError: anything that contradicts something else, with both numbers; data that does not fit.
        UserCodeError: the user's code raised.
    """
    request = request_of(given)
    require_consistent(request)
    with threads(request.run.threads):
        return _experiment(request, given)


def _experiment(request: Request, given: CommandOptions) -> Experiment:
    device = _device(request.run.device)
    data = read_data(request)
    loss_fn = None if request.loss_fn is None else _loss(request.loss_fn, request.run.seed)
    network = network_for(request, data, device)
    require_room_for_rows(given, network.sizes["seq_len"])
    on_cpu = batch(request, data, network.sizes, network.dtype, network.generator)
    only = _chosen(request, network.model)
    # Not before: --lengths for random numbers is read with the batch.
    data.reader.require_heeded()
    return Experiment(
        request.name if loss_fn is None else f"{request.name} with {request.loss_fn}",
        network.model,
        **_moved(on_cpu, device),
        time_first=request.time_first,
        given_by=data.given_by,
        loss_fn=loss_fn,
        only=only,
        output_key=request.output_key,
        drawn=network.drawn,
        notes=(*data.reader.notes, *data.notes, *network.notes, *_of_half_precision(request, network)),
        config={**_config(request, network, device), **_ended_by_nan(request, on_cpu)},
    )


def _ended_by_nan(request: Request, made: Batch) -> dict[str, str]:
    """Lengths that no file of lengths says, but the end of the numbers in every sequence."""
    said = request.ragged is None or request.ragged.lengths is not None
    return {} if said or made.lengths is None else {"lengths": "nan"}


def _device(name: str) -> torch.device:
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if here[kind]))
    if not here[name]:
        there = ", ".join(kind for kind, available in here.items() if available)
        raise DeviceError(f"--device {name}: this torch finds no such device; available: {there}")
    return torch.device(name)


def _loss(place: str, seed: int) -> Callable[[Any, Any], Tensor]:
    """The user's function; modules of the same file may be made by the import."""
    with seeded(seed):
        return load_loss(place)


def _chosen(request: Request, model: nn.Module) -> str | None:
    """Which weights, as ``only``."""
    only = picked(model, request.own.module)
    if only is None and not request.hand_written and isinstance(model, FullRNN):
        # The user's model, which happens to be ours: it is answered module by module, as any other of theirs.
        only = "*"
    return only


def _moved(on_cpu: Batch, device: torch.device) -> dict[str, Any]:
    """The batch there, by name; the lengths stay, for ``pack_padded_sequence`` takes them from the CPU alone."""
    tensors: dict[str, Any] = {field.name: getattr(on_cpu, field.name) for field in fields(on_cpu)}
    return {name: t if t is None or name == "lengths" else t.to(device) for name, t in tensors.items()}


def _of_half_precision(request: Request, network: Network) -> tuple[str, ...]:
    """Half precision is what the states have, not the sweep."""
    if request.loss_at is None or network.dtype.itemsize >= 4:
        return ()
    return (f"states in {plain(network.dtype)}; the gradients are swept along them in float32",)


def _config(request: Request, network: Network, device: torch.device) -> dict[str, Any]:
    """The options as they were settled."""
    settled = {"dtype": plain(network.dtype), "device": str(device), "threads": torch.get_num_threads()}
    of_loss: dict[str, Any] = {"target": request.data.target or "dummy", "loss": request.loss_fn or request.loss}
    # A loss of the user's own sits where it likes.
    at = {} if request.loss_at is None else {"loss_at": None if request.loss_fn else request.loss_at}
    if request.loss_at is not None and not request.hand_written:
        at["output_key"] = request.output_key
    measure = {} if request.measure is None else recorded([request.measure])
    return {**request.recorded, **network.sizes, **settled, **network.config, **of_loss, **at, **measure}
