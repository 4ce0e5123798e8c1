"""How the spectrum of a cell of the user's own writing is shown."""

from collections.abc import Mapping
from typing import Any

from rnnctl.view.layouts.dynamics import beginning
from rnnctl.view.layouts.eigenvalues import eigenvalue_tables
from rnnctl.view.layouts.layout import Column, Layout, Record, Table, nonfinite_note
from rnnctl.view.layouts.matrix import growth_notes, radius_notes
from rnnctl.view.plane import eigenvalue_plane
from rnnctl.view.terminal import Terminal
from rnnctl.view.words import notes_beside


def _picture(result: Any, terminal: Terminal) -> str:
    return "" if result.eigenvalues is None else eigenvalue_plane(result.eigenvalues.tolist(), terminal)


def _notes(scalars: Record) -> Mapping[str, str]:
    state, is_matrix = scalars["state"], scalars["spectral_radius"] is not None
    said = notes_beside("spectrum-steps")
    no_matrix = f"{scalars['weight']} is not one square matrix from state to state: see the step Jacobians"
    return {
        **said,
        "state_size": f"numbers in {state}, for each sequence",
        **radius_notes(scalars, said=said["spectral_radius"] if is_matrix else no_matrix),
        **growth_notes(scalars),
        "jacobian_norm_mean": f"||J_t||_2 over all steps and sequences, J_t = d state_t / d state_{{t-1}}, of {state}",
        "first_step": beginning(scalars),
        "first_nonfinite_step": nonfinite_note(scalars),
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
