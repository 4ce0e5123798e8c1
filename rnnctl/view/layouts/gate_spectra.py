"""How the spectrum of a cell with gates is shown."""

from collections.abc import Mapping

from rnnctl.view.layouts.eigenvalues import eigenvalue_tables
from rnnctl.view.layouts.layout import Column, Layout, Record, Table, nonfinite_note
from rnnctl.view.layouts.matrix import error_text
from rnnctl.view.words import notes_beside


def _notes(scalars: Record) -> Mapping[str, str]:
    keep, state = scalars["keep_gate"], scalars["state"]
    return {
        **notes_beside("spectrum-gates"),
        "state_size": f"numbers in {state}, for each sequence",
        "jacobian_norm_mean": f"||J_t||_2 over all steps and sequences, J_t = d state_t / d state_{{t-1}}, of {state}",
        "keep_mean": f"of {keep}_t, the share of the state that a step keeps",
        "first_nonfinite_step": nonfinite_note(scalars),
    }


SPECTRUM_GATES = Layout(
    eigenvalue_tables("every gate's rows of W_hh", Column("gate", "gate", right=False, whole=True)),
    _notes,
    # What an Elman layer alone has: the line of the spectral radius says where to look instead.
    (
        "state",
        "keep_gate",
        "spectral_norm",
        "condition_number",
        "departure_from_normality",
        "relative_departure",
        "norm_bound_certifies",
        "mean_slope",
        "dead_fraction",
        "nonfinite_reason",
    ),
    more={
        "gates": (
            Table(
                (
                    Column("gate", "gate", right=False, whole=True),
                    # Of a square one hidden_size tells it.
                    Column("shape", "shape", right=False, whole=True, spare=True),
                    Column("spectral_radius", "radius"),
                    Column("spectral_radius_error", "error", text=error_text),
                    Column("spectral_norm", "norm"),
                    Column("condition_number", "condition"),
                    Column("relative_departure", "departure"),
                    Column("mean", "mean"),
                    Column("saturated", "saturated"),
                ),
                title="gates: spectral radius and its error, norm, relative departure from normality, "
                "activation along the sequence",
            ),
        ),
        "steps": (
            Table(
                (
                    Column("t", "t"),
                    Column("jacobian_norm_mean", "||J_t|| mean"),
                    Column("jacobian_norm_max", "max"),
                    Column("jacobian_radius_mean", "radius mean"),
                    Column("keep_mean", "kept"),
                    Column("saturated", "saturated"),
                ),
                title="step Jacobians J_t and gates, over the batch",
            ),
        ),
    },
)
