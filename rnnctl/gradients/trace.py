"""What a probed training step is told as: one record for every recurrent weight, by its name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from rnnctl.errors import InputError, did_you_mean
from rnnctl.gradients.decay import Decay, decay_scalars, share_of
from rnnctl.recurrence.states_seen import StatesSeen
from rnnctl.results import Kind, Record, Result
from rnnctl.view.shown import Shown


@dataclass(frozen=True, eq=False)
class ProbedWeight(Shown):
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
            Of what was read from autograd itself it shows what comes to the weight in other ways alone.
        magnitude: sum over t of ||delta_t|| ||h_{t-1}||, which cancelling terms do not shrink; of what was read from
            autograd of ||G_t||.
        autograd_tolerance: rounding that is allowed, as a share of it.
        agrees: whether the difference is within that; None where there is nothing to compare. It is not
            where the weight enters the loss by another way as well (a penalty), or its gradient is
            changed by a hook.
        recovered_error: largest difference between the module's states and those that follow from
            its weights, relative to 1 or |h|; None for what was read from autograd itself, of which there is nothing
            to compare.
        states_agree: whether that is rounding, or there is nothing to compare; if not, the module did something that
            its weights do not say, and the norms are not to be trusted.
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
        seen: what the states and inputs of all calls are like, where ``decay`` was asked for; of a weight that was
            found in autograd's graph what of it can be told; else None.
        read_from: "sweep", which makes every G_t anew along the recorded states, or "autograd", whose backward pass
            formed them: of weights that were found in its graph, and of large calls of nn.RNN and nn.GRU that torch
            runs step by step, where that is cheaper.
        why: of a field that is NaN or None without being 0, the reason; with ``decay``, of a ``grad_norm_W_hh`` that is
            not finite, which state is not either and whether float64 holds it.
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
    read_from: str = "sweep"

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

    def _as_result(self) -> Result:
        return Traced({self.name: self})

    def _of_state(self, whole: Tensor) -> Tensor:
        return whole if self.columns is None else whole.index_select(self.column_axis, self.columns)


def rows_of(weights: Mapping[str, ProbedWeight]) -> tuple[Record, ...]:
    """One record per weight and time step; ``call`` is which call of the module it belongs to."""
    gates = tuple(dict.fromkeys(gate for weight in weights.values() for gate in weight.gates))
    return tuple(row for weight in weights.values() for row in _rows(weight, gates))


def _rows(weight: ProbedWeight, gates: Sequence[str]) -> list[Record]:
    total = float(weight.grad_norm_W_hh.sum())
    steps = len(weight.grad_norm_W_hh)
    calls = [call for call, count in enumerate(weight.steps_per_call) for _ in range(count)]
    norm_c = [None] * steps if weight.grad_norm_c is None else weight.grad_norm_c.tolist()
    by_gate = {gate: norms.tolist() for gate, norms in weight.grad_norm_gates.items()}
    columns = (weight.grad_norm_W_hh, weight.grad_norm_h, weight.grad_norm_h_direct, weight.grad_norm_state)
    rest = [None] * steps if weight.grad_norm_W_xh is None else weight.grad_norm_W_xh.tolist()
    return [
        {
            "weight": weight.name,
            "call": calls[t],
            "t": t,
            "grad_norm_W_hh": norm,
            "share": share_of(norm, total),
            "grad_norm_h": norm_h,
            "grad_norm_h_direct": norm_direct,
            "grad_norm_c": norm_c[t],
            "grad_norm_state": norm_state,
            "grad_norm_W_xh": rest[t],
            **{f"grad_norm_{gate}": by_gate[gate][t] if gate in by_gate else None for gate in gates},
        }
        for t, (norm, norm_h, norm_direct, norm_state) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        )
    ]


@dataclass(frozen=True, eq=False)
class Traced(Result):
    """A trace as a result, for what shows results.

    Attributes:
        weights: name -> what was probed.
    """

    schema: ClassVar[str] = "trace"
    kinds: ClassVar[Mapping[str, Kind]] = {"weights": float}
    weights: Mapping[str, ProbedWeight]

    @property
    def scalars(self) -> Record:
        """How many weights there are."""
        return {"weights": len(self.weights)}

    @cached_property
    def rows(self) -> tuple[Record, ...]:
        """One record per weight and time step, as of ``gradnorm``."""
        return rows_of(self.weights)

    @cached_property
    def more(self) -> Mapping[str, Sequence[Record]]:
        """summaries: one record per weight."""
        return {"summaries": [_summary(weight) for weight in self.weights.values()]}


def _summary(weight: ProbedWeight) -> Record:
    """What there is of a weight in a few numbers; what a gradient becomes on its way back where that was asked for."""
    state, steps = weight.grad_norm_state.tolist(), len(weight.grad_norm_W_hh)
    return {
        "weight": weight.name,
        "cell": weight.cell,
        "seq_len": steps,
        "grad_W_hh_norm": float(weight.grad_W_hh.norm()),
        "largest": max(weight.grad_norm_W_hh.tolist(), default=None),
        "state_first": state[0] if steps else None,
        "state_last": state[-1] if steps else None,
        "factor_per_step": decay_scalars(weight.decay)["factor_per_step"],
        "autograd_relative_error": weight.autograd_relative_error,
    }


class UnknownWeightError(InputError, KeyError):
    """A name that is none of a trace's weights."""

    # That of KeyError puts the message in quotes, as if it were a key.
    __str__ = Exception.__str__


class Trace(Shown, Mapping[str, ProbedWeight]):
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

    def _as_result(self) -> Result:
        missing = tuple(f"there is no result for {name}: {why}" for name, why in self.missing.items())
        return Traced(self._ready(), notes=missing)

    def _fill(self, results: Mapping[str, ProbedWeight], missing: Mapping[str, str]) -> None:
        self._results, self.missing = dict(results), dict(missing)
