"""Files of JSON lines that grow while something runs: appended line by line, continued later, read with a torn end."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from rnnctl.errors import InputError, RnnctlError
from rnnctl.files.reading import read_bytes
from rnnctl.results import Record, strict_line


class LineWriter:
    """Appends JSON objects to a file; every line is with the system as soon as it is written.

    A process that is forked from the one that opened it writes nothing.

    Args:
        path: a file that is there already is continued.
    Raises:
        InputError: the place cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _opened(path)
        self._process = os.getpid()
        # Some never have a name, such as a pipe.
        self._had_name = self._has_name()

    @property
    def is_ours(self) -> bool:
        """Whether this process opened it, not one that it was forked from."""
        return os.getpid() == self._process

    def append(self, records: Iterable[Record]) -> None:
        """One line for each of them.

        Raises:
            RnnctlError: the system refused, and the last line may be torn; or the file was deleted with all its lines.
        """
        if not self.is_ours:
            return
        try:
            _write_all(self._file, "".join(map(strict_line, records)).encode())
        except OSError as error:
            raise RnnctlError(f"cannot write {str(self._path)!r}: {error.strerror or error}") from None
        if self._had_name and not self._has_name():
            raise RnnctlError(f"cannot write {str(self._path)!r}: the file was deleted, with all that stood in it")

    def close(self) -> None:
        """Close the file.

        Raises:
            RnnctlError: the system refused.
        """
        try:
            self._file.close()
        except OSError as error:
            raise RnnctlError(f"cannot close {str(self._path)!r}: {error.strerror or error}") from None

    def _has_name(self) -> bool:
        return os.fstat(self._file.fileno()).st_nlink > 0


@dataclass(frozen=True)
class Line:
    """The JSON object of one line, and where it stands, for messages."""

    place: str
    record: Mapping[str, Any]


class LineReader:
    """The lines of a file that one or several writers appended to, one after the other.

    A torn line, as an interrupted write leaves it, is left out where it is the last of its writer.

    Args:
        path: the file.
        writer: of a line, the name of its writer; raises InputError for a line of somebody else.
        program: what writes such files, for messages.
    Attributes:
        notes: what was left out, once the lines have been gone through.
    """

    def __init__(self, path: Path, writer: Callable[[Line], str], program: str) -> None:
        self.notes: list[str] = []
        self._path, self._writer, self._program = path, writer, program

    def __iter__(self) -> Iterator[Line]:
        """Every line in order.

        Raises:
            InputError: no such file, or a line that is no JSON object and not the last of its writer.
        """
        torn: str | None = None
        last: str | None = None
        for place, text in self._texts():
            record = _json_object(text)
            if record is None:
                # One interruption tears one line.
                self._settle(torn, again=True)
                torn = place
                continue
            line = Line(place, record)
            writer = self._writer(line)
            self._settle(torn, again=writer == last)
            torn, last = None, writer
            yield line
        self._settle(torn, again=False)

    def _texts(self) -> Iterator[tuple[str, bytes]]:
        for number, text in enumerate(read_bytes(self._path).split(b"\n"), 1):
            if text.strip():
                yield f"{self._path}, line {number}", text

    def _settle(self, torn: str | None, *, again: bool) -> None:
        """A torn line is no error where its writer does not come again."""
        if torn is None:
            return
        if again:
            raise InputError(f"{torn} is no JSON object. Is this a file that {self._program} wrote?")
        self.notes.append(f"{torn} is torn, as by an interruption, and is left out")


def _opened(path: Path) -> FileIO:
    try:
        # Unbuffered: what is written survives the process, and no other process holds a copy of it.
        file = open(path, "ab", buffering=0)  # noqa: SIM115
        if _ends_within_a_line(path):
            # An interrupted writer left it; the next line is to be one of its own.
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


def _json_object(text: bytes) -> Mapping[str, Any] | None:
    """What a line holds, or None where that is no JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
