"""Every kind of result and how it is shown."""

from collections.abc import Mapping

from rnnctl.view.layout import BENCH, CHECK, GRADNORM, SHAPES, Layout
from rnnctl.view.layout_dynamics import LYAPUNOV, SPECTRUM
from rnnctl.view.layout_flow import BENCH_FLOW, FLOW, TRUNCATION

LAYOUTS: Mapping[str, Layout] = {
    "cell": SHAPES,
    "forward": SHAPES,
    "gradnorm": GRADNORM,
    "check": CHECK,
    "bench": BENCH,
    "bench-flow": BENCH_FLOW,
    "flow": FLOW,
    "truncation": TRUNCATION,
    "spectrum": SPECTRUM,
    "lyapunov": LYAPUNOV,
}
