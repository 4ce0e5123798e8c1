"""Which call of a module made a state that is now handed to it again."""

from typing import Any

from torch import Tensor, nn

# So many operations between one call and the next are looked through: a mask, dropout, a slice.
DEEPEST = 6


class Sources:
    """The states that modules have made, by the tensor and by the node of the graph."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], tuple[Tensor, int, int]] = {}
        self._nodes: dict[tuple[int, int], tuple[Any, int]] = {}

    def add(self, module: nn.Module, state: Tensor, number: int) -> None:
        """Note the state, of any shape, that the module's call of this number has made."""
        # Both are held: an id is only good as long as its object lives.
        self._made[id(module), id(state)] = (state, state._version, number)
        self._nodes[id(module), id(state.grad_fn)] = (state.grad_fn, number)

    def of(self, module: nn.Module, state: Tensor | None) -> int | None:
        """The number of the call, or None for a state of any shape that came from elsewhere or was changed since."""
        if state is None or (id(module), id(state)) not in self._made:
            return None
        _, version, number = self._made[id(module), id(state)]
        return number if version == state._version else None

    def behind(self, module: nn.Module, state: Tensor | None) -> int | None:
        """The number of the call from whose state a few operations made this one, of any shape, or None."""
        nodes = [] if state is None or state.grad_fn is None else [state.grad_fn]
        for _ in range(DEEPEST):
            for node in nodes:
                if (id(module), id(node)) in self._nodes:
                    return self._nodes[id(module), id(node)][1]
            # As many at each depth: this is done at every call of a cell, whose graph may be wide.
            nodes = [after for node in nodes for after, _ in node.next_functions if after is not None][:DEEPEST]
        return None
