"""All loss steps together: what each of them sends to every step of one recurrent weight.

``flow`` and ``truncation`` ask this of any model. One reverse sweep carries all losses at once, a block of them a
step, through the layers from the one that the losses are read out of down to the one that is asked about. Where a
model cannot be laid out that way, ``rnnctl.gradients.loss_passes`` runs one backward pass for every loss.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rnnctl.gradients.agreement import Agreement
from rnnctl.gradients.contributions import sweep_dtype
from rnnctl.memory import available_bytes, require_memory
from rnnctl.models.hand_written import Problem
from rnnctl.recurrence.states_seen import FirstNonfinite
from rnnctl.recurrence.sweep_all_losses import LossBlock, SlopedLayer, sweep_all_losses
from rnnctl.results import Result
from rnnctl.view.shown import Shown

Progress = Callable[[float], None] | None
# Blocks of a hand-written network's size over all steps (states, slopes, gradients, what they are made of), and
# of all losses at one step.
OVER_ALL_STEPS, AT_ONE_STEP = 6, 6
# Why there is no reason, where there is none.
ALL_FINITE = "the loss, its gradient and every h_t are finite"


@dataclass(frozen=True, eq=False)
class OfEveryLoss(Shown, Result):
    """What a result about the losses of all steps has, whatever it asks of them.

    Attributes:
        loss: over all steps.
        agreement: the comparison of the whole gradient with autograd, or None.
        nonfinite: where h_t is not finite first.
        output_key: where the output stands in what the model returned; None where it is all of it.
    """

    loss: float = field(kw_only=True)
    agreement: Agreement | None = field(kw_only=True)
    nonfinite: FirstNonfinite = field(kw_only=True)
    output_key: str | None = field(default=None, kw_only=True)

    @property
    def first_nonfinite_step(self) -> int | None:
        """The first step whose h_t is not finite, or None."""
        return self.nonfinite.step

    @property
    @abstractmethod
    def whole_gradient(self) -> Tensor:
        """dL/dW_hh over all steps, shape of the weight."""

    @property
    def nonfinite_reason(self) -> str | None:
        """What is not finite, where it comes from, and whether float64 holds it; None where everything is."""
        return self.nonfinite.of_run(self.loss, self.whole_gradient) or self.nonfinite.words

    def because_not_finite(self, reason: str) -> str:
        """A reason for what is not known, with the other one behind it, where there is one."""
        return reason if self.nonfinite_reason is None else f"{reason}: {self.nonfinite_reason}"

    @property
    def settled(self) -> Mapping[str, Any]:
        """Which output carries the losses."""
        return {} if self.output_key is None else {"output_key": self.output_key}


@dataclass(frozen=True, eq=False)
class LossSteps:
    """What a sweep of all losses starts from.

    Attributes:
        layers: from the one that the losses are read out of down to the one that is asked about.
        direct: what the losses send to the first of them: each to its own step, (time, batch, hidden); or where
            they read earlier steps as well, what makes (losses, time, batch, hidden) of losses first .. last - 1.
        h: h_init, h_0 .. h_{T-1} of the last of them, shape (time + 1, batch, hidden).
        loss: over all steps.
    """

    layers: tuple[SlopedLayer, ...]
    direct: Tensor | Callable[[int, int], Tensor]
    h: Tensor
    loss: float

    @property
    def seq_len(self) -> int:
        """T."""
        return self.h.shape[0] - 1

    def blocks(self, progress: Progress = None) -> Iterator[tuple[slice, LossBlock]]:
        """Every block and where its rows stand among all loss steps, counted from the last one.

        Args:
            progress: called with the fraction of the (k, t) pairs that are done.
        Yields:
            (rows, block), row j being the loss at step T - 1 - j, for t from the last step to the first;
            where memory is short, several runs over t for different losses.
        """
        seq_len, most = self.seq_len, losses_at_a_time(self)
        pairs, done = seq_len * (seq_len + 1) // 2, 0
        for last in range(seq_len, 0, -most):
            first = max(0, last - most)
            direct = self.direct if isinstance(self.direct, Tensor) else self.direct(first, last)
            for block in sweep_all_losses(self.layers, direct, first, last):
                losses = block.delta.shape[0]
                yield slice(seq_len - last, seq_len - last + losses), block
                done += losses
                if progress is not None:
                    progress(done / pairs)

    @property
    def is_bounded_by_grad_h(self) -> bool:
        """Whether ||dL_k/dh_t|| bounds ||delta_k||: no slope of a single nonlinearity is above 1."""
        return self.layers[-1].slopes.is_plain

    def norm_delta(self, block: LossBlock) -> Tensor:
        """||delta_k|| or a bound of it, for every loss of a block, shape (losses,), scaled as the block is."""
        if self.is_bounded_by_grad_h:
            return block.norms[0]
        norms: Tensor = torch.linalg.vector_norm(block.delta.flatten(1), dim=1)
        return norms


def losses_at_a_time(steps: LossSteps) -> int:
    """How many losses one sweep carries: all, or what half of the memory holds."""
    available = available_bytes()
    if available is None:
        return steps.seq_len
    numbers = sum(layer.numbers() for layer in steps.layers)
    # What a loss sends to all steps is made and turned round before the sweep.
    numbers += 0 if isinstance(steps.direct, Tensor) else 3 * steps.seq_len * steps.h.shape[2]
    one = numbers * steps.h.shape[1] * steps.h.element_size()
    return max(1, min(steps.seq_len, available // 2 // one))


def own_loss_steps(problem: Problem, h: Tensor) -> LossSteps:
    """Of the hand-written network along these states.

    Args:
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).
    """
    loss, direct = problem.direct(h)
    wide = sweep_dtype(h)
    run = problem.run(wide, sweep_dtype(direct)).to(wide.dtype)
    return LossSteps((SlopedLayer(run.slopes()),), run.direct, run.h, loss)


def require_room_for_blocks(problem: Problem) -> None:
    """Raise TooLargeError where not even one loss at a time fits beside states and gradients."""
    state = problem.x.shape[0] * problem.model.rnn_cell.hidden_size * 8
    needed = (OVER_ALL_STEPS * (problem.seq_len + 1) + AT_ONE_STEP) * state
    require_memory(needed, f"states, gradients and a block of one loss step over {problem.seq_len} steps")
