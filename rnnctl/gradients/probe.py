"""Attach to somebody's model for one training step, and report what every time step contributed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rnnctl.errors import InputError, did_you_mean
from rnnctl.gradients.agreement import TOLERANCES, Agreement, compared
from rnnctl.gradients.cell_calls import cell_norms
from rnnctl.gradients.decay import Decay, decay_over_time
from rnnctl.gradients.layer_calls import StepNorms, layered_norms, without_carried
from rnnctl.gradients.tape_recording import NO_STEP, TapeRecording
from rnnctl.gradients.use_steps import UseSteps
from rnnctl.models.calls import CellCall, LayeredCall, reached
from rnnctl.models.modules import (
    has_own_forward,
    matches,
    none_found,
    recurrent_modules,
    require_no_linear,
    weight_names,
    why_compiled,
    why_own_forward,
)
from rnnctl.models.recording import Calls, Recording
from rnnctl.models.weight_uses import Asked
from rnnctl.recurrence.states_seen import StatesSeen, seen_together
from rnnctl.recurrence.weights import LayerWeights

TAKES_NO_GRADIENT = "autograd brings nothing to it: it takes no gradient"
SEVERAL_PASSES = "several backward passes came by: how a gradient changes on its way back is a question of one of them"


@dataclass(frozen=True, eq=False)
class ProbedWeight:
    """What every time step contributed to the gradient of one recurrent weight.

    T counts the steps of all calls of the module, in the order of the calls; the steps of a
    reverse direction stand in the order of the sequence, as its inputs do.

    Attributes:
        name: in the model, as in ``model.named_parameters()``.
        cell: "RNN", "GRU", "LSTM", ...; of a weight that was found in autograd's graph the class of the module
            that owns it, such as "Linear".
        gates: their names in the order of the rows of W_hh: r, z, n of a GRU; i, f, g, o of an LSTM; of a
            weight that a step uses in pieces their numbers.
        grad_norm_W_hh: norm of step t's contribution G_t, all gates together, shape (T,), float64; where the
            weight is applied to x and h beside one another, of the columns of h alone.
        grad_norm_gates: gate -> norm of its rows of G_t, shape (T,), float64; empty without gates.
        grad_norm_h: norm of dL/dh_t, the recurrent path included, shape (T,), float64; NaN where it is not
            known which tensor the state is (see ``why``).
        grad_norm_h_direct: norm of dL/dh_t from outside this recurrence, shape (T,), float64; NaN where that
            cannot be told apart.
        grad_norm_c: norm of the gradient of what else a step hands on, dL/dc_t of an LSTM, what comes to c_t by
            way of h_t included, shape (T,), float64; else None.
        grad_W_hh: sum of G_t over all steps, shape of the weight, float64; all columns.
        W_hh: the weight as it was at the last call, detached.
        steps_per_call: steps of each call of the module that owns the weight, in order; they sum to T.
        autograd_relative_error: of the sum of G_t (over all names of a shared weight) against what
            autograd brought to the weight within the block; None where there is nothing to compare: it takes no
            gradient, both are 0, or autograd's left the range of its dtype or lost its digits there (``why`` says).
        magnitude: sum over t of ||delta_t|| ||h_{t-1}||, which cancelling terms do not shrink.
        autograd_tolerance: rounding that is allowed, as a share of it.
        agrees: whether the difference is within that; None where there is nothing to compare. It is not
            where the weight enters the loss by another way as well (a penalty), or its gradient is
            changed by a hook.
        recovered_error: largest difference between the module's states and those that follow from
            its weights, relative to 1 or |h|; None for a linear map, of which no state is known.
        states_agree: whether that is rounding; if not, the module did something that its weights do
            not say, and the norms are not to be trusted.
        h_init_is_zero: the first call started from zeros, so its first contribution is exactly 0.
        decay: how a gradient that enters at the last step changes on its way back, where asked for.
        padded_share: where ``lengths`` were given, the part that padding has in sum ||G_t||, the padded
            and the real part of each G_t taken apart; 0 for packed sequences.
        grad_norm_state: norm of the gradient of the whole state that step t hands on, dL/dh_t and dL/dc_t beside
            one another, shape (T,), float64; ``decay`` and verdicts follow it.
        grad_norm_W_xh: where the weight is applied to x and h beside one another, the norm of the other columns
            of G_t, shape (T,), float64; else None.
        columns: which columns of the weight (input channels of a convolution) multiply the state, shape (columns,);
            None for all.
        column_axis: along which axis of the weight they lie: 1, or 0 of one that is applied as cat(x, h) @ W.
        recurrent: whether what the weight multiplies leads back to an earlier use of it; if not, it is a shared
            weight that was asked for by its name.
        steps_per_chain: T by sequences (windows, directions) that no gradient links, in the order of their first steps.
        state_made_by: of a weight that was found in the graph, the operations of which the tensors of its state are
            results, h first ("Tanh"; "NativeDropout" where h is dropped out before the weight takes it): of these
            tensors the norms are. Empty of others, and where the state is not known.
        seen: what the states and inputs of all calls are like; of a weight that was found in autograd's graph what of
            it can be told, where ``decay`` was asked for; else None.
        why: of a field that is NaN or None without being 0, the reason.
    Units: loss per unit of weight or of state.
    """

    name: str
    cell: str
    gates: tuple[str, ...]
    grad_norm_W_hh: Tensor
    grad_norm_gates: Mapping[str, Tensor]
    grad_norm_h: Tensor
    grad_norm_h_direct: Tensor
    grad_norm_c: Tensor | None
    grad_W_hh: Tensor
    W_hh: Tensor
    steps_per_call: tuple[int, ...]
    autograd_relative_error: float | None
    magnitude: float
    autograd_tolerance: float
    agrees: bool | None
    recovered_error: float | None
    states_agree: bool
    h_init_is_zero: bool
    decay: Decay | None
    padded_share: float | None
    grad_norm_state: Tensor
    grad_norm_W_xh: Tensor | None = None
    columns: Tensor | None = None
    column_axis: int = 1
    recurrent: bool = True
    steps_per_chain: tuple[int, ...] = ()
    why: Mapping[str, str] = field(default_factory=dict)
    state_made_by: tuple[str, ...] = ()
    seen: StatesSeen | None = None

    @property
    def grad_of_state_columns(self) -> Tensor:
        """``grad_W_hh`` of the columns that multiply the state alone, shape (rows, columns), float64."""
        return self._of_state(self.grad_W_hh)

    @property
    def matrix(self) -> Tensor | None:
        """The part of the weight that multiplies the state, where it is one square matrix, (hidden, hidden)."""
        part = self._of_state(self.W_hh)
        square = part.dim() == 2 and part.shape[0] == part.shape[1]
        return part if square and not part.is_complex() else None

    def _of_state(self, whole: Tensor) -> Tensor:
        return whole if self.columns is None else whole.index_select(self.column_axis, self.columns)


class UnknownWeightError(InputError, KeyError):
    """A name that is none of a trace's weights."""

    # That of KeyError puts the message in quotes, as if it were a key.
    __str__ = Exception.__str__


class Trace(Mapping[str, ProbedWeight]):
    """Weight name -> ``ProbedWeight``, there once the block of ``probe`` has ended.

    Attributes:
        missing: weight name -> why there is no result for it.
    """

    def __init__(self) -> None:
        self._results: Mapping[str, ProbedWeight] | None = None
        self.missing: Mapping[str, str] = {}

    def __getitem__(self, name: str) -> ProbedWeight:
        results = self._ready()
        if name in results:
            return results[name]
        if name in self.missing:
            raise UnknownWeightError(f"there is no result for {name!r}: {self.missing[name]}")
        known = ", ".join(results) or "none"
        raise UnknownWeightError(
            f"no recurrent weight is named {name!r}; known are {known}.{did_you_mean(name, results)}"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._ready())

    def __len__(self) -> int:
        return len(self._ready())

    def _ready(self) -> Mapping[str, ProbedWeight]:
        if self._results is None:
            raise InputError("the trace is filled when the block ends: read it after 'with rnnctl.probe(...)'")
        return self._results

    def _fill(self, results: Mapping[str, ProbedWeight], missing: Mapping[str, str]) -> None:
        self._results, self.missing = dict(results), dict(missing)


@contextmanager
def probe(
    model: nn.Module,
    *,
    only: str | None = None,
    state: str | None = None,
    step: str | None = None,
    decay: bool = False,
    lengths: Tensor | None = None,
    linear: object = None,
) -> Iterator[Trace]:
    """Watch one training step of any model, and itemise the gradient of its recurrent weights by time step.

    Run the forward and the backward pass within the block; the trace is filled when it ends. The
    model, its gradients and the random numbers are as they would be without the probe. Torch's layers and cells
    and rnnctl's own are known; every other weight that recurs is found in autograd's graph, however it is written.

    Args:
        model: any module.
        only: a pattern of module or weight names, such as "decoder.*"; the name of a parameter that is shared by
            the steps and does not recur itemises that one.
        state: the name of the module whose output is the state, where that is not found.
        step: the name of the module whose call is one step, where a step is several uses (sub-steps of a solver).
        decay: also follow the gradient that enters at the last step alone (one more sweep where the
            loss has more than that; autograd's graph then lasts until the backward pass is through).
        lengths: real steps of every sequence, (batch,), to learn how much of the gradient falls on the
            padding of sequences that were not packed.
        linear: gone; an InputError says what to write instead.
    Yields:
        A ``Trace``: weight names, such as "encoder.weight_hh_l0_reverse", to frozen results.
    Raises:
        InputError: nothing recurrent, or something that cannot be seen into (compiled, quantized,
            torch.no_grad, double backward), or no backward pass within the block.
    Source: Werbos 1990, "Backpropagation through time".
    """
    require_no_linear(linear)
    probing = Probing(model, only, Extra(state, step, decay))
    trace = Trace()
    try:
        probing.attach()
        yield trace
    finally:
        probing.detach()
    # Only of a block that ended well: otherwise its own error is what the user has to see.
    results, missing = probing.results(lengths)
    if not results:
        raise InputError(probing.why_nothing(missing)) from probing.bug
    trace._fill(results, missing)


@dataclass(frozen=True)
class Extra:
    """What may be known of weights that are found in the graph, and whether their decay is wanted; as of ``probe``."""

    state: str | None = None
    step: str | None = None
    decay: bool = False


class Probing:
    """Hooks on a model from ``attach`` to ``detach``: on what is known by its class, and on autograd's graph.

    Args:
        model, only: as of ``probe``.
        extra: the rest of it.
        keeps_graph: as of ``Recording``.
    """

    def __init__(
        self, model: nn.Module, only: str | None = None, extra: Extra | None = None, *, keeps_graph: bool = False
    ) -> None:
        extra = extra or Extra()
        found = recurrent_modules(model, only)
        _require_modules(model, extra)
        self.model, self.only, self.want_decay = model, only, extra.decay
        self.recording = Recording(found, keeps_graph=keeps_graph)
        asked = Asked(self._is_wanted, extra.state, extra.step)
        self.tape = TapeRecording(model, asked, self.recording.calls, want_decay=extra.decay)

    def attach(self) -> None:
        """Set the hooks."""
        self.recording.attach()
        self.tape.attach()

    def detach(self) -> None:
        """Take all hooks away."""
        self.recording.detach()
        self.tape.detach()

    def results(self, lengths: Tensor | None = None) -> tuple[dict[str, ProbedWeight], dict[str, str]]:
        """As ``probed`` gives them.

        Args:
            lengths: real steps of every sequence, shape (batch,), or None.
        """
        extra = {"want_decay": self.want_decay, "lengths": lengths, "tape": self.tape}
        return probed(self.recording, self.only, **extra)  # type: ignore[arg-type]

    @property
    def bug(self) -> Exception | None:
        """An error of ours that was kept from the user's passes."""
        bugs = [calls.bug for calls in self.recording.calls if calls.bug is not None]
        return bugs[0] if bugs else self.tape.bug

    def why_nothing(self, missing: Mapping[str, str]) -> str:
        """What to say where nothing was found."""
        compiled = why_compiled(self.model)
        if compiled is not None:
            return compiled
        if self.tape.bug is not None:
            error = f"{type(self.tape.bug).__name__}: {self.tape.bug}"
            return f"autograd's graph could not be read: {error}. Please report this with the model"
        missing = missing or self.tape.before
        if self.tape.opaque is not None:
            return f"the weights enter {self.tape.opaque}: its steps cannot be seen from outside"
        if missing:
            return "; ".join(f"{name}: {why}" for name, why in missing.items())
        counts = self.tape.counts
        if not counts:
            what = "" if self.recording.calls else f"{none_found(self.model)}, and "
            return (
                f"{what}no backward pass through its weights was seen: call backward() within the block, on what was "
                "run within it and not under torch.no_grad"
            )
        return f"{none_found(self.model)}, and no weight recurs in the pass that was run: {_used(counts)}"

    def _is_wanted(self, name: str, recurs: bool) -> bool:
        """Whether a weight of the graph is to be itemised."""
        if name in self._known_names():
            return False
        return name == self.only or (recurs and matches(name, self.only))

    def _known_names(self) -> set[str]:
        """Recurrent weights that are seen by their module's class."""
        seen = (calls for calls in self.recording.calls if calls.kept or calls.repeated or calls.refusal)
        return {name for calls in seen for name in weight_names(calls.found, None)}


def _require_modules(model: nn.Module, extra: Extra) -> None:
    """Raise InputError for a name in ``state`` or ``step`` that the model has not."""
    modules = dict(model.named_modules())
    for what, name in (("state", extra.state), ("step", extra.step)):
        if name is not None and name not in modules:
            raise InputError(f"{what}={name!r}: the model has no such module.{did_you_mean(str(name), modules)}")


def _used(counts: Mapping[str, tuple[int, bool]]) -> str:
    """How often weights are used, those first that are used most."""
    most = sorted(counts.items(), key=lambda item: -item[1][0])[:6]
    said = [f"{name} is used {'once' if count == 1 else f'{count} times'}" for name, (count, _) in most]
    once = all(count == 1 for count, _ in counts.values())
    why = (
        " for all steps (a parallel scan, a product over all steps, one step alone, or no recurrence?)" if once else ""
    )
    return f"{', '.join(said)}{why}. A weight recurs where what it multiplies leads back to an earlier use of it"


def probed(
    recording: Recording,
    only: str | None,
    *,
    want_decay: bool = False,
    lengths: Tensor | None = None,
    tape: TapeRecording | None = None,
) -> tuple[dict[str, ProbedWeight], dict[str, str]]:
    """What was recorded, by weight name; and why a weight has no result.

    Args:
        recording: of modules of known classes, detached or between two passes.
        only: as of ``probe``, which names are shown.
        want_decay: as ``decay`` of ``probe``.
        lengths: real steps of every sequence, shape (batch,), or None.
        tape: of all other weights; then all are in the order of the model's parameters.
    """
    results, missing = _of_modules(recording, only, want_decay, lengths)
    if tape is None:
        return results, missing
    by_name: dict[str, list[UseSteps]] = {}
    for each in tape.found:
        by_name.setdefault(each.name, []).append(each)
    results |= {name: of_uses(found, tape) for name, found in by_name.items() if name not in results}
    missing = {name: why for name, why in {**missing, **tape.missing}.items() if name not in results}
    order = {name: i for i, (name, _) in enumerate(tape.model.named_parameters(remove_duplicate=False))}
    return dict(sorted(results.items(), key=lambda item: order.get(item[0], len(order)))), missing


def _of_modules(
    recording: Recording, only: str | None, want_decay: bool, lengths: Tensor | None
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
            for index, (weight, norms) in enumerate(_norms_by_weight(calls, want_decay, lengths))
        ]
    # Of all weights, shown or not: autograd adds up what a weight gets under all its names.
    sums = _Sums(parts, recording.totals)
    shown = {name for calls in recording.calls for name in weight_names(calls.found, only)} - missing.keys()
    return {part.name: _result(part, sums, lengths) for part in parts if part.name in shown}, missing


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
        decay=last.decay if len(found) == 1 else None,
        padded_share=None,
        grad_norm_state=torch.cat([each.grad_norm_state for each in found]),
        grad_norm_W_xh=torch.cat(rest) if len(rest) == len(found) else None,
        columns=last.columns,
        column_axis=last.column_axis,
        recurrent=last.recurs,
        steps_per_chain=tuple(steps for each in found for steps in each.steps_per_chain),
        state_made_by=last.state_made_by,
        seen=last.seen if len(found) == 1 else None,
        why={
            **(last.why if len(found) == 1 else {**last.why, "decay": SEVERAL_PASSES}),
            **_why_not_compared(agreement),
        },
    )


def _compared(
    found: Tensor, brought: Tensor | None, magnitude: float, tolerance: float, dtype: torch.dtype
) -> Agreement | None:
    """The comparison with what backward brought; None where the weight takes no gradient."""
    return None if brought is None else compared(found, brought, magnitude, tolerance, "model", dtype)


def _why_not_compared(agreement: Agreement | None) -> Mapping[str, str]:
    why = TAKES_NO_GRADIENT if agreement is None else agreement.why
    return {} if why is None else {"autograd_relative_error": why}


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
    return "it was not called within the block"


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


def _norms_by_weight(calls: Calls, want_decay: bool, lengths: Tensor | None) -> list[tuple[str, list[StepNorms]]]:
    layered = [call for call in calls.kept if isinstance(call, LayeredCall)]
    if layered:
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
    seen = seen_together([each.seen for each in norms])
    tolerance = _tolerance(last, weights, seen)
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
        decay=norms[0].decay if len(norms) == 1 else _decay_of_calls(norms),
        padded_share=_padded_share(part, lengths),
        grad_norm_state=torch.cat([each.grad_norm_state for each in norms]),
        steps_per_chain=_steps_per_chain(part),
        seen=seen,
        why=_why_not_compared(agreement),
    )


def _decay_of_calls(norms: list[StepNorms]) -> Decay | None:
    """Over several calls only where nothing enters before the last step."""
    state, direct = (torch.cat([getattr(each, name) for each in norms]) for name in ("grad_norm_state", "entering"))
    # NaN, where it is not known what enters, is neither nothing nor something.
    return None if bool((direct[:-1] != 0).any()) else decay_over_time(state.log())


def _padded_share(part: _Part, lengths: Tensor | None) -> float | None:
    if lengths is None:
        return None
    if isinstance(part.last, LayeredCall) and part.last.batch_sizes is not None:
        return 0.0
    known = [each.padded for each in part.norms if each.padded is not None]
    padded, real = (sum(float(norms[i].sum()) for norms in known) for i in range(2))
    return padded / (padded + real) if padded + real > 0 else None


def _steps_per_call(part: _Part) -> tuple[int, ...]:
    if isinstance(part.last, CellCall):
        return (1,) * len(part.calls.kept)
    return tuple(each.grad_norm_W_hh.shape[0] for each in part.norms)


def _steps_per_chain(part: _Part) -> tuple[int, ...]:
    """Steps by sequences of calls each of which took the state of the one before."""
    chains: dict[int, int] = {}
    start_of: list[int] = []
    for number, (call, steps) in enumerate(zip(part.calls.kept, _steps_per_call(part), strict=True)):
        before = call.source if call.source is not None else call.derived
        start = number if before is None else start_of[before]
        start_of.append(start)
        chains[start] = chains.get(start, 0) + steps
    return tuple(chains.values())


def _starts_from_zeros(part: _Part) -> bool:
    first = part.calls.kept[0]
    if isinstance(first, CellCall):
        return not bool(first.before[0].any())
    return first.initial is None or not bool(first.initial[0][part.index].any())


def _tolerance(call: LayeredCall | CellCall, weights: LayerWeights, seen: StatesSeen) -> float:
    """Of the narrowest dtype that took part; a GPU may round float32 products to TF32."""
    states, dtypes = _states_of(call), _dtypes(call)
    tolerance = max(TOLERANCES[dtype] for dtype in dtypes)
    # What a nonlinearity is given is rounded in units of its size, which is that of inputs far from 1.
    given = seen.largest_input * float(weights.W_ih.abs().sum(1).max())
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
