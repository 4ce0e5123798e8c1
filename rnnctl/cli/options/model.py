"""What the network is: the hand-written one, torch's layers, or the user's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from rnnctl.cli.options.flags import option, real, size, whole


@dataclass(frozen=True)
class ModelOptions:
    """The network."""

    panel: ClassVar[str] = "Model"
    input_size: Annotated[int | None, size("--input-size", "Features of x_t.", 10)] = None
    hidden_size: Annotated[int | None, size("--hidden-size", "Hidden units.", 20)] = None
    output_size: Annotated[int | None, size("--output-size", "Features of y_t.", 5)] = None
    nonlinearity: Annotated[
        Literal["tanh", "relu", "linear"] | None,
        option(
            "--nonlinearity",
            help="f_h of the cell; linear for the hand-written network.",
            show_default="tanh; check: tanh and relu",
        ),
    ] = None
    output_activation: Annotated[
        Literal["identity", "softmax", "sigmoid", "tanh"], option("--output-activation", help="f_y of the readout.")
    ] = "identity"
    bias: Annotated[bool, option("--bias/--no-bias", help="Biases in all three linear maps.")] = True
    init: Annotated[
        Literal["default", "orthogonal", "identity", "gaussian"],
        option("--init", help="How W_hh is drawn; gaussian: N(0, gain^2/hidden)."),
    ] = "default"
    gain: Annotated[float, real("--gain", "Factor on W_hh as drawn.")] = 1.0
    weights: Annotated[
        Path | None,
        option("--weights", help="Trained weights: a checkpoint of torch or safetensors."),
    ] = None
    strict: Annotated[bool, option("--strict", help="Refuse names in --weights that the network does not have.")] = (
        False
    )
    save_weights: Annotated[Path | None, option("--save-weights", help="Write the weights to a .safetensors file.")] = (
        None
    )


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
            help="Only this module or parameter.",
            metavar="NAME",
        ),
    ] = None
    time_first: Annotated[
        bool, option("--time-first", help="--model takes (time, batch, ...): it gets it so, its output is turned back.")
    ] = False
    batch_first: Annotated[
        bool, option("--batch-first", help="--model gets (batch, time, ...), whichever axis its steps are on.")
    ] = False
    cell: Annotated[
        Literal["manual", "rnn", "gru", "lstm", "coupled-lstm"],
        option("--cell", help="torch's layers, or rnnctl.CoupledLSTM, sized by flags."),
    ] = "manual"
    num_layers: Annotated[int | None, whole("--num-layers", "Layers of --cell.", 1, show_default="1")] = None
    bidirectional: Annotated[bool, option("--bidirectional/--one-direction", help="Both directions, for --cell.")] = (
        False
    )


@dataclass(frozen=True)
class CheckpointArgument:
    """A file of weights to look into."""

    panel: ClassVar[str] = "Input"
    file: Annotated[
        Path, typer.Argument(help="A state dict or training checkpoint of torch, or safetensors.", metavar="FILE")
    ]
