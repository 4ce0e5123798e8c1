"""How every set of cases that ``bench`` measures is shown."""

from collections.abc import Mapping

from rnnctl.view.layouts.layout import Column, Layout, Table

_CASE, _METHOD = Column("case", "case", right=False), Column("method", "method", right=False)
_MILLISECONDS = Column("milliseconds", "ms")
_RATIO = (Column("ratio", "ratio"), Column("target", "target"))
# What is said of the scalars unless a set of cases says something else.
_NOTES = {
    "threads": "of torch, for every method",
    "repeats": "interleaved; medians are shown",
    "gemm_gigaflops": "measured rate of a large product",
}


def _layout(*figures: Column, labels: tuple[Column, ...] = (), **notes: str) -> Layout:
    said: Mapping[str, str] = {**_NOTES, **notes}
    columns = (_CASE, *labels, _METHOD, _MILLISECONDS, *figures)
    return Layout((Table(columns),), lambda scalars: said)


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
    Column("gemm_share", "GEMM share"),
    Column("gemm_share_target", "at least"),
    repeats="of flow; medians are shown",
    targets_met="every figure is at least its target",
)
BENCH_PROBE = _layout(
    *_RATIO,
    labels=(Column("cell", "cell", right=False),),
    threads="of torch, for both",
    probe_ratio="the largest of a probed step",
    targets_met="the ratios are at most their targets",
)
