"""``rnnctl bench``."""

from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.loss import LossStepOptions
from rnnctl.cli.options.model import ModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.question import BenchOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.emit import emit, require_output
from rnnctl.errors import InputError
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
    if timing.flow and timing.probe:
        raise InputError("--flow and --probe measure different things; give one of them")
    if timing.probe:
        _require_sizes_alone(model)
    from rnnctl.benchmark import flow_report, probe_report, report
    from rnnctl.cli.setup.workloads import workloads

    with progress_bar("bench", quiet=out.quiet) as progress:
        if timing.flow:
            of_flow, config = workloads(flow_report.FLOW_SIZES, model, data, at, run, out)
            return emit(flow_report.bench_flow(of_flow, repeats=timing.repeats, progress=progress), config, out)
        if timing.probe:
            of_probe, config = workloads(probe_report.PROBE_SIZES, model, data, at, run, out)
            config = {**config, "network": "torch's layers"}
            return emit(probe_report.bench_probe(of_probe, repeats=timing.repeats, progress=progress), config, out)
        chosen, config = workloads(report.REFERENCE_SIZES, model, data, at, run, out)
        result = report.bench(chosen, repeats=timing.repeats, memory=timing.memory, progress=progress)
    emit(result, config, out)


def _require_sizes_alone(model: ModelOptions) -> None:
    """Raise InputError for what says nothing to --probe, which takes torch's layers as they are."""
    for name in ("nonlinearity", "output_activation", "bias", "init", "gain", "weights", "save_weights", "output_size"):
        if getattr(model, name) != getattr(ModelOptions, name):
            flag = "no-bias" if name == "bias" else name.replace("_", "-")
            raise InputError(
                f"--{flag} says nothing to --probe, which measures torch's layers as they are. Leave it out"
            )
