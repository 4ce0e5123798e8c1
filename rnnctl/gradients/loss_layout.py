"""How the losses of anybody's model are laid out for one sweep of all of them.

Of a layer of torch's, what a loss sends to its outputs is read without going through it; of a chain of cell calls,
from the edges that lead from the readout to the states. Where every loss reads the state of its own step alone, the
sum of all losses tells what each of them sends; else each is asked by itself, through the readout only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from rnnctl.gradients.cell_calls import as_layer
from rnnctl.gradients.layer_sweep import in_sweep_dtype
from rnnctl.gradients.loss_passes import LossPasses
from rnnctl.gradients.loss_steps import LossSteps
from rnnctl.models.arriving_gradients import Received
from rnnctl.models.calls import CellCall, LayeredCall
from rnnctl.models.modules import directions
from rnnctl.models.readout import Place, Readout, each_reads_its_own, step_weights
from rnnctl.models.sequences import Geometry, with_received
from rnnctl.recurrence.run import LayerRun
from rnnctl.recurrence.scaling import times_power_of_two
from rnnctl.recurrence.sweep import sweep_back
from rnnctl.recurrence.sweep_all_losses import SlopedLayer


def laid_out(passes: LossPasses) -> LossSteps | None:
    """All losses of a model for one sweep, or None where it cannot be laid out so.

    Raises:
        InputError: steps and outputs that are not one to one; a loss that depends on later steps.
    """
    if passes.is_in_graph:
        return None
    kept = passes.calls.kept
    if passes.calls.refusal is not None or not kept:
        return None
    if len(kept) == 1 and isinstance(kept[0], LayeredCall):
        return _of_layer(passes, kept[0])
    cells = [call for call in kept if isinstance(call, CellCall)]
    return _of_cells(passes, cells) if len(cells) == len(kept) else None


def _of_layer(passes: LossPasses, call: LayeredCall) -> LossSteps | None:
    count = directions(call.module)
    layer, reverse = divmod(passes.index, count)
    top = call.module.num_layers - 1
    # With a reverse direction above, a layer's step depends on later ones; a packed batch has no common steps.
    if call.batch_sizes is not None or reverse or (count == 2 and layer != top):
        return None
    passes.require_one_to_one(call.x.shape[0])
    # Three looks at all losses together, plain and twice weighted, in place of one at each of them.
    weights = step_weights(passes.seq_len, call.x)
    plain, *others = (_sent_to_layer(call, passes.total(by)) for by in (None, *weights))
    weighted = [each for each in others if each is not None]
    if plain is None or len(weighted) < len(others):
        return None
    runs = [_run(call, each, Received()) for each in range(top, layer - 1, -1)]
    noises = [_noise(call, each) for each in range(top, layer, -1)]
    own = each_reads_its_own(plain, weighted, weights)
    return _swept_together(runs, noises, plain if own else _of_every_loss(passes, call), passes.loss)


def _of_every_loss(passes: LossPasses, call: LayeredCall) -> Callable[[int, int], Tensor]:
    """What makes dL_k/dh_t of losses first .. last - 1, (losses, time, batch, hidden), through the readout only."""

    def direct(first: int, last: int) -> Tensor:
        found = []
        for k in range(first, last):
            sent = _sent_to_layer(call, passes.losses[k])
            # The sum of all losses sent nothing past the outputs: only an exact cancellation could hide this.
            assert sent is not None
            passes.require_past(k, sent)
            found.append(sent)
        return torch.stack(found)

    return direct


def _sent_to_layer(call: LayeredCall, loss: Tensor) -> Tensor | None:
    """What a loss sends to the last layer's states, (time, batch, hidden); None where it sends something past them."""
    sent = call.received.sent_by(loss)
    runs = [_run(call, layer, sent) for layer in range(call.module.num_layers)]
    past = any(run.direct_c is not None or (run is not runs[-1] and bool(run.direct.any())) for run in runs)
    return None if past else _at_every_step(runs[-1])


def _run(call: LayeredCall, layer: int, sent: Received) -> LayerRun:
    """One layer forward, with what was sent to its results."""
    told, geometry = with_received(call, sent), Geometry.of(call, None)
    above = geometry.received(told) if layer == call.module.num_layers - 1 else None
    return geometry.run(told, layer, 0, above)


def _at_every_step(run: LayerRun) -> Tensor:
    """dL/dh_t from outside at all steps, shape (time, batch, hidden)."""
    # F.pad counts axes from the last one.
    return torch.nn.functional.pad(run.direct, (0, 0, 0, 0, run.seq_len - run.direct.shape[0], 0))


def _noise(call: LayeredCall, layer: int) -> Tensor | None:
    """What dropout multiplied a layer's input with."""
    return call.below[layer - 1].noise


def _of_cells(passes: LossPasses, calls: Sequence[CellCall]) -> LossSteps | None:
    run, places = as_layer(calls), [call.received.places for call in calls]
    # Below float32 the looks cannot be told from rounding.
    if run is None or run.h.dtype.itemsize < 4 or not _hand_on(places):
        return None
    passes.require_one_to_one(len(calls))
    readout = Readout(passes.losses, [each["h"] for each in places], [each["c"] for each in places if "c" in each])
    # A state that goes into the input of a later step, as in a decoder with attention, goes on past the cell.
    if not readout.reads_h_alone or readout.is_behind([each["x"] for each in places if "x" in each]):
        return None
    weights = step_weights(passes.seq_len, run.h)
    plain, arrived = _looked_at(passes, readout, calls, None)
    weighted = [_looked_at(passes, readout, calls, by)[0] for by in weights]
    passes.forget_gradients()
    if not each_reads_its_own(plain, weighted, weights) or not _explains(run, plain, arrived):
        return None
    return _swept_together([run], [], plain, passes.loss)


def _hand_on(places: Sequence[Mapping[str, Place]]) -> bool:
    """Whether every call takes the very states that the one before made, h and c, in autograd's graph as well."""
    linked = (
        after.get(f"{name}_before") == before.get(name) for before, after in pairwise(places) for name in ("h", "c")
    )
    return all("h" in each for each in places) and all(linked)


def _looked_at(
    passes: LossPasses, readout: Readout, calls: Sequence[CellCall], weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What the sum of all losses, times weights (time,), sends to every h_t from outside, and what arrives in all.

    Both of shape (time, batch, hidden).
    """
    passes.forget_gradients()
    like = [call.after[0] for call in calls]
    direct = readout.gradients(passes.total(weights), passes.parameters, like)
    brought = [call.received.by_name.get("h") for call in calls]
    arrived = [
        torch.zeros_like(h) if grad is None else grad.reshape(h.shape) for h, grad in zip(like, brought, strict=True)
    ]
    return torch.stack(direct), torch.stack(arrived)


def _explains(run: LayerRun, direct: Tensor, arrived: Tensor) -> bool:
    """Whether the cell alone makes of the direct gradients what arrived: no hook changed it, nothing else came.

    Args:
        direct, arrived: dL/dh_t from outside and in all, shape (time, batch, hidden).
    """
    eps = torch.finfo(arrived.dtype).eps
    with torch.inference_mode():
        wide = in_sweep_dtype(replace(run, direct=direct)).to(torch.float64)
        for chunk in sweep_back(wide.kind.reversible(wide), direct.double()):
            steps = slice(chunk.start, chunk.stop)
            found = times_power_of_two(chunk.grad_h, -chunk.exponent)
            error, size, own = (
                torch.linalg.vector_norm(part.flatten(1).double(), dim=1)
                for part in (found - arrived[steps], arrived[steps], direct[steps])
            )
            # Far above the rounding of as many steps, far below what another way would bring.
            if not bool((error <= 1e4 * eps * (size + own)).all()):
                return False
    return True


def _swept_together(
    runs: Sequence[LayerRun],
    noises: Sequence[Tensor | None],
    direct: Tensor | Callable[[int, int], Tensor],
    loss: float,
) -> LossSteps:
    """Layers from the last one down to the one that is asked about, in the dtype of a sweep."""
    with torch.inference_mode():
        wide = [in_sweep_dtype(run) for run in runs]
        # One dtype for all that are swept together: the widest that any of them asks for.
        dtype = max((run.h.dtype for run in wide), key=lambda dtype: dtype.itemsize)
        wide = [run.to(dtype) for run in wide]
        layers = [
            SlopedLayer(run.slopes(), run.weights.W_ih, None if noise is None else noise.to(dtype))
            for run, noise in zip(wide, noises, strict=False)
        ]
        layers.append(SlopedLayer(wide[-1].slopes()))
    if isinstance(direct, Tensor):
        return LossSteps(tuple(layers), direct.to(dtype), wide[-1].h, loss)
    return LossSteps(tuple(layers), lambda first, last: direct(first, last).to(dtype), wide[-1].h, loss)
