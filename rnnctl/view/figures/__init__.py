"""Results as pictures, by matplotlib's Figure objects alone (no pyplot, no settings that outlive a picture).

Colours are those of Okabe & Ito and the map "cividis", which the colour-blind can tell apart. ``drawing`` has what all
pictures share, ``title`` what stands above them; then ``gradnorm``, ``flow``, ``dynamics`` and ``sweep`` draw one
kind each.
"""

import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from rnnctl.errors import InputError
from rnnctl.results import Result
from rnnctl.view.figures.dynamics import (
    gates_panel,
    lyapunov,
    lyapunov_panel,
    spectrum,
    spectrum_gates,
    spectrum_panel,
    spectrum_steps,
    steps_panel,
)
from rnnctl.view.figures.flow import flow, flow_panel, truncation, truncation_panel
from rnnctl.view.figures.gradnorm import (
    first_weight_panel,
    gradnorm,
    gradnorm_history,
    gradnorm_modules,
    gradnorm_panel,
    history_panel,
)
from rnnctl.view.figures.sweep import sweep, sweep_panel
from rnnctl.view.figures.title import set_title

FIGURES: Mapping[str, Callable[[Any], Figure]] = {
    "gradnorm": gradnorm,
    "gradnorm-modules": gradnorm_modules,
    "trace": gradnorm_modules,
    "gradnorm-history": gradnorm_history,
    "flow": flow,
    "truncation": truncation,
    "spectrum": spectrum,
    "spectrum-gates": spectrum_gates,
    "spectrum-steps": spectrum_steps,
    "lyapunov": lyapunov,
    "sweep": sweep,
}
# The first panel of each, into axes that are there.
PANELS: Mapping[str, Callable[[Axes, Any], None]] = {
    "gradnorm": gradnorm_panel,
    "gradnorm-modules": first_weight_panel,
    "trace": first_weight_panel,
    "gradnorm-history": history_panel,
    "flow": flow_panel,
    "truncation": truncation_panel,
    "spectrum": spectrum_panel,
    "spectrum-gates": gates_panel,
    "spectrum-steps": steps_panel,
    "lyapunov": lyapunov_panel,
    "sweep": sweep_panel,
}
DPI = 150
# Text that can be searched and set in any font; names of clips that are not drawn by chance.
SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "rnnctl"}
# The hour at which a picture was drawn would make its bytes differ.
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def drawn(result: Result, axes: Axes | None = None) -> tuple[Figure | SubFigure, Axes]:
    """The picture of a result as matplotlib's, for somebody who goes on with it.

    Args:
        axes: to draw the first panel into; a figure of its own with all panels if left out.
    Returns:
        The figure and the axes of the first panel.
    Raises:
        InputError: there is no picture of this kind of result; ``axes`` are none.
    """
    if result.schema not in FIGURES:
        raise InputError(f"there is no picture of a result of {result.schema}; there are of {', '.join(FIGURES)}")
    if axes is None:
        figure = FIGURES[result.schema](result)
        return figure, figure.axes[0]
    if not isinstance(axes, Axes):
        kind = type(axes).__name__
        raise InputError(f"ax: expected axes of matplotlib's, as of plt.subplots() the second; got {kind} {axes!r}")
    PANELS[result.schema](axes, result)
    return axes.figure, axes


def figure_bytes(result: Any, title: str, suffix: str, dpi: int = DPI) -> bytes:
    """The picture of a result as a .png, .svg or .pdf file; the same bytes for the same result.

    Args:
        result: one whose schema is a key of FIGURES.
        title: above it, in as many lines as it takes; none if empty.
        suffix: "png", "svg" or "pdf".
        dpi: pixels per inch of a .png.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Somebody's matplotlibrc may ask for fonts that are not here, or for TeX.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        # A letter that the font lacks is drawn as a box, and does not speak on stderr.
        warnings.filterwarnings("ignore", message="Glyph ")
        figure = FIGURES[result.schema](result)
        set_title(figure, title)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=dpi, metadata=UNDATED.get(suffix))
    return buffer.getvalue()
