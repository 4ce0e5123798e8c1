"""What the loss sends to every state of the hand-written network through its output, made as a sweep comes by."""

import torch
from torch import Tensor

from rnnctl.gradients.contributions import step_norms, sweep_dtype
from rnnctl.models.hand_written import Problem


class FromReadout:
    """dL/dh_t through y_t alone, a piece of time at a time: a tensor of them all would be as large as the states.

    Args:
        problem: model, batch and loss.
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).

    Attributes:
        loss: of the steps that were asked for, all of them once a sweep has ended.
    """

    def __init__(self, problem: Problem, h: Tensor) -> None:
        self._problem, self._h, self._pieces = problem, h, problem.direct_pieces(h)
        self._start, self._held = problem.seq_len, h[:0]
        self._norms: list[Tensor] = []
        self._tail = h[:0]
        self.loss = 0.0

    def rows(self, start: int, stop: int) -> Tensor:
        """Of those of the steps start .. stop - 1 that carry a loss, shape (steps, batch, hidden).

        Args:
            start, stop: of a chunk of a sweep; what begins at ``stop`` or after it is not asked for again.
        """
        self._held = self._held[: max(0, stop - self._start)]
        while self._start > start and (found := next(self._pieces, None)) is not None:
            loss, piece = found
            self.loss += loss
            self._norms.append(step_norms(piece))
            self._tail = self._tail if len(self._tail) else sweep_dtype(piece[-1:].clone())
            self._start -= len(piece)
            piece = sweep_dtype(piece)[: stop - self._start]
            self._held = torch.cat([piece, self._held]) if len(self._held) else piece
        return self._held[max(0, start - self._start) :]

    def last(self, count: int) -> Tensor:
        """Those of the last so many steps, shape (count, batch, hidden), which are made once more if they are many."""
        if count <= len(self._tail):
            return self._tail
        again, steps = FromReadout(self._problem, self._h), self._problem.seq_len
        return again.rows(steps - count, steps)

    @property
    def norms(self) -> Tensor:
        """Of all steps, shape (time,), float64."""
        norms = torch.cat(self._norms[::-1])
        return torch.nn.functional.pad(norms, (self._problem.seq_len - len(norms), 0))
