"""What a set-up is: a network, a task, the keywords of ``rnnctl.doctor``, and what is wrong with them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from faults.tasks import Data, Task


@dataclass(frozen=True)
class SetUp:
    """A training that somebody might have written.

    Attributes:
        name: unique.
        kind: "Elman", "GRU", "LSTM" or "hand-written".
        model: makes the network, its weights by torch's random state.
        task: draws the data: x, target and perhaps lengths.
        after: the public report or pattern that it follows; of a healthy one what it is.
        findings: ids of its faults, the main cause first; none of a healthy one.
        consequences: ids that follow from these: right where they are found, not asked for.
        keywords: what else ``rnnctl.doctor`` is told.
        twin: the same without the fault.
        trained: the network as it is trained, where that is not ``model``: one that cuts its gradient into windows.
    """

    name: str
    kind: str
    model: Callable[[], nn.Module]
    task: Task
    after: str
    findings: tuple[str, ...] = ()
    consequences: tuple[str, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    twin: "SetUp | None" = None
    trained: Callable[[], nn.Module] | None = None

    @property
    def healthy_twin(self) -> Callable[[], dict[str, Any]] | None:
        """``make`` of the same without the fault."""
        return None if self.twin is None else self.twin.make

    def with_fault(self, name: str, findings: str, after: str, *, consequences: str = "", **changes: Any) -> "SetUp":
        """Of a healthy one: the same with something changed, beside it as its twin; ids stand in a row."""
        ids = {"findings": tuple(findings.split()), "consequences": tuple(consequences.split())}
        return replace(self, name=name, after=after, twin=self, **ids, **changes)

    def make(self, seed: int = 0) -> dict[str, Any]:
        """The arguments for ``rnnctl.doctor``: model, x, target and keywords; torch's random state is left alone."""
        return {"model": seeded(self.model, seed), **self.data(seed), **self.keywords}

    def data(self, seed: int) -> Data:
        """x, target and perhaps lengths, others for every seed."""
        return self.task(torch.Generator().manual_seed(seed))


def seeded(model: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The network whose weights come of this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model()
