"""The loops that are read off autograd's graph."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rnnctl.models.around import START, Around, Where, takers_of
from rnnctl.models.loop_steps import Chain, Loop, LoopStep, Wanted
from rnnctl.models.parameter_uses import ForwardPass
from rnnctl.models.tape.steps import Chains, multiplies
from rnnctl.models.tape.uses import Bits, Use
from rnnctl.models.weight_uses import Asked, Reading, WeightUses

# What multiplies x, of a weight that multiplies x and h beside one another.
OTHER_COLUMNS = "other columns"


def loops_in_graph(found: ForwardPass, wanted: Wanted) -> Iterator[Loop]:
    """Those of weights that are found in autograd's graph.

    Args:
        found: the pass.
        wanted: of a parameter's name, whether it may stand for its loop.
    """
    reading = found.reading
    weights = [each for each in reading.of(Asked(lambda name, recurs: recurs)) if each.chains.steps]
    shared = [each.name for each in found.uses if (each.uses or 0) > 1]
    for members in _by_loop(reading, weights):
        # A matrix rather than a gain, the one that is used in most steps, the largest.
        picked = [each for each in members if wanted(each.name)]
        if picked:
            lead = min(picked, key=_rank)
            yield _InGraph(found, lead, members, weights, shared).loop()


def _rank(weight: WeightUses) -> tuple[bool, int, int]:
    """What stands for a loop is the least of these."""
    return weight.weight.dim() < 2, -len(weight.chains.steps), -weight.weight.numel()


def _by_loop(reading: Reading, weights: Sequence[WeightUses]) -> list[list[WeightUses]]:
    """The weights, those together of which each leads back to the other."""
    products = _products_behind(reading)
    behind = {each.bit: _behind(reading, each, products) for each in weights}
    found: list[list[WeightUses]] = []
    for each in weights:
        mates = [
            group for group in found if any(behind[each.bit] & one.bit and behind[one.bit] & each.bit for one in group)
        ]
        found = [*(group for group in found if group not in mates), [*(one for group in mates for one in group), each]]
    return found


def _products_behind(reading: Reading) -> list[Bits]:
    """Of every node the weights that were multiplied on the way to it; rows that are looked up are only given."""
    uses, found = reading.uses, list[Bits]()
    entering: dict[int, Bits] = {}
    for use in uses.edges:
        if multiplies(uses, use):
            entering[use.node] = entering.get(use.node, 0) | uses.made_of[uses.source(use)]
    for place, edges in enumerate(reading.graph.flows):
        bits = entering.get(place, 0)
        for before, _ in edges:
            bits |= found[before] if before >= 0 else 0
        found.append(bits)
    return found


def _behind(reading: Reading, weight: WeightUses, behind: Sequence[Bits]) -> Bits:
    """The weights behind what a weight is multiplied with."""
    edges = (edge for step in weight.chains.steps for use in step.uses for edge in reading.uses.multiplied_with(use))
    found = 0
    for place, _ in edges:
        found |= behind[place]
    return found


def _encloses(weight: WeightUses, lead: WeightUses) -> bool:
    """Whether a whole loop lies between uses of a weight: an embedding that is tied to the readout."""
    return any(use.node in weight.states.leads for step in lead.chains.steps for use in step.uses)


def _state_places(weight: WeightUses) -> Iterator[int]:
    """What the state goes through from use to use, and at the end."""
    yield from weight.states.leads
    for state in weight.states.of.values():
        yield from (place for place, _ in state.edges)


def _knows_last_states(weight: WeightUses) -> bool:
    return all(chain.steps[-1] in weight.states.of for chain in weight.chains.chains)


@dataclass
class _Placed:
    """A use of a shared weight by its name: where it enters (None: yet to be told) and by which step of how many."""

    name: str
    where: Where | None
    step: int
    depends: bool
    last: int


class _InGraph:
    """One loop, read off the graph.

    Args:
        lead: the weight that stands for it.
        members: the recurrent weights of the loop.
        weights: all recurrent weights.
        shared: names of the parameters that are used more than once.
    """

    def __init__(
        self,
        found: ForwardPass,
        lead: WeightUses,
        members: Sequence[WeightUses],
        weights: Sequence[WeightUses],
        shared: Sequence[str],
    ) -> None:
        self._lead, self._members, self._layers = lead, members, found.within_layers
        self._reading = reading = found.reading
        # In the order in which they are told, what the state goes through first.
        self._order = {**{name: number for number, name in enumerate(shared)}, lead.name: -1}
        own, every = (sum(each.bit for each in group) for group in (members, weights))
        before = own | _behind(reading, lead, reading.uses.behind) & every
        self._after = every & ~before
        others = [each for each in weights if each.bit & before and (each.bit & own or not _encloses(each, lead))]
        self._theirs = frozenset(place for each in others for place in _state_places(each))
        # Where a last state is not known, all that depends on the weight has to do.
        self._behind = sum(each.bit for each in others if not _knows_last_states(each))
        self._takers = takers_of(reading.graph)
        self._uses_at: dict[int, list[Use]] = {}
        for use in reading.uses.edges:
            self._uses_at.setdefault(use.node, []).append(use)
        self._names: dict[Bits, list[str]] = {}

    def loop(self) -> Loop:
        """Its steps, chain by chain."""
        around = [self._around(chain) for chain in range(len(self._lead.chains.chains))]
        placed = [_begun(list(self._placed(each))) for each in around]
        _settle([use for uses in placed for use in uses], {each.name for each in self._members})
        drawn = tuple(
            _chain(each.follows, [*self._beside_state(number), *uses], self._order)
            for number, (each, uses) in enumerate(zip(around, placed, strict=True))
        )
        others = tuple(each.name for each in self._members if each.name != self._lead.name)
        return Loop(self._lead.name, others, drawn)

    def _around(self, number: int) -> Around:
        chains = self._lead.chains
        chain = chains.chains[number].steps
        # Others of the loop that go along with it, step by step.
        along = [each.chains for each in self._members if _goes_along(each.chains, chains)]
        steps = [
            list(dict.fromkeys(use for each in along for use in each.steps[each.chains[number].steps[t]].uses))
            for t in range(len(chain))
        ]
        states = self._lead.states.of
        # Where one is not known, the others are of a pattern that says little.
        known = all(step in states for step in chain)
        handed = [[place for place, _ in states[step].edges] if known else [] for step in chain]
        return Around(
            self._reading.uses,
            self._takers,
            steps,
            handed=handed,
            behind=self._behind,
            after=self._after,
            layers=self._layers,
            theirs=self._theirs,
        )

    def _placed(self, around: Around) -> Iterator[_Placed]:
        """The uses of shared weights that have to do with a chain."""
        for place in sorted(around.places):
            for use in self._uses_at.get(place, ()):
                where, step = around.where(place)
                for name in self._names_at(use):
                    yield _Placed(name, where, step, around.depends(place), around.last)

    def _beside_state(self, number: int) -> Iterator[_Placed]:
        """Where the weight is applied to x and h beside one another: x enters there, too."""
        chains = self._lead.chains
        for t, step in enumerate(chains.chains[number].steps):
            if any(self._lead.columns.get(use) is not None for use in chains.steps[step].uses):
                yield _Placed(f"{self._lead.name} ({OTHER_COLUMNS})", "given", t, False, t)

    def _names_at(self, use: Use) -> list[str]:
        """The shared weights that enter by a use."""
        made_of = self._reading.uses.made_of[self._reading.uses.source(use)]
        if made_of not in self._names:
            bits, names = self._reading.bits, self._reading.names
            found = (name for place, name in names.items() if bits[place] & made_of and name in self._order)
            self._names[made_of] = list(dict.fromkeys(found))
        return self._names[made_of]


def _goes_along(one: Chains, other: Chains) -> bool:
    """Whether two weights have the same chains of as many steps."""
    return [len(chain.steps) for chain in one.chains] == [len(chain.steps) for chain in other.chains]


def _begun(placed: list[_Placed]) -> list[_Placed]:
    """What leads to the beginning of the first step is given there, if it is at the next one and not yet at this."""
    given = {step: {each.name for each in placed if each.where == "given" and each.step == step} for step in (0, 1)}
    for each in placed:
        if each.step == START and each.name in given[1] - given[0]:
            each.step = 0
    return placed


def _settle(placed: Sequence[_Placed], members: set[str]) -> None:
    """At last steps nothing may follow that shows what a use is for: it is for what it is for at other steps."""
    seen: dict[tuple[str, bool], Counter[Where]] = {}
    for each in placed:
        if each.where is not None:
            seen.setdefault((each.name, each.depends), Counter())[each.where] += 1
    for each in placed:
        if each.where is None:
            usual = seen.get((each.name, each.depends))
            each.where = usual.most_common(1)[0][0] if usual else "read" if each.depends else "given"
            each.step = each.step if each.where == "read" else each.last
        if each.name in members and each.where == "given":
            # It multiplies a state that is a constant yet.
            each.where, each.step = "state", max(each.step, 0)


def _chain(follows: Sequence[tuple[int, ...]], placed: Sequence[_Placed], order: Mapping[str, int]) -> Chain:
    start = Counter[str]()
    steps: list[dict[Where | None, Counter[str]]] = [
        {"state": Counter(), "given": Counter(), "read": Counter()} for _ in follows
    ]
    for each in sorted(placed, key=lambda each: order.get(each.name, -1)):
        entering = start if each.step == START else steps[each.step][each.where]
        entering[each.name] += 1
    return Chain(
        tuple(
            LoopStep(before, step["state"], step["given"], step["read"])
            for before, step in zip(follows, steps, strict=True)
        ),
        start,
    )
