"""A run on a worker of a cluster: the user's files may lie elsewhere there, or be copies, and no answer tells."""

import importlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock
from typing import Any
from uuid import uuid4

from rnnctl.cli.asking import answer, load
from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.sweeping.plan import CODE, FILES, PlannedRun, content_digest, source_of
from rnnctl.cli.versions import named
from rnnctl.files.typed import make_importable, module_and_name
from rnnctl.sweeps.cluster import own_folder, told_of

# Of this process alone, which tells a worker that is a thread of the sender's.
PROCESS = uuid4().hex
INSTALLED = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")})


@dataclass(frozen=True)
class NamedFile:
    """A file that an option names, or the module of code that it names.

    Attributes:
        option: its name.
        said: as typed.
        path: where it lies for the sender, from the root.
        digest: sha256 of its content.
    """

    option: str
    said: str
    path: str
    digest: str

    @property
    def is_code(self) -> bool:
        """Whether it is a module, which is imported by its name."""
        return self.option in CODE

    @property
    def is_installed(self) -> bool:
        """Whether it came with a package of Python's, which is no file of the user's."""
        return self.is_code and self.path.startswith(INSTALLED)

    @property
    def parts(self) -> list[str]:
        """Of the module's name."""
        return module_and_name(self.said, self.option)[0].split(".")

    @property
    def is_whole(self) -> bool:
        """Whether it needs no other file beside it, as far as its name tells."""
        is_package = len(self.parts) > 1 or Path(self.path).name == "__init__.py" if self.is_code else False
        return not is_package and not self.is_installed

    @property
    def root(self) -> str:
        """The folder in which Python finds the module."""
        path = Path(self.path)
        return str(path.parents[len(self.parts) - 1 + (path.name == "__init__.py")])

    @property
    def sent_as(self) -> str:
        """Its name among what a worker was sent."""
        return f"rnnctl-{self.digest[:16]}-{Path(self.path).name}"


@dataclass(frozen=True)
class Sender:
    """What a worker must know of the sweep that a run belongs to.

    Attributes:
        sweep: a name that no other has, on which it hears of runs that are begun.
        versions: of rnnctl and torch.
        files: that its options name.
        process: that sent it.
    """

    sweep: str
    versions: Mapping[str, str]
    files: tuple[NamedFile, ...]
    process: str = PROCESS


class _State:
    """Of the process of a worker: for which sweep it is prepared, where that one's files are, what was put in front."""

    # What Python has imported belongs to the whole process.
    alone = RLock()
    sweep: str | None = None
    places: Mapping[str, str] = {}
    folders: Sequence[str] = ()


def answer_there(sender: Sender, run: PlannedRun) -> dict[str, Any]:
    """What a worker of a cluster does with a run.

    Returns:
        What ``asking.answer`` returns, files named as the sender did.
    Raises:
        BrokenExecutor: this worker can make no run of the sweep; the text says why.
    """
    if sender.process == PROCESS:
        # A thread of this process: everything is here already, and nobody outlives it.
        return answer(run.asked)
    with _State.alone, told_of(sender.sweep):
        if _State.sweep != sender.sweep:
            _prepare(sender, run.asked.question)
        places = _State.places
        found = answer(replace(run.asked, given=_moved(run.asked.given, places)))
    typed = {place: said for said, place in places.items()}
    return {name: value if name == "rows" else _as_typed(value, typed) for name, value in found.items()}


def lacking(files: Iterable[NamedFile]) -> list[NamedFile]:
    """Those of which a worker that is asked has no file of the same content."""
    return [file for file in files if (_root_of(file) if file.is_code else _path_of(file)) is None]


def _prepare(sender: Sender, question: str) -> None:
    """Find the files of a sweep, and let its modules be imported anew, for those of another may have their names."""
    address, folder = own_folder()
    _State.sweep = None
    if (own := named()) != dict(sender.versions):
        raise BrokenExecutor(f"the worker at {address} has {_said(own)}, and here is {_said(sender.versions)}")
    _forget(sender.files)
    places, folders = {}, []
    for file in sender.files:
        found = _root_of(file) if file.is_code else _path_of(file)
        if found is None and (copy := _copy_of(file, folder)) is not None:
            found = str(copy.parent if file.is_code else copy)
        if found is None:
            raise BrokenExecutor(f"the worker at {address} has no {file.path} of the same content, and got no copy")
        if not file.is_code:
            places[file.said] = found
        elif found:
            folders.append(found)
    make_importable(os.getcwd())
    sys.path[:0] = folders
    # Not within the first run, whose time would seem to be that of every run.
    load(question)
    _State.sweep, _State.places, _State.folders = sender.sweep, places, folders


def _said(found: Mapping[str, str]) -> str:
    return " and ".join(f"{package} {version}" for package, version in found.items())


def _forget(files: Iterable[NamedFile]) -> None:
    """Take back what the last sweep put in front, and what it imported from there and from beside these modules."""
    for folder in _State.folders:
        with suppress(ValueError):
            sys.path.remove(folder)
    of_users = [file for file in files if file.is_code and not file.is_installed]
    firsts = {file.parts[0] for file in of_users}
    folders = {*_State.folders, *(file.root for file in of_users)}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None) or ""
        first = name.partition(".")[0]
        if first in ("rnnctl", "__main__") or path.startswith(INSTALLED):
            continue
        if first in firsts or os.path.dirname(path) in folders:
            del sys.modules[name]
    importlib.invalidate_caches()


def _root_of(file: NamedFile) -> str | None:
    """The folder that must be looked in first to import it, "" where none must; None where it is not here."""
    if not file.is_installed and content_digest(file.path) == file.digest:
        return file.root
    own = source_of(file.said, file.option)
    return "" if own is not None and content_digest(str(own)) == file.digest else None


def _path_of(file: NamedFile) -> str | None:
    return file.path if content_digest(file.path) == file.digest else None


def _copy_of(file: NamedFile, folder: str) -> Path | None:
    """The copy that was sent, under its own name in a folder of its own; None where there is none."""
    kept = Path(folder) / f"rnnctl-{file.digest[:16]}" / Path(file.path).name
    with suppress(FileNotFoundError):
        kept.parent.mkdir(exist_ok=True)
        os.replace(Path(folder) / file.sent_as, kept)
    return kept if content_digest(str(kept)) == file.digest else None


def _moved(given: CommandOptions, places: Mapping[str, str]) -> CommandOptions:
    """The options with the files where they are here."""
    groups = []
    for group in vars(given).values():
        named: dict[str, Any] = {name: getattr(group, name, None) for name in FILES}
        moved = {name: type(value)(places[str(value)]) for name, value in named.items() if str(value) in places}
        groups += [replace(group, **moved)] if moved else []
    return given.having(*groups)


def _as_typed(value: Any, typed: Mapping[str, str]) -> Any:
    """What the sender would have said."""
    if isinstance(value, str):
        for place, said in typed.items():
            value = value.replace(place, said)
        return value
    if isinstance(value, Mapping):
        return {name: _as_typed(each, typed) for name, each in value.items()}
    return [_as_typed(each, typed) for each in value] if isinstance(value, list) else value
