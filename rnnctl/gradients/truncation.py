"""What a shorter window of backpropagation through time would lose."""

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
from rnnctl.gradients.loss_layout import laid_out
from rnnctl.gradients.loss_passes import LossPasses
from rnnctl.gradients.loss_steps import LossSteps, OfEveryLoss, own_loss_steps, require_room_for_blocks
from rnnctl.memory import require_memory
from rnnctl.models.hand_written import nonfinite_step, posed, require_batch_first, require_own_start
from rnnctl.models.inputs import Given, TimeFirst
from rnnctl.models.modules import require_no_linear
from rnnctl.models.objective import Objective, of_one_length
from rnnctl.recurrence.states_seen import NONFINITE_KINDS, FirstNonfinite
from rnnctl.results import Kind

GOOD_COSINES = {"window_for_cosine_99": 0.99, "window_for_cosine_999": 0.999}


@dataclass(frozen=True, eq=False)
class Truncation(OfEveryLoss):
    """The gradient of W_hh under truncated BPTT, for several windows.

    Attributes:
        windows: K, how many steps back every loss step sees, its own step included; the last is T.
        gradients: the gradient for each window, (windows, hidden, hidden), float64.
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
        "norm_ratio_at_*": float,
        "relative_error_at_*": float,
        "cosine_at_*": float,
    }
    windows: tuple[int, ...]
    gradients: Tensor

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One record per window; None where the full gradient is 0."""
        full = self.gradients[-1]
        return tuple(
            {"window": window, **_compared(gradient, full)}
            for window, gradient in zip(self.windows, self.gradients, strict=True)
        )

    @cached_property
    def scalars(self) -> Mapping[str, Any]:
        """The full gradient, the smallest good windows, and every row by name (cosine_at_20, ...)."""
        named = {f"{name}_at_{row['window']}": row[name] for row in self.rows for name in row if name != "window"}
        return MappingProxyType(
            {
                "seq_len": self.windows[-1],
                "loss": self.loss,
                "grad_W_hh_norm": float(torch.linalg.vector_norm(self.gradients[-1])),
                **scalars_of(self.agreement),
                **{name: self.smallest_window(cosine) for name, cosine in GOOD_COSINES.items()},
                **self.nonfinite.scalars(),
                **named,
            }
        )

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None."""
        full = float(torch.linalg.vector_norm(self.gradients[-1]))
        no_ratio = "the full gradient is 0" if full == 0 else "the gradient of this window is 0"
        no_window = "the full gradient is 0" if full == 0 else "the gradients are not finite"
        return {
            **why_not_compared(self.agreement),
            **dict.fromkeys(GOOD_COSINES, no_window),
            **self.nonfinite.why(),
            **{f"{name}_at_{row['window']}": no_ratio for row in self.rows for name in row if name != "window"},
        }

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
        return swept.result(chosen, compared, nonfinite_step(swept.h, swept.gradients))
    require_own_start(h_init)
    objective = Objective(of_one_length(model, x), target, loss, "all", output_key=output_key, time_first=time_first)
    with LossPasses(model, objective, only) as passes:
        chosen = chosen_windows(windows, passes.seq_len)
        steps = laid_out(passes)
        swept = _by_passes(passes, chosen, progress) if steps is None else _swept(steps, chosen, progress)
        compared = passes.agreement(swept.grad_W_hh, swept.magnitude) if verify else None
        nonfinite = passes.nonfinite()
    return replace(swept.result(chosen, compared, nonfinite), output_key=passes.output_key, notes=passes.notes)


# The name from before truncation took any model.
model_truncation = truncation


@dataclass(frozen=True)
class _Swept:
    """What a sweep of all losses tells: ``gradients`` by window, (windows, rows, hidden); else as of ``flow``."""

    loss: float
    gradients: Tensor
    magnitude: float
    h: Tensor

    @property
    def grad_W_hh(self) -> Tensor:
        return self.gradients[-1]

    def result(self, windows: tuple[int, ...], agreement: Agreement | None, nonfinite: FirstNonfinite) -> Truncation:
        """The ``Truncation``."""
        gradients = self.gradients.clone()
        return Truncation(windows, gradients, loss=self.loss, agreement=agreement, nonfinite=nonfinite)


def _swept(steps: LossSteps, windows: tuple[int, ...], progress: Callable[[float], None] | None) -> _Swept:
    """Partial sums of the uncut sweep: every way from a loss to a later use of W_hh passes later steps alone.

    So what a window of K steps leaves of the loss at step k are the contributions of its steps, t > k - K, as they
    are without any window, in every layer.
    """
    h = steps.h
    with torch.inference_mode():
        gradients: Tensor | None = None
        norms_h, magnitude = step_norms(h[:-1]), 0.0
        loss_steps = torch.arange(steps.seq_len - 1, -1, -1, device=h.device)
        limits = torch.tensor(windows, device=h.device)[:, None]
        for rows, block in steps.blocks(progress):
            # A loss step sees itself and the window - 1 steps before it.
            seen = loss_steps[rows] < block.t + limits
            summed = (seen * block.weights) @ block.delta.flatten(1)
            summed = summed.view(len(windows), *block.delta.shape[1:])
            if gradients is None:
                gradients = h.new_zeros(len(windows), block.delta.shape[2], h.shape[2], dtype=torch.float64)
            # h begins with h_init, so that h[t] is the state before step t.
            gradients += summed.mT @ h[block.t]
            magnitude += float((steps.norm_delta(block) * block.weights).sum() * norms_h[block.t])
        assert gradients is not None
        return _Swept(steps.loss, gradients, magnitude, h)


def _by_passes(passes: LossPasses, windows: tuple[int, ...], progress: Callable[[float], None] | None) -> _Swept:
    """One backward pass for every loss, whose contributions are summed over each window."""
    found, magnitude = list[Tensor](), 0.0
    passes.windows = windows
    for k, weight in passes:
        if weight is not None:
            found.append(passes.window_sums(k, windows))
            magnitude += weight.magnitude
        if progress is not None:
            progress((k + 1) / passes.seq_len)
    if not found:
        raise InputError(f"the loss of no step reaches {passes.name}")
    return _Swept(passes.loss, torch.stack(found).sum(0), magnitude, found[0].new_empty(0))


def default_windows(seq_len: int) -> list[int]:
    """1, 2, 4, ... below T, and T."""
    return [*(2**i for i in range(seq_len.bit_length()) if 2**i < seq_len), seq_len]


def chosen_windows(windows: Sequence[int] | None, seq_len: int) -> tuple[int, ...]:
    """The windows in order and T; 1, 2, 4, ... where none are given; InputError for one outside 1 .. T."""
    if windows is None:
        windows = default_windows(seq_len)
    if not isinstance(windows, Sequence) or any(type(window) is not int for window in windows):
        raise InputError(f"windows must be whole numbers from 1 to {seq_len}; got {windows!r}")
    for window in windows:
        if not 1 <= window <= seq_len:
            raise InputError(f"windows must be from 1 to the sequence's {seq_len} steps; got {window}")
    return tuple(sorted({*windows, seq_len}))


def _compared(gradient: Tensor, full: Tensor) -> dict[str, float | None]:
    norm, full_norm = (float(torch.linalg.vector_norm(g)) for g in (gradient, full))
    if full_norm == 0:
        return {"norm_ratio": None, "relative_error": None, "cosine": None}
    error = float(torch.linalg.vector_norm(gradient - full))
    cosine = float((gradient * full).sum()) / (norm * full_norm) if norm > 0 else None
    return {"norm_ratio": norm / full_norm, "relative_error": error / full_norm, "cosine": cosine}
