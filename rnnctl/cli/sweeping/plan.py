"""The runs of a sweep: for every grid point its options, its key, and whether flags alone tell that it cannot be."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rnnctl.cli.asking import Asked
from rnnctl.cli.options.command import CommandOptions, gathered
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.questions import QUESTIONS
from rnnctl.cli.setup.foreseen import require_foreseen
from rnnctl.cli.setup.request import request_of, require_consistent
from rnnctl.cli.sweeping.varied import NOT_VARIED, with_varied
from rnnctl.data import bundled_csv
from rnnctl.errors import InputError
from rnnctl.files.sources import is_bundled
from rnnctl.files.typed import make_importable, module_and_name
from rnnctl.results import Record
from rnnctl.sweeps.grid import Grid

# Options that name a file whose content shapes the answer, and those that name the user's code.
FILES, CODE = ("input", "target", "weights", "lengths"), ("model", "batch", "loss_fn")
NO_FILE = ("dummy", "next")


@dataclass(frozen=True)
class PlannedRun:
    """A run that is to be made.

    Attributes:
        place: its number in the grid.
        varied: name -> value, as JSON can hold it.
        key: what tells it from every run with another answer.
        asked: what a worker is handed.
    """

    place: int
    varied: Record
    key: str
    asked: Asked


class Plan:
    """One question over a grid.

    Args:
        question: its name.
        base: its options where the grid does not say.
        grid: with the names of the options.
        keep_rows: whether lines hold the rows, too.
        named: texts that name scalars, of which some ask for more of the answer ("cosine_at_20").
    """

    def __init__(
        self, question: str, base: CommandOptions, grid: Grid, *, keep_rows: bool = False, named: Sequence[str] = ()
    ) -> None:
        self.question, self.grid, self.keep_rows = question, grid, keep_rows
        self.kind = QUESTIONS[question].options
        self._named = tuple(text for text in named if "_at_" in text)
        self._digests: dict[str, str] = {}
        out = OutputOptions(only=None if keep_rows else "scalars", fail_on=list(self._named), quiet=True, format="json")
        # One thread a run, unless somebody says otherwise: many runs side by side are faster so.
        run = base.group(RunOptions) or RunOptions()
        self._base = base.having(out, replace(run, threads=run.threads or 1))
        # Once, and not for each of very many points.
        self._values = {name: value for name, value in self._base.by_name.items() if name not in NOT_VARIED}
        options = {name.partition(".")[0] for name in grid.names}
        of_groups = ((group, options & vars(group).keys()) for group in vars(self._base).values())
        self._varied_groups = [(group, names) for group, names in of_groups if names]

    def __len__(self) -> int:
        return len(self.grid)

    def runs(self) -> Iterator[PlannedRun]:
        """Every run, in the order of the grid."""
        for place, point in enumerate(self.grid):
            yield self._run(place, point)

    def run_at(self, place: int) -> PlannedRun:
        """One of them."""
        return self._run(place, self.grid[place])

    def varied(self) -> dict[str, list[Any]]:
        """Name -> every value that it is given, as JSON can hold it."""
        return {
            name: [_plain(values[i]) for values in axis.values]
            for axis in self.grid.axes
            for i, name in enumerate(axis.names)
        }

    def value_of(self, name: str) -> Any:
        """Of an option, where the grid does not say; None where the question has none of this name."""
        return self._values.get(name)

    def settings(self) -> Record:
        """What is not varied and not as it is by itself, by name."""
        usual, varied = gathered(self.kind, {}).by_name, self.grid.names
        return {
            name: _plain(value) for name, value in self._values.items() if name not in varied and value != usual[name]
        }

    def refusal(self, run: PlannedRun) -> str | None:
        """Why a run cannot be made, as far as flags and files tell; None where nothing speaks against it."""
        try:
            request = request_of(run.asked.given)
            if request.data.input == "-":
                raise InputError("--input - is read once, and a sweep makes many runs. Name a file")
            require_consistent(request)
            require_foreseen(run.asked.given, request)
        except InputError as error:
            return str(error)
        return None

    def _run(self, place: int, point: Mapping[str, Any]) -> PlannedRun:
        values = with_varied(self._values, point)
        varied = {name: _plain(value) for name, value in point.items()}
        return PlannedRun(place, varied, self._key(values), Asked(self.question, self._given(values), self.keep_rows))

    def _given(self, values: Mapping[str, Any]) -> CommandOptions:
        """The options of a run: the groups of what is varied made anew, as a grid may have very many points."""
        changed = (replace(group, **{name: values[name] for name in names}) for group, names in self._varied_groups)
        return self._base.having(*changed)

    def _key(self, values: Mapping[str, Any]) -> str:
        """Of the question, all options that change its answer, and the content of what they name."""
        content = {name: self._digest(name, str(values[name])) for name in FILES + CODE if values.get(name) is not None}
        # Where a file lies is nothing to the answer.
        said = {**values, **{name: digest for name, digest in content.items() if name in FILES}}
        text = json.dumps([self.question, said, content, self._named], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _digest(self, name: str, said: str) -> str:
        """What tells a file from one with another content, by the option that names it."""
        if said not in self._digests:
            self._digests[said] = _digest_of_code(said, name) if name in CODE else digest_of_file(said)
        return self._digests[said]


def _plain(value: Any) -> Any:
    """As JSON can hold it."""
    return value if isinstance(value, (bool, int, float, str, list, type(None))) else str(value)


def digest_of_file(source: str) -> str:
    """Of the content of a file, or of what comes with rnnctl under this name."""
    if source in NO_FILE:
        return source
    if is_bundled(source):
        return hashlib.sha256(bundled_csv(source)).hexdigest()
    # The run itself says what is wrong with what cannot be read.
    return content_digest(source) or f"unreadable {source}"


def content_digest(path: str) -> str | None:
    """The sha256 of what a file holds; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def _digest_of_code(place: str, option: str) -> str:
    path = source_of(place, option)
    return "" if path is None else digest_of_file(str(path))


def source_of(place: str, option: str) -> Path | None:
    """The file of the module in "package.module:name", found without importing it; None where nothing tells."""
    first, *inner = module_and_name(place, f"--{option.replace('_', '-')}")[0].split(".")
    make_importable(os.getcwd())
    try:
        spec = find_spec(first)
    except ValueError:
        return None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    for part in inner:
        folder = path.parent
        candidates = (folder / f"{part}.py", folder / part / "__init__.py")
        found = next((each for each in candidates if each.is_file()), None)
        if found is None:
            return None
        path = found
    return path if path.is_file() else None
