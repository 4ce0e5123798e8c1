"""The tensors that a model's code makes, by the node of autograd's graph that stands for each."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rnnctl.errors import hands_over
from rnnctl.models.module_calls import tensors_in


class MadeTensors(TorchFunctionMode):
    """Within, what torch's functions return is kept: a node knows the shape of its result, and not its numbers.

    The functions run as they are. What they make on the way, and what a ``torch.autograd.Function`` returns, is not
    seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[tuple[Any, int], tuple[Tensor, int]] = {}

    @hands_over
    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """The function's result."""
        result = func(*args, **(kwargs or {}))
        # A compiler that reads this finds nothing to compile.
        if not torch.compiler.is_compiling() and isinstance(result, (Tensor, tuple, list)):
            for tensor in tensors_in(result):
                self._keep(tensor)
        return result

    def of(self, node: Any, number: int) -> Tensor | None:
        """A result of a node, of any shape, apart from autograd; None where it was not seen, or was overwritten."""
        variable = getattr(node, "variable", None)
        if variable is not None:
            return torch.Tensor.detach(variable)
        tensor, version = self._made.get((node, number), (None, 0))
        return None if tensor is None or tensor._version != version else tensor.detach()

    def _keep(self, tensor: Tensor) -> None:
        # What stands for a tensor within torch.func is gone with it.
        if tensor.requires_grad and not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            self._made[tensor.grad_fn, tensor.output_nr] = tensor, tensor._version
