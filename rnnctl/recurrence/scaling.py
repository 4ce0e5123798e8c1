"""Powers of two, which scale floating-point numbers without rounding them; magnitudes and norms."""

import math

import torch
from torch import Tensor

# Up to so many numbers a norm of float32 values is right to 1e-6, whatever they are.
FEW_NUMBERS = 1 << 11
# By the bytes of a number: norms between these were taken of squares that neither vanished nor overflowed.
SAFE = {4: (1e-15, 1e15), 8: (1e-150, 1e150)}


def power_of_two(tensor: Tensor) -> int | None:
    """The exponent of the largest magnitude of a tensor of any shape; None for all zeros and what is not finite."""
    # The largest magnitude and not the norm: its square could leave the dtype's range.
    largest = largest_magnitude(tensor)
    return math.frexp(largest)[1] if 0 < largest < math.inf else None


def largest_magnitude(tensor: Tensor) -> float:
    """The largest |number| of a tensor of any shape; NaN where there is one."""
    # A norm of order infinity is the same, and takes fifty times as long.
    low, high = (float(end) for end in torch.aminmax(tensor))
    return max(-low, high)


def largest_magnitudes(rows: Tensor) -> Tensor:
    """The largest |number| of every row, shape (rows,) of (rows, numbers); NaN where there is one."""
    return torch.maximum(rows.amax(dim=1), -rows.amin(dim=1))


def is_safe(norms: Tensor, dtype: torch.dtype) -> Tensor:
    """Of norms of any shape, whether no square left the range of the dtype that they were formed in."""
    least, most = SAFE[dtype.itemsize]
    # Not <= and >=, or NaN would pass; a norm of 0 may be an underflow of all squares.
    return (norms > least) & (norms < most)


def row_norms(rows: Tensor) -> Tensor:
    """Norms over the last axis in the rows' own dtype, shape (rows,) of (rows, numbers), for squares in its range."""
    # The norm of the norms of pieces is as right as these, and one pass over memory.
    found: Tensor = torch.linalg.vector_norm(piece_norms(rows) if rows.shape[-1] > FEW_NUMBERS else rows, dim=-1)
    return found


def piece_norms(rows: Tensor) -> Tensor:
    """Norms of pieces of every row, shape (rows, pieces) of (rows, numbers): their norm is that of the row."""
    # torch adds up the squares of a float32 norm one after the other: of 2**18 alike a norm is wrong by 2e-4.
    pieces, rest = divmod(rows.shape[-1], FEW_NUMBERS)
    if rest:
        # A sum of them is taken in pairs, and right to 1e-8.
        return rows.square().sum(dim=-1, keepdim=True).sqrt_()
    found: Tensor = torch.linalg.vector_norm(rows.reshape(*rows.shape[:-1], pieces, -1), dim=-1)
    return found


def frobenius_norm(tensor: Tensor) -> float:
    """sqrt of the sum of all squares of a finite tensor of any shape, where the squares themselves leave the dtype."""
    exponent = power_of_two(tensor) or 0
    near_one = float(torch.linalg.vector_norm(times_power_of_two(tensor, -exponent)))
    return float(times_power_of_two(torch.tensor(near_one, dtype=torch.float64), exponent))


def scale_into(out: Tensor, tensor: Tensor, exponent: int) -> None:
    """Write 2**exponent times the tensor to ``out``, of the same shape, in one pass where that is possible."""
    # Up to 2**100 the factor itself is a normal number of float32.
    if out.dtype == tensor.dtype and abs(exponent) < 100:
        torch.mul(tensor, math.ldexp(1.0, exponent), out=out)
    else:
        out.copy_(times_power_of_two(tensor, exponent))


def times_power_of_two(tensor: Tensor, exponent: int) -> Tensor:
    """2**exponent times a tensor of any shape, a zero staying a zero for any exponent."""
    if exponent == 0 or tensor.numel() == 0:
        return tensor
    # The highest power of two that the dtype holds.
    largest = math.frexp(torch.finfo(tensor.dtype).max)[1] - 1
    if abs(exponent) < largest:
        return tensor * math.ldexp(1.0, exponent)
    # In two factors, since 2**exponent leaves the dtype's range where the product need not;
    # each stays finite, since 0 * inf is not 0.
    half = exponent // 2
    return tensor * math.ldexp(1.0, min(half, largest)) * math.ldexp(1.0, min(exponent - half, largest))
