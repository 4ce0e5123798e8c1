"""How spectrum and lyapunov are shown."""

from collections.abc import Mapping
from typing import Any

from rnnctl.errors import with_article
from rnnctl.view.layouts.eigenvalues import eigenvalue_tables
from rnnctl.view.layouts.layout import Column, Layout, Record, Table, nonfinite_note
from rnnctl.view.layouts.matrix import growth_notes, radius_notes
from rnnctl.view.numbers import number
from rnnctl.view.plane import eigenvalue_plane
from rnnctl.view.terminal import Terminal


def _picture(result: Any, terminal: Terminal) -> str:
    return eigenvalue_plane(result.eigenvalues.tolist(), terminal)


def beginning(scalars: Record) -> str:
    """Where the first step that is measured stands, and why."""
    first = scalars["first_step"]
    if not first:
        return "the state before it is part of autograd's graph"
    return f"measured from step {number(first)} on: the state that step {number(first - 1)} starts from is a constant"


def _spectrum_notes(scalars: Record) -> Mapping[str, str]:
    vanishing = scalars["norm_bound_certifies"] == "vanishing"
    return {
        **radius_notes(scalars),
        **growth_notes(scalars),
        "spectral_norm": "largest singular value of W_hh",
        "condition_number": "largest over smallest singular value",
        "departure_from_normality": "Henrici: sqrt(||W_hh||_F^2 - sum |eigenvalue|^2); 0 for a normal matrix",
        "relative_departure": "the same over ||W_hh||_F",
        "norm_bound": "spectral_norm x the largest slope of f (Pascanu et al. 2013)",
        "norm_bound_certifies": "below 1: the gradient vanishes, whatever the input"
        if vanishing
        else "only a bound below 1 certifies something: that the gradient vanishes",
        "jacobian_norm_mean": "||diag(f'(a_t)) W_hh||_2 over all steps and sequences",
        "jacobian_norm_max": "the largest of them",
        "mean_slope": "of f'(a_t)",
        "saturated_fraction": "share of |h_t| > 0.99",
        "dead_fraction": "share of units with f'(a_t) = 0 throughout",
        "first_nonfinite_step": nonfinite_note(scalars),
        "computed_in": "whatever --dtype and --device are",
    }


def _lyapunov_notes(scalars: Record) -> Mapping[str, str]:
    span = f"{number(scalars['steps'])} steps after {number(scalars['warmup'])} of warm-up"
    way = "of the free-running network" if scalars["autonomous"] else "along the sequence"
    marginal = "within its error of 0; " if scalars["marginal"] else ""
    return {
        "largest": f"{marginal}nats per step {way}, {span}",
        "largest_stderr": "within two of them lies the true exponent, in about 95 of 100 cases",
        "exp_largest": "factor per step of a perturbation, exp(largest)",
        "factor_per_step": "of gradnorm: each step back multiplies d(loss at the last step)/dh by this",
        "sum": "of all exponents: mean ln |det J_t|",
        "kaplan_yorke_dimension": "how many exponents sum to 0; 0 where all trajectories meet",
        "entropy_rate": f"{marginal}sum of the positive exponents; entropy per step is at most that (Pesin 1977)",
        "log_condition": "(largest - smallest) x steps: ln of the condition of all their Jacobians (Vogt et al. 2020)",
        "efolding_steps": "until a perturbation has changed by a factor e",
        "steps_to_one_percent": "until a perturbation has shrunk to 1 %",
        "theory_largest": "0.5 ln chi, to hold beside largest",
        "theory_factor": "sqrt(chi), to hold beside exp_largest",
        **_theory_notes(scalars),
        "theory": scalars["theory_note"],
        "first_step": beginning(scalars),
        "first_nonfinite_step": nonfinite_note(scalars),
        "computed_in": "whatever --dtype and --device are"
        if not scalars["computed_in"].endswith("runs")
        else "the step Jacobians, of code of your own; all else in float64",
    }


def _theory_notes(scalars: Record) -> Mapping[str, str]:
    if scalars["nonlinearity"] is not None:
        return {
            "theory_q": "mean square of a_t, in the steady state or over the steps",
            "theory_chi": "sigma_w^2 E[f'(a_t)^2]; of several steps the geometric mean",
        }
    reset = ", the reset gate left out" if scalars["cell"] == "GRU" else ""
    return {
        "theory_q": f"mean square of W_ih x_t + W_hh h_(t-1) + biases over gates and steps{reset}",
        "theory_chi": "mean squared factor of a perturbation per step",
    }


def _without_theory(scalars: Record) -> tuple[str, ...]:
    """Its numbers, where the line "theory" says that there is none for this cell; step 0 as the first, as ever."""
    theory = ("theory_?*",) if scalars["nonlinearity"] is None and scalars["theory"] == "none" else ()
    return theory if scalars["first_step"] else (*theory, "first_step")


def _lyapunov_caption(scalars: Record) -> str:
    if scalars["lost_sequences"]:
        return f"-inf: in {number(scalars['lost_sequences'])} of the sequences no perturbation survives (dead units)"
    state, is_h_alone = scalars["state"], scalars["state"] == "h_t"
    if scalars["stands_still"] and not is_h_alone:
        return f"{state} never leave their start, a fixed point: try another one"
    if scalars["stands_still"]:
        return "h_t never leaves h_init, a fixed point: try another start (of the hand-written network --h-init normal)"
    if is_h_alone:
        return ""
    cell = with_article(scalars["cell"])
    return f"the state of {cell} is {state}, {number(scalars['state_size'])} numbers: as many exponents in all"


SPECTRUM = Layout(
    eigenvalue_tables("W_hh"),
    _spectrum_notes,
    ("nonfinite_reason",),
    more={
        "steps": (
            Table(
                (
                    Column("t", "t"),
                    Column("jacobian_norm_mean", "||J_t|| mean"),
                    Column("jacobian_norm_max", "max"),
                    Column("mean_slope", "mean f'(a_t)"),
                    Column("saturated", "saturated"),
                    Column("dead", "dead"),
                ),
                title="step Jacobians J_t = diag(f'(a_t)) W_hh, over the batch",
            ),
        )
    },
    picture=_picture,
)
LYAPUNOV = Layout(
    (
        Table(
            (Column("i", "i"), Column("exponent", "exponent"), Column("stderr", "stderr")),
            title="Lyapunov exponents, nats per step",
        ),
    ),
    _lyapunov_notes,
    (
        *("theory_note", "steps", "warmup", "autonomous", "lost_sequences", "stands_still", "marginal"),
        *("cell", "state", "state_size", "nonlinearity", "nonfinite_reason"),
    ),
    more={
        "convergence": (
            Table(
                (Column("steps", "steps"), Column("largest", "largest")),
                title="the largest exponent from the first steps alone",
            ),
        )
    },
    hidden_when=_without_theory,
    caption=_lyapunov_caption,
)
