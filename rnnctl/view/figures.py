"""Results as pictures, by matplotlib's Figure objects alone (no pyplot, no global state).

Colours are those of Okabe & Ito and the map "cividis", which the colour-blind can tell apart.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
# Inches: legible at 600 pixels.
SIZE, WIDE = (6.4, 4.2), (9.6, 4.2)
# Of a title, so that a line of it fits.
LETTERS_PER_INCH = 15
SMALLEST_SHOWN = 1e-12
MOST_PANELS = 6


def figure_bytes(result: Any, title: str, suffix: str) -> bytes:
    """The picture of a result as a .png, .svg or .pdf file.

    Args:
        result: one whose schema is a key of FIGURES.
        title: above it, in as many lines as it takes.
        suffix: "png", "svg" or "pdf".
    """
    figure = FIGURES[result.schema](result)
    lines = (*wrap(title, int(LETTERS_PER_INCH * figure.get_figwidth())), figure.get_suptitle())
    figure.suptitle("\n".join(filter(None, lines)), fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=150)
    return buffer.getvalue()


def _gradnorm(result: Any) -> Figure:
    figure, axes = _single()
    t = range(len(result.rows))
    marker = "o" if len(t) <= 60 else ""
    for name, color, style in (
        ("grad_norm_W_hh", BLUE, "-"),
        ("grad_norm_h", ORANGE, "--"),
        ("grad_norm_h_direct", GREEN, ":"),
    ):
        axes.plot(t, _positive(getattr(result, name).tolist()), style, color=color, marker=marker, ms=3, label=name)
    _logarithmic(axes)
    axes.set(xlabel="time step t", ylabel="norm (loss per unit of W_hh or of h)")
    axes.legend(fontsize=8)
    return figure


def _gradnorm_modules(result: Any) -> Figure:
    weights = list(result.weights.values())
    shown = weights[:MOST_PANELS]
    columns = 1 if len(shown) == 1 else 2 if len(shown) <= 4 else 3
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(6.4 if columns == 1 else 4.8 * columns, 1 + 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, weight in zip(panels, shown, strict=False):
        _one_weight(axes, weight)
    for axes in panels[len(shown) :]:
        axes.remove()
    if len(weights) > len(shown):
        figure.suptitle(f"the first {len(shown)} of {len(weights)} recurrent weights; --module picks others")
    return figure


def _one_weight(axes: Axes, weight: Any) -> None:
    for name, color, style in (
        ("grad_norm_W_hh", BLUE, "-"),
        ("grad_norm_h", ORANGE, "--"),
        ("grad_norm_c", PURPLE, "-."),
    ):
        if getattr(weight, name) is not None:
            norms = _positive(getattr(weight, name).tolist())
            # Few points, or a single one, do not show as a line.
            marker = "o" if np.isfinite(norms).sum() <= 60 else ""
            axes.plot(range(len(norms)), norms, style, color=color, marker=marker, ms=3, label=name)
    for (gate, values), style in zip(weight.grad_norm_gates.items(), ("-", "--", "-.", ":"), strict=False):
        axes.plot(_positive(values.tolist()), style, color="0.6", lw=0.8, zorder=1, label=f"gate {gate}")
    _logarithmic(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(-0.5, len(weight.grad_norm_W_hh) - 0.5)
    axes.set(xlabel="time step t", ylabel="norm (loss per unit)")
    axes.set_title(weight.name, fontsize=9)
    # Below, where it hides no point.
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=4, columnspacing=1, frameon=False)


def _flow(result: Any) -> Figure:
    figure = Figure(figsize=WIDE, layout="constrained")
    left, right = figure.subplots(1, 2)
    _heat(figure, left, np.array(result.norms.tolist()), "||contribution to dL_k/dW_hh||", aspect="equal")
    left.set(xlabel="source step t", ylabel="loss step k")
    lags = range(result.norms.shape[0])
    profile = {name: _positive(values.tolist()) for name, values in result.lag_profile.items()}
    right.fill_between(lags, profile["p10"], profile["p90"], color=BLUE, alpha=0.25, label="10 to 90 % over k")
    right.plot(lags, profile["median"], color=BLUE, label="median over k")
    right.axhline(0.01, color=ORANGE, ls="--", label="1 %")
    _logarithmic(right)
    right.set(xlabel="lag (steps back)", ylabel="||dL_k/dstate_{k-lag}|| / ||dL_k/dstate_k||")
    right.legend(fontsize=8)
    return figure


def _truncation(result: Any) -> Figure:
    figure, axes = _single()
    windows = [row["window"] for row in result.rows]
    errors = _positive([row["relative_error"] for row in result.rows])
    turned = _positive([None if row["cosine"] is None else 1 - row["cosine"] for row in result.rows])
    axes.plot(windows, errors, "-o", color=BLUE, ms=4, label="relative error")
    axes.plot(windows, turned, "--s", color=ORANGE, ms=4, label="1 - cosine")
    axes.set_xscale("log", base=2)
    _logarithmic(axes)
    axes.set(xlabel="window K (steps back)", ylabel="against the full gradient of W_hh")
    axes.legend(fontsize=8)
    return figure


def _spectrum(result: Any) -> Figure:
    figure = Figure(figsize=WIDE, layout="constrained")
    left, right = figure.subplots(1, 2)
    _eigenvalues(left, result.rows)
    left.legend(fontsize=8)
    values = sorted((row["singular_value"] for row in result.rows), reverse=True)
    right.plot(range(len(values)), values, "-o", color=ORANGE, ms=3, label="singular values")
    right.axhline(1, color="0.5", ls="--", lw=1)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(xlabel="index", ylabel="singular value of W_hh")
    return figure


def _eigenvalues(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Of one matrix, on the plane."""
    _unit_circle(axes)
    axes.plot([row["real"] for row in rows], [row["imag"] for row in rows], "o", color=BLUE, ms=3)
    axes.set(xlabel="Re eigenvalue of W_hh", ylabel="Im eigenvalue of W_hh")


def _spectrum_steps(result: Any) -> Figure:
    eigenvalues = result.more["eigenvalues"]
    if not eigenvalues:
        # No one matrix to show beside them.
        figure, axes = _single()
        _step_factors(axes, result)
        return figure
    figure = Figure(figsize=WIDE, layout="constrained")
    left, right = figure.subplots(1, 2)
    _eigenvalues(left, eigenvalues)
    _legend_above(left, 1)
    _step_factors(right, result)
    return figure


def _spectrum_gates(result: Any) -> Figure:
    figure = Figure(figsize=WIDE, layout="constrained")
    left, right = figure.subplots(1, 2)
    styles = zip((BLUE, ORANGE, GREEN, PURPLE), "os^D", strict=True)
    for gate, (color, marker) in zip(result.gates, styles, strict=False):
        own = [row for row in result.rows if row["gate"] == gate.gate]
        look = {"color": color, "marker": marker, "ms": 3, "label": gate.gate}
        if gate.eigenvalues is None:
            left.plot([row["singular_value"] for row in own], **look)
        else:
            left.plot([row["real"] for row in own], [row["imag"] for row in own], ls="", **look)
    if result.gates[0].eigenvalues is None:
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.set(xlabel="index", ylabel="singular value of a gate's W_hh")
    else:
        _unit_circle(left)
        left.set(xlabel="Re eigenvalue of a gate's W_hh", ylabel="Im eigenvalue of a gate's W_hh")
    _legend_above(left, 5)
    _step_factors(right, result)
    return figure


def _step_factors(axes: Axes, result: Any) -> None:
    marker = "o" if len(result.steps) <= 60 else ""
    for name, label, color, style in (
        ("jacobian_norm_max", "||J_t|| max", PURPLE, ":"),
        ("jacobian_norm_mean", "||J_t|| mean", BLUE, "-"),
        ("jacobian_radius_mean", "spectral radius of J_t, mean", GREEN, "-."),
        ("keep_mean", f"mean of {result.scalars['keep_gate']}_t", ORANGE, "--"),
    ):
        values = [_finite(step.get(name)) for step in result.steps]
        if not all(map(math.isnan, values)):
            axes.plot(
                [step["t"] for step in result.steps], values, style, color=color, marker=marker, ms=3, label=label
            )
    axes.axhline(1, color="0.5", ls="--", lw=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="time step t", ylabel="factor per step")
    if result.steps:
        _legend_above(axes, 2)


def _legend_above(axes: Axes, columns: int) -> None:
    """Where it hides no point."""
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=columns, frameon=False)


def _unit_circle(axes: Axes) -> None:
    angle = np.linspace(0, 2 * math.pi, 200)
    axes.plot(np.cos(angle), np.sin(angle), color="0.5", ls="--", lw=1, label="unit circle")
    axes.set_aspect("equal", adjustable="datalim")


def _lyapunov(result: Any) -> Figure:
    figure, axes = _single()
    rows = result.rows
    values = [_finite(row["exponent"]) for row in rows]
    errors = [_finite(row["stderr"]) if row["stderr"] else 0.0 for row in rows]
    axes.errorbar([row["i"] for row in rows], values, yerr=errors, fmt="o", color=BLUE, ms=3, label="measured")
    axes.axhline(0, color="0.5", lw=1)
    theory = result.scalars["theory_largest"]
    if theory is not None:
        axes.axhline(theory, color=ORANGE, ls="--", label="largest, by mean-field theory")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="i", ylabel="Lyapunov exponent (nats per step)")
    axes.legend(fontsize=8)
    return figure


def _gradnorm_history(result: Any) -> Figure:
    figure, axes = _single()
    _heat(figure, axes, np.array(result.grad_norm_W_hh.tolist()), f"grad_norm_W_hh of {result.weight}", aspect="auto")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda row, _: _step_at(row, result.steps)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="time step t", ylabel="training step")
    return figure


FIGURES: Mapping[str, Callable[[Any], Figure]] = {
    "gradnorm": _gradnorm,
    "gradnorm-modules": _gradnorm_modules,
    "gradnorm-history": _gradnorm_history,
    "flow": _flow,
    "truncation": _truncation,
    "spectrum": _spectrum,
    "spectrum-gates": _spectrum_gates,
    "spectrum-steps": _spectrum_steps,
    "lyapunov": _lyapunov,
}


def _single() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.subplots()


def _heat(figure: Figure, axes: Axes, norms: NDArray[Any], label: str, *, aspect: Literal["auto", "equal"]) -> None:
    """A matrix of norms on a log scale, with its colour bar; what is 0 or not finite is left blank."""
    shown = np.where(np.isfinite(norms) & (norms > 0), norms, np.nan)
    high = np.nanmax(shown) if np.isfinite(shown).any() else 1.0
    low = max(np.nanmin(shown), high * SMALLEST_SHOWN) if np.isfinite(shown).any() else 0.1
    scale = LogNorm(min(low, high / 10), high)
    image = axes.imshow(shown, norm=scale, cmap="cividis", interpolation="nearest", aspect=aspect)
    figure.colorbar(image, ax=axes, label=label)


def _step_at(row: float, steps: Sequence[int]) -> str:
    """The number of the training step that a row of a picture shows."""
    return str(steps[int(row)]) if row == int(row) and 0 <= row < len(steps) else ""


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else math.nan


def _positive(values: list[float | None]) -> list[float]:
    """The values that a log scale can show; the others leave a gap."""
    return [math.nan if v is None or not 0 < v < math.inf else v for v in values]


def _logarithmic(axes: Axes) -> None:
    """A log scale, where there is anything to show on one."""
    if any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
