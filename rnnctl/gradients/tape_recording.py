"""Watches backward passes through a model, and itemises the weights that are found in their graphs."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from rnnctl.gradients.decay import Decay, worst
from rnnctl.gradients.norm_book import norm_of, widest
from rnnctl.gradients.outside import Outside
from rnnctl.gradients.use_norms import UseNorms
from rnnctl.gradients.use_steps import UseSteps, decay_of, followed, last_entry, own_decay, use_steps, with_states
from rnnctl.models.module_calls import ModuleCalls, owner_of
from rnnctl.models.recording import Calls
from rnnctl.models.tape.beside import Edge
from rnnctl.models.tape.block import Block, is_nested, nodes_of
from rnnctl.models.tape.operands import kept_operands
from rnnctl.models.tape.passes import End, Pass, Pause, backward_passes, now
from rnnctl.models.tape.pull_back import swept
from rnnctl.models.weight_uses import Asked, Reading, WeightUses

TWICE = "double backward: with create_graph=True the gradients are not final. Probe a plain loss.backward()"
REENTRANT = (
    "re-entrant checkpointing runs its steps once more for every piece, last piece first, so the order of its steps is "
    "lost. Try use_reentrant=False"
)
# Parts of the names of nodes that are programs of their own, and what to say of them.
OPAQUE = {
    "CompiledFunction": (
        "a compiled graph, called inside a compiled function (torch.compile). Probe the model without it, or with "
        "torch.compiler.set_stance('force_eager') around what is run"
    ),
    "DifferentiableGraph": "TorchScript (torch.jit). Probe the model that it was made of",
    "torch::jit": "TorchScript (torch.jit). Probe the model that it was made of",
}
NO_STEP = (
    "the only gradients that came by are of no training step: they were asked for of other tensors than its weights "
    "(torch.autograd.grad of an input, backward(inputs=...))"
)
BEFORE = "its graph was built before the block: run the forward pass within it"
ONCE = (
    "it is used once in this pass, by {by}: for all steps at once (a parallel scan, a product over all steps), or "
    "there is one step alone. There is nothing to itemise"
)


@dataclass
class TapeRecording:
    """What passes through a model's weights, from ``attach`` to ``detach``.

    Args:
        model: any module.
        asked: which weights, and what the user knows of state and step.
        modules: the calls of modules of known classes, whose states are followed from call to call.
        want_decay: whether a gradient that enters at the last step alone is followed as well.
        block: whose calls and passes.
    Attributes:
        found: what every pass told of every weight, in order.
        missing: weight -> why there is nothing.
        before: the same of weights in graphs that were there before it began, or that no training step passed through.
        counts: of all weights how often each was used in the last pass, and whether it recurs.
        opaque: an operation that weights enter and that hides what it does, in words.
        bug: an error of ours, where a graph could not be read; it is not raised in the user's pass.
    """

    model: nn.Module
    asked: Asked
    block: Block
    modules: Sequence[Calls] = ()
    want_decay: bool = False
    found: list[UseSteps] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    counts: dict[str, tuple[int, bool]] = field(default_factory=dict)
    opaque: str | None = None
    bug: Exception | None = None

    def __post_init__(self) -> None:
        modules = dict(self.model.named_modules())
        named = {name: modules[name] for name in (self.asked.state, self.asked.step) if name is not None}
        self.calls = ModuleCalls(self.model, named, self.block)
        self._hooks = ExitStack()
        self._kept: dict[Any, Tensor] = {}
        self._roots: list[Any] = []
        # What backward brought to each weight, in float64.
        self.totals: dict[str, Tensor] = {}
        self._began = 0
        self._pieces: set[str] = set()
        self._twice = False
        # What was found in graphs that may be passed through again, to be replaced then.
        self._open: list[UseSteps] = []

    def attach(self) -> None:
        """Begin."""
        self._began = now()
        self._hooks.enter_context(self.calls.noted())
        self._hooks.enter_context(backward_passes(self._passes, self.block))

    def detach(self) -> None:
        """End."""
        self._hooks.close()
        self._kept.clear()
        self._roots.clear()
        self.calls.forget()

    def _passes(self, begun: Pass) -> tuple[End, bool] | None:
        """A backward pass begins."""
        nodes = nodes_of(begun.roots)
        if is_nested():
            self._note_reentrant(nodes)
            return None
        pause = Pause()
        try:
            ends = self._begin(nodes, begun, pause)
        except Exception as error:
            # Whatever it is, it must not end the user's backward pass.
            self.bug, ends = error, None
        if ends is None:
            pause.end()
        return ends

    def _note_reentrant(self, nodes: Sequence[Any]) -> None:
        try:
            # What a piece shows is one step; what two of them show is a weight that they share.
            for name in Reading(self.model, nodes, self.calls).names.values():
                if name in self._pieces and self.asked.wanted(name, True):
                    self.missing[name] = REENTRANT
                self._pieces.add(name)
        except Exception as error:
            self.bug = error

    def _begin(self, nodes: list[Any], begun: Pass, pause: Pause) -> tuple[End, bool] | None:
        reading = Reading(self.model, [*self._roots, *nodes], self.calls)
        self.counts.update(reading.counts())
        # What is differentiated further is in graphs of later passes as well: none of them is a plain one.
        self._twice = self._twice or (begun.creates and bool(self.counts))
        self.opaque = self.opaque or _opaque(reading)
        weights = [weight for weight in reading.of(self.asked) if self._is_itemised(reading, weight)]
        outside = Outside(reading.graph, self.modules)
        if not weights and outside.is_empty:
            return None
        outside.attach()
        keeps = begun.keeps
        if not any(begun.brings_to([weight.weight]) for weight in weights):
            # A gradient of an input alone is no training step of any of them.
            self.before |= {weight.name: NO_STEP for weight in weights}
            weights = []
            if not keeps:
                # A graph that was kept until now is gone, and what it told is all.
                self._roots, self._open = [], []
                self._kept.clear()
        again = keeps or bool(self._roots)
        norms = UseNorms(reading.uses, weights, self._kept if again else None)
        norms.attach()
        handles = [self._watch(weight) for weight in weights]
        if weights:
            self._roots = [*self._roots, *nodes] if keeps else []
        # Before the pass, which lets go of them.
        kept = [kept_operands(reading.graph, w.weight, w.chains.steps) if self._looks(w) else [] for w in weights]
        parts: list[Any] = [norms, outside, kept]
        del norms, outside, reading

        def end(done: bool) -> None:
            try:
                for part in parts[:2]:
                    part.detach()
                for handle in handles:
                    handle.remove()
                if done:
                    self._end(parts[0], parts[1], parts[2], begun)
            except Exception as error:
                self.bug = error
            finally:
                # Before the collector wakes up, so that there is nothing of this for it to look at.
                parts.clear()
                pause.end()

        return end, self.want_decay

    def _is_itemised(self, reading: Reading, weight: WeightUses) -> bool:
        """Whether there is something to itemise; if not, it is noted why."""
        steps = weight.chains.steps
        why = None
        if any(reading.graph.made_at[use.node] < self._began for step in steps for use in step.uses):
            self.before[weight.name] = BEFORE
            return False
        if len(steps) == 1 and not weight.recurs and any(count > 1 for count, _ in self.counts.values()):
            by = reading.graph.ops[steps[0].uses[0].node].name
            why = ONCE.format(by=by)
        if why is not None:
            self.missing[weight.name] = why
        return why is None

    def _watch(self, weight: WeightUses) -> Any:
        def add(grad: Tensor | None) -> None:
            if grad is not None and self.block.is_here():
                wide = grad.detach().to(widest(grad), copy=True)
                before = self.totals.get(weight.name)
                self.totals[weight.name] = wide if before is None else before + wide

        return weight.weight.register_hook(add)  # type: ignore[no-untyped-call]

    def owner(self, name: str) -> str:
        """The class of the module that owns a weight."""
        return type(self.model.get_submodule(owner_of(name))).__name__

    def _looks(self, weight: WeightUses) -> bool:
        """Whether it is asked what its states are like: where its decay is, of one sequence of steps."""
        return self.want_decay and weight.recurs and len(weight.chains.chains) == 1

    def _end(self, norms: UseNorms, outside: Outside, kept: list[list[list[Tensor]]], begun: Pass) -> None:
        if (bug := norms.bug or outside.bug) is not None:
            raise bug
        if not norms.weights:
            return
        if self._twice:
            self.missing.update({weight.name: TWICE for weight in self._twice_reached(norms, begun)})
            self.found.clear()
            return
        with torch.no_grad():
            norms.settle()
            decays = _Decays(norms, self.want_decay)
            found = [with_states(use_steps(norms, i, *decays.of(i)), norms.weights[i], kept[i]) for i in norms.reached]
        # Of a graph that is passed through once more the last pass knows all.
        self.found = [each for each in self.found if not any(each is old for old in self._open)] + found
        self._open = found if begun.keeps else []

    def _twice_reached(self, norms: UseNorms, begun: Pass) -> list[WeightUses]:
        """Weights that a pass came to of which nothing is known."""
        if begun.creates:
            reached = [weight for weight in norms.weights if begun.brings_to([weight.weight])]
        else:
            reached = [norms.weights[i] for i in norms.reached]
        # The backward pass of a layer, differentiated, is a recurrence of all its weights; what is missing is its own.
        of_modules = {id(own) for calls in self.modules if calls.kept for own in calls.found.module.parameters()}
        return [weight for weight in reached if id(weight.weight) not in of_modules]


def _opaque(reading: Reading) -> str | None:
    """A whole program in one node, which weights enter."""
    for place in {use.node for use in reading.uses.edges}:
        name = reading.graph.nodes[place].name()
        for part, said in OPAQUE.items():
            if part in name:
                return said
    return None


class _Decays:
    """How a gradient that enters at the last step alone changes on its way back, for every weight."""

    def __init__(self, norms: UseNorms, wanted: bool) -> None:
        self.norms, self.wanted = norms, wanted
        self._passes: dict[Any, dict[Edge, float]] = {}

    def of(self, index: int) -> tuple[Decay | None, str | None]:
        """The decay, or why it is not known."""
        weight = self.norms.weights[index]
        if not self.wanted or not weight.recurs:
            return None, None
        chains = followed(weight)
        if any(step not in weight.states.of for steps in chains for step in steps):
            return None, "; ".join(dict.fromkeys(weight.states.why.values()))
        found = [own_decay(self.norms, index, steps) or self._swept(index, weight, steps) for steps in chains]
        decay, count = worst(found), len(weight.chains.chains)
        return (decay if decay is None or len(chains) == count else replace(decay, chains=count)), None

    def _swept(self, index: int, weight: WeightUses, steps: Sequence[int]) -> Decay | None:
        """By one more pass, from the last state alone that something enters."""
        entered = last_entry(self.norms, index, [weight.states.of[step] for step in steps])
        last = weight.states.of[steps[entered]].edges
        seeds = {edge: part for edge in last if (part := self.norms.direct_at(index, edge)) is not None}
        key = (tuple(seeds), tuple(state.edges for state in weight.states.of.values()))
        if not seeds:
            return None
        if key not in self._passes:
            self._passes[key] = self._pass(weight, seeds)
        arrived = self._passes[key]
        values = [sum(arrived.get(e, 0.0) ** 2 for e in weight.states.of[step].edges) ** 0.5 for step in steps]
        return decay_of(values, entered)

    def _pass(self, weight: WeightUses, seeds: dict[Edge, Tensor]) -> dict[Edge, float]:
        """The norms of what arrives at the states."""
        graph, latest = self.norms.graph, weight.states.latest
        # Past the engine: a hook of the user's has run once, and does not run again.
        arrived = swept(graph, seeds, lambda place: False, lambda place: latest[place] >= 0)
        states = {edge for state in weight.states.of.values() for edge in state.edges}
        return {edge: norm_of(arrived[edge]) for edge in states if edge in arrived}
