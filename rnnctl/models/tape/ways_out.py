"""What comes to a state from outside a recurrence: its consumers that lead to no later use, and the ways from there."""

from collections.abc import Callable

from rnnctl.errors import InputError
from rnnctl.models.tape.beside import Edge
from rnnctl.models.tape.graph import Graph
from rnnctl.models.tape.states import States

MOST_WAYS = 20_000
# How a gradient gets from a consumer of a state to the state: place, result and operand of every node on the way.
Way = tuple[tuple[int, int, int], ...]


def ways_out(
    graph: Graph, state: Edge, leads: Callable[[int], bool], passes: Callable[[int], bool]
) -> tuple[tuple[int, int, Way], ...]:
    """The consumers from which something comes that no later use has sent, and how it gets from there to a state.

    Args:
        leads: whether a place leads on to a later use.
        passes: whether such a place may be passed through: it leads on, and perhaps somewhere else as well.
    Returns:
        Place and operand of a consumer, and the nodes between.
    Raises:
        InputError: there are more ways than anybody follows: loops that feed one another have twice as many at every
            step.
    """
    found: list[tuple[int, int, Way]] = []
    waiting: list[tuple[Edge, Way]] = [(state, ())]
    for _ in range(MOST_WAYS):
        if not waiting:
            return tuple(found)
        edge, way = waiting.pop()
        for place, operand in graph.consumers.get(edge, ()):
            if place in graph.joins or (leads(place) and passes(place)):
                waiting += [
                    ((place, result), ((place, result, operand), *way))
                    for result in graph.results(place)
                    if (place, result) not in graph.taken_out
                ]
            elif not leads(place):
                found.append((place, operand, way))
    raise InputError(
        f"from one state a gradient goes more than {MOST_WAYS:,} ways, as where loops feed one another at every step. "
        "Try a shorter sequence"
    )


def ways_out_of_state(graph: Graph, state: Edge, states: set[int], known: States) -> tuple[tuple[int, int, Way], ...]:
    """Those of a state that a step hands on.

    Args:
        states: the places of all parts of the state: what makes one of another is no way out.
        known: what leads on to later uses.
    """
    latest, own, leads, joins = known.latest, known.latest[state[0]], known.leads, graph.joins
    consumers = graph.consumers.get(state, ())
    if all(latest[place] != own if place in leads else place not in joins for place, _ in consumers):
        # Each of them either begins a later step, or leads to none: by far the most states.
        return tuple((place, operand, ()) for place, operand in consumers if place not in leads)

    def passes(place: int) -> bool:
        return latest[place] == own and place not in known.uses and place not in states

    return ways_out(graph, state, known.leads.__contains__, passes)
