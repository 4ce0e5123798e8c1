"""How every set of cases that ``bench`` measures is shown."""

from collections.abc import Mapping

from rnnctl.results import Record
from rnnctl.view.layouts.layout import Column, Layout, Table

_CASE, _METHOD = Column("case", "case", right=False), Column("method", "method", right=False)
_MILLISECONDS = Column("milliseconds", "ms")
# What it was in a run before, and how many times worse it is now.
_BESIDE = (Column("before", "before", optional=True), Column("change", "change", optional=True))
_RATIO = (Column("ratio", "ratio"), Column("target", "target"), *_BESIDE)
# What is said of the scalars unless a set of cases says something else.
_NOTES = {
    "threads": "of torch, for every method",
    "load": "processes that ran or waited at the start, the average of a minute",
    "repeats": "interleaved; medians are shown",
    "gemm_gigaflops": "measured rate of a large product",
    "worst_change": "the largest change of rnnctl's own rows; above 1 is worse",
}


def _layout(*figures: Column, labels: tuple[Column, ...] = (), **notes: str) -> Layout:
    said: Mapping[str, str] = {**_NOTES, **notes}
    columns = (_CASE, *labels, _METHOD, _MILLISECONDS, *figures)
    return Layout((Table(columns),), lambda scalars: {**said, **_judged(scalars)}, ("tolerance",))


def _judged(scalars: Record) -> Mapping[str, str]:
    """Beside a run before: what is held against what."""
    if "tolerance" not in scalars:
        return {}
    return {"within_tolerance": f"worst_change is at most {1 + scalars['tolerance']:g} (--tolerance)"}


_CELL = Column("cell", "cell", right=False)
BENCH = _layout(
    *_RATIO,
    Column("peak_mebibytes", "peak MiB"),
    sweep_ratio="the largest of rnnctl's sweep",
    targets_met="the sweep's ratios are at most their targets",
    gemm_gigaflops="measured rate of a large product; the limit rests on it",
)
BENCH_FLOW = _layout(
    Column("speedup", "speedup"),
    Column("speedup_target", "at least"),
    *_BESIDE,
    Column("gemm_share", "GEMM share"),
    Column("gemm_share_target", "at least"),
    Column("gemm_share_before", "before", optional=True),
    Column("gemm_share_change", "change", optional=True),
    labels=(_CELL,),
    targets_met="every figure is at least its target",
)
BENCH_PROBE = _layout(
    *_RATIO,
    labels=(_CELL,),
    threads="of torch, for both",
    probe_ratio="the largest of a probed step",
    targets_met="the ratios are at most their targets",
)
