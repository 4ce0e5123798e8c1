"""What a model returned: the tensors in it by name, which of them is the output, and whether it is the model's loss."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from rnnctl.errors import DtypeError, InputError, did_you_mean, hands_over, plain

OUTPUTS = ("output", "logits", "y", "prediction", "predictions")
# What the whole of a loss is called, where its parts stand beside it.
WHOLE_LOSSES = ("loss", "total_loss")
# What is in the name of a loss; and the words of one that is added to it.
IN_LOSSES = ("loss", "cost", "nll", "objective")
ADDED = {"aux", "auxiliary", "reg", "regularization", "regularizer", "penalty", "balance", "balancing"}
# Further in, and further on, nobody reads what a message lists.
DEEPEST, MOST_TOLD = 4, 8


@dataclass(frozen=True, eq=False)
class Picked:
    """The part of what a model returned that is differentiated.

    Attributes:
        part: a tensor of floating-point numbers; for the user's own loss function whatever stands there.
        key: where it stands: "logits", "1", "1.hidden"; None where it is all that was returned.
        is_own_loss: whether it is the model's own loss, one number.
    """

    part: Any
    key: str | None = None
    is_own_loss: bool = False


def picked(returned: Any, key: str | int | None) -> Picked:
    """The output among what a model returned, or the model's own loss.

    Args:
        returned: whatever ``forward`` gave.
        key: names it; if left out a loss that the model returned comes first, then the output by its name or its place.
    Raises:
        InputError: no such part; several that may be it, or none; DtypeError where it holds no floating-point numbers.
    """
    if key is None:
        loss = _own_loss(returned)
        return _output(returned, returned) if loss is None else loss
    name, part = part_named(returned, key)
    return Picked(part, name, is_own_loss=True) if is_number(part) else _output(part, returned, name)


@hands_over
def part_named(returned: Any, key: str | int) -> tuple[str, Any]:
    """The key as ``tensors_in`` has it, and what stands there; InputError where nothing does."""
    found = _at(returned, str(key))
    if found is not None:
        return found
    if isinstance(returned, (Tensor, PackedSequence)):
        raise InputError(f"--output-key {key}: the model returned one tensor alone, {_told(returned)}. Leave it out")
    hint = did_you_mean(str(key), (path for path, _ in tensors_in(returned)))
    raise InputError(f"--output-key {key}: the model returned no such part; there is {listed(returned)}.{hint}")


def listed(returned: Any, *, but: str | None = None) -> str:
    """What one may name: "loss float32 (), logits float32 (4, 7, 5)"."""
    found = [f"{path} {_told(part)}" for path, part in tensors_in(returned) if path != but]
    more = [f"and {len(found) - MOST_TOLD} more"] if len(found) > MOST_TOLD else []
    return ", ".join([*found[:MOST_TOLD], *more]) or "no tensor"


def besides(returned: Any, key: str | None) -> str:
    """The end of a message about one output: which others --output-key may name; nothing where there are none."""
    alone = all(path == key for path, _ in tensors_in(returned))
    return "" if alone else f", or --output-key; there is {listed(returned, but=key)}"


@hands_over
def tensors_in(returned: Any, path: str = "") -> Iterator[tuple[str, Tensor | PackedSequence]]:
    """Every tensor with the key that names it, from the first to the last."""
    for name, part in _parts(returned).items():
        inner = f"{path}.{name}" if path else name
        if isinstance(part, (Tensor, PackedSequence)):
            yield inner, part
        elif inner.count(".") < DEEPEST:
            yield from tensors_in(part, inner)


def is_number(part: Any) -> bool:
    """Whether it is one floating-point number, as a loss is."""
    return isinstance(part, Tensor) and part.dim() == 0 and part.is_floating_point()


def may_be_steps(returned: Any, batch: int, seq_len: int) -> bool:
    """Whether it is one output (batch, ...) after another, as many as there are steps: then the first is no output."""
    if not isinstance(returned, (tuple, list)) or len(returned) != seq_len or seq_len == 1:
        return False
    tensors = [part for part in returned if isinstance(part, Tensor)]
    shapes = {part.shape for part in tensors}
    alike = len(tensors) == seq_len and len(shapes) == 1 and tensors[0].dim() <= 2
    return alike and tensors[0].shape[:1] in ((), (batch,))


def _own_loss(returned: Any) -> Picked | None:
    """The loss that a model returned, alone or among others: one number that takes a gradient."""
    if is_number(returned):
        return Picked(returned, is_own_loss=True)
    numbers = {path: part for path, part in tensors_in(returned) if _may_be_loss(part)}
    whole = next((path for path in (*WHOLE_LOSSES, *_beginning(returned, numbers)) if path in numbers), None)
    # Else by its place or name, where it is the only number: of several each may be a part of what is trained on.
    likely = [path for path in numbers if path.isdecimal() or any(word in path.lower() for word in IN_LOSSES)]
    if whole is None and likely and (len(numbers) > 1 or ADDED.intersection(re.split("[._]", likely[0].lower()))):
        raise InputError(
            f"the model returned what may be its loss, or parts of it: {', '.join(numbers)}. Name one, or an output, "
            f"with --output-key; there is {listed(returned)}"
        )
    if whole is None and not likely:
        _require_reduced(returned)
        return None
    path = likely[0] if whole is None else whole
    return Picked(numbers[path], path, is_own_loss=True)


def _beginning(returned: Any, numbers: Mapping[str, Any]) -> Sequence[str]:
    """What a tuple begins with, unless two numbers stand there: (loss, outputs), but not (one, other, outputs)."""
    start = list(_parts(returned))[:2] if isinstance(returned, (tuple, list)) else []
    return start[:1] if not numbers.keys() & start[1:] else ()


def _may_be_loss(part: Any) -> bool:
    """Whether it is a number that one can train on; what was detached is for the eye."""
    return is_number(part) and bool(part.requires_grad)


def _require_reduced(returned: Any) -> None:
    """A loss of every sequence or step is not what is trained on, and an output beside it is not either."""
    loss = _parts(returned).get(WHOLE_LOSSES[0])
    if isinstance(loss, Tensor) and loss.dim() > 0 and loss.requires_grad:
        raise InputError(
            f"the model's own loss has shape {tuple(loss.shape)}, and a loss is one number. Try --loss-fn, or name an "
            f"output with --output-key; there is {listed(returned, but=WHOLE_LOSSES[0])}"
        )


def _output(part: Any, returned: Any, key: str | None = None) -> Picked:
    """A tensor itself, padded if packed; of several that with a known name, or the first."""
    if isinstance(part, PackedSequence):
        return Picked(pad_packed_sequence(part, batch_first=True)[0], key)
    if isinstance(part, Tensor):
        if not part.is_floating_point():
            raise DtypeError(
                f"--loss takes an output of floating-point numbers; got {part.dtype}. Try --loss-fn"
                f"{besides(returned, key)}"
            )
        return Picked(part, key)
    parts = {name: inner for name, inner in _parts(part).items() if _holds_tensor(inner)}
    first = next(iter(parts), None) if isinstance(part, (tuple, list)) else None
    name = next((name for name in OUTPUTS if name in parts), first)
    if name is None:
        raise InputError(
            f"the model returned {type(part).__name__}, in which no output is to be found. Try --loss-fn"
            f"{besides(returned, None)}"
        )
    return _output(parts[name], returned, name if key is None else f"{key}.{name}")


def _holds_tensor(part: Any) -> bool:
    return isinstance(part, (Tensor, PackedSequence)) or any(True for _ in tensors_in(part))


@hands_over
def _parts(returned: Any) -> Mapping[str, Any]:
    """What it holds, by name, or by index where nothing has a name; nothing of what holds nothing."""
    if isinstance(returned, (Tensor, PackedSequence, nn.Module, type)):
        return {}
    if isinstance(returned, Mapping):
        return {str(name): part for name, part in returned.items()}
    if isinstance(returned, (tuple, list)):
        names: Iterable[Any] = getattr(returned, "_fields", range(len(returned)))
        return {str(name): part for name, part in zip(names, returned, strict=True)}
    if is_dataclass(returned):
        return {field.name: getattr(returned, field.name) for field in fields(returned)}
    return dict(getattr(returned, "__dict__", {}))


def _at(returned: Any, key: str) -> tuple[str, Any] | None:
    """The key of a part in full, and the part."""
    parts = _parts(returned)
    if key in parts:
        return key, parts[key]
    # Where parts have names, an index counts as well, but for what was left empty; and everywhere from behind.
    names = [name for name, part in parts.items() if part is not None or isinstance(returned, (tuple, list))]
    if key.removeprefix("-").isdecimal() and -len(names) <= int(key) < len(names):
        return names[int(key)], parts[names[int(key)]]
    head, dot, rest = key.partition(".")
    outer = _at(returned, head) if dot else None
    inner = None if outer is None else _at(outer[1], rest)
    return None if outer is None or inner is None else (f"{outer[0]}.{inner[0]}", inner[1])


def _told(part: Tensor | PackedSequence) -> str:
    tensor = part.data if isinstance(part, PackedSequence) else part
    kind = "packed " if isinstance(part, PackedSequence) else ""
    return f"{kind}{plain(tensor.dtype)} {tuple(tensor.shape)}"
