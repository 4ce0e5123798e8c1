"""Any network unrolled through time, as a graph: the hand-written one, or anybody's, from what was counted."""

from torch import Tensor, nn

from rnnctl import graph as own
from rnnctl.cells import FullRNN
from rnnctl.errors import InputError
from rnnctl.graph import UnrolledGraph
from rnnctl.models.hand_written import require_batch_first
from rnnctl.models.inputs import Given, TimeFirst, one_tensor
from rnnctl.shapes.model_drawing import model_as_dot, model_as_mermaid, model_as_text
from rnnctl.shapes.model_graph import UnrolledModel, unroll_model


def unroll(
    model: nn.Module,
    x: Given,
    h_init: Tensor | None = None,
    *,
    time_first: TimeFirst = None,
    only: str | None = None,
) -> UnrolledGraph | UnrolledModel:
    """Run a model and count in autograd's own graph how its weights are shared over the steps.

    Args:
        model: a ``FullRNN``, or any other module; its ``requires_grad`` flags are left alone.
        x: shape (batch, time, input), or token numbers (batch, time); of a model that takes more a tuple of its
            positional arguments or a mapping of its keyword arguments.
        h_init: of a ``FullRNN``, shape (batch, hidden); zeros if left out.
        time_first: whether the model takes (time, batch, ...), as of ``gradnorm``.
        only: a pattern of module or weight names, as of ``probe``; all recurrent weights if left out. With it a
            ``FullRNN`` is unrolled as any other model.
    Returns:
        An ``UnrolledGraph`` of a ``FullRNN``, an ``UnrolledModel`` of any other.
    Raises:
        ShapeError, DtypeError, DeviceError: as the model's own ``forward``.
        InputError: nothing recurs, with what was counted; ``h_init`` where the model has no use for it.
    """
    if isinstance(model, FullRNN) and only is None:
        require_batch_first(time_first)
        return own.unroll(model, one_tensor(x), h_init)
    if h_init is not None:
        raise InputError("h_init is for a FullRNN; any other model starts as it does by itself. Leave it out")
    return unroll_model(model, x, only, time_first)


def drawn(
    graph: UnrolledGraph | UnrolledModel,
    form: str,
    *,
    every: bool = False,
    ascii_only: bool = False,
    width: int | None = None,
) -> str:
    """The graph as "text", "mermaid" or "dot"; long sequences elided in the middle unless ``every``.

    Args:
        width: columns of the screen, for the text; None for lines of any length.
    """
    if isinstance(graph, UnrolledGraph):
        return own.drawn(graph, form, every=every, ascii_only=ascii_only, width=width)
    if form == "mermaid":
        return model_as_mermaid(graph, every=every)
    if form == "dot":
        return model_as_dot(graph, every=every)
    return model_as_text(graph, every=every, ascii_only=ascii_only, width=width)
