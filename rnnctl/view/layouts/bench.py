"""How every set of cases that ``bench`` measures is shown."""

from collections.abc import Mapping

from rnnctl.results import Record
from rnnctl.view.layouts.layout import Column, Layout, Table
from rnnctl.view.words import notes_beside

_CASE, _METHOD = Column("case", "case", right=False), Column("method", "method", right=False)
# Where the window is narrow the ratios stay, which are what is compared.
_MILLISECONDS = Column("milliseconds", "ms", spare=True)


def _figure(
    name: str, title: str, target: str, bound: str, before: str = "before", change: str = "change"
) -> tuple[Column, ...]:
    """The columns of a figure: it, its target, what it was in a run before, and how many times worse it is now."""
    beside = (Column(before, "before", optional=True, spare=True), Column(change, "change", optional=True))
    return (Column(name, title), Column(target, bound), *beside)


_RATIO = _figure("ratio", "ratio", "target", "target")


def _layout(schema: str, *tables: Table) -> Layout:
    return Layout(tables, lambda scalars: {**notes_beside(schema), **_judged(scalars)}, ("tolerance",))


def _judged(scalars: Record) -> Mapping[str, str]:
    """Beside a run before: what is held against what."""
    if "tolerance" not in scalars:
        return {}
    return {"within_tolerance": f"worst_change is at most {1 + scalars['tolerance']:g} (--tolerance)"}


BENCH = _layout(
    "bench",
    Table((_CASE, _METHOD, _MILLISECONDS, *_RATIO, Column("peak_mebibytes", "peak MiB", spare=True)), keys=2),
)
_SHARE = _figure("gemm_share", "GEMM share", "gemm_share_target", "at least", "gemm_share_before", "gemm_share_change")
BENCH_FLOW = _layout(
    "bench-flow",
    Table((_CASE, _METHOD, _MILLISECONDS, *_figure("speedup", "speedup", "speedup_target", "at least")), keys=2),
    Table((_CASE, _METHOD, *_SHARE), where=lambda row: row["gemm_share"] is not None, keys=2),
)
BENCH_PROBE = _layout(
    "bench-probe",
    Table((_CASE, Column("cell", "cell", right=False), _METHOD, _MILLISECONDS, *_RATIO), keys=3),
)
BENCH_SWEEP = _layout(
    "bench-sweep",
    Table(
        (
            _CASE,
            Column("figure", "figure", right=False),
            Column("value", "value"),
            Column("at_least", "at least"),
            Column("at_most", "at most"),
        ),
        keys=2,
    ),
)
