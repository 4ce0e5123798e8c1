"""What the networks are to learn: inputs and targets, drawn anew for every generator."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

Data = dict[str, Any]
Task = Callable[[Generator], Data]
BATCH, STEPS, CLASSES = 12, 30, 4


def smoothed(keep: float = 0.8, steps: int = STEPS) -> Task:
    """Follow the moving average of an input, of variance 1: target_t = keep * target_{t-1} + ... x_t."""

    def drawn(generator: Generator) -> Data:
        x = torch.randn(BATCH, steps, 1, generator=generator)
        mean, means = torch.zeros(BATCH, 1), []
        for x_t in x.unbind(1):
            mean = keep * mean + (1 - keep**2) ** 0.5 * x_t
            means.append(mean)
        return {"x": x, "target": torch.stack(means, 1)}

    return drawn


def delayed(lag: int = 2, steps: int = STEPS) -> Task:
    """Say what came in ``lag`` steps ago, 0 before there was anything."""

    def drawn(generator: Generator) -> Data:
        x = torch.randn(BATCH, steps, 1, generator=generator)
        return {"x": x, "target": F.pad(x, (0, 0, lag, 0))[:, :steps]}

    return drawn


def tags(lag: int = 1, steps: int = STEPS) -> Task:
    """Name the token of ``lag`` steps ago; class 0 before there was any."""

    def drawn(generator: Generator) -> Data:
        tokens = torch.randint(CLASSES, (BATCH, steps), generator=generator)
        return {"x": F.one_hot(tokens, CLASSES).float(), "target": F.pad(tokens, (lag, 0))[:, :steps]}

    return drawn


def tokens() -> Task:
    """``tags`` with the tokens as whole numbers."""

    def drawn(generator: Generator) -> Data:
        data = tags()(generator)
        return {**data, "x": data["x"].argmax(-1)}

    return drawn


def next_tags(steps: int = STEPS) -> Task:
    """Name the token of the next step, which only a reverse direction has seen; class 0 after the last."""

    def drawn(generator: Generator) -> Data:
        chosen = torch.randint(CLASSES, (BATCH, steps), generator=generator)
        return {"x": F.one_hot(chosen, CLASSES).float(), "target": F.pad(chosen, (0, 1))[:, 1:]}

    return drawn


def counted(steps: int = STEPS) -> Task:
    """How many events there were, a third for each; one step in ten has one, and most sequences end without."""

    def drawn(generator: Generator) -> Data:
        x = (torch.rand(BATCH, steps, 1, generator=generator) < 0.1).float()
        return {"x": x, "target": x.sum(1) / 3}

    return drawn


def first_sign(steps: int = STEPS, noise: float = 0.1) -> Task:
    """Tell at the last step whether the first input was +1 or -1; weak noise came in between. The lag is steps - 1."""

    def drawn(generator: Generator) -> Data:
        label = torch.randint(2, (BATCH,), generator=generator)
        x = noise * torch.randn(BATCH, steps, 1, generator=generator)
        x[:, 0, 0] += 2.0 * label - 1
        return {"x": x, "target": label}

    return drawn


def first_value(steps: int = STEPS, noise: float = 0.1) -> Task:
    """Say at the last step which value came first; weak noise came in between. The lag is steps - 1."""

    def drawn(generator: Generator) -> Data:
        x = noise * torch.randn(BATCH, steps, 1, generator=generator)
        x[:, 0] = torch.randn(BATCH, 1, generator=generator)
        return {"x": x, "target": x[:, 0].clone()}

    return drawn


def waves(steps: int = STEPS) -> Task:
    """Forecast the next value of a sine whose phase and period are to be read off the past."""

    def drawn(generator: Generator) -> Data:
        period = 6 + 4 * torch.rand(BATCH, 1, generator=generator)
        phase = torch.rand(BATCH, 1, generator=generator)
        series = torch.sin(2 * torch.pi * (torch.arange(steps + 1) / period + phase)).unsqueeze(-1)
        return {"x": series[:, :-1], "target": series[:, 1:]}

    return drawn


def random_walk(steps: int = STEPS) -> Task:
    """Forecast the next value of a random walk: nothing can be better than its last one."""

    def drawn(generator: Generator) -> Data:
        series = 0.2 * torch.randn(BATCH, steps + 1, 1, generator=generator).cumsum(1)
        return {"x": series[:, :-1], "target": series[:, 1:]}

    return drawn


def rare_events(steps: int = STEPS) -> Task:
    """Report the step after an input was high, which is one step in ten."""

    def drawn(generator: Generator) -> Data:
        x = torch.randn(BATCH, steps, 1, generator=generator)
        return {"x": x, "target": F.pad((x[:, :-1, 0] > 1.3).long(), (1, 0))}

    return drawn


def padded_sign(steps: int = 40) -> Task:
    """The class of a padded sequence: the sign of the sum of its last two real steps."""

    def drawn(generator: Generator) -> Data:
        x = torch.randn(BATCH, steps, 1, generator=generator)
        lengths = torch.randint(4, 12, (BATCH,), generator=generator)
        lengths[0] = steps
        each = torch.arange(BATCH)
        ends = x[each, lengths - 1, 0] + x[each, lengths - 2, 0]
        return {"x": _blanked(x, lengths), "target": (ends > 0).long(), "lengths": lengths}

    return drawn


def padded_tags(lag: int = 1, steps: int = 40) -> Task:
    """``tags`` of padded sequences; what stands in the padding of the target is class 0."""

    def drawn(generator: Generator) -> Data:
        data = tags(lag, steps)(generator)
        lengths = torch.randint(3, 8, (BATCH,), generator=generator)
        lengths[0] = steps
        blank = torch.arange(steps) >= lengths[:, None]
        return {"x": _blanked(data["x"], lengths), "target": data["target"].masked_fill(blank, 0), "lengths": lengths}

    return drawn


def in_units(task: Task, scale: float, shift: float = 0.0) -> Task:
    """The same with its inputs in other units: ``scale * x + shift``."""

    def drawn(generator: Generator) -> Data:
        data = task(generator)
        return {**data, "x": scale * data["x"] + shift}

    return drawn


def changed(task: Task, change: Callable[[Data, Generator], Data]) -> Task:
    """The same task with something done to its data."""

    def drawn(generator: Generator) -> Data:
        data = task(generator)
        return {**data, **change(data, generator)}

    return drawn


def _blanked(x: Tensor, lengths: Tensor) -> Tensor:
    """x with zeros from each sequence's length on."""
    return x.masked_fill((torch.arange(x.shape[1]) >= lengths[:, None]).unsqueeze(-1), 0.0)
