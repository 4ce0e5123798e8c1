"""Every kind of result and how it is shown."""

from collections.abc import Mapping

from rnnctl.view.layouts.bench import BENCH, BENCH_FLOW, BENCH_PROBE, BENCH_SWEEP
from rnnctl.view.layouts.configuration import CONFIGURATION
from rnnctl.view.layouts.doctor import DOCTOR
from rnnctl.view.layouts.dynamics import LYAPUNOV, SPECTRUM
from rnnctl.view.layouts.flow import FLOW, TRUNCATION
from rnnctl.view.layouts.gate_spectra import SPECTRUM_GATES
from rnnctl.view.layouts.history import GRADNORM_HISTORY
from rnnctl.view.layouts.layout import CHECK, GRADNORM, SHAPES, STEP, Layout
from rnnctl.view.layouts.model_gradnorm import GRADNORM_MODULES, TRACE
from rnnctl.view.layouts.modules import FORWARD_MODULES
from rnnctl.view.layouts.step_spectra import SPECTRUM_STEPS
from rnnctl.view.layouts.sweep import PLAN, SWEEP
from rnnctl.view.layouts.weights import WEIGHTS

LAYOUTS: Mapping[str, Layout] = {
    "cell": STEP,
    "forward": SHAPES,
    "forward-modules": FORWARD_MODULES,
    "gradnorm": GRADNORM,
    "gradnorm-modules": GRADNORM_MODULES,
    "trace": TRACE,
    "gradnorm-history": GRADNORM_HISTORY,
    "check": CHECK,
    "bench": BENCH,
    "bench-probe": BENCH_PROBE,
    "bench-flow": BENCH_FLOW,
    "bench-sweep": BENCH_SWEEP,
    "flow": FLOW,
    "truncation": TRUNCATION,
    "spectrum": SPECTRUM,
    "spectrum-gates": SPECTRUM_GATES,
    "spectrum-steps": SPECTRUM_STEPS,
    "lyapunov": LYAPUNOV,
    "sweep": SWEEP,
    "sweep-plan": PLAN,
    "doctor": DOCTOR,
    "weights": WEIGHTS,
    "config": CONFIGURATION,
}
