"""How far back the losses of all steps reach, and what a shorter window loses."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnnctl.view.curves import ROUNDING
from rnnctl.view.figures.drawing import (
    BLUE,
    ORANGE,
    Curve,
    counted,
    curve,
    finite,
    heat,
    legend_below,
    logarithmic,
    pair,
    positive,
    single,
    whole_ticks,
)

MOST_WINDOWS_TICKED = 12
PART = r"$\|\,$part of $dL_k/dW_{hh}$ from step $t\,\|$"
REACH = r"$\|\,dL_k/d\mathrm{state}_{k-\mathrm{lag}}\,\|\;/\;\|\,dL_k/d\mathrm{state}_{k}\,\|$"


def flow(result: Any) -> Figure:
    """Every loss step by every source step, and beside it how a loss fades with the lag."""
    figure, left, right = pair()
    flow_panel(left, result)
    _lags(right, {name: values.tolist() for name, values in result.lag_profile.items()})
    return figure


def flow_panel(axes: Axes, result: Any) -> None:
    """Every loss step by every source step, into axes that are there."""
    heat(axes.figure, axes, np.array(result.norms.tolist(), float), PART, aspect="equal")
    axes.set(xlabel="source step t", ylabel="loss step k")
    # Half a figure has no room for more numbers of four digits.
    whole_ticks(axes.xaxis, 6)
    whole_ticks(axes.yaxis)


def _lags(axes: Axes, profile: Mapping[str, list[float]]) -> None:
    count = len(profile["median"])
    low, high = positive(profile["p10"]), positive(profile["p90"])
    band = axes.fill_between(range(count), low, high, color=BLUE, alpha=0.25, lw=0)
    look = {"color": BLUE, "marker": "o", "ms": 3, "label": "median over k"}
    curves = [
        Curve(band, "10 to 90 % over k"),
        curve(axes, profile["median"], "median over k", look),
    ]
    if np.isfinite(low + high).any():
        curves.append(Curve(axes.axhline(0.01, color=ORANGE, ls="--"), "1 %"))
    logarithmic(axes)
    counted(axes, count, "lag (steps back)")
    axes.set_ylabel(REACH)
    legend_below(axes, curves, 3)


def truncation(result: Any) -> Figure:
    """What every window loses, where it is more than rounding."""
    figure, axes = single()
    truncation_panel(axes, result)
    return figure


def truncation_panel(axes: Axes, result: Any) -> None:
    """The same into axes that are there."""
    windows = [row["window"] for row in result.rows]
    errors = [row["relative_error"] for row in result.rows]
    turned = [None if row["cosine"] is None else 1 - row["cosine"] for row in result.rows]
    curves = [
        _loss(axes, windows, errors, "relative error", {"color": BLUE, "marker": "o"}),
        _loss(axes, windows, turned, "1 - cosine", {"color": ORANGE, "marker": "s", "ls": "--"}),
    ]
    known = any(math.isfinite(finite(value)) for value in errors)
    nothing = "no window differs by more than rounding" if known else result.why["window_for_cosine_99"]
    logarithmic(axes, nothing)
    axes.set_xscale("log", base=2)
    axes.set_xlim(windows[0] / 1.3, windows[-1] * 1.3)
    ticked = spaced(windows)
    axes.set_xticks(ticked, [str(window) for window in ticked])
    axes.set(xlabel="window K (steps back)", ylabel="against the full gradient of W_hh")
    legend_below(axes, curves, 1)


def _loss(
    axes: Axes, windows: Sequence[int], values: Sequence[float | None], name: str, look: Mapping[str, Any]
) -> Curve:
    """What of it is more than rounding; the windows where it is not are named in the legend."""
    known = [finite(value) for value in values]
    same = [window for window, value in zip(windows, known, strict=True) if value <= ROUNDING]
    drawn = curve(
        axes, [None if value <= ROUNDING else value for value in known], name, {"label": name, **look}, windows
    )
    if not same:
        return drawn
    listed = ", ".join(map(str, same)) if len(same) <= 4 else f"{same[0]}, {same[1]}, ... {same[-1]}"
    return Curve(drawn.line, f"{name} (left out at K = {listed}: below {ROUNDING:g}, no more than rounding)")


def spaced(windows: Sequence[int]) -> list[int]:
    """Of the windows, the last and those far enough apart on a scale of powers that their numbers do not touch."""
    least = (windows[-1] * 1.69 / windows[0]) ** (1 / MOST_WINDOWS_TICKED)
    kept: list[int] = []
    for window in reversed(windows):
        if not kept or window * least <= kept[-1]:
            kept.append(window)
    return kept[::-1]
