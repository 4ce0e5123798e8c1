"""How often a model uses each of its parameters in one forward pass, and whether it recurs: counted, never assumed."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rnnctl.models.layer_runs import LayerRuns, Run, Slot
from rnnctl.models.module_calls import ModuleCalls
from rnnctl.models.modules import matches
from rnnctl.models.weight_uses import Reading
from rnnctl.view.numbers import times

COUNTED = "counted in autograd's graph"
FROZEN = "takes no gradient (requires_grad=False)"
NO_GRAPH = "is in no graph: the outputs have no gradient (torch.no_grad, detach, whole numbers, all frozen?)"
REENTRANT = "may be hidden in re-entrant checkpointing (try use_reentrant=False)"
COMPILED = "enters compiled code, one operation to autograd (try the model before it is compiled)"
WITHIN = "enters a layer of torch's by another way than as its parameter, and within it is not looked"
ENTERS_NOTHING = "is returned, or enters what is made of parameters alone (a penalty)"
# Operations that run what is not seen, by the names of their nodes.
_HIDES = frozenset(("CheckpointFunction",))
_IS_MANY = frozenset(("CompiledFunction", "DifferentiableGraph"))


@dataclass(frozen=True, eq=False)
class ParameterUse:
    """One parameter in one forward pass.

    Attributes:
        name: in the model.
        also: further names of it, where modules share it.
        parameter: the tensor itself, of any shape.
        uses: how often it enters something that is not made of it alone; None where that is not known.
        recurs: whether what it multiplies leads back to an earlier use of it.
        how: where the number comes from; of an unknown one, why.
    """

    name: str
    also: tuple[str, ...]
    parameter: Tensor
    uses: int | None
    recurs: bool
    how: str

    @property
    def role(self) -> str | None:
        """recurrent, shared (by several uses), once, unused; None where the uses are not known."""
        if self.uses is None:
            return None
        return "recurrent" if self.recurs else ("unused", "once", "shared")[min(self.uses, 2)]

    @property
    def leaves(self) -> int | None:
        """How many leaves of autograd's graph it is, however often it is used."""
        return None if self.uses is None else min(self.uses, 1)

    def is_among(self, patterns: Collection[str]) -> bool:
        """Whether one of its names is let through by a pattern of module or parameter names."""
        names = {name for each in (self.name, *self.also) for name in (each, stands_for(each))}
        return any(matches(name, pattern) for name in names for pattern in patterns)


def stands_for(name: str) -> str:
    """The weight that a parameter is for: "cell.W" of "cell.parametrizations.W.original"."""
    head, found, rest = f".{name}".partition(".parametrizations.")
    return f"{head}.{rest.split('.')[0]}".removeprefix(".") if found else name


class ForwardPass:
    """One forward pass of a model with gradients, and what autograd's graph says of it.

    Nothing is differentiated; the model is left as any forward pass leaves it.

    Args:
        model: any module.
        run: calls it once, and returns what it returned.
    Attributes:
        runs: of layers of known classes.
        names: parameter, by identity -> all its names.
    """

    def __init__(self, model: nn.Module, run: Callable[[], Any]) -> None:
        self.model, self.runs, self._calls = model, LayerRuns(model), ModuleCalls(model, {})
        with torch.enable_grad(), self._calls.noted(), self.runs.noted():
            self._roots = list(nodes_in(run()))
        self.names: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self.names.setdefault(id(parameter), []).append(name)

    @cached_property
    def reading(self) -> Reading:
        """Of the graph behind all outputs."""
        return Reading(self.model, self._roots, self._calls)

    @cached_property
    def layers(self) -> Mapping[str, list[Run]]:
        """By the name of a layer of a known class, its runs that the outputs depend on."""
        return self.runs.seen(self.reading.graph)

    @cached_property
    def within_layers(self) -> frozenset[int]:
        """Places of the nodes that belong to runs of layers of known classes."""
        return self.runs.places(self.reading.graph)

    def slots(self, parameter: Tensor) -> list[Slot]:
        """Where a parameter, of any shape, stands in layers that ran."""
        return [slot for slot in self.runs.slots.get(id(parameter), ()) if slot.layer in self.layers]

    @cached_property
    def uses(self) -> list[ParameterUse]:
        """Of every parameter of the model, in their order."""
        counts, inside = self.reading.counts(), _Inside(self._roots)
        return [self._use(name, parameter, counts, inside) for name, parameter in self.model.named_parameters()]

    def _use(
        self, name: str, parameter: Tensor, counts: Mapping[str, tuple[int, bool]], inside: "_Inside"
    ) -> ParameterUse:
        count, recurs = counts.get(name, (0, False))
        slots = self.slots(parameter)
        also = tuple(other for other in self.names[id(parameter)] if other != name)
        how = self._why_unknown(name, parameter, count, slots, inside)
        if how is not None:
            return ParameterUse(name, also, parameter, None, False, how)
        steps = sum(run.steps for slot in slots for run in self.layers[slot.layer])
        recurs = recurs or any(_carries(slot, self.layers[slot.layer]) for slot in slots)
        by = [COUNTED] if count or not slots else []
        by += [f"steps of {title}" for title in dict.fromkeys(self.runs.title(slot.layer) for slot in slots)]
        return ParameterUse(name, also, parameter, count + steps, recurs, "; ".join(by))

    def _why_unknown(
        self, name: str, parameter: Tensor, count: int, slots: Collection[Slot], inside: "_Inside"
    ) -> str | None:
        """Why nobody can say how often a parameter is used; None where it can be said."""
        if not parameter.requires_grad:
            return FROZEN
        if not self._roots:
            return NO_GRAPH
        if id(parameter) in inside.compiled:
            return COMPILED
        if count or slots:
            return None
        if name in self.reading.names.values():
            return ENTERS_NOTHING
        if id(parameter) in inside.leaves:
            return WITHIN
        return REENTRANT if inside.hides else None


class _Inside:
    """What is behind the roots, within layers of known classes as well.

    Attributes:
        leaves: the tensors there that take gradients, by identity.
        compiled: those among them that enter an operation which is many to the user.
        hides: whether some operation runs others that are not seen.
    """

    def __init__(self, roots: Collection[Any]) -> None:
        self.leaves: set[int] = set()
        self.compiled: set[int] = set()
        self.hides = False
        seen, waiting = set(roots), list(roots)
        while waiting:
            node: Any = waiting.pop()
            name = type(node).__name__.rstrip("0123456789").removesuffix("Backward")
            self.hides = self.hides or name in _HIDES
            if hasattr(node, "variable"):
                self.leaves.add(id(node.variable))
            for before, _ in node.next_functions:
                if before is None:
                    continue
                if name in _IS_MANY and hasattr(before, "variable"):
                    self.compiled.add(id(before.variable))
                if before not in seen:
                    seen.add(before)
                    waiting.append(before)


def _carries(slot: Slot, runs: Collection[Run]) -> bool:
    """Whether a parameter recurs there: by the state, or by outputs that are fed back as inputs."""
    if slot.carries and any(run.steps > 1 or run.follows is not None for run in runs):
        return True
    return slot.weight.startswith("weight_ih") and any(run.fed_by is not None for run in runs)


def nodes_in(output: Any) -> Iterator[Any]:
    """The nodes of all tensors with a gradient in what a model returned, also within dataclasses."""
    if isinstance(output, Tensor):
        if output.requires_grad:
            yield torch.autograd.graph.get_gradient_edge(output).node
    elif isinstance(output, Mapping):
        yield from nodes_in(list(output.values()))
    elif isinstance(output, (tuple, list)):
        for part in output:
            yield from nodes_in(part)
    elif is_dataclass(output) and not isinstance(output, type):
        yield from nodes_in([getattr(output, each.name) for each in fields(output)])


ROLES = ("recurrent", "shared", "once", "unused")


def counts_by_role(roles: Iterable[str | None]) -> dict[str, int]:
    """How many parameters there are, and how many of each role; None is that of the uncounted."""
    counted = Counter(roles)
    by_role = {f"{role}_parameters": counted[role] for role in ROLES}
    return {"parameters": counted.total(), **by_role, "uncounted_parameters": counted[None]}


def how_used(uses: Collection[ParameterUse]) -> str:
    """How often parameters are used, those first that are used most; why others are not counted."""
    known = sorted((each for each in uses if each.uses is not None), key=lambda each: -(each.uses or 0))
    unknown = [each for each in uses if each.uses is None]
    said = ", ".join(f"{each.name} is used {times(each.uses or 0)}" for each in known[:6])
    if known and all((each.uses or 0) <= 1 for each in known):
        said += " for all steps (a parallel scan, a product over all steps, or one step alone?)"
    if unknown:
        said += f"{'; ' if known else ''}not counted: {unknown[0].name}, for it {unknown[0].how}"
        said += f", and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    return f"{said}. A weight recurs where what it multiplies leads back to an earlier use of it"
