"""The shape of every tensor of a forward pass, of whatever model."""

from collections.abc import Collection
from dataclasses import replace

from torch import Tensor, nn

from rnnctl.cells import FullRNN
from rnnctl.errors import InputError
from rnnctl.models.hand_written import require_batch_first
from rnnctl.models.inputs import Given, TimeFirst, inputs_of, one_tensor
from rnnctl.models.model_run import ModelRun
from rnnctl.models.objective import require_lengths
from rnnctl.shapes import hand_written
from rnnctl.shapes.any_model import RecurrentShapes, model_shapes
from rnnctl.shapes.hand_written import SequenceShapes


def sequence_shapes(
    model: nn.Module,
    x: Given,
    h_init: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    time_first: TimeFirst = None,
    only: str | Collection[str] | None = None,
) -> SequenceShapes | RecurrentShapes:
    """Run a model over a batch of sequences and describe every tensor on the way.

    Of a ``FullRNN`` all of them; of any other model those of its recurrent modules of known classes, and every
    parameter with how often it is used in this pass and whether it is recurrent, shared by several uses or used once.

    Args:
        model: a ``FullRNN``, or any other module. It runs once, with gradients, of which none is computed or kept.
        x: what the model takes: shape (batch, time, input), or token numbers (batch, time); of a model that takes
            more a tuple of its positional arguments or a mapping of its keyword arguments.
        h_init: of a ``FullRNN``, shape (batch, hidden); zeros if left out.
        lengths: real steps of every sequence, shape (batch,); given to a model whose ``forward`` asks for
            them. A ``FullRNN`` reads padding like any other step.
        time_first: whether the model takes (time, batch, ...), as of ``gradnorm``.
        only: names of modules or parameters, or patterns of them as of ``probe``; all if left out. With it a
            ``FullRNN`` is described as any other model.
    Returns:
        ``SequenceShapes`` of a ``FullRNN``, ``RecurrentShapes`` of any other model.
    Raises:
        ShapeError, DtypeError, DeviceError: as the model's own ``forward``; lengths of another batch.
        InputError: neither a parameter nor a recurrent module, an unknown name in ``only``, ``h_init`` where the
            model has no use for it.
    """
    x = inputs_of(x)
    if lengths is not None:
        require_lengths(lengths, *x.shape[:2])
    if isinstance(model, FullRNN) and only is None:
        require_batch_first(time_first)
        return hand_written.sequence_shapes(model, one_tensor(x), h_init)
    if h_init is not None:
        raise InputError("h_init is for a FullRNN; any other model starts as it does by itself. Leave it out")
    run = ModelRun(model, x, lengths, time_first)
    return replace(model_shapes(model, run, only), notes=run.notes)
