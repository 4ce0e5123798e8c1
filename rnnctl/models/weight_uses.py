"""The weights of a model in the graph of one forward pass: which of them recur, their steps and their states."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rnnctl.models.module_calls import ModuleCalls, owner_of
from rnnctl.models.tape.beside import Edge
from rnnctl.models.tape.columns import Columns, columns_of, joined
from rnnctl.models.tape.graph import CONSTANT, Graph
from rnnctl.models.tape.pull_back import through
from rnnctl.models.tape.states import State, States, states_of
from rnnctl.models.tape.steps import Chains, Step, chained, multiplies, steps_of
from rnnctl.models.tape.uses import Bits, Use, Uses, uses_in

STATE_NOT_MADE = "state={name!r}: what it returned is no part of the graph of this step"


@dataclass(frozen=True, eq=False)
class WeightUses:
    """One weight in one graph.

    Attributes:
        name: of the parameter in the model.
        place: of its node, and ``bit`` of it among all weights.
        weight: the tensor itself.
        recurs: whether it is recurrent.
        chains: its steps, and which follow one another.
        states: what each step hands on; of a weight that does not recur nothing is known.
        beside: uses that are no step: the weight is added there, as in a penalty.
        columns: of every use the columns that multiply the state, None where all do.
        column_axis: along which axis of the weight itself they lie.
    """

    name: str
    place: int
    bit: Bits
    weight: Tensor
    recurs: bool
    chains: Chains
    states: States
    beside: Sequence[Use]
    columns: Mapping[Use, Columns | None]
    column_axis: int = 1

    @property
    def state_columns(self) -> Columns | None:
        """Which columns multiply the state, by the first use where that is known; None for all."""
        return next((columns for columns in self.columns.values() if columns is not None), None)

    @property
    def order(self) -> list[int]:
        """The numbers of its steps, chain after chain."""
        return [step for chain in self.chains.chains for step in chain.steps]


@dataclass(frozen=True)
class Asked:
    """What is asked of a graph.

    Attributes:
        wanted: of a weight's name and whether it recurs, whether it is to be itemised.
        state: the name of the module whose output is the state, or None.
        step: the name of the module whose call is one step, or None.
    """

    wanted: Callable[[str, bool], bool]
    state: str | None = None
    step: str | None = None


class Reading:
    """What a graph says of a model's weights.

    Args:
        model: any module.
        roots: nodes of what is differentiated.
        calls: of the model's modules during the forward pass.
    Attributes:
        graph: all of it.
        names: the weights that are in it, by the place of their node.
    """

    def __init__(self, model: nn.Module, roots: Sequence[Any], calls: ModuleCalls) -> None:
        self.graph, self.calls = Graph(roots, calls.whole), calls
        self.names, self.tensors = _weights_in(self.graph, model, calls)
        self.bits: dict[int, Bits] = {place: 1 << number for number, place in enumerate(self.names)}

    @cached_property
    def uses(self) -> Uses:
        """Of all weights."""
        return uses_in(self.graph, self.bits, self.calls.making)

    def counts(self) -> dict[str, tuple[int, bool]]:
        """Of every weight in the graph how often it is used, and whether it recurs."""
        found: dict[str, tuple[int, bool]] = {}
        for place, name in self.names.items():
            bit = self.bits[place]
            count, recurs = len(self.uses.of(bit)), bool(self.uses.recurrent & bit)
            before = found.get(name, (0, False))
            found[name] = (before[0] + count, before[1] or recurs)
        return found

    def recurrent_chains(self) -> dict[int, Chains]:
        """Of every weight that recurs, by its place, the steps and which follow one another."""
        found = {}
        for place, name in self.names.items():
            if self.uses.recurrent & self.bits[place]:
                chosen, _ = self._split(self.uses.of(self.bits[place]), True)
                found[place] = self._chains(name, chosen)
        return found

    def of(self, asked: Asked) -> list[WeightUses]:
        """The weights that are asked for."""
        found: dict[int, tuple[bool, list[Use], list[Use], Chains]] = {}
        if not any(
            asked.wanted(name, bool(self.uses.recurrent & self.bits[place])) for place, name in self.names.items()
        ):
            return []
        for place, name in self.names.items():
            recurs = bool(self.uses.recurrent & self.bits[place])
            # Those that share a state with others have the same one whoever is asked for.
            if recurs or asked.wanted(name, recurs):
                chosen, beside = self._split(self.uses.of(self.bits[place]), recurs)
                found[place] = recurs, chosen, beside, self._chains(name, chosen, asked.step)
        states = self._states({place: each[3] for place, each in found.items() if each[0]}, asked)
        columns = {
            place: self._columns(chosen, self.bits[place]) if recurs else dict.fromkeys(chosen)
            for place, (recurs, chosen, _, _) in found.items()
        }
        return [
            WeightUses(
                name=self.names[place],
                place=place,
                bit=self.bits[place],
                weight=self.tensors[place],
                recurs=recurs,
                chains=chains,
                states=states.get(place, States()),
                beside=beside,
                columns=columns[place],
                column_axis=self._column_axis(columns[place]),
            )
            for place, (recurs, _, beside, chains) in found.items()
            if asked.wanted(self.names[place], recurs)
        ]

    def _chains(self, name: str, chosen: Sequence[Use], step: str | None = None) -> Chains:
        owner = owner_of(name) if step is None else step
        steps = steps_of(self.uses, chosen, self.calls.spans.get(owner, ()), whole_calls=step is not None)
        return chained(self.graph, steps)

    def _states(self, chains: Mapping[int, Chains], asked: Asked) -> dict[int, States]:
        """By the place of the weight; weights that multiply the same tensors step by step have one state."""
        groups: dict[Any, list[int]] = {}
        for place, each in chains.items():
            # One weight shares its state with nobody.
            groups.setdefault(self._multiplied(each, place) if len(chains) > 1 else place, []).append(place)
        found: dict[int, States] = {}
        for places in groups.values():
            joint = chains[places[0]] if len(places) == 1 else self._together([chains[place] for place in places])
            states = states_of(self.graph, joint)
            if asked.state is not None:
                states = self._named_states(joint, states, asked.state)
            found.update(dict.fromkeys(places, states))
        return found

    def _multiplied(self, chains: Chains, place: int) -> Any:
        """What the weight is multiplied with at every step."""
        found = []
        for step in chains.steps:
            edges = []
            for edge in self.uses.multiplied_with(step.uses[0]):
                while self.graph.ops[edge[0]].rearranges and len(self.graph.inputs[edge[0]]) == 1:
                    edge = self.graph.flows[edge[0]][0]
                edges.append(edge)
            found.append(tuple(edges))
        # Nothing but constants says nothing of what is shared.
        return (tuple(found), tuple(chains.chain_of)) if any(found) else place

    def _together(self, chains: Sequence[Chains]) -> Chains:
        """The steps of several weights as steps of one."""
        steps = [
            Step(tuple(sorted({use for step in each for use in step.uses}, key=lambda use: use.node)), ())
            for each in zip(*(one.steps for one in chains), strict=True)
        ]
        return chained(self.graph, steps)

    def _split(self, uses: Sequence[Use], recurs: bool) -> tuple[list[Use], list[Use]]:
        """The uses that are part of a step, and those where one number made of the weight is added: a penalty."""
        if not recurs:
            return list(uses), []
        is_step = [multiplies(self.uses, use) or self._axes(use) > 0 for use in uses]
        pairs = list(zip(uses, is_step, strict=True))
        return [use for use, step in pairs if step], [use for use, step in pairs if not step]

    def _axes(self, use: Use) -> int:
        return len(self.graph.shape(self.graph.inputs[use.node][use.operand]))

    def _columns(self, chosen: Sequence[Use], bit: Bits) -> dict[Use, Columns | None]:
        """Of every use those columns that multiply the state at any use of the same part of the weight.

        At the first steps nothing leads back yet where later something does.
        """
        seen: dict[Any, Columns | None] = {}
        known: dict[Any, list[Columns | None]] = {}
        for use in chosen:
            key = self._signature(use, bit)
            if key is not None:
                if key not in seen:
                    seen[key] = columns_of(self.uses, use, bit) if key else None
                known.setdefault(self._layout(use), []).append(seen[key])
        joint = {layout: joined(found) for layout, found in known.items()}
        return {use: joint.get(self._layout(use)) for use in chosen}

    def _column_axis(self, columns: Mapping[Use, Columns | None]) -> int:
        """Along which axis of the weight the columns of its uses lie: a transposed one has them elsewhere."""
        use, known = next(((use, each) for use, each in columns.items() if each is not None), (None, None))
        if use is None or known is None:
            return 1
        edge = self.graph.inputs[use.node][use.operand]
        marks = torch.zeros(self.graph.shape(edge))
        marks.transpose(known.axis, -1)[..., known.index] = 1
        back = through(self.graph, marks, _rearranged(self.graph, edge))
        assert back is not None
        varies = (bool((back != back.narrow(axis, 0, 1)).any()) for axis in range(back.dim()))
        return list(varies).index(True)

    def _layout(self, use: Use) -> Any:
        """What tells uses apart whose columns are others: how the weight lies there."""
        return use.operand, self.graph.shape(self.graph.inputs[use.node][use.operand])

    def _signature(self, use: Use, bit: Bits) -> Any:
        """What tells uses with other columns apart; None where nothing leads back to an earlier use."""
        behind, inputs, ops = self.uses.behind, self.graph.flows, self.graph.ops
        edges = [edge for edge in self.uses.multiplied_with(use) if behind[edge[0]] & bit]
        if edges and not any(ops[edge[0]].joins or ops[edge[0]].rearranges or ops[edge[0]].may_mask for edge in edges):
            # As it comes from the step before: all columns are the state's.
            return ()
        found = []
        for edge in edges:
            way: list[Any] = []
            while True:
                name = type(self.graph.nodes[edge[0]]).__name__
                past = [e[0] != CONSTANT and bool(behind[e[0]] & bit) for e in inputs[edge[0]]]
                way.append((name, tuple(past), self.graph.shape(edge)))
                op = self.graph.ops[edge[0]]
                if not op.rearranges or past != [True]:
                    break
                edge = inputs[edge[0]][0]
            found.append(tuple(way))
        return (type(self.graph.nodes[use.node]).__name__, use.operand, tuple(found)) if found else None

    def _named_states(self, chains: Chains, states: States, name: str) -> States:
        """What the calls of a module returned, in place of what the graph says."""
        found = replace(states, of={}, why={})
        calls = self.calls.results.get(name, [])
        starts = [span.end for span, _ in calls]
        for number, step in enumerate(chains.steps):
            # The call that holds the step's uses, or the first one after them.
            at = bisect_left(starts, self.graph.made_at[step.uses[-1].node] + 1)
            edges = [edge for tensor in calls[at][1] if (edge := self._edge(tensor))] if at < len(calls) else []
            if edges:
                found.of[number] = State((edges[0],), tuple(edges[1:]))
            else:
                found.why[number] = STATE_NOT_MADE.format(name=name)
        return found

    def _edge(self, tensor: Tensor) -> Edge | None:
        place = self.graph.places.get(tensor.grad_fn)
        return None if place is None else (place, tensor.output_nr)


def _rearranged(graph: Graph, edge: Edge) -> list[tuple[int, int, int]]:
    """The way of a gradient from an edge through what only lays numbers out anew."""
    way = []
    while graph.ops[edge[0]].rearranges and len(graph.inputs[edge[0]]) == 1:
        way.append((*edge, 0))
        edge = graph.inputs[edge[0]][0]
    return way


def _weights_in(graph: Graph, model: nn.Module, calls: ModuleCalls) -> tuple[dict[int, str], dict[int, Tensor]]:
    """The model's parameters in a graph, by the place of their node; and those that stood for one in a call."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    places = [place for place, edges in enumerate(graph.inputs) if not edges]
    leaves = {place: graph.nodes[place].variable for place in places if hasattr(graph.nodes[place], "variable")}
    found = {place: names[id(tensor)] for place, tensor in leaves.items() if id(tensor) in names}
    tensors = {place: leaves[place] for place in found}
    for name, tensor in calls.replaced:
        edge = torch.autograd.graph.get_gradient_edge(tensor) if tensor.requires_grad else None
        place = None if edge is None else graph.places.get(edge.node)
        if place is not None and place not in found:
            found[place], tensors[place] = name, tensor
    order = {name: number for number, name in enumerate(names.values())}
    return dict(sorted(found.items(), key=lambda item: order.get(item[1], 0))), tensors


def with_name(weight: WeightUses, name: str) -> WeightUses:
    """The same under another name."""
    return replace(weight, name=name)
