"""Matrices on the plane, factors per step, and Lyapunov exponents."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnnctl.view.curves import AT_ONE, STEP_FACTORS
from rnnctl.view.figures.drawing import (
    BLUE,
    GREEN,
    MOST_MARKS,
    ORANGE,
    PURPLE,
    SMALLER,
    Curve,
    counted,
    finite,
    legend_below,
    linear,
    pair,
    say,
    single,
    whole_ticks,
)

# Points nearer to one another than this, as a share of the largest or of 1, are one point to the eye.
NEAR = 1e-4
MOST_NUMBERED = 6
# From the largest mark to the smallest, so that a point shows what it covers.
LOOKS_OF_GATES: Sequence[Mapping[str, Any]] = (
    {"color": BLUE, "marker": "o", "ms": 9, "mfc": "none"},
    {"color": ORANGE, "marker": "s", "ms": 6.5, "mfc": "none"},
    {"color": GREEN, "marker": "^", "ms": 4.5, "mfc": "none"},
    {"color": PURPLE, "marker": "D", "ms": 2.5},
)


def spectrum(result: Any) -> Figure:
    """Eigenvalues on the plane, and singular values in order."""
    figure, left, right = pair()
    spectrum_panel(left, result)
    values = sorted((row["singular_value"] for row in result.rows), reverse=True)
    (line,) = right.plot(range(len(values)), values, "-o", color=ORANGE, ms=3, label="singular values")
    at_one = _singular_values(right, values, len(values), "singular value of W_hh")
    legend_below(right, [Curve(line, "singular values"), at_one], 2)
    return figure


def spectrum_panel(axes: Axes, result: Any) -> None:
    """Eigenvalues on the plane, into axes that are there."""
    legend_below(axes, _eigenvalues(axes, result.rows), 2)


def _singular_values(axes: Axes, values: Sequence[float], count: int, label: str) -> Curve:
    """The axes of singular values, ``count`` of a matrix."""
    counted(axes, count, "number of the singular value (0 is the largest)")
    axes.set_ylabel(label)
    # 0 and 1 are in the picture: how far they are from these tells what is lost, and rounding does not fill it.
    top = max(1.0, *values)
    axes.set_ylim(-0.04 * top, 1.06 * top)
    axes.grid(alpha=0.3)
    return _at_one(axes)


def _at_one(axes: Axes) -> Curve:
    return Curve(axes.axhline(1, color="0.5", ls="--", lw=1), AT_ONE)


def _eigenvalues(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Of one matrix, on the plane."""
    circle = _unit_circle(axes)
    points = [(row["real"], row["imag"]) for row in rows]
    (line,) = axes.plot(*zip(*points, strict=True), "o", color=BLUE, ms=3.5)
    _number_shared(axes, points)
    axes.set(xlabel="Re eigenvalue of W_hh", ylabel="Im eigenvalue of W_hh")
    return [Curve(line, "eigenvalues"), circle]


def _number_shared(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """How many eigenvalues a point stands for, beside it where it is more than one."""
    scale = NEAR * max(1.0, *(math.hypot(*point) for point in points))
    counts = Counter((round(real / scale), round(imag / scale)) for real, imag in points)
    for (real, imag), count in counts.most_common(MOST_NUMBERED):
        if count > 1:
            # On the side of the origin, where there is room.
            side = -1 if real > 0 else 1
            axes.annotate(
                f"{count} here",
                (real * scale, imag * scale),
                (6 * side, 5),
                textcoords="offset points",
                ha="right" if side < 0 else "left",
                fontsize=SMALLER,
            )


def spectrum_steps(result: Any) -> Figure:
    """Factors of every step, beside the eigenvalues of the one matrix where there is one."""
    if not result.more["eigenvalues"]:
        figure, axes = single()
        steps_panel(axes, result)
        return figure
    figure, left, right = pair()
    steps_panel(left, result)
    _step_factors(right, result)
    return figure


def steps_panel(axes: Axes, result: Any) -> None:
    """The eigenvalues of the one matrix, or where there is none the factors of every step, into axes that are there."""
    if eigenvalues := result.more["eigenvalues"]:
        legend_below(axes, _eigenvalues(axes, eigenvalues), 2)
    else:
        _step_factors(axes, result)


def spectrum_gates(result: Any) -> Figure:
    """The matrix of every gate, by its eigenvalues or singular values, and the factors of every step."""
    figure, left, right = pair()
    gates_panel(left, result)
    _step_factors(right, result)
    return figure


def gates_panel(axes: Axes, result: Any) -> None:
    """The matrix of every gate, into axes that are there."""
    on_plane = result.gates[0].eigenvalues is not None
    curves = [_unit_circle(axes)] if on_plane else []
    for gate, look in zip(result.gates, LOOKS_OF_GATES, strict=False):
        own = [row for row in result.rows if row["gate"] == gate.gate]
        x = [row["real"] for row in own] if on_plane else list(range(len(own)))
        y = [row["imag" if on_plane else "singular_value"] for row in own]
        (line,) = axes.plot(x, y, ls="" if on_plane else "-", label=gate.gate, **look)
        curves.append(Curve(line, f"gate {gate.gate}" if len(result.gates) > 1 else gate.gate))
    if on_plane:
        axes.set(xlabel="Re eigenvalue of a gate's W_hh", ylabel="Im eigenvalue of a gate's W_hh")
        _number_shared(axes, [(row["real"], row["imag"]) for row in result.rows])
    else:
        values = [row["singular_value"] for row in result.rows]
        curves.append(
            _singular_values(axes, values, len(values) // len(result.gates), "singular value of a gate's W_hh")
        )
    legend_below(axes, curves, 3)


def _step_factors(axes: Axes, result: Any) -> None:
    axes.set(xlabel="time step t", ylabel="factor per step")
    if not result.steps:
        axes.set(xticks=[], yticks=[])
        return say(axes, "no step is finite")
    t, marker, curves = [step["t"] for step in result.steps], "o" if len(result.steps) <= MOST_MARKS else "", []
    for name, label, color, style, size in (
        ("jacobian_norm_max", "||J_t|| max", PURPLE, ":", 8),
        ("jacobian_norm_mean", "||J_t|| mean", BLUE, "-", 5),
        ("jacobian_radius_mean", "spectral radius of J_t, mean", GREEN, "-.", 4),
        ("keep_mean", f"mean of {result.scalars['keep_gate']}_t", ORANGE, "--", 3),
    ):
        values = [finite(step.get(name)) for step in result.steps]
        if not all(map(math.isnan, values)):
            look: dict[str, Any] = {
                "color": color,
                "ls": style,
                "marker": marker,
                "ms": size,
                "mfc": "none" if size > 4 else color,
            }
            (line,) = axes.plot(t, values, label=label, **look)
            curves.append(Curve(line, STEP_FACTORS.get(name, label)))
    curves.append(_at_one(axes))
    linear(axes)
    whole_ticks(axes.xaxis)
    edge = max(0.5, 0.02 * (t[-1] - t[0]))
    axes.set_xlim(t[0] - edge, t[-1] + edge)
    legend_below(axes, curves, 1)


def _unit_circle(axes: Axes) -> Curve:
    angle = np.linspace(0, 2 * math.pi, 200)
    (line,) = axes.plot(np.cos(angle), np.sin(angle), color="0.5", ls="--", lw=1, label="unit circle")
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.3)
    return Curve(line, "unit circle")


def lyapunov(result: Any) -> Figure:
    """The exponents in order with their errors, and what theory says of the largest."""
    figure, axes = single()
    lyapunov_panel(axes, result)
    return figure


def lyapunov_panel(axes: Axes, result: Any) -> None:
    """The same into axes that are there."""
    rows, curves = result.rows, []
    values = [finite(row["exponent"]) for row in rows]
    errors = [finite(row["stderr"]) if row["stderr"] else 0.0 for row in rows]
    counted(axes, len(rows), "exponent i (largest first, in a run that is long enough)")
    axes.set_ylabel("Lyapunov exponent (nats per step)")
    if np.isfinite(values).any():
        bars = axes.errorbar([row["i"] for row in rows], values, yerr=errors, fmt="o", color=BLUE, ms=4)
        curves = [
            Curve(bars.lines[0], "measured" + (", with standard errors" if any(errors) else "")),
            Curve(axes.axhline(0, color="0.5", lw=1), "0: neither part nor meet"),
        ]
    theory = result.scalars["theory_largest"]
    if theory is not None and math.isfinite(theory):
        line = axes.axhline(theory, color=ORANGE, ls="--")
        curves.append(Curve(line, "largest, by mean-field theory"))
    linear(axes)
    if not np.isfinite(values).any():
        axes.set_yticks([])
        say(axes, "no exponent is finite")
    legend_below(axes, curves, 3)
