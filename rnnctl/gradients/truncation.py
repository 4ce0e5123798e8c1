"""What a shorter window of backpropagation through time would lose."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rnnctl.cells import FullRNN
from rnnctl.errors import InputError
from rnnctl.gradients.agreement import AGREEMENT_KINDS, Agreement, scalars_of, why_not_compared
from rnnctl.gradients.autograd import along_states
from rnnctl.gradients.contributions import step_norms
from rnnctl.gradients.in_float64 import told_of_model, told_of_problem
from rnnctl.gradients.limits import chosen_windows
from rnnctl.gradients.loss_layout import laid_out
from rnnctl.gradients.loss_passes import LossPasses
from rnnctl.gradients.loss_steps import ALL_FINITE, LossSteps, OfEveryLoss, own_loss_steps, require_room_for_blocks
from rnnctl.gradients.norm_book import norm_of
from rnnctl.memory import require_memory
from rnnctl.models.hand_written import nonfinite_step, posed, require_batch_first, require_own_start
from rnnctl.models.inputs import Given, TimeFirst
from rnnctl.models.modules import require_no_linear
from rnnctl.models.objective import Objective, of_one_length
from rnnctl.recurrence.states_seen import NONFINITE_KINDS, FirstNonfinite
from rnnctl.recurrence.sweep_all_losses import LossBlock
from rnnctl.results import Kind

NO_GRADIENT = "the gradient of this window is 0"
GOOD_COSINES = {"window_for_cosine_99": 0.99, "window_for_cosine_999": 0.999}


@dataclass(frozen=True, eq=False)
class Truncation(OfEveryLoss):
    """The gradient of W_hh under truncated BPTT, for several windows.

    Attributes:
        windows: K, how many steps back every loss step sees, its own step included; the last is T.
        gradients: the gradient for each window, (windows, hidden, hidden), float64.
        omitted_norms: norm of what each window leaves out of the full gradient, (windows,), float64.
    ``rows`` have window, norm_ratio, relative_error and cosine, against the full gradient.
    """

    schema: ClassVar[str] = "truncation"
    kinds: ClassVar[Mapping[str, Kind]] = {
        "seq_len": float,
        "loss": float,
        "grad_W_hh_norm": float,
        **AGREEMENT_KINDS,
        "window_for_cosine_99": float,
        "window_for_cosine_999": float,
        **NONFINITE_KINDS,
        "nonfinite_reason": str,
        "norm_ratio_at_*": float,
        "relative_error_at_*": float,
        "cosine_at_*": float,
    }
    windows: tuple[int, ...]
    gradients: Tensor
    omitted_norms: Tensor

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One record per window; None where the full gradient is 0."""
        full, by_window = self.gradients[-1], (self.windows, self.gradients, self.omitted_norms.tolist())
        return tuple(
            {"window": window, **_compared(gradient, omitted, full)}
            for window, gradient, omitted in zip(*by_window, strict=True)
        )

    @cached_property
    def scalars(self) -> Mapping[str, Any]:
        """The full gradient, the smallest good windows, and every row by name (cosine_at_20, ...)."""
        return MappingProxyType(
            {
                "seq_len": self.windows[-1],
                "loss": self.loss,
                "grad_W_hh_norm": norm_of(self.gradients[-1]),
                **scalars_of(self.agreement),
                **{name: self.smallest_window(cosine) for name, cosine in GOOD_COSINES.items()},
                **self.nonfinite.scalars(),
                "nonfinite_reason": self.nonfinite_reason,
                **self._named,
            }
        )

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None."""
        full = norm_of(self.gradients[-1])
        no_window = "the full gradient is 0" if full == 0 else self.because_not_finite("the gradients are not finite")
        return {
            **why_not_compared(self.agreement),
            **dict.fromkeys(GOOD_COSINES, no_window),
            **self.nonfinite.why(),
            "nonfinite_reason": ALL_FINITE,
            **{
                name: no_window if value is not None or full == 0 else NO_GRADIENT
                for name, value in self._named.items()
            },
        }

    @property
    def _named(self) -> Mapping[str, float | None]:
        """Every row's numbers by name: cosine_at_20, ..."""
        return {f"{name}_at_{row['window']}": row[name] for row in self.rows for name in row if name != "window"}

    @property
    def whole_gradient(self) -> Tensor:
        """That of the longest window."""
        return self.gradients[-1]

    def smallest_window(self, cosine: float) -> int | None:
        """The smallest of the windows from which on every cosine is at least this."""
        # From the longest down: a good cosine below a bad one is chance, and no window to rely on.
        good = None
        for row in reversed(self.rows):
            # Neither no cosine nor one that is nan is a good one.
            if row["cosine"] is None or not row["cosine"] >= cosine:
                return good
            good = row["window"]
        return good

    @property
    def remarks(self) -> tuple[str, ...]:
        """That the comparison with autograd took long, where it did."""
        return () if self.agreement is None else self.agreement.remarks

    def require_agreement(self) -> None:
        """Raise VerificationError if autograd was asked and disagrees."""
        if self.agreement is not None:
            self.agreement.require("the full gradient")


def truncation(
    model: nn.Module,
    x: Given,
    *,
    windows: Sequence[int] | None = None,
    target: Tensor | None = None,
    loss: str | None = None,
    output_key: str | int | None = None,
    h_init: Tensor | None = None,
    time_first: TimeFirst = None,
    only: str | None = None,
    linear: object = None,
    verify: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Truncation:
    """The gradient that truncated BPTT would give, every loss step seeing its own last K steps.

    Args:
        model, x, target, loss, output_key, h_init, time_first, only, linear, verify, progress: as in ``flow``, x of
            shape (batch, time, input) or a tuple or mapping of inputs; every step carries a loss.
        windows: K from 1 to T; 1, 2, 4, ... if left out. T is always added.
    Returns:
        A frozen ``Truncation``.
    Raises:
        InputError: a window outside 1 .. T; else as ``flow``.
    Source: Williams & Peng 1990, "An efficient gradient-based algorithm for on-line training of
        recurrent network trajectories".
    """
    require_no_linear(linear)
    if isinstance(model, FullRNN) and only is None and output_key is None:
        require_batch_first(time_first)
        problem = posed(model, x, target, loss, "all", h_init)
        chosen = chosen_windows(windows, problem.seq_len)
        hidden = model.rnn_cell.hidden_size
        require_memory(3 * 8 * len(chosen) * hidden**2, f"{len(chosen)} gradients of shape ({hidden}, {hidden})")
        require_room_for_blocks(problem)
        swept, compared = along_states(problem, lambda h: _swept(own_loss_steps(problem, h), chosen, progress), verify)
        first = nonfinite_step(swept.h, swept.grad_W_hh)
        return swept.result(chosen, compared, told_of_problem(problem, first, swept.loss, swept.grad_W_hh))
    require_own_start(h_init)
    objective = Objective(of_one_length(model, x), target, loss, "all", output_key=output_key, time_first=time_first)
    with LossPasses(model, objective, only) as passes:
        chosen = chosen_windows(windows, passes.seq_len)
        steps = laid_out(passes)
        swept = _by_passes(passes, chosen, progress) if steps is None else _swept(steps, chosen, progress)
        compared = passes.agreement(swept.grad_W_hh, swept.magnitude) if verify else None
        nonfinite = passes.nonfinite()
    # Not before, as the copy would have the hooks as well.
    nonfinite = told_of_model(model, objective, only, nonfinite, swept.loss, swept.grad_W_hh)
    return replace(swept.result(chosen, compared, nonfinite), output_key=passes.output_key, notes=passes.notes)


# The name from before truncation took any model.
model_truncation = truncation


@dataclass(frozen=True)
class _Swept:
    """What a sweep of all losses tells.

    ``bands`` are the contributions summed over the lags from one window up to the next, (windows, rows, hidden),
    float64: of what a window leaves out, neither what is summed nor what is left of it comes by way of a difference.
    The others as of ``rnnctl.gradients.autograd.Swept``.
    """

    loss: float
    bands: Tensor
    magnitude: float
    h: Tensor

    @cached_property
    def grad_W_hh(self) -> Tensor:
        return self.bands.sum(0)

    def result(self, windows: tuple[int, ...], agreement: Agreement | None, nonfinite: FirstNonfinite) -> Truncation:
        """The ``Truncation``."""
        # A copy, because tensors made in inference mode refuse autograd.
        gradients, omitted = self.bands.cumsum(0).clone(), torch.tensor(_norms_after(self.bands), dtype=torch.float64)
        return Truncation(windows, gradients, omitted, loss=self.loss, agreement=agreement, nonfinite=nonfinite)


def _norms_after(bands: Tensor) -> list[float]:
    """The norm of the sum of all bands behind each of them."""
    behind, norms = torch.zeros_like(bands[0]), list[float]()
    for band in reversed(bands.unbind(0)):
        norms.append(norm_of(behind))
        behind = behind + band
    return norms[::-1]


def _swept(steps: LossSteps, windows: tuple[int, ...], progress: Callable[[float], None] | None) -> _Swept:
    """Partial sums of the uncut sweep: every way from a loss to a later use of W_hh passes later steps alone.

    So what a window of K steps leaves of the loss at step k are the contributions of its steps, t > k - K, as they
    are without any window, in every layer.
    """
    h = steps.h
    with torch.inference_mode():
        bands: Tensor | None = None
        norms_h, magnitude = step_norms(h[:-1]), 0.0
        by_lag = _BandsByLag(windows, h)
        for rows, block in steps.blocks(progress):
            summed = by_lag.summed(rows, block)
            if bands is None:
                bands = h.new_zeros(len(windows), block.delta.shape[2], h.shape[2], dtype=torch.float64)
            # h begins with h_init, so that h[t] is the state before step t.
            bands.baddbmm_(summed.mT, h[block.t].double().expand(len(windows), -1, -1))
            magnitude += float((steps.norm_delta(block) * block.weights).sum() * norms_h[block.t])
        assert bands is not None
        return _Swept(steps.loss, bands, magnitude, h)


class _BandsByLag:
    """Which band of lags a loss step falls into at every source step.

    Args:
        windows: in order, the last being T.
        like: a tensor of the dtype and device of the sweep, of any shape.
    """

    def __init__(self, windows: tuple[int, ...], like: Tensor) -> None:
        # A loss step sees itself and the window - 1 steps before it: lag K is the first that window K leaves out.
        bounds, lags = (torch.tensor(each, device=like.device) for each in (windows, range(windows[-1] - 1, -1, -1)))
        # By lag from T - 1 down, as the rows of a block come.
        self._band = torch.bucketize(lags, bounds, right=True)
        self._within = (self._band == torch.arange(len(windows), device=like.device)[:, None]).to(like.dtype)
        self._none = torch.full((len(windows),), torch.inf, dtype=torch.float64, device=like.device)

    def summed(self, rows: slice, block: LossBlock) -> Tensor:
        """The deltas of a block summed over each band, (bands, batch, gates * hidden), float64."""
        lags = slice(rows.start + block.t, rows.stop + block.t)
        band, delta = self._band[lags], block.delta
        # The rows of one band beside its largest, so that no sum of small ones leaves the range of float32.
        least = self._none.scatter_reduce(0, band, block.exponents, "amin")
        weights = self._within[:, lags] * torch.exp2(least[band] - block.exponents).to(delta.dtype)
        summed = (weights @ delta.flatten(1)).view(len(least), *delta.shape[1:])
        return summed.double().mul_(torch.exp2(-least)[:, None, None])


def _by_passes(passes: LossPasses, windows: tuple[int, ...], progress: Callable[[float], None] | None) -> _Swept:
    """One backward pass for every loss, whose contributions are summed over each band."""
    bands: Tensor | None = None
    magnitude = 0.0
    passes.windows = windows
    for k, weight in passes:
        if weight is not None:
            summed = passes.band_sums(k, windows)
            bands = summed if bands is None else bands + summed
            magnitude += weight.magnitude
        if progress is not None:
            progress((k + 1) / passes.seq_len)
    if bands is None:
        raise InputError(f"the loss of no step reaches {passes.name}")
    return _Swept(passes.loss, bands, magnitude, bands.new_empty(0))


def _compared(gradient: Tensor, omitted: float, full: Tensor) -> dict[str, float | None]:
    norm, full_norm = norm_of(gradient), norm_of(full)
    if full_norm == 0:
        return {"norm_ratio": None, "relative_error": None, "cosine": None}
    # Of a full gradient that is not finite nobody knows how much is left, or left out: no 0 of it.
    ratio, error = (each / full_norm if math.isfinite(full_norm) else math.nan for each in (norm, omitted))
    # Each by its norm first: products of tiny numbers would vanish.
    cosine = float((gradient / norm * (full / full_norm)).sum()) if norm != 0 else None
    return {"norm_ratio": ratio, "relative_error": error, "cosine": cosine}
