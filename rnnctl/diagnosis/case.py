"""A model with all that it is trained with: what is examined, and what a remedy changes."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rnnctl.diagnosis.windows import windows_of
from rnnctl.errors import InputError
from rnnctl.models.inputs import Given, Inputs, TimeFirst, inputs_of
from rnnctl.models.modules import Found, recurrent_modules, recurrent_weights
from rnnctl.models.objective import Objective, called, lengths_apart, without_padding

# The noise on a weight of another start, as a share of the root mean square of its entries.
VARIATION = 0.1
# Of fewer sequences none can be kept from a training.
FEW_SEQUENCES = 8


@dataclass(frozen=True, eq=False)
class Settings:
    """How a model is trained.

    Attributes:
        loss, loss_at, loss_fn, output_key, h_init, time_first, only: as of ``gradnorm``.
        lengths: real steps of every sequence, (batch,), where x is padded.
        window: after so many steps the state is detached; None: never.
        learning_rate: of Adam.
        clip: the largest norm of the whole gradient; None: any.
    """

    loss: str | None = None
    loss_at: str | None = None
    loss_fn: Callable[[Any, Any], Tensor] | None = None
    output_key: str | int | None = None
    lengths: Tensor | None = None
    h_init: Tensor | None = None
    time_first: TimeFirst = None
    only: str | None = None
    window: int | None = None
    learning_rate: float = 1e-3
    clip: float | None = None

    def objective(self, model: nn.Module, x: Given, target: Tensor | None) -> Objective:
        """What is differentiated, of x and target as of ``gradnorm``."""
        apart, lengths = lengths_apart(model, x, self.lengths)
        if self.h_init is not None:
            # Only a FullRNN has it, as its second argument.
            apart = Inputs((*(apart.args if isinstance(apart, Inputs) else (apart,)), self.h_init))
        if self.loss_fn is None:
            target = without_padding(target, lengths, apart.shape[1])
        time_first = None if self.time_first == "checked" else self.time_first
        return Objective(apart, target, self.loss, self.loss_at, self.loss_fn, lengths, self.output_key, time_first)


class Examined(Protocol):
    """What is examined: ``lag`` is how many steps back the task reaches, None where that is not known."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def x(self) -> Given: ...

    @property
    def target(self) -> Tensor | None: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def lag(self) -> int | None: ...


@dataclass(frozen=True, eq=False)
class Case:
    """A model that may be changed, with all that it is trained with.

    Attributes:
        model: a copy of the user's.
        x, target: as of ``gradnorm``.
        settings: how it is trained.
        lag: how many steps back the task reaches; None where that is not known.
        lines: the lines of Python that made this of the user's ``model``, ``x`` and ``target``.
    """

    model: nn.Module
    x: Given
    target: Tensor | None = None
    settings: Settings = field(default_factory=Settings)
    lag: int | None = None
    lines: tuple[str, ...] = ()

    @classmethod
    def copied(cls, examined: Examined) -> "Case":
        """What is examined, with a copy of its model; InputError where there can be none."""
        try:
            model = deepcopy(examined.model)
        except Exception as error:
            raise InputError(f"the model cannot be copied: {type(error).__name__}: {error}") from error
        return cls(model, examined.x, examined.target, examined.settings, examined.lag)

    def changed(self, lines: Sequence[str], **parts: Any) -> "Case":
        """The same with other parts, and the lines that do it behind those that are there."""
        return replace(self, lines=(*self.lines, *lines), **parts)

    @property
    def objective(self) -> Objective:
        """What is differentiated."""
        return self.settings.objective(self.model, self.x, self.target)

    def in_windows(self) -> AbstractContextManager[None]:
        """Within, the model's state is cut as its training cuts it."""
        return windows_of(self.model, self.recurrent, self.settings.window, self.sequences[1])

    def returned(self) -> Any:
        """What the model returns, as it lays it out."""
        objective = self.objective
        return called(self.model, objective.x, objective.lengths, objective.time_first)

    @property
    def sequences(self) -> tuple[int, ...]:
        """Shape of the sequences, (batch, time, ...)."""
        return tuple(inputs_of(self.x).shape)

    @property
    def recurrent(self) -> list[Found]:
        """The modules of a known kind with recurrent weights."""
        return recurrent_modules(self.model, self.settings.only)

    @property
    def held_out(self) -> Tensor | None:
        """Which sequences no short training sees, (batch,); None where there are too few, or more than one input.

        Every fourth: whoever learns nothing but these by heart is told from whoever learns the task.
        """
        if not isinstance(self.x, Tensor) or not isinstance(self.target, Tensor) or self.settings.h_init is not None:
            return None
        batch = self.sequences[0]
        if batch < FEW_SEQUENCES or self.target.shape[:1] != (batch,):
            return None
        return torch.arange(batch) % 4 == 3

    def part(self, chosen: Tensor) -> "Case":
        """The same with some of the sequences alone, (batch,) of which there is one input and a target of each."""
        assert isinstance(self.x, Tensor) and self.target is not None
        lengths = self.settings.lengths
        some = replace(self.settings, lengths=None if lengths is None else lengths[chosen])
        return replace(self, x=self.x[chosen], target=self.target[chosen], settings=some)

    def put(self, name: str, module: nn.Module) -> nn.Module:
        """The model with another module under this name; another model where that is its own, ""."""
        if not name:
            return module
        self.model.set_submodule(name, module)
        return self.model


def place(name: str) -> str:
    """A module of the model as an expression: "model.encoder.rnn"."""
    if re.fullmatch(r"([^\W\d]\w*(\.[^\W\d]\w*)*)?", name):
        return f"model.{name}" if name else "model"
    return f"model.get_submodule({name!r})"


def putting(name: str, expression: str) -> str:
    """A line that puts another module there."""
    here = place(name)
    return f"model.set_submodule({name!r}, {expression})" if here.endswith(")") else f"{here} = {expression}"


@contextmanager
def random_state(seed: int, model: nn.Module) -> Iterator[None]:
    """Within, torch's random numbers are those of the seed; afterwards as if nothing had been drawn."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        yield


def varied(model: nn.Module, seed: int) -> nn.Module:
    """Let a model start from elsewhere, in place: noise on every weight but the recurrent ones, none for seed 0.

    What a network does over time is what is examined, and stays; what is learned in a few steps depends on the rest.

    Args:
        seed: of the noise, which is the same for weights of the same shapes.
    Returns:
        The model.
    """
    kept = {id(p) for module in model.modules() for p in _recurrent(module)}
    with torch.no_grad():
        for parameter in model.parameters() if seed else ():
            if id(parameter) not in kept and parameter.is_floating_point():
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
                size = VARIATION * parameter.square().mean().sqrt()
                parameter.add_(noise.to(parameter) * size)
    return model


def _recurrent(module: nn.Module) -> list[nn.Parameter]:
    """Its recurrent weights; of code that nobody knows every square one."""
    known = recurrent_weights(module)
    if known:
        # What a parametrization or a weight norm makes them of has their names within its own.
        return [p for name, p in module.named_parameters() if any(weight in name for weight in known)]
    own = module.parameters(recurse=False)
    return [p for p in own if p.dim() == 2 and p.shape[0] == p.shape[1]]
