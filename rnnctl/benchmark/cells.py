"""Cells that are nobody's class, as people write them: what a probe of autograd's graph is measured on."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class RawCell(nn.Module):
    """h_t = tanh(x_t U + h_{t-1} W), with raw parameters.

    Args:
        input_size, hidden_size: sizes of x_t and h_t.
        settings: device and dtype.
    """

    def __init__(self, input_size: int, hidden_size: int, **settings: Any) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(hidden_size, hidden_size, **settings) / hidden_size**0.5)
        self.U = nn.Parameter(torch.randn(input_size, hidden_size, **settings) / input_size**0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """h of all steps, (batch, time, hidden), from x, (batch, time, input)."""
        h, states = x.new_zeros(x.shape[0], self.W.shape[0]), []
        for x_t in x.unbind(1):
            h = torch.tanh(x_t @ self.U + h @ self.W)
            states.append(h)
        return torch.stack(states, 1), None


class ConcatLSTM(nn.Module):
    """An LSTM of one linear map over x_t and h_{t-1} beside one another.

    Args:
        input_size, hidden_size: sizes of x_t and h_t.
        settings: device and dtype.
    """

    def __init__(self, input_size: int, hidden_size: int, **settings: Any) -> None:
        super().__init__()
        self.gates = nn.Linear(input_size + hidden_size, 4 * hidden_size, **settings)
        self.hidden_size = hidden_size

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """h of all steps, (batch, time, hidden), from x, (batch, time, input)."""
        h = c = x.new_zeros(x.shape[0], self.hidden_size)
        states = []
        for x_t in x.unbind(1):
            i, f, g, o = self.gates(torch.cat([x_t, h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        return torch.stack(states, 1), None


HAND_WRITTEN: Mapping[str, Callable[..., nn.Module]] = {"raw": RawCell, "concat-lstm": ConcatLSTM}
