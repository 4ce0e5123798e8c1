"""The shapes of a forward pass, of the hand-written network or of any other model."""

from collections.abc import Collection

from torch import Tensor, nn

from rnnctl.cells import FullRNN
from rnnctl.models.objective import called
from rnnctl.shapes.any_model import RecurrentShapes, recurrent_shapes
from rnnctl.shapes.hand_written import SequenceShapes, sequence_shapes


def forward_shapes(
    model: nn.Module,
    x: Tensor,
    *,
    h_init: Tensor | None = None,
    lengths: Tensor | None = None,
    only: Collection[str] | None = None,
) -> SequenceShapes | RecurrentShapes:
    """Run a model once and describe its tensors: all of a ``FullRNN``, of any other those of its recurrent modules.

    Args:
        x: shape (batch, time, input), or whole numbers (batch, time) for a model that takes them.
        h_init: of a ``FullRNN``, shape (batch, hidden); zeros if left out.
        lengths: real steps of every sequence, shape (batch,), for a model whose ``forward`` takes them.
        only: names of recurrent modules; all if left out. A ``FullRNN`` is described as any other model, then.
    Raises:
        InputError: as ``sequence_shapes`` and ``recurrent_shapes``.
    """
    if isinstance(model, FullRNN) and only is None:
        return sequence_shapes(model, x, h_init)
    return recurrent_shapes(model, lambda: called(model, x, lengths), only=only)
