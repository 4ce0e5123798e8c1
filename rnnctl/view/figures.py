"""Results as pictures, by matplotlib's Figure objects alone (no pyplot, no global state).

Colours are those of Okabe & Ito and the map "cividis", which the colour-blind can tell apart.
"""

import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
# Inches: legible at 600 pixels.
SIZE, WIDE = (6.4, 4.2), (9.6, 4.2)
SMALLEST_SHOWN = 1e-12


def figure_bytes(result: Any, title: str, suffix: str) -> bytes:
    """The picture of a result as a .png, .svg or .pdf file.

    Args:
        result: one whose schema is a key of FIGURES.
        title: one line above it.
        suffix: "png", "svg" or "pdf".
    """
    figure = FIGURES[result.schema](result)
    figure.suptitle(title, fontsize=8)
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


def _flow(result: Any) -> Figure:
    figure = Figure(figsize=WIDE, layout="constrained")
    left, right = figure.subplots(1, 2)
    norms = np.array(result.norms.tolist())
    shown = np.where(np.isfinite(norms) & (norms > 0), norms, np.nan)
    high = np.nanmax(shown) if np.isfinite(shown).any() else 1.0
    low = max(np.nanmin(shown), high * SMALLEST_SHOWN) if np.isfinite(shown).any() else 0.1
    image = left.imshow(shown, norm=LogNorm(min(low, high / 10), high), cmap="cividis", interpolation="nearest")
    figure.colorbar(image, ax=left, label="||contribution to dL_k/dW_hh||")
    left.set(xlabel="source step t", ylabel="loss step k")
    lags = range(norms.shape[0])
    profile = {name: _positive(values.tolist()) for name, values in result.lag_profile.items()}
    right.fill_between(lags, profile["p10"], profile["p90"], color=BLUE, alpha=0.25, label="10 to 90 % over k")
    right.plot(lags, profile["median"], color=BLUE, label="median over k")
    right.axhline(0.01, color=ORANGE, ls="--", label="1 %")
    _logarithmic(right)
    right.set(xlabel="lag (steps back)", ylabel="||dL_k/dh_{k-lag}|| / ||dL_k/dh_k||")
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
    angle = np.linspace(0, 2 * math.pi, 200)
    left.plot(np.cos(angle), np.sin(angle), color="0.5", ls="--", lw=1, label="unit circle")
    left.plot([row["real"] for row in result.rows], [row["imag"] for row in result.rows], "o", color=BLUE, ms=3)
    left.set(xlabel="Re eigenvalue of W_hh", ylabel="Im eigenvalue of W_hh")
    left.set_aspect("equal", adjustable="datalim")
    left.legend(fontsize=8)
    values = sorted((row["singular_value"] for row in result.rows), reverse=True)
    right.plot(range(len(values)), values, "-o", color=ORANGE, ms=3, label="singular values")
    right.axhline(1, color="0.5", ls="--", lw=1)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(xlabel="index", ylabel="singular value of W_hh")
    return figure


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


FIGURES: Mapping[str, Callable[[Any], Figure]] = {
    "gradnorm": _gradnorm,
    "flow": _flow,
    "truncation": _truncation,
    "spectrum": _spectrum,
    "lyapunov": _lyapunov,
}


def _single() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.subplots()


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
