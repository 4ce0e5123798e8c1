"""How much every step sends back: of the hand-written network, of the weights of a model, of a training run."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rnnctl.view.figures.drawing import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    LINE,
    ORANGE,
    PURPLE,
    SIZE,
    SKY,
    SMALL,
    SMALLER,
    WIDE,
    Curve,
    counted,
    curve,
    heat,
    legend_below,
    logarithmic,
    single,
    whole_ticks,
)

MOST_PANELS = 6
# Letters of a line above a panel.
LETTERS_ABOVE, LETTERS_ABOVE_ONE_OF_MANY = 84, 60
WORDS = {
    "grad_norm_W_hh": "||G_t||, what step t adds",
    "grad_norm_h": "||dL/dh_t||, in all",
    "grad_norm_h_direct": "||dL/dh_t||, by y_t alone",
    "grad_norm_c": "||dL/dc_t||, in all",
}
LOOKS: Mapping[str, Mapping[str, Any]] = {
    "grad_norm_W_hh": {"color": BLUE, "ls": "-", "marker": "o"},
    "grad_norm_h": {"color": ORANGE, "ls": "--", "marker": "o"},
    # A ring, so that the point of grad_norm_h within it shows.
    "grad_norm_h_direct": {"color": GREEN, "ls": ":", "marker": "o", "ms": 8, "mfc": "none"},
    "grad_norm_c": {"color": PURPLE, "ls": "-.", "marker": "o"},
}
LOOKS_OF_GATES: Sequence[Mapping[str, Any]] = (
    {"color": GREEN, "ls": "-", "marker": "^"},
    {"color": SKY, "ls": "--", "marker": "v"},
    {"color": AMBER, "ls": "-.", "marker": "D"},
    {"color": GREY, "ls": ":", "marker": "x"},
)


def gradnorm(result: Any) -> Figure:
    """Three norms over time, under the verdict on them and its reason."""
    figure, axes = single()
    curves = _norms(axes, result, ("grad_norm_W_hh", "grad_norm_h", "grad_norm_h_direct"))
    logarithmic(axes)
    counted(axes, len(result.rows), "time step t")
    axes.set_ylabel("norm (loss per unit of W_hh or of h)")
    said = fill(verdict_words(result.scalars, result.scalars["reason"]), LETTERS_ABOVE)
    axes.set_title(said, fontsize=SMALL)
    figure.set_figheight(figure.get_figheight() + LINE * said.count("\n"))
    legend_below(axes, curves, 1)
    return figure


def gradnorm_modules(result: Any) -> Figure:
    """A panel for each of the first weights."""
    weights = list(result.weights.values())
    shown = weights[:MOST_PANELS]
    columns = 1 if len(shown) == 1 else 2
    rows = math.ceil(len(shown) / columns)
    legend_lines = max(math.ceil((3 + len(weight.gates)) / 2) for weight in shown)
    size = SIZE[0] if columns == 1 else WIDE[0], 0.4 + (3 + LINE * legend_lines) * rows
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, weight, judged in zip(panels, shown, result.more["weights"], strict=False):
        _one_weight(axes, weight, judged)
    for axes in panels[len(shown) :]:
        axes.remove()
    if len(weights) > len(shown):
        figure.suptitle(f"the first {len(shown)} of {len(weights)} recurrent weights; --module picks others")
    return figure


def _one_weight(axes: Axes, weight: Any, judged: Mapping[str, Any]) -> None:
    names = [name for name in ("grad_norm_W_hh", "grad_norm_h", "grad_norm_c") if getattr(weight, name) is not None]
    curves = _norms(axes, weight, names)
    for (gate, values), look in zip(weight.grad_norm_gates.items(), cycle(LOOKS_OF_GATES), strict=False):
        thin = {"lw": 0.9, "ms": 3, "zorder": 1.5, "label": f"gate {gate}", **look}
        curves.append(curve(axes, values.tolist(), f"its gate {gate}", thin))
    logarithmic(axes)
    counted(axes, len(weight.grad_norm_W_hh), "time step t")
    axes.set_ylabel("norm (loss per unit)")
    said = fill(verdict_words(judged), LETTERS_ABOVE_ONE_OF_MANY)
    name = fill(weight.name, LETTERS_ABOVE_ONE_OF_MANY)
    axes.set_title(name, fontsize=SMALL, pad=6 + 10 * len(said.splitlines()), parse_math=False)
    axes.text(0.5, 1.02, said, transform=axes.transAxes, ha="center", va="bottom", fontsize=SMALLER)
    legend_below(axes, curves, 2)


def _norms(axes: Axes, result: Any, names: Sequence[str]) -> list[Curve]:
    return [curve(axes, getattr(result, name).tolist(), WORDS[name], {"label": name, **LOOKS[name]}) for name in names]


def verdict_words(judged: Mapping[str, Any], reason: str | None = None) -> str:
    """The verdict with its number, and the reason if it is given; the reason alone where there is no number."""
    factor = judged["factor_per_step"]
    if factor is None:
        return f"{judged['verdict']}: {judged['reason']}"
    by = f"{judged['verdict']}: each step back multiplies the gradient by {factor:.3g}"
    return by if reason is None else f"{by}; {reason}"


def gradnorm_history(result: Any) -> Figure:
    """The norms of one weight over time, a row for every training step that was looked at."""
    figure, axes = single()
    norms = np.array(result.grad_norm_W_hh.tolist(), float)
    heat(figure, axes, norms, f"grad_norm_W_hh of {result.weight}", aspect="auto")
    whole_ticks(axes.yaxis)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda row, _: _step_at(row, result.steps)))
    whole_ticks(axes.xaxis)
    axes.set(xlabel="time step t", ylabel="training step")
    return figure


def _step_at(row: float, steps: Sequence[int]) -> str:
    """The number of the training step that a row of a picture shows."""
    return str(steps[int(row)]) if row == int(row) and 0 <= row < len(steps) else ""
