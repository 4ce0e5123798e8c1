"""Which charts each kind of result has, from its records alone."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rnnctl.results import Record, Result
from rnnctl.view.curves import AT_ONE, MOST_PANELS, ROUNDING, STEP_FACTORS, WORDS, time_label
from rnnctl.view.grid_axes import axes_of, is_logarithmic, is_of_numbers
from rnnctl.view.html.chart import Chart, Curve
from rnnctl.view.numbers import number

LEVEL_OF_LAGS = (0.01, "1 %")


def charts(result: Result) -> tuple[Chart, ...]:
    """Those of a result; none of a kind that is text alone."""
    drawn = CHARTS.get(result.schema)
    return () if drawn is None else tuple(drawn(result))


def _curve(rows: Sequence[Record], x: str, y: str, words: str, look: int, **more: Any) -> Curve:
    return Curve(words, [row[x] for row in rows], [row.get(y) for row in rows], look, **more)


def _norms(rows: Sequence[Record], title: str, x_label: str = "time step t") -> Chart:
    """The norms over time, those of them that these rows have."""
    shown = [name for name in WORDS if any(row.get(name) is not None for row in rows)]
    curves = tuple(_curve(rows, "t", name, WORDS[name], list(WORDS).index(name)) for name in shown)
    return Chart(title, x_label, "norm (loss per unit)", curves, y_base=10)


def _gradnorm(result: Result) -> Sequence[Chart]:
    return [_norms(result.rows, "What every time step sends back")]


def _gradnorm_modules(result: Result) -> Sequence[Chart]:
    by_weight: dict[str, list[Record]] = {}
    for row in result.rows:
        by_weight.setdefault(row["weight"], []).append(row)
    more = len(by_weight) - MOST_PANELS
    told = f" (the first {MOST_PANELS} of {len(by_weight)} weights)" if more > 0 else ""
    # The steps of several calls begin again at t = 0: they are counted through.
    counted = {name: [{**row, "t": t} for t, row in enumerate(rows)] for name, rows in by_weight.items()}
    shown = list(counted.items())[:MOST_PANELS]
    return [_norms(rows, f"What every time step sends back: {name}{told}", time_label(name)) for name, rows in shown]


def _history(result: Result) -> Sequence[Chart]:
    rows = result.more["by_step"]
    largest = _curve(rows, "step", "largest_norm", "largest ||G_t|| of the training step", 0)
    reach = _curve(rows, "step", "reach", "reach: the far end of the recurrence over the near one", 1)
    return [
        Chart("The largest contribution in the course of training", "training step", "norm", (largest,), y_base=10),
        Chart("How far back the gradient reaches", "training step", "far end over near end", (reach,), y_base=10),
    ]


def _flow(result: Result) -> Sequence[Chart]:
    rows = result.more["lag_profile"]
    band = _curve(rows, "lag", "p90", "10 to 90 % over k", 0, low=[row["p10"] for row in rows])
    median = _curve(rows, "lag", "median", "median over k", 0)
    title, y_label = "How a loss fades with the lag", "||dL_k/dstate|| over that at lag 0"
    return [Chart(title, "lag (steps back)", y_label, (band, median), y_base=10, level=LEVEL_OF_LAGS)]


def _truncation(result: Result) -> Sequence[Chart]:
    rows = [{**row, "turned": None if row["cosine"] is None else 1 - row["cosine"]} for row in result.rows]
    curves = tuple(
        Curve(words, [row["window"] for row in rows], [_above_rounding(row[name]) for row in rows], look)
        for look, (name, words) in enumerate({"relative_error": "relative error", "turned": "1 - cosine"}.items())
    )
    title, nothing = "What a window of K steps loses", "no window differs by more than rounding"
    x_label, y_label = "window K (steps back)", "against the full gradient of W_hh"
    return [Chart(title, x_label, y_label, curves, x_base=2, y_base=10, nothing=nothing)]


def _above_rounding(value: float | None) -> float | None:
    return None if value is None or value <= ROUNDING else value


def _plane(curves: Sequence[Curve], of: str) -> Chart:
    title = f"Eigenvalues of {of}, and the unit circle"
    return Chart(title, "real part", "imaginary part", tuple(curves), whole=False, circle=True)


def _eigenvalues(rows: Sequence[Record], words: str, look: int = 0) -> Curve:
    known = [row for row in rows if row.get("real") is not None]
    return _curve(known, "real", "imag", words, look, joined=False)


def _singular_values(curves: Sequence[Curve], of: str) -> Chart:
    title, x_label = f"Singular values of {of}", "number of the singular value (0 is the largest)"
    return Chart(title, x_label, "singular value", tuple(curves), level=(1.0, AT_ONE))


def _falling(rows: Sequence[Record], words: str, look: int = 0) -> Curve:
    values = sorted((row["singular_value"] for row in rows if row["singular_value"] is not None), reverse=True)
    return Curve(words, list(range(len(values))), values, look)


def _spectrum(result: Result) -> Sequence[Chart]:
    plane = _plane([_eigenvalues(result.rows, "eigenvalues of W_hh")], "W_hh")
    return [plane, _singular_values([_falling(result.rows, "singular values of W_hh", 1)], "W_hh")]


def _spectrum_gates(result: Result) -> Sequence[Chart]:
    gates = list(dict.fromkeys(row["gate"] for row in result.rows))
    own = {gate: [row for row in result.rows if row["gate"] == gate] for gate in gates}
    of, told = "every gate's rows of W_hh", [(f"gate {gate}", rows, i) for i, (gate, rows) in enumerate(own.items())]
    on_plane = any(row["modulus"] is not None for row in result.rows)
    planes = [_plane([_eigenvalues(rows, words, i) for words, rows, i in told], of)] if on_plane else []
    values = _singular_values([_falling(rows, words, i) for words, rows, i in told], of)
    return [*planes, values, *_step_factors(result.more["steps"], result.scalars["keep_gate"])]


def _spectrum_steps(result: Result) -> Sequence[Chart]:
    eigenvalues = result.more["eigenvalues"]
    planes = [_plane([_eigenvalues(eigenvalues, "eigenvalues of W_hh")], "W_hh")] if eigenvalues else []
    return [*planes, *_step_factors(result.rows, result.scalars["keep_gate"])]


def _step_factors(rows: Sequence[Record], keep_gate: str | None) -> Sequence[Chart]:
    words = {**STEP_FACTORS, "keep_mean": f"mean of {keep_gate}_t"}
    shown = [name for name in words if any(row.get(name) is not None for row in rows)]
    curves = tuple(_curve(rows, "t", name, words[name], i) for i, name in enumerate(shown))
    title, nothing = "What a step multiplies a gradient by", "no step is finite"
    return [Chart(title, "time step t", "factor per step", curves, level=(1.0, AT_ONE), nothing=nothing)]


def _spectrum_of_one(result: Result) -> Sequence[Chart]:
    steps = result.more.get("steps", ())
    return [*_spectrum(result), *(_step_factors(steps, None) if steps else ())]


def _lyapunov(result: Result) -> Sequence[Chart]:
    errors = [row["stderr"] for row in result.rows]
    measured = _curve(result.rows, "i", "exponent", "measured, with standard errors", 0, joined=False, error=errors)
    theory, curves = result.scalars["theory_largest"], [measured]
    if theory is not None:
        last = len(result.rows) - 1
        curves.append(Curve("largest, by mean-field theory", [0, max(1, last)], [theory, theory], 1))
    first = _curve(result.more["convergence"], "steps", "largest", "the largest exponent from the first steps alone", 0)
    zero, unit = (0.0, "0: neither part nor meet"), "nats per step"
    nothing = "no exponent is finite"
    return [
        Chart("Lyapunov exponents", "exponent i (largest first)", unit, tuple(curves), level=zero, nothing=nothing),
        Chart("How the largest settles", "steps", unit, (first,), level=zero, nothing=nothing),
    ]


def _sweep(result: Result) -> Sequence[Chart]:
    """Lines over the first number that was varied, one for each combination of the others."""
    rows, axes = result.rows, axes_of(result.rows)
    across = next((name for name, values in axes.items() if len(values) > 1 and is_of_numbers(values)), None)
    if across is None:
        return []
    others = [name for name in axes if name != across]
    own: dict[str, list[Record]] = {}
    for row in sorted(rows, key=lambda row: row[across]):
        own.setdefault(", ".join(f"{name} {number(row[name])}" for name in others), []).append(row)
    shown, more = list(own.items())[:MOST_PANELS], len(own) - MOST_PANELS
    told = f" (the first {MOST_PANELS} of {len(own)} lines)" if more > 0 else ""
    curves = [curve for look, (words, each) in enumerate(shown) for curve in _of_seeds(each, across, words, look)]
    value, critical = result.scalars["value"], result.scalars["critical"]
    level = None if critical is None else (critical, f"critical value {number(critical)}")
    x_base = 10 if is_logarithmic(axes[across]) else 0
    return [
        Chart(f"{value} over {across}{told}", across, value, tuple(curves), x_base=x_base, whole=False, level=level)
    ]


def _of_seeds(rows: Sequence[Record], across: str, words: str, look: int) -> Iterator[Curve]:
    """The median with its band, and theory where it says something."""
    where = f", {words}" if words else ""
    # Of one seed there is none.
    if any(row["p10"] != row["p90"] for row in rows):
        yield _curve(rows, across, "p90", f"10 to 90 % of the seeds{where}", look, low=[row["p10"] for row in rows])
    yield _curve(rows, across, "median", f"median{where}", look)
    if any(row["theory"] is not None for row in rows):
        yield _curve(rows, across, "theory", f"mean-field theory{where}", look + 1)


def _doctor(result: Result) -> Iterator[Chart]:
    """What the remedies gained, those that were measured."""
    tried, looked_at = (result.more.get(name, ()) for name in ("remedies", "looked_at"))
    threshold = next((row["threshold"] for row in looked_at if row["finding"] == "vanishing"), None)
    level = None if threshold is None else (threshold, f"below {number(threshold)} it vanishes")
    title = "How much of the state's gradient is left over the lag"
    if any(row["reach_after"] is not None for row in tried):
        yield _remedies(tried, title, "what is left, of 1", "reach", x_base=10, level=level)
    judged = [{**row, **_judged_by(row)} for row in tried]
    if any(row["loss_after"] is not None for row in judged):
        of = sorted({row["measured_on"] for row in judged if row.get("measured_on") is not None})
        where = f", of {' or '.join(of)}" if of else ""
        yield _remedies(judged, f"The loss after the short training{where}", "loss", "loss")


def _judged_by(row: Record) -> Record:
    """Its losses on sequences that were not trained on, where there are some: by these it is told what helps."""
    if row.get("unseen_after") is None:
        return {}
    return {"loss_before": row["unseen_before"], "loss_after": row["unseen_after"]}


def _remedies(tried: Sequence[Record], title: str, x_label: str, what: str, **more: Any) -> Chart:
    """Before and after, a row for each; of the loss the interval of what it changed by."""
    rows = [row for row in tried if row[f"{what}_after"] is not None]
    before, after = ([row[f"{what}_{when}"] for row in rows] for when in ("before", "after"))
    spans = [_span(row) for row in rows] if what == "loss" else None
    interval = ", with the interval of the change over the seeds" if spans and any(spans) else ""
    curves = (
        Curve("as it is", *_known(before), look=2, joined=False),
        Curve(f"with the remedy{interval}", *_known(after), joined=False, span=spans),
    )
    return Chart(title, x_label, "", curves, whole=False, names=tuple(row["remedy"] for row in rows), **more)


def _known(values: Sequence[float | None]) -> tuple[list[float], list[float | None]]:
    """Values along x, and the rows that they stand in."""
    rows = [i for i, value in enumerate(values) if value is not None]
    return [value for value in values if value is not None], list(rows)


def _span(row: Record) -> tuple[float, float] | None:
    before, low, high = row["loss_before"], row["loss_low"], row["loss_high"]
    return None if None in (before, low, high) else (before + low, before + high)


CHARTS: Mapping[str, Callable[[Any], Iterable[Chart]]] = {
    "gradnorm": _gradnorm,
    "gradnorm-modules": _gradnorm_modules,
    "trace": _gradnorm_modules,
    "gradnorm-history": _history,
    "flow": _flow,
    "truncation": _truncation,
    "spectrum": _spectrum_of_one,
    "spectrum-gates": _spectrum_gates,
    "spectrum-steps": _spectrum_steps,
    "lyapunov": _lyapunov,
    "sweep": _sweep,
    "doctor": _doctor,
}
