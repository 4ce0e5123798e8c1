"""``rnnctl bench``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rnnctl.cli.options.command import CommandOptions, gathered
from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.loss import LossStepOptions
from rnnctl.cli.options.model import ModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.question import AgainstOptions, TimingOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.emit import emit, require_not_read, require_output, tell_notes, text_of
from rnnctl.cli.pages import Page
from rnnctl.cli.setup.foreseen import require_foreseen
from rnnctl.cli.setup.request import request_of, require_consistent, require_defaults
from rnnctl.errors import InputError
from rnnctl.view.progress import progress_bar

if TYPE_CHECKING:
    from rnnctl.benchmark.report import BenchReport
    from rnnctl.benchmark.sweep import Making
    from rnnctl.files.reports import SavedReport

# Of each grid point of a large sweep.
SEEDS = 10
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

    # With one at the last step alone gradients fall below the smallest normal numbers, which cost more.
    loss_at: ClassVar[str | None] = "all"
    page: ClassVar[Page] = Page(
        "scripts",
        ("rnnctl bench --hidden-size 64 --seq-len 100", "rnnctl bench --probe --save before.json"),
        ("--hidden-size", "--seq-len", "--batch-size", "--repeats", "--flow", "--probe", "--save", "--against"),
    )

    model: ModelOptions
    data: DataOptions
    at: LossStepOptions
    timing: TimingOptions
    beside: AgainstOptions
    run: RunOptions
    out: OutputOptions


def bench(given: BenchOptions) -> None:
    """What the inspection costs here, as ratios to one forward and backward of nn.RNN.

    Without a size, data or weights of yours: at the sizes that have a target.
    """
    require_output(given.out)
    if given.timing.sweep:
        return bench_sweeps(given)
    _require_one_measurement(given)
    require_consistent(request_of(given))
    require_foreseen(given, request_of(given))
    saved = _saved(given)
    from rnnctl.benchmark import flow, gradnorm, probe
    from rnnctl.benchmark.comparison import TOLERANCE, compared, run_before
    from rnnctl.benchmark.report import Setting, measured
    from rnnctl.cli.setup.workloads import workloads

    timing, tolerance = given.timing, given.beside.tolerance
    cases = (flow if timing.flow else probe if timing.probe else gradnorm).CASES
    require_output(given.out, lambda: (cases.answers(compared=saved is not None),))
    works, made = workloads(cases, given)
    before = None if saved is None else run_before(saved, cases, [work.title for work, _ in works], made.config)
    with progress_bar("bench", quiet=given.out.quiet) as progress, made.running():
        result = measured(cases, works, Setting(timing.repeats, timing.memory), progress)
    config = {**made.config, **result.settled}
    if before is not None:
        result = compared(result, before, TOLERANCE if tolerance is None else tolerance)
    _save(result, config, given)
    emit(result, config, given.out, result.comparison.slower if result.comparison else ())
    result.require_compared()


def bench_sweeps(given: BenchOptions) -> None:
    """Measure sweeps: runs of their own, whatever network there is."""
    _require_nothing_else(given)
    _saved(given)
    from rnnctl.benchmark.sweep import CASES, bench_sweep

    require_output(given.out, lambda: (CASES.answers(),))
    with progress_bar("bench", quiet=given.out.quiet) as progress:
        result = bench_sweep(_carried, progress=progress)
    config = {**CASES.config, **result.settled}
    _save(result, config, given)
    emit(result, config, given.out)


def _carried(count: int, path: Path, make: "Making") -> None:
    """Plan so many runs of gradnorm, and have those made that are not in the file."""
    from rnnctl.cli.sweeping.carried_out import Carrying, Kept
    from rnnctl.cli.sweeping.sweep import plan_of

    vary = {"gain": f"0.5:2:{count // SEEDS}", "seed": range(SEEDS)}
    carrying = Carrying(plan_of("gradnorm", {"init": "gaussian"}, vary), Kept(path, "factor_per_step"))
    if carrying.state.to_do:
        carrying.carry_out(make)
    carrying.result()


def _require_nothing_else(given: BenchOptions) -> None:
    """Refuse what says nothing to --sweep."""
    usual, heard = gathered(BenchOptions, {}), {"sweep", "save"}
    for group in ("model", "data", "at", "timing", "beside", "run"):
        for name, value in vars(getattr(given, group)).items():
            if name not in heard and value != getattr(getattr(usual, group), name):
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} says nothing to --sweep, which has runs of its own. Leave it out")


def _require_one_measurement(given: BenchOptions) -> None:
    if given.timing.flow and given.timing.probe:
        raise InputError("--flow and --probe measure different things; give one of them")
    if given.model.nonlinearity == "linear":
        raise InputError("bench measures against nn.RNN, which has tanh and relu; got --nonlinearity linear")
    if given.timing.flow and given.at.loss_at == "last":
        raise InputError("--loss-at last says nothing to --flow, which has a loss at every step. Leave it out")
    if given.timing.probe:
        why = "says nothing to --probe, which measures torch's layers as they are. Leave it out"
        require_defaults(given.model, OF_ONE_NETWORK, why)


def _saved(given: BenchOptions) -> "SavedReport | None":
    """The report to compare with, if any; refused before it whatever could not be written afterwards."""
    from rnnctl.files.reports import read_report
    from rnnctl.files.writing import require_writable
    from rnnctl.view.machine import SCHEMA_VERSION

    save, against, out = given.beside.save, given.beside.against, given.out
    if against is None and given.beside.tolerance is not None:
        raise InputError("--tolerance is about --against, which is not given")
    require_not_read(save, *request_of(given).sources, out.config)
    for written in (save, out.output, given.model.save_weights):
        require_not_read(written, against)
    if save is not None:
        require_writable(save, force=out.force)
        if save in (out.output, given.model.save_weights):
            flag = "-o" if save == out.output else "--save-weights"
            raise InputError(f"{flag} and --save both name {str(save)!r}; give each a file of its own")
    return None if against is None else read_report(against, "rnnctl bench --save", SCHEMA_VERSION)


def _save(result: "BenchReport", config: Mapping[str, Any], given: BenchOptions) -> None:
    """Write the report to --save, whole, whatever of it is shown."""
    path = given.beside.save
    if path is None:
        return
    from rnnctl.files.writing import write_whole

    tell_notes((write_whole(path, text_of(result, config, given.out, "json").encode()),), given.out)
