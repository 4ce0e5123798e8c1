"""What f_h of the Elman cell is: everything that asks whether it is tanh, relu or linear asks this table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Nonlinearity:
    """A function f_h, elementwise.

    Attributes:
        name: "tanh".
        module: makes it as a module of torch's.
        activate: applies it in place to a tensor of any shape.
        slope_from_state: writes f'(a_t), as a function of h_t = f(a_t) alone, to ``out``; both of any one shape.
        exact_slope: f'(a_t) from h_t and what makes a_t, to all digits of float64, of h_t's shape.
        largest_slope: of f anywhere.
        saturates: whether |h_t| near 1 is an end of its range.
        can_die: whether f'(a_t) is exactly 0 on a half-line.
        homogeneous_share: E[f'(z)^2] of a normal z, where that does not depend on its variance; else None.
        in_torch: whether nn.RNN has it.
    """

    name: str
    module: Callable[[], nn.Module]
    activate: Callable[[Tensor], Tensor]
    slope_from_state: Callable[[Tensor, Tensor], object]
    exact_slope: Callable[[Tensor, Callable[[], Tensor]], Tensor]
    largest_slope: float = 1.0
    saturates: bool = False
    can_die: bool = False
    homogeneous_share: float | None = None
    in_torch: bool = True


def _tanh_slope(h: Tensor, out: Tensor) -> None:
    # As autograd forms it: where |h| is near 1, the rounding of h itself weighs as much.
    torch.addcmul(h.new_ones(()), h, h, value=-1, out=out)


def _exact_tanh_slope(h: Tensor, a: Callable[[], Tensor]) -> Tensor:
    # Not 1 - h^2, which is 0 from |a| = 19 on, where the slope is 1e-16 and its logarithm counts.
    return a().cosh_().pow_(-2)


TANH = Nonlinearity("tanh", nn.Tanh, torch.Tensor.tanh_, _tanh_slope, _exact_tanh_slope, saturates=True)
RELU = Nonlinearity(
    "relu",
    nn.ReLU,
    torch.Tensor.relu_,
    lambda h, out: torch.gt(h, 0, out=out),
    lambda h, _: (h > 0).double(),
    can_die=True,
    homogeneous_share=0.5,
)
# The teaching case: exponents are ln|eigenvalue| of W_hh, gradients products of W_hh.
LINEAR = Nonlinearity(
    "linear",
    nn.Identity,
    lambda a: a,
    lambda h, out: out.fill_(1.0),
    lambda h, _: torch.ones_like(h),
    homogeneous_share=1.0,
    in_torch=False,
)
NONLINEARITIES: Mapping[str, Nonlinearity] = {each.name: each for each in (TANH, RELU, LINEAR)}
# Those that nn.RNN has, to be held against it.
IN_TORCH = tuple(name for name, f in NONLINEARITIES.items() if f.in_torch)
# Beyond this |h_t| a unit that saturates counts as saturated: the slope of tanh is then below 0.02.
SATURATED = 0.99
