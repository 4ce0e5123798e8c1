"""Files of training runs: JSON lines that ``rnnctl.watch`` appends, and that are read again."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from rnnctl.errors import InputError, RnnctlError
from rnnctl.files.reading import read_bytes
from rnnctl.results import strict_line

SCHEMA, SCHEMA_VERSION = "rnnctl.watch", 1


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
        self._path = path
        self._file = _opened(path)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """One line for each of them.

        Raises:
            RnnctlError: the system refused; the last line may be torn.
        """
        head = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "run": self.run}
        try:
            _write_all(self._file, "".join(strict_line({**head, **record}) for record in records).encode())
        except OSError as error:
            raise RnnctlError(f"cannot write {str(self._path)!r}: {error.strerror or error}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _opened(path: Path) -> FileIO:
    try:
        # Unbuffered: what is written survives the process, and no other process holds a copy of it.
        file = open(path, "ab", buffering=0)  # noqa: SIM115
        if _ends_within_a_line(path):
            # An interrupted run left it; the next line is to be one of its own.
            _write_all(file, b"\n")
    except IsADirectoryError:
        raise InputError(f"{str(path)!r} is a folder; name a file in it") from None
    except FileNotFoundError:
        raise InputError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {str(path)!r}: {getattr(error, 'strerror', None) or error}") from None
    return file


def _ends_within_a_line(path: Path) -> bool:
    if not os.path.isfile(path) or os.path.getsize(path) == 0:
        return False
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _write_all(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


@dataclass(frozen=True)
class ProbedStep:
    """One line: a recurrent weight at one training step.

    Attributes:
        step: of training, from 0.
        weight: its name in the model.
        error: why it could not be probed, or None; if so, the fields below are empty.
        cell: "RNN", "GRU", "LSTM" or "Linear".
        grad_norm_W_hh, grad_norm_h: by time step; NaN where the number was not finite.
        autograd_relative_error: of the sum of all steps, or None.
        agrees: with autograd; None where there was nothing to compare.
        states_agree: the module's states with those that its weights make.
        h_init_is_zero: the sequence started from zeros.
    """

    step: int
    weight: str
    error: str | None
    cell: str = ""
    grad_norm_W_hh: tuple[float, ...] = ()
    grad_norm_h: tuple[float, ...] = ()
    autograd_relative_error: float | None = None
    agrees: bool | None = None
    states_agree: bool = True
    h_init_is_zero: bool = False


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

    A torn last line of a run, as an interrupted write leaves it, is left out and noted.

    Raises:
        InputError: no such file, nothing in it, or a line that is none of ``rnnctl.watch``.
    """
    reader = _Reader(str(path))
    for number, text in enumerate(read_bytes(path).split(b"\n"), 1):
        if text.strip():
            reader.take(number, text)
    return reader.last_run()


class _Reader:
    """Lines of a file, sorted by run."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._runs: dict[str, list[ProbedStep]] = {}
        self._notes: list[str] = []
        self._torn: int | None = None
        self._last = ""

    def take(self, number: int, text: bytes) -> None:
        """The next line and its number, from 1."""
        record = _json_object(text)
        if record is None:
            # One interruption tears one line.
            self._settle_torn(again=self._torn is not None)
            self._torn = number
            return
        place = f"{self._source}, line {number}"
        name = _run_name(record, place)
        self._settle_torn(again=name == self._last)
        self._runs.setdefault(name, []).append(_probed_step(record, place))
        self._last = name

    def last_run(self) -> Run:
        """The run that began last."""
        if not self._runs:
            why = "is empty: no training step was probed" if self._torn is None else "holds no line of rnnctl.watch"
            raise InputError(f"{self._source!r} {why}")
        self._settle_torn(again=False)
        name, steps = list(self._runs.items())[-1]
        if len(self._runs) > 1:
            self._notes.append(f"{self._source} holds {len(self._runs)} runs; this is the last, of {name}")
        return Run(self._source, name, tuple(steps), tuple(self._notes))

    def _settle_torn(self, *, again: bool) -> None:
        """A torn line is no error where it is the last of its run: where that does not come again."""
        if self._torn is None:
            return
        place = f"{self._source}, line {self._torn}"
        if again:
            raise InputError(f"{place} is no JSON object. Is this a file that rnnctl.watch wrote?")
        self._notes.append(f"{place} is torn, as by an interruption, and is left out")
        self._torn = None


def _json_object(text: bytes) -> Mapping[str, Any] | None:
    """What a line holds, or None where that is no JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _run_name(record: Mapping[str, Any], place: str) -> str:
    schema, version, name = (record.get(key) for key in ("schema", "schema_version", "run"))
    if schema != SCHEMA:
        raise InputError(f"{place}: expected the schema {SCHEMA!r}, as rnnctl.watch writes it; got {schema!r}")
    if version != SCHEMA_VERSION:
        raise InputError(f"{place}: expected schema_version {SCHEMA_VERSION}; got {version!r}. Is rnnctl too old?")
    if not isinstance(name, str):
        raise InputError(f"{place}: expected a text under 'run'; got {name!r}")
    return name


def _probed_step(record: Mapping[str, Any], place: str) -> ProbedStep:
    step, weight, error = _field(record, "step", int, place), _field(record, "weight", str, place), record.get("error")
    if error is not None:
        return ProbedStep(step, weight, str(error))
    W_hh, h = _norms(record, "grad_norm_W_hh", place), _norms(record, "grad_norm_h", place)
    if len(W_hh) != len(h):
        raise InputError(f"{place}: grad_norm_W_hh has {len(W_hh)} time steps, grad_norm_h {len(h)}")
    relative, agrees = record.get("autograd_relative_error"), record.get("agrees")
    return ProbedStep(
        step=step,
        weight=weight,
        error=None,
        cell=_field(record, "cell", str, place),
        grad_norm_W_hh=W_hh,
        grad_norm_h=h,
        autograd_relative_error=None if relative is None else _field(record, "autograd_relative_error", float, place),
        agrees=None if agrees is None else _field(record, "agrees", bool, place),
        states_agree=_field(record, "states_agree", bool, place),
        h_init_is_zero=_field(record, "h_init_is_zero", bool, place),
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


def _norms(record: Mapping[str, Any], name: str, place: str) -> tuple[float, ...]:
    values = record.get(name)
    if not isinstance(values, list) or not values or not all(v is None or _is(v, float) for v in values):
        raise InputError(f"{place}: expected numbers or null, one a time step, under {name!r}")
    try:
        return tuple(float("nan") if value is None else float(value) for value in values)
    except OverflowError:
        raise InputError(f"{place}: a number under {name!r} is beyond float64") from None
