"""Which loss step reaches which source step, and how far back."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rnnctl.cells import FullRNN
from rnnctl.errors import InputError, plain
from rnnctl.gradients.agreement import AGREEMENT_KINDS, Agreement, scalars_of, why_not_compared
from rnnctl.gradients.autograd import along_states
from rnnctl.gradients.contributions import step_norms
from rnnctl.gradients.decay import first_at_one_percent
from rnnctl.gradients.in_float64 import told_of_model, told_of_problem
from rnnctl.gradients.loss_layout import laid_out
from rnnctl.gradients.loss_passes import LossPasses
from rnnctl.gradients.loss_steps import ALL_FINITE, LossSteps, OfEveryLoss, own_loss_steps, require_room_for_blocks
from rnnctl.memory import require_memory
from rnnctl.models.hand_written import nonfinite_step, posed, require_batch_first, require_own_start
from rnnctl.models.inputs import Given, TimeFirst
from rnnctl.models.modules import require_no_linear
from rnnctl.models.objective import Objective, of_one_length
from rnnctl.recurrence.scaling import largest_magnitudes
from rnnctl.recurrence.states_seen import NONFINITE_KINDS, FirstNonfinite
from rnnctl.recurrence.sweep import chunk_steps
from rnnctl.results import Kind


@dataclass(frozen=True, eq=False)
class Flow(OfEveryLoss):
    """The gradient from every loss step k to every source step t.

    Attributes:
        norms: F[k, t], norm of step t's contribution to dL_k/dW_hh, (time, time), float64; 0 for t > k.
        sensitivity: norm of the gradient of the whole state, dL_k/dh_t and dL_k/dc_t beside one another, (time,
            time), float64; 0 for t > k.
        sensitivity_h: norm of dL_k/dh_t, (time, time), float64; where the state is h alone it is ``sensitivity``.
        sensitivity_c: norm of dL_k/dc_t, what comes to c_t by way of h_t included, (time, time), float64; of
            what else a step hands on where the state was found in autograd's graph; None where the state is h alone.
        log_relative: ln of sensitivity over that at t = k, (time, time), float64.
        grad_W_hh: the sum of all contributions, (hidden, hidden).
    ``rows`` have k, t, norm and sensitivity for t <= k, and h's and c's where there are both; ``more`` has the lag
    profile, which is of the whole state.
    """

    schema: ClassVar[str] = "flow"
    kinds: ClassVar[Mapping[str, Kind]] = {
        "seq_len": float,
        "loss": float,
        "grad_W_hh_norm": float,
        **AGREEMENT_KINDS,
        "lag_to_one_percent": float,
        "median_reach": float,
        "largest_norm": float,
        **NONFINITE_KINDS,
        "nonfinite_reason": str,
    }
    norms: Tensor
    sensitivity: Tensor
    sensitivity_h: Tensor
    sensitivity_c: Tensor | None
    log_relative: Tensor
    grad_W_hh: Tensor

    @cached_property
    def scalars(self) -> Mapping[str, Any]:
        """The loss, the total, its agreement with autograd, and how far a loss step reaches."""
        median = self.lag_profile["median"]
        return MappingProxyType(
            {
                "seq_len": self.norms.shape[0],
                "loss": self.loss,
                "grad_W_hh_norm": float(torch.linalg.vector_norm(self.grad_W_hh.double())),
                **scalars_of(self.agreement),
                "lag_to_one_percent": self._lag_to_one_percent()[0],
                "median_reach": _or_none(float(median[-1])),
                "largest_norm": float(self.norms.max()),
                **self.nonfinite.scalars(),
                "nonfinite_reason": self.nonfinite_reason,
            }
        )

    def _lag_to_one_percent(self) -> tuple[int | None, str]:
        """It, or why there is none."""
        medians = self.lag_profile["median"]
        lag, unknown = first_at_one_percent(medians), torch.isnan(medians).nonzero()
        # It may have been reached at an unknown lag before: that is not one at which it is not reached.
        if unknown.numel() and (lag is None or int(unknown[0]) < lag):
            reason = f"the median of ||dL_k/dstate|| is not known at lag {int(unknown[0])}"
            return None, self.because_not_finite(reason)
        return lag, "the median of ||dL_k/dstate|| does not fall to 1 % within this sequence"

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None."""
        return {
            **why_not_compared(self.agreement),
            "lag_to_one_percent": self._lag_to_one_percent()[1],
            "median_reach": self.because_not_finite("no loss step is known to reach step 0, or to reach its own step"),
            **self.nonfinite.why(),
            "nonfinite_reason": ALL_FINITE,
        }

    @property
    def whole_gradient(self) -> Tensor:
        """The sum of all contributions."""
        return self.grad_W_hh

    @cached_property
    def lag_profile(self) -> Mapping[str, Tensor]:
        """median, p10 and p90 over k of ||dL_k/dstate_{k-lag}|| / ||dL_k/dstate_k||, each (time,), by lag.

        Where the state has two parts, median_h and median_c too, of each by itself.
        """
        p10, median, p90 = _quantiles(self.log_relative.exp(), (0.1, 0.5, 0.9))
        whole = {"p10": p10, "median": median, "p90": p90}
        if self.sensitivity_c is None:
            return whole
        parts = {"median_h": self.sensitivity_h, "median_c": self.sensitivity_c}
        return {
            **whole,
            **{name: _quantiles(part / part.diagonal()[:, None], (0.5,))[0] for name, part in parts.items()},
        }

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One record per pair t <= k: k, t, norm, sensitivity, and h's and c's where there are both."""
        found = {"norm": self.norms, "sensitivity": self.sensitivity}
        if self.sensitivity_c is not None:
            found |= {"sensitivity_h": self.sensitivity_h, "sensitivity_c": self.sensitivity_c}
        values = {name: each.tolist() for name, each in found.items()}
        return tuple(
            {"k": k, "t": t, **{name: by_pair[k][t] for name, by_pair in values.items()}}
            for k in range(self.norms.shape[0])
            for t in range(k + 1)
        )

    @cached_property
    def more(self) -> Mapping[str, Any]:
        """lag_profile: one record per lag, with what ``lag_profile`` has."""
        columns = {name: values.tolist() for name, values in self.lag_profile.items()}
        lags = range(self.norms.shape[0])
        return {"lag_profile": [{"lag": lag, **{name: v[lag] for name, v in columns.items()}} for lag in lags]}

    @property
    def remarks(self) -> tuple[str, ...]:
        """That the comparison with autograd took long, where it did."""
        return () if self.agreement is None else self.agreement.remarks

    def require_agreement(self) -> None:
        """Raise VerificationError if autograd was asked and disagrees."""
        if self.agreement is not None:
            self.agreement.require("sum of all contributions")


def flow(
    model: nn.Module,
    x: Given,
    *,
    target: Tensor | None = None,
    loss: str | None = None,
    output_key: str | int | None = None,
    h_init: Tensor | None = None,
    time_first: TimeFirst = None,
    only: str | None = None,
    linear: object = None,
    verify: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Flow:
    """The contribution of every source step t to the gradient of the loss at every step k.

    Args:
        model: a ``FullRNN``, or any module whose output is (batch, time, output).
        x, target, loss, output_key, h_init, time_first, verify, progress: as in ``gradnorm``, for sequences of one
            length. L_k is step k's share of the loss with ``loss_at="all"``, so that sum over k of the contributions
            is G_t there. A model that returns a loss of its own needs ``output_key``.
        only: as in ``probe``; of a model with several recurrent weights it must leave one.
        linear: gone; an InputError says what to write instead.
    Returns:
        A frozen ``Flow``.
    Raises:
        InputError: as ``gradnorm``; several weights or none; a loss step that depends on later steps (another
            direction); TooLargeError where (time, time) results do not fit.
    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, eq. 3 to 5, each term by itself.
    """
    require_no_linear(linear)
    if isinstance(model, FullRNN) and only is None and output_key is None:
        require_batch_first(time_first)
        problem = posed(model, x, target, loss, "all", h_init)
        _require_room(problem.seq_len)
        require_room_for_blocks(problem)
        swept, compared = along_states(problem, lambda h: _swept(own_loss_steps(problem, h), progress), verify)
        found = swept.result(
            compared, nonfinite_step(swept.h, swept.grad_W_hh), model.rnn_cell.hidden_to_hidden.weight.dtype
        )
        return replace(found, nonfinite=told_of_problem(problem, found.nonfinite, found.loss, found.grad_W_hh))
    require_own_start(h_init)
    objective = Objective(of_one_length(model, x), target, loss, "all", output_key=output_key, time_first=time_first)
    with LossPasses(model, objective, only) as passes:
        _require_room(passes.seq_len)
        steps = laid_out(passes)
        swept = _by_passes(passes, progress) if steps is None else _swept(steps, progress)
        compared = passes.agreement(swept.grad_W_hh, swept.magnitude) if verify else None
        nonfinite = passes.nonfinite()
    # Not before, as the copy would have the hooks as well.
    nonfinite = told_of_model(model, objective, only, nonfinite, swept.loss, swept.grad_W_hh)
    # The sweep of ours scales what autograd would lose.
    lost = () if steps is not None else _lost(swept.log_states[0], passes.losses[0].dtype)
    return replace(
        swept.result(compared, nonfinite, swept.grad_W_hh.dtype),
        output_key=passes.output_key,
        notes=(*passes.notes, *lost),
    )


# The name from before flow took any model.
model_flow = flow


def _quantiles(ratios: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Over k of the known ratios, (time, time) by k and t, at each lag k - t: (levels, time), NaN where none is."""
    seq_len = ratios.shape[0]
    found = torch.full((len(levels), seq_len), math.nan, dtype=torch.float64)
    for lag in range(seq_len):
        at_lag = ratios.diagonal(-lag)
        known = at_lag[~torch.isnan(at_lag)]
        if known.numel():
            found[:, lag] = torch.quantile(known, torch.tensor(levels, dtype=torch.float64))
    return found


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _require_room(seq_len: int) -> None:
    # Norms and exponents as they come, their logarithms, and what is made of both; measured, 86 to 112 bytes a pair.
    require_memory(12 * 8 * seq_len**2, f"{seq_len} x {seq_len} norms")


@dataclass(frozen=True)
class _Swept:
    """What a sweep of all losses tells.

    ``log_norms`` and ``log_states`` (of h and, where there is one, of c) are ln of the norms, (time, time), by loss
    and source step; the others as of ``rnnctl.gradients.autograd.Swept``.
    """

    loss: float
    log_norms: Tensor
    log_states: tuple[Tensor, ...]
    grad_W_hh: Tensor
    magnitude: float
    h: Tensor

    def result(self, agreement: Agreement | None, nonfinite: FirstNonfinite, dtype: torch.dtype) -> Flow:
        """The ``Flow``, its gradient in this dtype."""
        whole = _beside(self.log_states)
        return Flow(
            # Copies, because tensors made in inference mode refuse autograd.
            norms=self.log_norms.exp().clone(),
            sensitivity=whole.exp().clone(),
            sensitivity_h=self.log_states[0].exp().clone(),
            sensitivity_c=self.log_states[1].exp().clone() if len(self.log_states) > 1 else None,
            log_relative=(whole - whole.diagonal().clone()[:, None]).clone(),
            loss=self.loss,
            grad_W_hh=self.grad_W_hh.to(dtype, copy=True),
            agreement=agreement,
            nonfinite=nonfinite,
        )


def _swept(steps: LossSteps, progress: Callable[[float], None] | None) -> _Swept:
    """One sweep of all losses."""
    h, seq_len = steps.h, steps.seq_len
    with torch.inference_mode():
        # By source step, then by loss step from the last to the first, as the blocks come.
        norms = h.new_zeros(seq_len, seq_len)
        states = list[Tensor]()
        exponents = h.new_zeros(seq_len, seq_len, dtype=torch.float64)
        factors, powers = norm_factors(h[:-1])
        # Where dL_k/dh_t bounds delta_k, its norms serve.
        bounds = None if steps.is_bounded_by_grad_h else torch.zeros_like(norms)
        summed: Tensor | None = None
        for rows, block in steps.blocks(progress):
            t = block.t
            states = states or [torch.zeros_like(norms) for _ in block.norms]
            for found, norm in zip(states, block.norms, strict=True):
                found[t, rows] = norm
            mixed_norms(block.delta, factors[t], out=norms[t, rows])
            exponents[t, rows] = block.exponents
            if bounds is not None:
                bounds[t, rows] = steps.norm_delta(block)
            # The deltas of all losses are added up first: one product with h at the end serves all of them.
            summed = h.new_zeros(seq_len, *block.delta.shape[1:]) if summed is None else summed
            summed[t].view(-1).addmv_(block.delta.flatten(1).t(), block.weights)
        assert summed is not None
        total = summed.flatten(0, 1).t() @ h[:-1].flatten(0, 1)
        log_norms = _unscaled(norms, exponents.cpu() + powers[:, None])
        log_states = tuple(_unscaled(found, exponents) for found in states)
        log_bounds = log_states[0] if bounds is None else _unscaled(bounds, exponents)
        magnitude = float((log_bounds.exp().sum(0) * step_norms(h[:-1])).sum())
        return _Swept(steps.loss, log_norms, log_states, total.double(), magnitude, h)


def _by_passes(passes: LossPasses, progress: Callable[[float], None] | None) -> _Swept:
    """One backward pass for every loss."""
    seq_len = passes.seq_len
    norms, h, c = torch.zeros(3, seq_len, seq_len, dtype=torch.float64).unbind(0)
    has_c = False
    totals, magnitude = list[Tensor](), 0.0
    for k, weight in passes:
        if weight is not None:
            norms[k], h[k] = weight.grad_norm_W_hh, weight.grad_norm_h
            if weight.grad_norm_c is not None:
                c[k], has_c = weight.grad_norm_c, True
            totals.append(weight.grad_of_state_columns)
            magnitude += weight.magnitude
        if progress is not None:
            progress((k + 1) / seq_len)
    if not totals:
        raise InputError(f"the loss of no step reaches {passes.name}")
    # Of the states themselves nothing more is asked.
    nothing = norms.new_empty(0)
    states = (h.log(), c.log()) if has_c else (h.log(),)
    return _Swept(passes.loss, norms.log(), states, torch.stack(totals).sum(0), magnitude, nothing)


def _lost(log_norms: Float[Tensor, "loss_step source_step"], dtype: torch.dtype) -> tuple[str, ...]:
    """That autograd's gradients end at 0 where they were small already, as those of a dtype do below its range."""
    smallest = torch.finfo(dtype).smallest_normal
    # Whoever shrinks by so much in a few steps leaves the range in as many more.
    was_small = torch.isfinite(log_norms[:, 1:]) & (log_norms[:, 1:] < math.log(smallest) / 2)
    if not bool((was_small & torch.isneginf(log_norms[:, :-1])).any()):
        return ()
    return (
        f"autograd's gradients may have underflowed in {plain(dtype)}: a 0 behind small ones is not known to be one",
    )


def _beside(log_states: tuple[Tensor, ...]) -> Tensor:
    """ln of the norm of all parts of the state beside one another."""
    return log_states[0] if len(log_states) == 1 else torch.logaddexp(*(2 * each for each in log_states)) / 2


def _unscaled(by_source: Tensor, exponents: Tensor) -> Tensor:
    """ln of the norms by (loss step, source step), -inf where there is none."""
    return (by_source.cpu().double().log() - math.log(2) * exponents.cpu()).flip(1).t()


def norm_factors(h: Float[Tensor, "time batch hidden"]) -> tuple[Tensor, Tensor]:
    """R_t with ||delta^T h_{t-1}|| = ||R_t delta||: the triangle of a QR of h_{t-1}^T.

    No square of a small number is formed on the way, so that nothing cancels or underflows.

    Args:
        h: h_{t-1}, shape (time, batch, hidden).
    Returns:
        R, shape (time, min(batch, hidden), batch), scaled by 2**powers, and the powers, (time,),
        float64 on the CPU; NaN where h is not finite.
    """
    largest = largest_magnitudes(h.flatten(1))
    finite = torch.isfinite(largest)
    powers = torch.where(finite & (largest > 0), -torch.frexp(largest).exponent, 0)
    scales = torch.exp2(powers.double()).view(-1, 1, 1)
    factors = []
    seq_len, batch, hidden = h.shape
    steps = chunk_steps(seq_len, batch, hidden, itemsize=8)
    for start in range(0, seq_len, steps):
        chunk = slice(start, start + steps)
        # LAPACK is not asked about what is not finite.
        wide = torch.where(finite[chunk, None, None], h[chunk].double() * scales[chunk], 0.0)
        factors.append(torch.linalg.qr(wide.mT, mode="r").R.to(h.dtype))
    R = torch.where(finite[:, None, None], torch.cat(factors), math.nan)
    return R, powers.double().cpu()


def mixed_norms(
    delta: Float[Tensor, "losses batch hidden"], factor: Float[Tensor, "rank batch"], out: Float[Tensor, " losses"]
) -> Float[Tensor, " losses"]:
    """||factor delta_k|| for every k, into ``out``."""
    mixed = torch.matmul(factor, delta)
    norms: Tensor = torch.linalg.vector_norm(mixed.flatten(1), dim=1, out=out)
    return norms
