"""What the loss sends to every state of the hand-written network through its output, made as a sweep comes by."""

import torch
from torch import Tensor

from rnnctl.gradients.contributions import step_norms, sweep_dtype
from rnnctl.models.hand_written import Problem, through_readout


class FromReadout:
    """dL/dh_t through y_t alone, for some steps at a time: a tensor of them all would be as large as the states.

    Args:
        problem: model, batch and loss.
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).

    Attributes:
        loss: the loss.
        norms: of all steps, shape (time,), float64, once a sweep has come by.
    """

    def __init__(self, problem: Problem, h: Tensor) -> None:
        self.loss, self._grad, self._weight = problem.sent_back(h)
        self._first = problem.seq_len - len(self._grad)
        self.norms = torch.zeros(problem.seq_len, dtype=torch.float64)

    def rows(self, start: int, stop: int) -> Tensor:
        """Of those of the steps start .. stop - 1 that carry a loss, shape (steps, batch, hidden)."""
        start, stop = (max(0, each - self._first) for each in (start, stop))
        grad = self._grad[start:stop]
        found = grad if self._weight is None or not len(grad) else through_readout(grad, self._weight)
        self.norms[self._first + start : self._first + stop] = step_norms(found)
        return sweep_dtype(found)

    def last(self, count: int) -> Tensor:
        """Of the last so many steps, shape (count, batch, hidden)."""
        seq_len = len(self.norms)
        return self.rows(seq_len - count, seq_len)
