"""Trained weights from and to files, in this project's names or nn.RNN's."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from rnnctl.errors import InputError, ShapeError, did_you_mean, nearest
from rnnctl.files.checkpoints import read_checkpoint
from rnnctl.files.fit import Expected, names_apart, require_fit, told_of_extra, without_extra
from rnnctl.files.names import OWN_PARAMETER, TORCH_PARAMETER, first_of, matched
from rnnctl.files.parametrized import composed
from rnnctl.files.writing import write_whole
from rnnctl.recurrence.kinds import KINDS

READOUT = "hidden_to_output."
W_XH, W_HH = "rnn_cell.input_to_hidden.weight", "rnn_cell.hidden_to_hidden.weight"
B_XH, B_HH = "rnn_cell.input_to_hidden.bias", "rnn_cell.hidden_to_hidden.bias"
W_HY, B_Y = "hidden_to_output.weight", "hidden_to_output.bias"
OWN_NAMES = (W_XH, B_XH, W_HH, B_HH, W_HY, B_Y)
TORCH_NAMES = {"weight_ih_l0": W_XH, "weight_hh_l0": W_HH, "bias_ih_l0": B_XH, "bias_hh_l0": B_HH}

# Letters in common with a name that is not there, from which on a name is that one mistyped.
MISTYPED = 0.85


@dataclass(frozen=True)
class Weights:
    """Weights in this project's names.

    Attributes:
        tensors: name -> tensor; without W_hy and b_y where the file has no readout.
        input_size, hidden_size: from the shapes.
        output_size: from the shapes, or None without a readout.
        bias: whether there are biases.
        notes: what was taken for what, to be told to the user.
    """

    tensors: Mapping[str, Tensor]
    input_size: int
    hidden_size: int
    output_size: int | None
    bias: bool
    notes: tuple[str, ...]


def read_weights(path: Path, *, strict: bool = False) -> Weights:
    """Weights of one Elman layer and its readout from a state dict, a training checkpoint or a safetensors file.

    Args:
        path: as for ``read_checkpoint``; a prefix of the names and what wrappers put into them is taken off, and what
            weight_norm and its like keep in parts is composed.
        strict: refuse every name that is left over; else those that are no part of a recurrent layer are left out.
    Raises:
        InputError: unreadable, no state dict in it, or keys missing or left over (all listed, with
            the nearest names).
        ShapeError: matrices that do not make one Elman layer.
        DtypeError: other than floating-point numbers.
    """
    found = read_checkpoint(path)
    made = composed(found.tensors)
    fitting = matched(made.tensors, (*OWN_NAMES, *TORCH_NAMES))
    held = _own_names({fitting.names[name]: tensor for name, tensor in made.tensors.items()}, str(path))
    notes = [*found.notes, *fitting.notes(str(path)), *made.notes(str(path))]
    notes += [f"{path}: {told}" for told in _adopt_readout(held)]
    needed = dict.fromkeys(_needed(held))
    _require_names(held, needed, f"{path} does not hold one Elman layer and its readout.", strict, made.unknown)
    tensors, left_out = without_extra(held, needed, str(path), "the hand-written network")
    inputs, hidden, outputs = _sizes(tensors, str(path))
    own = {name: expected for name, expected in _expected(inputs, hidden, outputs or 0).items() if name in tensors}
    require_fit(tensors, own, f"{path} does not hold one Elman layer and its readout", places=True)
    notes += left_out
    if outputs is None:
        notes.append(f"{path}: no readout (hidden_to_output) is taken from it: W_hy and b_y are drawn from the seed")
    return Weights(tensors, inputs, hidden, outputs, B_HH in tensors, tuple(notes))


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a ``.safetensors`` file, whole or not at all: name -> tensor of any shape; what ``write_whole`` tells."""
    if path.suffix.lower() != ".safetensors":
        raise InputError(f"weights are written as .safetensors; got {str(path)!r}. Name it {path.stem}.safetensors")
    # Copies: two names may stand for one tensor, which the format does not know.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return write_whole(path, safetensors.torch.save(copies))


def _own_names(named: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for key, tensor in named.items():
        own = TORCH_NAMES.get(key, key)
        if own in tensors:
            raise InputError(f"{name} holds {own} twice, under this name and under nn.RNN's. Leave one of them out")
        tensors[own] = tensor
    return tensors


def _adopt_readout(tensors: dict[str, Tensor]) -> list[str]:
    """Take the one linear layer that is left over beside nn.RNN's names as the readout; what to tell of it."""
    layers = _left_over(tensors, {"weight", "bias"} if B_HH in tensors else {"weight"})
    fitting = [layer for layer, weight in layers.items() if _reads(weight, tensors.get(W_HH))]
    if W_HY in tensors or not fitting:
        return []
    # A layer that reads what another one gives: the readout is both, and what stands between them.
    behind = [layer for layer, weight in layers.items() if layer != fitting[0] and _reads(weight, layers[fitting[0]])]
    if len(fitting) > 1 or behind:
        between = first_of(list(dict.fromkeys([*fitting, *behind])))
        return [f"which of {between} is the readout (hidden_to_output) is not known"]
    (readout,) = fitting
    for key in [key for key in tensors if key.rpartition(".")[0] == readout]:
        tensors[READOUT + key.rpartition(".")[2]] = tensors.pop(key)
    return [f"{readout} is taken as the readout (hidden_to_output)"]


def _left_over(tensors: Mapping[str, Tensor], parts: set[str]) -> dict[str, Tensor]:
    """Layer -> weight, of the layers of these parts beside the recurrent one."""
    layers: dict[str, set[str]] = {}
    for key, tensor in tensors.items():
        # Single numbers are counters.
        if key not in OWN_NAMES and tensor.dim() > 0:
            layer, _, part = key.rpartition(".")
            layers.setdefault(layer, set()).add(part)
    # Alone it is the readout even where its bias is missing, which is then refused.
    linear = list(layers) if len(layers) == 1 else [layer for layer in layers if layers[layer] == parts]
    return {layer: tensors[f"{layer}.weight"] for layer in linear if f"{layer}.weight" in tensors}


def _reads(weight: Tensor, other: Tensor | None) -> bool:
    """Whether a matrix takes as many values as another one gives."""
    return other is not None and weight.dim() == 2 and other.dim() > 0 and weight.shape[1] == other.shape[0]


def _require_names(
    tensors: Mapping[str, Tensor], needed: Mapping[str, object], what: str, strict: bool, unknown: Mapping[str, str]
) -> None:
    """Raise InputError unless all is there that belongs together, and what is left over has nothing to do with it."""
    missing, extra = names_apart(tensors, needed)
    torch_name = {own: theirs for theirs, own in TORCH_NAMES.items()}
    absent = [name for own in OWN_NAMES if own not in tensors for name in (own, torch_name.get(own, own))]
    wrong = [key for key in extra if strict or _is_of_a_layer(key) or nearest(key, absent, MISTYPED) is not None]
    if not missing and not wrong:
        return
    lines = [what, *(f"  missing: {key}" + _or(torch_name.get(key)) for key in missing)]
    candidates = (*missing, *(torch_name[key] for key in missing if key in torch_name)) or absent or OWN_NAMES
    told = told_of_extra(missing, extra if missing else wrong)
    lines += [f"  extra: {key} {tuple(tensors[key].shape)}.{did_you_mean(key, candidates)}" for key in told]
    if len(extra) > len(told):
        lines.append(f"  extra: {len(extra) - len(told):,} more")
    lines += [f"  {why}" for why in unknown.values()]
    if any(map(_is_of_a_layer, extra)):
        lines.append(
            "One layer in one direction is read: no second layer (_l1), no _reverse, no projection (weight_hr), "
            "no other recurrent module."
        )
    lines.append(f"Expected are {', '.join(OWN_NAMES)}; or nn.RNN's {', '.join(TORCH_NAMES)} for the first four")
    raise InputError("\n".join(lines))


def _or(name: str | None) -> str:
    return f" (or {name})" if name is not None else ""


def _is_of_a_layer(name: str) -> bool:
    """Whether a tensor of this name is part of a recurrent layer: the network would be another one without it."""
    return any(pattern.fullmatch(name) is not None for pattern in (TORCH_PARAMETER, OWN_PARAMETER))


def _needed(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names that belong together with those that are there."""
    has_bias = any(key in tensors for key in (B_XH, B_HH, B_Y))
    has_readout = any(key in tensors for key in (W_HY, B_Y))
    readout = [W_HY, *([B_Y] if has_bias else [])] if has_readout else []
    return [W_XH, W_HH, *([B_XH, B_HH] if has_bias else []), *readout]


def _sizes(tensors: Mapping[str, Tensor], name: str) -> tuple[int, int, int | None]:
    """Input, hidden and output size by the matrices; the last is None without a readout."""
    shapes = {key: tuple(tensors[key].shape) for key in (W_XH, W_HH, W_HY) if key in tensors}
    for key, shape in shapes.items():
        if len(shape) != 2 or 0 in shape:
            raise ShapeError(f"{name}: {key} must have 2 non-empty axes; got shape {shape}")
    W_xh, W_hh = shapes[W_XH], shapes[W_HH]
    if W_hh[0] != W_hh[1]:
        raise ShapeError(f"{name}: W_hh must be square (hidden, hidden); got {W_hh}.{_guess(W_hh)}")
    if W_xh[0] != W_hh[0]:
        raise ShapeError(f"{name}: W_xh must have {W_hh[0]} rows, as W_hh {W_hh} has; got {W_xh}")
    return W_xh[1], W_hh[0], shapes[W_HY][0] if W_HY in shapes else None


def _expected(inputs: int, hidden: int, outputs: int) -> dict[str, Expected]:
    return {
        W_XH: Expected((hidden, inputs)),
        B_XH: Expected((hidden,)),
        W_HH: Expected((hidden, hidden)),
        B_HH: Expected((hidden,)),
        W_HY: Expected((outputs, hidden)),
        B_Y: Expected((outputs,)),
    }


def _guess(shape: tuple[int, ...]) -> str:
    blocks, rest = divmod(shape[0], shape[1])
    kind = next((kind for kind in KINDS.values() if kind.gates and kind.blocks == blocks and not rest), None)
    if kind is not None:
        return f" Is this {kind.with_article} ({blocks} gates)? Elman weights are read here, such as nn.RNN's"
    return " Is this weight_ih_l0?"
