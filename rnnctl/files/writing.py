"""Files written whole or not at all."""

import os
import tempfile
from pathlib import Path

from rnnctl.errors import InputError, RnnctlError


def write_whole(path: Path, data: bytes) -> None:
    """Write to a temporary file in the same folder and rename it, so that no torn file is left.

    Raises:
        RnnctlError: the system refused, what was there before is untouched.
    """
    try:
        if _is_special(path):
            # A pipe or a device is written to, not replaced.
            path.write_bytes(data)
        else:
            # Where a link points to, so that the link stays one.
            _replace(Path(os.path.realpath(path)), data)
    except OSError as error:
        raise RnnctlError(f"cannot write {str(path)!r}: {error.strerror or error}") from None


def require_writable(path: Path, *, force: bool) -> None:
    """Raise InputError unless ``path`` can be written; asked before anything is computed."""
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
        os.lstat(path)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {str(path)!r}: {getattr(error, 'strerror', None) or error}") from None


def _replace(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".rnnctl.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _is_special(path: Path) -> bool:
    """Whether there is something at ``path`` that is neither a file nor a folder."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
