"""The grid of a sweep: every combination of the settings that are varied, by its number."""

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rnnctl.errors import InputError

# start:stop:count, of numbers alone: names of functions have a colon, too.
RANGE = re.compile(r"([^:]+):([^:]+):(\d+)[:\s]*([A-Za-z]\w*)?")
HALF_RANGE = re.compile(r"[^:]+:[^:]+")
# To so many a value is what was meant: 0.8, not 0.7999999999999999.
DIGITS = 12
# What nobody waits for; it is a slip of the keyboard, such as a count for a stop.
MOST_VALUES = 1_000_000


@dataclass(frozen=True)
class Axis:
    """What is varied together: one name, or several that change in step.

    Attributes:
        names: of the settings.
        values: for each step along the axis, a value for each name.
    """

    names: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]

    def at(self, index: int) -> dict[str, Any]:
        """Name -> value at one step."""
        return dict(zip(self.names, self.values[index], strict=True))


@dataclass(frozen=True)
class Grid:
    """The product of its axes; the last one changes fastest.

    Args:
        axes: no name twice.
        shard: (I, N): of the runs only every N-th, from the I-th on, I from 1.
    """

    axes: tuple[Axis, ...]
    shard: tuple[int, int] = (1, 1)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all that is varied."""
        return tuple(name for axis in self.axes for name in axis.names)

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self._point(index) for index in self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._point(self._indices[index])

    @property
    def _indices(self) -> range:
        first, every = self.shard
        return range(first - 1, math.prod(len(axis.values) for axis in self.axes), every)

    def _point(self, index: int) -> dict[str, Any]:
        steps = []
        for axis in reversed(self.axes):
            index, step = divmod(index, len(axis.values))
            steps.append(step)
        found: dict[str, Any] = {}
        for axis, step in zip(self.axes, reversed(steps), strict=True):
            found |= axis.at(step)
        return found


def grid_of(varied: Mapping[str, Sequence[Any]], *, together: bool = False, shard: tuple[int, int] = (1, 1)) -> Grid:
    """The grid over these values by name, in their order.

    Args:
        together: the first value of one goes with the first of all others, and so on, but for the seeds.
    Raises:
        InputError: no value, one twice, or those that go together differ in number.
    """
    for name, values in varied.items():
        _require_values(name, values)
    apart = {name: values for name, values in varied.items() if not together or name == "seed"}
    joint = {name: values for name, values in varied.items() if name not in apart}
    axes = [Axis((name,), tuple((value,) for value in values)) for name, values in apart.items()]
    if joint:
        counts = {name: len(values) for name, values in joint.items()}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise InputError(f"--vary-together takes as many values of each; {said}")
        axes.insert(0, Axis(tuple(joint), tuple(zip(*joint.values(), strict=True))))
    return Grid(tuple(axes), shard)


def _require_values(name: str, values: Sequence[Any]) -> None:
    if not len(values):
        raise InputError(f"{name} is varied over no value")
    seen = set()
    for value in values:
        if repr(value) in seen:
            raise InputError(f"{name} is varied over {value!r} twice; give every value once")
        seen.add(repr(value))


def values_in(text: str, *, whole: bool = False) -> list[str | int | float]:
    """The values in "a,b,c", in which "..." holds a comma, or in "start:stop:count" and "start:stop:count:log".

    Args:
        whole: of a range, the nearest whole numbers, each once.
    Returns:
        Texts of a list as they stand there; numbers of a range, both ends among them.
    Raises:
        InputError: a range that there is not.
    """
    if HALF_RANGE.fullmatch(text.strip()) and _ends(*text.split(":")) is not None:
        raise InputError(f"{text!r}: a range is start:stop:count, and has no count")
    found = RANGE.fullmatch(text.strip())
    if found is None or (ends := _ends(found[1], found[2])) is None:
        return list(_listed(text))
    count, kind = int(found[3]), found[4] or ""
    if kind not in ("", "log"):
        raise InputError(f"{text!r}: after the count there may be log; got {kind!r}")
    values = _spaced(text, *ends, count, log=bool(kind))
    return list(dict.fromkeys(round(value) for value in values)) if whole else list(values)


def _listed(text: str) -> Iterable[str]:
    try:
        (items,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:
        raise InputError(f"{text!r} is no list of values with commas between: {error}") from None
    if len(items) > 1 and "" in items:
        raise InputError(f"{text!r} has nothing between two commas, or after the last one")
    return [item.strip() for item in items]


def _ends(start: str, stop: str) -> tuple[float, float] | None:
    try:
        return float(start), float(stop)
    except ValueError:
        return None


def _spaced(text: str, start: float, stop: float, count: int, *, log: bool) -> list[float | int]:
    if not (math.isfinite(start) and math.isfinite(stop)):
        raise InputError(f"{text!r}: a range goes from one finite number to another")
    if not 2 <= count <= MOST_VALUES:
        raise InputError(f"{text!r}: a range has from 2 to {MOST_VALUES:,} values; got {count:,}")
    if log and (start <= 0 or stop <= 0):
        raise InputError(f"{text!r}: a logarithmic range lies above 0. Leave out log")
    shares = [i / (count - 1) for i in range(1, count - 1)]
    if log:
        inner = [math.exp(math.log(start) * (1 - share) + math.log(stop) * share) for share in shares]
        meant = [float(f"{value:.{DIGITS}g}") for value in inner]
    else:
        # Of the largest value, or 0 between -1 and 1 would be 5.6e-17.
        place = DIGITS - 1 - math.floor(math.log10(max(abs(start), abs(stop)) or 1))
        meant = [round(start * (1 - share) + stop * share, place) for share in shares]
    return [_plain(value) for value in (start, *meant, stop)]


def _plain(value: float) -> float | int:
    """A whole number as such: 64 for an option that takes no 64.0."""
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
