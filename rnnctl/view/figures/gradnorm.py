"""How much every step sends back: of the hand-written network, of the weights of a model, of a training run."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rnnctl.view.curves import MOST_PANELS, WORDS, time_label
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

# Letters of a line above a panel.
LETTERS_ABOVE, LETTERS_ABOVE_ONE_OF_MANY = 84, 60
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
# Of the gates beyond these, such as of a weight that a step uses in many pieces.
FAINT: Mapping[str, Any] = {"color": "0.7", "ls": "-", "lw": 0.6}


def gradnorm(result: Any) -> Figure:
    """Three norms over time, under the verdict on them and its reason."""
    figure, axes = single()
    gradnorm_panel(axes, result)
    figure.set_figheight(figure.get_figheight() + LINE * axes.get_title().count("\n"))
    return figure


def gradnorm_panel(axes: Axes, result: Any) -> None:
    """The same into axes that are there."""
    curves = _norms(axes, result, ("grad_norm_W_hh", "grad_norm_h", "grad_norm_h_direct"))
    logarithmic(axes)
    counted(axes, len(result.rows), "time step t")
    axes.set_ylabel("norm (loss per unit of W_hh or of h)")
    said = fill(verdict_words(result.scalars, with_reason=True), LETTERS_ABOVE)
    axes.set_title(said, fontsize=SMALL)
    legend_below(axes, curves, 1)


def gradnorm_modules(result: Any) -> Figure:
    """A panel for each of the first weights."""
    weights, judged = list(result.weights.values()), result.more.get("weights", ())
    shown = weights[:MOST_PANELS]
    columns = 1 if len(shown) == 1 else 2
    rows = math.ceil(len(shown) / columns)
    legend_lines = max(math.ceil((3 + min(len(weight.gates), 5)) / 2) for weight in shown)
    size = (SIZE[0], 3.8 + LINE * legend_lines) if columns == 1 else (WIDE[0], 0.6 + (3 + LINE * legend_lines) * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for i, (axes, weight) in enumerate(zip(panels, shown, strict=False)):
        # Of a trace nothing is judged.
        words = verdict_words(judged[i], with_reason=columns == 1) if judged else ""
        _one_weight(axes, weight, fill(words, LETTERS_ABOVE if columns == 1 else LETTERS_ABOVE_ONE_OF_MANY))
    for axes in panels[len(shown) :]:
        axes.remove()
    if len(weights) > len(shown):
        figure.suptitle(f"the first {len(shown)} of {len(weights)} recurrent weights; --module picks others")
    return figure


def first_weight_panel(axes: Axes, result: Any) -> None:
    """The first weight into axes that are there."""
    judged = result.more.get("weights", ())
    words = verdict_words(judged[0], with_reason=True) if judged else ""
    _one_weight(axes, next(iter(result.weights.values())), fill(words, LETTERS_ABOVE))


def _one_weight(axes: Axes, weight: Any, verdict: str) -> None:
    names = [name for name in ("grad_norm_W_hh", "grad_norm_h", "grad_norm_c") if getattr(weight, name) is not None]
    curves = _norms(axes, weight, names)
    curves += _gates(axes, {gate: values.tolist() for gate, values in weight.grad_norm_gates.items()})
    logarithmic(axes)
    counted(axes, len(weight.grad_norm_W_hh), time_label(weight.name))
    axes.set_ylabel("norm (loss per unit)")
    name = fill(weight.name, LETTERS_ABOVE_ONE_OF_MANY)
    axes.set_title(name, fontsize=SMALL, pad=6 + 10 * len(verdict.splitlines()), parse_math=False)
    axes.text(0.5, 1.02, verdict, transform=axes.transAxes, ha="center", va="bottom", fontsize=SMALLER)
    legend_below(axes, curves, 2)


def _gates(axes: Axes, norms: Mapping[str, Sequence[float | None]]) -> list[Curve]:
    """Thin lines of the gates; those that no look is left for are alike, and named together."""
    looks = (*LOOKS_OF_GATES, *[FAINT] * len(norms))
    curves = [
        curve(axes, values, f"its gate {gate}", {"lw": 0.9, "ms": 3, "zorder": 1.5, "label": f"gate {gate}", **look})
        for (gate, values), look in zip(norms.items(), looks, strict=False)
    ]
    named, alike = curves[: len(LOOKS_OF_GATES)], curves[len(LOOKS_OF_GATES) :]
    return [*named, Curve(alike[0].line, f"its other {len(alike)} gates")] if alike[1:] else curves


def _norms(axes: Axes, result: Any, names: Sequence[str]) -> list[Curve]:
    return [curve(axes, getattr(result, name).tolist(), WORDS[name], {"label": name, **LOOKS[name]}) for name in names]


def verdict_words(judged: Mapping[str, Any], *, with_reason: bool) -> str:
    """The verdict with its number, and the reason if asked for; the reason alone where there is no number."""
    factor = judged["factor_per_step"]
    if factor is None:
        return f"{judged['verdict']}: {judged['reason']}"
    by = f"{judged['verdict']}: each step back multiplies d(last loss)/dh by {factor:.3g}"
    return f"{by}; {judged['reason']}" if with_reason else by


def gradnorm_history(result: Any) -> Figure:
    """The norms of one weight over time, a row for every training step that was looked at."""
    figure, axes = single()
    history_panel(axes, result)
    return figure


def history_panel(axes: Axes, result: Any) -> None:
    """The same into axes that are there."""
    norms = np.array(result.grad_norm_W_hh.tolist(), float)
    heat(axes.figure, axes, norms, f"grad_norm_W_hh of {result.weight}", aspect="auto")
    whole_ticks(axes.yaxis)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda row, _: _step_at(row, result.steps)))
    whole_ticks(axes.xaxis)
    axes.set(xlabel="time step t", ylabel="training step")


def _step_at(row: float, steps: Sequence[int]) -> str:
    """The number of the training step that a row of a picture shows."""
    return str(steps[int(row)]) if row == int(row) and 0 <= row < len(steps) else ""
