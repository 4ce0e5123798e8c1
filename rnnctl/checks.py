"""Claims about this installation, each held against an independent computation."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rnnctl.cells import FullRNN
from rnnctl.errors import DtypeError, VerificationError
from rnnctl.gradients.autograd import clone_contributions, loop_reference
from rnnctl.gradients.gradnorm import GradNorms, own_gradnorm
from rnnctl.losses import LOSS_AT, attached_target, loss_steps, sequence_loss
from rnnctl.memory import require_memory, tape_bytes
from rnnctl.models.hand_written import Problem
from rnnctl.recurrence.nonlinearities import IN_TORCH
from rnnctl.results import Kind, Result, numbers
from rnnctl.view.shown import Shown

# Relative, per claim, at every step: far above rounding, far below any mistake.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True)
class CheckReport(Shown, Result):
    """One row per claim: claim, nonlinearity, loss_at, relative_error, tolerance, holds.

    Attributes:
        nonfinite_reason: of the first case that is not finite, so that no claim about it can hold, what is not, and
            whether float64 holds it; None where all are.
    """

    schema: ClassVar[str] = "check"
    kinds: ClassVar[Mapping[str, Kind]] = {
        **numbers("claims", "failed", "largest_relative_error"),
        # A pattern, of what is there where something is not finite alone.
        "nonfinite_reason*": str,
    }
    rows: tuple[Mapping[str, Any], ...]
    nonfinite_reason: str | None = None

    @property
    def scalars(self) -> Mapping[str, Any]:
        """claims, failed, the largest relative error of all, and what is not finite, where something is."""
        errors = [row["relative_error"] for row in self.rows]
        return {
            "claims": len(self.rows),
            "failed": sum(not row["holds"] for row in self.rows),
            # NaN where one of them is, whatever its place.
            "largest_relative_error": max(errors, key=lambda error: (math.isnan(error), error)),
            **({} if self.nonfinite_reason is None else {"nonfinite_reason": self.nonfinite_reason}),
        }

    def require_all(self) -> None:
        """Raise VerificationError, naming the claims, if one does not hold."""
        failed = [f"{row['claim']} ({row['nonlinearity']}, {row['loss_at']})" for row in self.rows if not row["holds"]]
        if failed:
            because = "" if self.nonfinite_reason is None else f". {self.nonfinite_reason}"
            claims = f"{len(failed)} of {len(self.rows)} claims do not hold: {'; '.join(failed)}"
            raise VerificationError(f"{claims}{because}")


def check(
    model: FullRNN,
    x: Tensor,
    *,
    target: Tensor | None = None,
    loss: str = "mse",
    h_init: Tensor | None = None,
    nonlinearities: tuple[str, ...] = IN_TORCH,
    progress: Callable[[float], None] | None = None,
) -> CheckReport:
    """Hold the model and the reverse sweep against ``nn.RNN`` and against autograd.

    Args:
        model: its weights are used for every nonlinearity; nothing of it is changed.
        x: shape (batch, time, input).
        h_init: shape (batch, hidden); zeros if left out.
        target, loss: as in ``gradnorm``.
        nonlinearities: which f_h to check; where nn.RNN has none of that name, against autograd alone.
        progress: called with the fraction of the cases that are done.
    Raises:
        DtypeError: float32 and float64 only; below that, rounding hides mistakes.
        InputError: as ``gradnorm``.
    """
    if x.dtype not in TOLERANCES:
        raise DtypeError(f"check needs float64 or float32; got {x.dtype}")
    model.check_sequence(x, h_init)
    tolerance = TOLERANCES[x.dtype]
    seq_len, hidden = x.shape[1], model.rnn_cell.hidden_size
    # With the tape over them, which the claim about one W_hh takes once more by itself.
    needed = 4 * seq_len * hidden**2 * x.element_size() + tape_bytes(seq_len, x.shape[0] * hidden * x.element_size())
    require_memory(needed, f"{seq_len} clones of W_hh and their gradients")
    start = model.initial_state(x) if h_init is None else h_init
    cases = list(product(nonlinearities, LOSS_AT))
    rows: list[Mapping[str, Any]] = []
    reasons: list[str] = []
    for done, (nonlinearity, loss_at) in enumerate(cases, start=1):
        with torch.random.fork_rng(devices=[]):
            twin = _with_nonlinearity(model, nonlinearity)
        case = {"nonlinearity": nonlinearity, "loss_at": loss_at}
        problem = Problem(twin, x, start, target, loss, loss_at)
        swept = own_gradnorm(problem)
        if not swept.is_finite:
            reasons.append(f"Of {nonlinearity}, loss at {loss_at}, {swept.judged.reason}")
        for claim, error in _errors(problem, swept):
            measured = {"relative_error": error, "tolerance": tolerance, "holds": error <= tolerance}
            rows.append({"claim": claim, **case, **measured})
        if progress is not None:
            progress(done / len(cases))
    return CheckReport(tuple(rows), next(iter(reasons), None))


def _errors(problem: Problem, swept: GradNorms) -> Iterator[tuple[str, float]]:
    """Each claim with its largest relative error."""
    model = problem.model
    if model.rnn_cell.nonlinearity in IN_TORCH:
        with torch.random.fork_rng(devices=[]):
            torch_twin = _TorchTwin(model)
        own = [*_parameters(model.rnn_cell), *_parameters(model.hidden_to_output)]
        ours = _outputs_and_gradients(model, own, problem)
        theirs = _outputs_and_gradients(torch_twin, _parameters(torch_twin), problem)
        yield "FullRNN's outputs are nn.RNN's", _relative(ours[0], theirs[0])
        yield "all gradients are nn.RNN's", max(map(_relative, ours[1:], theirs[1:]))
    clones = clone_contributions(problem)
    expected = _norms(clones.flatten(1))
    yield "every ||G_t|| is that of T clones", _largest_relative(swept.grad_norm_W_hh, expected, problem.x.dtype)
    reference = loop_reference(problem)
    yield "sum G_t is W_hh.grad", _relative(swept.grad_W_hh, reference.grad_W_hh)


class _TorchTwin(nn.Module):
    """``nn.RNN`` with the model's weights, and the model's readout."""

    def __init__(self, model: FullRNN) -> None:
        super().__init__()
        cell, readout = model.rnn_cell, model.hidden_to_output
        has_bias = readout.bias is not None
        like = {"device": readout.weight.device, "dtype": readout.weight.dtype}
        self.rnn = nn.RNN(
            cell.input_size,
            cell.hidden_size,
            nonlinearity=cell.nonlinearity,
            bias=has_bias,
            batch_first=True,
            **like,
        )
        self.linear = nn.Linear(cell.hidden_size, model.output_size, has_bias, **like)
        self.output_activation = model.output_activation
        sources = (*_parameters(cell), *_parameters(readout))
        with torch.no_grad():
            for target, source in zip(_parameters(self), sources, strict=True):
                target.copy_(source)

    def forward(self, x: Tensor, h_init: Tensor) -> Tensor:
        h, _ = self.rnn(x, h_init.unsqueeze(0))
        y: Tensor = self.output_activation(self.linear(h))
        return y


def _parameters(module: nn.Module) -> list[Tensor]:
    """Weights before biases within a layer, in the order W_xh, W_hh, b_xh, b_hh, W_hy, b_y."""
    named = sorted(module.named_parameters(), key=lambda item: ("linear" in item[0], "bias" in item[0]))
    return [parameter for _, parameter in named]


def _outputs_and_gradients(network: nn.Module, parameters: Sequence[Tensor], problem: Problem) -> list[Tensor]:
    """y of the network, then the gradients of x, of h_init and of the parameters, which are in one order for both."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (problem.x, problem.h_init)]
    with torch.enable_grad():
        y = network(*leaves)
        seq_len = y.shape[1]
        attached = y[:, seq_len - loss_steps(seq_len, problem.loss_at) :]
        target = attached_target(problem.target, attached, problem.loss, seq_len)
        grads = torch.autograd.grad(sequence_loss(attached, target, problem.loss), [*leaves, *parameters])
    return [y.detach(), *grads]


def _with_nonlinearity(model: FullRNN, nonlinearity: str) -> FullRNN:
    """A copy with the same weights and another f_h."""
    cell, weight = model.rnn_cell, model.hidden_to_output.weight
    twin = FullRNN(
        cell.input_size,
        cell.hidden_size,
        model.output_size,
        nonlinearity=nonlinearity,
        bias=model.hidden_to_output.bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    twin.output_activation = model.output_activation
    twin.load_state_dict(model.state_dict())
    return twin


def _relative(found: Tensor, expected: Tensor) -> float:
    """||found - expected|| / ||expected||; 0 where both are 0."""
    found, expected = found.detach().double(), expected.detach().double()
    error, norm = (float(_norms(tensor.reshape(1, -1))) for tensor in (found - expected, expected))
    return error / norm if norm > 0 else error


def _norms(rows: Tensor) -> Tensor:
    """Norm of every row, float64 on the CPU; scaled, since squares of float64 leave its range, too."""
    rows = rows.detach().double().cpu()
    largest = rows.abs().amax(dim=1, keepdim=True)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    norms: Tensor = scale.squeeze(1) * (rows / scale).norm(dim=1)
    return norms


def _largest_relative(found: Tensor, expected: Tensor, dtype: torch.dtype) -> float:
    """The largest relative error over the entries, of those that autograd could still resolve."""
    limits = torch.finfo(dtype)
    # Below, the clones' own gradients are subnormal or 0, while the sweep's are not.
    resolved = expected.clamp_min(1e3 * limits.tiny / limits.eps)
    return float(((found - expected).abs() / resolved).max())
