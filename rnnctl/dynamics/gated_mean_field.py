"""Mean-field theory of cells with gates: units in the Gaussian fields that a random W_hh sends them, step by step.

In a wide layer whose W_hh has independent entries, what W_hh sends to the gates is Gaussian, independent from gate to
gate and from unit to unit, and at two times as alike as the states then were. Of an Elman cell one variance follows
from that (``meanfield``); c and the gates keep more than the last step, so that the fields are needed along time: they
are drawn, for some thousand units which start and are driven as those of the layer.

Source: Sompolinsky, Crisanti & Sommers 1988; Eissfeller & Opper 1992 (fields drawn along time); for gated cells Gilboa
    et al. 2019, arXiv:1901.08987 (W_hh anew at every step) and Can, Krishnamurthy & Schwab 2020, arXiv:2002.00025.
"""

import math
from collections import deque
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from rnnctl.dynamics.meanfield import MeanField, iid_sigma_w, not_independent
from rnnctl.models.driven import DrivenLayer, widened
from rnnctl.recurrence.threads import one_thread
from rnnctl.recurrence.weights import affine

# A population has at least so many units, whole copies of the layer's; below that what a wide layer neglects shows.
FEWEST_UNITS = 512
# The standard error of 8 populations is about that of as many networks, 0.001 to 0.003; over some hundred steps each
# of them varies less, and 4 are enough.
MOST_POPULATIONS, FEWEST_POPULATIONS, POPULATION_STEPS = 8, 4, 2000
MOST_SEQUENCES = 8
# Vectors whose products are held, and how many of the latest outlast a clearing: 16 states and 16 perturbations.
ROOM, HELD = 64, 32
# A vector that is nearer than this to those that are held, of its own length, is taken for one of their sums.
NEAR = 0.02
# Steps whose input goes through W_ih at a time.
CHUNK = 32
# exp(2 x) of anything beyond leaves float64.
LARGEST = 350.0


def gated_mean_field(layer: DrivenLayer, warmup: int, steps: int, init: str | None, gain: float) -> MeanField:
    """The growth of perturbations that a wide random layer would have along this input, from this start.

    chi = exp(2 x), x being the mean of ln of the growth; q is the mean square of what reaches the gates, W_ih x_t +
    W_hh h_{t-1} + b_ih + b_hh without the reset gate of a GRU, over gates, units and counted steps.

    Args:
        layer: with its input, x of shape (batch, time, input), of which the first 8 sequences count.
        warmup, steps: steps that are run and not counted, and the counted ones after them.
        init, gain: how W_hh was drawn, as for ``iid_sigma_w``.
    Returns:
        A frozen ``MeanField``; without numbers where W_hh is not made of independent ones or where they overflow.
    """
    sigma = iid_sigma_w(init, gain)
    if sigma is None:
        return not_independent(init)
    if layer.weights.W_hr is not None:
        return MeanField(None, None, "with a projection, W_hh receives sums of units and not units")
    with one_thread():
        q, each = _Populations(layer, sigma, warmup + steps).along(warmup, steps)
    exponent = float(each.mean())
    if not (exponent < LARGEST and math.isfinite(q)):
        return MeanField(None, None, "the variances leave float64")
    return MeanField(q, math.exp(2 * exponent), _note(layer, sigma, each))


def _note(layer: DrivenLayer, sigma: float, each: Tensor) -> str:
    error = float(each.std()) / math.sqrt(len(each)) if torch.isfinite(each).all() else 0.0
    of = f" of the first {MOST_SEQUENCES} sequences" if layer.x.shape[0] > MOST_SEQUENCES else ""
    return (
        f"independent entries of standard deviation {sigma:.4g} / sqrt(hidden), their Gaussian fields drawn{of}; "
        f"standard error {error:.1g}"
    )


class RandomMatrix:
    """Products with W_hh of independent Gaussian entries, which is drawn no further than they ask for.

    W v of the part of v that lies among earlier vectors follows from theirs; for the rest it is as good as new. So
    the products are those of one W_hh, or of a new one for what is long past: a vector is held for 32 to 64 products.

    Args:
        rows, units: W_hh has shape (rows, units).
        count: how many such matrices, each with vectors of its own.
        generator: source of the random numbers.
    Source: the conditioning of Bolthausen 2014, arXiv:1201.2891.
    """

    def __init__(self, rows: int, units: int, count: int, sigma: float, generator: Generator) -> None:
        self._scale, self._generator = sigma / math.sqrt(units), generator
        # Orthonormal vectors and their products at sigma = sqrt(units), of which float32's digits are more than enough.
        self._vectors = torch.zeros(count, ROOM, units)
        self._products = torch.zeros(count, ROOM, rows)
        self._used = 0
        self._latest: deque[Tensor] = deque(maxlen=HELD)

    def __call__(self, v: Float[Tensor, "count units"]) -> Float[Tensor, "count rows"]:
        """W v."""
        size = v.norm(dim=1, keepdim=True)
        direction = (v / size.clamp_min(torch.finfo(v.dtype).tiny)).float()
        parts, rest = self._split(direction)
        if (rest.norm(dim=1) > NEAR).any():
            if self._used == ROOM:
                self._forget()
                parts, rest = self._split(direction)
            self._hold(rest)
            parts, _ = self._split(direction)
        self._latest.append(parts)
        found: Tensor = _sum(parts, self._products[:, : self._used]).double() * (self._scale * size)
        return found

    def _split(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients of v in the vectors that are held, (count, used), and what is left of v."""
        held = self._vectors[:, : self._used]
        parts = (held @ v.unsqueeze(2)).squeeze(2)
        return parts, v - _sum(parts, held)

    def _hold(self, rest: Tensor) -> None:
        """Hold one more vector, with a product of its own: what is left of one, (count, units)."""
        count, _, rows = self._products.shape
        # Where nothing is left any other does, and is sound: what rounding left would not be at right angles.
        others = torch.randn(rest.shape, generator=self._generator)
        new = torch.where(rest.norm(dim=1, keepdim=True) > NEAR, rest, others)
        # Once more: rounding would add up from vector to vector.
        _, new = self._split(new)
        self._vectors[:, self._used] = new / new.norm(dim=1, keepdim=True)
        self._products[:, self._used] = torch.randn(count, rows, generator=self._generator)
        self._used += 1

    def _forget(self) -> None:
        """Hold no more than the latest vectors.

        Not those that are used most: a W_hh of which what makes perturbations grow is kept, and the rest drawn anew,
        is no random one; exponents came out 0.01 too large.
        """
        latest = torch.stack([torch.nn.functional.pad(parts, (0, ROOM - parts.shape[1])) for parts in self._latest], 2)
        turned = torch.linalg.qr(latest).Q.mT
        self._used = turned.shape[1]
        for held in (self._vectors, self._products):
            held[:, : self._used] = turned @ held
        self._latest = deque((turned @ latest).unbind(2), maxlen=HELD)


class _Populations:
    """Units as those of the layer, several times, in fields of W_hh's variance, with a perturbation of their state.

    Args:
        layer: its kind, biases, input and start.
        sigma: sqrt(hidden) times the standard deviation of W_hh's entries.
        steps: that they are to run.
    """

    def __init__(self, layer: DrivenLayer, sigma: float, steps: int) -> None:
        self.kind, self.weights = layer.kind, layer.wide_weights
        sequences = min(layer.x.shape[0], MOST_SEQUENCES)
        self.x = widened(layer.x[:sequences])
        wanted = min(MOST_POPULATIONS, max(FEWEST_POPULATIONS, POPULATION_STEPS // steps))
        self.each, self.copies = math.ceil(wanted / sequences), math.ceil(FEWEST_UNITS / layer.hidden_size)
        count, self.units = sequences * self.each, self.copies * layer.hidden_size
        generator = Generator().manual_seed(0)
        self.W_hh = RandomMatrix(self.kind.blocks * self.units, self.units, count, sigma, generator)
        parts = [part for part in (layer.h_init, layer.c_init) if part is not None]
        self.state = tuple(self._of_units(widened(part[:sequences]), 1).squeeze(2) for part in parts)
        start = torch.randn(count, self.units * len(parts), 1, generator=generator, dtype=torch.float64)
        self.perturbation = start / start.norm(dim=1, keepdim=True)
        b_hh = self.weights.b_hh
        self.from_bias = 0 if b_hh is None else self._of_units(b_hh.expand(sequences, -1), self.kind.blocks)

    def along(self, warmup: int, steps: int) -> tuple[float, Tensor]:
        """The mean square of what reaches the gates, and the mean ln of the growth in every population, (count,)."""
        logs, squares = [], []
        for step, from_x in enumerate(self._from_input(warmup + steps)):
            growth, square = self._step(from_x)
            if step >= warmup:
                logs.append(growth)
                squares.append(square)
        return float(torch.stack(squares).mean()), torch.stack(logs).mean(dim=0)

    def _from_input(self, steps: int) -> Iterator[Tensor]:
        """W_ih x_t + b_ih of every step, shape (1, count, gates, units)."""
        sequences = self.x.shape[0]
        for start in range(0, steps, CHUNK):
            x = self.x[:, start : min(steps, start + CHUNK)].transpose(0, 1)
            found = affine(x, self.weights.W_ih, self.weights.b_ih)
            for each in found.view(-1, sequences, found.shape[1]):
                yield self._of_units(each, self.kind.blocks)

    def _of_units(self, rows: Tensor, gates: int) -> Tensor:
        """Numbers of every sequence's gates, (sequences, gates * hidden), for all units, (1, count, gates, units)."""
        by_gate = rows.view(len(rows), gates, -1).repeat(1, 1, self.copies)
        return by_gate.repeat_interleave(self.each, dim=0).unsqueeze(0)

    def _step(self, from_x: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the units and of their perturbation: ln of its growth, (count,), and the mean square."""
        from_h = self.W_hh(self.state[0][0]).view(from_x.shape) + self.from_bias
        found = self.kind.units(from_x, from_h, self.state, self.weights)
        received = self.W_hh(self.perturbation[:, : self.units, 0])
        moved = found.slopes[0].moved(received.unsqueeze(2), self.perturbation)
        size = moved.norm(dim=1, keepdim=True)
        # A perturbation that is lost stays lost, and its growth -inf.
        self.state, self.perturbation = found.states, moved / size.clamp_min(torch.finfo(size.dtype).tiny)
        return size.log().flatten(), (from_x + from_h).square().mean()


def _sum(parts: Tensor, vectors: Tensor) -> Tensor:
    """sum over k of parts[:, k] vectors[:, k], shape (count, size)."""
    return (parts.unsqueeze(1) @ vectors).squeeze(1)
