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
from matplotlib.figure import Figure

from rnnctl.view.figures.dynamics import lyapunov, spectrum, spectrum_gates, spectrum_steps
from rnnctl.view.figures.flow import flow, truncation
from rnnctl.view.figures.gradnorm import gradnorm, gradnorm_history, gradnorm_modules
from rnnctl.view.figures.sweep import sweep
from rnnctl.view.figures.title import set_title

FIGURES: Mapping[str, Callable[[Any], Figure]] = {
    "gradnorm": gradnorm,
    "gradnorm-modules": gradnorm_modules,
    "gradnorm-history": gradnorm_history,
    "flow": flow,
    "truncation": truncation,
    "spectrum": spectrum,
    "spectrum-gates": spectrum_gates,
    "spectrum-steps": spectrum_steps,
    "lyapunov": lyapunov,
    "sweep": sweep,
}
DPI = 150
# Text that can be searched and set in any font; names of clips that are not drawn by chance.
SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "rnnctl"}
# The hour at which a picture was drawn would make its bytes differ.
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


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
