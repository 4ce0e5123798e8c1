"""What happened in one layer in one direction: weights, inputs, states, and the gradients from outside."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rnnctl.recurrence.cell_kind import CellKind
from rnnctl.recurrence.slopes import Slopes
from rnnctl.recurrence.weights import LayerWeights


@dataclass(frozen=True, eq=False)
class LayerRun:
    """One layer in one direction over one call, in the order in which the recurrence ran.

    Attributes:
        kind: of cell.
        weights: as they were at the call.
        x: its inputs, shape (time, batch, input).
        h: the state before the first step and all that the module made, (time + 1, batch, hidden).
        c_init: the cell state before the first step, (batch, hidden), where the kind has one.
        direct: dL/dh_t from outside this recurrence at the last n steps, (n, batch, hidden).
        direct_c: dL/dc_t likewise, where the loss depends on c_n.
        mask: 1 where a sequence has a step, (time, batch, 1); None where all have all.
        padding: 1 where a step is none of a sequence's own although the module ran it, (time, batch, 1).
    """

    kind: CellKind
    weights: LayerWeights
    x: Tensor
    h: Tensor
    c_init: Tensor | None
    direct: Tensor
    direct_c: Tensor | None = None
    mask: Tensor | None = None
    padding: Tensor | None = None

    @property
    def seq_len(self) -> int:
        """T."""
        return self.h.shape[0] - 1

    @property
    def entering(self) -> tuple[Tensor, ...]:
        """dL/dh_t and, where there is one, dL/dc_t from outside."""
        return (self.direct,) if self.direct_c is None else (self.direct, self.direct_c)

    def slopes(self) -> Slopes:
        """Of all steps and sequences, as autograd rounds them."""
        # Modules return their last c alone; all the others are made by what walks a run back.
        parts = [self.h] if self.c_init is None else [self.h, self.kind.reversible(self).c]
        states = [part for part in parts if part is not None]
        before, after = (tuple(part[steps] for part in states) for steps in (slice(None, -1), slice(1, None)))
        return self.kind.slopes(self.x, before, after, self.weights)

    def to(self, dtype: torch.dtype) -> "LayerRun":
        """The same run in another dtype; gradients from above keep theirs, which may hold what this one cannot."""
        if all(part.dtype == dtype for part in (self.x, self.h, self.weights.W_hh)):
            return self
        parts = {name: getattr(self, name) for name in ("x", "h", "c_init", "mask", "padding")}
        given: dict[str, Any] = {name: part.to(dtype) for name, part in parts.items() if part is not None}
        return replace(self, weights=self.weights.to(dtype), **given)
