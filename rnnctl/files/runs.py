"""Files of training runs: JSON lines that ``rnnctl.watch`` appends, and that are read again."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rnnctl.errors import InputError
from rnnctl.files.jsonl import Line, LineReader, LineWriter
from rnnctl.results import Record

# The schema is named after the function that writes it; messages call it so.
SCHEMA, SCHEMA_VERSION = "rnnctl.watch", 1
# What a line counts, and from where up; what is beyond 64 bits no training loop counts.
COUNTS, BEYOND = {"step": 0, "chains": 1}, 2**63
NORMS = ("grad_norm_W_hh", "grad_norm_h", "grad_norm_c", "grad_norm_state")
# So many lines are named that are left out for one reason; of the rest it is said how many they are.
NAMED = 5


class RunWriter:
    """Appends to the file of a run; every line is with the system as soon as it is written.

    Args:
        path: a file that is there already is continued, as a run of its own.
    Attributes:
        run: when it was opened, ISO 8601 in UTC; what tells its lines from those of other runs.
    Raises:
        InputError: the place cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.run = datetime.now(UTC).isoformat(timespec="microseconds")
        self._lines = LineWriter(path)

    @property
    def is_ours(self) -> bool:
        """Whether this process opened it, not one that it was forked from."""
        return self._lines.is_ours

    def append(self, records: Iterable[Record]) -> None:
        """One line for each of them.

        Raises:
            RnnctlError: the system refused; the last line may be torn.
        """
        head = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "run": self.run}
        self._lines.append({**head, **record} for record in records)

    def close(self) -> None:
        """Close the file.

        Raises:
            RnnctlError: the system refused.
        """
        self._lines.close()


@dataclass(frozen=True)
class ProbedStep:
    """One line: a recurrent weight at one training step.

    Attributes:
        step: of training, from 0.
        weight: its name in the model.
        error: why it could not be probed, or None; if so, the fields below are empty.
        cell: "RNN", "GRU", "LSTM" or "Linear".
        grad_norm_W_hh, grad_norm_h, grad_norm_c, grad_norm_state: as of ``rnnctl.probe``, by time step; NaN where the
            number was not finite. c None where the state is h alone; of the whole state None where the line has none,
            as before rnnctl wrote it.
        autograd_relative_error: of the sum of all steps, or None.
        agrees: with autograd; None where there was nothing to compare.
        states_agree: the module's states with those that its weights make.
        h_init_is_zero: the sequence started from zeros.
        chains: how many sequences they are that no gradient links, one after the other or interleaved.
    """

    step: int
    weight: str
    error: str | None
    cell: str = ""
    grad_norm_W_hh: tuple[float, ...] = ()
    grad_norm_h: tuple[float, ...] = ()
    grad_norm_c: tuple[float, ...] | None = None
    grad_norm_state: tuple[float, ...] | None = None
    autograd_relative_error: float | None = None
    agrees: bool | None = None
    states_agree: bool = True
    h_init_is_zero: bool = False
    chains: int = 1


@dataclass(frozen=True)
class Run:
    """The last run of a file.

    Attributes:
        source: the file, for messages.
        name: when the run began.
        steps: its lines, in order.
        notes: what was left out.
    """

    source: str
    name: str
    steps: tuple[ProbedStep, ...]
    notes: tuple[str, ...]


def read_run(path: Path) -> Run:
    """The last run of a file that ``rnnctl.watch`` wrote.

    A torn last line of a run, as an interrupted write leaves it, is left out and noted; so is a line that says what
    cannot be.

    Raises:
        InputError: no such file, nothing in it, or a line that is none of ``rnnctl.watch``.
    """
    lines = LineReader(path, _run_name, SCHEMA)
    runs: dict[str, _Lines] = {}
    for line in lines:
        runs.setdefault(line.record["run"], _Lines()).add(line)
    if not runs:
        # A note is of a line that was there, if torn.
        why = f"holds no line of {SCHEMA}" if lines.notes else "is empty: no training step was probed"
        raise InputError(f"{str(path)!r} {why}")
    name, last = list(runs.items())[-1]
    if not last.steps:
        raise InputError(f"no line of the last run can be used: {'; '.join(last.notes)}")
    several = [f"{path} holds {len(runs)} runs; this is the last, of {name}"] if len(runs) > 1 else []
    return Run(str(path), name, tuple(last.steps), (*lines.notes, *last.notes, *several))


class _Lines:
    """The lines of one run.

    Attributes:
        steps: those that can be, in order.
    """

    def __init__(self) -> None:
        self.steps: list[ProbedStep] = []
        self._seen: set[tuple[int, str]] = set()
        self._left_out: dict[str, list[str]] = {}

    @property
    def notes(self) -> list[str]:
        """What was left out, and why."""
        named = [f"{place} is left out: {why}" for why, places in self._left_out.items() for place in places[:NAMED]]
        more = {why: len(places) - NAMED for why, places in self._left_out.items()}
        return [*named, *(f"so are {count} more lines: {why}" for why, count in more.items() if count > 0)]

    def add(self, line: Line) -> None:
        """One line more."""
        found = _probed_step(line.record, line.place)
        why = _flaw(line.record, found) or self._misplaced(found)
        if why is not None:
            self._left_out.setdefault(why, []).append(line.place)
            return
        self.steps.append(found)
        self._seen.add((found.step, found.weight))

    def _misplaced(self, found: ProbedStep) -> str | None:
        """Why it cannot come after the lines before it, or None."""
        if (found.step, found.weight) in self._seen:
            return "its training step was there before, of the same weight"
        if self.steps and found.step < self.steps[-1].step:
            return "its training step is before that of the line before it"
        return None


def _flaw(record: Mapping[str, Any], found: ProbedStep) -> str | None:
    """What a line says that cannot be, whoever wrote it, or None."""
    for name, least in COUNTS.items():
        if not least <= getattr(found, name) < BEYOND:
            return f"{name} is not a count from {least} to 2^63 - 1"
    if found.error is not None:
        return None
    # A norm that was not finite is null in such a file.
    numbers = {name: record.get(name) or () for name in NORMS}
    numbers["autograd_relative_error"] = (found.autograd_relative_error,)
    for name, values in numbers.items():
        if not all(value is None or 0 <= value < math.inf for value in values):
            return f"{name} is negative or not finite"
    if found.agrees and (found.autograd_relative_error or 0) > 1:
        return "it agrees with autograd, and its autograd_relative_error is above 1"
    return None


def _run_name(line: Line) -> str:
    schema, version, name = (line.record.get(key) for key in ("schema", "schema_version", "run"))
    if schema != SCHEMA:
        raise InputError(f"{line.place}: expected the schema {SCHEMA!r}, as {SCHEMA} writes it; got {schema!r}")
    if version != SCHEMA_VERSION:
        raise InputError(f"{line.place}: expected schema_version {SCHEMA_VERSION}; got {version!r}. Is rnnctl too old?")
    if not isinstance(name, str):
        raise InputError(f"{line.place}: expected a text under 'run'; got {name!r}")
    return name


def _probed_step(record: Mapping[str, Any], place: str) -> ProbedStep:
    step, weight, error = _field(record, "step", int, place), _field(record, "weight", str, place), record.get("error")
    if error is not None:
        return ProbedStep(step, weight, str(error))
    W_hh = _norms(record, "grad_norm_W_hh", place)
    h = _norms(record, "grad_norm_h", place, W_hh)
    c, state = (
        None if record.get(name) is None else _norms(record, name, place, W_hh)
        for name in ("grad_norm_c", "grad_norm_state")
    )
    relative, agrees = record.get("autograd_relative_error"), record.get("agrees")
    return ProbedStep(
        step=step,
        weight=weight,
        error=None,
        cell=_field(record, "cell", str, place),
        grad_norm_W_hh=W_hh,
        grad_norm_h=h,
        grad_norm_c=c,
        grad_norm_state=state,
        autograd_relative_error=None if relative is None else _field(record, "autograd_relative_error", float, place),
        agrees=None if agrees is None else _field(record, "agrees", bool, place),
        states_agree=_field(record, "states_agree", bool, place),
        h_init_is_zero=_field(record, "h_init_is_zero", bool, place),
        chains=_field({"chains": 1, **record}, "chains", int, place),
    )


def _field(record: Mapping[str, Any], name: str, kind: Any, place: str) -> Any:
    value = record.get(name)
    if not _is(value, kind):
        words = {int: "a whole number", str: "a text", bool: "true or false", float: "a number"}
        raise InputError(f"{place}: expected {words[kind]} under {name!r}; got {str(value)[:40]!r}")
    return value


def _is(value: Any, kind: Any) -> bool:
    # True is an int to Python.
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _norms(
    record: Mapping[str, Any], name: str, place: str, beside: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Numbers by time step, as many as those of W_hh beside them."""
    values = record.get(name)
    if not isinstance(values, list) or not values or not all(v is None or _is(v, float) for v in values):
        raise InputError(f"{place}: expected numbers or null, one a time step, under {name!r}")
    try:
        found = tuple(float("nan") if value is None else float(value) for value in values)
    except OverflowError:
        raise InputError(f"{place}: a number under {name!r} is beyond float64") from None
    if beside is not None and len(found) != len(beside):
        raise InputError(f"{place}: grad_norm_W_hh has {len(beside)} time steps, {name} {len(found)}")
    return found
