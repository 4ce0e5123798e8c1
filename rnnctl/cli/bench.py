"""``rnnctl bench``."""

from rnnctl.cli.options import (
    BenchOptions,
    DataOptions,
    LossStepOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
)
from rnnctl.cli.output import emit, require_output
from rnnctl.view.progress import progress_bar


def bench(
    model: ModelOptions,
    data: DataOptions,
    at: LossStepOptions,
    timing: BenchOptions,
    run: RunOptions,
    out: OutputOptions,
) -> None:
    """What the inspection costs here, as ratios to one forward and backward of nn.RNN.

    Without a size, data or weights of yours: at the sizes that have a target.
    """
    require_output(out)
    from rnnctl.benchmark import flow_report, report
    from rnnctl.cli.workloads import workloads

    with progress_bar("bench", quiet=out.quiet) as progress:
        if timing.flow:
            of_flow, config = workloads(flow_report.FLOW_SIZES, model, data, at, run, out)
            return emit(flow_report.bench_flow(of_flow, repeats=timing.repeats, progress=progress), config, out)
        chosen, config = workloads(report.REFERENCE_SIZES, model, data, at, run, out)
        result = report.bench(chosen, repeats=timing.repeats, memory=timing.memory, progress=progress)
    emit(result, config, out)
