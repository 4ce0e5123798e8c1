"""The weights of one layer in one direction, in torch's layout."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerWeights:
    """The weights of one layer in one direction, in torch's layout.

    Attributes:
        W_ih: shape (gates * hidden, input).
        W_hh: shape (gates * hidden, hidden), of a projected LSTM (gates * hidden, proj).
        b_ih, b_hh: shape (gates * hidden,), or None.
        W_hr: the projection of an LSTM, shape (proj, hidden), or None.
    """

    W_ih: Tensor
    W_hh: Tensor
    b_ih: Tensor | None = None
    b_hh: Tensor | None = None
    W_hr: Tensor | None = None

    @property
    def b_h(self) -> Tensor | None:
        """b_ih + b_hh, shape (gates * hidden,), or None."""
        biases = [b for b in (self.b_ih, self.b_hh) if b is not None]
        return biases[0] + biases[1] if len(biases) == 2 else next(iter(biases), None)

    def to(self, dtype: torch.dtype) -> "LayerWeights":
        """The same weights in another dtype."""
        return self._each(lambda part: part.to(dtype))

    def cpu(self) -> "LayerWeights":
        """The same weights on the CPU."""
        return self._each(Tensor.cpu)

    @property
    def tensors(self) -> list[Tensor]:
        """All that are there."""
        parts = (self.W_ih, self.W_hh, self.b_ih, self.b_hh, self.W_hr)
        return [part for part in parts if part is not None]

    def detached(self) -> "LayerWeights":
        """The same weights, apart from autograd."""
        return self._each(Tensor.detach)

    def copied(self) -> "LayerWeights":
        """The same weights, which stay what they are when the model is changed."""
        return self._each(Tensor.clone)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "LayerWeights":
        parts = (self.W_ih, self.W_hh, self.b_ih, self.b_hh, self.W_hr)
        W_ih, W_hh, *others = (None if part is None else change(part) for part in parts)
        assert W_ih is not None and W_hh is not None
        return LayerWeights(W_ih, W_hh, *others)


def affine_into(out: Tensor, rows: Tensor, W: Tensor, b: Tensor | None) -> None:
    """Write rows W^T + b to ``out``.

    Args:
        out: shape (n, outputs).
        rows: shape (..., features), n of them.
        W, b: shapes (outputs, features) and (outputs,), or None.
    """
    flat = rows.reshape(-1, W.shape[1])
    if b is None:
        torch.mm(flat, W.t(), out=out)
    else:
        torch.addmm(b, flat, W.t(), out=out)


def affine(rows: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    """rows W^T + b, shape (..., features) -> (n, outputs)."""
    flat = rows.reshape(-1, W.shape[1])
    return torch.mm(flat, W.t()) if b is None else torch.addmm(b, flat, W.t())


def pre_activations(x: Tensor, h: Tensor, weights: LayerWeights, blocks: int, out: Tensor | None) -> Tensor:
    """W_ih x + W_hh h + b of every step, gate by gate, by one product each, shape (steps, batch, blocks, hidden).

    Args:
        x: shape (steps, batch, input).
        h: the states before the steps, shape (steps, batch, hidden or proj).
        blocks: gates.
        out: where they are written to; None for new memory.
    """
    rows = weights.W_hh.shape[0]
    found = x.new_empty(*h.shape[:2], blocks, rows // blocks) if out is None else out
    flat = found.view(-1, rows)
    affine_into(flat, x, weights.W_ih, weights.b_h)
    flat.addmm_(h.reshape(-1, h.shape[2]), weights.W_hh.t())
    return found
