"""What the states of a run tell of why a gradient does not come through: ends of their range, silence, no number."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rnnctl.errors import plain
from rnnctl.recurrence.finite import nonfinite_count
from rnnctl.recurrence.run import LayerRun
from rnnctl.recurrence.scaling import largest_magnitude
from rnnctl.recurrence.sweep import CHUNK_BYTES
from rnnctl.recurrence.weights import pre_activations

# As of the gates: where tanh' is below 0.02.
BEYOND = 0.99
# What results call it, and what it is.
SEEN_KINDS = {"saturated_fraction": float, "dead_fraction": float, "largest_input": float}
NONFINITE_KINDS = {"first_nonfinite_step": float, "first_nonfinite_weight": str, "first_nonfinite_gate": str}
# Why there is no such step, where there is none.
FINITE = "h_t is finite at every step"
UNSEEN = "of a weight that was found in autograd's graph not all states are kept"
# From so many of the states on there is something to say.
MOSTLY = 0.5
# What may be no overflow, and no other dtype can be promised to hold.
IS_NAN = "it is nan and not inf: an operation without a value there, or an overflow inside the step"
# Inputs of unit variance rarely reach as far.
FAR = 5.0


@dataclass(frozen=True)
class InFloat64:
    """What a run that is not finite would be in float64, from the same weights and inputs.

    Attributes:
        is_finite: None where it was not repeated.
        step: the first whose h_t is not finite there either; None where the states are.
        was_given: whether what it is given is not finite, and no range of a dtype is to blame.
        is_whole: whether the loss and its gradient were repeated as well, and not the states alone.
    """

    is_finite: bool | None = None
    step: int | None = None
    was_given: bool = False
    is_whole: bool = True

    @classmethod
    def of_states(cls, step: int | None, *, before: int | None, given: Iterable[Any]) -> "InFloat64":
        """Of states alone; as ``repeated``."""
        return replace(cls.repeated(step is None, step, before=before, given=given), is_whole=False)

    @classmethod
    def repeated(cls, is_finite: bool, step: int | None, *, before: int | None, given: Iterable[Any]) -> "InFloat64":
        """From what came of it.

        Args:
            is_finite: whether all of it is.
            step: the first whose h_t is not finite in float64, or None.
            before: the same of the run that is repeated.
            given: weights, inputs and targets, as of ``are_finite``.
        """
        # What is given and not finite stops both at the same place.
        return cls(is_finite, step, was_given=not is_finite and step == before and not are_finite(given))

    def words(self, dtype: torch.dtype, *, is_nan: bool = False) -> str:
        """Of a run in a dtype, why it is not finite and whether float64 helps.

        Args:
            is_nan: whether nothing was seen to be infinite before it was nan.
        """
        if self.was_given:
            return "what it is given is not finite"
        is_nan = is_nan and not self.is_finite
        ends = IS_NAN if is_nan else f"{plain(dtype)} ends at {short(torch.finfo(dtype).max)}"
        if dtype == torch.float64:
            return ends
        if self.is_finite is None:
            return f"{ends}; whether float64 holds it is not known{'' if is_nan else ': try --dtype float64'}"
        if self.is_finite and self.is_whole:
            return f"{ends}; in float64 it is finite (--dtype float64)"
        if self.is_finite:
            return f"{ends}; in float64 it is finite at every step (--dtype float64); of the loss that is not known"
        if self.step is None:
            return f"{ends}; in float64 h_t is finite, and the loss or a gradient is not"
        return f"{ends}; in float64 it is not finite either, first at step {self.step}"


UNREPEATED = InFloat64()


def are_finite(given: Iterable[Any]) -> bool:
    """Whether weights, inputs and targets are; what is no tensor counts as finite."""
    return all(nonfinite_count(each) == 0 for each in given if isinstance(each, Tensor))


@dataclass(frozen=True, eq=False)
class StatesSeen:
    """Of all h_t of a recurrence, and of its inputs.

    Attributes:
        steps: T.
        entries: numbers in all h_t; of packed sequences those of real steps.
        saturated: how many of them are beyond 0.99; None where h has no end there.
        silent: units that are 0 at every step of every sequence, (hidden,), boolean; None where it is not known.
        largest_input: the largest |x|; None where it is not known.
        first_nonfinite: the first step that the recurrence came to whose h_t is not finite, in the order of the
            sequence; None where all are.
        gate: the first gate there that gets what is not finite; None without gates.
        is_whole: whether the states of all steps were seen; of the last one of a weight that is found in autograd's
            graph nothing is kept.
        is_nan: whether the first that is not finite may be no overflow, as of ``is_nan_alone``.
    """

    steps: int
    entries: int
    saturated: int | None
    silent: Tensor | None
    largest_input: float | None
    first_nonfinite: int | None
    gate: str | None
    is_whole: bool = True
    dtype: torch.dtype | None = None
    in_float64: InFloat64 = UNREPEATED
    is_nan: bool = False

    @property
    def saturated_fraction(self) -> float | None:
        """Of all numbers in h."""
        return None if self.saturated is None or not self.entries else self.saturated / self.entries

    @property
    def dead_fraction(self) -> float | None:
        """Of all units."""
        return None if self.silent is None else float(self.silent.double().mean())

    @property
    def remark(self) -> str | None:
        """One line with the remedy, where most of h passes no gradient on."""
        saturated, dead = self.saturated_fraction or 0.0, self.dead_fraction or 0.0
        if self.first_nonfinite is not None or saturated + dead < MOSTLY:
            return None
        said = [f"{percent(saturated)} of h beyond {BEYOND}"] if saturated > 0 else []
        said += [f"{percent(dead)} of the units at 0 at every step"] if dead > 0 else []
        if self.largest_input is None:
            return " and ".join(said)
        if self.largest_input > FAR:
            return f"{' and '.join(said)}: x reaches {short(self.largest_input)}; try --standardize"
        if self.largest_input == 0:
            return f"{' and '.join(said)}: x is 0 everywhere"
        if saturated > 0:
            return f"{' and '.join(said)}, though x is small: the weights or biases are large; draw them smaller"
        return f"{' and '.join(said)}: they pass nothing on; other biases or weights may wake them"


def percent(share: float) -> str:
    """Such as "99.98 %"; never 100 where there is a rest."""
    return f"{min(100 * share, 99.99) if share < 1 else 100:.4g} %"


def short(value: float) -> str:
    """Such as "1.3e4"."""
    digits, _, exponent = f"{value:.2g}".partition("e")
    return f"{digits}e{int(exponent)}" if exponent else digits


@dataclass(frozen=True)
class FirstNonfinite:
    """Where a state is not finite first.

    Attributes:
        step: which, or None where all are, or it is not known.
        weight: of which recurrence, by the name of its weight.
        gate: the first gate there that gets what is not finite; None without gates.
        is_known: whether all states were looked at.
        dtype: of the run; None where it is not known.
        in_float64: what the run would be there, if it is not finite.
        is_nan: whether it may be no overflow, as of ``is_nan_alone``.
    """

    step: int | None = None
    weight: str | None = None
    gate: str | None = None
    is_known: bool = True
    dtype: torch.dtype | None = None
    in_float64: InFloat64 = UNREPEATED
    is_nan: bool = False

    @property
    def words(self) -> str | None:
        """What a verdict says of it; None where no such state is known."""
        if self.step is None:
            return None
        gate = "" if self.gate is None else f", gate {self.gate}"
        return f"h_t is not finite first at step {self.step} ({self.weight}{gate}){self._why(self.is_nan)}"

    def _why(self, is_nan: bool) -> str:
        return "" if self.dtype is None else f": {self.in_float64.words(self.dtype, is_nan=is_nan)}"

    def within(self, dtype: torch.dtype | None, in_float64: InFloat64 = UNREPEATED) -> "FirstNonfinite":
        """The same of a run in a dtype that counts where that of the states is not known, and with what is known of it.

        Args:
            in_float64: what stands before what the states alone tell, where the whole run was repeated.
        """
        states_alone = in_float64.is_finite is None and self.in_float64 != UNREPEATED
        known = self.in_float64 if states_alone else in_float64
        return replace(self, dtype=self.dtype or dtype, in_float64=known)

    def of_run(self, loss: float, *gradients: Tensor) -> str | None:
        """What of a whole run is not finite, in words; None where everything is.

        Args:
            gradients: of any shapes.
        """
        unsound = [each for each in gradients if not bool(torch.isfinite(each).all())]
        if math.isfinite(loss) and not unsound:
            return None
        what = "a gradient of it is not finite" if math.isfinite(loss) else f"the loss is {loss}"
        nan = math.isnan(loss) or (math.isfinite(loss) and all(is_nan_alone(each) for each in unsound))
        return f"{what}{self._why(nan)}" if self.words is None else f"{what}: {self.words}"

    def scalars(self) -> dict[str, int | str | None]:
        """What a result says of it, by name."""
        found = (self.step, self.weight, self.gate)
        return dict(zip(NONFINITE_KINDS, found, strict=True))

    def why(self) -> dict[str, str]:
        """Of each of these that is None, why."""
        none = FINITE if self.is_known else UNSEEN
        no_gate = none if self.step is None else "it has no gates, or none of them gets what is not finite"
        return {**dict.fromkeys(NONFINITE_KINDS, none), "first_nonfinite_gate": no_gate}


def first_nonfinite(seen: Mapping[str, StatesSeen | None]) -> FirstNonfinite:
    """Of several recurrences, by the names of their weights: the one that comes to it first."""
    bad = [
        FirstNonfinite(each.first_nonfinite, name, each.gate, True, each.dtype, each.in_float64, each.is_nan)
        for name, each in seen.items()
        if each is not None and each.first_nonfinite is not None
    ]
    known = all(each is not None and each.is_whole for each in seen.values())
    return min(bad, key=lambda found: found.step or 0) if bad else FirstNonfinite(is_known=known)


def seen_in(run: LayerRun, *, reverse: bool = False, sizes: "Sizes | None" = None) -> StatesSeen:
    """Look at one layer over one call, which ran through its sequence in reverse or not.

    Args:
        sizes: of all its states, if they are known; else they are looked at.
    """
    found = seen_states(run, run.h[:-1], run.h[1:], sizes)
    if found.first_nonfinite is None or not reverse:
        return found
    return replace(found, first_nonfinite=found.steps - 1 - found.first_nonfinite)


def seen_states(run: LayerRun, before: Tensor, after: Tensor, sizes: "Sizes | None" = None) -> StatesSeen:
    """Look at steps one by one.

    Args:
        run: kind, weights, inputs x (steps, batch, input) and, of packed sequences, the mask.
        before, after: h_{t-1} and h_t of every step, shape (steps, batch, hidden).
        sizes: as of ``seen_in``.
    """
    found = of_states(after, has_ends=has_ends(run), mask=run.mask, sizes=sizes)
    first = found.first_nonfinite
    gate = None if first is None else _gate(run, before, first)
    # Cells of known kinds make nan of finite numbers by an overflow alone.
    return replace(found, largest_input=largest_magnitude(run.x), gate=gate, is_nan=False)


def has_ends(run: LayerRun) -> bool:
    """Whether |h| near 1 is an end of its range."""
    return run.kind.nonlinearity.saturates if run.kind.nonlinearity is not None else run.weights.W_hr is None


class Sizes:
    """The largest |h| of every unit, and how many of all are beyond 0.99: a part at a time, while it is in cache.

    Args:
        has_ends: as ``has_ends`` says.

    Attributes:
        largest: shape (hidden,); NaN where a state is.
        beyond: the number.
    """

    def __init__(self, has_ends: bool) -> None:
        self._has_ends = has_ends
        self.largest: Tensor | None = None
        self.beyond = 0

    def add(self, h: Tensor) -> None:
        """Take in some of the states, shape (steps, batch, hidden)."""
        # Both ends, which is quicker than the sizes.
        top = torch.maximum(h.amax((0, 1)), -h.amin((0, 1)))
        self.largest = top if self.largest is None else torch.maximum(self.largest, top)
        if self._has_ends and bool((top > BEYOND).any()):
            size = h.abs()
            # Ones and zeros in the place of the sizes: numbers add up ten times as fast as truths, and as exactly.
            ones = torch.gt(size, BEYOND, out=size)
            self.beyond += int(ones.sum(dtype=torch.promote_types(size.dtype, torch.float32)))


def of_states(h: Tensor, *, has_ends: bool, mask: Tensor | None = None, sizes: Sizes | None = None) -> StatesSeen:
    """What is to be seen of states alone.

    Args:
        h: shape (steps, batch, hidden).
        has_ends: whether |h| near 1 is an end of its range.
        mask: 1 where a sequence has a step, (steps, batch, 1); None where all have all.
        sizes: of all of them, if they are known.
    """
    if sizes is None:
        sizes, steps = Sizes(has_ends), max(1, CHUNK_BYTES // (h[0].numel() * h.element_size()))
        for start in range(0, len(h), steps):
            part = h[start : start + steps]
            sizes.add(part if mask is None else part * mask[start : start + steps])
    largest = sizes.largest
    assert largest is not None
    first = None if bool(torch.isfinite(largest).all()) else first_bad_step(h)
    return StatesSeen(
        steps=len(h),
        entries=h.numel() if mask is None else int(mask.sum()) * h.shape[-1],
        saturated=sizes.beyond if has_ends else None,
        silent=(largest < torch.finfo(h.dtype).eps).cpu(),
        largest_input=None,
        first_nonfinite=first,
        gate=None,
        dtype=h.dtype,
        is_nan=first is not None and is_nan_alone(h[first], h[first - 1] if first else None),
    )


def is_nan_alone(h: Tensor, before: Tensor | None = None) -> bool:
    """Whether a state that is not finite may be no overflow: it is nan, nowhere infinite, and none was near.

    Args:
        h: of any shape.
        before: the finite state before it; None where there is none. Beyond the root of the largest number its
            products with a weight overflow, and their sums are nan.
    """
    near_end = before is not None and float(before.abs().max()) > math.sqrt(torch.finfo(before.dtype).max)
    return not near_end and bool(torch.isnan(h).any()) and not bool(torch.isinf(h).any())


def first_bad_step(h: Tensor) -> int | None:
    """The first of the states, shape (steps, batch, hidden), that is not finite, or None."""
    bad = ~torch.isfinite(h).flatten(1).all(dim=1)
    return int(bad.nonzero()[0]) if bool(bad.any()) else None


def seen_together(found: Sequence[StatesSeen]) -> StatesSeen:
    """Of several calls, one after the other, of whose states and inputs all is known."""
    saturated = [each.saturated for each in found if each.saturated is not None]
    inputs = [each.largest_input for each in found if each.largest_input is not None]
    start, first, gate = 0, None, None
    for each in found:
        if each.first_nonfinite is not None:
            first, gate = start + each.first_nonfinite, each.gate
            break
        start += each.steps
    # Where others go on from it, what these would be in float64 is not known.
    alone = found[0].in_float64 if len(found) == 1 else UNREPEATED
    return StatesSeen(
        steps=sum(each.steps for each in found),
        entries=sum(each.entries for each in found),
        saturated=sum(saturated) if len(saturated) == len(found) else None,
        silent=torch.stack([each.silent for each in found if each.silent is not None]).all(dim=0),
        # NaN stays, whatever its place.
        largest_input=max(inputs, key=lambda value: (math.isnan(value), value)),
        first_nonfinite=first,
        gate=gate,
        dtype=found[0].dtype,
        in_float64=alone,
        is_nan=any(each.is_nan for each in found),
    )


def seen_scalars(seen: StatesSeen | None) -> dict[str, float | None]:
    """What a result says of it, by name; None where it is not known."""
    return {name: None if seen is None else getattr(seen, name) for name in SEEN_KINDS}


def why_not_seen(seen: StatesSeen | None) -> dict[str, str]:
    """Of each of these that is None, why."""
    if seen is None or seen.silent is None:
        return dict.fromkeys(SEEN_KINDS, UNSEEN)
    return {"saturated_fraction": "h has no end at 1", "largest_input": "no input is of floating-point numbers"}


def _gate(run: LayerRun, before: Tensor, step: int) -> str | None:
    """The first gate whose sum of inputs is not finite at a step."""
    if not run.kind.gates:
        return None
    sums = pre_activations(run.x[step : step + 1], before[step : step + 1], run.weights, run.kind.blocks, None)
    bad = ~torch.isfinite(sums).transpose(0, 2).flatten(1).all(dim=1)
    return run.kind.letters[int(bad.nonzero()[0])] if bool(bad.any()) else None
