"""From the calls of a cell, one a step, to what each of them contributes to the gradient of its W_hh.

Autograd itself says dL/dh_t of every call, so nothing is swept: what is left is elementwise, for all steps at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rnnctl.gradients.contributions import gate_contributions, step_norms, takes_products, wide_dtype
from rnnctl.gradients.decay import Decay, decay_over_time
from rnnctl.gradients.layer_calls import StepNorms, unless_rounding
from rnnctl.gradients.layer_sweep import LayerRun, layer_norms
from rnnctl.models.calls import CellCall
from rnnctl.recurrence.elman import elman_states, slope_from_state
from rnnctl.recurrence.gru import gru_slopes, gru_states
from rnnctl.recurrence.lstm import lstm_gates, lstm_slopes, lstm_states
from rnnctl.recurrence.weights import GATES, LayerWeights

CHUNK = 48


def cell_kind(module: nn.Module) -> str:
    """ "RNN", "GRU", "LSTM", or "Linear" for a map that is a cell by the user's word."""
    if isinstance(module, nn.Linear):
        return "Linear"
    if isinstance(module, nn.LSTMCell):
        return "LSTM"
    return "GRU" if isinstance(module, nn.GRUCell) else "RNN"


def stepped_norms(calls: Sequence[CellCall], want_decay: bool = False, lengths: Tensor | None = None) -> StepNorms:
    """The norms of every call, in order.

    Args:
        lengths: real steps of every sequence, (batch,), where there may be calls for padding, too.
    """
    with torch.inference_mode():
        steps = [step for chunk in _chunks(calls) for step in [_Steps.of(chunk)]]
        norms = [_norms(chunk) for chunk in steps]
        grad_W_hh = sum((total for total, _ in norms), torch.zeros_like(norms[0][0]))
        gates = torch.cat([by_gate.cpu().double() for _, by_gate in norms])
        grad_h, direct = _grad_h_and_direct(calls, steps)
        norm_h = torch.stack([torch.linalg.vector_norm(grad) for grad in grad_h]).cpu().double()
        norm_direct = torch.stack([torch.linalg.vector_norm(grad) for grad in direct]).cpu().double()
        delta, before = (torch.cat([step_norms(getattr(s, name)) for s in steps]) for name in ("delta", "h_before"))
        cells = [step_norms(s.grad_c) for s in steps if s.grad_c is not None]
        padded = None if lengths is None else _padded(steps, lengths)
        errors = [error for s in steps if (error := s.recovered_error()) is not None]
    return StepNorms(
        W_hh=torch.linalg.vector_norm(gates, dim=1),
        gates=gates.clone(),
        h=norm_h.clone(),
        h_direct=norm_direct.clone(),
        c=torch.cat(cells) if cells else None,
        grad_W_hh=grad_W_hh.clone(),
        magnitude=float((delta * before).sum()),
        recovered_error=max(errors) if errors else None,
        decay=_decay(calls, norm_h, norm_direct) if want_decay else None,
        padded=padded,
    )


def _chunks(calls: Sequence[CellCall]) -> Iterator[list[CellCall]]:
    """Consecutive calls with the very same weights, not too many at once."""
    chunk: list[CellCall] = []
    for call in calls:
        if chunk and (len(chunk) == CHUNK or chunk[0].weights.W_hh is not call.weights.W_hh):
            yield chunk
            chunk = []
        chunk.append(call)
    yield chunk


@dataclass(frozen=True, eq=False)
class _Steps:
    """Consecutive calls as blocks (steps, batch, features), in float64; small batches are filled up with zeros.

    ``delta`` is the gradient of W_hh h_{t-1} + b_hh, (steps, batch, gates * hidden).
    """

    kind: str
    nonlinearity: str
    weights: LayerWeights
    x: Tensor | None
    h_before: Tensor
    h_after: Tensor | None
    c: tuple[Tensor, Tensor] | None
    grad_h: Tensor | None
    grad_c: Tensor | None
    delta: Tensor
    keep: Tensor | None
    products: bool

    @classmethod
    def of(cls, calls: Sequence[CellCall]) -> "_Steps":
        first = calls[0]
        kind = cell_kind(first.module)
        weights = first.weights.to(wide_dtype(first.before[0]))
        h_before = _block([call.before[0] for call in calls])
        products = takes_products(first.before[0].unsqueeze(0))
        if kind == "Linear":
            delta = _block([_gradient(call, "output", call.W_hh.shape[0]) for call in calls])
            return cls(kind, "", weights, None, h_before, None, None, None, None, delta, None, products)
        x, h_after = _block([_given(call.x) for call in calls]), _block([call.after[0] for call in calls])
        grad_h = _block([_gradient(call, "h", h_after.shape[2]) for call in calls])
        c = grad_c = keep = None
        nonlinearity = getattr(first.module, "nonlinearity", "")
        if kind == "RNN":
            slope = torch.empty_like(h_after)
            slope_from_state(h_after, nonlinearity, out=slope)
            delta = slope * grad_h
        elif kind == "GRU":
            slopes = gru_slopes(x, h_before, weights)
            delta, keep = (slopes.hidden * grad_h.unsqueeze(2)).flatten(2), slopes.keep
        else:
            c = _block([call.before[1] for call in calls]), _block([call.after[1] for call in calls])
            delta, grad_c = _lstm_delta(calls, lstm_gates(x, h_before, weights), c, grad_h)
        return cls(kind, nonlinearity, weights, x, h_before, h_after, c, grad_h, grad_c, delta, keep, products)

    def carried(self, row: int) -> Tensor:
        """What this call sends back to the state that it was given, (batch, hidden)."""
        grad = self.delta[row] @ self.weights.W_hh
        if self.keep is None or self.grad_h is None:
            return grad
        return grad + self.keep[row] * self.grad_h[row]

    def recovered_error(self) -> float | None:
        """How far the states are from those that the weights make; None for a linear map, which has no more."""
        if self.x is None or self.h_after is None:
            return None
        if self.kind == "RNN":
            found = elman_states(self.x, self.h_before, self.weights, self.nonlinearity)
        elif self.c is None:
            found = gru_states(self.x, self.h_before, self.weights)
        else:
            gates = lstm_gates(self.x, self.h_before, self.weights)
            found = lstm_states(gates, gates[:, :, 1] * self.c[0] + gates[:, :, 0] * gates[:, :, 2], None)
        present = self.h_after.ne(0) | (self.x.ne(0).any(2, keepdim=True))
        return float(((found - self.h_after).abs() * present / self.h_after.abs().clamp_min(1)).max())


def _lstm_delta(
    calls: Sequence[CellCall], gates: Tensor, c: tuple[Tensor, Tensor], grad_h: Tensor
) -> tuple[Tensor, Tensor]:
    """delta, (steps, batch, 4 * hidden), and dL/dc_t in all, (steps, batch, hidden)."""
    slopes = lstm_slopes(gates, *c)
    grad_c = _block([_gradient(call, "c", grad_h.shape[2]) for call in calls])
    fused = torch.tensor([call.fused for call in calls], device=grad_h.device).view(-1, 1, 1)
    # The fused kernel returns both states from one node; else dL/dc_t came with the part through h_t.
    grad_c = torch.where(fused, grad_c + slopes.to_cell * grad_h, grad_c)
    entering = torch.stack([grad_c, grad_c, grad_c, grad_h], dim=2)
    return (slopes.gates * entering).flatten(2), grad_c


def _block(rows: Sequence[Tensor]) -> Tensor:
    """(steps, largest batch, features) in float64, with zeros where a batch is smaller."""
    most = max(part.shape[0] for part in rows)
    wide = [part.to(wide_dtype(part)) for part in rows]
    if all(part.shape[0] == most for part in wide):
        return torch.stack(wide)
    return torch.stack([torch.nn.functional.pad(part, (0, 0, 0, most - part.shape[0])) for part in wide])


def _given(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def _gradient(call: CellCall, name: str, features: int) -> Tensor:
    """What backward brought to a call, or zeros, (batch, features)."""
    grad = call.received.by_name.get(name)
    rows = call.before[0]
    return rows.new_zeros(rows.shape[0], features) if grad is None else grad.reshape(-1, features)


def _norms(steps: _Steps) -> tuple[Tensor, Tensor]:
    """Sum of G_t, and the norm of every gate's rows of each, (steps, gates)."""
    return gate_contributions(steps.delta, steps.h_before, steps.products, max(1, len(GATES.get(steps.kind, ()))))


def _padded(chunks: Sequence["_Steps"], lengths: Tensor) -> tuple[Tensor, Tensor] | None:
    """Norms of what G_t has from padding and from real steps, the t-th call being step t."""
    batch = chunks[0].delta.shape[1]
    if lengths.shape[0] != batch or any(chunk.delta.shape[1] != batch for chunk in chunks):
        return None
    found: tuple[list[Tensor], list[Tensor]] = [], []
    t = 0
    for chunk in chunks:
        steps = torch.arange(t, t + chunk.delta.shape[0], device=chunk.delta.device)
        padding = (steps[:, None] >= lengths.to(steps.device)).unsqueeze(-1)
        for norms, kept in zip(found, (padding, ~padding), strict=True):
            _, by_gate = gate_contributions(chunk.delta * kept, chunk.h_before, chunk.products, 1)
            norms.append(by_gate.squeeze(1).cpu().double())
        t += chunk.delta.shape[0]
    return torch.cat(found[0]).clone(), torch.cat(found[1]).clone()


def _grad_h_and_direct(calls: Sequence[CellCall], chunks: Sequence[_Steps]) -> tuple[list[Tensor], list[Tensor]]:
    """dL/dh_t of every call, in all, and without what later calls of the same cell send back."""
    rows = [(chunk, row) for chunk in chunks for row in range(chunk.delta.shape[0])]
    if chunks[0].kind == "Linear":
        return _of_linear(calls, rows)
    total = [_given(chunk.grad_h)[row] for chunk, row in rows]
    direct = list(total)
    for number, call in enumerate(calls):
        if call.source is not None:
            chunk, row = rows[number]
            direct[call.source] = direct[call.source] - _fit(chunk.carried(row), direct[call.source])
    for call in calls:
        if call.derived is not None:
            # Something between the calls shaped the state: what comes back through it cannot be told apart.
            direct[call.derived] = torch.full_like(direct[call.derived], torch.nan)
    eps = torch.finfo(calls[0].before[0].dtype).eps
    return total, [unless_rounding(part, whole, eps) for part, whole in zip(direct, total, strict=True)]


def _of_linear(calls: Sequence[CellCall], rows: Sequence[tuple[_Steps, int]]) -> tuple[list[Tensor], list[Tensor]]:
    """h_t is what the next call receives; that of the last call is not seen: NaN."""
    eps = torch.finfo(calls[0].before[0].dtype).eps
    total, direct = [], []
    for call, (chunk, row) in zip(calls[1:], rows[1:], strict=True):
        whole = _gradient(call, "input", call.W_hh.shape[1]).to(chunk.delta.dtype)
        total.append(whole)
        direct.append(unless_rounding(whole - chunk.carried(row)[: whole.shape[0]], whole, eps))
    unseen = torch.full_like(calls[-1].before[0], torch.nan, dtype=rows[0][0].delta.dtype)
    return [*total, unseen], [*direct, unseen]


def _fit(grad: Tensor, like: Tensor) -> Tensor:
    """The rows that the other has, too: both were filled up to the largest batch of their chunk."""
    short = like.shape[0] - grad.shape[0]
    return grad[: like.shape[0]] if short <= 0 else torch.nn.functional.pad(grad, (0, 0, 0, short))


def _decay(calls: Sequence[CellCall], norm_h: Tensor, norm_direct: Tensor) -> Decay | None:
    """Of a gradient that enters at the last step: as it is, or swept along a chain of calls."""
    if not bool(norm_direct[:-1].nan_to_num().any()):
        return decay_over_time(norm_h.log())
    run = _as_layer(calls)
    return None if run is None else decay_over_time(layer_norms(run).contributions.log_norm_h.clone())


def _as_layer(calls: Sequence[CellCall]) -> LayerRun | None:
    """The calls as one layer over time with a gradient at its end, where each takes the state of the one before."""
    chained = all(call.source == number for number, call in enumerate(calls[1:]))
    same = all(call.before[0].shape == calls[0].before[0].shape for call in calls)
    if not chained or not same or calls[0].x is None:
        return None
    h = torch.stack([calls[0].before[0], *(call.after[0] for call in calls)])
    return LayerRun(
        cell=cell_kind(calls[0].module),
        nonlinearity=getattr(calls[0].module, "nonlinearity", ""),
        weights=calls[0].weights,
        x=torch.stack([_given(call.x) for call in calls]),
        h=h,
        c_init=calls[0].before[1] if len(calls[0].before) > 1 else None,
        direct=_gradient(calls[-1], "h", h.shape[2]).unsqueeze(0),
    )
