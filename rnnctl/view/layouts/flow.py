"""How flow and truncation are shown."""

from collections.abc import Mapping
from typing import Any

from rnnctl.view.heatmap import heatmap
from rnnctl.view.layouts.layout import Column, Layout, Record, Table, agreement_note
from rnnctl.view.numbers import number
from rnnctl.view.terminal import Terminal
from rnnctl.view.words import note_of, notes_beside


def _picture(result: Any, terminal: Terminal) -> str:
    title = "norm of the contribution to dL_k/dW_hh: loss step k"
    return heatmap(result.norms.tolist(), title, "source step t", terminal)


def _nonfinite(scalars: Record) -> str:
    """Of which step that is, and where."""
    weight, gate = scalars["first_nonfinite_weight"], scalars["first_nonfinite_gate"]
    where = "".join([f" of {weight}" if weight else "", f", gate {gate}" if gate else ""])
    return f"{note_of('first_nonfinite_step')}{where}"


def _loss(scalars: Record) -> str:
    """Of which steps, and of numbers that are none, why."""
    reason = scalars["nonfinite_reason"]
    return "over all steps" if reason is None else f"over all steps; {reason}"


def _flow_notes(scalars: Record) -> Mapping[str, str]:
    return {
        **notes_beside("flow"),
        "loss": _loss(scalars),
        "autograd_relative_error": agreement_note(scalars, "flow"),
        "first_nonfinite_step": _nonfinite(scalars),
    }


def _truncation_notes(scalars: Record) -> Mapping[str, str]:
    said = notes_beside("truncation")
    return {
        **said,
        "loss": _loss(scalars),
        "autograd_relative_error": agreement_note(scalars, "truncation"),
        "window_for_cosine_999": f"{said['window_for_cosine_999']}; T is {number(scalars['seq_len'])}",
        "first_nonfinite_step": _nonfinite(scalars),
    }


HIDDEN = (
    *("seq_len", "autograd_tolerance", "states", "*_at_*"),
    *("first_nonfinite_weight", "first_nonfinite_gate", "nonfinite_reason"),
)


FLOW = Layout(
    (),
    _flow_notes,
    HIDDEN,
    more={
        "lag_profile": (
            Table(
                (
                    Column("lag", "lag"),
                    Column("median", "median"),
                    Column("p10", "10 %", spare=True),
                    Column("p90", "90 %", spare=True),
                    Column("median_h", "h alone", optional=True, spare=True),
                    Column("median_c", "c alone", optional=True, spare=True),
                    Column("median", "median, log", right=False, bar=True),
                ),
                title="||dL_k/dstate_{k-lag}|| over ||dL_k/dstate_k||, over all loss steps k",
            ),
        )
    },
    picture=_picture,
)
TRUNCATION = Layout(
    (
        Table(
            (
                Column("window", "window"),
                Column("norm_ratio", "norm_ratio"),
                Column("relative_error", "relative_error"),
                Column("cosine", "cosine"),
                Column("relative_error", "relative_error, log", right=False, bar=True),
            )
        ),
    ),
    _truncation_notes,
    HIDDEN,
)
