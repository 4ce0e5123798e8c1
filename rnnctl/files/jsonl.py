"""Files of JSON lines that grow while something runs: appended line by line, continued later, read with a torn end."""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from rnnctl.errors import InputError, RnnctlError
from rnnctl.files.reading import read_lines
from rnnctl.results import Record, strict_line

# What is looked through at a time.
CHUNK = 2**16


class LineWriter:
    """Appends JSON objects to a file; every line is with the system as soon as it is written.

    A process that is forked from the one that opened it writes nothing.

    Args:
        path: a file that is there already is continued.
        alone: nobody else may write it meanwhile who asks for the same; a torn line at its end is taken away, then.
    Raises:
        InputError: the place cannot be written.
        BlockingIOError: somebody else writes it alone.
    """

    def __init__(self, path: Path, *, alone: bool = False) -> None:
        self._path = path
        self._file = _opened(path)
        if alone:
            _lock(self._file)
        self._alone = alone
        # An interrupted writer left it; the next line is to be one of its own.
        self._begins_anew = _ends_within_a_line(path)
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
            if self._begins_anew and self._alone:
                self._begins_anew = not self._cut_torn_end()
            _write_all(self._file, ("\n" * self._begins_anew + "".join(map(strict_line, records))).encode())
            self._begins_anew = False
        except OSError as error:
            raise RnnctlError(f"cannot write {str(self._path)!r}: {error.strerror or error}") from None
        if self._had_name and not self._has_name():
            raise RnnctlError(f"cannot write {str(self._path)!r}: the file was deleted, with all that stood in it")

    def _cut_torn_end(self) -> bool:
        """Take a torn line away from the end; whether there was one, not a whole line that lacks its end alone."""
        with open(self._path, "rb") as file:
            begin = _begin_of_last_line(file)
            file.seek(begin)
            if _json_object(file.read()) is not None:
                return False
        os.ftruncate(self._file.fileno(), begin)
        return True

    def sync(self) -> None:
        """Wait until what was written is on the disk, where there is one.

        Raises:
            RnnctlError: the disk refused.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            # Pipes and devices have nothing to wait for.
            if error.errno != errno.EINVAL:
                raise RnnctlError(f"cannot write {str(self._path)!r}: {error.strerror or error}") from None

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

    A torn line, as an interrupted write leaves it, is left out where it is the last of its writer; what ``cat`` joined
    to it, the first line of the next file, is not.

    Args:
        path: the file.
        writer: of a line, the name of its writer; raises InputError for a line of somebody else.
        program: what writes such files, for messages.
        head: how all its lines begin, a torn one too as far as it goes.
    Attributes:
        notes: what was left out, once the lines have been gone through.
    """

    def __init__(self, path: Path, writer: Callable[[Line], str], program: str, head: bytes = b"") -> None:
        self.notes: list[str] = []
        self._path, self._writer, self._program, self._head = path, writer, program, head

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
                # One interruption tears one line; of two in a row their head alone tells that they are ours.
                self._settle(torn, again=not self._head)
                if not self._begins_as_ours(text):
                    raise self._foreign(place)
                torn, record = place, self._joined(text)
            if record is None:
                continue
            line = Line(place, record)
            writer = self._writer(line)
            self._settle(torn, again=writer == last)
            torn, last = None, writer
            yield line
        self._settle(torn, again=False)

    def _texts(self) -> Iterator[tuple[str, bytes]]:
        for number, text in enumerate(read_lines(self._path), 1):
            if text.strip():
                yield f"{self._path}, line {number}", text

    def _begins_as_ours(self, text: bytes) -> bool:
        # Of what was not yet on the disk when power went, some systems keep zeros.
        begun = text.rstrip(b"\0")[: len(self._head)]
        return self._head.startswith(begun)

    def _joined(self, text: bytes) -> Mapping[str, Any] | None:
        """The whole line that follows a torn one without a line's end, if any."""
        place = text.rfind(self._head) if self._head else 0
        return _json_object(text[place:]) if place > 0 else None

    def _settle(self, torn: str | None, *, again: bool) -> None:
        """A torn line is no error where its writer does not come again."""
        if torn is None:
            return
        if again:
            raise self._foreign(torn)
        self.notes.append(f"{torn} is torn, as by an interruption, and is left out")

    def _foreign(self, place: str) -> InputError:
        return InputError(f"{place} is no JSON object. Is this a file that {self._program} wrote?")


def _opened(path: Path) -> FileIO:
    try:
        # Unbuffered: what is written survives the process, and no other process holds a copy of it.
        file = open(path, "ab", buffering=0)  # noqa: SIM115
    except IsADirectoryError:
        raise InputError(f"{str(path)!r} is a folder; name a file in it") from None
    except FileNotFoundError as error:
        missing = f"there is no folder {str(path.parent)!r}"
        raise InputError(f"cannot write {str(path)!r}: {error.strerror if path.parent.is_dir() else missing}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {str(path)!r}: {getattr(error, 'strerror', None) or error}") from None
    return file


def _lock(file: FileIO) -> None:
    try:
        # The system's own, which is gone with the process, however that ends.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    except OSError as error:
        # Some file systems of clusters have no locks: what is written there is better than nothing.
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def _ends_within_a_line(path: Path) -> bool:
    if not os.path.isfile(path) or os.path.getsize(path) == 0:
        return False
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _begin_of_last_line(file: BinaryIO) -> int:
    """Where it stands, of a file that does not end with the end of a line."""
    place = file.seek(0, os.SEEK_END)
    while place > 0:
        start = max(0, place - CHUNK)
        file.seek(start)
        found = file.read(place - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        place = start
    return 0


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
