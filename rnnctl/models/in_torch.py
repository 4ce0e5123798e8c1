"""Whether torch itself has the recurrence of a hand-written network, so that it can be run in place of the loop."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules

from rnnctl.cells import OUTPUT_ACTIVATIONS, FullRNN, ManualRNNCell

# As torch.rnn_tanh: x, h_init, weights and settings to h_0 .. h_{T-1}, (time, batch, hidden), and the last state.
Recurrence = Callable[..., tuple[Tensor, Tensor]]
# What nn.RNN calls for all steps, by the module of the f_h that it has.
RECURRENCES: Mapping[type[nn.Module], Recurrence] = {nn.Tanh: torch.rnn_tanh, nn.ReLU: torch.rnn_relu}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def torchs_recurrence(model: FullRNN) -> Recurrence | None:
    """What nn.RNN calls, where a call of the model does that, reads each step out and nothing else; None elsewhere."""
    cell, f_h, f_y = model.rnn_cell, model.rnn_cell.activation, model.output_activation
    linear = (cell.input_to_hidden, cell.hidden_to_hidden, model.hidden_to_output)
    classes: dict[nn.Module, type[nn.Module]] = {model: FullRNN, cell: ManualRNNCell, f_h: type(f_h), f_y: type(f_y)}
    classes |= dict.fromkeys(linear, nn.Linear)
    as_written = all(_does_as_its_class(part, kind) for part, kind in classes.items())
    # nn.RNN has both biases of a step or none.
    like_torchs = _is_plain(model) and (linear[0].bias is None) == (linear[1].bias is None)
    return RECURRENCES.get(type(f_h)) if as_written and like_torchs and _is_ours(f_y) else None


def reads_out_linearly(model: FullRNN) -> bool:
    """Whether y_t = f_y(W_hy h_t + b_y) by the model's own linear map, f_y treating every step by itself."""
    as_written = _does_as_its_class(model, FullRNN) and _does_as_its_class(model.hidden_to_output, nn.Linear)
    return as_written and _is_plain(model) and _is_ours(model.output_activation)


def _does_as_its_class(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether it is of that very class, nobody hooked it, and it has no method of its own beside those of the class."""
    hooked = any(getattr(module, name) or getattr(modules, f"_global{name}") for name in HOOKS)
    return type(module) is kind and not hooked and vars(module).keys().isdisjoint(vars(kind))


def _is_ours(f_y: nn.Module) -> bool:
    """Whether f_y is one that treats every step by itself, as ours do."""
    ours = [make() for make in OUTPUT_ACTIVATIONS.values()]
    return any(type(f_y) is type(each) and f_y.extra_repr() == each.extra_repr() for each in ours)


def _is_plain(model: FullRNN) -> bool:
    """Whether its numbers are what they seem: plain tensors on the CPU, not cast, and W_hh under one name alone."""
    W_hh = model.rnn_cell.hidden_to_hidden.weight
    named = [part for _, part in model.named_parameters(remove_duplicate=False)]
    plain = all(type(part) is nn.Parameter and part.device.type == "cpu" for part in named)
    # Of a second name's uses autograd's gradient would hold the share as well.
    return plain and not torch.is_autocast_enabled("cpu") and sum(part is W_hh for part in named) == 1
