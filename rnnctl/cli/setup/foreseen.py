"""What flags, files of options, the environment and ``stat`` can tell is wrong, told before torch is loaded."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.loss import VerdictOptions
from rnnctl.cli.options.question import WindowOptions
from rnnctl.cli.setup.request import DEFAULT_SIZES, Request
from rnnctl.dynamics.span import exponent_count, measured_span
from rnnctl.errors import InputError
from rnnctl.files.sources import require_file, require_source, require_target
from rnnctl.files.typed import keyword_arguments, require_findable
from rnnctl.gradients.limits import chosen_windows, require_thresholds


def require_foreseen(given: CommandOptions, request: Request) -> None:
    """Raise InputError for what cannot end well whatever the numbers are; nothing is computed or imported."""
    _require_limits(given, request)
    _require_loss(request)
    if request.measure is not None:
        _require_measurable(request)
    if request.data.h_init is not None and request.ragged is not None and request.ragged.lengths is not None:
        raise InputError("--h-init is not for sequences of different lengths, which start from zeros. Leave it out")
    _require_sources(request)
    _require_users_code(request)


def _require_limits(given: CommandOptions, request: Request) -> None:
    """Thresholds in their order, windows within the sequence."""
    if (verdict := given.group(VerdictOptions)) is not None:
        with as_typed("vanish_below", "explode_above"):
            require_thresholds(verdict.vanish_below, verdict.explode_above)
    window, seq_len = given.group(WindowOptions), _seq_len(request)
    if window is not None and window.chosen is not None and seq_len is not None:
        with as_typed("windows"):
            chosen_windows(window.chosen, seq_len)


def _require_loss(request: Request) -> None:
    """A loss that fits what is built, and a target that fits the loss."""
    activation, target, loss = request.model.output_activation, request.data.target, request.loss
    if request.loss_at is None or request.loss_fn is not None:
        return
    if loss == "cross-entropy" and activation != "identity" and request.own.model is None:
        raise InputError(
            f"--loss cross-entropy takes logits and applies the softmax itself; got --output-activation {activation}. "
            "Try --output-activation identity, or another --loss"
        )
    if loss == "sum" and target not in (None, "dummy"):
        raise InputError(
            f"--loss sum is the plain sum of the outputs and takes no target; got --target {target}. Try --loss mse"
        )
    if loss == "cross-entropy" and target == "next" and request.own.model is None:
        raise InputError("--target next gives numbers; cross-entropy takes integer classes. Try --loss mse")


def _require_measurable(request: Request) -> None:
    """Steps and exponents that there are, as far as flags say how many."""
    measure, seq_len = request.measure, _seq_len(request)
    assert measure is not None
    if not measure.autonomous and seq_len is not None and request.own.model is None:
        with as_typed("warmup"):
            measured_span(seq_len, measure.steps, measure.warmup, autonomous=False, can_run_freely=True)
    if request.hand_written and request.model.weights is None:
        with as_typed("count"):
            exponent_count(measure.count, request.model.hidden_size or DEFAULT_SIZES["hidden_size"], "h_t")


def _seq_len(request: Request) -> int | None:
    """How many steps there are at most; None where only data can tell."""
    if request.data.input is None and request.batch is None:
        return request.data.seq_len or DEFAULT_SIZES["seq_len"]
    return request.data.seq_len


def _require_sources(request: Request) -> None:
    data, lengths = request.data, request.ragged.lengths if request.ragged is not None else None
    if data.input is not None:
        require_source(data.input, data.input_format, "--input")
    if data.target not in (None, "dummy", "next"):
        require_target(str(data.target), "--target")
    for flag, path in (("--lengths", lengths), ("--weights", request.model.weights)):
        if path is not None:
            require_file(path, flag)


def _require_users_code(request: Request) -> None:
    for flag, place in (("--model", request.own.model), ("--batch", request.batch), ("--loss-fn", request.loss_fn)):
        if place is not None:
            require_findable(place, flag)
    keyword_arguments(request.own.model_arg or ())


@contextmanager
def as_typed(*names: str) -> Iterator[None]:
    """Within, the names of the library's arguments become those of the options, in what is said of them."""
    try:
        yield
    except InputError as error:
        raise type(error)(_with_flags(str(error), names)) from None


def _with_flags(message: str, names: Iterable[str]) -> str:
    for name in names:
        message = re.sub(rf"\b{name}\b", f"--{name.replace('_', '-')}", message)
    return message
