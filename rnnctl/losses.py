"""Which loss, and at which steps it is attached."""

import torch
from torch import Tensor
from torch.nn import functional as F

from rnnctl.errors import DeviceError, DtypeError, InputError, ShapeError

LOSSES = ("mse", "cross-entropy", "sum")
LOSS_AT = ("last", "all")


def require_loss(loss: str, loss_at: str) -> None:
    """Raise InputError unless both names are known."""
    if loss not in LOSSES:
        raise InputError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}")
    if loss_at not in LOSS_AT:
        raise InputError(f"loss_at must be one of {', '.join(LOSS_AT)}; got {loss_at!r}")


def loss_steps(seq_len: int, loss_at: str) -> int:
    """How many steps, counted from the end, carry a loss: 1 or all of them."""
    return 1 if loss_at == "last" else seq_len


def require_logits(loss: str, output_activation: torch.nn.Module) -> None:
    """Cross-entropy applies the softmax itself: refuse to apply it to activated outputs."""
    if loss == "cross-entropy" and not isinstance(output_activation, torch.nn.Identity):
        name = type(output_activation).__name__.lower()
        raise InputError(
            "cross-entropy takes logits and applies the softmax itself; the output activation is "
            f"{name}. Use output activation identity with it, or another loss"
        )


def attached_target(target: Tensor | None, y: Tensor, loss: str, seq_len: int) -> Tensor:
    """The target at the steps that carry a loss.

    Args:
        target: (batch, time, output), or integers (batch, time) for cross-entropy; where only
            the last step carries the loss also without the time axis; None means zeros.
        y: outputs at the last n steps, shape (batch, n, output).
        loss: a name of LOSSES.
        seq_len: T.
    Returns:
        Shape (batch, n, output), or (batch, n) of integers for cross-entropy.
    Raises:
        ShapeError, DtypeError, DeviceError, InputError: a target that does not fit.
    """
    batch, steps, output_size = y.shape
    features = () if loss == "cross-entropy" else (output_size,)
    if target is not None and loss == "sum":
        raise InputError("loss sum is the plain sum of the outputs and takes no target; got one. Try mse")
    if target is None:
        dtype = torch.long if loss == "cross-entropy" else y.dtype
        return y.new_zeros(batch, steps, *features, dtype=dtype)
    _require_target_dtype(target, y, loss, output_size)
    if steps == 1 and tuple(target.shape) == (batch, *features):
        return target.unsqueeze(1)
    if tuple(target.shape) != (batch, seq_len, *features):
        raise ShapeError(f"target must have shape {(batch, seq_len, *features)}; got {tuple(target.shape)}")
    return target[:, seq_len - steps :]


def sequence_loss(y: Tensor, target: Tensor, loss: str) -> Tensor:
    """The scalar loss over the steps that carry one.

    Args:
        y: outputs at those steps, shape (batch, n, output).
        target: as ``attached_target`` returns it.
        loss: "mse" and "cross-entropy" are means over batch, steps (and outputs for mse);
            "sum" is the plain sum of all outputs and takes no target.
    """
    if loss == "mse":
        return F.mse_loss(y, target)
    if loss == "cross-entropy":
        return F.cross_entropy(y.flatten(0, 1), target.flatten())
    return y.sum()


def _require_target_dtype(target: Tensor, y: Tensor, loss: str, output_size: int) -> None:
    if target.device != y.device:
        raise DeviceError(f"target must be on the model's device {y.device}; got {target.device}")
    if loss == "mse" and target.dtype != y.dtype:
        raise DtypeError(f"target must have the model's dtype {y.dtype} for mse; got {target.dtype}")
    if loss == "cross-entropy":
        if target.dtype != torch.long:
            raise DtypeError(f"cross-entropy takes integer targets (torch.int64); got {target.dtype}")
        low, high = (int(v) for v in target.aminmax())
        if low < 0 or high >= output_size:
            raise InputError(
                f"cross-entropy targets must be classes 0 .. {output_size - 1} "
                f"(output size {output_size}); got values from {low} to {high}"
            )
