"""The axes of a grid of settings: which of them a picture has, the labels of their values, what a headline says."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rnnctl.errors import InputError
from rnnctl.view.numbers import number, printable

Record = Mapping[str, Any]
# Of a row of a sweep the first field after the names and values of its axes.
FIRST_COUNT = "runs"
# What is drawn in place of a number.
FAILED, UNDEFINED = "!", "?"
# Of a map each side, so that a contour has something to go between; below that lines say more.
LEAST_OF_A_MAP = 3
MOST_MAPS, MOST_LINES = 4, 8
# Ratios of neighbours on a logarithmic grid agree but for the rounding of decimals, or to whole numbers.
SAME_STEP = 0.1
# Values that a headline lists one by one.
LISTED, LISTED_LETTERS = 4, 40


@dataclass(frozen=True)
class Plan:
    """What a picture of a grid is made of.

    Attributes:
        across: the axis of numbers that goes from left to right.
        up: that of a map from bottom to top; None where lines are drawn.
        apart: the other axes: each combination of their values is a map, or a line, of its own.
    """

    across: str
    up: str | None
    apart: tuple[str, ...]


@dataclass(frozen=True)
class Gridded:
    """The rows of a sweep as a picture has them.

    Attributes:
        plan: what is drawn.
        across, up: the values of its axes, in order; none up where lines are drawn.
        cells: the rows of every map or line, under what tells it from the others; "" where there is but one.
    """

    plan: Plan
    across: Sequence[float]
    up: Sequence[float]
    cells: Mapping[str, Sequence[Record]]

    def by_place(self, rows: Sequence[Record]) -> dict[tuple[int, int], Record]:
        """The rows of one map by their places (up, across)."""
        ups, acrosses = ({value: i for i, value in enumerate(values)} for values in (self.up, self.across))
        return {(ups[row[str(self.plan.up)]], acrosses[row[self.plan.across]]): row for row in rows}


def gridded(rows: Sequence[Record], plan: Plan, axes: Mapping[str, Sequence[Any]]) -> Gridded:
    """The rows under a plan of their axes."""
    up = () if plan.up is None else axes[plan.up]
    return Gridded(plan, axes[plan.across], up, cells_by_combination(rows, plan))


def planned(axes: Mapping[str, Sequence[Any]], least: int) -> Plan | None:
    """The picture of these axes; None where none is of numbers. Of one value alone there is no axis.

    Args:
        axes: name -> its values, each once; of those that change in step the first.
        least: values that each side of a map needs; with fewer there are lines along the longer one.
    """
    varied = {name: values for name, values in axes.items() if len(values) > 1}
    of_numbers = [name for name in varied if is_of_numbers(varied[name])]
    if not of_numbers:
        return None
    across, *others = of_numbers
    up = others[0] if others else None
    if up is not None and min(len(varied[across]), len(varied[up])) < least:
        across, up = max(of_numbers, key=lambda name: len(varied[name])), None
    return Plan(across, up, tuple(name for name in varied if name not in (across, up)))


def require_drawable(axes: Mapping[str, Sequence[Any]]) -> Plan:
    """What a figure makes of a grid; one that no figure shows is refused, before it is run.

    Args:
        axes: as of ``planned``, without the seed.
    Raises:
        InputError: no axis of numbers, more than two, or more maps or lines than can be told apart.
    """
    plan, varied = planned(axes, LEAST_OF_A_MAP), [name for name, values in axes.items() if len(values) > 1]
    can = "--plot draws lines over one setting that is a number, or a map over two"
    if plan is None:
        said = f"{_listed(varied)} {'are' if varied[1:] else 'is'} none" if varied else "no setting is varied"
        raise InputError(f"{can}; {said}. Vary a number, or leave out --plot")
    of_numbers = [name for name in varied if is_of_numbers(axes[name])]
    if len(of_numbers) > 2:
        raise InputError(f"{can}; {_listed(of_numbers)} are {len(of_numbers)}. Vary fewer, or leave out --plot")
    count, most = math.prod(len(axes[name]) for name in plan.apart), MOST_LINES if plan.up is None else MOST_MAPS
    if count > most:
        what = "lines" if plan.up is None else "maps"
        raise InputError(f"--plot draws at most {most} {what}; {_listed(plan.apart)} would make {count:,}. Vary fewer")
    return plan


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def is_of_numbers(values: Sequence[Any]) -> bool:
    """Whether all of them have a place on a line."""
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values)


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether neighbours, in order, have one ratio, and no one difference: 1, 2, 4, but not 1, 2, 3."""
    ordered = sorted(values)
    if len(ordered) < 3 or ordered[0] <= 0:
        return False
    logs = [math.log(value) for value in ordered]
    return is_even(logs) and not is_even(ordered)


def is_even(ordered: Sequence[float]) -> bool:
    """Whether neighbours are equally far from one another; two or more, in order."""
    mean = (ordered[-1] - ordered[0]) / (len(ordered) - 1)
    return all(abs(after - before - mean) <= SAME_STEP * mean for before, after in pairwise(ordered))


def axes_of(rows: Sequence[Record]) -> dict[str, list[Any]]:
    """The axes along which the rows of a sweep lie, and the values of each, numbers in order.

    Left out is what changes in step with an axis before it, as a name that is varied together with another one does.
    """
    names = names_of(rows, FIRST_COUNT)
    found: dict[str, list[Any]] = {}
    for name in names:
        if not any(_in_step(rows, name, other) for other in found):
            values = list({repr(row[name]): row[name] for row in rows}.values())
            found[name] = sorted(values) if is_of_numbers(values) else values
    return found


def names_of(rows: Sequence[Record], before: str) -> list[str]:
    """The fields of these rows that stand before one: what was varied."""
    names = list(rows[0]) if rows else [before]
    return names[: names.index(before)]


def _in_step(rows: Sequence[Record], one: str, other: str) -> bool:
    """Whether each value of one goes with one value of the other, and the other way round."""
    pairs = {(repr(row[one]), repr(row[other])) for row in rows}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) > 1


def cells_by_combination(rows: Sequence[Record], plan: Plan) -> dict[str, list[Record]]:
    """The rows of every map or line, under what tells it from the others; "" where there is but one."""
    labels = {name: labels_of([row[name] for row in rows]) for name in plan.apart}
    found: dict[str, list[Record]] = {}
    for i, row in enumerate(rows):
        found.setdefault(", ".join(f"{words_of(name)} {labels[name][i]}" for name in plan.apart), []).append(row)
    return found


def median_or_sign(row: Record) -> float | str:
    """The median of a grid point, or the sign of why there is none."""
    median = row["median"]
    if median is not None and not math.isnan(median):
        return float(median)
    return FAILED if row["failed"] == row["runs"] else UNDEFINED


def labels_of(values: Sequence[Any]) -> list[str]:
    """Each as text, numbers with as few digits as tell those apart that differ."""
    for digits in range(4, 17):
        texts = [f"{v:.{digits}g}" if isinstance(v, float) else number(v) for v in values]
        if len(set(texts)) == len(set(map(repr, values))):
            return texts
    return [printable(str(value)) for value in values]


def words_of(name: str) -> str:
    """A setting or scalar as people write it; of an argument of a model its own name."""
    return name.removeprefix("model_arg.").replace("_", " ").replace("W hh", "W_hh")


def varied_words(vary: Mapping[str, Sequence[Any]]) -> str:
    """What a headline says of a grid: "gain (10 values from 0.6 to 2.4), hidden_size (64, 256), 5 seeds"."""
    said = [f"{name} {_values_words(values)}" for name, values in vary.items() if name != "seed"]
    seeds = len(vary.get("seed", ()))
    return ", ".join([*said, *([f"{seeds:,} seeds" if seeds != 1 else "1 seed"] if seeds else [])])


def _values_words(values: Sequence[Any]) -> str:
    labels, listed = labels_of(values), ", ".join(labels_of(values))
    if len(values) == 1:
        return labels[0]
    if len(values) <= LISTED and len(listed) <= LISTED_LETTERS:
        return f"({listed})"
    if is_of_numbers(values):
        low, high = (labels[values.index(end)] for end in (min(values), max(values)))
        return f"({len(values):,} values from {low} to {high})"
    return f"({len(values):,} values)"
