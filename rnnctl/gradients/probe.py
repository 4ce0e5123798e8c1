"""Attach to somebody's model for one training step, and report what every time step contributed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rnnctl.errors import InputError, did_you_mean
from rnnctl.gradients.agreement import TOLERANCES, Agreement, compared
from rnnctl.gradients.cell_calls import cell_norms
from rnnctl.gradients.decay import Decay, decay_over_time
from rnnctl.gradients.layer_calls import StepNorms, layered_norms, without_carried
from rnnctl.models.calls import CellCall, LayeredCall
from rnnctl.models.modules import LINEAR, recurrent_modules, weight_names
from rnnctl.models.recording import Calls, Recording


@dataclass(frozen=True, eq=False)
class ProbedWeight:
    """What every time step contributed to the gradient of one recurrent weight.

    T counts the steps of all calls of the module, in the order of the calls; the steps of a
    reverse direction stand in the order of the sequence, as its inputs do.

    Attributes:
        name: in the model, as in ``model.named_parameters()``.
        cell: "RNN", "GRU", "LSTM", or "Linear" for a map named by the user.
        gates: their names in the order of the rows of W_hh: r, z, n of a GRU; i, f, g, o of an LSTM.
        grad_norm_W_hh: norm of step t's contribution G_t, all gates together, shape (T,), float64.
        grad_norm_gates: gate -> norm of its rows of G_t, shape (T,), float64; empty without gates.
        grad_norm_h: norm of dL/dh_t, the recurrent path included, shape (T,), float64; NaN at the
            last step of a linear map, which does not see that state.
        grad_norm_h_direct: norm of dL/dh_t from outside this recurrence, shape (T,), float64; NaN for a
            cell whose state was shaped (masked, sliced, cloned) before it was handed on.
        grad_norm_c: of a cell with c, norm of dL/dc_t, shape (T,), float64; else None.
        grad_W_hh: sum of G_t over all steps, shape of the weight, float64.
        W_hh: the weight as it was at the last call, detached.
        steps_per_call: steps of each call, in order; they sum to T.
        autograd_relative_error: of the sum of G_t (over all names of a shared weight) against what
            autograd brought to the weight within the block; None where the weight takes no gradient.
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
    linear: str | Sequence[str] = (),
    decay: bool = False,
    lengths: Tensor | None = None,
) -> Iterator[Trace]:
    """Watch one training step of any model, and itemise dL/dW_hh of its recurrent modules by time step.

    Run the forward and the backward pass within the block; the trace is filled when it ends. The
    model, its gradients and the random numbers are as they would be without the probe.

    Args:
        model: any module that holds nn.RNN, nn.GRU, nn.LSTM, their cells, or rnnctl's own.
        only: a pattern of module or weight names, such as "decoder.*".
        linear: names of ``nn.Linear`` modules that a hand-written cell applies to h once per step.
        decay: also follow the gradient that enters at the last step alone (one more sweep where the
            loss has more than that).
        lengths: real steps of every sequence, (batch,), to learn how much of the gradient falls on the
            padding of sequences that were not packed.
    Yields:
        A ``Trace``: weight names, such as "encoder.weight_hh_l0_reverse", to frozen results.
    Raises:
        InputError: nothing recurrent, or something that cannot be seen into (compiled, quantized,
            torch.no_grad, double backward), or no backward pass within the block.
    Source: Werbos 1990, "Backpropagation through time".
    """
    names = (linear,) if isinstance(linear, str) else tuple(linear)
    recording = Recording(recurrent_modules(model, only, names))
    trace = Trace()
    try:
        recording.attach()
        yield trace
    finally:
        recording.detach()
    # Only of a block that ended well: otherwise its own error is what the user has to see.
    results, missing = probed(recording, only, want_decay=decay, lengths=lengths)
    if not results:
        raise InputError("; ".join(f"{name}: {why}" for name, why in missing.items()))
    trace._fill(results, missing)


def probed(
    recording: Recording, only: str | None, *, want_decay: bool = False, lengths: Tensor | None = None
) -> tuple[dict[str, ProbedWeight], dict[str, str]]:
    """What was recorded, by weight name; and why a weight has no result.

    Args:
        recording: detached, or between two passes.
        only: as of ``probe``, which names are shown.
        want_decay: as ``decay`` of ``probe``.
        lengths: real steps of every sequence, shape (batch,), or None.
    """
    for calls in recording.calls:
        _settle_repeated(calls)
    missing = {
        name: why
        for calls in recording.calls
        if (why := _why_missing(calls)) is not None
        for name in weight_names(calls.found, only)
    }
    with _no_autocast(recording):
        parts = [
            _Part(calls.found.full(weight), calls, index, norms)
            for calls in recording.calls
            if _why_missing(calls) is None
            for index, (weight, norms) in enumerate(_norms_by_weight(calls, want_decay, lengths))
        ]
    # Of all weights, shown or not: autograd adds up what a weight gets under all its names.
    sums = _Sums(parts, recording.totals)
    shown = {name for calls in recording.calls for name in weight_names(calls.found, only)}
    return {part.name: _result(part, sums, lengths) for part in parts if part.name in shown}, missing


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


def _why_missing(calls: Calls) -> str | None:
    if calls.refusal is not None:
        return calls.refusal
    if any(call.received.double_backward for call in calls.kept):
        return "double backward: with create_graph=True the gradients are not final. Probe a plain loss.backward()"
    if any(call.received for call in calls.kept):
        return None
    if calls.kept:
        return "no gradient reached it: call backward() on a loss that depends on it, within the block"
    if calls.without_grad:
        return "it was called without gradients (torch.no_grad, inference_mode, or nothing in it requires one)"
    if calls.empty:
        return "it was called with an empty batch"
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

    def compared(self, part: _Part, tolerance: float) -> Agreement | None:
        """How the sum of all contributions under all names agrees with it; None where autograd says nothing."""
        sharing = [other for other in self._parts if other.keys & part.keys]
        keys = frozenset[int]().union(*(other.keys for other in sharing))
        brought = [self._totals[key] for key in keys if key in self._totals]
        # A gradient that left its dtype is nothing to compare with, and says nothing against the contributions.
        if not brought or not all(bool(torch.isfinite(total).all()) for total in brought):
            return None
        norms = [each for other in sharing for each in other.norms]
        found, expected = torch.stack([each.grad_W_hh for each in norms]).sum(0), torch.stack(brought).sum(0)
        return compared(found, expected, sum(each.magnitude for each in norms), tolerance, "model")


def _result(part: _Part, sums: _Sums, lengths: Tensor | None) -> ProbedWeight:
    last, norms = part.last, part.norms
    weights = last.weights[part.index] if isinstance(last, LayeredCall) else last.weights
    tolerance = _tolerance(last)
    agreement = sums.compared(part, tolerance)
    errors = [each.recovered_error for each in norms if each.recovered_error is not None]
    error = max(errors) if errors else None
    gates = () if last.kind is None else last.kind.letters
    by_gate = torch.cat([each.grad_norm_gates for each in norms])
    cells = [each.grad_norm_c for each in norms if each.grad_norm_c is not None]
    return ProbedWeight(
        name=part.name,
        cell=LINEAR if last.kind is None else last.kind.name,
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
    )


def _decay_of_calls(norms: list[StepNorms]) -> Decay | None:
    """Over several calls only where nothing enters before the last step."""
    h, direct = (torch.cat([getattr(each, name) for each in norms]) for name in ("grad_norm_h", "grad_norm_h_direct"))
    return None if bool(direct[:-1].nan_to_num().any()) else decay_over_time(h.log())


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


def _starts_from_zeros(part: _Part) -> bool:
    first = part.calls.kept[0]
    if isinstance(first, CellCall):
        return not bool(first.before[0].any())
    return first.initial is None or not bool(first.initial[0][part.index].any())


def _tolerance(call: LayeredCall | CellCall) -> float:
    """Of the narrowest dtype that took part; a GPU may round float32 products to TF32."""
    states = call.output if isinstance(call, LayeredCall) else call.before[0]
    weights = call.weights[0] if isinstance(call, LayeredCall) else call.weights
    tolerance = max(TOLERANCES[dtype] for dtype in (states.dtype, weights.W_hh.dtype, call.narrowest))
    # TF32 keeps ten bits, as float16 does.
    reduced = states.device.type == "cuda" and torch.backends.cudnn.allow_tf32
    return max(tolerance, 1e-2) if reduced and states.dtype == torch.float32 else tolerance
