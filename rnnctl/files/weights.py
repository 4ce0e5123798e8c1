"""Trained weights from and to files, in this project's names or nn.RNN's."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from rnnctl.errors import InputError, ShapeError, did_you_mean
from rnnctl.files.checkpoints import read_checkpoint, without_common_prefix, without_prefix_note
from rnnctl.files.fit import Expected, names_apart, require_fit
from rnnctl.files.writing import write_whole
from rnnctl.recurrence.kinds import KINDS

READOUT = "hidden_to_output."
W_XH, W_HH = "rnn_cell.input_to_hidden.weight", "rnn_cell.hidden_to_hidden.weight"
B_XH, B_HH = "rnn_cell.input_to_hidden.bias", "rnn_cell.hidden_to_hidden.bias"
W_HY, B_Y = "hidden_to_output.weight", "hidden_to_output.bias"
OWN_NAMES = (W_XH, B_XH, W_HH, B_HH, W_HY, B_Y)
TORCH_NAMES = {"weight_ih_l0": W_XH, "weight_hh_l0": W_HH, "bias_ih_l0": B_XH, "bias_hh_l0": B_HH}


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


def read_weights(path: Path) -> Weights:
    """Weights from a ``.pt`` state dict or training checkpoint (weights_only), or a ``.safetensors`` file.

    Raises:
        InputError: unreadable, no state dict in it, or keys missing or left over (all listed, with
            the nearest names).
        ShapeError: matrices that do not make one Elman layer.
        DtypeError: other than floating-point numbers.
    """
    found = read_checkpoint(path)
    prefix, named = without_common_prefix(found.tensors, (*OWN_NAMES, *TORCH_NAMES))
    tensors = _own_names(named, str(path))
    notes = [*found.notes, *without_prefix_note(path, prefix)]
    if (layer := _adopt_readout(tensors)) is not None:
        notes.append(f"{path}: {layer} is taken as the readout (hidden_to_output)")
    _require_names(tensors, str(path))
    inputs, hidden, outputs = _sizes(tensors, str(path))
    own = {name: expected for name, expected in _expected(inputs, hidden, outputs or 0).items() if name in tensors}
    require_fit(tensors, own, f"{path} does not hold one Elman layer and its readout", places=True)
    if outputs is None:
        notes.append(f"{path} has no readout (hidden_to_output): W_hy and b_y are drawn from the seed")
    return Weights(tensors, inputs, hidden, outputs, B_HH in tensors, tuple(notes))


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a ``.safetensors`` file, whole or not at all: name -> tensor of any shape."""
    if path.suffix.lower() != ".safetensors":
        raise InputError(f"weights are written as .safetensors; got {str(path)!r}. Name it {path.stem}.safetensors")
    # Copies: two names may stand for one tensor, which the format does not know.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_whole(path, safetensors.torch.save(copies))


def _own_names(named: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for key, tensor in named.items():
        own = TORCH_NAMES.get(key, key)
        if own in tensors:
            raise InputError(f"{name} holds {own} twice, under this name and under nn.RNN's. Leave one of them out")
        tensors[own] = tensor
    return tensors


def _adopt_readout(tensors: dict[str, Tensor]) -> str | None:
    """Take one linear layer that is left over beside nn.RNN's names as the readout; its name."""
    left = [key for key in tensors if key not in OWN_NAMES]
    layers = {key.rpartition(".")[0] for key in left}
    if W_HY in tensors or len(layers) != 1 or W_HH not in tensors:
        return None
    (layer,) = layers
    weight = tensors.get(f"{layer}.weight")
    if weight is None or weight.dim() != 2 or weight.shape[1] != tensors[W_HH].shape[-1]:
        return None
    for key in left:
        tensors[READOUT + key.rpartition(".")[2]] = tensors.pop(key)
    return layer


def _require_names(tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise InputError unless there is a layer, with its readout or without, with all biases or none."""
    missing, extra = names_apart(tensors, dict.fromkeys(_needed(tensors)))
    if not missing and not extra:
        return
    torch_name = {own: theirs for theirs, own in TORCH_NAMES.items()}
    lines = [f"{name} does not hold one Elman layer and its readout."]
    lines += [f"  missing: {key}" + (f" (or {torch_name[key]})" if key in torch_name else "") for key in missing]
    candidates = (*missing, *(torch_name[key] for key in missing if key in torch_name)) or OWN_NAMES
    lines += [f"  extra: {key} {tuple(tensors[key].shape)}.{did_you_mean(key, candidates)}" for key in extra]
    if any(key.startswith(("weight_hh_l", "weight_hr_l")) for key in extra):
        lines.append(
            "One layer in one direction is read: no second layer (_l1), no _reverse, no projection (weight_hr)."
        )
    lines.append(f"Expected are {', '.join(OWN_NAMES)}; or nn.RNN's {', '.join(TORCH_NAMES)} for the first four")
    raise InputError("\n".join(lines))


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
