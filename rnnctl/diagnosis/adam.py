"""Adam as torch.optim has it, whose first use takes more than a second: it loads a compiler that nobody asked for."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Steps along the gradients that weights have as their ``.grad``.

    Args:
        weights: by name, of any shapes; they are changed in place.
        rate: the learning rate.
    Source: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.
    """

    def __init__(self, weights: Mapping[str, Tensor], rate: float) -> None:
        self._weights, self._rate, self._steps = weights, rate, 0
        self._means = {name: torch.zeros_like(_real(weight.detach())) for name, weight in weights.items()}
        self._squares = {name: torch.zeros_like(mean) for name, mean in self._means.items()}

    def step(self) -> dict[str, float]:
        """Step; name -> ||change|| / ||weight|| of those that have a gradient and are not 0."""
        self._steps += 1
        moved = {}
        with torch.no_grad():
            for name, weight in self._weights.items():
                if weight.grad is None:
                    continue
                size = float(torch.linalg.vector_norm(weight))
                change = self._change(name, weight.grad)
                _real(weight).sub_(change)
                if size > 0:
                    moved[name] = float(torch.linalg.vector_norm(change)) / size
        return moved

    def _change(self, name: str, grad: Tensor) -> Tensor:
        grad = _real(grad.to_dense() if grad.is_sparse else grad)
        mean, square = self._means[name], self._squares[name]
        mean.lerp_(grad, 1 - BETA_1)
        square.mul_(BETA_2).addcmul_(grad, grad, value=1 - BETA_2)
        scale = square.sqrt().div_(math.sqrt(1 - BETA_2**self._steps)).add_(EPSILON)
        return mean.div(scale).mul_(self._rate / (1 - BETA_1**self._steps))


def _real(tensor: Tensor) -> Tensor:
    """Real and imaginary parts as two numbers, as torch's own steps along them."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
