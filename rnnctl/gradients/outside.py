"""What comes to the states of a module's calls past all its later calls, however the states are handed on."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor

from rnnctl.models.calls import Call
from rnnctl.models.recording import Calls
from rnnctl.models.tape.beside import Edge
from rnnctl.models.tape.graph import Graph, within
from rnnctl.models.tape.pull_back import through
from rnnctl.models.tape.ways_out import Way, ways_out

# What is handed on from call to call, and what is made of it.
HANDED_ON = ("h", "c", "output", "h_n", "c_n")
# Place, operand and way of what sends something; and who takes it.
Plan = tuple[int, int, Way, Callable[[Tensor], None]]
# Of a call, one of its results, where it was made, and whether that is the node of a view.
Results = list[tuple[Call, str, Edge, bool]]


class Outside:
    """Hooks on the graph of one backward pass, from ``attach`` to ``detach``, for modules that are called repeatedly.

    Args:
        graph: of the pass.
        modules: their calls, of which only those are asked that were given more than the state that another one made.
    """

    def __init__(self, graph: Graph, modules: Iterable[Calls]) -> None:
        self._graph = graph
        self._handles: list[Any] = []
        self.bug: Exception | None = None
        self._plans = [plan for calls in modules if _is_asked(calls) for plan in self._planned(calls.kept)]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to look for."""
        return not self._plans

    def attach(self) -> None:
        """Set the hooks."""
        for place, operand, way, take in self._plans:
            self._handles.append(self._graph.nodes[place].register_hook(self._taking(operand, way, take)))

    def detach(self) -> None:
        """Take them away."""
        while self._handles:
            self._handles.pop().remove()
        self._plans.clear()

    def _planned(self, calls: list[Call]) -> Iterable[Plan]:
        spans = [call.received.span for call in calls]
        by_states = self._between((node for call in calls for node, _ in call.received.given), spans)
        by_inputs = self._between((node for call in calls for node, _ in call.received.fed), spans) | by_states
        results = [(call, *found) for call in calls for found in self._results(call)]
        if self._go_round(results, by_states):
            yield from self._ways(results, by_states, spans, "outside")
        if self._go_round(results, by_inputs):
            yield from self._ways(results, by_inputs, spans, "entering")

    def _go_round(self, results: Results, between: set[int]) -> bool:
        """Whether what was returned is not just handed over as it is."""
        consumers = self._graph.consumers
        return any(place in between for _, _, edge, _ in results for place, _ in consumers.get(edge, ()))

    def _ways(self, results: Results, between: set[int], spans: list[tuple[int, int]], what: str) -> Iterable[Plan]:
        graph = self._graph

        def leads(place: int) -> bool:
            return place in between or within(graph.made_at[place], spans)

        for call, name, edge, of_view in results:
            into: dict[str, Tensor] | None = getattr(call.received, what)
            if into is None:
                # One for all names, empty or not.
                into = {}
                setattr(call.received, what, into)
            take = partial(call.received.came, into, name, of_view=of_view)
            for place, operand, way in ways_out(graph, edge, leads, between.__contains__):
                yield place, operand, way, take

    def _results(self, call: Call) -> Iterable[tuple[str, Edge, bool]]:
        """What of its results the graph knows: within a layer's call, only the last node is in it."""
        places, received = self._graph.places, call.received
        for name, (node, result) in received.sites.items():
            of_view = node not in places and name in received.views
            made, number = received.views[name] if of_view else (node, result)
            if name in HANDED_ON and made in places:
                yield name, (places[made], number), of_view

    def _between(self, nodes: Iterable[Any], spans: list[tuple[int, int]]) -> set[int]:
        """Places of the nodes between one call and the next, which shape what another call returned."""
        graph = self._graph
        waiting = [graph.places[node] for node in nodes if node in graph.places]
        found: set[int] = set()
        while waiting:
            place = waiting.pop()
            if place not in found and not within(graph.made_at[place], spans):
                found.add(place)
                waiting += [before for before, _ in graph.flows[place] if before >= 0]
        return found

    def _taking(self, operand: int, way: Way, take: Callable[[Tensor], None]) -> Any:
        def hook(grads: Any, _: Any) -> None:
            grad: Tensor | None = grads[operand]
            try:
                if grad is not None and way:
                    grad = through(self._graph, grad, way)
                if grad is not None:
                    take(grad.detach())
            except Exception as error:
                self.bug = error

        return hook


def _is_asked(calls: Calls) -> bool:
    """Whether a later call was given more, as autograd sees it, than the state that an earlier one returned."""
    return any(call.received.fed or (call.source is None and call.received.given) for call in calls.kept[1:])
