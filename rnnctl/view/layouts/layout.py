"""What each kind of result looks like as tables: titles, columns, notes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rnnctl.view.grid_axes import varied_words
from rnnctl.view.layouts.matrix import radius_notes, without_plain_error
from rnnctl.view.numbers import number, times
from rnnctl.view.terminal import Terminal
from rnnctl.view.words import note_of, notes_beside

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A field of the rows under a title; as a log-scale bar, or by a format of its own.

    An optional one is left out of a table none of whose rows has a value for it. What is right (numbers) or whole
    (names, shapes) is not broken into lines, what is code is to be copied; where the window is narrow bars go first,
    then the spare ones.
    """

    field: str
    title: str
    right: bool = True
    bar: bool = False
    text: Callable[[Record], str] | None = None
    optional: bool = False
    whole: bool = False
    spare: bool = False
    code: bool = False


@dataclass(frozen=True)
class Table:
    """Columns, and which of the rows they show (those whose ``kind`` it is, or all; of them those ``where``).

    The first ``keys`` columns name a row: where a table is split for a narrow window, they come again in every part.
    """

    columns: tuple[Column, ...]
    kind: str | None = None
    title: str = ""
    where: Callable[[Record], bool] = field(default=lambda row: True)
    # Left out where it has no line.
    optional: bool = False
    keys: int = 1
    # The table as the rows that it shows ask for, where their fields differ from result to result.
    adapted: Callable[["Table", Sequence[Record]], "Table"] = field(default=lambda table, rows: table)

    def shows(self, row: Record) -> bool:
        """Whether it has a line for this row."""
        return (self.kind is None or row["kind"] == self.kind) and self.where(row)


@dataclass(frozen=True)
class Layout:
    """How one kind of result is shown.

    Attributes:
        tables: of its rows.
        notes: what to say beside its scalars.
        hidden_scalars: those that the notes or rows speak of, as patterns.
        hidden_when: further ones, from the scalars' values.
        more: tables of its further records, by their name in ``more``.
        picture: text drawn before the tables.
        caption: a line below the tables.
        section: a field of the rows; the tables come once for each of its values, under it as a heading.
        closing: tables after all sections; the rows that they show are in none of those.
    """

    tables: tuple[Table, ...]
    notes: Callable[[Record], Mapping[str, str]] = field(default=lambda scalars: {})
    hidden_scalars: tuple[str, ...] = ()
    hidden_when: Callable[[Record], tuple[str, ...]] = field(default=lambda scalars: ())
    more: Mapping[str, tuple[Table, ...]] = field(default_factory=dict)
    picture: Callable[[Any, Terminal], str] | None = None
    caption: Callable[[Record], str] = field(default=lambda scalars: "")
    section: str | None = None
    closing: tuple[Table, ...] = ()


# What is said of a setting that is not the default, in place of one that is: (name, defaults, words).
_Said = tuple[str, tuple[Any, ...], str]
_OF_NETWORK: tuple[_Said, ...] = (
    ("init", ("default",), "init {}"),
    ("gain", (1.0,), "gain {}"),
    ("bias", (True,), "no bias"),
    ("output_activation", ("identity",), "{} outputs"),
    ("weights", (None,), "weights {}"),
)
_OF_SEQUENCES: tuple[_Said, ...] = (
    ("input_key", (None,), "key {}"),
    ("delimiter", (None,), "delimiter {}"),
    ("decimal", (None,), "decimal {}"),
    ("header", (None,), "header {}"),
    ("columns", (None,), "columns {}"),
    ("skip_steps", (0,), "from step {}"),
    ("standardize", (False,), "standardized"),
    ("lengths", (None,), "lengths {}"),
    ("target", (None, "dummy"), "target {}"),
)
_OF_RUN: tuple[_Said, ...] = (
    ("module", (None,), "module {}"),
    ("time_first", (False,), "time first"),
    ("batch_first", (False,), "batch first"),
    ("count", (None,), "count {}"),
    ("steps", (None,), "steps {}"),
    ("warmup", (None,), "warmup {}"),
)


def headline(schema: str, config: Record) -> str:
    """One line that says what was run, from the resolved configuration: every setting that is not the default."""
    if "file" in config:
        return f"{schema}: {config['file']}"
    if "vary" in config:
        return f"sweep of {config['command'].removeprefix('sweep ')} over {varied_words(config['vary'])}"
    if "command" in config:
        return f"{schema} of {config['command']}"
    # What its results are called depends on the network.
    question = schema.partition("-")[0]
    if config["seq_len"] is None:
        sizes = f"reference sizes, {config['nonlinearity']}"
        parts = [sizes, *_said(_OF_NETWORK, config), f"loss at {config['loss_at']}", config["dtype"]]
        return f"{schema}: {', '.join(parts)}"
    runs_freely = config.get("autonomous", False)
    length = "one step" if schema == "cell" else "free-running" if runs_freely else f"T {config['seq_len']}"
    if "network" in config:
        return f"{question} of {', '.join(_parts(config['network'], length, config))}"
    sizes = f"FullRNN({config['input_size']}, {config['hidden_size']}, {config['output_size']})"
    return f"{question}: " + ", ".join(_parts(f"{sizes}, {config['nonlinearity']}", length, config))


def _parts(network: str, length: str, config: Record) -> list[str]:
    runs_freely = config.get("autonomous", False)
    of_cell = [("nonlinearity", (None, "tanh"), "{}")] if "network" in config else []
    start = ("h_init", (None, "normal" if runs_freely else "zeros"), "h_init {}")
    parts = [network, *_said((*of_cell, *_OF_NETWORK, start), config), length, f"batch {config['batch_size']}"]
    parts += [_loss(config)] if "loss_at" in config else _said((("loss", (None, "mse"), "loss {}"),), config)
    if not runs_freely:
        parts += [config.get("batch") or config["input"] or "random input", *_said(_OF_SEQUENCES, config)]
    return [*parts, *_said(_OF_RUN, config), f"seed {config['seed']}", f"{config['dtype']} on {config['device']}"]


def _said(settings: Iterable[_Said], config: Record) -> list[str]:
    """Those that are not the default, in words."""
    given = ((config[name], plain, words) for name, plain, words in settings if name in config)
    return [words.format(_plain(value)) for value, plain, words in given if value not in plain]


def _plain(value: Any) -> str:
    return (
        ", ".join(map(str, value)) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else value
    )


def _loss(config: Record) -> str:
    """Whose loss it is, at which steps, and of which output where that is not plain."""
    loss, at, key = config["loss"], config["loss_at"], config.get("output_key")
    # Of a tuple the first is meant where nothing is said.
    what = f"output {key}" if str(key).isdigit() else key
    of = "" if key in (None, "0", "loss") else f" of {what}"
    if at is not None:
        return f"loss {loss} at {at}{of}"
    # One of the user's own, "package.module:name", or of the model's, which sit where they like.
    return f"loss {loss}{of}" if ":" in loss else f"{loss} loss{of and f' ({what})'}"


_FROM_ZEROS = (
    "h_{t-1} is 0, for step 0 starts from h_init = 0: W_hh h_{t-1} is 0 as well. "
    "--h-init normal starts from another state"
)
_TENSORS = Table(
    (
        Column("symbol", "symbol", right=False),
        Column("name", "name", right=False),
        Column("symbolic_shape", "axes", right=False),
        Column("shape", "shape", right=False, whole=True),
        Column("min", "min"),
        Column("max", "max"),
    ),
    kind="tensor",
)
_PARAMETERS = Table(
    (
        Column("symbol", "parameter", right=False),
        Column("symbolic_shape", "axes", right=False),
        Column("shape", "shape", right=False, whole=True),
        # Their shapes tell.
        Column("elements", "elements", spare=True),
        Column("used", "used", right=False, text=lambda row: f"1 tensor, used {times(row['used'])}"),
        Column("multiply_adds", "multiply-adds"),
    ),
    kind="parameter",
)


STEP = Layout(
    (_TENSORS, _PARAMETERS),
    lambda scalars: notes_beside("cell"),
    ("state_is_zero",),
    caption=lambda scalars: _FROM_ZEROS if scalars["state_is_zero"] else "",
)
SHAPES = Layout(
    (_TENSORS, _PARAMETERS),
    lambda scalars: notes_beside("forward"),
)


def agreement_note(scalars: Record, schema: str) -> str:
    """What a relative error against autograd compares."""
    what = notes_beside(schema)["autograd_relative_error"]
    trajectory = "" if scalars["states"] == "sweep" else ", along the states of the model's own pass"
    error, tolerance = scalars["autograd_relative_error"], scalars["autograd_tolerance"]
    # The error is of what is left of terms that cancel, the tolerance of the terms.
    of = " of the terms, which cancel" if None not in (error, tolerance) and error > tolerance else ""
    return f"{what} against autograd's W_hh.grad{trajectory}; tolerance {number(tolerance)}{of}"


def nonfinite_note(scalars: Record) -> str:
    """What is not finite at the first such step, and why."""
    reason: str | None = scalars.get("nonfinite_reason")
    return note_of("first_nonfinite_step") if reason is None else reason


def _gradnorm_notes(scalars: Record) -> Mapping[str, str]:
    said = notes_beside("gradnorm")
    return {
        **said,
        "autograd_relative_error": agreement_note(scalars, "gradnorm"),
        "factor_per_step": f"{said['factor_per_step']}; fitted over {number(scalars['fitted_steps'])} steps",
        **radius_notes(scalars),
        "verdict": scalars["reason"],
    }


def _gradnorm_caption(scalars: Record) -> str:
    if not scalars["h_init_is_zero"] or scalars["verdict"] == "nonfinite":
        return ""
    return "grad_norm_W_hh at t = 0 is 0, because h_init = 0: that is not vanishing"


GRADNORM = Layout(
    (
        Table(
            (
                Column("t", "t"),
                Column("grad_norm_W_hh", "grad_norm_W_hh"),
                Column("share", "share", text=lambda row: percent(row["share"])),
                Column("grad_norm_h", "grad_norm_h"),
                Column("grad_norm_h_direct", "grad_norm_h_direct", spare=True),
                Column("grad_norm_W_hh", "W_hh, log", right=False, bar=True),
            )
        ),
    ),
    _gradnorm_notes,
    (
        "reason",
        "vanish_below",
        "explode_above",
        "autograd_tolerance",
        "fitted_steps",
        "states",
        "first_nonfinite_step",
        "h_init_is_zero",
        "saturated_fraction",
        "dead_fraction",
        "largest_input",
    ),
    hidden_when=without_plain_error,
    caption=_gradnorm_caption,
)


def percent(share: float | None) -> str:
    """A share as 5.9 %, or "-" where there is none."""
    return "-" if share is None else f"{100 * share:.1f} %"


CHECK = Layout(
    (
        Table(
            (
                Column("claim", "claim", right=False),
                Column("nonlinearity", "f_h", right=False),
                Column("loss_at", "loss at", right=False),
                Column("relative_error", "relative error"),
                Column("tolerance", "tolerance", spare=True),
                Column("holds", "holds", text=lambda row: "yes" if row["holds"] else "NO"),
            ),
            keys=3,
        ),
    ),
    lambda scalars: {"failed": scalars.get("nonfinite_reason", "")},
    ("nonfinite_reason",),
)
