"""Every option, declared once, in groups that a command takes whole."""

import functools
import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

import typer

from rnnctl.cli.exits import ExitCode
from rnnctl.cli.options.config import json_or_format, load_config
from rnnctl.cli.options.numbers import real_number, whole_number
from rnnctl.cli.streams import tell
from rnnctl.errors import InputError, RnnctlError

# What torch's generators take, and more threads than any machine has a use for.
MAX_SEED = 2**64 - 1
MAX_THREADS = 1024


def option(*names: str, help: str, **settings: Any) -> Any:
    """A typer option that the environment can also set, as RNNCTL_<NAME>."""
    long = next(name for name in names if name.startswith("--"))
    variable = "RNNCTL_" + long.split("/")[0].removeprefix("--").replace("-", "_").upper()
    return typer.Option(*names, help=help, envvar=variable, show_envvar=False, **settings)


def _whole(name: str, what: str, least: int, most: int | None = None, **settings: Any) -> Any:
    return option(name, help=what, parser=whole_number(least, most), metavar="INTEGER", **settings)


def _real(name: str, what: str) -> Any:
    return option(name, help=what, parser=real_number, metavar="FLOAT")


def _size(name: str, what: str, default: int) -> Any:
    return _whole(name, what, 1, show_default=str(default))


@dataclass(frozen=True)
class ModelOptions:
    """The network."""

    panel: ClassVar[str] = "Model"
    input_size: Annotated[int | None, _size("--input-size", "Features of x_t.", 10)] = None
    hidden_size: Annotated[int | None, _size("--hidden-size", "Hidden units.", 20)] = None
    output_size: Annotated[int | None, _size("--output-size", "Features of y_t.", 5)] = None
    nonlinearity: Annotated[
        Literal["tanh", "relu"] | None,
        option("--nonlinearity", help="f_h of the cell.", show_default="tanh; check: both"),
    ] = None
    output_activation: Annotated[
        Literal["identity", "softmax", "sigmoid", "tanh"], option("--output-activation", help="f_y of the readout.")
    ] = "identity"
    bias: Annotated[bool, option("--bias/--no-bias", help="Biases in all three linear maps.")] = True
    init: Annotated[
        Literal["default", "orthogonal", "identity", "gaussian"],
        option("--init", help="How W_hh is drawn; gaussian: N(0, gain^2/hidden)."),
    ] = "default"
    gain: Annotated[float, _real("--gain", "Factor on W_hh as drawn.")] = 1.0
    weights: Annotated[
        Path | None,
        option("--weights", help="Trained weights or checkpoint: .pt or .safetensors, own names or nn.RNN's."),
    ] = None
    save_weights: Annotated[Path | None, option("--save-weights", help="Write the weights to a .safetensors file.")] = (
        None
    )


@dataclass(frozen=True)
class CheckpointArgument:
    """A file of weights to look into."""

    panel: ClassVar[str] = "Input"
    file: Annotated[
        Path, typer.Argument(help="A state dict or training checkpoint: .pt, .pth or .safetensors.", metavar="FILE")
    ]


@dataclass(frozen=True)
class YourModelOptions:
    """Somebody's model in place of the hand-written one, or torch's own layers built by size flags."""

    panel: ClassVar[str] = "Your model"
    model: Annotated[
        str | None,
        option(
            "--model",
            help="Your own: a function or class that returns a torch module. Runs your code; the current folder is "
            "importable.",
            metavar="PACKAGE.MODULE:FACTORY",
        ),
    ] = None
    model_arg: Annotated[
        list[str] | None,
        option("--model-arg", help="Keyword for it, values as in TOML. Repeatable.", metavar="NAME=VALUE"),
    ] = None
    module: Annotated[
        str | None,
        option(
            "--module",
            help="Only this recurrent module or weight; or an nn.Linear that a hand-written cell applies to h.",
            metavar="NAME",
        ),
    ] = None
    cell: Annotated[
        Literal["manual", "rnn", "gru", "lstm"],
        option("--cell", help="torch's layers, sized by flags."),
    ] = "manual"
    num_layers: Annotated[int | None, _whole("--num-layers", "Layers of --cell.", 1, show_default="1")] = None
    bidirectional: Annotated[bool, option("--bidirectional/--one-direction", help="Both directions, for --cell.")] = (
        False
    )

    @property
    def given(self) -> bool:
        """Whether there is anything but the hand-written network."""
        return self.model is not None or self.cell != "manual"


@dataclass(frozen=True)
class LengthOptions:
    """Sequences of different lengths."""

    panel: ClassVar[str] = "Data"
    lengths: Annotated[
        Path | None,
        option(
            "--lengths",
            help="File with the real steps of every sequence; or let --input be padded with nan.",
            metavar="FILE",
        ),
    ] = None


@dataclass(frozen=True)
class HistoryOptions:
    """A training run that was watched."""

    panel: ClassVar[str] = "Data"
    from_run: Annotated[
        Path | None,
        option("--from", help="Show what rnnctl.watch wrote in place of running anything.", metavar="RUN.jsonl"),
    ] = None


@dataclass(frozen=True)
class DataOptions:
    """The sequences."""

    panel: ClassVar[str] = "Data"
    seq_len: Annotated[int | None, _size("--seq-len", "Time steps T.", 7)] = None
    batch_size: Annotated[int | None, _size("--batch-size", "Sequences in the batch.", 4)] = None
    input: Annotated[
        str | None,
        option(
            "--input",
            help="Sequences: .npy, .npz, .pt, .safetensors, .csv; sunspots or macrodata (bundled); - for stdin.",
            metavar="FILE|NAME|-",
            show_default="random numbers",
        ),
    ] = None
    input_format: Annotated[
        Literal["npy", "npz", "pt", "safetensors", "csv"] | None,
        option("--input-format", help="Format of --input where its suffix does not tell."),
    ] = None
    input_key: Annotated[str | None, option("--input-key", help="Which of several named arrays.")] = None
    columns: Annotated[
        str | None, option("--columns", help="Columns of a .csv by header name, with commas between.")
    ] = None
    standardize: Annotated[
        bool, option("--standardize/--no-standardize", help="z-score every feature over batch and time.")
    ] = False
    target: Annotated[
        str, option("--target", help="dummy: zeros; next: predict x_{t+1}; or a file.", metavar="dummy|next|FILE")
    ] = "dummy"
    h_init: Annotated[
        Literal["zeros", "normal"] | None,
        option(
            "--h-init",
            help="The hidden state before step 0.",
            show_default="zeros; lyapunov --autonomous: normal",
        ),
    ] = None


@dataclass(frozen=True)
class LossOptions:
    """The loss."""

    panel: ClassVar[str] = "Loss"
    loss: Annotated[
        Literal["mse", "cross-entropy", "sum"], option("--loss", help="Mean over batch and outputs; sum: plain sum.")
    ] = "mse"


@dataclass(frozen=True)
class LossFunctionOptions:
    """A loss of the user's own."""

    panel: ClassVar[str] = "Loss"
    loss_fn: Annotated[
        str | None,
        option(
            "--loss-fn",
            help="Your own in place of --loss: takes (output, target), output being what --model returned.",
            metavar="PACKAGE.MODULE:FUNCTION",
        ),
    ] = None


@dataclass(frozen=True)
class LossStepOptions:
    """Where the loss sits."""

    panel: ClassVar[str] = "Loss"
    loss_at: Annotated[Literal["last", "all"], option("--loss-at", help="Steps that carry a loss.")] = "last"


@dataclass(frozen=True)
class VerdictOptions:
    """What counts as vanishing and exploding."""

    panel: ClassVar[str] = "Verdict"
    vanish_below: Annotated[float, _real("--vanish-below", "Vanishing if first_over_last is below.")] = 1e-3
    explode_above: Annotated[float, _real("--explode-above", "Exploding if first_over_last is above.")] = 1e3


@dataclass(frozen=True)
class GraphOptions:
    """How a graph is drawn."""

    panel: ClassVar[str] = "Graph"
    drawn_as: Annotated[Literal["text", "mermaid", "dot"], option("--as", help="How the graph is drawn.")] = "text"


@dataclass(frozen=True)
class BenchOptions:
    """How a benchmark is measured."""

    panel: ClassVar[str] = "Benchmark"
    repeats: Annotated[int, _whole("--repeats", "Interleaved rounds; medians are shown.", 1)] = 5
    flow: Annotated[bool, option("--flow", help="Measure flow instead of gradnorm.")] = False
    probe: Annotated[bool, option("--probe", help="Measure probed training steps of torch's layers.")] = False
    memory: Annotated[
        bool, option("--memory/--no-memory", help="Also peak memory, each method in its own process.")
    ] = True


@dataclass(frozen=True)
class VerifyOptions:
    """Whether autograd is asked, too."""

    panel: ClassVar[str] = "Verdict"
    verify: Annotated[bool, option("--verify/--no-verify", help="Compare the sum with autograd's W_hh.grad.")] = True


@dataclass(frozen=True)
class WindowOptions:
    """The windows of truncated BPTT."""

    panel: ClassVar[str] = "Truncation"
    windows: Annotated[
        str | None,
        option("--windows", help="Steps back, with commas between.", metavar="K,K,...", show_default="1, 2, 4, ... T"),
    ] = None

    @property
    def chosen(self) -> list[int] | None:
        """The windows as numbers, or None."""
        if self.windows is None:
            return None
        try:
            return [int(text) for text in self.windows.split(",")]
        except ValueError:
            raise InputError(
                f"--windows must be whole numbers with commas between, such as 5,20,100; got {self.windows!r}"
            ) from None


@dataclass(frozen=True)
class LyapunovOptions:
    """What is measured, and over which steps."""

    panel: ClassVar[str] = "Lyapunov"
    count: Annotated[
        int | None, _whole("--count", "How many of the largest exponents.", 1, show_default="all hidden units")
    ] = None
    steps: Annotated[
        int | None,
        _whole("--steps", "Steps to measure.", 1, show_default="to the end of the sequence; --autonomous: 1000"),
    ] = None
    warmup: Annotated[
        int | None, _whole("--warmup", "Steps before those, not counted.", 0, show_default="a tenth of the steps")
    ] = None
    autonomous: Annotated[
        bool, option("--autonomous/--driven", help="Run freely, on the biases alone, or along the sequence.")
    ] = False


@dataclass(frozen=True)
class RunOptions:
    """How it is computed."""

    panel: ClassVar[str] = "Run"
    seed: Annotated[int, _whole("--seed", "Seed of weights, random input and h_init.", 0, MAX_SEED)] = 0
    dtype: Annotated[
        Literal["float32", "float64", "bfloat16", "float16"] | None,
        option("--dtype", help="Dtype of weights and data.", show_default="float32; check: float64"),
    ] = None
    device: Annotated[Literal["cpu", "cuda", "mps", "auto"], option("--device", help="Where it runs.")] = "cpu"
    threads: Annotated[
        int | None, _whole("--threads", "CPU threads of torch.", 1, MAX_THREADS, show_default="torch's choice")
    ] = None


@dataclass(frozen=True)
class PlotOptions:
    """A picture beside the result."""

    panel: ClassVar[str] = "Output"
    plot: Annotated[
        Path | None, option("--plot", help="Draw the result to a .png, .svg or .pdf file (extra 'plot').")
    ] = None


@dataclass(frozen=True)
class OutputOptions:
    """Where the result goes."""

    panel: ClassVar[str] = "Output"
    format: Annotated[
        Literal["table", "json", "jsonl", "csv"] | None,
        option(
            "--format",
            help="jsonl and csv hold the rows.",
            show_default="by the suffix of -o, else table",
            callback=json_or_format,
        ),
    ] = None
    json: Annotated[bool, option("--json", help="Short for --format json.", callback=json_or_format)] = False
    only: Annotated[
        Literal["rows", "scalars"] | None,
        option("--only", help="Only one part; with csv or jsonl, scalars make one line.", show_default="both"),
    ] = None
    all: Annotated[bool, option("--all", help="All rows of a long table, all steps of a graph.")] = False
    output: Annotated[
        Path | None, option("--output", "-o", help="Write the result to a file.", show_default="stdout")
    ] = None
    force: Annotated[bool, option("--force", help="Replace files that are there already.")] = False
    color: Annotated[
        Literal["auto", "always", "never"], option("--color", help="auto heeds NO_COLOR and FORCE_COLOR.")
    ] = "auto"
    quiet: Annotated[bool, option("--quiet", "-q", help="No notes and no progress on stderr.")] = False
    fail_on: Annotated[
        list[str] | None,
        option(
            "--fail-on",
            help="Exit 3 if it holds: a comparison on a scalar ('cancellation<0.1'); gradnorm also "
            "vanishing, exploding, nonfinite. Repeatable.",
            metavar="CONDITION",
        ),
    ] = None
    config: Annotated[
        Path | None,
        option(
            "--config",
            help="Options from a TOML file; flags and RNNCTL_* variables come first.",
            metavar="FILE.toml",
            is_eager=True,
            callback=load_config,
        ),
    ] = None


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a function of option groups into one that typer can read, and errors into exit codes."""
    groups = {name: group for name, group in get_type_hints(command).items() if name != "return"}
    parameters = [parameter for group in groups.values() for parameter in _parameters(group)]

    @functools.wraps(command)
    def flat(**values: Any) -> None:
        taken = {name: _gathered(group, values) for name, group in groups.items()}
        try:
            command(**taken)
        except RnnctlError as error:
            tell(f"Error: {error}")
            code = ExitCode.BAD_INPUT if isinstance(error, InputError) else ExitCode.FAILED
            raise typer.Exit(code) from None

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def _parameters(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    found = []
    for field in fields(group):
        kind, info = get_args(hints[field.name])
        info = copy(info)
        info.rich_help_panel = group.panel  # type: ignore[attr-defined]
        found.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                # An argument that must be given has no default.
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=Annotated[kind, info],
            )
        )
    return found


def _gathered(group: Any, values: dict[str, Any]) -> Any:
    return group(**{field.name: values.pop(field.name) for field in fields(group)})
