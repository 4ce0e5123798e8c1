"""``rnnctl spectrum``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import BatchOptions, DataOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions, PlotOptions, ReportOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.plotting import show
from rnnctl.cli.pages import Page
from rnnctl.cli.setup.prepared import prepared
from rnnctl.cli.setup.request import request_of
from rnnctl.results import Answers, Result
from rnnctl.view.progress import Progress, progress_bar

if TYPE_CHECKING:
    from rnnctl.cli.setup.experiment import Experiment


@dataclass(frozen=True)
class SpectrumOptions(CommandOptions):
    """What ``rnnctl spectrum`` takes."""

    page: ClassVar[Page] = Page(
        "why",
        ("rnnctl spectrum --seq-len 20", "rnnctl spectrum --cell gru --only scalars"),
        ("--hidden-size", "--init", "--gain", "--input", "--weights", "--model", "--module", "--plot"),
    )

    model: ModelOptions
    data: DataOptions
    own: YourModelOptions
    inputs: BatchOptions
    run: RunOptions
    plot: PlotOptions
    report: ReportOptions
    out: OutputOptions

    def values_in_rows(self, seq_len: int) -> int:
        """Of every step what its Jacobians are like."""
        return 6 * seq_len


def answers(given: SpectrumOptions) -> tuple[Answers, ...]:
    """What can be asked of the result."""
    from rnnctl.dynamics.gate_spectra import GatedSpectrum
    from rnnctl.dynamics.spectrum import Spectrum
    from rnnctl.dynamics.step_spectra import StepSpectrum

    kinds = (Spectrum,) if request_of(given).hand_written else (Spectrum, GatedSpectrum, StepSpectrum)
    return tuple(kind.answers() for kind in kinds)


def spectrum(given: SpectrumOptions) -> None:
    """Eigenvalues and singular values of W_hh, and the step Jacobians along the sequence.

    Of --cell or --model: of one layer in one direction; a gated one has a matrix for every gate.
    """
    made = prepared(given, lambda: answers(given))
    with progress_bar("spectrum", quiet=given.out.quiet) as progress:
        result = asked(given, made, progress)
    show(result, made.config, given)


def asked(given: SpectrumOptions, made: "Experiment", progress: Progress = None) -> Result:
    """The answer of the experiment; nothing is printed or written."""
    from rnnctl.dynamics.spectrum import spectrum

    with made.running():
        return spectrum(made.model, made.x, **made.of_model, progress=progress)
