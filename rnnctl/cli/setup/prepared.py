"""An experiment for a command: bad outputs refused before it, its notes told and its weights written after it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnctl.cli.loading import loading
from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.output.emit import Asked, require_apart, require_not_read, require_output, tell_notes
from rnnctl.cli.output.plotting import places, require_places
from rnnctl.cli.setup.foreseen import require_foreseen
from rnnctl.cli.setup.request import Request, request_of, require_consistent
from rnnctl.errors import InputError, hands_over

if TYPE_CHECKING:
    from rnnctl.cli.setup.experiment import Experiment


def prepared(given: CommandOptions, answers: Asked = None) -> "Experiment":
    """The experiment in a command's options; the only step on the way to it that prints and writes.

    Args:
        answers: makes what the results of the command can be asked by --fail-on.
    Raises:
        InputError: a place that cannot be written, or any other mistake in the options, before anything is computed.
        UserCodeError: the user's code raised.
    """
    request, out = request_of(given), given.group(OutputOptions) or OutputOptions()
    require_places(given)
    _require_place_for_weights(request, given, out)
    require_consistent(request)
    require_foreseen(given, request)
    # Not before: these load torch, and a usage error is not to wait for that.
    with loading(quiet=out.quiet):
        require_output(out, answers)
        from rnnctl.cli.setup.experiment import experiment

    made = experiment(given)
    tell_notes(made.notes, out)
    if request.model.save_weights is not None:
        tell_notes((_write_weights(made, request.model.save_weights),), out)
    return made


def _require_place_for_weights(request: Request, given: CommandOptions, out: OutputOptions) -> None:
    """Refuse outputs that are read, that name one file, or a --save-weights that cannot be written."""
    weights = request.model.save_weights
    written_to = {**places(given), "--save-weights": weights}
    for written in written_to.values():
        require_not_read(written, *request.sources, out.config)
    if weights is None:
        return
    from rnnctl.files.writing import require_writable

    require_writable(weights, force=out.force)
    require_apart(written_to)
    if weights.suffix.lower() != ".safetensors":
        raise InputError(f"--save-weights writes .safetensors; got {str(weights)!r}. Change the suffix")


def _write_weights(made: "Experiment", path: Path) -> str:
    from rnnctl.files.users_code import users_code
    from rnnctl.files.weights import write_weights

    with users_code(made.name):
        return write_weights(path, _tensors(made.model))


@hands_over
def _tensors(model: Any) -> dict[str, Any]:
    """The tensors of the model's state, by its own ``state_dict``, which may be the user's code."""
    import torch

    return {name: part for name, part in model.state_dict().items() if isinstance(part, torch.Tensor)}
