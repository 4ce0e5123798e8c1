"""rnnctl: see what happens inside a recurrent network.

Public names are loaded on first use, so that ``import rnnctl`` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ManualRNNCell": "cells",
    "FullRNN": "cells",
    "GradNorms": "gradients.bptt",
    "gradnorm": "gradients.bptt",
    "Flow": "gradients.flow",
    "flow": "gradients.flow",
    "Truncation": "gradients.truncation",
    "truncation": "gradients.truncation",
    "Spectrum": "dynamics.spectrum",
    "spectrum": "dynamics.spectrum",
    "Lyapunov": "dynamics.lyapunov",
    "lyapunov": "dynamics.lyapunov",
    "MeanField": "dynamics.meanfield",
    "mean_field": "dynamics.meanfield",
    "StepShapes": "shapes",
    "step_shapes": "shapes",
    "SequenceShapes": "shapes",
    "sequence_shapes": "shapes",
    "UnrolledGraph": "graph",
    "unroll": "graph",
    "CheckReport": "checks",
    "check": "checks",
    "BenchReport": "benchmark.report",
    "bench": "benchmark.report",
    "FlowBenchReport": "benchmark.flow_report",
    "bench_flow": "benchmark.flow_report",
    "RnnctlError": "errors",
    "InputError": "errors",
    "ShapeError": "errors",
    "DtypeError": "errors",
    "DeviceError": "errors",
    "TooLargeError": "errors",
    "VerificationError": "errors",
}

__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from rnnctl.benchmark.flow_report import FlowBenchReport, bench_flow
    from rnnctl.benchmark.report import BenchReport, bench
    from rnnctl.cells import FullRNN, ManualRNNCell
    from rnnctl.checks import CheckReport, check
    from rnnctl.dynamics.lyapunov import Lyapunov, lyapunov
    from rnnctl.dynamics.meanfield import MeanField, mean_field
    from rnnctl.dynamics.spectrum import Spectrum, spectrum
    from rnnctl.errors import (
        DeviceError,
        DtypeError,
        InputError,
        RnnctlError,
        ShapeError,
        TooLargeError,
        VerificationError,
    )
    from rnnctl.gradients.bptt import GradNorms, gradnorm
    from rnnctl.gradients.flow import Flow, flow
    from rnnctl.gradients.truncation import Truncation, truncation
    from rnnctl.graph import UnrolledGraph, unroll
    from rnnctl.shapes import SequenceShapes, StepShapes, sequence_shapes, step_shapes


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rnnctl' has no attribute {name!r}")
    return getattr(import_module(f"rnnctl.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
