"""What a backward pass sends to every use of a weight, and to the states between them, as it passes by."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from rnnctl.gradients.norm_book import WHOLE, NormBook, Runs, SummedBook, norm_of
from rnnctl.models.tape.beside import Edge
from rnnctl.models.tape.columns import Columns
from rnnctl.models.tape.pull_back import keeps_norm, pulled_back, through
from rnnctl.models.tape.steps import Piece, Step
from rnnctl.models.tape.uses import Use, Uses
from rnnctl.models.tape.ways_out import Way, ways_out_of_state
from rnnctl.models.weight_uses import WeightUses

# Told of a contribution: the weight, the number of its step, and the contribution in the shape of the weight.
Matrix = Callable[[WeightUses, int, Tensor], None]
Grads = Sequence[Tensor | None]
Taker = Callable[[Grads], None]
# Names of norms: of the columns that multiply the state, and of the others.
STATE, REST = WHOLE, "rest"


class UseNorms:
    """Hooks on one graph, from ``attach`` to ``detach``; ``settle`` before anything is read.

    Args:
        uses: of the graph.
        weights: what is watched.
        kept: gradients of earlier passes through the same graph, which later ones add to; None where there is one.
        matrix: told of every contribution; None where the norms will do.
    Attributes:
        bug: an error within a hook, which is kept from the user's pass.
        arrived: by state, the norm of all that arrived there.
        books: by weight and part of it, what came to its uses.
        matrices: by weight and step, the sum of its contributions in the shape of the weight, where its uses overlap.
    """

    def __init__(
        self,
        uses: Uses,
        weights: Sequence[WeightUses],
        kept: dict[Any, Tensor] | None = None,
        matrix: Matrix | None = None,
    ) -> None:
        self.uses, self.graph, self.weights, self.matrix = uses, uses.graph, weights, matrix
        self.bug: Exception | None = None
        self.arrived = NormBook()
        self.books: list[dict[Any, tuple[Edge, SummedBook]]] = [{} for _ in weights]
        self.matrices: list[dict[int, Tensor]] = [{} for _ in weights]
        # By state and by what sends it: weights of one cell mostly share both.
        self._direct: dict[Any, Tensor] = {}
        self._direct_norms: dict[Hashable, float] = {}
        self._direct_key: dict[tuple[int, Edge], Any] = {}
        self._kept = kept
        # Of what earlier passes brought and this one does not: to be noted once it has gone by.
        self._recalls: list[Callable[[], None]] = []
        self._handles: list[Any] = []
        self._after: dict[int, list[Taker]] = {}
        self._before: dict[int, set[int]] = {}
        for index, weight in enumerate(weights):
            self._plan_uses(index, weight)
            for state in weight.states.of.values():
                for place, result in state.edges:
                    self._before.setdefault(place, set()).add(result)
        self._plan_direct()

    @property
    def reached(self) -> list[int]:
        """The weights that a gradient came to, by their places among all."""
        return [
            index
            for index, books in enumerate(self.books)
            if self.matrices[index] or any(book.total is not None for _, book in books.values())
        ]

    def attach(self) -> None:
        """Set the hooks."""
        nodes, handles = self.graph.nodes, self._handles
        for place, takes in self._after.items():
            handles.append(nodes[place].register_hook(self._taking(takes)))
        for place, results in self._before.items():
            handles.append(nodes[place].register_prehook(self._arriving(place, sorted(results))))

    def detach(self) -> None:
        """Take them away."""
        while self._handles:
            self._handles.pop().remove()
        # They hold this object, which holds them, and all of the graph.
        self._after.clear()
        self._before.clear()

    def settle(self) -> None:
        """Take all norms that wait."""
        for recall in self._recalls:
            recall()
        self._recalls.clear()
        self.arrived.settle()
        for books in self.books:
            for _, summed in books.values():
                summed.settle()
        missing = [key for key in self._direct if key not in self._direct_norms]
        book = NormBook()
        for key in missing:
            book.add(key, self._direct[key])
        book.settle()
        self._direct_norms |= book.norms

    def forget(self) -> None:
        """Before another pass through the same graph that is to be told apart from the last one."""
        for books in self.books:
            for _, book in books.values():
                book.clear()
        self.matrices = [{} for _ in self.weights]
        self.arrived.clear()
        self._direct.clear()
        self._direct_norms.clear()

    def direct_at(self, index: int, edge: Edge) -> Tensor | None:
        """What came to a state of a weight from outside its recurrence; None where nothing did."""
        return self._direct.get(self._direct_key[index, edge])

    def direct_norm(self, index: int, edge: Edge) -> float:
        """The norm of that; exactly 0 where nothing came."""
        return self._direct_norms.get(self._direct_key[index, edge], 0.0)

    def _plan_uses(self, index: int, weight: WeightUses) -> None:
        plain: dict[Piece, bool] = {}
        inputs, is_simple = self.graph.inputs, self.matrix is None and self._kept is None
        for number, step in enumerate(weight.chains.steps):
            overlaps = len(step.uses) > 1 and overlap(step)
            for use, piece in zip(step.uses, step.pieces, strict=True):
                edge = inputs[use.node][use.operand]
                if piece not in plain:
                    plain[piece] = keeps_norm(self.graph, edge, weight.place)
                if is_simple and plain[piece] and not overlaps:
                    book = self.book(index, piece, edge, weight.columns.get(use))
                    self._at(use[0], _adding(use, book))
                else:
                    self._at(use[0], _UseTaker(self, index, number, use, edge).best(piece, plain[piece], overlaps))
        for use in weight.beside:
            edge = self.graph.inputs[use.node][use.operand]
            self._at(use.node, _UseTaker(self, index, -1, use, edge).beside())

    def book(self, index: int, key: Any, edge: Edge, columns: Columns | None) -> SummedBook:
        """The book of one part of a weight, which enters there."""
        books = self.books[index]
        if key not in books:
            parts = None if columns is None else Runs(columns.axis, {STATE: columns.state, REST: columns.others})
            books[key] = edge, SummedBook(parts)
        return books[key][1]

    def _at(self, place: int, take: Taker) -> None:
        self._after.setdefault(place, []).append(take)

    def _plan_direct(self) -> None:
        """What is sent to a state by those of its consumers that lead to no later use."""
        planned: dict[Any, None] = {}
        for index, weight in enumerate(self.weights):
            for state in weight.states.of.values():
                places = {place for place, _ in state.edges}
                for edge in state.edges:
                    ways = ways_out_of_state(self.graph, edge, places, weight.states)
                    key = self._direct_key[index, edge] = (edge, ways)
                    planned[key] = None
        for key in planned:
            for place, operand, way in key[1]:
                self._at(place, self._direct_taker(key, (place, operand, way)))

    def _taking(self, takes: Sequence[Taker]) -> Callable[..., None]:
        enabled = torch.is_grad_enabled

        def hook(grads: Grads, _: Any) -> None:
            if enabled():
                # Differentiated further: nothing is asked of it.
                return
            try:
                for take in takes:
                    take(grads)
            except Exception as error:
                self.bug = error

        if len(takes) > 1:
            return hook
        (only,) = takes

        def hook_of_one(grads: Grads, _: Any) -> None:
            if enabled():
                return
            try:
                only(grads)
            except Exception as error:
                self.bug = error

        return hook_of_one

    def _arriving(self, place: int, results: Sequence[int]) -> Callable[..., None]:
        add, kept = self.arrived.add, self._kept
        if kept is not None:
            self._recalls.append(lambda: self._recall_states(place, results))

        def hook(grads: Grads) -> None:
            for result in results:
                grad = grads[result]
                if grad is not None:
                    if kept is not None:
                        grad = self.with_earlier(("state", self.graph.nodes[place], result), grad)
                    add((place, result), grad)

        return hook

    def _recall_states(self, place: int, results: Sequence[int]) -> None:
        self.arrived.settle()
        for result in results:
            grad = (self._kept or {}).get(("state", self.graph.nodes[place], result))
            if grad is not None and (place, result) not in self.arrived.norms:
                self.arrived.add((place, result), grad)

    def with_earlier(self, key: Hashable, grad: Tensor) -> Tensor:
        """The gradient, of any shape, with what earlier passes through the same node brought."""
        if self._kept is None:
            return grad
        before = self._kept.get(key)
        whole = self._kept[key] = grad.detach().clone() if before is None else before + grad.detach()
        return whole

    def _direct_taker(self, key: Any, sender: tuple[int, int, Way]) -> Taker:
        direct, graph = self._direct, self.graph
        place, operand, way = sender
        nodes = tuple(graph.nodes[each] for each in (place, *(each for each, _, _ in way)))
        kept, own = self._kept, ("direct", nodes, operand, key[0][1])
        if kept is not None and own in kept:
            direct[key] = direct[key] + kept[own] if key in direct else kept[own]

        def take(grads: Grads) -> None:
            grad = grads[operand]
            if grad is not None and way:
                grad = through(graph, grad, way)
            if grad is not None:
                if kept is not None:
                    kept[own] = kept[own] + grad if own in kept else grad
                # Held and not copied: autograd does not change what it does not hold alone.
                direct[key] = direct[key] + grad if key in direct else grad

        return take


def _adding(use: Use, book: SummedBook) -> Taker:
    """What takes in what is sent to a use, where no more is asked than its norm."""
    operand, add = use.operand, book.add

    def take(grads: Grads) -> None:
        grad = grads[operand]
        if grad is not None:
            add(use, grad)

    return take


class _UseTaker:
    """Takes what is sent to one use of a weight."""

    def __init__(self, norms: UseNorms, index: int, number: int, use: Use, edge: Edge) -> None:
        self.norms, self.index, self.number, self.use, self.edge = norms, index, number, use, edge
        self.weight = norms.weights[index]
        self.columns = self.weight.columns.get(use)

    def best(self, piece: Piece, plain: bool, overlaps: bool) -> Taker:
        """What does least for what is asked."""
        if not plain:
            # At once in the shape of the weight: what the nodes on the way back have saved is gone afterwards.
            return self._made(self.norms.book(self.index, ("made",), (self.weight.place, 0), None), overlaps)
        return self._careful(self.norms.book(self.index, piece, self.edge, self.columns), overlaps)

    def beside(self) -> Taker:
        """Of a use that is no step."""
        return self._plain_made(self.norms.book(self.index, ("beside",), (self.weight.place, 0), None))

    def _careful(self, book: SummedBook, overlaps: bool) -> Taker:
        def note(grad: Tensor) -> None:
            book.add(self.use, grad)
            self._tell(_masked(grad, self.columns, True), overlaps)

        return self._noting(note)

    def _noting(self, note: Callable[[Tensor], None]) -> Taker:
        """What notes the gradient of this pass with those of earlier ones, or theirs alone."""
        seen: list[None] = []

        def take(grads: Grads) -> None:
            grad = self._grad(grads)
            if grad is not None:
                seen.append(None)
                note(grad)

        def recall() -> None:
            grad = (self.norms._kept or {}).get(self._key)
            if grad is not None and not seen:
                note(grad)

        if self.norms._kept is not None:
            self.norms._recalls.append(recall)
        return take

    def _made(self, book: SummedBook, overlaps: bool) -> Taker:
        """Of a weight that is made of the parameter: norms are those of what comes back to the parameter."""

        def note(grad: Tensor) -> None:
            state, rest = (_masked(grad, self.columns, of_state) for of_state in (True, False))
            self._tell(state, overlaps)
            parts = {name: self._back(part) for name, part in ((STATE, state), (REST, rest)) if part is not None}
            for name, part in parts.items():
                book.norms.setdefault(name, {})[self.use] = norm_of(part)
                book.add_up(part, grad.dtype)

        return self._noting(note)

    def _plain_made(self, book: SummedBook) -> Taker:
        return self._noting(lambda grad: book.add_up(self._back(grad), grad.dtype))

    def _grad(self, grads: Grads) -> Tensor | None:
        grad = grads[self.use.operand]
        return None if grad is None else self.norms.with_earlier(self._key, grad)

    @property
    def _key(self) -> Hashable:
        return self.weight.name, self.norms.graph.nodes[self.use.node], self.use.operand

    def _back(self, grad: Tensor) -> Tensor:
        """In the shape of the weight."""
        return pulled_back(self.norms.graph, grad, self.edge, self.weight.place, self.norms.uses.made_of)

    def _tell(self, grad: Tensor | None, overlaps: bool) -> None:
        """Of the contribution in the shape of the weight, where anybody asks for it."""
        if grad is None or not (overlaps or self.norms.matrix is not None):
            return
        whole = self._back(grad)
        if overlaps:
            matrices = self.norms.matrices[self.index]
            before = matrices.get(self.number)
            matrices[self.number] = whole.clone() if before is None else before + whole
        if self.norms.matrix is not None:
            self.norms.matrix(self.weight, self.number, whole)


def _masked(grad: Tensor, columns: Columns | None, of_state: bool) -> Tensor | None:
    """The gradient with zeros in the other columns."""
    if columns is None:
        return grad if of_state else None
    keep = torch.zeros(grad.shape[columns.axis], dtype=grad.dtype, device=grad.device)
    keep[columns.index.to(grad.device)] = 1
    along = [1] * grad.dim()
    along[columns.axis] = -1
    return grad * (keep if of_state else 1 - keep).view(along)


def overlap(step: Step) -> bool:
    """Whether uses of one step may take the same numbers of the weight."""
    if len(step.uses) == 1:
        return False
    parts = [region_of(piece) for piece in step.pieces]
    return None in parts or len(set(parts)) < len(parts) or len({part[1:] for part in parts if part}) > 1


def region_of(piece: Piece) -> tuple[Any, ...] | None:
    """Which part of an even division of a weight a piece is, and of which division; None for anything else."""
    for place, part in enumerate(piece[:-1]):
        name, result, *rest = part
        if name in ("Split", "SplitWithSizes", "Unbind", "UnsafeSplit", "UnsafeSplitWithSizes"):
            return (result, name, piece[place + 1 :])
        if name == "Select":
            return (rest[1], name, rest[0], piece[place + 1 :])
        if name == "Slice":
            return (rest[1], name, rest[0], rest[2] - rest[1], piece[place + 1 :]) if rest[1] >= 0 else None
    return None
