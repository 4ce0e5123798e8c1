"""How many numbers of a tensor are none."""

import torch
from torch import Tensor

# Elements looked at in one go, so that the masks stay small beside the tensor.
CHUNK = 1 << 22


def nonfinite_count(tensor: Tensor) -> int:
    """How many elements are nan or infinite, for any dtype and shape; 0 for integers."""
    if not (tensor.is_complex() or has_values(tensor)):
        return 0
    return sum(_count(chunk) for chunk in torch.split(tensor.detach().reshape(-1), CHUNK))


def has_values(tensor: Tensor) -> bool:
    """Whether elements of any shape are real floating-point numbers, one each; torch.float4_* packs two into one."""
    return tensor.is_floating_point() and not str(tensor.dtype).startswith("torch.float4")


def _count(chunk: Tensor) -> int:
    # Some 8-bit formats know no isfinite; float32 holds them exactly.
    wide = chunk.float() if chunk.dtype.itemsize == 1 else chunk
    return int((~torch.isfinite(wide)).sum())
