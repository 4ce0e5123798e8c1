"""What the options of a command ask for, as far as they shape an experiment; refused here where flags alone clash."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.data import BatchOptions, DataOptions, LengthOptions
from rnnctl.cli.options.loss import LossFunctionOptions, LossOptions, LossStepOptions, OutputKeyOptions
from rnnctl.cli.options.model import ModelOptions, YourModelOptions
from rnnctl.cli.options.question import MeasureOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.errors import InputError

# What stands for a size that nobody gives.
DEFAULT_SIZES = {"input_size": 10, "hidden_size": 20, "output_size": 5, "seq_len": 7, "batch_size": 4}
# What shapes a network that we build, and says nothing to one that somebody else has built.
OURS_ALONE = ("hidden_size", "output_size", "nonlinearity", "output_activation", "bias", "init", "gain")


@dataclass(frozen=True)
class Request:
    """The groups that shape an experiment; those that the command does not take have their defaults.

    Attributes:
        batch: the place of a function of the user's that gives the model's inputs, or None.
        ragged: None where the command takes no sequences of different lengths.
        measure: None where no Lyapunov exponents are asked for.
        loss: the name of a loss of ours; the user's own function comes before it.
        loss_fn: the place of a loss of the user's own, or None.
        loss_at: the steps that carry a loss, or None where no gradient is asked for.
        ours: the options, as they were given, that ask for a loss of ours: "--loss mse".
        output_key: which part of what the network returns is its output, or None.
        dtype: of weights and data, for a network that we build.
    """

    own: YourModelOptions
    model: ModelOptions
    data: DataOptions
    run: RunOptions
    batch: str | None
    ragged: LengthOptions | None
    measure: MeasureOptions | None
    loss: str
    loss_fn: str | None
    loss_at: str | None
    ours: tuple[str, ...]
    output_key: str | None
    dtype: str

    @property
    def hand_written(self) -> bool:
        """Whether it is about the hand-written network."""
        return self.own.model is None and self.own.cell == "manual"

    @property
    def name(self) -> str:
        """What messages call the network."""
        if self.hand_written:
            return "the hand-written network"
        return self.own.model or f"--cell {self.own.cell}"

    @property
    def h_init(self) -> str:
        """How the hand-written network starts: zeros or normal."""
        # From zeros a free-running network without biases would never start.
        free = self.measure is not None and self.measure.autonomous
        return self.data.h_init or ("normal" if free else "zeros")

    @property
    def sources(self) -> tuple[str | Path | None, ...]:
        """The files that are read."""
        return self.data.input, self.data.target, self.model.weights, self.ragged.lengths if self.ragged else None

    @property
    def time_first(self) -> bool | Literal["checked"] | None:
        """Whether the user's model takes (time, batch, ...); where they do not say so it is compared with what ran."""
        if self.own.time_first or self.own.batch_first:
            return self.own.time_first
        return "checked" if self.own.model is not None else None

    @property
    def recorded(self) -> dict[str, Any]:
        """The options as JSON can hold them."""
        groups = (self.model, self.data, *([self.ragged] if self.ragged else []), self.run)
        return recorded(groups if self.hand_written else (self.own, *groups, BatchOptions(self.batch)))


def request_of(given: CommandOptions) -> Request:
    """The request in a command's options."""
    loss, function = given.group(LossOptions) or LossOptions(), given.group(LossFunctionOptions)
    at, run = given.group(LossStepOptions), given.group(RunOptions) or RunOptions()
    inputs, key = given.group(BatchOptions) or BatchOptions(), given.group(OutputKeyOptions) or OutputKeyOptions()
    asked = {"--loss": loss.loss, "--loss-at": None if at is None else at.loss_at}
    return Request(
        own=given.group(YourModelOptions) or YourModelOptions(),
        model=given.group(ModelOptions) or ModelOptions(),
        data=given.group(DataOptions) or DataOptions(),
        run=run,
        batch=inputs.batch,
        ragged=given.group(LengthOptions),
        measure=given.group(MeasureOptions),
        loss=loss.loss or "mse",
        loss_fn=None if function is None else function.loss_fn,
        loss_at=given.loss_at if at is None else at.loss_at or given.loss_at or "last",
        ours=tuple(f"{flag} {value}" for flag, value in asked.items() if value is not None),
        output_key=key.output_key,
        dtype=run.dtype or given.dtype,
    )


def recorded(groups: Iterable[Any]) -> dict[str, Any]:
    """Name -> value of every option of the groups, as JSON can hold them."""
    values = {field.name: getattr(group, field.name) for group in groups for field in fields(group)}
    kept = (bool, int, float, list, type(None))
    return {name: value if isinstance(value, kept) else str(value) for name, value in values.items()}


def require_consistent(request: Request) -> None:
    """Raise InputError for options that contradict each other, or that nothing here listens to."""
    if request.hand_written:
        _require_nothing_of_others(request)
    else:
        _require_one_network(request)
    if request.own.model is not None:
        _require_nothing_of_ours(request)
    _require_axes_of_model(request.own)
    _require_nonlinearity(request)
    if request.batch is not None:
        _require_batch_alone(request)
    if request.model.strict and request.model.weights is None:
        raise InputError("--strict is about --weights, which is not given")
    if request.model.weights is not None and (request.model.init != "default" or request.model.gain != 1.0):
        raise InputError("--weights gives W_hh; --init and --gain would replace it. Leave one of them out")
    if request.loss_at is None:
        _require_no_target(request)
    if request.loss_fn is not None and request.ours:
        raise InputError(
            f"--loss-fn {request.loss_fn} is the loss, and {' and '.join(request.ours)} would be ignored. Leave it out"
        )
    _require_input(request.data)
    _require_files(request)


def _require_no_target(request: Request) -> None:
    """Where no loss is asked for: a target may still shape what we build, and cuts sequences if it is their next step.

    Of a model of the user's it is nothing.
    """
    target = request.data.target
    if request.own.model is not None and target not in (None, "next"):
        raise InputError(f"--target {target} is for a loss, and none is asked for here. Leave it out")


def require_defaults(model: ModelOptions, names: Iterable[str], why: str) -> None:
    """Raise InputError for the first of these options that is not as it is by itself."""
    for name in names:
        if getattr(model, name) != getattr(ModelOptions, name):
            flag = "no-bias" if name == "bias" else name.replace("_", "-")
            raise InputError(f"--{flag} {why}")


def _require_one_network(request: Request) -> None:
    own = request.own
    if own.model is not None and own.cell != "manual":
        raise InputError(f"--model and --cell {own.cell} both name a network; give one of them")
    if own.model is None and own.model_arg:
        raise InputError("--model-arg is a keyword for --model, which is not given")
    if request.data.h_init is not None:
        raise InputError("--h-init is for the hand-written network; --model and --cell start as they do by themselves")


def _require_axes_of_model(own: YourModelOptions) -> None:
    """Raise InputError where the axes of a model are given twice, or without it."""
    if own.time_first and own.batch_first:
        raise InputError("--time-first and --batch-first contradict each other; give one of them")
    if own.model is None and (own.time_first or own.batch_first):
        flag = "--time-first" if own.time_first else "--batch-first"
        raise InputError(f"{flag} is about --model, which is not given; what we build takes (batch, time, input)")


def _require_nothing_of_ours(request: Request) -> None:
    """For a model of the user's: no options that shape a network which we build."""
    why = "shapes a network that we build; --model builds its own. Try --model-arg"
    require_defaults(request.model, OURS_ALONE, why)
    if request.own.num_layers is not None or request.own.bidirectional:
        raise InputError("--num-layers and --bidirectional are for --cell; --model builds its own. Try --model-arg")


def _require_nonlinearity(request: Request) -> None:
    """Raise InputError for a nonlinearity that a cell of torch's does not have."""
    cell, nonlinearity = request.own.cell, request.model.nonlinearity
    if cell == "rnn" and nonlinearity == "linear":
        raise InputError("--nonlinearity linear is for the hand-written network; --cell rnn has tanh and relu")
    if cell not in ("manual", "rnn") and nonlinearity not in (None, "tanh"):
        takes = "cell rnn" if nonlinearity == "relu" else "the hand-written network"
        raise InputError(f"--nonlinearity {nonlinearity} is for {takes}; {cell} has tanh and its gates")


def _require_nothing_of_others(request: Request) -> None:
    """For the hand-written network: no options that say something about another one."""
    own = request.own
    if own.num_layers is not None or own.bidirectional:
        raise InputError("the hand-written network has one layer in one direction; add --cell rnn, gru or lstm")
    if own.module is not None or own.model_arg:
        name = "--module" if own.module is not None else "--model-arg"
        raise InputError(f"{name} is about --model or --cell, which are not given")
    if request.loss_fn is not None or request.output_key is not None:
        name = "--loss-fn takes" if request.loss_fn is not None else "--output-key picks"
        raise InputError(f"{name} the output of --model or --cell, which are not given")


def _require_batch_alone(request: Request) -> None:
    """For inputs that a function of the user's gives: a model of theirs, and no other sequences."""
    data, ragged = request.data, request.ragged
    if request.own.model is None:
        raise InputError("--batch gives the inputs of --model, which is not given")
    if data.input is not None:
        raise InputError(
            f"--batch {request.batch} and --input {data.input} both give the inputs. Leave out one of them"
        )
    if ragged is not None and ragged.lengths is not None:
        raise InputError(
            f"--lengths {ragged.lengths} is about --input; --batch {request.batch} gives lengths among the model's "
            "inputs. Leave out --lengths"
        )
    if data.target == "next":
        raise InputError("--target next predicts x_{t+1} of --input; beside --batch try --target FILE or --loss-fn")


def _require_files(request: Request) -> None:
    """Without any file of numbers, nothing that is about text files."""
    data, about = request.data, vars(request.data)
    lengths = request.ragged and request.ragged.lengths
    if data.input is None and data.target in (None, "dummy", "next") and lengths is None:
        for name in ("delimiter", "decimal", "header"):
            if about[name] is not None:
                raise InputError(f"--{name} is about a CSV file of --input, --target or --lengths; none is given")


def _require_input(data: DataOptions) -> None:
    """Without --input, nothing that is about it."""
    if data.columns is not None and not data.columns.replace(",", "").strip():
        raise InputError(f"--columns {data.columns!r} names no column. Leave it out for all of them")
    if data.input is not None:
        return
    about: Mapping[str, Any] = vars(data)
    for name in ("input_format", "input_key", "columns", "standardize", "skip_steps"):
        if about[name]:
            raise InputError(f"--{name.replace('_', '-')} is about --input, which is not given")
    if data.target == "next":
        raise InputError("--target next predicts x_{t+1} of real data: add --input FILE|NAME|-")
