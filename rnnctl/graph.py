"""The network unrolled through time, as a graph: text, Mermaid and DOT."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from rnnctl.cells import FullRNN
from rnnctl.memory import require_tape
from rnnctl.results import Kind, Result, numbers
from rnnctl.view.numbers import times
from rnnctl.view.shown import Shown

# Up to here every step is drawn; beyond, so many at either end.
DRAWN_STEPS = 8
DRAWN_AT_END = 3
WEIGHTS = {
    "W_xh": "rnn_cell.input_to_hidden.weight",
    "W_hh": "rnn_cell.hidden_to_hidden.weight",
    "W_hy": "hidden_to_output.weight",
}


@dataclass(frozen=True)
class UnrolledGraph(Shown, Result):
    """T copies of one cell that share their weights.

    Attributes:
        seq_len: T.
        nonlinearity, output_activation: f_h and f_y by name.
        bias: whether the linear maps have biases.
        hidden_size: H.
        leaves: weight -> how many AccumulateGrad nodes autograd's graph has for it.
        uses: weight -> how many edges of that graph lead into them.
    ``rows`` have t, h and y, the equations of step t.
    """

    schema: ClassVar[str] = "unroll"
    kinds: ClassVar[Mapping[str, Kind]] = numbers(
        "seq_len", *(f"unique_{name}" for name in WEIGHTS), *(f"{name}_uses" for name in WEIGHTS)
    )
    seq_len: int
    hidden_size: int
    nonlinearity: str
    output_activation: str
    bias: bool
    leaves: Mapping[str, int]
    uses: Mapping[str, int]

    @property
    def scalars(self) -> Mapping[str, Any]:
        """seq_len, and for each of W_xh, W_hh, W_hy its leaves and its uses in autograd's graph."""
        counts = {f"unique_{name}": self.leaves[name] for name in WEIGHTS}
        return {"seq_len": self.seq_len, **counts, **{f"{n}_uses": self.uses[n] for n in WEIGHTS}}

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One record per step: t, h (equation of h_t) and y (equation of y_t)."""
        return tuple({"t": t, "h": self.h_equation(t), "y": self.y_equation(t)} for t in range(self.seq_len))

    def h_equation(self, t: int) -> str:
        """h_t = f(W_xh x_t + b_xh + W_hh h_{t-1} + b_hh), with its indices."""
        b_xh, b_hh = (" + b_xh", " + b_hh") if self.bias else ("", "")
        return f"h_{t} = {self.nonlinearity}(W_xh x_{t}{b_xh} + W_hh {state(t - 1)}{b_hh})"

    def y_equation(self, t: int) -> str:
        """y_t = f_y(W_hy h_t + b_y), with its indices."""
        inner = f"W_hy h_{t}" + (" + b_y" if self.bias else "")
        return (
            f"y_{t} = {inner}"
            if self.output_activation == "identity"
            else (f"y_{t} = {self.output_activation}({inner})")
        )


def unroll(model: FullRNN, x: Tensor, h_init: Tensor | None = None) -> UnrolledGraph:
    """Run the model and count in autograd's own graph how its weights are shared.

    Args:
        model: the network; its ``requires_grad`` flags are left alone.
        x: shape (batch, time, input).
        h_init: shape (batch, hidden); zeros if left out.
    Raises:
        ShapeError, DtypeError, DeviceError: as the model's own ``forward``.
    """
    require_tape(x.shape[1], x.shape[0] * model.rnn_cell.hidden_size * x.element_size())
    weights = {path: model.get_parameter(path).detach().clone().requires_grad_() for path in WEIGHTS.values()}
    with torch.enable_grad():
        y = torch.func.functional_call(model, weights, (x.detach(), h_init))
    symbols = {id(weights[path]): name for name, path in WEIGHTS.items()}
    leaves, uses = _count_leaves(y, symbols)
    activation = type(model.output_activation).__name__.lower()
    return UnrolledGraph(
        seq_len=x.shape[1],
        hidden_size=model.rnn_cell.hidden_size,
        nonlinearity=model.rnn_cell.nonlinearity,
        output_activation=activation,
        bias=model.hidden_to_output.bias is not None,
        leaves=leaves,
        uses=uses,
    )


def state(t: int) -> str:
    """The symbol of the hidden state after step t; before step 0 it is h_init."""
    return "h_init" if t < 0 else f"h_{t}"


def _count_leaves(y: Tensor, symbols: Mapping[int, str]) -> tuple[Counter[str], Counter[str]]:
    """AccumulateGrad nodes per weight, and the edges that lead into them."""
    leaves: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    seen = {y.grad_fn}
    waiting = [y.grad_fn]
    while waiting:
        node = waiting.pop()
        for successor, _ in node.next_functions:  # type: ignore[union-attr]
            if successor is None:
                continue
            # AccumulateGrad nodes alone carry the leaf that they accumulate into.
            name = symbols.get(id(getattr(successor, "variable", None)))
            if name is not None:
                uses[name] += 1
                leaves[name] += successor not in seen
            if successor not in seen:
                seen.add(successor)
                waiting.append(successor)
    return leaves, uses


def drawn_steps(seq_len: int, every: bool) -> tuple[list[int], list[int]]:
    """The steps to draw, before and after the elision; the second part is empty without one."""
    if every or seq_len <= DRAWN_STEPS:
        return list(range(seq_len)), []
    return list(range(DRAWN_AT_END)), list(range(seq_len - DRAWN_AT_END, seq_len))


def drawn(
    graph: UnrolledGraph,
    form: str,
    *,
    every: bool = False,
    ascii_only: bool = False,
    width: int | None = None,
) -> str:
    """The graph as "text", "mermaid" or "dot"; long sequences elided in the middle unless ``every``.

    Args:
        width: columns of the screen, for the text; None for lines of any length.
    """
    if form == "mermaid":
        return as_mermaid(graph, every=every)
    if form == "dot":
        return as_dot(graph, every=every)
    return as_text(graph, every=every, ascii_only=ascii_only, width=width)


def as_text(graph: UnrolledGraph, *, every: bool = False, ascii_only: bool = False, width: int | None = None) -> str:
    """A tree: one W_hh, one branch to every step with its equations, below one another where there is no more room."""
    branch, trunk, corner = ("|->", "|", "`->") if ascii_only else ("├─▶", "│", "└─▶")
    head, tail = drawn_steps(graph.seq_len, every)
    lines = wrapped(f"W_hh ({graph.hidden_size}, {graph.hidden_size}): the same tensor at every step", width)
    equations = {t: (graph.h_equation(t), graph.y_equation(t)) for t in (*head, *tail)}
    for t, step in _beside_or_below(equations, None if width is None else width - len(branch) - 1).items():
        if tail and t == tail[0]:
            hidden = f"{trunk}   ... steps {head[-1] + 1} to {t - 1}, alike (--all draws them)"
            lines += wrapped(hidden, width, f"{trunk}     ")
        is_last = t == graph.seq_len - 1
        lines.append(f"{corner if is_last else branch} {step[0]}")
        lines += [f"{' ' if is_last else trunk}   {line}" for line in step[1:]]
    lines += ["", *(line for sentence in _sentences(graph) for line in wrapped(sentence, width))]
    return "\n".join(lines)


def _beside_or_below(equations: Mapping[int, tuple[str, str]], width: int | None) -> Mapping[int, list[str]]:
    """Of every step the lines of its two equations: one where all of them fit, else one below the other, folded."""
    longest = max(len(h) for h, _ in equations.values())
    beside = {t: [f"{h:<{longest}}   {y}"] for t, (h, y) in equations.items()}
    if width is None or all(len(line) <= width for (line,) in beside.values()):
        return beside
    return {t: [line for each in pair for line in wrapped(each, width)] for t, pair in equations.items()}


def wrapped(line: str, width: int | None, indent: str = "    ") -> list[str]:
    """In lines of this width, broken between words alone; those after the first are indented."""
    if width is None or len(line) <= width:
        return [line]
    return textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def as_mermaid(graph: UnrolledGraph, *, every: bool = False) -> str:
    """A Mermaid flowchart: one W_hh node with an edge to every h_t."""
    lines = ["flowchart LR", '    W_hh(["W_hh, shared"])']
    for source, target, label in _edges(graph, every):
        arrow = f"-->|{label}|" if label else "-->"
        lines.append(f"    {source} {arrow} {target}")
    lines += [f"    {node}[...]" for node in _elided(graph, every)]
    lines += [f"    %% {sentence}" for sentence in _sentences(graph)]
    return "\n".join(lines)


def as_dot(graph: UnrolledGraph, *, every: bool = False) -> str:
    """A Graphviz digraph: one W_hh node with an edge to every h_t."""
    lines = ["digraph unrolled {", "    rankdir=LR;", '    W_hh [shape=box, label="W_hh, shared"];']
    lines += [f'    {node} [shape=plaintext, label="..."];' for node in _elided(graph, every)]
    for source, target, label in _edges(graph, every):
        attribute = f' [label="{label}"]' if label else ""
        lines.append(f"    {source} -> {target}{attribute};")
    lines += [f"    // {sentence}" for sentence in _sentences(graph)]
    return "\n".join([*lines, "}"])


def _elided(graph: UnrolledGraph, every: bool) -> list[str]:
    return ["elided"] if drawn_steps(graph.seq_len, every)[1] else []


def _edges(graph: UnrolledGraph, every: bool) -> Iterator[tuple[str, str, str]]:
    head, tail = drawn_steps(graph.seq_len, every)
    for t in (*head, *tail):
        before = "elided" if tail and t == tail[0] else state(t - 1)
        yield before, f"h_{t}", ""
        yield f"x_{t}", f"h_{t}", "W_xh"
        yield "W_hh", f"h_{t}", ""
        yield f"h_{t}", f"y_{t}", "W_hy"
    if tail:
        yield f"h_{head[-1]}", "elided", ""
        yield "W_hh", "elided", f"{graph.seq_len - len(head) - len(tail)} more"


def _sentences(graph: UnrolledGraph) -> list[str]:
    """What autograd's graph says of the sharing, counted there."""
    return [
        f"{name}: {leaves} leaf in autograd's graph, used {times(graph.uses[name])}"
        if (leaves := graph.leaves[name]) == 1
        else f"{name}: {leaves} leaves in autograd's graph, used {times(graph.uses[name])}"
        for name in WEIGHTS
    ]
