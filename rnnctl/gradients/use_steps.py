"""From what a backward pass sent to every use of a weight, to norms by step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rnnctl.gradients.decay import Decay, decay_from, entry
from rnnctl.gradients.norm_book import norm_of, widest
from rnnctl.gradients.use_norms import REST, STATE, UseNorms, overlap, region_of
from rnnctl.models.tape.beside import Edge
from rnnctl.models.tape.operands import first_without_number, states_among
from rnnctl.models.tape.pull_back import pulled_back
from rnnctl.models.tape.states import State
from rnnctl.models.tape.uses import Use
from rnnctl.models.weight_uses import WeightUses
from rnnctl.recurrence.states_seen import StatesSeen, is_nan_alone, of_states

# More sequences through one weight are windows of one: to follow each would take as many passes.
MOST_CHAINS = 16
NOT_RECURRENT = "it does not recur: it has no state"


@dataclass(frozen=True, eq=False)
class UseSteps:
    """What every step contributed to the gradient of one weight, in one backward pass; chain after chain.

    Attributes:
        name: of the weight in the model; ``parameter`` is the weight itself.
        recurs: whether it is recurrent.
        grad_norm_W_hh, grad_norm_W_xh: of the columns that multiply the state, and of the others (None where all do),
            each (steps,), float64.
        columns: which columns multiply the state, whole numbers (columns,); None for all.
        column_axis: along which axis of the weight they lie.
        pieces: what the parts of the weight are called that the uses of a step take; none where they take all of it.
        grad_norm_pieces: by piece, (steps, pieces).
        grad_norm_h, grad_norm_h_direct, grad_norm_state: (steps,), NaN where not known.
        grad_norm_c: the same of what else is handed on, or None.
        grad_W_hh: sum of the contributions, shape of the weight, float64.
        W_hh: the weight as it was, detached.
        steps_per_chain, steps_per_call: they sum to the steps.
        beside: the norm of what came to the weight where it is only added.
        narrowest: the least precise dtype in which a gradient came.
        state_made_by: the operations that made the tensors of the state, h first; none where it is not known.
        decay: of a gradient that enters at the last step alone, where that is known.
        why: of a field that is not known, the reason.
        seen: what the states are like that its uses multiply, where that was asked for and they are kept.
    """

    name: str
    parameter: Tensor
    recurs: bool
    grad_norm_W_hh: Tensor
    grad_norm_W_xh: Tensor | None
    columns: Tensor | None
    column_axis: int
    pieces: tuple[str, ...]
    grad_norm_pieces: Tensor
    grad_norm_h: Tensor
    grad_norm_h_direct: Tensor
    grad_norm_state: Tensor
    grad_norm_c: Tensor | None
    grad_W_hh: Tensor
    W_hh: Tensor
    steps_per_chain: tuple[int, ...]
    steps_per_call: tuple[int, ...]
    beside: float
    narrowest: torch.dtype
    state_made_by: tuple[str, ...]
    decay: Decay | None
    why: Mapping[str, str]
    seen: StatesSeen | None = None

    @property
    def grad_of_state_columns(self) -> Tensor:
        """``grad_W_hh`` of the columns that multiply the state alone, float64."""
        whole = self.grad_W_hh
        return whole if self.columns is None else whole.index_select(self.column_axis, self.columns)

    @property
    def magnitude(self) -> float:
        """The sum of the norms, which cancelling steps do not shrink."""
        return float(self.grad_norm_W_hh.sum()) + self.beside


def use_steps(norms: UseNorms, index: int, decay: Decay | None, why_no_decay: str | None) -> UseSteps:
    """Of one weight, once the pass has gone by and the norms are settled.

    Args:
        decay: what was found by a pass of its own; None where the norms themselves tell, or nothing does.
        why_no_decay: the reason where nothing does.
    """
    weight, order = norms.weights[index], norms.weights[index].order
    pieces, by_piece = _pieces(norms, index, order)
    known = _states(norms, index, order)
    no_decay = {"decay": why_no_decay} if decay is None and why_no_decay is not None else {}
    return UseSteps(
        name=weight.name,
        parameter=weight.weight,
        recurs=weight.recurs,
        grad_norm_W_hh=_by_step(norms, index, order, STATE),
        grad_norm_W_xh=None if weight.state_columns is None else _by_step(norms, index, order, REST),
        columns=None if weight.state_columns is None else weight.state_columns.index,
        column_axis=weight.column_axis,
        pieces=pieces,
        grad_norm_pieces=by_piece,
        grad_norm_h=known.h,
        grad_norm_h_direct=known.direct,
        grad_norm_state=known.state,
        grad_norm_c=known.c,
        grad_W_hh=sum_of(norms, index),
        W_hh=weight.weight.detach().clone(),
        steps_per_chain=tuple(len(chain.steps) for chain in weight.chains.chains),
        steps_per_call=_steps_per_call(weight),
        beside=_beside(norms, index),
        narrowest=_narrowest(norms, index),
        state_made_by=_state_made_by(norms, weight),
        decay=decay,
        why={**known.why, **no_decay},
    )


def _steps_per_call(weight: WeightUses) -> tuple[int, ...]:
    """By calls of the module that owns the weight; outside of any, by chains."""
    found: list[int] = []
    before: tuple[int, int | None] | None = None
    for number, chain in enumerate(weight.chains.chains):
        for step in chain.steps:
            here = number, weight.chains.steps[step].call
            if here == before:
                found[-1] += 1
            else:
                found.append(1)
            before = here
    return tuple(found)


def _beside(norms: UseNorms, index: int) -> float:
    book = norms.books[index].get(("beside",))
    return 0.0 if book is None or book[1].total is None else norm_of(book[1].total)


def with_states(steps: UseSteps, weight: WeightUses, operands: Sequence[Sequence[Tensor]]) -> UseSteps:
    """The same with what the states are like, by what the steps after them multiply.

    Args:
        operands: as of ``kept_operands``; none where nobody asks.
    """
    # What the first step multiplies is no state that a step has made.
    bad, states = first_without_number(operands), states_among(operands[1:], weight.state_columns)
    if states is not None:
        found = of_states(states, has_ends=steps.state_made_by[:1] == ("Tanh",))
    elif bad is not None:
        # Where it is is known, and nothing else.
        found = StatesSeen(len(operands), 0, None, None, None, None, None, is_nan=_is_nan(operands, bad))
    else:
        return steps
    # The step that made what this one multiplies; before the first there is none.
    first = None if bad is None else max(0, bad - 1)
    return replace(steps, seen=replace(found, first_nonfinite=first, is_whole=False))


def _is_nan(operands: Sequence[Sequence[Tensor]], bad: int) -> bool:
    """Whether what the first step that is given no numbers is given may be no overflow."""
    unsound = [each for each in operands[bad] if not bool(torch.isfinite(each).all())]
    near = [each.flatten() for each in operands[bad - 1]] if bad else []
    return all(is_nan_alone(each, torch.cat(near) if near else None) for each in unsound)


def _state_made_by(norms: UseNorms, weight: WeightUses) -> tuple[str, ...]:
    state = next(iter(weight.states.of.values()), None)
    return () if state is None else tuple(norms.graph.ops[place].name for place, _ in state.edges)


def _narrowest(norms: UseNorms, index: int) -> torch.dtype:
    found = [book.narrowest for _, book in norms.books[index].values() if book.narrowest is not None]
    return min(found, key=lambda dtype: dtype.itemsize)


def sum_of(norms: UseNorms, index: int) -> Tensor:
    """The sum of all contributions, shape of the weight, float64."""
    weight = norms.weights[index]
    total = torch.zeros_like(weight.weight, dtype=widest(weight.weight))
    for edge, book in norms.books[index].values():
        if book.total is not None:
            total += book.total if edge[0] == weight.place else _back(norms, weight, book.total, edge)
    return total


def _back(norms: UseNorms, weight: WeightUses, part: Tensor, edge: Edge) -> Tensor:
    # In the dtype in which the nodes on the way back have it.
    dtype = norms.graph.nodes[edge[0]]._input_metadata[edge[1]].dtype
    return pulled_back(norms.graph, part.to(dtype), edge, weight.place, norms.uses.made_of)


def _by_step(norms: UseNorms, index: int, order: Sequence[int], name: str) -> Tensor:
    """Of every step, in order; several pieces of a weight lie beside one another."""
    weight, matrices = norms.weights[index], norms.matrices[index]
    found = _by_use(norms, index, name)
    steps = weight.chains.steps
    if not matrices and all(len(step.uses) == 1 for step in steps):
        return torch.tensor([found.get(steps[number].uses[0], 0.0) for number in order], dtype=torch.float64)
    values = [math.hypot(*(found.get(use, 0.0) for use in steps[number].uses)) for number in order]
    if name == STATE and matrices:
        whole = {number: norm_of(matrix) for number, matrix in matrices.items()}
        values = [whole.get(number, value) for number, value in zip(order, values, strict=True)]
    return torch.tensor(values, dtype=torch.float64)


def _by_use(norms: UseNorms, index: int, name: str) -> Mapping[Use, float]:
    found: dict[Use, float] = {}
    for _, book in norms.books[index].values():
        found |= book.norms.get(name, {})  # type: ignore[arg-type]
    return found


def _pieces(norms: UseNorms, index: int, order: Sequence[int]) -> tuple[tuple[str, ...], Tensor]:
    """The parts of the weight that the uses of a step take, if every step takes the same, and their norms."""
    weight = norms.weights[index]
    steps = [weight.chains.steps[number] for number in order]
    count = len(steps[0].uses)
    alike = count > 1 and all(len(step.uses) == count and step.pieces == steps[0].pieces for step in steps)
    if not alike or overlap(steps[0]):
        return (), torch.zeros(len(steps), 0, dtype=torch.float64)
    regions = [region_of(piece) for piece in steps[0].pieces]
    names = tuple(str(region[0]) if region is not None else "" for region in regions)
    found = _by_use(norms, index, STATE)
    values = [[found.get(use, 0.0) for use in step.uses] for step in steps]
    return names, torch.tensor(values, dtype=torch.float64)


@dataclass(frozen=True)
class _Known:
    """Norms at the states, and why some are not known."""

    h: Tensor
    direct: Tensor
    state: Tensor
    c: Tensor | None
    why: Mapping[str, str]


def _states(norms: UseNorms, index: int, order: Sequence[int]) -> _Known:
    weight, states = norms.weights[index], norms.weights[index].states
    if not weight.recurs:
        unknown = torch.full((len(order),), torch.nan, dtype=torch.float64)
        return _Known(unknown, unknown, unknown, None, {"grad_norm_state": NOT_RECURRENT})
    rows = [_at(norms, index, states.of.get(number)) for number in order]
    h, direct, c = torch.tensor(rows, dtype=torch.float64).t().contiguous().unbind(0)
    has_c = any(found.others for found in states.of.values())
    reasons = "; ".join(dict.fromkeys(states.why.values()))
    state = torch.hypot(h, c) if has_c else h
    return _Known(h.clone(), direct.clone(), state.clone(), c.clone() if has_c else None, _why_state(reasons))


def _why_state(reasons: str) -> Mapping[str, str]:
    names = ("grad_norm_state", "grad_norm_h", "grad_norm_h_direct")
    return dict.fromkeys(names, reasons) if reasons else {}


def _at(norms: UseNorms, index: int, state: State | None) -> tuple[float, float, float]:
    """h, h from outside, and c, at one step."""
    if state is None:
        return math.nan, math.nan, math.nan
    arrived = norms.arrived.norms
    if len(state.hidden) == 1 and not state.others:
        return arrived.get(state.hidden[0], 0.0), norms.direct_norm(index, state.hidden[0]), 0.0
    h, c = (math.hypot(*(arrived.get(edge, 0.0) for edge in edges)) for edges in (state.hidden, state.others))
    return h, math.hypot(*(norms.direct_norm(index, edge) for edge in state.hidden)), c


def own_decay(norms: UseNorms, index: int, steps: Sequence[int]) -> Decay | None:
    """Of a chain of steps, where nothing enters its states before the last step; None elsewhere."""
    weight = norms.weights[index]
    states = [weight.states.of.get(step) for step in steps]
    known = [state for state in states if state is not None]
    if not weight.recurs or len(known) < len(states):
        return None
    last = last_entry(norms, index, known)
    if any(norms.direct_norm(index, edge) != 0 for state in known[:last] for edge in state.edges):
        return None
    rows = [_at(norms, index, state) for state in known]
    return decay_of([math.hypot(h, c) for h, _, c in rows], last)


def last_entry(norms: UseNorms, index: int, states: Sequence[State]) -> int:
    """The last of the states of one weight to which something comes from outside; else the last of all."""
    return entry(torch.tensor([sum(norms.direct_norm(index, edge) for edge in state.edges) for state in states]))


def decay_of(values: Sequence[float], last: int) -> Decay:
    """The decay of a norm over the steps of a chain, from that on at which the gradient enters."""
    return decay_from(torch.tensor(values, dtype=torch.float64).log(), last)


def followed(weight: WeightUses) -> list[tuple[int, ...]]:
    """The chains whose way back is followed: all, or where they are many one of the longest."""
    chains = [chain.steps for chain in weight.chains.chains]
    return chains if len(chains) <= MOST_CHAINS else [max(reversed(chains), key=len)]
