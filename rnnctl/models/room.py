"""Whether what a model's own layers will keep fits into memory, asked of each before it runs.

Of torch's layers, and ours, it is known how many steps they will run and what autograd keeps of each. Of all else in
somebody's model, a loop over a cell or raw arithmetic, nothing is known before it has run, and nothing is guessed.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnctl.memory import require_layers_tape, require_memory
from rnnctl.models.calls import argument
from rnnctl.models.forwards import Onlooker, looked_on
from rnnctl.models.layer_runs import longest
from rnnctl.models.modules import directions, is_layer, known_kind


@contextmanager
def room_asked_for(model: nn.Module) -> Iterator[None]:
    """Within, a layer whose states, or whose tape where autograd looks on, do not fit raises before it runs.

    The last to look on: what is told of a run's beginning is also told of its end.

    Raises:
        TooLargeError: from within the model.
    """
    with ExitStack() as stack:
        for module in model.modules():
            if is_layer(module):
                stack.enter_context(looked_on(module, Onlooker(before=_require_room)))
        yield


def _require_room(module: nn.RNNBase, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    given = argument(args, kwargs, 0, "input")
    data = given.data if isinstance(given, PackedSequence) else given
    # What it cannot take it refuses by itself; of another device's memory the main one tells nothing.
    if not isinstance(data, Tensor) or data.dim() < 2 or data.device.type != "cpu":
        return
    steps, layers = longest(module, given), module.num_layers * directions(module)
    states = data.shape[:-1].numel() * module.hidden_size * data.element_size() * layers
    what = f"{type(module).__name__} over {steps} steps"
    if not torch.is_grad_enabled():
        # What each layer returns, and the pieces of it.
        return require_memory(2 * states, what)
    kind = known_kind(module)
    is_fused = kind.name == "LSTM" and data.dtype == torch.float32
    require_layers_tape(kind.blocks, states, 0 if is_fused else steps * layers, what)
