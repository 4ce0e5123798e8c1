"""The states and step Jacobians that a layer, or somebody's own code, runs through, a stretch of time at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rnnctl.errors import plain
from rnnctl.models.driven import DrivenLayer, widened
from rnnctl.models.graph_steps import GraphSteps
from rnnctl.recurrence.slopes import DenseMaps, Linearized, StepMaps, stacked
from rnnctl.recurrence.states_seen import InFloat64, are_finite, is_nan_alone
from rnnctl.recurrence.threads import threads_for
from rnnctl.results import Kind

# Bytes of one stretch: few enough to stay near the processor, and the same for any length of the sequence.
STRETCH_BYTES = 1 << 22
# Tensors of a gated stretch's size: pre-activations, their opposites, gates, slopes and what they are made of.
BUFFERS = 6
COMPUTED_IN = "float64 on cpu"
# What results say where a trajectory ended early alone: a pattern.
REASON_KINDS: Mapping[str, Kind] = {"nonfinite_reason*": str}
# What spectrum and lyapunov look at.
Measured = DrivenLayer | GraphSteps


@dataclass(frozen=True)
class Stretch:
    """Consecutive steps from ``start`` on.

    Attributes:
        state: h_t, of a cell with c with c_t after it, shape (steps, batch, state).
        gates: their activations, shape (steps, batch, gates, hidden); None for a cell without gates.
        slopes: J_t of every step and sequence.
    """

    start: int
    state: Tensor
    gates: Tensor | None
    slopes: StepMaps

    def finite(self) -> Tensor:
        """Whether a step can be measured, in all sequences, shape (steps,)."""
        finite = torch.isfinite(self.state).flatten(1).all(dim=1)
        # Slopes of gates may overflow where the state does not; those of one nonlinearity are at most 1.
        return finite if self.gates is None else finite & self.slopes.finite()

    def first(self, steps: int) -> "Stretch":
        """The first so many of them."""
        kept = slice(0, steps)
        gates = None if self.gates is None else self.gates[kept]
        return Stretch(self.start, self.state[kept], gates, self.slopes[kept])


def trajectory(layer: Measured, steps: int) -> Iterator[Stretch]:
    """So many steps from the first one that can be measured; it ends before one that is not finite.

    Args:
        layer: with its input and its start; its weights are finite.
        steps: at most ``layer.seq_len``.
    """
    if isinstance(layer, GraphSteps):
        return _in_graph(layer, steps)
    return stretches(layer, layer.x[:, :steps], layer.state_init)


def computed_in(layer: Measured) -> str:
    """The dtype of what is found, in words, and the device where it is not the model's."""
    if not isinstance(layer, GraphSteps):
        return COMPUTED_IN
    return f"{plain(layer.dtype)}, as it runs"


def ended_at(layer: Measured, done: int, steps: int) -> int | None:
    """The first step whose state or Jacobian is not finite, where a trajectory ended early; None where it did not.

    Args:
        done, steps: how many there were, and how many should have been.
    """
    if done == steps:
        return None
    at_start = isinstance(layer, GraphSteps) and not done and not layer.is_finite(-1)
    return max(0, layer.first_step + done - at_start)


def reason_scalars(nonfinite_reason: str | None) -> dict[str, str]:
    """What a result says of a trajectory that ended early, by name; nothing of another one."""
    return {} if nonfinite_reason is None else {"nonfinite_reason": nonfinite_reason}


def why_ended(layer: Measured, step: int | None) -> str | None:
    """What is not finite where a trajectory ended early, and whether another dtype may hold it; None where it did not.

    Args:
        step: as of ``ended_at``.
    """
    if step is None:
        return None
    if isinstance(layer, GraphSteps):
        return f"h_t or its Jacobian is not finite first at step {step}: {_why_in_graph(layer, step)}"
    given = (layer.x[:, : step + 1], layer.h_init, layer.c_init)
    known = InFloat64(was_given=not are_finite(given))
    return f"h_t is not finite first at step {step}: {known.words(torch.float64)}"


def _why_in_graph(layer: GraphSteps, step: int) -> str:
    """Of code of the user's own, which nobody repeats in float64."""
    place = step - layer.first_step
    known = InFloat64(was_given=not are_finite(each[:, : step + 1] if each.dim() > 2 else each for each in layer.given))
    if layer.is_finite(place) and not known.was_given:
        return "the state is, and its Jacobian is not: a slope without a value there, or an overflow on the way"
    # What was not seen of a state stands there as nan.
    before = layer.state(place - 1).nan_to_num(nan=0.0).to(layer.dtype) if place >= 0 else None
    return known.words(layer.dtype, is_nan=is_nan_alone(layer.state(place), before))


def _in_graph(layer: GraphSteps, steps: int) -> Iterator[Stretch]:
    """The trajectory of the one pass that was run."""
    length = max(1, STRETCH_BYTES // (8 * layer.batch * layer.state_size**2))
    for start in range(0, steps if layer.is_finite(-1) else 0, length):
        wanted = range(start, min(steps, start + length))
        found: list[Tensor] = []
        for step in wanted:
            J = layer.jacobian(step)
            if not layer.is_finite(step) or not torch.isfinite(J).all():
                break
            found.append(J)
        if found:
            state = torch.stack([layer.state(step) for step in wanted[: len(found)]])
            maps = DenseMaps(torch.stack(found), layer.dtype)
            yield Stretch(layer.first_step + start, state, None, maps)
        if len(found) < len(wanted):
            return


def stretches(
    layer: DrivenLayer, x: Float[Tensor, "batch time input"], start: Float[Tensor, "batch state"]
) -> Iterator[Stretch]:
    """The trajectory from step 0 on; it ends before the first step whose state or J_t is not finite.

    Args:
        layer: its kind and weights, which are finite.
        x: inputs, shape (batch, time, input).
        start: the state before step 0, shape (batch, state).
    Yields:
        Stretches that tile 0 .. T-1, of a size that does not grow with T.
    """
    last, weights = widened(start), layer.wide_weights
    length = _stretch_length(layer, last.shape[0])
    for step in range(0, x.shape[1], length):
        with threads_for(last.shape[0], weights.W_hh.shape[0]):
            part = widened(x[:, step : step + length]).transpose(0, 1)
            found = _stretch(layer.kind.exact(part, layer.states_of(last), weights), step)
        finite = found.finite()
        steps = int(finite.long().cumprod(0).sum())
        if steps:
            yield found.first(steps)
        if steps < finite.shape[0]:
            return
        last = found.state[-1]


def _stretch_length(layer: DrivenLayer, batch: int) -> int:
    tensors = BUFFERS if layer.kind.gates else 1
    return max(1, STRETCH_BYTES // (8 * tensors * batch * layer.weights.W_hh.shape[0]))


def _stretch(found: Linearized, start: int) -> Stretch:
    return Stretch(start, stacked(found.states), found.gates, found.slopes)
