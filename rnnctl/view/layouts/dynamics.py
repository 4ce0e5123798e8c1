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
from rnnctl.view.words import note_of, notes_beside


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
        **notes_beside("spectrum"),
        **radius_notes(scalars),
        **growth_notes(scalars),
        "norm_bound_certifies": "below 1: the gradient vanishes, whatever the input"
        if vanishing
        else "only a bound below 1 certifies something: that the gradient vanishes",
        "first_nonfinite_step": nonfinite_note(scalars),
    }


def _lyapunov_notes(scalars: Record) -> Mapping[str, str]:
    span = f"{number(scalars['steps'])} steps after {number(scalars['warmup'])} of warm-up"
    way = "of the free-running network" if scalars["autonomous"] else "along the sequence"
    marginal = "within its error of 0; " if scalars["marginal"] else ""
    said = notes_beside("lyapunov")
    own_code = {"computed_in": notes_beside("spectrum-steps")["computed_in"]}
    return {
        **said,
        "largest": f"{marginal}nats per step {way}, {span}",
        "entropy_rate": f"{marginal}{said['entropy_rate']}",
        **_theory_notes(scalars),
        "theory": scalars["theory_note"],
        "first_step": beginning(scalars),
        "first_nonfinite_step": nonfinite_note(scalars),
        **(own_code if scalars["computed_in"].endswith("runs") else {}),
    }


def _theory_notes(scalars: Record) -> Mapping[str, str]:
    """What q and chi are of: one variance of an Elman cell, what reaches the gates of another one."""
    one, reset = scalars["nonlinearity"] is not None, ", the reset gate left out" if scalars["cell"] == "GRU" else ""
    of_gates = f"mean square of W_ih x_t + W_hh h_(t-1) + biases over gates and steps{reset}"
    return {
        "theory_q": note_of("theory_q") if one else of_gates,
        "theory_chi": note_of("theory_chi") if one else "mean squared factor of a perturbation per step",
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
