"""Recurrent code of many hands, which can run with a copy of the whole module for every step: autograd's own oracle.

Whatever a step does with its weights it does through `at(t)`: the module itself, or in an oracle's run a copy of it
that no other step has, so that the gradients of the copies are the contributions of the steps. Nothing in here is
imported from the rooms that it checks.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


@dataclass
class Handed:
    """The states that one step hands on: as the next steps take them, and as everybody else sees h."""

    t: int
    h: Tensor
    c: Tensor | None
    outward: Tensor


class Copies:
    """One copy of a module a step, and the states between the steps."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model)
        self.model.oracle = self
        self.by_step: dict[int, nn.Module] = {}
        self.handed: dict[str, list[Handed]] = {}

    def at(self, t: int) -> nn.Module:
        if t not in self.by_step:
            # Buffers are one for all: spectral_norm goes on with them from step to step.
            shared = {id(buffer): buffer for buffer in self.model.buffers()}
            self.by_step[t] = copy.deepcopy(self.model, {id(self): None, **shared})
        return self.by_step[t]

    def gradients(self, name: str) -> dict[int, Tensor]:
        """Contributions to one parameter, of every step that has one."""
        found = {t: dict(each.named_parameters())[name].grad for t, each in sorted(self.by_step.items())}
        return {t: grad for t, grad in found.items() if grad is not None}

    def contributions(self, name: str) -> Tensor:
        """Shape (steps, *weight)."""
        return torch.stack(list(self.gradients(name).values()))

    def states(self, name: str, of: str) -> dict[str, Tensor]:
        """Norms of what arrives at the states that the steps of a weight hand on."""
        steps = self.gradients(name)
        handed = sorted((each for each in self.handed[of] if each.t in steps), key=lambda each: each.t)
        assert [each.t for each in handed] == list(steps)
        h = torch.stack([grad_norm(each.h) for each in handed])
        c = torch.stack([grad_norm(each.c) for each in handed]) if handed[0].c is not None else None
        return {
            "grad_norm_h": h,
            "grad_norm_h_direct": torch.stack([grad_norm(each.outward) for each in handed]),
            "grad_norm_c": c,
            "grad_norm_state": h if c is None else torch.hypot(h, c),
        }


def grad_norm(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor).norm() if tensor.grad is None else tensor.grad.norm()


class Written(nn.Module):
    """Somebody's code."""

    oracle: Copies | None = None

    def at(self, t: int):
        return self if self.oracle is None else self.oracle.at(t)

    def once(self, make: Callable[[nn.Module], object]) -> Callable[[int], object]:
        """What is made of the weights before the loop; of every copy's in an oracle's run."""
        if self.oracle is not None:
            return lambda t: make(self.at(t))
        made = make(self)
        return lambda t: made

    def handed(self, t: int, h: Tensor, c: Tensor | None = None, of: str = "") -> Tensor:
        """h as others see it than the next step, which takes the very h and c that are given here."""
        if self.oracle is None:
            return h
        for state in (h, c):
            if state is not None:
                state.retain_grad()
        outward = torch.zeros_like(h, requires_grad=True)
        self.oracle.handed.setdefault(of, []).append(Handed(t, h, c, outward))
        return h + outward


@dataclass(frozen=True)
class Style:
    """One way to write a recurrent network.

    Attributes:
        make: the module, of input and hidden size.
        recurrent: the names of its recurrent weights; the first is the one that is looked at closest.
        states: weight -> the key under which the states of its steps are noted; not of weights that
            multiply something else than the state that a step hands on.
        columns: weight -> those that multiply the state, of input and hidden size.
        direct: whether the last state's readers are others than the next step's; else it may be unknown.
        steps: of T inputs, steps of every chain.
        least: the fewest steps with which all of it is recurrent.
        losses: of which steps.
        inputs: shape of x, of time, batch, input size.
    """

    make: Callable[[int, int], Written]
    recurrent: tuple[str, ...]
    states: Mapping[str, str]
    columns: Mapping[str, Callable[[int, int], slice]]
    direct: bool
    steps: Callable[[int], tuple[int, ...]]
    least: int
    losses: tuple[str, ...]
    inputs: Callable[[int, int, int], tuple[int, ...]]

    @property
    def weight(self) -> str:
        return self.recurrent[0]

    def posed(self, T: int = 6, B: int = 3, D: int = 3, H: int = 4, seed: int = 0) -> "Posed":
        torch.manual_seed(seed)
        model = self.make(D, H).double()
        return Posed(self, model, torch.randn(self.inputs(T, B, D), dtype=torch.float64), (T, D, H))


@dataclass
class Posed:
    """A style made of tensors."""

    style: Style
    model: Written
    x: Tensor
    sizes: tuple[int, int, int]
    weights: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[int, ...]:
        return self.style.steps(self.sizes[0])

    def columns(self, name: str) -> slice | None:
        pick = self.style.columns.get(name)
        return None if pick is None else pick(*self.sizes[1:])

    def fresh(self) -> Written:
        """A module that has not run yet."""
        return copy.deepcopy(self.model)

    def run(self, model: nn.Module, kind: str) -> Tensor:
        """The loss; random numbers drawn on the way are always the same."""
        torch.manual_seed(1)
        return self.loss(model(self.x), kind)

    def loss(self, outs, kind: str) -> Tensor:
        """Linear and quadratic in the outputs of all steps or of the last one, with weights of both signs."""
        value = outs[-1] if kind == "last" else torch.stack(list(outs))
        if kind not in self.weights:
            generator = torch.Generator().manual_seed(7)
            drawn = (torch.randn(value.shape, generator=generator, dtype=torch.float64) for _ in range(2))
            self.weights[kind] = tuple(drawn)
        a, b = (each.to(value.dtype) for each in self.weights[kind])
        return (a * value + 0.5 * b * value**2).sum()

    def copies(self, kind: str) -> Copies:
        """After backward, a copy of the module for every step."""
        oracle = Copies(self.model)
        self.run(oracle.model, kind).backward()
        return oracle


STYLES: dict[str, Style] = {}


def style(*recurrent: str, states: Mapping[str, str] | tuple[str, ...] | None = None, **given):
    """Note a class as a style; `states` are by default those of all recurrent weights."""

    def noted(cls):
        named = recurrent if states is None else states
        known = {
            "columns": {},
            "direct": True,
            "steps": lambda T: (T,),
            "least": 2,
            "losses": ("all", "last"),
            "inputs": lambda T, B, D: (T, B, D),
        }
        by_key = named if isinstance(named, Mapping) else dict.fromkeys(named, "")
        STYLES[cls.__name__] = Style(make=cls, recurrent=recurrent, states=by_key, **(known | given))
        return cls

    return noted


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(0.8 * torch.randn(shape) / math.sqrt(shape[-1]))


class Stepped(Written):
    """W, U and b, and a loop from zeros."""

    def __init__(self, D, H) -> None:
        super().__init__()
        self.H = H
        self.W, self.U, self.b = weight(H, H), weight(D, H), weight(H)

    def start(self, x):
        return x.new_zeros(x.shape[1], self.H)

    def driven(self, x):
        """What x sends into the units."""
        return x @ self.U + self.b

    def forward(self, x):
        h, outs = self.start(x), []
        for t, x_t in enumerate(x):
            h = self.step(t, x_t, h)
            outs.append(self.handed(t, h))
        return outs

    def step(self, t, x, h):
        m = self.at(t)
        return torch.tanh(m.driven(x) + h @ m.W)


class SteppedLSTM(Written):
    """A loop over h and c from zeros."""

    def __init__(self, D, H) -> None:
        super().__init__()
        self.H = H

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], self.H, *x.shape[3:])
        outs = []
        for t, x_t in enumerate(x):
            i, f, g, o = self.gates(t, x_t, h, c)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outs.append(self.handed(t, h, c))
        return outs


@style("W")
class RawMatmul(Stepped):
    """h @ W, W on the right."""


@style("W")
class HoistedTranspose(Stepped):
    """W^T made once, before the loop."""

    def forward(self, x):
        W_T = self.once(lambda m: m.W.t().contiguous())
        h, outs = self.start(x), []
        for t, x_t in enumerate(x):
            h = torch.tanh(self.at(t).driven(x_t) + h @ W_T(t))
            outs.append(self.handed(t, h))
        return outs


@style("W")
class FunctionalLinear(Stepped):
    """Weight and bias share a node; the bias is no recurrent weight."""

    def step(self, t, x, h):
        m = self.at(t)
        return torch.relu(x @ m.U + F.linear(h, m.W, m.b))


@style("W")
class Einsum(Stepped):
    def step(self, t, x, h):
        m = self.at(t)
        return torch.tanh(torch.einsum("bi,ih->bh", x, m.U) + m.b + torch.einsum("bh,kh->bk", h, m.W))


@style("W")
class Addmm(Stepped):
    def step(self, t, x, h):
        m = self.at(t)
        return torch.tanh(torch.addmm(m.driven(x), h, m.W, beta=0.9, alpha=1.1))


@style("W")
class Heads(Stepped):
    """Two heads with a W each, by baddbmm; the state is (heads, batch, hidden)."""

    def __init__(self, D, H) -> None:
        super().__init__(D, H)
        self.W = weight(2, H, H)

    def start(self, x):
        return x.new_zeros(2, x.shape[1], self.H)

    def step(self, t, x, h):
        m = self.at(t)
        return torch.tanh(torch.baddbmm(m.driven(x).expand(2, -1, -1), h, m.W))


@style("wh.weight")
class TwoLinears(Stepped):
    """nn.Linear for x, for h, and for the output of every step."""

    def __init__(self, D, H) -> None:
        Written.__init__(self)
        self.H = H
        self.wx, self.wh, self.wy = nn.Linear(D, H), nn.Linear(H, H, bias=False), nn.Linear(H, 2)

    def forward(self, x):
        h, outs = self.start(x), []
        for t, x_t in enumerate(x):
            m = self.at(t)
            h = torch.tanh(m.wx(x_t) + m.wh(h))
            outs.append(m.wy(self.handed(t, h)))
        return outs


AFTER_X = {"columns": {"linear.weight": lambda D, H: slice(D, D + H)}}


@style("linear.weight", **AFTER_X)
class ConcatElman(Stepped):
    def __init__(self, D, H) -> None:
        Written.__init__(self)
        self.H, self.linear = H, nn.Linear(D + H, H)

    def step(self, t, x, h):
        return torch.tanh(self.at(t).linear(torch.cat([x, h], 1)))


@style("linear.weight", **AFTER_X)
class ConcatLSTM(SteppedLSTM):
    def __init__(self, D, H) -> None:
        super().__init__(D, H)
        self.linear = nn.Linear(D + H, 4 * H)

    def gates(self, t, x, h, c):
        return self.at(t).linear(torch.cat([x, h], dim=1)).chunk(4, dim=1)


@style("linear.weight", columns={"linear.weight": lambda D, H: slice(0, H)})
class ConcatLSTMStateFirst(ConcatLSTM):
    def gates(self, t, x, h, c):
        return self.at(t).linear(torch.hstack([h, x])).split(self.H, dim=-1)


@style("W")
class ChunkedGRU(Stepped):
    """The gates of one (3H, H) parameter, chunked before the loop."""

    def __init__(self, D, H) -> None:
        super().__init__(D, H)
        self.W, self.U, self.b = weight(3 * H, H), weight(D, 3 * H), weight(3 * H)

    def forward(self, x):
        pieces = self.once(lambda m: m.W.chunk(3))
        h, outs = self.start(x), []
        for t, x_t in enumerate(x):
            W_r, W_z, W_n = pieces(t)
            x_r, x_z, x_n = self.at(t).driven(x_t).chunk(3, 1)
            r, z = torch.sigmoid(x_r + h @ W_r.T), torch.sigmoid(x_z + h @ W_z.T)
            h = (1 - z) * torch.tanh(x_n + r * (h @ W_n.T)) + z * h
            outs.append(self.handed(t, h))
        return outs


@style("W_n", "W_rz")
class ResetFirstGRU(Stepped):
    """One weight multiplies r * h, the other h."""

    def __init__(self, D, H) -> None:
        Written.__init__(self)
        self.H = H
        self.W_n, self.W_rz, self.U = weight(H, H), weight(2 * H, H), weight(D, 3 * H)

    def step(self, t, x, h):
        m = self.at(t)
        x_r, x_z, x_n = (x @ m.U).split(self.H, 1)
        r, z = torch.sigmoid(torch.cat([x_r, x_z], 1) + F.linear(h, m.W_rz)).chunk(2, 1)
        return torch.lerp(torch.tanh(x_n + (r * h) @ m.W_n), h, z)


@style("hi.weight", "hf.weight", "hg.weight", "ho.weight")
class FourLinearsLSTM(SteppedLSTM):
    def __init__(self, D, H) -> None:
        super().__init__(D, H)
        self.x = nn.Linear(D, 4 * H)
        self.hi, self.hf, self.hg, self.ho = (nn.Linear(H, H) for _ in range(4))

    def gates(self, t, x, h, c):
        m = self.at(t)
        parts = m.x(x).chunk(4, 1)
        return [part + linear(h) for part, linear in zip(parts, (m.hi, m.hf, m.hg, m.ho), strict=True)]


@style("W")
class Leaky(Stepped):
    def step(self, t, x, h):
        m = self.at(t)
        return 0.7 * h + 0.3 * torch.tanh(m.driven(x) + h @ m.W.T)


class LeakyCell(nn.Module):
    def __init__(self, D, H) -> None:
        super().__init__()
        self.W, self.U, self.leak = weight(H, H), weight(D, H), weight(H)

    def forward(self, x, h):
        a = torch.sigmoid(self.leak)
        return (1 - a) * h + a * torch.tanh(x @ self.U + h @ self.W)


@style("cell.W", "cell.leak")
class LearnedLeak(Stepped):
    """A leak that is learned multiplies the state, and what came of it: twice in a call of the cell."""

    def __init__(self, D, H) -> None:
        Written.__init__(self)
        self.H, self.cell = H, LeakyCell(D, H)

    def step(self, t, x, h):
        return self.at(t).cell(x, h)


@style("W", "norm.weight", states=("W",))
class LayerNormed(Stepped):
    """The gain of the norm multiplies what comes of the state, so that it is recurrent as well."""

    def __init__(self, D, H) -> None:
        super().__init__(D, H)
        self.norm = nn.LayerNorm(H)
        nn.init.normal_(self.norm.weight)

    def step(self, t, x, h):
        m = self.at(t)
        return torch.tanh(m.norm(m.driven(x) + h @ m.W))


def images(T, B, D):
    return (T, B, D, 5, 4)


@style("conv.weight", columns={"conv.weight": lambda D, H: slice(D, D + H)}, inputs=images)
class ConvLSTM(SteppedLSTM):
    def __init__(self, D, H) -> None:
        super().__init__(D, H)
        self.conv = nn.Conv2d(D + H, 4 * H, 3, padding=1)

    def gates(self, t, x, h, c):
        return self.at(t).conv(torch.cat([x, h], dim=1)).chunk(4, dim=1)


@style("conv.weight", inputs=lambda T, B, D: (T, B, D, 7))
class ConvRNN(Stepped):
    """Conv1d on the state, another on the input."""

    def __init__(self, D, H) -> None:
        Written.__init__(self)
        self.H = H
        self.conv, self.conv_x = nn.Conv1d(H, H, 3, padding=1, bias=False), nn.Conv1d(D, H, 3, padding=1)

    def start(self, x):
        return x.new_zeros(x.shape[1], self.H, x.shape[3])

    def step(self, t, x, h):
        m = self.at(t)
        return torch.tanh(m.conv_x(x) + m.conv(h))


@style("u")
class IndRNN(Stepped):
    """Every unit sees itself alone."""

    def __init__(self, D, H) -> None:
        Written.__init__(self)
        self.H, self.u, self.U = H, weight(H), weight(D, H)

    def step(self, t, x, h):
        m = self.at(t)
        return torch.tanh(x @ m.U + m.u * h)


@style("W", "p_i", "p_f", "p_o", states=("W",))
class PeepholeLSTM(SteppedLSTM):
    """The gates look at c as well, each unit at its own; the output gate at the new one."""

    def __init__(self, D, H) -> None:
        super().__init__(D, H)
        self.W, self.U = weight(H, 4 * H), weight(D, 4 * H)
        self.p_i, self.p_f, self.p_o = weight(H), weight(H), weight(H)

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], self.H)
        outs = []
        for t, x_t in enumerate(x):
            m = self.at(t)
            i, f, g, o = (x_t @ m.U + h @ m.W).chunk(4, 1)
            c = torch.sigmoid(f + m.p_f * c) * c + torch.sigmoid(i + m.p_i * c) * torch.tanh(g)
            h = torch.sigmoid(o + m.p_o * c) * torch.tanh(c)
            outs.append(self.handed(t, h, c))
        return outs


class Spike(torch.autograd.Function):
    """1 above 0; backward as if it were a steep sigmoid."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors
        return grad / (1 + (3 * v) ** 2)


class Membrane(Stepped):
    """Leaky integration of x and of what units send each other, reset by subtraction: the state is the potential."""

    def step(self, t, x, v):
        m, s = self.at(t), Spike.apply(v - 0.3)
        return 0.9 * v + m.driven(x) + s @ m.W - 0.3 * s


@style("W")
class SpikingReadPotential(Membrane):
    """The loss reads the potential."""


@style("W", direct=False)
class SpikingReadSpikes(Stepped):
    """The loss reads the spikes, which the next step takes as well: from the potential they go together."""

    def forward(self, x):
        v, outs = self.start(x), []
        s = v
        for t, x_t in enumerate(x):
            m = self.at(t)
            v = 0.9 * v + m.driven(x_t) + s @ m.W - 0.3 * s
            s, shown = Spike.apply(v - 0.3), self.handed(t, v)
            outs.append(s if shown is v else Spike.apply(shown - 0.3))
        return outs


@style("W")
class Rates(Stepped):
    """The state is what the units integrate, the weight multiplies its tanh."""

    def step(self, t, x, v):
        m = self.at(t)
        return 0.8 * v + 0.2 * (m.driven(x) + torch.tanh(v) @ m.W)


class ContinuousCell(nn.Module):
    """Three Euler steps of dh/dt = -h + tanh(x U + h W)."""

    def __init__(self, D, H) -> None:
        super().__init__()
        self.W, self.U, self.b = weight(H, H), weight(D, H), weight(H)

    def forward(self, x, h):
        for _ in range(3):
            h = h + 0.4 * (torch.tanh(x @ self.U + h @ self.W + self.b) - h)
        return h


@style("cell.W")
class Continuous(Stepped):
    """A solver's steps within the call of a cell: one call is one step."""

    def __init__(self, D, H) -> None:
        Written.__init__(self)
        self.H, self.cell = H, ContinuousCell(D, H)

    def step(self, t, x, h):
        return self.at(t).cell(x, h)


@style("W")
class WeightDrop(Stepped):
    """W with some of its entries dropped for the whole sequence."""

    def forward(self, x):
        mask = torch.bernoulli(torch.full_like(self.W, 0.6)) / 0.6
        dropped = self.once(lambda m: m.W * mask)
        h, outs = self.start(x), []
        for t, x_t in enumerate(x):
            h = torch.tanh(self.at(t).driven(x_t) + h @ dropped(t))
            outs.append(self.handed(t, h))
        return outs


ORIGINALS = ("wh.parametrizations.weight.original1", "wh.parametrizations.weight.original0")


@style(*ORIGINALS)
class WeightNorm(Stepped):
    """Made anew for every call, of a direction and a size."""

    def __init__(self, D, H) -> None:
        Written.__init__(self)
        self.H, self.U, self.wh = H, weight(D, H), parametrizations.weight_norm(nn.Linear(H, H))

    def step(self, t, x, h):
        m = self.at(t)
        return torch.tanh(x @ m.U + m.wh(h))


@style(*ORIGINALS)
class WeightNormOnce(WeightNorm):
    """Made once, before the loop."""

    def forward(self, x):
        made = self.once(lambda m: m.wh.weight)
        h, outs = self.start(x), []
        for t, x_t in enumerate(x):
            h = torch.tanh(x_t @ self.at(t).U + F.linear(h, made(t), self.at(t).wh.bias))
            outs.append(self.handed(t, h))
        return outs


@style("wh.parametrizations.weight.original")
class SpectralNorm(WeightNorm):
    """Every call takes a step of the power iteration, and so has a weight of its own."""

    def __init__(self, D, H) -> None:
        Written.__init__(self)
        self.H, self.U, self.wh = H, weight(D, H), parametrizations.spectral_norm(nn.Linear(H, H))


@style("W_hh", "W_xh", "W_hy", states=("W_hh",), direct=False)
class Feedback(Stepped):
    """Every output is added to the next input: by then all three weights are recurrent."""

    def __init__(self, D, H) -> None:
        Written.__init__(self)
        self.H, self.D = H, D
        self.W_hh, self.W_xh, self.W_hy = weight(H, H), weight(D, H), weight(H, D)

    def forward(self, x):
        h, y, outs = self.start(x), x.new_zeros(x.shape[1], self.D), []
        for t, x_t in enumerate(x):
            m = self.at(t)
            h = torch.tanh((x_t + y) @ m.W_xh + h @ m.W_hh)
            y, shown = h @ m.W_hy, self.handed(t, h)
            outs.append(y if shown is h else shown @ m.W_hy)
        return outs


@style("W")
class LearnedStart(Stepped):
    def __init__(self, D, H) -> None:
        super().__init__(D, H)
        self.h_0 = weight(H)

    def start(self, x):
        return self.h_0.expand(x.shape[1], -1)


@style("W")
class RandomStart(Stepped):
    def start(self, x):
        return torch.randn(x.shape[1], self.H, dtype=x.dtype)


@style("W", steps=lambda T: (T - 1,), least=3)
class NoStart(Stepped):
    """The first step has no state, and leaves W alone."""

    def start(self, x):
        return None

    def step(self, t, x, h):
        m = self.at(t)
        return torch.tanh(m.driven(x) if h is None else m.driven(x) + h @ m.W)


@style("W", inputs=lambda T, B, D: (T, D))
class Unbatched(Stepped):
    def start(self, x):
        return x.new_zeros(self.H)


class ElmanCell(nn.Module):
    def __init__(self, D, H) -> None:
        super().__init__()
        self.W, self.U, self.b = weight(H, H), weight(D, H), weight(H)

    def forward(self, x, h):
        return torch.tanh(x @ self.U + h @ self.W + self.b)


@style("cells.0.W", "cells.1.W", states={"cells.0.W": "0", "cells.1.W": "1"})
class TwoLayers(Written):
    def __init__(self, D, H) -> None:
        super().__init__()
        self.H, self.cells = H, nn.ModuleList([ElmanCell(D, H), ElmanCell(H, H)])

    def forward(self, x):
        states, outs = [x.new_zeros(x.shape[1], self.H) for _ in self.cells], []
        for t, x_t in enumerate(x):
            for i in range(len(self.cells)):
                states[i] = self.at(t).cells[i](x_t, states[i])
                x_t = self.handed(t, states[i], of=str(i))
            outs.append(x_t)
        return outs


@style("W", steps=lambda T: (T, T), losses=("all",))
class TwoDirections(Stepped):
    """Forward and backward in time through one weight."""

    def forward(self, x):
        sums = [0] * len(x)
        for direction, order in enumerate((range(len(x)), reversed(range(len(x))))):
            h = self.start(x)
            for k, t in enumerate(order):
                h = self.step(direction * len(x) + k, x[t], h)
                sums[t] = sums[t] + self.handed(direction * len(x) + k, h)
        return sums


@style("W", steps=lambda T: (T // 2, T - T // 2), least=4, losses=("all",))
class TwoWindows(Stepped):
    """Truncated: between the windows the state is detached."""

    def forward(self, x):
        h, outs = self.start(x), []
        for t, x_t in enumerate(x):
            if t == len(x) // 2:
                h = h.detach()
            h = self.step(t, x_t, h)
            outs.append(self.handed(t, h))
        return outs


@style("W", states=())
class Attention(Stepped):
    """Every step looks at all states before it: no one state is handed on."""

    def forward(self, x):
        h, outs, past = self.start(x), [], []
        for t, x_t in enumerate(x):
            m = self.at(t)
            if past:
                seen = torch.stack(past)
                shares = torch.softmax((seen * h).sum(2), 0)
                h = h + (shares.unsqueeze(2) * seen).sum(0)
            h = torch.tanh(m.driven(x_t) + h @ m.W)
            past.append(h)
            outs.append(h)
        return outs


@style("W")
class InBuffer(Stepped):
    """The outputs are written into one tensor, in place."""

    def forward(self, x):
        h = self.start(x)
        outs = x.new_zeros(len(x), *h.shape)
        for t, x_t in enumerate(x):
            h = self.step(t, x_t, h)
            outs[t] = self.handed(t, h)
        return outs


@style("W", states=())
class PackedState(SteppedLSTM):
    """h and c in one tensor."""

    def __init__(self, D, H) -> None:
        super().__init__(D, H)
        self.W, self.U = weight(H, 4 * H), weight(D, 4 * H)

    def forward(self, x):
        state, outs = x.new_zeros(x.shape[1], 2 * self.H), []
        for t, x_t in enumerate(x):
            m, (h, c) = self.at(t), state.chunk(2, 1)
            i, f, g, o = (x_t @ m.U + h @ m.W).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            state = torch.cat([torch.sigmoid(o) * torch.tanh(c), c], 1)
            outs.append(state[:, : self.H])
        return outs
