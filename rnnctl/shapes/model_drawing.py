"""A model's unrolled graph as text, Mermaid and DOT: one row of steps for every chain of every recurrent weight."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rnnctl.graph import drawn_steps, wrapped
from rnnctl.models.loop_steps import Chain, Entering, Loop, LoopStep
from rnnctl.models.parameter_uses import COUNTED
from rnnctl.shapes.model_graph import UnrolledModel
from rnnctl.view.numbers import times

# Different sets of weights that are told of one tensor.
MOST_PATTERNS = 4


def model_as_text(graph: UnrolledModel, *, every: bool, ascii_only: bool, width: int | None) -> str:
    """For every loop a tree with a branch to every step, and what enters there; then all parameters.

    Args:
        width: columns of the screen; None for lines of any length.
    """
    lines = []
    for loop in graph.loops:
        lines += [*_tree(graph, loop, every, ascii_only), *_legend(loop), ""]
    lines += _sentences(graph)
    return "\n".join(each for line in lines for each in wrapped(line, width))


def _tree(graph: UnrolledModel, loop: Loop, every: bool, ascii_only: bool) -> Iterator[str]:
    branch, trunk, corner = ("|->", "|", "`->") if ascii_only else ("├─▶", "│", "└─▶")
    shape = ", ".join(str(size) for size in graph.parameter(loop.weight)["shape"])
    yield f"{loop.weight} ({shape}): the same tensor at every step{_of_chains(loop)}"
    lines = list(_branches(loop, branch, trunk, every))
    last = max(i for i, line in enumerate(lines) if line.startswith(branch))
    yield from lines[:last]
    yield corner + lines[last].removeprefix(branch)


def _of_chains(loop: Loop) -> str:
    count = len(loop.chains)
    backward = ", from the last input to the first" if loop.backward else ""
    return backward if count == 1 else f" of {count} chains, which no state links{backward}"


def _branches(loop: Loop, branch: str, trunk: str, every: bool) -> Iterator[str]:
    head, tail = drawn_steps(len(loop.chains), every)
    for number in (*head, *tail):
        if tail and number == tail[0]:
            yield f"{trunk}   ... chains {head[-1] + 1} to {number - 1} (--all draws them)"
        if len(loop.chains) > 1:
            yield f"{trunk} chain {number}, {_counted(len(loop.chains[number].steps), 'step')}"
        yield from _steps(loop.chains[number], branch, trunk, every)


def _steps(chain: Chain, branch: str, trunk: str, every: bool) -> Iterator[str]:
    head, tail = drawn_steps(len(chain.steps), every)
    equations = {t: _equations(chain.steps[t], t) for t in (*head, *tail)}
    width = max(len(h) for h, _ in equations.values())
    for t, (h, y) in equations.items():
        if tail and t == tail[0]:
            yield f"{trunk}   ... steps {head[-1] + 1} to {t - 1} (--all draws them)"
        yield f"{branch} {h:<{width}}   {y}".rstrip()


def _equations(step: LoopStep, t: int) -> tuple[str, str]:
    """h_t of what it takes, and y_t where something reads it."""
    taken = [*(f"h_{before}" for before in step.follows or ()), *(() if step.follows else ("h_init",))]
    taken += [f"x_{t}"] if step.given else []
    return f"h_{t} = f({', '.join(taken)})", f"y_{t} = g(h_{t})" if step.read else ""


def _legend(loop: Loop) -> Iterator[str]:
    """Which weights f, x_t and g stand for; where steps differ, at which."""
    steps = [step for chain in loop.chains for step in chain.steps]
    yield from _patterns("f uses", [step.state for step in steps], loop)
    yield from _patterns("x_t comes by", [step.given for step in steps], loop)
    yield from _patterns("g uses", [step.read for step in steps], loop)
    starts = dict.fromkeys(name for chain in loop.chains for name in chain.start)
    if starts:
        yield f"h_init comes by {', '.join(starts)}"
    if not any(step.given for step in steps):
        yield "inputs that pass no shared weight of their own on their way are not drawn"


def _patterns(what: str, entering: Sequence[Entering], loop: Loop) -> Iterator[str]:
    """One line where all steps have the same weights; else one for each set of them, with its steps."""
    sets = [_with_counts(each) for each in entering]
    found = [each for each in dict.fromkeys(sets) if each]
    for names in found[:MOST_PATTERNS]:
        yield f"{what} {names}{'' if len(set(sets)) == 1 else _at(loop, sets, names)}"
    if len(found) > MOST_PATTERNS:
        yield f"{what} {len(found) - MOST_PATTERNS} more sets of weights (--format json has every step)"


def _with_counts(entering: Entering) -> str:
    return ", ".join(f"{name} ({times(count)})" if count > 1 else name for name, count in entering.items())


def _at(loop: Loop, sets: Sequence[str], names: str) -> str:
    """At which steps a set of weights enters."""
    numbers = [t for chain in loop.chains for t in range(len(chain.steps))]
    chosen = sorted({t for t, each in zip(numbers, sets, strict=True) if each == names})
    runs = [[t for _, t in run] for _, run in groupby(enumerate(chosen), key=lambda pair: pair[1] - pair[0])]
    said = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    shown = said if len(said) <= MOST_PATTERNS else [*said[: MOST_PATTERNS - 1], "..."]
    return f", at {'step' if len(chosen) == 1 else 'steps'} {', '.join(shown)}"


def _counted(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"


def _sentences(graph: UnrolledModel) -> list[str]:
    """What was counted of every parameter."""
    return [_sentence(each).replace("\n", " ") for each in graph.parameters]


def _sentence(parameter: Mapping[str, Any]) -> str:
    name, uses, how = parameter["name"], parameter["uses"], parameter["counted"]
    if uses is None:
        return f"{name}: not counted, {how}"
    if uses == 0:
        return f"{name}: no leaf in autograd's graph, unused"
    role = "" if parameter["role"] == "once" else f", {parameter['role']}"
    by = "" if how == COUNTED else f" ({how})"
    return f"{name}: {_counted(parameter['leaves'], 'leaf')} in autograd's graph, used {times(uses)}{role}{by}"


@dataclass(frozen=True)
class _Row:
    """One chain as nodes and edges.

    ``prefix`` goes before the names of its nodes, ``title`` says what it is, both empty where there is one row alone;
    ``weight`` is the node of its recurrent weight.
    """

    chain: Chain
    weight: str
    prefix: str
    title: str
    every: bool

    def nodes(self) -> Iterator[tuple[str, str]]:
        """Names and labels, in the order in which edges meet them."""
        names = dict.fromkeys(end for edge in self.edges() for end in edge[:2] if end != self.weight)
        for name in names:
            label = name.removeprefix(self.prefix)
            yield name, "..." if label == "elided" else label

    def edges(self) -> Iterator[tuple[str, str, str]]:
        """Source, target, label."""
        head, tail = drawn_steps(len(self.chain.steps), self.every)
        drawn = {*head, *tail}
        for t in (*head, *tail):
            yield from self._of_step(t, drawn)
        if tail:
            yield from dict.fromkeys(
                (self._name(before, drawn), f"{self.prefix}elided", "")
                for t in range(head[-1] + 1, tail[0])
                for before in self.chain.steps[t].follows
                if before in drawn
            )
            yield self.weight, f"{self.prefix}elided", f"{len(self.chain.steps) - len(drawn)} more"

    def _of_step(self, t: int, drawn: set[int]) -> Iterator[tuple[str, str, str]]:
        step, prefix, name = self.chain.steps[t], self.prefix, self._name(t, drawn)
        if not step.follows:
            first = f"{prefix}h_init" + (f"_{t}" if t else "")
            if self.chain.start:
                yield f"{prefix}x_init", first, ", ".join(self.chain.start)
            yield first, name, ""
        yield from dict.fromkeys((self._name(before, drawn), name, "") for before in step.follows)
        if step.given:
            yield f"{prefix}x_{t}", name, ", ".join(step.given)
        yield self.weight, name, ""
        if step.read:
            yield name, f"{prefix}y_{t}", ", ".join(step.read)

    def _name(self, t: int, drawn: set[int]) -> str:
        return f"{self.prefix}h_{t}" if t in drawn else f"{self.prefix}elided"


def _rows(graph: UnrolledModel, every: bool) -> Iterator[tuple[str, str, list[_Row]]]:
    """Of every loop the node of its weight, that node's label, and its chains."""
    alone = len(graph.loops) == 1 and len(graph.loops[0].chains) == 1
    for i, loop in enumerate(graph.loops):
        weight = "W" if len(graph.loops) == 1 else f"W{i}"
        state = dict.fromkeys(name for chain in loop.chains for step in chain.steps for name in step.state)
        others = [name for name in state if name != loop.weight]
        label = f"{loop.weight}{' with ' + ', '.join(others) if others else ''}, shared"
        head, tail = drawn_steps(len(loop.chains), every)
        chains = [
            _Row(
                loop.chains[j],
                weight,
                "" if alone else f"r{i}_{j}_",
                "" if alone else f"{loop.weight}{_nth(loop, j)}",
                every,
            )
            for j in (*head, *tail)
        ]
        yield weight, label, chains


def _nth(loop: Loop, number: int) -> str:
    return "" if len(loop.chains) == 1 else f", chain {number} of {len(loop.chains)}"


def model_as_mermaid(graph: UnrolledModel, *, every: bool) -> str:
    """A Mermaid flowchart: a node for every recurrent weight, with an edge to every step of its chains."""
    lines = ["flowchart LR"]
    for weight, label, rows in _rows(graph, every):
        lines.append(f'    {weight}(["{_for_mermaid(label)}"])')
        for row in rows:
            lines += _mermaid_nodes(row)
            for source, target, name in row.edges():
                arrow = f'-->|"{_for_mermaid(name)}"|' if name else "-->"
                lines.append(f"    {source} {arrow} {target}")
    return "\n".join([*lines, *(f"    %% {each}" for each in _sentences(graph))])


def _mermaid_nodes(row: _Row) -> Iterator[str]:
    """What cannot be read off an edge: labels that are not the node's name, in a frame of their own."""
    if not row.title:
        yield from (f'    {name}["{label}"]' for name, label in row.nodes() if name != label)
        return
    yield f'    subgraph {row.prefix}row["{_for_mermaid(row.title)}"]'
    yield from (f'        {name}["{label}"]' for name, label in row.nodes())
    yield "    end"


def _for_mermaid(text: str) -> str:
    return text.replace("\n", " ").replace('"', "#quot;")


def model_as_dot(graph: UnrolledModel, *, every: bool) -> str:
    """A Graphviz digraph: a node for every recurrent weight, with an edge to every step of its chains."""
    lines = ["digraph unrolled {", "    rankdir=LR;"]
    for weight, label, rows in _rows(graph, every):
        lines.append(f"    {weight} [shape=box, label={_for_dot(label)}];")
        for row in rows:
            lines += _dot_nodes(row)
            for source, target, name in row.edges():
                lines.append(f"    {source} -> {target}{f' [label={_for_dot(name)}]' if name else ''};")
    return "\n".join([*lines, *(f"    // {each}" for each in _sentences(graph)), "}"])


def _dot_nodes(row: _Row) -> Iterator[str]:
    shapes = {"...": "shape=plaintext, "}
    nodes = [f"{name} [{shapes.get(label, '')}label={_for_dot(label)}];" for name, label in row.nodes()]
    if not row.title:
        yield from (f"    {node}" for node, (name, label) in zip(nodes, row.nodes(), strict=True) if name != label)
        return
    yield f"    subgraph cluster_{row.prefix}row {{"
    yield f"        label={_for_dot(row.title)};"
    yield from (f"        {node}" for node in nodes)
    yield "    }"


def _for_dot(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'
