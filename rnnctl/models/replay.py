"""A module of several layers taken apart: the outputs of those below the last, with the same dropout."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnctl.models.calls import Below, LayeredCall, RefusedCallError, rows_of
from rnnctl.recurrence.run import LayerRun


def layers_below(call: LayeredCall, rng: Tensor | None) -> tuple[Below, ...]:
    """Run the layers below the last once more, each by torch's own function for one layer.

    Args:
        call: whose x and states are (time, batch, ...), or packed.
        rng: the state of torch's generator before the call where it drew dropout masks, shape (bytes,), else None.
    Raises:
        RefusedCallError: its masks cannot be drawn again.
    """
    module = call.module
    if module.num_layers == 1:
        return ()
    if rng is None:
        return tuple(_layers(call, dropout=0.0))
    if call.x.device.type != "cpu":
        raise RefusedCallError(_unknown_masks(module, f"is drawn inside the module on {call.x.device.type}"))
    after = torch.get_rng_state()
    # No devices: nothing is drawn on them here, and looking after theirs would start them up.
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(rng)
        below = tuple(_layers(call, module.dropout))
        # Drawn to the same end as by the module: else the masks were others, or of another size.
        same = torch.equal(torch.get_rng_state(), after)
    if not same:
        raise RefusedCallError(_unknown_masks(module, "could not be drawn again"))
    return below


def in_float64(call: LayeredCall, layer: int) -> Tensor:
    """The outputs of one layer once more in float64, the layers below it likewise, from the same inputs and weights.

    Returns:
        (time, batch, directions * hidden), or packed (steps, directions * hidden), on the CPU, which has float64.
    """
    x = _wide(call.x)
    for each in range(layer + 1):
        rows = rows_of(call.module, each)
        initial = [_wide(part[rows]) for part in initial_states(call)]
        weights = [part.to(torch.float64).cpu() for part in call.weights[rows]]
        output, _ = call.kind.outputs(x, call.batch_sizes, initial, weights)
        noise = call.below[each].noise if each < len(call.below) else None
        x = output if noise is None else output * _wide(noise)
    return output


def calls_in_float64(run: LayerRun) -> Tensor:
    """The states of a chain of calls of a cell once more in float64, along their inputs, (time, batch, hidden)."""
    initial = [_wide(part).unsqueeze(0) for part in (run.h[0], run.c_init) if part is not None]
    return run.kind.outputs(_wide(run.x), None, initial, [run.weights.to(torch.float64).cpu()])[0]


def _wide(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _unknown_masks(module: nn.RNNBase, why: str) -> str:
    return (
        f"its dropout of {module.dropout:g} between the layers {why}, and without the masks the layers below the last "
        "are unknown. Try model.eval(), dropout=0, or one module a layer with nn.Dropout between them"
    )


def _layers(call: LayeredCall, dropout: float) -> list[Below]:
    x, found = call.x, []
    for layer in range(call.module.num_layers - 1):
        rows = rows_of(call.module, layer)
        initial = [part[rows] for part in initial_states(call)]
        output, h_n = call.kind.outputs(x, call.batch_sizes, initial, call.weights[rows])
        # Dropout of ones is the mask with its scale; one a layer, in the order in which the module draws them.
        noise = F.dropout(torch.ones_like(output), dropout) if dropout > 0 else None
        # The last states are all that the module tells of this layer.
        error = (h_n - call.h_n[rows]).abs().max()
        found.append(Below(output, noise, float(error)))
        x = output if noise is None else output * noise
    return found


def initial_states(call: LayeredCall) -> tuple[Tensor, ...]:
    """h_0 and, of a cell with c, c_0 of all layers and directions, zeros where none were given."""
    if call.initial is not None:
        return call.initial
    h_0 = torch.zeros_like(call.h_n)
    if not call.kind.has_cell_state:
        return (h_0,)
    return h_0, h_0.new_zeros(*h_0.shape[:2], call.module.hidden_size)
