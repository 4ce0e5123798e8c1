"""What a loop of a forward pass is: a recurrent weight, its steps, and what else enters at each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

# Weights by name, and how often each is used.
Entering = Mapping[str, int]
# Of a parameter's name, whether it may stand for its loop.
Wanted = Callable[[str], bool]


@dataclass(frozen=True)
class LoopStep:
    """One step of a recurrent weight.

    Attributes:
        follows: the steps whose state it takes, by their numbers in the chain; none of a first step.
        state: what the state goes through: the weight itself, others of its loop, and what is added there.
        given: what is used on the way from outside into the step.
        read: what is used on the state after the step, and leads to no later one.
    """

    follows: tuple[int, ...]
    state: Entering
    given: Entering
    read: Entering


@dataclass(frozen=True)
class Chain:
    """Steps that follow one another, and what is used on the way to the state before the first of them."""

    steps: tuple[LoopStep, ...]
    start: Entering = field(default_factory=dict)


@dataclass(frozen=True)
class Loop:
    """A recurrent weight and its steps.

    Attributes:
        weight: its name.
        others: recurrent weights of the same loop: each leads back to the others.
        chains: sequences (windows, directions) that no state links.
        backward: of a layer's reverse direction: step 0 takes the last input.
    """

    weight: str
    others: tuple[str, ...]
    chains: tuple[Chain, ...]
    backward: bool = False
