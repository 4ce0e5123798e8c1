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

    Without a size, data or weights of yours: at the four sizes that have a target.
    """
    require_output(out)
    from rnnctl.benchmark import report
    from rnnctl.cli.workloads import workloads

    chosen, config = workloads(model, data, at, run, out)
    with progress_bar("bench", quiet=out.quiet) as progress:
        result = report.bench(chosen, repeats=timing.repeats, memory=timing.memory, progress=progress)
    emit(result, config, out)
