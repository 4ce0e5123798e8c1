"""How perturbations of the state grow along a trajectory: ln of their growth at every step, by QR."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from rnnctl.dynamics.trajectory import Measured, Stretch, ended_at, why_ended
from rnnctl.errors import RnnctlError
from rnnctl.memory import require_memory
from rnnctl.recurrence.slopes import StepMaps


class Growth:
    """The perturbations of every sequence in the batch, and ln of their growth at every counted step.

    A perturbation's growth is that of what is orthogonal to those before it, whatever comes after it.

    Attributes:
        logs: nats, shape (steps, batch, count), float64; fewer steps where the trajectory ended early.
        stands_still: whether no state ever left the start.
        first_nonfinite_step: the first step whose state or Jacobian is not finite, or None.
        nonfinite_reason: what is not finite there and why; None likewise.
    """

    def __init__(
        self,
        layer: Measured,
        start: Float[Tensor, "batch state"],
        count: int,
        warmup: int,
        steps: int,
        generator: Generator,
    ) -> None:
        batch, state = start.shape
        # The growth at every step, and three copies on the way to means and errors.
        require_memory(
            8 * batch * count * (4 * steps + 6 * state), f"{count} exponents over {steps} steps of {batch} sequences"
        )
        self.layer, self.start, self.warmup, self.steps = layer, start, warmup, steps
        # One after the other, so that the first are the same however many there are; of all sequences the same.
        drawn = [torch.randn(state, generator=generator, dtype=torch.float64) for _ in range(count)]
        self.Q = torch.linalg.qr(torch.stack(drawn, dim=1)).Q.expand(batch, -1, -1)
        self.logs = torch.empty(steps, batch, count, dtype=torch.float64)
        self.stands_still = True
        self.first_nonfinite_step: int | None = None
        self.nonfinite_reason: str | None = None

    def along(self, trajectory: Iterator[Stretch], progress: Callable[[float], None] | None) -> None:
        """Follow the trajectory; where it overflows, keep what was measured before."""
        done, total = 0, self.warmup + self.steps
        for stretch in trajectory:
            self.stands_still &= bool((stretch.state == self.start).all())
            for J in stretch.slopes:
                growth = self.step(J)
                if done >= self.warmup:
                    self.logs[done - self.warmup] = growth
                done += 1
                if progress is not None:
                    progress(done / total)
        self.first_nonfinite_step = ended_at(self.layer, done, total)
        self.nonfinite_reason = why_ended(self.layer, self.first_nonfinite_step)
        if done < total:
            self.logs = self.logs[: max(0, done - self.warmup)]

    def require_measured(self, smaller: str) -> None:
        """Raise RnnctlError where the trajectory ended before the first step that counts; ``smaller``: what to try."""
        if not self.logs.shape[0]:
            raise RnnctlError(
                f"h_t is not finite at step {self.first_nonfinite_step}, before a step was measured (warmup "
                f"{self.warmup}). Try a smaller {smaller}. {self.nonfinite_reason}"
            )

    def step(self, J: StepMaps) -> Float[Tensor, "batch count"]:
        """Carry the perturbations one step on; ln of the growth of each."""
        moved = J(self.Q)
        sizes, order = moved.abs().amax(dim=2).sort(dim=1, descending=True)
        # Large rows first: saturated units scale the rows over many magnitudes, and in any
        # other order rounding of the large ones buries the small exponents.
        place = order.unsqueeze(2).expand_as(moved)
        Q, R = torch.linalg.qr(moved.gather(1, place))
        self.Q = torch.empty_like(Q).scatter_(1, place, Q)
        growth = R.diagonal(dim1=1, dim2=2).abs()
        noise = J.rounding * sizes[:, : growth.shape[1]]
        # Below the rounding of its own row nothing is left but noise: the direction is lost.
        return torch.where(growth > noise, growth, 0.0).log()
