"""What autograd says of recurrent modules, by loops written out with a clone of W_hh for every step.

Nothing in here is imported from the rooms that it checks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F


@dataclass
class Steps:
    """One layer in one direction, step by step in the order of the sequence."""

    clones: dict[int, Tensor] = field(default_factory=dict)
    products: dict[int, Tensor] = field(default_factory=dict)
    before: dict[int, Tensor] = field(default_factory=dict)
    states: dict[int, Tensor] = field(default_factory=dict)
    outward: dict[int, Tensor] = field(default_factory=dict)
    cells: dict[int, Tensor] = field(default_factory=dict)

    def result(self, gates: int) -> dict[str, Tensor]:
        """Norms by step, and what they are norms of."""
        T = len(self.clones)
        G = torch.stack([_grad(self.clones[t]) for t in range(T)])
        delta = torch.stack([_grad(self.products[t]) for t in range(T)])
        before = torch.stack([self.before[t].detach() for t in range(T)])
        return {
            "G": G,
            "W_hh": _norms(G),
            "gates": G.reshape(T, gates, -1).norm(dim=2),
            "h": _norms(torch.stack([_grad(self.states[t]) for t in range(T)])),
            "h_direct": _norms(torch.stack([_grad(self.outward[t]) for t in range(T)])),
            "c": _norms(torch.stack([_grad(self.cells[t]) for t in range(T)])) if self.cells else None,
            "magnitude": (delta.norm(dim=2) * before.norm(dim=2)).sum(1),
        }


def _grad(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _norms(block: Tensor) -> Tensor:
    return block.flatten(1).norm(dim=1)


def one_step(mode: str, x: Tensor, h: Tensor, c: Tensor | None, weights: dict[str, Tensor]):
    """(h', c', the product with W_hh) of one step; biases may be absent."""
    product = h @ weights["weight_hh"].T
    product.retain_grad()
    from_x = x @ weights["weight_ih"].T + weights.get("bias_ih", 0)
    from_h = product + weights.get("bias_hh", 0)
    if mode == "RNN_TANH":
        return torch.tanh(from_x + from_h), None, product
    if mode == "RNN_RELU":
        return torch.relu(from_x + from_h), None, product
    if mode == "GRU":
        (xr, xz, xn), (hr, hz, hn) = from_x.chunk(3, -1), from_h.chunk(3, -1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        return (1 - z) * torch.tanh(xn + r * hn) + z * h, None, product
    if mode == "COUPLED_LSTM":
        f, g, o = (from_x + from_h).chunk(3, -1)
        c = torch.sigmoid(f) * c + (1 - torch.sigmoid(f)) * torch.tanh(g)
    else:
        i, f, g, o = (from_x + from_h).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    c.retain_grad()
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h @ weights["weight_hr"].T if "weight_hr" in weights else h), c, product


class ByClones:
    """A module of PyTorch's own written out: every step of every layer and direction has its own W_hh.

    Args:
        module: nn.RNN, nn.GRU or nn.LSTM; its weights are taken in float64.
        states: of every layer, (time, batch, directions * hidden): the loops are held to them, so that
            their derivatives are those at the states of a float32 module.
    """

    def __init__(self, module: nn.RNNBase, states: Sequence[Tensor] | None = None) -> None:
        self.module, self.states_given = module, states
        self.directions = 2 if module.bidirectional else 1
        self.steps = [Steps() for _ in range(module.num_layers * self.directions)]
        self.gates = {"RNN_TANH": 1, "RNN_RELU": 1, "GRU": 3, "LSTM": 4, "COUPLED_LSTM": 3}[module.mode]

    def __call__(self, x: Tensor, hx=None, lengths: Sequence[int] | None = None):
        """Output, h_n and c_n, from time-major x and (h_0, c_0); batch sorted by descending lengths."""
        module, (T, B) = self.module, x.shape[:2]
        lengths = torch.tensor([T] * B if lengths is None else list(lengths))
        units = module.proj_size or module.hidden_size
        rows = len(self.steps)
        h_0 = x.new_zeros(rows, B, units) if hx is None else hx[0]
        c_0 = x.new_zeros(rows, B, module.hidden_size) if hx is None else hx[-1]
        last_h, last_c = [], []
        for layer in range(module.num_layers):
            outs = []
            for d in range(self.directions):
                k = layer * self.directions + d
                out, c = self._direction(k, x, h_0[k], c_0[k], lengths)
                ends = [0] * B if d else [int(n) - 1 for n in lengths]
                last_h.append(torch.stack([out[t, b] for b, t in enumerate(ends)]))
                last_c.append(c)
                outs.append(out)
            x = torch.cat(outs, -1)
            if module.dropout and module.training and layer < module.num_layers - 1:
                x = x * self._noise(x, lengths)
        c_n = torch.stack(last_c) if "LSTM" in module.mode else None
        return x, torch.stack(last_h), c_n

    def _noise(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Drawn as the module draws it: over the packed data where lengths differ."""
        present = torch.arange(x.shape[0])[:, None] < lengths
        noise = torch.zeros_like(x.detach())
        noise[present] = F.dropout(x.new_ones(int(present.sum()), x.shape[2]), self.module.dropout).detach()
        return noise

    def _direction(self, k: int, x: Tensor, h: Tensor, c: Tensor, lengths: Tensor):
        layer, reverse = divmod(k, self.directions)
        suffix = f"_l{layer}" + ("_reverse" if reverse else "")
        named = {n: p.detach().double() for n, p in self.module.named_parameters()}
        weights = {n.removesuffix(suffix): p for n, p in named.items() if n.endswith(suffix)}
        steps, T = self.steps[k], x.shape[0]
        outs: dict[int, Tensor] = {}
        for t in reversed(range(T)) if reverse else range(T):
            active = (lengths > t)[:, None]
            clone = weights["weight_hh"].clone().requires_grad_()
            new, new_c, product = one_step(self.module.mode, x[t], h, c, {**weights, "weight_hh": clone})
            if self.states_given is not None:
                half = slice(reverse * new.shape[1], (reverse + 1) * new.shape[1])
                new = new + (self.states_given[layer][t][:, half] - new).detach()
            # The state as others see it, apart from the one that the next step takes.
            outward = torch.zeros_like(new, requires_grad=True)
            new.retain_grad()
            outs[t] = torch.where(active, new + outward, 0.0)
            steps.clones[t], steps.products[t], steps.states[t], steps.outward[t] = clone, product, new, outward
            steps.before[t] = torch.where(active, h, 0.0)
            h = torch.where(active, new, h)
            if new_c is not None:
                steps.cells[t] = new_c
                c = torch.where(active, new_c, c)
        return torch.stack([outs[t] for t in range(T)]), c

    def results(self) -> dict[str, dict[str, Tensor]]:
        """By the name of the weight, after backward."""
        names = [
            f"weight_hh_l{layer}{suffix}"
            for layer in range(self.module.num_layers)
            for suffix in ("", "_reverse")[: self.directions]
        ]
        return {name: steps.result(self.gates) for name, steps in zip(names, self.steps, strict=True)}


class CloningCell:
    """In place of a cell or a linear map in somebody's loop: every call has its own clone of the weight.

    A state that is handed back untouched counts as the recurrence; whatever else is done with it as outside.
    """

    def __init__(self, cell: nn.Module, weight: str = "weight_hh", gates: int = 1) -> None:
        self.cell, self.weight, self.gates = cell, weight, gates
        self.clones: list[Tensor] = []
        self.states: list[Tensor] = []
        self.outward: list[Tensor] = []
        self.cells: list[Tensor] = []
        self._inner: dict[int, tuple[Tensor, Tensor]] = {}

    def __getattr__(self, name: str):
        return getattr(self.cell, name)

    def __call__(self, x: Tensor, hx=None):
        clone = dict(self.cell.named_parameters())[self.weight].detach().clone().requires_grad_()
        self.clones.append(clone)
        if isinstance(hx, tuple):
            hx = (self._unwrapped(hx[0]), hx[1])
        elif hx is not None:
            hx = self._unwrapped(hx)
        given = (x,) if hx is None else (x, hx)
        after = functional_call(self.cell, {self.weight: clone}, given)
        h = after[0] if isinstance(after, tuple) else after
        h.retain_grad()
        outward = torch.zeros_like(h, requires_grad=True)
        shown = h + outward
        self._inner[id(shown)] = (h, shown)
        self.states.append(h)
        self.outward.append(outward)
        if not isinstance(after, tuple):
            return shown
        c = after[1].clone()
        c.retain_grad()
        self.cells.append(c)
        return shown, c

    def _unwrapped(self, state: Tensor) -> Tensor:
        return self._inner[id(state)][0] if id(state) in self._inner else state

    def results(self) -> dict[str, Tensor]:
        G = torch.stack([_grad(clone) for clone in self.clones])
        return {
            "G": G,
            "W_hh": _norms(G),
            "gates": G.reshape(len(G), self.gates, -1).norm(dim=2),
            "h": torch.stack([_grad(state).norm() for state in self.states]),
            "h_direct": torch.stack([_grad(state).norm() for state in self.outward]),
            "c": None,
        }


def states_by_layer(module: nn.RNNBase, run: Callable[[nn.RNNBase], Tensor], **settings) -> list[Tensor]:
    """The output of every layer, from modules of 1, 2 .. layers with the same weights."""
    found = []
    for layers in range(1, module.num_layers + 1):
        part = type(module)(**{**settings, "num_layers": layers})
        part.load_state_dict({name: p for name, p in module.state_dict().items() if name in part.state_dict()})
        with torch.no_grad():
            found.append(run(part.to(next(module.parameters()).dtype)))
    return found


def assert_same(found, expected: dict[str, Tensor], rtol: float = 1e-9, atol: float = 1e-13) -> None:
    """All norms of a ProbedWeight, relative step by step, above a floor relative to the largest."""
    pairs = {
        "grad_norm_W_hh": (found.grad_norm_W_hh, expected["W_hh"]),
        "grad_norm_h": (found.grad_norm_h, expected["h"]),
        "grad_norm_h_direct": (found.grad_norm_h_direct, expected["h_direct"]),
        "grad_W_hh": (found.grad_W_hh, expected["G"].sum(0)),
    }
    for i, gate in enumerate(found.gates):
        pairs[f"gate {gate}"] = (found.grad_norm_gates[gate], expected["gates"][:, i])
    if expected["c"] is not None:
        pairs["grad_norm_c"] = (found.grad_norm_c, expected["c"])
    for name, (got, want) in pairs.items():
        want = want.double()
        assert got.shape == want.shape, (name, got.shape, want.shape)
        assert got.dtype == torch.float64, name
        floor = atol * float(want.nan_to_num().abs().max()) if want.numel() else 0.0
        if name == "grad_norm_h_direct":
            floor = max(floor, atol * float(expected["h"].max()))
        torch.testing.assert_close(
            got, want, rtol=rtol, atol=floor + 1e-300, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}"
        )
