"""The steps of a recurrent weight that autograd's graph alone shows: the state after each, and the step's Jacobian."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from rnnctl.errors import DtypeError, InputError, hands_over
from rnnctl.memory import require_memory
from rnnctl.models.inputs import Given, inputs_of
from rnnctl.models.made_tensors import MadeTensors
from rnnctl.models.module_calls import ModuleCalls, owner_of, tensors_in
from rnnctl.models.modules import matches, none_found, why_compiled
from rnnctl.models.tape.beside import Edge
from rnnctl.models.tape.graph import CONSTANT, Graph
from rnnctl.models.tape.operations import operation
from rnnctl.models.tape.pull_back import swept
from rnnctl.models.weight_uses import Asked, Reading, WeightUses

# Bytes of what a block of vector-Jacobian products has in flight, about: so many rows of J are taken together.
BLOCK_BYTES = 1 << 25


@dataclass(frozen=True)
class WrittenKind:
    """What a step of somebody's own code is, in words.

    ``name``: the class that holds the weight; ``state``: what a step hands to the next.
    """

    name: str
    state: str
    nonlinearity: None = None


class GraphSteps:
    """Consecutive steps of one weight in the graph of one forward pass.

    The state of a step is all that it hands on of what the weight did: its tensors, flattened side by side for every
    sequence.

    Args:
        graph: of the pass.
        made: what its nodes made, as far as it was seen.
        name: of the weight.
        kind: of the steps.
        states: the tensors after each step, from the one before the first step that is measured.
        first_step: the number of that step.
        W_hh: shape (hidden, hidden), float64, where the weight is one square matrix; else None.
    Attributes:
        sizes: of every tensor of the state, how many numbers it has for a sequence.
        seq_len: how many steps there are to measure.
        batch: how many sequences.
        dtype: of the state, in which the steps are differentiated.
        device: where that happens.
        notes: what is to be told of the steps that the model ran; ``given``: the tensors that it took.
    Raises:
        DtypeError: a complex state.
    """

    def __init__(
        self,
        graph: Graph,
        made: MadeTensors,
        name: str,
        kind: WrittenKind,
        states: Sequence[tuple[Edge, ...]],
        first_step: int,
        W_hh: Tensor | None,
    ) -> None:
        self.name, self.kind, self.first_step, self.W_hh = name, kind, first_step, W_hh
        self._graph, self._made, self._states = graph, made, states
        self.notes: tuple[str, ...] = ()
        self._shapes = [graph.shape(edge) for edge in states[-1]]
        self._types = [_type_of(graph, edge) for edge in states[-1]]
        self.seq_len, self.dtype = len(states) - 1, self._types[0][0]
        self.device = self._types[0][1]
        if any(dtype.is_complex for dtype, _ in self._types):
            raise DtypeError(f"{name}: its state is complex; spectrum and lyapunov take a real one")
        self._axes: tuple[int | None, ...] = (None,) * len(self._shapes)
        self.batch, self._at_once, self.given = 1, True, tuple[Tensor, ...]()
        self._generator = torch.Generator().manual_seed(0)

    @property
    def sizes(self) -> list[int]:
        """Numbers of every tensor of one sequence's state."""
        return [prod(shape) // self.batch for shape in self._shapes]

    @property
    def state_size(self) -> int:
        """Numbers of one sequence's state."""
        return sum(self.sizes)

    @property
    def state_init(self) -> Tensor:
        """The state before the first step that is measured, as of ``state``, shape (batch, state)."""
        return self.state(-1)

    def state(self, step: int) -> Tensor:
        """The state after one of the measured steps, shape (batch, state), float64; NaN where it was not seen."""
        parts = []
        for edge, shape, axis in zip(self._states[step + 1], self._shapes, self._axes, strict=True):
            tensor = self._made.of(self._graph.nodes[edge[0]], edge[1])
            wide = torch.full(shape, torch.nan).double() if tensor is None else tensor.cpu().double()
            parts.append(self._rows(wide, axis))
        return torch.cat(parts, dim=1)

    def is_finite(self, step: int) -> bool:
        """Whether nothing of the state after a step was seen to be infinite or NaN."""
        seen = (self._made.of(self._graph.nodes[place], number) for place, number in self._states[step + 1])
        return all(bool(torch.isfinite(tensor).all()) for tensor in seen if tensor is not None)

    def jacobian(self, step: int) -> Tensor:
        """d state_t / d state_{t-1} of one of the measured steps, shape (batch, state, state), float64 on the CPU.

        Raises:
            InputError: a sequence's state depends on those of others; the state is not made of the one before.
        """
        back = self._back(step)
        if not back.leads.issuperset(place for place, _ in back.after):
            raise InputError(f"{self.name}: its state at step {self.first_step + step} is not made of the one before")
        J = self._rows_of(step, back)
        if self._is_not(J, step, back):
            # What runs under vmap may be another thing in a Function of the user's own: row by row, then.
            self._at_once = False
            J = self._rows_of(step, back)
        return J

    def find_sequences(self, sizes: Sequence[int]) -> None:
        """Find out which axis of every tensor counts the sequences, by what does not depend on what.

        Args:
            sizes: how many sequences there may be, the likeliest first.
        Raises:
            InputError: sequences depend on one another, or are not to be told apart.
        """
        tried = False
        for size in sizes:
            if size == 1:
                return
            candidates = [[axis for axis, n in enumerate(shape) if n == size] for shape in self._shapes]
            for axes in product(*candidates):
                self.batch, self._axes, tried = size, axes, True
                if not self._mixes():
                    return
        if tried:
            raise InputError(self._not_apart(self.first_step))
        if sizes:
            shapes = " and ".join(map(str, self._shapes))
            raise InputError(
                f"{self.name}: no axis of its state, of shape {shapes}, counts the {sizes[0]} sequences of the batch. "
                "Try one sequence at a time"
            )

    def require_room(self) -> None:
        """Raise TooLargeError where the Jacobian of a single step does not fit into memory."""
        state = self.state_size
        what = f"the Jacobian of a step, ({state}, {state}) for each of {self.batch} sequences,"
        require_memory(3 * 8 * self.batch * state**2 + 8 * BLOCK_BYTES, what)

    def _mixes(self) -> bool:
        """Whether sequences depend on one another at the first step, as the axes are now."""
        chosen = self._some_sequences()
        sent = self._sent(self._random(chosen), self._back(0))
        return bool((self._wide(sent)[~chosen].abs() > 0).any())

    def _not_apart(self, step: int) -> str:
        return (
            f"{self.name}: at step {step} the state of a sequence depends on other sequences of the batch (BatchNorm "
            "in training?), and has no Jacobian of its own. Try model.eval(), or one sequence at a time"
        )

    def _is_not(self, J: Tensor, step: int, back: "_Back") -> bool:
        """Whether a product with J, taken by itself, is another; raises where it reaches other sequences."""
        chosen = self._some_sequences()
        v = self._random(chosen)
        sent = self._wide(self._sent(v, back))
        if bool((sent[~chosen].abs() > 0).any()):
            raise InputError(self._not_apart(self.first_step + step))
        if not self._at_once:
            return False
        rows = self._wide(v)
        expected = torch.einsum("bi,bij->bj", rows, J)
        bound = torch.einsum("bi,bij->bj", rows.abs(), J.abs()) * 64 * torch.finfo(self.dtype).eps
        return bool(((sent - expected).abs() > bound + torch.finfo(self.dtype).tiny).any())

    def _some_sequences(self) -> Tensor:
        """About half of them, drawn anew for every step, shape (batch,); all where there is one."""
        order = torch.randperm(self.batch, generator=self._generator)
        return order < (self.batch + 1) // 2

    def _random(self, chosen: Tensor) -> list[Tensor]:
        """A random gradient of these sequences' states, 0 of the others, by tensor (batch, numbers)."""
        found = []
        for size, (dtype, device) in zip(self.sizes, self._types, strict=True):
            drawn = torch.rand(self.batch, size, generator=self._generator) + 0.5
            found.append(torch.where(chosen[:, None], drawn, 0.0).to(device, dtype))
        return found

    def _back(self, step: int) -> "_Back":
        return _Back(self._graph, self._states[step], self._states[step + 1])

    def _rows_of(self, step: int, back: "_Back") -> Tensor:
        """All rows of J, some at a time."""
        J = torch.empty(self.batch, self.state_size, self.state_size, dtype=torch.float64)
        at_once = max(1, BLOCK_BYTES // (64 * self.batch * self.state_size))
        row = 0
        for part, size in enumerate(self.sizes):
            for start in range(0, size, at_once):
                units = torch.arange(start, min(size, start + at_once))
                J[:, row : row + len(units)] = self._some_rows(part, units, back).transpose(0, 1)
                row += len(units)
        return J

    def _some_rows(self, part: int, units: Tensor, back: "_Back") -> Tensor:
        """Rows of J that belong to units of one tensor, shape (units, batch, state)."""
        dtype, device = self._types[part]
        basis = torch.zeros(len(units), self.batch, self.sizes[part], dtype=dtype, device=device)
        basis[torch.arange(len(units)), :, units] = 1

        def sent(rows: Tensor) -> tuple[Tensor, ...]:
            return self._sent([rows if i == part else None for i in range(len(self._shapes))], back)

        if self._at_once and len(units) > 1:
            try:
                return self._wide(torch.vmap(sent)(basis))
            except Exception:
                # Whatever a Function of the user's own raises there, by itself it may not.
                self._at_once = False
        return torch.stack([self._wide(sent(rows)) for rows in basis])

    @hands_over
    def _sent(self, grads: Sequence[Tensor | None], back: "_Back") -> tuple[Tensor, ...]:
        """What a gradient of the state sends to the state before, by tensor (batch, numbers)."""
        given = {
            edge: self._laid_out(rows, shape, axis)
            for edge, rows, shape, axis in zip(back.after, grads, self._shapes, self._axes, strict=True)
            if rows is not None
        }
        arrived = swept(self._graph, given, back.ends.__contains__, back.leads.__contains__)
        found = []
        for edge, shape, axis, (dtype, device) in zip(back.before, self._shapes, self._axes, self._types, strict=True):
            part = arrived.get(edge)
            found.append(self._rows(torch.zeros(shape, dtype=dtype, device=device) if part is None else part, axis))
        return tuple(found)

    def _wide(self, parts: Sequence[Tensor]) -> Tensor:
        """Side by side, in float64 on the CPU, shape (..., batch, state)."""
        return torch.cat([part.cpu().double() for part in parts], dim=-1)

    def _rows(self, tensor: Tensor, axis: int | None) -> Tensor:
        return tensor.reshape(1, -1) if axis is None else tensor.movedim(axis, 0).reshape(self.batch, -1)

    def _laid_out(self, rows: Tensor, shape: tuple[int, ...], axis: int | None) -> Tensor:
        if axis is None:
            return rows.reshape(shape)
        return rows.reshape(self.batch, *shape[:axis], *shape[axis + 1 :]).movedim(0, axis)


class _Back:
    """The way from the state after a step to the one before it.

    ``before`` and ``after``: their tensors; ``ends``: the places where it ends; ``leads``: those on it.
    """

    def __init__(self, graph: Graph, before: tuple[Edge, ...], after: tuple[Edge, ...]) -> None:
        self.before, self.after = before, after
        self.ends = {place for place, _ in before}
        seen, waiting, lowest = set(self.ends), [place for place, _ in after], min(self.ends)
        on_the_way: list[int] = []
        while waiting:
            place = waiting.pop()
            if place not in seen:
                seen.add(place)
                on_the_way.append(place)
                # What was made before the earliest tensor of that state does not lead to it.
                waiting += [edge[0] for edge in graph.inputs[place] if edge[0] >= lowest]
        self.leads = set(self.ends)
        for place in sorted(on_the_way):
            if any(edge[0] in self.leads for edge in graph.inputs[place]):
                self.leads.add(place)


def graph_steps(model: nn.Module, x: Given, run: Callable[[], Any], only: str | None) -> GraphSteps | None:
    """The steps of the one recurrent weight of a model that only autograd's graph shows, as x drives it.

    Args:
        model: any module; it is run once, and left as it was.
        x: its input, shape (batch, time, input), or a tuple or mapping of all its inputs.
        run: calls it on that.
        only: a pattern of module or weight names that leaves one weight, as in ``probe``.
    Returns:
        None where there is no such weight.
    Raises:
        InputError: several weights; steps without a state of a fixed size; sequences that depend on one another.
    """
    calls, made = ModuleCalls(model, {}), MadeTensors()
    with taking_gradients(model), torch.enable_grad(), calls.noted(), made:
        output = run()
    reading = Reading(model, [tensor.grad_fn for tensor in tensors_in(output)], calls)
    # All of them: what a step hands on is the state of all weights that multiply the same tensors.
    weights = reading.of(Asked(lambda name, recurs: recurs))
    chosen = [each for each in weights if matches(each.name, only)]
    if not weights:
        return None
    if len(chosen) != 1:
        raise InputError(_not_one([each.name for each in weights], [each.name for each in chosen], only))
    steps = _steps(model, reading.graph, chosen[0], made)
    steps.find_sequences(_sequences(x, len(chosen[0].chains.steps)))
    steps.require_room()
    return steps


def several(names: Sequence[str]) -> str:
    """What to say where a question of one weight finds these."""
    return f"spectrum and lyapunov look at one weight; pick one with --module of {', '.join(names)}"


def why_none(model: nn.Module) -> str:
    """What to say where there is no recurrent weight."""
    why = why_compiled(model) or none_found(model)
    return f"spectrum and lyapunov look at one recurrent weight; there is none; {why}"


def _not_one(names: Sequence[str], chosen: Sequence[str], only: str | None) -> str:
    if chosen:
        return several(chosen)
    there = "there are" if len(names) > 1 else "there is"
    return f"only={only!r} picks no weight that recurs in this pass; {there} {', '.join(names)}"


@contextmanager
def taking_gradients(model: nn.Module) -> Iterator[None]:
    """Within, weights that are frozen take a gradient as well: the graph does not show them otherwise."""
    frozen = [
        each
        for each in model.parameters()
        if not each.requires_grad and each.is_floating_point() and not each.is_inference()
    ]
    try:
        for each in frozen:
            each.requires_grad_(True)
        yield
    finally:
        for each in frozen:
            each.requires_grad_(False)


def _steps(model: nn.Module, graph: Graph, weight: WeightUses, made: MadeTensors) -> GraphSteps:
    chains = weight.chains.chains
    if len(chains) > 1:
        raise InputError(
            f"{weight.name} runs over {len(chains)} sequences that no state links; spectrum and lyapunov take one"
        )
    states = _alike(graph, _known_states(weight))
    first = _first_like_the_last(graph, states)
    states = states[first:]
    initial = _initial(graph, states) if first == 0 else None
    if initial is not None:
        states = [initial, *states]
    if len(states) < 2:
        raise InputError(f"{weight.name}: a step's Jacobian needs the state before it. Try a longer sequence")
    kind = WrittenKind(_owner(model, weight.name), "h_t" if len(states[-1]) == 1 else "h_t and others")
    first_step = first + (initial is None)
    return GraphSteps(graph, made, weight.name, kind, states, first_step, _square(graph, weight, made))


def _first_like_the_last(graph: Graph, states: Sequence[tuple[Edge, ...]]) -> int:
    """From which step on states have one size: where steps look at several before them the first have fewer."""
    shapes = [[graph.shape(edge) for edge in state] for state in states]
    return next(step for step in range(len(shapes)) if all(each == shapes[-1] for each in shapes[step:]))


# A state that several steps hand on is not seen to be one at so many steps at the end.
UNKNOWN_AT_END = 3


def _known_states(weight: WeightUses) -> list[tuple[Edge, ...]]:
    """After every step; without the last ones where these alone are not known."""
    states, order = weight.states, weight.order
    known = next((i for i, step in enumerate(order) if step not in states.of), len(order))
    if known < len(order) - UNKNOWN_AT_END or known == 0:
        raise InputError(f"{weight.name}: its state is not known at step {known}: {states.why[order[known]]}")
    return [tuple(sorted(state.hidden) + sorted(state.others)) for state in (states.of[step] for step in order[:known])]


def _alike(graph: Graph, states: list[tuple[Edge, ...]]) -> list[tuple[Edge, ...]]:
    """Without the last one, which no later step shows, where it is made in another way than the one before."""
    kinds = [[type(graph.nodes[place]).__name__ for place, _ in state] for state in states[-2:]]
    return states[:-1] if len(states) > 2 and kinds[0] != kinds[1] else states


def _initial(graph: Graph, states: Sequence[tuple[Edge, ...]]) -> tuple[Edge, ...] | None:
    """What takes the place of the state before the first step, where it is in the graph: a learned one."""
    if len(states) < 2:
        return None
    ways = _ways(graph, states[1], set(states[0]))
    found = [_followed(graph, states[0], ways.get(edge)) for edge in states[0]]
    shapes = [None if edge is None else graph.shape(edge) for edge in found]
    if shapes != [graph.shape(edge) for edge in states[0]]:
        return None
    return tuple(edge for edge in found if edge is not None)


# From which tensor of a state one sets out, and then by which inputs of which operations.
_Way = tuple[int, tuple[tuple[str, int], ...]]


def _ways(graph: Graph, after: Sequence[Edge], before: set[Edge]) -> Mapping[Edge, _Way]:
    """How one comes from a state back to each tensor of the one before."""
    lowest = min(place for place, _ in before)
    found: dict[Edge, _Way] = {}
    waiting: list[tuple[Edge, _Way]] = [(edge, (i, ())) for i, edge in enumerate(after)]
    seen = set(after)
    for edge, (start, hops) in waiting:
        if edge in before:
            found[edge] = start, hops
            continue
        name = type(graph.nodes[edge[0]]).__name__
        for operand, behind in enumerate(graph.inputs[edge[0]]):
            if behind[0] >= lowest and behind not in seen:
                seen.add(behind)
                waiting.append((behind, (start, (*hops, (name, operand)))))
    return found


def _followed(graph: Graph, state: Sequence[Edge], way: _Way | None) -> Edge | None:
    """Where the same way leads from another state; None where it is another one there, or ends at a constant."""
    if way is None:
        return None
    edge = state[way[0]]
    for name, operand in way[1]:
        if edge[0] == CONSTANT or type(graph.nodes[edge[0]]).__name__ != name:
            return None
        edge = graph.inputs[edge[0]][operand]
    return None if edge[0] == CONSTANT else edge


def _owner(model: nn.Module, name: str) -> str:
    """The class that holds a weight, past maps of torch's own."""
    parts = owner_of(name).split(".") if owner_of(name) else []
    owners = [model.get_submodule(".".join(parts[:count])) for count in range(len(parts), -1, -1)]
    classes = [type(owner) for owner in owners]
    written = (each for each in classes if not each.__module__.startswith("torch."))
    return next(written, classes[0]).__name__


def _square(graph: Graph, weight: WeightUses, made: MadeTensors) -> Tensor | None:
    """W_hh where a step uses one square matrix; or its transpose, with the same eigenvalues and singular values."""
    uses = weight.chains.steps[-1].uses
    use = uses[0]
    kind: type = type(graph.nodes[use.node])
    op, edge = operation(kind), graph.inputs[use.node][use.operand]
    if len(uses) > 1 or op.summed_axis(use.operand, len(graph.shape(edge))) is None:
        return None
    W, columns = _matrix_at(graph, edge, made), weight.columns[use]
    if W is not None and columns is not None:
        # Of the axis that is summed a part: where both are as long as that one no square is left, whichever it is.
        W = W.index_select(list(W.shape).index(graph.shape(edge)[columns.axis]), columns.index.to(W.device))
    return W.cpu().double() if W is not None and W.shape[0] == W.shape[1] else None


def _matrix_at(graph: Graph, edge: Edge, made: MadeTensors) -> Tensor | None:
    """The matrix that lies at an edge, perhaps in another layout; None where it is only a part of one, or none."""
    size = prod(graph.shape(edge))
    while prod(graph.shape(edge)) == size:
        kind: type = type(graph.nodes[edge[0]])
        found = made.of(graph.nodes[edge[0]], edge[1])
        if found is not None and found.dim() == 2 and found.is_floating_point():
            return found
        before = [each for each in graph.inputs[edge[0]] if each[0] != CONSTANT]
        if len(before) != 1 or not operation(kind).rearranges:
            return None
        edge = before[0]
    return None


def _sequences(x: Given, steps: int) -> list[int]:
    """How many sequences there may be, the likeliest first; none where x has no axis for them."""
    found = inputs_of(x)
    shape = found.shape
    is_one = isinstance(found, torch.Tensor) and found.is_floating_point() and len(shape) == 2
    if len(shape) < 2 or is_one:
        return []
    batch, seq_len = shape[0], shape[1]
    if steps == seq_len:
        return [batch]
    return [seq_len] if steps == batch else [batch, seq_len]


def _type_of(graph: Graph, edge: Edge) -> tuple[torch.dtype, torch.device]:
    node = graph.nodes[edge[0]]
    of: Any = getattr(node, "variable", None)
    of = node._input_metadata[edge[1]] if of is None else of
    return of.dtype, of.device
