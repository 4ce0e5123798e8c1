"""What the step Jacobians of a cell of the user's own writing tell, and its W_hh where it is one square matrix."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

from jaxtyping import Complex, Float
from torch import Tensor

from rnnctl.dynamics.eigen import OF_MATRIX, SquareMatrix
from rnnctl.dynamics.gate_spectra import (
    CHEAP_EIGENVALUES,
    NO_RADIUS,
    OF_ONE_FUNCTION,
    SPECTRUM_KINDS,
    mean_of,
    why_no_steps,
)
from rnnctl.dynamics.jacobian import measuring_bytes, spectral_radii, tangent_norms
from rnnctl.dynamics.trajectory import (
    Stretch,
    computed_in,
    ended_at,
    reason_scalars,
    trajectory,
    why_ended,
)
from rnnctl.memory import require_memory
from rnnctl.models.graph_steps import GraphSteps
from rnnctl.recurrence.threads import one_thread
from rnnctl.results import Kind, Result, numbers
from rnnctl.view.shown import Shown


@dataclass(frozen=True, eq=False)
class StepSpectrum(Shown, Result):
    """The step Jacobians of code of the user's own along a sequence; W_hh beside them.

    Attributes:
        cell: the class that holds the weight.
        weight: its name in the model.
        state: what a step hands to the next, in words.
        state_size: how many numbers that is, for each sequence.
        matrix: W_hh by itself; None where the weight is not one square matrix: where it holds a matrix for each gate,
            or a kernel, or is applied unit by unit.
        steps: one record per time step: t, jacobian_norm_mean and jacobian_norm_max (over the batch, of
            J_t = d state_t / d state_{t-1}), jacobian_radius_mean (of its spectral radius; None where it would take
            long).
        first_step: the t of the first of them: 1 where the state before step 0 takes no part in the graph.
        first_nonfinite_step: the first step whose state or Jacobian is not finite in the model's own dtype, or None;
            ``steps`` ends before it.
        nonfinite_reason: what is not finite there and why; None likewise.
        computed_in: dtype and device.
    """

    schema: ClassVar[str] = "spectrum-steps"
    kinds: ClassVar[Mapping[str, Kind]] = {
        **SPECTRUM_KINDS,
        "weight": str,
        "first_step": float,
        # Patterns, of what is there where W_hh is one square matrix alone.
        **numbers("spectral_radius_*", "transient_growth*"),
    }
    words: ClassVar[tuple[str, ...]] = ("nonfinite",)

    cell: str
    weight: str
    state: str
    state_size: int
    matrix: SquareMatrix | None
    steps: tuple[Mapping[str, Any], ...]
    first_step: int
    first_nonfinite_step: int | None
    nonfinite_reason: str | None
    computed_in: str

    @property
    def eigenvalues(self) -> Complex[Tensor, " hidden"] | None:
        """Of W_hh by falling modulus, shape (hidden,), complex128; None where it is not one square matrix."""
        return None if self.matrix is None else self.matrix.eigenvalues

    @property
    def singular_values(self) -> Float[Tensor, " hidden"] | None:
        """Of W_hh, falling, shape (hidden,), float64; None likewise."""
        return None if self.matrix is None else self.matrix.singular_values

    @cached_property
    def scalars(self) -> Mapping[str, Any]:
        """Name -> number or text; None where a quantity has no value here.

        Those of ``Spectrum`` and ``GatedSpectrum`` that speak of gates or of one nonlinearity are always None.
        """
        unknown = (*OF_ONE_FUNCTION, "keep_gate", "keep_mean", "saturated_fraction")
        largest = [step["jacobian_norm_max"] for step in self.steps]
        return MappingProxyType(
            {
                "cell": self.cell,
                "weight": self.weight,
                "state": self.state,
                "hidden_size": None if self.eigenvalues is None else self.eigenvalues.shape[0],
                "state_size": self.state_size,
                **(dict.fromkeys(OF_MATRIX) if self.matrix is None else self.matrix.scalars),
                "jacobian_norm_mean": mean_of(self.steps, "jacobian_norm_mean"),
                "jacobian_norm_max": max(largest, default=None),
                "jacobian_radius_mean": mean_of(self.steps, "jacobian_radius_mean"),
                **dict.fromkeys(unknown),
                "first_step": self.first_step,
                "first_nonfinite_step": self.first_nonfinite_step,
                **reason_scalars(self.nonfinite_reason),
                "computed_in": self.computed_in,
            }
        )

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One record per time step: t, jacobian_norm_mean, jacobian_norm_max, jacobian_radius_mean."""
        return self.steps

    @cached_property
    def more(self) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
        """Further records by name: ``eigenvalues`` of W_hh: i, real, imag, modulus, and the i-th singular_value."""
        return {"eigenvalues": () if self.matrix is None else self.matrix.rows}

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None."""
        no_matrix = "what multiplies the state is not one square matrix"
        unknown = (*OF_ONE_FUNCTION, "keep_gate", "keep_mean", "saturated_fraction")
        return {
            **dict.fromkeys((*OF_MATRIX, "hidden_size"), no_matrix),
            **({} if self.matrix is None else self.matrix.why),
            **why_no_steps(self.nonfinite_reason),
            **({} if self.steps else dict.fromkeys(("jacobian_norm_mean", "jacobian_norm_max"), self._no_step)),
            **dict.fromkeys(unknown, "code of its own does not tell its gates and nonlinearities"),
            "jacobian_radius_mean": NO_RADIUS,
        }

    @property
    def _no_step(self) -> str:
        """Why none was measured: the first state overflows, or is no number."""
        first = f"h_t overflows first at step {self.first_nonfinite_step}, or is no number there"
        return f"{first}: {self.nonfinite_reason}"

    @property
    def conditions(self) -> Mapping[str, bool | None]:
        """Whether "nonfinite" holds: the state leaves the model's dtype within the sequence."""
        return {"nonfinite": self.first_nonfinite_step is not None}


def step_spectrum(steps: GraphSteps, progress: Callable[[float], None] | None = None) -> StepSpectrum:
    """What the Jacobians of the steps say along the sequence, and what W_hh does by itself.

    Args:
        steps: of one weight in autograd's graph.
        progress: called with the fraction of the steps that are done.
    Raises:
        InputError: sequences that depend on one another; TooLargeError.
    """
    hidden = 0 if steps.W_hh is None else steps.W_hh.shape[0]
    needed = 8 * 8 * hidden**2 + measuring_bytes(steps.seq_len, steps.batch, steps.state_size)
    require_memory(needed, f"the spectrum of {steps.name}")
    want_radius = steps.batch * steps.seq_len * steps.state_size**3 <= CHEAP_EIGENVALUES
    records: list[Mapping[str, Any]] = []
    for stretch in trajectory(steps, steps.seq_len):
        records += _records(stretch, want_radius)
        if progress is not None:
            progress(len(records) / steps.seq_len)
    end = ended_at(steps, len(records), steps.seq_len)
    return StepSpectrum(
        cell=steps.kind.name,
        weight=steps.name,
        state=steps.kind.state,
        state_size=steps.state_size,
        matrix=None if steps.W_hh is None else SquareMatrix.of(steps.W_hh, steps.dtype),
        steps=tuple(records),
        first_step=steps.first_step,
        first_nonfinite_step=end,
        nonfinite_reason=why_ended(steps, end),
        computed_in=computed_in(steps),
    )


def _records(stretch: Stretch, want_radius: bool) -> list[Mapping[str, Any]]:
    J, (steps, batch) = stretch.slopes.flattened(), stretch.state.shape[:2]
    # Many small products and decompositions, of which several threads make slow work on a busy machine.
    with one_thread():
        norms = tangent_norms(J).view(steps, batch)
        radii = spectral_radii(J).view(steps, batch).mean(dim=1).tolist() if want_radius else [None] * steps
    columns = (norms.mean(dim=1).tolist(), norms.amax(dim=1).tolist(), radii)
    names = ("jacobian_norm_mean", "jacobian_norm_max", "jacobian_radius_mean")
    return [
        {"t": t, **dict(zip(names, values, strict=True))}
        for t, values in enumerate(zip(*columns, strict=True), start=stretch.start)
    ]
