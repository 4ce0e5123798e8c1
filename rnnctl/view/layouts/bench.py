"""How every set of cases that ``bench`` measures is shown."""

from collections.abc import Mapping

from rnnctl.results import Record
from rnnctl.view.layouts.layout import Column, Layout, Table

_CASE, _METHOD = Column("case", "case", right=False), Column("method", "method", right=False)
# Where the window is narrow the ratios stay, which are what is compared.
_MILLISECONDS = Column("milliseconds", "ms", spare=True)
# What is said of the scalars unless a set of cases says something else.
_NOTES = {
    "threads": "of torch, for every method",
    "repeats": "interleaved; medians are shown",
    "gemm_gigaflops": "measured rate of a large product",
    "worst_change": "the largest change of rnnctl's own rows; above 1 is worse",
}


def _figure(
    name: str, title: str, target: str, bound: str, before: str = "before", change: str = "change"
) -> tuple[Column, ...]:
    """The columns of a figure: it, its target, what it was in a run before, and how many times worse it is now."""
    beside = (Column(before, "before", optional=True, spare=True), Column(change, "change", optional=True))
    return (Column(name, title), Column(target, bound), *beside)


_RATIO = _figure("ratio", "ratio", "target", "target")


def _layout(*tables: Table, **notes: str) -> Layout:
    said: Mapping[str, str] = {**_NOTES, **notes}
    return Layout(tables, lambda scalars: {**said, **_judged(scalars)}, ("tolerance",))


def _judged(scalars: Record) -> Mapping[str, str]:
    """Beside a run before: what is held against what."""
    if "tolerance" not in scalars:
        return {}
    return {"within_tolerance": f"worst_change is at most {1 + scalars['tolerance']:g} (--tolerance)"}


BENCH = _layout(
    Table((_CASE, _METHOD, _MILLISECONDS, *_RATIO, Column("peak_mebibytes", "peak MiB", spare=True)), keys=2),
    sweep_ratio="the largest of rnnctl's sweep",
    targets_met="the sweep's ratios are at most their targets",
    gemm_gigaflops="measured rate of a large product; the limit rests on it",
)
_SHARE = _figure("gemm_share", "GEMM share", "gemm_share_target", "at least", "gemm_share_before", "gemm_share_change")
BENCH_FLOW = _layout(
    Table((_CASE, _METHOD, _MILLISECONDS, *_figure("speedup", "speedup", "speedup_target", "at least")), keys=2),
    Table((_CASE, _METHOD, *_SHARE), where=lambda row: row["gemm_share"] is not None, keys=2),
    targets_met="every figure is at least its target",
)
BENCH_PROBE = _layout(
    Table((_CASE, Column("cell", "cell", right=False), _METHOD, _MILLISECONDS, *_RATIO), keys=3),
    threads="of torch, for both",
    probe_ratio="the largest of a probed step",
    targets_met="the ratios are at most their targets",
)
