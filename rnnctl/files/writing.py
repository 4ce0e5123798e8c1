"""Files written whole or not at all."""

import os
import signal
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from rnnctl.errors import InputError, RnnctlError
from rnnctl.files.signals import put_off

# What would end the process before it could clear up; Ctrl-C comes as an exception.
ENDING = (signal.SIGTERM, signal.SIGHUP)


def write_whole(path: Path, data: bytes) -> str:
    """Write to a temporary file in the same folder and rename it, so that no torn file is left.

    A file that was there keeps its permissions, and its owner and group where this process may give them. Where
    ``path`` is a symbolic link, the file that it points to is replaced and the link stays one. Other names of the same
    file (hard links) keep what was there before. SIGTERM and SIGHUP end the process once the file is whole.

    Returns:
        What to tell of it: "wrote FILE", and of other names that it had.
    Raises:
        RnnctlError: the system refused, what was there before is untouched.
    """
    said = f"wrote {path}"
    try:
        if _is_special(path):
            # A pipe or a device is written to, not replaced.
            path.write_bytes(data)
            return said
        # Where a link points to, so that the link stays one.
        target = Path(os.path.realpath(path))
        before = os.stat(target) if os.path.exists(target) else None
        with put_off(*ENDING):
            _replace(target, data, before)
    except (OSError, ValueError) as error:
        raise RnnctlError(f"cannot write {str(path)!r}: {getattr(error, 'strerror', None) or error}") from None
    others = 0 if before is None else before.st_nlink - 1
    if others == 0:
        return said
    names = "another name, a hard link, which keeps" if others == 1 else f"{others} other names, hard links, which keep"
    return f"{said}; the file had {names} the old content"


def require_writable(path: Path, *, force: bool) -> None:
    """Raise InputError unless ``path`` can be written; asked before anything is computed."""
    if str(path) == "-":
        raise InputError("'-' is standard output, which the result alone goes to, by -o -. Name a file")
    if os.path.isdir(path):
        raise InputError(f"{str(path)!r} is a folder; name a file in it")
    if _is_special(path):
        return
    if os.path.exists(path) and not force:
        raise InputError(f"{str(path)!r} is there already; add --force to replace it")
    _require_possible_name(path)
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise InputError(f"cannot write {str(path)!r}: there is no folder {str(folder)!r}")
    try:
        # Permission bits do not tell of read-only disks: ask the system itself.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"cannot write in the folder {str(folder)!r}: {error.strerror or error}") from None


def _require_possible_name(path: Path) -> None:
    try:
        # Through links, of which one may lead to itself; the file may be yet to come.
        os.stat(path)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {str(path)!r}: {getattr(error, 'strerror', None) or error}") from None


def _replace(path: Path, data: bytes, before: os.stat_result | None) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".rnnctl.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            _give(handle, before)
            file.flush()
            # Before the rename, or a power cut could leave the new name with nothing in it.
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _give(handle: int, before: os.stat_result | None) -> None:
    """The permissions and the owner of the file that was there, or the usual permissions."""
    if before is None:
        os.fchmod(handle, 0o666 & ~_umask())
        return
    for owner, group in ((before.st_uid, -1), (-1, before.st_gid)):
        # Only root gives files away, and to a group only who is in it.
        with suppress(OSError):
            os.fchown(handle, owner, group)
    # After the owner, whose change takes bits away.
    os.fchmod(handle, stat.S_IMODE(before.st_mode))


def _sync_folder(folder: Path) -> None:
    # The file is in its place already, and not every file system can do this.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _is_special(path: Path) -> bool:
    """Whether there is something at ``path`` that is neither a file nor a folder."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
