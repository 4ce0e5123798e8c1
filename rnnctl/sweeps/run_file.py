"""The file of a sweep: a line for every finished run, appended, read again to go on or to look at."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rnnctl.errors import InputError
from rnnctl.files.jsonl import Line, LineReader, LineWriter
from rnnctl.results import Record

SCHEMA, SCHEMA_VERSION = "rnnctl.sweep", 1
# How every line begins; nothing but a torn one ends within it.
HEAD = f'{{"schema": "{SCHEMA}", '.encode()
# A power cut costs at most the runs of so many seconds.
SYNC_SECONDS = 1.0
PATIENCE_SECONDS = 0.5


@dataclass(frozen=True)
class DoneRun:
    """One line: a finished run.

    Attributes:
        question: that was asked.
        key: what tells it from every run with another answer.
        varied: name -> value of what the grid varied.
        config: as in the JSON of a command; of a run that failed the options as they were given.
        scalars: its answer, non-finite numbers as such; empty of a run that failed.
        error: why it failed, or None.
        seconds: that it took.
        versions: of rnnctl and torch that made it.
        rows: the rows of the result, where they were kept.
    """

    question: str
    key: str
    varied: Record
    config: Record
    scalars: Record
    error: str | None
    seconds: float
    versions: Mapping[str, str]
    rows: tuple[Record, ...] | None = field(default=None, repr=False)


class RunFile:
    """Appends to the file of a sweep, which is this process's alone until it is closed.

    Args:
        path: a file that is there already is continued.
    Raises:
        InputError: the place cannot be written, or another sweep is writing it.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._lines = _alone(path)
        except BlockingIOError:
            raise InputError(
                f"{str(path)!r} is being written by another sweep. Give this one a file of its own, or split the grid "
                "with --shard I/N; lines of several files can be joined by cat"
            ) from None
        self._writer = datetime.now(UTC).isoformat(timespec="microseconds")
        self._synced = time.monotonic()

    def append(self, question: str, record: Record) -> None:
        """A line for a finished run.

        Raises:
            RnnctlError: the system refused; the last line may be torn, which reading leaves out.
        """
        head = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "run": self._writer, "question": question}
        self._lines.append([{**head, **record}])
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        self._lines.sync()
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        self._lines.close()


def _alone(path: Path) -> LineWriter:
    """A writer of the file; BlockingIOError where it stays another's for longer than an end takes.

    A worker that a killed process was just starting holds its files until it is another program.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return LineWriter(path, alone=True)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(PATIENCE_SECONDS / 10)


def done_runs(path: Path, question: str | None = None, notes: list[str] | None = None) -> Iterator[DoneRun]:
    """The finished runs in a file of one or several sweeps, line by line.

    Args:
        path: the file.
        question: that they must answer; None for that of the first line.
        notes: what was left out is added to it.
    Raises:
        InputError: no such file; lines that no sweep wrote, or of another question.
    """
    reader = LineReader(path, _writer, "rnnctl sweep", HEAD)
    for line in reader:
        run = _done_run(line)
        question = question or run.question
        if run.question != question:
            raise InputError(
                f"{line.place} is a run of {run.question}, not of {question}. Give every question a file of its own"
            )
        yield run
    if notes is not None:
        notes += reader.notes


def _writer(line: Line) -> str:
    record = line.record
    if record.get("schema") != SCHEMA or not isinstance(record.get("run"), str):
        raise InputError(f"{line.place} is no run of a sweep; expected a file that rnnctl sweep wrote with --to")
    if record.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{line.place} has schema_version {record.get('schema_version')!r}; this rnnctl reads {SCHEMA_VERSION}. "
            "Take the rnnctl that wrote it, or a newer one"
        )
    return str(record["run"])


def _done_run(line: Line) -> DoneRun:
    record, error = line.record, line.record.get("error")
    expected: dict[str, Any] = {
        "question": str,
        "key": str,
        "varied": Mapping,
        "seconds": (int, float),
        "versions": Mapping,
    }
    expected |= {"config": Mapping, "scalars": Mapping} if error is None else {"error": str}
    for name, kind in expected.items():
        if not isinstance(record.get(name), kind):
            raise InputError(f"{line.place} has no {name} as rnnctl sweep writes it; got {record.get(name)!r}")
    return DoneRun(
        record["question"],
        record["key"],
        _with_nonfinite(record["varied"]),
        record.get("config", {}),
        _with_nonfinite(record.get("scalars", {})),
        error,
        record["seconds"],
        record["versions"],
        record.get("rows"),
    )


def _with_nonfinite(values: Record) -> Record:
    """The values as they were before JSON, which has no inf and nan: a note beside them says which they are."""
    noted = values.get("nonfinite")
    if not isinstance(noted, Mapping):
        return values
    # A number is what float reads; anything else was never written by us.
    named = {name: float(text) for name, text in noted.items() if text in ("inf", "-inf", "nan")}
    return {name: named.get(name, value) for name, value in values.items() if name != "nonfinite"}
