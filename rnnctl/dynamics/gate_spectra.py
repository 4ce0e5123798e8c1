"""What the recurrent weights of a cell with gates and its step Jacobians tell, gate by gate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from rnnctl.dynamics.eigen import OF_MATRIX, condition_number, departure_from_normality
from rnnctl.dynamics.jacobian import measuring_bytes, spectral_radii, tangent_norms
from rnnctl.dynamics.trajectory import (
    COMPUTED_IN,
    REASON_KINDS,
    Stretch,
    reason_scalars,
    stretches,
    why_ended,
)
from rnnctl.memory import require_memory
from rnnctl.models.driven import DrivenLayer
from rnnctl.recurrence.cell_kind import CellKind
from rnnctl.recurrence.kinds import KINDS
from rnnctl.recurrence.radius_error import eigen
from rnnctl.recurrence.states_seen import FINITE
from rnnctl.results import Kind, Result, numbers
from rnnctl.view.shown import Shown

# A gate counts as saturated closer than this to 0 or 1; a candidate where |tanh| is beyond.
GATE_MARGIN, CANDIDATE_SATURATED = 0.05, 0.99
# Eigenvalues of all step Jacobians are found where steps x batch x state^3 is at most this: a few seconds.
CHEAP_EIGENVALUES = 5e8
# What stands in place of a gate's letter where W_hh is one matrix.
WHOLE = "W_hh"
# Of a cell whose step is one nonlinearity of one matrix, by name.
OF_ONE_FUNCTION = ("norm_bound", "norm_bound_certifies", "mean_slope", "dead_fraction")
NO_RADIUS = "it takes long here. Try fewer steps or sequences"
# What can be asked of the spectrum of any cell.
SPECTRUM_KINDS: Mapping[str, Kind] = {
    **numbers(*OF_MATRIX, "hidden_size", "state_size", "jacobian_norm_mean", "jacobian_norm_max"),
    **numbers("jacobian_radius_mean", "keep_mean", "saturated_fraction", "norm_bound", "mean_slope", "dead_fraction"),
    **numbers("first_nonfinite_step"),
    "norm_bound_certifies": ("vanishing", "nothing"),
    **dict.fromkeys(("cell", "state", "keep_gate", "computed_in"), str),
    **REASON_KINDS,
}


def why_no_steps(nonfinite_reason: str | None) -> Mapping[str, str]:
    """Why there is no mean over steps, where the sequence ends before its first one; and no such end, elsewhere."""
    if nonfinite_reason is None:
        return {"first_nonfinite_step": FINITE}
    names = ("jacobian_norm_mean", "jacobian_norm_max", "mean_slope", "saturated_fraction", "keep_mean")
    return dict.fromkeys(names, nonfinite_reason)


@dataclass(frozen=True, eq=False)
class GateMatrix:
    """The rows of W_hh that make one gate.

    Attributes:
        gate: "r", "z", "n" or "i", "f", "g", "o"; "W_hh" of a cell without gates.
        eigenvalues: by falling modulus, shape (hidden,), complex128; None of a projected cell, where
            the block is not square.
        radius_error: the true spectral radius is within this of the largest modulus; None likewise.
        singular_values: falling, shape (min(hidden, proj),), float64.
        shape: (hidden, hidden), of a projected cell (hidden, proj).
    """

    gate: str
    eigenvalues: Complex[Tensor, " hidden"] | None
    radius_error: float | None
    singular_values: Float[Tensor, " rank"]
    shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class GatedSpectrum(Shown, Result):
    """Eigenvalues and singular values of every gate's part of W_hh, and the step Jacobians along a sequence.

    Attributes:
        cell: name of its kind, "GRU", "LSTM", ...
        gates: one matrix a gate, in torch's order.
        state_size: H; where the state is h_t and c_t, H + H, with a projection proj + H.
        steps: one record per time step: t, jacobian_norm_mean and jacobian_norm_max (over the batch, of
            J_t = d state_t / d state_{t-1}), jacobian_radius_mean (of its spectral radius; None where it
            would take long), keep_mean (of z_t or f_t; None without such a gate), saturated (share of gate
            activations below 0.05 or above 0.95; candidates do not count, None where there is nothing else).
        activations: one record per gate: gate, mean, saturated (of a candidate: |n_t|, |g_t| > 0.99),
            over all steps and sequences; None where no step is finite.
        first_nonfinite_step: the first step whose state or Jacobian is not finite even in float64, or
            None; ``steps`` ends before it.
        nonfinite_reason: what is not finite there and why; None likewise.
    """

    schema: ClassVar[str] = "spectrum-gates"
    kinds: ClassVar[Mapping[str, Kind]] = SPECTRUM_KINDS
    words: ClassVar[tuple[str, ...]] = ("nonfinite",)

    cell: str
    gates: tuple[GateMatrix, ...]
    state_size: int
    steps: tuple[Mapping[str, Any], ...]
    activations: tuple[Mapping[str, Any], ...]
    first_nonfinite_step: int | None
    nonfinite_reason: str | None

    @cached_property
    def scalars(self) -> Mapping[str, Any]:
        """Name -> number or text; None where a quantity has no value here.

        Those of ``Spectrum`` that speak of one square W_hh or one nonlinearity are always None.
        """
        largest = [step["jacobian_norm_max"] for step in self.steps]
        return MappingProxyType(
            {
                "cell": self.cell,
                "state": KINDS[self.cell].state,
                "hidden_size": self.gates[0].shape[0],
                "state_size": self.state_size,
                **dict.fromkeys(OF_MATRIX),
                "jacobian_norm_mean": mean_of(self.steps, "jacobian_norm_mean"),
                "jacobian_norm_max": max(largest, default=None),
                "jacobian_radius_mean": mean_of(self.steps, "jacobian_radius_mean"),
                "keep_gate": KINDS[self.cell].keep,
                "keep_mean": mean_of(self.steps, "keep_mean"),
                "saturated_fraction": mean_of(self.steps, "saturated"),
                **dict.fromkeys(OF_ONE_FUNCTION),
                "first_nonfinite_step": self.first_nonfinite_step,
                **reason_scalars(self.nonfinite_reason),
                "computed_in": COMPUTED_IN,
            }
        )

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One record per gate and index i: gate, i, real, imag, modulus, and the i-th singular_value."""
        return tuple(row for i in range(self.gates[0].shape[0]) for gate in self.gates for row in _row(gate, i))

    @property
    def more(self) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
        """Further records by name: ``gates`` (one per gate) and ``steps``."""
        pairs = zip(self.gates, self.activations, strict=True)
        return {"gates": tuple({**_summary(gate), **activation} for gate, activation in pairs), "steps": self.steps}

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None."""
        keep = KINDS[self.cell].keep
        no_bound = "no bound of W_hh certifies vanishing" + (
            f": {keep}_t may be 1, and the state is kept" if keep else ""
        )
        return {
            **dict.fromkeys(
                OF_MATRIX, f"W_hh of {KINDS[self.cell].with_article} stacks one matrix a gate: see the gates"
            ),
            **dict.fromkeys(OF_ONE_FUNCTION, "of a cell with one nonlinearity and one matrix"),
            **dict.fromkeys(("norm_bound", "norm_bound_certifies"), no_bound),
            "jacobian_radius_mean": NO_RADIUS,
            **dict.fromkeys(("keep_gate", "keep_mean"), "no gate of this cell keeps the state"),
            "saturated_fraction": "this cell has no gate that saturates",
            **why_no_steps(self.nonfinite_reason),
        }

    @property
    def conditions(self) -> Mapping[str, bool | None]:
        """Whether "nonfinite" holds: the state leaves float64 within the sequence."""
        return {"nonfinite": self.first_nonfinite_step is not None}


def gated_spectrum(layer: DrivenLayer, progress: Callable[[float], None] | None = None) -> GatedSpectrum:
    """What every gate's part of W_hh says, and what the step Jacobians say along the layer's input.

    Args:
        layer: of any kind but the Elman cell, of which ``spectrum`` knows more.
        progress: called with the fraction of the steps that are done.
    Raises:
        InputError: weights that are not finite; TooLargeError.
    Source: Can, Krishnamurthy & Schwab 2020, arXiv:2002.00025 (gates and the spectrum of J); Henrici
        1962 (departure from normality).
    """
    W_hh, steps = layer.weights.W_hh, layer.x.shape[1]
    needed = 8 * (4 * W_hh.numel() + 8 * layer.hidden_size * W_hh.shape[1])
    needed += measuring_bytes(steps, layer.x.shape[0], layer.state_size)
    require_memory(needed, f"the spectrum of W_hh {tuple(W_hh.shape)}")
    weights = layer.wide_weights
    count = layer.x.shape[0] * steps
    found = _Steps(layer.kind, want_radius=count * layer.state_size**3 <= CHEAP_EIGENVALUES)
    for stretch in stretches(layer, layer.x, layer.state_init):
        found.add(stretch)
        if progress is not None:
            progress(len(found.records) / steps)
    names = layer.kind.letters or (WHOLE,)
    blocks = weights.W_hh.chunk(len(names))
    end = len(found.records) if len(found.records) < steps else None
    return GatedSpectrum(
        cell=layer.cell,
        gates=tuple(_matrix(name, W, W_hh.dtype) for name, W in zip(names, blocks, strict=True)),
        state_size=layer.state_size,
        steps=tuple(found.records),
        activations=found.activations,
        first_nonfinite_step=end,
        nonfinite_reason=why_ended(layer, end),
    )


def mean_of(records: tuple[Mapping[str, Any], ...], name: str) -> float | None:
    """Over those records that have a value; None where none has.

    Args:
        records: with this name in each.
        name: of a number.
    """
    values = [record[name] for record in records if record[name] is not None]
    return sum(values) / len(values) if values else None


class _Steps:
    """Collects one record per time step, and what every gate did over all of them."""

    def __init__(self, kind: CellKind, want_radius: bool) -> None:
        self.kind, self.names, self.want_radius = kind, kind.letters, want_radius
        self.records: list[Mapping[str, Any]] = []
        # Per gate: sums over the steps of its mean and of its share of saturated activations.
        self.sums = torch.zeros(2, len(self.names), dtype=torch.float64)

    def add(self, stretch: Stretch) -> None:
        """The records of consecutive steps."""
        J, (steps, batch) = stretch.slopes.flattened(), stretch.state.shape[:2]
        gates = stretch.state.new_zeros(steps, batch, 0, 1) if stretch.gates is None else stretch.gates
        norms = tangent_norms(J).view(steps, batch)
        radii = spectral_radii(J).view(norms.shape).mean(dim=1).tolist() if self.want_radius else [None] * steps
        saturated = self._saturated(gates).double().mean(dim=(1, 3))
        means = gates.mean(dim=(1, 3))
        self.sums += torch.stack([means.sum(dim=0), saturated.sum(dim=0)])
        sigmoids = [i for i, gate in enumerate(self.kind.gates) if not gate.is_candidate]
        columns = (
            norms.mean(dim=1).tolist(),
            norms.amax(dim=1).tolist(),
            radii,
            [None] * steps if self.kind.keep is None else means[:, self.names.index(self.kind.keep)].tolist(),
            saturated[:, sigmoids].mean(dim=1).tolist() if sigmoids else [None] * steps,
        )
        names = ("jacobian_norm_mean", "jacobian_norm_max", "jacobian_radius_mean", "keep_mean", "saturated")
        for t, values in enumerate(zip(*columns, strict=True), start=stretch.start):
            self.records.append({"t": t, **dict(zip(names, values, strict=True))})

    def _saturated(self, gates: Tensor) -> Tensor:
        """Whether an activation is at its end, shape (steps, batch, gates, hidden)."""
        is_candidate = torch.tensor([gate.is_candidate for gate in self.kind.gates], dtype=torch.bool).unsqueeze(1)
        low, high = gates < GATE_MARGIN, gates > 1 - GATE_MARGIN
        return torch.where(is_candidate, gates.abs() > CANDIDATE_SATURATED, low | high)

    @property
    def activations(self) -> tuple[Mapping[str, Any], ...]:
        """One record per gate; of a cell without gates one, of W_hh, that says nothing."""
        if not self.names:
            return ({"gate": WHOLE, "mean": None, "saturated": None},)
        steps = len(self.records)
        means, saturated = (self.sums / max(1, steps)).tolist()
        values = zip(self.names, means, saturated, strict=True)
        return tuple(
            {"gate": name, "mean": mean if steps else None, "saturated": share if steps else None}
            for name, mean, share in values
        )


def _matrix(name: str, W: Tensor, dtype: torch.dtype) -> GateMatrix:
    """Of finite values, which were rounded to a dtype."""
    rows, columns = W.shape
    found = eigen(W, dtype) if rows == columns else None
    eigenvalues, error = (None, None) if found is None else (found.values, found.radius_error)
    return GateMatrix(name, eigenvalues, error, torch.linalg.svdvals(W), (rows, columns))


def _row(gate: GateMatrix, i: int) -> list[Mapping[str, Any]]:
    """The i-th record of a gate; none beyond its singular values."""
    if i >= gate.singular_values.shape[0]:
        return []
    value = None if gate.eigenvalues is None else complex(gate.eigenvalues[i])
    return [
        {
            "gate": gate.gate,
            "i": i,
            "real": None if value is None else value.real,
            "imag": None if value is None else value.imag,
            "modulus": None if value is None else abs(value),
            "singular_value": float(gate.singular_values[i]),
        }
    ]


def _summary(gate: GateMatrix) -> Mapping[str, Any]:
    square = gate.eigenvalues
    departure = (None, None) if square is None else departure_from_normality(square, gate.singular_values)
    return {
        "gate": gate.gate,
        "shape": gate.shape,
        "spectral_radius": None if square is None else float(square[0].abs()),
        "spectral_radius_error": gate.radius_error,
        "spectral_norm": float(gate.singular_values[0]),
        "condition_number": condition_number(gate.singular_values),
        "departure_from_normality": departure[0],
        "relative_departure": departure[1],
    }
