"""``rnnctl bench``."""

from dataclasses import dataclass

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.loss import LossStepOptions
from rnnctl.cli.options.model import ModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.question import TimingOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.emit import emit, require_output
from rnnctl.cli.setup.request import require_defaults
from rnnctl.errors import InputError
from rnnctl.view.progress import progress_bar

# What says nothing to --probe.
OF_ONE_NETWORK = (
    "nonlinearity",
    "output_activation",
    "bias",
    "init",
    "gain",
    "weights",
    "save_weights",
    "output_size",
)


@dataclass(frozen=True)
class BenchOptions(CommandOptions):
    """What ``rnnctl bench`` takes."""

    model: ModelOptions
    data: DataOptions
    at: LossStepOptions
    timing: TimingOptions
    run: RunOptions
    out: OutputOptions


def bench(given: BenchOptions) -> None:
    """What the inspection costs here, as ratios to one forward and backward of nn.RNN.

    Without a size, data or weights of yours: at the sizes that have a target.
    """
    require_output(given.out)
    _require_one_measurement(given.timing, given.model)
    from rnnctl.benchmark import flow, gradnorm, probe
    from rnnctl.benchmark.report import Setting, measured
    from rnnctl.cli.setup.workloads import workloads

    timing = given.timing
    cases = (flow if timing.flow else probe if timing.probe else gradnorm).CASES
    require_output(given.out, lambda: (cases.answers(),))
    works, made = workloads(cases, given)
    with progress_bar("bench", quiet=given.out.quiet) as progress, made.running():
        result = measured(cases, works, Setting(timing.repeats, timing.memory), progress)
    emit(result, made.config, given.out)


def _require_one_measurement(timing: TimingOptions, model: ModelOptions) -> None:
    if timing.flow and timing.probe:
        raise InputError("--flow and --probe measure different things; give one of them")
    if timing.probe:
        why = "says nothing to --probe, which measures torch's layers as they are. Leave it out"
        require_defaults(model, OF_ONE_NETWORK, why)
