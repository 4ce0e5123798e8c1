"""Cells with a c beside h: what they have in common, forward, in their slopes and in reverse.

c' = keep c + what enters;  h' = o tanh(c'), with a projection W_hr (o tanh(c')). The output gate is the last one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rnnctl.recurrence.cell_kind import CellKind, Gate, LayerOutputs
from rnnctl.recurrence.run import LayerRun
from rnnctl.recurrence.slopes import CellSlopes, Linearized, State
from rnnctl.recurrence.sweep import CHUNK_BYTES, ReverseChunk, chunk_steps
from rnnctl.recurrence.weights import LayerWeights, pre_activations

# With more units a step, T small operations cost less than log2 T passes over memory.
STEP_BY_STEP = 1024


@dataclass(frozen=True)
class SlopeBuffers:
    """Where slopes are written to, all with leading axes (steps, batch).

    Attributes:
        slopes: on the way to the pre-activations, (..., gates, hidden): of the gates of c for dL/dc', of o for
            the gradient of o tanh(c').
        to_cell: that gradient on its way to c', (..., hidden).
        scratch: (..., hidden).
    """

    slopes: Tensor
    to_cell: Tensor
    scratch: Tensor

    def first(self, steps: int) -> "SlopeBuffers":
        """The first so many of them."""
        return SlopeBuffers(self.slopes[:steps], self.to_cell[:steps], self.scratch[:steps])


@dataclass(frozen=True)
class CellArithmetic:
    """What such kinds differ in.

    Attributes:
        gates: from x (steps, batch, input), h before the steps and the weights, to (steps, batch, gates, hidden),
            written to the last argument where it is not None.
        keep: which of them passes c on.
        cell_states: from the gates and c_init, (batch, hidden), to c_init, c_0 .. c_{T-1}.
        slopes: from the gates and c before and after, to buffers.
        linearized: consecutive steps from the pre-activations of the gates, (steps, batch, gates, hidden), the first c,
            (batch, hidden), and the weights that the slopes stand around, in float64, the slopes to all their digits.
        outputs: a layer forward.
        blocks: how many gates there are.
    """

    gates: Callable[[Tensor, Tensor, LayerWeights, Tensor | None], Tensor]
    keep: int
    cell_states: Callable[[Tensor, Tensor], Tensor]
    slopes: Callable[[Tensor, Tensor, Tensor, SlopeBuffers], None]
    linearized: Callable[[Tensor, Tensor, LayerWeights], Linearized]
    outputs: LayerOutputs
    blocks: int

    def exact(self, x: Tensor, before: State, weights: LayerWeights) -> Linearized:
        """Consecutive steps in float64, with slopes that saturation does not round to 0.

        Args:
            x: shape (steps, batch, input).
            before: h, shape (batch, hidden or proj), and c, (batch, hidden), before the first step.
        """
        h, _ = self.outputs(x, None, [part.unsqueeze(0).contiguous() for part in before], [weights])
        earlier = torch.cat([before[0].unsqueeze(0), h[:-1]])
        found = self.linearized(pre_activations(x, earlier, weights, self.blocks, None), before[1], weights)
        return replace(found, states=(h, found.states[1]))

    def units(self, from_x: Tensor, from_h: Tensor, before: State, weights: LayerWeights) -> Linearized:
        """What the units make of what reaches their gates in one step, with slopes to all their digits.

        Args:
            from_x, from_h: W_ih x + b_ih and W_hh h + b_hh, gate by gate, shape (1, batch, gates, hidden).
            before: h and c before the step, each (1, batch, hidden).
            weights: those that the slopes stand around.
        """
        return self.linearized(from_x + from_h, before[1][0], weights)

    def next_states(self, x: Tensor, before: State, weights: LayerWeights) -> State:
        """h' and c' of every step, each of shape (steps, batch, units), from its input and the states before it.

        Args:
            x: shape (steps, batch, input).
            before: h and c before every step, each (steps, batch, units).
        """
        gates = self.gates(x, before[0], weights, None)
        flat = gates.flatten(0, 1).unsqueeze(0)
        # One step of as many sequences as there are steps and sequences.
        c = self.cell_states(flat, before[1].flatten(0, 1))[1].view(before[1].shape)
        output = gates[..., -1, :] * torch.tanh(c)
        return (output if weights.W_hr is None else output @ weights.W_hr.t()), c

    def slopes_of(self, x: Tensor, before: State, after: State, weights: LayerWeights) -> CellSlopes:
        """The slopes of every step, as autograd rounds them.

        Args:
            x: shape (steps, batch, input).
            before, after: h and c around every step, each (steps, batch, units).
        """
        gates, c = self.gates(x, before[0], weights, None), after[1]
        out = SlopeBuffers(torch.empty_like(gates), torch.empty_like(c), torch.empty_like(c))
        self.slopes(gates, before[1], c, out)
        return CellSlopes(weights.W_hh, out.slopes, gates[..., self.keep, :], out.to_cell, weights.W_hr)

    def reversible(self, run: LayerRun) -> "CellSteps":
        """The run, ready to be walked back."""
        return CellSteps(self, run)

    def kind(self, name: str, *gates: Gate, projects: bool = False, marker: str | None = None) -> CellKind:
        """The kind of cell that does this; the arguments as of ``CellKind``."""
        return CellKind(
            name=name,
            gates=gates,
            states=("h", "c"),
            keep=gates[self.keep].letter,
            outputs=self.outputs,
            next_states=self.next_states,
            slopes=self.slopes_of,
            exact=self.exact,
            units=self.units,
            reversible=self.reversible,
            projects=projects,
            marker=marker,
        )


class CellSteps:
    """dL/dc[t] gains to_cell[t] * grad[t], grad[t] being dL/dh[t] (through W_hr where there is one);
    delta[t] = slopes[t] * dL/dc[t], for gate o slopes[t] * grad[t];
    dL/dh[t-1] = direct[t-1] + delta[t] W_hh;  dL/dc[t-1] gains keep[t] * dL/dc[t].

    Args:
        arithmetic: the kind's.
        run: with c_init; where there is a mask, a sequence without a step keeps its c.

    Attributes:
        c: c_init, c_0 .. c_{T-1}, shape (time + 1, batch, hidden).
    """

    def __init__(self, arithmetic: CellArithmetic, run: LayerRun) -> None:
        h, c_init = run.h, run.c_init
        assert c_init is not None
        seq_len, batch, hidden = run.seq_len, *c_init.shape
        self.h, self.weights, self.mask = h, run.weights, run.mask
        self._arithmetic, count = arithmetic, run.kind.blocks
        self.longest = chunk_steps(seq_len, batch, hidden, h.element_size())
        self._gates = h.new_empty(seq_len, batch, count, hidden)
        self._fill_gates(run)
        # The module has returned c of the last step alone.
        self.c = arithmetic.cell_states(self._gates, c_init)
        self.grads: State = (h.new_empty(self.longest, *h.shape[1:]), h.new_empty(self.longest, batch, hidden))
        self.delta = h.new_empty(self.longest, batch, count * hidden)
        # f, from c' to c.
        self._keep, to_cell, scratch = h.new_empty(3, self.longest, batch, hidden).unbind(0)
        # The slopes stand where delta will.
        self._slopes = SlopeBuffers(self.delta.view(self.longest, batch, count, hidden), to_cell, scratch)
        self._steps = self._views()

    def _fill_gates(self, run: LayerRun) -> None:
        gates, keep = self._gates, self._arithmetic.keep
        # A chunk of them stays in the cache between the product and the sigmoids.
        together = max(1, CHUNK_BYTES // (gates[0, :, 0].numel() * gates.element_size()))
        for start in range(0, run.seq_len, together):
            chunk = slice(start, start + together)
            self._arithmetic.gates(run.x[chunk], run.h[:-1][chunk], run.weights, gates[chunk])
        if run.mask is not None:
            # Where a sequence has no step its cell state stays what it is.
            gates[:, :, :-1] *= run.mask.unsqueeze(2)
            gates[:, :, keep].add_(1 - run.mask)

    def _views(self) -> list[tuple[Tensor, ...]]:
        """Of every row of the buffers, taken once: indexing in the loop would cost as much as the arithmetic."""
        grad_h, grad_c = self.grads
        by_gate = self._slopes.slopes
        columns = (
            *(grad_h, grad_c, grad_c.unsqueeze(2), self.delta, by_gate[:, :, :-1], by_gate[:, :, -1]),
            *(self._slopes.to_cell, self._keep),
        )
        return list(zip(*(column.unbind(0) for column in columns), strict=True))

    def run(self, start: int, stop: int) -> None:
        """Fill the first ``stop - start`` rows of the buffers."""
        n, gates = stop - start, self._gates[start:stop]
        slopes = self._slopes.first(n)
        self._arithmetic.slopes(gates, self.c[start:stop], self.c[start + 1 : stop + 1], slopes)
        self._keep[:n] = gates[:, :, self._arithmetic.keep]
        # Forward, c stays through steps that a sequence does not have; back, nothing passes them: what the loss sends
        # to c_n enters at the sequence's own end.
        if self.mask is not None:
            mask = self.mask[start:stop]
            slopes.slopes.mul_(mask.unsqueeze(-1))
            slopes.to_cell.mul_(mask)
            self._keep[:n] *= mask
        self._walk(n)
        if self.mask is not None:
            for grad in self.grads:
                grad[:n] *= self.mask[start:stop]

    def _walk(self, n: int) -> None:
        W_hh, W_hr = self.weights.W_hh, self.weights.W_hr
        later = None
        for step in reversed(self._steps[:n]):
            grad_h, grad_c, wide_c, delta, cell, output, to_cell, keep = step
            if later is not None:
                grad_h.addmm_(later[0], W_hh)
                grad_c.addcmul_(later[1], later[2])
            grad = grad_h if W_hr is None else grad_h @ W_hr
            grad_c.addcmul_(grad, to_cell)
            cell.mul_(wide_c)
            output.mul_(grad)
            later = delta, grad_c, keep

    def carried(self, row: int) -> State:
        """(delta W_hh, keep * dL/dc)."""
        return self.delta[row] @ self.weights.W_hh, self.grads[1][row] * self._keep[row]

    def input_delta(self, chunk: ReverseChunk) -> Tensor:
        """x reaches the gates as h does."""
        return chunk.delta


def scan(keep: Tensor, c: Tensor) -> None:
    """c_t = keep_t c_{t-1} + what stands at c_t, in place.

    Args:
        keep: shape (time, batch, hidden).
        c: c_init and, at every step, what enters there, shape (time + 1, batch, hidden).
    """
    if c[0].numel() < STEP_BY_STEP:
        _scan_by_doubling(keep, c)
        return
    states = c.unbind(0)
    for keep_t, before, after in zip(keep.unbind(0), states[:-1], states[1:], strict=True):
        after.addcmul_(keep_t, before)


def _scan_by_doubling(keep: Tensor, c: Tensor) -> None:
    """The scan in log2 T passes over all steps, each of which lets every c_t see twice as far back.

    Source: Hillis & Steele 1986, "Data parallel algorithms".
    """
    # c_init goes in first, so that no pass has to look before step 0.
    c[1] += keep[0] * c[0]
    # A copy, because what is kept over longer and longer stretches takes the place of the gate itself.
    kept, far = keep.clone(), 1
    while far < len(kept):
        # Both products are whole before they are written: the rows read and the rows written overlap.
        c[1 + far :] += kept[far:] * c[1:-far]
        kept[far:] = kept[far:] * kept[:-far]
        far *= 2
