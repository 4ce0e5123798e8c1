"""Runs of layers of a known class over whole sequences: what autograd's graph alone does not say of their weights."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnctl.models.calls import argument
from rnnctl.models.forwards import Onlooker, looked_on
from rnnctl.models.module_calls import tensors_in
from rnnctl.models.modules import is_layer
from rnnctl.models.tape.graph import Graph
from rnnctl.models.tape.passes import now

# A weight by its name in the layer, also where a parametrization or the older weight_norm makes it of others.
_SLOT = re.compile(r"(?:parametrizations\.)?((weight|bias)_(ih|hh|hr)_l\d+(?:_reverse)?)(?:\.\w+|_g|_v|_orig)?")


@dataclass(frozen=True)
class LayerRun:
    """One run of a layer.

    Attributes:
        start, end: the numbers of its nodes, the end excluded.
        steps: T of the longest sequence.
        inputs, states: nodes that made its input, and the states that it was given.
    """

    start: int
    end: int
    steps: int
    inputs: tuple[Any, ...]
    states: tuple[Any, ...]


@dataclass(frozen=True)
class Slot:
    """Where a parameter stands in a layer: ``weight`` is its name there, such as "weight_hh_l0_reverse"."""

    layer: str
    weight: str

    @property
    def carries(self) -> bool:
        """Whether the state goes through it: W_hh, and the projection of h_t."""
        return self.weight.startswith(("weight_hh", "weight_hr"))

    @property
    def place(self) -> str:
        """Of which layer and direction it is: "l0_reverse"."""
        return self.weight.split("_", 2)[2]


@dataclass(frozen=True, eq=False)
class Run:
    """A run that the outputs depend on.

    Attributes:
        steps: T of the longest sequence.
        follows: the number of the run of the same layer from which its states come, None for none.
        fed_by: the same of its input.
    """

    steps: int
    follows: int | None
    fed_by: int | None


@dataclass(eq=False)
class LayerRuns:
    """What runs of the layers of a model there were.

    Args:
        model: any module.
    Attributes:
        slots: parameter, by identity -> where it stands.
    """

    model: nn.Module
    _runs: dict[str, list[LayerRun]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._layers = {name: module for name, module in self.model.named_modules() if is_layer(module)}
        self.slots: dict[int, list[Slot]] = {}
        for layer, module in self._layers.items():
            for name, parameter in module.named_parameters(remove_duplicate=False):
                if (found := _SLOT.fullmatch(name)) is not None:
                    self.slots.setdefault(id(parameter), []).append(Slot(layer, found[1]))

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Within, runs are noted."""
        with ExitStack() as stack:
            for name, layer in self._layers.items():
                stack.enter_context(looked_on(layer, self._onlooker(name)))
            yield

    def seen(self, graph: Graph) -> dict[str, list[Run]]:
        """By the name of the layer its runs that the outputs behind a graph depend on, in order."""
        numbers = sorted(graph.made_at)
        found = {}
        for name, runs in self._runs.items():
            kept = [run for run in runs if _any_within(numbers, run.start, run.end)]
            if kept:
                found[name] = _linked(graph, kept)
        return found

    def places(self, graph: Graph) -> frozenset[int]:
        """Of the nodes that belong to a run."""
        runs = sorted((run.start, run.end) for runs in self._runs.values() for run in runs)
        starts = [start for start, _ in runs]
        numbers = ((place, bisect_right(starts, number) - 1, number) for place, number in enumerate(graph.made_at))
        return frozenset(place for place, own, number in numbers if own >= 0 and number < runs[own][1])

    def title(self, layer: str) -> str:
        """A layer as messages call it: "nn.LSTM encoder"."""
        return f"{type(self._layers[layer]).__name__} {layer}".rstrip()

    def _onlooker(self, name: str) -> Onlooker:
        starts: list[int] = []

        def before(*_: Any) -> None:
            starts.append(now())

        def after(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            given, states = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "hx")
            nodes = [tuple(t.grad_fn for t in tensors_in(part) if t.grad_fn is not None) for part in (given, states)]
            self._runs.setdefault(name, []).append(LayerRun(starts[-1], now(), longest(module, given), *nodes))

        def always() -> None:
            starts.pop()

        return Onlooker(before, after, always)


def longest(module: nn.Module, given: Any) -> int:
    """T of the longest sequence of an input: packed, or of two axes for one sequence, or of three."""
    if isinstance(given, PackedSequence):
        return len(given.batch_sizes)
    if not isinstance(given, Tensor) or given.dim() < 2:
        return 1
    return int(given.shape[1 if given.dim() > 2 and module.batch_first else 0])


def _any_within(numbers: Sequence[int], start: int, end: int) -> bool:
    """Whether one of the numbers, which rise, is from start to before end."""
    place = bisect_left(numbers, start)
    return place < len(numbers) and numbers[place] < end


def _linked(graph: Graph, runs: Sequence[LayerRun]) -> list[Run]:
    """The runs of one layer, and which of them take what an earlier one returned."""
    if len(runs) == 1:
        return [Run(runs[0].steps, None, None)]
    latest = _last_run_behind(graph, runs)

    def last_of(nodes: Sequence[Any]) -> int | None:
        found = [latest[graph.places[node]] for node in nodes if node in graph.places]
        return max((number for number in found if number >= 0), default=None)

    return [Run(run.steps, last_of(run.states), last_of(run.inputs)) for run in runs]


def _last_run_behind(graph: Graph, runs: Sequence[LayerRun]) -> list[int]:
    """Of every node the last run that leads to it or holds it, -1 for none."""
    starts, latest = [run.start for run in runs], list[int]()
    for place, number in enumerate(graph.made_at):
        own = bisect_right(starts, number) - 1
        if own >= 0 and number < runs[own].end:
            latest.append(own)
        else:
            latest.append(max((latest[before] for before, _ in graph.flows[place] if before >= 0), default=-1))
    return latest
