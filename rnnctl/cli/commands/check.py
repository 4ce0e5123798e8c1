"""``rnnctl check``."""

from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.loss import LossOptions
from rnnctl.cli.options.model import ModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.output.emit import emit, require_output
from rnnctl.view.progress import progress_bar


def check(model: ModelOptions, data: DataOptions, loss: LossOptions, run: RunOptions, out: OutputOptions) -> None:
    """Prove this installation on your sizes: FullRNN against nn.RNN, the sweep against autograd."""
    require_output(out)
    from rnnctl import checks
    from rnnctl.cells import NONLINEARITIES
    from rnnctl.cli.setup.experiment import build

    made = build(model, data, run, out, loss=loss.loss, dtype="float64")
    chosen = (model.nonlinearity,) if model.nonlinearity else tuple(NONLINEARITIES)
    with progress_bar("check", quiet=out.quiet) as progress:
        report = checks.check(
            made.model,
            made.x,
            target=made.target,
            loss=loss.loss,
            h_init=made.h_init,
            nonlinearities=chosen,
            progress=progress,
        )
    emit(report, {**made.config, "nonlinearity": " and ".join(chosen)}, out)
    report.require_all()
