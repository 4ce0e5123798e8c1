"""From the calls of a cell, one a step, to what each of them contributes to the gradient of its W_hh.

Autograd itself says dL/dh_t of every call, so nothing is swept: what is left is elementwise, for all steps at once.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import torch
from torch import Tensor

from rnnctl.gradients.contributions import gate_contributions, step_norms, takes_products, wide_dtype
from rnnctl.gradients.decay import Decay, decay_from, entry, worst
from rnnctl.gradients.layer_calls import StepNorms, unless_rounding
from rnnctl.gradients.layer_sweep import layer_norms, state_errors
from rnnctl.models.calls import CellCall, chains_reached, taken
from rnnctl.models.replay import calls_in_float64
from rnnctl.recurrence.cell_kind import CellKind
from rnnctl.recurrence.run import LayerRun
from rnnctl.recurrence.scaling import largest_magnitude
from rnnctl.recurrence.slopes import Slopes, State
from rnnctl.recurrence.states_seen import (
    UNREPEATED,
    InFloat64,
    StatesSeen,
    first_bad_step,
    seen_states,
    seen_together,
)
from rnnctl.recurrence.weights import LayerWeights

# Calls taken together: their blocks stay in the cache, and a long run needs no memory of its length squared.
CHUNK = 48


def cell_norms(calls: Sequence[CellCall], want_decay: bool = False, lengths: Tensor | None = None) -> StepNorms:
    """The norms of every call, in order.

    Args:
        lengths: real steps of every sequence, (batch,), where there may be calls for padding, too.
    """
    with torch.inference_mode():
        steps = [_Steps.of(chunk) for chunk in _chunks(calls)]
        norms = [_norms(chunk) for chunk in steps]
        grad_norm_gates = torch.cat([by_gate.cpu().double() for _, by_gate in norms])
        grad_norm_h, grad_norm_h_direct = (_all_norms(part) for part in _grad_h_and_direct(calls, steps))
        delta = torch.cat([step_norms(each.delta) for each in steps])
        before = torch.cat([step_norms(each.before[0]) for each in steps])
        errors = [each.recovered_error() for each in steps]
        padded = None if lengths is None else _padded(steps, lengths)
        grad_norm_c = _grad_norm_c(steps)
        grad_norm_c_direct = torch.zeros_like(grad_norm_h)
        if grad_norm_c is not None:
            # Its decay alone asks.
            grad_norm_c_direct = _all_norms(_c_direct(calls, steps)) if want_decay else grad_norm_c_direct * torch.nan
    found = StepNorms(
        grad_norm_W_hh=torch.linalg.vector_norm(grad_norm_gates, dim=1),
        grad_norm_gates=grad_norm_gates.clone(),
        grad_norm_h=grad_norm_h.clone(),
        grad_norm_h_direct=grad_norm_h_direct.clone(),
        grad_norm_c=grad_norm_c,
        grad_norm_c_direct=grad_norm_c_direct.clone(),
        grad_W_hh=torch.stack([total for total, _ in norms]).sum(0).clone(),
        magnitude=float((delta * before).sum()),
        recovered_error=max(errors),
        decay=None,
        padded=padded,
        largest_input=max(largest_magnitude(each.x) for each in steps),
        seen=_seen(calls, steps) if want_decay else None,
    )
    if not want_decay:
        return found
    return replace(found, decay=worst([_decay(calls, found, chain) for chain in chains_reached(calls)]))


def cells_seen(calls: Sequence[CellCall]) -> StatesSeen:
    """What the states and inputs of all calls are like."""
    with torch.inference_mode():
        return _seen(calls, [_Steps.of(chunk) for chunk in _chunks(calls)])


def _seen(calls: Sequence[CellCall], steps: "Sequence[_Steps]") -> StatesSeen:
    """The same of blocks that are there, and where states are not finite what they would be in float64."""
    dtype = calls[0].after[0].dtype
    found = replace(seen_together([each.seen() for each in steps]), dtype=dtype)
    if found.first_nonfinite is None:
        return found
    return replace(found, in_float64=_in_float64(as_layer(calls), found.first_nonfinite))


def _in_float64(run: LayerRun | None, first: int) -> InFloat64:
    """Of a chain of calls, if they are one, whose h_t is not finite first at a step."""
    if run is None:
        return UNREPEATED
    bad = first_bad_step(run.x)
    if bad is not None:
        # Behind that step an input may be one that the states have made.
        return InFloat64(was_given=True) if bad <= first else UNREPEATED
    step = first_bad_step(calls_in_float64(run))
    given = (run.h[0], run.c_init, *run.weights.tensors)
    return InFloat64.of_states(step, before=first, given=given)


def band_sums(calls: Sequence[CellCall], last: int, windows: Sequence[int]) -> Tensor:
    """The sum of the G_t from one window back to the next, (windows, rows, hidden), float64.

    Args:
        calls: one a step.
        last: the step at which the windows end.
        windows: how many steps, the last one included, in order.
    """
    with torch.inference_mode():
        found: Tensor | None = None
        start = 0
        for steps in (_Steps.of(chunk) for chunk in _chunks(calls)):
            delta, before = steps.delta, steps.before[0]
            if found is None:
                found = delta.new_zeros(len(windows), delta.shape[2], before.shape[2])
            for place, (near, far) in enumerate(pairwise((0, *windows))):
                # Empty where the band ends before this chunk or begins after it, which adds nothing.
                seen = slice(max(0, last + 1 - far - start), max(0, last + 1 - near - start))
                found[place].addmm_(delta[seen].flatten(0, 1).t(), before[seen].flatten(0, 1))
            start += delta.shape[0]
        assert found is not None
    return found.clone()


def _all_norms(parts: Sequence[Tensor]) -> Tensor:
    """The norm of each, shape (parts,), float64."""
    return torch.stack([torch.linalg.vector_norm(part) for part in parts]).cpu().double()


def _grad_norm_c(steps: "Sequence[_Steps]") -> Tensor | None:
    norms = [step_norms(each.grads[1]) for each in steps if len(each.grads) > 1]
    return torch.cat(norms) if norms else None


def _chunks(calls: Sequence[CellCall]) -> Iterator[list[CellCall]]:
    """Consecutive calls with the very same weights, not too many at once."""
    chunk: list[CellCall] = []
    for call in calls:
        # By identity: calls share one copy of a weight for as long as it stays as it is.
        if chunk and (len(chunk) == CHUNK or chunk[0].weights.W_hh is not call.weights.W_hh):
            yield chunk
            chunk = []
        chunk.append(call)
    yield chunk


@dataclass(frozen=True, eq=False)
class _Steps:
    """Consecutive calls as blocks (steps, batch, features), in float64; small batches are filled up with zeros.

    ``before`` and ``after`` are the states around every call, ``grads`` all that arrives at those after it;
    ``delta`` is the gradient of W_hh h_{t-1} + b_hh, (steps, batch, gates * hidden).
    """

    weights: LayerWeights
    before: State
    delta: Tensor
    products: bool
    kind: CellKind
    x: Tensor
    after: State
    grads: State
    slopes: Slopes

    @classmethod
    def of(cls, calls: Sequence[CellCall]) -> "_Steps":
        first = calls[0]
        weights = first.weights.to(wide_dtype(first.before[0]))
        before = _states([call.before for call in calls])
        products = takes_products(before[0], first.kind.blocks)
        x, after = _block([call.x for call in calls]), _states([call.after for call in calls])
        slopes = first.kind.slopes(x, before, after, weights)
        grads = _arrived(calls, after, slopes)
        return cls(weights, before, slopes.delta(grads), products, first.kind, x, after, grads, slopes)

    def carried(self, row: int) -> State:
        """What this call sends back to the state that it was given, past c's way through h, each (batch, units)."""
        return self.slopes[row].back(tuple(part[row] for part in self.grads), self.delta[row])

    def past_h(self, row: int, carried_c: Tensor | None) -> Tensor:
        """What arrives at this call's c past h and past what the next call sends back to it, (batch, hidden)."""
        h, c = (part[row] for part in self.grads)
        return c - self.slopes[row].arrived((h, torch.zeros_like(c) if carried_c is None else carried_c))[1]

    def seen(self) -> StatesSeen:
        """What states and inputs are like."""
        before, after = self.before[0], self.after[0]
        run = LayerRun(self.kind, self.weights, self.x, after, None, after[:0])
        return seen_states(run, before, after)

    def recovered_error(self) -> float:
        """How far the states are from those that the weights make."""
        found, after = self.kind.next_states(self.x, self.before, self.weights)[0], self.after[0]
        # Rows that were filled up with zeros are no states.
        present = after.ne(0) | (self.x.ne(0).any(2, keepdim=True))
        return float((state_errors(found, after) * present).max())


def _states(states: Sequence[State]) -> State:
    """h, or h and c, of all calls."""
    return tuple(_block(parts) for parts in zip(*states, strict=True))


def _arrived(calls: Sequence[CellCall], after: State, slopes: Slopes) -> State:
    """dL/dh_t and dL/dc_t in all, each (steps, batch, units)."""
    grads = tuple(
        _block([_gradient(call, name, state.shape[2]) for call in calls])
        for name, state in zip(("h", "c"), after, strict=False)
    )
    if len(grads) == 1:
        return grads
    # The fused kernel returns both states from one node; else dL/dc_t came with the part through h_t.
    apart = torch.tensor([call.fused for call in calls], device=grads[0].device).view(-1, 1, 1)
    return grads[0], torch.where(apart, slopes.arrived(grads)[1], grads[1])


def _block(rows: Sequence[Tensor]) -> Tensor:
    """(steps, largest batch, features) in float64, with zeros where a batch is smaller."""
    most = max(part.shape[0] for part in rows)
    wide = [part.to(wide_dtype(part)) for part in rows]
    if all(part.shape[0] == most for part in wide):
        return torch.stack(wide)
    return torch.stack([torch.nn.functional.pad(part, (0, 0, 0, most - part.shape[0])) for part in wide])


def _gradient(call: CellCall, name: str, features: int) -> Tensor:
    """What backward brought to a call, or zeros, (batch, features)."""
    grad = call.received.by_name.get(name)
    rows = call.before[0]
    return rows.new_zeros(rows.shape[0], features) if grad is None else grad.reshape(-1, features)


def _norms(steps: _Steps) -> tuple[Tensor, Tensor]:
    """Sum of G_t, and the norm of every gate's rows of each, (steps, gates)."""
    return gate_contributions(steps.delta, steps.before[0], steps.products, steps.kind.blocks)


def _padded(chunks: Sequence["_Steps"], lengths: Tensor) -> tuple[Tensor, Tensor] | None:
    """Norms of what G_t has from padding and from real steps, the t-th call being step t."""
    batch = chunks[0].delta.shape[1]
    if lengths.shape[0] != batch or any(chunk.delta.shape[1] != batch for chunk in chunks):
        return None
    found: tuple[list[Tensor], list[Tensor]] = [], []
    t = 0
    for chunk in chunks:
        steps = torch.arange(t, t + chunk.delta.shape[0], device=chunk.delta.device)
        padding = (steps[:, None] >= lengths.to(steps.device)).unsqueeze(-1)
        for norms, kept in zip(found, (padding, ~padding), strict=True):
            _, by_gate = gate_contributions(chunk.delta * kept, chunk.before[0], chunk.products, 1)
            norms.append(by_gate.squeeze(1).cpu().double())
        t += chunk.delta.shape[0]
    return torch.cat(found[0]).clone(), torch.cat(found[1]).clone()


def _grad_h_and_direct(calls: Sequence[CellCall], chunks: Sequence[_Steps]) -> tuple[list[Tensor], list[Tensor]]:
    """dL/dh_t of every call, in all, and without what later calls of the same cell send back."""
    rows = [(chunk, row) for chunk in chunks for row in range(chunk.delta.shape[0])]
    total = [chunk.grads[0][row] for chunk, row in rows]
    # Backward tells the whole of dL/dh_t; what is from outside is left when the next call's part is taken off.
    direct = list(total)
    for number, call in enumerate(calls):
        if call.source is not None:
            chunk, row = rows[number]
            direct[call.source] = direct[call.source] - _fit(chunk.carried(row)[0], direct[call.source])
    eps = torch.finfo(calls[0].before[0].dtype).eps
    if any(call.received.outside is not None for call in calls):
        # Something between the calls shaped the state: what came past them was looked for in the graph.
        return total, [_outside(call, "h", whole) for call, whole in zip(calls, total, strict=True)]
    for call in calls:
        if call.derived is not None:
            # Without a look at the graph, what comes back through it cannot be told apart.
            direct[call.derived] = torch.full_like(direct[call.derived], torch.nan)
    return total, [unless_rounding(part, whole, eps) for part, whole in zip(direct, total, strict=True)]


def _c_direct(calls: Sequence[CellCall], chunks: Sequence[_Steps]) -> list[Tensor]:
    """dL/dc_t of every call from outside: neither through h_t nor from later calls of the same cell."""
    rows = [(chunk, row) for chunk in chunks for row in range(chunk.delta.shape[0])]
    whole = [chunk.grads[1][row] for chunk, row in rows]
    if any(call.received.outside is not None for call in calls):
        return [_outside(call, "c", each) for call, each in zip(calls, whole, strict=True)]
    carried: dict[int, Tensor] = {}
    for number, call in enumerate(calls):
        if call.source is not None:
            chunk, row = rows[number]
            carried[call.source] = _fit(chunk.carried(row)[1], whole[call.source])
    eps = torch.finfo(calls[0].before[0].dtype).eps
    direct = [
        unless_rounding(chunk.past_h(row, carried.get(number)), whole[number], eps)
        for number, (chunk, row) in enumerate(rows)
    ]
    for call in calls:
        if call.derived is not None:
            direct[call.derived] = torch.full_like(direct[call.derived], torch.nan)
    return direct


def _outside(call: CellCall, name: str, whole: Tensor) -> Tensor:
    """What came to h or c past all later calls, filled up with zeros as the whole is."""
    grad = (call.received.outside or {}).get(name)
    if grad is None:
        return torch.zeros_like(whole)
    rows = grad.reshape(-1, whole.shape[-1]).to(whole.dtype)
    return _fit(rows, whole)


def _fit(grad: Tensor, like: Tensor) -> Tensor:
    """The rows that the other has, too: both were filled up to the largest batch of their chunk."""
    short = like.shape[0] - grad.shape[0]
    return grad[: like.shape[0]] if short <= 0 else torch.nn.functional.pad(grad, (0, 0, 0, short))


def _decay(calls: Sequence[CellCall], norms: StepNorms, chain: list[int]) -> Decay | None:
    """Of a gradient that enters at the last step of a chain of calls: as it is, or swept along it."""
    state, entering = norms.grad_norm_state[chain], norms.entering[chain]
    calls = taken(calls, chain)
    round_about = any(call.received.entering is not None for call in calls)
    if round_about:
        # Past the inputs of later calls, too: what goes into them is as much of the recurrence as the state is.
        entering = torch.tensor([_entering(call) for call in calls], dtype=torch.float64)
    last = entry(entering)
    # NaN, where it is not known what enters, is neither nothing nor something.
    if not bool((entering[:last] != 0).any()):
        return decay_from(state.log(), last)
    # A state that goes round the cell is more than its W_hh carries.
    run = None if round_about else as_layer(calls[: last + 1])
    found = None if run is None else layer_norms(run, want_decay=True, recorded=False).decay
    return None if found is None else found()


def _entering(call: CellCall) -> float:
    """The norm of what comes to h and c past the inputs of later calls as well."""
    grads = (call.received.entering or {}).values()
    return math.hypot(*(float(torch.linalg.vector_norm(grad.double())) for grad in grads))


def as_layer(calls: Sequence[CellCall]) -> LayerRun | None:
    """The calls as one layer over time with a gradient at its end, where each takes the state of the one before.

    None where they are no such layer: other states or batches between them, weights that change from call to call.
    """
    first, last = calls[0], calls[-1]
    chained = all(call.source == number for number, call in enumerate(calls[1:]))
    same = all(call.before[0].shape == first.before[0].shape and _alike(call.weights, first.weights) for call in calls)
    if not chained or not same:
        return None
    h = torch.stack([first.before[0], *(call.after[0] for call in calls)])
    return LayerRun(
        kind=first.kind,
        weights=first.weights,
        x=torch.stack([call.x for call in calls]),
        h=h,
        c_init=first.before[1] if len(first.before) > 1 else None,
        direct=_gradient(last, "h", h.shape[2]).unsqueeze(0),
        direct_c=_Steps.of([last]).past_h(0, None).unsqueeze(0) if "c" in last.received.by_name else None,
    )


def _alike(weights: LayerWeights, others: LayerWeights) -> bool:
    """Whether two calls had the same weights: mostly the very same tensors, but a parametrization makes them anew."""
    pairs = ((getattr(weights, each.name), getattr(others, each.name)) for each in fields(LayerWeights))
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)
