"""What W_hh and its step Jacobians tell: eigenvalues, singular values, slopes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from rnnctl.cells import FullRNN, require_full_rnn
from rnnctl.dynamics.eigen import condition_number, departure_from_normality, eigenvalues_by_modulus
from rnnctl.dynamics.gate_spectra import GatedSpectrum, gated_spectrum, mean_of
from rnnctl.dynamics.jacobian import jacobian_norms
from rnnctl.dynamics.trajectory import COMPUTED_IN, ElmanStretch, Weights, recurrent_weights, stretches
from rnnctl.errors import InputError
from rnnctl.memory import require_memory
from rnnctl.models.captured import driven_along
from rnnctl.models.driven import DrivenLayer, elman_weights, require_alone

# A tanh unit counts as saturated beyond: its slope is then below 0.02.
SATURATED = 0.99
# The largest slope that tanh and relu have anywhere.
LARGEST_SLOPE = 1.0


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues and singular values of W_hh, and the step Jacobians along a sequence.

    Attributes:
        eigenvalues: of W_hh by falling modulus, shape (hidden,), complex128.
        singular_values: of W_hh, falling, shape (hidden,), float64.
        nonlinearity: f_h, "tanh" or "relu".
        steps: one record per time step: t, jacobian_norm_mean and jacobian_norm_max (over the
            batch, of J_t = diag(f'(a_t)) W_hh), mean_slope (of f'(a_t)), saturated (share of
            |h_t| > 0.99; None for relu), dead (share of units with f'(a_t) = 0 in every sequence;
            None for tanh).
        dead_fraction: share of units with f'(a_t) = 0 in every sequence at every step, for relu.
        first_nonfinite_step: the first step whose h_t is not finite even in float64, or None;
            ``steps`` ends before it.
    """

    schema: ClassVar[str] = "spectrum"

    eigenvalues: Complex[Tensor, " hidden"]
    singular_values: Float[Tensor, " hidden"]
    nonlinearity: str
    steps: tuple[Mapping[str, Any], ...]
    dead_fraction: float | None
    first_nonfinite_step: int | None

    @cached_property
    def scalars(self) -> Mapping[str, Any]:
        """Name -> number or text; None where a quantity has no value here."""
        norm = float(self.singular_values[0])
        departure, relative = departure_from_normality(self.eigenvalues, self.singular_values)
        bound = norm * LARGEST_SLOPE
        largest = [step["jacobian_norm_max"] for step in self.steps]
        return MappingProxyType(
            {
                "spectral_radius": float(self.eigenvalues[0].abs()),
                "spectral_norm": norm,
                "condition_number": condition_number(self.singular_values),
                "departure_from_normality": departure,
                "relative_departure": relative,
                "norm_bound": bound,
                "norm_bound_certifies": "vanishing" if bound < 1 else "nothing",
                "jacobian_norm_mean": mean_of(self.steps, "jacobian_norm_mean"),
                "jacobian_norm_max": max(largest, default=None),
                "mean_slope": mean_of(self.steps, "mean_slope"),
                "saturated_fraction": mean_of(self.steps, "saturated"),
                "dead_fraction": self.dead_fraction,
                "first_nonfinite_step": self.first_nonfinite_step,
                "computed_in": COMPUTED_IN,
            }
        )

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One record per eigenvalue: i, real, imag, modulus, and the i-th singular_value."""
        values = zip(self.eigenvalues.tolist(), self.singular_values.tolist(), strict=True)
        return tuple(
            {"i": i, "real": value.real, "imag": value.imag, "modulus": abs(value), "singular_value": singular}
            for i, (value, singular) in enumerate(values)
        )

    @property
    def more(self) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
        """Further records by name: ``steps``."""
        return {"steps": self.steps}

    @property
    def conditions(self) -> Mapping[str, bool]:
        """Whether "nonfinite" holds: h_t leaves float64 within the sequence."""
        return {"nonfinite": self.first_nonfinite_step is not None}


def spectrum(
    model: nn.Module | DrivenLayer,
    x: Tensor | None = None,
    *,
    h_init: Tensor | None = None,
    only: str | None = None,
    progress: Callable[[float], None] | None = None,
) -> Spectrum | GatedSpectrum:
    """What W_hh alone says of vanishing and exploding, and what its step Jacobians say along x.

    Args:
        model: a ``FullRNN``, or a layer of another model from ``driven_layer``, which comes with its
            input and initial state; of any dtype; all is computed in float64.
        x: inputs, shape (batch, time, input); left out for a ``DrivenLayer``.
        h_init: hidden state before step 0, shape (batch, hidden); zeros if left out.
        progress: called with the fraction of the steps that are done.
    Returns:
        A frozen ``Spectrum``; for a GRU or LSTM, whose W_hh holds one matrix a gate, a frozen
        ``GatedSpectrum``.
    Raises:
        InputError: ShapeError, DtypeError, DeviceError; weights that are not finite; TooLargeError.
    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, section 2.1 (the bound); Henrici 1962
        (departure from normality).
    """
    if isinstance(model, nn.Module) and not isinstance(model, FullRNN):
        model, x = driven_along(model, x, h_init, only), None
    if isinstance(model, DrivenLayer):
        require_alone(x, h_init)
        if model.cell != "RNN":
            return gated_spectrum(model, progress)
        _require_room(model.hidden_size)
        return _elman_spectrum(elman_weights(model), model.x, model.h_init, progress)
    require_full_rnn(model)
    if x is None:
        raise InputError("spectrum of a FullRNN needs x, shape (batch, time, input)")
    model.check_sequence(x, h_init)
    _require_room(model.rnn_cell.hidden_size)
    start = model.initial_state(x) if h_init is None else h_init
    return _elman_spectrum(recurrent_weights(model), x, start, progress)


def _require_room(hidden: int) -> None:
    require_memory(8 * 8 * hidden**2, f"the spectrum of W_hh ({hidden}, {hidden})")


def _elman_spectrum(weights: Weights, x: Tensor, start: Tensor, progress: Callable[[float], None] | None) -> Spectrum:
    found = _Steps(weights)
    for stretch in stretches(weights, x, start):
        found.add(stretch)
        if progress is not None:
            progress(len(found.records) / x.shape[1])
    steps = len(found.records)
    return Spectrum(
        eigenvalues=eigenvalues_by_modulus(weights.W_hh),
        singular_values=torch.linalg.svdvals(weights.W_hh),
        nonlinearity=weights.nonlinearity,
        steps=tuple(found.records),
        dead_fraction=found.dead_fraction,
        first_nonfinite_step=steps if steps < x.shape[1] else None,
    )


class _Steps:
    """Collects one record per time step, and which units no step has seen alive."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.records: list[Mapping[str, Any]] = []
        self.never_alive: Tensor | None = None

    def add(self, stretch: ElmanStretch) -> None:
        """The records of consecutive steps."""
        h, slope = stretch.h, stretch.slope
        norms = jacobian_norms(slope.flatten(0, 1), self.weights.W_hh).view(h.shape[:2])
        is_tanh = self.weights.nonlinearity == "tanh"
        dead = (slope == 0).all(dim=1)
        columns = (
            norms.mean(dim=1),
            norms.amax(dim=1),
            slope.mean(dim=(1, 2)),
            (h.abs() > SATURATED).double().mean(dim=(1, 2)),
            dead.double().mean(dim=1),
        )
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for t, (mean, largest, mean_slope, saturated, dead_share) in enumerate(rows, start=stretch.start):
            record = {"t": t, "jacobian_norm_mean": mean, "jacobian_norm_max": largest, "mean_slope": mean_slope}
            kind = {"saturated": saturated if is_tanh else None, "dead": None if is_tanh else dead_share}
            self.records.append({**record, **kind})
        always = dead.all(dim=0)
        self.never_alive = always if self.never_alive is None else self.never_alive & always

    @property
    def dead_fraction(self) -> float | None:
        if self.weights.nonlinearity == "tanh" or self.never_alive is None:
            return None
        return float(self.never_alive.double().mean())
