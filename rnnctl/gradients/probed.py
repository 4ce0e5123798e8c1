"""From what was recorded of one training step to what every recurrent weight got."""

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rnnctl.errors import plain
from rnnctl.gradients.agreement import TOLERANCES, UNDERFLOW_MARGIN, Agreement, compared
from rnnctl.gradients.cell_calls import cell_norms
from rnnctl.gradients.decay import Decay, decay_from, entry, share_of, worst
from rnnctl.gradients.layer_calls import AUTOGRAD, StepNorms, layered_norms, without_carried
from rnnctl.gradients.layer_readings import LayerReadings
from rnnctl.gradients.tape_recording import NO_STEP, TapeRecording
from rnnctl.gradients.trace import ProbedWeight
from rnnctl.gradients.use_steps import UseSteps
from rnnctl.models.calls import CellCall, LayeredCall, chains_of, chains_reached, reached
from rnnctl.models.modules import (
    has_own_forward,
    weight_names,
    why_own_forward,
)
from rnnctl.models.recording import Calls, Recording
from rnnctl.recurrence.states_seen import first_nonfinite, seen_together
from rnnctl.recurrence.weights import LayerWeights

TAKES_NO_GRADIENT = "autograd brings nothing to it: it takes no gradient"
FROM_AUTOGRAD = "it was read from autograd itself, and no state was made once more: nothing to compare"
ENTERS_OFTEN = "what enters at the last step alone cannot be followed on its way back"
# A share that is vanishing by any measure.
SURELY = 1e-4
NOT_CALLED = "it was not called within the block"
ELSEWHERE = (
    f"{NOT_CALLED} by the thread in which that began, and another thread ran the model. "
    "Try: begin the block in the thread that trains"
)
COMPILED = "called inside a compiled function (torch.compile), which hides the call"
BY_OTHER_CODE = "its weight was used by other code than its forward"
EAGERLY = "Try: what was compiled without it, or torch.compiler.set_stance('force_eager') around what is run"
SEVERAL_PASSES = "several backward passes came by: how a gradient changes on its way back is a question of one of them"


def probed(
    recording: Recording,
    only: str | None,
    *,
    want_decay: bool = False,
    lengths: Tensor | None = None,
    tape: TapeRecording | None = None,
    readings: LayerReadings | None = None,
) -> tuple[dict[str, ProbedWeight], dict[str, str]]:
    """What was recorded, by weight name; and why a weight has no result.

    Args:
        recording: of modules of known classes, detached or between two passes.
        only: as of ``probe``, which names are shown.
        want_decay: as ``decay`` of ``probe``.
        lengths: real steps of every sequence, shape (batch,), or None.
        tape: of all other weights; then all are in the order of the model's parameters.
        readings: what was read of the modules' calls as backward passed by; what was not is swept.
    """
    results, missing = _of_modules(recording, only, want_decay, lengths, readings)
    used = {} if tape is None else tape.counts
    missing = {n: _why_not_called(recording, n in used) if why == NOT_CALLED else why for n, why in missing.items()}
    if tape is None:
        return _explained(results), missing
    by_name: dict[str, list[UseSteps]] = {}
    for each in tape.found:
        by_name.setdefault(each.name, []).append(each)
    results |= {name: of_uses(found, tape) for name, found in by_name.items() if name not in results}
    missing = {name: why for name, why in {**missing, **tape.missing}.items() if name not in results}
    order = {name: i for i, (name, _) in enumerate(tape.model.named_parameters(remove_duplicate=False))}
    return _explained(dict(sorted(results.items(), key=lambda item: order.get(item[0], len(order))))), missing


def _explained(results: Mapping[str, ProbedWeight]) -> dict[str, ProbedWeight]:
    """The same, which say of norms that are not finite which state is not either, where that is known."""
    told = {}
    for name, weight in results.items():
        states = first_nonfinite({} if weight.seen is None else {name: weight.seen})
        reason = None if bool(torch.isfinite(weight.grad_norm_W_hh).all()) else states.words
        told[name] = weight if reason is None else replace(weight, why={**weight.why, "grad_norm_W_hh": reason})
    return told


def _of_modules(
    recording: Recording,
    only: str | None,
    want_decay: bool,
    lengths: Tensor | None,
    readings: LayerReadings | None,
) -> tuple[dict[str, ProbedWeight], dict[str, str]]:
    """Of modules of known classes."""
    for calls in recording.calls:
        _settle_repeated(calls)
        if any(call.received for call in calls.kept):
            # A forward pass whose gradients are no training step's is none of its steps either.
            calls.kept[:] = reached(calls.kept, lambda call: bool(call.received) or not call.received.discarded)
    missing = {
        name: why
        for calls in recording.calls
        if (why := _why_missing(calls)) is not None
        for name in weight_names(calls.found, only)
    }
    missing |= _not_asked_for(recording, only)
    with _no_autocast(recording):
        parts = [
            _Part(calls.found.full(weight), calls, index, norms)
            for calls in recording.calls
            if _why_missing(calls) is None
            for index, (weight, norms) in enumerate(_norms_by_weight(calls, want_decay, lengths, readings))
        ]
    # Of all weights, shown or not: autograd adds up what a weight gets under all its names.
    sums = _Sums(parts, recording.totals)
    shown = {name for calls in recording.calls for name in weight_names(calls.found, only)} - missing.keys()
    results = {part.name: _result(part, sums, lengths) for part in parts if part.name in shown}
    if want_decay:
        results = {name: _with_reason(weight) for name, weight in results.items()}
    return results, missing


def _with_reason(weight: ProbedWeight) -> ProbedWeight:
    """The same, which says why the decay that was asked for is not known, where it is not."""
    if weight.decay is not None:
        return weight
    unknown = bool(weight.grad_norm_h_direct.isnan().any())
    reason = "what enters its states between its calls is not known" if unknown else ENTERS_OFTEN
    return replace(weight, why={**weight.why, "decay": reason})


def of_uses(found: Sequence[UseSteps], tape: TapeRecording) -> ProbedWeight:
    """One weight that was found in the graph, of all passes."""
    last = found[-1]
    total = torch.stack([each.grad_W_hh for each in found]).sum(0)
    norms = torch.cat([each.grad_norm_W_hh for each in found])
    rest = [each.grad_norm_W_xh for each in found if each.grad_norm_W_xh is not None]
    magnitude = float(torch.cat([norms, *rest]).sum()) + sum(each.beside for each in found)
    dtypes = (last.W_hh.dtype, *(each.narrowest for each in found))
    tolerance = max(TOLERANCES[dtype.to_real()] for dtype in dtypes)
    narrowest = max(dtypes, key=lambda dtype: torch.finfo(dtype).smallest_normal)
    agreement = _compared(total, tape.totals.get(last.name), magnitude, tolerance, narrowest)
    lost = _lost(last.grad_norm_state, narrowest)
    gates = last.pieces if all(each.pieces == last.pieces for each in found) else ()
    by_gate = torch.cat([each.grad_norm_pieces for each in found]) if gates else None
    cells = [each.grad_norm_c for each in found if each.grad_norm_c is not None]
    return ProbedWeight(
        name=last.name,
        cell=tape.owner(last.name),
        gates=gates,
        grad_norm_W_hh=norms,
        grad_norm_gates={} if by_gate is None else {gate: by_gate[:, i].clone() for i, gate in enumerate(gates)},
        grad_norm_h=torch.cat([each.grad_norm_h for each in found]),
        grad_norm_h_direct=torch.cat([each.grad_norm_h_direct for each in found]),
        grad_norm_c=torch.cat(cells) if len(cells) == len(found) else None,
        grad_W_hh=total,
        W_hh=last.W_hh,
        steps_per_call=tuple(steps for each in found for steps in each.steps_per_call),
        autograd_relative_error=agreement.relative_error if agreement else None,
        magnitude=magnitude,
        autograd_tolerance=tolerance,
        agrees=agreement.holds if agreement else None,
        recovered_error=None,
        states_agree=True,
        h_init_is_zero=float(norms[0]) == 0 and bool(norms.any()),
        decay=last.decay if len(found) == 1 and lost is None else None,
        padded_share=None,
        grad_norm_state=torch.cat([each.grad_norm_state for each in found]),
        grad_norm_W_xh=torch.cat(rest) if len(rest) == len(found) else None,
        columns=last.columns,
        column_axis=last.column_axis,
        recurrent=last.recurs,
        steps_per_chain=tuple(steps for each in found for steps in each.steps_per_chain),
        state_made_by=last.state_made_by,
        seen=last.seen if len(found) == 1 else None,
        read_from=AUTOGRAD,
        why={
            **(last.why if len(found) == 1 else {**last.why, "decay": SEVERAL_PASSES}),
            **({} if lost is None else {"decay": lost}),
            **_why_not_compared(agreement, AUTOGRAD),
        },
    )


def _lost(norms: Tensor, dtype: torch.dtype) -> str | None:
    """Why the way back of a gradient is not known that was followed in a narrow dtype; None where it is.

    Args:
        norms: of the gradient of the state at every step, shape (steps,).
        dtype: the narrowest that took part.
    """
    least = UNDERFLOW_MARGIN * torch.finfo(dtype).smallest_normal
    known = norms[torch.isfinite(norms)]
    # What is below it may be anything; it is vanishing all the same where what is left has been far above.
    if not known.numel() or not bool((known < least).any()) or float(known.max()) > least / SURELY:
        return None
    return f"in {plain(dtype)} the gradient loses its digits to underflow on its way back"


def _compared(
    found: Tensor, brought: Tensor | None, magnitude: float, tolerance: float, dtype: torch.dtype
) -> Agreement | None:
    """The comparison with what backward brought; None where the weight takes no gradient."""
    return None if brought is None else compared(found, brought, magnitude, tolerance, "model", dtype)


def _why_not_compared(agreement: Agreement | None, read_from: str) -> Mapping[str, str]:
    """Why the sum is not held against autograd's, and the states not against those that the weights make."""
    why = TAKES_NO_GRADIENT if agreement is None else agreement.why
    told = {} if why is None else {"autograd_relative_error": why}
    return {**told, "recovered_error": FROM_AUTOGRAD} if read_from == AUTOGRAD else told


def _no_autocast(recording: Recording) -> ExitStack:
    """The sweep in the dtypes that it asks for, also where backward was called under autocast."""
    devices = {weight.device.type for calls in recording.calls for weight in calls.found.module.parameters()}
    stack = ExitStack()
    for device in devices:
        if torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, enabled=False))
    return stack


def _settle_repeated(calls: Calls) -> None:
    """Calls that backward repeated: they stand for the first ones where those had no gradients."""
    if not any(call.received for call in calls.repeated):
        return
    if calls.pieces > 1 or calls.kept:
        calls.refusal = (
            "re-entrant checkpointing called it once more for every piece, last piece first, so the order of its "
            "steps is lost. Try use_reentrant=False"
        )
    else:
        calls.kept[:] = calls.repeated


def _not_asked_for(recording: Recording, only: str | None) -> dict[str, str]:
    """Weights that take a gradient of which none was asked for, beside others of the same module."""
    found = {}
    for calls in recording.calls:
        shown = weight_names(calls.found, only)
        for index, weight in enumerate(calls.found.weights):
            own = [call.parameters[index] for call in calls.kept if call.received]
            if any(each.requires_grad for each in own) and not any(id(each) in recording.totals for each in own):
                found[calls.found.full(weight)] = "no backward pass asked for its gradient (backward(inputs=...)?)"
        found = {
            name: why for name, why in found.items() if name in shown or name not in weight_names(calls.found, None)
        }
    return found


def _why_missing(calls: Calls) -> str | None:
    if calls.refusal is not None:
        return calls.refusal
    if not calls.kept and has_own_forward(calls.found.module) and not (calls.without_grad or calls.empty):
        return why_own_forward(calls.found)
    if any(call.received.double_backward for call in calls.kept):
        return "double backward: with create_graph=True the gradients are not final. Probe a plain loss.backward()"
    if any(call.received for call in calls.kept):
        return None
    if any(call.received.discarded for call in calls.kept):
        return NO_STEP
    if calls.kept:
        return "no gradient reached it: call backward() on a loss that depends on it, within the block"
    if calls.without_grad:
        return "it was called without gradients (torch.no_grad, inference_mode, or nothing in it requires one)"
    if calls.empty:
        return "it was called with an empty batch"
    if calls.unreal:
        return "it was called with meta or fake tensors, which have shapes and no numbers"
    return NOT_CALLED


def _why_not_called(recording: Recording, is_used: bool) -> str:
    """What can be told of a module of which no call was seen.

    Args:
        is_used: whether its weight took part in a backward pass all the same.
    """
    if recording.block.elsewhere:
        return ELSEWHERE
    if not _has_compiled():
        return f"no call of it was seen, and {BY_OTHER_CODE}" if is_used else NOT_CALLED
    if is_used:
        return f"it was {COMPILED}, or {BY_OTHER_CODE}. {EAGERLY}"
    return f"{NOT_CALLED}, or it was {COMPILED}: nothing tells which. {EAGERLY}"


def _has_compiled() -> bool:
    """Whether torch has compiled anything in this process."""
    # Loaded by whoever compiles, and not by us: it takes seconds.
    dynamo = sys.modules.get("torch._dynamo.utils")
    return dynamo is not None and bool(dynamo.counters["frames"].get("ok"))


@dataclass(frozen=True, eq=False)
class _Part:
    """One recurrent weight of a module: which of them, and its norms in every call."""

    name: str
    calls: Calls
    index: int
    norms: list[StepNorms]

    @property
    def last(self) -> LayeredCall | CellCall:
        return self.calls.kept[-1]

    @property
    def keys(self) -> frozenset[int]:
        """What tells the weight from others, under whatever names; several where each call had a new one."""
        return frozenset(id(call.parameters[self.index]) for call in self.calls.kept)


def _norms_by_weight(
    calls: Calls, want_decay: bool, lengths: Tensor | None, readings: LayerReadings | None
) -> list[tuple[str, list[StepNorms]]]:
    layered = [call for call in calls.kept if isinstance(call, LayeredCall)]
    if layered:
        by_call = None if readings is None else readings.norms(layered)
        if by_call is None:
            by_call = without_carried(layered, [layered_norms(call, want_decay, lengths) for call in layered])
        return [(name, [norms[i] for norms in by_call]) for i, name in enumerate(calls.found.weights)]
    cells = [call for call in calls.kept if isinstance(call, CellCall)]
    return [(calls.found.weights[0], [cell_norms(cells, want_decay, lengths)])]


class _Sums:
    """For every weight, whatever its names: the sum of all contributions against autograd's gradient."""

    def __init__(self, parts: Sequence[_Part], totals: Mapping[int, Tensor]) -> None:
        self._parts, self._totals = parts, totals

    def compared(self, part: _Part, tolerance: float, dtype: torch.dtype) -> Agreement | None:
        """How the sum of all contributions under all names agrees with it; None where it takes no gradient.

        Args:
            dtype: the narrowest that took part.
        """
        sharing = [other for other in self._parts if other.keys & part.keys]
        keys = frozenset[int]().union(*(other.keys for other in sharing))
        brought = [self._totals[key] for key in keys if key in self._totals]
        if not brought:
            return None
        norms = [each for other in sharing for each in other.norms]
        found, expected = torch.stack([each.grad_W_hh for each in norms]).sum(0), torch.stack(brought).sum(0)
        return compared(found, expected, sum(each.magnitude for each in norms), tolerance, "model", dtype)


def _result(part: _Part, sums: _Sums, lengths: Tensor | None) -> ProbedWeight:
    last, norms = part.last, part.norms
    weights = last.weights[part.index] if isinstance(last, LayeredCall) else last.weights
    # What no gradient links is no longer way back; the calls of a cell are told together.
    decay = norms[0].decay
    if len(norms) > 1:
        chains = chains_reached(part.calls.kept)
        decay = worst([_decay_of_calls([norms[number] for number in chain]) for chain in chains])
    tolerance = _tolerance(last, weights, max(each.largest_input for each in norms))
    seen = [each.seen for each in norms if each.seen is not None]
    agreement = sums.compared(part, tolerance, _narrowest(last))
    errors = [each.recovered_error for each in norms if each.recovered_error is not None]
    error = max(errors) if errors else None
    gates = last.kind.letters
    by_gate = torch.cat([each.grad_norm_gates for each in norms])
    cells = [each.grad_norm_c for each in norms if each.grad_norm_c is not None]
    return ProbedWeight(
        name=part.name,
        cell=last.kind.name,
        gates=gates,
        grad_norm_W_hh=torch.cat([each.grad_norm_W_hh for each in norms]),
        # Columns of their own, or a gate that is kept would keep all the others.
        grad_norm_gates={gate: by_gate[:, i].clone() for i, gate in enumerate(gates)},
        grad_norm_h=torch.cat([each.grad_norm_h for each in norms]),
        grad_norm_h_direct=torch.cat([each.grad_norm_h_direct for each in norms]),
        grad_norm_c=torch.cat(cells) if cells else None,
        grad_W_hh=torch.stack([each.grad_W_hh for each in norms]).sum(0),
        W_hh=weights.W_hh,
        steps_per_call=_steps_per_call(part),
        autograd_relative_error=agreement.relative_error if agreement else None,
        magnitude=sum(each.magnitude for each in norms),
        autograd_tolerance=tolerance,
        agrees=agreement.holds if agreement else None,
        recovered_error=error,
        # NaN where the states themselves are: the norms show that, and it is no disagreement.
        states_agree=error is None or math.isnan(error) or error <= 10 * tolerance,
        h_init_is_zero=_starts_from_zeros(part),
        decay=decay,
        padded_share=_padded_share(part, lengths),
        grad_norm_state=torch.cat([each.grad_norm_state for each in norms]),
        steps_per_chain=_steps_per_chain(part),
        seen=seen_together(seen) if seen else None,
        read_from=norms[0].read_from,
        why=_why_not_compared(agreement, norms[0].read_from),
    )


def _decay_of_calls(norms: list[StepNorms]) -> Decay | None:
    """Over several calls only where nothing enters before the last step."""
    if len(norms) == 1:
        return norms[0].decay
    state, direct = (torch.cat([getattr(each, name) for each in norms]) for name in ("grad_norm_state", "entering"))
    last = entry(direct)
    # NaN, where it is not known what enters, is neither nothing nor something.
    return None if bool((direct[:last] != 0).any()) else decay_from(state.log(), last)


def _padded_share(part: _Part, lengths: Tensor | None) -> float | None:
    if lengths is None:
        return None
    if isinstance(part.last, LayeredCall) and part.last.batch_sizes is not None:
        return 0.0
    known = [each.padded for each in part.norms if each.padded is not None]
    padded, real = (sum(float(norms[i].sum()) for norms in known) for i in range(2))
    return share_of(padded, padded + real)


def _steps_per_call(part: _Part) -> tuple[int, ...]:
    if isinstance(part.last, CellCall):
        return (1,) * len(part.calls.kept)
    return tuple(each.grad_norm_W_hh.shape[0] for each in part.norms)


def _steps_per_chain(part: _Part) -> tuple[int, ...]:
    """Steps by sequences of calls each of which took the state of the one before."""
    steps = _steps_per_call(part)
    return tuple(sum(steps[number] for number in chain) for chain in chains_of(part.calls.kept))


def _starts_from_zeros(part: _Part) -> bool:
    first = part.calls.kept[0]
    if isinstance(first, CellCall):
        return not bool(first.before[0].any())
    return first.initial is None or not bool(first.initial[0][part.index].any())


def _tolerance(call: LayeredCall | CellCall, weights: LayerWeights, largest_input: float) -> float:
    """Of the narrowest dtype that took part; a GPU may round float32 products to TF32."""
    states, dtypes = _states_of(call), _dtypes(call)
    tolerance = max(TOLERANCES[dtype] for dtype in dtypes)
    # What a nonlinearity is given is rounded in units of its size, which is that of inputs far from 1.
    given = largest_input * float(weights.W_ih.abs().sum(1).max())
    if math.isfinite(given):
        tolerance = max(tolerance, max(torch.finfo(dtype).eps for dtype in dtypes) * given)
    # TF32 keeps ten bits, as float16 does.
    reduced = states.device.type == "cuda" and torch.backends.cudnn.allow_tf32
    return max(tolerance, 1e-2) if reduced and states.dtype == torch.float32 else tolerance


def _states_of(call: LayeredCall | CellCall) -> Tensor:
    return call.output if isinstance(call, LayeredCall) else call.before[0]


def _dtypes(call: LayeredCall | CellCall) -> tuple[torch.dtype, ...]:
    weights = call.weights[0] if isinstance(call, LayeredCall) else call.weights
    return _states_of(call).dtype, weights.W_hh.dtype, call.narrowest


def _narrowest(call: LayeredCall | CellCall) -> torch.dtype:
    """The dtype that took part whose numbers become subnormal first."""
    return max(_dtypes(call), key=lambda dtype: torch.finfo(dtype).smallest_normal)
