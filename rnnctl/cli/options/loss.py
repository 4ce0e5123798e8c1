"""What is differentiated, and what is said of the gradient."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from rnnctl.cli.options.flags import option, real


@dataclass(frozen=True)
class LossOptions:
    """The loss."""

    panel: ClassVar[str] = "Loss"
    loss: Annotated[
        Literal["mse", "cross-entropy", "sum"] | None,
        option(
            "--loss",
            help="Mean over batch and outputs; sum: plain sum.",
            show_default="mse, or the model's own",
        ),
    ] = None


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
class OutputKeyOptions:
    """Which output the loss is of."""

    panel: ClassVar[str] = "Loss"
    output_key: Annotated[
        str | None,
        option(
            "--output-key",
            help="Which part of what --model returns is its output; dots lead further in.",
            metavar="NAME|INDEX",
            show_default="by its name, else the first",
        ),
    ] = None


@dataclass(frozen=True)
class LossStepOptions:
    """Where the loss sits."""

    panel: ClassVar[str] = "Loss"
    loss_at: Annotated[
        Literal["last", "all"] | None,
        option("--loss-at", help="Steps that carry a loss.", show_default="last; bench: all"),
    ] = None


@dataclass(frozen=True)
class VerdictOptions:
    """What counts as vanishing and exploding."""

    panel: ClassVar[str] = "Verdict"
    vanish_below: Annotated[float, real("--vanish-below", "Vanishing if first_over_last is below.")] = 1e-3
    explode_above: Annotated[float, real("--explode-above", "Exploding if first_over_last is above.")] = 1e3


@dataclass(frozen=True)
class VerifyOptions:
    """Whether autograd is asked, too."""

    panel: ClassVar[str] = "Verdict"
    verify: Annotated[bool, option("--verify/--no-verify", help="Compare the sum with autograd's W_hh.grad.")] = True
