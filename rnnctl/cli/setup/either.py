"""The hand-written network or somebody's model, in one shape for the commands that take both."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.run import RunOptions


@dataclass(frozen=True)
class Subject:
    """A model, its batch, and how a library function is to look at them.

    ``how``: keywords for the function; ``running``: the context in which the model runs.
    """

    model: Any
    x: Any
    target: Any
    how: Mapping[str, Any]
    running: Callable[[], AbstractContextManager[None]]
    config: Mapping[str, Any]


def with_loss_at_every_step(
    own: YourModelOptions, model: ModelOptions, data: DataOptions, run: RunOptions, out: OutputOptions, loss: str
) -> Subject:
    """What flow and truncation look into."""
    from rnnctl.cli.setup.experiment import build, require_hand_written
    from rnnctl.cli.setup.yours import build_yours

    if own.given:
        yours = build_yours(own, model, data, run, out, loss=loss, loss_at="all")
        how = {"target": yours.target, "loss": loss, "only": yours.only, "linear": yours.linear}
        return Subject(yours.model, yours.x, yours.target, how, yours.running, yours.config)
    require_hand_written(own)
    made = build(model, data, run, out, loss=loss, loss_at="all")
    how = {"target": made.target, "loss": loss, "h_init": made.h_init}
    return Subject(made.model, made.x, made.target, how, nullcontext, made.config)


def along_a_trajectory(
    own: YourModelOptions, model: ModelOptions, data: DataOptions, run: RunOptions, out: OutputOptions, **also: Any
) -> Subject:
    """What spectrum and lyapunov look into: the network and its input, or one driven layer that holds both."""
    from rnnctl.cli.setup.experiment import build, require_hand_written
    from rnnctl.cli.setup.yours import build_yours
    from rnnctl.models.driven import driven_by
    from rnnctl.models.objective import called

    if own.given:
        yours = build_yours(own, model, data, run, out, **also)
        yours.require_cells("spectrum and lyapunov know")
        with yours.running():
            layer = driven_by(yours.model, lambda: called(yours.model, yours.x, None), yours.only)
        return Subject(layer, None, None, {}, nullcontext, yours.config)
    require_hand_written(own)
    made = build(model, data, run, out, **also)
    return Subject(made.model, made.x, made.target, {"h_init": made.h_init}, nullcontext, made.config)
