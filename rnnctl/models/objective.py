"""From whatever a model returns to a loss: the user's own function, or one of ours on the steps that count."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnctl.errors import InputError, RnnctlError, ShapeError, hands_over
from rnnctl.losses import attached_target, require_loss, sequence_loss
from rnnctl.models.inputs import Given, Inputs, TimeFirst, inputs_of
from rnnctl.models.misfit import misfit, told
from rnnctl.models.returned import Picked, besides, listed, may_be_steps, part_named, picked

LENGTHS = ("lengths", "seq_lengths", "seq_lens", "input_lengths", "lens")


@dataclass(frozen=True)
class Objective:
    """What is differentiated.

    Attributes:
        x: inputs, shape (batch, time, input); or several, whose sequences have it.
        target: for the user's own function anything; else as for ``gradnorm``.
        loss, loss_at: as for ``gradnorm``; None where nobody asks for one: a loss that the model returns is then
            the one, else "mse" at the "last" step.
        loss_fn: takes (output, target) in place of both, output being what the model returned.
        lengths: real steps of every sequence, (batch,), where x is padded.
        output_key: which part of what the model returned is meant by the output, as for ``gradnorm``.
        time_first: whether the model takes (time, batch, ...); None: as of ``called``.
    """

    x: Tensor | Inputs
    target: Tensor | None = None
    loss: str | None = None
    loss_at: str | None = None
    loss_fn: Callable[[Any, Any], Tensor] | None = None
    lengths: Tensor | None = None
    output_key: str | int | None = None
    time_first: TimeFirst = None

    def __post_init__(self) -> None:
        require_loss(self.ours, "last" if self.loss_at is None else self.loss_at)
        if not isinstance(self.x, (Tensor, Inputs)) or len(self.x.shape) < 2:
            found = tuple(self.x.shape) if isinstance(self.x, Tensor) else type(self.x).__name__
            raise ShapeError(f"x must be a tensor of shape (batch, time, input); got {found}")
        batch, seq_len = self.x.shape[:2]
        if self.lengths is not None:
            require_lengths(self.lengths, batch, seq_len)

    @property
    def ours(self) -> str:
        """The name of our loss."""
        return "mse" if self.loss is None else self.loss

    @property
    def checked_axes(self) -> TimeFirst:
        """``time_first``, and by itself "checked": a gradient over the wrong axis is nobody's."""
        return "checked" if self.time_first is None else self.time_first

    @property
    def of_exchanged_axes(self) -> "Objective":
        """The same for a model whose steps are the sequences of x, shape (time, batch, ...) then.

        Raises:
            InputError: lengths, which are of the sequences as they were given.
        """
        if self.lengths is not None:
            raise InputError(
                "lengths count steps of sequences, and the model ran over the sequences themselves. Leave them out"
            )
        batch, seq_len = self.x.shape[:2]
        x = _turned(self.x) if isinstance(self.x, Tensor) else self.x.turned()
        over_time = self.target is not None and _is_over_time(self.target, batch, seq_len)
        return replace(self, x=x, target=_turned(self.target) if over_time else self.target)

    @hands_over
    def value(self, output: Any) -> Tensor:
        """The loss of what the model returned: a number that can be differentiated."""
        part = self.picked(output)
        if self.loss_fn is not None:
            found = self._by_theirs(part.part, self.loss_fn)
        else:
            found = part.part if part.is_own_loss else self._ours(part.part, besides(output, part.key))
        if not isinstance(found, Tensor) or found.numel() != 1:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ShapeError(f"the loss must be one number in a tensor; got {shape}")
        if not found.requires_grad:
            raise InputError("the loss does not depend on anything that takes a gradient (no_grad, or detached?)")
        # Of a single number there is no axis that could be lost by mistake.
        return found.squeeze()

    @hands_over
    def picked(self, output: Any) -> Picked:
        """The part of what the model returned that is differentiated, or given to the user's own function.

        Raises:
            InputError: as ``returned.picked``; options that a loss of the model's own would not hear.
        """
        if self.loss_fn is not None:
            name, part = (None, output) if self.output_key is None else part_named(output, self.output_key)
            return Picked(part, name)
        if self.output_key is None and may_be_steps(output, *self.x.shape[:2]):
            raise InputError(
                f"the model returned {len(output)} tensors of shape {tuple(output[0].shape)}, as many as there are "
                "steps, and may mean one by one. Return torch.stack(outputs, 1), or try --loss-fn or --output-key INDEX"
            )
        found = picked(output, self.output_key)
        if found.is_own_loss:
            self._require_heard(output, found)
        return found

    def _require_heard(self, output: Any, found: Picked) -> None:
        """Raise InputError where somebody asks for a loss of ours, and the model's own is the one."""
        asked = {"--loss": self.loss, "--loss-at": self.loss_at, "--target": self.target}
        values = {name: "" if isinstance(value, Tensor) else f" {value}" for name, value in asked.items()}
        unheard = [name + values[name] for name, value in asked.items() if value is not None]
        if unheard:
            raise InputError(
                f"the model's own loss is differentiated{_place(found)}, and {' and '.join(unheard)} would be ignored. "
                f"Leave it out, or name the output that it is for with --output-key; beside the loss there is "
                f"{listed(output, but=found.key)}"
            )

    @hands_over
    def _by_theirs(self, output: Any, loss_fn: Callable[[Any, Any], Tensor]) -> Any:
        return loss_fn(output, self.target)

    def at_every_step(self, output: Any) -> list[Tensor]:
        """L_k of every step k, whose sum is the loss at all steps."""
        y = self._batch_first(self.over_time(output).part)
        if y.dim() != 3 or tuple(y.shape[:2]) != self._extent(y):
            raise ShapeError(
                f"a loss at every step needs an output of shape (batch, time, output); got {tuple(y.shape)}"
            )
        steps = y.shape[1]
        target = attached_target(self.target, y, self.ours, steps)
        # The losses are means over steps, of which every step has its share; plain sums have none to take.
        share = 1.0 if self.ours == "sum" else 1.0 / steps
        return [share * sequence_loss(y[:, k : k + 1], target[:, k : k + 1], self.ours) for k in range(steps)]

    @hands_over
    def over_time(self, output: Any) -> Picked:
        """The output that losses at every step are put on; InputError where the model's own loss comes first."""
        found = replace(self, loss=None, loss_at=None, target=None).picked(output)
        if found.is_own_loss:
            raise InputError(
                f"a loss at every step needs an output over time; the model's own loss{_place(found)} is one number. "
                f"Name the output with --output-key; beside the loss there is {listed(output, but=found.key)}"
            )
        return found

    def _ours(self, output: Tensor, others: str) -> Tensor:
        y = self._batch_first(output)
        batch, seq_len = self._extent(y)
        _require_time_or_none(y, batch, seq_len, others)
        if self.loss_at == "all" and seq_len > 1 and (y.dim() == 2 or y.shape[1] == 1):
            raise InputError(
                f"--loss-at all would be ignored: the output, of shape {tuple(y.shape)}, is one of every sequence and "
                f"not of every step. Leave it out{others}"
            )
        if y.dim() == 2:
            # One output a sequence, without a time axis.
            y = y.unsqueeze(1)
        if self.lengths is not None and y.shape[1] == seq_len:
            return self._on_real_steps(y, self.lengths)
        at = y if self.loss_at == "all" else y[:, -1:]
        target = self.target if self.lengths is None else self._target_at_ends(self.lengths)
        return sequence_loss(at, attached_target(target, at, self.ours, seq_len), self.ours)

    def _on_real_steps(self, y: Tensor, lengths: Tensor) -> Tensor:
        steps, ends = torch.arange(y.shape[1], device=y.device), lengths.to(y.device)[:, None]
        target = attached_target(self.target, y, self.ours, y.shape[1])
        chosen = steps < ends if self.loss_at == "all" else steps == ends - 1
        # All real steps in a row, as of one sequence: a mean then counts each of them alike.
        return sequence_loss(y[chosen].unsqueeze(0), target[chosen].unsqueeze(0), self.ours)

    def _target_at_ends(self, lengths: Tensor) -> Tensor | None:
        """For a single output of every sequence: of a target over time what it has at the last real step."""
        target = self.target
        if target is None or not _is_over_time(target, *self.x.shape[:2]):
            return target
        return target[torch.arange(target.shape[0]), lengths - 1]

    def _extent(self, y: Tensor) -> tuple[int, int]:
        """Sequences and steps: of several inputs those of the first that goes with the output, as a decoder's does."""
        shapes = self.x.shapes if isinstance(self.x, Inputs) and self.lengths is None else [self.x.shape]
        pairs = [(shape[0], shape[1]) for shape in shapes]
        return next((pair for pair in pairs if tuple(y.shape[:2]) in (pair, pair[::-1])), pairs[0])

    def _batch_first(self, y: Tensor) -> Tensor:
        batch, seq_len = self._extent(y)
        # With as many steps as sequences the axes look alike: then it is taken to be laid out as x is.
        time_first = y.dim() == 3 and y.shape[:2] == (seq_len, batch) and seq_len != batch
        return y.transpose(0, 1) if time_first else y


@hands_over
def called(model: nn.Module, x: Given, lengths: Tensor | None, time_first: TimeFirst = None) -> Any:
    """What the model returns for x, with the lengths if its ``forward`` asks for them.

    Args:
        x: shape (batch, time, input); or all that the model takes, as of ``inputs_of``.
        lengths: real steps of every sequence, shape (batch,), or None.
        time_first: whether the model gets (time, batch, ...), and returns it; if None, that is so of a bare torch
            module that is not batch_first.
    Raises:
        InputError: the model takes something else, as far as that can be told from its error.
    """
    x, lengths = lengths_apart(model, x, lengths)
    inputs = x if isinstance(x, Inputs) else Inputs((x,))
    if takes_time_first(model) and time_first is not False:
        return _result(model, _time_first(inputs))
    name = takes_lengths(model)
    # A model that insists on lengths is told that no step is padding.
    if lengths is None and must_have_lengths(model) and not _holds(inputs, model, name):
        lengths = torch.full(inputs.shape[:1], inputs.shape[1])
    if lengths is not None and name is not None:
        inputs = replace(inputs, kwargs={**inputs.kwargs, name: lengths})
    return _result(model, inputs.turned() if time_first else inputs)


@hands_over
def _result(model: nn.Module, inputs: Inputs) -> Any:
    try:
        return model(*inputs.args, **inputs.kwargs)
    except Exception as error:
        said = misfit(model, inputs, error)
        if said is not None:
            raise said from None
        if not isinstance(error, RnnctlError):
            error.add_note(told(model, inputs))
        raise


def takes_time_first(model: nn.Module) -> bool:
    """Whether it is one of torch's layers by itself that says so."""
    return isinstance(model, nn.RNNBase) and not model.batch_first


def turned_back(output: Any, axes: Collection[tuple[int, int]], states: Collection[Tensor]) -> Any:
    """What a time-first model returned, with (batch, time, ...) in place of every (time, batch, ...) in it.

    Args:
        output: tensors of any shape, also in tuples, lists and mappings.
        axes: batch and time of the sequences that it may have; of numbers without features, they have to differ.
        states: tensors (layers, batch, ...), which stay as they are: there may be as many layers as steps.
    """
    if isinstance(output, Tensor):
        own = tuple(output.shape[:2])
        lies_so = own[::-1] in axes and (output.dim() > 2 or (output.dim() == 2 and own[0] != own[1]))
        return _turned(output) if lies_so and all(output is not each for each in states) else output
    if isinstance(output, Mapping):
        # A copy of the user's own class, which may answer to attributes as well.
        found: Any = copy(output)
        for key, part in output.items():
            found[key] = turned_back(part, axes, states)
        return found
    if isinstance(output, (tuple, list)) and not isinstance(output, PackedSequence):
        parts = [turned_back(part, axes, states) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    if is_dataclass(output) and not isinstance(output, type):
        found = copy(output)
        for name, part in vars(output).items():
            # Past a frozen one's guard: it is a copy, which nobody has seen yet.
            object.__setattr__(found, name, turned_back(part, axes, states))
        return found
    return output


def lengths_apart(model: nn.Module, x: Given, lengths: Tensor | None = None) -> tuple[Tensor | Inputs, Tensor | None]:
    """x without the lengths that may be among several inputs, and those: what they say of padding is for the loss, too.

    Args:
        x: as of ``called``, which gives the lengths back to the model by their name.
        lengths: given beside it, shape (batch,), or None.
    Raises:
        InputError: lengths among the inputs and beside them.
    """
    x = inputs_of(x)
    name = takes_lengths(model) if isinstance(x, Inputs) and isinstance(model, nn.Module) else None
    if isinstance(x, Tensor) or name is None or not _holds(x, model, name):
        return x, lengths
    names, others = list(inspect.signature(model.forward).parameters), dict(x.kwargs)
    place = names.index(name)
    found = others.pop(name) if name in others else x.args[place]
    if not isinstance(found, Tensor) or found.dim() != 1 or found.is_floating_point():
        return x, lengths
    if lengths is not None:
        raise InputError(f"{x.name} holds {name} already. Leave them out of it, or leave out lengths")
    # What comes after them is given by name as well.
    behind = dict(zip(names[place + 1 :], x.args[place + 1 :], strict=False))
    # On the CPU, as pack_padded_sequence takes them.
    return replace(x, args=x.args[:place], kwargs={**behind, **others}), found.cpu()


def _holds(inputs: Inputs, model: nn.Module, name: str | None) -> bool:
    """Whether a parameter of ``forward`` is among them."""
    names = list(inspect.signature(model.forward).parameters)
    return name is not None and (name in inputs.kwargs or name in names[: len(inputs.args)])


def of_one_length(model: nn.Module, x: Given) -> Tensor | Inputs:
    """x as of ``lengths_apart``, for a question that has no word for padding; InputError where some of it is."""
    x, lengths = lengths_apart(model, x)
    if lengths is not None:
        require_lengths(lengths, *x.shape[:2])
        if int(lengths.min()) < x.shape[1]:
            raise InputError(
                "flow and truncation take sequences of one length; got lengths from "
                f"{int(lengths.min())} to {x.shape[1]}. gradnorm takes several"
            )
    return x


def _time_first(inputs: Inputs) -> Inputs:
    """With its first argument as (time, batch, input) in place of (batch, time, input)."""
    if inputs.args:
        return replace(inputs, args=(_turned(inputs.args[0]), *inputs.args[1:]))
    kwargs = inputs.kwargs
    return replace(inputs, kwargs={name: _turned(kwargs[name]) if name == "input" else kwargs[name] for name in kwargs})


def _turned(part: Any) -> Any:
    """A tensor with its first two axes exchanged; a packed sequence has its own order."""
    return part.transpose(0, 1) if isinstance(part, Tensor) else part


def without_padding(target: Tensor | None, lengths: Tensor | None, seq_len: int) -> Tensor | None:
    """The target with 0 for padding: what stands there is no target, nor has it to be a class.

    Args:
        target: shape (batch, time, output), or (batch, time) of classes; any other is left as it is.
        lengths: real steps of every sequence, shape (batch,).
    """
    if target is None or lengths is None or not _is_over_time(target, lengths.shape[0], seq_len):
        return target
    padding = torch.arange(seq_len, device=target.device) >= lengths.to(target.device)[:, None]
    return target.masked_fill(padding.view(*padding.shape, *[1] * (target.dim() - 2)), 0)


@hands_over
def backward(loss: Tensor, model: nn.Module, *, again: bool = False) -> None:
    """Run the backward pass of a model, its ``.grad`` left alone.

    Args:
        loss: shape ().
        again: another one is to follow.
    """
    parameters: Sequence[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Some parameters may not be used by this loss, which is no fault of the model's.
    torch.autograd.grad(loss, parameters, retain_graph=again, allow_unused=True)


def takes_lengths(model: nn.Module) -> str | None:
    """The name of the parameter by which ``forward`` takes lengths, if any."""
    parameters: Mapping[str, Any] = inspect.signature(model.forward).parameters
    return next((name for name in LENGTHS if name in parameters), None)


def require_takes_lengths(model: nn.Module) -> None:
    """Raise InputError for lengths beside a loss of the model's own, which then knows nothing of them."""
    if takes_lengths(model) is None:
        raise InputError(
            "the model's own loss is differentiated, and its forward takes no lengths: it counts padding as it likes. "
            "Name the output that the lengths are for with --output-key, or leave them out"
        )


def must_have_lengths(model: nn.Module) -> bool:
    """Whether ``forward`` cannot be called without lengths."""
    name = takes_lengths(model)
    return name is not None and inspect.signature(model.forward).parameters[name].default is inspect.Parameter.empty


def _place(found: Picked) -> str:
    """Where it stands in what the model returned, in brackets."""
    return "" if found.key is None else f" ({found.key})"


def _is_over_time(target: Tensor, batch: int, seq_len: int) -> bool:
    """Whether it is (batch, time, output), or (batch, time) of classes."""
    axes = 3 if target.is_floating_point() else 2
    return target.dim() == axes and tuple(target.shape[:2]) == (batch, seq_len)


def _require_time_or_none(y: Tensor, batch: int, seq_len: int, others: str) -> None:
    """Raise ShapeError unless y is clearly (batch, time, output) or (batch, output); ``others`` tell what else is."""
    fits = y.dim() in (2, 3) and y.shape[0] == batch and (y.dim() == 2 or y.shape[1] in (1, seq_len))
    if not fits:
        raise ShapeError(
            f"--loss and --target take an output of shape ({batch}, {seq_len}, output) or ({batch}, output); got "
            f"{tuple(y.shape)}. Try --loss-fn{others}"
        )
    if y.dim() == 2 and y.shape[1] == seq_len > 1:
        raise ShapeError(
            f"an output of shape {tuple(y.shape)} may be (batch, time) or (batch, output). Give it an axis of outputs, "
            f"(batch, time, 1), or try --loss-fn{others}"
        )


def require_lengths(lengths: Tensor, batch: int, seq_len: int) -> None:
    """Raise ShapeError or InputError unless these are real steps of every sequence, of shape (batch,)."""
    if tuple(lengths.shape) != (batch,) or lengths.is_floating_point():
        raise ShapeError(
            f"lengths must be whole numbers of shape ({batch},); got {lengths.dtype} {tuple(lengths.shape)}"
        )
    low, high = (int(value) for value in lengths.aminmax())
    if low < 1 or high > seq_len:
        raise InputError(f"lengths must be from 1 to the {seq_len} steps of x; got values from {low} to {high}")
