"""Every kind of result and how it is shown."""

from collections.abc import Mapping

from rnnctl.view.layout import BENCH, BENCH_PROBE, CHECK, GRADNORM, SHAPES, Layout
from rnnctl.view.layout_dynamics import LYAPUNOV, SPECTRUM
from rnnctl.view.layout_flow import BENCH_FLOW, FLOW, TRUNCATION
from rnnctl.view.layout_gates import SPECTRUM_GATES
from rnnctl.view.layout_history import GRADNORM_HISTORY
from rnnctl.view.layout_modelled import GRADNORM_MODULES
from rnnctl.view.layout_modules import FORWARD_MODULES
from rnnctl.view.layout_weights import WEIGHTS

LAYOUTS: Mapping[str, Layout] = {
    "cell": SHAPES,
    "forward": SHAPES,
    "forward-modules": FORWARD_MODULES,
    "gradnorm": GRADNORM,
    "gradnorm-modules": GRADNORM_MODULES,
    "gradnorm-history": GRADNORM_HISTORY,
    "check": CHECK,
    "bench": BENCH,
    "bench-probe": BENCH_PROBE,
    "bench-flow": BENCH_FLOW,
    "flow": FLOW,
    "truncation": TRUNCATION,
    "spectrum": SPECTRUM,
    "spectrum-gates": SPECTRUM_GATES,
    "lyapunov": LYAPUNOV,
    "weights": WEIGHTS,
}
