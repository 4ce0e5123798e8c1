"""Whether a file, a bundled name or standard input can be read, by names and ``stat`` alone, without torch."""

import os
import stat
from pathlib import Path

from rnnctl.data import TIME_COLUMNS
from rnnctl.errors import InputError, did_you_mean

FORMATS = ("npy", "npz", "pt", "safetensors", "csv")


def require_source(source: str, input_format: str | None, named: str = "") -> None:
    """Raise InputError where sequences cannot be read from there.

    Args:
        source: a path, a bundled name, or "-".
        input_format: one of FORMATS, which standard input needs.
        named: the option that names it, to begin the message with.
    """
    if is_bundled(source):
        if input_format not in (None, "csv"):
            raise InputError(f"{source} is bundled and is csv; got --input-format {input_format}. Leave it out")
    elif source == "-":
        if input_format is None:
            raise InputError(f"standard input has no suffix: add --input-format {'|'.join(FORMATS)}")
    elif not os.path.lexists(source):
        bundled = "" if "." in source else f", and the bundled sequences are {', '.join(TIME_COLUMNS)}"
        near = did_you_mean(source, TIME_COLUMNS)
        raise InputError(f"{_begun(named)}there is no file {source!r}{bundled}.{near}")
    else:
        require_file(Path(source), named)


def is_bundled(source: str) -> bool:
    """Whether it comes with rnnctl; a file of that name goes before."""
    return source in TIME_COLUMNS and not os.path.exists(source)


def require_target(source: str, named: str = "") -> None:
    """Raise InputError where a target cannot be read from there: it is the path of a file."""
    if source == "-":
        raise InputError("--target must be dummy, next or a file; standard input is for --input")
    if not os.path.exists(source) and "." not in source:
        near = did_you_mean(source, ("dummy", "next"))
        raise InputError(f"--target must be dummy, next or a file; there is no file {source!r}.{near}")
    require_file(Path(source), named)


def require_file(path: Path, named: str = "") -> None:
    """Raise InputError where a file is not there, or is none that can be read to its end."""
    begun = _begun(named)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise InputError(f"{begun}there is no file {str(path)!r}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{begun}cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from None
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        raise InputError(f"{begun}cannot read {str(path)!r}: Is a directory")
    # A device has no end to read to.
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise InputError(f"{begun}{str(path)!r} is a device, not a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{begun}cannot read {str(path)!r}: Permission denied")


def _begun(named: str) -> str:
    return f"{named}: " if named else ""
