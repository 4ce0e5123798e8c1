"""Independent computations: nothing in here is imported from the rooms that it checks."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def activation(name: str):
    return {"tanh": torch.tanh, "relu": torch.relu, "linear": lambda a: a}[name]


def loss_by_hand(y: Tensor, target: Tensor | None, loss: str, loss_at: str) -> Tensor:
    """y (batch, time, output); target over all steps or None for zeros."""
    steps = slice(-1, None) if loss_at == "last" else slice(None)
    y = y[:, steps]
    if loss == "sum":
        return y.sum()
    if loss == "cross-entropy":
        classes = torch.zeros(y.shape[:2], dtype=torch.long) if target is None else target[:, steps]
        return F.cross_entropy(y.reshape(-1, y.shape[2]), classes.reshape(-1))
    return F.mse_loss(y, torch.zeros_like(y) if target is None else target[:, steps])


def contributions_by_clones(state: dict, x: Tensor, nonlinearity: str, loss_at: str, **settings) -> dict:
    """Every G_t, total and direct dL/dh_t and the states, by autograd over T clones of W_hh.

    ``state``: a FullRNN's state dict. Total dL/dh_t comes from retain_grad on the states, the direct
    part from states that are leaves of their own.
    """
    W_xh, W_hh = state["rnn_cell.input_to_hidden.weight"], state["rnn_cell.hidden_to_hidden.weight"]
    W_hy = state["hidden_to_output.weight"]
    b = [state.get(f"{name}.bias", 0) for name in ("rnn_cell.input_to_hidden", "rnn_cell.hidden_to_hidden")]
    b_y = state.get("hidden_to_output.bias", 0)
    f = activation(nonlinearity)
    target, loss, h_init = settings.get("target"), settings.get("loss", "mse"), settings.get("h_init")
    h = torch.zeros(x.shape[0], W_hh.shape[0], dtype=x.dtype) if h_init is None else h_init
    clones = [W_hh.clone().requires_grad_() for _ in range(x.shape[1])]
    states, outputs = [], []
    for t, clone in enumerate(clones):
        h = f(x[:, t] @ W_xh.T + b[0] + h @ clone.T + b[1])
        h.retain_grad()
        states.append(h)
        outputs.append(h @ W_hy.T + b_y)
    value = loss_by_hand(torch.stack(outputs, 1), target, loss, loss_at)
    value.backward()
    leaves = [s.detach().clone().requires_grad_() for s in states]
    direct_loss = loss_by_hand(torch.stack([s @ W_hy.T + b_y for s in leaves], 1), target, loss, loss_at)
    direct = torch.autograd.grad(direct_loss, leaves, allow_unused=True)
    zero = torch.zeros_like(leaves[0])
    return {
        "G": torch.stack([clone.grad for clone in clones]),
        "grad_h": torch.stack([s.grad for s in states]),
        "grad_h_direct": torch.stack([zero if d is None else d for d in direct]),
        "h": torch.stack([s.detach() for s in states]),
        "loss": float(value.detach()),
    }


def norms(block: Tensor) -> Tensor:
    """Norm of everything but the first axis, in float64."""
    return block.double().flatten(1).norm(dim=1)


def orthogonal(model: nn.Module, gain: float = 1.0) -> nn.Module:
    """The model with an orthogonal W_hh, so that no step's contribution dies away."""
    with torch.no_grad():
        nn.init.orthogonal_(model.rnn_cell.hidden_to_hidden.weight, gain=gain)
    return model
