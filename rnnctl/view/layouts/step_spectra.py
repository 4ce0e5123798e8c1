"""How the spectrum of a cell of the user's own writing is shown."""

from collections.abc import Mapping
from typing import Any

from rnnctl.view.layouts.dynamics import beginning
from rnnctl.view.layouts.eigenvalues import eigenvalue_tables
from rnnctl.view.layouts.layout import Column, Layout, Record, Table, nonfinite_note
from rnnctl.view.layouts.matrix import growth_notes, radius_notes
from rnnctl.view.plane import eigenvalue_plane
from rnnctl.view.terminal import Terminal


def _picture(result: Any, terminal: Terminal) -> str:
    return "" if result.eigenvalues is None else eigenvalue_plane(result.eigenvalues.tolist(), terminal)


def _notes(scalars: Record) -> Mapping[str, str]:
    state, is_matrix = scalars["state"], scalars["spectral_radius"] is not None
    no_matrix = f"{scalars['weight']} is not one square matrix from state to state: see the step Jacobians"
    return {
        "cell": "the class that holds the weight",
        "weight": "W_hh in these lines",
        "state_size": f"numbers in {state}, for each sequence",
        **radius_notes(scalars, said="largest |eigenvalue| of W_hh alone" if is_matrix else no_matrix),
        **growth_notes(scalars),
        "spectral_norm": "largest singular value of W_hh",
        "condition_number": "largest over smallest singular value",
        "departure_from_normality": "Henrici: sqrt(||W_hh||_F^2 - sum |eigenvalue|^2); 0 for a normal matrix",
        "relative_departure": "the same over ||W_hh||_F",
        "jacobian_norm_mean": f"||J_t||_2 over all steps and sequences, J_t = d state_t / d state_{{t-1}}, of {state}",
        "jacobian_norm_max": "the largest of them",
        "jacobian_radius_mean": "largest |eigenvalue| of J_t, over all steps and sequences",
        "first_step": beginning(scalars),
        "first_nonfinite_step": nonfinite_note(scalars),
        "computed_in": "the step Jacobians, of code of your own; all else in float64",
    }


def _without_matrix(scalars: Record) -> tuple[str, ...]:
    """Its numbers, where the line of the spectral radius says that there is none."""
    names = ("hidden_size", "spectral_norm", "condition_number", "departure_from_normality", "relative_departure")
    return names if scalars["spectral_radius"] is None else ()


SPECTRUM_STEPS = Layout(
    (
        Table(
            (
                Column("t", "t"),
                Column("jacobian_norm_mean", "||J_t|| mean"),
                Column("jacobian_norm_max", "max"),
                Column("jacobian_radius_mean", "radius mean"),
            ),
            title="step Jacobians J_t = d state_t / d state_{t-1}, over the batch",
        ),
    ),
    _notes,
    # What cells of known kinds alone have.
    (
        "state",
        "keep_gate",
        "keep_mean",
        "saturated_fraction",
        "norm_bound",
        "norm_bound_certifies",
        "mean_slope",
        "dead_fraction",
        "nonfinite_reason",
    ),
    hidden_when=_without_matrix,
    more={
        "eigenvalues": eigenvalue_tables("W_hh", optional=True),
    },
    picture=_picture,
)
