"""The loops of a forward pass: of weights that are found in autograd's graph, and of layers of known classes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rnnctl.models.graph_loops import loops_in_graph
from rnnctl.models.layer_runs import Run
from rnnctl.models.loop_steps import Chain, Entering, Loop, LoopStep, Wanted
from rnnctl.models.parameter_uses import ForwardPass, ParameterUse


def loops_of(found: ForwardPass, wanted: Wanted) -> list[Loop]:
    """The loops of a forward pass, in the order of the model's parameters.

    Parameters that are used once are for all steps, and left out of the steps.

    Args:
        found: the pass.
        wanted: of a parameter's name, whether it may stand for its loop.
    """
    loops: dict[str, Loop] = {}
    for loop in (*loops_in_graph(found, wanted), *_of_layers(found, wanted)):
        # One weight under several names, in several layers.
        before = loops.get(loop.weight)
        loops[loop.weight] = loop if before is None else _joined(before, loop)
    return [loops[each.name] for each in found.uses if each.name in loops]


def _joined(one: Loop, other: Loop) -> Loop:
    others = tuple(dict.fromkeys((*one.others, *other.others)))
    return replace(one, others=others, chains=(*one.chains, *other.chains))


def _of_layers(found: ForwardPass, wanted: Wanted) -> Iterator[Loop]:
    """Those of layers of known classes: of every layer and direction one, and its weights by what they are for."""
    by_place: dict[tuple[str, str], list[tuple[ParameterUse, str]]] = {}
    for use in found.uses:
        for slot in found.slots(use.parameter) if use.uses is not None else ():
            by_place.setdefault((slot.layer, slot.place), []).append((use, slot.weight))
    for (layer, place), weights in by_place.items():
        state, given = ([use for use, weight in weights if _is_given(weight) == way] for way in (False, True))
        recurrent = [use for use in (*state, *given) if use.recurs]
        picked = [use for use in recurrent if wanted(use.name)]
        if picked:
            lead = min(picked, key=lambda use: (use in given, use.parameter.dim() < 2, -use.parameter.numel()))
            others = tuple(use.name for use in recurrent if use is not lead)
            beside = [use for use in given if use is not lead]
            step = LoopStep((), _once_each([lead, *state]), _once_each(beside), {})
            chains = tuple(_chains_of(found.layers[layer], step))
            yield Loop(lead.name, others, chains, backward=place.endswith("_reverse"))


def _is_given(weight: str) -> bool:
    """Whether a weight of a layer is on the way of its input."""
    return "_ih_" in weight


def _once_each(uses: Sequence[ParameterUse]) -> Entering:
    return {use.name: 1 for use in uses if (use.uses or 0) > 1}


def _chains_of(runs: Sequence[Run], step: LoopStep) -> Iterator[Chain]:
    """The runs of one layer, those that take up one another's states together."""
    lengths: dict[int, int] = {}
    start_of: list[int] = []
    for number, run in enumerate(runs):
        # A state that is taken up, or else an output that is fed back.
        before = run.fed_by if run.follows is None else run.follows
        start_of.append(number if before is None else start_of[before])
        lengths[start_of[-1]] = lengths.get(start_of[-1], 0) + run.steps
    for length in lengths.values():
        yield Chain(tuple(replace(step, follows=(t - 1,) if t else ()) for t in range(length)))
