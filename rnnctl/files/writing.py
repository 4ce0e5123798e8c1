"""Files written whole or not at all."""

import os
import tempfile
from pathlib import Path

from rnnctl.errors import InputError


def write_whole(path: Path, data: bytes) -> None:
    """Write to a temporary file in the same folder and rename it, so that no torn file is left."""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror or error}") from None


def require_writable(path: Path, *, force: bool) -> None:
    """Raise InputError unless ``path`` can be written; asked before anything is computed."""
    folder = path.parent
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; name a file in it")
    if path.exists() and not force:
        raise InputError(f"{str(path)!r} is there already; add --force to replace it")
    if not folder.is_dir():
        raise InputError(f"cannot write {str(path)!r}: there is no folder {str(folder)!r}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {str(path)!r}: no permission to write in {str(folder)!r}")


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
