"""What W_hh and its step Jacobians tell: eigenvalues, singular values, slopes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

from jaxtyping import Complex, Float
from torch import Tensor, nn

from rnnctl.cells import FullRNN
from rnnctl.dynamics.eigen import OF_GROWTH, OF_MATRIX, SquareMatrix
from rnnctl.dynamics.eigen import departure_from_normality as departure_from_normality
from rnnctl.dynamics.gate_spectra import GatedSpectrum, gated_spectrum, mean_of, why_no_steps
from rnnctl.dynamics.jacobian import jacobian_norms, measuring_bytes
from rnnctl.dynamics.step_spectra import StepSpectrum, step_spectrum
from rnnctl.dynamics.trajectory import (
    COMPUTED_IN,
    REASON_KINDS,
    Measured,
    Stretch,
    reason_scalars,
    stretches,
    why_ended,
)
from rnnctl.errors import InputError
from rnnctl.memory import require_memory
from rnnctl.models.driven import DrivenLayer, driven_along, own_layer, require_alone
from rnnctl.models.graph_steps import GraphSteps
from rnnctl.models.hand_written import require_batch_first
from rnnctl.models.inputs import Given, TimeFirst, one_tensor
from rnnctl.recurrence.nonlinearities import NONLINEARITIES, SATURATED, Nonlinearity
from rnnctl.recurrence.slopes import Slopes
from rnnctl.results import Kind, Result, numbers
from rnnctl.view.shown import Shown


@dataclass(frozen=True, eq=False)
class Spectrum(Shown, Result):
    """Eigenvalues and singular values of W_hh, and the step Jacobians along a sequence.

    Attributes:
        matrix: W_hh by itself.
        nonlinearity: f_h, "tanh" or "relu".
        steps: one record per time step: t, jacobian_norm_mean and jacobian_norm_max (over the
            batch, of J_t = diag(f'(a_t)) W_hh), mean_slope (of f'(a_t)), saturated (share of
            |h_t| > 0.99; None for relu), dead (share of units with f'(a_t) = 0 in every sequence;
            None for tanh).
        dead_fraction: share of units with f'(a_t) = 0 in every sequence at every step, for relu.
        first_nonfinite_step: the first step whose h_t is not finite even in float64, or None;
            ``steps`` ends before it.
        nonfinite_reason: what is not finite there and why; None likewise.
    """

    schema: ClassVar[str] = "spectrum"
    kinds: ClassVar[Mapping[str, Kind]] = {
        **numbers(*OF_MATRIX, "spectral_radius_error", *OF_GROWTH, "jacobian_norm_mean", "jacobian_norm_max"),
        **numbers("norm_bound", "mean_slope", "saturated_fraction", "dead_fraction", "first_nonfinite_step"),
        "norm_bound_certifies": ("vanishing", "nothing"),
        **REASON_KINDS,
        "computed_in": str,
    }
    words: ClassVar[tuple[str, ...]] = ("nonfinite",)

    matrix: SquareMatrix
    nonlinearity: str
    steps: tuple[Mapping[str, Any], ...]
    dead_fraction: float | None
    first_nonfinite_step: int | None
    nonfinite_reason: str | None

    @property
    def eigenvalues(self) -> Complex[Tensor, " hidden"]:
        """Of W_hh by falling modulus, shape (hidden,), complex128."""
        return self.matrix.eigenvalues

    @property
    def singular_values(self) -> Float[Tensor, " hidden"]:
        """Of W_hh, falling, shape (hidden,), float64."""
        return self.matrix.singular_values

    @cached_property
    def scalars(self) -> Mapping[str, Any]:
        """Name -> number or text; None where a quantity has no value here."""
        # No step stretches by more: below 1 every gradient shrinks, above 1 it still may, as it does
        # with torch's default initialisation (1.155).
        bound = float(self.singular_values[0]) * NONLINEARITIES[self.nonlinearity].largest_slope
        largest = [step["jacobian_norm_max"] for step in self.steps]
        return MappingProxyType(
            {
                **self.matrix.scalars,
                "norm_bound": bound,
                "norm_bound_certifies": "vanishing" if bound < 1 else "nothing",
                "jacobian_norm_mean": mean_of(self.steps, "jacobian_norm_mean"),
                "jacobian_norm_max": max(largest, default=None),
                "mean_slope": mean_of(self.steps, "mean_slope"),
                "saturated_fraction": mean_of(self.steps, "saturated"),
                "dead_fraction": self.dead_fraction,
                "first_nonfinite_step": self.first_nonfinite_step,
                **reason_scalars(self.nonfinite_reason),
                "computed_in": COMPUTED_IN,
            }
        )

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One record per eigenvalue: i, real, imag, modulus, and the i-th singular_value."""
        return self.matrix.rows

    @property
    def more(self) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
        """Further records by name: ``steps``."""
        return {"steps": self.steps}

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None."""
        return {
            "saturated_fraction": "of bounded units, as those of tanh are",
            **why_no_steps(self.nonfinite_reason),
            "dead_fraction": "of units that can be dead, as those of relu can",
            **self.matrix.why,
        }

    @property
    def conditions(self) -> Mapping[str, bool | None]:
        """Whether "nonfinite" holds: h_t leaves float64 within the sequence."""
        return {"nonfinite": self.first_nonfinite_step is not None}


def spectrum(
    model: nn.Module | DrivenLayer,
    x: Given | None = None,
    *,
    h_init: Tensor | None = None,
    time_first: TimeFirst = None,
    only: str | None = None,
    progress: Callable[[float], None] | None = None,
) -> Spectrum | GatedSpectrum | StepSpectrum:
    """What W_hh alone says of vanishing and exploding, and what its step Jacobians say along x.

    Args:
        model: a ``FullRNN``, any module with recurrent parts, or a layer of one from ``driven_layer``, which
            comes with its input and initial state; of any dtype; all is computed in float64. Cells of the user's
            own writing are differentiated as they run, in their own dtype.
        x: inputs, shape (batch, time, input), or a tuple or mapping of all that the model takes; left out for a
            ``DrivenLayer``.
        h_init: hidden state of a ``FullRNN`` before step 0, shape (batch, hidden); zeros if left out.
        time_first: whether the model takes (time, batch, ...), as of ``gradnorm``.
        only: of a module with several recurrent weights a name or pattern that leaves one, as in ``probe``.
        progress: called with the fraction of the steps that are done.
    Returns:
        A frozen ``Spectrum``; for a cell with gates, whose W_hh holds one matrix a gate, a frozen
        ``GatedSpectrum``; for a cell of the user's own writing a frozen ``StepSpectrum``.
    Raises:
        InputError: ShapeError, DtypeError, DeviceError; weights that are not finite; TooLargeError.
    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, section 2.1 (the bound); Henrici 1962
        (departure from normality).
    """
    layer = layer_to_measure(model, x, h_init, only, time_first)
    return replace(_spectrum(layer, progress), notes=layer.notes)


def _spectrum(layer: Measured, progress: Callable[[float], None] | None) -> Spectrum | GatedSpectrum | StepSpectrum:
    if isinstance(layer, GraphSteps):
        return step_spectrum(layer, progress)
    if layer.kind.nonlinearity is None:
        return gated_spectrum(layer, progress)
    _require_room(layer.hidden_size, measuring_bytes(layer.seq_len, layer.x.shape[0], layer.hidden_size))
    return _elman_spectrum(layer, progress)


def layer_to_measure(
    model: nn.Module | DrivenLayer,
    x: Given | None,
    h_init: Tensor | None,
    only: str | None,
    time_first: TimeFirst = None,
) -> Measured:
    """The layer, or code of the user's own, that spectrum and lyapunov look at, with the input that drives it.

    Args:
        x: as of ``spectrum``; None for a ``DrivenLayer``.
        h_init: of a ``FullRNN``, shape (batch, hidden); zeros if left out.
        only, time_first: of another model, as in ``gradnorm``.
    """
    layer = _driven(model, x, h_init, only, time_first)
    # Looked at before LAPACK is: of a value that is not finite it crashes, or lies.
    if isinstance(layer, DrivenLayer):
        _ = layer.wide_weights
    return layer


def _driven(
    model: nn.Module | DrivenLayer, x: Given | None, h_init: Tensor | None, only: str | None, time_first: TimeFirst
) -> Measured:
    if not isinstance(model, (DrivenLayer, FullRNN)):
        return driven_along(model, x, h_init, only, time_first)
    require_batch_first(time_first)
    if isinstance(model, DrivenLayer):
        require_alone(x, h_init)
        return model
    if x is None:
        raise InputError("spectrum of a FullRNN needs x, shape (batch, time, input)")
    x = one_tensor(x)
    model.check_sequence(x, h_init)
    return own_layer(model, x, model.initial_state(x) if h_init is None else h_init)


def _require_room(hidden: int, of_steps: int) -> None:
    require_memory(8 * 8 * hidden**2 + of_steps, f"the spectrum of W_hh ({hidden}, {hidden})")


def _elman_spectrum(layer: DrivenLayer, progress: Callable[[float], None] | None) -> Spectrum:
    W_hh, f, seq_len = layer.wide_weights.W_hh, layer.kind.nonlinearity, layer.x.shape[1]
    assert f is not None
    found = _Steps(W_hh, f)
    for stretch in stretches(layer, layer.x, layer.state_init):
        found.add(stretch)
        if progress is not None:
            progress(len(found.records) / seq_len)
    end = len(found.records) if len(found.records) < seq_len else None
    return Spectrum(
        matrix=SquareMatrix.of(W_hh, layer.weights.W_hh.dtype),
        nonlinearity=f.name,
        steps=tuple(found.records),
        dead_fraction=found.dead_fraction,
        first_nonfinite_step=end,
        nonfinite_reason=why_ended(layer, end),
    )


class _Steps:
    """Collects one record per time step, and which units no step has seen alive."""

    def __init__(self, W_hh: Tensor, f: Nonlinearity) -> None:
        self.W_hh, self.f = W_hh, f
        self.records: list[Mapping[str, Any]] = []
        self.never_alive: Tensor | None = None

    def add(self, stretch: Stretch) -> None:
        """The records of consecutive steps."""
        assert isinstance(stretch.slopes, Slopes)
        h, slope = stretch.state, stretch.slopes.slopes.squeeze(2)
        norms = jacobian_norms(slope.flatten(0, 1), self.W_hh).view(h.shape[:2])
        dead = (slope == 0).all(dim=1)
        columns = (
            norms.mean(dim=1),
            norms.amax(dim=1),
            slope.mean(dim=(1, 2)),
            (h.abs() > SATURATED).double().mean(dim=(1, 2)),
            dead.double().mean(dim=1),
        )
        names = ("jacobian_norm_mean", "jacobian_norm_max", "mean_slope", "saturated", "dead")
        for t, values in enumerate(zip(*(column.tolist() for column in columns), strict=True), start=stretch.start):
            self.records.append({"t": t, **dict(zip(names, values, strict=True)), **self._unasked})
        always = dead.all(dim=0)
        self.never_alive = always if self.never_alive is None else self.never_alive & always

    @property
    def _unasked(self) -> dict[str, None]:
        """What says nothing of this f_h."""
        known = {"saturated": self.f.saturates, "dead": self.f.can_die}
        return dict.fromkeys(name for name, is_known in known.items() if not is_known)

    @property
    def dead_fraction(self) -> float | None:
        """Share of units that no step has seen alive, of an f_h that can die."""
        if not self.f.can_die or self.never_alive is None:
            return None
        return float(self.never_alive.double().mean())
