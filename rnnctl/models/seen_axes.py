"""How many steps of how many sequences the recurrent weights of a model saw, and over which axis of its input."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnctl.models.calls import argument, state_of
from rnnctl.models.forwards import Onlooker, looked_on
from rnnctl.models.inputs import Inputs, memory_of
from rnnctl.models.module_calls import tensors_in
from rnnctl.models.modules import class_of, is_layer, recurrent_weights
from rnnctl.models.tape.uses import Use
from rnnctl.models.weight_uses import Reading

# Of an input's first two axes.
Axis = Literal["batch", "time"]
# What a weight ran over: the input's time or its sequences (which of them is not to be told), or something else.
Over = Literal["time", "sequences", "either", "else"]


class Seen(NamedTuple):
    """What one recurrent weight saw in one call, or in one chain of steps.

    Attributes:
        weight: its name in the model.
        steps: how many.
        sequences: the axes beside those of features, of which one counts the sequences; in general one.
        along: the axis of the input along which its steps lie, where its memory tells; else None.
        counts_uses: whether steps are uses, of which a first step that has no state yet may have none.
        begins: whether it was given no state.
        batch_first: whether it is of a layer that says of its sequences that they come first, as in the input.
    """

    weight: str
    steps: int
    sequences: tuple[int, ...]
    along: Axis | None = None
    counts_uses: bool = False
    begins: bool = False
    batch_first: bool = False

    def over(self, axes: Collection[tuple[int, int]]) -> Over:
        """What it ran over.

        Args:
            axes: (batch, time) of the inputs.
        """
        # More steps than there are: several sequences in a row.
        if self.along == "time" and any(self.steps <= time for _, time in axes):
            return "time"
        if self.along == "batch" and any(self._is(batch, time) for batch, time in axes):
            return "sequences"
        if any(batch != time and self._is(time, batch) for batch, time in axes):
            return "time"
        if any(batch != time and self._is(batch, time) and batch not in self.sequences for batch, time in axes):
            return "sequences"
        if any(batch == time > 1 and self._is(time, batch) for batch, time in axes):
            return "time" if self.batch_first else "either"
        return "else"

    def is_odd(self, batch: int, time: int) -> bool:
        """Whether nobody would expect it of so many sequences: steps as sequences, or the sequences in a row."""
        as_sequences = time > 1 and time in self.sequences and batch not in self.sequences
        return as_sequences or (min(batch, time) > 1 and batch * time in (self.steps, *self.sequences))

    def said(self, axes: Collection[tuple[int, int]]) -> str:
        """In words: "rnn.weight_hh_l0 saw 1 step of 30 sequences"."""
        sequences = next((time for _, time in axes if time in self.sequences), self.sequences[0])
        # As many steps as sequences: the numbers do not tell what memory does.
        told = ", its steps along the input's sequences" if self.along == "batch" and self.steps == sequences else ""
        return f"{self.weight} saw {counted(self.steps, 'step')} of {counted(sequences, 'sequence')}{told}"

    def _is(self, steps: int, sequences: int) -> bool:
        return steps in (self.steps, self.steps + self.counts_uses) and sequences in self.sequences


def counted(count: int, what: str) -> str:
    """A number of steps or sequences: "1 step"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


class SeenCalls:
    """What the layers and cells of known classes in a model see while they are looked on.

    Args:
        model: any module.
        inputs: that it is called with, as they were given.
    Attributes:
        modules: those that ran.
        states: that they returned, of layers (layers, batch, ...).
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        self._inputs, self._named = inputs, [each for each in model.named_modules() if class_of(each[1]) is not None]
        # Of every module's weight the chains of calls that take up one another's states.
        self._chains: dict[str, list[list[Seen]]] = {}
        self.modules: list[nn.Module] = []
        self.states: list[Tensor] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Within, calls are noted."""
        with ExitStack() as stack:
            for name, module in self._named:
                stack.enter_context(looked_on(module, self._onlooker(name, module)))
            yield

    @property
    def found(self) -> list[Seen]:
        """One of every chain of calls, or of all chains of a module together."""
        parts = ([self._joined(calls) for calls in chains] for chains in self._chains.values())
        return [each for chains in parts for each in self._together(chains)]

    def _joined(self, calls: Sequence[Seen]) -> Seen:
        """One of all calls of a chain; or the first alone, where the others go on beyond what was given."""
        first = calls[0]
        whole = first.over(self._inputs.axes) != "else"
        return first if whole else first._replace(steps=sum(each.steps for each in calls))

    def _together(self, parts: Sequence[Seen]) -> list[Seen]:
        """One of every part, a chain of calls; or one of all, where together they are all that was given.

        Parts may be windows of time, if what is handed on is not a state as it was made, or single sequences.
        """
        first, steps = parts[0], sum(each.steps for each in parts)
        # What begins without a state follows nothing.
        follow = not all(each.begins for each in parts[1:])
        ways = [way for batch, time in self._inputs.axes for way in ((batch, time), (time, batch))]
        if follow and any(steps == time and {each.sequences for each in parts} == {(batch,)} for batch, time in ways):
            return [first._replace(steps=steps)]
        alike = {(each.steps, each.sequences) for each in parts} == {(first.steps, (1,))}
        if alike and (len(parts), first.steps) in ways:
            return [first._replace(sequences=(len(parts),))]
        return list(parts)

    def _onlooker(self, name: str, module: nn.Module) -> Onlooker:
        weight = ".".join(part for part in (name, recurrent_weights(module)[0]) if part)
        # Where the state that a call returned lies in memory -> its chain. A detached state lies there still.
        chain_of: dict[int, list[Seen]] = {}

        def after(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            if not any(module is each for each in self.modules):
                self.modules.append(module)
            given = argument(args, kwargs, 0, "input", "x_t")
            if not isinstance(given, (Tensor, PackedSequence)):
                return
            seen = self._of_layer_call if is_layer(module) else self._of_cell_call
            before = state_of(argument(args, kwargs, 1, "hx", "h_t_minus_1"))
            chain = None if before is None else chain_of.get(memory_of(before))
            if chain is None:
                self._chains.setdefault(weight, []).append(chain := [])
            chain.append(seen(weight, module, given)._replace(begins=before is None))
            returned = list(tensors_in(result[1] if is_layer(module) else result))
            # Kept, or others would take their place in memory.
            self.states += returned
            chain_of[memory_of(returned[0])] = chain

        return Onlooker(after=after)

    def _of_cell_call(self, weight: str, module: Any, given: Any) -> Seen:
        if given.dim() < 2:
            return Seen(weight, 1, (1,))
        return Seen(weight, 1, (given.shape[0],), self._along(given, None, 0))

    def _of_layer_call(self, weight: str, module: Any, given: Tensor | PackedSequence) -> Seen:
        if isinstance(given, PackedSequence):
            # Packing needs the lengths of the sequences: it does not mistake them for steps.
            return Seen(weight, len(given.batch_sizes), (int(given.batch_sizes[0]),))
        if given.dim() == 2:
            return Seen(weight, given.shape[0], (1,), self._along(given, 0, None))
        steps, sequences = (1, 0) if module.batch_first else (0, 1)
        along = self._along(given, steps, sequences)
        return Seen(weight, given.shape[steps], (given.shape[sequences],), along, batch_first=module.batch_first)

    def _along(self, given: Tensor, steps: int | None, sequences: int | None) -> Axis | None:
        """Along which axis of an input the steps of a view of it lie; None where that is not known.

        Args:
            given: what a module was given, of any shape.
            steps, sequences: the axes that it takes for these, or None.
        """
        source = self._inputs.source_of(given)
        if source is None or source.dim() < 3 or source.dtype != given.dtype or source.stride(0) == source.stride(1):
            return None
        # The stride of an axis of length 1 says nothing.
        named: dict[int, Axis] = {source.stride(0): "batch", source.stride(1): "time"}
        lies = [
            named.get(given.stride(axis)) if axis is not None and given.shape[axis] > 1 else None
            for axis in (steps, sequences)
        ]
        one_step = steps is None or given.shape[steps] == 1
        one_sequence = sequences is None or given.shape[sequences] == 1
        if lies[0] == "time" or (one_step and lies[1] == "batch"):
            return "time"
        across = lies[1] == "time" or one_sequence
        if (lies[0] == "batch" and across) or (one_step and lies[1] == "time" and _is_all(given, sequences, source)):
            return "batch"
        return None


def _is_all(given: Tensor, axis: int | None, source: Tensor) -> bool:
    """Whether an axis of a view has the whole time of an input."""
    return axis is not None and given.shape[axis] == source.shape[1]


def seen_in_graph(reading: Reading, modules: Collection[nn.Module]) -> list[Seen]:
    """What the recurrent weights saw that only autograd's graph shows, chain by chain.

    Args:
        reading: of the graph behind a model's outputs.
        modules: whose weights are seen by their calls.
    """
    known = {id(parameter) for module in modules for parameter in module.parameters()}
    found = []
    for place, chains in reading.recurrent_chains().items():
        if id(reading.tensors[place]) not in known:
            for chain in chains.chains:
                uses = [use for step in chain.steps for use in chains.steps[step].uses]
                sequences = next((axes for use in reversed(uses) if (axes := _axes_beside(reading, use))), (1,))
                found.append(Seen(reading.names[place], len(chain.steps), sequences, counts_uses=True))
    return found


def _axes_beside(reading: Reading, use: Use) -> tuple[int, ...]:
    """The axes of what a weight multiplies beside those that the product has in common with it."""
    graph = reading.graph
    op, weight = graph.ops[use.node], graph.shape(graph.inputs[use.node][use.operand])
    for edge in reading.uses.multiplied_with(use):
        shape = graph.shape(edge)
        other = next(i for i, each in enumerate(graph.flows[use.node]) if each == edge)
        summed = op.summed_axis(other, len(shape))
        if summed is not None and op.is_convolution:
            return (shape[0],) if len(shape) == len(weight) else (1,)
        if summed is not None:
            return tuple(size for axis, size in enumerate(shape) if axis != len(shape) + summed) or (1,)
        # By elements: each is spread over the axes that the other has alone.
        axes = max(len(shape), len(weight))
        beside, spread = ((*[1] * (axes - len(each)), *each) for each in (shape, weight))
        return tuple(size for size, own in zip(beside, spread, strict=True) if own == 1) or shape
    return ()
