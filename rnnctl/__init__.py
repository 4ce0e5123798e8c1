"""rnnctl: see what happens inside a recurrent network.

Public names are loaded on first use, so that ``import rnnctl`` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ManualRNNCell": "cells",
    "FullRNN": "cells",
    "CoupledLSTM": "coupled_lstm",
    "GradNorms": "gradients.gradnorm",
    "gradnorm": "gradients.gradnorm",
    "probe": "gradients.probe",
    "Trace": "gradients.trace",
    "ProbedWeight": "gradients.trace",
    "watch": "gradients.watch",
    "Watch": "gradients.watch",
    "GradNormHistory": "gradients.history",
    "gradnorm_history": "gradients.history",
    "Flow": "gradients.flow",
    "flow": "gradients.flow",
    "Truncation": "gradients.truncation",
    "truncation": "gradients.truncation",
    "Spectrum": "dynamics.spectrum",
    "spectrum": "dynamics.spectrum",
    "GatedSpectrum": "dynamics.gate_spectra",
    "StepSpectrum": "dynamics.step_spectra",
    "Lyapunov": "dynamics.lyapunov",
    "lyapunov": "dynamics.lyapunov",
    "DrivenLayer": "models.driven",
    "driven_layer": "models.driven",
    "MeanField": "dynamics.meanfield",
    "mean_field": "dynamics.meanfield",
    "CheckpointContents": "dynamics.checkpoint",
    "checkpoint_contents": "dynamics.checkpoint",
    "Diagnosis": "diagnosis.result",
    "doctor": "diagnosis.doctor",
    "bundled_sequence": "files.bundled",
    "StepShapes": "shapes.hand_written",
    "step_shapes": "shapes.hand_written",
    "SequenceShapes": "shapes.hand_written",
    "sequence_shapes": "shapes.forward",
    "RecurrentShapes": "shapes.any_model",
    "recurrent_shapes": "shapes.any_model",
    "UnrolledGraph": "graph",
    "UnrolledModel": "shapes.model_graph",
    "unroll": "shapes.unroll",
    "CheckReport": "checks",
    "check": "checks",
    "BenchReport": "benchmark.report",
    "bench": "benchmark.gradnorm",
    "FlowBenchReport": "benchmark.report",
    "bench_flow": "benchmark.flow",
    "ProbeBenchReport": "benchmark.report",
    "bench_probe": "benchmark.probe",
    "ModelGradNorms": "gradients.model_gradnorm",
    "model_gradnorm": "gradients.model_gradnorm",
    "model_flow": "gradients.flow",
    "model_truncation": "gradients.truncation",
    "Sweep": "sweeps.result",
    "sweep": "cli.sweeping.sweep",
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
    from rnnctl.benchmark.flow import bench_flow
    from rnnctl.benchmark.gradnorm import bench
    from rnnctl.benchmark.probe import bench_probe
    from rnnctl.benchmark.report import BenchReport, FlowBenchReport, ProbeBenchReport
    from rnnctl.cells import FullRNN, ManualRNNCell
    from rnnctl.checks import CheckReport, check
    from rnnctl.cli.sweeping.sweep import sweep
    from rnnctl.coupled_lstm import CoupledLSTM
    from rnnctl.diagnosis.doctor import doctor
    from rnnctl.diagnosis.result import Diagnosis
    from rnnctl.dynamics.checkpoint import CheckpointContents, checkpoint_contents
    from rnnctl.dynamics.gate_spectra import GatedSpectrum
    from rnnctl.dynamics.lyapunov import Lyapunov, lyapunov
    from rnnctl.dynamics.meanfield import MeanField, mean_field
    from rnnctl.dynamics.spectrum import Spectrum, spectrum
    from rnnctl.dynamics.step_spectra import StepSpectrum
    from rnnctl.errors import (
        DeviceError,
        DtypeError,
        InputError,
        RnnctlError,
        ShapeError,
        TooLargeError,
        VerificationError,
    )
    from rnnctl.files.bundled import bundled_sequence
    from rnnctl.gradients.flow import Flow, flow, model_flow
    from rnnctl.gradients.gradnorm import GradNorms, gradnorm
    from rnnctl.gradients.history import GradNormHistory, gradnorm_history
    from rnnctl.gradients.model_gradnorm import ModelGradNorms, model_gradnorm
    from rnnctl.gradients.probe import probe
    from rnnctl.gradients.trace import ProbedWeight, Trace
    from rnnctl.gradients.truncation import Truncation, model_truncation, truncation
    from rnnctl.gradients.watch import Watch, watch
    from rnnctl.graph import UnrolledGraph
    from rnnctl.models.driven import DrivenLayer, driven_layer
    from rnnctl.shapes.any_model import RecurrentShapes, recurrent_shapes
    from rnnctl.shapes.forward import sequence_shapes
    from rnnctl.shapes.hand_written import SequenceShapes, StepShapes, step_shapes
    from rnnctl.shapes.model_graph import UnrolledModel
    from rnnctl.shapes.unroll import unroll
    from rnnctl.sweeps.result import Sweep


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rnnctl' has no attribute {name!r}")
    return getattr(import_module(f"rnnctl.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
