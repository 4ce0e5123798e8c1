"""How the gradients of a training run are shown."""

from collections.abc import Mapping
from typing import Any

from rnnctl.view.heatmap import heatmap
from rnnctl.view.layouts.layout import Column, Layout, Record, Table
from rnnctl.view.terminal import Terminal
from rnnctl.view.words import notes_beside


def _picture(result: Any, terminal: Terminal) -> str:
    width = max(result.lengths)
    # Blank beyond the end of a sequence.
    matrix = [[*each.grad_norm_W_hh, *[0.0] * (width - len(each.grad_norm_W_hh))] for each in result.probed]
    return heatmap(matrix, "grad_norm_W_hh: training step", "time step t", terminal, result.steps)


def _notes(scalars: Record) -> Mapping[str, str]:
    several, first, last = scalars["other_weights"] != "none", scalars["first_step"], scalars["last_step"]
    said = notes_beside("gradnorm-history")
    return {
        **said,
        "weight": said["weight"] if several else "",
        "reach_at_first_step": f"{said['reach_at_first_step']} {first}",
        "reach_at_last_step": f"the same at training step {last}",
    }


def _caption(scalars: Record) -> str:
    if not scalars["h_init_is_zero"]:
        return ""
    return "grad_norm_W_hh is 0 where the recurrence starts, because h_init = 0: that is not vanishing"


GRADNORM_HISTORY = Layout(
    (),
    _notes,
    ("h_init_is_zero", "first_step", "last_step", "cell"),
    more={
        "by_step": (
            Table(
                (
                    Column("step", "training step"),
                    Column("time_steps", "T", spare=True),
                    Column("largest_norm", "largest_norm"),
                    Column("at_t", "at t"),
                    Column("reach", "reach"),
                    Column("agrees", "agrees"),
                    Column("largest_norm", "largest, log", right=False, bar=True),
                ),
                title="every probed training step",
            ),
        ),
        "failed": (
            Table(
                (Column("step", "training step"), Column("error", "why it was not probed", right=False)),
                title="training steps that could not be probed",
                optional=True,
            ),
        ),
    },
    picture=_picture,
    caption=_caption,
)
