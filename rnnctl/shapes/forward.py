"""The shape of every tensor of a forward pass, of whatever model."""

from collections.abc import Collection

from torch import Tensor, nn

from rnnctl.cells import FullRNN
from rnnctl.errors import InputError
from rnnctl.models.objective import called, require_lengths
from rnnctl.shapes import hand_written
from rnnctl.shapes.any_model import RecurrentShapes, recurrent_shapes
from rnnctl.shapes.hand_written import SequenceShapes


def sequence_shapes(
    model: nn.Module,
    x: Tensor,
    h_init: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    only: Collection[str] | None = None,
) -> SequenceShapes | RecurrentShapes:
    """Run a model over a batch of sequences and describe every tensor on the way.

    Args:
        model: a ``FullRNN``, or anything with nn.RNN, nn.GRU, nn.LSTM, their cells or ManualRNNCell in it.
        x: what the model takes: shape (batch, time, input), or token numbers (batch, time).
        h_init: of a ``FullRNN``, shape (batch, hidden); zeros if left out.
        lengths: real steps of every sequence, shape (batch,); given to a model whose ``forward`` asks for
            them. A ``FullRNN`` reads padding like any other step.
        only: names of recurrent modules; all if left out. With it a ``FullRNN`` is described as any other model.
    Returns:
        ``SequenceShapes`` of a ``FullRNN``, ``RecurrentShapes`` of any other model.
    Raises:
        ShapeError, DtypeError, DeviceError: as the model's own ``forward``; lengths of another batch.
        InputError: no recurrent module, an unknown name in ``only``, ``h_init`` where the model has no use for it.
    """
    if lengths is not None:
        require_lengths(lengths, *x.shape[:2])
    if isinstance(model, FullRNN) and only is None:
        return hand_written.sequence_shapes(model, x, h_init)
    if h_init is not None:
        raise InputError("h_init is for a FullRNN; any other model starts as it does by itself. Leave it out")
    return recurrent_shapes(model, lambda: called(model, x, lengths), only=only)
