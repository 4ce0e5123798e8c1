"""Powers of two, which scale floating-point numbers without rounding them."""

import math

import torch
from torch import Tensor


def power_of_two(tensor: Tensor) -> int | None:
    """The exponent of the largest magnitude; None for all zeros and for what is not finite."""
    largest = float(torch.linalg.vector_norm(tensor, math.inf))
    return math.frexp(largest)[1] if 0 < largest < math.inf else None


def scale_into(out: Tensor, tensor: Tensor, exponent: int) -> None:
    """Write 2**exponent times the tensor to ``out``, in one pass where the dtypes and the factor allow it."""
    if out.dtype == tensor.dtype and abs(exponent) < 100:
        torch.mul(tensor, math.ldexp(1.0, exponent), out=out)
    else:
        out.copy_(times_power_of_two(tensor, exponent))


def times_power_of_two(tensor: Tensor, exponent: int) -> Tensor:
    """2**exponent times the tensor, a zero staying a zero for any exponent."""
    if exponent == 0 or tensor.numel() == 0:
        return tensor
    largest = math.frexp(torch.finfo(tensor.dtype).max)[1] - 1
    if abs(exponent) < largest:
        return tensor * math.ldexp(1.0, exponent)
    # In two factors, since 2**exponent leaves the dtype's range where the product need not;
    # each stays finite, since 0 * inf is not 0.
    half = exponent // 2
    return tensor * math.ldexp(1.0, min(half, largest)) * math.ldexp(1.0, min(exponent - half, largest))
