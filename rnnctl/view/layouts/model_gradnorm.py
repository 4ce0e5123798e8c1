"""How gradnorm of somebody's model is shown: a table for every recurrent weight."""

from collections.abc import Mapping

from rnnctl.view.layouts.layout import Column, Layout, Record, Table, percent
from rnnctl.view.layouts.matrix import radius_notes, without_plain_error
from rnnctl.view.numbers import number
from rnnctl.view.words import notes_beside

_STEPS = Table(
    (
        Column("t", "t"),
        Column("grad_norm_W_hh", "grad_norm_W_hh"),
        Column("share", "share", text=lambda row: percent(row["share"])),
        Column("grad_norm_h", "grad_norm_h"),
        Column("grad_norm_h_direct", "grad_norm_h_direct", optional=True, spare=True),
        Column("grad_norm_c", "grad_norm_c", optional=True),
        Column("grad_norm_W_xh", "W_xh part", optional=True, spare=True),
        Column("grad_norm_W_hh", "W_hh, log", right=False, bar=True),
    )
)
_WEIGHTS = Table(
    (
        Column("weight", "weight", right=False),
        Column("cell", "cell", right=False, whole=True),
        Column("grad_W_hh_norm", "||grad||"),
        Column("autograd_relative_error", "autograd", optional=True, spare=True),
        Column("factor_per_step", "per step"),
        Column("first_over_last", "first/last"),
        Column("padded_share", "padding", text=lambda row: percent(row["padded_share"]), optional=True),
        Column("verdict", "verdict", right=False, whole=True),
    ),
    title="every recurrent weight",
)
_GATES = Table(
    (
        Column("weight", "weight", right=False),
        Column("gate", "gate", right=False),
        Column("share", "share", text=lambda row: percent(row["share"])),
        Column("first", "first step"),
        Column("last", "last step"),
        Column("largest", "largest"),
    ),
    title="gate by gate: norms of its rows of the contributions",
    optional=True,
    keys=2,
)


# Said in the verdict's reason, where there is something to say.
_SEEN = ("saturated_fraction", "dead_fraction", "largest_input", "first_nonfinite_*")


def _autograd(scalars: Record) -> str:
    what = notes_beside("gradnorm-modules")["autograd_relative_error"]
    return f"{what}; tolerance {number(scalars['autograd_tolerance'])}"


def _notes(scalars: Record) -> Mapping[str, str]:
    said = notes_beside("gradnorm-modules")
    differ = ": THEY DIFFER, the norms are not to be trusted" if scalars["states_agree"] is False else ""
    return {
        **said,
        "autograd_relative_error": _autograd(scalars),
        "recovered_error": f"{said['recovered_error']}{differ}",
        **radius_notes(scalars),
        "verdict": scalars["reason"],
    }


def _hidden(scalars: Record) -> tuple[str, ...]:
    """What has no value for this model is left out, as a table of one layer has no gates."""
    fixed = ("vanish_below", "explode_above", "autograd_tolerance", "fitted_steps", "states_agree", "reason", *_SEEN)
    optional = ("padded_share", "recovered_error", "spectral_radius", "spectral_norm")
    return (*fixed, *without_plain_error(scalars), *(name for name in optional if scalars[name] is None))


# Of what was probed in a training step of the user's own, of which nothing is judged.
_TRACED = Table(
    (
        Column("weight", "weight", right=False),
        Column("cell", "cell", right=False, whole=True),
        Column("seq_len", "seq_len"),
        Column("grad_W_hh_norm", "||grad||"),
        Column("largest", "largest"),
        Column("state_first", "state, first step"),
        Column("state_last", "state, last step"),
        Column("factor_per_step", "per step", optional=True),
        Column("autograd_relative_error", "autograd", optional=True),
    ),
    title="every recurrent weight",
)
TRACE = Layout(
    (_STEPS,),
    lambda scalars: notes_beside("gradnorm-modules"),
    section="weight",
    more={"summaries": (_TRACED,)},
)
GRADNORM_MODULES = Layout(
    (_STEPS,),
    _notes,
    hidden_when=_hidden,
    section="weight",
    more={"gates": (_GATES,), "weights": (_WEIGHTS,)},
)
