"""All loss steps together: their deltas at every source step, as many losses at a time as fit."""

from collections.abc import Callable, Iterator

from torch import Tensor

from rnnctl.gradients.problem import Problem
from rnnctl.memory import available_bytes, require_memory
from rnnctl.recurrence.sweep_all_losses import LossBlock, reverse_by_loss_step

# Blocks of (losses, batch, hidden) that one step works on, temporaries included.
BLOCKS = 5


def loss_step_blocks(
    problem: Problem, h: Tensor, direct: Tensor, progress: Callable[[float], None] | None = None
) -> Iterator[tuple[slice, LossBlock]]:
    """Every block and where its rows stand among all loss steps, counted from the last one.

    Args:
        h: h_init, h_0 .. h_{T-1}, shape (time + 1, batch, hidden).
        direct: dL_k/dh_k through y_k, shape (time, batch, hidden).
        progress: called with the fraction of the (k, t) pairs that are done.
    Yields:
        (rows, block), row j being the loss at step T - 1 - j, for t from the last step to the first;
        where memory is short, several runs over t for different losses.
    """
    cell, seq_len = problem.model.rnn_cell, problem.seq_len
    W_hh = cell.hidden_to_hidden.weight.detach().to(h.dtype)
    most = _losses_at_a_time(problem, h.element_size())
    pairs, done = seq_len * (seq_len + 1) // 2, 0
    for last in range(seq_len, 0, -most):
        first = max(0, last - most)
        for block in reverse_by_loss_step(h, direct, W_hh, cell.nonlinearity, first, last):
            losses = block.delta.shape[0]
            yield slice(seq_len - last, seq_len - last + losses), block
            done += losses
            if progress is not None:
                progress(done / pairs)


def require_room_for_blocks(problem: Problem) -> None:
    """Raise TooLargeError where not even one loss at a time fits beside states and gradients."""
    batch, hidden = problem.x.shape[0], problem.model.rnn_cell.hidden_size
    state = batch * hidden * 8
    needed = (5 * (problem.seq_len + 1) + BLOCKS) * state
    require_memory(needed, f"states, gradients and a block of one loss step over {problem.seq_len} steps")


def _losses_at_a_time(problem: Problem, itemsize: int) -> int:
    available = available_bytes()
    if available is None:
        return problem.seq_len
    one = BLOCKS * problem.x.shape[0] * problem.model.rnn_cell.hidden_size * itemsize
    return max(1, min(problem.seq_len, available // 2 // one))
