"""One call of somebody's model, and whether what recurs in it ran over the time of what it was given."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from rnnctl.errors import InputError, ShapeError, TooLargeError
from rnnctl.models.inputs import Given, Inputs, TimeFirst, inputs_of
from rnnctl.models.module_calls import ModuleCalls
from rnnctl.models.objective import Objective, called, takes_time_first, turned_back
from rnnctl.models.parameter_uses import nodes_in
from rnnctl.models.returned import Picked, listed
from rnnctl.models.room import room_asked_for
from rnnctl.models.seen_axes import Over, Seen, SeenCalls, counted, seen_in_graph
from rnnctl.models.weight_uses import Reading

# How the two ways are said: in the library, with the shell's flags beside them, and in the shell.
IN_PYTHON = {"time_first": "time_first=True (--time-first)", "batch_first": "time_first=False (--batch-first)"}
IN_SHELL = {"time_first": "--time-first", "batch_first": "--batch-first"}
TRY = (
    "Try {time_first} if the model takes (time, batch, ...), or {batch_first} if its steps are meant to be the "
    "sequences"
)


class ExchangedAxesError(ShapeError):
    """What recurs in a model ran over the sequences that it was given in place of their steps.

    Args:
        saw, given: what the weight saw and what there was, in words.
        remedy: what to try, with the names of ``IN_PYTHON`` in braces.
    """

    def __init__(self, saw: str, given: str, remedy: str) -> None:
        self._said = saw, given, remedy
        super().__init__(self._message("x", IN_PYTHON))

    def in_shell(self, source: str) -> ShapeError:
        """The same, in the shell's words, of an input by its name there."""
        return ShapeError(self._message(source, IN_SHELL))

    def _message(self, source: str, words: Mapping[str, str]) -> str:
        saw, given, remedy = self._said
        return f"{saw}; {source} has {given}. {remedy.format(**words)}"


class ModelRun:
    """A call of a model on its input, once; its steps are then compared with those of the input.

    Args:
        model: any module.
        x, lengths: as of ``called``.
        time_first: whether the model takes (time, batch, ...), and gets x so and has its output turned back; False:
            x as it is, over whatever axis the model runs; None: as it is, but for a bare torch layer that is not
            batch_first, which gets (time, batch, ...); "checked": as None, and not to be taken for something else.
    Attributes:
        notes: what is to be told of its steps, once it has run, a sentence each.
    """

    def __init__(self, model: nn.Module, x: Given, lengths: Tensor | None = None, time_first: TimeFirst = None) -> None:
        self._model, self._lengths = model, lengths
        self._checks = time_first in ("checked", True)
        self._time_first = None if time_first == "checked" else time_first
        given = inputs_of(x)
        self._inputs = given if isinstance(given, Inputs) else Inputs((given,))
        if self._time_first and not takes_time_first(model):
            # The model may look at it by views, as at data of its own.
            self._inputs = self._inputs.time_major()
        self._axes = self._inputs.axes
        self._seen: list[tuple[Seen, Over]] = []
        self._states: list[Tensor] = []
        self._has_run = False
        self.notes: tuple[str, ...] = ()

    def __call__(self) -> Any:
        """What the model returned, turned back where it was handed (time, batch, ...).

        Raises:
            ExchangedAxesError: what recurs ran over the sequences, and ``time_first`` does not say that it should.
            TooLargeError: one of torch's layers in it would not fit into memory.
        """
        seen, calls = SeenCalls(self._model, self._inputs), ModuleCalls(self._model, {})
        try:
            with seen.noted(), calls.noted(), room_asked_for(self._model):
                output = called(self._model, self._inputs, self._lengths, self._time_first)
        except TooLargeError:
            raise
        except Exception:
            # What ran over the sequences may fail for that alone: a decoder has other steps than its encoder.
            self._require_time(self._over(seen.found))
            raise
        self._seen, self._states = self._over([*seen.found, *self._in_graph(output, calls, seen)]), seen.states
        self._require_time(self._seen)
        self._has_run, self.notes = True, tuple(self._noted())
        return turned_back(output, self._axes, self._states) if self._hands_time_first else output

    @property
    def steps_seen(self) -> Sequence[tuple[Seen, Over]]:
        """What the recurrent weights saw and what they ran over, once the model has run."""
        return self._seen

    def posed(self, objective: Objective, output: Any) -> tuple[Objective, Any]:
        """An objective and what the model returned, the steps of both being those that the model ran.

        Args:
            objective: of the input as it was given; a loss of the user's own takes what the model returns.
            output: tensors of any shape, as from the call.
        """
        ways = {over for _, over in self._seen}
        if objective.loss_fn is not None or "sequences" not in ways or "time" in ways:
            return objective, output
        batch, time = self._axes[0]
        return objective.of_exchanged_axes, turned_back(output, [(time, batch)], self._states)

    def require_no_state(self, picked: Picked, output: Any) -> None:
        """Raise InputError where the output is the last state of a layer, whose axes may pass for (batch, time).

        Args:
            picked: of what the model returned, which is ``output``.
        """
        part = picked.part
        if any(part is state for state in self._states) and part.dim() == 3 and len(part) > 1:
            place = "what the model returned" if picked.key is None else f"output {picked.key} of the model"
            raise InputError(
                f"{place} is the last state of a layer, {tuple(part.shape)} being (layers, batch, ...). Name another "
                f"output with --output-key, or try --loss-fn; there is {listed(output)}"
            )

    def explained(self, error: InputError) -> InputError:
        """An error of a question that found nothing, with what may be the reason: of one sequence one step is made."""
        # With two steps nothing leads back to an earlier use of a weight either, where the first has no state.
        why = self._why_nothing_recurs(2) if self._has_run else None
        return error if why is None else type(error)(f"{error}. {why}")

    def _why_nothing_recurs(self, most: int) -> str | None:
        """What may be the reason with so many sequences at most; None where something does, or it is another."""
        batch, time = self._axes[0] if self._axes else (0, 0)
        told = self._seen or self._time_first is not None or takes_time_first(self._model)
        if told or not 1 <= batch <= most < time:
            return None
        return (
            f"To a model that takes (time, batch, ...) the input's {self._given} are {counted(batch, 'step')} of "
            f"{counted(time, 'sequence')}: is this one? Then try {IN_PYTHON['time_first']}"
        )

    @property
    def _hands_time_first(self) -> bool:
        return takes_time_first(self._model) if self._time_first is None else self._time_first

    @property
    def _given(self) -> str:
        batch, time = self._axes[0]
        return f"{counted(batch, 'sequence')} of {counted(time, 'step')}"

    def _in_graph(self, output: Any, calls: ModuleCalls, seen: SeenCalls) -> list[Seen]:
        roots = list(nodes_in(output))
        return seen_in_graph(Reading(self._model, roots, calls), seen.modules) if roots else []

    def _over(self, found: Iterable[Seen]) -> list[tuple[Seen, Over]]:
        return [(each, each.over(self._axes)) for each in found]

    def _require_time(self, found: Iterable[tuple[Seen, Over]]) -> None:
        """Raise ExchangedAxesError where something ran over the sequences that was not meant to."""
        seen = next((each for each, over in found if over == "sequences"), None)
        if seen is not None and self._checks:
            raise ExchangedAxesError(seen.said(self._axes), self._given, self._remedy) from None

    def _noted(self) -> Iterator[str]:
        """What to tell of it."""
        first = {over: seen for seen, over in reversed(self._seen)}
        batch, time = self._axes[0] if self._axes else (0, 0)
        if (seen := first.get("sequences")) is not None:
            meant = "as --batch-first (time_first=False) takes it; " if self._time_first is False else ""
            doubt = "" if meant else f". {TRY.format(**IN_PYTHON)}"
            yield f"{seen.said(self._axes)}, {meant}the input has {self._given}{doubt}"
        if (seen := first.get("either")) is not None and self._time_first is None and not self._hands_time_first:
            yield (
                f"{seen.weight} saw as many steps as sequences, {batch}: whether it ran over the input's time is not "
                "known. Try another batch size, or say it by --time-first or --batch-first (time_first)"
            )
        if self._time_first and batch == time and "time" in first:
            yield (
                f"time and sequences are {batch} each: what the model returned of that size is taken for (time, batch, "
                "...), as it takes its input. Try another batch size to see that it is"
            )
        odd = next((each for each, over in self._seen if over == "else" and each.is_odd(batch, time)), None)
        # Beside one over time another may well run over parts of every step.
        if odd is not None and "time" not in first:
            yield f"{odd.said(self._axes)}; the input has {self._given}"
        if (why := self._why_nothing_recurs(1)) is not None:
            yield f"nothing recurs in this pass. {why}"

    @property
    def _remedy(self) -> str:
        if not self._hands_time_first:
            return TRY
        handed = "the model was given (time, batch, ...) and seems to take (batch, time, ...)"
        if self._time_first is None:
            return f"Being a layer that is not batch_first, {handed}. Try {{batch_first}}"
        return f"By {{time_first}} {handed}. Leave that out"
