"""What the curves of a picture are called, and what of them is shown, whoever draws it."""

from collections.abc import Mapping

# Of several weights, which have a panel each.
MOST_PANELS = 6
# Two gradients that differ by less, as a share, are the same but for the rounding of float64.
ROUNDING = 1e-14
# Between them a log scale has room for its margins and ticks in float64.
LEAST_DRAWN, MOST_DRAWN = 1e-270, 1e200
WORDS: Mapping[str, str] = {
    "grad_norm_W_hh": "||G_t||, what step t adds",
    "grad_norm_h": "||dL/dh_t||, in all",
    "grad_norm_h_direct": "||dL/dh_t||, by y_t alone",
    "grad_norm_c": "||dL/dc_t||, in all",
}
STEP_FACTORS: Mapping[str, str] = {
    "jacobian_norm_max": "largest norm of J_t",
    "jacobian_norm_mean": "mean norm of J_t",
    "jacobian_radius_mean": "mean spectral radius of J_t",
}
AT_ONE = "1: neither grows nor shrinks"


def time_label(weight: str) -> str:
    """The name of the time axis: the steps of a reverse direction stand in the order of the sequence."""
    return "time step t" + (", read from the last to the first" if weight.endswith("_reverse") else "")
